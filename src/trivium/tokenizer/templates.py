"""Other people's tokenizers and their chat templates, with the mask of what the assistant says.

A template is a program that turns messages into text. What the assistant says in that text is found by rendering the
chat up to each of its turns, as it is when the model is asked: what follows, up to the token that ends a turn, is
learned. So the mask needs to know nothing of any family, and reasoning, tool calls and whatever else the template
writes into an answer is learned as it is written. Texts of messages cannot spell control tokens
(:mod:`trivium.tokenizer.control`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError, counted
from trivium.files import read_json, read_text, write_bytes, write_json, write_text
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.control import (
    MARK,
    SHIELD,
    SealedTokenizer,
    described,
    giving_up,
    is_control,
    mark,
    tokenizer_of,
    whole_tokenizer,
    without_limits,
)
from trivium.tokenizer.messages import Message, check_messages
from trivium.tokenizer.messages import learned as is_learned
from trivium.tokenizer.named import PLAIN_TEMPLATE as PLAIN_TEMPLATE
from trivium.tokenizer.rendering import Header, Program

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
         "merges.txt", "tokenizer.model", "chat_template.jinja")
"""What a tokenizer's folder may hold; all of it goes with the model."""

THOUGHT = re.compile(r"\s*<think>\s*(\S.*?)\s*</think>\n*(.*)", re.DOTALL)
"""A content that begins with reasoning."""
Tools = Sequence[Mapping[str, Any]]
ASKED: Message = {"role": "user", "content": "?"}


