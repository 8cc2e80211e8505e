"""A tokenizer as GGUF holds it: its entries with their types, merges or scores, how it cuts texts, which tokens begin
and end what is said, and the chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError
from trivium.files import read_json
from trivium.model.gguf.cuts import name_of
from trivium.tokenizer import ChatTokenizer, TemplateTokenizer

SPACE = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""GGUF's types of tokens."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def add_tokenizer(writer: Any, folder: Path, vocab_size: int, say: Callable[[str], None]) -> None:
    """Add the tokenizer of a model's folder. Raises :class:`TriviumError` for one that llama.cpp would read otherwise;
    what it can read but in part is said."""
    where = str(folder / "tokenizer.json")
    tokenizer = ChatTokenizer.load(folder)
    described = json.loads(tokenizer.data)
    model = described["model"]
    if model.get("type") != "BPE":
        raise TriviumError(f"{where}: a tokenizer of type {model.get('type')!r}; byte-level BPE and SentencePiece's "
                           "BPE can be written as GGUF")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise TriviumError(f"{where}: {name} is {model[name]!r}, which llama.cpp does not have")
    added = {int(token["id"]): token for token in described.get("added_tokens") or []}
    texts = {int(id): str(text) for text, id in model["vocab"].items()}
    texts |= {id: str(token["content"]) for id, token in added.items()}
    if max(texts) >= vocab_size:
        raise TriviumError(f"{where}: holds the token {max(texts)}, but the model has only {vocab_size} entries")
    types = [UNUSED] * vocab_size
    for id in texts:
        types[id] = NORMAL if id not in added else CONTROL if added[id].get("special") else USER_DEFINED
    if model.get("byte_fallback"):
        add_sentencepiece(writer, described, texts, types, where, say)
    else:
        add_byte_level(writer, described, where)
    writer.add_token_list([texts.get(id, f"[PAD{id}]") for id in range(vocab_size)])
    writer.add_token_types(types)
    add_ends(writer, tokenizer, folder, say)


def add_byte_level(writer: Any, described: dict[str, Any], where: str) -> None:
    """The merges of a byte-level BPE, and the name of how it cuts texts."""
    normalizer = described.get("normalizer") or {}
    kinds = [part.get("type") for part in normalizer.get("normalizers", [normalizer] if normalizer else [])]
    if set(kinds) - {"NFC"}:  # NFC leaves alone what people type
        raise TriviumError(f"{where}: llama.cpp does not have its normalizer {kinds[0]!r}")
    if "ByteLevel" not in json.dumps(described.get("decoder")):
        raise TriviumError(f"{where}: a BPE that is neither byte-level nor SentencePiece's cannot be written as GGUF")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name_of(described, where))
    writer.add_token_merges([" ".join(pair) for pair in pairs(described["model"])])


def pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges, first ones first."""
    return [tuple(merge) if not isinstance(merge, str) else tuple(merge.split(" ", 1))  # type: ignore[misc]
            for merge in model["merges"]]


def add_sentencepiece(writer: Any, described: dict[str, Any], texts: dict[int, str], types: list[int], where: str,
                      say: Callable[[str], None]) -> None:
    """The scores of SentencePiece's BPE; bytes and the unknown token get their types."""
    model = described["model"]
    ids = {text: id for id, text in texts.items()}
    unknown = model.get("unk_token")
    if unknown not in ids or not set(BYTES) <= set(ids):
        raise TriviumError(f"{where}: a BPE with byte_fallback needs an unknown token and all 256 bytes as <0x00> to "
                           "<0xFF>")
    prefix = space_prefix(described, where)
    scores = merge_scores(model, where)
    for byte in BYTES:
        types[ids[byte]] = BYTE
    types[ids[unknown]] = UNKNOWN
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([scores.get(texts.get(id, ""), 0.0) for id in range(len(types))])
    writer.add_unk_token_id(ids[unknown])
    writer.add_add_space_prefix(prefix == "always")
    if prefix == "always" and (described.get("pre_tokenizer") or {}).get("type") == "Metaspace":
        say("a text that begins with a space gets another one from llama.cpp, which this tokenizer would not add")
    if prefix == "first":
        say("the tokenizer puts a space before a text's first word, but not after a special token, and llama.cpp has "
            "both or neither: it gets neither, so chats are right; begin plain texts with a space yourself")


