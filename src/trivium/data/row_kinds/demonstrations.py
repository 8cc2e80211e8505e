"""Rows that show how to answer: questions and answers under any of their names, and conversations."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import product
from typing import Any

from trivium.data.row_kinds.fields import ANSWERED, ASKED, Fields
from trivium.data.row_kinds.messages import (
    ROLE_FIELDS,
    Reading,
    calls_of,
    check_conversation,
    check_prompt,
    messages_of,
    text_of,
    tools_of,
    with_reasoning,
)
from trivium.data.row_kinds.verdicts import lacking
from trivium.errors import TriviumError
from trivium.files import Row, what

CONVERSATIONS = ("messages", "conversations")
NATIVE = (("instruction", "output"), ("question", "answer"), ("prompt", "completion"))
KINDS: tuple[tuple[str, ...], ...] = tuple(dict.fromkeys([
    *((name,) for name in CONVERSATIONS), *NATIVE, *product(ASKED, ANSWERED)]))
"""What a row is read as, by the fields that it has: the first that fits, but one that a recipe names goes first."""
FORMATS = {"chat": ("messages",), "sharegpt": ("conversations",), "alpaca": ("instruction", "output"),
           "gsm8k": ("question", "answer"), "completion": ("prompt", "completion")}
"""Names of kinds for the setting ``format``."""
JUDGED = ("chosen", "rejected", "responses", "completions", "preferred_output")
PICTURES = ("images", "image", "videos", "audios", "audio")

_LAST_MARK = re.compile(r"\n#### (-?[\d,.]+)\s*\Z")
_CALCULATOR = re.compile(r"<<[^<>\n]*=[-\d.]+>>")


def lesson(fields: Fields, reading: Reading) -> Row:
    """A row as ``{"messages", "tools"?}``, from which an answer can be learned; as ``{"prompt", "tools"?}``, which asks
    alone; or as ``{"text"}``, a text without a question. Raises :class:`TriviumError` for what is none."""
    refuse_pictures(fields)
    fields.roles_as_columns(reading.speaker)
    kind = kind_of_row(fields, KINDS)
    if kind is None and "completions" in fields and "labels" in fields and "prompt" in fields:
        prompt, answer, right = steps(fields, reading)
        if not right:
            raise TriviumError("not every step is right; name the file under `thumbs`, where that can be learned from")
        return with_tools({"messages": check_conversation([*prompt, answer])}, fields)
    if kind is not None:
        return with_tools({"messages": _answered(conversation(fields, kind, reading), reading)}, fields)
    if kind is None and "answers" in fields and "tools" in fields:
        return _calls_alone(fields, reading)
    if "prompt" in fields and not any(name in fields for name in JUDGED):
        return with_tools({"prompt": check_prompt(question(fields, "prompt", reading))}, fields)
    if "text" in fields and not ({"label", "labels"} & set(fields.names())):
        text = fields.take("text")
        if not isinstance(text, str) or not text.strip():
            raise TriviumError("the text is empty")
        return {"text": text}
    raise unknown("demonstration", "give it `messages`, or `prompt` and `completion`, or name its `columns`", fields)


def _calls_alone(fields: Fields, reading: Reading) -> Row:
    """xLAM: a question, ``tools``, and under ``answers`` the calls that answer it."""
    kind = kind_of_row(fields, [(name,) for name in ASKED])
    if kind is None:
        raise unknown("demonstration", "give it `query`", fields)
    called = {"role": "assistant", "content": "", "tool_calls": calls_of(fields.take("answers"), "answers")}
    return with_tools({"messages": check_conversation([*question(fields, kind[0], reading), called])}, fields)


def unknown(kind: str, mend: str, fields: Fields) -> TriviumError:
    """The fault of a row of no known kind, with a hint where it is one of another kind."""
    other = ("; it is a comparison: name its file under `comparisons`"
             if kind != "comparison" and "rejected" in fields else "")
    other = other or (lacking(fields) if kind == "comparison" else "")
    empty = f" (empty: {', '.join(fields.empty)})" if fields.empty else ""
    return TriviumError(f"no known kind of {kind} has the fields {', '.join(sorted(fields.names())) or '(none)'}"
                        f"{empty}; {mend}{other}")


def kind_of_row(fields: Fields, kinds: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The kind whose fields are all there: the one of which a recipe names most, and of those the first. An ``input``
    beside an ``instruction`` is Alpaca's, and no question of its own."""
    there = [kind for kind in kinds if all(name in fields for name in kind)
             and not (kind[0] == "input" and "instruction" in fields)]
    return max(there, key=lambda kind: sum(name in fields.named for name in kind), default=None)


