"""Control tokens, and a tokenizer in which no text can spell one.

Whether a tokenizer takes a text that spells ``<|im_end|>`` for the token depends on flags that every maker sets
otherwise (``special``, ``normalized``, ``lstrip``, ``rstrip``, ``single_word``), and on its model: a Unigram model
finds any entry of its vocabulary in a text. So control tokens are given other names, which no text has: secret ones, of
private characters that no normaliser changes. A chat is written with these names where the *template* wrote a token,
all flags hold for them as before, and whatever else spells a token is text.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from trivium.errors import TriviumError

GROWTH = 4096
"""So many times as long no tokenizer makes a text: those in use, up to 32 times."""

FIRST = 0x100000
"""The first private character of the last plane."""


def secret() -> str:
    """A text that nobody can have written: four private characters, drawn anew in every process. No result depends on
    which."""
    return "".join(chr(FIRST + secrets.randbelow(0xFFFD)) for _ in range(4))


SHIELD = secret()
"""Stands within a text wherever it spells a control token, while a template works on it."""
OPEN = secret()
"""A control token's other name is this and a character of its own, counted from ``FIRST``."""
BEFORE, AFTER = secret(), secret()
MARK = re.compile(f"{BEFORE}([0-9]+){AFTER}")
"""Stands for a text in a chat that is rendered to see where the template puts it; see :func:`mark`."""

MARKUP = re.compile(r"[<\[{(＜［｛（《〈【].+[>\]})＞］｝）》〉】]", re.DOTALL)
HTML = re.compile(r"</?(a|b|blockquote|body|br|caption|code|div|em|footer|form|h[1-6]|head|header|hr|html|i|img|li|"
                  r"main|nav|ol|p|pre|s|section|span|strong|sub|sup|table|tbody|td|tfoot|th|thead|tr|u|ul)>")


def mark(number: int) -> str:
    """A text that no chat holds, with a number in it."""
    return f"{BEFORE}{number}{AFTER}"


def is_control(token: Mapping[str, Any], template: str) -> bool:
    """Whether an entry of ``added_tokens`` is there to steer and not to be said: a special one, one that is written
    like a mark (``<|user|>``, ``[INST]``), or a sign that the chat template writes. Runs of spaces, tags of HTML and
    words that were added to a vocabulary are text like any other."""
    content = str(token["content"])
    core = content.strip().strip("▁")
    if not core:
        return False
    if token.get("special") or MARKUP.fullmatch(core):
        return bool(token.get("special")) or not HTML.fullmatch(core)
    return not core.isalnum() and len(core) > 1 and core in template


def described(data: bytes, name: str) -> dict[str, Any]:
    """What a ``tokenizer.json`` says. Raises :class:`TriviumError` where it is none."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise TriviumError(f"{name}: tokenizer.json is not a tokenizer ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise TriviumError(f"{name}: tokenizer.json is not a tokenizer (it has no model)")
    return found


def without_limits(data: bytes, name: str) -> bytes:
    """A ``tokenizer.json`` without the truncation and padding that the last program to use it left there; the same
    bytes where there are none."""
    found = described(data, name)
    if not found.get("truncation") and not found.get("padding"):
        return data
    return (json.dumps(found | {"truncation": None, "padding": None}, ensure_ascii=False, indent=2) + "\n").encode()


def tokenizer_of(found: Mapping[str, Any], name: str) -> Tokenizer:
    """A described tokenizer that adds nothing to a text by itself. Raises :class:`TriviumError` where it is none."""
    return whole_tokenizer({**found, "post_processor": None}, name)


def whole_tokenizer(found: Mapping[str, Any], name: str) -> Tokenizer:
    """A described tokenizer with all that it does. Raises :class:`TriviumError` where it is none, and where it makes a
    text more than :data:`GROWTH` times as long."""
    if growth(found.get("normalizer")) * growth(found.get("pre_tokenizer")) > GROWTH:
        raise TriviumError(f"{name}: tokenizer.json makes a text more than {GROWTH:,} times as long; no tokenizer that "
                           "is meant to be used does")
    try:
        return Tokenizer.from_str(json.dumps(found))
    except Exception as error:  # the library raises Exception itself
        raise TriviumError(f"{name}: tokenizer.json is not a tokenizer ({error})") from error


def growth(step: Any) -> float:
    """How many times as long a step of a tokenizer, or all steps within it, can make a text."""
    if not isinstance(step, Mapping):
        return 1.0
    found = 1.0
    for within in (*(step.get("normalizers") or ()), *(step.get("pretokenizers") or ())):
        found *= growth(within)
    if step.get("type") == "Replace" and isinstance(step.get("content"), str):
        by_text = isinstance(step.get("pattern"), Mapping) and step["pattern"].get("String")
        found *= max(1.0, len(step["content"]) / len(by_text) if by_text else len(step["content"]) + 1.0)
    return min(found, 2.0 * GROWTH)


@contextlib.contextmanager
def giving_up() -> Iterator[None]:
    """Within it, what the library's regular expressions give up on is a :class:`TriviumError`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the library's own, which is no Exception and is not exported
            raise
        raise TriviumError("the tokenizer gives up on a text: a pattern in tokenizer.json takes too long, or fails on "
                           "it") from error


