"""How good the filters are, where the truth is known: precision and recall of each on documents with planted faults."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from trivium.corpus.private import PLACEHOLDERS
from trivium.corpus.words import plain_words
from trivium.files import Row
from trivium.intervals import wilson

Rate = dict[str, float | int | None]

STEPS = {
    "spam": {"repetition", "quality", "c4", "fineweb"},
    "harmful": {"address", "harmful"},
    "contaminated": {"contamination"},
}
DUPLICATE_STEPS = {"exact_duplicate": "exact_duplicates", "near_duplicate": "near_duplicates"}
_PLACEHOLDER = re.compile("|".join(map(re.escape, sorted(set(PLACEHOLDERS.values())))))


def rate(successes: int, n: int) -> Rate:
    """A rate with its Wilson interval at 95 %; its value is ``None`` when there was nothing to count."""
    low, high = wilson(successes, n)
    return {"value": successes / n if n else None, "low": low, "high": high, "n": n}


def measure(truth_rows: Iterable[Row], kept_rows: Iterable[Row],
            reject_rows: Iterable[Row]) -> dict[str, dict[str, Rate]]:
    """``{"precision": {kind: rate}, "recall": {kind: rate}}`` of a corpus against the truth about its documents.

    A truth row is ``{"id", "kinds": [...], "keep": bool}`` with, where they apply, ``"clean"`` (the main text of a
    page), ``"duplicate_of"`` (an id) and ``"private": [{"kind", "text"}]``. Kept and rejected documents that have no
    truth row are left out. The rates are, by kind:

    - ``spam``, ``harmful``, ``contaminated``. Precision: of the documents rejected by the steps for this kind (for
      spam, the quality rules), the share that has it. Recall: of the documents that have it and came as far as those
      steps, the share that they rejected; a document that an earlier step rejected for another fault tells nothing
      about this one.
    - ``exact_duplicate``, ``near_duplicate``. A document and its copies are a cluster, of which one survivor is right,
      whichever it is. Precision: of the documents rejected as this kind of duplicate, the share that belongs to a
      planted cluster; where a cluster lost every member as a duplicate, the last one is wrong too. Recall: of the
      copies beyond one that the clusters hold (for near duplicates, of texts beyond one), the share that is gone.
    - ``private``. Precision: of the placeholders in the kept documents, the share that stands for a planted value.
      Recall: of the values planted in the kept documents, the share that is gone from the text.
    - ``boilerplate``. Over the kept pages with a ``clean`` text, in words, as often as each occurs. Precision: the
      share of the extracted words that belongs to the clean text. Recall: the share of the clean text's words that was
      extracted.

    The intervals take single documents, values or words as independent trials.
    """
    truth = {str(row["id"]): row for row in truth_rows}
    kept = {str(row["id"]): str(row["text"]) for row in kept_rows if str(row["id"]) in truth}
    step_of = {str(row["id"]): str(row["step"]) for row in reject_rows if str(row["id"]) in truth}
    measured = {**_rejections(truth, kept, step_of), **_duplicates(truth, kept, step_of),
                "private": _private(truth, kept), "boilerplate": _boilerplate(truth, kept)}
    return {"precision": {kind: precision for kind, (precision, _) in measured.items()},
            "recall": {kind: recall for kind, (_, recall) in measured.items()}}


def _rejections(truth: dict[str, Row], kept: dict[str, str], step_of: dict[str, str]) -> dict[str, tuple[Rate, Rate]]:
    order = [
        "read", "address", "extract", "language", *sorted(STEPS["spam"]), "classifier", "harmful",
        *DUPLICATE_STEPS.values(), "spans", "contamination", "mixture"
    ]
    rates = {}
    for kind, steps in STEPS.items():
        rejected = [id for id, step in step_of.items() if step in steps]
        right = sum(kind in truth[id]["kinds"] for id in rejected)
        # what has a good address may still be spam
        first = min(order.index(step) for step in steps if step != "address")
        reached = sum(kind in row["kinds"] for id, row in truth.items()
                      if id in kept or (id in step_of and (step_of[id] in steps or order.index(step_of[id]) >= first)))
        rates[kind] = rate(right, len(rejected)), rate(right, reached)
    return rates


def _duplicates(truth: dict[str, Row], kept: dict[str, str], step_of: dict[str, str]) -> dict[str, tuple[Rate, Rate]]:
    # Copies of equal text form classes, and classes of similar text form clusters.
    same_text = _components(truth, {"exact_duplicate"})
    similar = _components(truth, {"exact_duplicate", "near_duplicate"})
    alive = Counter(same_text[id] for id in kept)
    sizes = Counter(same_text.values())
    surplus = sum(size - 1 for size in sizes.values())
    too_many = sum(count - 1 for count in alive.values())
    recall = {"exact_duplicate": rate(surplus - too_many, surplus)}

    texts: dict[str, set[str]] = defaultdict(set)
    for id, root in similar.items():
        texts[root].add(same_text[id])
    surplus = sum(len(classes) - 1 for classes in texts.values())
    too_many = sum(max(0, sum(alive[text] > 0 for text in classes) - 1) for classes in texts.values())
    recall["near_duplicate"] = rate(surplus - too_many, surplus)

    members = Counter(similar.values())
    lost = Counter(similar[id] for id, step in step_of.items() if step in DUPLICATE_STEPS.values())
    rates = {}
    emptied = {root for root, size in members.items() if size > 1 and lost[root] == size}
    for kind, step in reversed(DUPLICATE_STEPS.items()):
        rejected = [similar[id] for id, found in step_of.items() if found == step]
        blamed = emptied & set(rejected)  # the later step took the last one
        emptied -= blamed
        right = sum(members[root] > 1 for root in rejected) - len(blamed)
        rates[kind] = rate(right, len(rejected)), recall[kind]
    return rates


def _components(truth: dict[str, Row], kinds: set[str]) -> dict[str, str]:
    """For each document, one that stands for all those it is connected to as a copy of one of the kinds."""
    parent = {id: id for id in truth}

    def root(id: str) -> str:
        while parent[id] != id:
            parent[id] = parent[parent[id]]
            id = parent[id]
        return id

    for id, row in truth.items():
        original = str(row.get("duplicate_of"))
        if original in truth and kinds & set(row["kinds"]):
            parent[root(id)] = root(original)
    return {id: root(id) for id in truth}


def _private(truth: dict[str, Row], kept: dict[str, str]) -> tuple[Rate, Rate]:
    placeholders = right = planted = removed = 0
    for id, text in kept.items():
        values = [value["text"] for value in truth[id].get("private") or []]
        gone = sum(value not in text for value in values)
        inserted = len(_PLACEHOLDER.findall(text))
        placeholders, right = placeholders + inserted, right + min(inserted, gone)
        planted, removed = planted + len(values), removed + gone
    return rate(right, placeholders), rate(removed, planted)


def _boilerplate(truth: dict[str, Row], kept: dict[str, str]) -> tuple[Rate, Rate]:
    extracted = wanted = both = 0
    for id, text in kept.items():
        clean = truth[id].get("clean")
        if clean is not None:
            ours, theirs = Counter(plain_words(text)), Counter(plain_words(clean))
            extracted, wanted = extracted + ours.total(), wanted + theirs.total()
            both += (ours & theirs).total()
    return rate(both, extracted), rate(both, wanted)
