"""Losses and judges of the user's own, in the stages that take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig
from trivium.objectives import preference
from trivium.pipeline.one_stage import plan
from trivium.progress import Progress
from trivium.recipe.load import load_recipe
from trivium.stage import Context
from trivium.stages.models import prompt_ids, response_ids, save_model
from trivium.stages.preferences import reference
from trivium.stages.preferences.ai_feedback import AiFeedback
from trivium.stages.preferences.dpo import Dpo
from trivium.stages.preferences.revise import Revise
from trivium.stages.preferences.reward import Reward
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree, make_batch
from trivium.training.next_token import LanguageModeling
from trivium.training.optimizers import Optimization
from trivium.training.trainer import Trainer

FEW = {"length": 64, "rows": 2, "precision": "float32"}
OWN = """
import torch
from trivium.objectives.preference import preference_loss

def sigmoid(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta, scale=1.0):
    margins = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    return -torch.nn.functional.logsigmoid(scale * margins)

@preference_loss("stage_simple", reference=False)
def simple(policy_chosen, policy_rejected, beta, gamma=0.5):
    return -torch.nn.functional.logsigmoid(beta * (policy_chosen - policy_rejected) - gamma)

def wrong(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta): return policy_chosen.mean()
def ranking(chosen, rejected, margins): return -torch.nn.functional.logsigmoid(chosen - rejected - margins)
def shorter(prompt, first, second, principle): return float(len(first) < len(second))
"""


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    folder = tmp_path_factory.mktemp("school")
    tokenizer = ChatTokenizer(
        tokenizer_training.train(["please say hello to the cat.", "no thanks, it is yes."] * 9, 300))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=1,
                         num_heads=2, num_kv_heads=1, head_dim=16, max_positions=128)
    policy = LanguageModel(config).initialise(0)
    trainer = Trainer(policy, Optimization(learning_rate=5e-3), 40, "float32")
    trees = [Tree(prompt_ids(tokenizer, [{"role": "user", "content": f"say {n}"}]), (response_ids(tokenizer, text),))
             for n in range(8) for text in ("yes", "no thanks", "hello")]
    for step in range(40):  # until most answers end
        trainer.step(step, [make_batch([[tree] for tree in trees], 64)], LanguageModeling())
    (folder / "sft").mkdir()
    save_model(policy, tokenizer, folder / "sft")
    (folder / "world").mkdir()
    write_rows(folder / "world/prompts.jsonl",
               [{"id": n, "prompt": [{"role": "user", "content": f"say {n}"}]} for n in range(8)])
    (folder / "ranked").mkdir()
    write_rows(folder / "ranked/comparisons.jsonl", [{
        "prompt": [{"role": "user", "content": f"say {n}"}], "responses": ["yes", "no no", "it is"],
        "ratings": [1 + n % 7, 4, 6], "ranking": [[n % 3], [(n + 1) % 3,
                                                            (n + 2) % 3]], "split": "heldout" if n % 4 == 0 else "train"
    } for n in range(12)])
    return folder


@pytest.fixture
def own(tmp_path, monkeypatch):
    # what a file registers goes again
    monkeypatch.setattr(preference, "PREFERENCE_LOSSES", dict(preference.PREFERENCE_LOSSES))
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def run(school, stage, folder):
    folder.mkdir(parents=True)
    places = {"model": school / "sft", "preferences": school / "ranked", "prompts": school / "world"}
    context = Context("r", "own", 0, places, folder, folder / "scratch", Progress(quiet=True), 1)
    summary = stage.run(context)
    return summary, (folder / "model.safetensors").read_bytes() if (folder / "model.safetensors").exists() else b""


def test_a_loss_of_ones_own_learns_as_the_built_in_one(school, own, tmp_path):
    _, built_in = run(school, Dpo(**FEW), tmp_path / "a")
    _, same = run(school, Dpo(**FEW, loss=f"{own}:sigmoid"), tmp_path / "b")
    _, scaled = run(school, Dpo(**FEW, loss=f"{own}:sigmoid", loss_options={"scale": 3.0}), tmp_path / "c")
    assert same == built_in != scaled
    _, ranking = run(school, Reward(**FEW, margin=0.2), tmp_path / "d")
    _, own_ranking = run(school, Reward(**FEW, margin=0.2, loss=f"{own}:ranking"), tmp_path / "e")
    assert ranking == own_ranking


def test_simpo_takes_means_no_reference_and_its_own_beta(school, own, tmp_path):
    """What is declared of it is what its settings written out would say."""
    summary, named = run(school, Dpo(**FEW, loss="simpo"), tmp_path / "a")
    _, spelt = run(school, Dpo(**FEW, loss=f"{own}:simple", length_normalised=True, beta=2.0,
                               loss_options={"gamma": 1.0}), tmp_path / "b")
    assert named == spelt and "kl" not in summary
    _, other = run(school, Dpo(**FEW, loss="simpo", beta=1.0), tmp_path / "c")
    assert other != named


def test_the_hinge_loss_learns(school, tmp_path):
    summary, _ = run(school, Dpo(**FEW, loss="hinge", epochs=20, optimization=Optimization(learning_rate=3e-3)),
                     tmp_path / "a")
    log = [json.loads(line) for line in (tmp_path / "a/log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(1.0, abs=1e-5) and summary["loss"] < 0.9  # the first margins are 0


def test_a_loss_without_a_reference_measures_none(school, own, tmp_path, monkeypatch):
    measured, map_trees = [], reference.map_trees
    monkeypatch.setattr(
        reference, "map_trees",
        lambda compute, trees, *rest, **more: measured.append(len(trees)) or map_trees(compute, trees, *rest, **more))
    summary, _ = run(school, Dpo(**FEW, loss=f"{own}:simple", length_normalised=True), tmp_path / "a")
    assert measured == [3]  # the held-out rankings, once, after training
    assert summary["preference_accuracy"]["n"] == 3


def test_a_loss_of_the_wrong_shape_ends_the_run_with_its_name(school, own, tmp_path):
    with pytest.raises(TriviumError, match=rf"^{own}:wrong: a loss for each of the \d+ pairs was expected"):
        run(school, Dpo(**FEW, loss=f"{own}:wrong"), tmp_path / "a")


RECIPE = """
name: r
plugins: {plugins}
stages:
  dpo: {{model: {school}/sft, preferences: {school}/ranked, {dpo}}}
  reward: {{model: {school}/sft, preferences: {school}/ranked, loss: "{own}:ranking"}}
  ai_feedback: {{model: {school}/sft, prompts: {school}/world, judge: "{own}:shorter"}}
