"""The tokenizer as the other parts of the package use it: texts, and chats with the mask of what is learned."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from trivium.artifacts import check_made
from trivium.errors import TriviumError
from trivium.files import read_text, write_bytes, write_json, write_text
from trivium.tokenizer.control import SealedTokenizer, described, tokenizer_of, whole_tokenizer, without_limits
from trivium.tokenizer.messages import ROLES as ROLES
from trivium.tokenizer.messages import Message as Message
from trivium.tokenizer.messages import check_messages as check_messages
from trivium.tokenizer.messages import learned as is_learned
from trivium.tokenizer.messages import parts_of, with_answer
from trivium.tokenizer.messages import text_of_answer as text_of_answer
from trivium.tokenizer.named import TEMPLATE as TEMPLATE
from trivium.tokenizer.rendering import Header, Program
from trivium.tokenizer.train import DOCUMENT, END, PAD, SPECIAL_TOKENS, USER

FIRST_TEMPLATES = {"a399264b97db93dd068d2fc881e008d722b98b16638750876e75e7fb70c080ec"}
"""SHA-256 of the templates that earlier versions wrote into folders of ours."""

TOOLS = ("Tools, a line of JSON each. To call one, write a line of JSON with its \"name\" and \"arguments\" between "
         "<tool_call> and </tool_call>.")


class ChatTokenizer:
    """A byte-level BPE tokenizer with our chat template."""

    foreign: ClassVar[type[ChatTokenizer]]
    """The subclass that reads tokenizers of other makers, with their own templates."""
    mismatch: str | None = None
    """What the template asks for and does not write into answers; None where they agree."""

    def __init_subclass__(cls) -> None:
        ChatTokenizer.foreign = cls

    def __init__(self, tokenizer: Tokenizer | bytes, system: str | None = None) -> None:
        """``tokenizer`` is a trained one, or the bytes of its ``tokenizer.json``; ``system`` is what the system says
        where a chat does not say it."""
        data = tokenizer if isinstance(tokenizer, bytes) else (tokenizer.to_str(pretty=True) + "\n").encode()
        self.data, self.header = without_limits(data, "the tokenizer"), Header(system)
        found = described(self.data, "the tokenizer")
        self._tokenizer = tokenizer_of(found, "the tokenizer")
        for token in SPECIAL_TOKENS:
            if self._tokenizer.token_to_id(token) is None:
                raise TriviumError(f"tokenizer.json has no token {token}; only Trivium's own tokenizers can be used")
        self.sealed = SealedTokenizer(found, SPECIAL_TOKENS, "the tokenizer")
        self.begins = bool(found.get("post_processor")) and whole_tokenizer(found, "the tokenizer").encode(
            "", add_special_tokens=True).ids == [self.document_id]
        """Whether a text begins with the token between documents, as those of a model without chat do."""
        if self.begins:  # it says so itself: apart from that, the tokenizer is the same
            self.data = (self._tokenizer.to_str(pretty=True) + "\n").encode()

    @property
    def template(self) -> str:
        """The chat template, as it is saved."""
        return self.header.before(TEMPLATE)

    @property
    def _ids(self) -> dict[str, int]:
        return self.sealed.ids

    def _beginning(self) -> bytes:
        """``tokenizer.json`` where a text begins with the token between documents, for all who read it."""
        tokenizer = Tokenizer.from_buffer(self.data)
        tokenizer.post_processor = TemplateProcessing(single=f"{DOCUMENT} $A", pair=f"{DOCUMENT} $A {DOCUMENT} $B",
                                                      special_tokens=[(DOCUMENT, self.document_id)])
        return (tokenizer.to_str(pretty=True) + "\n").encode()

    @classmethod
    def load(cls, folder: Path) -> ChatTokenizer:
        """From a folder that :meth:`save` wrote, a model's among them, or from any Hugging Face folder."""
        check_made(folder)
        path = folder / "tokenizer.json"
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise TriviumError(f"{path}: no such file; name a folder that holds a tokenizer") from error
        own, header = all(f'"{token}"'.encode() in data for token in SPECIAL_TOKENS), Header()
        if own and (folder / "chat_template.jinja").exists():
            header, template = Header.split(read_text(folder / "chat_template.jinja"))
            own = template == TEMPLATE or sha256(template.encode()).hexdigest() in FIRST_TEMPLATES
        if not own:
            return cls.foreign.load(folder)
        try:
            return cls(data, header.system)
        except TriviumError as error:
            raise TriviumError(f"{folder}: {error}") from error

    def save(self, folder: Path, chat: bool = True, family: str = "") -> None:
        """Write the files that ``transformers.AutoTokenizer`` loads. ``chat`` says which token ends a text for programs
        that only know one: the end of a turn, or, for a model that was only pretrained, the end of a document.
        ``family`` is the ``model_type`` of the model beside it: ``transformers`` 5 takes any tokenizer beside a
        ``qwen2`` for Qwen's own, which splits words and composes letters otherwise, unless an ``auto_map`` says that
        it has a class of its own; an empty one leaves ``tokenizer_class`` to say which."""
        write_bytes(folder / "tokenizer.json", self.data if chat else self._beginning())
        special = {"eos_token": END if chat else DOCUMENT, "pad_token": PAD}
        special |= {} if chat else {"bos_token": DOCUMENT}
        write_json(folder / "special_tokens_map.json", special)
        write_json(folder / "tokenizer_config.json", {
            **special, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
            "add_bos_token": False, "add_eos_token": False, "model_max_length": 1 << 30,
            **({"auto_map": {"AutoTokenizer": [None, None]}} if family == "qwen2" else {})})
        write_text(folder / "chat_template.jinja", self.template)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``tokenizer.json``, without a truncation and padding that another program left there."""
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

    def started(self, ids: Sequence[int]) -> list[int]:
        """The tokens of a text that is scored or continued in an examination, with what stands before it: the token
        between documents, which our models have seen before every text."""
        return [self.document_id, *ids]

    def opened(self, text: str) -> list[int]:
        """The tokens of a text that is to be continued, with what stands before it; never none."""
        return [*self.text_start, *self.encode(text)] or [self.document_id]

    def encode(self, text: str) -> list[int]:
        """The text's tokens, never a control token."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` for many texts at once, on all cores."""
        return self.sealed.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the tokens; special ones are spelt out, and bytes that are no UTF-8 become U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def spelling(self, id: int) -> str:
        """A token as the vocabulary writes it: a letter a byte, or a special token's name; empty for an unknown id."""
        return self._tokenizer.id_to_token(id) or ""

    def encode_chat(self, messages: Sequence[Message], generation_prompt: bool = False, picture_places: int = 0,
                    tools: Sequence[Mapping[str, Any]] | None = None,
                    options: Mapping[str, Any] | None = None) -> tuple[list[int], list[bool]]:
        """The chat's tokens, and which of them carry loss: all that the assistant says, thinks and calls, and the token
        that ends each of its turns, but in messages of ``train: false``. ``generation_prompt`` opens a turn of the
        assistant at the end. A picture becomes ``picture_places`` padding tokens; where that is 0, it is refused.
        ``tools`` are JSON schemas of functions in OpenAI's form; ``options`` are variables of the template, of which
        ours has none."""
        chat = self._with_system(check_messages(messages, bool(picture_places)), tools)
        parts = [written(message) for message in chat]
        encoded = iter(self.encode_batch([text for texts in parts for text in texts if text is not None]))
        picture = [self.pad_id] * picture_places
        ids: list[int] = []
        learned: list[bool] = []
        for message, texts in zip(chat, parts, strict=True):
            opening = [self._ids[token] for token in ROLES[message["role"]]]
            turn = [*(id for text in texts for id in (picture if text is None else next(encoded))), self.end_id]
            ids += [*opening, *turn]
            learned += [*[False] * len(opening), *[is_learned(message)] * len(turn)]
        if generation_prompt:
            ids += [self._ids[token] for token in ROLES["assistant"]]
            learned.append(False)
        return ids, learned

    def _with_system(self, messages: Sequence[Message], tools: Sequence[Any] | None) -> Sequence[Message]:
        """The messages with what the system says by itself, and with the tools."""
        if not tools and (self.header.system is None or messages[0]["role"] == "system"):
            return messages
        first, rest = (messages[0]["content"], messages[1:]) if messages[0]["role"] == "system" else (
            self.header.system or "", messages)
        lines = [TOOLS, *(json.dumps(tool, ensure_ascii=False) for tool in tools or [])] if tools else []
        if isinstance(first, list):
            content: Any = [*first, {"type": "text", "text": "\n\n" + "\n".join(lines)}] if lines else first
        else:
            content = "\n\n".join(text for text in (first, "\n".join(lines)) if text)
        return [{"role": "system", "content": content}, *rest]

    def encode_answer(self, prompt: Sequence[Message], response: str | Message,
                      tools: Sequence[Mapping[str, Any]] | None = None) -> tuple[list[int], list[int]]:
        """The tokens of a prompt and those of an answer to it, which end with the token that ends it: the conversation
        is encoded as a whole and parted at the first token that carries loss. ``response`` is a text, or a message with
        reasoning or tool calls. Raises :class:`TriviumError` for what the template refuses."""
        ids, mask = self.encode_chat(with_answer(prompt, response), tools=tools)
        if True not in mask:
            raise TriviumError("the chat template leaves out what the assistant says")
        first, last = mask.index(True), len(mask) - mask[::-1].index(True)
        return ids[:first], ids[first:last]

    def encode_response(self, text: str | Message) -> list[int]:
        """An answer's tokens as they follow a question, with the one that ends it."""
        return self.encode_answer([{"role": "user", "content": "?"}], text)[1]

    def open_turn(self) -> list[int]:
        """The tokens after which a user speaks."""
        return [self._ids[USER]]

    @property
    def stop_ids(self) -> set[int]:
        """The control tokens, none of which is part of what is said."""
        return set(self._ids.values())

    @property
    def ids(self) -> dict[str, Any]:
        """The ids that a chat model's ``config.json`` names."""
        return {"eos": self.end_id, "pad": self.pad_id}

    def render(self, messages: Sequence[Message], generation_prompt: bool = False,
               tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The chat as text, by the template: what a person reads, and what other programs encode."""
        return Program(self.template, "the tokenizer", {})(check_messages(messages), generation_prompt, tools)

    @property
    def variables(self) -> frozenset[str]:
        """The variables of the template that a chat may set, such as ``enable_thinking``."""
        return frozenset()

    def remarks(self, chats: Iterable[Sequence[Message]]) -> list[str]:
        """What is to be known before chats are learned by this template."""
        return []


def written(message: Message) -> list[str | None]:
    """What our own template makes of a message between the tokens of its turn: texts, and None for each picture."""
    thought = message.get("reasoning_content")
    texts = parts_of(message)
    calls = [f'<tool_call>\n{{"name": {json.dumps(call["function"]["name"], ensure_ascii=False)}, "arguments": '
             f'{json.dumps(call["function"]["arguments"], ensure_ascii=False)}}}\n</tool_call>'
             for call in message.get("tool_calls") or []]
    if not thought and not calls:
        return texts
    said = "".join(text or "" for text in texts)
    return [(f"<think>\n{thought}\n</think>\n\n" if thought else "") + "\n".join([*([said] if said else []), *calls])]
