"""What clients of the OpenAI API send, checked, and the errors they get: never anything but a clear one."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trivium.errors import nearest

REFERENCE = "#/components/schemas/{model}"
MOST_SAMPLES, MOST_STOPS, LONGEST_STOP, MOST_ALTERNATIVES = 16, 4, 256, 20

Seed = Annotated[int, Field(ge=-2**63, lt=2**63)]
StopText = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Token = Annotated[int, Field(ge=0, lt=2**31)]


Body = TypeVar("Body", bound=BaseModel)


class ApiError(Exception):
    """An error that the client is told, in the form of OpenAI's."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None,
                 code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message.encode("utf-8", "replace").decode(), "type": kind, "param": param, "code": code
            }
        }


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Part(_Strict):
    """A part of a message that is text."""

    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """Where a picture is: nowhere but in the request itself."""

    url: str
    """``data:image/png;base64,...`` (or jpeg, gif, webp, bmp)."""
    detail: Literal["auto", "low", "high", None] = None
    """Every picture is scaled to what the model sees, whatever this says."""


class ImagePart(_Strict):
    """A part of a message that is a picture, for models that see."""

    type: Literal["image_url"]
    image_url: ImageUrl


class CalledFunction(_Strict):
    """What was called, and with what."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str | dict[str, Any]
    """An object, or its JSON."""


class ToolCall(_Strict):
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


class Function(_Strict):
    """A function that a model may call."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """Its JSON schema."""
    strict: Literal[False, None] = None


class Tool(_Strict):
    """A tool that a model may call."""

    type: Literal["function"]
    function: Function


class ChatMessage(_Strict):
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
    refusal: None = None

    def plain(self) -> dict[str, Any]:
        """As the chat template wants it: with pictures the content stays a list of parts. Raises :class:`ApiError` for
        a message without content."""
        content: Any = self.content
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
        texts = [self.content or ""] if isinstance(self.content, (str, type(None))) else [
            part.text
            if isinstance(part, Part) else f"[picture {hashlib.sha256(part.image_url.url.encode()).hexdigest()[:16]}]"
            for part in self.content
        ]
        return {"role": "system" if self.role == "developer" else self.role, "content": "".join(texts)}


class StreamOptions(_Strict):
    """What a stream holds besides text."""

    include_usage: bool = False
    """Close with a chunk that holds the usage."""
    include_obfuscation: bool | None = None


class Common(_Strict):
    """Fields of chat and text completions alike."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Logits are divided by it; 0 is greedy. 1 when left out."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Not OpenAI's: draw from so many of the likeliest tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Not OpenAI's: draw from tokens this share as likely as the likeliest."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    """Not OpenAI's: logits of tokens that occurred are divided by it."""
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] | None = None
    seed: Seed | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    """Not supported: only 0."""
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    """Not supported: only 0."""
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    """Not supported: only empty."""

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ResponseFormat(_Strict):
    """Only text."""

    type: Literal["text"]


class ChatRequest(Common):
    """The body of ``/v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    response_format: ResponseFormat | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False, None] = None
    tools: list[Tool] | None = None
    """What the model may call."""
    tool_choice: Literal["auto", "none", None] = None
    """Whether the model may call tools; that it must cannot be asked for."""
    parallel_tool_calls: Literal[True, None] = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Not OpenAI's: variables of the model's chat template, such as ``enable_thinking``."""
    include_reasoning: bool | None = None
    """Not OpenAI's: false leaves out what the model thinks before it answers (``reasoning_content``)."""

    @property
    def callable_tools(self) -> list[dict[str, Any]] | None:
        """The tools as chat templates are given them; None where none may be called."""
        if not self.tools or self.tool_choice == "none":
            return None
        return [tool.model_dump(exclude_none=True) for tool in self.tools]

    @property
    def limit(self) -> int | None:
        """The most new tokens."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def alternatives(self) -> int:
        """How many likely tokens to report beside each, or -1 for no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else -1


