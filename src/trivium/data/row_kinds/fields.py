"""A row's fields under the names that they have here, whatever the row calls them."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trivium.errors import TriviumError, counted, nearest
from trivium.files import Row

NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("消息",), "conversations": ("conversation", "dialog", "dialogue", "对话", "会话", "多轮对话"),
    "instruction": ("指令", "指示"), "input": ("输入",), "output": ("输出",),
    "question": ("问题", "提问", "问", "问句"), "answer": ("答案", "回答", "答", "答复"),
    "prompt": ("提示", "提示词", "context_messages"), "completion": ("补全", "generation"),
    "query": ("查询",), "response": ("回复", "响应", "应答"), "problem": ("题目",), "solution": ("解答", "解析"),
    "system": ("system_prompt", "系统", "系统提示", "系统提示词"), "history": ("历史", "历史对话", "对话历史"),
    "context": ("上下文", "背景"), "tools": ("functions", "工具"),
    "reasoning_content": ("reasoning", "thinking", "complex_cot", "cot", "思考", "思考过程", "思维链"),
    "chosen": ("chosen_response", "response_chosen", "优选", "优选回答", "更好的回答", "好的回答", "接受",
               "正例", "好"),
    "rejected": ("rejected_response", "response_rejected", "rejected_messages", "劣选", "劣选回答", "更差的回答",
                 "差的回答", "拒绝", "负例", "差", "坏"),
    "label": ("kto_tag", "标签"), "text": ("文本", "正文"),
    "response1": ("回答1", "回复1", "答案1"), "response2": ("回答2", "回复2", "答案2"),
    **{f"annotator{n}": (f"标注员{n}", f"标注者{n}", f"标注{n}") for n in range(1, 10)},
}
"""What fields are called here, and their other names; upper and lower case are the same."""

ASKED = ("instruction", "question", "prompt", "query", "problem", "input")
ANSWERED = ("output", "answer", "completion", "response", "solution")
_HERE = {other: name for name, others in NAMES.items() for other in (name, *others)}


class Fields:
    """The fields of one row, and which of them were used. Fields that hold null are none."""

    def __init__(self, row: Mapping[Any, Any], named: Iterable[str] = (), shared: Iterable[str] = ()) -> None:
        """``named`` are the names that a recipe gives to columns: they go before what the row happens to have.
        ``shared`` are those that it gives to all rows."""
        self.named = frozenset(named)
        self.shared = frozenset(shared)
        self._there: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        for key, value in row.items():
            if value is not None:
                self._values[str(key)] = value
        self.empty = sorted(str(key) for key, value in row.items() if value is None)
        """The fields that hold null."""
        for key in self._values:
            here = _HERE.get(key.strip().casefold())
            self._there[key] = key
            if here is not None and here not in self._values:
                self._there.setdefault(here, key)
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._there

    def roles_as_columns(self, speaker: Callable[[Any], str | None]) -> None:
        """Take columns that are called as roles are (``user`` and ``assistant``) for a query and its response, where
        no other columns are."""
        roles = {speaker(key): key for key in reversed(self._values)}
        if "user" in roles and ("assistant" in roles or "rejected" in self):
            if not any(name in self for name in ("messages", "conversations", *ASKED)):
                self._there["query"] = roles["user"]
            if not any(name in self for name in ANSWERED) and "assistant" in roles:
                self._there["response"] = roles["assistant"]

    def rename(self, there: str, here: str) -> None:
        """Take a field for another one from now on."""
        self._there[here] = self._there.pop(there)

    def take(self, name: str, default: Any = None) -> Any:
        """A field's value, which is then used."""
        if name not in self._there:
            return default
        self._used.add(self._there[name])
        return self._values[self._there[name]]

    def peek(self, name: str) -> Any:
        """A field's value, which is not used by that."""
        return self._values[self._there[name]] if name in self._there else None

    def called(self, name: str) -> str:
        """What the row calls a field."""
        return self._there.get(name, name)

    def names(self) -> list[str]:
        """All names as the row has them."""
        return list(self._values)

    def unused(self) -> list[str]:
        """The names of the fields that nothing has taken."""
        return [name for name in self._values if name not in self._used]


def at_path(row: Row, path: str) -> Any:
    """The value of a column, or of what lies inside one: ``instances.0.output``. A text on the way may be the JSON of
    an object or a list. Raises :class:`TriviumError` where there is none."""
    if path in row:
        return row[path]
    first, *rest = path.split(".")
    if not rest or first not in row:
        raise TriviumError(f"the column {path!r} is missing{nearest(path, map(str, row))}")
    value, been = row[first], first
    for part in rest:
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = json.loads(value)
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.lstrip("-").isdigit() and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            raise TriviumError(f"the column {path!r} is missing: {been} has no {part}")
        been += f".{part}"
    return value


def without_columns(row: Row, columns: Mapping[str, str]) -> Row:
    """The row under the names that ``columns`` gives (``{name here: column or path}``), without those columns under
    their own names."""
    found = {here: at_path(row, there) for here, there in columns.items()}
    gone = {there.split(".")[0] if there not in row else there for there in columns.values()}
    return {**{name: value for name, value in row.items() if name not in gone}, **found}


class Notes:
    """What is said once of a source's rows: how many had something that was left out or could not be used."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()

    def add(self, other: Notes) -> None:
        """Take over what one row gave."""
        self.rows.update(dict.fromkeys(other.rows, 1))
        self.unused.update(dict.fromkeys(other.unused, 1))

    def lines(self) -> list[str]:
        """One line a note, and one for all fields that were not used."""
        said = [f"{counted(count, 'row')}: {text}" for text, count in self.rows.most_common()]
        if self.unused:
            names = [f"{name} ({count:,})" for name, count in self.unused.most_common()]
            said.append("fields that were not used, and rows that have them: " + ", ".join(names[:20]) +
                        (f", and {len(names) - 20} more" if len(names) > 20 else ""))
        return said
