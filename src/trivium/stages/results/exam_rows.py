"""What models are examined on: prompts of an earlier stage, or the rows that fine-tuning held out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.rows import conversation_of, messages_of
from trivium.files import Row
from trivium.stage import Context, Stage
from trivium.stages.rows import rows_of
from trivium.tokenizer.chat import ChatTokenizer

PROMPTS, HELDOUT = "evaluation.jsonl", "heldout.jsonl"
"""The files of held-out prompts (of the stages ``world`` and ``imports``) and of held-out conversations (of
``sft``)."""


def held_out_of(models: Iterable[str], earlier: Mapping[str, Stage], judged: bool) -> str:
    """The stage or the folder whose held-out rows models are examined on, where the recipe names none: an ``sft``
    stage among the models, or among what they are made from, that holds rows out; else a stage that holds out
    prompts: those of comparisons alone, which have no right answers, only where answers are ``judged``.

    Raises :class:`TriviumError` where nothing is held out."""
    todo, seen = list(models)[::-1], set[str]()
    tuned, others = list[str](), list[str]()
    while todo:
        name = todo.pop(0)
        if name in seen:
            continue
        seen.add(name)
        stage = earlier.get(name)
        if stage is None:
            if (Path(name) / HELDOUT).is_file():
                return name
            continue
        if stage.kind == "sft":
            tuned.append(name)
            if getattr(stage, "validation", 0):
                return name
        elif stage.kind in ("imports", "world"):
            others.append(name)
        todo += [reference for _, reference in stage.references()]
    for name in others:
        stage = earlier[name]
        if stage.kind == "world" or (judged and getattr(stage, "comparisons", None)) or any(
                source.prompts for source in getattr(stage, "sources", {}).values()):
            return name
    mend = (f"give the stage {tuned[0]!r} a share of `validation`, such as 0.05, or " if tuned else "")
    answerless = next((name for name in others if getattr(earlier[name], "comparisons", None)), "")
    if answerless and not judged:
        raise TriviumError(f"prompts: what {answerless!r} holds out has no right answers; {mend}say what judges the "
                           "answers (`reward`, `judge` or `checkers`), or name a file of rows with answers as "
                           "`prompts`")
    raise TriviumError(f"prompts: no rows are held out to examine these models on; {mend}name a file of rows as "
                       "`prompts`")


def exam_rows(place: Path, context: Context) -> list[Row]:
    """The rows of a file, or of a stage's folder, as ``{"id", "prompt", ...}``, with ``answer`` and ``messages`` where
    they say what is right. Bad ones are rejected and counted. Raises :class:`TriviumError` where none is left."""
    file = place
    if place.is_dir():
        files = [place / name for name in (PROMPTS, HELDOUT) if (place / name).is_file()]
        file = next((one for one in files if one.stat().st_size), files[0] if files else place / PROMPTS)
        if not file.is_file() or not file.stat().st_size:
            raise TriviumError(f"evaluate: {place}: no row is held out here; give `sft` a share of `validation`, or "
                               "name a file of rows as `prompts`")
    found: dict[int, Row] = {}

    def check(row: Row) -> None:
        found[id(row)] = exam_row(row)

    return [found[id(row)] for row in rows_of(file, PROMPTS, [], context, check)]


def exam_row(row: Row) -> Row:
    """A row of an examination. One with ``prompt`` is taken as it is; one with ``messages`` alone asks what comes
    before the assistant's last turn. That turn is the answer, where the row names no other. Raises
    :class:`TriviumError` for one that asks nothing."""
    made = dict(row)
    if "prompt" in row:
        made["prompt"] = messages_of(row["prompt"], "the row")
        if "messages" in row:
            made["messages"] = conversation_of(row, "the row")
            made.setdefault("answer", made["messages"][-1]["content"])
    elif "messages" in row:
        made["messages"] = conversation_of(row, "the row")
        *made["prompt"], last = made["messages"]
        made.setdefault("answer", last["content"])
    else:
        raise TriviumError("the field 'prompt' is missing; a row has `prompt` (and `answer`), or `messages`")
    text = json.dumps(made["prompt"], sort_keys=True, ensure_ascii=False)
    made.setdefault("id", f"{randomness.derive(0, text):016x}")
    return made


def same_tokenizer(models: Mapping[str, Path], baseline: str) -> None:
    """Raise :class:`TriviumError` for a folder without a model, and for a model of another tokenizer than the
    baseline's: before any is asked."""
    digests: dict[str, str] = {}
    for name, folder in models.items():
        EvaluatedModel.check(folder)
        if (folder / "tokenizer.json").is_file():
            digests[name] = ChatTokenizer.load(folder).digest
    other = next((name for name in digests if digests[name] != digests.get(baseline, digests[name])), None)
    if other:
        raise TriviumError(f"{models[other]}: another tokenizer than the baseline's; only models of one tokenizer can "
                           "be compared")
