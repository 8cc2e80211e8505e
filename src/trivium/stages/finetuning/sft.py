"""Supervised fine-tuning: learn to answer from demonstrations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from trivium import randomness
from trivium.data.demonstrations import check_conversation
from trivium.errors import TriviumError, counted
from trivium.files import Row
from trivium.model import LanguageModel
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters.folder import weights_digest
from trivium.model.folder import read_config
from trivium.objectives.language_modeling import token_log_probs
from trivium.stage import Context, Input, Title
from trivium.stages.chat_settings import FromChat
from trivium.stages.cost import Estimate, weights_of
from trivium.stages.defaults import row_length
from trivium.stages.finetuning.rehearsal import asked_by_the_model, exact_answers, split_earlier
from trivium.stages.models import adapt, load_language_model, sample_text, save_trained
from trivium.stages.outlook import Cost, Outlook, Step
from trivium.stages.pretraining.pretrain import LanguageModeling, pieces
from trivium.stages.rows import rows_of
from trivium.stages.training import decoder_to_train, full_row, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Batch, Tree, hidden_states
from trivium.training.epochs import Limit, PackedEpochs, contents_of, fits
from trivium.training.machine import prepare
from trivium.training.noise import NoisyEpochs, noisy
from trivium.training.objective import Objective, Total


class Rehearsal(BaseModel):
    """What keeps a model from forgetting."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    share: float = Field(0.2, gt=0, lt=1)
    """Share of the training conversations that are of the past."""
    generated: bool = False
    """Take what the starting model itself asks and answers (LAMOL, Sun et al. 2020) instead of `earlier` rows."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest generated question, and longest generated answer, in tokens."""


