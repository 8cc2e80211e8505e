"""Templates and expressions over a row's fields: Jinja, in its sandbox."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from trivium.errors import TriviumError
from trivium.files import Row


def render(template: str, row: Row, where: str) -> str:
    """A template over a row's fields. Raises :class:`TriviumError` that names the row for a missing field."""
    try:
        return str(_compiled(template, False).render({**row, "row": row}))
    except TriviumError as error:
        raise TriviumError(f"{where}: {error}") from error
    except Exception as error:  # whatever a template may do with a row
        raise TriviumError(f"{where}: {_reason(error, row)}") from error


def evaluate_expression(expression: str, row: Row, where: str) -> Any:
    """An expression over a row's fields, such as ``[A, B, C, D]``. Raises like :func:`render`."""
    import jinja2
    try:
        value = _compiled(expression, True)({**row, "row": row})
        if isinstance(value, jinja2.Undefined):
            str(value)  # raises, and names the field
    except TriviumError as error:
        raise TriviumError(f"{where}: {error}") from error
    except Exception as error:
        raise TriviumError(f"{where}: {_reason(error, row)}") from error
    return value


@lru_cache(maxsize=1)
def _sandbox() -> Any:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
                                                finalize=_shown)
    environment.filters["digits"] = lambda text: "".join(re.findall(r"-?\d+", str(text))[-1:])
    environment.filters["replaced"] = lambda text, pattern, by: re.sub(pattern, by, str(text))
    return environment


@lru_cache(maxsize=256)
def _compiled(source: str, expression: bool) -> Any:
    import jinja2
    try:
        if expression:
            return _sandbox().compile_expression(source, undefined_to_none=False)
        return _sandbox().from_string(source)
    except jinja2.TemplateError as error:
        raise TriviumError(f"the template {source!r} is not valid ({error})") from error


def _shown(value: Any) -> Any:
    """A value as it is shown. Raises :class:`TriviumError` for null, which would read "None"."""
    if value is None:
        raise TriviumError("a field that the template shows is null; give it a text, or write {{ field or '' }}")
    return value


def _reason(error: Exception, row: Row) -> str:
    missing = re.match(r"'(\w+)' is undefined|'dict object' has no attribute '(.*)'", str(error))
    has = ", ".join(sorted(map(str, set(row) - {"stem"}))) or "nothing"
    if missing:
        return f"the field {(missing[1] or missing[2])!r} is missing; the row has {has}"
    return f"the template failed ({error})"
