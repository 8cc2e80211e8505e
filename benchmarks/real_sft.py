"""Fine-tuning a real model, measured: how many rows it takes, LoRA against all weights, and going on in Chinese.

    python benchmarks/real_sft.py --model models/smollm2-135m-instruct [--only rows lora after chinese] [--quick]

rows     the held-out loss of Alpaca's answers, and of Chinese ones, after 100, 300, 1,000 and 5,000 rows (Zhou et al.
         2023 say that few are enough), and how many answers are in the language of the question
lora     LoRA of rank 1 to 64 against all weights, the learning rate searched for each, on the same rows (Hu et al.
         2021; Schulman et al. 2025)
after    what the best of both forgot: tasks of ``--tasks`` before and after
chinese  continued pretraining on Chinese novels, alone and with a share of English: bits per byte of held-out text of
         both languages

Everything is a stage of a recipe: killed, it goes on where it was. Losses are nats a token of the answers, their
intervals over rows; differences are of the same rows.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import results
from results import Row

RATES = {"all weights": [1e-5, 3e-5, 1e-4, 3e-4], "LoRA": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]}
RANKS = [1, 4, 16, 64]
HELDOUT = 300


def alpaca(data: Path, chinese: bool) -> list[Row]:
    """Alpaca's rows, or those of its translation, in an order of our own; empty answers are left out."""
    rows: list[Row] = []
    if chinese:
        for path in sorted((data / "alpaca-zh-hikariming").rglob("*.json")):
            try:
                rows += [row for row in json.loads(path.read_text(encoding="utf-8")) if isinstance(row, dict)]
            except ValueError as error:  # one of the seven is no JSON
                print(f"{path.name} is left out: {error}", file=sys.stderr)
    else:
        with tarfile.open(data / "alpaca-en/alpaca_data-english-chunks.tar.gz") as archive:
            for member in sorted((m for m in archive if m.name.endswith(".json")), key=lambda m: m.name):
                file = archive.extractfile(member)
                assert file is not None
                rows += json.load(io.TextIOWrapper(file, "utf-8"))
    found = [{"messages": [
        {"role": "user", "content": "\n\n".join(filter(None, (row["instruction"], row.get("input"))))},
        {"role": "assistant", "content": row["output"]}]}
        for row in rows if row.get("instruction") and str(row.get("output") or "").strip()]
    random.Random(0).shuffle(found)
    return found


def losses(model: Path, rows: Sequence[Row], length: int = 2048) -> tuple[list[float], list[int]]:
    """Of each row the sum of the answer's losses and its tokens."""
    from trivium.objectives.language_modeling import token_log_probs
    from trivium.stages.finetuning.sft import conversation
    from trivium.stages.models import load_language_model
    from trivium.training.batch import Batch, hidden_states, map_trees
    from trivium.training.machine import autocast, prepare, resolve_precision
    device = prepare()
    loaded, tokenizer = load_language_model(model)
    loaded = loaded.to(device).eval()
    trees = [conversation(tokenizer, row["messages"]) for row in rows]

    def compute(batch: Batch) -> Any:
        with autocast(resolve_precision("auto", device), device):
            hidden = hidden_states(loaded.model, batch)[batch.sources]
            return token_log_probs(hidden, loaded.lm_head.weight, batch.targets)

    values = map_trees(compute, trees, length, 2, device, True)
    return [-float(value.sum()) for value in values], [len(value) for value in values]


def mean(sums: Sequence[float], counts: Sequence[int], before: Sequence[float] | None = None) -> str:
    """Nats a token, or how many more than ``before``, with the interval over rows."""
    import numpy as np
    values = np.array(sums) - (0 if before is None else np.array(before))
    tokens = np.array(counts)
    ratio = values.sum() / tokens.sum()
    spread = 1.96 * np.sqrt(((values - ratio * tokens) ** 2).sum() * len(values) / (len(values) - 1)) / tokens.sum()
    sign = "" if before is None else "+"
    return f"{ratio:{sign}.3f} [{ratio - spread:{sign}.3f}, {ratio + spread:{sign}.3f}]"


def tuned(options: argparse.Namespace, file: Path, **settings: Any) -> Row:
    """A stage of fine-tuning."""
    return {"kind": "sft", "model": str(options.model), "demonstrations": str(file), "too_long": "cut", "length": 1024,
            "epochs": 1 if options.quick else 2, **settings}


def in_chinese(text: str) -> bool:
    """Whether most of a text's letters are Chinese."""
    letters = [sign for sign in text if sign.isalpha()]
    return sum("\u4e00" <= sign <= "\u9fff" for sign in letters) > len(letters) / 2


