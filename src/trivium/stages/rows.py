"""Rows of JSON lines as the stages read them, each checked, the bad ones kept aside with their reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from trivium import randomness
from trivium.data.row_kinds.demonstrations import opened
from trivium.data.row_kinds.fields import Fields, Notes
from trivium.data.row_kinds.messages import Reading, messages_of, tools_of
from trivium.errors import TriviumError, counted, plain
from trivium.files import Row, read_rows, what
from trivium.model.adapters.folder import weights_digest as weights_digest
from trivium.stage import Context
from trivium.tokenizer.chat import check_messages
from trivium.training.batch import map_trees as map_trees

HELD = {"messages": "chat messages", "ranking": "rankings", "completion": "thumbs"}
"""What rows hold by a field that they must have."""


def rows_of(source: Path, name: str, fields: Sequence[str], context: Context,
            check: Callable[[Row], None] = lambda row: None, numbers: list[int] | None = None) -> list[Row]:
    """The rows of ``source``, a JSONL file or a folder that holds ``name``; each must have ``fields`` and pass
    ``check``, which raises :class:`TriviumError`. A row of ``prompt`` without ``id`` gets one made of its prompt. Bad
    rows go to the stage's ``rejects-FILE`` with their reason, and how many is said; raises where no good one is left.
    The good ones' places in the file, from 1, are added to ``numbers``."""
    path = source / name if source.is_dir() else source
    rows: list[Row] = []
    rejects: list[Row] = []
    notes = Notes()

    def reject(file: str, number: int, reason: str, text: str) -> None:
        rejects.append({"file": Path(file).name, "row": number, "reason": reason, "text": text[:2000]})

    for number, row in read_rows(path, reject):
        try:
            if "id" in fields and "prompt" in row and row.get("id") is None:
                row = {**row, "id": f"{randomness.derive(0, json.dumps(row['prompt'], ensure_ascii=False)):016x}"}
            missing = next((field for field in fields if field not in row), None)
            if missing is not None:
                raise TriviumError(f"the field {missing!r} is missing")
            if "id" in fields and not isinstance(row["id"], (str, int)):
                raise TriviumError(f"the field 'id' is {what(row['id'])}, where a text or a number was expected")
            reading = Reading()
            row = in_our_form(row, [field for field in ("messages", "prompt") if field in fields], reading)
            check(row)
        except (TriviumError, TypeError, KeyError, AttributeError) as error:
            reject(str(path), number, plain(error), json.dumps(row, ensure_ascii=False))
        else:
            rows.append(row)
            notes.add(reading.notes)
            if numbers is not None:
                numbers.append(number)
    if not rows:
        hint = next((f"; here rows are JSON lines of {what}: a stage `imports` brings other kinds in"
                     for field, what in HELD.items() if field in fields and rejects
                     and not any(f'"{field}"' in reject["text"] for reject in rejects)), "")
        raise TriviumError(f"{path}: " + (
            f"row {rejects[0]['row']}: {rejects[0]['reason']}; no good row is left{hint}" if rejects else "no rows"))
    if rejects:
        context.keep_rows(f"rejects-{path.name}", rejects)
        context.progress.say(
            f"{len(rejects)} of {counted(len(rejects) + len(rows), 'row')} of {path.name} were rejected, "
            f"see rejects-{path.name}: row {rejects[0]['row']}: {rejects[0]['reason']}")
    for line in notes.lines():
        context.progress.say(f"{path.name}: {line}")
    return rows


def in_our_form(row: Row, fields: Sequence[str], reading: Reading) -> Row:
    """The row with the messages in ``fields`` in the form that they have here: turns that are not to be learned
    (OpenAI's ``weight: 0``) and calls of tools are marked in one way, whatever the row's; a prompt that is a text is
    what the user says, and a row's ``system`` and ``history`` stand before it. Raises :class:`TriviumError` for what
    are no messages."""
    row = {**row}
    before = Fields({name: row.pop(name) for name in ("system", "history") if fields and name in row})
    for field in fields:
        value = row[field]
        if isinstance(value, str) and field == "prompt":
            value = [{"role": "user", "content": value}]
        if isinstance(value, list) and all(isinstance(message, dict) for message in value):
            value = opened(messages_of(value, field, reading), before, reading)
        row[field] = check_messages(value)
    if fields and "tools" in row:
        row["tools"] = tools_of(row["tools"])
    return {name: value for name, value in row.items() if name != "tools" or value}
