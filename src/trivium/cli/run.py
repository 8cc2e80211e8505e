"""The command `trivium run`, and what it says at the end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trivium.cli.output import to_json

if TYPE_CHECKING:
    from trivium.artifacts import Artifact


def run(recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
        set_: Annotated[list[str] | None,
                        typer.Option("--set", help="Override a setting: pretrain.epochs=2. Repeatable.")] = None,
        only: Annotated[list[str] | None,
                        typer.Option(help="Run this stage, and what it needs. Repeatable.")] = None,
        quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print the artifacts as JSON.")] = False) -> None:
    """Run a recipe. What is finished is skipped; what was interrupted goes on."""
    from trivium.pipeline.run import run as run_recipe
    artifacts = run_recipe(recipe, set_ or [], only or [], quiet)
    if as_json:
        print(to_json({name: {"folder": str(a.folder), "digest": a.digest, "seconds": a.manifest["seconds"],
                              "summary": a.summary} for name, a in artifacts.items()}, 1))
    else:
        print("\n".join([*table(artifacts), "", *results(artifacts), *talk(artifacts)]).rstrip())


def table(artifacts: Mapping[str, Artifact]) -> list[str]:
    """Every artifact: what made it, its digest, how long it took, and where it lies."""
    width = max((len(name) for name in ("stage", *artifacts)), default=0)
    lines = [f"{'stage':{width}}  {'digest':12}  {'seconds':>8}  folder"]
    for name, artifact in artifacts.items():
        # what a report holds depends on when it was made
        digest = artifact.digest[:12] if artifact.manifest["files"] else "-"
        lines.append(f"{name:{width}}  {digest:12}  {artifact.manifest['seconds']:8.1f}  {artifact.folder}")
    return lines


def results(artifacts: Mapping[str, Artifact]) -> list[str]:
    """What came of every stage that has figures."""
    from trivium.report.brief import brief
    from trivium.stages.registry import Stages
    stages = Stages()
    said = {name: words for name, artifact in artifacts.items() if (words := brief(artifact, stages))}
    width = max(map(len, said), default=0)
    return ["what came of it:", *(f"  {name:{width}}  {words}" for name, words in said.items()), ""] if said else []


def talk(artifacts: Mapping[str, Artifact]) -> list[str]:
    """How to talk with the last model that chats, and where the report is."""
    from trivium.model.check import chats
    models = [artifact for artifact in artifacts.values() if artifact.kind != "pretrain" and chats(artifact.folder)]
    pages = [artifact for artifact in artifacts.values() if artifact.kind == "report"]
    lines = [f"talk with it: trivium chat {shlex.quote(str(models[-1].folder))}"] if models else []
    lines += [f"the report: {page.folder / 'index.html'}" for page in pages[-1:]]
    return lines
