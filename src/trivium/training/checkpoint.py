"""Checkpoints: weights, optimizer state and the step, in safetensors; the last good one survives any crash.

Every process writes the shards it holds, ``step-N.R.safetensors``, and what each is a part of, ``step-N.R.json``; the
first then writes ``step-N.json``, which makes the checkpoint one. Reading puts each tensor together from whatever parts
overlap the wanted shard: so a run goes on with any number of processes. Nothing about randomness is saved, as nothing
random has a state (:mod:`trivium.randomness`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.files import digest_file, fsync_folder, write_json, written_aside
from trivium.training.optimizers import check_state
from trivium.training.parallel import World, is_spread
from trivium.training.precision import follow_masters, masters

Found = tuple[int, dict[str, Any]]


def local_part(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """What this process holds of a tensor, and where that begins in the whole."""
    if not is_spread(tensor):
        return tensor, (0,) * tensor.ndim
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local(), tuple(offset)


def state_of(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that training goes on from, by name: weights in float32, whatever the run's precision; frozen ones
    are where they came from. Raises :class:`TriviumError` for state of an optimizer that is no tensor."""
    names = {id(parameter): name for name, parameter in masters(model)}
    for name, parameter in masters(model):
        if parameter.requires_grad:
            yield f"model.{name}", parameter.detach()
    for optimizer in optimizers:
        check_state(optimizer, type(optimizer).__name__)
        for owner, values in optimizer.state.items():
            for key, value in values.items():
                yield f"optimizer.{names[id(owner)]}/{key}", torch.as_tensor(value)


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer],
                    extra: dict[str, Any], world: World | None = None, anchor: int = 0) -> None:
    """Write the checkpoint of a step; the two newest are kept, and the newest of a step that ``anchor`` divides. All
    processes must call it."""
    world = world or World()
    state = dict(state_of(model, optimizers))
    parts: dict[str, Tensor] = {}
    places: dict[str, dict[str, Any]] = {}
    for name, tensor in state.items():
        part, offset = local_part(tensor)
        if world.leader or (is_spread(tensor) and part.numel()):
            parts[name] = part.detach().cpu().contiguous()
            places[name] = {"offset": list(offset), "shape": list(tensor.shape)}
    path = folder / f"step-{step:08d}.{world.rank}.safetensors"
    with written_aside(path) as aside:
        save_file(parts, aside)
    write_json(path.with_suffix(".json"), {"sha256": digest_file(path), "places": places})
    world.wait()
    if world.leader:
        write_json(folder / f"step-{step:08d}.json", {"step": step, "parts": world.size, "extra": extra})
        notes = sorted(folder.glob("step-????????.json"))
        anchors = [note for note in notes if anchor and int(note.stem[5:]) % anchor == 0]
        for old in notes[:-2]:
            if old not in anchors[-1:]:
                remove(old)
        fsync_folder(folder)


def check_room(folder: Path, model: nn.Module, optimizer: str, world: World) -> None:
    """Refuse to begin a run whose checkpoints the disk has no room for: the two newest, an anchor and the one that is
    being written, each with weights and the optimizer's means in float32. Raises :class:`TriviumError` in every
    process."""
    means = {"sgd": 0}.get(optimizer, 2)  # Muon has one, but AdamW moves the embeddings
    needed = 4 * (1 + means) * 4 * sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    free = shutil.disk_usage(folder).free if world.leader else needed
    if not world.agree(free >= needed, next(model.parameters()).device):
        raise TriviumError(
            f"{folder}: the disk has too little room for this run's checkpoints: they need up to {needed / 1e9:.3g} GB"
            + (f", {free / 1e9:.3g} GB are free" if world.leader else "") + "; free some space or choose another `out`")


def remove(note: Path) -> None:
    """Take a checkpoint away: its note first, so that what is left of it is none."""
    note.unlink()
    for piece in note.parent.glob(f"{note.stem}.*"):
        piece.unlink()


def forget_after(folder: Path, step: int) -> None:
    """Take away all checkpoints after a step."""
    for note in sorted(folder.glob("step-????????.json"), reverse=True):
        if int(note.stem[5:]) > step:
            remove(note)


def load_checkpoint(folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], fingerprint: str,
                    world: World | None = None, latest: int | None = None) -> Found | None:
    """Restore the newest checkpoint that is whole, of a step up to ``latest``; returns its step and extra values, or
    None when there is none. All processes must call it. Raises when it belongs to other data, settings or number
    format."""
    world = world or World()
    device = next(model.parameters()).device
    for note in sorted(folder.glob("step-????????.json"), reverse=True):
        if latest is not None and int(note.stem[5:]) > latest:
            continue
        pieces, values = read_notes(note, world)
        if not world.agree(values is not None, device):
            continue  # torn: the one before is taken
        assert values is not None
        if values["extra"].get("fingerprint") != fingerprint:
            raise TriviumError(
                f"{note}: this checkpoint belongs to other data or settings, or to another number format; move "
                f"{folder} away to start anew"
            )
        restore(pieces, model, optimizers)
        return values["step"], values["extra"]
    return None


def read_notes(note: Path, world: World) -> tuple[dict[str, list[tuple[Path, dict[str, Any]]]], dict[str, Any] | None]:
    """Where the parts of each tensor are, and the checkpoint's note; None for one that is not whole. The processes
    share out the parts whose digests they check."""
    pieces: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    try:
        values = json.loads(note.read_bytes())
        for part in range(values["parts"]):
            path = note.with_name(f"{note.stem}.{part}.safetensors")
            about = json.loads(path.with_suffix(".json").read_bytes())
            if part % world.size == world.rank and digest_file(path) != about["sha256"]:
                return {}, None
            for name, place in about["places"].items():
                pieces.setdefault(name, []).append((path, place))
    except (OSError, ValueError, KeyError):
        return {}, None
    return pieces, values


def restore(pieces: dict[str, list[tuple[Path, dict[str, Any]]]], model: nn.Module,
            optimizers: list[torch.optim.Optimizer]) -> None:
    """Fill weights and optimizer state."""
    parameters = dict(masters(model))
    groups = {id(p): o for o in optimizers for g in o.param_groups for p in g["params"]}
    for optimizer in optimizers:
        optimizer.state.clear()
    for key, places in pieces.items():
        room, _, name = key.partition(".")
        if room == "model":
            fill(parameters[name].data, places, key)
        else:
            name, _, slot = name.partition("/")
            parameter = parameters[name]
            target = torch.zeros_like(parameter.data) if places[0][1]["shape"] else torch.zeros(())
            fill(target, places, key)
            groups[id(parameter)].state[parameter][slot] = target
    follow_masters(model)


def fill(target: Tensor, places: list[tuple[Path, dict[str, Any]]], key: str) -> None:
    """Copy into this process's part of ``target`` all that the saved parts have of it."""
    part, offset = local_part(target)
    for path, place in places:
        with safetensors.safe_open(path, framework="pt") as file:
            saved = file.get_slice(key)
            starts = [max(a, b) for a, b in zip(offset, place["offset"], strict=True)]
            ends = [
                min(a + n, b + m)
                for a, n, b, m in zip(offset, part.shape, place["offset"], saved.get_shape(), strict=True)
            ]
            if any(start >= end for start, end in zip(starts, ends, strict=True)):
                continue
            if not starts:
                part.copy_(file.get_tensor(key))
                continue
            here = tuple(slice(s - o, e - o) for s, e, o in zip(starts, ends, offset, strict=True))
            there = tuple(slice(s - o, e - o) for s, e, o in zip(starts, ends, place["offset"], strict=True))
            part[here].copy_(saved[there])
