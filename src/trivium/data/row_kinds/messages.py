"""Messages as people's rows have them, as the messages of a conversation here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trivium.data.row_kinds.fields import Notes
from trivium.errors import TriviumError, nearest
from trivium.files import Row, what

ROLES = ("system", "user", "assistant", "tool")
CALL = "function_call"
"""The role of a turn that is nothing but a call: here it is the assistant's."""

SPEAKERS = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "client", "用户", "客户", "顾客", "人类", "提问",
                     "提问者", "问", "问题", "买家", "访客"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "ai", "agent", "助手", "助理",
                     "客服", "坐席", "机器人", "模型", "答", "回答", "回答者", "答案", "卖家"), "assistant"),
    **dict.fromkeys(("system", "developer", "系统", "系统提示"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response", "ipython", "工具",
                     "观察"), "tool"),
    **dict.fromkeys((CALL, "tool_call", "tool_calls", "调用"), CALL),
}
"""Names that data sets give the roles, in lower case."""

ROLE_FIELDS = ("role", "from", "speaker", "角色", "说话人")
CONTENT_FIELDS = ("content", "value", "text", "utterance", "内容")
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought")
THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*(.*)", re.DOTALL)
"""A content that begins with reasoning."""
TRAIN_FIELDS = ("train", "trainable", "loss", "weight")
"""Axolotl's, verl's, ms-swift's and OpenAI's way to say whether a turn is learned."""
TAGS = {"user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool", "function_tag": CALL,
        "system_tag": "system"}
"""LLaMA-Factory's tags for roles, beside ``role_tag`` and ``content_tag``, which name the fields of a turn."""


@dataclass
class Reading:
    """How messages of one row are read, and what is to be said of it."""

    roles: Mapping[str, str] = field(default_factory=dict)
    """Further names of roles, in lower case."""
    role_field: str | None = None
    content_field: str | None = None
    notes: Notes = field(default_factory=Notes)

    def note(self, text: str) -> None:
        """Count something that is said once of all rows that have it."""
        self.notes.rows[text] += 1

    def speaker(self, name: Any) -> str | None:
        """The role that a name stands for."""
        key = name.strip().casefold() if isinstance(name, str) else ""
        return self.roles.get(key) or SPEAKERS.get(key)


def messages_of(value: Any, name: str, reading: Reading) -> list[Row]:
    """Messages here of the ``value`` of a field: a list of turns, the JSON of one, or a struct of lists. Empty system
    messages are left out; calls that are turns of their own join the assistant's message. Raises :class:`TriviumError`
    for what is no message."""
    made: list[Row] = []
    for number, turn in enumerate(_flat(objects(value, name)), 1):
        where = f"message {number}"
        for role, message in _spoken(turn, where, name, reading):
            if role == "system" and isinstance(message["content"], str) and not message["content"].strip():
                reading.note("an empty system message was left out")
            elif role == CALL and made and made[-1]["role"] == "assistant":
                made[-1].setdefault("tool_calls", []).extend(message["tool_calls"])
                made[-1] |= {"train": False} if message.get("train") is False else {}
            else:
                made.append({"role": "assistant" if role == CALL else role, **message})
    return made


def _flat(turns: list[Row]) -> list[Row]:
    """Turns in which the parts of a content that are no text, as Anthropic writes them, stand where OpenAI has them:
    ``tool_use`` under ``tool_calls``, ``thinking`` under ``reasoning_content``, each ``tool_result`` as a turn of its
    own."""
    made: list[Row] = []
    for turn in turns:
        parts = turn.get("content")
        kinds = [part.get("type") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        if not isinstance(parts, list) or len(kinds) < len(parts) or not {
                "tool_use", "tool_result", "thinking"} & {kind for kind in kinds if isinstance(kind, str)}:
            made.append(turn)
            continue
        new, rest = dict(turn), []
        for part in parts:
            if part["type"] == "tool_result":
                made.append({"role": "tool", "tool_call_id": part.get("tool_use_id"),
                             "content": text_of(part.get("content"))})
            elif part["type"] == "tool_use":
                new["tool_calls"] = [*(new.get("tool_calls") or []), {
                    "id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")}]
            elif part["type"] == "thinking" and isinstance(part.get("thinking"), str):
                new["reasoning_content"] = "\n\n".join(filter(None, (new.get("reasoning_content"), part["thinking"])))
            else:
                rest.append(part)
        new["content"] = rest or None
        if rest or "tool_result" not in kinds:
            made.append(new)
    return made


