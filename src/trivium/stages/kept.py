"""What a stage has measured once: a killed run that goes on reads it again instead of computing it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from trivium.files import written_aside
from trivium.stage import Context
from trivium.training.batch import Tree
from trivium.training.epochs import contents_of


def kept(context: Context, name: str, weights: str, trees: Sequence[Tree], settings: Mapping[str, object],
         compute: Callable[[Callable[[int, int], None]], list[np.ndarray]], leader: bool = True) -> list[np.ndarray]:
    """What ``compute`` gives for each of the trees, an array each; ``name`` says on the screen what it is.

    It is written into the stage's scratch folder, bound to the digest of the model's ``weights``, to all that the trees
    hold, and to the ``settings`` that have a say in it, and read from there where all of that is the same. ``compute``
    is given what it tells of its progress: rows done, and rows in all. Of several processes the ``leader`` writes."""
    described = repr((name, weights, contents_of(trees), sorted(settings.items())))
    print_ = hashlib.sha256(described.encode()).hexdigest()
    place = context.scratch / f"{name.replace(' ', '-')}.safetensors"
    found = read(place, print_)
    if found is None or len(found) != len(trees):
        found = compute(lambda done, total: context.progress.update(done, total, name))
        if leader and found:
            write(place, print_, found)
    return found


def read(place: Path, fingerprint: str) -> list[np.ndarray] | None:
    """The arrays that were written with this fingerprint; None where there are none, or they are not whole."""
    try:
        with safe_open(place, "np") as file:
            if (file.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            values, sizes = file.get_tensor("values"), file.get_tensor("sizes")
    except (OSError, SafetensorError):
        return None
    return np.split(values, np.cumsum(sizes)[:-1]) if sizes.sum() == len(values) else None


def write(place: Path, fingerprint: str, arrays: Sequence[np.ndarray]) -> None:
    """Write arrays, aside and then in their place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(place) as aside:
        save_file({"values": np.concatenate(arrays), "sizes": np.array([len(one) for one in arrays], np.int64)}, aside,
                  metadata={"fingerprint": fingerprint})


def weights_in_memory(model: torch.nn.Module) -> str:
    """The digest of the weights that a model has now."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
