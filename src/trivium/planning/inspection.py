"""Looking into a training stage before it runs: a batch as the model sees it, and the memory that a step needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.model.adapters import attach
from trivium.model.load import read_config
from trivium.model.transformer import sharing
from trivium.pipeline.run import prepared
from trivium.recipe.load import Recipe
from trivium.stages.data.tokenizer import Tokenizer
from trivium.stages.finetuning.sft import Sft
from trivium.stages.preferences.dpo import DirectPreference, Dpo
from trivium.stages.preferences.reward import Ranking, Reward, add_pairs
from trivium.stages.pretraining.pretrain import LanguageModelling, Pretrain
from trivium.stages.reinforcement.ppo import ClippedSurrogate, PolicyAndValue, Ppo, split_by_model
from trivium.stages.training import Looped, Training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, make_batch, pack
from trivium.training.epochs import PackedEpochs
from trivium.training.estimate import Memory, estimate
from trivium.training.machine import Precision, choose_device, choose_precision


def tokens_of(recipe: Recipe, name: str, step: int) -> Iterator[dict[str, Any]]:
    """Every token of the batch that stage ``name`` learns from at ``step``, row by row, padding left out: ``row``,
    ``place``, ``position`` along its branch, ``segment`` and the segment that this one ``continues``, ``id``, ``text``,
    and whether it carries ``loss``. Where another token is to be guessed than the one that stands there, ``target`` is
    its text; of labelled texts there is the ``label``; of pairs the ``side``, all sources of a row before its
    targets."""
    stage, context = prepared(recipe, name)
    try:
        data: tuple[PackedEpochs, ChatTokenizer] = stage.training_data(context)
    except TriviumError as error:
        raise TriviumError(f"--stage {name}: {error}") from error
    batches, tokenizer = data
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


@dataclass(frozen=True)
class Step:
    """What a process goes through in one update of a stage."""

    stage: Looped
    precision: Precision
    models: Callable[[], tuple[Any, list[Any]]]
    """Makes the model that is trained, and those that are held beside it."""
    objective: Any
    batches: list[Batch]
    """Its microbatches; of more than two alike, two."""


def memory_of(recipe: Recipe, name: str, processes: int) -> tuple[Memory, str]:
    """The memory that a training step of stage ``name`` needs in each of ``processes``, and the number format; nothing
    of the run needs to be there."""
    step = step_of(recipe, name, processes)
    return estimate(step.models, step.objective, step.batches, step.stage.optimization, step.stage.parallel,
                    step.precision, processes), step.precision


def step_of(recipe: Recipe, name: str, processes: int) -> Step:
    """An update of stage ``name`` in one of ``processes``. Rows are taken to be full, and every token of a response to
    carry loss; PPO's responses to be of the greatest length, and its prompts as long as they."""
    if name not in recipe.stages:
        raise TriviumError(f"--stage {name}: the recipe has no such stage; it has {', '.join(recipe.stages)}")
    stage = recipe.stages[name]
    if not isinstance(stage, (Pretrain, Sft, Reward, Dpo, Ppo)):
        raise TriviumError(
            f"--stage {name}: memory is predicted of pretrain, sft, reward, dpo and ppo, not of a stage of kind "
            f"{stage.kind!r}"
        )
    adapter = getattr(stage, "adapter", None)
    if adapter is not None and processes > 1:
        raise TriviumError(f"--processes {processes}: adapters are trained in one process")
    shared = stage.episodes if isinstance(stage, Ppo) else stage.rows
    parts = max(1, processes // stage.parallel.tensor_parallel)
    if processes < 1 or shared < parts:
        raise TriviumError(
            f"--processes {processes}: a batch of {shared} {'prompts' if isinstance(stage, Ppo) else 'rows'} cannot be "
            "shared by so many"
        )
    config = config_of(recipe, stage)
    precision = choose_precision(stage.precision, choose_device())
    length = min(stage.length, config.max_positions)
    objective: Any = LanguageModelling()
    if isinstance(stage, Ppo):
        objective, batches = ClippedSurrogate(stage), practice_batches(stage, parts, length)
    else:
        rows = -(-stage.rows // parts)
        each = min(rows, stage.parallel.rows or rows)
        batches = [full_batch(stage, each, length)] * min(2, -(-rows // each))
        if isinstance(stage, Reward):
            objective = Ranking()
        elif isinstance(stage, Dpo):
            objective = DirectPreference(stage)

    def models() -> tuple[Any, list[Any]]:
        model = LanguageModel(config)
        reward: RewardModel | None = None
        if isinstance(stage, Ppo):
            judge = recipe.stages.get(stage.reward) if isinstance(stage.reward, str) else None
            beside = judge.adapter if adapter is not None and isinstance(
                judge, Reward) and judge.model == stage.model else None
            reward = sharing(model).rewarding(0) if beside else RewardModel(config)
            if beside:
                attach(reward, beside, 0)
        if adapter is not None:
            attach(model, adapter, 0)
        if isinstance(stage, Reward):
            return model.rewarding(0, share=adapter is not None), []
        if reward is None:
            return model, []
        # one trunk is policy and reference, and value model and reward model too where that is an adapter on it
        if adapter is not None:
            value = reward.twin()
            attach(value, adapter, 0)
            value.score.requires_grad_(True)
            return PolicyAndValue(model, value), [reward]
        pair = PolicyAndValue(model, copy.deepcopy(reward))
        return pair, [reward, copy.deepcopy(model), *([copy.deepcopy(pair)] if processes > 1 else [])]

    return Step(stage, precision, models, objective, batches)


def practice_batches(stage: Ppo, parts: int, length: int) -> list[Batch]:
    """What an update of PPO goes through: documents, where it goes on with pretraining, and a minibatch of
    responses."""
    response = min(stage.max_new_tokens, length - 1)
    tree = Tree(np.zeros(min(response, length - response), np.int64), (np.zeros(response, np.int64),))
    packed = pack([len(tree)] * -(-stage.episodes // (stage.minibatches * parts)), length)
    each = min(len(packed), stage.parallel.rows or len(packed))
    batch = make_batch([[tree] * len(row) for row in packed[:each]], length)
    batch.extra = {name: torch.zeros(len(batch.targets)) for name in ("log_probs", "values", "advantages", "returns")}
    responses = split_by_model([batch]) * min(2, -(-len(packed) // each))
    if stage.pretraining is None:
        return responses
    documents = make_batch([[Tree(np.zeros(1, np.int64),
                                  (np.zeros(length - 1, np.int64),))]] * -(-stage.pretraining_rows // parts), length)
    return [documents, *responses]


def config_of(recipe: Recipe, stage: Training) -> ModelConfig:
    """The shape of the model that a stage trains: its own, that of the stage it starts from, or that of a folder."""
    if isinstance(stage, Pretrain):
        tokenizer = recipe.stages.get(stage.tokenizer)
        size = tokenizer.vocab_size if isinstance(tokenizer, Tokenizer) else ChatTokenizer.load(Path(
            stage.tokenizer)).vocab_size
        return replace(stage.model, vocab_size=size)
    start = str(getattr(stage, "model"))  # noqa: B009
    earlier = recipe.stages.get(start)
    return config_of(recipe, earlier) if isinstance(earlier, Training) else read_config(Path(start))[0]


def full_batch(stage: Training, rows: int, length: int) -> Batch:
    """Full rows: documents of the whole length, or prompts with four responses."""
    if not isinstance(stage, (Reward, Dpo)):
        return make_batch([[Tree(np.zeros(1, np.int64), (np.zeros(length - 1, np.int64),))] for _ in range(rows)],
                          length)
    each = max(1, length // 5)
    responses = tuple(np.zeros(each, np.int64) for _ in range(4))
    batch = make_batch([[Tree(np.zeros(max(1, length - 4 * each), np.int64), responses, payload=[[0], [1], [2], [3]])]
                        for _ in range(rows)], length)
    add_pairs(batch)
    if isinstance(stage, Dpo):
        batch.extra["reference"] = batch.extra["pair_weights"].new_zeros(len(batch.ends))
    return batch
