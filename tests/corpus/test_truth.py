"""The measurement itself, on cases small enough to count by hand."""

import pytest

from trivium.corpus.truth import measure
from trivium.intervals import wilson


def rates(truth, kept, rejects):
    """``kept`` maps ids to texts, ``rejects`` ids to steps."""
    measured = measure(
        [{"id": id, "kinds": [], "keep": True, **row} for id, row in truth.items()],
        [{"id": id, "text": text} for id, text in kept.items()],
        [{"id": id, "step": step} for id, step in rejects.items()],
    )
    return lambda kind: tuple(
        (measured[name][kind]["value"], measured[name][kind]["n"]) for name in ("precision", "recall")
    )


def test_wilson():
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0) and wilson(5, 5)[1] == 1.0
    assert wilson(3, 10)[0] == pytest.approx(1 - wilson(7, 10)[1])
    with pytest.raises(ValueError, match="3 successes out of 2"):
        wilson(3, 2)


def test_rejections():
    spam, leak = {"kinds": ["spam"]}, {"kinds": ["contaminated"]}
    of = rates(
        {"a": spam, "b": spam, "c": {}, "d": leak, "e": {}, "f": leak, "g": leak},
        {"b": "x", "e": "x", "f": "x"},
        {"a": "c4", "c": "quality", "d": "contamination", "g": "near_duplicates"},
    )
    assert of("spam") == ((1 / 2, 2), (1 / 2, 2))
    assert of("contaminated") == ((1.0, 1), (1 / 2, 2))  # g never came so far
    assert of("harmful") == ((None, 0), (None, 0))


def copy(kind, of):
    return {"kinds": [f"{kind}_duplicate"], "duplicate_of": of, "keep": False}


def test_any_single_survivor_of_a_cluster_is_right():
    truth = {"a": {}, "b": copy("exact", "a"), "c": copy("exact", "a"), "d": copy("near", "b"), "e": {}, "f": {}}
    for survivor in "abcd":
        step = {
            id: "near_duplicates" if id == "d" or (survivor == "d" and id == "a") else "exact_duplicates"
            for id in "abcd"
        }
        of = rates(truth, {survivor: "x", "e": "x", "f": "x"}, {id: step[id] for id in "abcd" if id != survivor})
        assert of("exact_duplicate")[0][0] == 1.0 and of("exact_duplicate")[1] == (1.0, 2)
        assert of("near_duplicate")[1] == (1.0, 1)


def test_missed_and_wrong_duplicates():
    truth = {"a": {}, "b": copy("exact", "a"), "c": copy("near", "a"), "d": {}, "e": copy("near", "d"), "f": {}}
    of = rates(
        truth,
        {"a": "x", "b": "x"},
        {"c": "near_duplicates", "d": "exact_duplicates", "e": "near_duplicates", "f": "near_duplicates"},
    )
    assert of("exact_duplicate") == ((1.0, 1), (0.0, 1))  # b survived beside a
    # f belongs to no cluster, and of d and e one ought to be left: the later step is to blame
    assert of("near_duplicate") == ((1 / 3, 3), (1.0, 2))


def test_private_values_and_placeholders():
    mail = {
        "kinds": ["private"],
        "private": [{"kind": "email", "text": "a@b.example"}, {"kind": "phone", "text": "555-0100"}],
    }
    of = rates(
        {"a": mail, "b": {}, "c": mail}, {"a": "to <EMAIL> or 555-0100", "b": "the <PHONE> rings"}, {"c": "quality"}
    )
    assert of("private") == ((1 / 2, 2), (1 / 2, 2))


def test_boilerplate_counts_words_as_often_as_they_stand():
    of = rates({"a": {"clean": "The sea, the sea"}, "b": {}}, {"a": "Home the sea the shore", "b": "not a page"}, {})
    assert of("boilerplate") == ((3 / 5, 5), (3 / 4, 4))


def test_documents_without_truth_are_left_out():
    assert rates({"a": {}}, {"x": "<EMAIL>"}, {"y": "quality"})("spam") == ((None, 0), (None, 0))
