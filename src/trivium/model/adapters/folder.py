"""Adapters as folders. LoRA's is PEFT's: ``adapter_config.json`` and ``adapter_model.safetensors``; the others' have
the same files.

Beside them, ``trivium.json`` says where the base is and what its weights' digest was: an adapter for another base is
refused.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor, nn

from trivium.artifacts import check_made
from trivium.errors import TriviumError
from trivium.files import digest_file, digest_json, write_json, written_aside
from trivium.model.adapters import AdapterSettings, Attached, attach, peft, take_in
from trivium.model.adapters.lora import Lora, is_turned
from trivium.model.check import read_object
from trivium.model.transformer import sharing
from trivium.model.weights import shards

CONFIG, WEIGHTS, OURS = "adapter_config.json", "adapter_model.safetensors", "trivium.json"
SCORE = "base_model.model.score.weight"
PARTS = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
"""LoRA's weights, and PEFT's names for them."""


def weights_digest(folder: Path) -> str:
    """Digest of a model folder's weights; of an adapter's, with those of its base."""
    if (folder / CONFIG).exists() and not (folder / "model.safetensors").exists():
        return digest_json([weights_digest(base_of(folder)), digest_file(folder / WEIGHTS)])
    files = sorted(set(shards(folder).values()))
    return digest_file(files[0]) if len(files) == 1 else digest_json([digest_file(file) for file in files])


def base_of(folder: Path) -> Path:
    """The base of an adapter: named relative to its folder, or to where one stands. Raises when it is not there or not
    the one that the adapter was trained on."""
    config = read_object(folder / CONFIG)
    about = read_object(folder / OURS) if (folder / OURS).exists() else {}
    named = [str(name) for name in (about.get("base"), config.get("base_model_name_or_path")) if name]
    base = next(
        (path for name in named for path in (folder / name, Path(name))
         if ((path / "config.json").exists() or (path / CONFIG).exists()) and path.resolve() != folder.resolve()), None)
    if base is None:
        raise TriviumError(
            f"{folder / CONFIG}: its base {(named or [''])[-1]!r} is no folder here; "
            "set base_model_name_or_path to where it is, or name it with `trivium merge ... --base`")
    check_base(folder, base)
    return base


def check_base(folder: Path, base: Path) -> None:
    """Refuse a base whose weights are not those that the adapter was trained on."""
    wanted = (read_object(folder / OURS) if (folder / OURS).exists() else {}).get("base_digest")
    if wanted is not None and wanted != (found := weights_digest(base)):
        raise TriviumError(
            f"{folder}: this adapter is for another base (digest mismatch: "
            f"it was trained on {wanted[:12]}, {base} is {found[:12]})"
        )


def place_of(model: Any, name: str, part: str) -> str:
    """PEFT's name of a LoRA weight: that of the layer in Hugging Face's model, and which part it is."""
    return f"base_model.model.{getattr(model, 'trunk_name', 'model')}.{name.removeprefix('inner.')}.{PARTS[part]}"


def save(model: nn.Module, attached: Attached, folder: Path, base: str, base_digest: str,
         seen: str | None = None) -> None:
    """Write an adapter and, of a reward model, its head. ``base`` is the base's place as seen from where the folder
    will stand, ``seen`` (as ``base`` unless given) what PEFT is told: a place seen from where programs are started."""
    attached, settings = attached.within(model), stored(attached.settings)
    score = getattr(model, "score", None)
    weights: dict[str, Tensor] = {}
    for name, module in attached.modules.items():
        parts: dict[str, Tensor] = dict(module.named_parameters())
        if isinstance(module, Lora):
            parts |= dict(zip(("A", "B"), module.product(), strict=True))
        for part, parameter in parts.items():
            weights[place_of(model, name, part
                             ) if isinstance(module, Lora) else f"{name}.{part}" if name else part] = parameter.detach(
                             ).cpu().contiguous()
    if score is not None:
        weights[SCORE] = score.weight.detach().cpu().contiguous()
    config: dict[str, Any] = {
        "peft_type": settings.kind.upper(), "base_model_name_or_path": seen or base, "inference_mode": True,
        "task_type": "SEQ_CLS"
        if score is not None else "SEQ_2_SEQ_LM" if hasattr(model.model, "encoder") else "CAUSAL_LM"
    }
    if settings.kind == "lora":
        trunk: Any = model.model
        turned = any(is_turned(trunk.get_submodule(name)) for name in attached.modules)
        config |= {
            "r": settings.rank, "lora_alpha": settings.alpha, "target_modules": sorted(settings.targets),
            "rank_pattern": settings.ranks, "alpha_pattern": {},
            "lora_dropout": 0.0, "bias": "none", "use_rslora": settings.rslora, "use_dora": settings.dora,
            "fan_in_fan_out": turned, "init_lora_weights": True, "modules_to_save": None if score is None else ["score"]
        }
    with written_aside(folder / WEIGHTS) as aside:
        save_file(weights, aside, {"format": "pt"})
    write_json(folder / CONFIG, config)
    about = {
        "base": base, "base_digest": base_digest, "adapter": {**asdict(settings), "targets": list(settings.targets)}
    }
    write_json(folder / OURS, about if score is None else about | {"score_shift": getattr(model, "shift", 0.0)})


def stored(settings: AdapterSettings) -> AdapterSettings:
    """The settings of what is saved: a product that began at something is one of twice the rank that begins at nothing,
    with the same scale."""
    if settings.kind != "lora" or settings.initial == "zero":
        return settings
    alpha = settings.alpha * (math.sqrt(2) if settings.rslora else 2)
    return replace(settings, rank=2 * settings.rank, alpha=alpha, initial="zero",
                   ranks={name: 2 * rank for name, rank in settings.ranks.items()})


def settings_of(folder: Path) -> AdapterSettings:
    """The settings of a saved adapter. Raises for a PEFT adapter of a kind that is not known here."""
    config = read_object(folder / CONFIG)
    if (folder / OURS).exists() and (stored := read_object(folder / OURS).get("adapter")):
        try:
            return AdapterSettings(**{**stored, "targets": tuple(stored["targets"])})
        except (TypeError, KeyError, ValueError) as error:
            raise TriviumError(f"{folder / OURS}: `adapter` does not describe one; copy it again") from error
    if config.get("peft_type") != "LORA":
        raise TriviumError(
            f"{folder / CONFIG}: an adapter of type {config.get('peft_type')!r}; of PEFT's only LORA is read")
    return AdapterSettings("lora", int(config["r"]), float(config["lora_alpha"]),
                           tuple(config["target_modules"]),
                           bool(config.get("use_rslora")), bool(config.get("use_dora")))


def is_plain(folder: Path) -> bool:
    """Whether an adapter is one of ours, or plain LoRA of PEFT's; others are folded in by PEFT itself."""
    if (folder / OURS).exists():
        return True
    return peft.plain(read_object(folder / CONFIG)) and all(
        "lora_" in name for name in read_weights(folder) if name != SCORE)


