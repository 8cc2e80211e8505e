"""``trivium corpus``: make a corpus, look inside one, train a filter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trivium.cli.output import to_json
from trivium.errors import TriviumError

corpus_app = typer.Typer(no_args_is_help=True, help="Make a corpus of documents, and look inside.")


@corpus_app.command("build")
def build(recipe: Annotated[Path, typer.Argument(help="A recipe with a corpus stage.")],
          set_: Annotated[list[str] | None,
                          typer.Option("--set", help="Override a setting: corpus.workers=4. Repeatable.")] = None,
          quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
          as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False) -> None:
    """Run a recipe's corpus stages and what they need; stages that follow are left for `trivium run`."""
    from trivium.corpus.inspection import counts_of, print_corpus
    from trivium.pipeline.run import run
    from trivium.recipe.load import load_recipe
    loaded = load_recipe(recipe, set_ or [])
    names = [name for name, stage in loaded.stages.items() if stage.kind == "corpus"]
    if not names:
        raise TriviumError(f"{recipe}: has no stage of kind 'corpus'; add one that names its documents")
    made = run(loaded, only=names, quiet=quiet)
    found = {name: counts_of(made[name].folder) for name in names}
    if as_json:
        print(to_json({name: {"folder": str(made[name].folder), **counts} for name, counts in found.items()}))
        return
    for name, counts in found.items():
        print(f"{made[name].folder}")
        print_corpus(counts, None)


@corpus_app.command("inspect")
def inspect(corpus: Annotated[Path, typer.Argument(help="A corpus stage's folder.")],
            by: Annotated[str | None, typer.Option(help="Split the funnel: source or language.")] = None,
            samples: Annotated[int, typer.Option(min=0, help="Documents kept, and rejects, to show.")] = 3,
            step: Annotated[str | None, typer.Option(help="Only rejects of this step.")] = None,
            reason: Annotated[str | None, typer.Option(help="Only rejects whose reason begins so.")] = None,
            source: Annotated[str | None, typer.Option(help="Only samples of this source.")] = None,
            language: Annotated[str | None, typer.Option(help="Only samples in this language.")] = None,
            seed: Annotated[int, typer.Option(help="Another seed shows other samples.")] = 0,
            characters: Annotated[int, typer.Option(min=1, help="How much of each sample to show.")] = 300,
            as_json: Annotated[bool, typer.Option("--json", help="Print counts and samples as JSON.")] = False) -> None:
    """Show what a corpus kept and dropped, and why, with samples."""
    from trivium.corpus import inspection
    from trivium.errors import nearest
    counts = inspection.counts_of(corpus)
    if by not in (None, "source", "language"):
        raise TriviumError(f"--by {by}: the funnel can be split by source or by language")
    if step is not None:
        steps = [row["step"] for row in counts["funnel"][1:]]
        if step not in {*steps, *counts["reasons"]}:
            raise TriviumError(f"--step {step}: this corpus has no such step{nearest(step, steps)}")
        if step not in counts["reasons"]:
            print(f"no document was rejected at the step {step}")
            return
    only = {"source": source, "language": language}
    kept = [] if step or reason else inspection.samples(corpus, "documents", samples, seed, **only)
    rejected = inspection.samples(corpus, "rejects", samples, seed, step, reason, **only)
    if samples and (step or reason or source or language) and not kept and not rejected:
        known = sorted({name for at, reasons in counts["reasons"].items() if step in (None, at) for name in reasons})
        raise TriviumError("no document is as asked for" + (
            f"; reasons are {'; '.join(known[:20])}{'; …' if len(known) > 20 else ''}"
            if reason else f"; sources: {', '.join(sorted(counts['funnel'][0]['sources'])[:20])}" if source else ""))
    if as_json:
        print(to_json({**counts, "samples": {"documents": kept, "rejects": rejected}}))
        return
    if not (step or reason):
        inspection.print_corpus(counts, f"{by}s" if by else None)
    for title, rows in (("documents", kept), ("rejects", rejected)):
        if rows:
            print(f"\nsamples of {title}")
            inspection.print_samples(rows, characters)


@corpus_app.command("train-filter")
def train_filter(
        out: Annotated[Path, typer.Argument(help="The folder for the filter.")],
        finds: Annotated[str, typer.Option(help="What it is to find: good or harmful documents.")] = "harmful",
        rows: Annotated[list[Path] | None,
                        typer.Option(
                            help="Files of labelled rows (CSV, JSON, JSON lines, Parquet). Repeatable.")] = None,
        text: Annotated[str, typer.Option(help="The rows' field with the text.")] = "text",
        label: Annotated[str, typer.Option(help="The rows' field with the label.")] = "label",
        labels: Annotated[list[str] | None,
                          typer.Option(help="A label of what it is to find. Repeatable.")] = None,
        sought: Annotated[list[Path] | None,
                          typer.Option(help="Instead of rows: documents that it is to find. Repeatable.")] = None,
        other: Annotated[list[Path] | None,
                         typer.Option(help="And documents of the other kind. Repeatable.")] = None,
        characters: Annotated[bool,
                              typer.Option(
                                  help="Look at runs of characters too: better on short, misspelt texts.")] = False,
        set_: Annotated[
            list[str] | None,
            typer.Option("--set", help="Any other setting of the filter stage: limit=1000. Repeatable.")] = None,
        seed: Annotated[int, typer.Option(help="Chooses the examples kept for the measurement.")] = 0) -> None:
    """Train a filter of documents from examples; a corpus stage takes its folder as quality_filter or
    harmful_filter."""
    from trivium.pipeline.run import run
    from trivium.recipe.load import Recipe, apply, parse_stage
    from trivium.stages.registry import Stages
    place = out.absolute()
    raw = {
        "stages": {
            "filter": {
                "kind": "filter", "finds": finds, "rows": [str(p) for p in rows or []], "text": text, "label": label,
                "labels": labels or [], "sought": [str(p) for p in sought or []],
                "other": [str(p) for p in other or []], "features": {"characters": characters}
            }
        }
    }
    for override in set_ or []:
        apply(raw, f"filter.{override}")
    stage = parse_stage(place.name, raw["stages"]["filter"], Stages())
    recipe = Recipe.model_construct(name=place.parent.name, seed=seed, threads=None, out=str(place.parent.parent),
                                    stages={place.name: stage})
    made = run(recipe, quiet=False)[place.name]
    print(json.dumps({"folder": str(made.folder), **made.summary}))
