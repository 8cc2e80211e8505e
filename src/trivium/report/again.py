"""How to make a run again: its recipe, its settings, and what made it."""

from __future__ import annotations

from typing import Any

import yaml

from trivium.report.gather import Gathered


def recipe(found: Gathered) -> str:
    """The recipe that makes this run again, every setting written out."""
    seed = next(iter(found.manifests.values()))["seed"]
    stages = {name: {"kind": manifest["kind"], **manifest["settings"]} for name, manifest in found.manifests.items()}
    stages["report"] = {"kind": "report", "stages": list(found.manifests)}
    return yaml.safe_dump({"name": f"{found.name}-again", "seed": seed, "stages": stages}, sort_keys=False,
                          allow_unicode=True, width=100)


def changed(found: Gathered) -> dict[str, list[tuple[str, str]]]:
    """Every stage's settings that are not the defaults, as ``(dotted name, value)``."""
    made = {}
    for name, manifest in found.manifests.items():
        defaults = dict(flat(found.displays[name].defaults))
        made[name] = [(key, value) for key, value in flat(manifest["settings"]) if defaults.get(key) != value]
    return made


def flat(settings: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and values in YAML's short form."""
    if isinstance(settings, dict) and settings:
        return [
            one for key, value in settings.items() for one in flat(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, yaml.safe_dump(settings, default_flow_style=True, allow_unicode=True,
                                    width=10**6).removesuffix("\n").removesuffix("\n..."))]


def versions(found: Gathered) -> str:
    """What made it."""
    newest = {key: value for manifest in found.manifests.values() for key, value in manifest["versions"].items()}
    return ", ".join(f"{key} {value}" for key, value in newest.items())