def objects(value: Any, name: str) -> list[Row]:
    """A list of objects, the JSON of one, as tables hold it, or an object of lists, as Arrow holds it. Raises
    :class:`TriviumError` for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise TriviumError(f"{name} is neither a list nor the JSON of one") from error
    if isinstance(value, dict) and value and all(isinstance(part, list) for part in value.values()):
        if len({len(part) for part in value.values()}) > 1:
            raise TriviumError(f"the lists in {name} are not as long as one another")
        value = [dict(zip(value, parts)) for parts in zip(*value.values())]
    if not isinstance(value, list):
        raise TriviumError(f"{name} is no list")
    bad = next((number for number, one in enumerate(value, 1) if not isinstance(one, dict)), None)
    if bad is not None:
        raise TriviumError(f"message {bad}: not an object with role and content")
    return value


def _spoken(turn: Row, where: str, name: str, reading: Reading) -> list[tuple[str, Row]]:
    """The role and the rest of the messages in one turn: one, or, where its fields are called as the roles are
    (``{"human": ..., "assistant": ...}``), one of each."""
    turn = {_key(key, turn): value for key, value in turn.items() if value is not None}
    fields = (reading.role_field,) if reading.role_field else ROLE_FIELDS
    said_by = next((key for key in fields if key in turn), None)
    if said_by is None:
        pair = {"input": "user", "output": "assistant"} if {"input", "output"} <= turn.keys() else {}
        roles = {key: pair.get(key) or reading.speaker(key) for key in turn}
        if roles and all(role in ROLES for role in roles.values()):
            return [(str(roles[key]), {"content": text_of(turn[key])}) for key in turn if turn[key] != ""]
        raise TriviumError(f"{where}: unknown role None; a message has {', '.join(ROLE_FIELDS[:2])} and "
                           f"{', '.join(CONTENT_FIELDS[:2])}, or `tags` says what they are called")
    role = reading.speaker(turn[said_by])
    if role is None:
        raise TriviumError(f"{where}: unknown role {turn[said_by]!r}{nearest(str(turn[said_by]), ROLES)}; "
                           "others are named under `roles` of `imports`")
    return [(role, _message(turn, said_by, role, where, name, reading))]


def _key(key: Any, turn: Row) -> str:
    """A field's name, in lower case where that makes it the role's or the content's."""
    small = str(key).strip().casefold()
    return small if small in (*ROLE_FIELDS, *CONTENT_FIELDS) and small not in turn else str(key)


def _message(turn: Row, said_by: str, role: str, where: str, name: str, reading: Reading) -> Row:
    """What a turn says, without its role."""
    contents = (reading.content_field,) if reading.content_field else CONTENT_FIELDS
    content_field = next((key for key in contents if key in turn), None)
    content = text_of(turn.get(content_field)) if content_field else None
    calls = calls_of(turn["tool_calls"], where) if turn.get("tool_calls") not in (None, [], "") else []
    used = {said_by, content_field, "tool_calls"}
    if turn.get("function_call"):
        calls += calls_of(turn["function_call"], where)
        used.add("function_call")
    if role == CALL:
        calls, content = calls_of(content, where), ""
    elif role == "tool" and content is not None and not isinstance(content, str):
        content = json.dumps(content, ensure_ascii=False)
    elif content is None and (calls or role in ("tool", "system")):
        content = ""
    message: Row = {"content": content}
    if role in ("assistant", CALL):
        thought = next((key for key in REASONING_FIELDS if isinstance(turn.get(key), str)), None)
        if thought is not None:
            used.add(thought)
            if turn[thought].strip():
                message |= with_reasoning(content, turn[thought], where)
        if calls:
            message["tool_calls"] = calls
        learned = [_is_learned(key, turn[key], where) for key in TRAIN_FIELDS if key in turn]
        used.update(TRAIN_FIELDS)
        if not all(learned):
            message["train"] = False
    elif calls:
        raise TriviumError(f"{where}: only the assistant calls tools, not the {role}")
    else:
        used.update(key for key in TRAIN_FIELDS if key in turn and not turn[key])  # it is not learned anyway
    for key in ("name", "tool_call_id") if role in ("tool", "assistant", "user") else ():
        if isinstance(turn.get(key), str) and turn[key]:
            message[key] = turn[key]
            used.add(key)
    reading.notes.unused.update(f"{name}.{key}" for key, value in turn.items() if key not in used
                                and value not in ("", [], {}))
    return message


def with_reasoning(content: Any, thought: str, where: str) -> Row:
    """A content and the reasoning that is given beside it, which may stand at its beginning too. Raises
    :class:`TriviumError` where two different ones are given."""
    found = THOUGHT.fullmatch(content) if isinstance(content, str) else None
    if found and found[1].strip() != thought.strip():
        raise TriviumError(f"{where}: its reasoning is given twice, and differs: in the content and beside it")
    return {"content": found[2] if found else content, "reasoning_content": thought}


