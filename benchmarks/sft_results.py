"""What fine-tuning gives, measured: results of the embedded world, and real data beside a simple baseline.

    python benchmarks/sft_results.py [--only demonstrations lora tasks waimai gsm8k] [--run runs/quickstart] [--data
    FOLDER] [--quick]

demonstrations  right answers against the number of demonstrations, 100 to 10,000, of a pretrained and of an untrained
model lora            LoRA of rank 8 against all weights: right answers, share of the weights, seconds, peak of memory
tasks           five tasks learned one after another: without rehearsal, with rows of the past, with rows that the model
makes up (LAMOL), and all at once waimai          Chinese reviews of meals as instructions, beside TF-IDF and logistic
regression gsm8k           grade-school sums, beside the same

The first three start from a finished quickstart (``--run``): its ``world``, ``pretrain`` and ``untrained``. The last
two train a small model from nothing on the task's own texts. Everything is a stage of a recipe: killed, it goes on
where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import results
from results import Row

FAST = {
    "length": 256, "rows": 2, "optimization": {
        "optimizer": "muon", "learning_rate": 0.015, "matrix_learning_rate": 0.008, "newton_schulz": 3, "epsilon": 1e-3,
        "schedule": "linear"
    }
}
"""The quickstart's settings of fine-tuning."""
SHOWN = 2000
"""Demonstrations that a model sees at least: fewer of them are gone through more often."""
PROMPTS = 4400
"""Different prompts that the quickstart's town has for demonstrations, nearly."""
TASKS = ["classification", "judgement", "reasoning", "code", "entity"]
LATER = ["classification", "judgement", "entity"]
"""What LoRA is taught beside a model that can do the others."""


def examine(models: list[str], options: argparse.Namespace) -> Row:
    """The stage that counts right answers about entities that no demonstration names."""
    return {
        "kind": "evaluate", "models": {name: name
                                       for name in models}, "baseline": models[0],
        "prompts": str(options.run / "world"), "demonstrations": str(options.run / "world"), "max_new_tokens": 48,
        "limit": 40 if options.quick else None
    }


def more_demonstrations(options: argparse.Namespace, count: int) -> list[Row]:
    """The run's demonstrations, then those of further prompts of its town, then other writers' answers to the same
    prompts."""
    from trivium.randomness import python
    from trivium.world.answers import STYLES, respond
    from trivium.world.tasks import rows_for
    from trivium.world.town import Town
    rows = results.read(options.run / "world/demonstrations.jsonl")
    world = json.loads((options.run / "world/manifest.json").read_text())
    size = world["settings"]["size"]
    town = Town(world["seed"], size["animals"], size["foods"], size["people"], size["places"])
    asked = rows_for(town, world["seed"], max(PROMPTS, len(rows)), "demonstration")
    seen = {json.dumps(row["messages"][:-1]) for row in rows}
    said = {json.dumps(row["messages"]) for row in rows}
    for writer in range(20):
        rng = python(world["seed"], "more writers", writer)
        for row in asked:
            if len(rows) >= count:
                return rows[:count]
            answer = respond(row, rng.choices(list(STYLES), list(STYLES.values()))[0], rng)
            messages = [*row["prompt"], {"role": "assistant", "content": answer}]
            if (writer or json.dumps(row["prompt"]) not in seen) and json.dumps(messages) not in said:
                said.add(json.dumps(messages))
                rows.append({"task": row["task"], "messages": messages})
    return rows[:count]