def belongs_on(folder: Path, base: Path) -> bool:
    """Whether ``folder`` holds an adapter that was trained on the model of ``base``, and can stay beside it."""
    alone = (folder / CONFIG).exists() and not (folder / "model.safetensors").exists()
    return alone and is_plain(folder) and weights_digest(base_of(folder)) == weights_digest(base)


def beside(model: Any, folder: Path) -> Any:
    """A model with an adapter whose base it is, as it is in memory: its weights are shared and frozen, and LoRA too
    stays beside them."""
    check_made(folder)
    adapted, _ = with_adapter(sharing(model), folder)
    return adapted.requires_grad_(False)


def merged_into(model: Any, folder: Path) -> Any:
    """A model with an adapter: LoRA is folded into its weights, others stay beside them. All its weights can be
    trained."""
    if not is_plain(folder):
        weights = read_weights(folder)
        score = weights.pop(SCORE, None)
        model = peft.folded(model, folder, weights)
        return (model if score is None else scored(model, score, folder)).requires_grad_(True)
    adapted, attached = with_adapter(model, folder)
    merge(attached, adapted)
    return adapted.requires_grad_(True)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of an adapter by their names. Raises :class:`TriviumError` for pickles and broken files."""
    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise TriviumError(f"{folder}: adapter_model.bin is a pickle, which is never read: convert it to safetensors")
    try:
        with safetensors.safe_open(folder / WEIGHTS, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:  # safetensors has one exception type, which its stubs do not export
        raise TriviumError(f"{folder / WEIGHTS}: not a readable safetensors file ({error}); copy it again") from error


def scored(model: Any, score: Tensor, folder: Path) -> Any:
    """The reward model that a model becomes by an adapter's head."""
    if not hasattr(model, "score"):
        model = model.rewarding(0)
    about = read_object(folder / OURS) if (folder / OURS).exists() else {}
    model.shift = float(about.get("score_shift", 0.0))
    model.score.weight = nn.Parameter(score.to(model.score.weight))
    return model


def with_adapter(model: Any, folder: Path) -> tuple[Any, Attached]:
    """A model, or the reward model that it becomes, with an adapter's weights attached. Raises :class:`TriviumError`
    for weights that do not fit it."""
    weights = read_weights(folder)
    if (score := weights.pop(SCORE, None)) is not None:
        model = scored(model, score, folder)
    attached = attach(model, settings_of(folder), 0)
    for name, module in attached.modules.items():
        for part, parameter in module.named_parameters():
            key = place_of(model, name, part) if isinstance(module, Lora) else f"{name}.{part}" if name else part
            if key not in weights or weights[key].shape != parameter.shape:
                found = "is missing" if key not in weights else (
                    f"has shape {tuple(weights[key].shape)}, not "
                    f"{tuple(parameter.shape)}"
                )
                raise TriviumError(f"{folder / WEIGHTS}: {key} {found}: this adapter is for another base, or not whole")
            parameter.data.copy_(weights.pop(key))
    if weights:
        raise TriviumError(f"{folder / WEIGHTS}: holds {next(iter(weights))}, for which the model has no place")
    return model, attached


def merge(attached: Attached, model: Any) -> None:
    """Fold LoRA into the weights and take it away; other adapters stay."""
    for name, module in attached.modules.items():
        if isinstance(module, Lora):
            take_in(model.model.get_submodule(name))
