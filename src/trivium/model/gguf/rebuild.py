"""The tokenizer of a GGUF file as ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trivium.errors import TriviumError
from trivium.files import write_json, write_text
from trivium.model.gguf.cuts import pre_tokenizer
from trivium.model.gguf.parse import Header
from trivium.model.gguf.tokenizer import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED

STARTS = ("llama-bpe", "llama-v3", "llama3", "falcon3", "pixtral")
"""Ways to cut of which llama.cpp lets texts begin with a token where the file does not say."""


def write_tokenizer(header: Header, folder: Path) -> dict[str, int]:
    """Write ``tokenizer.json``, its settings and the chat template; the ids ``bos``, ``eos``, ``eot``, ``eom``, ``pad``
    and ``unk``, of which there may be. Raises :class:`TriviumError` for a tokenizer that is not known."""
    given, path = header.values, header.path
    kind = given.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise TriviumError(f"{path}: its tokenizer is of the kind {kind!r}; gpt2 (byte-level BPE) and llama "
                           "(SentencePiece) are read: take the model's Hugging Face folder instead")
    tokens, types = given.get("tokenizer.ggml.tokens"), given.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not tokens or types is None or len(types) != len(tokens):
        raise TriviumError(f"{path}: the tokenizer's entries and their types are missing or not as many")
    types = [int(type) for type in types]
    vocab: dict[str, int] = {}
    for id, (token, type) in enumerate(zip(tokens, types, strict=True)):
        if type == UNUSED:
            continue
        if vocab.setdefault(token, id) != id:
            raise TriviumError(f"{path}: the tokenizer holds {token!r} twice, as {vocab[token]} and {id}")
    ids = special_ids(header, len(tokens), kind)
    spelt = {name: tokens[id] for name, id in ids.items()}
    described = byte_level(header, vocab) if kind == "gpt2" else sentencepiece(header, vocab, types, spelt)
    described["added_tokens"] = [
        {"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": types[id] != USER_DEFINED}
        for token, id in vocab.items() if types[id] in (CONTROL, USER_DEFINED, UNKNOWN)]
    starts = kind == "llama" or given.get("tokenizer.ggml.pre") in STARTS
    begins = bool(given.get("tokenizer.ggml.add_bos_token", starts)) and "bos" in ids
    if begins:
        one = {"SpecialToken": {"id": spelt["bos"], "type_id": 0}}
        described["post_processor"] = {
            "type": "TemplateProcessing", "single": [one, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [one, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {spelt["bos"]: {"id": spelt["bos"], "ids": [ids["bos"]], "tokens": [spelt["bos"]]}}}
    elif ids.get("bos") == ids["eos"]:
        del ids["bos"], spelt["bos"]  # named because the format wants one
    text = json.dumps({"version": "1.0", "truncation": None, "padding": None} | described, ensure_ascii=False)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise TriviumError(f"{path}: its tokenizer does not fit together ({error})") from error
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    write_json(folder / "tokenizer_config.json", {f"{name}_token": spelt[name] for name in ("bos", "eos", "pad", "unk")
                                                  if name in spelt} | {"tokenizer_class": "PreTrainedTokenizerFast"})
    template = given.get("tokenizer.chat_template")
    if isinstance(template, str) and template:
        write_text(folder / "chat_template.jinja", template)
    return ids


def special_ids(header: Header, entries: int, kind: str) -> dict[str, int]:
    """The tokens that have a part to play."""
    usual = {"bos": 1, "eos": 2, "unk": 0} if kind == "llama" else {}
    names = {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "padding": "pad", "unknown": "unk"}
    found = dict(usual)
    for theirs, name in names.items():
        id = header.values.get(f"tokenizer.ggml.{theirs}_token_id")
        if isinstance(id, int):
            found[name] = id
    wrong = next((name for name, id in found.items() if not 0 <= id < entries), None)
    if wrong is not None or "eos" not in found:
        raise TriviumError(f"{header.path}: tokenizer.ggml.{wrong or 'eos'}_token_id is "
                           f"{f'{found[wrong]}, beyond its {entries} entries' if wrong else 'missing'}; make it again")
    return found


def byte_level(header: Header, vocab: dict[str, int]) -> dict[str, Any]:
    """A byte-level BPE."""
    cut = header.values.get("tokenizer.ggml.pre")
    try:
        pre, whole_words = pre_tokenizer(str(cut))
    except TriviumError as error:
        raise TriviumError(f"{header.path}: {error}") from error
    merges = header.values.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise TriviumError(f"{header.path}: the tokenizer's merges are missing")
    return {
        "normalizer": None, "pre_tokenizer": pre, "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": model_of(vocab, [merge.split(" ", 1) for merge in merges], ignore_merges=whole_words)}


def sentencepiece(header: Header, vocab: dict[str, int], types: list[int], spelt: dict[str, str]) -> dict[str, Any]:
    """SentencePiece's BPE: every pair that makes up a token is a merge, in the order of the tokens' scores."""
    scores = header.values.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(types):
        raise TriviumError(f"{header.path}: the tokenizer's scores are missing or not as many as its entries")
    merges: list[tuple[float, int, int, str, str]] = []
    for token, id in vocab.items():
        if types[id] in (NORMAL, USER_DEFINED):
            for at in range(1, min(len(token), 256)):
                left, right = vocab.get(token[:at]), vocab.get(token[at:])
                if left is not None and right is not None:
                    merges.append((-float(scores[id]), left, right, token[:at], token[at:]))
    prefixed = bool(header.values.get("tokenizer.ggml.add_space_prefix", True))
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    normalizers = [{"type": "Prepend", "prepend": SPACE}, spaces] if prefixed else [spaces]
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}] + ([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else [])
    ordered = [[left, right] for *_, left, right in sorted(merges)]
    return {"normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": None,
            "post_processor": None, "decoder": {"type": "Sequence", "decoders": decoders},
            "model": model_of(vocab, ordered, unk_token=spelt["unk"], fuse_unk=True, byte_fallback=BYTE in types)}


def model_of(vocab: dict[str, int], merges: list[Any], **more: Any) -> dict[str, Any]:
    """The BPE of ``tokenizer.json``."""
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges} | more
