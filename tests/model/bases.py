"""Folders of models and tokenizers as other makers write them, small enough for a test."""

from __future__ import annotations

import json

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM
from transformers.convert_slow_tokenizer import generate_merges

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
               template=CHATML, ignore_merges=False, begins=None, **config):
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
    return write(folder, tokenizer, template, {"eos_token": special[0]} | config, begins)


def sentencepiece(folder, size=600, prefix="always", template=CHATML, plain=(), complete=True, begins=None, **config):
    """SentencePiece's BPE as Llama 2 has it: scores that became merges, and bytes for unknown letters. Where the prefix
    is ``normalizer``, spaces are treated there, as older files do. Not ``complete``: merges as a BPE learns them."""
    space = "\u2581"
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(space, "always", split=True)
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    learned = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    pieces = [piece for piece, _ in learned if len(piece) > 1] + [space * 2, space * 4]
    pieces += [piece for piece, _ in learned if len(piece) == 1]
    vocab = {token: id for id, token in enumerate(
        ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces])}
    scores = {piece: -float(rank) for rank, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    if complete:
        merges = generate_merges({piece: vocab[piece] for piece in pieces}, scores)
    tokenizer = Tokenizer(models.BPE(vocab, [tuple(pair) for pair in merges], unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    if prefix == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(space, prefix, split=False)
    strip = [] if prefix == "never" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in
                                  ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return write(folder, tokenizer, template, {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"} | config,
                 begins)


def write(folder, tokenizer, template, config, begins=None):
    """The files of a tokenizer. Texts begin with the token ``begins``."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1000} | config
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begins} $A", pair=f"{begins} $A $B", special_tokens=[(begins, tokenizer.token_to_id(begins))])
    tokenizer.save(str(folder / "tokenizer.json"))
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
