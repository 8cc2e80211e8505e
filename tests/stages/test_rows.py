"""Rows as people bring them: archives, bad rows, unfinished responses."""

from __future__ import annotations

import io
import json
import math
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.intervals import mean_interval
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.progress import Progress
from trivium.stage import Context
from trivium.stages.data.imports import Imports
from trivium.stages.preferences import reward, reward_statistics
from trivium.stages.preferences.rankings import (
    Rated,
    add_ratings,
    check_ranking,
    check_ratings,
    ranked_tree,
    rankings,
)
from trivium.stages.preferences.reward import Ranking, Regression
from trivium.stages.preferences.reward_statistics import accuracy
from trivium.stages.reinforcement.ppo import values_of
from trivium.stages.rows import rows_of
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree, make_batch

CHAT = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


def context(folder, **inputs):
    folder.mkdir(exist_ok=True)
    said = []
    progress = Progress(quiet=True)
    progress.say = said.append
    return Context("r", "stage", 0, inputs, folder, folder / "scratch", progress, 1), said


def test_archives_of_rows_are_read_and_bad_rows_are_kept(tmp_path):
    good = [{"question": f"What is {n}?", "answer": f"{n}."} for n in range(5)]
    files = {
        "a/good.jsonl": "\n".join(map(json.dumps, good)),
        "a/list.json": json.dumps([{"messages": CHAT}]),
        "a/README.md": "no rows here",
        "a/bad.jsonl": 'not json\n{"question": "only this"}\n{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    }
    with tarfile.open(tmp_path / "rows.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    (tmp_path / "torn.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00 torn")
    place, said = context(tmp_path / "out", demonstrations=[tmp_path / "rows.tar.gz", tmp_path / "torn.jsonl.gz"],
                          comparisons=[])
    summary = Imports(demonstrations=["x"]).run(place)
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert summary["demonstrations"] == 6 and summary["rejected"] == len(rejects) == 4
    reasons = " | ".join(f"{row['file']}:{row['row']}: {row['reason']}" for row in rejects)
    assert "rows.tar.gz/a/bad.jsonl:1" in reasons and "no text" in reasons and "torn.jsonl.gz" in reasons
    assert "no known kind of demonstration has the fields question" in reasons and "4 rows rejected" in "".join(said)


def test_bad_rows_of_ones_own_files_are_kept_aside(tmp_path):
    path = tmp_path / "demonstrations.jsonl"
    path.write_text("\n".join([
        json.dumps({"messages": CHAT}), "no json",
        json.dumps({"message": CHAT}),
        json.dumps({"messages": [{"role": "wizard", "content": "x"}]}),
        json.dumps({"messages": CHAT})
    ]))
    place, said = context(tmp_path / "out")
    assert len(rows_of(path, "", ["messages"], place)) == 2
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects-demonstrations.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [2, 3, 4] and "'messages' is missing" in rejects[1]["reason"]
    assert said and said[0].startswith("3 of 5 rows of demonstrations.jsonl were rejected")
    path.write_text('{"prompt": []}\n')
    with pytest.raises(TriviumError, match=r"row 1: the field 'messages' is missing; no good row is left"):
        rows_of(path, "", ["messages"], place)


GOOD = {"prompt": "Say it.", "responses": ["a", "b", "c"], "ranking": [[2], [0, 1]]}


@pytest.mark.parametrize(("changes", "reason"), [
    ({"ranking": [[0], [1], [3]]}, "does not name each of the 3 responses once"),
    ({"ranking": [[2], [0]]}, "does not name each of the 3"),
    ({"responses": ["a", "b", "a"]}, "two responses are the same"),
    ({"responses": ["a"], "ranking": [[0]]}, "one response only"),
    ({"responses": ["a", " ", "c"]}, "a response is empty"),
    ({"ranking": [[0, 1, 2]]}, "all responses are tied"),
    ({"ratings": [9, 1, 1]}, "the rating 9 is not a number from 1 to 7"),
    ({"ratings": [7, 1]}, "a rating of each of the 3"),
    ({"finished": [True]}, "does not say of each of the 3 responses"),
    ({"prompt": [{"role": "wizard", "content": "x"}]}, "unknown role 'wizard'"),
])
def test_bad_comparisons_are_rejected_with_a_reason_and_kept(tmp_path, changes, reason):
    mixed = {"chosen": "\n\nHuman: One?\n\nAssistant: a", "rejected": "\n\nHuman: Another?\n\nAssistant: b"}
    rated = GOOD | {"prompt": "Once more.", "ratings": [1, 2, 7], "finished": [True, False, True], "annotator": "anna"}
    (tmp_path / "rows.jsonl").write_text("".join(
        json.dumps(row) + "\n" for row in (GOOD, GOOD | changes, mixed, rated)))
    place, said = context(tmp_path / "out", demonstrations=[], comparisons=[tmp_path / "rows.jsonl"])
    summary = Imports(comparisons=["x"]).run(place)
    assert summary["comparisons"] == 2 and summary["rejected"] == 2 and said[:2] == [
        "rows.jsonl: 4 rows, 2 rejected, 2 used", "2 rows rejected, see rejects.jsonl:"]
    assert reason in said[2] and json.loads((tmp_path / "out/sources.json").read_text())["rows.jsonl"]["kept"] == 2
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects
            ] == [2, 3] and reason in rejects[0]["reason"] and "differ before their last turn" in rejects[1]["reason"]
    assert json.loads(rejects[0]["text"]) == GOOD | changes
    kept = [json.loads(line) for line in (tmp_path / "out/comparisons.jsonl").read_text().splitlines()]
    assert [row.get("annotator") for row in kept if row["prompt"][0]["content"] == "Once more."] == ["anna"]
    assert {len(row) for row in kept} == {4, 7}  # with ratings, finished and annotator where they were given


@pytest.mark.parametrize("ranking", [[[0], [2]], [[0]], [[0], [0], [1]], None, [0, 1]])
def test_a_ranking_names_each_response_once(ranking):
    with pytest.raises((TriviumError, TypeError)):
        check_ranking({"responses": ["a", "b"], "ranking": ranking})


def test_a_response_without_any_token_is_no_row(tmp_path):
    """An empty one that ended has the token that ends it; one that was cut short before it began has none."""
    rows = [{
        "prompt": CHAT[:1], "responses": ["", "yes"], "ranking": [[1], [0]], "split": "train", "finished": finished
    } for finished in ([True, True], [False, True], None, [True])]
    write_rows(tmp_path / "comparisons.jsonl", rows)
    place, said = context(tmp_path / "out")
    assert rankings(tmp_path, place) == [rows[0], rows[2]]
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects-comparisons.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [
        2, 4
    ] and "empty and never ended" in rejects[0]["reason"] and "`finished` says of 1" in rejects[1]["reason"]
    assert said[0].startswith("2 of 4 rows")


def test_a_response_that_was_cut_short_does_not_teach_to_stop():
    tokenizer = ChatTokenizer(tokenizer_training.train(iter(["Hello there, how are you?"] * 9), 280))
    row = {"prompt": CHAT[:1], "responses": ["Hello", "Hello the"], "ranking": [[0], [1]], "finished": [True, False]}
    done, cut = ranked_tree(tokenizer, row).responses
    assert done[-1] == tokenizer.end_id and cut[-1] != tokenizer.end_id


def test_values_are_on_the_scale_of_the_scores():
    model = RewardModel.from_language_model(
        LanguageModel(
            ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=1, num_heads=2, num_kv_heads=1,
                        head_dim=16)).initialise(0), 0)
    batch = make_batch([[Tree(np.array([1, 2]), (np.array([3, 4, 5]),))]], 8)
    plain = values_of(model, batch)
    model.shift = 0.75
    torch.testing.assert_close(values_of(model, batch), plain + 0.75)


