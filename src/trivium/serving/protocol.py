"""What clients of the OpenAI API send, checked, and the errors they get: never anything but a clear one."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from trivium.errors import nearest
from trivium.serving.errors import ApiError
from trivium.serving.messages import ChatMessage, Sent, Strict, Tool
from trivium.serving.responses import NEEDS_KEY

REFERENCE = "#/components/schemas/{model}"
MOST_SAMPLES, MOST_STOPS, LONGEST_STOP, MOST_ALTERNATIVES, MOST_TEXTS = 16, 4, 256, 20, 2048

Seed = Annotated[int, Field(ge=-2**63, lt=2**63)]
StopText = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Signature = Annotated[str, Field(min_length=1, max_length=200)]

Body = TypeVar("Body", bound=BaseModel)


class StreamOptions(Sent):
    """What a stream holds besides text."""

    include_usage: bool = False
    """Close with a chunk that holds the usage."""
    include_obfuscation: bool | None = None


class Common(Sent):
    """Fields of chat and text completions alike."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Logits are divided by it; 0 is greedy. 1 when left out."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Draw from the fewest likeliest tokens that hold this much probability; 0 leaves the likeliest alone."""
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


class TextFormat(Sent):
    """Whatever the model writes."""

    type: Literal["text"]


class ObjectFormat(Sent):
    """A JSON object."""

    type: Literal["json_object"]


class Schema(Sent):
    """A JSON schema that an answer is bound to fit."""

    name: Annotated[str, Field(max_length=256)]
    description: str | None = None
    content: Annotated[dict[str, Any], Field(alias="schema")] = {}
    """The schema itself; what it asks for and cannot be kept is refused."""
    strict: bool | None = None
    """Answers fit, whatever this says."""


class SchemaFormat(Sent):
    """JSON of one schema."""

    type: Literal["json_schema"]
    json_schema: Schema


class Named(Sent):
    """A function by its name."""

    name: str


class NamedTool(Sent):
    """The tool that must be called."""

    type: Literal["function"]
    function: Named


class ChatRequest(Common):
    """The body of ``/v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    response_format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    """What an answer must be: text, a JSON object, or JSON of a schema."""
    tools: list[Tool] | None = None
    """What the model may call."""
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    """Whether the model may call tools, must, or must call the one that is named."""
    parallel_tool_calls: bool | None = None
    """Whether an answer may hold more than one call; true when left out."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """Given to templates that read it; ``none`` closes the reasoning of those that read ``enable_thinking``."""
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    """There is one."""
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    """Text alone."""
    verbosity: Literal["medium"] | None = None
    """Not supported: only what a model does anyway."""
    prediction: dict[str, Any] | None = None
    """What an answer may be like, which would only make it faster; not looked at."""
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    """Not supported: give ``tools``."""
    function_call: Literal["auto", "none"] | None = None
    """Not supported: give ``tool_choice``."""
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

    @model_validator(mode="after")
    def _tools_are_there(self) -> ChatRequest:
        names = [tool.function.name for tool in self.tools or []]
        if self.tool_choice == "required" and not names:
            raise ApiError(400, "tool_choice: 'required' needs tools", param="tool_choice", code="invalid_value")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise ApiError(400, f"tool_choice: there is no tool {self.tool_choice.function.name[:80]!r}"
                           f"{nearest(self.tool_choice.function.name, names) if names else ''}", param="tool_choice",
                           code="invalid_value")
        return self

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
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Most new tokens, 16 when left out; 0 with ``echo`` scores the prompt alone."""
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    echo: bool | None = None
    """Give the prompt back before what continues it, with its own log-probabilities where they are asked for."""
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(400, "max_tokens: 0 leaves nothing to answer; it goes with echo alone", param="max_tokens",
                           code="invalid_value")
        return self

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
        return listed(self.prompt)


class EmbeddingRequest(Sent):
    """The body of ``/v1/embeddings``."""

    model: str
    input: (str | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]
            | Annotated[list[Token], Field(min_length=1)]
            | Annotated[list[list[Token]], Field(min_length=1, max_length=MOST_TEXTS)])
    encoding_format: Literal["float", "base64"] | None = None
    """``base64`` gives little-endian numbers of four bytes each."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Keep so many of a vector's first numbers, and make its length 1 again."""
    user: str | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """One or several texts, or their tokens."""
        return listed(self.input)


class Feedback(Strict):
    """What both kinds of feedback say."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    who: Annotated[str, Field(max_length=64)] = ""
    """The ``user`` of the request that was answered: the newest word of a user on an answer counts. The chat page takes
    a random name of the visitor's browser."""


class Thumb(Feedback):
    """The body of ``/feedback/thumb``: true is up, false down, null takes it back."""

    completion: Annotated[str, Field(min_length=1)]
    label: bool | None
    model: Annotated[str, Field(max_length=200)]
    signature: Signature


class Choice(Feedback):
    """The body of ``/feedback/choice``: between two answers, 0 or 1 is better, "tie", or "bad" for both."""

    responses: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2, max_length=2)]
    better: Literal[0, 1, "tie", "bad"]
    models: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=2, max_length=2)]
    signatures: Annotated[list[Signature], Field(min_length=2, max_length=2)]


def listed(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """One or several texts, each as text or tokens, as a list."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [[token for token in given if isinstance(token, int)]]
    return [one for one in given if not isinstance(one, int)]


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
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}, **NEEDS_KEY}


def definitions(*kinds: type[BaseModel]) -> dict[str, Any]:
    """The schemas that bodies of these kinds refer to, by name."""
    return {
        name: schema
        for kind in kinds for name, schema in kind.model_json_schema(ref_template=REFERENCE).get("$defs", {}).items()
    }


UNSUPPORTED = {
    "frequency_penalty", "presence_penalty", "logit_bias", "best_of", "suffix", "store", "service_tier", "modalities",
    "verbosity", "functions", "function_call"
}


def _is_branch(part: str) -> bool:
    """Whether a part of pydantic's path names a branch of a union instead of a field."""
    return any(mark in part
               for mark in ("[", "constrained", "list", "literal")) or part in ("str", "int", "float", "bool")
