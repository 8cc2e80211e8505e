"""The command `trivium quickstart`: the recipe that comes with the package, told before and after."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trivium.errors import missing

if TYPE_CHECKING:
    from trivium.artifacts import Artifact

RECIPE = Path("recipes/quickstart.yaml")

LIBRARIES = ("lxml", "rensa", "resiliparse", "trafilatura", "zstandard")
"""What its corpus is cleaned with."""


def quickstart(
    set_: Annotated[list[str] | None,
                    typer.Option("--set", help="Override a setting: pretrain.epochs=2. Repeatable.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run this stage, and what it needs. Repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False
) -> None:
    """Train a small chat model the whole way, on a made-up town: minutes on two cores, no download."""
    for name in LIBRARIES:
        try:
            import_module(name)
        except ImportError as error:
            raise missing("corpus", error) from error
    from trivium.files import shipped
    from trivium.pipeline.run import run
    from trivium.recipe.load import load_recipe, needed
    file = shipped(RECIPE)
    recipe = load_recipe(file, [f"out={json.dumps(str(out))}", *(set_ or [])], only=only or [])
    wanted = needed(recipe.stages, only or [])
    print(f"The recipe {file} into {recipe.folder}: {' → '.join(name for name in recipe.stages if name in wanted)}\n"
          "It takes minutes. Ctrl+C interrupts it, and the same command goes on from there.", flush=True)
    artifacts = run(recipe, only=only or [], quiet=quiet)
    from trivium.cli.run import results
    print("\n".join([*results(artifacts), *next_steps(recipe.folder, artifacts)]))


def next_steps(folder: Path, artifacts: dict[str, Artifact]) -> list[str]:
    """What can be done with the artifacts of a quickstart, as lines to print."""
    steps, out = [], shlex.quote(str(folder.parent))
    program = "trivium"
    if not shutil.which(program):  # as under make, which activates no environment
        script = Path(sys.argv[0])
        program = shlex.quote(str(script)) if script.name == program else f"{sys.executable} -m trivium.cli"
    needs = "" if find_spec("fastapi") else '   (needs pip install "trivium[serve]")'
    if "ppo" in artifacts:
        place = shlex.quote(str(folder / "ppo"))
        steps += [("talk with the model", f"{program} chat {place}"),
                  ("ask it one thing", f"{program} chat {place} --prompt {shlex.quote(question(folder / 'world'))}"),
                  ("what it was made from", f"{program} trace {place}"),
                  ("a chat page in the browser", f"{program} serve {place}{needs}")]
    if "report" in artifacts:
        steps.append(("curves, rates, answers", f"open {folder / 'report' / 'index.html'} in a browser"))
    steps.append(("train longer", f"{program} quickstart --out {out} --set name=longer --set pretrain.epochs=3"))
    return [f"Done: {folder}. Next:", *(f"  {what:27} {how}" for what, how in steps)]


def question(world: Path) -> str:
    """The shortest question about somebody of the town among those kept for the evaluation."""
    from trivium.files import read_rows
    asked = [row["prompt"] for _, row in read_rows(world / "evaluation.jsonl") if row["task"] == "entity"]
    return str(min((prompt[-1]["content"] for prompt in asked if len(prompt) == 1), key=len))