class CompletionRequest(Common):
    """The body of ``/v1/completions``."""

    prompt: (str | Annotated[list[str], Field(min_length=1, max_length=128)]
             | Annotated[list[Token], Field(min_length=1)]
             | Annotated[list[list[Token]], Field(min_length=1, max_length=128)])
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    best_of: Literal[1, None] = None
    echo: Literal[False, None] = None
    suffix: Literal["", None] = None

    @property
    def limit(self) -> int | None:
        """The most new tokens; 16 when left out, as OpenAI has it."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def alternatives(self) -> int:
        """How many likely tokens to report beside each, or -1 for no log-probabilities at all."""
        return -1 if self.logprobs is None else self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or several prompts, each a text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [prompt for prompt in self.prompt if not isinstance(prompt, int)]


class Feedback(_Strict):
    """What both kinds of feedback say."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    who: Annotated[str, Field(max_length=64)] = ""
    """A random name of the visitor's browser, so that the newest word on an answer counts."""


class Thumb(Feedback):
    """The body of ``/feedback/thumb``: true is up, false down, null takes it back."""

    completion: Annotated[str, Field(min_length=1)]
    label: bool | None
    model: Annotated[str, Field(max_length=200)] = ""


class Choice(Feedback):
    """The body of ``/feedback/choice``: between two answers, 0 or 1 is better, "tie", or "bad" for both."""

    responses: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2, max_length=2)]
    better: Literal[0, 1, "tie", "bad"]
    models: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=2, max_length=2)]


def parse(kind: type[Body], data: bytes) -> Body:
    """The checked body of a request; raises :class:`ApiError` for bytes that are no UTF-8, no JSON, or the wrong
    JSON."""
    try:
        value: Any = json.loads(data.decode("utf-8"))
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a character, which nothing can write
        raise ApiError(400, "the body holds half of a surrogate pair, which is no character") from error
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not valid UTF-8: byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not valid JSON: {str(error)[:120]}") from error
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        # of a union: in the branch whose type is right, and the deepest
        fault = max((one for one in faults if one["loc"][:1] == faults[0]["loc"][:1]),
                    key=lambda one: (not one["type"].endswith("_type"), len(one["loc"])))
        fields = kind.model_fields
        path = [part for part in fault["loc"] if isinstance(part, int) or part in fields or not _is_branch(str(part))]
        # a part's type names its branch, too
        path = [part for part, before in zip(path, [None, *path], strict=False) if part != before]
        param = ".".join(str(part)[:60] for part in path)
        if fault["type"] == "extra_forbidden":
            hint = nearest(str(path[-1]), fields) if len(path) == 1 else ""
            raise ApiError(400, f"unknown argument: {param}{hint if 'did you mean' in hint else ''}", param=param,
                           code="unknown_parameter") from error
        known = "; it is not supported here" if fault["type"] in ("literal_error", "too_long", "less_than_equal",
                                                                  "greater_than_equal") and param in UNSUPPORTED else ""
        raise ApiError(400, f"{param}: {fault['msg'][:200]}{known}", param=param,
                       code="missing_required_parameter" if fault["type"] == "missing" else "invalid_value") from error


def described(kind: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route that reads a body of this kind by itself."""
    schema = kind.model_json_schema(ref_template=REFERENCE)
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def definitions(*kinds: type[BaseModel]) -> dict[str, Any]:
    """The schemas that bodies of these kinds refer to, by name."""
    return {
        name: schema
        for kind in kinds for name, schema in kind.model_json_schema(ref_template=REFERENCE).get("$defs", {}).items()
    }


UNSUPPORTED = {
    "frequency_penalty", "presence_penalty", "logit_bias", "response_format", "best_of", "echo", "suffix", "store",
    "tool_choice", "parallel_tool_calls"
}


def _is_branch(part: str) -> bool:
    """Whether a part of pydantic's path names a branch of a union instead of a field."""
    return any(mark in part
               for mark in ("[", "constrained", "list", "literal")) or part in ("str", "int", "float", "bool")
