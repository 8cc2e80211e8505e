"""Answers that are bound to a form: JSON of a schema, or calls of tools as the model's template writes them.

A form is a grammar of the library llguidance (the extra ``structured``), which says of every token whether it may come
next. What a schema asks for and the library cannot keep is refused, never left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from trivium.errors import TriviumError, extra
from trivium.serving.errors import ApiError
from trivium.serving.messages import Function, Tool
from trivium.serving.protocol import ChatRequest, NamedTool, ObjectFormat, SchemaFormat
from trivium.serving.reading import THINK, THOUGHT, AnswerReader
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.token_bytes import token_bytes

if TYPE_CHECKING:
    from llguidance import LLMatcher

STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False,
         "coerce_one_of": False}
"""JSON on one line, as every template here writes it, and nothing taken lightly."""
RESPONSE, LONGEST_REASON = "response_format", 300
DEEPEST, LARGEST, MOST_STEPS = 100, 2**53, 10_000
"""Limits of what schemas may hold: levels, bounds of numbers (beyond, they would be rounded), and the least common
multiple of all ``multipleOf``, which is what an automaton for them counts by."""
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class Bound:
    """What one sample is bound to; see :class:`trivium.generation.engine.Guide`."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher, self._size = matcher, size
        self._bits = np.zeros((size + 31) // 32, np.int32)

    def copy(self) -> Bound:
        """Another sample's, at the same place."""
        return Bound(self._matcher.deep_copy(), self._size)

    def allowed(self) -> np.ndarray:
        """Which tokens may come next, bool ``[V]``. Raises :class:`TriviumError` where the form is too intricate."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        found = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[:self._size].astype(bool)
        if not found.any():
            raise TriviumError("the asked form cannot be written with this model's tokens")
        return found

    def take(self, token: int) -> bool:
        """Go on behind a token; returns whether nothing more can come."""
        self._matcher.consume_token(token)
        self._check()
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error()
            raise TriviumError("nothing fits the asked form: its schema contradicts itself or never ends"
                               if "NoExtension" in reason else f"the asked form is too intricate: {_one_line(reason)}")


@dataclass(frozen=True)
class Layout:
    """How a template writes calls: what stands before and after them, and ``between`` two, which is None where it knows
    only one a message."""

    before: str
    key: str
    """What it calls the arguments."""
    between: str | None
    after: str

    @classmethod
    def of(cls, tokenizer: ChatTokenizer) -> Layout | None:
        """That of a tokenizer's template; None where it writes no calls, or none that are read here."""
        one, two = (_written(tokenizer, count) for count in (1, 2))
        if one is None or not one[1]:
            return None
        (before, after), (value, *_) = one[0], one[1]
        key = "arguments" if "arguments" in value else "parameters"
        between = two[2] if two is not None and len(two[1]) == 2 and two[0] == one[0] else None
        layout = cls(before.rpartition(THOUGHT)[2].lstrip("\n"), key, between, after)
        reader = AnswerReader(tools=True)
        reader.push(layout.before + json.dumps(value) + layout.after, last=True)
        return layout if reader.calls == 1 else None


class Forms:
    """The forms that one model's answers may be bound to. ``size`` is the number of the model's logits; ``stop`` are
    the tokens that end an answer."""

    def __init__(self, tokenizer: ChatTokenizer, size: int, stop: Sequence[int]) -> None:
        self.tokenizer, self.size, self.stop = tokenizer, size, stop

    @cached_property
    def layout(self) -> Layout | None:
        """How the template writes calls."""
        return Layout.of(self.tokenizer)

    @cached_property
    def _vocabulary(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper
        tokens = [*token_bytes(self.tokenizer), *[b""] * (self.size - self.tokenizer.vocab_size)]
        return LLTokenizer(TokenizerWrapper(_Vocabulary(self.tokenizer, tokens[:self.size], list(self.stop))),
                           eos_token=list(self.stop))

    def guide(self, request: ChatRequest, thinking: bool) -> Bound | None:
        """What binds the answer to a request; None where nothing does. ``thinking`` says that the prompt opened a
        ``<think>`` block. Raises :class:`ApiError` for forms that cannot be kept."""
        for param, schema in _schemas(request).items():
            if why := _beyond(schema) or (param != RESPONSE and schema["type"] != "object"
                                          and "arguments are an object, so their schema must be of that type"):
                raise ApiError(400, f"{param}: the schema cannot be kept: {why}", param=param, code="invalid_value")
        grammar = self._grammar(request, thinking)
        if grammar is None:
            return None
        try:
            with extra("structured"):
                from llguidance import LLMatcher
        except TriviumError as error:
            raise ApiError(400, f"this server cannot bind an answer to a form: {error}") from error
        matcher = LLMatcher(self._vocabulary, LLMatcher.grammar_from_lark(grammar), log_level=0)
        if matcher.is_error() or matcher.get_grammar_warnings():
            reason = matcher.get_error() or "; ".join(map(str, matcher.get_grammar_warnings()))
            raise self._fault(request, reason)
        return Bound(matcher, self.size)

    def _fault(self, request: ChatRequest, reason: str) -> ApiError:
        """What cannot be kept of a request's schemas; ``reason`` is what is known of all of them."""
        from llguidance import LLMatcher
        for param, schema in _schemas(request).items():
            if why := LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(_style(schema)), self._vocabulary):
                return ApiError(400, f"{param}: the schema cannot be kept: {_one_line(why)}", param=param,
                                code="invalid_value")
        why = reason.rpartition("JSON schema: ")[2].partition("\n")[0]
        return ApiError(400, f"the schemas cannot be kept: {_one_line(why)}", code="invalid_value")

    def _grammar(self, request: ChatRequest, thinking: bool) -> str | None:
        """The form of an answer in llguidance's own language, which extends that of Lark."""
        tools, choice = request.tools if request.callable_tools else None, request.tool_choice
        only = choice.function.name if isinstance(choice, NamedTool) else None
        one = request.parallel_tool_calls is False or only is not None
        rules: list[str] = []
        if tools and (choice == "required" or only):
            rules = ["body: calls", *self._calls([tool for tool in tools if only in (None, tool.function.name)], one)]
        elif isinstance(request.response_format, (ObjectFormat, SchemaFormat)):
            rules = [f"body: json{' | calls' if tools else ''}", f"json: {_json(_schema_of(request.response_format))}",
                     *(self._calls(tools, one) if tools else [])]
        elif tools and (one or any(tool.function.strict for tool in tools)):
            rules = self._among_words(tools, one)
        return "\n".join([*self._start(thinking), *rules]) if rules else None

    def _start(self, thinking: bool) -> list[str]:
        """What an answer begins with: the reasoning that the prompt has opened, or that a model may open which was made
        to, as far as its vocabulary shows."""
        opens = THINK in self.tokenizer.sealed.ids
        if not thinking and not opens:
            return ["start: body"]
        closed = self.tokenizer.sealed.ids.get(THOUGHT)
        thought = [f"thought: /(.|\\n)*/ <[{closed}]>" if closed is not None
                   else f"thought[lazy]: /(.|\\n)*/ {json.dumps(THOUGHT)}"]
        begin = "thought" if thinking else f"({self._spelt(THINK)} thought)?"
        return [f'start: {begin} ("\\n\\n" | "\\n")? body', *thought]

    def _calls(self, tools: Sequence[Tool], one: bool, opened: str = "") -> list[str]:
        """The rules of calls, from behind what has ``opened`` them."""
        layout = self.layout
        if layout is None:
            raise ApiError(400, "tools: this model's chat template writes no calls that could be asked for; leave "
                           "tool_choice, strict and parallel_tool_calls out", param="tool_choice", code="invalid_value")
        more = "" if one or layout.between is None else f"({self._spelt(layout.between)} call)*"
        return [f"calls: {self._spelt(layout.before[len(opened):])} call {more} {self._spelt(layout.after)}",
                "call: " + " | ".join(f"call_{place}" for place in range(len(tools))),
                *(f"call_{place}: {_json(_call(tool.function, layout.key))}" for place, tool in enumerate(tools))]

    def _among_words(self, tools: Sequence[Tool], one: bool) -> list[str]:
        """The rules of an answer that may hold calls: whatever begins as one is one."""
        opening = self.layout.before.rstrip() if self.layout else ""
        free = [tool if tool.function.strict else tool.model_copy(
            update={"function": tool.function.model_copy(update={"parameters": None})}) for tool in tools]
        calls = self._calls(free, one, opening)
        if not opening:
            raise ApiError(400, "tools: calls of this model begin like any other answer, so they can be bound only by "
                           "tool_choice 'required'; leave strict and parallel_tool_calls out", param="tools",
                           code="invalid_value")
        control = self.tokenizer.sealed.spelt.match(opening)
        until = ([f"opened: WORDS {self._spelt(opening)}"] if control and control.group() == opening else
                 [f"opened[lazy]: WORDS {json.dumps(opening, ensure_ascii=False)}"])
        return [f"body: {'opened calls | words' if one else '(opened calls)* words'}", "words: WORDS",
                r"WORDS: /(.|\n)*/", *until, *calls]

    def _spelt(self, text: str) -> str:
        """A text as a rule spells it, in which control tokens are themselves."""
        found, at = [], 0
        for token in self.tokenizer.sealed.spelt.finditer(text):
            found += [json.dumps(text[at:token.start()], ensure_ascii=False)] if token.start() > at else []
            found.append(f"<[{self.tokenizer.sealed.ids[token.group()]}]>")
            at = token.end()
        return " ".join([*found, *([json.dumps(text[at:], ensure_ascii=False)] if text[at:] else [])])


@dataclass
class _Vocabulary:
    """A vocabulary as llguidance reads it."""

    tokenizer: ChatTokenizer
    tokens: list[bytes]
    stop: list[int]
    bos_token_id: int | None = None

    @property
    def eos_token_id(self) -> int:
        return self.stop[0]

    @property
    def special_token_ids(self) -> list[int]:
        return sorted({*self.tokenizer.stop_ids, *self.stop})

    def __call__(self, text: bytes) -> list[int]:
        return self.tokenizer.encode(text.decode("utf-8", "replace"))


def _written(tokenizer: ChatTokenizer, count: int) -> tuple[tuple[str, str], list[dict[str, Any]], str] | None:
    """What a template writes for ``count`` calls: what stands before and after them, the calls, and what stands between
    the last two."""
    calls = [{"type": "function", "id": f"call{place:05}",
              "function": {"name": f"some_tool{place}", "arguments": {"some_key": place}}} for place in range(count)]
    tools = [{"type": "function", "function": {"name": f"some_tool{place}", "description": "?", "parameters": {
        "type": "object", "properties": {"some_key": {"type": "integer"}}}}} for place in range(count)]
    try:
        ids = tokenizer.encode_answer([{"role": "user", "content": "?"}],
                                      {"role": "assistant", "content": "", "tool_calls": calls}, tools)[1]
    except TriviumError:
        return None
    stop = {tokenizer.end_id, tokenizer.document_id}
    text, found, end, between = tokenizer.decode([id for id in ids if id not in stop]), [], 0, ""
    before = None
    while (start := text.find('{"name"', end)) >= 0:
        try:
            value, stopped = json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            return None
        before = text[:start] if before is None else before
        between, end = text[end:start], stopped
        found.append(value)
    return ((before, text[end:].rstrip()), found, between) if before is not None else None


def _call(function: Function, key: str) -> dict[str, Any]:
    """The schema of a call."""
    arguments = _moved({"type": "object"} | (function.parameters or {}), f"#/properties/{key}")
    return {"type": "object", "properties": {"name": {"const": function.name}, key: arguments},
            "required": ["name", key], "additionalProperties": False}


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references within itself are right where it stands at a place in another."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: place + one[1:] if name == "$ref" and isinstance(one, str) and one.startswith("#") else _moved(
        one, place) for name, one in schema.items() if name != "x-guidance"}


