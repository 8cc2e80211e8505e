"""Several processes are one: every kind of training on real gloo processes, with evaluations and checkpoints on,
against one process; whole models, adapters and another family."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Olmo2Config

from trivium.files import read_json, write_rows
from trivium.pipeline.run import run
from trivium.stages.models import load_language_model

BEGINNING = ("margin", "baseline", "kl", "first_ratio_error")
"""What is exactly 0 in the first update, in every number format."""


@pytest.fixture(scope="module")
def rows(school, tmp_path_factory):
    """Demonstrations, rankings, a function that rewards long answers, and a base of another family."""
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "ranked/comparisons.jsonl", [{
        "prompt": [{"role": "user", "content": f"say {n}"}], "responses": ["yes", "no " * (n % 4), "it is"],
        "ranking": [[n % 3], [(n + 1) % 3, (n + 2) % 3]], "split": "train" if n % 4 else "heldout"
    } for n in range(16)])
    write_rows(folder / "shown/demonstrations.jsonl", [{"messages": [
        {"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": "yes " * (n % 5 + 1)}
    ]} for n in range(40)])
    (folder / "reward.py").write_text("def long(row, texts):\n    return [len(text) / 5 for text in texts]\n")
    _, tokenizer = load_language_model(school / "sft")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(Olmo2Config(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, pad_token_id=2, bos_token_id=0,
        eos_token_id=1)).save_pretrained(folder / "olmo")
    tokenizer.save(folder / "olmo")
    return folder


def recipe_of(school, rows, folder, precision, *names):
    """The stages ``names``, each KIND, KIND-ADAPTER, KIND-olmo or KIND-olmo-ADAPTER, as a recipe's file."""
    adapters = {"lora": {"rank": 4}, "dora": {"rank": 4, "dora": True},
                "bottleneck": {"kind": "bottleneck", "width": 4}, "prefix": {"kind": "prefix", "tokens": 3}}
    few = {"rows": 4, "length": 64, "precision": precision, "optimization": {"learning_rate": 3e-3}}
    practice = {"prompts": str(school / "world"), "iterations": 2, "max_new_tokens": 6, "parallel": {"rows": 2}, **few}
    few |= {"epochs": 2, "parallel": {"rows": 1}}
    kinds = {
        "sft": {"demonstrations": str(rows / "shown"), "validation": 0.2, "evaluate_every": 2, **few},
        "reward": {"preferences": str(rows / "ranked"), **few},
        "dpo": {"preferences": str(rows / "ranked"), **few},
        "kto": {"feedback": str(school / "thumbs.jsonl"), **few},
        "ppo": {"reward": str(school / "reward"), "episodes": 8, "epochs": 2, **practice},
        "grpo": {"checker": f"{rows / 'reward.py'}:long", "episodes": 4, "samples": 3, **practice},
        "dapo": {"kind": "grpo", "objective": "dapo", "checker": f"{rows / 'reward.py'}:long", "unfinished_score": None,
                 "episodes": 6, "samples": 2, "ratio": "sequence", "aggregation": "responses", "kl_coefficient": 0.1,
                 "reference_every": 1, "mask_unfinished": True, "importance_cap": 2.0, "entropy_bonus": 0.01,
                 **practice},
        "reinforce": {"kind": "grpo", "objective": "reinforce++", "checker": f"{rows / 'reward.py'}:long",
                      "episodes": 4, "samples": 1, **practice},
    }
    stages = {}
    for name in names:
        kind, _, how = name.partition("-")
        family, adapter = ("olmo", how.removeprefix("olmo").removeprefix("-")) if how[:4] == "olmo" else ("sft", how)
        stages[name] = {"kind": kind, **kinds[kind], "model": str((rows if family == "olmo" else school) / family)}
        if adapter:
            stages[name]["adapter"] = adapters[adapter]
        if name == "ppo-lora" and "reward-lora" in names:
            stages[name]["reward"] = "reward-lora"
        if family == "olmo" and kind == "sft":
            stages[name]["parallel"] = {"rows": 1, "checkpoint_activations": True}
    path = folder / f"{precision}.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "threads": 1, "stages": stages}, sort_keys=False))
    return path


