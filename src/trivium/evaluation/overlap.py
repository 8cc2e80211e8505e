"""How much of a reference text another one holds: ROUGE, BLEU and chrF of one answer, from 0 to 1.

Words are those of :func:`words`, for ROUGE and BLEU alike, so that Chinese, Japanese and Thai are counted by
characters and all else by words. ROUGE is computed here: the package ``rouge-score`` throws away all but a-z and 0-9.
BLEU and chrF are sacrebleu's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from trivium.errors import extra
from trivium.evaluation.comparing import folded

Score = Callable[[str, str], float]
_WORDS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff][\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]*"
                    r"|[\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
                    r"\U00020000-\U0003ffff]"
                    r"|[^\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
                    r"\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+(?:[\u0300-\u036f]+[^\W_]*)*")
_MARKS = re.compile(r"[^\w\s]|_")


def words(text: str) -> list[str]:
    """A text's words in lower case, widths folded: a character each in scripts without spaces between words (Han, kana,
    Thai, Lao, Khmer, Burmese), else runs of letters and digits. Marks are left out."""
    return _WORDS.findall(folded(text).casefold())


def rouge_n(text: str, reference: str, n: int) -> float:
    """ROUGE-N (Lin 2004): the F-measure of the n-grams that both have, counted as often as both have them."""
    first, second = (Counter(zip(*(all_words[i:] for i in range(n)), strict=False))
                     for all_words in (words(text), words(reference)))
    return f_measure(sum((first & second).values()), sum(first.values()), sum(second.values()))


def rouge_1(text: str, reference: str) -> float:
    """ROUGE-1: :func:`rouge_n` of single words."""
    return rouge_n(text, reference, 1)


def rouge_2(text: str, reference: str) -> float:
    """ROUGE-2: :func:`rouge_n` of pairs of words."""
    return rouge_n(text, reference, 2)


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L (Lin 2004, section 3.1): the F-measure of the longest common subsequence of words."""
    first, second = words(text), words(reference)
    return f_measure(longest_common(first, second), len(first), len(second))


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence. O(len(first) * len(second))."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            diagonal, lengths[place] = lengths[place], (diagonal + 1 if word == other else max(
                lengths[place], lengths[place - 1]))
    return lengths[-1]


def f_measure(both: int, first: int, second: int) -> float:
    """2PR / (P + R), with precision ``both / first`` and recall ``both / second``; 0 where either text is empty."""
    return 2 * both / (first + second) if both else 0.0


def bleu(text: str, reference: str) -> float:
    """Sentence BLEU (Papineni et al. 2002) by sacrebleu, over :func:`words` and marks: n-grams as long as the text has
    any, up to 4, those of which none is found smoothed by halves (Chen and Cherry 2014, method 3)."""
    made, wanted = (" ".join(_with_marks(one)) for one in (text, reference))
    return min(1.0, float(_bleu().sentence_score(made, [wanted]).score) / 100) if made else 0.0


def chrf(text: str, reference: str) -> float:
    """Sentence chrF (Popović 2015) by sacrebleu: the F-measure of character n-grams up to 6, recall counted twice,
    spaces left out. Widths are folded first."""
    return min(1.0, float(_chrf().sentence_score(folded(text), [folded(reference)]).score) / 100)


def _with_marks(text: str) -> list[str]:
    text = folded(text).casefold()
    found = [(one.start(), one.group()) for pattern in (_WORDS, _MARKS) for one in pattern.finditer(text)]
    return [one for _, one in sorted(found)]


def require() -> None:
    """Raise :class:`~trivium.errors.TriviumError` where sacrebleu is not installed."""
    _chrf()


@lru_cache(maxsize=1)
def _bleu() -> Any:
    with extra("scores"):
        from sacrebleu.metrics.bleu import BLEU
    return BLEU(tokenize="none", effective_order=True)


@lru_cache(maxsize=1)
def _chrf() -> Any:
    with extra("scores"):
        from sacrebleu.metrics.chrf import CHRF
    return CHRF()


SCORES: dict[str, Score] = {"rouge_1": rouge_1, "rouge_2": rouge_2, "rouge_l": rouge_l, "bleu": bleu, "chrf": chrf}
"""By the names that checkers have."""


def best(score: Score, text: str, references: Any) -> float:
    """The score against the reference that is nearest; ``references`` is a text, or a list of them."""
    given = references if isinstance(references, list) else [references]
    return max(score(text, str(one)) for one in given)
