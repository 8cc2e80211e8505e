"""What fine-tuning gives, measured: results of the embedded world, and real data beside a simple baseline.

    python benchmarks/sft_results.py demonstrations|lora|tasks|waimai|gsm8k [--runs runs/quickstart] [--data FOLDER] [--out FOLDER]

The first three start from a finished quickstart (``--runs``): its ``world``, ``pretrain`` and ``untrained``. The last two train a small
model from nothing on the task's own texts, and compare with TF-IDF and logistic regression on the same rows. Prints a table, and as
its last line one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import common

FAST = {"length": 256, "rows": 2, "optimization": {"optimizer": "muon", "learning_rate": 0.015, "matrix_learning_rate": 0.008, "newton_schulz": 3,
                                                   "epsilon": 1e-3, "schedule": "linear"}}
"""The quickstart's settings of fine-tuning."""


def run(folder: Path, name: str, stages: dict[str, Any]) -> dict[str, Any]:
    """Run a recipe of these stages; the artifacts."""
    import yaml

    import trivium
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "out": str(folder), "stages": stages}, sort_keys=False))
    print(f"{name} ...", file=sys.stderr, flush=True)
    return trivium.run(path)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of JSONL."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def examine(models: list[str], runs: Path, limit: int = 200) -> dict[str, Any]:
    """The stage that counts right answers about entities that no demonstration names."""
    return {"kind": "evaluate", "models": {name: name for name in models}, "baseline": models[0], "prompts": str(runs / "world"),
            "demonstrations": str(runs / "world"), "max_new_tokens": 48, "limit": limit}


def rate(value: dict[str, Any]) -> str:
    """A rate with its interval."""
    return f"{value['value']:6.1%} [{value['low']:.1%}, {value['high']:.1%}], n = {value['n']}"


