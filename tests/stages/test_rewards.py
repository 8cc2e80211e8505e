"""Rewards: models, functions, addresses and weighted sums of them, as PPO, GRPO and best of N take them."""

from __future__ import annotations

import http.server
import json
import threading

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny import FEW, context, lines

from trivium.errors import TriviumError
from trivium.recipe.load import load_recipe
from trivium.stage import nested
from trivium.stages.models import load_reward_model, save_model
from trivium.stages.preferences.select import Select
from trivium.stages.reinforcement import ppo
from trivium.stages.reinforcement.grpo import Grpo
from trivium.stages.reinforcement.ppo import Ppo
from trivium.stages.reward_settings import RewardEndpoint, RewardTerm
from trivium.stages.rewards import Answers, EndpointReward, ModelReward, load_reward
from trivium.stages.scores import score_trees
from trivium.tokenizer.chat import ChatTokenizer

GROUPS = FEW | {"episodes": 4, "samples": 3}
OWN = """
import os, time
def length(row, responses): return [float(len(text)) for text in responses]
def ended(row, responses, finished): return [1.0 if one else -5.0 for one in finished]
def raises(row, responses): raise ValueError("the file of answers is gone")
def hangs(row, responses): time.sleep(60)
def short(row, responses): return [1.0] * (len(responses) - 1)
def nothing(row, responses): return [float("nan")] * len(responses)
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


class Scored(http.server.BaseHTTPRequestHandler):
    """Scores a response by its length; its faults come first."""
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((asked, self.headers.get("Authorization")))
        status, reply = self.server.faults.pop(0) if self.server.faults else (200, {
            "scores": [
                len(text) if ended else -9 for text, ended in zip(asked["responses"], asked["finished"], strict=True)
            ]
        })
        body = json.dumps(reply).encode()
        self.send_response(status)
        if status in (301, 302, 307):
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scored)
    server.asked, server.faults = [], []
    server.address = f"http://127.0.0.1:{server.server_port}/score"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def answers(school, texts=(("yes", "no thanks"), ("hello",)), finished=None):
    rows = [{"id": f"p{n}", "prompt": [{"role": "user", "content": f"say {n} please"}], "answer": str(n)}
            for n in range(len(texts))]
    return Answers.of_texts(ChatTokenizer.load(school / "sft"), rows, texts, finished)


def loaded(setting, folder=None):
    def load(place, where):
        return ModelReward(load_reward_model(place)[0], 128, 4, "float32")

    return load_reward(setting, folder, load)


def test_a_model_a_checker_and_a_function_in_one_word(school, own):
    given = answers(school)
    model, _ = load_reward_model(school / "reward")
    expected = [scores + model.shift for scores in score_trees(model, given.trees, 128, 4, "float32")]
    for found, wanted in zip(loaded("reward", school / "reward")(given), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    number = answers(school, [("it is 0", "it is 7"), ("1",)])
    assert [found.tolist() for found in loaded("number")(number)] == [[1.0, 0.0], [1.0]]
    with loaded(f"{own}:length") as reward:
        assert [found.tolist() for found in reward(given)] == [[3.0, 9.0], [5.0]]
    with pytest.raises(TriviumError, match="reward 'number' needs the field 'answer'"):
        loaded("number").check_rows([{"id": "a"}])


def test_a_function_is_told_which_responses_ended(school, own):
    with loaded(f"{own}:ended") as reward:
        assert [found.tolist() for found in reward(answers(school, finished=[[True, False], [True]]))] == [[1.0, -5.0],
                                                                                                           [1.0]]


def test_read_one_by_one_a_response_has_the_score_that_it_has_among_others(school):
    model, _ = load_reward_model(school / "reward")
    given = answers(school)
    for alone, together in zip(ModelReward(model, 128, 4, "float32", one_by_one=True)(given),
                               ModelReward(model, 128, 4, "float32")(given),
                               strict=True):
        np.testing.assert_allclose(alone, together, atol=1e-5)


def test_an_address_is_asked_about_each_prompt(school, server, monkeypatch):
    monkeypatch.setenv("SCORES_KEY", "secret")
    server.faults = [(503, {}), (200, {"other": 1})]
    reward = EndpointReward(RewardEndpoint(address=server.address, key_variable="SCORES_KEY", pause=0.0, workers=1))
    assert [found.tolist() for found in reward(answers(school, finished=[[True, False], [True]]))] == [[3.0, -9.0],
                                                                                                       [5.0]]
    asked, key = server.asked[-1]
    assert asked["row"]["id"] == "p1" and asked["responses"] == ["hello"] and asked["finished"] == [
        True
    ] and key == "Bearer secret"


@pytest.mark.parametrize("fault, message", [((200, {"scores": [1.0]}), "2 finite numbers were expected"),
                                            ((200, {"scores": [1.0, float("nan")]}), "2 finite numbers were expected"),
                                            ((403, {"error": "no"}), "status 403"), ((302, {}), "status 302"),
                                            ((307, {}), "status 307")])
def test_an_address_that_misbehaves_is_said_with_the_prompt(school, server, fault, message):
    server.faults = [fault] * 9
    reward = EndpointReward(RewardEndpoint(address=server.address, pause=0.0, tries=2, workers=1))
    with pytest.raises(TriviumError, match=f"reward: at prompt 'p0': .*{message}"):
        reward(answers(school))
    assert [asked["row"]["id"]
            for asked, _ in server.asked].count("p0") == 1  # neither asked again, nor asked where it redirects to


def test_an_address_that_is_silent_is_said_with_the_prompt(school, server):
    server.faults = [(503, {})] * 9
    with pytest.raises(TriviumError, match="at prompt 'p0': .*status 503"):
        EndpointReward(RewardEndpoint(address=server.address, pause=0.0, tries=2, workers=1))(answers(school))
    with pytest.raises(TriviumError, match="at prompt 'p0': .*127.0.0.1:9"):
        EndpointReward(RewardEndpoint(address="http://127.0.0.1:9/s", pause=0.0, tries=2))(answers(school))


@pytest.mark.parametrize("function, message", [("raises", "ValueError: the file of answers is gone"),
                                               ("hangs", r"within 0.5 seconds; raise `reward.mine.seconds`"),
                                               ("short", "2 finite numbers were expected"),
                                               ("nothing", "2 finite numbers were expected"),
                                               ("absent", "there is no 'absent'")])
def test_a_function_that_misbehaves_ends_it_and_names_the_prompt(school, own, function, message):
    term = RewardTerm.model_validate({"function": f"{own}:{function}", "seconds": 0.5 if function == "hangs" else 20})
    with loaded({"mine": term}, {}) as reward, pytest.raises(TriviumError,
                                                             match=rf"(?s)reward.mine .*prompt 'p0'.*{message}"):
        reward(answers(school))


def test_a_weighted_sum_tells_its_parts(school, own):
    terms = {
        "long": RewardTerm.model_validate({"function": f"{own}:length", "weight": 0.5}),
        "right": RewardTerm.model_validate({"function": "number",
                                            "weight": -2.0}), "liked": RewardTerm.model_validate({"model": "reward"})
    }
    given = answers(school, [("0", "12"), ("123",)])
    liked = loaded("reward", school / "reward")(given)
    with loaded(terms, {"liked": {"model": school / "reward"}}) as reward:
        found = reward(given)
    np.testing.assert_allclose(found[0], [0.5 * 1 - 2.0 + liked[0][0], 0.5 * 2 + liked[0][1]], rtol=1e-6)
    assert {name: [part.tolist()
                   for part in parts]
            for name, parts in given.parts.items()
            if name != "liked"} == {"long": [[1.0, 2.0], [3.0]], "right": [[1.0, 0.0], [0.0]]}


@pytest.fixture
def judges(school, tmp_path):
    """Three reward models that differ in their heads."""
    folders = []
    for number in range(3):
        model, tokenizer = load_reward_model(school / "reward")
        with torch.no_grad():
            model.score.weight.mul_(1 + number).roll(number)
        model.shift = 0.3 * number
        folders.append(tmp_path / f"judge-{number}")
        folders[-1].mkdir()
        save_model(model, tokenizer, folders[-1])
    return folders


@pytest.mark.parametrize("more, together", [
    ({}, lambda scores: sum(scores) / 3),
    ({"combine": "worst"}, lambda scores: min(scores)),
    ({"combine": "uncertainty", "uncertainty": 0.5},
     lambda scores: sum(scores) / 3 - 0.5 * sum((one - sum(scores) / 3)**2 for one in scores) / 3)])
def test_an_ensemble_of_models_is_combined_response_by_response(school, judges, more, together):
    given = answers(school, [("0", "12"), ("123",)])
    alone = [loaded(str(folder), folder)(given) for folder in judges]
    assert len({float(scores[0][0]) for scores in alone}) == 3
    term = RewardTerm.model_validate({"models": list(map(str, judges)), "weight": 2.0, **more})
    with loaded({"liked": term}, {"liked": {"models": judges}}) as reward:
        found = reward(given)
    for prompt, scores in enumerate(found):
        expected = [together([float(one[prompt][k]) for one in alone]) for k in range(len(scores))]
        assert given.parts["liked"][prompt].tolist() == pytest.approx(expected)
        assert scores.tolist() == pytest.approx([2 * one for one in expected])


def test_ppo_learns_from_an_ensemble(school, judges, tmp_path, precision):
    place, _ = context(school, tmp_path / "run", reward={"liked": {"models": judges}})
    Ppo(**FEW | {"precision": precision}, unfinished_score=None,
        reward={"liked": {"models": list(map(str, judges)), "combine": "worst"}}).run(place)
    assert all(row["score"] == pytest.approx(row["score_liked"], abs=1e-5) for row in lines(tmp_path / "run"))


def test_what_an_ensemble_adds_stands_in_no_other_rewards_key(school):
    plain = Ppo(reward={"liked": {"model": "judge"}})
    assert plain.learned()["reward"]["liked"].keys() == {"function", "endpoint", "weight", "seconds"}
    both = {how: Ppo(reward={"liked": {"models": ["a", "b"], "combine": how}}) for how in ("mean", "uncertainty")}
    assert both["mean"].learned() != both["uncertainty"].learned()
    assert [name for name in both["mean"].references() if name[0].startswith("reward")] == [
        ("reward.liked.models.0", "a"), ("reward.liked.models.1", "b")]
    for stage in (plain, *both.values()):
        assert Ppo.model_validate(stage.model_dump(mode="json")) == stage  # as the processes of a run are told


def test_ppo_learns_from_a_sum_and_logs_its_parts(school, tmp_path, own, server):
    place, _ = context(school, tmp_path, reward={"helpful": {"model": school / "reward"}})
    Ppo(**FEW,
        reward={
            "helpful": {"model": "reward"}, "short": {"function": f"{own}:length", "weight": -0.1},
            "judge": {"endpoint": {"address": server.address}, "weight": 0.25}
        },
        unfinished_score=None).run(place)
    for line in lines(tmp_path):
        assert line["score"] == pytest.approx(line["score_helpful"] - 0.1 * line["score_short"] +
                                              0.25 * line["score_judge"],
                                              abs=1e-5)
    assert len(server.asked) == 16


def test_what_never_ends_gets_the_fixed_score_whoever_judges(school, tmp_path, own):
    """A ``reward`` and grpo's ``checker`` alike; null leaves it to them."""
    few = GROUPS | {"iterations": 1, "max_new_tokens": 1}
    scores = []
    for name, settings in (("reward", {"reward": f"{own}:length"}), ("checker", {"checker": f"{own}:length"}),
                           ("left", {"reward": f"{own}:length", "unfinished_score": None}),
                           ("free", {"checker": f"{own}:length", "unfinished_score": None}),
                           ("set", {"checker": f"{own}:length", "unfinished_score": -7.0})):
        place, _ = context(school, tmp_path / name, reward=None)
        Grpo(**few, **settings).run(place)
        scores.append(lines(tmp_path / name)[0])
    assert all(line["finished"] < 0.5 for line in scores)
    fixed, checked, left, free, given = (line["score"] for line in scores)
    ended = scores[0]["finished"]
    assert fixed == checked and left == free > 0 and fixed < free and fixed - given == pytest.approx((1 - ended) * 6.0)