class SealedTokenizer:
    """A tokenizer whose control tokens stand where they are meant, and nowhere else.

    ``control`` are the spellings of the tokens. Raises :class:`TriviumError` for one that is in no vocabulary."""

    def __init__(self, found: Mapping[str, Any], control: Iterable[str], name: str) -> None:
        self.names = {token: OPEN + chr(FIRST + place) for place, token in enumerate(sorted(set(control)))}
        self._tokenizer = tokenizer_of(sealed(found, self.names), name)
        self.ids: dict[str, int] = {}
        for token, other in self.names.items():
            id = self._tokenizer.token_to_id(other)
            if id is None:
                raise TriviumError(f"{name}: tokenizer.json has no token {token}")
            self.ids[token] = id
        self._values = frozenset(self.ids.values()) - {self.ids.get(str(found["model"].get("unk_token")))}
        flagged = any(token.get("normalized") or token.get("single_word") for token in found.get("added_tokens") or []
                      if token["content"] in self.names)
        self._found: Mapping[str, Any] | None = found if flagged else None
        self._name = name
        self.spelt = re.compile(any_of(self.names))
        self._shields: dict[frozenset[str], Shields] = {}

    @cached_property
    def _unconditional(self) -> Tokenizer:
        """The tokenizer without the flags by which a token that the template writes might be none: beside a word
        (``single_word``), or after a normaliser that puts something before it (``normalized``)."""
        assert self._found is not None
        added = [token | ({"normalized": False, "single_word": False} if token["content"] in self.names else {})
                 for token in self._found["added_tokens"]]
        return tokenizer_of(sealed({**self._found, "added_tokens": added}, self.names), self._name)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, none of them a control token, on all cores."""
        try:
            with giving_up():
                encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise TriviumError("a text cannot be encoded: it holds half of a surrogate pair, which is no character, or "
                               "is no text") from error
        return [encoding.ids for encoding in encodings]

    def encode(self, pieces: Sequence[tuple[str, bool]]) -> tuple[list[int], list[bool]]:
        """The tokens of a rendered chat in ``(text, learned)`` pieces, and which carry loss: those with any learned
        character, a control token by its own, whatever white space its flags make it take in. Control tokens that no
        :data:`SHIELD` breaks are the template's."""
        texts = [self.spelt.sub(lambda found: self.names[found.group()], text).replace(SHIELD, "")
                 for text, _ in pieces]
        whole = "".join(texts)
        if not whole:
            return [], []
        counts = [0]  # counts[i]: learned characters before character i
        for text, (_, learned) in zip(texts, pieces, strict=True):
            counts += range(counts[-1] + 1, counts[-1] + 1 + len(text)) if learned else [counts[-1]] * len(text)
        try:
            with giving_up():
                encoding = self._tokenizer.encode(whole, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise TriviumError("a message holds half of a surrogate pair, which is no character") from error
        if self._found and sum(id in self._values for id in encoding.ids) < whole.count(OPEN):
            with giving_up():
                encoding = self._unconditional.encode(whole, add_special_tokens=False)
        mask = []
        for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if id in self._values and (place := whole.find(OPEN, start, end)) >= 0:
                start, end = place, place + 1
            mask.append(counts[end] > counts[start])
        return encoding.ids, mask

    def shielded(self, text: str, but: frozenset[str] = frozenset()) -> str:
        """A text in which no control token can be found, also where it begins or ends with a part of one, until the
        shields are taken out again. Tokens in ``but`` stay as they are."""
        if but not in self._shields:
            self._shields[but] = Shields(token for token in self.names if token not in but)
        return self._shields[but](text)


class Shields:
    """What keeps texts from spelling some tokens, whole or together with what a template writes beside them."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = tuple(tokens)
        self._begun = re.compile(f"(?={any_of(self.tokens)})")
        self._heads = {token[:i] for token in self.tokens for i in range(1, len(token))}
        self._tails = {token[i:] for token in self.tokens for i in range(1, len(token))}
        self._longest = max(map(len, self.tokens), default=0)

    def __call__(self, text: str) -> str:
        """The text with a shield in each token, and between its ends and what a template may add to them."""
        places = {found.start() + 1 for found in self._begun.finditer(text)}
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        core = text[start:end]
        if any(core[:i] in self._tails for i in range(1, min(self._longest, len(core)) + 1)):
            places.add(start)
        if any(core[-i:] in self._heads for i in range(1, min(self._longest, len(core)) + 1)):
            places.add(end)
        if 0 < len(core) < self._longest and any(core in token[1:-1] for token in self.tokens):
            places |= {start, end}
        cuts = [0, *sorted(places), len(text)]
        return SHIELD.join(text[a:b] for a, b in pairwise(cuts)) if places else text


def any_of(tokens: Iterable[str]) -> str:
    """A pattern for the longest of some tokens, quick where none begins."""
    ordered = sorted(tokens, key=len, reverse=True)
    first = "".join(sorted({re.escape(token[0]) for token in ordered}))
    return f"(?=[{first}])(?:{'|'.join(map(re.escape, ordered))})" if ordered else r"(?!)"


def sealed(found: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A described tokenizer in which the tokens in ``names`` are called otherwise. Merges that make one of them of its
    parts are left out, so that it is never made of text."""
    model = dict(found["model"])
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): id for token, id in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges") and isinstance(vocabulary, dict) and any(token in vocabulary for token in names):
        parts = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in parts
                           if not any(part in names for part in (*pair, "".join(pair)))]
    added = [token | {"content": names.get(token["content"], token["content"])}
             for token in found.get("added_tokens") or []]
    return {**found, "model": model, "added_tokens": added, "truncation": None, "padding": None}
