"""What is written is what others read: reward models' scores, number formats and generation settings."""

from __future__ import annotations

import json

import bases
import pytest
import safetensors
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GemmaConfig,
    LlamaConfig,
    Olmo2Config,
    Qwen2Config,
)

import trivium
from trivium.errors import TriviumError
from trivium.feedback.simulate import scores_of
from trivium.files import write_rows
from trivium.stages.models import load_language_model, prompt_ids, response_ids, save_model

SMALL = {
    "vocab_size": 430, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 0
}
FAMILIES = {"llama": LlamaConfig(**SMALL), "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
            "gemma": GemmaConfig(**SMALL, head_dim=8), "olmo2": Olmo2Config(**SMALL)}
TOKENIZERS = {
    "no padding, end is eos": {"eos_token": "<|im_end|>"},
    "padding is the end": {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    "padding is eos": {"pad_token": "<|endoftext|>"},
    "an unknown token": {"eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
    "a reserved token": {"special": ("<|im_end|>", "<|im_start|>", "<|reserved_7|>")},
    "nothing is free": {"special": ("<|im_end|>", "<|im_start|>")},
    "no template": {"special": ("<|endoftext|>",), "template": None},
    "no template but bos": {"special": ("</s>", "<s>"), "template": None, "bos_token": "<s>"},
}
CHATS = [[{"role": "user", "content": "How many jars?"}, {"role": "assistant", "content": text}]
         for text in ("Seven.", "She'd say: it's 12/7, and that is all.", "罐子")]


def check_scores(folder):
    """Whole chats score alike, alone and in batches filled up on either side. Returns by how much at most."""
    ours = trivium.load(folder)
    wanted = torch.tensor([ours.score(chat) for chat in CHATS])
    at_the_end = [ours.model(torch.tensor([[*prompt_ids(ours.tokenizer, chat[:1]),
                                            *response_ids(ours.tokenizer, chat[1]["content"])]]))[0, -1].item()
                  for chat in CHATS]
    torch.testing.assert_close(wanted, torch.tensor(at_the_end), atol=1e-5, rtol=1e-4)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert theirs.config.pad_token_id == tokenizer.pad_token_id != ours.tokenizer.end_id
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in CHATS]
    with torch.no_grad():
        alone = [theirs(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits.item()
                 for text in texts]
        torch.testing.assert_close(torch.tensor(alone), wanted, atol=1e-4, rtol=1e-4)
        far = float((torch.tensor(alone) - wanted).abs().max())
        for side in ("left", "right"):
            batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side=side, return_tensors="pt")
            torch.testing.assert_close(theirs(**batch).logits[:, 0], wanted, atol=1e-4, rtol=1e-4)
            far = max(far, float((theirs(**batch).logits[:, 0] - wanted).abs().max()))
    return far


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_rewards_score_alike_in_transformers_whatever_the_padding(tmp_path, kind, agree):
    for family in FAMILIES if kind == "padding is the end" else ("llama",):
        base = tmp_path / family
        bases.byte_level(base, **TOKENIZERS[kind])
        bases.model(base, FAMILIES[family])
        model, tokenizer = load_language_model(base)
        save_model(model.rewarding(3), tokenizer, tmp_path / "reward" / family)
        agree(f"scores of {family}, {kind}, alone and in batches", "transformers",
              check_scores(tmp_path / "reward" / family), 1e-4)


def test_a_full_vocabulary_gets_an_entry_for_padding(tmp_path):
    for config in (LlamaConfig, Olmo2Config):
        base = tmp_path / config.__name__
        tokenizer = bases.byte_level(base, special=("<|endoftext|>",), template=None)
        bases.model(base, config(**SMALL | {"vocab_size": tokenizer.get_vocab_size()}))
        model, read = load_language_model(base)
        save_model(model.rewarding(3), read, base / "reward")
        assert model.config.vocab_size == tokenizer.get_vocab_size()
        check_scores(base / "reward")


def test_items_of_a_feedback_project_are_scored_where_training_read(tmp_path):
    bases.byte_level(tmp_path / "base")
    bases.model(tmp_path / "base", FAMILIES["llama"])
    model, tokenizer = load_language_model(tmp_path / "base")
    save_model(model.rewarding(3), tokenizer, tmp_path / "reward")
    reward = trivium.load(tmp_path / "reward")
    item = {"prompt": CHATS[0][:1], "responses": ["Seven.", {"role": "assistant", "content": "罐子"}]}
    wanted = [reward.model(torch.tensor([[*prompt_ids(tokenizer, CHATS[0][:1]), *response_ids(tokenizer, text)]]))
              [0, -1].item() for text in ("Seven.", "罐子")]
    assert scores_of(reward.score, item) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(TriviumError, match="the last message is not the assistant's"):
        reward.score(CHATS[0][:1])


def recipe_of(folder, base, precision, **settings):
    """A fine-tuning and a reward model, one from the other."""
    write_rows(folder / "rows.jsonl", [{"messages": chat} for chat in CHATS] * 4)
    (folder / "judged").mkdir()
    write_rows(folder / "judged/comparisons.jsonl",
               [{"prompt": CHATS[0][:1], "responses": ["Seven.", f"Jars {n}."], "ranking": [[0], [1]],
                 "split": "heldout" if n < 2 else "train"} for n in range(8)])
    few = {"precision": precision, "length": 64, "rows": 4, "epochs": 1} | settings
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"name": "written", "out": str(folder / "out"), "stages": {
        "sft": few | {"model": str(base), "demonstrations": str(folder / "rows.jsonl")},
        "reward": few | {"preferences": str(folder / "judged")}}}))
    return path


def dtypes(folder):
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}


@pytest.mark.parametrize("family", ["qwen2", "gemma"])
def test_a_base_in_bf16_comes_back_in_bf16(tmp_path, precision, family):
    base = tmp_path / "base"
    bases.byte_level(base)
    bases.model(base, FAMILIES[family], dtype=torch.bfloat16)
    kept = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "eos_token_id": [0, 2, 7], "repetition_penalty": 1.1}
    (base / "generation_config.json").write_text(json.dumps(kept))
    still = {"optimization": {"learning_rate": 0.0, "weight_decay": 0.0}}
    made = trivium.run(recipe_of(tmp_path, base, precision, **still))
    folder = made["sft"].folder
    for name in ("sft", "reward"):
        assert dtypes(made[name].folder) == {"BF16"}
        assert json.loads((made[name].folder / "config.json").read_text())["dtype"] == "bfloat16"
    before, after = (AutoModelForCausalLM.from_pretrained(place) for place in (base, folder))
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name])
    written = json.loads((folder / "generation_config.json").read_text())
    assert {name: written[name] for name in kept} == kept | {"eos_token_id": written["eos_token_id"]}
    assert set(written["eos_token_id"]) == {0, 2, 7}
    check_scores(made["reward"].folder)


def test_save_dtype_says_otherwise(tmp_path):
    base = tmp_path / "base"
    bases.byte_level(base)
    bases.model(base, FAMILIES["llama"], dtype=torch.bfloat16)
    made = trivium.run(recipe_of(tmp_path, base, "float32", save_dtype="float32"))
    assert dtypes(made["sft"].folder) == {"F32"}
    assert json.loads((made["sft"].folder / "config.json").read_text())["dtype"] == "float32"