def conversation(fields: Fields, kind: tuple[str, ...], reading: Reading) -> list[Row]:
    """All messages of a row of a kind: the system's, the history, what is asked and what is answered."""
    asked = question(fields, kind[0], reading)
    if len(kind) == 1:
        return asked
    value = fields.take(kind[1])
    if kind == ("question", "answer") and isinstance(value, str):
        value, before = without_marks(value), value
        if value != before:
            reading.note("the calculator's marks of GSM8K were taken out, and its result was put in words")
    answer = said(value, "assistant", fields.called(kind[1]), reading)
    thought = fields.take("reasoning_content")
    if isinstance(thought, str) and thought.strip() and answer and answer[-1]["role"] == "assistant" and (
            "reasoning_content" not in answer[-1]):
        answer[-1] |= with_reasoning(answer[-1]["content"], thought, fields.called("reasoning_content"))
    return [*asked, *answer]


def question(fields: Fields, name: str, reading: Reading) -> list[Row]:
    """What a row asks, with the system's words and the history before it."""
    value = fields.take(name)
    if name in CONVERSATIONS:
        if isinstance(value, list) and value and all(isinstance(text, str) for text in value):  # LIMA
            value = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(value)]
        asked = messages_of(value, fields.called(name), reading)
    elif isinstance(value, str) and (turns := dialogue_of(value, open_end=True)):
        asked = turns
    else:
        asked = said(value, "user", fields.called(name), reading)
        if isinstance(value, str) and asked[0]["content"] == value:
            more = [other for other in ("input", "query", "context") if other != name and other in fields
                    and (other in fields.named or other == "context" or (name, other) == ("instruction", "input")
                         or (other == "input" and name not in fields.named and str(fields.peek(other)) not in value))]
            texts = [value, *(fields.take(other) for other in more if isinstance(fields_text(fields, other), str))]
            asked[0]["content"] = "\n\n".join(text for text in texts if text)
    return opened(asked, fields, reading)


def fields_text(fields: Fields, name: str) -> Any:
    """The value of a field that is joined to a question; refuses an input that is no text."""
    value = fields.peek(name)
    if name != "context" and not isinstance(value, str):
        raise TriviumError(f"the field {fields.called(name)!r} is not a text")
    return value


def opened(messages: list[Row], fields: Fields, reading: Reading) -> list[Row]:
    """Messages behind the row's ``system`` and ``history``. Raises :class:`TriviumError` where the row and its messages
    have different systems."""
    system = text_of(fields.take("system"))
    if system is not None and not isinstance(system, str):
        raise TriviumError("the field 'system' is not a text")
    own = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
    if system and system.strip():
        if own is None:
            own, messages = system, [{"role": "system", "content": system}, *messages]
        elif own != system and "system" not in fields.shared:
            raise TriviumError("there are two different systems: the field 'system' and the first message")
    elif system is not None and own is None and "system" not in fields.shared:
        reading.note("an empty system message was left out")
    earlier = history_of(fields.take("history"), reading)
    return [*messages[:1], *earlier, *messages[1:]] if own is not None else [*earlier, *messages]