def start(recipe, out, processes):
    """Run a recipe with a checkpoint after every update."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return subprocess.Popen([sys.executable, *launcher, "-m", "trivium.cli", "run", str(recipe), "--quiet", "--set",
                             f"out={out}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1", "TRIVIUM_SAVE_EVERY_STEP": "1"},
                            start_new_session=True)


def finish(process):
    try:
        said, _ = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said[-3000:]


def kill_in(recipe, out, processes, stage, step):
    """Start a recipe, and kill it as soon as a stage has a checkpoint after so many updates."""
    process = start(recipe, out, processes)
    deadline = time.monotonic() + 200
    while not list((out / "r/.work").glob(f"{stage}-????????????/scratch/step-{step:08d}.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
        time.sleep(0.005)
    workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True,
                             check=False).stdout.split()
    for number in (process.pid, *map(int, workers)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.communicate()
    assert not (out / "r" / stage).exists()


def alone(recipe, out):
    run(recipe, [f"out={out}"])


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights_of(folder):
    return {name: tensor for file in sorted(folder.glob("*model*.safetensors"))
            for name, tensor in load_file(file).items()}


def assert_alike(one: Path, two: Path, precision):
    """What two folders of stages hold is the same: logs, samples and weights to 1e-4 in float32, and roughly else."""
    exact = precision == "float32"
    stages = sorted(place.name for place in one.iterdir() if (place / "log.jsonl").exists())
    for stage in stages:
        here, there = one / stage, two / stage
        assert sorted(file.name for file in here.iterdir()) == sorted(file.name for file in there.iterdir())
        for line, other in zip(log_of(here), log_of(there), strict=True):
            assert line.keys() == other.keys()
            for name, value in line.items():
                if exact and name != "tokens_per_second":
                    near = {"rel": 1e-4, "abs": 1e-4} if not isinstance(value, str) else {}
                    assert other[name] == (pytest.approx(value, **near) if near else value), (stage, name)
        first, manifest = log_of(there)[0], read_json(there / "manifest.json")
        assert manifest["summary"]["precision"] == precision
        begins = {name: first[name] for name in BEGINNING if name in first}
        assert stage.endswith("prefix") or all(abs(value) < 1e-6 for value in begins.values()), (stage, begins)
        assert "margin" not in first or first["accuracy"] == 0.5  # of ties
        if "first_ratio_error" in first:
            assert max(line["first_ratio_error"] for line in log_of(there)) < 1e-6
        assert_written_alike(here, there, 1e-4 if exact else 0.05)
    return stages


def assert_written_alike(here, there, near):
    """The weights, all of which are in the format that the config tells."""
    mine, theirs = weights_of(here), weights_of(there)
    assert mine.keys() == theirs.keys() and {tensor.dtype for tensor in theirs.values()} == {torch.float32}
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, atol=near, rtol=0)
    if (there / "config.json").exists():
        config = read_json(there / "config.json")
        assert config.get("dtype", config.get("torch_dtype")) == "float32"


def test_two_processes_learn_what_one_does(school, rows, tmp_path, precision):
    """In float32 the first of them was begun by one process, and killed."""
    names = ("sft-lora", "sft-olmo", "reward", "dpo", "kto-dora", "ppo", "grpo-olmo-lora", "dapo", "reinforce")
    if precision != "float32":
        names = ("sft", "dpo", "kto", "ppo-lora", "grpo", "dapo")
    recipe = recipe_of(school, rows, tmp_path, precision, *names)
    alone(recipe, tmp_path / "1")
    if precision == "float32":
        kill_in(recipe, tmp_path / "2", 1, "sft-lora", 2)
    finish(start(recipe, tmp_path / "2", 2))
    assert assert_alike(tmp_path / "1/r", tmp_path / "2/r", precision) == sorted(names)


@pytest.mark.long
def test_all_kinds_and_adapters_learn_alike(school, rows, tmp_path, precision):
    names = ("sft-dora", "sft-bottleneck", "sft-prefix", "sft-olmo-lora", "sft-olmo-prefix", "reward-lora",
             "reward-olmo", "dpo-lora", "dpo-olmo", "kto", "kto-olmo-lora", "ppo-lora", "ppo-olmo", "ppo-olmo-lora",
             "ppo-prefix", "grpo", "grpo-lora", "grpo-olmo", "grpo-bottleneck")
    recipe = recipe_of(school, rows, tmp_path, precision, *names)
    alone(recipe, tmp_path / "1")
    finish(start(recipe, tmp_path / "2", 2))
    assert assert_alike(tmp_path / "1/r", tmp_path / "2/r", precision) == sorted(names)


@pytest.mark.long
@pytest.mark.bf16
def test_bf16_weights_begin_at_the_reference_too(school, rows, tmp_path):
    names = ("sft", "sft-lora", "sft-olmo", "reward", "dpo", "dpo-lora", "kto", "kto-olmo-lora")
    recipe = recipe_of(school, rows, tmp_path, "bf16-weights", *names)
    alone(recipe, tmp_path / "1")
    finish(start(recipe, tmp_path / "2", 2))
    assert assert_alike(tmp_path / "1/r", tmp_path / "2/r", "bf16-weights") == sorted(names)


@pytest.mark.long
def test_a_killed_recipe_goes_on_with_another_number_of_processes(school, rows, tmp_path, precision):
    """Killed in the middle of each stage, by two processes and by one in turn."""
    names = ("sft", "sft-lora", "sft-olmo", "reward", "dpo", "kto", "ppo", "ppo-lora", "grpo", "grpo-olmo-lora")
    recipe = recipe_of(school, rows, tmp_path, precision, *names)
    alone(recipe, tmp_path / "1")
    for place, name in enumerate(names):
        kill_in(recipe, tmp_path / "2", 2 - place % 2, name, 1 if name[:2] in ("pp", "gr") else 3)
    finish(start(recipe, tmp_path / "2", 2))
    assert_alike(tmp_path / "1/r", tmp_path / "2/r", precision)