"""


def keys(school, own, dpo, plugins=()):
    place = own.parent / "r.yaml"
    place.write_text(RECIPE.format(school=school, own=own, dpo=dpo, plugins=json.dumps(list(map(str, plugins)))))
    recipe = load_recipe(place)
    return {name: plan(recipe, name, stage, {}, None).key for name, stage in recipe.stages.items()}


@pytest.mark.parametrize("dpo, plugin", [('loss: "{own}:sigmoid"', False), ("loss: stage_simple", True)])
def test_an_edited_file_makes_its_stages_anew(school, own, dpo, plugin):
    """Losses by file or by the name that a plugin gave them, and judges."""
    plugins = [own] if plugin else []
    before = keys(school, own, dpo.format(own=own), plugins)
    assert keys(school, own, dpo.format(own=own), plugins) == before
    own.write_text(OWN + "\n# edited\n")
    after = keys(school, own, dpo.format(own=own), plugins)
    assert all(after[name] != before[name] for name in ("dpo", "reward", "ai_feedback"))


def test_settings_that_are_not_used_leave_keys_as_they_were():
    assert "loss_options" not in Dpo().learned() and Dpo(label_smoothing=0.1).learned()["label_smoothing"] == 0.1
    assert "judge_seconds" not in AiFeedback().learned() and "judge" not in AiFeedback(judge="reward").learned()


@pytest.mark.parametrize(
    "dpo, message",
    [("loss: sigmoyd",
      "stages.dpo.loss: there is no preference loss 'sigmoyd' .*; did you mean 'sigmoid'"),
     ("loss: ipo, label_smoothing: 0.1", "stages.dpo.label_smoothing: ipo: it has no option 'label_smoothing'"),
     ("loss_options: {{scale: 2}}", "stages.dpo.loss_options: sigmoid: it has no option 'scale'"),
     ('loss: "{own}:ranking"', "stages.dpo.loss_options: .*own.py:ranking: too many positional arguments"),
     ('loss: "{own}:absent"', "there is no 'absent' in it")])
def test_a_loss_is_checked_when_the_recipe_is_read(school, own, dpo, message):
    with pytest.raises(TriviumError, match=message) as caught:
        keys(school, own, dpo.format(own=own))
    assert "\n" not in str(caught.value)


def test_an_unknown_loss_of_a_reward_model_is_refused():
    with pytest.raises(ValueError, match="there is no loss 'rankin' .*; did you mean 'ranking'"):
        Reward(loss="rankin")


def test_a_function_judges_ai_feedback(school, own, tmp_path):
    settings = AiFeedback(judge=f"{own}:shorter", responses=3, count=6, max_new_tokens=24, temperature=1.5)
    summary, _ = run(school, settings, tmp_path / "a")
    rows = [json.loads(line) for line in Path(tmp_path / "a/comparisons.jsonl").read_text().splitlines()]
    assert rows and summary["unread"] == 0
    for row in rows:
        lengths = [len(text) for text in row["responses"]]
        assert min(lengths) == min(lengths[index] for index in row["ranking"][0])
    assert "judge" not in dict(settings.references()) and settings.learned()["judge"] == f"{own}:shorter"
    assert dict(settings.code())["judge.own.py"] == own


def test_a_judge_without_a_file_is_said(school, tmp_path):
    with pytest.raises(TriviumError, match="judge absent.py:f: no such file"):
        run(school, AiFeedback(judge="absent.py:f"), tmp_path / "a")
    with pytest.raises(ValueError, match="a function judges, but cannot write"):
        Revise(judge="absent.py:f")


def test_gradients_of_a_loss_without_a_reference_flow(own):
    chosen, rejected = (torch.tensor([value], requires_grad=True) for value in (-3.0, -4.0))
    preference.find_preference_loss(f"{own}:simple")(chosen, rejected, None, None, 0.5).sum().backward()
    assert chosen.grad.item() < 0 < rejected.grad.item()
