"""Whether what somebody wrote is the expected answer, in any script.

Widths are folded first (:func:`folded`): ``Ｂ`` is ``B``, ``①`` is ``1``, ``ｶﾞ`` is ``ガ``. Traditional and simplified
characters stay different, and so do superscripts: ``10²`` is not ``102``.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

OUTER = " \t\n.!,;:?…'\"`*_~。！，、；：？．·「」『』“”‘’《》〈〉«»„‚"
"""Marks around an answer that are no part of it: ends of sentences, quotes, Markdown's emphasis."""
QUOTES = str.maketrans("’‘ʼ“”", "'''\"\"")
KEPT_FORMS = ("<super>", "<sub>", "<fraction>")
"""What NFKC would fold into other numbers."""


def folded(text: str) -> str:
    """Unicode's NFKC, but for superscripts, subscripts and fractions; curly quotes become straight ones."""
    parts = (one if unicodedata.decomposition(one).startswith(KEPT_FORMS) else unicodedata.normalize("NFKC", one)
             for one in text)
    return unicodedata.normalize("NFC", "".join(parts)).translate(QUOTES)


def plain(text: str, case: bool = False) -> str:
    """A text with its widths folded, one space between words, and no marks around it; in lower case unless ``case``
    matters. A text of nothing but marks keeps them."""
    text = " ".join(folded(text).split())
    text = text.strip(OUTER) or text
    return text if case else text.casefold()


def exact(text: str, answer: str, case: bool = False) -> bool:
    """Whether both say the same, apart from width, space, case, and the marks around them."""
    return plain(text, case) == plain(answer, case)


def contains(text: str, answer: str) -> bool:
    """Whether an answer stands in a text as whole words. Han, kana, Hangul and the scripts of Southeast Asia are
    written without spaces between words, or with particles behind them, so that there is no border to look for beside
    their letters; other letters and digits must not go on, and a number not with its decimals either."""
    text, answer = " ".join(folded(text).casefold().split()), plain(answer)
    return bool(answer) and _bordered(answer).search(text) is not None


UNSPACED = (r"\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u318f"
            r"\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff")
"""Thai, Lao, Burmese, Khmer; Han, kana, Bopomofo, Hangul: for a regular expression's ``[]``."""
SPACED = rf"[^\W_{UNSPACED}]"
"""A letter or digit of a script that puts borders between words, as a regular expression."""


@lru_cache(maxsize=4096)
def _bordered(answer: str) -> re.Pattern[str]:
    """An answer with nothing beside it that would make it a part of something longer."""
    before, after = "", r"(?![\u0300-\u036f])"
    if re.match(SPACED, answer[0]):
        before = rf"(?<!{SPACED})" + (r"(?<!\d\.)" if answer[0].isdigit() else "")
    if re.match(SPACED, answer[-1]):
        after += rf"(?!{SPACED})" + (r"(?!\.\d|,\d{3}(?!\d))" if answer[-1].isdigit() else "")
    return re.compile(before + re.escape(answer) + after)
