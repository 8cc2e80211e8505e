"""The town's words and grammar: all that the town says is known, and what nobody says is not."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from trivium.world.answers import REPLIES, STYLES, respond
from trivium.world.documents import Document
from trivium.world.language import grammar_faults, unknown_words, vocabulary
from trivium.world.rubric import is_right, score
from trivium.world.tasks import FIRST, PLAIN, demonstrations, rows_for
from trivium.world.town import Town

Row = dict[str, Any]


def talk(content: str, kind: str, answers: list[str]) -> Row:
    return {"id": "x", "task": "dialogue", "prompt": [{"role": "user", "content": content}],
            "truth": {"answers": answers, "wrong": [], "complete": [], "harmful": False, "kind": kind}}


GREETED = talk("Hello!", "greeting", ["hello", "good day"])


def test_every_word_of_the_town_is_known(town: Town, clean: list[Document]) -> None:
    """Documents and demonstrations against a list that no document is read for."""
    names = [entity.name for entity in town.entities]
    texts = [re.sub(r'`[^`]*`|"[a-z]+"', " ", document.text) for document in clean]
    texts += [re.sub(r'"[a-z]+"', " ", message["content"]) for row in demonstrations(town, town.seed, 1500)
              for message in row["messages"]]
    nowhere = {"task": "", "truth": {}, "prompt": []}
    assert not {word for text in texts for word in unknown_words(text, nowhere, names)}
    assert len(vocabulary()) < 1200, "a list of all words of English would not do"


def test_every_answer_of_the_town_is_sound(evaluation: list[Row]) -> None:
    rng = random.Random(5)
    for row in evaluation:
        for style in STYLES:
            answer = respond(row, style, rng)
            assert not unknown_words(answer, row) and not grammar_faults(answer), answer


def test_broken_words_are_found(evaluation: list[Row]) -> None:
    """A letter put in, left out or doubled in any word of an answer; what by chance is another word is left alone."""
    rng, found, spoiled = random.Random(6), 0, 0
    for row in evaluation:
        if row["task"] == "code":
            continue
        words = respond(row, "polite" if row["task"] != "reasoning" else "full", rng).split()
        place = rng.choice([i for i, word in enumerate(words) if re.fullmatch(r"[A-Za-z]{4,}[.!,]?", word)])
        at = rng.randrange(1, 4)
        words[place] = words[place][:at] + rng.choice(("q", words[place][at] * 2, "")) + words[place][at + 1:]
        answer = " ".join(words)
        spoiled += 1
        found += bool(unknown_words(answer, row))
        if unknown_words(answer, row):
            assert not is_right(row, answer) or row["task"] == "", answer
    assert found > 0.97 * spoiled > 400


@pytest.mark.parametrize("answer", ["Hellomor! How can I help you?", "Gladlily birthday! Hello.",
                                    "Hello! How cann I help?"])
def test_a_word_that_exists_nowhere_costs(answer: str) -> None:
    sound = "Hello! How can I help you?"
    assert is_right(GREETED, sound) and not is_right(GREETED, answer)
    assert score(GREETED, answer).total < score(GREETED, sound).total - 4


@pytest.mark.parametrize("answer", [
    "Hello! They is here to help you.", "Hello! I are the helper.", "Hello! It is a orchard.", "Hello! It is an mill.",
    "Hello! Is are here.", "Hello! My the helper.", "Hello, I you help.", "Hello, the old friend of the good people.",
])
def test_grammar_that_nobody_speaks_costs(answer: str) -> None:
    assert grammar_faults(answer)
    assert score(GREETED, answer).total < score(GREETED, "Hello! I am here to help you.").total


def test_a_name_counts_only_where_it_was_said(town: Town) -> None:
    name, other = (entity.name for entity in town.of("person")[:2])
    row = talk(f"Hello, I am {name}!", "greeting", ["hello"])
    assert not unknown_words(f"Hello, {name}!", row)
    assert unknown_words(f"Hello, {other}!", row) == [other.lower()]
    assert not unknown_words(f"Hello, {other}!", row, [other])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_people_say_first_is_demonstrated(seed: int) -> None:
    """Never held out; and half of the talk names nobody."""
    small = Town(seed, 16, 16, 16, 12)
    rows = {purpose: [row for row in rows_for(small, seed, count, purpose) if row["task"] == "dialogue"]
            for purpose, count in (("demonstration", 3000), ("preference", 1500), ("evaluation", 560))}
    said = {purpose: [row["prompt"][0]["content"] for row in found] for purpose, found in rows.items()}
    first = {purpose: {text.lower().rstrip(".!?") for text in texts} & FIRST for purpose, texts in said.items()}
    assert not first["preference"] and not first["evaluation"]
    assert len(first["demonstration"]) > 0.7 * len(FIRST)
    for purpose, texts in said.items():
        plain = [text for text in texts if not re.search(r"[a-z,] [A-Z](?!elper)[a-z]+", text)]
        assert len(plain) > 0.2 * len(texts), purpose
    assert {row["truth"]["kind"] for row in rows["evaluation"]} == set(PLAIN) == set(REPLIES)
