"""Demonstrations as people have them, brought together: formats, columns, labels, task templates, and a mixture by
weight."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trivium import randomness
from trivium.data.phrasings import Phraser, Phrasing
from trivium.data.plain_text import is_text
from trivium.data.readers import find, has_rows, rows, rows_by
from trivium.data.unpack import ARCHIVES, Bad
from trivium.errors import TriviumError, nearest, plain
from trivium.extensions import Code, file_of, load_object, names, resolve
from trivium.files import Reject, Row
from trivium.tokenizer.chat import ROLES, check_messages

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system"
}
"""Names that ShareGPT and its likes give the roles."""


class Source(BaseModel):
    """How the rows of one source are read and how many of them are used."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, coerce_numbers_to_str=True)

    weight: float | None = Field(None, gt=0)
    """Share of the mixture, relative to the other sources' weights (1 where others have one); null for all: every row
    once."""
    limit: int | None = Field(None, ge=1)
    """Most rows of it, chosen by a hash; null for all."""
    reader: Code | None = None
    """`FILE.py:NAME`: a function of your own that is given a file's path and yields its rows, each a mapping of fields;
    null reads the kinds of files that are known."""
    format: Code | None = None
    """What a row is: chat, sharegpt, alpaca, gsm8k or completion, or `FILE.py:NAME`, a function of your own that makes
    a list of messages of a row; null finds it out by the row's fields."""
    split: str | None = None
    """Read only files whose name has this word, as the splits of a data set's folder have."""
    columns: dict[str, str] = {}
    """Names of fields and the columns they are found in, as in `{text: review}`."""
    values: dict[str, str] = {}
    """Fields that all rows share, as in `{language: French}`."""
    labels: dict[str, str] = {}
    """The values that the field `label` may have, and what each is called; a row with another is rejected."""
    templates: str | list[Phrasing] = []
    """Phrasings that turn a row into a conversation: a family's name (classification, judgement, extraction,
    translation, reasoning, reasoning-steps; with -zh in Chinese) or Jinja texts of your own. Which one a row gets
    depends on a hash of it."""
    prompts: bool = False
    """Its questions become prompts to practise on too, each with its row's `answer` to check by (of GSM8K's, what
    stands after ####); those of the held-out share are for the evaluation, and are no demonstrations."""


@dataclass
class Read:
    """What one source gave."""

    made: list[Row] = field(default_factory=list)
    """Good rows; each has ``variants``, its conversations by phrasing."""
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows by the kind of reason."""
    otherwise: int = 0
    """Rows that ask what an earlier one asks, and answer otherwise."""


def rows_of_source(source: Path, reject: Reject, split: str | None = None,
                   reader: str | None = None) -> Iterator[tuple[str, int, Row]]:
    """``(file, row from 1, row)`` of a file, a folder or an archive of JSON, JSON lines, CSV or Parquet, compressed or
    not. ``split`` takes only files whose name has it, as a data set's ``train-00000-of-00002.parquet``. ``reader``
    names a function of the user's own that reads each file instead."""
    files = [
        file for file in find([source], any_kind=reader is not None)
        if reader or not source.is_dir() or has_rows(file.name) or file.name.lower().endswith(ARCHIVES)
    ]
    chosen = [
        file for file in files if split is None or re.search(rf"(^|[-_./]){re.escape(split)}([-_./]|$)", file.name)
    ]
    if not chosen:
        raise TriviumError(f"{source}: " + (
            f"no file's name has {split!r} in it" if files else "no files of rows; "
            "known are JSON, JSON lines, CSV and Parquet"))
    for file in chosen:
        for name, number, row in rows_by(reader, file) if reader else rows(file):
            if isinstance(row, Bad):
                reject(name, number, row.reason, row.text)
            elif not is_text(text := json.dumps(row, ensure_ascii=False, default=str)):
                reject(name, number, "holds characters that are no text (lone surrogates)",
                       text.encode("utf-8", "replace").decode())
            else:
                yield name, number, row


