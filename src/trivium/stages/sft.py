"""Supervised fine-tuning: learn to answer from demonstrations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from trivium import randomness
from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.model import LanguageModel
from trivium.model.folder import read_config
from trivium.objectives.language_modeling import token_log_probs
from trivium.pipeline import Context
from trivium.stages.common import (
    PackedEpochs,
    Row,
    adapt,
    contents_of,
    fits,
    load_language_model,
    load_tokenizer,
    rows_of,
    run_training,
    sample_text,
    save_trained,
    weights_digest,
)
from trivium.stages.demonstrations import check_conversation
from trivium.stages.pretrain import LanguageModelling
from trivium.stages.rehearsal import asked_by_the_model, exact_answers, split_earlier
from trivium.stages.settings import Sft
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, hidden_states
from trivium.training.loop import Total
from trivium.training.machine import prepare

VERSION = 3
PARALLEL = True


class AnswersAndQuestions:
    """The loss of the answers, and beside it that of the questions (LAMOL, Sun et al. 2020, section 3.1)."""

    def __init__(self, prompt_loss: float) -> None:
        self.weights = {"loss": 1.0, "prompt_loss": prompt_loss}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Two means: over the assistant's tokens, and over all others."""
        hidden = hidden_states(model.model, batch)
        log_probs = token_log_probs(hidden[batch.sources], model.lm_head.weight, batch.targets)
        answers = batch.extra["answers"]
        return {"loss": Total(-(log_probs * answers).sum(), "tokens"), "prompt_loss": Total(-(log_probs * (1 - answers)).sum(), "asked")}


def tell_answers(batch: Batch) -> None:
    """Say which targets are the assistant's; ``payload`` of each tree is its mask."""
    answers = np.concatenate([*(tree.payload for tree in batch.trees), np.zeros(0, bool)])
    batch.extra["answers"] = torch.from_numpy(answers.astype(np.float32))
    batch.counts |= {"tokens": float(answers.sum()), "asked": float((~answers.astype(bool)).sum())}


