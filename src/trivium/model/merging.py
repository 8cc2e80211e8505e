"""Several models of one shape made into one, tensor by tensor: averages, and sums of what each learned.

What a model learned is its task vector, its weights less those of the base that all began at (Ilharco et al. 2023).
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors
import torch
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError, nearest
from trivium.files import read_json, write_json
from trivium.model.weights import save_weights, shards

Method = Literal["linear", "slerp", "task_arithmetic", "ties", "dare", "dare_ties"]
METHODS: tuple[str, ...] = get_args(Method)
NEARLY_PARALLEL = 0.9995
"""The cosine from which on two tensors are mixed along a line: an arc that short has no direction in float32."""
SHIFT = "trivium_score_shift"


@dataclass(frozen=True)
class Mixing:
    """How models are mixed."""

    method: Method = "linear"
    weights: tuple[float, ...] = ()
    """One for each model. Of ``linear`` and ``slerp`` they are shares, equal by default, and need not sum to 1; of the
    others they multiply task vectors: 0.4 each by default in ``task_arithmetic`` and ``dare`` (Ilharco et al. 2023),
    1 in ``ties`` and ``dare_ties`` (Yadav et al. 2023)."""
    density: float | None = None
    """Share of a task vector's numbers that is kept: by default the largest 0.2 (``ties``), or 0.5 at random
    (``dare``, ``dare_ties``)."""
    seed: int = 0
    """Of what is kept at random."""

    @property
    def from_base(self) -> bool:
        """Whether the models' base is needed."""
        return self.method not in ("linear", "slerp")

    @property
    def kept(self) -> float:
        """The density."""
        return self.density if self.density is not None else 0.2 if self.method == "ties" else 0.5

    def check(self, models: int, base: bool) -> None:
        """Raise :class:`TriviumError` for what does not fit so many models."""
        if self.method not in METHODS:
            raise TriviumError(f"--method {self.method}: there is no such way to merge{nearest(self.method, METHODS)}; "
                               f"known: {', '.join(METHODS)}")
        if models < 2 or (self.method == "slerp" and models != 2):
            raise TriviumError(f"{self.method} merges {'two' if self.method == 'slerp' else 'several'} models; "
                               f"{models} given")
        if self.weights and len(self.weights) != models:
            raise TriviumError(f"--weights: {len(self.weights)} for {models} models; give one for each")
        if not all(map(math.isfinite, self.weights)):
            raise TriviumError("--weights: each must be a number")
        if not self.from_base and self.weights and (min(self.weights) < 0 or not sum(self.weights)):
            raise TriviumError(f"--weights: of {self.method} they are shares: none below 0, and not all 0")
        if self.from_base and not base:
            raise TriviumError(f"{self.method} adds up what each model learned: name the --base that all began at")
        if self.density is not None and (self.method not in ("ties", "dare", "dare_ties") or not 0 < self.density <= 1):
            raise TriviumError(f"--density is {self.density:g}; it is a share above 0 and at most 1, and belongs to "
                               "ties, dare and dare_ties")

    def shares(self, models: int) -> list[float]:
        """The models' weights."""
        if self.from_base:
            usual = 1.0 if self.method in ("ties", "dare_ties") else 0.4
            return list(self.weights) or [usual] * models
        given = list(self.weights) or [1.0] * models
        return [weight / sum(given) for weight in given]


def mixed(tensors: Sequence[Tensor], base: Tensor | None, mixing: Mixing, name: str = "") -> Tensor:
    """The mixture of tensors of one shape, float32. ``name`` names the randomness of :func:`thinned`."""
    tensors = [tensor.float() for tensor in tensors]
    shares = mixing.shares(len(tensors))
    if mixing.method == "slerp":
        return slerp(tensors[0], tensors[1], shares[1])
    if base is None:
        return sum_of(tensors, shares)
    start = base.float()
    learned = [tensor - start for tensor in tensors]
    if mixing.method == "ties":
        learned = [largest(vector, mixing.kept) for vector in learned]
    elif mixing.method != "task_arithmetic":
        learned = [thinned(vector, mixing.kept, randomness.derive(mixing.seed, "merge", place, name))
                   for place, vector in enumerate(learned)]
    return start + (agreed(learned, shares) if mixing.method.endswith("ties") else sum_of(learned, shares))


