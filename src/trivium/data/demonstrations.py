"""Demonstrations as people have them, brought together: read, phrased by templates, and mixed by weight."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from trivium import randomness
from trivium.data.phrasings import Phraser
from trivium.data.row_kinds.demonstrations import FORMATS, lesson, unknown
from trivium.data.row_kinds.fields import Fields, Notes
from trivium.data.row_kinds.messages import Reading, messages_of
from trivium.data.row_kinds.messages import check_conversation as check_conversation
from trivium.data.sources import Source as Source
from trivium.data.sources import rows_of_source as rows_of_source
from trivium.errors import TriviumError, nearest, plain
from trivium.extensions import file_of, load_object, names, resolve
from trivium.files import Reject, Row


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
    prompts: list[Row] = field(default_factory=list)
    """Rows that ask alone: ``prompt``, ``tools`` and ``answer`` where they have them."""
    texts: list[str] = field(default_factory=list)
    """Rows that are a text without a question."""
    notes: Notes = field(default_factory=Notes)


def read(source: Path, settings: Source, where: str, reject: Reject, seen: dict[bytes, tuple[str, int]],
         say: Callable[[str], None] = lambda text: None) -> Read:
    """All good rows of a source. Bad ones go to ``reject`` with their reason; rows that say what an earlier one said
    are bad too, be it of this source or of one before: ``seen`` has the place of each. ``say`` is told what was guessed
    of its files."""
    found = Read()
    phraser = Phraser(settings.templates, f"{where}.templates") if settings.templates else None
    own = format_named(settings.format, where) if settings.format else None

    def refuse(file: str, number: int, reason: str, text: str) -> None:
        found.rejected[kind_of(reason)] += 1
        reject(file, number, reason, text)

    def unreadable(file: str, number: int, reason: str, text: str) -> None:
        found.rows += 1
        refuse(file, number, reason, text)

    for file, number, raw in rows_of_source(source, unreadable, settings, say):
        found.rows += 1
        reading = settings.reading()
        try:
            made = taught(raw, settings, reading, phraser, own)
        except KeyError as error:
            refuse(file, number, f"the field {error} is missing", shown(raw))
            continue
        except (TriviumError, TypeError, AttributeError, ValueError) as error:
            refuse(file, number, plain(error), shown(raw))
            continue
        text = json.dumps(made.get("variants", made), sort_keys=True, ensure_ascii=False)
        key = digest(text)
        if key in seen:
            refuse(file, number, f"a duplicate of {seen[key][0]}, row {seen[key][1]}", shown(raw))
            continue
        seen[key] = (file, number)
        found.notes.add(reading.notes)
        if "text" in made:
            found.texts.append(made["text"])
        elif "prompt" in made:
            found.prompts.append(made)
        else:
            asked = digest("asked: " + json.dumps([messages[:-1] for messages in made["variants"]], sort_keys=True,
                                                  ensure_ascii=False))
            found.otherwise += asked in seen
            seen[asked] = (file, number)
            found.made.append({**made, "key": text})
    return found


def taught(raw: Row, settings: Source, reading: Reading, phraser: Phraser | None,
           own: Callable[[Row], list[Row]] | None) -> Row:
    """A row as ``{"variants", "answer", "tools"?, "group"?}``, with its conversations by phrasing, or as a prompt or a
    text alone."""
    if phraser is not None:
        row = settings.named(raw)
        variants = [phraser(row, number) for number in range(len(phraser))]
        for messages in variants:
            check_conversation(messages)
        return {"variants": variants, "answer": checkable(row)}
    if own is not None:
        row = settings.named(raw)
        return {"variants": [check_conversation(messages_of(own(row), "messages", reading))], "answer": checkable(row)}
    fields = settings.fields(raw)
    made = lesson(fields, reading)
    answer = checkable({"answer": fields.take("answer") if settings.prompts or "prompt" in made else None})
    more = {name: value for name in ("group",) if isinstance(value := fields.take(name), str)}
    reading.notes.unused.update(fields.unused())
    if "prompt" in made:
        return {**made, **({"answer": answer} if answer is not None else {})}
    if "text" in made:
        return made
    tools = {"tools": made["tools"]} if "tools" in made else {}
    return {"variants": [made["messages"]], "answer": answer, **tools, **more}


def shown(row: Row) -> str:
    """A row as a reject shows it."""
    return json.dumps(row, ensure_ascii=False, default=str)


def digest(text: str) -> bytes:
    """What a row is known again by."""
    return blake2b(text.encode(), digest_size=16).digest()


def kind_of(reason: str) -> str:
    """A reason without what differs from row to row, to count by."""
    kind = "a duplicate" if reason.startswith("a duplicate") else re.sub(r"; (did you mean|known:).*", "", reason)
    kind = re.sub(r"^(the label) '[^']*'", r"\1 …", kind)
    kind = re.sub(r"(message|line|column|char|byte|^) ?\d+", r"\1 …", kind)
    return kind.replace("… field,", "… fields,").strip()


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
            made |= {field: row[field] for field in ("tools", "group") if field in row}
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
    """What an answer to a row can be checked by: its field `answer`; of GSM8K's, what stands in the last line after the
    mark ``####``."""
    answer = row.get("answer")
    if not isinstance(answer, (str, int, float)):
        return None
    mark = re.search(r"(?:^|\n)#### ([^\n]+)\s*\Z", str(answer))
    return (mark[1] if mark else str(answer)).strip()


def format_named(name: str, where: str) -> Callable[[Row], list[Row]] | None:
    """``FILE.py:NAME``, a function that makes messages of a row; None for the name of a known format."""
    if file_of(own := resolve(name, "formats")) is not None:
        found: Callable[[Row], list[Row]] = load_object(own)
        return found
    if name not in FORMATS:
        raise TriviumError(f"{where}.format: there is no format {name!r}{nearest(name, [*FORMATS, *names('formats')])}")
    return None


def demonstration(row: Row) -> Row:
    """A row of any known kind as ``{"messages", "tools"?}``. Raises :class:`TriviumError` for what is none."""
    made = lesson(fields := Fields(row), Reading())
    if "messages" not in made:
        raise unknown("demonstration", "a question without an answer, or a text alone, shows nothing", fields)
    return made
