"""Chat templates as programs: Jinja with what ``transformers`` gives them, in a sandbox, on a fixed day."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from trivium.errors import TriviumError
from trivium.tokenizer.control import AFTER, BEFORE, SHIELD

DAY = date(2025, 1, 1)
"""The day on which every template is rendered that asks for one and names none: what a model learns and is asked must
not depend on the day."""

DATED = re.compile(r"\{#- strftime_now: (\d{4}-\d\d-\d\d) -#\}")
SPOKEN = re.compile(r'\{%- set default_system = ("(?:[^"\\]|\\.)*") -%\}')
USES_DEFAULT = ("{%- if not messages or messages[0]['role'] != 'system' -%}"
                "{%- set messages = [{'role': 'system', 'content': default_system}] + messages -%}{%- endif -%}")


GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token",
                   "unk_token", "strftime_now", "raise_exception", "range", "dict", "cycler", "joiner",
                   "namespace"})
"""What every template is given."""


@dataclass(frozen=True)
class Header:
    """What stands before a template: settings that travel with it, so that every program sees them."""

    system: str | None = None
    """What the system says in chats in which it says nothing."""
    day: date = DAY
    """The day that ``strftime_now`` tells. Other programs tell today's."""

    def before(self, template: str) -> str:
        """The template with this header before it."""
        dated = f"{{#- strftime_now: {self.day.isoformat()} -#}}" if self.day != DAY else ""
        said = f"{{%- set default_system = {json.dumps(self.system, ensure_ascii=False)} -%}}{USES_DEFAULT}"
        return dated + (said if self.system else "") + template

    @classmethod
    def split(cls, template: str) -> tuple[Header, str]:
        """A template's header, and the template without it."""
        rest, day, system = template, DAY, None
        if found := DATED.match(rest):
            rest, day = rest[found.end():], date.fromisoformat(found[1])
        if (found := SPOKEN.match(rest)) and rest.startswith(USES_DEFAULT, found.end()):
            rest, system = rest[found.end() + len(USES_DEFAULT):], json.loads(found[1])
        return cls(system, day), rest


class Program:
    """A compiled chat template. ``shielded`` is done to whatever is turned into JSON. Raises :class:`TriviumError` for
    one that is no Jinja, naming ``name``."""

    def __init__(self, template: str, name: str, special: Mapping[str, str],
                 shielded: Callable[[str], str] = str) -> None:
        from jinja2 import TemplateSyntaxError
        from jinja2.exceptions import TemplateError
        from jinja2.meta import find_undeclared_variables

        from trivium.tokenizer.bounds import BoundedEnvironment

        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
                    sort_keys: bool = False) -> str:
            text = json.dumps(_unshielded(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                              sort_keys=sort_keys)
            for sign in (BEFORE, AFTER):  # a mark is found again, however it was written
                text = text.replace(json.dumps(sign)[1:-1], sign)
            return shielded(text)

        day = Header.split(template)[0].day
        self._environment = environment = BoundedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                             extensions=["jinja2.ext.loopcontrols"])
        environment.globals |= {"raise_exception": raise_exception, "strftime_now": day.strftime}
        environment.filters["tojson"] = to_json
        # marks that other programs read; what they do to the white space beside them stays
        source = re.sub(r"\{%([-+]?)\s*generation\s*([-+]?)%\}", r"{%\1 if true \2%}", template)
        source = re.sub(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}", r"{%\1 endif \2%}", source)
        self._special = {f"{role}_token": special.get(role, "") for role in ("bos", "eos", "pad", "unk")}
        try:
            self._template = environment.from_string(environment.bounded(source))
            self.variables = frozenset(find_undeclared_variables(environment.bounded(source))) - GIVEN
            """What the template reads that is not given by itself, such as ``enable_thinking``."""
        except TemplateSyntaxError as error:
            raise TriviumError(
                f"{name}: the chat template is not valid Jinja: line {error.lineno}: {error.message}") from error

    def __call__(self, messages: Sequence[Mapping[str, Any]], generation_prompt: bool, tools: Sequence[Any] | None,
                 options: Mapping[str, Any] | None = None) -> str:
        """The chat as text. ``options`` are further variables of the template, such as ``enable_thinking``. Raises
        :class:`TriviumError` for a chat that the template refuses."""
        from jinja2 import TemplateError
        self._environment.open_account(messages, tools, options)
        try:
            return str(self._template.render({
                **(options or {}), "documents": None, **self._special, "tools": list(tools) if tools else None,
                "messages": [dict(message) for message in messages], "add_generation_prompt": generation_prompt}))
        except TemplateError as error:
            raise TriviumError(f"the chat template refuses this chat: {_plain(str(error))}") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError,
                MemoryError) as error:
            raise TriviumError(f"the chat template fails on this chat: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """What went wrong inside a template, in words of its own."""
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    if isinstance(error, MemoryError):
        return "it makes too long a text"
    return "it looks for fields, or joins values, that are not as it expects"


def _plain(text: str) -> str:
    return text.replace(SHIELD, "")


def _unshielded(value: Any) -> Any:
    """A value of JSON without the shields in its texts."""
    if isinstance(value, str):
        return value.replace(SHIELD, "")
    if isinstance(value, Mapping):
        return {_unshielded(key): _unshielded(one) for key, one in value.items()}
    return [_unshielded(one) for one in value] if isinstance(value, (list, tuple)) else value
