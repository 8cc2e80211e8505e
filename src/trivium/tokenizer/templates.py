"""Other people's tokenizers and their chat templates, with the mask of what the assistant says.

A template is a program that turns messages into text; where in that text each message stands is found by rendering the
chat again with a mark in each message's place. What lies between the marks is the template's own; the rest is content.
So the mask needs to know nothing of any family, and text in a message that spells a special token stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trivium.errors import TriviumError
from trivium.files import read_json, read_text, write_bytes, write_text
from trivium.tokenizer.chat import ROLES, ChatTokenizer, Message, check_messages

ROLE_MARKS = tuple(f"<|{role}|>" for role in ROLES)

PLAIN_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{%- set said = message['content'].replace('<|system|>', '< |system|>').replace('<|user|>', '< |user|>') -%}"
    "{{- '<|' + message['role'] + '|>\\n' + said.replace('<|assistant|>', '< |assistant|>') -}}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
"""Ours for a base model without one: roles are marked in plain text, so no entry of the vocabulary is added, and the
assistant's turn ends with the token that ends texts. A mark that somebody writes gets a space after its ``<``, so that
nobody can begin another's turn; the template does it itself, for programs that encode chats by the saved template."""

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
         "merges.txt", "tokenizer.model", "chat_template.jinja")
"""What a tokenizer's folder may hold; all of it goes with the model."""