def run(settings: Sft, context: Context) -> dict[str, object]:
    """Next-token prediction again, with loss on the assistant's words and the token that ends them."""
    device = prepare(context.threads)
    model, _ = load_language_model(context.inputs["model"])
    model.to(device)
    train, heldout, tokenizer, told = all_data(settings, context, model)
    earlier = split_earlier(settings, context)
    scores = {name: {"before": exact_answers(model, tokenizer, rows.heldout)} for name, rows in earlier.items()}
    attached = adapt(model, settings.adapter, context)
    steps = max(1, round(settings.epochs * train.steps_per_epoch))
    every = settings.evaluate_every or (max(1, train.steps_per_epoch // 4) if heldout else 0)
    outcome = run_training(model, AnswersAndQuestions(settings.prompt_loss) if settings.prompt_loss else LanguageModelling(), train, steps,
                           settings, context, weights_digest(context.inputs["model"]), contents_of(train.trees),
                           *([contents_of(heldout.trees)] if heldout else []), heldout=heldout, evaluate_every=every,
                           keep_best=heldout is not None, patience=settings.patience,
                           sample=(lambda model: sample_text(model, tokenizer, opening_of(train.trees[0]), context.seed))
                           if settings.evaluate_every else None)
    if not outcome.leader:
        return {}
    for name, rows in earlier.items():
        scores[name]["after"] = exact_answers(outcome.model, tokenizer, rows.heldout)
    save_trained(outcome.model, attached, tokenizer, context.inputs["model"], context)
    summary: dict[str, object] = {"demonstrations": len(train.trees), "steps": outcome.steps, "loss": outcome.metrics.get("loss"), "precision": outcome.precision,
                                  **told}
    if heldout:
        summary |= {"validation_loss": outcome.best["loss"], "best_step": int(outcome.best["step"]), "planned_steps": steps}
    if attached:
        summary["trained_parameters"] = sum(p.numel() for _, p in attached.parameters())
    return summary | ({"earlier": scores} if scores else {})


def training_data(settings: Sft, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
    """The batches, and the tokenizer that made them."""
    train, _, tokenizer, _ = all_data(settings, context)
    return train, tokenizer


def all_data(settings: Sft, context: Context, model: LanguageModel | None = None) -> tuple[PackedEpochs, PackedEpochs | None, ChatTokenizer, Row]:
    """Batches to learn from, held-out ones, the tokenizer, and what there is to tell about the rows. Rehearsal that is generated
    needs the ``model``."""
    config, _ = read_config(context.inputs["model"])
    tokenizer = load_tokenizer(context.inputs["model"], config.vocab_size)
    length = min(settings.length, config.max_positions)
    numbers: list[int] = []
    rows = rows_of(context.inputs["demonstrations"], "demonstrations.jsonl", ["messages"], context, answered, numbers)
    kept: list[Row] = []
    held: list[Row] = []
    for number, row in zip(numbers, rows, strict=True):
        group = json.dumps(row["group"] if "group" in row else row["messages"], sort_keys=True)  # the phrasings of one row stay together
        chance = randomness.derive(context.seed, "validation", group) / 2**64 if settings.validation else 1.0
        (held if chance < settings.validation else kept).append({**row, "row": number})
    if settings.validation and not held:
        raise TriviumError(f"{context.name}: of {len(rows)} demonstrations none is held out; raise `validation` or bring more")
    told: Row = {}
    if settings.rehearsal:
        wanted = round(len(kept) * settings.rehearsal.share / (1 - settings.rehearsal.share))
        if settings.rehearsal.generated:
            model = model or load_language_model(context.inputs["model"])[0]
            past = asked_by_the_model(model, tokenizer, wanted, settings.rehearsal.max_new_tokens, context)
        else:
            pool = [row for source in split_earlier(settings, context).values() for row in source.rest]
            order = randomness.numpy(context.seed, "rehearsal").permutation(len(pool))
            past = [{**pool[order[i % len(pool)]], "source": "rehearsal"} for i in range(wanted)]
        told["rehearsed"] = len(past)
        kept = kept + past
    finish: Callable[[Batch], None] = tell_answers if settings.prompt_loss else lambda batch: None
    limit = f"a row's {length} tokens" if settings.length <= config.max_positions else f"the model's {length} positions"
    rejects: list[Row] = []
    trees = trees_of(kept, tokenizer, length, limit, settings, context, rejects, told)
    unseen: Row = {}
    held_trees = trees_of(held, tokenizer, length, limit, settings, context, rejects, unseen) if held else []
    if rejects and context.folder.is_dir():
        write_rows(context.folder / "rejects-trees.jsonl", rejects)
    context.progress.say(f"{len(trees):,} conversations of {told['tokens']:,} tokens, {told['learned_tokens']:,} of which carry loss; {told['cut']} cut, "
                         f"{told['left_out']} left out" + (f"; {len(held_trees):,} more are held out" if held else ""))
    if held:
        told["held_out"] = len(held_trees)
    train = PackedEpochs(trees, length, settings.rows, context.seed, finish)
    return train, PackedEpochs(held_trees, length, settings.rows, context.seed, finish) if held else None, tokenizer, told


def trees_of(rows: Sequence[Row], tokenizer: ChatTokenizer, length: int, limit: str, settings: Sft, context: Context, rejects: list[Row],
             told: Row) -> list[Tree]:
    """Conversations as trees. Those longer than ``length`` (``limit`` in words) are cut or left out; what the template refuses and what is left
    out is added to ``rejects``, with its place in the file of demonstrations. ``told`` gets the counts, and those of each
    source. Raises :class:`TriviumError` where none is left."""
    trees: list[Tree] = []
    refused: list[Row] = []
    counts: dict[str, Row] = {}
    before = len(rejects)
    for row in rows:
        count = counts.setdefault(row.get("source", ""), {"conversations": 0, "tokens": 0, "learned_tokens": 0, "cut": 0, "left_out": 0})
        bad = {"row": row.get("row"), "source": row.get("source", ""), "messages": row["messages"]}
        try:
            tree = conversation(tokenizer, row["messages"], bool(settings.prompt_loss))
            if len(tree) > length and settings.too_long == "cut":
                tree = shortened(tree, length, limit)
                count["cut"] += 1
        except TriviumError as error:
            refused.append(bad | {"reason": str(error)})
            rejects.append(refused[-1])
            count["left_out"] += 1
            continue
        trees.append(tree)
        if len(tree) > length:
            rejects.append(bad | {"reason": f"{len(tree)} tokens are more than {limit}"})
            count["left_out"] += 1
            continue
        assert tree.loss is not None
        count["conversations"] += 1
        count["tokens"] += len(tree)
        count["learned_tokens"] += int((tree.loss[0] if tree.payload is None else tree.payload).sum())
    if refused:
        context.progress.say(f"{len(refused)} conversations were left out: {refused[0]['reason']}")
    if refused and not trees:
        raise TriviumError(f"{context.name}: no conversation can be used; row {refused[0]['row']}: {refused[0]['reason']}")
    kept = fits(trees, length, context.progress.say)
    told |= {name: sum(count[name] for count in counts.values()) for name in ("tokens", "learned_tokens", "cut", "left_out")}
    assert told["left_out"] == len(rejects) - before
    told["by_source"] = counts
    return kept


def shortened(tree: Tree, length: int, limit: str) -> Tree:
    """A tree cut after ``length`` tokens (``limit`` in words). Raises :class:`TriviumError` where nothing to learn is left."""
    room = length - len(tree.prompt)
    assert tree.loss is not None
    if room < 1 or not tree.loss[0][:room].any():
        raise TriviumError(f"the question alone is as long as {limit}")
    payload = None if tree.payload is None else tree.payload[:room]
    return Tree(tree.prompt, (tree.responses[0][:room],), (tree.loss[0][:room],), payload)


def answered(row: Row) -> None:
    """Refuse a demonstration that does not show how to answer; what follows the last answer is of no use, but does no harm."""
    last = max((i for i, message in enumerate(row["messages"]) if message["role"] == "assistant"), default=None)
    if last is None:
        raise TriviumError("the assistant says nothing in these messages")
    check_conversation(row["messages"][:last + 1])


def opening_of(tree: Tree) -> list[int]:
    """The tokens before the first answer."""
    first = int(np.argmax(tree.payload)) if tree.payload is not None else 0
    return [*tree.prompt.tolist(), *tree.responses[0][:first].tolist()]


def conversation(tokenizer: ChatTokenizer, messages: list[dict[str, Any]], questions: bool = False, picture_places: int = 0) -> Tree:
    """A conversation as a tree: all up to the first word of the assistant is prompt, the rest is the response, in which
    only what the assistant says carries loss. With ``questions`` all but the first token does, and ``payload`` says which are the
    assistant's. A picture takes ``picture_places``."""
    ids, learn = tokenizer.encode_chat(messages, picture_places=picture_places)
    if True not in learn:
        raise TriviumError("the chat template leaves out what the assistant says")
    first = 1 if questions else learn.index(True)
    mask = np.array(learn[first:], bool)
    return Tree(np.array(ids[:first], np.int64), (np.array(ids[first:], np.int64),), (np.ones_like(mask) if questions else mask,),
                mask if questions else None)