def common_length(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class TemplateTokenizer(ChatTokenizer):
    """A tokenizer of any family with a chat template of its own."""

    def __init__(self, data: bytes, template: str | None, special: dict[str, str | None],
                 files: dict[str, bytes] | None = None, name: str = "the tokenizer") -> None:
        """``special`` holds the texts of ``bos``, ``eos``, ``pad`` and ``unk``; ``files`` are those of its folder;
        ``name`` is for errors. Without a ``template`` it gets our plain one."""
        self.data, self.name, self.files = without_limits(data, name), name, files or {}
        found = described(self.data, name)
        self._tokenizer = tokenizer_of(found, name)
        self._template = template if template is not None else PLAIN_TEMPLATE
        self.header, bare = Header.split(self._template)
        self.own = bare == PLAIN_TEMPLATE
        """Whether the template is our plain one, as the base has none."""
        self.special = {role: token for role, token in special.items()
                        if token and self._tokenizer.token_to_id(token) is not None}
        if special.get("eos") and "eos" not in self.special:
            raise TriviumError(f"{name}: the eos token {special['eos']!r} is not in the vocabulary")
        if "eos" not in self.special:
            raise TriviumError(f"{name}: tokenizer_config.json names no eos_token, so nothing can end an answer")
        added = found.get("added_tokens") or []
        self.sealed = SealedTokenizer(found, [*(token["content"] for token in added if is_control(token, bare)),
                                              *self.special.values()], name)
        self._program = Program(self._template, name, self.special, self.sealed.shielded)
        self._shown: dict[tuple[object, ...], frozenset[int] | None] = {}
        self._look_at_turns(frozenset(token["content"] for token in added if token.get("special")))

    def _look_at_turns(self, special: frozenset[str]) -> None:
        """Find out what ends a turn (``_ends``), what the template writes before an answer and asks for otherwise, and
        which control tokens are part of what an assistant may say (``sayable``): those that are not special and not
        written around anybody's turn."""
        chat: list[Message] = [ASKED, {"role": "assistant", "content": mark(0)}]
        asked, whole = self._program(chat[:1], True, None), self._program(chat, False, None)
        at = whole.find(mark(0))
        if at < 0:
            raise TriviumError(f"{self.name}: the chat template leaves out what the assistant says")
        common = common_length(asked, whole[:at])
        self._before_answer = whole[common:at]
        """What the template writes between the text that asks for an answer and the answer, such as a space."""
        self._asks_with = asked[common:]
        """What the template asks with at its end and leaves out once there is an answer, such as an open ``<think>``.
        """
        after = whole[at + len(mark(0)):]
        end = self.sealed.spelt.match(after, len(after) - len(after.lstrip()))
        if not end:
            raise TriviumError(
                f"{self.name}: the chat template does not end the assistant's turn with a token of its own, so "
                "nothing would teach the model to stop")
        self._after, self._end = after, self.sealed.ids[end.group()]
        self._ends, structure = {end.group()}, {end.group(), *self.special.values()}
        for turns in ([{"role": "system", "content": "?"}, *chat, ASKED], [*chat, ASKED]):
            try:
                before, _, rest = self._program(turns, False, None).partition(mark(0))
            except TriviumError:  # a template without a system, or one that wants an answer to everything
                continue
            before = before[:len(before) - len(self._before_answer)] if before.endswith(self._before_answer) else before
            found = self.sealed.spelt.findall(rest)
            self._ends |= set(found[:1])
            structure |= {*found, *self.sealed.spelt.findall(before)}
            break
        self._structure, self.sayable = structure, frozenset(self.sealed.names) - special - structure
        if self._asks_with:
            self.mismatch = (
                f"the chat template asks for an answer with {self._asks_with!r} at its end, but writes answers without "
                "it: answers without reasoning teach a beginning that is never asked for, so give rows their `<think>` "
                "blocks")

    @classmethod
    def load(cls, folder: Path) -> TemplateTokenizer:
        """From a Hugging Face folder."""
        files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        if "tokenizer.json" not in files:
            raise TriviumError(
                f"{folder / 'tokenizer.json'}: no such file; save the tokenizer as a fast one (tokenizer.json)")
        config = read_json(folder / "tokenizer_config.json") if "tokenizer_config.json" in files else {}
        more = read_json(folder / "special_tokens_map.json") if "special_tokens_map.json" in files else {}

        def token(role: str) -> str | None:
            value = config.get(f"{role}_token") or more.get(f"{role}_token")
            value = value.get("content") if isinstance(value, dict) else value
            return value if isinstance(value, str) else None

        template: str | None = None
        if "chat_template.jinja" in files:
            template = read_text(folder / "chat_template.jinja")
        elif isinstance(config.get("chat_template"), str):
            template = config["chat_template"]
        elif isinstance(config.get("chat_template"), list):
            named = {
                item.get("name"): item.get("template")
                for item in config["chat_template"] if isinstance(item, dict)
            }
            template = named.get("default")
        return cls(files["tokenizer.json"], template, {role: token(role)
                                                       for role in ("bos", "eos", "pad", "unk")}, files, str(folder))

    @property
    def template(self) -> str:
        """The chat template, as it is saved."""
        return self._template

    @property
    def added(self) -> dict[str, int]:
        """The control tokens and their ids."""
        return self.sealed.ids

    def save(self, folder: Path, chat: bool = True, family: str = "") -> None:
        """Write the files as they were, but for truncation and padding, and the chat template."""
        for name, data in self.files.items():
            write_bytes(folder / name, data)
        write_bytes(folder / "tokenizer.json", self.data)
        if not self.files:
            names = {f"{role}_token": token for role, token in self.special.items()}
            write_json(folder / "tokenizer_config.json", {
                **names, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False})
        if "tokenizer_config.json" in self.files:
            config = read_json(folder / "tokenizer_config.json")
            if config.pop("chat_template", self._template) != self._template:  # it would be another than the file's
                write_json(folder / "tokenizer_config.json", config)
        write_text(folder / "chat_template.jinja", self._template)

    @property
    def document_id(self) -> int:
        """The token that a text begins with, or the one that ends it where there is none."""
        return self._known("bos" if "bos" in self.special else "eos")

    @property
    def eos_id(self) -> int:
        """The token that templates and other programs know as the end."""
        return self._known("eos")

    def started(self, ids: Sequence[int]) -> list[int]:
        """The tokens of a text that is scored or continued in an examination, with what ``transformers`` puts before
        it; never none."""
        return [*self.text_start, *ids] or [self.document_id]

    @cached_property
    def text_start(self) -> list[int]:
        """The tokens that the tokenizer's last step, and so ``transformers``, puts before a text."""
        with giving_up():
            encoding = whole_tokenizer(json.loads(self.data), "the tokenizer").encode("a", add_special_tokens=True)
        given = encoding.special_tokens_mask
        return encoding.ids[:given.index(0)] if 0 in given else []

    @property
    def pad_id(self) -> int:
        """The token that fills up batches elsewhere; our batches never learn from padding."""
        return self._known("pad" if "pad" in self.special else "eos")

    @property
    def end_id(self) -> int:
        """The token with which the template ends an answer."""
        return self._end

    @cached_property
    def ids(self) -> dict[str, Any]:
        """The ids that ``config.json`` names."""
        stops = list(dict.fromkeys([self._end, self._known("eos")]))
        return {
            "eos": stops if len(stops) > 1 else stops[0], "pad": self.pad_id,
            "bos": self._known("bos") if "bos" in self.special else None
        }

    def _known(self, role: str) -> int:
        return self.sealed.ids[self.special[role]]

    def open_turn(self) -> list[int]:
        """The tokens after which a user speaks."""
        text = self._program([{"role": "user", "content": mark(0)}], False, None)
        return self.sealed.encode([(text[:max(0, text.find(mark(0)))], False)])[0]

    def encode_chat(self, messages: Sequence[Message], generation_prompt: bool = False, picture_places: int = 0,
                    tools: Tools | None = None,
                    options: Mapping[str, Any] | None = None) -> tuple[list[int], list[bool]]:
        """The chat's tokens by the template, and which of them carry loss: those with any character of an assistant's
        turn (but in messages of ``train: false``), which reaches from the text that asks for it to the token that ends
        it. ``options`` are variables of the template, such as ``enable_thinking``. Raises :class:`TriviumError` where
        the template refuses the chat, leaves out some of it, or does not say which words are the assistant's."""
        chat, shielded_tools = self._shielded(check_messages(messages), tools)
        options = self._all_shielded(options) if options else None
        text = self._program(chat, generation_prompt, shielded_tools, options)
        self._check_shown(messages, tools, generation_prompt)
        ending = None
        if not generation_prompt and chat[-1]["role"] == "assistant":
            text, ending = self._with_reasoning(chat, text, shielded_tools, options)
        pieces: list[tuple[str, bool]] = []
        at = 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            last = ending is not None and number == len(messages) - 1
            start = ending if last and ending is not None else self._start(
                chat, number, text, shielded_tools, options, generation_prompt)
            end = self._end_of_turn(text, start)
            if start < at or end is None:
                raise TriviumError(
                    f"message {number + 1}: the chat template changes what was said earlier, so it cannot "
                    "be told which words are the assistant's; show each answer in a conversation of its own")
            pieces += [(text[at:start], False), (text[start:end], is_learned(message))]
            at = end
        return self.sealed.encode([*pieces, (text[at:], False)])

    def _end_of_turn(self, text: str, start: int) -> int | None:
        """Where the turn ends that begins at ``start``: after the first token that ends turns or, where another turn
        begins before that, after the last control token before it, such as Llama's ``<|eom_id|>``."""
        before = None
        for found in self.sealed.spelt.finditer(text, start):
            if found.group() in self._ends:
                return found.end()
            if found.group() in self._structure:
                return before
            before = found.end()
        return before if before is not None and not text[before:].strip() else None

    def _start(self, chat: list[dict[str, Any]], number: int, text: str, tools: Tools | None,
               options: Mapping[str, Any] | None, generation_prompt: bool) -> int:
        """Where an assistant's turn begins in the rendered chat: after the text that asks for it; where the template
        asks otherwise once there is more, where the chat begins to depend on what is said."""
        try:
            asked = self._program(chat[:number], True, tools, options)
        except TriviumError:
            asked = ""
        if asked and text.startswith(asked):
            return len(asked)
        if self._asks_with and asked.endswith(self._asks_with) and text.startswith(asked[:-len(self._asks_with)]):
            return len(asked) - len(self._asks_with)
        other = {"role": "assistant", "content": mark(number)}
        changed = self._program([*chat[:number], other, *chat[number + 1:]], generation_prompt, tools, options)
        start = common_length(text, changed)
        if not changed.startswith(mark(number), start):
            raise TriviumError(
                f"message {number + 1}: the chat template changes what was said earlier, so it cannot "
                "be told which words are the assistant's; show each answer in a conversation of its own")
        return start - len(self._before_answer) if text.endswith(self._before_answer, 0, start) else start

    def _with_reasoning(self, chat: list[dict[str, Any]], text: str, tools: Tools | None,
                        options: Mapping[str, Any] | None) -> tuple[str, int | None]:
        """The chat's text, and where its last answer begins, where the template leaves that answer's reasoning out but
        asks for it (as DeepSeek-R1's does): then the answer is put together as it is when the model is asked. Raises
        :class:`TriviumError` where reasoning would be lost."""
        content = chat[-1]["content"]
        if "</think>" not in content or text.count("</think>") > self._program(
                [*chat[:-1], {"role": "assistant", "content": mark(0)}], False, tools, options).count("</think>") or (
                    "</think>" in text and self._written_thoughts):
            return text, None
        asked = self._program(chat[:-1], True, tools, options)
        thinks = self._asks_with.rstrip().endswith("<think>") and asked.endswith(self._asks_with)
        if not thinks or chat[-1].get("tool_calls"):
            raise TriviumError(f"message {len(chat)}: the chat template leaves out the reasoning of the last answer; "
                               "take it out of the row, or take another `template`")
        said = content.removeprefix(self._asks_with)
        said = said.lstrip().removeprefix("<think>").lstrip("\n") if said == content else said
        return asked + said + self._after, len(asked)

    @cached_property
    def _written_thoughts(self) -> bool:
        """Whether the template writes the reasoning of a last answer."""
        said = self._program([ASKED, {"role": "assistant", "content": f"<think>\n{mark(0)}\n</think>\n\n{mark(1)}"}],
                             False, None)
        return mark(0) in said

    @cached_property
    def _reads_reasoning(self) -> bool:
        """Whether the template has a place for ``reasoning_content``."""
        said = self._program([ASKED, {"role": "assistant", "content": mark(1), "reasoning_content": mark(0),
                                      "thinking": mark(0)}], False, None)
        return mark(0) in said

    @cached_property
    def _wants_text(self) -> bool:
        """Whether the template takes the arguments of calls as the JSON of an object, and cannot write an object."""
        call = {"type": "function", "id": "c00000000", "function": {"name": "f", "arguments": {mark(0): 1}}}

        def writes(calls: list[Any]) -> bool:
            try:
                return mark(0) in self._program([ASKED, {"role": "assistant", "content": "", "tool_calls": calls}],
                                                False, None)
            except TriviumError:
                return False

        return not writes([call]) and writes(_with_text([call]))

    def _shielded(self, messages: Sequence[Message], tools: Tools | None) -> tuple[list[dict[str, Any]], Tools | None]:
        """Messages and tools as the template gets them: no text of theirs spells a control token, but for those that
        an assistant may say. Reasoning stands where the template has a place for it or, where it has none, before the
        content, between ``<think>`` and ``</think>``."""
        chat = []
        for message in messages:
            if message["role"] == "assistant" and not message.get("reasoning_content") and self._reads_reasoning and (
                    found := THOUGHT.fullmatch(message["content"])):
                message = {**message, "reasoning_content": found[1], "content": found[2]}
            new = {key: self._all_shielded(value) for key, value in message.items()
                   if value is not None and key not in ("role", "content", "train")}
            content = self.sealed.shielded(
                message["content"], self.sayable if message["role"] == "assistant" else frozenset())
            if thought := new.get("reasoning_content"):
                new["thinking"] = thought
                if not self._reads_reasoning:
                    content = f"<think>\n{thought.strip(chr(10))}\n</think>\n\n{content}"
            if new.get("tool_calls") and self._wants_text:
                new["tool_calls"] = _with_text(new["tool_calls"])
            chat.append({"role": message["role"], "content": content, **new})
        return chat, self._all_shielded(list(tools)) if tools else None

    def _all_shielded(self, value: Any) -> Any:
        """A value of JSON whose texts spell no control token."""
        if isinstance(value, str):
            return self.sealed.shielded(value)
        if isinstance(value, Mapping):
            return {self._all_shielded(key): self._all_shielded(one) for key, one in value.items()}
        return [self._all_shielded(one) for one in value] if isinstance(value, (list, tuple)) else value

    def _check_shown(self, messages: Sequence[Message], tools: Tools | None, generation_prompt: bool) -> None:
        """Raise :class:`TriviumError` where the template leaves out what a message says or calls, or the tools. Looked
        up by the form of the chat."""
        form = [(message["role"], bool(message["content"].strip()), len(message.get("tool_calls") or []))
                for message in messages]
        thinks = self._reads_reasoning and bool(messages[-1].get("reasoning_content"))
        key = (tuple(form), thinks, bool(tools), generation_prompt)
        if key not in self._shown:
            chat: list[dict[str, Any]] = []
            for i, (role, said, calls) in enumerate(form):
                made = [{"type": "function", "id": f"c{i:04}{k:04}", "function": {
                    "name": mark(1000 * (i + 1) + k), "arguments": {mark(1000 * (i + 1) + 500 + k): 1}}}
                    for k in range(calls)]
                made = _with_text(made) if made and self._wants_text else made
                chat.append({"role": role, "content": mark(i) if said else "",
                             **({"tool_calls": made} if calls else {}),
                             **({"tool_call_id": "c00000000", "name": "f"} if role == "tool" else {})})
            if thinks:
                chat[-1] |= {"reasoning_content": mark(10**8), "thinking": mark(10**8)}
            function = {"name": mark(10**9), "description": "?", "parameters": {"type": "object", "properties": {}}}
            marked = [{"type": "function", "function": function}] if tools else None
            try:
                text = self._program(chat, generation_prompt, marked)
                self._shown[key] = frozenset(int(number) for number in MARK.findall(text))
            except TriviumError:  # it looks into what is said, and marks say nothing
                self._shown[key] = None
        shown = self._shown[key]
        if shown is None:
            return
        for i, (role, said, calls) in enumerate(form):
            if said and i not in shown:
                raise TriviumError(f"message {i + 1}: the chat template leaves out what the {role} says here; put it "
                                   "into another message")
            if calls and any(n not in shown for k in range(calls) for n in (1000 * (i + 1) + k,
                                                                          1000 * (i + 1) + 500 + k)):
                raise TriviumError(f"message {i + 1}: the chat template leaves out the tool calls; take another "
                                   "`template`, such as chatml or qwen3")
        if thinks and 10**8 not in shown:
            raise TriviumError(f"message {len(form)}: the chat template leaves out the reasoning of the last answer; "
                               "take it out of the row, or take another `template`")
        if tools and 10**9 not in shown:
            raise TriviumError("the chat template leaves out the `tools`; take another `template`, such as chatml or "
                               "qwen3, or rows without tools")

    @property
    def variables(self) -> frozenset[str]:
        """The variables of the template that a chat may set, such as ``enable_thinking``."""
        return self._program.variables

    def remarks(self, chats: Iterable[Sequence[Message]]) -> list[str]:
        """What is to be known before chats are learned by this template: reasoning of earlier turns that it leaves out,
        and answers that begin otherwise than they are asked for."""
        dropped = plain = count = 0
        for messages in chats:
            count += 1
            thinks = [bool(message.get("reasoning_content") or "</think>" in str(message["content"]))
                      for message in messages if message["role"] == "assistant"]
            dropped += any(thinks[:-1])
            plain += not all(thinks)
        found = [f"{plain} of {counted(count, 'conversation')}: {self.mismatch}"] if self.mismatch and plain else []
        if dropped and not self._keeps_earlier_thoughts:
            found.append(f"{dropped} of {counted(count, 'conversation')}: the chat template leaves out the reasoning "
                         "of earlier turns, whose answers are learned without it; `loss_on: last` "
                         "learns the last turn alone")
        return found

    @cached_property
    def _keeps_earlier_thoughts(self) -> bool:
        thinking = {"role": "assistant", "content": mark(1), "reasoning_content": mark(0), "thinking": mark(0)} if (
            self._reads_reasoning) else {"role": "assistant",
                                         "content": f"<think>\n{mark(0)}\n</think>\n\n{mark(1)}"}
        return mark(0) in self._program([ASKED, thinking, ASKED, {"role": "assistant", "content": "?"}], False, None)

    def render(self, messages: Sequence[Message], generation_prompt: bool = False, tools: Tools | None = None) -> str:
        """The chat as text, by the template."""
        chat, shielded_tools = self._shielded(check_messages(messages), tools)
        return self._program(chat, generation_prompt, shielded_tools).replace(SHIELD, "")


def _with_text(calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tool calls with their arguments as the JSON of an object."""
    return [{**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"],
                                                                             ensure_ascii=False)}} for call in calls]
