"""Somebody else's base model: a Hugging Face folder and rows go in, and what comes out loads in transformers and
PEFT."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GemmaConfig,
    LlamaConfig,
    Olmo2Config,
    Qwen2Config,
)
from typer.testing import CliRunner

import trivium
from trivium.artifacts import open_artifact
from trivium.cli.app import app
from trivium.errors import TriviumError
from trivium.model.adapters.folder import weights_digest
from trivium.stages.models import merge_adapter
from trivium.tokenizer.train import SPLIT

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor "
    "%}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1
}
PAIRS = [(f"Which number is after {i}?", f"It is {i + 1}.") for i in range(24)] + [(f"{i}后面是几？", f"是{i + 1}。")
                                                                                   for i in range(24)]


def make_base(folder, kind, template=TEMPLATE):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ])
    tokenizer.decoder = decoders.ByteLevel()
    special = [
        AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
    ]
    tokenizer.train_from_iterator([a + b for a, b in PAIRS],
                                  trainers.BpeTrainer(vocab_size=330, show_progress=False, special_tokens=special,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    torch.manual_seed(0)
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config, "gemma": GemmaConfig, "olmo2": Olmo2Config}[kind](
        vocab_size=tokenizer.get_vocab_size(), **SHAPE, **({"head_dim": 8} if kind == "gemma" else {}))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
            **({"chat_template": template} if template else {})
        }))
    return folder


def write_recipe(folder, base, adapter, precision):
    (folder / "rows.jsonl").write_text("".join(json.dumps({"instruction": q, "output": a}) + "\n" for q, a in PAIRS))
    (folder / "pairs.jsonl").write_text("".join(
        json.dumps({"prompt": q, "chosen": a, "rejected": "No."}) + "\n" for q, a in PAIRS))
    more = {"adapter": adapter} if adapter else {}
    fast = {"length": 64, "rows": 8, "optimization": {"learning_rate": 0.01}, "precision": precision}
    stages = {
        "imports": {
            "demonstrations": {"rows": str(folder / "rows.jsonl")}, "comparisons": [str(folder / "pairs.jsonl")],
            "sources": {"rows": {"weight": 1}}
        }, "sft": {"model": str(base), "demonstrations": "imports", "epochs": 3, "validation": 0.2, **fast, **more},
        "reward": {"preferences": "imports", **fast, **more}, "dpo": {"preferences": "imports", **fast, **more},
        "ppo": {"prompts": "imports", "iterations": 2, "episodes": 8, "epochs": 1, "max_new_tokens": 4, **fast, **more}
    }
    (folder / "recipe.yaml").write_text(
        yaml.safe_dump({"name": "run", "out": str(folder), "stages": stages}, sort_keys=False))
    return folder / "recipe.yaml"


@pytest.fixture(
    scope="module",
    params=[("llama", "lora", "float32"),
            pytest.param(("llama", "lora", "bf16"), marks=pytest.mark.bf16),
            *(pytest.param(given, marks=[pytest.mark.long, *([pytest.mark.bf16] if given[2] == "bf16" else [])])
              for given in (("gemma", "lora", "float32"), ("olmo2", None, "float32"), ("qwen2", None, "bf16"),
                            ("llama", "bottleneck", "bf16")))], ids=lambda given: "-".join(map(str, given)))
def made(request, tmp_path_factory):
    kind, adapter, precision = request.param
    folder = tmp_path_factory.mktemp("made")
    base = make_base(folder / "base", kind, None if adapter == "bottleneck" else TEMPLATE)
    settings = {
        "lora": {"rank": 4, "dora": kind == "llama"}, "bottleneck": {"kind": "bottleneck", "width": 4}, None: None
    }[adapter]
    artifacts = trivium.run(write_recipe(folder, base, settings, precision))
    assert {artifacts[stage].summary["precision"] for stage in ("sft", "reward", "dpo", "ppo")} == {precision}
    return kind, adapter, folder, base, artifacts


def test_every_stage_trains_it_and_its_folders_come_back_whole(made):
    kind, adapter, _, base, artifacts = made
    messages = [{"role": "user", "content": "7后面是几？"}, {"role": "assistant", "content": "是8。"}]
    tokenizer = AutoTokenizer.from_pretrained(artifacts["sft"].folder)
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    assert artifacts["sft"].summary["validation_loss"] < 6 and artifacts["sft"].summary["best_step"] > 0
    for stage in ("sft", "dpo", "ppo"):
        folder = artifacts[stage].folder
        ours = trivium.load(folder)
        assert ours.tokenizer.encode_chat(messages)[0] == ids
        if adapter == "lora":
            under = base if stage == "sft" else artifacts["sft"].folder.parent / f"{stage}-base"
            if stage != "sft" and not under.exists():
                merge_adapter(artifacts["sft"].folder, under)
            oracle = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(under), folder).eval()
        elif adapter is None:
            oracle = AutoModelForCausalLM.from_pretrained(folder).eval()
            assert oracle.config.model_type == kind and oracle.config.eos_token_id in ([4, 1], 4)
        else:
            continue
        if adapter == "lora" and stage == "sft":  # by its folder alone, too
            alone = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
            torch.testing.assert_close(ours.logits(ids),
                                       alone(torch.tensor([ids])).logits[0].detach(), atol=1e-4, rtol=1e-4)
            # and not one adapter in the place of another
            with pytest.raises((OSError, ValueError), match="is an adapter itself: merge it first"):
                AutoPeftModelForCausalLM.from_pretrained(artifacts["dpo"].folder)
            assert not (folder / "config.json").exists()  # beside one, transformers would look for whole weights
        torch.testing.assert_close(ours.logits(ids),
                                   oracle(torch.tensor([ids])).logits[0].detach(), atol=1e-4, rtol=1e-4)
    reward = trivium.load(artifacts["reward"].folder)
    ended = reward.tokenizer.encode_chat(messages)[0]
    if adapter is None and kind == "qwen2":
        theirs = AutoModelForSequenceClassification.from_pretrained(artifacts["reward"].folder).eval()
        assert reward.model(torch.tensor([ended]))[0, -1].item() == pytest.approx(
            theirs(torch.tensor([ended])).logits.item(), abs=1e-4)
    if adapter == "lora" and kind == "llama":
        under = AutoModelForSequenceClassification.from_pretrained(artifacts["sft"].folder.parent / "dpo-base",
                                                                   num_labels=1)
        theirs = PeftModel.from_pretrained(under, artifacts["reward"].folder).eval()
        assert reward.model(torch.tensor([ended]))[0, -1].item() == pytest.approx(
            theirs(torch.tensor([ended])).logits.item(), abs=1e-4)
    assert artifacts["reward"].summary["accuracy"]["value"] > 0.5


def test_the_base_is_frozen_and_the_adapter_knows_it(made):
    _, adapter, _, base, artifacts = made
    if adapter is None:
        pytest.skip("no adapter")
    about = json.loads((artifacts["sft"].folder / "trivium.json").read_text())
    assert about["base_digest"] == weights_digest(base)
    assert json.loads((artifacts["dpo"].folder / "trivium.json").read_text())["base_digest"] == weights_digest(
        artifacts["sft"].folder)
    log = [json.loads(line) for line in (artifacts["ppo"].folder / "log.jsonl").read_text().splitlines()]
    assert log[0]["kl"] == 0  # with the adapter off, the policy is its own reference
    summary = artifacts["sft"].summary
    assert summary["trained_parameters"] < sum(p.numel()
                                               for p in AutoModelForCausalLM.from_pretrained(base).parameters()) / 3


def test_merging(made, tmp_path):
    kind, adapter, _, _, artifacts = made
    if adapter == "bottleneck":
        with pytest.raises(TriviumError, match="only LoRA can"):
            merge_adapter(artifacts["sft"].folder, tmp_path / "merged")
    if adapter != "lora":
        return
    assert CliRunner().invoke(app, ["merge", str(artifacts["sft"].folder), str(tmp_path / "merged")]).exit_code == 0
    assert str(artifacts["sft"].digest)[:12] in CliRunner().invoke(app, ["trace", str(tmp_path / "merged")]).output
    ids = [5, 9, 7, 30]
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert oracle.config.model_type == kind
    torch.testing.assert_close(
        oracle(torch.tensor([ids])).logits[0].detach(),
        trivium.load(artifacts["sft"].folder).logits(ids), atol=1e-4, rtol=1e-4)
    with pytest.raises(TriviumError, match="holds something already"):
        merge_adapter(artifacts["sft"].folder, tmp_path / "merged")


@pytest.mark.long
@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_killed_with_an_adapter_it_ends_with_the_same_bits(made, stage):
    kind, adapter, folder, _, artifacts = made
    if (kind, adapter) != ("llama", "lora"):
        pytest.skip("once is enough")
    digest = artifacts[stage].digest
    for later in ("ppo", "dpo", "reward", "sft") if stage == "sft" else (stage,):
        subprocess.run(["rm", "-r", folder / "run" / later], check=True)
    words = [sys.executable, "-m", "trivium.cli.app", "run", str(folder / "recipe.yaml"), "--only", stage]
    process = subprocess.Popen(words, env=os.environ | {"TRIVIUM_SAVE_EVERY_STEP": "1"}, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list((folder / "run/.work").rglob("scratch/step-*.json"))) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "run" / stage).exists()
    subprocess.run(words, check=True, capture_output=True)
    assert open_artifact(folder / "run" / stage, verify=True).digest == digest
    if stage == "sft":
        subprocess.run([*words[:-1], "ppo", "--only", "dpo"], check=True, capture_output=True)
