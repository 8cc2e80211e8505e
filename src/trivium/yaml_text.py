"""YAML that people write, read safely: plain values only, no key twice, and within bounds, so that a few lines cannot
stand for a billion values. Whatever is wrong is one line that says where."""

from __future__ import annotations

from typing import Any

import yaml

from trivium.errors import TriviumError

MOST_VALUES = 1_000_000
"""The most values that a text may stand for, those that anchors repeat counted as often as they are repeated."""
MOST_LEVELS = 100
"""The most mappings and lists inside each other."""
MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The safe loader, which stops at depths that no settings have, and at anchors that hold themselves."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._open: set[str] = set()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor in self._open:
                raise _fault(event.start_mark, f"the anchor {anchor!r} holds itself")
            return super().compose_node(parent, index)
        self._level += 1
        if self._level > MOST_LEVELS:
            raise _fault(event.start_mark, f"more than {MOST_LEVELS} levels inside each other")
        if anchor is not None:
            self._open.add(anchor)
        node = super().compose_node(parent, index)
        self._level -= 1
        self._open.discard(anchor or "")
        return node


def _fault(mark: Any, reason: str) -> TriviumError:
    return TriviumError(f"line {mark.line + 1}: {reason}")


def compose(text: str) -> tuple[Any, Any]:
    """A text's tree, checked, and the loader that makes values of it. Raises :class:`TriviumError` as
    :func:`read_yaml` does."""
    try:
        loader = _Loader(text)
        root: Any = loader.get_single_node()
    except yaml.YAMLError as error:
        raise TriviumError(_said(error)) from error
    except RecursionError as error:
        raise TriviumError("too many levels inside each other") from error
    if root is not None:
        _check(root, loader, {})
    return root, loader


def construct(root: Any, loader: Any) -> Any:
    """The values of a tree."""
    try:
        return None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise TriviumError(_said(error)) from error


def read_yaml(text: str) -> Any:
    """The value that a YAML text holds. Raises :class:`TriviumError`, which begins with the line where there is one,
    for what is no YAML, has a key twice, stands for too much, or holds a value that cannot be read."""
    return construct(*compose(text))


def _check(node: Any, loader: Any, seen: dict[int, int]) -> int:
    """How many values a node stands for; raises for one that has a key twice, or a value that cannot be read."""
    if id(node) in seen:
        return seen[id(node)]
    count = 1
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, loader)
    elif isinstance(node, yaml.MappingNode):
        keys: dict[Any, int] = {}
        for key, value in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in keys:
                raise _fault(key.start_mark, f"{str(getattr(key, 'value', ''))[:80]!r} is given twice (first in line "
                             f"{keys[name]}); keep one of them")
            keys[name] = key.start_mark.line + 1
            count += _check(key, loader, seen) + _check(value, loader, seen)
    else:
        count += sum(_check(item, loader, seen) for item in node.value)
    if count > MOST_VALUES:
        raise _fault(node.start_mark, f"stands for more than {MOST_VALUES:,} values, by anchors that repeat each other")
    seen[id(node)] = count
    return count


def _check_scalar(node: Any, loader: Any) -> None:
    if node.tag in ("tag:yaml.org,2002:str", MERGE, "tag:yaml.org,2002:value"):
        return
    try:
        loader.construct_object(node)
    except yaml.YAMLError as error:
        raise TriviumError(_said(error)) from error
    except (ValueError, OverflowError, KeyError, TypeError, IndexError) as error:
        kind = {"int": "a whole number", "float": "a number", "timestamp": "a date"}.get(node.tag.rpartition(":")[2])
        raise _fault(node.start_mark, f"{node.value[:80]!r} cannot be read" + (
            f" as {kind}; put it in quotes if it is a text" if kind else "")) from error


def _said(error: Any) -> str:
    """One line of what is no YAML."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"{where}not valid YAML ({' '.join(str(problem).split())[:200]})"
