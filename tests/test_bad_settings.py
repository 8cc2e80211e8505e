"""Every setting of every stage is given every kind of wrong value: each is refused in one plain line that names it."""

from __future__ import annotations

from dataclasses import is_dataclass

import pytest
from pydantic import BaseModel

from trivium.errors import TriviumError
from trivium.generation.endpoint import Endpoint
from trivium.recipe.load import _annotations, _models_in, parse_recipe, parse_stage
from trivium.stages.registry import BUILT_IN, Stages, built_in

WRONG = ["many", None, [], ["x"], {}, {"x": 1}, -1, float("nan"), float("inf"), 10**30, 1e300, True, "", 0, "/", 1.5,
         "é中", {"model": 3}, [None], [{}], "3x", "null\n"]

FOREIGN = ["Traceback", "Input should be", "NoneType", "expected string", "has no attribute", "pydantic", "KeyError",
           "site-packages", "instance of", "dictionary", "<class", "unable to parse", "valid integer", "Error:"]
"""Words of Python and its libraries."""


def groups(settings, prefix=()):
    """Every place of settings within a class of settings, and the class there."""
    yield prefix, settings
    for name, annotation in _annotations(settings).items():
        inner = next(_models_in(annotation), None)
        if inner is not None and (is_dataclass(inner) or issubclass(inner, BaseModel)) and len(prefix) < 3:
            yield from groups(inner, (*prefix, name))


def nested(place, value):
    for part in reversed(place):
        value = {part: value}
    return value


@pytest.mark.parametrize("kind", BUILT_IN)
def test_wrong_settings_are_refused_in_plain_words(kind):
    known, refused = Stages(), 0
    for prefix, settings in groups(built_in(kind)):
        for name in _annotations(settings):
            for value in WRONG:
                try:
                    parse_stage(kind, nested((*prefix, name), value), known)
                except TriviumError as error:
                    said = str(error)
                    refused += 1
                    assert said.startswith(f"stages.{kind}"), said
                    assert "\n" not in said and not any(word in said for word in FOREIGN), said
    assert refused > 20


NUMBERS = [True, float("nan"), float("inf"), -float("inf"), 10**30, 1e300, "many", [1], {"a": 1}, -1]


@pytest.mark.parametrize("setting", [
    "sft.rows", "sft.length", "sft.epochs", "sft.optimization.learning_rate", "sft.optimization.warmup",
    "sft.optimization.patience", "ppo.kl_coefficient", "ppo.gamma", "ppo.lam", "ppo.kl_horizon",
    "ppo.value_coefficient", "grpo.samples", "dpo.beta", "kto.beta", "preferences.count", "evaluate.max_new_tokens",
    "sft.adapter.rank", "pretrain.model.hidden_size", "imports.demonstrations_limit", "tokenizer.vocab_size",
    "world.size.people",
])
@pytest.mark.parametrize("value", NUMBERS, ids=str)
def test_what_is_no_number_of_that_kind_is_refused(setting, value):
    kind, *place = setting.split(".")
    with pytest.raises(TriviumError, match=rf"^stages.{kind}.*{place[-1]}\b"):
        parse_stage(kind, nested(place, value), Stages())