def demonstrations(folder: Path, runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Right answers against the number of demonstrations, pretrained and untrained. Each run sees 2,000 rows, or all rows once."""
    rows = read(runs / "world/demonstrations.jsonl")
    stages: dict[str, Any] = {}
    for count in options.counts:
        if count > len(rows):
            print(f"left out: {count} demonstrations, as the world has {len(rows)}", file=sys.stderr)
            continue
        part = write(folder / f"{count}.jsonl", rows[:count])
        for start in ("pretrain", "untrained"):
            stages[f"{start}-{count}"] = {"kind": "sft", "model": str(runs / start), "demonstrations": str(part), "epochs": max(1.0, 2000 / count), **FAST}
    names = list(stages)
    found = run(folder, "demonstrations", {**stages, "evaluate": examine(names, runs)})["evaluate"].summary["models"]
    for name in names:
        print(f"{name:20} {rate(found[name]['right_answers'])}")
    return {name: found[name]["right_answers"] for name in names}


def lora(folder: Path, runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """LoRA of rank 8 against all weights, on the same rows; each in a process of its own, for its peak of memory."""
    import subprocess

    import yaml

    import trivium
    part = write(folder / "rows.jsonl", read(runs / "world/demonstrations.jsonl")[:1500])
    adamw = {"learning_rate": 0.004, "schedule": "linear"}
    kinds: dict[str, dict[str, Any]] = {
        "full": FAST, "lora": {**FAST, "adapter": {"rank": 8}, "optimization": adamw},
        "lora-qv": {**FAST, "adapter": {"rank": 8, "targets": ["q_proj", "v_proj"]}, "optimization": {**adamw, "learning_rate": 0.01}}}
    stages = {name: {"kind": "sft", "model": str(runs / "pretrain"), "demonstrations": str(part), "epochs": 1, **settings} for name, settings in kinds.items()}
    path = folder / "lora.yaml"
    path.write_text(yaml.safe_dump({"name": "lora", "out": str(folder), "stages": {**stages, "evaluate": examine(list(stages), runs)}}, sort_keys=False))
    for name in stages:
        subprocess.run([sys.executable, "-m", "trivium.cli", "run", str(path), "--only", name, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    artifacts = trivium.run(path)
    found, results = artifacts["evaluate"].summary["models"], {}
    weights = sum(p.numel() for p in trivium.load(runs / "pretrain").model.parameters())
    for name in stages:
        trained = artifacts[name].summary.get("trained_parameters", weights)
        results[name] = {"right_answers": found[name]["right_answers"], "trained": trained / weights, "seconds": artifacts[name].manifest["seconds"],
                         "peak_memory_mb": artifacts[name].manifest["peak_memory_mb"]}
        print(f"{name:10} {rate(found[name]['right_answers'])}; {trained / weights:.2%} of the weights trained; {results[name]['seconds']:.0f} s, "
              f"{results[name]['peak_memory_mb']:.0f} MB")
    return results


def tasks(folder: Path, runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Five tasks one after another: without rehearsal, with earlier rows mixed in, and (LAMOL) with rows that the model makes up."""
    rows = read(runs / "world/demonstrations.jsonl")
    order = ["classification", "judgement", "reasoning", "code", "entity"]
    files = {task: write(folder / f"{task}.jsonl", [row for row in rows if row["task"] == task][:200]) for task in order}
    results: dict[str, Any] = {}
    for name, more in (("none", {}), ("rows", {"rehearsal": {"share": 0.3}}), ("generated", {"rehearsal": {"share": 0.3, "generated": True, "max_new_tokens": 48},
                                                                                             "prompt_loss": 0.25})):
        stages: dict[str, Any] = {}
        before = str(runs / "pretrain")
        for i, task in enumerate(order):
            earlier = {old: str(files[old]) for old in order[:i]}
            settings = {"kind": "sft", "model": before, "demonstrations": str(files[task]), "epochs": 3, **FAST, "earlier": earlier, **more}
            if not i:
                settings.pop("rehearsal", None)
            stages[task] = settings
            before = task
        found = run(folder, name, stages)
        results[name] = found[order[-1]].summary["earlier"]
        for task, scores in results[name].items():
            print(f"{name:10} {task:16} before the last task {rate(scores['before'])}; after {rate(scores['after'])}")
    return results


def small_model(texts: list[str], folder: Path, vocab: int) -> dict[str, Any]:
    """Stages that train a tokenizer and a small model on texts."""
    write(folder / "texts.jsonl", [{"text": text} for text in texts])
    shape = {"hidden_size": 128, "intermediate_size": 352, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "head_dim": 32, "max_positions": 384}
    return {"corpus": {"documents": [str(folder / "texts.jsonl")], "settings": {"rules": []}}, "tokenizer": {"vocab_size": vocab}, "tokens": {},
            "pretrain": {"model": shape, "length": 384, "rows": 4, "epochs": 1, "optimization": {
                "optimizer": "muon", "learning_rate": 0.01, "matrix_learning_rate": 0.015, "newton_schulz": 3, "schedule": "linear"}}}


def waimai(folder: Path, runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Chinese reviews of meals as instructions in four phrasings: right labels on 1,000 held-out reviews."""
    with open(options.data / "ChineseNlpCorpus/waimai_10k.csv", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["review"].strip()]
    random.Random(0).shuffle(rows)
    test, train = rows[:1000], rows[1000:]
    seen = {row["review"] for row in test}
    train = [row for row in train if row["review"] not in seen]
    for name, part in (("train", train), ("test", test)):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["label", "review"])
            writer.writeheader()
            writer.writerows(part)
    source = {"columns": {"text": "review"}, "labels": {"0": "差评", "1": "好评"}, "templates": "classification-zh"}
    stages = small_model([row["review"] for row in train], folder, 3000)
    read_test = {"kind": "imports", "demonstrations": {"test": str(folder / "test.csv")}, "sources": {"test": source}}
    artifacts = run(folder, "waimai", {
        **stages, "imports": {"demonstrations": {"reviews": str(folder / "train.csv")}, "sources": {"reviews": source}}, "test": read_test,
        "sft": {"demonstrations": "imports", "length": 384, "rows": 8, "epochs": 2, "validation": 0.03, "too_long": "leave out",
                "optimization": {"optimizer": "muon", "learning_rate": 0.004, "matrix_learning_rate": 0.006, "newton_schulz": 3, "schedule": "linear"}}})
    return compare(artifacts, [row["review"] for row in train], [row["label"] for row in train], [row["review"] for row in test], [row["label"] for row in test])


def gsm8k(folder: Path, runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Grade-school sums: right final numbers on 500 held-out questions."""
    rows = read(options.data / "gsm8k/train.jsonl")
    random.Random(0).shuffle(rows)
    test, train = rows[:500], rows[500:]
    write(folder / "train.jsonl", train)
    write(folder / "test.jsonl", test)
    stages = small_model([row["question"] + "\n" + row["answer"] for row in train], folder, 3000)
    artifacts = run(folder, "gsm8k", {
        **stages, "imports": {"demonstrations": {"sums": str(folder / "train.jsonl")}, "sources": {"sums": {}}},
        "test": {"kind": "imports", "demonstrations": {"sums": str(folder / "test.jsonl")}, "sources": {"sums": {}}},
        "sft": {"demonstrations": "imports", "length": 384, "rows": 8, "epochs": 1, "validation": 0.03,
                "optimization": {"optimizer": "muon", "learning_rate": 0.004, "matrix_learning_rate": 0.006, "newton_schulz": 3, "schedule": "linear"}}})

    def number(row: dict[str, str]) -> str:
        return row["answer"].rpartition("#### ")[2].strip()

    return compare(artifacts, [row["question"] for row in train], [number(row) for row in train], [row["question"] for row in test],
                   [number(row) for row in test], final=True)


def compare(artifacts: dict[str, Any], train: list[str], labels: list[str], test: list[str], wanted: list[str], final: bool = False) -> dict[str, Any]:
    """The model's right answers on the ``test`` stage's rows, and those of TF-IDF with logistic regression on the same texts."""
    import re

    import trivium
    from trivium.evaluation.intervals import mean_interval
    from trivium.stages.common import prompt_ids
    from trivium.stages.rehearsal import answer_all
    loaded = trivium.load(artifacts["sft"].folder)
    rows = read(artifacts["test"].folder / "demonstrations.jsonl")
    prompts = [prompt_ids(loaded.tokenizer, row["messages"][:-1]).tolist() for row in rows]
    kept = [(row, prompt) for row, prompt in zip(rows, prompts, strict=True) if len(prompt) < loaded.model.config.max_positions - 8]
    answers = answer_all(loaded.model, loaded.tokenizer, [prompt for _, prompt in kept], 0.0, 160 if final else 8, 0)

    def same(said: str | None, row: dict[str, Any]) -> float:
        right = row["messages"][-1]["content"]
        if not final:
            return float((said or "").strip() == right)
        numbers = [re.findall(r"-?[\d,.]*\d", text or "") for text in (said, right)]
        return float(bool(numbers[0]) and numbers[0][-1] == numbers[1][-1])

    ours = mean_interval([same(said, row) for said, (row, _) in zip(answers, kept, strict=True)])
    given = Path(tempfile.mkdtemp()) / "texts.json"
    given.write_text(json.dumps({"train": train, "labels": labels, "test": test, "wanted": wanted}))
    python = common.peers("baseline", "scikit-learn")
    theirs = mean_interval([float(x) for x in common.call(__file__, {"baseline": str(given)}, python)["right"]])
    majority = max(wanted.count(label) for label in set(wanted)) / len(wanted)
    summary = artifacts["sft"].summary
    print(f"ours                          {rate(ours)}; left out as too long: {len(rows) - len(kept)} of {len(rows)}")
    print(f"TF-IDF + logistic regression  {rate(theirs)}; the commonest answer always: {majority:.1%}")
    print(f"validation loss {summary['validation_loss']:.3f} at update {summary['best_step']} of {summary['planned_steps']}; "
          + ", ".join(f"{name} {artifact.manifest['seconds']:.0f} s" for name, artifact in artifacts.items()))
    return {"ours": ours, "baseline": theirs, "majority": majority}


def baseline(options: dict[str, Any]) -> dict[str, Any]:
    """TF-IDF of words and character pairs with logistic regression; runs in scikit-learn's environment."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    given = json.loads(Path(options["baseline"]).read_text())
    counts: dict[str, int] = {}
    for label in given["labels"]:
        counts[label] = counts.get(label, 0) + 1
    common_labels = set(sorted(counts, key=lambda label: -counts[label])[:50])  # a class for each number would take hours
    pairs = [(text, label) for text, label in zip(given["train"], given["labels"]) if label in common_labels]
    model = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, min_df=2), LogisticRegression(C=4.0, max_iter=300))
    model.fit([text for text, _ in pairs], [label for _, label in pairs])
    return {"right": [bool(a == b) for a, b in zip(model.predict(given["test"]), given["wanted"])]}


def main() -> None:
    """One of the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", nargs="?", choices=["demonstrations", "lora", "tasks", "waimai", "gsm8k"])
    parser.add_argument("--runs", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--data", type=Path, default=common.HERE.parents[1] / "shared/data")
    parser.add_argument("--out", type=Path, default=None, help="where the runs go; a temporary folder by default")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300, 1000, 3000, 10000])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(baseline(json.loads(options.worker))))
        return
    folder = options.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    found = {"demonstrations": demonstrations, "lora": lora, "tasks": tasks, "waimai": waimai, "gsm8k": gsm8k}[options.result](
        folder.absolute(), options.runs.absolute(), options)
    print(json.dumps({"result": options.result, "figures": found, "machine": common.machine()}, ensure_ascii=False))


if __name__ == "__main__":
    main()