def read(source: Path, settings: Source, where: str, reject: Reject, seen: dict[str, tuple[str, int]]) -> Read:
    """All good rows of a source. Bad ones go to ``reject`` with their reason; rows that say what an earlier one said
    are bad too, be it of this source or of one before: ``seen`` has the place of each."""
    found = Read()
    phraser = Phraser(settings.templates, f"{where}.templates") if settings.templates else None

    def refuse(file: str, number: int, reason: str, text: str) -> None:
        found.rejected[kind_of(reason)] += 1
        reject(file, number, reason, text)

    def unreadable(file: str, number: int, reason: str, text: str) -> None:
        found.rows += 1
        refuse(file, number, reason, text)

    to_messages = format_named(settings.format, where) if settings.format else None
    for file, number, raw in rows_of_source(source, unreadable, settings.split, settings.reader):
        found.rows += 1
        try:
            row = named(raw, settings)
            variants = [phraser(row, i) for i in range(len(phraser))] if phraser else [
                demonstration(row, to_messages)["messages"]]
            for messages in variants:
                check_conversation(messages)
        except KeyError as error:
            refuse(file, number, f"the field {error} is missing", json.dumps(raw, ensure_ascii=False, default=str))
        except (TriviumError, TypeError, AttributeError, ValueError) as error:
            refuse(file, number, plain(error), json.dumps(raw, ensure_ascii=False, default=str))
        else:
            text = json.dumps(variants, sort_keys=True, ensure_ascii=False)
            if text in seen:
                refuse(file, number, f"a duplicate of {seen[text][0]}, row {seen[text][1]}",
                       json.dumps(raw, ensure_ascii=False, default=str))
                continue
            seen[text] = (file, number)
            asked = "asked: " + json.dumps([messages[:-1] for messages in variants], sort_keys=True, ensure_ascii=False)
            found.otherwise += asked in seen
            seen[asked] = (file, number)
            found.made.append({"variants": variants, "key": text, "answer": checkable(row)})
    return found


def kind_of(reason: str) -> str:
    """A reason without what differs from row to row, to count by."""
    kind = "a duplicate" if reason.startswith("a duplicate") else re.sub(r"; (did you mean|known:).*", "", reason)
    return re.sub(r"(message|line|column|char|byte|^) ?\d+", r"\1 …", re.sub(r"^(the label) '[^']*'", r"\1 …",
                                                                             kind)).strip()[:120]


def named(row: Row, settings: Source) -> Row:
    """A row with its columns renamed and its label put in words."""
    for ours, theirs in settings.columns.items():
        if theirs not in row:
            raise TriviumError(f"the column {theirs!r} is missing{nearest(theirs, map(str, row))}")
        row = {**row, ours: row[theirs]}
    if settings.labels:
        if "label" not in row:
            raise TriviumError(
                "`labels` needs a field `label`, which no column is called and `columns` does not name; the row has " +
                ", ".join(map(str, row)))
        given = str(row["label"]).strip()
        if given not in settings.labels:
            raise TriviumError(f"the label {given!r} is none of {', '.join(settings.labels)}")
        row = {**row, "label": settings.labels[given], "labels": list(dict.fromkeys(settings.labels.values()))}
    return {**settings.values, **row}


def mix(sources: dict[str, Read], settings: dict[str, Source], total: int | None,
        seed: int) -> tuple[list[Row], dict[str, Row]]:
    """The mixture, in an order of its own, and a report by source.

    A source's share of the rows is its weight among all; where none has a weight, every row is taken once. A source
    with too few rows is gone through again, in another phrasing where there are several; of one with too many a choice
    is made by a hash.
    """
    counts = {name: min(len(source.made), settings[name].limit or len(source.made)) for name, source in sources.items()}
    weighted = any(settings[name].weight is not None for name in sources)
    size = total or sum(counts.values())
    weights = {
        name: (1.0 if settings[name].weight is None else settings[name].weight or 0.0)
        if weighted else float(counts[name])
        for name in sources
    }
    whole = sum(weights[name] for name in sources if counts[name]) or 1.0
    mixture: list[tuple[int, Row]] = []
    report: dict[str, Row] = {}
    for name, source in sources.items():
        order = sorted(range(len(source.made)),
                       key=lambda i: randomness.derive(seed, "import", name, source.made[i]["key"]))[:counts[name]]
        wanted = round(size * weights[name] / whole) if weighted or total else counts[name]
        for place in range(wanted if order else 0):
            row, turn = source.made[order[place % len(order)]], place // len(order)
            first = randomness.derive(seed, "phrasing", row["key"])
            variant = (first + turn) % len(row["variants"])
            made = {"messages": row["variants"][variant], "source": name}
            if len(row["variants"]) > 1:
                made["group"] = f"{first:016x}"
            if settings[name].prompts and row["answer"] is not None:
                made["answer"] = row["answer"]
            mixture.append((randomness.derive(seed, "mix", name, place), made))
        report[name] = {
            "rows": source.rows, "kept": len(source.made), "rejected": dict(source.rejected.most_common()),
            "answered_otherwise": source.otherwise, "used": wanted if order else 0,
            "passes": round(wanted / len(order), 3) if order else 0.0
        }
    return [row for _, row in sorted(mixture, key=lambda item: item[0])], report


def checkable(row: Row) -> str | None:
    """What an answer to a row can be checked by: its field `answer`; of GSM8K's, what stands after the mark."""
    answer = row.get("answer")
    return str(answer).rpartition("#### ")[2].strip() if isinstance(answer, (str, int, float)) else None


