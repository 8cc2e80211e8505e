"""A model's examination beside published figures and lm-evaluation-harness on the very same folder and questions.

    python benchmarks/examine.py --model models/smollm2-135m-instruct [--peer PYTHON] [--limit 200] [--precision auto]

Ours is what ``trivium evaluate`` gives with the files of recipes/tasks. ``--peer`` is the Python of an environment with
lm-evaluation-harness (the extra ``eval``), which is given its own task files and the rows of the very questions that
were asked here: log-probabilities are held against one another question by question. HumanEval's own checker has to be
fetched from a hub, so it is not asked of the peer. Published are lm-evaluation-harness's figures, 0-shot, of
SmolLM2-135M-Instruct. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

Row = dict[str, Any]


@dataclass(frozen=True)
class Exam:
    """A task of ours beside the harness's."""

    figure: str
    """Ours."""
    peer: str = ""
    """The harness's task file, in its folder of tasks; ``{group}`` is the question's group."""
    key: str = ""
    """Its figure."""
    row: Callable[[Row, Row], Row] = lambda row, answer: row
    """Our row, and what was made of it, in the shape that the harness's file expects."""
    settings: tuple[tuple[str, Any], ...] = ()
    """What is said to the harness beside its file."""
    published: float | None = None


def _arc(row: Row, answer: Row) -> Row:
    choices = row["question"]["choices"]
    return {"question": row["question"]["stem"], "answerKey": row["answerKey"],
            "choices": {field: [choice[field] for choice in choices] for field in ("text", "label")}}


def _mmlu(row: Row, answer: Row) -> Row:
    return {"question": row["question"], "choices": [row[f"choice{place}"] for place in range(4)],
            "answer": answer["right"][0]}


def _truthful(row: Row, answer: Row) -> Row:
    targets = {"choices": answer["choices"],
               "labels": [int(place in answer["right"]) for place in range(len(answer["choices"]))]}
    return {"question": row["Question"], "mc1_targets": targets, "mc2_targets": targets}


EXAMS = {
    "arc_easy": Exam("accuracy", "arc/arc_easy.yaml", "acc", _arc, published=54.1),
    "arc_challenge": Exam("accuracy_per_character", "arc/arc_challenge.yaml", "acc_norm", _arc, published=27.7),
    "piqa": Exam("accuracy_per_character", "piqa/piqa.yaml", "acc_norm",
                 lambda row, answer: row | {"label": int(row["label"])}, published=66.9),
    "mmlu": Exam("accuracy", "mmlu/default/mmlu_{group}.yaml", "acc", _mmlu, (("num_fewshot", 5),)),
    "mmlu_cloze": Exam("accuracy_per_character", "mmlu/continuation/mmlu_{group}.yaml", "acc_norm", _mmlu),
    "truthfulqa_mc1": Exam("accuracy", "truthfulqa/truthfulqa_mc1.yaml", "acc", _truthful),
    "truthfulqa": Exam("probability_of_right", "truthfulqa/truthfulqa_mc2.yaml", "acc", _truthful),
    "blimp": Exam("accuracy", "blimp/_template_yaml", "acc"),
    "wikitext": Exam("bits_per_byte", "wikitext/wikitext.yaml", "bits_per_byte"),
    "bbh": Exam("right", "bbh/cot_fewshot/{group}.yaml", "exact_match", settings=(
        ("generation_kwargs", {"until": ["</s>", "Q", "\n\n"], "do_sample": False, "max_gen_toks": 512}),)),
    "gsm8k": Exam("right", "gsm8k/gsm8k.yaml", "exact_match", settings=(
        ("num_fewshot", 8), ("fewshot_config", {"sampler": "first_n"})), published=0.4),
    "humaneval": Exam("pass_at_1"),
}
"""What is asked, the short first."""

