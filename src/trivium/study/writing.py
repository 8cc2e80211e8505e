"""A study's tables as text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from trivium.report.compare import TIMES
from trivium.report.table import aligned

MOST = 6
"""Figures that a printed table shows."""
FIRST = ("right_answers", "win_rate", "length_controlled_win_rate", "mean_points", "broken_words", "kl", "mean_length",
         "accuracy", "validation_bits_per_byte", "bits_per_byte", "preference_accuracy", "loss", "validation_loss")
"""Beginnings of the figures that tell most, the most telling first."""
DULL = {*TIMES, "steps", "parameters", "trained_parameters", "tokens", "rows", "best_of", "learned_tokens"}
"""Figures that are shown only where a study asks for them."""


def as_text(found: dict[str, Any], figures: Sequence[str] = ()) -> str:
    """The tables for people."""
    lines = [f"{found['study']}: {found['recipe']}, seeds {', '.join(map(str, found['seeds']))}", ""]
    if found["models"]:
        tests, keys = model_figures(found, figures)
        rows = [["model", *(f"{test} (mean)" for test in tests), *(found["names"].get(key, key) for key in keys)]]
        rows += [[one["label"], *(cell(one["scores"].get(test)) for test in tests),
                  *(cell(one["figures"].get(key)) for key in keys)] for one in found["models"]]
        lines += ["models: mean over seeds [95 % interval]", *aligned(rows), ""]
    for stage, settings in found["stages"].items():
        keys = chosen(list(settings.values()), figures, differing=True)
        if keys:
            rows = [["setting", *(key.replace("_", " ") for key in keys)]]
            rows += [[setting, *(cell(made.get(key)) for key in keys)] for setting, made in settings.items()]
            lines += [f"{stage}: mean over seeds [95 % interval]", *aligned(rows), ""]
    if found["pairs"]:
        lines += ["pairs: first minus second [95 % interval]; p corrected for all pairs of a test (Holm)",
                  *aligned([PAIR_HEAD, *map(pair_row, found["pairs"])]), ""]
    for one in found["equal_kl"]:
        lines += [f"{one['test']} at an equal KL of {one['kl']:.3g} nats",
                  *aligned([[family, cell(made)] for family, made in one["families"].items()]),
                  *aligned([[f"{pair['first']} minus {pair['second']}", cell(pair["difference"]),
                             f"p {small(pair['p'])}", f"Holm {small(pair['p_holm'])}"] for pair in one["pairs"]]), ""]
    for run in found["lacking"]:
        lines.append(f"lacks {run['setting']} seed {run['seed']}: {', '.join(run['stages'])} ({run['why']})")
    lines += [f"note: {note}" for note in found["notes"]]
    return "\n".join(lines).rstrip()


PAIR_HEAD = ["test", "first", "second", "difference", "p", "p (Holm)", "first wins", "… at equal length",
             "longer by (characters)"]


def pair_row(pair: dict[str, Any]) -> list[str]:
    """A pair's cells."""
    longer = pair.get("longer_by")
    return [pair["test"], pair["first"], pair["second"], cell(pair["difference"], signed=True), small(pair["p"]),
            small(pair["p_holm"]), cell(pair.get("win_rate")), cell(pair.get("length_controlled")),
            "–" if longer is None else f"{longer:+.1f}"]


AS_SCORES = {"right": "right_answers", "points": "mean_points", "loss": "answer_loss"}
"""The figures that say the same as a score."""


def model_figures(found: dict[str, Any], figures: Sequence[str]) -> tuple[list[str], list[str]]:
    """The scores and the figures that a table of models shows."""
    tests = list(dict.fromkeys(test for one in found["models"] for test in one["scores"]))
    keys = chosen([{key: value for key, value in one["figures"].items()
                    if figures or key not in {AS_SCORES.get(test, test) for test in tests}}
                   for one in found["models"]], figures)
    return tests, keys


def chosen(made: Sequence[dict[str, Any]], figures: Sequence[str], differing: bool = False) -> list[str]:
    """The figures that a table shows: those that the study names; else some that differ, the most telling first."""
    keys = list(dict.fromkeys(key for one in made for key in one))
    if figures:
        return [key for key in figures if key in keys]
    moved = [key for key in keys if key.rpartition(" ")[2] not in DULL and (
        not differing or len({repr(one.get(key, {}).get("by_seed")) for one in made}) > 1)]
    return sorted(moved, key=rank)[:MOST]


def rank(key: str) -> int:
    """Where a figure stands among those that tell most."""
    return next((place for place, start in enumerate(FIRST) if key.startswith(start)), len(FIRST))


