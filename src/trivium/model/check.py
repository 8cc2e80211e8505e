"""The small files of a model's folder: whether they are what their names say, before anything is made of them."""

from __future__ import annotations

from pathlib import Path

from trivium.errors import TriviumError
from trivium.files import read_json, read_text, what

OBJECTS = ("config.json", "adapter_config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
           "special_tokens_map.json", "vision.json", "model.safetensors.index.json")
"""Files that hold a JSON object each."""


def check_files(folder: Path) -> None:
    """Raise :class:`TriviumError` that names the file and the line for a file of a model's folder that is cut off, no
    JSON object or no UTF-8. Files that are not there are not missed here."""
    for name in OBJECTS:
        if (folder / name).is_file():
            found = read_json(folder / name)
            if not isinstance(found, dict):
                raise TriviumError(f"{folder / name}: {what(found)}, where a JSON object was expected; copy it again")
    for template in sorted(folder.glob("*.jinja")):
        read_text(template)
