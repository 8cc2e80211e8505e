"""How many words, sentences and words in capitals a response has, as IFEval counts them.

Words are runs of letters, digits and underscores. Sentences are told by the rules of Punkt (Kiss and Strunk 2006), with
abbreviations and openings of our own in the place of those that it learned from newspapers. Words in capitals are
tokens of the Penn Treebank's kind. Where most letters are Chinese or Japanese, each is a word, and 。！？ end
sentences; IFEval's own code sees one word and one sentence there.
"""

from __future__ import annotations

import re

_HAN = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_WORDS = re.compile(r"\w+")
_HAN_WORDS = re.compile(f"{_HAN.pattern}|(?:(?!{_HAN.pattern})\\w)+")
_HAN_ENDS = re.compile("[。！？!?]+")

_APART = ")\";}]*:@'({[!?\u2018\u2019\u201c\u201d\xab\xbb"
"""Marks that are tokens of their own wherever they stand."""
_LAST_TOKEN = re.compile(rf"(?:--+|[^\s{re.escape(_APART)}]*)\Z")
_CLOSING = re.compile(r"[\"')\]}\u2019\u201d\xbb]+(?:\s+|(?=--)|\Z)")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*\Z")

_ABBREVIATIONS = frozenset((
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "gen", "col", "sgt", "capt", "lt", "maj", "cmdr", "adm", "gov",
    "sen", "rep", "rev", "hon", "messrs", "vs", "v", "ph.d", "inc", "ltd", "corp", "co", "cos", "bros", "jan", "feb",
    "mar", "apr", "aug", "sept", "oct", "nov", "dec", "mon", "tues", "wed", "thurs", "fri", "ave", "blvd", "rd"))
"""Whose full stop does not end a sentence by itself."""
_LETTERS = re.compile(r"(?!(?:e\.g|i\.e|(?:p\.)+s)\Z)[^\W\d_](?:\.[^\W\d_])+\Z")
"""U.S., a.m., J.K.; after e.g., i.e. and P.S. Punkt ends a sentence."""
_OPENINGS = frozenset((
    "the", "a", "an", "this", "that", "these", "those", "it", "its", "he", "she", "they", "we", "you", "i", "his",
    "her", "their", "our", "your", "my", "there", "here", "what", "when", "where", "why", "how", "who", "which", "if",
    "while", "although", "though", "because", "since", "after", "before", "as", "at", "by", "for", "from", "in",
    "into", "of", "on", "to", "with", "without", "and", "but", "or", "so", "yet", "nor", "however", "then", "thus",
    "also", "once", "each", "every", "some", "many", "most", "all", "both", "such", "no", "not", "do", "does", "did",
    "is", "are", "was", "were", "be", "can", "could", "will", "would", "should", "may", "might", "must", "let",
    "please", "make", "take", "give", "use", "get", "go", "try", "find", "keep", "write", "read", "now", "today",
    "meanwhile", "instead", "still", "even", "just", "only", "another", "other", "more"))
"""Words with which a sentence may begin after an abbreviation or dots, when they have a capital."""


def mostly_han(text: str) -> bool:
    """Whether most of a text's letters are Chinese characters or kana."""
    return 2 * len(_HAN.findall(text)) > sum(map(str.isalpha, text))


def count_words(text: str) -> int:
    """Words: runs of letters, digits and underscores; where most letters are Chinese or Japanese, each of those."""
    return len((_HAN_WORDS if mostly_han(text) else _WORDS).findall(text))


def count_sentences(text: str) -> int:
    """Sentences. A last one needs no mark at its end."""
    if mostly_han(text):
        return sum(bool(part.strip()) for part in _HAN_ENDS.split(text))
    chunks = list(re.finditer(r"\S+", text))
    count = min(len(chunks), 1)
    for number, chunk in enumerate(chunks):
        following = chunks[number + 1][0] if number + 1 < len(chunks) else ""
        end = _last_end(chunk[0], bool(following))
        if end is not None and _is_break(chunk[0][:end], chunk[0][end + 1:], chunk[0][end], following):
            inside = end + 1 < len(chunk[0])
            closing = _CLOSING.match(text, chunk.start() + end + 1) if inside else None
            count += bool(text[closing.end():].strip()) if closing else 1
    return count


def _last_end(chunk: str, followed: bool) -> int | None:
    """Where the last mark stands that may end a sentence: before a mark that is no part of words, or before space."""
    for place in range(len(chunk) - 1, -1, -1):
        after = chunk[place + 1:place + 2]
        if chunk[place] in ".?!" and (after in _APART if after else followed):
            return place
    return None


def _is_break(before: str, after: str, mark: str, following: str) -> bool:
    """Whether a mark ends a sentence; ``before`` and ``after`` are what stands around it without space, ``following``
    is the next text behind space."""
    if mark != "." or set(before) & set("?!"):
        return True
    token = _LAST_TOKEN.search(before)
    word = (token[0] if token else "").lower()
    next_word = re.match(r"[^\W\d_]*(?:'\w+)?", "" if after else following)[0]  # type: ignore[index]
    opens = next_word[:1].isupper() and next_word.lower() in _OPENINGS
    if word.endswith(".") or (not word and before.endswith(".")) or (
            word.rpartition("-")[2] in _ABBREVIATIONS) or _LETTERS.match(word):
        return opens
    if len(word) == 1 and word.isalpha():
        return bool(after) or (opens if word not in "ai" else not next_word[:1].islower())
    return not (_NUMBER.match(word) and next_word[:1].islower())


_SPLITS = re.compile(r"[\s«»“”‘’„`\";@#$%&?!*\[\](){}<>\u2012-\u2015]+|''|--|\.{2,}|[:,](?=\D|\Z)")
_CLITICS = re.compile(r"(?<=[^'])('[smdSMD]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)\Z")
_CONTRACTIONS = re.compile(r"(?:(can)(not)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(wan)(na)|(d)('ye)|(more)('n))\Z",
                           re.IGNORECASE)


def count_capital_words(text: str) -> int:
    """Tokens of the Penn Treebank's kind whose letters are all capitals: ``DON'T`` is two, ``MP3-CD`` one."""
    return sum(piece.isupper() for part in _SPLITS.split(text) if part for piece in _pieces(part))


def _pieces(part: str) -> list[str]:
    part = part.rstrip(".")
    if match := _CONTRACTIONS.match(part):
        return [piece for piece in match.groups() if piece]
    clitic = _CLITICS.search(part)
    return [part[:clitic.start()], clitic[0]] if clitic else [part]