def cell(one: dict[str, Any] | None, signed: bool = False) -> str:
    """A figure and its interval."""
    if one is None or one["value"] is None:
        return "–"
    sign = "+" if signed else ""
    if one["low"] is None:
        return f"{one['value']:{sign}.4g}"
    return f"{one['value']:{sign}.4g} [{one['low']:{sign}.4g}, {one['high']:{sign}.4g}]"


def small(p: float | None) -> str:
    """A p-value."""
    if p is None:
        return "–"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


COLUMNS = ["table", "setting", "exam", "name", "other", "figure", "value", "low", "high", "seeds", "n", "method", "p",
           "p_holm", "by_seed"]


def as_csv(found: dict[str, Any]) -> str:
    """Every figure as a row: of models, of stages, of pairs and at equal KL."""
    out = io.StringIO()
    table = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    table.writeheader()

    def row(kind: str, figure: str, one: dict[str, Any] | None, **more: Any) -> None:
        if one is not None:
            by_seed = "; ".join(f"{seed}: {value!r}" for seed, value in one.get("by_seed", {}).items())
            table.writerow({"table": kind, "figure": figure, "by_seed": by_seed, **more, **{
                key: one[key] for key in ("value", "low", "high", "seeds", "n", "method") if one.get(key) is not None}})

    for model in found["models"]:
        about = {"setting": model["setting"], "exam": model["exam"], "name": model["model"]}
        for kind in ("scores", "figures"):
            for key, one in model[kind].items():
                row(f"models' {kind}", key, one, **about)
    for stage, settings in found["stages"].items():
        for setting, made in settings.items():
            for key, one in made.items():
                row("stages' figures", key, one, setting=setting, name=stage)
    for pair in found["pairs"]:
        names = {"name": pair["first"], "other": pair["second"]}
        row("pairs' difference", pair["test"], pair["difference"], **names, p=pair["p"], p_holm=pair["p_holm"])
        row("pairs' win rate", pair["test"], pair.get("win_rate"), **names)
        row("pairs' win rate at equal length", pair["test"], pair.get("length_controlled"), **names)
    for at in found["equal_kl"]:
        kind = f"at a KL of {at['kl']:.6g} nats"
        for family, one in at["families"].items():
            row(kind, at["test"], one, exam=at["exam"], name=family)
        for pair in at["pairs"]:
            row(f"{kind}, difference", at["test"], pair["difference"], exam=at["exam"], name=pair["first"],
                other=pair["second"], p=pair["p"], p_holm=pair["p_holm"])
    return out.getvalue()


SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
           "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "…": r"\dots{}",
           "−": "$-$", "<": r"\textless{}", ">": r"\textgreater{}"}


def escaped(text: str) -> str:
    """A text as LaTeX."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def as_latex(found: dict[str, Any], figures: Sequence[str] = ()) -> str:
    """The tables of models, of stages and of pairs; they need the package booktabs."""
    tables = []
    seeds = f"{len(found['seeds'])} seeds" if len(found["seeds"]) > 1 else "one seed"
    if found["models"]:
        tests, keys = model_figures(found, figures)
        rows = [[one["label"], *(cell(one["scores"].get(test)) for test in tests),
                 *(cell(one["figures"].get(key)) for key in keys)] for one in found["models"]]
        tables.append(latex_table(["model", *tests, *(found["names"].get(key, key) for key in keys)], rows,
                                  f"{found['study']}: means over {seeds} with 95 % intervals."))
    for stage, settings in found["stages"].items():
        if keys := chosen(list(settings.values()), figures, differing=True):
            rows = [[setting, *(cell(made.get(key)) for key in keys)] for setting, made in settings.items()]
            tables.append(latex_table(["setting", *(key.replace("_", " ") for key in keys)], rows,
                                      f"{found['study']}, {stage}: means over {seeds} with 95 % intervals."))
    if found["pairs"]:
        tables.append(latex_table(PAIR_HEAD[:6], [pair_row(pair)[:6] for pair in found["pairs"]],
                                  f"{found['study']}: all pairs; p corrected by Holm's method."))
    lacks = "".join(f"% lacks {one['setting']} seed {one['seed']}: {' '.join(one['why'].split())}\n"
                    for one in found["lacking"])
    return "% needs \\usepackage{booktabs}\n" + lacks + "\n".join(tables)


def latex_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """One table."""
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escaped, cells)) + r" \\"

    return "\n".join([r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption)}}}",
                      rf"\begin{{tabular}}{{{'l' * len(head)}}}", r"\toprule", line(head), r"\midrule",
                      *map(line, rows), r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])
