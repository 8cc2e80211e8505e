"""The small files of a model's folder: whether they are what their names say, before anything is made of them."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError
from trivium.files import read_json, read_text, what

OBJECTS = ("config.json", "adapter_config.json", "trivium.json", "generation_config.json", "tokenizer.json",
           "tokenizer_config.json", "special_tokens_map.json", "vision.json", "model.safetensors.index.json")
"""Files that hold a JSON object each."""

ADAPTER, CONFIG = "adapter_config.json", "config.json"

MOST = 1 << 40
"""No size of a model comes near it."""


def check_files(folder: Path) -> None:
    """Raise :class:`TriviumError` that names the file and the line for a file of a model's folder that is cut off, no
    JSON object or no UTF-8, and the field for a value that is none. Files that are not there are not missed here."""
    for name in OBJECTS:
        if (folder / name).is_file():
            read_object(folder / name)
    for template in sorted(folder.glob("*.jinja")):
        read_text(template)


def read_object(path: Path) -> dict[str, Any]:
    """A file of a model's folder that holds one JSON object, every field of which that is known here is of its kind.
    Raises :class:`TriviumError` for any other file, and for a field that is not."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise TriviumError(f"{path}: {what(found)}, where a JSON object was expected; copy it again")
    if path.name not in ("tokenizer.json", "model.safetensors.index.json"):
        check_values(path, found)
    return found


def read_values(folder: Path) -> dict[str, Any]:
    """A model folder's ``config.json``."""
    return read_object(folder / "config.json")


def check_values(path: Path, values: dict[str, Any], within: str = "") -> None:
    """Raise :class:`TriviumError` for a field that is not of its kind; null stands for a field that is not there."""
    for name, value in values.items():
        fits, wanted = _KINDS.get(name, (None, ""))
        if fits is not None and value is not None and not fits(value):
            raise TriviumError(f"{path}: {within}{name} is {_shown(value)}, where {wanted} was expected")
    for half in ("encoder", "decoder", "text_config"):
        if values.get(half):
            check_values(path, values[half], f"{within}{half}.")
    for name in ("rope_parameters", "rope_scaling"):
        for key, value in (values.get(name) or {}).items():
            if isinstance(value, dict):  # one of several kinds of layers
                check_values(path, {name: value}, f"{within}{key}.")
            elif key in _ROPE_NUMBERS and value is not None and not (_is_number(value) and float(value) > 0):
                raise TriviumError(f"{path}: {within}{name}.{key} is {_shown(value)}, where a number above 0 was "
                                   "expected")


def _shown(value: Any) -> str:
    text = what(value) if isinstance(value, (dict, list)) else repr(value)
    return text if len(text) < 60 else text[:56] + " ..."


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e38 and math.isfinite(
        value)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= MOST


def _is_tokens(value: Any) -> bool:
    return _is_token(value) or (isinstance(value, list) and all(map(_is_token, value)))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(label, (str, int, float)) and str(key).isdecimal() for key, label in value.items())


def _kinds(fits: Callable[[Any], bool], wanted: str, names: str) -> dict[str, tuple[Callable[[Any], bool], str]]:
    return dict.fromkeys(names.split(), (fits, wanted))


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **_kinds(_is_size, "a whole number from 1",
             "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
             "max_position_embeddings num_labels local_attention n_embd n_layer n_head n_positions r "
             "top_k"),
    **_kinds(lambda value: value == 0 or _is_size(value), "a whole number", "sliding_window"),
    **_kinds(lambda value: _is_size(value) or (isinstance(value, list) and all(map(_is_size, value))),
             "a whole number from 1", "intermediate_size"),
    **_kinds(lambda value: _is_number(value) and value > 0, "a number above 0",
             "rms_norm_eps rope_theta norm_eps layer_norm_eps layer_norm_epsilon global_rope_theta local_rope_theta "
             "query_pre_attn_scalar"),
    **_kinds(_is_number, "a number",
             "attention_dropout trivium_score_shift partial_rotary_factor lora_alpha lora_dropout score_shift"),
    **_kinds(lambda value: isinstance(value, bool), "true or false",
             "tie_word_embeddings attention_bias mlp_bias use_sliding_window is_encoder_decoder is_causal use_rslora "
             "use_dora fan_in_fan_out"),
    **_kinds(lambda value: isinstance(value, str), "a text",
             "model_type hidden_act hidden_activation peft_type base_model_name_or_path base base_digest"),
    **_kinds(lambda value: isinstance(value, dict), "an object",
             "rope_parameters rope_scaling quantization_config text_config encoder decoder adapter vision"),
    **_kinds(_is_texts, "a list of texts", "architectures layer_types"),
    **_kinds(lambda value: isinstance(value, str) or _is_texts(value), "a list of texts", "target_modules"),
    **_kinds(_is_tokens, "the number of a token, or a list of them", "eos_token_id pad_token_id bos_token_id"),
    **_kinds(lambda value: isinstance(value, (str, dict)), "a token's text", "eos_token pad_token bos_token unk_token"),
    **_kinds(_is_labels, "an object of labels by their numbers", "id2label"),
}
"""What the values of a field are, by the field's name, and how an error says it."""

_ROPE_NUMBERS = {"rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor",
                 "beta_fast", "beta_slow", "attention_factor"}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within it, a :class:`TriviumError` about a shape names the file that describes it."""
    try:
        yield
    except TriviumError as error:
        raise TriviumError(f"{path}: {error}") from error


def check_depth(folder: Path, layers: int, tensors: int) -> None:
    """Raise :class:`TriviumError` for more layers than a folder holds ``tensors``, before they are built."""
    if layers > tensors:
        raise TriviumError(f"{folder}: config.json asks for {layers:,} layers, but the weights are {tensors:,} tensors")


def is_model(folder: Path) -> bool:
    """Whether a model or an adapter lies in a folder."""
    return (folder / CONFIG).is_file() or (folder / ADAPTER).is_file()


def chats(folder: Path) -> bool:
    """Whether a folder's model writes text, and its tokenizer knows how a conversation is written."""
    if not is_model(folder) or not (folder / "tokenizer.json").is_file():
        return False
    named = object_in(folder / "tokenizer_config.json")
    template = (folder / "chat_template.jinja").is_file() or "chat_template" in named
    if (folder / ADAPTER).is_file():
        writes = object_in(folder / ADAPTER).get("task_type") in ("CAUSAL_LM", None)
    else:
        classes = str(object_in(folder / CONFIG).get("architectures", ["ForCausalLM"]))
        writes = "CausalLM" in classes or "LMHeadModel" in classes
    return template and writes


def object_in(path: Path) -> dict[str, object]:
    """A file's JSON object; an empty one where it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