PEER = '''
import json, sys, time
from pathlib import Path
import lm_eval
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

asked = json.loads(sys.argv[1])
place = Path(lm_eval.__file__).parent / "tasks"
configs = []
for task in asked["tasks"]:
    config = load_yaml(place / task["file"], resolve_func=True)
    for field in ("tag", "dataset_name", "training_split", "validation_split", "fewshot_split", "task_alias"):
        config.pop(field, None)
    splits = {"test": task["rows"]} | ({"dev": task["examples"]} if task["examples"] else {})
    configs.append({"num_fewshot": 0} | config | {"task": task["name"], "dataset_path": "json", "test_split": "test",
                    "dataset_kwargs": {"data_files": splits}} | ({"fewshot_split": "dev"} if task["examples"] else {})
                   | task["settings"])
model = HFLM(pretrained=asked["model"], dtype=asked["dtype"], batch_size=asked["batch"],
             device="cuda" if torch.cuda.is_available() else "cpu")
begun = time.perf_counter()
found = simple_evaluate(model, tasks=configs, log_samples=True, bootstrap_iters=0)
samples = {}
for name, rows in found["samples"].items():
    for row in rows:
        if row.get("filter") in (None, "none", "get-answer", "flexible-extract"):
            told = [each[0][0] if isinstance(each[0], (list, tuple)) else each[0] for each in row["resps"]]
            samples.setdefault(name.split("/")[0], {})[row["doc"]["where"]] = {"resps": told} | {
                key: row[key] for key in ("acc", "acc_norm", "exact_match", "bits_per_byte") if key in row}
Path(asked["out"]).write_text(json.dumps({"samples": samples, "seconds": time.perf_counter() - begun,
                                          "version": lm_eval.__version__}))
'''


def write_rows(path: Path, rows: list[Row]) -> str:
    """Write JSON lines; returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class Ours:
    """Our side: the task files with the data's folder, and what came of them."""

    def __init__(self, options: argparse.Namespace, room: Path) -> None:
        from trivium.evaluation.run import run_tasks
        from trivium.evaluation.tasks.load import load_task
        self.rows: dict[str, dict[str, Row]] = {}
        self.examples: dict[str, dict[str, list[Row]]] = {}
        self.figures: dict[str, Row] = {}
        self.seconds: dict[str, float] = {}
        self.answers: dict[str, list[Row]] = {}
        for name in options.tasks:
            text = (common.HERE.parent / f"recipes/tasks/{name}.yaml").read_text(encoding="utf-8")
            file = room / f"{name}.yaml"
            file.write_text(text.replace("../shared/data", str(options.data.resolve())), encoding="utf-8")
            task: Any = load_task(file)
            groups: set[str] = set()
            if task.kind == "bits":
                self.rows[name] = {where: {"page": text} for where, text in task.texts(file)}
            else:
                items = task.items(file, task.data, 0)
                groups = {item.group for item in items}
                self.rows[name] = {item.where: item.row for item in items}
                self.examples[name] = {group: [item.row | {"where": item.where} for item in members[:task.shots + 1]]
                                       for group, members in task.example_pool(file, items, 0).items()
                                       } if task.shots else {}
            limit = [f"limit={max(1, options.limit // max(1, len(groups)))}"] if options.limit else []
            begun = time.perf_counter()
            found = run_tasks([options.model], [file], overrides=limit, answers=room / "answers.jsonl",
                              precision=options.precision)
            self.seconds[name] = time.perf_counter() - begun
            self.figures[name] = found[str(options.model)][name]
            value = self.figures[name][EXAMS[name].figure]
            print(f"{name}: {value['value']:.4f} of {value['n']} in {self.seconds[name]:.0f} s", file=sys.stderr)
            self.answers[name] = [json.loads(line) for line in (room / "answers.jsonl").read_text("utf-8").splitlines()]

    def for_peer(self, name: str, room: Path) -> list[Row]:
        """The harness's tasks for one of ours: one for each group where its files are many."""
        exam, parts = EXAMS[name], dict[str, list[Row]]()
        for answer in self.answers[name]:
            row = exam.row(self.rows[name][answer["where"]], answer) | {"where": answer["where"]}
            parts.setdefault(answer.get("group", "") if "{group}" in exam.peer else "", []).append(row)
        tasks = []
        for group, rows in parts.items():
            shown = self.examples.get(name, {}).get(group, [])
            if name.startswith("mmlu"):
                shown = [_mmlu(row, {"right": [int(row["answer"])]}) | {"where": row["where"]} for row in shown]
            label = f"{name}/{group}" if group else name
            file = room / f"{name}-{group}"
            tasks.append({"name": label, "file": exam.peer.format(group=group), "settings": dict(exam.settings),
                          "rows": write_rows(file.with_suffix(".rows.jsonl"), rows),
                          "examples": write_rows(file.with_suffix(".shown.jsonl"), shown) if shown else ""})
        return tasks


