"""Code that a model writes: pass@k against counting, and the task's way from a row to a verdict."""

from __future__ import annotations

import itertools

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.code import pass_at
from trivium.evaluation.tasks.load import load_task


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one():
    for samples in range(1, 7):
        for right, k in itertools.product(range(samples + 1), range(1, samples + 1)):
            draws = list(itertools.combinations(range(samples), k))
            counted = sum(any(one < right for one in draw) for draw in draws) / len(draws)
            assert pass_at(samples, right, k) == pytest.approx(counted, abs=1e-12)


def test_what_a_model_wrote_is_run_with_its_tests(models, task_file, monkeypatch):
    rows = [{"prompt": f"def f(a):\n    # {place}\n", "test": f"assert f({place}) == {2 * place}"} for place in (3, 4)]
    path = task_file("kind: code\ndata: rows.jsonl\nsamples: 3\nat: [1, 2]\nmax_new_tokens: 4\n", rows)
    task = load_task(path)
    task.check(path)
    plain = task.examine(path, EvaluatedModel.load(models["base"]))
    assert plain.metrics["pass_at_1"]["value"] == 0 and all(len(row["said"]) == 3 for row in plain.rows)
    # an untrained model never writes a right program: these are put into its mouth
    monkeypatch.setattr(EvaluatedModel, "generate", lambda *a, **b: [
        ["    return 2 * a", "    return 7", "    return 2 * a"], ["    return", "    return a", "    retur a"]])
    found = task.examine(path, EvaluatedModel.load(models["base"]))
    assert [row["right"] for row in found.rows] == [2, 0]
    assert found.metrics["pass_at_1"]["value"] == pytest.approx((2 / 3 + 0) / 2)
    assert found.metrics["pass_at_2"]["value"] == pytest.approx((1 + 0) / 2)
    assert found.rows[1]["why"][0].startswith("AssertionError") and found.rows[1]["why"][2].startswith("SyntaxError")


@pytest.mark.parametrize(("settings", "message"), [
    ("at: [1, 5]", "at: pass@5 needs at least 5 samples, there are 1; raise `samples`"),
    ("at: [0]", "at: pass@0 needs"),
    ("program: '{{ prompt }}{{ tests }}'", r"rows\.jsonl: row 1: the field 'tests' is missing"),
])
def test_what_cannot_be_asked_is_told_before_a_model_is_read(task_file, settings, message):
    path = task_file(f"kind: code\ndata: rows.jsonl\n{settings}\n", [{"prompt": "x = 1", "test": "assert x"}])
    with pytest.raises(TriviumError, match=message):
        load_task(path).check(path)