def answered(model: Path, rows: Sequence[Row], chinese: bool) -> Row:
    """The share of greedy answers in the language of the question."""
    from trivium.generation.engine import Sampling, generate
    from trivium.intervals import mean_interval
    from trivium.stages.models import load_language_model, prompt_ids
    from trivium.training.machine import autocast, prepare, resolve_precision
    device = prepare()
    loaded, tokenizer = load_language_model(model)
    prompts = [prompt_ids(tokenizer, row["messages"][:1]).tolist() for row in rows]
    with autocast(resolve_precision("auto", device), device):
        said = generate(loaded.to(device).eval(), prompts, Sampling(temperature=0.0, max_new_tokens=48),
                        [tokenizer.end_id])
    return mean_interval([float(in_chinese(tokenizer.decode(each.tokens)) == chinese) for (each, ) in said])


def rows(folder: Path, options: argparse.Namespace) -> list[Row]:
    """The held-out loss against the number of rows."""
    counts = [20, 40] if options.quick else options.counts
    table: list[Row] = []
    for language in ("English", "Chinese"):
        found = alpaca(options.data, language == "Chinese")
        heldout, train = found[:20 if options.quick else HELDOUT], found[HELDOUT:]
        stages = {f"{language.lower()}-{count}": tuned(options, results.write(
            folder / f"{language}-{count}.jsonl", train[:count])) for count in counts}
        artifacts = results.run(folder, f"rows-{language.lower()}", stages)
        before, tokens = losses(options.model, heldout)
        table.append({"rows": f"{language}: none", "held-out loss": mean(before, tokens), "change": "–", "seconds": "–",
                      "answers in its language": answered(options.model, heldout[:100], language == "Chinese")})
        for name, artifact in artifacts.items():
            after, _ = losses(artifact.folder, heldout)
            table.append({"rows": f"{language}: {name.rpartition('-')[2]}", "held-out loss": mean(after, tokens),
                          "change": mean(after, tokens, before), "seconds": artifact.manifest["seconds"],
                          "answers in its language": answered(artifact.folder, heldout[:100], language == "Chinese")})
    return table


def searched(options: argparse.Namespace, file: Path) -> dict[str, Row]:
    """Stages by name: every kind of training at every rate."""
    kinds: dict[str, Row] = {"all weights": {}} | {f"LoRA, rank {rank}": {"adapter": {"rank": rank}} for rank in RANKS}
    if options.quick:
        kinds = {name: kinds[name] for name in ("all weights", "LoRA, rank 4")}
    return {f"{kind.replace(', rank ', '-').replace(' ', '-').lower()}-{rate:g}":
            tuned(options, file, optimization={"learning_rate": rate}, **settings)
            for kind, settings in kinds.items() for rate in RATES[kind.partition(",")[0]][-2 if options.quick else 0:]}


def lora(folder: Path, options: argparse.Namespace) -> list[Row]:
    """LoRA against all weights: the held-out loss at each rate, beside the best of all weights."""
    import trivium
    found = alpaca(options.data, False)
    heldout, count = found[:20 if options.quick else HELDOUT], 40 if options.quick else options.lora_rows
    stages = searched(options, results.write(folder / "rows.jsonl", found[HELDOUT:HELDOUT + count]))
    artifacts = results.run(folder, "lora", stages)
    tokens = losses(options.model, heldout)[1]
    sums = {name: losses(artifact.folder, heldout)[0] for name, artifact in artifacts.items()}
    best = min((name for name in sums if name.startswith("all")), key=lambda name: sum(sums[name]))
    chosen = min((name for name in sums if name.startswith("lora")), key=lambda name: sum(sums[name]))
    results.write(folder / "best.jsonl", [{"all weights": str(artifacts[best].folder),
                                           "LoRA": str(artifacts[chosen].folder)}])
    weights = sum(parameter.numel() for parameter in trivium.load(options.model).model.parameters())
    return [{"trained": name,
             "share of the weights": f"{artifact.summary.get('trained_parameters', weights) / weights:.2%}",
             "held-out loss": mean(sums[name], tokens), "more than the best of all weights":
             "–" if name == best else mean(sums[name], tokens, sums[best]), "seconds": artifact.manifest["seconds"],
             "peak memory, MB": float(artifact.manifest["peak_memory_mb"])} for name, artifact in artifacts.items()]


