"""Folders of models and tokenizers as other makers write them, small enough for a test."""

from __future__ import annotations

import json

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM

TEXTS = [
    f"Mira sold {n} pots and {3 * n + 1} jars; isn't that \"fine\"? We'll see...\n\n  She'd say: it's {n}/7, 'this' "
    f"and 'that'.\tДа, naïve café — 陶瓷罐子{n}个。" for n in range(60)
]

CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
          "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|"
         r"\s+")
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")


def split(pattern):
    """A pre-tokenizer that cuts by a pattern, then takes bytes for letters."""
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ])


def byte_level(folder, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), cut=None, plain=(), size=420,
               template=CHATML, ignore_merges=False, **config):
    """A byte-level BPE tokenizer. ``plain`` are added tokens that are not special."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = cut or split(QWEN2)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=size, show_progress=False,
                            special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return write(folder, tokenizer, template, {"eos_token": special[0]} | config)


def write(folder, tokenizer, template, config):
    """The files of a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1000} | config
    if template:
        values["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    return tokenizer


def model(folder, config, seed=0, dtype=torch.float32):
    """A random model of a family that transformers knows, with weights large enough to tell tokens apart."""
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
            elif "bias" in name:
                parameter.normal_(0, 0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    made.to(dtype).save_pretrained(folder)
    return made
