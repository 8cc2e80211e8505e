"""How byte-level tokenizers cut texts, and what llama.cpp calls it.

``tokenizer.json`` holds regular expressions; a GGUF file holds a name, and llama.cpp knows the expressions. So a
tokenizer can be written only where its expressions are to the letter those of a name.
"""

from __future__ import annotations

from typing import Any

from trivium.errors import TriviumError

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPELLED = (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", r"'(?i:[sdmt]|ll|ve|re)",
           r"(?i:'s|'t|'re|'ve|'m|'d|'ll)")
"""Other spellings of the same."""

SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*%s|%s|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CJK = "[一-龥\u3040-ゟ゠-ヿ]+"

KNOWN: dict[str, tuple[tuple[str, ...], bool]] = {
    "qwen2": ((WORDS + r"\p{N}|" + SIGNS,), False),
    "qwen35": ((CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
                r"\s*[\r\n]+|\s+(?!\S)|\s+",), False),
    "llama-bpe": ((WORDS + r"\p{N}{1,3}|" + SIGNS,), True),
    "smaug-bpe": ((WORDS + r"\p{N}{1,3}|" + SIGNS,), False),
    "gpt-2": ((GPT2,), False),
    "smollm": ((r"\p{N}", GPT2), False),
    "deepseek-v3": ((r"\p{N}{1,3}", CJK,
                     r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
                     r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""), False),
    "deepseek-coder": ((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"), False),
}
"""llama.cpp's names: what cuts a text, one expression after another, and whether a whole word that is in the vocabulary
is taken without merges."""

READ_ALONE = {
    "gpt-4o": ((CASED % (CONTRACTIONS + "?", CONTRACTIONS + "?", r"\p{N}{1,3}"),), False),
    "tekken": ((CASED % ("", "", r"\p{N}"),), True),
}
"""Names whose expressions llama.cpp only comes near: it cuts combining marks apart, and with them Hindi and Thai."""

NAMES = {cut: name for name, cut in KNOWN.items()}


def name_of(described: dict[str, Any], where: str) -> str:
    """llama.cpp's name for how a ``tokenizer.json`` cuts texts. Raises :class:`TriviumError` where it has none."""
    cut = (steps(described.get("pre_tokenizer"), where), bool(described["model"].get("ignore_merges")))
    if cut not in NAMES:
        raise TriviumError(
            f"{where}: llama.cpp has no name for how this tokenizer cuts texts ({' then '.join(cut[0]) or 'not at all'}"
            f"{', whole words first' if cut[1] else ''}), so it would read other tokens; it knows "
            f"{', '.join(KNOWN)}")
    return NAMES[cut]


def steps(pre: dict[str, Any] | None, where: str) -> tuple[str, ...]:
    """The expressions that a byte-level pre-tokenizer cuts by, in order."""
    found: list[str] = []
    for part in (pre or {}).get("pretokenizers", [pre] if pre else []):
        kind = part.get("type")
        if kind == "ByteLevel" and not part.get("add_prefix_space"):
            found += [GPT2] if part.get("use_regex", True) else []
        elif kind == "Digits":
            found.append(r"\p{N}" if part.get("individual_digits") else r"\p{N}+")
        elif kind == "Split" and isinstance(part.get("pattern"), dict) and "Regex" in part["pattern"] and (
                part.get("behavior"), bool(part.get("invert"))) in (("Isolated", False), ("Removed", True)):
            pattern = str(part["pattern"]["Regex"])
            for other in SPELLED:
                pattern = pattern.replace(other, CONTRACTIONS)
            found.append(pattern)
        else:
            raise TriviumError(f"{where}: its step {kind!r} with these settings is none that llama.cpp takes")
    return tuple(found)


def pre_tokenizer(name: str) -> tuple[dict[str, Any], bool]:
    """The pre-tokenizer of ``tokenizer.json`` for one of llama.cpp's names, and ``ignore_merges``. Raises
    :class:`TriviumError` for a name that is not known."""
    same = {"llama-v3": "llama-bpe", "llama3": "llama-bpe", "falcon3": "llama-bpe", "pixtral": "llama-bpe",
            "dbrx": "smaug-bpe", "starcoder": "smollm", "refact": "smollm", "command-r": "smollm", "phi-2": "gpt-2",
            "mpt": "gpt-2", "olmo": "gpt-2", "jais": "gpt-2", "deepseek-r1-qwen": "qwen2", "stablelm2": "qwen2",
            "megrez": "qwen2", "llama4": "gpt-4o"}
    cut = (KNOWN | READ_ALONE).get(same.get(name, name))
    if cut is None:
        raise TriviumError(f"its tokenizer cuts texts by {name!r}, which is not known here; known are "
                           f"{', '.join(sorted([*KNOWN, *READ_ALONE, *same]))}")
    splits = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
              for pattern in cut[0]]
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, last]}, cut[1]
