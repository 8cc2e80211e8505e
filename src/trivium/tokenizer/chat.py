"""The tokenizer as the other parts of the package use it: texts, and chats with the mask of what is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from trivium.errors import TriviumError, nearest
from trivium.files import write_bytes, write_json, write_text
from trivium.tokenizer.train import ASSISTANT, DOCUMENT, END, PAD, SPECIAL_TOKENS, SYSTEM, USER

Message = Mapping[str, Any]
"""``{"role", "content"}``: the content is a text or, where a model sees, a list of parts, ``{"type": "text", "text"}``
and pictures."""

ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}

TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""A turn is its role's token, the content as it is, and the end token."""


class ChatTokenizer:
    """A byte-level BPE tokenizer with our chat template."""

    template = TEMPLATE
    foreign: ClassVar[type[ChatTokenizer]]
    """The subclass that reads tokenizers of other makers, with their own templates."""

    def __init_subclass__(cls) -> None:
        ChatTokenizer.foreign = cls

    def __init__(self, tokenizer: Tokenizer | bytes) -> None:
        """``tokenizer`` is a trained one, or the bytes of its ``tokenizer.json``."""
        self.data = tokenizer if isinstance(tokenizer, bytes) else (tokenizer.to_str(pretty=True) + "\n").encode()
        try:
            self._tokenizer = Tokenizer.from_buffer(self.data)
        except Exception as error:  # the library raises Exception itself
            raise TriviumError(f"tokenizer.json is not a tokenizer ({error})") from error
        # With this, text that spells a special token is text: a user cannot end the turn or speak as the assistant.
        self._tokenizer.encode_special_tokens = True
        self._ids: dict[str, int] = {}
        for token in SPECIAL_TOKENS:
            id = self._tokenizer.token_to_id(token)
            if id is None:
                raise TriviumError(f"tokenizer.json has no token {token}; only Trivium's own tokenizers can be used")
            self._ids[token] = id
        self.begins = self._tokenizer.encode("", add_special_tokens=True).ids == [self.document_id]
        """Whether a text begins with the token between documents, as those of a model without chat do."""
        if self.begins:  # it says so itself: apart from that, the tokenizer is the same
            self._tokenizer.post_processor = None
            self.data = (self._tokenizer.to_str(pretty=True) + "\n").encode()

    def _beginning(self) -> bytes:
        """``tokenizer.json`` where a text begins with the token between documents, for all who read it."""
        tokenizer = Tokenizer.from_buffer(self.data)
        tokenizer.post_processor = TemplateProcessing(single=f"{DOCUMENT} $A", pair=f"{DOCUMENT} $A {DOCUMENT} $B",
                                                      special_tokens=[(DOCUMENT, self.document_id)])
        return (tokenizer.to_str(pretty=True) + "\n").encode()

    @classmethod
    def load(cls, folder: Path) -> ChatTokenizer:
        """From a folder that :meth:`save` wrote, a model's among them, or from any Hugging Face folder."""
        path = folder / "tokenizer.json"
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise TriviumError(f"{path}: no such file; name a folder that holds a tokenizer") from error
        template = folder / "chat_template.jinja"
        own = all(f'"{token}"'.encode() in data for token in SPECIAL_TOKENS)
        if not own or (template.exists() and template.read_text("utf-8") != TEMPLATE):
            return cls.foreign.load(folder)
        try:
            return cls(data)
        except TriviumError as error:
            raise TriviumError(f"{folder}: {error}") from error

    def save(self, folder: Path, chat: bool = True) -> None:
        """Write the files that ``transformers.AutoTokenizer`` loads. ``chat`` says which token ends a text for programs
        that only know one: the end of a turn, or, for a model that was only pretrained, the end of a document."""
        write_bytes(folder / "tokenizer.json", self.data if chat else self._beginning())
        special = {"eos_token": END if chat else DOCUMENT, "pad_token": PAD}
        special |= {} if chat else {"bos_token": DOCUMENT}
        write_json(folder / "special_tokens_map.json", special)
        write_json(folder / "tokenizer_config.json", {
            **special, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
            "add_bos_token": False, "add_eos_token": False, "model_max_length": 1 << 30})
        write_text(folder / "chat_template.jinja", self.template)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``tokenizer.json``."""
        return sha256(self.data).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def document_id(self) -> int:
        """The token between documents, which also ends the text of a model without chat."""
        return self._ids[DOCUMENT]

    @property
    def pad_id(self) -> int:
        """The token that fills up batches."""
        return self._ids[PAD]

    @property
    def end_id(self) -> int:
        """The token that ends a turn."""
        return self._ids[END]

    @property
    def eos_id(self) -> int:
        """The token that templates and other programs know as the end."""
        return self.document_id if self.begins else self.end_id

    @property
    def text_start(self) -> list[int]:
        """The tokens before a text that is no chat, which ``transformers`` puts there too."""
        return [self.document_id] if self.begins else []

    def opened(self, text: str) -> list[int]:
        """The tokens of a text that is to be continued, with what stands before it; never none."""
        return [*self.text_start, *self.encode(text)] or [self.document_id]

    def encode(self, text: str) -> list[int]:
        """The text's tokens, never a special one."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` for many texts at once, on all cores."""
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise TriviumError(f"a text cannot be encoded: {error}") from error
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the tokens; special ones are spelt out, and bytes that are no UTF-8 become U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def spelling(self, id: int) -> str:
        """A token as the vocabulary writes it: a letter a byte, or a special token's name; empty for an unknown id."""
        return self._tokenizer.id_to_token(id) or ""

    def encode_chat(self, messages: Sequence[Message], generation_prompt: bool = False,
                    picture_places: int = 0) -> tuple[list[int], list[bool]]:
        """The chat's tokens, and which of them carry loss: the content and the end token of every assistant turn.
        ``generation_prompt`` opens a turn of the assistant at the end. A picture becomes ``picture_places`` padding
        tokens; where that is 0, it is refused."""
        parts = [parts_of(message) for message in check_messages(messages, bool(picture_places))]
        encoded = iter(self.encode_batch([text for texts in parts for text in texts if text is not None]))
        picture = [self.pad_id] * picture_places
        ids: list[int] = []
        learned: list[bool] = []
        for message, texts in zip(messages, parts, strict=True):
            turn = [*(id for text in texts for id in (picture if text is None else next(encoded))), self.end_id]
            ids += [self._ids[ROLES[message["role"]]], *turn]
            learned += [False, *[message["role"] == "assistant"] * len(turn)]
        if generation_prompt:
            ids.append(self._ids[ASSISTANT])
            learned.append(False)
        return ids, learned

    def encode_response(self, text: str) -> list[int]:
        """An answer's tokens as they follow a chat that asks for it, with the one that ends it."""
        return [*self.encode(text), self.end_id]

    def open_turn(self) -> list[int]:
        """The tokens after which a user speaks."""
        return [self._ids[USER]]

    @property
    def stop_ids(self) -> set[int]:
        """The special tokens, none of which is part of what is said."""
        return set(self._ids.values())

    @property
    def ids(self) -> dict[str, Any]:
        """The ids that a chat model's ``config.json`` names."""
        return {"eos": self.end_id, "pad": self.pad_id}

    def render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        """The chat as text, by the template: what a person reads, and what other programs encode."""
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def raise_exception(message: str) -> None:
            raise TriviumError(f"chat template: {message}")

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = raise_exception
        return environment.from_string(self.template).render(
            messages=[dict(message) for message in check_messages(messages)], add_generation_prompt=generation_prompt)


