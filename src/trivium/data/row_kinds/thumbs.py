"""Rows that say of one answer whether it is good."""

from __future__ import annotations

from typing import Any

from trivium.data.row_kinds.comparisons import response_of
from trivium.data.row_kinds.demonstrations import (
    KINDS,
    conversation,
    kind_of_row,
    refuse_pictures,
    steps,
    unknown,
    with_tools,
)
from trivium.data.row_kinds.fields import Fields
from trivium.data.row_kinds.messages import Reading, check_prompt
from trivium.errors import TriviumError
from trivium.files import Row

GOOD = ("true", "1", "+1", "yes", "good", "是", "好", "赞")
BAD = ("false", "0", "-1", "no", "bad", "否", "坏", "差", "踩")


def thumb(row: Row | Fields, reading: Reading | None = None) -> Row:
    """A row as ``{"prompt": messages, "completion": a text or the assistant's message, "label": bool, "tools"?}``, with
    the ``split``, ``finished`` and ``annotator`` that it has: a question and an answer in any form that demonstrations
    have, and a ``label`` or ``kto_tag``; or steps with ``labels``, which are good when all are. Raises
    :class:`TriviumError` for what is none."""
    fields = row if isinstance(row, Fields) else Fields(row)
    reading = reading or Reading()
    refuse_pictures(fields)
    fields.roles_as_columns(reading.speaker)
    if "completions" in fields and "labels" in fields:
        prompt, answer, label = steps(fields, reading)
        messages = [*prompt, answer]
    else:
        kind = kind_of_row(fields, KINDS)
        if kind is None or "label" not in fields:
            raise unknown("thumb", "give it `prompt`, `completion` and `label`, or name its `columns`", fields)
        label = truth_of(fields.take("label"))
        messages = conversation(fields, kind, reading)
    if not messages or messages[-1]["role"] != "assistant":
        raise TriviumError("the last message is not the assistant's")
    completion = response_of(messages[-1:])
    if isinstance(completion, str) and not completion.strip():
        raise TriviumError("the completion is empty")
    made = with_tools({"prompt": check_prompt(messages[:-1]), "completion": completion, "label": label}, fields)
    for name in ("split", "finished", "annotator"):
        value = fields.take(name)
        if value is not None and (name != "split" or value in ("train", "heldout")):
            made[name] = value
    return made


def truth_of(value: Any) -> bool:
    """A label as true or false: JSON's own, 1 and 0, +1 and -1, or words. Raises :class:`TriviumError` for others."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().lower().removesuffix(".0")
    if text in GOOD:
        return True
    if text in BAD:
        return False
    raise TriviumError(f"the label {value!r} is neither true nor false; say what it means under `labels`")
