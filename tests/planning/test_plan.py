"""Estimates of large runs, held to what was published and to what PyTorch counts."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trivium.cli.app import main
from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig
from trivium.planning.flops import forward_flops, parameters, shape_for, six_n_d, training_flops
from trivium.planning.known import INSTRUCTGPT_PETAFLOP_DAYS, PETAFLOP_DAY, RUNS, Alignment
from trivium.planning.memory import TRAINED, Layout, memory_per_gpu
from trivium.planning.plan import alignment_flops, estimate, make_plan, quantity
from trivium.planning.scaling import at, bootstrap, fit, ladder, run_ladder

SMALL = ModelConfig(vocab_size=300, hidden_size=48, intermediate_size=80, num_layers=2, num_heads=3, num_kv_heads=1,
                    head_dim=16)


@pytest.mark.parametrize(
    "change", [{}, {"tie_embeddings": False}, {"qk_norm": False}, {"qk_norm": False, "attention_bias": True}])
def test_parameters_are_those_of_the_model(change):
    config = dataclasses.replace(SMALL, **change)
    assert parameters(config) == sum(p.numel() for p in LanguageModel(config).parameters())


def test_operations_are_those_that_pytorch_counts():
    model = LanguageModel(SMALL).initialise(0)
    tokens = torch.zeros(2, 24, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH):  # the one whose products are all counted
        with FlopCounterMode(display=False) as counter:
            model(tokens)
        assert counter.get_total_flops() == 2 * 24 * forward_flops(SMALL, 24, causal=False)
        with FlopCounterMode(display=False) as counter:
            model(tokens).sum().backward()
        assert counter.get_total_flops() == 3 * 2 * 24 * forward_flops(SMALL, 24, causal=False)


def test_a_causal_or_sliding_window_needs_less():
    pairs = sum(min(i, 8) for i in range(1, 25)) / 24
    window = dataclasses.replace(SMALL, qk_norm=False, sliding_window=8)
    full, causal = forward_flops(SMALL, 24, causal=False), forward_flops(SMALL, 24)
    each = SMALL.num_layers * 4 * SMALL.num_heads * SMALL.head_dim
    assert full - causal == pytest.approx(each * (24 - 12.5)) and causal - forward_flops(window, 24) == pytest.approx(
        each * (12.5 - pairs))


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run.gpu_hours])
def test_known_runs_are_met_within_a_quarter(name):
    run = RUNS[name]
    found = estimate(make_plan(name, None, run.gpu, run.count))
    assert 0.75 < found["gpu_hours"] / run.gpu_hours < 1.25


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run.shape])
def test_the_shapes_of_known_runs_have_their_parameters(name):
    run = RUNS[name]
    assert parameters(run.shape) == pytest.approx(run.parameters, rel=0.01)
    assert training_flops(run.shape, run.tokens, run.length) == pytest.approx(six_n_d(run.parameters, run.tokens),
                                                                              rel=0.13)


def test_gpt_3_and_instructgpt_cost_what_was_published():
    gpt3 = RUNS["gpt-3"]
    found = estimate(make_plan("gpt-3", None, "v100", gpt3.count))
    assert found["flops"]["six_n_d"] == pytest.approx(3.14e23, rel=0.01)  # Brown et al., table D.1
    # Patterson et al., table 4
    assert found["days"] == pytest.approx(14.8, rel=0.25) and found["energy_mwh"] == pytest.approx(1287, rel=0.25)
    stages = {"pretraining": found["stages"][0]["flops"]} | alignment_flops(gpt3.parameters, Alignment())
    for stage, published in INSTRUCTGPT_PETAFLOP_DAYS.items():
        assert stages[stage] / PETAFLOP_DAY == pytest.approx(published, rel=0.25)
    shares = {row["stage"]: row["share"] for row in found["stages"]}
    assert shares["pretraining"] == pytest.approx(0.98, abs=0.005) and sum(shares.values()) == pytest.approx(1)


def test_the_rest_of_an_estimate_follows():
    found = estimate(make_plan("8B", "15T", "h100", 1024, price=3.0, reached=0.4))
    assert found["days"] == pytest.approx(found["flops"]["exact"] / (989e12 * 0.4 * 1024 * 86400))
    assert found["money"] == pytest.approx(3 * found["gpu_hours"]) and found["books"] == pytest.approx(15e12 / 67_000)
    assert estimate(make_plan("1B", "1T", "h100", 8))["books"] == pytest.approx(15e6, rel=0.01)  # a trillion tokens
    assert found["compute_optimal"]["tokens_for_these_parameters"] == 160e9
    best = found["compute_optimal"]
    assert 6 * best["parameters_for_this_compute"] * best["tokens_for_this_compute"] == pytest.approx(
        found["flops"]["exact"])


@pytest.mark.parametrize("wanted", [5e6, 1e8, 1e9, 8e9, 70e9, 405e9])
def test_a_shape_for_a_size_has_about_that_size(wanted):
    config = shape_for(wanted)
    assert parameters(config) == pytest.approx(wanted, rel=0.05) and config.hidden_size % config.head_dim == 0


def test_the_formula_of_memory_agrees_with_the_count_of_a_step():
    from trivium.stages.pretraining.pretrain import LanguageModeling, Pretrain
    from trivium.stages.training import full_row
    from trivium.training.estimate import estimate as counted
    from trivium.training.optimizers import Optimization
    from trivium.training.parallel import Parallel
    config = ModelConfig(vocab_size=512, hidden_size=256, intermediate_size=512, num_layers=4, num_heads=4,
                         num_kv_heads=4, head_dim=64, qk_norm=False)
    stage = Pretrain(model=config, length=128, rows=16)
    exact = counted(lambda: (LanguageModel(config), ()), LanguageModeling(), stage.full_batches(1, full_row(128)),
                    Optimization(), Parallel(), "float32")
    formula = memory_per_gpu(config, "pretrain", Layout("one", 1), 16 * 128, checkpointed=False)
    # With so many tokens the peak is where the backward pass begins, and gradients are not there yet.
    assert exact.parameters + exact.optimizer == pytest.approx(parameters(config) * (TRAINED - 4), rel=0.01)
    assert formula["activations"] * 2 == pytest.approx(exact.activations, rel=0.5)  # bf16 there, float32 here


def test_more_shards_need_less():
    totals = [
        memory_per_gpu(shape_for(8e9), "ppo", Layout("", shards, tensor), 4096)["total"]
        for shards, tensor in ((1, 1), (8, 1), (64, 1), (64, 8))
    ]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--params", "8B", "--gpu", "h1000"], "did you mean 'h100'"),
    (["--params", "8B", "--count", "0"], "at least 1 GPU"),
    (["--params", "8B", "--tokens", "1000T"], "than the about 300T tokens of public text"),
    (["--params", "8X"], "write it as 8B"),
    (["--params", "0"], "above zero"),
    (["--params", "-3B"], "not a number"),
    (["--params", "llama-3-7b"], "did you mean 'llama-3-70b'"),
    (["--params", "8B", "--active", "9B"], "more than all"),
    (["--params", "8B", "--utilization", "1.5"], "a share of the GPUs' peak"),
    (["--params", "8B", "--price", "-1"], "must be 0 or more"),
    (["--tokens", "1T"], "name a recipe, or give --params"),
    (["none.yaml"], "no such file"),
])
def test_an_impossible_estimate_is_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr("sys.argv", ["trivium", "estimate", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1


def test_the_command_prints_text_or_json(monkeypatch, capsys):
    def say(*arguments):
        monkeypatch.setattr("sys.argv", ["trivium", "estimate", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return capsys.readouterr().out

    shown = say("--params", "8B", "--tokens", "15T", "--count", "1024")
    assert all(word in shown for word in ("GPU-hours", "books", "Chinese characters", "compute-optimal", "MWh",
                                          "pretraining", "1024 shards"))
    assert json.loads(say("--params", "8B", "--json"))["tokens"] == 160e9
    rows = {row["run"]: row for row in json.loads(say("--known", "--json"))}
    assert rows.keys() == {*RUNS, "instructgpt-pretraining", "instructgpt-sft", "instructgpt-ppo"}
    assert all(0.75 < row["ratio"] < 1.25 and row["source"] for row in rows.values())
    assert "petaflop/s-days" in say("--known")


@pytest.mark.parametrize(("text", "value"), [("8B", 8e9), ("1.5e12", 1.5e12), ("561m", 561e6), ("15T", 15e12),
                                             ("1_000", 1000), ("2,000k", 2e6)])
def test_quantities(text, value):
    assert quantity(text, "--tokens") == value


@pytest.mark.parametrize("text", ["", "B", "1e999", "nan", "inf", "8BB", "1e-3e", "0x10"])
def test_what_is_no_quantity(text):
    with pytest.raises(TriviumError):
        quantity(text, "--tokens")


def test_a_power_law_is_found_again_and_its_interval_holds_it():
    compute = np.geomspace(1e9, 1e13, 7)
    true = 0.8 + 3.0 * (compute / compute[0]) ** -0.25
    e, a, alpha = fit(compute, true)
    assert (e, a, alpha) == (pytest.approx(0.8, abs=0.05), pytest.approx(3.0, abs=0.05), pytest.approx(0.25, abs=0.01))
    rng = np.random.default_rng(0)
    tokens = np.full(200, 50.0)
    nats = (true[:, None] + rng.normal(0, 0.1, (7, 1)) * 0.1 + rng.normal(0, 0.5, 200)[None]) * tokens
    laws = bootstrap(compute, nats, tokens, 60, 0)
    foretold = np.percentile([at(law, compute[-1] * 10, compute[0]) for law in laws], [0.5, 99.5])
    assert foretold[0] < 0.8 + 3.0 * (10 * compute[-1] / compute[0])**-0.25 + (nats.mean() / 50 -
                                                                               true.mean()) < foretold[1]


@pytest.mark.long
def test_a_ladder_is_climbed_drawn_and_found_again(tmp_path):
    artifact = run_ladder(ladder(4, 0.5, tmp_path, 0, 100_000), quiet=True)
    found, rungs = artifact.summary, artifact.summary["rungs"]
    assert [row["parameters"] for row in rungs] == sorted(row["parameters"]
                                                          for row in rungs) and rungs[0]["loss"] > rungs[-1]["loss"]
    # 20 updates of 8 rows of 128 tokens
    assert rungs[0]["compute"] == pytest.approx(6 * rungs[0]["parameters"] * 20 * 128 * 8, rel=0.2)
    assert rungs[0]["passes"] == rungs[1]["passes"] < rungs[3]["passes"]
    low, high = found["law"]["exponent_interval"]
    assert low <= high and found["foretold"]["measured"] == rungs[-1]["loss"]
    page = (artifact.folder / "index.html").read_text()
    assert "Does it foretell?" in page and "plotly" in page
    again = run_ladder(ladder(4, 0.5, tmp_path, 0, 100_000), quiet=True)
    assert again.manifest["created"] == artifact.manifest["created"]


@pytest.mark.parametrize(("rungs", "ratio", "message"), [(3, 20, "at least 4 are needed"), (9, 20, "the ladder has 8"),
                                                         (4, 0.1, "between 0.5 and 200")])
def test_a_ladder_that_cannot_be_fitted_is_refused(tmp_path, rungs, ratio, message):
    with pytest.raises(TriviumError, match=message):
        ladder(rungs, ratio, tmp_path, 0, 100_000)