@pytest.mark.parametrize(("kind", "settings", "message"), [
    ("sft", {"rows": "many"}, 'stages.sft.rows is "many"; it must be a whole number'),
    ("sft", {"rows": 0}, "stages.sft.rows is 0; it must be at least 1"),
    ("sft", {"rows": True}, "stages.sft.rows is true; it must be a number"),
    ("sft", {"prompt_loss": float("inf")}, "stages.sft.prompt_loss is .inf; it must be a finite number"),
    ("sft", {"track": "perhaps"}, 'stages.sft.track is "perhaps"; it must be true or false or a list'),
    ("sft", {"optimization": {"schedule": "cosin"}},
     'stages.sft.optimization.schedule is "cosin"; it must be one of constant, cosine, linear, wsd, plateau; '
     "did you mean 'cosine'?"),
    ("sft", {"optimization": {"warmup": 2}}, "stages.sft.optimization: warmup is 2.0; it must lie between 0 and 1"),
    ("sft", {"optimization": [1]}, "stages.sft.optimization is [1]; it must be a mapping of settings"),
    ("sft", {"learning_rate": 1e-4},
     "stages.sft.learning_rate: unknown setting; did you mean 'optimization.learning_rate'?"),
    ("sft", {"dataset": "x.jsonl"}, "stages.sft.dataset: unknown setting; did you mean 'demonstrations'?"),
    ("dpo", {"dataset": "x.jsonl"}, "stages.dpo.dataset: unknown setting; did you mean 'preferences'?"),
    ("dpo", {"cutoff_len": 9}, "stages.dpo.cutoff_len: unknown setting; did you mean 'length'?"),
    ("evaluate", {"models": {"a": "sft"}, "shots": 2},
     "stages.evaluate: `demonstrations` and `shots` are shown to a pretrained model alone, to which the questions "
     "would be new; name it as `base`, or leave them out"),
    ("evaluate", {"models": ["a"]}, 'stages.evaluate.models is ["a"]; it must be a mapping of settings'),
    ("ppo", {"reward": {"a": {"model": "x", "weight": "much"}}},
     'stages.ppo.reward.a.weight is "much"; it must be a number'),
    ("ai_feedback", {"endpoint": {"model": "m"}}, "stages.ai_feedback.endpoint.address: this setting is needed"),
    ("pretrain", {"model": "Qwen2.5-0.5B"},
     "stages.pretrain.model is 'Qwen2.5-0.5B', but it holds the sizes of a new model, such as {num_layers: 6}: this "
     "stage begins with random weights; `pretrain` goes on from a model that `from` names, and so do `sft` and the "
     "stages that follow"),
])
def test_the_words(kind, settings, message):
    with pytest.raises(TriviumError) as caught:
        parse_stage(kind, settings, Stages())
    assert str(caught.value) == message


@pytest.mark.parametrize("raw", [
    None, [], "text", 3, {"name": "x"}, {"name": "x", "stages": []}, {"name": "x", "stages": {"sft": []}},
    {"name": "x", "stages": {"sft": {"kind": ["sft"]}}}, {"name": ["x"], "stages": {}}, {"name": 3, "stages": {}},
    {"stages": {}}, {"name": "x", "seed": "s", "stages": {}}, {"name": "x", "threads": "all", "stages": {}},
    {"name": "x", "plugins": "p.py", "stages": {}}, {"name": "x", "nmae": 1, "stages": {}},
    {"name": "x", "stages": {"sft": {"model": ""}}}, {"name": "x", "stages": {"sft": {"model": "a" * 5000}}},
    {"name": "x", "stages": {"sft": {"model": "a\0b"}}}, {"name": "x", "stages": {3: {"kind": 3}}},
    {"name": "x", "stages": {"rounds": {"count": 2, "model": "a", "last": "b", "stages": {"b": 3}}}},
    {"name": "x", "stages": {"rounds": {"count": 2, "model": "a", "last": "b",
                                        "stages": {"b": {"kind": "select", "count": "many", "skip": []}}}}},
], ids=lambda raw: str(raw)[:60])
def test_what_is_no_recipe_is_refused_in_plain_words(raw, tmp_path):
    with pytest.raises(TriviumError) as caught:
        parse_recipe(raw, tmp_path / "r.yaml")
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "r.yaml")) and "\n" not in said
    assert not any(word in said for word in FOREIGN), said


def test_a_password_in_an_address_is_refused_and_never_said():
    with pytest.raises(TriviumError) as caught:
        parse_stage("ai_feedback", {"endpoint": {"address": "https://me:hunter2@judge.example/v1", "model": "m"}},
                    Stages())
    assert "https://judge.example/v1 is given with a name and a password" in str(caught.value)
    with pytest.raises(TriviumError) as again:
        Endpoint("https://me:hunter2@judge.example/v1", "m")
    assert "hunter2" not in str(caught.value) + str(again.value)
