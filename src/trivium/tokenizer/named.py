"""Chat templates by their names, in words of our own, for bases that have none."""

from __future__ import annotations

from importlib import resources

from trivium.errors import TriviumError, nearest

NEEDED: dict[str, tuple[str, ...]] = {
    "plain": (), "chatml": ("<|im_start|>", "<|im_end|>"), "qwen3": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "mistral": (),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi3": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), "zephyr": ()
}
"""The templates, and the tokens without which each is nothing: a model learns where turns begin and end by them."""

BETTER: dict[str, tuple[str, ...]] = {
    "qwen3": ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    "mistral": ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
                "[/TOOL_RESULTS]"),
}
"""Tokens that are spelt as text where a vocabulary has none of them."""


def text_of(name: str) -> str:
    """The template of that name in this package, ``trivium`` being that of our own tokenizers."""
    return resources.files("trivium.tokenizer").joinpath("layouts", f"{name}.jinja").read_text("utf-8").rstrip("\n")


TEMPLATE, PLAIN_TEMPLATE = text_of("trivium"), text_of("plain")


def check_name(template: str) -> None:
    """Raise :class:`TriviumError` for what is neither a template's name nor that of a ``.jinja`` file."""
    if not template.endswith(".jinja") and template not in NEEDED:
        raise TriviumError(f"there is no template {template!r}{nearest(template, NEEDED)}; or name a file that ends in "
                           ".jinja")
