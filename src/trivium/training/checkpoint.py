"""Checkpoints: weights, optimizer state and the step, in safetensors; the last good one survives any crash.

Nothing about randomness is saved, as nothing random has a state (:mod:`trivium.randomness`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.files import digest_file, fsync_folder, write_bytes, write_json


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer],
                    extra: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
    """Write ``step-N.safetensors`` and then ``step-N.json``, which holds its digest; keep the two newest."""
    state: dict[str, Tensor] = {f"model.{name}": value for name, value in model.named_parameters()}
    state |= {f"extra.{name}": value for name, value in (tensors or {}).items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                state[f"optimizer.{names[id(parameter)]}/{key}"] = torch.as_tensor(value)
    path = folder / f"step-{step:08d}.safetensors"
    write_bytes(path, safetensors_bytes({k: v.detach().cpu().contiguous() for k, v in state.items()}))
    write_json(path.with_suffix(".json"), {"step": step, "sha256": digest_file(path), "extra": extra})
    for old in sorted(folder.glob("step-*.json"))[:-2]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    fsync_folder(folder)


def load_checkpoint(folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], fingerprint: str,
                    ) -> tuple[int, dict[str, Any], dict[str, Tensor]] | None:
    """Restore the newest checkpoint that is whole; returns its step, its extra values and tensors, or None when there is
    none. Raises when it belongs to other data or settings."""
    for note in sorted(folder.glob("step-*.json"), reverse=True):
        path = note.with_suffix(".safetensors")
        try:
            values = json.loads(note.read_bytes())
            if digest_file(path) != values["sha256"]:
                continue
        except (OSError, ValueError, KeyError):
            continue
        if values["extra"].get("fingerprint") != fingerprint:
            raise TriviumError(f"{note}: this checkpoint belongs to other data or settings; move {folder} away to start anew")
        with safetensors.safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}
        parameters = dict(model.named_parameters())
        groups = {id(p): o for o in optimizers for g in o.param_groups for p in g["params"]}
        with torch.no_grad():
            for key, value in state.items():
                room, _, name = key.partition(".")
                if room == "model":
                    parameters[name].copy_(value)
                elif room == "optimizer":
                    name, _, slot = name.partition("/")
                    parameter = parameters[name]
                    groups[id(parameter)].state[parameter][slot] = value.to(parameter.device if value.ndim else "cpu")
        return values["step"], values["extra"], {k[6:]: v for k, v in state.items() if k.startswith("extra.")}
    return None


