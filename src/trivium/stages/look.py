"""Looking into a training stage before it runs: a batch as the model sees it, and the memory that a step needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.model.folder import read_config
from trivium.pipeline import prepared
from trivium.recipe import Recipe
from trivium.stages.common import PackedEpochs
from trivium.stages.dpo import DirectPreference
from trivium.stages.pretrain import LanguageModelling
from trivium.stages.reward import Ranking, add_pairs
from trivium.stages.settings import Dpo, Pretrain, Reward, Sft, Tokenizer, Training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, make_batch
from trivium.training.estimate import Memory, estimate
from trivium.training.machine import choose_device, choose_precision


def tokens_of(recipe: Recipe, name: str, step: int) -> Iterator[dict[str, Any]]:
    """Every token of the batch that stage ``name`` learns from at ``step``, row by row, padding left out: ``row``, ``place``,
    ``position`` along its branch, ``segment`` and the segment that this one ``continues``, ``id``, ``text``, and whether it
    carries ``loss``."""
    stage, context = prepared(recipe, name)
    module = importlib.import_module(f"trivium.stages.{stage.kind}")
    if not hasattr(module, "training_data"):
        raise TriviumError(f"--stage {name}: a stage of kind {stage.kind!r} has no batches of its own to look at")
    data: tuple[PackedEpochs, ChatTokenizer] = module.training_data(stage, context)
    batches, tokenizer = data
    if step < 0:
        raise TriviumError(f"--step {step}: steps count from 0")
    batch = batches(step)[0]
    learned = {int(place) for place in batch.places}
    for row in range(batch.tokens.shape[0]):
        for place in range(batch.tokens.shape[1]):
            segment, parent = int(batch.documents[row, place]), int(batch.parents[row, place])
            if segment >= 0:
                token = int(batch.tokens[row, place])
                yield {"row": row, "place": place, "position": int(batch.positions[row, place]), "segment": segment,
                       "continues": parent if parent >= 0 else None, "id": token, "text": tokenizer.decode([token]),
                       "loss": row * batch.tokens.shape[1] + place in learned}


def memory_of(recipe: Recipe, name: str, processes: int) -> tuple[Memory, str]:
    """The memory that a training step of stage ``name`` needs in each of ``processes``, and the number format; nothing of the
    run needs to be there. Rows are taken to be full, and every token of a response to carry loss."""
    if name not in recipe.stages:
        raise TriviumError(f"--stage {name}: the recipe has no such stage; it has {', '.join(recipe.stages)}")
    stage = recipe.stages[name]
    if not isinstance(stage, (Pretrain, Sft, Reward, Dpo)):
        raise TriviumError(f"--stage {name}: a stage of kind {stage.kind!r} is not trained by the one loop; its memory is not predicted")
    if getattr(stage, "adapter", None) is not None:
        raise TriviumError(f"--stage {name}: memory is not predicted with an adapter (PyTorch's tracker wants a gradient of every weight); without one it "
                           "is an upper bound")
    if processes < 1 or stage.rows < processes // stage.parallel.tensor_parallel:
        raise TriviumError(f"--processes {processes}: a batch of {stage.rows} rows cannot be shared by so many")
    config = config_of(recipe, stage)
    precision = choose_precision(stage.precision, choose_device())
    rows = -(-stage.rows // max(1, processes // stage.parallel.tensor_parallel))
    batch = full_batch(stage, min(rows, stage.parallel.rows or rows), min(stage.length, config.max_positions))
    objective: Any = LanguageModelling()
    kind: Any = LanguageModel
    if isinstance(stage, Reward):
        objective, kind = Ranking(), RewardModel
    elif isinstance(stage, Dpo):
        objective = DirectPreference(stage)
    return estimate(lambda: kind(config), objective, batch, stage.optimization, stage.parallel, precision, processes), precision


def config_of(recipe: Recipe, stage: Training) -> ModelConfig:
    """The shape of the model that a stage trains: its own, that of the stage it starts from, or that of a folder."""
    if isinstance(stage, Pretrain):
        tokenizer = recipe.stages.get(stage.tokenizer)
        size = tokenizer.vocab_size if isinstance(tokenizer, Tokenizer) else ChatTokenizer.load(Path(stage.tokenizer)).vocab_size
        return replace(stage.model, vocab_size=size)
    start = str(getattr(stage, "model"))  # noqa: B009
    earlier = recipe.stages.get(start)
    return config_of(recipe, earlier) if isinstance(earlier, Training) else read_config(Path(start))[0]


def full_batch(stage: Training, rows: int, length: int) -> Batch:
    """Full rows: documents of the whole length, or prompts with four responses."""
    if not isinstance(stage, (Reward, Dpo)):
        return make_batch([[Tree(np.zeros(1, np.int64), (np.zeros(length - 1, np.int64),))] for _ in range(rows)], length)
    each = max(1, length // 5)
    responses = tuple(np.zeros(each, np.int64) for _ in range(4))
    batch = make_batch([[Tree(np.zeros(max(1, length - 4 * each), np.int64), responses, payload=[[0], [1], [2], [3]])]
                        for _ in range(rows)], length)
    add_pairs(batch)
    if isinstance(stage, Dpo):
        batch.extra["reference"] = batch.extra["pair_weights"].new_zeros(len(batch.ends))
    return batch