def captured(school, tmp_path, monkeypatch, settings, **inputs):
    """The models that a run of PPO begins with, before they are trained."""
    seen, real = [], ppo.PolicyTraining

    def kept(rollouts, pair, *rest, **more):
        seen.append([{name: weight.detach().clone()
                      for name, weight in part.named_parameters()}
                     for part in (pair.policy, pair.value)])
        return real(rollouts, pair, *rest, **more)

    monkeypatch.setattr(ppo, "PolicyTraining", kept)
    place, _ = context(school, tmp_path, **inputs)
    Ppo(**FEW | {"iterations": 1}, **settings).run(place)
    return seen[0]


def test_without_a_reward_model_the_value_model_is_the_policy_under_a_new_head(school, tmp_path, monkeypatch, own):
    policy, value = captured(school, tmp_path, monkeypatch, {"reward": f"{own}:length"}, reward=None)
    assert all(torch.equal(weight, policy[name]) for name, weight in value.items() if name != "score.weight")
    assert value["score.weight"].std() > 0 and value["score.weight"].shape == (1, 32)
    assert len(lines(tmp_path)) == 1


def test_the_value_model_may_start_from_another_reward_model(school, tmp_path, monkeypatch, own):
    _, value = captured(school,
                        tmp_path,
                        monkeypatch, {"reward": f"{own}:length", "value": "reward"},
                        reward=None,
                        value=school / "reward")
    judge, _ = load_reward_model(school / "reward")
    assert all(torch.equal(weight, value[name]) for name, weight in judge.named_parameters())


