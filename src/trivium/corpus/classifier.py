"""Filters that are learned: logistic regression on hashed n-grams, trained from good and bad documents.

GPT-3 (Brown et al. 2020, appendix A), The Pile and PaLM keep web pages that such a classifier cannot tell from good
text; trained on labelled rows, the same one finds harmful documents. A text's features are its words, its pairs of
words and, on request, its runs of 3 to 5 characters (which see through misspellings), hashed into 2^bits buckets
(Weinberger et al. 2009), each weighing 1 + ln(count), all together of length 1.

A filter is a folder: ``filter.safetensors`` holds ``weights`` (float32 [2^bits]) and ``bias`` (float32 [1]),
``filter.json`` what the features are and how well it did on rows kept from training. Scores need no more than NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trivium.artifacts import check_made
from trivium.corpus.words import mix, ngram_hashes, plain_words, word_hashes
from trivium.errors import TriviumError, extra
from trivium.files import read_json, write_bytes, write_json

FORMAT = 1
HEADER, WEIGHTS = "filter.json", "filter.safetensors"


@dataclass(frozen=True)
class FeatureSettings:
    """What a learned filter sees of a text."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    words: int = 2
    """Longest run of words; in scripts without spaces a character counts as a word."""
    characters: bool = False
    """Runs of 3 to 5 characters too: better on short, misspelt texts, and several times as slow."""
    bits: int = 18
    """Features are hashed into two to the power of this many buckets."""
    first_words: int = 3000
    """How many of a document's words are looked at."""

    def __post_init__(self) -> None:
        if not (1 <= self.words <= 5 and 8 <= self.bits <= 24 and self.first_words >= 1):
            raise TriviumError(
                f"features: words is {self.words}, bits {self.bits} and "
                f"first_words {self.first_words}; they lie in 1..5, 8..24 and from 1 on")


def features(text: str, settings: FeatureSettings) -> tuple[np.ndarray, np.ndarray]:
    """``(buckets, values)`` of a text: int64 and float32, sorted by bucket; empty for a text without words."""
    hashes = word_hashes(plain_words(text[:settings.first_words * 12])[:settings.first_words])
    parts = [ngram_hashes(hashes, n) for n in range(1, settings.words + 1)]
    if settings.characters:
        codes = mix(
            np.frombuffer(f" {' '.join(text.casefold().split())} ".encode("utf-32-le", "replace"),
                          "<u4").astype(np.uint64))
        parts += [ngram_hashes(codes[:settings.first_words * 6], n) for n in (3, 4, 5)]
    buckets, counts = np.unique((np.concatenate(parts) >> np.uint64(64 - settings.bits)).astype(np.int64),
                                return_counts=True)
    values = 1 + np.log(counts)
    return buckets, (values / max(1e-9, float(np.sqrt(np.sum(values**2))))).astype(np.float32)


class Filter:
    """A learned filter: ``score`` is the probability that a text belongs to the class it was trained to find."""

    def __init__(self, weights: np.ndarray, bias: float, header: dict[str, Any]) -> None:
        self.weights, self.bias, self.header = weights, bias, header
        self.settings = FeatureSettings(**header["features"])

    def score(self, text: str) -> float:
        """A number between 0 and 1."""
        buckets, values = features(text, self.settings)
        # summed in double precision by NumPy's own loop: no BLAS, whose order of summing goes with the machine
        logit = self.bias + float(np.sum(self.weights[buckets].astype(np.float64) * values))
        return 1 / (1 + float(np.exp(-np.clip(logit, -60, 60))))

    def save(self, folder: Path) -> None:
        """Write the filter's folder."""
        from safetensors.numpy import save

        write_bytes(folder / WEIGHTS, save({"weights": self.weights, "bias": np.array([self.bias], np.float32)}))
        write_json(folder / HEADER, self.header)

    @classmethod
    def load(cls, folder: Path) -> Filter:
        """Read a filter's folder. Raises :class:`TriviumError` for what is none."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        check_made(folder)
        header = read_json(folder / HEADER)
        if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("finds") not in ("good",
                                                                                                         "harmful"):
            raise TriviumError(
                f"{folder / HEADER}: not the header of a learned filter; train one with: trivium corpus train-filter")
        try:
            tensors = load_file(folder / WEIGHTS)
            loaded = cls(tensors["weights"], float(tensors["bias"][0]), header)
        except (SafetensorError, OSError, KeyError, TypeError, IndexError) as error:
            raise TriviumError(f"{folder / WEIGHTS}: damaged ({error}); train the filter again") from error
        if loaded.weights.shape != (2**loaded.settings.bits,):
            raise TriviumError(
                f"{folder / WEIGHTS}: {loaded.weights.shape} weights, where {HEADER} says {2**loaded.settings.bits}")
        return loaded


def train(texts: Sequence[str], labels: Sequence[bool], finds: str, settings: FeatureSettings, regularization: float,
          heldout: Sequence[bool]) -> Filter:
    """Fit a filter that tells the texts labelled true from the others, both classes weighing the same. Those marked in
    ``heldout`` are kept from training, and measured. ``regularization`` is scikit-learn's C. Raises
    :class:`TriviumError` when a class has no text to learn from."""
    with extra("corpus"):
        from scipy import sparse
        from sklearn.linear_model import LogisticRegression

    wanted, aside = np.asarray(labels, bool), np.asarray(heldout, bool)
    for name, found in (("sought", wanted & ~aside), ("other", ~wanted & ~aside)):
        if found.sum() < 2:
            raise TriviumError(
                f"{int(found.sum())} texts of the {name} class are left to learn from; bring more of them")
    rows = [features(text, settings) for text in texts]
    ends = np.cumsum([0, *(len(buckets) for buckets, _ in rows)])
    matrix = sparse.csr_matrix(
        (np.concatenate([values for _, values in rows]), np.concatenate([buckets for buckets, _ in rows]), ends),
        (len(rows), 2**settings.bits))
    model = LogisticRegression(C=regularization, solver="liblinear", class_weight="balanced", random_state=0,
                               max_iter=1000)
    model.fit(matrix[~aside], wanted[~aside])
    header = {"format": FORMAT, "finds": finds, "features": asdict(settings), "regularization": regularization,
              "texts": {"sought": int(wanted.sum()), "other": int((~wanted).sum())}}
    made = Filter(model.coef_[0].astype(np.float32), float(np.float32(model.intercept_[0])), header)
    header["heldout"] = measured([made.score(text) for text, kept in zip(texts, aside) if kept], wanted[aside].tolist())
    return made


def measured(scores: Sequence[float], wanted: Sequence[bool], threshold: float = 0.5) -> dict[str, Any]:
    """Precision, recall and F1 of "score at least ``threshold``", each rate with its 95 % interval, and the area under
    the ROC curve:
    the chance that a sought text scores higher than another one."""
    with extra("corpus"):
        from scipy.stats import rankdata

    from trivium.corpus.truth import rate

    found, true = np.asarray(scores, float) >= threshold, np.asarray(wanted, bool)
    both, said, there = int((found & true).sum()), int(found.sum()), int(true.sum())
    ranks = rankdata(scores)
    others = len(true) - there
    area = (float(ranks[true].sum()) - there * (there + 1) / 2) / (there * others) if there and others else None
    return {
        "precision": rate(both, said), "recall": rate(both, there),
        "f1": 2 * both / (said + there) if said + there else None, "roc_area": area
    }
