"""Tiny tokenizers of every kind, as other people's folders hold them."""

from __future__ import annotations

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = ["The ferry crossed the river twice a day. user assistant system tool model\n\n", "渡船每天过河两次。",
         "<think> 1 + 2 = 3\n  x </think> im_start im_end", '{"name": "weather", "arguments": {"city": "Oslo"}}']
KINDS = ("byte", "byte-nfc", "lower", "prepend", "metaspace", "unigram", "word")


def make(folder, kind, tokens, eos, template=None, bos=None, unk=None, flags=None, plain=()):
    """A folder with a tokenizer of a ``kind``. ``tokens`` are special ones, with ``flags`` on all of them; ``plain``
    ones are not special."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, bytes_, alphabet = of_kind(kind)
    added = [AddedToken(token, **{"special": True, "normalized": False, **(flags or {})}) for token in tokens]
    if kind == "unigram":
        trainer = trainers.UnigramTrainer(vocab_size=260, special_tokens=["<unk>", *added], unk_token="<unk>",
                                          show_progress=False)
    elif kind == "word":
        trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", *added], show_progress=False)
    else:
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*added, *bytes_], initial_alphabet=alphabet,
                                      show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 9, trainer)
    found = json.loads(tokenizer.to_str())
    found["added_tokens"] = [token for token in found["added_tokens"] if not token["content"].startswith("<0x")]
    for token in found["added_tokens"]:
        token |= flags or {} if token["content"] in tokens else {}
    number = tokenizer.get_vocab_size()
    for token in plain:
        found["added_tokens"].append({"id": number, "content": token, "single_word": False, "lstrip": False,
                                      "rstrip": False, "normalized": False, "special": False})
        number += 1
    (folder / "tokenizer.json").write_text(json.dumps(found))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "clean_up_tokenization_spaces": False}
    config |= {f"{name}_token": token for name, token in (("bos", bos), ("unk", unk)) if token}
    if template:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def of_kind(kind):
    """An untrained tokenizer, its tokens for bytes, and its alphabet."""
    if kind in ("byte", "byte-nfc", "lower"):
        tokenizer = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        if kind != "byte":
            tokenizer.normalizer = normalizers.NFC() if kind == "byte-nfc" else normalizers.Sequence(
                [normalizers.NFKC(), normalizers.Replace("\u200b", ""), normalizers.Lowercase()])
        return tokenizer, [], pre_tokenizers.ByteLevel.alphabet()
    if kind in ("prepend", "metaspace"):
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        if kind == "prepend":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                               decoders.Strip(" ", 1, 0)])
        return tokenizer, ["<unk>", *(f"<0x{i:02X}>" for i in range(256))], []
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        return tokenizer, [], []
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer, [], []
