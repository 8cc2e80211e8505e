"""What the settings of every stage are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class InputMarker:
    """Marks a setting that names an earlier stage, or a path."""


Input = Annotated[str, InputMarker()]
"""The name of an earlier stage of the recipe, or the path of an artifact, a file or a folder."""


class Stage(BaseModel):
    """The settings of one stage. Settings of type :data:`Input`, or lists and mappings of it, are its inputs."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), frozen=True)
    kind: ClassVar[str]
    unlearned: ClassVar[frozenset[str]] = frozenset()
    """Settings that change nothing of what the stage makes: another value finds the same artifact. So does another ``threads``."""

    threads: int | None = Field(None, ge=1)
    """Processor cores that the stage uses; null: all that the recipe has. Stages that leave cores free run side by side, each in a
    process of its own, as soon as what they are made from is there."""

    @classmethod
    def input_fields(cls) -> list[str]:
        """The names of the settings that are inputs."""
        return [name for name, field in cls.model_fields.items()
                if any(isinstance(part, InputMarker) for part in _parts(field.annotation)) or
                any(isinstance(part, InputMarker) for part in field.metadata)]

    def learned(self) -> dict[str, Any]:
        """The settings that decide what the stage makes, its inputs aside."""
        return self.model_dump(mode="json", exclude={*self.input_fields(), *self.unlearned, "threads"})

    def check_processes(self, processes: int) -> None:
        """Raise :class:`TriviumError` where so many processes cannot share the work."""

    def references(self) -> Iterator[tuple[str, str]]:
        """``(where, reference)`` for every input that is given, such as ``("models.sft", "sft")``."""
        for name in self.input_fields():
            value = getattr(self, name)
            if isinstance(value, str):
                yield name, value
            elif isinstance(value, dict):
                yield from ((f"{name}.{key}", item) for key, item in value.items())
            else:
                yield from ((f"{name}.{i}", item) for i, item in enumerate(value or []))


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation's type arguments and metadata, at any depth."""
    yield annotation
    yield from getattr(annotation, "__metadata__", ())
    for part in getattr(annotation, "__args__", ()):
        yield from _parts(part)