def after(folder: Path, options: argparse.Namespace) -> list[Row]:
    """What fine-tuning cost: tasks that it did not teach."""
    from trivium.evaluation.run import run_tasks
    (best, ) = results.read(folder.parent / "lora/best.jsonl")
    models = {"before": options.model, **{name: Path(place) for name, place in best.items()}}
    most = folder.parent / f"rows/rows-english/english-{max(options.counts)}"
    if most.is_dir():
        models[f"all weights, {max(options.counts):,} rows"] = most
    tasks = []
    for name in options.tasks:
        text = (common.HERE.parent / f"recipes/tasks/{name}.yaml").read_text(encoding="utf-8")
        tasks.append(folder / f"{name}.yaml")
        tasks[-1].write_text(text.replace("../shared/data", str(options.data.resolve())), encoding="utf-8")
    found = run_tasks(list(models.values()), tasks, precision="auto",
                      overrides=["limit=10"] if options.quick else [])
    return [{"model": name} | {f"{task}, {figure.replace('_', ' ')}": value
                               for task, figures in found[str(place)].items() for figure, value in figures.items()
                               if figure in ("accuracy", "accuracy_per_character", "prompt_strict") and isinstance(
                                   value, dict)} for name, place in models.items()]


def chinese(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Bits per byte of both languages before and after pretraining goes on."""
    from trivium.evaluation.run import run_tasks
    texts = novels(options.data)
    held = texts[:3] if options.quick else texts[:40]
    learned = texts[40:200 if options.quick else 40 + options.chapters if options.chapters else None]
    english = posts(options.data)
    heldout = {"Chinese": held, "English": english[:5] if options.quick else english[:100]}
    tasks = []
    for language, parts in heldout.items():
        results.write(folder / f"{language}.jsonl", ({"text": part} for part in parts))
        tasks.append(folder / f"{language}.yaml")
        tasks[-1].write_text(f"kind: bits\nabout: Held-out {language} text.\ndata: {folder / f'{language}.jsonl'}\n",
                             encoding="utf-8")
    clean: Row = {"rules": [], "language": {"enabled": False}}
    sources = {"chinese": results.write(folder / "learned.jsonl", ({"text": part} for part in learned)),
               "english": results.write(folder / "more.jsonl", ({"text": part} for part in english[100:]))}
    stages: dict[str, Row] = {}
    for name, chosen in (("alone", ["chinese"]), ("mixed", ["chinese", "english"])):
        stages |= {
            f"corpus-{name}": {"kind": "corpus", "documents": [str(sources[one]) for one in chosen],
                               "settings": clean},
            f"tokens-{name}": {"kind": "tokens", "corpus": f"corpus-{name}", "tokenizer": str(options.model)}}
        for rate in ([1e-4] if options.quick else options.rates):
            stages[f"{name}-{rate:g}"] = {
                "kind": "pretrain", "from": str(options.model), "tokens": f"tokens-{name}", "length": 1024, "rows": 16,
                "optimization": {"learning_rate": rate}, **({"steps": 3} if options.quick else {"epochs": 1})}
    artifacts = results.run(folder, "chinese", stages)
    models = {"before": options.model} | {name: artifact.folder for name, artifact in artifacts.items()
                                          if name.partition("-")[0] in ("alone", "mixed")}
    found = run_tasks(list(models.values()), tasks, precision="auto")
    return [{"model": name} | {f"{language}, bits a byte": found[str(place)][language]["bits_per_byte"]
                               for language in heldout} for name, place in models.items()]


def novels(data: Path) -> list[str]:
    """Chapters of Chinese classical novels."""
    found = []
    with tarfile.open(data / "chinese-text/chinese-classic-novels.tar.gz") as archive:
        for member in sorted((m for m in archive if m.isfile() and m.name.endswith(".txt")), key=lambda m: m.name):
            file = archive.extractfile(member)
            assert file is not None
            found.append(file.read().decode("utf-8"))
    random.Random(0).shuffle(found)
    return [text for text in found if len(text) > 500]


def posts(data: Path) -> list[str]:
    """English posts."""
    found = []
    with tarfile.open(data / "english-docs/digitalgov.tar.gz") as archive:
        for member in sorted((m for m in archive if m.isfile() and m.name.endswith(".md")), key=lambda m: m.name):
            file = archive.extractfile(member)
            assert file is not None
            found.append(file.read().decode("utf-8", "replace").rpartition("\n---\n")[2].strip())
    random.Random(0).shuffle(found)
    return [text for text in found if len(text) > 500]


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--model", type=lambda text: Path(text).absolute(), required=True, help="the model's folder")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300, 1000, 5000])
    parser.add_argument("--lora-rows", type=int, default=1000)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--chapters", type=int, default=None, help="the most that `chinese` learns from")
    parser.add_argument("--tasks", nargs="+", default=["arc_easy", "piqa", "ifeval"])


if __name__ == "__main__":
    results.main("real_sft", __doc__ or "", {"rows": rows, "lora": lora, "after": after, "chinese": chinese}, add)