def test_intervals_of_extremes_are_not_empty():
    for values in ([1.0] * 20, [0.0] * 20, [1.0]):
        found = mean_interval(values)
        assert found["high"] - found["low"] > 0.1
    for sums in ([3.0, 2.0, 4.0], [0.0, 0.0, 0.0]):  # all right, or all wrong, in three clusters
        found = mean_interval(sums, [3.0, 2.0, 4.0])
        assert found["low"] <= found["value"] <= found["high"] and found["high"] - found["low"] > 0.3
    assert mean_interval([]) == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_length_can_be_judged_both_ways():
    rows = [{"prompt": "?", "responses": ["short", "much longer"], "ranking": [[0], [1]]}]
    assert accuracy(rows, [], by_length=1)["value"] == 0.0 and accuracy(rows, [], by_length=-1)["value"] == 1.0


def test_margins_and_ratings_enter_the_loss():
    scores, ratings = torch.tensor([1.0, 0.0, 0.5]), [7, 4, 2]
    batch = make_batch(
        [[Tree(np.array([1]), tuple(np.array([2, 3]) for _ in range(3)), payload=Rated([[0], [1], [2]], ratings))]], 16)
    add_ratings(batch)
    assert batch.extra["ratings"].tolist() == ratings

    for objective, expected in ((
            Ranking(0.1), sum(math.log(1 + math.exp(-(d - 0.1 * m))) for d, m in ((1.0, 3), (0.5, 5), (-0.5, 2))) / 3),
                                (Regression(), (1 - 1.5)**2 + 0.0 + (0.5 + 1.0)**2)):
        original, reward.score_ends = reward.score_ends, lambda model, batch: scores
        try:
            assert objective(None, batch)["loss"].value.item() == pytest.approx(expected, abs=1e-6)
        finally:
            reward.score_ends = original