def space_prefix(described: dict[str, Any], where: str) -> str:
    """Where a SentencePiece tokenizer puts a space before words: ``always`` (after special tokens too), ``first`` or
    ``never``. Raises :class:`TriviumError` for any other way to treat spaces."""
    normalizer, pre = described.get("normalizer") or {}, described.get("pre_tokenizer") or {}
    parts = normalizer.get("normalizers", [normalizer] if normalizer else [])
    kinds = [part.get("type") for part in parts]
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if any(part != replaces and part != {"type": "Prepend", "prepend": SPACE} for part in parts):
        raise TriviumError(f"{where}: llama.cpp does not have its normalizer ({', '.join(map(str, kinds))})")
    if pre.get("type") == "Metaspace" and pre.get("replacement") == SPACE and not parts:
        if pre.get("split", True) and any(SPACE in token[1:] for token in described["model"]["vocab"]):
            raise TriviumError(f"{where}: it cuts texts at spaces, which llama.cpp's SentencePiece does not")
        return str(pre.get("prepend_scheme", "always"))
    harmless = pre.get("type") == "Split" and pre.get("pattern") == {"String": " "}  # all spaces are replaced by then
    if (pre and not harmless) or "Replace" not in kinds:
        raise TriviumError(f"{where}: it cuts texts by {pre.get('type', 'nothing')!r}, which llama.cpp's SentencePiece "
                           "does not")
    return "always" if "Prepend" in kinds else "never"


def merge_scores(model: dict[str, Any], where: str) -> dict[str, float]:
    """A score for every token that a merge makes, by which SentencePiece's BPE merges in the order of the merges.

    It merges the pair whose whole has the highest score, whatever the pair; so all pairs that make up a token must be
    merges, next to one another. Raises :class:`TriviumError` where they are not."""
    vocab, ranks = model["vocab"], dict[str, list[int]]()
    known = set(pairs(model))
    for rank, (left, right) in enumerate(pairs(model)):
        ranks.setdefault(left + right, []).append(rank)
    for whole, places in ranks.items():
        other = next((at for at in range(1, len(whole)) if whole[:at] in vocab and whole[at:] in vocab
                      and (whole[:at], whole[at:]) not in known), None)
        if other is not None or places[-1] - places[0] != len(places) - 1:
            raise TriviumError(f"{where}: its merges are not those of a SentencePiece model (the token {whole!r} is "
                               "made in another order), so llama.cpp would read other tokens")
    return {whole: -float(number) for number, whole in enumerate(ranks)}


def add_ends(writer: Any, tokenizer: ChatTokenizer, folder: Path, say: Callable[[str], None]) -> None:
    """The tokens that begin texts, and end texts and answers, and the chat template."""
    own_base = type(tokenizer) is ChatTokenizer and bool(tokenizer.text_start)
    eos, end = tokenizer.eos_id, tokenizer.document_id if own_base else tokenizer.end_id
    start = tokenizer.text_start
    if start not in ([], [tokenizer.document_id]):
        raise TriviumError(f"{folder}: a text begins with {[tokenizer.spelling(id) for id in start]}, and GGUF has a "
                           "place for one token")
    begins = bool(start)
    if begins and not own_base and tokenizer.encode_chat([{"role": "user", "content": "a"}])[0][0] != start[0]:
        begins = False
        say(f"its chats do not begin with {tokenizer.spelling(start[0])}, as its texts do, and llama.cpp begins both "
            "alike: chats are right; begin plain texts with it yourself")
    writer.add_bos_token_id(tokenizer.document_id)
    writer.add_add_bos_token(begins)
    writer.add_eos_token_id(eos)
    writer.add_add_eos_token(False)
    if end != eos:
        writer.add_eot_token_id(end)
    more = [id for id in ends_of(folder) if id not in (eos, end)]
    if more:
        writer.add_eom_token_id(more[0])
    if more[1:]:
        say("GGUF has places for three tokens that end answers, so left out are "
            f"{', '.join(tokenizer.spelling(id) for id in more[1:])}")
    if not isinstance(tokenizer, TemplateTokenizer) or "pad" in tokenizer.special:
        writer.add_pad_token_id(tokenizer.pad_id)
    if not own_base:
        marks = r"{%-?\s*(end)?generation\s*-?%}"  # which only training programs know
        template = re.sub(marks, "", tokenizer.template)
        if isinstance(tokenizer, TemplateTokenizer) and "bos" not in tokenizer.special and "bos_token" in template:
            template = "{%- set bos_token = '' -%}" + template  # llama.cpp takes some token for it all the same
        writer.add_chat_template(template)


def ends_of(folder: Path) -> list[int]:
    """The tokens that end answers, by ``generation_config.json`` and ``config.json``."""
    found: dict[int, None] = {}
    for name in ("generation_config.json", "config.json"):
        values = read_json(folder / name) if (folder / name).exists() else {}
        ids = values.get("eos_token_id")
        found |= dict.fromkeys(id for id in (ids if isinstance(ids, list) else [ids]) if isinstance(id, int))
    return list(found)