def history_of(value: Any, reading: Reading) -> list[Row]:
    """Earlier turns: pairs of question and answer, or messages."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise TriviumError("history is neither a list nor the JSON of one") from error
    if value in (None, "", []):
        return []
    if not isinstance(value, list) or isinstance(value[0], dict):
        return messages_of(value, "history", reading)
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
               for pair in value):
        raise TriviumError("history is no list of [question, answer]")
    return [message for pair in value
            for message in ({"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]})]


def said(value: Any, role: str, name: str, reading: Reading) -> list[Row]:
    """What one side says: a text, a message, or messages."""
    if isinstance(value, dict) and not all(isinstance(part, list) for part in value.values()):
        value = [value]
    if isinstance(value, str) and (turns := _turns_in(value, reading)):
        reading.note(f"the JSON of messages in the text of {name!r} was read as messages")
        value = turns
    if isinstance(value := text_of(value), (list, dict)):
        return messages_of(value, name, reading)
    if not isinstance(value, str):
        raise TriviumError(f"the field {name!r} is no text, but {what(value)}")
    return [{"role": role, "content": value}]


def _turns_in(text: str, reading: Reading) -> list[Row] | None:
    """The messages whose JSON a text is, as tables hold them; None for any other text, be it JSON or not."""
    if not text.lstrip().startswith(("[{", "[ {", "[\n")):
        return None
    try:
        turns = json.loads(text)
    except ValueError:
        return None
    spoken = all(isinstance(turn, dict) and any(reading.speaker(turn.get(key)) for key in ROLE_FIELDS)
                 for turn in turns)
    return turns if turns and spoken else None


def _answered(messages: list[Row], reading: Reading) -> Sequence[Row]:
    """A conversation from the first question to the last answer; what stands around them is counted."""
    last = max((place for place, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    start = sum(message["role"] == "system" for message in messages[:1])
    first = next((place for place in range(start, len(messages)) if messages[place]["role"] == "user"), last + 1)
    if start < first < last and all(message["role"] == "assistant" for message in messages[start:first]):
        reading.note("what the assistant says before anything is asked was left out")
        messages, last = [*messages[:start], *messages[first:]], last - (first - start)
    if 0 < last < len(messages) - 1 and any(message["role"] == "user" for message in messages[:last]):
        reading.note("a last turn that nobody answers was left out")
        check_conversation(messages[:last + 1])
        return messages[:last + 1]
    return check_conversation(messages)


def with_tools(made: Row, fields: Fields) -> Row:
    """The row with the definitions of its tools, if it has any."""
    tools = tools_of(fields.take("tools"))
    return {**made, "tools": tools} if tools else made


def refuse_pictures(fields: Fields) -> None:
    """Raise :class:`TriviumError` for a row that comes with pictures or sound, which its text speaks of."""
    for name in PICTURES:
        if name in fields and fields.take(name):
            raise TriviumError(f"the row has {name}; only text is read here")


def without_marks(answer: str) -> str:
    """GSM8K's answers without the calculator's marks, ``<<2*3=6>>``, and with the result in words; every other text as
    it is. GSM8K's end with a line ``#### number``."""
    mark = _LAST_MARK.search(answer)
    if mark is None:
        return answer
    return f"{_CALCULATOR.sub('', answer[:mark.start()])}\nThe answer is {mark[1]}."


def steps(fields: Fields, reading: Reading) -> tuple[list[Row], Row, bool]:
    """A row that judges each step of an answer (``prompt``, ``completions``, ``labels``): the prompt, the whole answer,
    and whether every step is right. Steps that no white space divides stand on lines of their own."""
    parts, labels = fields.take("completions"), fields.take("labels")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
        raise TriviumError("`completions` is no list of texts")
    if not isinstance(labels, list) or len(labels) != len(parts) or not all(label in (0, 1) for label in labels):
        raise TriviumError(f"`labels` does not say of each of the {len(parts)} steps whether it is right")
    whole = parts[0]
    for part in parts[1:]:
        whole += part if whole[-1:].isspace() or part[:1].isspace() or not whole else "\n" + part
    return question(fields, "prompt", reading), {"role": "assistant", "content": whole}, all(labels)


def dialogue_of(text: str, open_end: bool = False) -> list[Row] | None:
    """A dialogue of Anthropic's HH kind, ``\\n\\nHuman: ...\\n\\nAssistant: ...``, as messages, each as it stands but
    for the space behind its mark; None for any other text. With ``open_end`` it must end where the assistant is to
    answer, without it with what the assistant says."""
    parts = re.split(r"\n\n(Human|Assistant):", text if text.startswith("\n\n") else "\n\n" + text)
    if parts[0] or len(parts) < 3 or parts[1] != "Human" or parts[-2] != "Assistant":
        return None
    if open_end:
        if parts[-1].strip():
            return None
        parts = parts[:-2]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[mark], "content": said.removeprefix(" ")} for mark, said in zip(parts[1::2], parts[2::2])]
