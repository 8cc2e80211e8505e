"""Messages of a chat, checked: who speaks, what is said, thought and called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trivium.errors import TriviumError, nearest
from trivium.tokenizer.train import ASSISTANT, SYSTEM, USER

Message = Mapping[str, Any]
"""``{"role", "content"}``: the content is a text or, where a model sees, a list of parts, ``{"type": "text", "text"}``
and pictures. An assistant's may have ``reasoning_content``, ``tool_calls`` (``[{"type": "function", "function":
{"name", "arguments": object}}]``) and ``train: false``, which takes the loss from it; a tool's, the ``name`` and
``tool_call_id`` of what it answers."""

ROLES = {"system": (SYSTEM,), "user": (USER,), "assistant": (ASSISTANT,), "tool": (SYSTEM, USER)}
"""Who may speak, and with which tokens our own template opens a turn."""


def parts_of(message: Message) -> list[str | None]:
    """The texts of a message in order, and None for each picture."""
    content = message["content"]
    return [content] if isinstance(content,
                                   str) else [part["text"] if part["type"] == "text" else None for part in content]


def learned(message: Message) -> bool:
    """Whether a message carries loss."""
    return message["role"] == "assistant" and message.get("train") is not False


def with_answer(prompt: Sequence[Message], response: str | Message) -> list[Message]:
    """A prompt with its answer, which alone carries loss: a text, or a message of the assistant."""
    last: Message = {"role": "assistant", "content": response} if isinstance(response, str) else {
        "role": "assistant", **{key: value for key, value in response.items() if key != "train"}}
    return [*({**message, "train": False} if message.get("role") == "assistant" else message
              for message in check_messages(prompt)), last]


def text_of_answer(response: str | Message) -> str:
    """An answer as people and judges read it: a text as it is, of a message its reasoning, its words and its calls."""
    if isinstance(response, str):
        return response
    import json
    thought = response.get("reasoning_content")
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in response.get("tool_calls") or []]
    return (f"<think>\n{thought}\n</think>\n\n" if thought else "") + "\n".join(
        [*([response["content"]] if response.get("content") or not calls else []),
         *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)])


def check_messages(messages: Sequence[Message], pictures: bool = False) -> Sequence[Message]:
    """The messages, or a :class:`TriviumError` that says which one is wrong and how. ``pictures`` allows contents of
    parts."""
    if isinstance(messages, (str, bytes, Mapping)) or not messages:
        raise TriviumError("a chat needs at least one message, as a list of {\"role\", \"content\"}")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise TriviumError(f"message {number}: not an object with role and content")
        if message.get("role") not in ROLES:
            role = message.get("role")
            raise TriviumError(f"message {number}: unknown role {role!r}{nearest(str(role), ROLES)}")
        if isinstance(message.get("content"), list) and pictures:
            for place, part in enumerate(message["content"], 1):
                if not isinstance(part, Mapping) or part.get("type") not in ("text", "image_url") or (
                        part["type"] == "text" and not isinstance(part.get("text"), str)):
                    raise TriviumError(
                        f"message {number}: part {place} of the content is neither a text nor an image_url")
        elif not isinstance(message.get("content"), str):
            content = message.get("content")
            holds = isinstance(content, list) and any(
                isinstance(part, Mapping) and part.get("type") == "image_url" for part in content)
            raise TriviumError(f"message {number}: " + (
                "holds a picture, but this model reads text alone" if holds else "the content is not a string"))
        _check_more(number, message)
    return messages


def _check_more(number: int, message: Message) -> None:
    """Check what a message has besides its role and content."""
    for name in ("reasoning_content", "tool_calls", "train"):
        if message.get(name) is not None and message["role"] != "assistant":
            raise TriviumError(f"message {number}: {name} is the assistant's alone, not of the {message['role']}")
    if not isinstance(message.get("reasoning_content", ""), (str, type(None))):
        raise TriviumError(f"message {number}: reasoning_content is not a string")
    if message.get("train") not in (None, True, False):
        raise TriviumError(f"message {number}: train is neither true nor false")
    calls = message.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, (list, tuple)):
        raise TriviumError(f"message {number}: tool_calls is no list")
    for place, call in enumerate(calls, 1):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise TriviumError(f"message {number}: tool call {place} has no function with a name")
        if not isinstance(function.get("arguments"), Mapping):
            raise TriviumError(f"message {number}: the arguments of tool call {place} are no object, as in "
                               '{"city": "Oslo"}')
