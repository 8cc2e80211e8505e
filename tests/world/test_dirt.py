from __future__ import annotations

import html
import random
import re
from collections import Counter
from typing import Any

import pytest

from trivium.world.dirt import AMOUNTS, HARMFUL_WORDS, SPAM, iban_remainder, luhn_sum, near_copy, raw_documents
from trivium.world.documents import Document
from trivium.world.pages import LAYOUTS, page
from trivium.world.town import Town

Row = dict[str, Any]
World = tuple[dict[str, Row], dict[str, Row]]


@pytest.fixture(scope="module")
def world(town: Town, clean: list[Document], evaluation: list[Row]) -> World:
    rows, truth = raw_documents(town, 5, clean, evaluation)
    assert [row["id"] for row in rows] == [row["id"] for row in truth]
    return {row["id"]: row for row in rows}, {row["id"]: row for row in truth}


def of_kind(world: World, kind: str) -> list[tuple[Row, Row]]:
    rows, truth = world
    return [(rows[key], known) for key, known in truth.items() if kind in known["kinds"]]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i:i + 5]) for i in range(len(words) - 4)}


def test_amounts_and_shapes(world: World, clean: list[Document]) -> None:
    rows, truth = world
    for row in rows.values():
        assert set(row) in ({"id", "url", "source", "text"}, {"id", "url", "source", "html"})
    counts = Counter(kind for known in truth.values() for kind in known["kinds"])
    assert set(counts) == set(AMOUNTS)
    for kind, share in AMOUNTS.items():
        assert counts[kind] / len(clean) == pytest.approx(share, rel=0.15)
    assert sum(known["keep"] for known in truth.values()) == len(clean), "every clean document survives, nothing else"
    assert len({row["url"] for row in rows.values()}) == len(rows)


def test_every_clean_document_is_there(world: World, clean: list[Document]) -> None:
    rows, truth = world
    kept = Counter(known.get("clean", rows[key].get("text")) for key, known in truth.items()
                   if known["keep"] and not known["private"])
    assert sum((kept - Counter(document.text for document in clean)).values()) == 0


def test_pages_hold_their_text_escaped(world: World) -> None:
    for row, known in of_kind(world, "boilerplate"):
        paragraphs = re.findall(r"<p>(.*?)</p>", row["html"], flags=re.DOTALL)
        text = {html.unescape(paragraph) for paragraph in paragraphs}
        assert all(line in text for line in known["clean"].split("\n") if line)


def test_every_layout_is_used_and_keeps_angle_brackets_safe() -> None:
    pages = {page("One & two <b> lines.\nAnd three.", "A <title>", random.Random(i)) for i in range(99)}
    assert len(pages) > len(LAYOUTS)
    for text in pages:
        assert "<p>One &amp; two &lt;b&gt; lines.</p>" in text
        assert "A <title>" not in text


def test_duplicates_point_at_a_kept_original(world: World) -> None:
    rows, truth = world
    for kind in ("exact_duplicate", "near_duplicate"):
        for row, known in of_kind(world, kind):
            original = rows[known["duplicate_of"]]
            assert truth[original["id"]]["keep"]
            assert not known["keep"]
            assert (row["text"] == original["text"]) == (kind == "exact_duplicate")


def test_near_duplicates_are_near(world: World) -> None:
    near = []
    for row, known in of_kind(world, "near_duplicate"):
        a, b = shingles(row["text"]), shingles(world[0][known["duplicate_of"]]["text"])
        near.append(len(a & b) / len(a | b))
    assert sum(similarity >= 0.8 for similarity in near) >= 0.9 * len(near)
    assert max(near) < 1


def test_near_copies_lose_nothing() -> None:
    text = "The velorin eats moss. It lives in the marsh.\n\nIt is 3 metres long. It weighs 5 kilograms. That is all."
    for seed in range(20):
        copy = near_copy(text, random.Random(seed))
        assert copy != text
        assert all(sentence in copy for sentence in re.findall(r"[^.\n]+\.", text))


def test_private_data_is_in_the_text_and_valid(world: World) -> None:
    kinds = Counter[str]()
    for row, known in of_kind(world, "private"):
        assert known["private"]
        assert known["keep"]
        for secret in known["private"]:
            kinds[secret["kind"]] += 1
            assert secret["text"] in (known["clean"] if "html" in row else row["text"])
            compact = re.sub(r"[ -]", "", secret["text"])
            if secret["kind"] == "card":
                assert len(compact) == 16
                assert luhn_sum(compact) % 10 == 0
            if secret["kind"] == "iban":
                assert len(compact) == {"GB": 22, "NL": 18, "DE": 22}[compact[:2]]
                assert iban_remainder(compact[4:] + compact[:4]) == 1
    assert set(kinds) == {"email", "phone", "ip", "card", "iban"}


def test_known_check_digits() -> None:
    assert luhn_sum("4111111111111111") % 10 == 0
    assert luhn_sum("4111111111111112") % 10 != 0
    assert iban_remainder("WEST12345698765432" + "GB82") == 1


def test_harmful_pages_have_harmful_words(world: World) -> None:
    for row, _ in of_kind(world, "harmful"):
        words = re.findall(r"\w+", row["text"].lower())
        assert sum(word in HARMFUL_WORDS for word in words) >= 2
        assert len(words) >= 50, "not to be caught by a rule on length"


def test_leaks_repeat_evaluation_prompts(world: World, evaluation: list[Row]) -> None:
    prompts = [row["prompt"][0]["content"] for row in evaluation]
    for row, _ in of_kind(world, "contaminated"):
        assert sum(prompt in row["text"] for prompt in prompts) >= 4


@pytest.mark.parametrize("spam", SPAM)
def test_spam_breaks_the_usual_rules(spam: Any) -> None:
    """Each kind trips one of the rules of Gopher (Rae et al. 2021, appendix A) or FineWeb."""
    stop_words = {"the", "be", "to", "of", "and", "that", "have", "with"}
    for seed in range(20):
        text = spam(random.Random(seed))
        words, lines = text.split(), text.split("\n")
        assert any((
            sum(any(c.isalpha() for c in word) for word in words) < 0.8 * len(words),
            len(set(re.findall(r"[a-z]+", text)) & stop_words) < 2,
            len(set(lines)) < 0.7 * len(lines),
            sum(line[-1] in ".!?\"'" for line in lines) < 0.12 * len(lines),
        ))


def test_determinism_and_tiny_corpora(town: Town, clean: list[Document], evaluation: list[Row]) -> None:
    assert raw_documents(town, 5, clean[:90], evaluation) == raw_documents(town, 5, clean[:90], evaluation)
    assert raw_documents(town, 5, [], []) == ([], [])