def _is_learned(key: str, value: Any, where: str) -> bool:
    """Whether a turn is to be learned, by one of :data:`TRAIN_FIELDS`."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false", "0", "1"):
        value = value.strip().lower() in ("true", "1")
    if value not in (0, 1):
        raise TriviumError(f"{where}: `{key}` is {value!r}; a turn is learned (1, true) or not (0, false)")
    return bool(value)


def text_of(content: Any) -> Any:
    """A content's text; those in parts, as in OpenAI's format, are joined."""
    if isinstance(content, list) and content and all(
            isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text")
            and isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    return content


def calls_of(value: Any, where: str) -> list[Row]:
    """Tool calls in the one form they have here: OpenAI's, with the arguments as an object. ``value`` is one call or a
    list, or the JSON of either, or of one a line, or between Hermes' ``<tool_call>`` and ``</tool_call>``; a call may
    lack the envelope ``{"type", "function"}``."""
    if isinstance(value, str) and "<tool_call>" in value:
        value = re.findall(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", value, re.DOTALL)
    elif isinstance(value, str) and len(lines := value.split("\n")) > 1 and all(
            line.startswith("{") and line.endswith("}") for line in map(str.strip, lines) if line):
        value = [line for line in lines if line.strip()] if not _is_json(value) else value
    value = _from_json(value, f"{where}: the call is neither an object nor the JSON of one")
    made = []
    for call in value if isinstance(value, list) else [value]:
        call = _from_json(call, f"{where}: the call is neither an object nor the JSON of one")
        said = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(said, dict) or not isinstance(said.get("name"), str) or not said["name"]:
            raise TriviumError(f"{where}: a tool call has no `name`")
        if isinstance(call, dict) and call.get("type", "function") != "function":
            raise TriviumError(f"{where}: a tool call of the type {call['type']!r}; only functions are called here")
        arguments: Any = next(
            (said[key] for key in ("arguments", "parameters", "args") if said.get(key) is not None), {})
        if isinstance(arguments, str):
            arguments = _from_json(arguments.strip() or "{}",
                                   f"{where}: the arguments of {said['name']} are not the JSON of an object")
        if not isinstance(arguments, dict):
            raise TriviumError(f"{where}: the arguments of {said['name']} are no object")
        identity = {"id": str(call["id"])} if call.get("id") not in (None, "") else {}
        made.append({"type": "function", **identity, "function": {"name": said["name"], "arguments": arguments}})
    if not made:
        raise TriviumError(f"{where}: calls nothing")
    return made


def tools_of(value: Any) -> list[Row]:
    """The definitions of tools in OpenAI's form: a list of ``{"type": "function", "function": schema}``. ``value`` is
    such a list, or one of bare schemas, or the JSON of one; empty is none."""
    value = _from_json(value, "`tools` is neither a list nor the JSON of one") if value not in (None, "") else []
    made = []
    for number, tool in enumerate([value] if isinstance(value, dict) else value if isinstance(value, list) else [value],
                                  1):
        tool = _from_json(tool, f"`tools`: tool {number} is neither an object nor the JSON of one")
        schema = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
            raise TriviumError(f"`tools`: tool {number} has no `name`; each is {{\"name\", \"parameters\", ...}}")
        made.append({"type": "function", "function": {
            "parameters" if key == "input_schema" else key: value for key, value in schema.items()
            if schema is not tool or key != "type"}})
    return made


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _from_json(value: Any, otherwise: str) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise TriviumError(otherwise) from error
    return value


def check_conversation(messages: Sequence[Row]) -> Sequence[Row]:
    """The messages, or a :class:`TriviumError` that says why nothing can be learned from them."""
    check_turns(messages)
    if next((m["role"] for m in messages if m["role"] != "system"), "assistant") != "user":
        raise TriviumError("the conversation starts with the assistant: nothing asks for what it says")
    if messages[-1]["role"] != "assistant":
        raise TriviumError("the last message is not the assistant's")
    if all(m.get("train") is False for m in messages if m["role"] == "assistant"):
        raise TriviumError("none of the assistant's messages is to be learned")
    return messages


def check_prompt(messages: Sequence[Row]) -> Sequence[Row]:
    """The messages, or a :class:`TriviumError` that says why they ask for nothing."""
    check_turns(messages)
    if messages[-1]["role"] not in ("user", "tool"):
        raise TriviumError(f"the prompt ends with the {messages[-1]['role']}'s message; nothing is left to answer")
    return messages


def check_turns(messages: Sequence[Row]) -> Sequence[Row]:
    """The messages, or a :class:`TriviumError` that says which one cannot be read or stands in a wrong place."""
    if isinstance(messages, (str, bytes, Mapping)) or not messages:
        raise TriviumError("a chat needs at least one message, as a list of {\"role\", \"content\"}")
    before = None
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise TriviumError(f"message {number}: not an object with role and content")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise TriviumError(f"message {number}: unknown role {role!r}{nearest(str(role), ROLES)}")
        if not isinstance(content, str):
            picture = isinstance(content, list) and any(
                isinstance(part, Mapping) and str(part.get("type")).startswith("image") for part in content)
            raise TriviumError(f"message {number}: " + (
                "holds a picture, but only text is read here" if picture else
                "there is no content" if content is None else f"the content is no text, but {what(content)}"))
        if not content.strip() and role != "tool" and not message.get("tool_calls"):
            raise TriviumError(f"message {number}: the content is empty")
        if role == "system" and number > 1:
            raise TriviumError(f"message {number}: the system speaks after the conversation has begun")
        if role == "tool" and before not in ("assistant", "tool"):
            raise TriviumError(f"message {number}: a tool answers, but nothing has called it")
        before = role
    return messages