def format_named(name: str, where: str) -> Callable[[Row], list[Row]]:
    """The function that makes messages of a row: that of a known format, or ``FILE.py:NAME``."""
    if file_of(own := resolve(name, "formats")) is not None:
        found: Callable[[Row], list[Row]] = load_object(own)
        return found
    known = {kind.__name__.removeprefix("_"): kind for kind, _ in KINDS}
    if name not in known:
        raise TriviumError(f"{where}.format: there is no format {name!r}{nearest(name, [*known, *names('formats')])}")
    return known[name]


def demonstration(row: Row, to_messages: Callable[[Row], list[Row]] | None = None) -> Row:
    """A row as ``{"messages": ...}``: by ``to_messages`` or, of any known kind, by its fields. Raises
    :class:`TriviumError` for what is none."""
    for kind, fields in [(to_messages, ())] if to_messages else KINDS:
        if all(name in row for name in fields):
            return {"messages": [{"role": m["role"], "content": m["content"]} for m in check_conversation(kind(row))]}
    raise TriviumError(f"no known kind of demonstration has the fields {', '.join(sorted(map(str, row))) or '(none)'}; "
                       "give it `messages`, or `prompt` and `completion`, or name its `columns`")


def check_conversation(messages: Sequence[Row]) -> Sequence[Row]:
    """The messages, or a :class:`TriviumError` that says why nothing can be learned from them."""
    check_messages(messages)
    for number, message in enumerate(messages, 1):
        if not message["content"].strip():
            raise TriviumError(f"message {number}: the content is empty")
        if message["role"] == "system" and number > 1:
            raise TriviumError(f"message {number}: the system speaks after the conversation has begun")
    if next((m["role"] for m in messages if m["role"] != "system"), "assistant") == "assistant":
        raise TriviumError("the conversation starts with the assistant: nothing asks for what it says")
    if messages[-1]["role"] != "assistant":
        raise TriviumError("the last message is not the assistant's")
    return messages


def _chat(row: Row) -> list[Row]:
    return [{"role": m.get("role"), "content": _text(m.get("content"))} for m in _turns(row["messages"], "messages")]


def _turns(value: Any, name: str) -> list[Row]:
    """A list of objects, or the JSON of one, as tables hold it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise TriviumError(f"{name} is neither a list nor the JSON of one") from error
    if not isinstance(value, list):
        raise TriviumError(f"{name} is no list")
    bad = next((number for number, one in enumerate(value, 1) if not isinstance(one, dict)), None)
    if bad is not None:
        raise TriviumError(f"message {bad}: not an object with role and content")
    return value


def _text(content: Any) -> Any:
    """A content's text; those in parts, as in OpenAI's format, are joined."""
    if isinstance(content, list) and content and all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in content):
        return "".join(part["text"] for part in content)
    return content


def _sharegpt(row: Row) -> list[Row]:
    turns = []
    for number, turn in enumerate(_turns(row["conversations"], "conversations"), 1):
        said_by = turn.get("from", turn.get("role"))
        if not isinstance(said_by, str) or said_by not in SPEAKERS:
            raise TriviumError(
                f"message {number}: unknown role {said_by!r}{nearest(str(said_by), {**SPEAKERS, **ROLES})}")
        turns.append({"role": SPEAKERS[said_by], "content": turn.get("value", turn.get("content"))})
    system = row.get("system")
    return [*([{"role": "system", "content": system}] if system else []), *turns]


def _alpaca(row: Row) -> list[Row]:
    earlier = [message for asked, answered in row.get("history") or [] for message in _turn(asked, answered)]
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return [*system, *earlier, *_turn("\n\n".join(filter(None, (row["instruction"], row.get("input")))), row["output"])]


def _gsm8k(row: Row) -> list[Row]:
    answer = re.sub(r"<<[^<>]*>>", "", row["answer"])  # GSM8K's calculator marks
    return _turn(row["question"], answer.replace("\n#### ", "\nThe answer is ") + ("." if "\n#### " in answer else ""))


def _completion(row: Row) -> list[Row]:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list):  # TRL's conversational form
        return [
            *_chat({"messages": prompt}),
            *(_chat({"messages": completion}) if isinstance(completion, list) else _turn("", completion)[1:])
        ]
    return _turn(prompt, completion)


def _turn(question: str, answer: str) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


KINDS: list[tuple[Callable[[Row], list[Row]], tuple[str, ...]]] = [(_chat, ("messages",)),
                                                                   (_sharegpt, ("conversations",)),
                                                                   (_alpaca, ("instruction", "output")),
                                                                   (_gsm8k, ("question", "answer")),
                                                                   (_completion, ("prompt", "completion"))]
"""What a row is read as, by the fields that it has; the first that fits."""
