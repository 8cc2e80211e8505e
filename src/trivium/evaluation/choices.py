"""The letter or number of a choice in what somebody wrote: ``(B) because``, ``答案是Ｂ。``, ``正解はウ``,
``정답은 ③번``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from trivium.evaluation.comparing import OUTER, SPACED, folded

LATIN, NUMBERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", ""
ALPHABETS = (LATIN, "АБВГДЕЖЗИК", "ΑΒΓΔΕΖΗΘΙΚ", "アイウエオカキクケコ", "あいうえおかきくけこ", "가나다라마바사아자차",
             "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊ", "甲乙丙丁戊己庚辛壬癸")
"""What choices are called by, besides numbers (the empty alphabet)."""

_OPEN = r"[\s('\"\[{<*_`$「『《【〈:,]*(?:\\boxed\{|\\text\{|\\mathrm\{)*"
_ENDS = r"です|でし|だ(?!け)|で[あすは、,。]|が正|を選|입니다|이다|이에요|예요|번|이고|项|項|选项|選項|是|对|對|正"
"""What follows a letter that is written like any other word of its language."""
_STATED = (
    r"(?:answer(?:'?s)?|choice|option|correct(?: one)?)\s*(?:here|so|therefore)?\s*"
    r"(?:(?:is|was|would be|must be|should be|:|=|->|-|–|—)\s*)+(?:(?:choice|option|letter|number|answer)\s*:?\s*)?"
    r"|\b(?:choose|pick|select|say|go with|chose)\s+(?:(?:choice|option|answer)\s+)?"
    r"|\\boxed\{"
    r"|(?:答案|选项|選項|正解|答え|解答|正答|回答|정답|답안|답)\s*"
    r"(?:就|应该|應該|应当|應當|应|應|也|只能|只|为|為|是|选择|選擇|选|選|番号|は|が|を|은|는|이|:|=|\s)*"
    r"|(?<![不没沒非勿莫别別])(?:选|選)(?:择|擇|项|項|了|的是|出|:)*"
    r"|而(?:是|应选|應選)|(?:应该|應該|应|應|该|該)(?:是|为|為)|正しい(?:の|もの|選択肢)は|適切な(?:の|もの)は")
"""What comes before the letter that somebody settles on."""
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n't(?:\s+be)?|\bnever|\bnor|\bneither|\brather than|\binstead of|(?<!是)不是|不选|不選|不能选|不能選|"
    r"并非|並非|而非)\s*(?:option|choice|选项|選項|答案)?[\s('\"\[]*$", re.IGNORECASE)
_DENIED_AFTER = re.compile(
    r"[\s)'\"\]*]*(?:(?:and|or|nor|和|与|與|及|、|,|と)\s*[('\"\[]*[A-Za-z\dア-コ](?![A-Za-z\d])[)'\"\]]*\s*)*"
    r"(?:选项|選項|项|項|option|choice|번|番)?\s*(?:都|均|皆)?"
    r"(?:(?:is|was|are|were|would be)(?:n't\b|\s+(?:both\s+)?(?:not|wrong|incorrect|false)\b)|"
    r"cannot\b|can't\b|(?:wrong|incorrect)\b|"
    r"不(?!错|錯)|(?:是)?(?:错|錯)|有误|有誤|ではな|でもな|じゃな|は(?:誤|違|間違|不)|[이가은는도]?\s*(?:아니|아닌|틀|오답))",
    re.IGNORECASE)
_SEVERAL = re.compile(r"[)'\"\]*]*\s*(?:\bor\b|\band\b|/|&|或|和|及|与|與|、|または|又は|또는"
                      r"|,(?=\s*\w{1,2}\s*(?:$|[,.、。])))\s*"
                      r"[('\"\[*]*(?:[A-Z]|[a-z](?=$|\W)|\d{1,3}|[ア-コ](?![ァ-ヺ]))(?![A-Za-z\d])")
"""What follows one of several letters."""
_PRONOUNS = re.compile(r"\s+(?!(?:is|because|since)\b)[^\W\d_]|'", re.IGNORECASE)
"""What follows the words "a" and "I", rather than the letters."""


class _Rule(NamedTuple):
    """A way to name a choice."""

    pattern: re.Pattern[str]
    last: bool
    """Whether the last one counts, rather than only one that is alone."""


def letter_of(answer: str) -> str | None:
    """The letter or number that an answer such as ``(B)``, ``Ｂ．``, ``③`` or ``ウ`` is; None where it is longer."""
    text = folded(answer).strip(OUTER + "()[]{}【】").upper()
    if text.isdecimal() and len(text) <= 3:
        return str(int(text))
    return text if len(text) == 1 and any(text in one for one in ALPHABETS) else None


def choice_of(text: str, answer: str) -> str | None:
    """The letter or number that a text settles on, of the same alphabet as ``answer``; None where it names none, or
    several and settles on none.

    In this order: the last that is said to be the answer (``The answer is (B)``, ``答案是B``, ``正解はウ``,
    ``정답은 C``); the one that the text begins with; the only one in brackets or with a word for a choice (``[B]``,
    ``option B``, ``B项``, ``3番``); the only one that stands alone as a word. A letter that is said *not* to be the
    answer counts nowhere, nor do the words "a" and "I"."""
    wanted = letter_of(answer)
    if wanted is None:
        return None
    text = " ".join(folded(text).split())
    alphabet = next((one for one in ALPHABETS if wanted in one), NUMBERS)
    for rule in _rules(alphabet):
        named = [found for found in rule.pattern.finditer(text) if not _denied(text, found) and not _word(text, found)]
        letters = [_name(found)[0] for found in named]
        if letters and (rule.last or len(set(letters)) == 1):
            return letters[-1]
    return None


def same_choice(text: str, answer: str) -> bool:
    """Whether a text settles on the choice that ``answer`` names."""
    return (wanted := letter_of(answer)) is not None and choice_of(text, answer) == wanted


@lru_cache(maxsize=len(ALPHABETS) + 1)
def _rules(alphabet: str) -> list[_Rule]:
    """The ways to name a choice by an alphabet, those that say most first."""
    letter = rf"[{alphabet}{alphabet.lower()}]" if alphabet else r"\d{1,3}"
    spaced = bool(alphabet) and re.match(SPACED, alphabet[0]) is not None
    before, after, begun = "", rf"(?=$|[\W\d_]|{_ENDS})", rf"(?=$|[^\w\s]|{_ENDS})"
    if not alphabet:
        before, after, begun = r"(?<!\d)(?<!\d[.,])", r"(?!\d|[.,]\d)", r"(?=\s*$|\s*[).,:;。、\]番번号號])(?![.,]\d)"
    elif spaced:
        before, after = rf"(?<!{SPACED})", rf"(?!{SPACED}|'[a-z])"
        begun = after + r"(?=$|\W)"
    elif alphabet[0] in "アㄱ":
        before = r"(?<![\u30a1-\u30fa\u30fc\u3131-\u318e])"
        after = begun = r"(?![\u30a1-\u30fa\u30fc\u3131-\u318e])"
    ways = [
        (rf"(?i:{_STATED}){_OPEN}(?P<stated>{letter}){after}", True),
        (rf"^{_OPEN}(?P<begun>{letter}){begun}", True),
        (rf"[(\[【「『《\"'*](?P<marked>{letter})[)\]】」』》\"'*]"
         rf"|(?i:option|choice|选项|選項|選択肢|보기)\s*(?P<called>{letter}){after}"
         rf"|{before}(?P<counted>{letter})\s*(?:选项|選項|项|項|番|번)", False)]
    if not alphabet or spaced or alphabet[0] == "ア":
        ways.append((rf"{before}(?P<alone>{f'[{alphabet}]' if alphabet else letter}){after}", False))
    return [_Rule(re.compile(pattern), last) for pattern, last in ways]


def _name(found: re.Match[str]) -> tuple[str, int, int]:
    """The letter of a match, and where it stands."""
    group = found.lastgroup
    assert group is not None
    text = found[group].upper()
    return (str(int(text)) if text.isdecimal() else text), found.start(group), found.end(group)


def _denied(text: str, found: re.Match[str]) -> bool:
    """Whether a letter is said not to be the answer, or to be one of several."""
    _, start, end = _name(found)
    if _DENIED_BEFORE.search(text[max(0, start - 40):start]) or _DENIED_AFTER.match(text, end):
        return True
    return found.lastgroup in ("stated", "begun") and _SEVERAL.match(text, end) is not None


def _word(text: str, found: re.Match[str]) -> bool:
    """Whether a letter is the word "a" or "I"."""
    _, start, end = _name(found)
    letter = text[start:end]
    if letter not in ("a", "A", "i", "I") or not _PRONOUNS.match(text, end):
        return False
    opens = not text[:start].strip() or re.search(r"[.!?:]['\")\]]*\s*$", text[:start]) is not None
    return letter != "A" or opens or text[end:end + 1] == "'"
