"""The whole way at the smallest scale: every stage, twice, killed, traced, talked with, and on rows that the test
writes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import trivium
from trivium.artifacts import open_artifact
from trivium.errors import TriviumError
from trivium.training.machine import choose_device, resolve_precision

ROOT = Path(__file__).resolve().parents[2]
TRIVIUM = [sys.executable, "-m", "trivium.cli.app"]
SMALL = [
    "world.size={documents_bytes: 150000, demonstrations: 120, preference_prompts: 60, evaluation_prompts: 40}",
    "tokenizer.vocab_size=600",
    "pretrain.steps=6",
    "sft.epochs=1",
    "untrained-sft.epochs=1",
    "preferences.count=24",
    "preferences.fewest=3",
    "preferences.most=4",
    "preferences.max_new_tokens=10",
    "ppo.iterations=2",
    "ppo.episodes=8",
    "ppo.epochs=2",
    "ppo.max_new_tokens=10",
    "evaluate.max_new_tokens=10",
] + [
    f"{stage}.model={{hidden_size: 32, intermediate_size: 48, num_layers: 2, num_heads: 2, num_kv_heads: 1, head_dim: "
    "16}"
    for stage in ("pretrain", "untrained")
]


def command(*words, **more):
    return subprocess.run([*TRIVIUM, *map(str, words)], capture_output=True, text=True, check=False, **more)


def sets(values):
    return [word for value in values for word in ("--set", value)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = command("run", ROOT / "recipes/quickstart.yaml", *sets([*SMALL, f"out={folder}"]))
    assert result.returncode == 0, result.stderr
    return folder / "quickstart"


def test_metrics_have_their_names_and_intervals(finished):
    metrics = json.loads((finished / "report/metrics.json").read_text())
    stages = metrics["stages"]
    formats = {
        json.loads((finished / stage / "manifest.json").read_text())["summary"]["precision"]
        for stage in ("pretrain", "sft", "reward", "ppo", "dpo")
    }
    assert formats == {resolve_precision("auto", choose_device())}
    assert metrics["wall_seconds"] > 0 and metrics["peak_memory_mb"] > 0
    assert all(stage["seconds"] >= 0 for stage in stages.values())
    rates = [stages["sft"][name] for name in ("right_answers", "base_right_answers", "untrained_right_answers")]
    rates += [stages["reward"][name] for name in ("accuracy", "ceiling", "length_accuracy")]
    rates += [stages[name]["win_rate_vs_sft"] for name in ("ppo", "dpo")]
    rates += [rate for part in ("precision", "recall") for rate in stages["corpus"][part].values()]
    for rate in rates:
        assert rate["value"] is None or 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
    assert isinstance(stages["ppo"]["kl"], float) and isinstance(stages["dpo"]["kl"], float)
    assert stages["pretrain"]["validation_bits_per_byte"] < 8 and stages["pretrain"]["tokens_per_second"] > 0


def test_the_report_needs_no_network(finished):
    page = (finished / "report/index.html").read_text()
    assert "<script src" not in page and "<link" not in page and "win rate" in page


def test_models_load_elsewhere_and_agree(finished):
    messages = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Good day."}]
    for stage in ("pretrain", "sft", "ppo", "dpo"):
        ours = trivium.load(finished / stage)
        oracle = AutoModelForCausalLM.from_pretrained(finished / stage).eval()
        ids = AutoTokenizer.from_pretrained(finished / stage)("How long is it?")["input_ids"]
        assert ids == ours.tokenizer.opened("How long is it?")
        torch.testing.assert_close(ours.logits(ids), oracle(torch.tensor([ids])).logits[0], atol=1e-4, rtol=1e-4)
    reward = trivium.load(finished / "reward")
    oracle = AutoModelForSequenceClassification.from_pretrained(finished / "reward").eval()
    ids = AutoTokenizer.from_pretrained(finished / "reward").apply_chat_template(messages, return_dict=False)
    assert reward.score(messages) == pytest.approx(oracle(torch.tensor([ids])).logits.item(), abs=1e-4)
    with pytest.raises(TriviumError, match="a language model is needed"):
        reward.generate("x")
    assert len(trivium.load(finished / "sft").log_probs(messages)) == len(ours.tokenizer.encode("Good day.")) + 1


def test_a_second_run_skips_everything(finished):
    result = command("run", ROOT / "recipes/quickstart.yaml", *sets([*SMALL, f"out={finished.parent}"]), "--json")
    assert result.returncode == 0 and "begins" in result.stderr and "done in" not in result.stderr
    assert json.loads(result.stdout)["ppo"]["digest"] == open_artifact(finished / "ppo", verify=True).digest


def test_trace_reaches_the_raw_documents(finished):
    result = command("trace", finished / "ppo", "--json")
    chain = json.loads(result.stdout)
    assert {Path(link["path"]).name
            for link in chain} >= {"ppo", "sft", "reward", "preferences", "pretrain", "tokens", "corpus", "world"}
    assert not any(link["changed"] for link in chain)
    assert command("trace", finished.parent).returncode == 2


def test_chat_answers_once(finished):
    result = command("chat", finished / "ppo", "--prompt", "Hello!", "--max-new-tokens", "5")
    assert result.returncode == 0 and result.stderr == ""
    talk = command("chat", finished / "ppo", "--max-new-tokens", "5", input="Hello!\n/clear\nBye\n/quit\n")
    assert talk.returncode == 0 and talk.stdout.count("model:") == 2


@pytest.mark.parametrize(
    "stage", ["ppo", *(pytest.param(stage, marks=pytest.mark.long) for stage in ("pretrain", "sft", "reward", "dpo"))])
def test_killed_in_training_it_ends_with_the_same_bits(finished, stage, tmp_path):
    run_folder = tmp_path / "quickstart"
    subprocess.run(["cp", "-r", finished, run_folder], check=True)
    manifest = json.loads((run_folder / stage / "manifest.json").read_text())
    for later in ("report", "evaluate", stage):
        subprocess.run(["rm", "-r", run_folder / later], check=True)
    words = [
        *TRIVIUM, "run",
        str(ROOT / "recipes/quickstart.yaml"), *sets([*SMALL, f"out={tmp_path}"]), "--only", stage
    ]
    environment = os.environ | {"TRIVIUM_SAVE_EVERY_STEP": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list((run_folder / ".work").rglob("step-*.json")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run_folder / stage).exists()
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 0
    assert open_artifact(run_folder / stage, verify=True).digest == manifest["digest"]


def test_faults_are_one_line_and_status_two(tmp_path):
    recipe = ROOT / "recipes/quickstart.yaml"
    for words, message in (
        (["run", tmp_path / "none.yaml"], "no such file"),
        (["run", recipe, "--set", "pretrain.epcohs=2"], "did you mean 'epochs'"),
        (["run", recipe, "--set", "pretrain.optimization.clipp=2"], "did you mean 'clip'"),
        (["run", recipe, "--set", "pretrain.length=4096", *sets([f"out={tmp_path}", SMALL[0]]), "--only",
          "pretrain"], "max_positions"),
        (["chat", tmp_path], "config.json"),
        (["schema", "pretrian"], "did you mean 'pretrain'"),
    ):
        result = command(*words)
        assert result.returncode == 2, (words, result.stderr)
        last = result.stderr.strip().splitlines()[-1]
        assert message in last and last.startswith("error: ") and "Traceback" not in result.stderr


def test_real_rows(tmp_path):
    rng = random.Random(0)
    words = ["river", "stone", "bread", "garden", "window", "music", "winter", "friend", "market", "letter"]

    def sentence():
        return (
            f"The {rng.choice(words)} was near the {rng.choice(words)} and {rng.choice(words)} came to "
            f"{rng.choice(words)} that day."
        )

    pages = tmp_path / "pages"
    pages.mkdir()
    for i in range(60):
        (pages / f"{i}.txt").write_text("\n\n".join(" ".join(sentence() for _ in range(4)) for _ in range(3)))
    shown = [{"question": f"What is {a} + {b}?", "answer": f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b}\n#### {a + b}"}
             for a in range(6) for b in range(6)]
    (tmp_path / "shown.jsonl").write_text("".join(json.dumps(row) + "\n"
                                                  for row in shown) + "not json\n" + '{"question": "no answer"}\n')
    pairs = [{
        "chosen": f"\n\nHuman: Tell me of the {w} number {i}.\n\nAssistant: {sentence()}",
        "rejected": f"\n\nHuman: Tell me of the {w} number {i}.\n\nAssistant: No."
    } for w in words for i in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    recipe = yaml.safe_load((ROOT / "recipes/real-small.yaml").read_text())
    recipe["stages"]["imports"] |= {
        "demonstrations": [str(tmp_path / "shown.jsonl")], "comparisons": [str(tmp_path / "pairs.jsonl")]
    }
    recipe["stages"]["corpus"]["documents"] = [str(pages)]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    artifacts = trivium.run(
        tmp_path / "recipe.yaml", out=str(tmp_path), tokenizer__vocab_size=400, pretrain__steps=3,
        corpus__settings__rules=[], tokens__validation=0.2, ppo__iterations=1, ppo__episodes=8, ppo__max_new_tokens=8,
        evaluate__max_new_tokens=8, pretrain__model={
            "hidden_size": 32, "intermediate_size": 48, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1,
            "head_dim": 16
        })
    assert artifacts["imports"].summary == {"demonstrations": 36, "comparisons": 40, "rejected": 2}
    rejected = [json.loads(line) for line in (artifacts["imports"].folder / "rejects.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejected] == [37, 38] and "JSON" in rejected[0]["reason"]
    metrics = json.loads((artifacts["report"].folder / "metrics.json").read_text())
    assert metrics["stages"]["reward"]["accuracy"]["n"] > 0 and "ceiling" not in metrics["stages"]["reward"]
    assert metrics["stages"]["evaluate"]["judge"] == "reward model"
    with pytest.raises(TriviumError, match=r"recipe.yaml: stages.imports.demonstrations.0: .*no such file"):
        trivium.run(tmp_path / "recipe.yaml", imports__demonstrations=[str(tmp_path / "none.jsonl")])
