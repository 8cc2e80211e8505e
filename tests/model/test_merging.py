"""Models merged into one: against PEFT's functions, by hand in float64, as properties, and as folders."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.utils import merge_utils
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, RewardModel, folder
from trivium.model.merging import Mixing, agreed, largest, mixed, slerp, thinned, write_mixed
from trivium.stages.models import merge_models

CONFIG = ModelConfig(vocab_size=48, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2,
                     head_dim=8, max_positions=64)
IDS = {"eos": 1, "pad": 0}


def some(count=3, shape=(7, 11), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
def test_ties_and_task_arithmetic_are_pefts(density):
    base, *tensors = some(4)
    learned = [tensor - base for tensor in tensors]
    weights = (0.5, 1.25, 1.0)
    ours = mixed(tensors, base, Mixing("ties", weights, density)) - base
    theirs = merge_utils.ties(learned, torch.tensor(weights), density)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    ours = mixed(tensors, base, Mixing("task_arithmetic", weights)) - base
    torch.testing.assert_close(ours, merge_utils.task_arithmetic(learned, torch.tensor(weights)), rtol=0, atol=2e-6)


def test_ties_by_hand():
    """Numbers of which the largest half is kept; signs are elected by the sum; the mean is of those that agree."""
    base = torch.zeros(4)
    tensors = [torch.tensor([3.0, -2.0, 1.0, 0.5]), torch.tensor([-1.0, -4.0, 0.2, 5.0])]
    # kept: [3, -2, 0, 0] and [0, -4, 0, 5]
    assert mixed(tensors, base, Mixing("ties", density=0.5)).tolist() == [3.0, -3.0, 0.0, 5.0]


def test_an_arc_in_float64():
    one, other = some(2)
    for share in (0.0, 0.25, 0.7, 1.0):
        a, b = one.double().flatten(), other.double().flatten()
        angle = math.acos(float(a @ b / (a.norm() * b.norm())))
        wanted = (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
        torch.testing.assert_close(slerp(one, other, share).double().flatten(), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(slerp(one, 1.0001 * one, 0.5), 1.00005 * one, rtol=1e-6, atol=1e-6)
    assert slerp(torch.zeros(3), torch.ones(3), 0.5).tolist() == [0.5] * 3


@given(st.integers(0, 2**31), st.floats(0.05, 1.0), st.integers(1, 4))
def test_what_always_holds(seed, density, count):
    base, *tensors = some(count + 1, (5, 9), seed)
    learned = [tensor - base for tensor in tensors]
    kept = largest(learned[0], density)
    assert int((kept != 0).sum()) == max(1, int(density * 45))
    assert float((learned[0] - kept).abs().max()) <= float(kept[kept != 0].abs().min())
    found = agreed(learned, [1.0] * count)
    lows, highs = torch.stack(learned).min(0).values, torch.stack(learned).max(0).values
    assert bool(((found >= lows - 1e-6) & (found <= highs + 1e-6)).all())
    same = mixed([tensors[0]] * 2, None, Mixing("slerp"))
    torch.testing.assert_close(same, tensors[0], rtol=1e-6, atol=1e-6)
    alone = mixed([tensors[0]] * 3, base, Mixing("ties", density=1.0))
    torch.testing.assert_close(alone, tensors[0], rtol=0, atol=1e-5)


def test_what_is_dropped_at_random_is_the_same_in_the_mean_and_named_by_its_seed():
    vector = torch.ones(200_000)
    thin = thinned(vector, 0.3, 7)
    assert thin.unique().tolist() == pytest.approx([0.0, 1 / 0.3])
    assert float(thin.mean()) == pytest.approx(1, abs=5 * math.sqrt(0.7 / 0.3 / 200_000))
    assert torch.equal(thin, thinned(vector, 0.3, 7)) and not torch.equal(thin, thinned(vector, 0.3, 8))
    base, *tensors = some(3)
    one, again, other = (mixed(tensors, base, Mixing("dare", seed=seed), "x") for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    torch.testing.assert_close(mixed(tensors, base, Mixing("dare", density=1.0), "x"),
                               mixed(tensors, base, Mixing("task_arithmetic")), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("mixing", "models", "base", "message"), [
    (Mixing("tie"), 2, True, "no such way to merge.*did you mean.*ties"), (Mixing(), 1, False, "merges several models"),
    (Mixing("slerp"), 3, False, "slerp merges two models; 3"), (Mixing("ties"), 2, False, "name the --base"),
    (Mixing(weights=(1.0,)), 2, False, "1 for 2 models"), (Mixing(weights=(1.0, -1.0)), 2, False, "none below 0"),
    (Mixing(weights=(0.0, 0.0)), 2, False, "not all 0"),
    (Mixing(weights=(1.0, math.nan)), 2, False, "must be a number"),
    (Mixing(density=0.5), 2, False, "belongs to ties"), (Mixing("ties", density=0.0), 2, True, "above 0"),
])
def test_what_does_not_fit_is_refused(mixing, models, base, message):
    with pytest.raises(TriviumError, match=message):
        mixing.check(models, base)


def saved(place, seed, config=CONFIG, kind=LanguageModel, dtype=torch.float32, **more):
    torch.manual_seed(seed)
    model = kind(config, **more).to(dtype)
    if kind is LanguageModel:
        model.initialise(seed)
    folder.save(model, place, IDS)
    return place


def test_a_merged_folder_is_one_of_the_hub_and_holds_the_mean(tmp_path):
    one, other = (saved(tmp_path / name, seed) for seed, name in enumerate("ab"))
    out = tmp_path / "out"
    merge_models([one, other], out, Mixing(weights=(3.0, 1.0)))
    first, second, found = (load_file(place / "model.safetensors") for place in (one, other, out))
    assert found.keys() == first.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.75 * first[name] + 0.25 * second[name], rtol=0, atol=1e-6)
    tokens = torch.tensor([[3, 5, 7]])
    theirs = AutoModelForCausalLM.from_pretrained(out)(tokens).logits
    torch.testing.assert_close(folder.load(out)(tokens), theirs, rtol=0, atol=1e-4)
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["settings"] == {"method": "linear", "weights": [0.75, 0.25], "seed": 0}
    assert set(manifest["inputs"]) == {"model 1", "model 2"}
    with pytest.raises(TriviumError, match="holds something already"):
        merge_models([one, other], out, Mixing())


def test_formats_are_the_first_models_or_asked_for(tmp_path):
    one, other = saved(tmp_path / "a", 0, dtype=torch.bfloat16), saved(tmp_path / "b", 1)
    for dtype, wanted in (("base", torch.bfloat16), ("float32", torch.float32)):
        out = tmp_path / dtype
        merge_models([one, other], out, Mixing("slerp"), save_dtype=dtype)
        assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {wanted}
        assert json.loads((out / "config.json").read_bytes())["dtype"] == str(wanted)[6:]


def test_reward_models_have_their_shifts_averaged(tmp_path):
    one, other = (saved(tmp_path / str(shift), seed, kind=RewardModel, shift=shift)
                  for seed, shift in enumerate((1.0, 4.0)))
    merge_models([one, other], tmp_path / "out", Mixing())
    assert folder.load(tmp_path / "out").shift == 2.5


def test_models_that_do_not_fit_are_refused(tmp_path):
    one = saved(tmp_path / "a", 0)
    wide = saved(tmp_path / "b", 1, ModelConfig(**{**CONFIG.__dict__, "intermediate_size": 64}))
    with pytest.raises(TriviumError, match=r"b: config.json says intermediate_size: 64, and that of .*a 48"):
        merge_models([one, wide], tmp_path / "out", Mixing())
    judge = saved(tmp_path / "c", 1, kind=RewardModel)
    with pytest.raises(TriviumError, match="c: config.json says"):
        merge_models([one, judge], tmp_path / "out", Mixing())
    for place, entries in ((one, {"a": 0}), (tmp_path / "d", {"b": 0})):
        place.mkdir(exist_ok=True)
        (place / "tokenizer.json").write_text(json.dumps({"model": {"vocab": entries}}))
    saved(tmp_path / "d", 1)
    with pytest.raises(TriviumError, match="d: its tokenizer has other entries"):
        merge_models([one, tmp_path / "d"], tmp_path / "out", Mixing())
    assert not (tmp_path / "out").exists()
    broken = load_file(one / "model.safetensors") | {"model.norm.weight": torch.full((32,), math.nan)}
    from safetensors.torch import save_file
    saved(tmp_path / "e", 2)
    save_file(broken, tmp_path / "e/model.safetensors")
    (one / "tokenizer.json").unlink()
    with pytest.raises(TriviumError, match="model.norm.weight: the mixture holds numbers that are none"):
        write_mixed([one, tmp_path / "e"], None, Mixing(), tmp_path / "f", None)


def test_the_command(tmp_path):
    from trivium.cli.app import app
    one, other, base = (str(saved(tmp_path / name, seed)) for seed, name in enumerate("abc"))
    told = CliRunner().invoke(app, ["merge", one, other, str(tmp_path / "out"), "--method", "ties", "--base", base,
                                    "--weights", "1,0.5", "--density", "0.3"])
    assert told.exit_code == 0, told.output
    assert json.loads((tmp_path / "out/manifest.json").read_bytes())["settings"]["density"] == 0.3
    wrong = CliRunner().invoke(app, ["merge", one, other, str(tmp_path / "no"), "--weights", "1;2"])
    assert wrong.exit_code and "numbers with commas" in str(wrong.exception)