@pytest.mark.parametrize("ratings, message", [([1, 9], "rating 9 is not a number from 1 to 7"),
                                              ([3], "a rating of each of the 2"), (None, "a rating of each")])
def test_ratings_are_checked(ratings, message):
    with pytest.raises(TriviumError, match=message):
        check_ratings({"responses": ["a", "b"], "ratings": ratings})


def test_scores_have_statistics_by_confidence_length_and_margin():
    rows = [{"prompt": "one", "responses": ["long answer here", "short"], "ranking": [[0], [1]], "ratings": [6, 2]},
            {"prompt": "two", "responses": ["ab", "ac"], "ranking": [[1], [0]], "ratings": [3, 4]}]
    found = reward_statistics.score_statistics(rows, [[2.0, 0.0], [1.0, 0.0]])
    assert [(round(b["predicted"], 3), b["value"]) for b in found["calibration"]] == [(0.731, 0.0), (0.881, 1.0)]
    assert [(part["name"], part["value"]) for part in found["accuracy_by_length"]] == [("alike", 0.0),
                                                                                       ("better is longer", 1.0)]
    assert [(part["name"], part["value"]) for part in found["accuracy_by_margin"]] == [("1", 0.0), ("3 or more", 1.0)]


def test_what_several_annotators_say_of_a_prompt_is_one_cluster_and_their_agreement_stands_beside():
    """Forty rankings of two prompts are two observations, not forty; a person is no second opinion on themselves, nor
    are other responses."""
    rows = [{"prompt": prompt, "responses": ["a", "b", "c"], "ranking": ranking, "annotator": f"{prompt} {n}"}
            for prompt, ranking in (("one", [[0], [1], [2]]), ("two", [[2], [1], [0]])) for n in range(20)]
    found = accuracy(rows, [[3.0, 2.0, 1.0]] * 40)
    assert found["n"] == 2 and found["value"] == 0.5 and found["high"] - found["low"] > 0.9
    assert reward_statistics.score_statistics(rows, [[3.0, 2.0, 1.0]] * 40)["calibration"][-1]["n"] == 2
    said = {"prompt": "one", "responses": ["a", "b", "c"]}
    rows = [
        said | {"annotator": "anna", "ranking": [[0], [1], [2]]},
        said | {"annotator": "anna", "ranking": [[2], [1], [0]]},
        said | {"annotator": "ben", "ranking": [[0], [2], [1]]}, said | {"annotator": "carl", "ranking": [[1], [0, 2]]},
        said | {"annotator": "dora", "responses": ["a", "b", "d"], "ranking": [[2], [1], [0]]}
    ]
    assert reward_statistics.annotators_agreement(rows)["value"] == pytest.approx((2 + 1 + 0) / (3 + 2 + 2))
    assert reward_statistics.annotators_agreement(rows[:2])["value"] is None and reward_statistics.annotators_agreement(
        rows[3:])["value"] is None


def test_prompts_of_ones_own_need_no_id(tmp_path):
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (
        {"prompt": "How many legs?"}, {"prompt": "How many legs?", "id": None}, {"prompt": "How many eyes?"},
        {"prompt": CHAT[:1], "id": "mine"}, {"id": "b"}, {"prompt": "x", "id": [1]})))
    where, said = context(tmp_path / "out")
    rows = rows_of(tmp_path / "q.jsonl", "prompts.jsonl", ["id", "prompt"], where)
    names = [row["id"] for row in rows]
    assert names[0] == names[1] != names[2] and names[3] == "mine" and len(rows) == 4 and "2 of 6" in said[0]


def test_of_several_processes_the_first_alone_writes_rows(tmp_path, monkeypatch):
    """It clears the folder while others already read their rows, so what they wrote could go while it looks."""
    place = Context("r", "sft", 0, {}, tmp_path, tmp_path / "scratch", Progress(quiet=True), 1)
    for rank, written in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        place.keep_rows("heldout.jsonl", [{"a": 1}])
        assert (tmp_path / "heldout.jsonl").exists() == written
    replace(place, folder=tmp_path / "absent").keep_rows("heldout.jsonl", [{"a": 1}])
    assert not (tmp_path / "absent").exists()
