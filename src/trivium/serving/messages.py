"""A chat's messages as clients of the OpenAI API send them, those among them that the client was given before."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trivium.serving.errors import ApiError


class Strict(BaseModel):
    """A part of a request: nothing that is not known, nothing of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Sent(Strict):
    """What OpenAI's clients send: null says of any field what leaving it out says, as their own objects have it."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "null"}})

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


class Part(Sent):
    """A part of a message that is text."""

    type: Literal["text"]
    text: str


class ImageUrl(Sent):
    """Where a picture is: nowhere but in the request itself."""

    url: str
    """``data:image/png;base64,...`` (or jpeg, gif, webp, bmp)."""
    detail: Literal["auto", "low", "high", None] = None
    """Every picture is scaled to what the model sees, whatever this says."""


class ImagePart(Sent):
    """A part of a message that is a picture, for models that see."""

    type: Literal["image_url"]
    image_url: ImageUrl


class CalledFunction(Sent):
    """What was called, and with what."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str | dict[str, Any]
    """An object, or its JSON."""
    parsed_arguments: Any = None
    """What a client made of the arguments; not looked at."""


class ToolCall(Sent):
    """A call of a tool that an assistant made."""

    id: Annotated[str, Field(max_length=256)] | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None

    def plain(self) -> dict[str, Any]:
        """As the chat template wants it. Raises :class:`ApiError` for arguments that are no object."""
        arguments: Any = self.function.arguments
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(arguments)
        if not isinstance(arguments, dict):
            raise ApiError(400, f"the arguments of a call of {self.function.name!r} are not the JSON of an object",
                           param="messages", code="invalid_value")
        return {"type": "function", "function": {"name": self.function.name, "arguments": arguments},
                **({"id": self.id} if self.id else {})}


class Function(Sent):
    """A function that a model may call."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """Its JSON schema."""
    strict: bool | None = None
    """Whether arguments of calls are bound to fit the schema."""


class Tool(Sent):
    """A tool that a model may call."""

    type: Literal["function"]
    function: Function


class ChatMessage(Sent):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Annotated[Part | ImagePart, Field(discriminator="type")]], Field(
        min_length=1)] | None = None
    """A text, or parts. An assistant that calls tools may say nothing."""
    name: str | None = None
    reasoning_content: str | None = None
    """What an assistant thought."""
    tool_calls: list[ToolCall] | None = None
    """What an assistant called."""
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    """The call that a tool answers."""
    refusal: str | None = None
    """What an assistant said instead of an answer."""
    annotations: list[Any] | None = None
    """Sources that a client was shown beside an answer; no model is shown them."""
    parsed: Any = None
    """What a client made of an answer; not looked at."""
    audio: None = None
    function_call: None = None

    def plain(self) -> dict[str, Any]:
        """As the chat template wants it: with pictures the content stays a list of parts. Raises :class:`ApiError` for
        a message without content."""
        content: Any = self.content if self.content is not None else self.refusal
        if content is None and not self.tool_calls:
            raise ApiError(400, f"a message of the role {self.role!r} has no content", param="messages",
                           code="missing_required_parameter")
        if not isinstance(content, (str, type(None))):
            content = [part.model_dump()
                       for part in content] if any(isinstance(part, ImagePart)
                                                   for part in content) else "".join(part.text for part in content)
        more = {"reasoning_content": self.reasoning_content, "tool_call_id": self.tool_call_id,
                "name": self.name if self.role == "tool" else None,
                "tool_calls": [call.plain() for call in self.tool_calls or []] or None}
        return {"role": "system" if self.role == "developer" else self.role, "content": content or "",
                **{name: value for name, value in more.items() if value is not None}}

    def words(self) -> dict[str, str]:
        """As text alone; a picture is named by its digest."""
        texts = [self.content or self.refusal or ""] if isinstance(self.content, (str, type(None))) else [
            part.text
            if isinstance(part, Part) else f"[picture {hashlib.sha256(part.image_url.url.encode()).hexdigest()[:16]}]"
            for part in self.content
        ]
        return {"role": "system" if self.role == "developer" else self.role, "content": "".join(texts)}
