"""What a chat model writes, taken apart: its reasoning, its words, and the tools that it calls."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

Delta = dict[str, Any]
"""A part of an answer in OpenAI's form: ``reasoning_content``, ``content``, or ``tool_calls`` with one call."""

THINK, THOUGHT, CALL, CALLED, LIST = "<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]"


class AnswerReader:
    """An answer's text as it comes. Nothing that is given out is taken back, so whatever may become a tag waits.

    Reasoning is what stands between ``<think>`` and ``</think>`` at the beginning, or before ``</think>`` where the
    prompt itself ends with ``<think>`` (``thinking``). Calls are looked for where there are ``tools``: JSON between
    ``<tool_call>`` and ``</tool_call>`` (Hermes, Qwen, ours), a list after ``[TOOL_CALLS]`` (Mistral), or an answer
    that is nothing but an object with a ``name`` (Llama 3). A call that is no JSON stays text."""

    def __init__(self, thinking: bool = False, tools: bool = False) -> None:
        self.tools, self.calls = tools, 0
        self._state = "think" if thinking else "begin"
        self._waiting, self._said = "", False
        self._pushed = 0
        self.begun_at: int | None = None
        """The place in the text where the words begin, behind what was thought; None while that is not known."""

    def push(self, text: str, last: bool = False) -> list[Delta]:
        """More of the text; returns what is now sure, in order. ``last`` gives out all there is."""
        self._waiting += text
        self._pushed += len(text)
        found: list[Delta] = []
        while (step := getattr(self, f"_{self._state}")(last, found)) is not None:
            self._state = step
            if step == "words" and self.begun_at is None:
                self.begun_at = self._pushed - len(self._waiting)
        return [delta for delta in found if any(delta.values())]

    # Each state takes what it can from what waits, and returns the next one, or None to wait.

    def _begin(self, last: bool, found: list[Delta]) -> str | None:
        start = self._waiting.lstrip()
        if start.startswith(THINK):
            self._waiting = start[len(THINK):]
            return "think"
        return None if THINK.startswith(start) and not last else "words"

    def _think(self, last: bool, found: list[Delta]) -> str | None:
        thought, closed, rest = self._waiting.partition(THOUGHT)
        if not closed and not last:
            sure = _without_beginnings(self._waiting, THOUGHT).rstrip("\n")
            thought, self._waiting = sure, self._waiting[len(sure):]
        elif not closed:
            self._waiting = ""
        else:
            thought, self._waiting = thought.rstrip("\n"), rest
        thought = thought if self._said else thought.lstrip("\n")
        self._said = self._said or bool(thought)
        found.append({"reasoning_content": thought})
        if not closed:
            return None
        self._said = False
        return "after"

    def _after(self, last: bool, found: list[Delta]) -> str | None:
        self._waiting = self._waiting.lstrip("\n")
        return "words" if self._waiting else None

    def _words(self, last: bool, found: list[Delta]) -> str | None:
        if not self.tools:
            self._say(self._waiting, found)
            self._waiting = ""
            return None
        start = self._waiting.lstrip()
        if not self._said and not self.calls and (start.startswith("{") or not start):
            return "object" if start else None
        tag = min((tag for tag in (CALL, LIST) if tag in self._waiting), key=self._waiting.index, default=None)
        if tag:
            before, _, self._waiting = self._waiting.partition(tag)
            self._say(before.rstrip(), found)
            return "call" if tag == CALL else "list"
        sure = self._waiting if last else _without_beginnings(_without_beginnings(self._waiting, CALL), LIST).rstrip()
        if self.calls and not sure.strip():
            return None
        self._waiting = self._waiting[len(sure):]
        self._say(sure, found)
        return None

    def _call(self, last: bool, found: list[Delta]) -> str | None:
        body, closed, rest = self._waiting.partition(CALLED)
        if not closed and not last:
            return None
        self._waiting = rest
        if not self._called(body, found):
            self._say(CALL + body + closed, found)
        return "words"

    def _list(self, last: bool, found: list[Delta]) -> str | None:
        if not last:
            return None
        body, self._waiting = self._waiting, ""
        if not self._called(body, found):
            self._say(LIST + body, found)
        return None

    def _object(self, last: bool, found: list[Delta]) -> str | None:
        if not last:
            return None
        body, self._waiting = self._waiting, ""
        if not self._called(body, found):
            self._say(body, found)
        return None

    def _say(self, text: str, found: list[Delta]) -> None:
        """Give out words."""
        self._said = self._said or bool(text)
        found.append({"content": text})

    def _called(self, body: str, found: list[Delta]) -> bool:
        """Give out the calls that a text of JSON holds; whether it holds nothing else."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return False
        calls = [call_of(one) for one in (value if isinstance(value, list) else [value])]
        if not calls or None in calls:
            return False
        for call in calls:
            found.append({"tool_calls": [{"index": self.calls, "id": uuid.uuid4().hex[:9], "type": "function",
                                          "function": call}]})
            self.calls += 1
        return True


def call_of(value: Any) -> dict[str, str] | None:
    """A call in OpenAI's form, its arguments as JSON text; None for what is none."""
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if not isinstance(arguments, Mapping) or not set(value) <= {"name", "arguments", "parameters", "id"}:
        return None
    return {"name": value["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}


def message_of(deltas: list[Delta]) -> dict[str, Any]:
    """The whole message that deltas make."""
    calls = [{name: value for name, value in call.items() if name != "index"}
             for delta in deltas for call in delta.get("tool_calls", [])]
    content = "".join(delta.get("content", "") for delta in deltas)
    reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
    return {"role": "assistant", "content": content if content or not calls else None, "refusal": None,
            **({"reasoning_content": reasoning} if reasoning else {}),
            **({"tool_calls": calls} if calls else {})}


def _without_beginnings(text: str, tag: str) -> str:
    """A text without the beginning of a tag that it ends with."""
    return next((text[:-size] for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), text)
