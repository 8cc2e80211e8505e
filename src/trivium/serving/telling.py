"""One sample's way from tokens to what its client is told, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trivium.serving.protocol import ChatRequest, CompletionRequest
from trivium.serving.reading import AnswerReader, Delta
from trivium.serving.signing import as_row
from trivium.serving.text import Alternatives, GrowingText, ToldTokens
from trivium.tokenizer.chat import ChatTokenizer


class Telling:
    """A sample as it is told. ``thinking`` says that the prompt of a chat began to think; ``hides`` leaves out what a
    model thinks before it answers, the log-probabilities of these tokens, too."""

    def __init__(self, tokenizer: ChatTokenizer, request: ChatRequest | CompletionRequest, thinking: bool,
                 hides: bool) -> None:
        chat = isinstance(request, ChatRequest)
        self._tokenizer, self._hides = tokenizer, hides
        self.growing = GrowingText(tokenizer, request.stops)
        self.reader = AnswerReader(thinking, request.callable_tools is not None) if isinstance(
            request, ChatRequest) else None
        self.told = ToldTokens(tokenizer, chat) if request.alternatives >= 0 else None
        self._sure, self._found = 0, not (hides and chat)
        self._thought, self._words = "", ""
        self.begun = False
        """Whether the prompt was given back."""

    @property
    def said(self) -> str:
        """What of a chat's answer was told until now, as one text; empty while it has no words."""
        return as_row(self._thought, self._words) if self._words else ""

    def prompt(self, ids: Sequence[int], heard: Sequence[Alternatives]) -> tuple[str, dict[str, Any] | None]:
        """The prompt that is given back, with the log-probabilities of its tokens where they were asked for; the first
        has none unless something stands before it that is not told."""
        self.begun = True
        text = self._tokenizer.decode(ids)
        plain = [*[None] * (len(ids) - len(heard)), *heard]
        return text, self.told.push(ids, plain, len(text), False, True) if self.told else None

    def push(self, tokens: Sequence[int], plain: Sequence[Alternatives],
             last: bool) -> tuple[list[Delta | str], dict[str, Any] | None]:
        """More tokens, the one that ends the answer not among them: the parts of a chat's answer, or the text, that are
        now sure, and the log-probabilities to be told with them."""
        text = self.growing.push(tokens, last)
        parts: list[Delta | str] = [text] if text else []
        if self.reader is not None:
            deltas = [delta for delta in self.reader.push(text, last)
                      if not self._hides or "reasoning_content" not in delta]
            for delta in deltas:
                self._thought += delta.get("reasoning_content", "")
                self._words += delta.get("content", "")
            parts = list(deltas)
        if self.told is None:
            return parts, None
        self._sure += len(text)
        if not self._found and self.reader is not None and self.reader.begun_at is not None:
            self._found = True
            self.told.forget(self.reader.begun_at)
        shown, self._sure = (self._sure, 0) if self._found else (0, self._sure)
        told = self.told.push(tokens, plain, shown, self.growing.done, last and self._found)
        return parts, told
