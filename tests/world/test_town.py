from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trivium.world.town as module
from trivium.errors import TriviumError
from trivium.world.town import ATTRIBUTES, CLOSED_SETS, KINDS, POINTERS, Town, confusable


def distance(a: str, b: str) -> int:
    """The Levenshtein distance, by the textbook."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@given(st.text("abc", min_size=1, max_size=6), st.text("abc", min_size=1, max_size=6))
def test_confusable_is_prefix_or_distance_one(a: str, b: str) -> None:
    assert confusable(a, b) == (a.startswith(b) or b.startswith(a) or distance(a, b) <= 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_every_town_is_sound(seed: int) -> None:
    town = Town(seed)
    assert [len(town.of(kind)) for kind in KINDS] == [40, 24, 32, 16]
    assert len(town.facts()) == 384
    names = [entity.name.lower() for entity in town.entities]
    assert not any(confusable(a, b) for a, b in itertools.combinations(names, 2))
    for kind in KINDS:
        splits = Counter(entity.split for entity in town.of(kind))
        assert abs(splits["demonstration"] - 2 * splits["evaluation"]) <= 2
        for attribute in ATTRIBUTES[kind]:
            told = Counter(entity.facts[attribute] for entity in town.of(kind))
            assert set(told) <= set(town.values[kind, attribute])
            uneven = 2 if (kind, attribute) in POINTERS and attribute != "near" else 1  # each split deals by itself
            assert max(told.values()) - min(told.values()) <= uneven, "no value may be likelier than another"
    for (kind, attribute), target in POINTERS.items():
        pointed = [(entity, town.by_name[entity.facts[attribute]]) for entity in town.of(kind)]
        assert all(found.kind == target and found.split == entity.split for entity, found in pointed)


def test_same_seed_same_town_other_seed_other_town() -> None:
    assert repr(Town(3).entities) == repr(Town(3).entities)
    assert repr(Town(3).entities) != repr(Town(4).entities)


def test_near_goes_both_ways(town: Town) -> None:
    for split in ("demonstration", "evaluation"):
        near = {place.name: place.facts["near"] for place in town.of("place", split)}
        assert all(other in near and other != name
                   for name, other in near.items()), "the other split tells nothing of this one"
        assert sum(near[near[name]] != name for name in near) == len(near) % 2


def test_alternatives_are_wrong_and_never_the_entity_itself(town: Town) -> None:
    for fact in town.facts():
        wrong = town.alternatives(town.by_name[fact.entity], fact.attribute)
        assert wrong and fact.value not in wrong and fact.entity not in wrong


def test_names_are_not_words_of_the_world() -> None:
    folder = Path(module.__file__).parent
    sources = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "town.py")
    values = " ".join(itertools.chain(*CLOSED_SETS.values()))
    words = set(re.findall(r"[a-z]+", f"{sources.lower()} {values}"))
    # These are examples in docstrings, not in anything that is written or said.
    words -= {"velorin", "brusket", "belira"}
    for seed in range(12):
        assert not {entity.name.lower() for entity in Town(seed).entities} & words


@pytest.mark.parametrize("counts", [{"animals": 3}, {"people": 0}, {"foods": 500}])
def test_impossible_towns_are_named(counts: dict[str, int]) -> None:
    with pytest.raises(TriviumError, match="world"):
        Town(0, **counts)


def test_small_odd_town() -> None:
    town = Town(5, animals=5, foods=5, people=5, places=5)
    assert all(place.facts["near"] != place.name for place in town.of("place"))