def test_adapters_are_trained_for_a_function_too(school, tmp_path, own):
    place, said = context(school, tmp_path, reward=None)
    Ppo(**FEW, reward=f"{own}:length", adapter={"rank": 2}, optimization={"learning_rate": 0.01}).run(place)
    first, second = lines(tmp_path)
    assert first["kl"] == pytest.approx(0, abs=1e-5) and second["kl"] != first["kl"]
    assert sum("parameters are trained" in text for text in said) == 2


def test_the_best_of_many_by_a_function(school, tmp_path, own):
    place, _ = context(school, tmp_path, reward=None)
    Select(samples=4, count=20, max_new_tokens=12, length=64, reward=f"{own}:length").run(place)
    rows = [json.loads(line) for line in (tmp_path / "demonstrations.jsonl").read_text().splitlines()]
    assert rows and all(row["score"] == len(row["messages"][-1]["content"]) for row in rows)
    worst = [json.loads(line) for line in (tmp_path / "comparisons.jsonl").read_text().splitlines()]
    assert all(len(row["responses"][0]) >= len(row["responses"][1]) or not row["finished"][1] for row in worst)


def test_the_inputs_of_a_reward_are_found_wherever_they_stand(own, tmp_path):
    def inputs(reward):
        stage = Ppo(reward=reward)
        return [name for name in stage.references() if name[0].startswith("reward")], dict(stage.code()), stage

    assert inputs("judge")[0] == [("reward", "judge")] and not inputs("judge")[1]
    assert inputs("number")[0] == inputs("http://127.0.0.1:1/s")[0] == []
    found, code, _ = inputs(f"{own}:length")
    assert found == [] and list(code) == ["reward.own.py"]
    found, code, stage = inputs({
        "helpful": {"model": "judge"}, "short": {"function": f"{own}:length"},
        "asked": {"endpoint": {"address": "http://h"}}
    })
    assert found == [("reward.helpful.model", "judge")] and list(code) == ["reward.short.function.own.py"]
    places = {"model": tmp_path, "prompts": tmp_path, "reward.helpful.model": tmp_path / "j"}
    assert nested(stage,
                  places) == {"model": tmp_path, "prompts": tmp_path, "reward": {"helpful": {"model": tmp_path / "j"}}}


