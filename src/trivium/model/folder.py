"""Hugging Face model folders of every family: what lies in a folder is found out here, and given to those who know
it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trivium.artifacts import check_made
from trivium.errors import TriviumError
from trivium.model.adapters import folder as adapter_folder
from trivium.model.adapters.peft import vocabulary
from trivium.model.check import read_object, read_values
from trivium.model.config import ModelConfig
from trivium.model.families import config_of, load_own, ours, save_own, save_own_config
from trivium.model.transformer import LanguageModel, RewardModel

if TYPE_CHECKING:
    from trivium.model.encoder_decoder import EncoderDecoder


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The shape described by a folder's ``config.json``, and the file itself. Of an adapter: its base's."""
    path = folder / "config.json"
    if not path.exists() and (folder / adapter_folder.CONFIG).exists():
        config, values = read_config(adapter_folder.base_of(folder))
        generation = folder / "generation_config.json"
        ids = read_object(generation) if generation.exists() else {}
        config = replace(config, vocab_size=vocabulary(folder) or config.vocab_size)
        return config, values | {name: ids[name] for name in ("eos_token_id", "pad_token_id") if name in ids}
    values = read_values(folder)
    family = values.get("model_type")
    if family == "modernbert":
        raise TriviumError(
            f"{folder}: an encoder reads and labels, but writes nothing; a language model is needed here")
    if not ours(values):
        from trivium.model.foreign import shape_of
        return shape_of(folder)
    return config_of(folder, values), values


def load(folder: Path, dtype: torch.dtype | None = torch.float32,
         device: torch.device | str = "cpu") -> LanguageModel | RewardModel | EncoderDecoder:
    """A language model or, when the folder's architecture says so, a reward model or an encoder-decoder, in ``dtype``
    (None: as stored).

    Tensors are read one by one, so memory holds the model once. A folder with a manifest is checked against it first,
    once per process. Raises :class:`TriviumError`, before any weight is
    read, for a missing or broken file, an unknown family, and weights that do not fit the config.
    """
    check_made(folder)
    if (folder / adapter_folder.CONFIG).exists() and not (folder / "model.safetensors").exists():
        return load_adapter(folder, None, dtype, device)
    if (folder / "config.json").exists() and read_values(folder).get("model_type") == "t5gemma":
        from trivium.model.encoder_decoder import load_encoder_decoder
        return load_encoder_decoder(folder, dtype, device)
    if not ours(read_config(folder)[1]):
        from trivium.model.foreign import load as load_foreign
        return load_foreign(folder, dtype, device)
    model = load_own(folder, dtype, device)
    if isinstance(model, LanguageModel) and (folder / "vision.json").exists():
        from trivium.model.vision import load_seeing
        return load_seeing(model, folder, dtype, device)
    return model


def load_adapter(folder: Path, base: Path | None = None, dtype: torch.dtype | None = torch.float32,
                 device: torch.device | str = "cpu") -> Any:
    """The base of an adapter (the one that it names, unless given) with the adapter: LoRA is folded into the weights,
    others stay beside them, frozen. Raises :class:`TriviumError` for another base than the adapter's."""
    check_made(folder)
    if base is not None:
        adapter_folder.check_base(folder, base)
    return adapter_folder.merged_into(load(base or adapter_folder.base_of(folder), dtype, device), folder)


def save(model: LanguageModel | RewardModel, folder: Path, ids: dict[str, Any], shard_bytes: int = 5 << 30) -> None:
    """Write ``config.json`` and the weights as they are; ``ids`` holds the token ids ``eos`` and ``pad``."""
    save_folder = getattr(model, "save_folder", None)
    if save_folder is not None:  # of another family, or one that sees
        save_folder(folder, ids)
        return
    save_own(model, folder, ids, shard_bytes)


def save_config(model: LanguageModel | RewardModel, folder: Path, ids: dict[str, Any]) -> None:
    """Write ``config.json`` and, of a language model, ``generation_config.json``."""
    whole: Any = getattr(model, "whole", None)
    if whole:  # of another family
        whole[0].config.save_pretrained(folder)
        return
    save_own_config(model, folder, ids)


def what_is(model: object) -> str:
    """A model's family, as an error names it."""
    return {
        "RewardModel": "a reward model", "EncoderDecoder": "an encoder-decoder", "MaskedModel": "an encoder",
        "Classifier": "an encoder"
    }.get(type(model).__name__, "a language model")