def asks_a_form(request: ChatRequest) -> bool:
    """Whether anything in a request may bind its answer, so that reading it takes time."""
    return bool(request.callable_tools) or isinstance(request.response_format, (ObjectFormat, SchemaFormat))


def _schemas(request: ChatRequest) -> dict[str, dict[str, Any]]:
    """The schemas of a request by the fields that hold them."""
    found = {RESPONSE: request.response_format.json_schema.content} if isinstance(
        request.response_format, SchemaFormat) else {}
    return found | {f"tools.{place}": {"type": "object"} | (tool.function.parameters or {})
                    for place, tool in enumerate(request.tools or []) if request.callable_tools}


def _beyond(schema: Mapping[str, Any]) -> str:
    """What in a schema is beyond the limits, in words; empty where nothing is."""
    steps = 1
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        value, depth = left.pop()
        if depth > DEEPEST:
            return f"it is nested more than {DEEPEST} levels deep"
        if isinstance(value, list):
            left += [(one, depth + 1) for one in value]
        if not isinstance(value, dict):
            continue
        left += [(one, depth + 1) for one in value.values()]
        for name in BOUNDS:
            if _is_number(value.get(name)) and abs(value[name]) > LARGEST:
                return f"{name} is {value[name]}, which is beyond {LARGEST}"
        if _is_number(value.get("multipleOf")) and value["multipleOf"] > 0:
            steps = math.lcm(steps, max(1, abs(int(Decimal(str(value["multipleOf"])).scaleb(-_exponent(value[
                "multipleOf"]))))))
            if steps > MOST_STEPS:
                return f"its multipleOf have a common multiple above {MOST_STEPS}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _exponent(number: float) -> int:
    """The power of ten of a number's last digit, 0 for whole numbers."""
    exponent = Decimal(str(number)).normalize().as_tuple().exponent
    return min(0, exponent) if isinstance(exponent, int) else 0


def _schema_of(form: ObjectFormat | SchemaFormat) -> Mapping[str, Any]:
    return form.json_schema.content if isinstance(form, SchemaFormat) else {"type": "object"}


def _json(schema: Mapping[str, Any]) -> str:
    """A rule for JSON of a schema."""
    return "%json " + json.dumps(_style(schema))


def _style(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "x-guidance": STYLE}


def _one_line(reason: str) -> str:
    """What the library says, without the grammar and the text that it shows beside."""
    return " ".join(reason.partition("<state>")[0].partition("; consider")[0].split())[:LONGEST_REASON]