def test_what_decides_a_reward_besides_its_inputs_is_learned(own):
    assert "reward" not in Ppo(reward="judge").learned() and "reward" not in Grpo().learned()
    assert Ppo(reward="number").learned()["reward"] == "number"
    one, other = (Ppo(reward={"helpful": {"model": name, "weight": 2.0}}).learned() for name in ("judge", "moved"))
    assert one == other and one["reward"]["helpful"]["weight"] == 2.0
    assert one != Ppo(reward={"helpful": {"model": "judge", "weight": 1.0}}).learned()


@pytest.mark.parametrize("reward, message",
                         [({"a": {}}, "a term of a reward is one of"),
                          ({"a": {"model": "m", "function": "number"}}, "a term of a reward is one of"),
                          ({"a": {"models": ["m"]}}, "two `models` or more"),
                          ({"a": {"models": ["m", "n"], "model": "m"}}, "a term of a reward is one of"),
                          ({"a": {"model": "m", "combine": "worst"}}, "`combine` says how several"),
                          ({"a": {"models": ["m", "n"], "uncertainty": 1}}, "`uncertainty` weighs the variance"),
                          ({"a": {"models": ["m", "n"], "combine": "least"}}, "mean"),
                          ({}, "at least 1 item"), ({"a": {"endpoint": {"address": "ftp://h"}}}, "is no http"),
                          ({"a": {"modle": "m"}}, "modle"), (3, "valid dictionary"),
                          ("ftp://x", "'ftp://x' is no http"), ("own.py:", "name a function in it as own.py:NAME"),
                          ("own.py:a b", "name a function in it as own.py:NAME")])
def test_settings_that_are_no_reward_are_refused(reward, message):
    with pytest.raises(ValidationError, match=message):
        Ppo(reward=reward)


@pytest.mark.parametrize(
    "reward, message", [("{a: {modle: x}}", r"stages.ppo.reward.a.modle: unknown setting; did you mean 'model'\?"),
                        ("{a: {model: x, weight: much}}", 'stages.ppo.reward.a.weight is "much"; it must be a number'),
                        ("{a: {endpoint: {addres: x}}}", "stages.ppo.reward.a.endpoint"),
                        ("ftp://x", r"stages.ppo.reward: 'ftp://x' is no http\(s\) address"),
                        ("rewards.py", "stages.ppo.reward: 'rewards.py' .*name a function in it as rewards.py:NAME"),
                        ("judge", "no earlier stage and no file is called 'judge'")])
def test_a_fault_in_a_recipes_reward_is_told_with_its_place(school, tmp_path, reward, message):
    (tmp_path / "r.yaml").write_text(
        f"name: r\nstages:\n  ppo: {{model: {school}/sft, prompts: {school}/world, reward: {reward}}}\n")
    with pytest.raises(TriviumError, match=message):
        load_recipe(tmp_path / "r.yaml")
