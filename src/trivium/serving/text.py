"""From tokens to what a client reads: text that grows while tokens come, and log-probabilities in OpenAI's form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from trivium.tokenizer.chat import ChatTokenizer


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


def whole_text(tokenizer: ChatTokenizer, tokens: Sequence[int], stops: Sequence[str]) -> str:
    """The text of a finished sample, up to the first stop text."""
    return GrowingText(tokenizer, stops).push(tokens, last=True)


@cache
def _bytes_of_letters() -> dict[str, int]:
    """Byte-level BPE writes each byte as a printable letter: those that are printable as they are, the others from
    U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def token_entry(tokenizer: ChatTokenizer, token: int, log_prob: float) -> dict[str, Any]:
    """A token with its bytes and log-probability, as chat completions report it."""
    spelling = tokenizer.spelling(token)
    letters = _bytes_of_letters()
    is_bytes = not spelling.startswith("<|") and all(letter in letters for letter in spelling)
    raw = bytes(letters[letter] for letter in spelling) if is_bytes else spelling.encode()
    return {"token": raw.decode("utf-8", "replace"), "logprob": log_prob, "bytes": list(raw)}


Alternatives = Sequence[tuple[float, list[tuple[int, float]]]]
"""Of each token its log-probability, and likely tokens beside it with theirs."""


def chat_log_probs(tokenizer: ChatTokenizer, tokens: Sequence[int], plain: Alternatives) -> dict[str, Any]:
    """Log-probabilities as chat completions report them."""
    return {"content": _entries(tokenizer, tokens, plain), "refusal": None}


def text_log_probs(tokenizer: ChatTokenizer, tokens: Sequence[int], plain: Alternatives) -> dict[str, Any]:
    """Log-probabilities as text completions report them, with the place of each token in the text."""
    entries = _entries(tokenizer, tokens, plain)
    lengths = [len(entry["token"]) for entry in entries]
    return {
        "tokens": [entry["token"] for entry in entries], "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{other["token"]: other["logprob"] for other in entry["top_logprobs"]} for entry in entries],
        "text_offset": list(accumulate(lengths[:-1], initial=0)) if entries else []
    }


def _entries(tokenizer: ChatTokenizer, tokens: Sequence[int], plain: Alternatives) -> list[dict[str, Any]]:
    return [
        token_entry(tokenizer, token, log_prob)
        | {"top_logprobs": [token_entry(tokenizer, *other) for other in others]}
        for token, (log_prob, others) in zip(tokens, plain, strict=False)
    ]