def sum_of(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum. Of models that were fine-tuned from one base with shares that sum to 1 it is a model soup
    (Wortsman et al. 2022), of reward models WARM (Ramé et al. 2024)."""
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total.add_(tensor, alpha=weight)
    return total


def slerp(one: Tensor, other: Tensor, share: float) -> Tensor:
    """On the arc between two tensors, ``share`` of the way to the ``other`` (Shoemake 1985), with the angle between
    their directions: lengths are mixed by the same factors."""
    lengths = one.double().norm() * other.double().norm()
    cosine = float((one.double() * other.double()).sum() / lengths) if lengths > 0 else 1.0
    if abs(cosine) > NEARLY_PARALLEL:
        return torch.lerp(one, other, share)
    angle = math.acos(cosine)
    return (math.sin((1 - share) * angle) * one + math.sin(share * angle) * other) / math.sin(angle)


def largest(vector: Tensor, density: float) -> Tensor:
    """The largest share ``density`` of a tensor's numbers, the rest 0 (TIES, Yadav et al. 2023, section 3: trim; each
    tensor by itself, as PEFT does it)."""
    count = max(1, int(density * vector.numel())) if vector.numel() else 0
    kept = vector.abs().flatten().topk(count).indices
    return torch.zeros_like(vector).flatten().scatter_(0, kept, vector.flatten()[kept]).view(vector.shape)


def thinned(vector: Tensor, density: float, seed: int) -> Tensor:
    """A random share ``density`` of a tensor's numbers divided by ``density``, the rest 0: the same in the mean (DARE,
    Yu et al. 2024, eq. 4)."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    return torch.where(torch.rand(vector.shape, generator=generator) < density, vector / density, 0.0)


def agreed(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """For each number the mean of the weighted ones whose sign is that of their plain sum (TIES, section 3: elect and
    disjoint merge)."""
    stacked = torch.stack(list(vectors))
    elected = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    chosen = stacked.sign() == elected
    scaled = stacked * torch.tensor(weights).view(-1, *[1] * (stacked.ndim - 1))
    return (scaled * chosen).sum(0) / chosen.sum(0).clamp(min=1)


def write_mixed(folders: Sequence[Path], base: Path | None, mixing: Mixing, folder: Path,
                dtype: torch.dtype | None) -> None:
    """Write the mixture of whole models' folders to ``folder``, with all else of the first one's; in ``dtype``, or each
    tensor in the first model's. Tensors are read one by one. Raises :class:`TriviumError` for models that do not have
    the same tensors, the same settings, or the same vocabulary."""
    every = [*folders, *([base] if base else [])]
    config = checked(every)
    places = [shards(one) for one in every]
    for one, known in zip(every, places, strict=True):
        if odd := sorted(places[0].keys() ^ known.keys()):
            raise TriviumError(f"{one}: it and {every[0]} do not have the same weights: {odd[0]} is in one alone")
    weights: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        files = {path: stack.enter_context(safetensors.safe_open(path, framework="pt"))
                 for known in places for path in set(known.values())}
        for name in places[0]:
            tensors = [files[known[name]].get_tensor(name) for known in places]
            for one, tensor in zip(every, tensors, strict=True):
                if tensor.shape != tensors[0].shape:
                    raise TriviumError(f"{one}: {name} has the shape {tuple(tensor.shape)}, and in {every[0]} "
                                       f"{tuple(tensors[0].shape)}")
            kind = dtype or tensors[0].dtype
            if not tensors[0].is_floating_point():
                weights[name] = tensors[0]
                continue
            found = mixed(tensors[:len(folders)], tensors[-1] if base else None, mixing, name)
            if not bool(found.isfinite().all()):
                raise TriviumError(f"{name}: the mixture holds numbers that are none; is one of the models broken?")
            weights[name] = found.to(kind)
            if not bool(weights[name].isfinite().all()):
                raise TriviumError(f"{name}: the mixture is too large for {str(kind)[6:]}; try --save-dtype bf16")
    for path in others(folders[0]):
        shutil.copy2(path, folder / path.name)
    if dtype is not None or SHIFT in config:
        write_json(folder / "config.json", read_json(folder / "config.json") | (
            {"dtype": str(dtype).removeprefix("torch.")} if dtype is not None else {}) | (
            {SHIFT: sum(share * float(read_json(one / "config.json")[SHIFT]) for share, one in
                        zip(Mixing("linear", mixing.weights).shares(len(folders)), folders, strict=True))}
            if SHIFT in config else {}))
    save_weights(folder, weights, 5 << 30)


def others(folder: Path) -> Iterator[Path]:
    """The files of a model's folder that hold no weights and do not say how it was made."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and path.name not in (
                "manifest.json", "model.safetensors.index.json", "log.jsonl", "trivium.json"):
            yield path


def checked(folders: Sequence[Path]) -> dict[str, Any]:
    """The models' common settings. Raises :class:`TriviumError` where they differ in what they compute."""
    harmless = {"dtype", "torch_dtype", "transformers_version", "_name_or_path", "use_cache", SHIFT, "eos_token_id",
                "pad_token_id", "bos_token_id"}
    configs = [read_json(folder / "config.json") for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        for key in sorted(configs[0].keys() | config.keys()):
            if key not in harmless and configs[0].get(key) != config.get(key):
                raise TriviumError(f"{folder}: config.json says {key}: {config.get(key)!r}, and that of {folders[0]} "
                                   f"{configs[0].get(key)!r}; only models of one shape can be merged")
        if vocabulary(folder) != vocabulary(folders[0]):
            raise TriviumError(f"{folder}: its tokenizer has other entries than that of {folders[0]}")
    return dict(configs[0])


def vocabulary(folder: Path) -> object:
    """A tokenizer's entries with their numbers; None where there is no tokenizer."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    found = read_json(path)
    return found["model"].get("vocab"), [(one["id"], one["content"]) for one in found.get("added_tokens", [])]
