"""The command ``trivium study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trivium.cli.output import to_json
from trivium.errors import TriviumError, counted


def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="The study, a YAML file: see docs/studies.md.")],
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs that go on at once; by default as many as the cores are "
                                                         "enough for.")] = None,
    set_: Annotated[list[str] | None,
                    typer.Option("--set", help="Override a setting in all runs: sft.epochs=1. Repeatable.")] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Run nothing: tables of what is there.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write every figure to this CSV file.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the tables to this file as LaTeX.")] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write; by default study.html in the study's folder."
                                              )] = None,
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False
) -> None:
    """Run a recipe under several settings and seeds, what is missing of it, and show one table: means over seeds, every
    pair of models tested, models at equal KL and length. What was interrupted goes on."""
    from trivium.files import write_text
    from trivium.study.driver import carry_out, check_any
    from trivium.study.page import write_page
    from trivium.study.results import measure
    from trivium.study.settings import plan_study
    from trivium.study.table import check_names, findings
    from trivium.study.writing import as_csv, as_latex, as_text
    plan = plan_study(file, set_ or [])
    outcomes = carry_out(plan, jobs, quiet, not no_run)
    check_any(outcomes)
    measured = measure(outcomes, plan.study.models)
    check_names(plan.study, measured)
    found = findings(plan, outcomes, measured)
    place = page or plan.study.folder / "study.html"
    write_page(place, plan, found, measured)
    for target, text in ((csv, as_csv(found)), (latex, as_latex(found, plan.study.figures))):
        if target is not None:
            write_text(target, text)
    print(to_json(found, 1) if as_json else f"{as_text(found, plan.study.figures)}\n\nthe page: {place}")
    if failed := [one for one in outcomes if one.why]:
        raise TriviumError(f"{counted(len(failed), 'run')} of {len(outcomes)} failed; the same command tries again "
                           f"({failed[0].run.label}: {failed[0].why})")
