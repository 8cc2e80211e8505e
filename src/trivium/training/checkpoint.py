"""Checkpoints: weights, optimizer state and the step, in safetensors; the last good one survives any crash.

Every process writes the shards it holds, ``step-N.R.safetensors``, and what each is a part of, ``step-N.R.json``; the
first then writes ``step-N.json``, which makes the checkpoint one. All of them name the attempt at which they were
written, and each note holds a digest of itself: so a mixture, or a changed byte, is found out, and the checkpoint
before is taken. Reading puts each tensor together from whatever parts overlap the wanted shard: so a run goes on with
any number of processes. Nothing about randomness is saved, as nothing random has a state (:mod:`trivium.randomness`).
When and by whom they are written is the matter of :mod:`trivium.training.saving`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.files import digest_file, digest_json, fsync_folder, what, write_json, written_aside
from trivium.training.optimizers import check_state
from trivium.training.parallel import World, is_spread
from trivium.training.precision import follow_masters, masters

Found = tuple[int, dict[str, Any]]

Places = dict[str, dict[str, Any]]
"""By the name of a tensor: where a part of it begins in the whole (``offset``), and the whole's ``shape``."""

NOTES = "step-????????.json"
"""The pattern of the notes that make checkpoints."""

CHUNK = 16 << 20
"""Bytes that are written and hashed at a time."""

DTYPES = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
          torch.float16: "F16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
"""What safetensors calls the kinds of numbers, in the order in which it writes them."""


def step_of(note: Path) -> int:
    """The step of the checkpoint that a note makes one."""
    return int(note.stem[5:])


def notes_in(folder: Path) -> list[Path]:
    """The notes of all checkpoints in a folder, the newest last."""
    return sorted(note for note in folder.glob(NOTES) if note.stem[5:].isdecimal())


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


def parts_of(model: nn.Module, optimizers: list[torch.optim.Optimizer],
             world: World) -> tuple[dict[str, Tensor], Places]:
    """What this process writes of a checkpoint, and where each part belongs. The tensors are the run's own: they change
    with the next update."""
    parts: dict[str, Tensor] = {}
    places: Places = {}
    for name, tensor in state_of(model, optimizers):
        part, offset = local_part(tensor)
        if world.leader or (is_spread(tensor) and part.numel()):
            parts[name] = part.detach()
            places[name] = {"offset": list(offset), "shape": list(tensor.shape)}
    return parts, places


