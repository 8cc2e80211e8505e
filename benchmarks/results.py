"""What the benchmarks of results share: stages run through a recipe, so that they can be killed and go on, and tables
kept as JSON and Markdown.

Not a benchmark itself: run sft_results.py or reward_results.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import common

Row = dict[str, Any]
Part = Callable[[Path, argparse.Namespace], list[Row]]
"""Makes the rows of a table, given a folder for its runs and the options."""


def recipe(folder: Path, name: str, stages: Mapping[str, Row], seed: int = 0) -> Path:
    """Write a recipe of these stages, whose artifacts go to ``folder / name``."""
    import yaml
    path = folder / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({"name": name, "seed": seed, "out": str(folder), "stages": dict(stages)}, sort_keys=False,
                       allow_unicode=True), encoding="utf-8")
    return path


def run(folder: Path, name: str, stages: Mapping[str, Row], only: Iterable[str] = (), seed: int = 0) -> dict[str, Any]:
    """Run a recipe of these stages, or ``only`` some of them with what they need; the artifacts. Finished stages are
    found again."""
    import trivium
    from trivium.progress import Progress
    return trivium.run(recipe(folder, name, stages, seed), only=only, progress=Progress())


def write(path: Path, rows: Iterable[Row]) -> Path:
    """Rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[Row]:
    """Rows of JSONL."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rate(value: Mapping[str, Any]) -> str:
    """A rate with its interval; a difference of rates in points, with its sign."""
    if value["value"] is None:
        return "–"
    if value.get("difference"):
        return f"{100 * value['value']:+.1f} [{100 * value['low']:+.1f}, {100 * value['high']:+.1f}] points"
    return f"{value['value']:.1%} [{100 * value['low']:.1f}, {100 * value['high']:.1f}], n = {value['n']:,}"


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, Mapping):
        return rate(value)
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def markdown(rows: Sequence[Row]) -> str:
    """A table with a column for every key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([cell(row.get(key, "")) for key in columns] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main(name: str, doc: str, parts: Mapping[str, Part], add: Callable[[argparse.ArgumentParser], None]) -> None:
    """Make the parts that ``--only`` names, or all. Each is saved as ``OUT/PART.json`` and ``OUT/PART.md`` and printed;
    the last line is one JSON object with all of them."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(parts), help="make these parts alone")
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="a finished quickstart")
    parser.add_argument("--data", type=Path, default=common.HERE.parents[1] / "shared/data",
                        help="folder of real data sets")
    parser.add_argument("--out", type=Path, default=Path("runs") / name,
                        help="where runs and tables go; finished stages there are not run again")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, and nothing else")
    add(parser)
    options = parser.parse_args()
    options.run, options.data, options.out = options.run.absolute(), options.data.absolute(), options.out.absolute()
    found: dict[str, Any] = {}
    for part in options.only or parts:
        folder = options.out / part
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{part} ...", file=sys.stderr, flush=True)
        begun = time.monotonic()
        rows = parts[part](folder, options)
        found[part] = {
            "rows": rows, "seconds": round(time.monotonic() - begun, 1), "quick": options.quick,
            "machine": common.machine()
        }
        (options.out / f"{part}.json").write_text(
            json.dumps(found[part], ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        (options.out / f"{part}.md").write_text(markdown(rows), encoding="utf-8")
        print(
            f"\n{part} ({found[part]['seconds']:.0f} "
            f"s{', quick: no result' if options.quick else ''})\n\n{markdown(rows)}",
            flush=True)
    print(json.dumps({"benchmark": name, "results": found}, ensure_ascii=False))
