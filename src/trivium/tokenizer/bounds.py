"""A sandbox for chat templates that ends: steps, texts and numbers have bounds, whatever a template does.

A template comes with a model's folder, from anybody. Jinja's sandbox keeps it from the machine, but not from counting
for ever: so each loop, call and text that it writes is charged to an account, and one that overdraws it is refused.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, cast

from jinja2 import nodes, pass_context
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

STEPS = 1_000_000
"""Turns of loops and calls that any chat may take."""
CALL = 8
"""Steps of a call, which takes that much longer."""
LENGTH = 4_000_000
"""Characters that any chat may have, beside eight times its own."""
WIDTH = 1_000_000
"""The greatest number that may be handed to a function."""
_WIDE = re.compile(r"%[^a-zA-Z%]*(\d{7,}|\*)")
NEEDLESS = ("center", "batch", "slice", "random", "urlize", "wordwrap")
"""Filters that no chat needs, and that are slow, wide or left to chance."""


class Endless(TemplateRuntimeError):
    """A template that does too much."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with bounds. :meth:`open_account` comes before each rendering, in its thread."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._account = threading.local()
        self.globals.pop("lipsum")
        self.globals["range"] = self._range
        for name in NEEDLESS:
            self.filters.pop(name)
        self.filters |= {"trivium_loop": self._loop, "trivium_written": self._written,
                         "trivium_made": self._made, "trivium_number": self._number, "format": self._format}

    def bounded(self, source: str) -> nodes.Template:
        """A parsed template whose loops and texts are charged."""
        tree: nodes.Template = _Charged().visit(self.parse(source))
        return tree

    def open_account(self, messages: Sequence[Mapping[str, Any]], *others: Any) -> None:
        """Allow what a chat with these messages and other data may need."""
        size = sum(len(str(message.get("content", ""))) for message in messages) + sum(len(str(o)) for o in others if o)
        self._account.steps = STEPS + 20 * len(messages)**2 + 4 * size
        self._account.length = LENGTH + 8 * size

    def charge(self, steps: int) -> None:
        """Take steps from the account."""
        self._account.steps = getattr(self._account, "steps", STEPS) - steps
        if self._account.steps < 0:
            raise Endless("it takes too many steps, and may never end")

    def _fits(self, value: Any) -> Any:
        """A value that is not too long."""
        if isinstance(value, (str, list, tuple)) and len(value) > getattr(self._account, "length", LENGTH):
            raise Endless("it makes too long a text, and may never end")
        return value

    def _range(self, *arguments: int) -> range:
        found = range(*arguments)
        self.charge(len(found))
        return found

    @pass_context
    def _loop(self, context: Context, value: Any) -> Any:
        """What a loop goes through."""
        if isinstance(value, Undefined) or not hasattr(value, "__iter__"):
            return value
        if not hasattr(value, "__len__"):
            value = list(islice(value, self._account.steps + 1))
        self.charge(1 + len(value))
        return value

    @pass_context
    def _written(self, context: Context, value: Any) -> Any:
        """What is written, or joined to a text."""
        if isinstance(value, str):
            self._account.length = getattr(self._account, "length", LENGTH) - len(value)
            if self._account.length < 0:
                raise Endless("it writes too long a text, and may never end")
        return value

    @pass_context
    def _made(self, context: Context, value: Any) -> Any:
        """What a filter made."""
        self.charge(1)
        return self._fits(value)

    @pass_context
    def _number(self, context: Context, value: Any) -> Any:
        """What is handed to a filter or a function."""
        if isinstance(value, int) and abs(value) > WIDTH:
            raise Endless("its numbers are too large")
        return value

    def _format(self, value: Any, *arguments: Any, **named: Any) -> str:
        return str(self.call_binop(None, "%", str(value), named or arguments))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute ``left operator right`` if that is not too large."""
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, (str, list, tuple)) and isinstance(times, int) and len(text) * times > WIDTH:
                    raise Endless("it repeats a text too often")
            if isinstance(left, int) and isinstance(right, int) and max(abs(left), abs(right)) > 1 << 64:
                raise Endless("its numbers are too large")
        elif operator == "**" and not (isinstance(right, (int, float)) and abs(right) <= 64):
            raise Endless("its numbers are too large")
        elif operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise Endless("it repeats a text too often")
        return self._fits(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # as Jinja's own
        """Call a function, a macro or a method of the template's."""
        __self.charge(CALL)
        for value in (*args, *kwargs.values()):
            __self._number(__context, value)
        return __self._fits(super().call(__context, __obj, *args, **kwargs))


class _Charged(NodeTransformer):
    """Puts the account's filters where a template loops, writes and joins."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "trivium_loop")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        node.nodes = [_filtered(nodes.Const(part.data) if isinstance(part, nodes.TemplateData) else part,
                                "trivium_written") for part in node.nodes]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:
        self.generic_visit(node)
        node.args = [_filtered(value, "trivium_number") for value in node.args]
        for named in node.kwargs:
            named.value = _filtered(named.value, "trivium_number")
        return _filtered(node, "trivium_made")

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(node, "trivium_written")


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)
