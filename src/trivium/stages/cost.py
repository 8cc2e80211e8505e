"""The prediction of a recipe's time, as its stages are asked for it.

A stage offers :meth:`~trivium.stage.Stage.cost`. It is given an :class:`Estimate`, which knows what the other stages
will leave, holds a sample of the data, and times what the stage asks for: updates, answers, passes without gradients.
Each shape is timed once. Models that are not there yet are stood in for by random ones."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium import randomness
from trivium.errors import TriviumError
from trivium.files import Row, write_bytes
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, ModelConfig
from trivium.model.folder import read_config
from trivium.model.gguf.read import opened
from trivium.objectives.language_modeling import token_log_probs
from trivium.progress import Progress
from trivium.stage import Context, Stage, nested
from trivium.stages.outlook import Cost as Cost
from trivium.stages.outlook import Outlook, Rankings
from trivium.stages.rows import rows_of
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, hidden_states, map_trees
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import choose_device
from trivium.training.saving import LEAST, SHARE
from trivium.training.settings import NumberFormat
from trivium.training.trainer import Trainer
from trivium.world import rubric

UNKNOWN = [Tree(np.zeros(40, np.int64), (np.zeros(40, np.int64),))] * 64
"""The conversations of a recipe that says nothing of any."""


UNFORESEEN = "what stage {!r} would leave cannot be foreseen; run it first, and name its folder instead"


class Unforeseen(TriviumError):
    """What a stage will leave is needed, and cannot be said before it runs."""


@dataclass
class Estimate:
    """What is known of a recipe before it runs, and what is timed for its stages."""

    stages: Mapping[str, Stage]
    run_name: str = ""
    seed: int = 0
    threads: int = 1
    """Processor cores of the recipe."""
    root: Path = Path()
    """A folder for what is made on the way."""
    device: torch.device = field(default_factory=choose_device)
    folders: dict[str, Path] = field(default_factory=dict)
    """By stage: the artifact that the sample made, or what stands in for it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage: the time that it took on the sample."""
    factors: dict[str, float] = field(default_factory=dict)
    """By stage: how many times more data there is in the whole, where a sample was taken."""
    timed: dict[Any, float] = field(default_factory=dict)
    """Measured times, by what was measured."""
    outlooks: dict[str, Outlook] = field(default_factory=dict)

    # What the recipe says, and what its stages will leave.

    def name_of(self, stage: Stage) -> str:
        """The name of a stage of the recipe."""
        return next(name for name, known in self.stages.items() if known is stage)

    def cores(self, stage: Stage) -> int:
        """The processor cores that a stage uses."""
        return min(stage.threads or self.threads, self.threads)

    def factor(self, reference: str) -> float:
        """How many times more of a stage's data there is than in the sample."""
        return self.factors.get(reference, 1.0)

    def outlook(self, reference: str) -> Outlook:
        """What a stage will leave; nothing is known of a path."""
        if reference not in self.outlooks:
            stage = self.stages.get(reference)
            self.outlooks[reference] = (stage and stage.outlook(self)) or Outlook()
        return self.outlooks[reference]

    def config(self, reference: str) -> ModelConfig:
        """The shape of the language model of a stage or of a folder. Raises :class:`Unforeseen` where it cannot be
        said."""
        if reference not in self.stages:
            return read_config(Path(reference))[0]
        outlook = self.outlook(reference)
        if outlook.config is None and outlook.like is None:
            raise Unforeseen(UNFORESEEN.format(reference))
        return outlook.config or self.config(str(outlook.like))

    def vocab_size(self, reference: str) -> int:
        """The entries of the tokenizer of a stage or of a folder."""
        return self.outlook(reference).vocab_size or ChatTokenizer.load(self.folder(reference)).vocab_size

    def rankings(self, reference: str) -> Rankings:
        """The rankings of a stage; a usual number of them where it does not say."""
        return self.outlook(reference).rankings or Rankings()

    def folder(self, reference: str) -> Path:
        """What a stage leaves, or a path: the artifact of the sample, or a model with random weights of the shape that
        the stage's will have. Raises :class:`Unforeseen` where nothing is like it."""
        if reference not in self.stages or reference in self.folders:
            return self.folders.get(reference) or opened(Path(reference))
        place, like = self.stages[reference].stand_in(self), self.outlook(reference).like
        if place is None and like is None:
            raise Unforeseen(UNFORESEEN.format(reference))
        self.folders[reference] = place or self.folder(str(like))
        return self.folders[reference]

    def context(self, stage: Stage, name: str | None = None) -> Context:
        """What a stage would be given: inputs from the sample, random models, and a folder of its own. A stage that
        does not stand in the recipe needs the ``name`` of one that does."""
        name = name or self.name_of(stage)
        folder = self.root / "artifacts" / name
        folder.mkdir(parents=True, exist_ok=True)
        places = {where: self.folder(reference) for where, reference in stage.references()}
        return Context(self.run_name, name, self.seed, nested(stage, places), folder, self.scratch(name),
                       Progress(quiet=True), self.cores(stage))

    def scratch(self, name: str) -> Path:
        """A folder for what a stage needs on the way."""
        place = self.root / "work" / name / "scratch"
        place.mkdir(parents=True, exist_ok=True)
        return place

    def rows(self, reference: str, file: str, fields: list[str]) -> list[Row]:
        """The good rows of a stage's file of JSON lines."""
        nowhere = self.root / "nowhere"
        quiet = Context("", "", 0, {}, nowhere, nowhere, Progress(quiet=True), self.threads)
        return rows_of(self.folder(reference), file, fields, quiet)

    def tokenizer(self, reference: str) -> ChatTokenizer:
        """The tokenizer of a model: the sampled one, or that of the folder that the recipe starts from."""
        while (like := self.outlook(reference).like) is not None:
            reference = like
        for place in (*self.folders.values(), Path(reference)):
            if (place / "tokenizer.json").is_file():
                return ChatTokenizer.load(place)
        raise TriviumError("estimate: the recipe trains no tokenizer and starts from no model's folder")

    # What people say: some conversations, as token ids.

    @cached_property
    def conversations(self) -> list[Tree]:
        """Some conversations that the recipe learns from, a response each."""
        for name in self.stages:
            told = self.outlook(name).conversations
            with contextlib.suppress(Unforeseen):
                if told is not None:
                    return told()
        return UNKNOWN

    def dialogues(self, count: int, responses: int = 1, length: int | None = None) -> list[Tree]:
        """``count`` prompts with so many responses each, less those longer than ``length``; a tree's payload ranks its
        responses."""
        asked, said = ([tree.prompt for tree in self.conversations], [tree.responses[0] for tree in self.conversations])
        trees = [Tree(asked[i % len(asked)], tuple(said[(i * responses + j) % len(said)] for j in range(responses)),
                      payload=[[j] for j in range(responses)]) for i in range(count)]
        return [tree for tree in trees if length is None or len(tree) <= length]

    def mean_lengths(self) -> tuple[float, float]:
        """The mean number of tokens of a prompt, and of a response."""
        return (float(np.mean([len(tree.prompt) for tree in self.conversations])),
                float(np.mean([len(tree.responses[0]) for tree in self.conversations])))

    # What is measured.

    def once(self, key: Any, measure: Callable[[], float]) -> float:
        """A measured time with as many threads as torch has now. It is measured when it is first asked for."""
        key = (torch.get_num_threads(), key)
        if key not in self.timed:
            self.timed[key] = measure()
        return self.timed[key]

    def sampled(self, stage: Stage, growing: float) -> Cost:
        """The cost of a stage that ran on the sample. The share ``growing`` of its time grows with the data; the rest
        is beginnings: processes, tables, names."""
        name = self.name_of(stage)
        if name not in self.seconds:
            raise Unforeseen(f"stage {name!r} could not be run on the sample: it needs what cannot be foreseen")
        factor = self.factor(name)
        return Cost(self.seconds[name] * (1 + growing * (factor - 1)), f"a sample of 1/{factor:.3g}")

    def updates(self, key: Any, model: Callable[[], Any], objective: Any, batches: Any, optimization: Any,
                precision: NumberFormat) -> float:
        """Seconds of one update in a number format, in the mean of a few."""

        def measure() -> float:
            trainer = Trainer(model().to(self.device), optimization, 1000, precision)
            begun, times = time.monotonic(), list[float]()
            for step in range(14):
                at = time.monotonic()
                trainer.step(step, batches(step % batches.steps_per_epoch), objective)
                times.append(time.monotonic() - at)
                if len(times) > 4 and time.monotonic() - begun > 0.8:
                    break
            return statistics.mean(times[1:])

        return self.once((key, precision), measure)

    def saving(self, size: int) -> float:
        """Seconds to write a checkpoint of ``size`` parameters: weights and two means of AdamW in float32, on the disk
        of temporary files."""

        def measure() -> float:
            with tempfile.TemporaryDirectory() as folder:
                begun = time.monotonic()
                write_bytes(Path(folder) / "checkpoint", bytes(12 * size))
                return time.monotonic() - begun

        return self.once(("saving", size), measure)

    def training(self, steps: int, each: float, size: int) -> float:
        """Seconds of ``steps`` updates of ``size`` parameters, with the checkpoints, as if updates waited for them: one
        at the beginning, and one whenever that takes no more than a share of the time."""
        seconds = steps * each
        if not steps:
            return seconds
        save = self.saving(size)
        return seconds + save * (1 + seconds / max(LEAST, save / SHARE))

    def answers(self, model: str, count: float, longest: int, shots: int = 0) -> float:
        """Seconds to sample so many answers. The random model is made to stop at random, as often as demonstrations
        end; ``shots`` examples stand before each prompt."""
        config, together = self.config(model), 128 if count <= 128 else 256

        def measure() -> float:
            made = LanguageModel(config).initialise(0).to(self.device)
            shown = [part.tolist() for tree in self.dialogues(shots) for part in (tree.prompt, *tree.responses)]
            before, room = list(itertools.chain(*shown)), config.max_positions - longest - 1
            texts = [(before + tree.prompt.tolist())[-room:] for tree in self.dialogues(together)]
            ends = max(1, round(config.vocab_size / min(self.mean_lengths()[1], longest)))
            stop = randomness.numpy(0, "stop").permutation(config.vocab_size)[:ends]
            generate(made, texts[:2], Sampling(max_new_tokens=2), stop.tolist())
            begun = time.monotonic()
            generate(made, texts, Sampling(max_new_tokens=longest), stop.tolist())
            return time.monotonic() - begun

        return self.once(("answers", config, longest, together, shots), measure) * count / together

    def reading(self, config: ModelConfig, length: int) -> float:
        """Seconds for the log-probabilities of one answer."""
        trees = self.dialogues(64, length=length)

        def measure() -> float:
            policy = LanguageModel(config).initialise(0).to(self.device).eval()

            def log_probs(batch: Batch) -> torch.Tensor:
                hidden = hidden_states(policy.model, batch)[batch.sources]
                return token_log_probs(hidden, policy.lm_head.weight, batch.targets)

            begun = time.monotonic()
            map_trees(log_probs, trees, length, 16, self.device, per_token=True)
            return (time.monotonic() - begun) / len(trees)

        return self.once(("reading", config, length), measure)

    def judging(self, prompts: str) -> float:
        """Seconds in which the world's rubric judges an answer."""
        rows = self.rows(prompts, "prompts.jsonl", ["id", "prompt", "truth"])[:100]
        shown = self.rows(prompts, "demonstrations.jsonl", ["messages"])[:100]
        said = [row["messages"][-1]["content"] for row in shown]

        def measure() -> float:
            begun = time.monotonic()
            for row, text in zip(rows, said, strict=False):
                rubric.score(row, text)
            return (time.monotonic() - begun) / len(rows)

        return self.once(("judging", prompts), measure)


def steps_of(epochs: float, batches: PackedEpochs, factor: float = 1.0) -> int:
    """The updates of so many passes over ``factor`` times the sampled rows."""
    return round(epochs * math.ceil(batches.rows_per_epoch * factor / batches.rows))


def size_of(model: torch.nn.Module, trained: bool = False) -> int:
    """The parameters of a model; with ``trained``, of those alone that learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def weights_of(config: ModelConfig) -> int:
    """The parameters of a language model of that shape."""
    with torch.device("meta"):
        return size_of(LanguageModel(config))