def theirs(options: argparse.Namespace, tasks: list[Row], room: Path) -> Row:
    """The harness's figures, in a process of its own."""
    asked = {"model": str(options.model), "tasks": tasks, "out": str(room / "peer.json"), "batch": options.batch,
             "dtype": "float32" if options.precision == "float32" else "bfloat16"}
    subprocess.run([options.peer, "-c", PEER, json.dumps(asked)], check=True, stdout=sys.stderr)
    found: Row = json.loads((room / "peer.json").read_text(encoding="utf-8"))
    return found


def beside(name: str, answers: list[Row], samples: Row) -> Row:
    """How the harness's answers differ from ours to the same questions."""
    exam = EXAMS[name]
    pairs = [(answer, samples[answer["where"]]) for answer in answers]
    if name == "wikitext":
        total = sum(other[exam.key][0] for _, other in pairs), sum(other[exam.key][1] for _, other in pairs)
        return {"harness": -total[0] / total[1] / 0.6931471805599453,
                "difference": max(abs(mine["log_prob"] - other["resps"][0]) for mine, other in pairs)}
    line = {"harness": sum(other[exam.key] for _, other in pairs) / len(pairs)}
    if "log_probs" in answers[0]:
        line["difference"] = max(abs(a - b) for mine, other in pairs
                                 for a, b in zip(mine["log_probs"], other["resps"], strict=True))
        line["other_choices"] = sum(mine["chosen"] != other["resps"].index(max(other["resps"]))
                                    for mine, other in pairs)
    else:
        line["other_texts"] = sum(mine["said"].strip() != other["resps"][0].strip() for mine, other in pairs)
        line["other_scores"] = sum(mine["score"] != other[exam.key] for mine, other in pairs)
    return line


def shown(line: Row) -> str:
    """A line of the table."""
    def unit(value: float) -> str:
        return f"{value:.4f}" if line["figure"] == "bits_per_byte" else f"{100 * value:.2f} %"

    bounds = "" if line["low"] is None else f" [{unit(line['low'])}, {unit(line['high'])}]"
    marks = [f"{line['difference']:.1e}"] if "difference" in line else []
    marks += [f"{line[field]} {field.replace('_', ' ')}" for field in ("other_choices", "other_texts", "other_scores")
              if field in line]
    return " | ".join([f"| {line['task']} ({line['figure'].replace('_', ' ')})", f"{line['n']:,}",
                       unit(line["value"]) + bounds, unit(line["harness"]) if "harness" in line else "–",
                       f"{line['published']} %" if line["published"] else "–", ", ".join(marks) or "–",
                       f"{line['seconds']:.0f} s |"])


def main() -> None:
    """Print the table, and all as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--peer", help="the Python of an environment with lm-evaluation-harness")
    parser.add_argument("--tasks", nargs="+", choices=[*EXAMS], default=[*EXAMS])
    parser.add_argument("--limit", type=int, help="about so many questions of each task, the same for both")
    parser.add_argument("--precision", choices=["float32", "bf16", "auto"], default="float32")
    parser.add_argument("--batch", type=int, default=8, help="texts in one batch of the harness")
    parser.add_argument("--data", type=Path, default=common.HERE.parents[1] / "shared/data")
    options = parser.parse_args()
    result: Row = {"machine": common.machine(), "precision": options.precision, "tasks": {}}
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        own = Ours(options, room)
        tasks = [task for name in options.tasks if EXAMS[name].peer for task in own.for_peer(name, room)]
        peer = theirs(options, tasks, room) if options.peer and tasks else {"samples": {}}
    result |= {f"harness_{field}": peer[field] for field in ("version", "seconds") if field in peer}
    print("| task (figure) | questions | ours | lm-evaluation-harness | published | largest difference of a "
          "log-probability, and what differs | time of ours |\n|---|---:|---|---:|---:|---|---:|")
    for name in options.tasks:
        figure = own.figures[name][EXAMS[name].figure]
        line = {"task": name, "figure": EXAMS[name].figure, "published": EXAMS[name].published,
                "seconds": own.seconds[name], **{field: figure[field] for field in ("value", "low", "high", "n")}}
        if name in peer["samples"]:
            line |= beside(name, own.answers[name], peer["samples"][name])
        result["tasks"][name] = line
        print(shown(line), flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