MARK = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered chat: the template's text, or (``message`` is not None) a message's content."""

    text: str
    message: int | None
    learned: bool


class TemplateTokenizer(ChatTokenizer):
    """A tokenizer of any family with a chat template of its own."""

    def __init__(self, data: bytes, template: str | None, special: dict[str, str | None],
                 files: dict[str, bytes] | None = None, name: str = "the tokenizer") -> None:
        """``special`` holds the texts of ``bos``, ``eos`` and ``pad``; ``files`` are those of its folder; ``name`` is
        for errors."""
        self.data, self.name, self.files = data, name, files or {}
        try:
            described = json.loads(data)
            described["post_processor"] = None  # it would trim offsets, and special tokens come from the template
            text = json.dumps(described)
            self._tokenizer, self._parsing = Tokenizer.from_str(text), Tokenizer.from_str(text)
        except Exception as error:  # the library raises Exception itself
            raise TriviumError(f"{name}: tokenizer.json is not a tokenizer ({error})") from error
        for tokenizer in (self._tokenizer, self._parsing):
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.added: dict[str, int] = {
            str(token["content"]): int(token["id"])
            for token in described.get("added_tokens") or []
        }
        self.special = {
            role: token
            for role, token in special.items() if token is not None and self._id(token) is not None
        }
        for role, token in special.items():
            if token and role not in self.special and role == "eos":
                raise TriviumError(f"{name}: the {role} token {token!r} is not in the vocabulary")
        if "eos" not in self.special:
            raise TriviumError(f"{name}: tokenizer_config.json names no eos_token, so nothing can end an answer")
        self.template = template if template is not None else PLAIN_TEMPLATE
        self.own = self.template == PLAIN_TEMPLATE
        """Whether the template is ours, as the base has none."""
        self._structures: dict[tuple[tuple[str, ...], bool], list[Piece]] = {}
        self._spelt = re.compile("|".join(map(re.escape, sorted(self.added, key=len, reverse=True))) or r"(?!)")
        probe = self._structure(("user", "assistant"), False)
        place = next((i for i, piece in enumerate(probe) if piece.message == 1), None)
        if place is None:
            raise TriviumError(f"{name}: the chat template leaves out what the assistant says")
        self._end = self.added[probe[place + 1].text.strip()]
        self.opening = "".join(piece.text for piece in probe[:place] if piece.learned)
        """What the template puts between the text that asks for an answer and the answer, such as a space."""
        self.trims = MARK.sub(
            "", self._render([{"role": "user", "content": "u"}, {"role": "assistant", "content": " x "}],
                             False)).find(" x ") < 0

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

    def _id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def save(self, folder: Path, chat: bool = True) -> None:
        """Write the files as they were, and the chat template."""
        for name, data in self.files.items():
            write_bytes(folder / name, data)
        if not self.files:
            write_bytes(folder / "tokenizer.json", self.data)
        if "chat_template.jinja" not in self.files:
            write_text(folder / "chat_template.jinja", self.template)

    @property
    def document_id(self) -> int:
        """The token that a text begins with, or the one that ends it where there is none."""
        return self._known("bos" if "bos" in self.special else "eos")

    @property
    def eos_id(self) -> int:
        """The token that templates and other programs know as the end."""
        return self._known("eos")

    @cached_property
    def text_start(self) -> list[int]:
        """The tokens that the tokenizer's last step, and so ``transformers``, puts before a text."""
        encoding = Tokenizer.from_buffer(self.data).encode("a", add_special_tokens=True)
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
        found = self._id(self.special[role])
        assert found is not None
        return found

    def encode_response(self, text: str) -> list[int]:
        """An answer's tokens as they follow a chat that asks for it, with the one that ends it."""
        return [*self.encode(self.opening + self.shown(text.strip() if self.trims else text)), self._end]

    def shown(self, content: str) -> str:
        """What our template makes of a content: role marks in it are broken. Other templates are taken to leave it as
        it is."""
        if self.own:
            for mark in ROLE_MARKS:
                content = content.replace(mark, f"< {mark[1:]}")
        return content

    def open_turn(self) -> list[int]:
        """The tokens after which a user speaks."""
        pieces = self._structure(("user",), False)
        return self._encode(pieces[:next(i for i, piece in enumerate(pieces) if piece.message == 0)], self._parsing)[0]

    @property
    def stop_ids(self) -> set[int]:
        """The special tokens, none of which is part of what is said."""
        return set(self.added.values())

    def encode_chat(self, messages: Sequence[Message], generation_prompt: bool = False,
                    picture_places: int = 0) -> tuple[list[int], list[bool]]:
        """The chat's tokens by the template, and which of them carry loss: those with any character of an assistant's
        turn, which reaches from the text that asks for it to the token that ends it."""
        pieces = self.pieces(messages, generation_prompt)
        if not any(self._spelt.search(piece.text) for piece in pieces if piece.message is not None):
            return self._encode(pieces, self._parsing)
        ids: list[int] = []
        learned: list[bool] = []
        run: list[Piece] = []  # what is encoded together: all between two special tokens of the template
        for piece in pieces:
            if piece.message is not None:
                run.append(piece)
                continue
            at = 0
            for found in self._spelt.finditer(piece.text):
                run.append(Piece(piece.text[at:found.start()], None, piece.learned))
                for part in (self._encode(run, self._tokenizer), ([self.added[found.group()]], [piece.learned])):
                    ids += part[0]
                    learned += part[1]
                run, at = [], found.end()
            run.append(Piece(piece.text[at:], None, piece.learned))
        more = self._encode(run, self._tokenizer)
        return ids + more[0], learned + more[1]

    @staticmethod
    def _encode(pieces: Sequence[Piece], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
        text = "".join(piece.text for piece in pieces)
        if not text:
            return [], []
        counts = [0]  # counts[i]: learned characters before character i
        for piece in pieces:
            counts += [counts[-1] + (i + 1) * piece.learned for i in range(len(piece.text))]
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, [counts[end] > counts[start] for start, end in encoding.offsets]

    def pieces(self, messages: Sequence[Message], generation_prompt: bool = False) -> list[Piece]:
        """The rendered chat in pieces, each the template's or a message's. Raises :class:`TriviumError` where the
        template refuses the chat, or changes what is said so that it cannot be found again."""
        text = self._render(check_messages(messages), generation_prompt)
        roles = tuple(message["role"] for message in messages)
        key = (roles, generation_prompt)
        if key not in self._structures:
            self._structures[key] = self._structure(roles, generation_prompt)
        structure, at, found = self._structures[key], 0, list[Piece]()
        shown = {piece.message for piece in structure}
        lost = next((i for i, message in enumerate(messages) if i not in shown and message["content"].strip()), None)
        if lost is not None:
            raise TriviumError(
                f"message {lost + 1}: the chat template leaves out what "
                f"the {roles[lost]} says here; put it into another message"
            )
        for number, piece in enumerate(structure):
            said = piece.text
            if piece.message is not None:
                content = self.shown(messages[piece.message]["content"])
                after = structure[number + 1].text if number + 1 < len(structure) else ""
                said = next((form for form in (content, content.rstrip(), content.lstrip(), content.strip())
                             if text.startswith(form + after, at)), content)
            if not text.startswith(said, at):
                return self._by_prefix(messages, text, generation_prompt)
            found.append(Piece(said, piece.message, piece.learned))
            at += len(said)
        return found if at == len(text) else self._by_prefix(messages, text, generation_prompt)

    def _by_prefix(self, messages: Sequence[Message], text: str, generation_prompt: bool) -> list[Piece]:
        """For templates that look into what is said: an answer is what follows the text that asks for it, up to the
        token that ends it."""
        pieces: list[Piece] = []
        at = 0
        for number, message in enumerate(messages):
            if self._spelt.search(message["content"]):
                raise TriviumError(
                    f"message {number + 1}: spells a special token, which this chat template would let pass for one")
            if message["role"] != "assistant":
                continue
            asked = self._render(messages[:number], True)
            whole = self._render(messages[:number + 1], False)
            end = next(iter([*self._spelt.finditer(whole)][::-1]), None)
            if not text.startswith(asked) or not end or end.end() != len(
                    whole.rstrip()) or not text.startswith(whole[:end.end()]):
                raise TriviumError(
                    f"message {number + 1}: the chat template changes what was said earlier, so it cannot "
                    "be told which words are the assistant's; show each answer in a conversation of its own")
            pieces += [Piece(text[at:len(asked)], None, False), Piece(text[len(asked):end.start()], number, True),
                       Piece(text[end.start():end.end()], None, True)]
            at = end.end()
        return [*pieces, Piece(text[at:], None, False)]

    def _structure(self, roles: tuple[str, ...], generation_prompt: bool) -> list[Piece]:
        """The pieces of any chat with these roles, with empty contents."""
        marked = [{"role": role, "content": f"\ue000{i}\ue001"} for i, role in enumerate(roles)]
        rendered = self._render(marked, generation_prompt)
        parts = MARK.split(rendered)  # text, number, text, number, ..., text
        pieces: list[Piece] = []
        ends = False  # whether this text must begin with the token that ends an answer
        for i, part in enumerate(parts):
            if i % 2:
                number = int(part)
                ends = roles[number] == "assistant"
                if ends:
                    asked = self._render(marked[:number], True)
                    written, opening = "".join(
                        MARK.sub("", p.text) if p.message is None else f"\ue000{p.message}\ue001" for p in pieces), ""
                    if written.startswith(asked) and pieces and len(written) - len(asked) <= len(
                            pieces[-1].text) and written != asked:
                        opening = written[len(asked):]
                        last = pieces.pop()
                        pieces += [
                            Piece(last.text[:len(last.text) - len(opening)], None, last.learned),
                            Piece(opening, None, True)
                        ]
                pieces.append(Piece("", number, ends))
                continue
            if ends:
                found = self._spelt.match(part, len(part) - len(part.lstrip()))
                if not found:
                    raise TriviumError(
                        f"{self.name}: the chat template does not end the assistant's turn with a token of its own, so "
                        "nothing would teach the model to stop")
                pieces.append(Piece(part[:found.end()], None, True))
                part, ends = part[found.end():], False
            pieces.append(Piece(part, None, False))
        return pieces

    def render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        """The chat as text, by the template."""
        return self._render(check_messages(messages), generation_prompt)

    def _render(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        from jinja2 import TemplateError
        try:
            return str(self._program.render(
                messages=[dict(message) for message in messages], add_generation_prompt=generation_prompt,
                **{f"{role}_token": self.special.get(role, "") for role in ("bos", "eos", "pad", "unk")}))
        except TemplateError as error:
            raise TriviumError(f"the chat template refuses this chat: {error}") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TriviumError(f"the chat template fails on this chat: {error}") from error

    @cached_property
    def _program(self) -> Any:
        """The compiled template."""
        from jinja2 import TemplateSyntaxError
        from jinja2.exceptions import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                    extensions=["jinja2.ext.loopcontrols"])
        environment.globals["raise_exception"] = raise_exception
        environment.filters["tojson"] = lambda value, **more: json.dumps(value, ensure_ascii=False, **more)
        source = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", self.template)  # marks that other programs read
        try:
            return environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TriviumError(
                f"{self.name}: the chat template is not valid Jinja: line {error.lineno}: {error.message}") from error
