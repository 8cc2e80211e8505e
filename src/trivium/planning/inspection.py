"""Looking into a training stage before it runs: a batch as the model sees it, and the memory that a step needs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError, nearest
from trivium.pipeline.one_stage import cores, prepared
from trivium.pipeline.projects import laid_out
from trivium.planning.this_machine import take_sample
from trivium.recipe.load import Recipe
from trivium.stage import Context, Stage
from trivium.stages.cost import Estimate, Unforeseen
from trivium.stages.outlook import Step
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch
from trivium.training.epochs import PackedEpochs
from trivium.training.estimate import Memory, estimate


def tokens_of(recipe: Recipe, name: str, step: int, file: str = "RECIPE",
              sample: bool = False) -> Iterator[dict[str, Any]]:
    """Every token of the batch that stage ``name`` learns from at ``step``, row by row, padding left out: ``row``,
    ``place``, ``position`` along its branch, ``segment`` and the segment that this one ``continues``, ``id``, ``text``,
    and whether it carries ``loss``. Where another token is to be guessed than the one that stands there, ``target`` is
    its text; of labelled texts there is the ``label``; of pairs the ``side``, all sources of a row before its
    targets. ``file`` is the recipe's, for errors. With ``sample`` nothing of the run needs to be there: what the stage
    reads is made of a sample of the data."""
    with look(recipe, name, sample, file) as (stage, context):
        try:
            data: tuple[PackedEpochs, ChatTokenizer] = stage.training_data(context)
        except TriviumError as error:
            raise TriviumError(f"--stage {name}: {error}") from error
        yield from tokens_in(*data, step)


@contextlib.contextmanager
def look(recipe: Recipe, name: str, sample: bool, file: str) -> Iterator[tuple[Stage, Context]]:
    """A stage and what it would be given: what the run has made, or a sample of it that lasts as long as this."""
    if not sample:
        yield prepared(recipe, name, file)
        return
    if name not in recipe.stages:
        raise TriviumError(f"--stage {name}: the recipe has no such stage{nearest(name, recipe.stages)}")
    with tempfile.TemporaryDirectory() as folder:
        recipe = laid_out(recipe, Path(folder))
        known = Estimate(recipe.stages, recipe.name, recipe.seed, cores(recipe), Path(folder))
        take_sample(known)
        stage = recipe.stages[name]
        try:
            context = known.context(stage)
        except Unforeseen as error:
            raise TriviumError(f"--stage {name}: {error}") from error
        yield stage.settled(context.inputs), context


def tokens_in(batches: PackedEpochs, tokenizer: ChatTokenizer, step: int) -> Iterator[dict[str, Any]]:
    """The tokens of a batch, as :func:`tokens_of` gives them."""
    if step < 0:
        raise TriviumError(f"--step {step}: steps count from 0")
    batch = batches(step)[0]
    learned = dict(zip(batch.places.tolist(), batch.targets.tolist(), strict=True))
    for row in range(batch.tokens.shape[0]):
        if "documents" in batch.extra:
            yield from sources_of(batch, row, tokenizer)
        for place in (batch.documents[row] >= 0).nonzero()[:, 0].tolist():
            segment, parent, token = (int(values[row, place])
                                      for values in (batch.documents, batch.parents, batch.tokens))
            wanted = learned.get(row * batch.tokens.shape[1] + place)
            picture = "pixels" in batch.extra and token == tokenizer.pad_id
            yield {
                "row": row, "place": place, "position": int(
                    batch.positions[row, place]), "segment": segment, "continues": parent if parent >= 0 else None,
                "id": token, "text": "(picture)" if picture else tokenizer.decode([token]), "loss": wanted is not None,
                **({"target": tokenizer.decode([wanted])} if wanted not in (None, token) else {}),
                **({"label": batch.trees[segment].payload} if "labels" in batch.extra else {}),
                **({"side": "target"} if "documents" in batch.extra else {})
            }


def sources_of(batch: Batch, row: int, tokenizer: ChatTokenizer) -> Iterator[dict[str, Any]]:
    """The tokens that an encoder-decoder reads in a row of a batch, as :func:`tokens_of` gives them."""
    tokens, positions, documents = (batch.extra[name][row] for name in ("tokens", "positions", "documents"))
    for place in (documents >= 0).nonzero()[:, 0].tolist():
        token = int(tokens[place])
        yield {
            "row": row, "place": place, "position": int(positions[place]), "segment": int(documents[place]),
            "continues": None, "id": token, "text": tokenizer.decode([token]), "loss": False, "side": "source"
        }


def memory_of(recipe: Recipe, name: str, processes: int) -> tuple[Memory, str]:
    """The memory that a training step of stage ``name`` needs in each of ``processes``, and the number format; nothing
    of the run needs to be there."""
    step = step_of(recipe, name, processes)
    return estimate(step.models, step.objective, step.batches, step.optimization, step.parallel, step.precision,
                    processes), step.precision


def step_of(recipe: Recipe, name: str, processes: int) -> Step:
    """An update of stage ``name`` in one of ``processes``. Rows are taken to be full, and every token of a response to
    carry loss. Raises :class:`TriviumError` for a stage that trains nothing, or does not say what an update holds, and
    for more processes than can share one."""
    if name not in recipe.stages:
        raise TriviumError(f"--stage {name}: the recipe has no such stage; it has {', '.join(recipe.stages)}")
    stage = recipe.stages[name]
    try:
        stage.check_processes(processes)
    except TriviumError as error:
        raise TriviumError(f"--processes {processes}: {error}") from error
    step = stage.training_step(Estimate(recipe.stages, recipe.name, recipe.seed), processes)
    if step is None:
        raise TriviumError(f"--stage {name}: the memory of a stage of kind {stage.kind!r} is not predicted")
    return step