def demonstrations(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Right answers against the number of demonstrations."""
    counts = [20, 60] if options.quick else options.counts
    rows = more_demonstrations(options, max(counts))
    stages: dict[str, Row] = {}
    for count in counts:
        part = results.write(folder / f"{count}.jsonl", rows[:count])
        for start in ("pretrain", "untrained"):
            stages[f"{start}-{count}"] = {"kind": "sft", "model": str(options.run / start), "demonstrations": str(part),
                                          "epochs": 1 if options.quick else max(1.0, SHOWN / count), **FAST}
    artifacts = results.run(folder, "demonstrations", {**stages, "evaluate": examine(list(stages), options)})
    found = artifacts["evaluate"].summary["models"]
    return [{
        "demonstrations": f"{count:,}",
        "different prompts": len({json.dumps(row["messages"][:-1])
                                  for row in rows[:count]}), "passes": float(stages[f"pretrain-{count}"]["epochs"]),
        "pretrained": found[f"pretrain-{count}"]["right_answers"],
        "untrained": found[f"untrained-{count}"]["right_answers"],
        "seconds": artifacts[f"pretrain-{count}"].manifest["seconds"]
    } for count in counts]


def lora(folder: Path, options: argparse.Namespace) -> list[Row]:
    """LoRA of rank 8 against all weights, on the same rows; each in a process of its own, for its peak of memory. From
    the pretrained model, and from one that was taught to chat before, by demonstrations of the other tasks: an adapter
    does not change the embeddings, and pretraining has never seen the marks of a conversation."""
    import trivium
    rows = results.read(options.run / "world/demonstrations.jsonl")
    half = [row for row in rows if row["task"] in LATER], [row for row in rows if row["task"] not in LATER]
    later, earlier = (results.write(folder / f"{name}.jsonl", part[:60 if options.quick else None])
                      for name, part in zip(("later", "earlier"), half, strict=True))
    every = results.write(folder / "rows.jsonl", rows[:60 if options.quick else None])
    kinds: dict[str, Row] = {
        "all weights": FAST, "LoRA, all matrices": {
            **FAST, "adapter": {"rank": 8}, "optimization": {"learning_rate": 0.008, "schedule": "linear"}
        }, "LoRA, two matrices of seven": {
            **FAST, "adapter": {"rank": 8, "targets": ["o_proj", "down_proj"]},
            "optimization": {"learning_rate": 0.015, "schedule": "linear"}
        }
    }
    epochs = 1 if options.quick else 2
    stages: dict[str, Row] = {
        "before": {
            "kind": "sft", "model": str(options.run / "pretrain"), "demonstrations": str(earlier), "epochs": epochs,
            **FAST
        }
    }
    for place, settings in enumerate(kinds.values()):
        stages[f"raw-{place}"] = {
            "kind": "sft", "model": str(options.run / "pretrain"), "demonstrations": str(every), "epochs": epochs,
            **settings
        }
        stages[f"chat-{place}"] = {
            "kind": "sft", "model": "before", "demonstrations": str(later), "epochs": epochs, **settings
        }
    everything = {**stages, "evaluate": examine(list(stages), options)}
    path = results.recipe(folder, "lora", everything)
    for name in stages:
        subprocess.run([sys.executable, "-m", "trivium.cli.app", "run",
                        str(path), "--only", name], check=True, stdout=subprocess.DEVNULL)
    artifacts = results.run(folder, "lora", everything)
    found = artifacts["evaluate"].summary["models"]
    weights = sum(p.numel() for p in trivium.load(options.run / "pretrain").model.parameters())
    table: list[Row] = [{"from": "a model that chats", "trained": "nothing", **by_half(found["before"])}]
    for start, label in (("chat", "a model that chats"), ("raw", "the pretrained model")):
        for place, kind in enumerate(kinds):
            name = f"{start}-{place}"
            trained = artifacts[name].summary.get("trained_parameters", weights)
            table.append({
                "from": label, "trained": kind, **by_half(found[name]), "parameters": trained,
                "share of the weights": f"{trained / weights:.2%}", "seconds": artifacts[name].manifest["seconds"],
                "peak memory, MB": float(artifacts[name].manifest["peak_memory_mb"])
            })
    return table


def by_half(found: Row) -> Row:
    """Right answers in the tasks that are taught later and in the others, with 95 % intervals."""
    halves: Row = {}
    for name, chosen in (("later tasks right", True), ("earlier tasks right", False)):
        rates = [
            rate for task, rate in found["right_by_task"].items()
            if (task in LATER) == chosen and rate["value"] is not None
        ]
        count = sum(rate["n"] for rate in rates)
        value = sum(rate["n"] * rate["value"] for rate in rates) / count
        width = math.sqrt(sum((rate["n"] * (rate["high"] - rate["low"]) / 2) ** 2 for rate in rates)) / count
        halves[name] = {"value": value, "low": value - width, "high": value + width, "n": count}
    return halves


def tasks(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Five tasks one after another, and all at once: right answers to held-out questions of each when it was learned,
    and at the end."""
    order = TASKS[:2] if options.quick else TASKS
    rows = results.read(options.run / "world/demonstrations.jsonl")
    files = {
        task: results.write(folder / f"{task}.jsonl", [row for row in rows
                                                       if row["task"] == task][:20 if options.quick else 250])
        for task in order
    }
    together = results.write(folder / "together.jsonl", [row for file in files.values() for row in results.read(file)])
    ways: dict[str, Row] = {
        "none": {}, "rows": {"rehearsal": {"share": 0.3}},
        "generated": {"rehearsal": {"share": 0.3, "generated": True, "max_new_tokens": 48}, "prompt_loss": 0.25}
    }
    epochs = 1 if options.quick else 3
    stages: dict[str, Row] = {
        "at-once": {
            "kind": "sft", "model": str(options.run / "pretrain"), "demonstrations": str(together), "epochs": epochs,
            **FAST
        }
    }
    for way, more in ways.items():
        for i, task in enumerate(order):
            settings = {
                "kind": "sft", "model": f"{way}-{order[i - 1]}" if i else str(options.run / "pretrain"),
                "demonstrations": str(files[task]), "epochs": epochs, **FAST, **more
            }
            if way == "rows":
                settings["earlier"] = {old: str(files[old]) for old in order[:i]}
            if not i:
                settings.pop("rehearsal", None)
            stages[f"{way}-{task}"] = settings
    artifacts = results.run(folder, "tasks", {**stages, "evaluate": examine(list(stages), options)})
    found = artifacts["evaluate"].summary["models"]
    table: list[Row] = []
    for way in ways:
        for task in order:
            table.append({
                "rehearsal": way, "task": task, "when it was learned": found[f"{way}-{task}"]["right_by_task"][task],
                "after all five": found[f"{way}-{order[-1]}"]["right_by_task"][task],
                "learned at once": found["at-once"]["right_by_task"][task]
            })
    return table


def small_model(texts: list[str], folder: Path, vocab: int) -> dict[str, Row]:
    """Stages that train a tokenizer and a small model on texts."""
    results.write(folder / "texts.jsonl", [{"text": text} for text in texts])
    shape = {
        "hidden_size": 128, "intermediate_size": 352, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2,
        "head_dim": 32, "max_positions": 384
    }
    return {
        "corpus": {"documents": [str(folder / "texts.jsonl")], "settings": {"rules": []}},
        "tokenizer": {"vocab_size": vocab}, "tokens": {}, "pretrain": {
            "model": shape, "length": 384, "rows": 4, "epochs": 1, "optimization": {
                "optimizer": "muon", "learning_rate": 0.01, "matrix_learning_rate": 0.015, "newton_schulz": 3,
                "schedule": "linear"
            }
        }
    }


def waimai(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Chinese reviews of meals as instructions in four phrasings: right labels on 1,000 held-out reviews."""
    with open(options.data / "ChineseNlpCorpus/waimai_10k.csv", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["review"].strip()]
    random.Random(0).shuffle(rows)
    test, train = (rows[:40], rows[40:340]) if options.quick else (rows[:1000], rows[1000:])
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
    artifacts = results.run(
        folder, "waimai", {
            **stages, "imports": {
                "demonstrations": {"reviews": str(folder / "train.csv")}, "sources": {"reviews": source}
            }, "test": read_test, "sft": {
                "demonstrations": "imports", "length": 384, "rows": 8, "epochs": 2, "validation": 0.03,
                "too_long": "leave out", "optimization": {
                    "optimizer": "muon", "learning_rate": 0.004, "matrix_learning_rate": 0.006, "newton_schulz": 3,
                    "schedule": "linear"
                }
            }
        })
    return compare(artifacts, [row["review"] for row in train], [row["label"] for row in train],
                   [row["review"] for row in test], [row["label"] for row in test])


def gsm8k(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Grade-school sums: right final numbers on 500 held-out questions."""
    rows = results.read(options.data / "gsm8k/train.jsonl")
    random.Random(0).shuffle(rows)
    test, train = (rows[:20], rows[20:120]) if options.quick else (rows[:500], rows[500:500 + options.sums])
    results.write(folder / "train.jsonl", train)
    results.write(folder / "test.jsonl", test)
    stages = small_model([row["question"] + "\n" + row["answer"] for row in train], folder, 3000)
    artifacts = results.run(
        folder, "gsm8k", {
            **stages, "imports": {"demonstrations": {"sums": str(folder / "train.jsonl")}, "sources": {"sums": {}}},
            "test": {
                "kind": "imports", "demonstrations": {"sums": str(folder / "test.jsonl")}, "sources": {"sums": {}}
            }, "sft": {
                "demonstrations": "imports", "length": 384, "rows": 8, "epochs": 1, "validation": 0.03,
                "optimization": {
                    "optimizer": "muon", "learning_rate": 0.004, "matrix_learning_rate": 0.006, "newton_schulz": 3,
                    "schedule": "linear"
                }
            }
        })

    def number(row: dict[str, str]) -> str:
        return row["answer"].rpartition("#### ")[2].strip()

    return compare(artifacts, [row["question"] for row in train], [number(row) for row in train],
                   [row["question"] for row in test], [number(row) for row in test], final=True)


def compare(artifacts: dict[str, Any], train: list[str], labels: list[str], test: list[str], wanted: list[str],
            final: bool = False) -> list[Row]:
    """The model's right answers on the ``test`` stage's rows, and those of TF-IDF with logistic regression on the same
    texts. A question that is too long for the model counts as answered wrongly."""
    import trivium
    from trivium.intervals import mean_interval
    from trivium.stages.finetuning.rehearsal import answer_all
    from trivium.stages.models import prompt_ids
    loaded = trivium.load(artifacts["sft"].folder)
    rows = results.read(artifacts["test"].folder / "demonstrations.jsonl")
    prompts = [prompt_ids(loaded.tokenizer, row["messages"][:-1]).tolist() for row in rows]
    short = [i for i, prompt in enumerate(prompts) if len(prompt) < loaded.model.config.max_positions - 8]
    answers = dict(
        zip(short, answer_all(loaded.model, loaded.tokenizer, [prompts[i] for i in short], 0.0, 160 if final else 8, 0),
            strict=True))

    def same(said: str | None, right: str) -> float:
        if not final:
            return float((said or "").strip() == right)
        numbers = [re.findall(r"-?[\d,.]*\d", text or "") for text in (said, right)]
        return float(bool(numbers[0]) and numbers[0][-1] == numbers[1][-1])

    ours = mean_interval([same(answers.get(i), row["messages"][-1]["content"]) for i, row in enumerate(rows)])
    theirs = mean_interval([float(a == b) for a, b in zip(baseline(train, labels, test), wanted, strict=True)])
    summary, seconds = artifacts["sft"].summary, {
        name: artifact.manifest["seconds"]
        for name, artifact in artifacts.items()
    }
    return [{
        "judge": "our model", "right": ours, "seconds": float(sum(seconds.values())),
        "notes": f"too long: {len(rows) - len(short)} of {len(rows)}; held-out loss {summary['validation_loss']:.3f} "
                 f"at update {summary['best_step']} of "
        f"{summary['planned_steps']}"
    }, {"judge": "TF-IDF and logistic regression", "right": theirs}, {
        "judge": "always the commonest answer",
        "right": mean_interval([float(label == Counter(labels).most_common(1)[0][0]) for label in wanted])
    }]


def baseline(train: list[str], labels: list[str], test: list[str]) -> list[str]:
    """What TF-IDF of characters and their pairs with logistic regression says; of many labels, such as numbers, it
    knows the fifty commonest."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    known = {label for label, _ in Counter(labels).most_common(50)}
    pairs = [(text, label) for text, label in zip(train, labels, strict=True) if label in known]
    model = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, min_df=2),
                          LogisticRegression(C=4.0, max_iter=300))
    model.fit([text for text, _ in pairs], [label for _, label in pairs])
    return [str(label) for label in model.predict(test)]


def add(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark alone."""
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300, 1000, 3000, 10000],
                        help="numbers of demonstrations")
    parser.add_argument("--sums", type=int, default=4000, help="training questions of GSM8K")


if __name__ == "__main__":
    results.main("sft_results", __doc__ or "",
                 {part.__name__: part
                  for part in (demonstrations, lora, tasks, waimai, gsm8k)}, add)
