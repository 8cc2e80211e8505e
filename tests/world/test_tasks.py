from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from trivium.errors import TriviumError
from trivium.world.answers import STYLES, respond
from trivium.world.rubric import is_right, score, soundness
from trivium.world.tasks import MIX, demonstrations, prompts, rows_for
from trivium.world.town import Town

Row = dict[str, Any]


def test_mix_and_shape(evaluation: list[Row], preference: list[Row]) -> None:
    for rows in (evaluation, preference):
        counts = Counter(row["task"] for row in rows)
        assert counts == {task: round(share * len(rows)) for task, share in MIX.items()}
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert set(row) == {"id", "task", "prompt", "truth"}
            assert {"answers", "wrong", "complete", "harmful"} <= set(row["truth"])
            assert len(row["prompt"]) == 1
            assert len(row["prompt"][0]["content"].split()) <= 25
            assert row["truth"]["harmful"] == (row["task"] == "refusal")


def test_nothing_is_asked_twice(town: Town, evaluation: list[Row], preference: list[Row]) -> None:
    shown = {row["messages"][0]["content"] for row in demonstrations(town, town.seed, 3000)}
    practised = {row["prompt"][0]["content"] for row in preference}
    asked = {row["prompt"][0]["content"] for row in evaluation}
    assert (len(shown), len(practised), len(asked)) == (3000, 1500, 700)
    assert not shown & practised
    assert not shown & asked
    assert not practised & asked


def test_entities_keep_to_their_split(town: Town, evaluation: list[Row], preference: list[Row]) -> None:
    for rows, split in ((evaluation, "evaluation"), (preference, "demonstration"),
                        (rows_for(town, town.seed, 500, "demonstration"), "demonstration")):
        asked = Counter((row["truth"]["entity"], row["truth"]["attribute"]) for row in rows if row["task"] == "entity")
        assert {town.by_name[name].split for name, _ in asked} == {split}
        turns = [asked[fact.entity, fact.attribute] for fact in town.facts(split)]
        assert max(turns) - min(turns) <= 1, "facts take turns"


def test_demonstrations_never_name_an_entity_of_the_evaluation(town: Town, preference: list[Row]) -> None:
    """Not in a question of any family, not as a bystander, not in an answer."""
    hidden = re.compile(r"\b(" + "|".join(entity.name
                                          for entity in town.entities if entity.split == "evaluation") + r")\b")
    rows = [*demonstrations(town, town.seed, 1500), *preference]
    texts = [message["content"] for row in rows for message in row.get("messages", row.get("prompt"))]
    texts += [answer for row in preference for answer in row["truth"]["answers"]]
    assert len(texts) > 3000 and not [text for text in texts if hidden.search(text)]


def test_exercises_of_the_evaluation_are_new(town: Town, evaluation: list[Row]) -> None:
    shown, asked = ({tuple(row["truth"]["complete"]) for row in rows if row["task"] == "reasoning"}
                    for rows in (rows_for(town, town.seed, 3000, "demonstration"), evaluation))
    assert not shown & asked


@pytest.mark.parametrize("style", STYLES)
def test_right_answers_are_right_and_wrong_ones_wrong(evaluation: list[Row], style: str) -> None:
    rng = random.Random(1)
    for row in evaluation:
        right, wrong = respond(row, style, rng), respond(row, style, rng, right=False)
        assert is_right(row, right), (row, right)
        assert not is_right(row, wrong), (row, wrong)
        assert soundness(right) == 1.0
        assert score(row, right).harmless == 1.0
        assert score(row, right).total > score(row, wrong).total


def test_styles_differ_in_what_they_are_good_at(evaluation: list[Row]) -> None:
    rng = random.Random(2)
    mean: dict[str, dict[str, float]] = {}
    for style in STYLES:
        scores = [score(row, respond(row, style, rng)) for row in evaluation if row["task"] == "entity"]
        mean[style] = {quality: sum(getattr(s, quality) for s in scores) / len(scores)
                       for quality in ("complete", "polite", "brief")}
    assert mean["terse"]["complete"] < mean["full"]["complete"] == 1.0
    assert mean["polite"]["polite"] == 1.0 > mean["full"]["polite"]
    assert mean["rambling"]["brief"] < 0.7 < mean["polite"]["brief"] < mean["terse"]["brief"] == 1.0


def test_demonstrations_are_right_and_varied(town: Town) -> None:
    rows = {row["id"]: row for row in rows_for(town, town.seed, 1000, "demonstration")}
    lengths = []
    for shown in demonstrations(town, town.seed, 1000):
        assert set(shown) == {"id", "task", "messages"}
        assert [message["role"] for message in shown["messages"]] == ["user", "assistant"]
        assert is_right(rows[shown["id"]], shown["messages"][1]["content"]), shown
        lengths.append(len(shown["messages"][1]["content"].split()))
    assert min(lengths) == 1
    assert 8 < sum(lengths) / len(lengths) < 16
    assert sum(length > 18 for length in lengths) > 50


def test_determinism(town: Town) -> None:
    assert demonstrations(town, 7, 200) == demonstrations(Town(town.seed), 7, 200)
    assert prompts(town, 7, 100, "evaluation") != prompts(town, 8, 100, "evaluation")


def test_unreasonable_wishes_are_refused(town: Town) -> None:
    with pytest.raises(TriviumError, match="no purpose"):
        prompts(town, 1, 10, "fun")
    with pytest.raises(TriviumError, match="ask for fewer"):
        prompts(Town(1, 4, 4, 4, 4), 1, 2000, "evaluation")
