"""Win rates by the rubric and by a reward model, and the best of many."""

from __future__ import annotations

import pytest

import trivium
from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task


def test_win_rates_by_rubric_and_by_a_reward_model(models, task_file):
    path = task_file(f"kind: wins\ndata: {models['world']}\nlimit: 12\nmax_new_tokens: 8\nsamples: 2\n")
    chat, other = EvaluatedModel.load(models["chat"]), EvaluatedModel.load(models["other"])
    one, two = load_task(path).examine(path, chat, other), load_task(path).examine(path, other, chat)
    assert one.metrics["win_rate"]["n"] == 12 and len(one.rows) == 24
    assert one.metrics["win_rate"]["value"] + two.metrics["win_rate"]["value"] == pytest.approx(1.0)
    assert load_task(path).examine(path, chat, chat).metrics["win_rate"]["value"] == 0.5
    task = load_task(path, [f"judge={models['reward']}"])
    result, reward = task.examine(path, chat, other), trivium.load(models["reward"])
    for row in result.rows[:4]:
        scores = [reward.score([*row["prompt"], {"role": "assistant", "content": row[side]}])
                  for side in ("first", "second")]
        assert row["score"] == pytest.approx((scores[0] > scores[1]) + 0.5 * (scores[0] == scores[1]))
    with pytest.raises(TriviumError, match="where a reward model was expected"):
        load_task(path, [f"judge={models['chat']}"]).examine(path, chat, other)


def test_the_best_of_many_is_what_the_reward_model_picks(models, task_file):
    path = task_file(f"kind: wins\ndata: {models['world']}\nlimit: 6\nmax_new_tokens: 8\njudge: {models['reward']}\n")
    chat = EvaluatedModel.load(models["chat"])
    everything = load_task(path, ["samples=4"]).examine(path, chat, chat).rows
    best = load_task(path, ["best_of=4", f"picker={models['reward']}"]).examine(path, chat, chat)
    reward = trivium.load(models["reward"])
    for number, row in enumerate(best.rows):
        four = [other["first"] for other in everything[4 * number:4 * number + 4]]
        scores = [reward.score([*row["prompt"], {"role": "assistant", "content": text}]) for text in four]
        assert row["first"] == four[scores.index(max(scores))]
    assert all(row["score"] >= 0.5 for row in best.rows) and best.notes["best_of"] == 4
    with pytest.raises(TriviumError, match="name its folder as `picker`"):
        load_task(path, ["best_of=4"])
