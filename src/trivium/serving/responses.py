"""What the server answers, for its OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NEEDS_KEY: dict[str, Any] = {"security": [{"key": []}]}
KEY = {"key": {"type": "http", "scheme": "bearer",
               "description": "An API key, where the server was given some (--api-keys)."}}


class Told(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Fault(Told):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    """The field that is at fault."""
    code: str | None


class Error(Told):
    """Every error, in OpenAI's form."""

    error: Fault


class Usage(Told):
    """What was read and written, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Called(Told):
    """What the model calls."""

    name: str
    arguments: str
    """JSON."""


class Call(Told):
    """A call of a tool."""

    index: int | None = None
    """In a stream: which of the answer's calls."""
    id: str
    type: Literal["function"]
    function: Called


class Message(Told):
    """What the model says; in a stream, a part of it."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    reasoning_content: str | None = None
    """What it thought before."""
    tool_calls: list[Call] | None = None


class Likely(Told):
    """A token that might have stood in a place."""

    token: str
    logprob: float
    bytes: list[int]


class Token(Likely):
    """A token of the answer."""

    top_logprobs: list[Likely]


class TokensOfChat(Told):
    """Log-probabilities of a chat's answer."""

    content: list[Token]
    refusal: None


class TokensOfText(Told):
    """Log-probabilities of a text's tokens, and where in it each begins."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


Reason = Literal["stop", "length", "tool_calls"]


class ChatChoice(Told):
    """One sample."""

    index: int
    message: Message
    logprobs: TokensOfChat | None
    finish_reason: Reason
    signature: str | None = None
    """What a thumb or a vote on this answer must send back, where feedback is taken."""


class ChatPart(Told):
    """A part of a sample."""

    index: int
    delta: Message
    logprobs: TokensOfChat | None
    finish_reason: Reason | None
    signature: str | None = None
    """With the last part: what a thumb or a vote on this answer must send back, where feedback is taken."""


class TextChoice(Told):
    """One sample; in a stream, a part of it."""

    index: int
    text: str
    logprobs: TokensOfText | None
    finish_reason: Reason | None


class _Answer(Told):
    id: str
    created: int
    model: str
    system_fingerprint: str | None


class ChatCompletion(_Answer):
    """An answer to a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class ChatChunk(_Answer):
    """An event of an answer that is streamed; the last one is ``[DONE]``."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatPart]
    usage: Usage | None = None


class Completion(_Answer):
    """What continues a text; streamed, an event of it."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage | None = None


class UsageOfInputs(Told):
    """What was read, in tokens."""

    prompt_tokens: int
    total_tokens: int


class Embedding(Told):
    """An input's vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(Told):
    """The vectors of all inputs, in order."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: UsageOfInputs


class Model(Told):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    stage: str | None
    """The kind of stage that made it."""
    chat: bool
    """Whether it learned to chat."""
    embeds: bool
    """Whether it is an encoder, which gives embeddings."""
    digest: str | None
    context: int
    """Most tokens of a prompt with its answer."""
    sees: bool


class Models(Told):
    """All models that are served."""

    object: Literal["list"]
    data: list[Model]


class Kept(Told):
    """The feedback is on the disk."""

    kept: Literal[True]


class Health(Told):
    """Whether the engines work."""

    status: Literal["ok", "failed"]
    models: list[str]


class Settings(Told):
    """What the chat page must know."""

    key_needed: bool
    feedback: bool
    title: str
    greeting: str
    ideas: list[str]
    from_scratch: bool
    temperature: Annotated[float, Field(ge=0)]


WHY = {400: "A request that cannot be understood or done", 401: "No valid API key",
       403: "The answer was not sampled here", 404: "No such model or page",
       408: "It took too long", 413: "The body is too large", 415: "The body is not application/json",
       421: "The request does not name this server", 429: "All places are taken; come again later",
       500: "The server failed", 503: "The engines have ended, or no further client is taken"}


def told(answer: type[BaseModel], *faults: int,
         stream: type[BaseModel] | None = None) -> dict[int | str, dict[str, Any]]:
    """What a route answers: ``answer``, the errors of the statuses ``faults``, and the events of a ``stream``."""
    found: dict[int | str, dict[str, Any]] = {200: {"model": answer, "description": (answer.__doc__ or "").strip()}}
    if stream is not None:
        found[200]["content"] = {"text/event-stream": {"schema": {
            "type": "string", "description": f"Events, the data of each a {stream.__name__} as JSON, or an Error; the "
                                             "last is [DONE]."}}}
    return found | {status: {"model": Error, "description": WHY[status]} for status in (*faults, 500)}


OUTSIDE = (408, 421, 503)
"""The statuses of any request, whatever it asks for: its head came late, it names another server, there is no room."""
BODY = (400, 401, 408, 413, 415)
"""The statuses that a body may get."""
