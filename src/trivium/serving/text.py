"""From tokens to what a client reads: text that grows while tokens come, and log-probabilities in OpenAI's form."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.token_bytes import token_bytes


class GrowingText:
    """The text of tokens as they come. What is given out is never taken back: the bytes of an unfinished character and
    the beginning of a possible stop text wait."""

    def __init__(self, tokenizer: ChatTokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._tokens: list[int] = []
        self._settled = self._before = 0  # tokens[settled:before] are decoded again only to see what follows them
        self._waiting = ""
        self.done = False

    def push(self, tokens: Sequence[int], last: bool = False) -> str:
        """More tokens, the end token not among them; returns the text that is now sure. ``last`` gives out all there
        is."""
        if self.done:
            return ""
        self._tokens += tokens
        old = self._tokenizer.decode(self._tokens[self._settled:self._before])
        new = self._tokenizer.decode(self._tokens[self._settled:])
        if last or (not new.endswith("\ufffd") and len(new) > len(old)) or len(self._tokens) - self._before > 8:
            self._waiting += new[len(old):]
            self._settled, self._before = self._before, len(self._tokens)
        stops = [place for place in (self._waiting.find(stop) for stop in self._stops) if place >= 0]
        if stops:
            self.done = True
            return self._waiting[:min(stops)]
        held = 0 if last else max((size for stop in self._stops for size in range(1, len(stop))
                                   if self._waiting.endswith(stop[:size])), default=0)
        sure = self._waiting[:len(self._waiting) - held]
        self._waiting = self._waiting[len(sure):]
        return sure


def token_entry(tokenizer: ChatTokenizer, token: int, log_prob: float) -> dict[str, Any]:
    """A token with its bytes and log-probability, as chat completions report it."""
    known = token_bytes(tokenizer)
    raw = known[token] if token < len(known) else b""
    return {"token": raw.decode("utf-8", "replace"), "logprob": log_prob, "bytes": list(raw)}


Alternatives = tuple[float, list[tuple[int, float]]]
"""A token's log-probability, and likely tokens beside it with theirs."""


class ToldTokens:
    """The log-probabilities of tokens as they come, in OpenAI's form. A token is told with the text that it begins, so
    those of a stop text never are, and with the place in the text of the character that it begins or goes on with.
    ``start`` is the length of the text before."""

    def __init__(self, tokenizer: ChatTokenizer, chat: bool, start: int = 0) -> None:
        self._tokenizer, self._chat = tokenizer, chat
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun, self._at, self._shown = False, start, start
        self._least = 0
        self._waiting: list[tuple[int, dict[str, Any]]] = []

    def push(self, tokens: Sequence[int], plain: Sequence[Alternatives | None], shown: int, stopped: bool,
             last: bool) -> dict[str, Any] | None:
        """More tokens, of which ``shown`` characters were given out since the last call. ``stopped`` says that a stop
        text was found behind these, ``last`` that nothing more comes. Returns what is to be told with them, if anything
        is."""
        for token, one in zip(tokens, plain, strict=False):
            self._waiting.append((self._place(token), self._entry(token, one)))
        self._shown += shown
        count = len(self._waiting) if last and not stopped else sum(at < self._shown for at, _ in self._waiting)
        told, self._waiting = self._waiting[:count], [] if stopped else self._waiting[count:]
        told = [(place, entry) for place, entry in told if place >= self._least]
        return self._form(told) if told else None

    def forget(self, before: int) -> None:
        """Leave out what waits before a place in the text."""
        self._least = before

    def _place(self, token: int) -> int:
        """Where in the text a token begins; its bytes are then part of what came before."""
        known = token_bytes(self._tokenizer)
        raw = known[token] if token < len(known) else b""
        begun = bool(self._decoder.getstate()[0])
        first = self._decoder.decode(raw[:1])
        broken = begun and len(first) + bool(self._decoder.getstate()[0]) > 1  # the bytes before were no character
        place = self._at + broken
        self._at += len(first) + len(self._decoder.decode(raw[1:]))
        if not self._begun and raw:  # some vocabularies write a space before the first word and do not read it
            self._begun = True
            self._at -= raw.startswith(b" ") and not self._tokenizer.decode([token]).startswith(" ")
        return place

    def _entry(self, token: int, plain: Alternatives | None) -> dict[str, Any]:
        if plain is None:
            return token_entry(self._tokenizer, token, 0.0) | {"logprob": None, "top_logprobs": None}
        log_prob, others = plain
        return token_entry(self._tokenizer, token, log_prob) | {
            "top_logprobs": [token_entry(self._tokenizer, *other) for other in others]}

    def _form(self, told: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        entries = [entry for _, entry in told]
        return {"content": entries, "refusal": None} if self._chat else {
            "tokens": [entry["token"] for entry in entries], "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [_by_spelling(entry) for entry in entries], "text_offset": [place for place, _ in told]}


def _by_spelling(entry: dict[str, Any]) -> dict[str, float] | None:
    """A token's alternatives and itself by their spelling; of several that are spelt alike, the likeliest."""
    if entry["top_logprobs"] is None:
        return None
    found: dict[str, float] = {}
    for one in (*entry["top_logprobs"], entry):
        found.setdefault(one["token"], one["logprob"])
    return found