class Sft(FromChat):
    """Fine-tune a model on demonstrations; only the assistant's words carry loss."""

    kind: ClassVar[str] = "sft"
    version: ClassVar[int] = 6
    usual: ClassVar[str] = "sft"
    title: ClassVar[Title] = Title("supervised fine-tuning", "监督微调", "teach")
    every_process: ClassVar[bool] = True
    model: Input = "pretrain"
    """The model to start from."""
    demonstrations: Input = "world"
    """Demonstrations: an earlier stage or a JSONL file of chat messages."""
    loss_on: Literal["all", "last"] = "all"
    """Which of a conversation's answers are learned: all of them, or the last alone. Messages of `train: false` never
    are."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the demonstrations."""
    evaluate_every: int = Field(0, ge=0)
    """Updates between two sample answers in log.jsonl, and two measurements of the held-out loss; 0 for no samples, and
    a measurement four times a pass where there is `validation`."""
    adapter: AdapterSettings | None = None
    """Train an adapter beside the frozen model; null trains all weights."""
    too_long: Literal["leave out", "cut"] = "leave out"
    """Conversations longer than a row: left out and listed with the rejects, or cut at its end (and so without the
    token that ends them)."""
    validation: float = Field(0.0, ge=0, lt=0.5)
    """Share of the demonstrations, chosen by a hash, that is held out, and kept in heldout.jsonl for `evaluate`; the
    checkpoint of the lowest loss on it is the one kept."""
    patience: int = Field(0, ge=0)
    """Measurements without a lower held-out loss after which training stops; 0 goes on to the end."""
    earlier: dict[str, Input] = {}
    """Demonstrations that the model learned from before, each under a name: right answers to some of them are counted
    before and after."""
    rehearsal: Rehearsal | None = None
    """Mix what was learned before into the demonstrations; null does not."""
    pretraining: Input | None = None
    """A tokenised corpus whose documents are mixed in, with loss on all their tokens, so that what they taught is not
    forgotten (Ouyang et al. 2022, appendix C.1)."""
    pretraining_share: float = Field(0.1, gt=0, lt=1)
    """The documents' share of the tokens that are gone through; a tenth in Ouyang et al. 2022."""
    embedding_noise: float = Field(0.0, ge=0)
    """Noise on the embeddings of what is learned: uniform, this number over the root of tokens times width (NEFTune,
    Jain et al. 2024: 5 to 15); 0 for none."""
    prompt_loss: float = Field(0.0, ge=0)
    """Weight of a loss on the questions too (LAMOL: 0.25): with it the model learns to ask, and can generate its own
    rehearsal later."""

    @model_validator(mode="after")
    def _rehearsal_has_rows(self) -> Sft:
        if self.rehearsal and not self.rehearsal.generated and not self.earlier:
            raise ValueError("rehearsal needs `earlier` demonstrations, or `generated: true`")
        if self.patience and not self.validation:
            raise ValueError("patience needs a share of `validation`")
        return self

    def run(self, context: Context) -> dict[str, object]:
        """Next-token prediction again, with loss on the assistant's words and the token that ends them."""
        device = prepare(context.threads)
        model, _ = load_language_model(context.inputs["model"])
        model.to(device)
        data = demonstrations_of(self, context, model)
        train, heldout, tokenizer = data.train, data.heldout, data.tokenizer
        earlier = split_earlier(context)
        scores = {name: {"before": exact_answers(model, tokenizer, rows.heldout)} for name, rows in earlier.items()}
        attached = adapt(model, self.adapter, context)
        steps = max(1, round(self.epochs * train.steps_per_epoch))
        every = self.evaluate_every or (max(1, train.steps_per_epoch // 4) if heldout else 0)
        train = self.batches(context, model, data, device)
        outcome = run_training(
            model, self.objective(context, model, device), train, steps, self,
            context, weights_digest(context.inputs["model"]), contents_of(train.trees),
            *([contents_of(heldout.trees)] if heldout else []), heldout=heldout, evaluate_every=every, keep_best=heldout
            is not None, patience=self.patience,
            sample=(lambda model: sample_text(model, tokenizer, opening_of(train.trees[0]), context.seed))
            if self.evaluate_every else None)
        if not outcome.leader:
            return {}
        for name, rows in earlier.items():
            scores[name]["after"] = exact_answers(outcome.model, tokenizer, rows.heldout)
        save_trained(outcome.model, attached, tokenizer, context.inputs["model"], context, self.save_dtype)
        summary: dict[str, object] = {
            "steps": outcome.steps, "precision": outcome.precision,
            "loss": outcome.metrics.get("loss"), "length": train.length, "rows": train.rows, **data.summary
        }
        if heldout:
            summary |= {
                "validation_loss": outcome.best.loss, "best_step": outcome.best.step, "planned_steps": steps
            }
        if attached:
            summary["trained_parameters"] = sum(p.numel() for _, p in attached.parameters())
        return summary | ({"earlier": scores} if scores else {})

    def objective(self, context: Context, model: Any, device: torch.device) -> Objective:
        """What is learned of the demonstrations."""
        if self.prompt_loss:
            return AnswersAndQuestions(self.prompt_loss, self.embedding_noise)
        return LanguageModeling(self.embedding_noise)

    def batches(self, context: Context, model: Any, data: Demonstrations, device: torch.device) -> PackedEpochs:
        """What is learned from, update by update."""
        return data.train

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The batches, and the tokenizer that made them."""
        data = demonstrations_of(self, context)
        return data.train, data.tokenizer

    def cost(self, estimate: Estimate) -> Cost:
        """The updates on the demonstrations."""
        config = estimate.config(self.model)
        limit = Limit(self.length, config.max_positions, "conversations")
        trees = [tree for tree in self.conversations(estimate) if len(tree) <= limit.tokens]
        if not trees:
            raise TriviumError(f"estimate: no demonstration fits {limit.tokens} tokens")
        length = row_length(self.length, list(map(len, trees)), config.max_positions)
        batches = PackedEpochs(trees, length, self.rows or self.usual_layout(config)[1], estimate.seed)
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        each = estimate.updates(
            ("sft", config, length, batches.rows, self.optimization.optimizer),
            lambda: LanguageModel(config).initialise(0), LanguageModeling(), batches, self.optimization,
            self.number_format())
        return Cost.of_updates(estimate.training(steps, each, weights_of(config)) + 0.5, steps, each)

    def conversations(self, estimate: Estimate, most: int | None = None) -> list[Tree]:
        """The demonstrations as trees, or the first ``most`` rows of them."""
        tokenizer = self.chat_tokenizer(estimate.tokenizer(self.model), {})
        rows = estimate.rows(self.demonstrations, "demonstrations.jsonl", ["messages"])[:most]
        return [conversation(tokenizer, row["messages"], tools=row.get("tools")) for row in rows
                if any(message["role"] == "assistant" for message in row["messages"])]

    def outlook(self, estimate: Estimate) -> Outlook:
        """A model like the one it starts from; and its demonstrations say how long people's words are."""
        return Outlook(like=self.model, adapter=self.adapter, conversations=lambda: self.conversations(estimate, 600))

    def training_step(self, estimate: Estimate, processes: int) -> Step:
        """A model, or its adapter, and full rows."""
        config = estimate.config(self.model)
        return self.step_with(estimate, lambda: decoder_to_train(config, self.adapter), LanguageModeling(),
                              self.full_batches(processes, full_row(self.usual_layout(config)[0]), config=config))


class AnswersAndQuestions(Objective):
    """The loss of the answers, and beside it that of the questions (LAMOL, Sun et al. 2020, section 3.1)."""

    def __init__(self, prompt_loss: float, noise: float = 0.0) -> None:
        self.noise = noise
        self.weights = {"loss": 1.0, "prompt_loss": prompt_loss}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Two means: over the assistant's tokens, and over all others."""
        with noisy(model.model, batch, self.noise):
            hidden = hidden_states(model.model, batch)
        log_probs = token_log_probs(hidden[batch.sources], model.lm_head.weight, batch.targets)
        answers = batch.extra["answers"]
        return {
            "loss": Total(-(log_probs * answers).sum(), "tokens"),
            "prompt_loss": Total(-(log_probs * (1 - answers)).sum(), "asked")
        }


def mark_answers(batch: Batch) -> None:
    """Say which targets are the assistant's; ``payload`` of each tree is its mask."""
    answers = np.concatenate([*(tree.payload for tree in batch.trees), np.zeros(0, bool)])
    batch.extra["answers"] = torch.from_numpy(answers.astype(np.float32))
    batch.counts |= {"tokens": float(answers.sum()), "asked": float((~answers.astype(bool)).sum())}


@dataclass
class Conversations:
    """Demonstrations as trees, and what became of each row."""

    trees: list[Tree] = field(default_factory=list)
    """Those that fit a row."""
    by_source: dict[str, dict[str, int]] = field(default_factory=dict)
    """``conversations``, ``tokens``, ``learned_tokens``, ``cut`` and ``left_out`` of each source."""
    rejects: list[Row] = field(default_factory=list)
    """Rows that were left out, with their places and reasons."""

    def count(self, name: str) -> int:
        """A count over all sources."""
        return sum(counts[name] for counts in self.by_source.values())


@dataclass
class Demonstrations:
    """What a model is fine-tuned on."""

    tokenizer: ChatTokenizer
    train: PackedEpochs
    heldout: PackedEpochs | None
    """Batches that are held out; None where nothing is."""
    summary: Row
    """What there is to tell about the rows."""


def demonstrations_of(settings: Sft, context: Context, model: LanguageModel | None = None) -> Demonstrations:
    """The rows as batches. Rehearsal that is generated needs the ``model``."""
    config, _ = read_config(context.inputs["model"])
    tokenizer = settings.load_chat_tokenizer(context, context.progress.say)
    limit = Limit(settings.length, config.max_positions, "conversations")
    rows, heldout_rows = split_rows(settings, context)
    for remark in tokenizer.remarks([row["messages"] for row in [*rows, *heldout_rows]]):
        context.progress.say(remark)
    past = rehearsed(settings, context, tokenizer, len(rows), model)
    learned = conversations_of([*rows, *past], tokenizer, limit, settings, context)
    unseen = conversations_of(heldout_rows, tokenizer, limit, settings, context) if heldout_rows else None
    rejects = learned.rejects + (unseen.rejects if unseen else [])
    if rejects:
        context.keep_rows("rejects-trees.jsonl", rejects)
    if heldout_rows:
        context.keep_rows("heldout.jsonl", heldout_rows)
    counts: Row = {name: learned.count(name) for name in ("tokens", "learned_tokens", "cut", "left_out")}
    context.progress.say(
        f"{counted(len(learned.trees), 'conversation')} of {counts['tokens']:,} tokens, "
        f"{counts['learned_tokens']:,} of which carry loss; {counts['cut']} cut, {counts['left_out']} left out"
        + (f"; {len(unseen.trees):,} more are held out" if unseen else ""))
    finish: Callable[[Batch], None] = mark_answers if settings.prompt_loss else lambda batch: None
    length, count = settings.lay_out(context, [len(tree) for one in (learned, unseen) if one for tree in one.trees],
                                     config.max_positions, settings.epochs)
    documents = documents_of(settings, context, tokenizer, min(length, config.max_positions), counts["tokens"])
    epochs = NoisyEpochs if settings.embedding_noise else PackedEpochs
    train = epochs([*learned.trees, *documents], length, count, context.seed, finish)
    heldout = PackedEpochs(unseen.trees, length, count, context.seed, finish) if unseen else None
    return Demonstrations(tokenizer, train, heldout, {
        "demonstrations": len(learned.trees), **({"rehearsed": len(past)} if settings.rehearsal else {}),
        **({"pretraining_tokens": sum(map(len, documents))} if settings.pretraining else {}), **counts,
        "by_source": learned.by_source,
        **({"held_out": len(unseen.trees)} if unseen else {})})


def split_rows(settings: Sft, context: Context) -> tuple[list[Row], list[Row]]:
    """The demonstrations to learn from and those that are held out, each with its place in the file."""
    numbers: list[int] = []
    rows = rows_of(context.inputs["demonstrations"], "demonstrations.jsonl", ["messages"], context, answered, numbers)
    kept: list[Row] = []
    heldout: list[Row] = []
    for number, row in zip(numbers, rows, strict=True):
        # the phrasings of one row stay together
        group = json.dumps(row["group"] if "group" in row else row["messages"][:-1], sort_keys=True)
        chance = randomness.derive(0, "validation", group) / 2**64 if settings.validation else 1.0
        (heldout if chance < settings.validation else kept).append({**row, "row": number})
    if settings.validation and not heldout:
        raise TriviumError(
            f"{context.name}: of {len(rows)} demonstrations none is held out; raise `validation` or bring more")
    return kept, heldout


def rehearsed(settings: Sft, context: Context, tokenizer: ChatTokenizer, count: int,
              model: LanguageModel | None) -> list[Row]:
    """Conversations of the past that are mixed into ``count`` new ones; none without rehearsal."""
    if settings.rehearsal is None:
        return []
    wanted = round(count * settings.rehearsal.share / (1 - settings.rehearsal.share))
    if settings.rehearsal.generated:
        model = model or load_language_model(context.inputs["model"])[0]
        return asked_by_the_model(model, tokenizer, wanted, settings.rehearsal.max_new_tokens, context)
    pool = [row for source in split_earlier(context).values() for row in source.rest]
    order = randomness.numpy(context.seed, "rehearsal").permutation(len(pool))
    return [{**pool[order[i % len(pool)]], "source": "rehearsal"} for i in range(wanted)]


def documents_of(settings: Sft, context: Context, tokenizer: ChatTokenizer, length: int, tokens: int) -> list[Tree]:
    """Pieces of pretraining documents, of at most ``length`` tokens each, that are mixed into conversations of so many
    ``tokens``; none where pretraining does not go on."""
    if settings.pretraining is None:
        return []
    corpus = Tokens.open(context.inputs["pretraining"] / "train", tokenizer.digest)
    every, found = pieces(corpus, tokenizer, length), list[Tree]()
    wanted = tokens * settings.pretraining_share / (1 - settings.pretraining_share)
    for number in randomness.numpy(context.seed, "pretraining").permutation(len(every)):
        if wanted <= 0:
            break
        piece = every[number]
        found.append(replace(piece, payload=np.ones(len(piece.responses[0]), bool)))
        wanted -= len(piece)
    if wanted > 0:
        context.progress.say(f"`pretraining` holds fewer tokens than a share of {settings.pretraining_share:g} "
                             "asks for: all of them are mixed in")
    return found


def conversations_of(rows: Sequence[Row], tokenizer: ChatTokenizer, limit: Limit, settings: Sft,
                     context: Context) -> Conversations:
    """Rows as trees. Those longer than ``limit`` are cut or left out. Raises :class:`TriviumError` where none is
    left."""
    length = limit.tokens
    words = f"a row's {length} tokens" if length == limit.given else f"the model's {length} positions"
    result = Conversations()
    trees: list[Tree] = []
    refused: list[Row] = []
    for row in rows:
        count = result.by_source.setdefault(
            row.get("source", ""), {"conversations": 0, "tokens": 0, "learned_tokens": 0, "cut": 0, "left_out": 0})
        reject = {"row": row.get("row"), "source": row.get("source", ""), "messages": row["messages"],
                  **({"tools": row["tools"]} if row.get("tools") else {})}
        try:
            tree = conversation(tokenizer, row["messages"], bool(settings.prompt_loss), tools=row.get("tools"),
                                last_alone=settings.loss_on == "last")
            if len(tree) > length and settings.too_long == "cut":
                tree = shortened(tree, length, words)
                count["cut"] += 1
        except TriviumError as error:
            refused.append(reject | {"reason": str(error)})
            result.rejects.append(refused[-1])
            count["left_out"] += 1
            continue
        trees.append(tree)
        if len(tree) > length:
            result.rejects.append(reject | {"reason": f"{len(tree)} tokens are more than {words}"})
            count["left_out"] += 1
            continue
        assert tree.loss is not None
        count["conversations"] += 1
        count["tokens"] += len(tree)
        count["learned_tokens"] += int((tree.loss[0] if tree.payload is None else tree.payload).sum())
    if refused:
        context.progress.say(f"{counted(len(refused), 'conversation')} left out: {refused[0]['reason']}")
    if refused and not trees:
        raise TriviumError(
            f"{context.name}: no conversation can be used; row {refused[0]['row']}: {refused[0]['reason']}")
    result.trees = fits(trees, limit, context.progress.say)
    return result


def shortened(tree: Tree, length: int, limit: str) -> Tree:
    """A tree cut after ``length`` tokens (``limit`` in words). Raises :class:`TriviumError` where nothing to learn is
    left."""
    room = length - len(tree.prompt)
    assert tree.loss is not None
    if room < 1 or not tree.loss[0][:room].any():
        raise TriviumError(f"the question alone is as long as {limit}")
    payload = None if tree.payload is None else tree.payload[:room]
    return Tree(tree.prompt, (tree.responses[0][:room],), (tree.loss[0][:room],), payload)


def answered(row: Row) -> None:
    """Refuse a demonstration that does not show how to answer; what follows the last answer is of no use, but does no
    harm."""
    last = max((i for i, message in enumerate(row["messages"]) if message["role"] == "assistant"), default=None)
    if last is None:
        raise TriviumError("the assistant says nothing in these messages")
    check_conversation(row["messages"][:last + 1])


def opening_of(tree: Tree) -> list[int]:
    """The tokens before the first answer."""
    first = int(np.argmax(tree.payload)) if tree.payload is not None else 0
    return [*tree.prompt.tolist(), *tree.responses[0][:first].tolist()]


def conversation(tokenizer: ChatTokenizer, messages: list[dict[str, Any]], questions: bool = False,
                 picture_places: int = 0, tools: Sequence[Any] | None = None, last_alone: bool = False) -> Tree:
    """A conversation as a tree: all up to the first word of the assistant is prompt, the rest is the response, in which
    only what the assistant says carries loss, of its last turn where ``last_alone``. What follows its last turn is left
    out. With ``questions`` all but the first token carries loss, and ``payload`` says which are the assistant's. A
    picture takes ``picture_places``; ``tools`` are what the assistant may call."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=len(messages))
    messages = messages[:last + 1]
    if last_alone:
        messages = [{**message, "train": False} if message["role"] == "assistant" else message
                    for message in messages[:last]] + messages[last:]
    ids, learn = tokenizer.encode_chat(messages, picture_places=picture_places, tools=tools)
    if True not in learn:
        raise TriviumError("no message of the assistant carries loss (`train: false`)")
    first = 1 if questions else learn.index(True)
    mask = np.array(learn[first:], bool)
    return Tree(np.array(ids[:first], np.int64), (np.array(ids[first:], np.int64),),
                (np.ones_like(mask) if questions else mask,), mask if questions else None)
