"""The model against transformers, and its folders."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import trivium
from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, RewardModel, RopeScaling, folder
from trivium.model.attention import packed_attention
from trivium.stages.models import load_language_model, save_model
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.train import train

SHAPES = {
    "qwen3": {"qk_norm": True, "tie_embeddings": True},
    "qwen3-untied": {"qk_norm": True, "tie_embeddings": False},
    "llama": {"qk_norm": False, "tie_embeddings": False},
    "llama-tied": {"qk_norm": False, "tie_embeddings": True},
    "llama3": {"qk_norm": False, "rope_theta": 500.0, "rope_scaling": RopeScaling(8.0, 24)},
    "mistral": {"qk_norm": False, "tie_embeddings": False, "sliding_window": 7},
    "qwen2": {"qk_norm": False, "attention_bias": True},
    "qwen3-yarn": {"rope_theta": 500.0, "rope_scaling": RopeScaling(4.0, 24, kind="yarn")},
    "qwen2-yarn": {"qk_norm": False, "attention_bias": True,
                   "rope_scaling": RopeScaling(3.0, 16, kind="yarn", beta_fast=4, beta_slow=0.5, attention_factor=1.3)},
    "mistral-yarn": {"qk_norm": False, "sliding_window": 7, "rope_scaling": RopeScaling(4.0, 24, kind="yarn")},
    "llama-linear": {"qk_norm": False, "rope_scaling": RopeScaling(4.0, kind="linear")},
    "qwen3-llama3": {"rope_theta": 500.0, "rope_scaling": RopeScaling(8.0, 24)},
}


def randomise(model, seed):
    """Norms and biases of their own, which the initialisation leaves at one and zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model


def small(**changes):
    sizes = {
        "vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_layers": 2, "num_heads": 4,
        "num_kv_heads": 2, "head_dim": 16
    }
    return ModelConfig(**{**sizes, **changes})


