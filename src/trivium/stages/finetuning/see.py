"""Teaching a language model to see, in LLaVA's two steps (Liu et al. 2023, section 4.2): first the projector alone
learns to say in the model's own vectors what a picture shows, then the projector and the model learn to answer
questions about it. The encoder of pictures stays as it is."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError, counted
from trivium.files import Row, write_rows
from trivium.generation.engine import Sampling, generate
from trivium.intervals import mean_interval
from trivium.model.adapters.folder import weights_digest
from trivium.model.images import look
from trivium.model.vision import SeeingModel, load_vision
from trivium.objectives.language_modeling import token_log_probs
from trivium.stage import Context, Input, Title
from trivium.stages import defaults
from trivium.stages.cost import Estimate, size_of, steps_of
from trivium.stages.finetuning.sft import conversation
from trivium.stages.models import load_language_model, save_model, save_trained
from trivium.stages.outlook import Cost, Outlook
from trivium.stages.rows import rows_of
from trivium.stages.training import FromModel, run_training
from trivium.tokenizer.chat import ChatTokenizer, check_messages
from trivium.training.batch import Batch, Tree, hidden_states
from trivium.training.epochs import Limit, PackedEpochs, contents_of, fits
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total


class See(FromModel):
    """Teach a chat model to answer questions about pictures."""

    kind: ClassVar[str] = "see"
    version: ClassVar[int] = 4
    title: ClassVar[Title] = Title("learning to see", "学习看图", "teach")
    alone: ClassVar[bool] = True
    model: Input = "sft"
    """The chat model to start from, or one that already sees."""
    vision: Input | None = None
    """The stage with the encoder of pictures, for a model that does not see yet."""
    pictures: Input = "pictures"
    """A stage or a folder with `captions.jsonl`, `train.jsonl` and `heldout.jsonl`: chat messages whose contents hold
    pictures, as data URLs or as names of files in the folder."""
    rows_from: Literal["captions", "train"] = "train"
    """Learn from what pictures show (LLaVA's first step), or from questions about them (its second)."""
    train: list[Literal["projector", "decoder", "vision"]] = ["projector", "decoder"]
    """What learns; the rest stays as it is. LLaVA: the projector alone, then the projector and the decoder."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the rows."""
    examine: bool = True
    """Count right answers about held-out pictures, and again with the pictures blacked out."""

    def usual_settings(self, inputs: Mapping[str, Any]) -> tuple[defaults.Usual, int]:
        """As everywhere; a projector that learns alone may learn faster (LLaVA: 1e-3, and 2e-5 in its second step)."""
        known, parameters = super().usual_settings(inputs)
        row = "projector" if self.train == ["projector"] else "see"
        return replace(known, learning_rate=defaults.usual(row, parameters).learning_rate), parameters

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The batches, and the tokenizer that made them. A tree's payload is its pictures."""
        model, tokenizer = seeing_model(self, context)
        return batches_of(self, context, model, tokenizer), tokenizer

    def run(self, context: Context) -> dict[str, object]:
        """Train what ``train`` names, and count right answers about pictures that were never seen."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise TriviumError(f"{context.name}: models that see are trained in one process; start it without torchrun")
        device = prepare(context.threads)
        model, tokenizer = seeing_model(self, context)
        freeze(model.to(device), self.train)
        batches = batches_of(self, context, model, tokenizer)
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        context.progress.say(
            f"{trained:,} of {sum(p.numel() for p in model.parameters()):,} parameters are trained, "
            f"{counted(steps, 'step')}")
        outcome = run_training(model, AnswersAboutPictures(), batches, steps, self, context,
                               weights_digest(context.inputs["model"]),
                               contents_of([Tree(t.prompt, t.responses) for t in batches.trees]))
        seeing = outcome.model.eval()
        save_trained(seeing, None, tokenizer, context.inputs["model"], context, self.save_dtype)
        summary: dict[str, object] = {
            "rows": len(batches.trees), "steps": steps, "precision": outcome.precision,
            "loss": outcome.metrics.get("loss"), "length": batches.length, "rows_in_a_batch": batches.rows,
            "trained_parameters": trained
        }
        if self.examine:
            heldout = read(self, context, "heldout.jsonl", model, tokenizer)
            mistakes, summary["right"] = examine(seeing, tokenizer, heldout)
            _, summary["right_without_seeing"] = examine(
                seeing, tokenizer, [row | {"pixels": np.zeros_like(row["pixels"])} for row in heldout])
            write_rows(context.folder / "mistakes.jsonl", mistakes)
        return summary

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, after all pictures are opened, and the examination, once with the pictures and once without."""
        context, factor = estimate.context(self), estimate.factor(self.pictures)
        model, tokenizer = seeing_model(self, context)
        begun = time.monotonic()
        batches = batches_of(self, context, model, tokenizer)
        opening = time.monotonic() - begun
        steps = max(1, steps_of(self.epochs, batches, factor))
        shape = (model.config, model.vision.config)
        each = estimate.updates(("see", *shape, batches.length, batches.rows, tuple(self.train), self.rows_from),
                                lambda: freeze(model, self.train), AnswersAboutPictures(), batches, self.optimization,
                                self.number_format())
        seconds = estimate.training(steps, each, size_of(model, trained=True)) + factor * opening + 1.0
        if self.examine:
            rows = read(self, context, "heldout.jsonl", model, tokenizer)
            count = round(len(rows) * factor)

            def examine_some() -> float:
                some = [rows[i % len(rows)] for i in range(min(64, count))]
                begun = time.monotonic()
                examine(model.eval(), tokenizer, some)
                return (time.monotonic() - begun) * count / len(some)

            seconds += 2 * estimate.once(("examined", *shape, self.pictures), examine_some)
        return Cost.of_updates(seconds, steps, each, ", and the examination" if self.examine else "")

    def outlook(self, estimate: Estimate) -> Outlook:
        """A language model like the one it starts from."""
        return Outlook(like=self.model)

    def stand_in(self, estimate: Estimate) -> Path:
        """A model that sees, with random weights."""
        context = estimate.context(self)
        save_model(*seeing_model(self, context), context.folder)
        return context.folder


class AnswersAboutPictures(Objective):
    """Next-token prediction of the assistant's words, with pictures in the prompt."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over the assistant's tokens."""
        pixels = batch.extra.get("pixels")
        vectors = model.vectors(batch.tokens, None if pixels is None else model.pictures(pixels))
        hidden = hidden_states(model.model, batch, vectors)[batch.sources]
        return {"loss": Total(-token_log_probs(hidden, model.lm_head.weight, batch.targets).sum(), "tokens")}


def show(batch: Batch) -> None:
    """Give a batch its pictures, if it has any, in the order of their places; ``payload`` of each tree holds its
    own."""
    if any(len(tree.payload) for tree in batch.trees):
        batch.extra["pixels"] = torch.from_numpy(np.concatenate([tree.payload for tree in batch.trees]))




def batches_of(settings: See, context: Context, model: SeeingModel, tokenizer: ChatTokenizer) -> PackedEpochs:
    """The conversations to learn from."""
    limit = Limit(settings.length, model.config.max_positions, "conversations")
    trees = [
        replace(conversation(tokenizer, row["messages"], picture_places=model.picture_places), payload=row["pixels"])
        for row in read(settings, context, f"{settings.rows_from}.jsonl", model, tokenizer)
    ]
    kept = fits(trees, limit, context.progress.say)
    length, rows = settings.lay_out(context, list(map(len, kept)), limit.positions, settings.epochs)
    return PackedEpochs(kept, length, rows, context.seed, show)


def freeze(model: SeeingModel, trained: Sequence[str]) -> SeeingModel:
    """Freeze all but the parts that are named. Returns the model."""
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        parameter.requires_grad_((part if part in ("vision", "projector") else "decoder") in trained
                                 and not name.startswith(("vision.mask", "vision.paint")))
    return model




def seeing_model(settings: See, context: Context) -> tuple[SeeingModel, ChatTokenizer]:
    """The model to start from; one that reads text alone gets the encoder of ``vision`` and a new projector."""
    model, tokenizer = load_language_model(context.inputs["model"])
    if isinstance(model, SeeingModel):
        return model, tokenizer
    if type(tokenizer) is not ChatTokenizer:
        raise TriviumError(
            f"{context.inputs['model']}: pictures have a place in the chat template of this system's own models alone")
    if "vision" not in context.inputs:
        raise TriviumError(
            f"{context.name}: {context.inputs['model']} reads text alone; name a `vision` stage, whose encoder it gets")
    vision = load_vision(context.inputs["vision"])
    seeing = SeeingModel.from_language_model(model, vision.config, tokenizer.pad_id)
    seeing.vision = vision
    seeing.projector.initialise(randomness.derive(context.seed, "projector"))
    return seeing, tokenizer


def read(settings: See, context: Context, name: str, model: SeeingModel, tokenizer: ChatTokenizer) -> list[Row]:
    """The rows of a file with their pictures as ``pixels [N, channels, size, size]``; bad ones are rejected with their
    reason."""
    vision = model.vision.config

    def check(row: Row) -> None:
        messages = check_messages(row["messages"], True)
        if messages[-1]["role"] != "assistant":
            raise TriviumError("the last message is not the assistant's")
        row["pixels"] = look(messages, vision.size, vision.channels, context.inputs["pictures"])

    return rows_of(context.inputs["pictures"], name, [], context, check)


@torch.no_grad()
def examine(model: SeeingModel, tokenizer: ChatTokenizer, rows: Sequence[Row]) -> tuple[list[Row], dict[str, Any]]:
    """The wrong greedy answers, and the share of right ones among all rows and among those of each ``kind``."""
    prompts = [
        tokenizer.encode_chat(row["messages"][:-1], generation_prompt=True, picture_places=model.picture_places)[0]
        for row in rows
    ]
    device = model.lm_head.weight.device
    pictures: list[Tensor | None] = [model.pictures(torch.from_numpy(row["pixels"]).to(device)) for row in rows]
    longest = max(len(tokenizer.encode(row["messages"][-1]["content"])) for row in rows) + 1
    answers = generate(model, prompts, Sampling(temperature=0, max_new_tokens=longest), [tokenizer.end_id],
                       pictures=pictures)
    right: dict[str, list[float]] = defaultdict(list)
    mistakes = []
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True), 1):
        said = tokenizer.decode([token for token in answer[0].tokens if token != tokenizer.end_id])
        wanted = row["messages"][-1]["content"]
        for kind in {"all", row.get("kind", "all")}:
            right[kind].append(float(said == wanted))
        if said != wanted:
            mistakes.append({"row": number, "kind": row.get("kind"), "said": said, "right": wanted})
    return mistakes, {kind: mean_interval(values) for kind, values in sorted(right.items())}
