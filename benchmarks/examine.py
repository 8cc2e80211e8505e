"""A model's examination beside published figures and lm-evaluation-harness on the very same folder.

    python benchmarks/examine.py --model models/smollm2-135m-instruct [--peer PYTHON] [--limit 200] [--precision bf16]

``--peer`` is the Python of an environment with lm-evaluation-harness (the extra ``eval``), which is given its own task
files and the same rows; question by question the log-probabilities of both are held against one another. Without it
only our figures are made. Published are lm-evaluation-harness's, 0-shot, of SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

TASKS = {"arc_easy": "accuracy", "arc_challenge": "accuracy_per_character", "piqa": "accuracy_per_character"}
"""The figure of each task that is published."""
PUBLISHED = {"arc_easy": 54.1, "arc_challenge": 27.7, "piqa": 66.9}
PEER = '''
import json, sys, time
from pathlib import Path
import lm_eval, yaml
from lm_eval import simple_evaluate, tasks
from lm_eval.models.huggingface import HFLM

asked = json.loads(sys.argv[1])
place = Path(lm_eval.__file__).parent / "tasks"
files = {path.stem: path for path in place.glob("*/*.yaml")}
configs = []
for name, rows in asked["rows"].items():
    config = yaml.safe_load(files[name].read_text())
    while "include" in config:
        config = yaml.safe_load((files[name].parent / config.pop("include")).read_text()) | config
    split = config.get("test_split") or config["validation_split"]
    for field in ("tag", "dataset_name", "training_split", "validation_split", "test_split"):
        config.pop(field, None)
    configs.append(config | {"dataset_path": "json", "test_split": split,
                             "dataset_kwargs": {"data_files": {split: rows}}})
model = HFLM(pretrained=asked["model"], dtype=asked["dtype"], batch_size=asked["batch"], device="cpu")
begun = time.perf_counter()
found = simple_evaluate(model, tasks=configs, num_fewshot=0, log_samples=True, bootstrap_iters=0)
samples = {name: [{"doc_id": row["doc_id"], "log_probs": [each[0][0] if isinstance(each[0], (list, tuple)) else each[0]
                                                          for each in row["resps"]],
                   "acc": row["acc"], "acc_norm": row["acc_norm"]} for row in rows]
           for name, rows in found["samples"].items()}
Path(asked["out"]).write_text(json.dumps({"samples": samples, "seconds": time.perf_counter() - begun,
                                          "version": lm_eval.__version__}))
'''


def rows_of(data: Path, name: str, limit: int | None) -> list[dict[str, Any]]:
    """The first rows of a task in the shape that the harness's own file expects."""
    def lines(place: str) -> list[Any]:
        return [json.loads(line) for line in (data / place).read_text(encoding="utf-8").splitlines()]

    if name == "piqa":
        labels = (data / "piqa/valid-labels.lst").read_text().split()
        rows = [row | {"label": int(label)} for row, label in zip(lines("piqa/valid.jsonl"), labels, strict=True)]
    else:
        rows = [{"question": row["question"]["stem"], "answerKey": row["answerKey"],
                 "choices": {field: [choice[field] for choice in row["question"]["choices"]]
                             for field in ("text", "label")}} for row in lines(f"arc/{name}.test.jsonl")]
    return rows[:limit]




def ours(options: argparse.Namespace, rows: dict[str, Path], room: Path) -> tuple[dict[str, Any], float]:
    """Our figures, and the questions with their log-probabilities."""
    import yaml

    from trivium.evaluation.run import run_tasks
    files = []
    for name, path in rows.items():
        task = yaml.safe_load((common.HERE.parent / f"recipes/tasks/{name}.yaml").read_text(encoding="utf-8"))
        task |= {"data": [str(path)], "lines": {}}
        if name != "piqa":  # the same rows in the other shape
            task |= {"prompt": "Question: {{ question }}\nAnswer:", "choices": "choices.text",
                     "answer": "choices.label.index(answerKey)"}
        files.append(room / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(task), encoding="utf-8")
    begun = time.perf_counter()
    found = run_tasks([options.model], files, answers=room / "answers.jsonl", precision=options.precision)
    seconds = time.perf_counter() - begun
    answers = [json.loads(line) for line in (room / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"figures": found[str(options.model)], "answers": {
        name: [row for row in answers if row["task"] == name] for name in rows}}, seconds


def theirs(options: argparse.Namespace, rows: dict[str, Path], room: Path) -> dict[str, Any]:
    """The harness's figures, in a process of its own."""
    asked = {"model": str(options.model), "rows": {name: str(path) for name, path in rows.items()},
             "out": str(room / "peer.json"), "batch": options.batch,
             "dtype": "float32" if options.precision == "float32" else "bfloat16"}
    subprocess.run([options.peer, "-c", PEER, json.dumps(asked)], check=True, stdout=sys.stderr)
    found: dict[str, Any] = json.loads((room / "peer.json").read_text())
    return found


def main() -> None:
    """Print the table, and all as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--peer", help="the Python of an environment with lm-evaluation-harness")
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS])
    parser.add_argument("--limit", type=int, default=None, help="the first so many questions of each task")
    parser.add_argument("--precision", choices=["float32", "bf16", "auto"], default="float32")
    parser.add_argument("--batch", type=int, default=16, help="texts in one batch of the harness")
    parser.add_argument("--data", type=Path, default=common.HERE.parents[1] / "shared/data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        room, rows = Path(place), {}
        for name in options.tasks:
            rows[name] = room / f"{name}.jsonl"
            rows[name].write_text("".join(json.dumps(row) + "\n" for row in rows_of(options.data, name, options.limit)))
        own, seconds = ours(options, rows, room)
        peer = theirs(options, rows, room) if options.peer else None
    print("| task | questions | ours | lm-evaluation-harness | published | largest difference of a log-probability, "
          "other choices |\n|---|---:|---|---:|---:|---|")
    result: dict[str, Any] = {"machine": common.machine(), "precision": options.precision, "seconds": seconds}
    for name in options.tasks:
        figure = own["figures"][name][TASKS[name]]
        line = {"value": figure["value"], "low": figure["low"], "high": figure["high"], "n": figure["n"],
                "published": PUBLISHED[name]}
        beside = "–", "–"
        if peer:
            key = "acc" if TASKS[name] == "accuracy" else "acc_norm"
            samples = sorted(peer["samples"][name], key=lambda row: row["doc_id"])
            line["harness"] = sum(row[key] for row in samples) / len(samples)
            pairs = list(zip(own["answers"][name], samples, strict=True))
            line["difference"] = max(abs(a - b) for mine, other in pairs
                                     for a, b in zip(mine["log_probs"], other["log_probs"], strict=True))
            line["other_choices"] = sum(mine["score"] != other["acc"] for mine, other in pairs)
            beside = f"{100 * line['harness']:.2f} %", f"{line['difference']:.1e}, {line['other_choices']}"
        print(f"| {name} ({TASKS[name].replace('_', ' ')}) | {figure['n']:,} | {100 * figure['value']:.2f} % "
              f"[{100 * figure['low']:.1f}, {100 * figure['high']:.1f}] | {beside[0]} | {PUBLISHED[name]} % | "
              f"{beside[1]} |")
        result[name] = line
    if peer:
        result |= {"harness": peer["version"], "harness_seconds": peer["seconds"]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