def distance(ours, theirs):
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_transformers(tmp_path, shape, agree):
    model = randomise(LanguageModel(small(**SHAPES[shape])).initialise(3), 4)
    folder.save(model, tmp_path, {"eos": 0, "pad": 1})
    assert json.loads(
        (tmp_path / "config.json").read_text())["model_type"] == shape.split("-")[0].replace("llama3", "llama")
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(0, 97, (3, 50), generator=torch.Generator().manual_seed(0))
    agree(f"logits of our own {shape}", "transformers", distance(model(tokens), oracle(tokens).logits), 1e-4)
    torch.testing.assert_close(folder.load(tmp_path)(tokens), model(tokens), atol=0, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_folders_go_to_transformers_and_back(tmp_path, shape):
    model = randomise(LanguageModel(small(**SHAPES[shape])).initialise(3), 4)
    folder.save(model, tmp_path / "ours", {"eos": 0, "pad": 1}, shard_bytes=20_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 1
    AutoModelForCausalLM.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    tokens = torch.arange(20)[None]
    for place in ("ours", "theirs"):
        again = folder.load(tmp_path / place)
        assert again.config == model.config
        torch.testing.assert_close(again(tokens), model(tokens), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", ["mistral", "qwen3"])
def test_bf16_folders_keep_their_format_when_asked(tmp_path, shape):
    model = LanguageModel(small(**SHAPES[shape])).initialise(3).to(torch.bfloat16)
    folder.save(model, tmp_path, {"eos": 0, "pad": 1})
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(folder.load(tmp_path, None)(tokens), model(tokens), atol=0, rtol=0)
    assert folder.load(tmp_path).lm_head.weight.dtype == torch.float32


def test_llama_3_scaling_and_windows_are_seen_by_long_rows():
    """What the oracle is compared on must depend on what is compared."""
    tokens = torch.randint(0, 97, (1, 50), generator=torch.Generator().manual_seed(0))
    for shape, plain in (("llama3", {"rope_scaling": None}), ("qwen3-yarn", {"rope_scaling": None}),
                         ("llama-linear", {"rope_scaling": None}), ("mistral", {"sliding_window": None})):
        model = LanguageModel(small(**SHAPES[shape])).initialise(3)
        other = LanguageModel(small(**{**SHAPES[shape], **plain}))
        other.load_state_dict(model.state_dict())
        assert (model(tokens) - other(tokens)).abs().max() > 1e-2


LOADING = """
import sys, threading, torch
from pathlib import Path
from trivium.model import folder
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024
folder.load(Path(sys.argv[2]), None)  # what the libraries take once
before, peak, done = anonymous(), [0], threading.Event()
def watch():
    while not done.wait(0.001):
        peak[0] = max(peak[0], anonymous())
thread = threading.Thread(target=watch); thread.start()
model = folder.load(Path(sys.argv[1]), None)
done.set(); thread.join()
print((max(peak[0], anonymous()) - before) / sum(p.nbytes for p in model.parameters()))
"""


def test_loading_holds_a_model_once(tmp_path):
    """The peak of memory of one's own, over the model's size; pages of the file itself belong to the system's cache."""
    model = LanguageModel(small(hidden_size=512, intermediate_size=2048, num_layers=16, head_dim=64,
                                num_heads=8)).to(torch.bfloat16)
    folder.save(model, tmp_path, {"eos": 0, "pad": 1}, shard_bytes=50_000_000)
    folder.save(LanguageModel(small()), tmp_path / "small", {"eos": 0, "pad": 1})
    peak = subprocess.run([sys.executable, "-c", LOADING, tmp_path, tmp_path / "small"], check=True,
                          capture_output=True, text=True)
    assert float(peak.stdout) < 1.3


def test_scores_equal_transformers(tmp_path, agree):
    reward = RewardModel.from_language_model(LanguageModel(small()).initialise(3), seed=5)
    reward.shift = -0.25
    folder.save(reward, tmp_path, {"eos": 0, "pad": 1})
    oracle = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(2, 97, (4, 31), generator=torch.Generator().manual_seed(0))
    agree("scores of a reward model", "transformers", distance(reward(tokens)[:, -1:], oracle(tokens).logits), 1e-4)
    again = folder.load(tmp_path)
    assert isinstance(again, RewardModel) and again.shift == -0.25


def test_packed_documents_do_not_see_each_other():
    model = LanguageModel(small()).initialise(1)
    first, second = torch.arange(5, 15), torch.arange(30, 42)
    row = torch.cat([first, second])[None]
    documents = torch.tensor([[0] * 10 + [1] * 12])
    positions = torch.tensor([[*range(10), *range(12)]])
    packed = model(row, positions, packed_attention(documents, torch.full_like(documents, -2), positions))
    torch.testing.assert_close(packed[0, :10], model(first[None])[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(packed[0, 10:], model(second[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [None, 4])
def test_responses_that_share_a_prompt_see_it_alone(window):
    """A row with a prompt and two responses gives what each would give in a row of its own, windows included."""
    model = LanguageModel(small(qk_norm=False, sliding_window=window)).initialise(1)
    prompt, one, two = torch.arange(5, 15), torch.arange(30, 36), torch.arange(40, 49)
    row = torch.cat([prompt, one, two])[None]
    documents = torch.tensor([[0] * 10 + [1] * 6 + [2] * 9])
    parents = torch.tensor([[-2] * 10 + [0] * 15])
    positions = torch.tensor([[*range(10), *range(10, 16), *range(10, 19)]])
    packed = model(row, positions, packed_attention(documents, parents, positions, window))
    torch.testing.assert_close(packed[0, 10:16], model(torch.cat([prompt, one])[None])[0, 10:], atol=1e-5, rtol=0)
    torch.testing.assert_close(packed[0, 16:], model(torch.cat([prompt, two])[None])[0, 10:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "gpt2"}, "do not fit config.json"),
    ({"model_type": "nosuch"}, "no causal language model that transformers knows"),
    ({"hidden_size": 32}, "has shape"),
    ({"num_hidden_layers": 3}, "lack"),
    ({"num_hidden_layers": 1}, "does not describe"),
    ({"attention_bias": True}, "do not fit config.json: missing keys .*_proj.bias"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised .gptq., which cannot be trained"),
    ({"vocab_size": None}, "vocab_size"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "lacks 'factor'"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "lacks 'low_freq"),
    ({"rope_scaling": {"rope_type": "linear", "factor": "much"}},
     "rope_scaling.factor is 'much', where a number above 0 was expected"),
])
def test_a_config_that_contradicts_the_weights_is_refused(tmp_path, change, message):
    folder.save(LanguageModel(small()).initialise(3), tmp_path, {"eos": 0, "pad": 1})
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(TriviumError, match=message):
        folder.load(tmp_path)


def test_broken_weights_are_refused(tmp_path):
    folder.save(LanguageModel(small()).initialise(3), tmp_path, {"eos": 0, "pad": 1})
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(TriviumError, match="safetensors"):
        folder.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(TriviumError, match="never read"):
        folder.load(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    folder.save(LanguageModel(small()).initialise(3), tmp_path, {"eos": 0, "pad": 1}, shard_bytes=20_000)
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(TriviumError, match=f"{lost.name}: no such file"):
        folder.load(tmp_path)


def test_a_tokenizer_with_more_entries_than_the_embedding_is_refused(tmp_path):
    tokenizer = ChatTokenizer(train(iter(["how much is 2 + 2? 2 + 2 = 4.\n"] * 20), 300))
    save_model(LanguageModel(small(vocab_size=tokenizer.vocab_size - 1)).initialise(3), tokenizer, tmp_path)
    for read in (trivium.load, load_language_model):
        with pytest.raises(TriviumError,
                           match=f"has {tokenizer.vocab_size} entries, but the model only {tokenizer.vocab_size - 1}"):
            read(tmp_path)


def test_a_model_is_loaded_without_the_compiler(tmp_path):
    """What is imported to initialise tensors without contents, or to spread a model, costs seconds."""
    folder.save(LanguageModel(small()).initialise(3), tmp_path, {"eos": 0, "pad": 1})
    code = (
        "import sys, pathlib, trivium.training.loop\nfrom trivium.model import folder\nmodel = "
        "folder.load(pathlib.Path(sys.argv[1]))\n"
        "print([name for name in ('torch._dynamo', 'torch.distributed.tensor', 'pydantic') if name in sys.modules], "
        "model.lm_head.weight.requires_grad)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[] True"


def test_impossible_shapes_are_refused():
    for change, message in (({"sliding_window": 4}, "qk_norm and sliding_window"),
                            ({"rope_scaling": {"factor": 0.5, "original_positions": 8}}, "must be at least 1"),
                            ({"rope_scaling": {"factor": 2.0, "kind": "yarn"}}, "needs the positions"),
                            ({"num_heads": 3}, "multiple"),
                            ({"head_dim": 7}, "even"), ({"num_layers": 0}, "at least 1")):
        with pytest.raises(TriviumError, match=message):
            if scaling := change.get("rope_scaling"):
                change = {"rope_scaling": RopeScaling(**scaling)}
            small(**change)