# ------------------------------------------------------------------------------------------------------------- writing


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file, the same bytes as the library's, piece by piece; the SHA-256 of it, taken on the way.
    Raises :class:`TriviumError` for numbers that the format does not know."""
    kinds = list(DTYPES)
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise TriviumError(f"{name}: a checkpoint cannot hold numbers of the kind {tensor.dtype}")
    order = sorted(tensors, key=lambda name: (kinds.index(tensors[name].dtype), name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape),
                        "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with written_aside(path) as aside, open(aside, "wb", buffering=0) as file:
        def put(data: Any) -> None:
            digest.update(data)
            rest = memoryview(data)
            while rest:  # a full disk takes a part of it, and says so the next time
                rest = rest[file.write(rest):]

        put(len(text).to_bytes(8, "little") + text)
        for name in order:
            numbers = tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            for start in range(0, len(numbers), CHUNK):
                put(numbers[start:start + CHUNK].data)
    return digest.hexdigest()


def write_note(path: Path, values: dict[str, Any]) -> None:
    """Write a note with a digest of itself."""
    write_json(path, values | {"digest": digest_json(values)})


def write_part(folder: Path, step: int, rank: int, attempt: int, parts: Mapping[str, Tensor], places: Places) -> None:
    """Write what a process has of a checkpoint."""
    path = part_path(folder, step, rank)
    digest = write_tensors(path, parts)
    write_note(path.with_suffix(".json"), {"sha256": digest, "places": places, "attempt": attempt})


def part_path(folder: Path, step: int, rank: int) -> Path:
    """Where a process writes its tensors."""
    return folder / f"step-{step:08d}.{rank}.safetensors"


def seal(folder: Path, step: int, parts: int, attempt: int, extra: dict[str, Any]) -> Path:
    """Make a checkpoint of the parts that so many processes have written; its note."""
    note = folder / f"step-{step:08d}.json"
    write_note(note, {"step": step, "parts": parts, "extra": extra, "attempt": attempt})
    return note


def remove(note: Path) -> None:
    """Take a checkpoint away: its note first, so that what is left of it is none."""
    note.unlink(missing_ok=True)
    for piece in note.parent.glob(f"{note.stem}.*"):
        piece.unlink(missing_ok=True)


def prune(folder: Path, step: int, anchor: int) -> None:
    """Keep, after the checkpoint of a step was written, the two newest and the newest from which a multiple of
    ``anchor`` can be gone back to; of the best weights (in ``best``) those that they tell of. Later ones belong to a
    way that was left."""
    notes = notes_in(folder)
    kept = [note for note in notes if step_of(note) <= step]
    behind = [note for note in kept if anchor and step_of(note) <= step // anchor * anchor]
    keep = {*kept[-2:], *behind[-1:]}
    for note in notes:
        if note not in keep:
            remove(note)
    prune_best(folder, step)
    fsync_folder(folder)


def prune_best(folder: Path, step: int) -> None:
    """Take away the best weights of before ``step`` that no checkpoint tells of."""
    told = set()
    for note in notes_in(folder):
        best = (read_note(note)["extra"].get("state") or {}).get("best") if readable(note) else None
        told.add(best["step"] if isinstance(best, dict) else None)
    for note in notes_in(folder / "best"):
        if step_of(note) < step and step_of(note) not in told:
            remove(note)


def readable(note: Path) -> bool:
    """Whether a note is whole."""
    try:
        read_note(note)
    except Damaged:
        return False
    return True


def sweep(folder: Path) -> None:
    """Take away what killed attempts left: files half written, and parts that no note makes a checkpoint."""
    whole = {note.stem for note in notes_in(folder)}
    for left in [*folder.glob(".step-*.tmp"), *folder.glob("step-????????.*.*")]:
        if left.name.startswith(".") or left.name.partition(".")[0] not in whole:
            left.unlink(missing_ok=True)


def check_room(folder: Path, model: nn.Module, optimizer: str, world: World, more: int = 0) -> None:
    """Refuse to begin a run whose checkpoints the disk has no room for: the two newest, one to go back to and the one
    that is being written, each with weights and the optimizer's means in float32, and ``more`` that are kept. Raises
    :class:`TriviumError` in every process."""
    means = {"sgd": 0}.get(optimizer, 2)  # Muon has one, but AdamW moves the embeddings
    size = 4 * (1 + means) * sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    needed = (4 + more) * size
    free = shutil.disk_usage(folder).free if world.leader else needed
    if not world.agree(free >= needed, next(model.parameters()).device):
        raise TriviumError(
            f"{folder}: the disk has too little room for this run's checkpoints: they need up to {needed / 1e9:.3g} GB"
            + (f", {free / 1e9:.3g} GB are free" if world.leader else "") + "; free some space or choose another `out`")


# ------------------------------------------------------------------------------------------------------------- reading


class Damaged(Exception):
    """Why a checkpoint is none."""


def read_note(path: Path) -> dict[str, Any]:
    """A note as it was written. Raises :class:`Damaged` for one that is not whole; notes of versions that wrote no
    digest are taken as they are."""
    try:
        text = path.read_bytes()
        values = json.loads(text)
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path.name} is {'no JSON' if text.strip() else 'empty'}") from error
    if not isinstance(values, dict):
        raise Damaged(f"{path.name} holds {what(values)}")
    digest = values.pop("digest", None)
    if values.keys() not in ({"step", "parts", "extra"}, {"sha256", "places"}) and digest != digest_json(values):
        raise Damaged(f"{path.name} was changed")
    if "step" in values and values["step"] != step_of(path):
        raise Damaged(f"{path.name} tells of step {values['step']}")
    return values


Pieces = dict[str, list[tuple[Path, dict[str, Any]]]]
"""By the name of a tensor: the files that hold parts of it, and where these belong."""


def read_notes(note: Path, world: World) -> tuple[Pieces, dict[str, Any]]:
    """Where the parts of each tensor are, and the checkpoint's note. The processes share out the parts whose digests
    they check. Raises :class:`Damaged` where this one finds a fault."""
    pieces: Pieces = {}
    values = read_note(note)
    for part in range(values["parts"]):
        path = note.with_name(f"{note.stem}.{part}.safetensors")
        about = read_note(path.with_suffix(".json"))
        if about.get("attempt") != values.get("attempt"):
            raise Damaged(f"{path.name} is of another attempt")
        try:
            if part % world.size == world.rank and digest_file(path) != about["sha256"]:
                raise Damaged(f"{path.name} was changed")
        except OSError as error:
            raise Damaged(f"{path.name} is missing" if isinstance(error, FileNotFoundError) else
                          f"{path.name} cannot be read: {error.strerror}") from error
        for name, place in about["places"].items():
            pieces.setdefault(name, []).append((path, place))
    return pieces, values


def load_checkpoint(folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], fingerprint: str,
                    world: World | None = None, steps: Callable[[int], bool] = lambda step: True,
                    say: Callable[[str], None] = lambda text: None) -> Found | None:
    """Restore the newest checkpoint that is whole, of those ``steps`` that are wanted; returns its step and extra
    values, or None when there is none. Damaged ones are said. All processes must call it. Raises when it belongs to
    other data, settings or number format."""
    world = world or World()
    device = next(model.parameters()).device
    damaged: list[str] = []
    for note in reversed([note for note in notes_in(folder) if steps(step_of(note))]):
        pieces, values, why = _tried(note, world)
        if not world.agree(values is not None, device):
            damaged.append(f"step {step_of(note)} is damaged ({why})")
            continue
        assert values is not None
        if values["extra"].get("fingerprint") != fingerprint:
            raise TriviumError(
                f"{note}: this checkpoint belongs to other data or settings, or to another number format; move "
                f"{folder} away to start anew"
            )
        if damaged:
            say(f"{told(damaged)}; goes on from step {values['step']}")
        restore(pieces, model, optimizers)
        return values["step"], values["extra"]
    if damaged:
        say(f"{told(damaged)}; begins anew, as there is no other checkpoint")
    return None


def told(damaged: Iterable[str]) -> str:
    """What is said of damaged checkpoints."""
    return "the checkpoint of " + ", that of ".join(damaged)


def _tried(note: Path, world: World) -> tuple[Pieces, dict[str, Any] | None, str]:
    """What :func:`read_notes` gives, or why it does not."""
    try:
        return *read_notes(note, world), "found by another process"
    except Damaged as error:
        return {}, None, str(error)


def restore(pieces: Pieces, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
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
