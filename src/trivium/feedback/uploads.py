"""Items from files of rows: JSON lines, JSON, CSV, Excel and what else recipes read, under the names known there."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trivium.data.readers import InputFile, Limits, has_rows, rows
from trivium.data.row_kinds.comparisons import PROMPTS, comparison, response_of
from trivium.data.row_kinds.demonstrations import kind_of_row, question, refuse_pictures, said
from trivium.data.row_kinds.fields import Fields
from trivium.data.row_kinds.messages import Reading
from trivium.data.unpack import Bad
from trivium.errors import TriviumError
from trivium.feedback.pictures import apart
from trivium.feedback.store import Imported, Store
from trivium.files import Row

LIMITS = Limits(max_document_bytes=16 << 20, max_unpacked_bytes=128 << 20, unwrap=True)
"""What an upload may hold when it is unpacked."""

_NUMBERED = re.compile(r"(?:response|answer|output|completion|回答|回复|答案)[ _]?(\d{1,2}|[a-z])", re.IGNORECASE)
_WRITTEN_AS_JSON = ("responses", "known", "scores", "models", "finished")


ROLES = ("prompt", "response", "system", "id", "keep")
"""What a column may be: the prompt, a response, the system's message, the id, or kept beside the item; else it is left
out."""


def columns_of(path: Path, name: str, most: int = 3, limits: Limits = LIMITS) -> dict[str, list[str]]:
    """The columns of a file of rows, each with how its first values begin."""
    if not has_rows(name):
        raise TriviumError("no file of rows; known are JSON, JSON lines, CSV, Excel, Parquet and Arrow")
    found: dict[str, list[str]] = {}
    read = (row for _, _, row in rows(InputFile(path, name, name), limits) if not isinstance(row, Bad))
    for row in itertools.islice(read, most):
        for column, value in row.items():
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            found.setdefault(str(column), []).append(shown[:80])
    return found


def named(row: Row, roles: Mapping[str, str]) -> Row:
    """A row under the names that :func:`item_of` knows, by what each of its columns is."""
    made: Row = {column: row[column] for column, role in roles.items() if role == "keep" and column in row}
    answers = [row[column] for column, role in roles.items()
               if role == "response" and row.get(column) not in (None, "")]
    if len(answers) == 1 and isinstance(_from_json(answers[0]), list):
        made["responses"] = answers[0]
    else:
        made |= {f"response_{number}": answer for number, answer in enumerate(answers, 1)}
    for column, role in roles.items():
        if role in ("prompt", "system", "id") and row.get(column) is not None:
            made[role] = _from_json(row[column]) if role == "prompt" else row[column]
    return made


def import_file(store: Store, path: Path, name: str, who: int | None = None, limits: Limits = LIMITS, batch: str = "",
                roles: Mapping[str, str] | None = None) -> Imported:
    """Add the items of a file called ``name``, in a batch where they name none; rows that cannot be taken are kept
    aside with their number and reason. ``roles`` says of each column what it is, of :data:`ROLES`, where its name does
    not.
    Raises :class:`TriviumError` for a file of a kind that holds no rows."""
    if not has_rows(name):
        raise TriviumError("no file of rows; known are JSON, JSON lines, CSV, Excel, Parquet and Arrow")
    outcome = Imported()
    numbers: list[int] = []

    def taken() -> Iterator[Row]:
        for _, number, row in rows(InputFile(path, name, name), limits):
            if isinstance(row, Bad):
                outcome.reject(number, row.reason, row.text)
                continue
            try:
                made = item_of(named(row, roles) if roles else row)
            except TriviumError as error:
                outcome.reject(number, str(error), row)
                continue
            numbers.append(number)
            yield {"batch": batch, **made} if batch else made
    added = store.add_items(taken(), who)
    for reject in added.rejects:
        reject["row"] = numbers[reject["row"] - 1]
    outcome.added, outcome.known_already = added.added, added.known_already
    outcome.rejects = sorted([*outcome.rejects, *added.rejects], key=lambda reject: reject["row"])
    return outcome


def item_of(row: Row) -> Row:
    """A row as :meth:`~trivium.feedback.store.Store.add_items` takes it: its prompt under any name that recipes know,
    and its responses as a list, as ``chosen`` and ``rejected``, or in columns such as ``response_a`` and
    ``response_b``."""
    shown: list[Row] = []
    given = row.get("prompt")
    if isinstance(given, list) and any(isinstance(one, dict) and isinstance(one.get("content"), list) for one in given):
        shown = given
        row = {**row, "prompt": [{**message, "content": message["content"] or "?"} for message in apart(shown)[0]]}
    fields, reading = Fields({name: value for name, value in row.items() if value != ""}), Reading()
    refuse_pictures(fields)
    kind = kind_of_row(fields, PROMPTS)
    if kind is None and "chosen" in fields and "rejected" in fields:  # whole conversations that end differently
        pair = comparison(fields, reading)
        return {"prompt": pair["prompt"], "responses": pair["responses"],
                **{name: fields.take(name) for name in fields.unused()}}
    if kind is None:
        raise TriviumError(f"there is no prompt; the row has {', '.join(fields.names())[:200] or 'nothing'}")
    made: Row = {"prompt": question(fields, kind[0], reading)}
    columns = _columns_of_responses(fields)
    if "responses" in fields:
        made["responses"] = _from_json(fields.take("responses"))
    elif columns:
        made["responses"] = [response_of(said(fields.take(name), "assistant", name, reading)) for name in columns]
    for name in fields.unused():
        value = fields.take(name)
        made[name] = _from_json(value) if name in _WRITTEN_AS_JSON else value
    return {**made, "prompt": shown} if shown else made


def _columns_of_responses(fields: Fields) -> list[str]:
    """The names of the columns that hold a response each, in order: a row that fills one of them alone is refused
    later, and is no prompt to answer."""
    pair = [name for name in ("chosen", "rejected") if name in fields]
    numbered = [(found.group(1).casefold().rjust(2), name) for name in fields.names()
                if (found := _NUMBERED.fullmatch(name.strip()))]
    return pair or [name for _, name in sorted(numbered)]


def _from_json(value: Any) -> Any:
    """A list that a cell of a table holds as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value