def parts_of(message: Message) -> list[str | None]:
    """The texts of a message in order, and None for each picture."""
    content = message["content"]
    return [content] if isinstance(content,
                                   str) else [part["text"] if part["type"] == "text" else None for part in content]


def check_messages(messages: Sequence[Message], pictures: bool = False) -> Sequence[Message]:
    """The messages, or a :class:`TriviumError` that says which one is wrong and how. ``pictures`` allows contents of
    parts."""
    if isinstance(messages, (str, bytes, Mapping)) or not messages:
        raise TriviumError("a chat needs at least one message, as a list of {\"role\", \"content\"}")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise TriviumError(f"message {number}: not an object with role and content")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise TriviumError(f"message {number}: unknown role {role!r}{nearest(str(role), ROLES)}")
        if isinstance(content, list) and pictures:
            for place, part in enumerate(content, 1):
                if not isinstance(part, Mapping) or part.get("type") not in ("text", "image_url") or (
                        part["type"] == "text" and not isinstance(part.get("text"), str)):
                    raise TriviumError(
                        f"message {number}: part {place} of the content is neither a text nor an image_url")
        elif not isinstance(content, str):
            holds = isinstance(content, list) and any(
                isinstance(part, Mapping) and part.get("type") == "image_url" for part in content)
            raise TriviumError(f"message {number}: " + (
                "holds a picture, but this model reads text alone" if holds else "the content is not a string"))
    return messages
