from __future__ import annotations

import re
from collections import Counter
from typing import Any

from trivium.world.dirt import HARMFUL_WORDS
from trivium.world.documents import MARKS, SHARES, Document, documents
from trivium.world.town import Town


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i:i + n]) for i in range(len(found) - n + 1)}


def test_size_and_shares(clean: list[Document]) -> None:
    size = Counter[str]()
    for document in clean:
        size[document.source] += len(document.text.encode())
    total = sum(size.values())
    assert abs(total - 1_000_000) < 20_000
    assert all(abs(size[source] / total - share) < 0.01 for source, share in SHARES.items())
    assert abs(sum(SHARES.values()) - 1) < 1e-9


def test_documents_have_a_readable_length(clean: list[Document]) -> None:
    lengths = [len(document.text.split()) for document in clean]
    assert min(lengths) >= 50
    assert max(lengths) <= 330


def test_every_fact_is_told_often_and_evenly(town: Town, clean: list[Document]) -> None:
    told = Counter(mention for document in clean for mention in document.mentions)
    counts = [told[fact.entity, fact.attribute] for fact in town.facts()]
    assert set(told) == {(fact.entity, fact.attribute) for fact in town.facts()}
    assert min(counts) >= 12, "a third of the default corpus: three times as often there"
    assert sum(counts) / len(counts) >= 25


def test_mentions_are_in_the_text(town: Town, clean: list[Document]) -> None:
    for document in clean[::5]:
        for name, attribute in document.mentions:
            assert town.by_name[name].facts[attribute] in document.text
            assert name in document.text


def test_what_is_told_is_true(town: Town, clean: list[Document]) -> None:
    """Every sentence that names one animal and a weight or length must give the true one, or be marked as wrong."""
    animals = {animal.name: animal for animal in town.of("animal")}
    checked = 0
    for document in clean:
        text = re.sub("|".join(rf"[^\n]*{re.escape(mark)}" for mark in MARKS[False]), "", document.text)
        for sentence in re.split(r"(?<=[.!?])\s", text):
            named = [word for word in re.findall(r"[a-z]+", sentence) if word in animals]
            if len(set(named)) == 1:
                for attribute, unit in (("length", "(?:centi)?metres"), ("weight", "kilograms")):
                    for value in re.findall(rf"\d+ {unit}", sentence):
                        assert value == animals[named[0]].facts[attribute], sentence
                        checked += 1
    assert checked > 1000


def test_no_two_documents_are_near_duplicates(clean: list[Document]) -> None:
    holders: dict[tuple[str, ...], list[int]] = {}
    sets = [shingles(document.text) for document in clean]
    for i, found in enumerate(sets):
        for shingle in found:
            holders.setdefault(shingle, []).append(i)
    shared = Counter[tuple[int, int]]()
    for holder in holders.values():
        if len(holder) < 25:  # a phrase that more documents share is a turn of speech
            shared.update((a, b) for i, b in enumerate(holder) for a in holder[:i])
    close = [pair for pair, n in shared.items() if n / len(sets[pair[0]] | sets[pair[1]]) > 0.65]
    assert not close


def test_language_is_small_and_well_formed(clean: list[Document]) -> None:
    text = "\n".join(document.text for document in clean)
    assert len(set(re.findall(r"[a-z]+", text.lower()))) < 1300
    assert not re.search(r"[{}]|\b(\w+) \1\b|\ba [aeiou]|  |,,|\.\.| ,",
                         re.sub(r"`[^`]*`", "`", text)), "slips of grammar"
    for document in clean:
        assert all(line[-1] in '.!?"' for line in document.text.split("\n") if line), document.text
        assert not re.search(r"(?:^|[.!?] )[a-z]", document.text), document.text


def test_clean_documents_are_harmless(clean: list[Document]) -> None:
    assert not {word for document in clean for word in words(document.text)} & set(HARMFUL_WORDS)


def test_the_evaluation_is_not_in_the_documents(clean: list[Document], evaluation: list[dict[str, Any]]) -> None:
    asked = [(row["task"], words(row["prompt"][0]["content"])) for row in evaluation]
    prompts = [found for task, found in asked if task != "dialogue" or len(found) >= 8]  # "Hello!" stands everywhere
    stretches = {tuple(found[i:i + 8]) for found in prompts for i in range(max(1, len(found) - 7))}
    sizes = {len(stretch) for stretch in stretches}
    for document in clean:
        found = words(document.text)
        for n in sizes:
            assert not any(tuple(found[i:i + n]) in stretches for i in range(len(found) - n + 1)), document.text


def test_determinism(town: Town) -> None:
    assert documents(town, 1, 60_000) == documents(Town(town.seed), 1, 60_000)
    assert documents(town, 1, 60_000) != documents(town, 2, 60_000)
