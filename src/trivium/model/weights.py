"""The bytes of a model's folder: safetensors files, or shards of them with their index."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Literal

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.files import read_json, write_json, written_aside
from trivium.model.transformer import WithoutContents

SaveDtype = Literal["base", "float32", "bf16", "f16"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""Number formats by the names of settings."""
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Number formats by safetensors' names."""


def stored_dtype(folder: Path) -> torch.dtype:
    """The number format of most of a model folder's weights; float32 where it is none that training writes. Only
    headers are read."""
    counts: Counter[str] = Counter()
    places = shards(folder)
    for path in sorted(set(places.values())):
        with safetensors.safe_open(path, framework="pt") as file:
            for name in (name for name, place in places.items() if place == path):
                view = file.get_slice(name)
                counts[view.get_dtype()] += prod(view.get_shape())
    return STORED.get(counts.most_common(1)[0][0], torch.float32) if counts else torch.float32


def name_of_dtype(model: nn.Module) -> str:
    """The number format of a model's weights, as ``config.json`` names it: float32, bfloat16 or float16."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


@contextlib.contextmanager
def weights_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it, a model's weights are in ``dtype``; afterwards they are what they were, rounded. Buffers stay: the
    frequencies of rotary positions are among them."""
    kept = {parameter: parameter.dtype for parameter in model.parameters()}
    for parameter in kept:
        parameter.data = parameter.data.to(dtype)
    try:
        yield
    finally:
        for parameter, before in kept.items():
            parameter.data = parameter.data.to(before)


def check_size(folder: Path, made: Callable[[], nn.Module]) -> None:
    """Raise :class:`TriviumError` where a model is far larger than what its folder holds, before memory is taken for
    it; ``made`` makes it."""
    with WithoutContents():
        wanted = sum(parameter.numel() for parameter in made().parameters())
    stored = sum(path.stat().st_size for path in set(shards(folder).values()))
    if wanted > stored:  # a weight has a byte at least
        raise TriviumError(f"{folder}: config.json asks for {wanted:,} weights, but the files hold {stored:,} bytes")


def too_large(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a weight is beyond what ``dtype`` can hold."""
    largest = torch.finfo(dtype).max
    return any(bool((parameter.detach().abs() > largest).any()) for parameter in model.parameters())


def _names_of_shards(index: Path) -> list[str]:
    found = read_json(index)
    names = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not names or not all(
            isinstance(name, str) and "\0" not in name and len(name) < 256 for name in names.values()):
        raise TriviumError(f"{index}: `weight_map` does not name the file of each tensor; copy it again")
    return sorted(set(names.values()))


def shards(folder: Path) -> dict[str, Path]:
    """The file that holds each tensor of a model's folder: ``model.safetensors`` or, where there is none, the shards
    that its index names (an index beside the one file is left over from before, and ``transformers`` passes over it).
    Raises for shards that are missing, truncated or outside the folder, and for pickles."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    sharded = index.exists() and not single.exists()
    names = _names_of_shards(index) if sharded else ["model.safetensors"]
    found: dict[str, Path] = {}
    for name in names:
        path = folder / name
        if Path(name).name != name:
            raise TriviumError(f"{index}: the shard {name!r} lies outside the folder")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        except FileNotFoundError as error:
            pickled = next(iter(sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))), None)
            hint = "; copy it again" if sharded else ""
            if pickled:
                hint = f"; {pickled.name} is a pickle, which is never read: convert it to safetensors"
            raise TriviumError(f"{path}: no such file{hint}") from error
        except Exception as error:  # safetensors has one exception type, which its stubs do not export
            raise TriviumError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    return found


def save_weights(folder: Path, weights: dict[str, Tensor], shard_bytes: int) -> None:
    """Write tensors as ``model.safetensors``, or as shards of at most ``shard_bytes`` with their index. Each file is
    written aside and renamed, so a crash leaves no file half written; the index comes last, and then weights that stood
    there before are taken away."""
    groups: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in weights.items():
        if groups[-1] and filled + tensor.nbytes > shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor
        filled += tensor.nbytes
    names = ["model.safetensors"] if len(groups) == 1 else [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
                                                            for i in range(len(groups))]
    for name, group in zip(names, groups, strict=True):
        with written_aside(folder / name) as aside:
            save_file({k: v.detach().cpu().contiguous() for k, v in group.items()}, aside, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if len(groups) > 1:
        write_json(
            index, {
                "metadata": {"total_size": sum(tensor.nbytes for tensor in weights.values())},
                "weight_map": {key: name
                               for name, group in zip(names, groups, strict=True)
                               for key in group}
            })
    else:
        index.unlink(missing_ok=True)
    for stale in (folder / "model.safetensors", *folder.glob("model-?????-of-?????.safetensors")):
        if stale.name not in names:
            stale.unlink(missing_ok=True)
