"""What reward models learn, measured: on people's comparisons, and in the embedded world, where the truth is known.

    python benchmarks/reward_results.py [--only real amount size width pairing two] [--run runs/quickstart]
    [--data FOLDER] [--model FOLDER] [--quick]

real     held-out accuracy on four sets of real comparisons, beside judging by length and the annotators' agreement
amount   the same against the number of rankings that were learned from
two      a model of helpfulness and one of harmlessness, each alone, combined as in Llama 2, and one model of both;
         shares runs with `real`
size     accuracy against the number of comparisons in the world, from the fine-tuned and from
         the pretrained model
width    rankings of K = 4 against K = 9 in the world, at equal prompts and at equal cost in the
         annotators' time
pairing  what is learned from the same rankings: all pairs, all pairs with a margin by rating, the
         ratings themselves, an ensemble; shares runs with `width`

`real` and `two` start from a small model that they train on instructions first, or from ``--model`` (such as
runs/real-small/sft, or a real model: then by its defaults, or with ``--rate`` and ``--rank``). The others start from a
finished quickstart (``--run``) and judge its held-out rankings.
Everything is a stage of a recipe: killed, it goes on where it was. Intervals are of 95 % and take the prompt as what
was drawn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results
from results import Row

HELDOUT = 0.25
"""Share of the prompts of real data that are judged and not learned from."""
CUT = 400
"""Characters of AlpacaEval's answers that are read, so that nine of them fit a row."""
SETS: dict[str, Row] = {
    "harmless": {"length": 512, "rows": 2}, "fine-grained": {"length": 768, "rows": 1},
    "pandalm": {"length": 512, "rows": 2}, "alpacaeval": {"length": 1280, "rows": 1}
}
"""The real sets and the rows that they are packed into: about a thousand tokens an update."""
SHAPE = {
    "hidden_size": 192, "intermediate_size": 512, "num_layers": 3, "num_heads": 6, "num_kv_heads": 6, "head_dim": 32,
    "max_positions": 1280
}
SAMPLES = 20
"""Responses drawn to a prompt in `width` and `pairing`; prompts with nine different ones among them are used."""
SCHEDULE = {"learning_rate": 0.0006, "schedule": "linear"}


# What is judged ------------------------------------------------------------------------------------------------------

def scores(model: Path, rows: Sequence[Row], length: int) -> list[list[float]]:
    """A reward model's centred scores of each row's responses."""
    from trivium.stages.models import load_reward_model
    from trivium.stages.preferences.rankings import ranked_tree
    from trivium.stages.scores import score_trees
    from trivium.training.machine import prepare, resolve_precision
    device = prepare()
    reward, tokenizer = load_reward_model(model)
    found = score_trees(reward.to(device), [ranked_tree(tokenizer, row) for row in rows], length, 4,
                        resolve_precision("auto", device))
    return [[float(score) + reward.shift for score in each] for each in found]


def that_fit(model: Path, rows: Sequence[Row], length: int) -> list[Row]:
    """The rows that a model with this folder's tokenizer can judge."""
    from trivium.stages.models import load_reward_model
    from trivium.stages.preferences.rankings import ranked_tree
    tokenizer = load_reward_model(model)[1]
    return [row for row in rows if len(ranked_tree(tokenizer, row)) <= length]


def by_length(rows: Sequence[Row], sign: float = 1.0) -> list[list[float]]:
    """Points for length, or for shortness."""
    return [[sign * len(text) for text in row["responses"]] for row in rows]


def sign_of_length(rows: Sequence[Row]) -> float:
    """Whether longer responses are better on these rows (1) or shorter ones (-1)."""
    return 1.0 if np.mean(right_pairs(rows, by_length(rows))[0]) >= 0.5 else -1.0


def right_pairs(rows: Sequence[Row], points: Sequence[Sequence[float]]) -> tuple[np.ndarray, list[str]]:
    """For every pair of every ranking whether points order it alike (equal points: half), and the prompt that it
    belongs to."""
    from trivium.stages.preferences.rankings import pairs_of
    right, prompts = [], []
    for row, values in zip(rows, points, strict=True):
        for better, worse in pairs_of(row["ranking"]):
            right.append((values[better] > values[worse]) + 0.5 * (values[better] == values[worse]))
            prompts.append(json.dumps(row["prompt"]))
    return np.array(right), prompts


def share(right: np.ndarray, prompts: Sequence[str]) -> Row:
    """The share of right pairs, its interval over prompts."""
    from trivium.evaluation.statistics import clustered
    from trivium.intervals import mean_interval
    sums, counts = clustered(right.tolist(), prompts)
    return mean_interval(sums.tolist(), counts.tolist())


def difference(one: np.ndarray, other: np.ndarray, prompts: Sequence[str]) -> Row:
    """How much larger the first share is on the same pairs."""
    from trivium.evaluation.statistics import bootstrap
    return bootstrap((one - other).tolist(), prompts) | {"difference": True}


def split(folder: Path, name: str) -> list[Row]:
    """The comparisons of an artifact that belong to a split."""
    return [row for row in results.read(folder / "comparisons.jsonl") if row["split"] == name]


# Real comparisons ----------------------------------------------------------------------------------------------------

def fine_grained(data: Path) -> Iterator[Row]:
    """Fine-grained RLHF (Wu et al. 2023): a person's six comparisons of four answers. Where these make an order with
    ties it is one ranking; where not, as when 1 equals 2 and 2 equals 3 but 1 beats 3, each preference is a row of its
    own. Passages are left out."""
    for row in json.loads((data / "FineGrainedRLHF/dev_feedback.json").read_text(encoding="utf-8")):
        answers = [row[f"prediction {i}"].strip() for i in range(1, 5)]
        said = {
            pair: {0: 0, 1: 1, 2: -1}[value]
            for pair, value in zip(itertools.combinations(range(4), 2), row["preference"], strict=True)
        }
        points = [sum(value * ((i == a) - (i == b)) for (a, b), value in said.items()) for i in range(4)]
        if all(np.sign(points[a] - points[b]) == value for (a, b), value in said.items()):
            groups = [[i for i in range(4) if points[i] == place] for place in sorted(set(points), reverse=True)]
            yield {"prompt": row["question"], "responses": answers, "ranking": groups}
        else:
            for (a, b), value in said.items():
                if value:
                    yield {
                        "prompt": row["question"], "responses": [answers[a], answers[b]],
                        "ranking": [[0], [1]] if value > 0 else [[1], [0]]
                    }


def pandalm(data: Path) -> Iterator[Row]:
    """PandaLM's test set (Wang et al. 2023): what most of three people prefer; ``votes`` has what each said (1, 2, or 0
    for neither)."""
    for row in json.loads((data / "PandaLM/testset-v1.json").read_text(encoding="utf-8")):
        votes = [int(row[f"annotator{i}"]) for i in (1, 2, 3)]
        lean = votes.count(1) - votes.count(2)
        yield {
            "prompt": "\n\n".join(filter(None, (row["instruction"], row["input"]))),
            "responses": [row["response1"], row["response2"]],
            "ranking": [[0], [1]] if lean > 0 else [[1], [0]] if lean < 0 else [[0, 1]], "votes": votes
        }


def alpacaeval(data: Path) -> Iterator[Row]:
    """AlpacaEval (Dubois et al. 2023): for each prompt the baseline's answer and those of eight models, drawn by the
    prompt. GPT-4 compared each of them with the baseline, so that a ranking has three groups: better than it, like it,
    worse than it."""
    answers: dict[str, dict[str, tuple[int, bool]]] = {}
    with tarfile.open(data / "alpaca_eval/alpaca_eval_gpt4-annotations.tar.gz") as archive:
        for member in sorted((m for m in archive if m.name.endswith("annotations.json")), key=lambda m: m.name):
            file = archive.extractfile(member)
            assert file is not None
            for row in json.load(file) if "falcon-7b" not in member.name else ():  # upstream a copy of falcon-40b
                found = answers.setdefault(row["instruction"],
                                           {row["output_1"].strip()[:CUT]: (0, len(row["output_1"].strip()) <= CUT)})
                if row["preference"] in (0, 1, 2):
                    found.setdefault(row["output_2"].strip()[:CUT],
                                     ({0: 0, 1: -1, 2: 1}[row["preference"]], len(row["output_2"].strip()) <= CUT))
    for prompt, found in answers.items():
        baseline, *others = (text for text in found if text)
        chosen = [baseline, *random.Random(prompt).sample(sorted(others), min(8, len(others)))]
        groups = [[i for i, text in enumerate(chosen) if found[text][0] == place] for place in (1, 0, -1)]
        yield {
            "prompt": prompt, "responses": chosen, "ranking": [group for group in groups if group],
            "finished": [found[text][1] for text in chosen]
        }


def agreement(rows: Sequence[Row]) -> Row:
    """How often two people who both prefer something prefer the same."""
    from trivium.feedback.agreement import pair_agreement
    from trivium.feedback.agreement import share as pooled
    order = {0: [[0, 1]], 1: [[0], [1]], 2: [[1], [0]]}
    counts = [
        np.sum([pair_agreement(order[a], order[b]) for a, b in itertools.combinations(row["votes"], 2)], 0).tolist()
        for row in rows
    ]
    return pooled([(same, both) for same, both in counts]).row()


def instructions(data: Path, count: int) -> list[Row]:
    """Alpaca's instructions with their answers, in an order of our own."""
    rows: list[Row] = []
    with tarfile.open(data / "alpaca-en/alpaca_data-english-chunks.tar.gz") as archive:
        for member in sorted((m for m in archive if m.name.endswith(".json")), key=lambda m: m.name):
            file = archive.extractfile(member)
            assert file is not None
            rows += json.load(file)
    rows = [row for row in rows if row["output"].strip()]
    random.Random(0).shuffle(rows)
    return rows[:count]


def real_stages(folder: Path, options: argparse.Namespace) -> dict[str, Row]:
    """All stages on real data; files that they read are written to ``folder``."""
    few = {"comparisons_limit": 60} if options.quick else {}
    stages: dict[str, Row] = {}
    base = str(options.model.absolute()) if options.model else "base"
    if not options.model:
        read, shown = (300, 60) if options.quick else (options.read, options.shown)
        rows = instructions(options.data, read + shown)
        results.write(folder / "texts.jsonl",
                      ({"text": "\n\n".join(filter(None, (row["instruction"], row["input"], row["output"])))}
                       for row in rows[:read]))
        results.write(folder / "shown.jsonl", rows[read:])
        fast = {
            "optimizer": "muon", "learning_rate": 0.004, "matrix_learning_rate": 0.02, "newton_schulz": 3,
            "schedule": "linear"
        }
        stages |= {
            "corpus": {
                "documents": [str(folder / "texts.jsonl")], "settings": {"rules": [], "language": {"enabled": False}}
            }, "tokenizer": {"vocab_size": 1000 if options.quick else 4096}, "tokens": {},
            "pretrain": {"model": SHAPE, "length": 512, "rows": 2, "optimization": fast},
            "shown": {"kind": "imports", "demonstrations": [str(folder / "shown.jsonl")]}, "base": {
                "kind": "sft", "model": "pretrain", "demonstrations": "shown", "epochs": 1, "length": 512, "rows": 2,
                "optimization": {"learning_rate": 0.001, "schedule": "linear"}
            }
        }
    files = {"harmless": options.data / "hh-rlhf/harmless-base/test.jsonl.gz"}
    for name, rows_of in (("fine-grained", fine_grained), ("pandalm", pandalm), ("alpacaeval", alpacaeval)):
        files[name] = results.write(folder / f"{name}.jsonl", rows_of(options.data))
    for name, packed in SETS.items():
        stages[name] = {"kind": "imports", "comparisons": [str(files[name])], "heldout": HELDOUT, **few}
        stages[f"reward-{name}"] = {"kind": "reward", "model": base, "preferences": name, **learning(packed, options)}
    stages["both"] = {
        "kind": "imports", "comparisons": [str(files["harmless"]), str(files["fine-grained"])], "heldout": HELDOUT,
        **few
    }
    stages["reward-both"] = {
        "kind": "reward", "model": base, "preferences": "both", **learning(SETS["fine-grained"], options)
    }
    return stages


def learning(packed: Row, options: argparse.Namespace) -> Row:
    """How a reward model learns from rows of such a length: the small model at a rate of its own, one that was given
    by the defaults for its size, in batches of about 4,096 tokens that are computed a quarter at a time."""
    if not options.model:
        return {"optimization": SCHEDULE, **packed}
    rows = max(1, 4096 // packed["length"])
    return {
        "length": packed["length"], "rows": rows, "parallel": {"rows": max(1, rows // 4)}, "save_dtype": "bf16",
        **({"optimization": {"learning_rate": options.rate}} if options.rate else {}),
        **({"adapter": {"rank": options.rank}} if options.rank else {})
    }


def real(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Held-out accuracy on people's (and GPT-4's) comparisons."""
    stages = real_stages(folder, options)
    artifacts = results.run(folder, "real", stages, [f"reward-{name}" for name in options.sets])
    agreed = agreement(list(pandalm(options.data)))
    table = []
    for name in options.sets:
        packed = SETS[name]
        model = artifacts[f"reward-{name}"]
        train, heldout = (split(artifacts[name].folder, each) for each in ("train", "heldout"))
        rows = that_fit(model.folder, heldout, packed["length"])
        right, prompts = right_pairs(rows, scores(model.folder, rows, packed["length"]))
        ratios = np.array([len(row["responses"][a]) / len(row["responses"][b]) for row in rows for a, b in _pairs(row)])
        shorter = share(right[ratios < 1], [prompt for prompt, ratio in zip(prompts, ratios, strict=True) if ratio < 1])
        length = share(*right_pairs(rows, by_length(rows, sign_of_length(train))))
        table.append({
            "comparisons": name, "training rankings": model.summary["rankings"],
            "held-out accuracy": share(right, prompts), "by length alone": length,
            "better response is the shorter": shorter, "annotators agree": agreed if name == "pandalm" else "–",
            "left out as too long": len(heldout) - len(rows), "seconds": model.manifest["seconds"]
        })
    return table


def amount(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Held-out accuracy against the number of rankings that were learned from, on the sets that are named."""
    stages = real_stages(folder, options)
    artifacts = dict(results.run(folder, "amount", stages, options.sets))
    parts: dict[str, tuple[str, int]] = {}
    for name in options.sets:
        train = split(artifacts[name].folder, "train")
        random.Random(1).shuffle(train)
        for count in [20, 40] if options.quick else options.amounts:
            if count <= len(train):
                part = results.write(folder / f"{name}-{count}.jsonl", train[:count])
                stages[f"{name}-{count}"] = stages[f"reward-{name}"] | {"preferences": str(part)}
                parts[f"{name}-{count}"] = name, count
    artifacts |= results.run(folder, "amount", stages, parts)
    table = []
    for stage, (name, count) in parts.items():
        model = artifacts[stage].folder
        rows = that_fit(model, split(artifacts[name].folder, "heldout"), SETS[name]["length"])
        table.append({"comparisons": name, "training rankings": count,
                      "held-out accuracy": share(*right_pairs(rows, scores(model, rows, SETS[name]["length"]))),
                      "seconds": artifacts[stage].manifest["seconds"]})
    return table


def _pairs(row: Row) -> list[tuple[int, int]]:
    from trivium.stages.preferences.rankings import pairs_of
    return pairs_of(row["ranking"])


def two(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Helpfulness (fine-grained RLHF) and safety (harmlessness) apart, together, and combined."""
    from trivium.objectives.policy import combined_scores
    folder = folder.parent / "real"
    folder.mkdir(exist_ok=True)
    artifacts = results.run(folder, "real", real_stages(folder, options),
                            ["reward-fine-grained", "reward-harmless", "reward-both"])
    length = max(SETS[name]["length"] for name in ("fine-grained", "harmless"))
    models = {name: artifacts[f"reward-{name}"].folder for name in ("fine-grained", "harmless", "both")}
    sets = {
        name: that_fit(models["both"], split(artifacts[name].folder, "heldout"), length)
        for name in ("fine-grained", "harmless")
    }
    rows = [row for each in sets.values() for row in each]
    about = [np.array(name == "harmless") for name, each in sets.items() for _ in each]
    helpful, safe, one = (scores(model, rows, length) for model in models.values())

    def combined(known: bool, threshold: float = 0.15) -> list[list[float]]:
        return [
            combined_scores(np.array(h), np.array(s), a & known, threshold).tolist()
            for h, s, a in zip(helpful, safe, about, strict=True)
        ]

    table = []
    for name, points in (("helpfulness model", helpful), ("safety model", safe), ("one model of both sets", one),
                         ("combined, safety prompts known",
                          combined(True)), ("combined, by the threshold of 0.15 alone", combined(False)),
                         ("combined, by a threshold of 0.5 alone", combined(False, 0.5))):
        right, prompts = right_pairs(rows, points)
        ofs = {prompt: bool(a) for row, a in zip(rows, about, strict=True) for prompt in [json.dumps(row["prompt"])]}
        marked = np.array([ofs[prompt] for prompt in prompts])
        columns = {
            column: share(right[chosen], [p for p, c in zip(prompts, chosen, strict=True) if c])
            for column, chosen in (("helpfulness", ~marked), ("harmlessness", marked), ("all pairs",
                                                                                        np.ones_like(marked)))
        }
        taken = Counter(mine == theirs for each, other in zip(points, safe, strict=True)
                        for mine, theirs in zip(each, other, strict=True))
        table.append({
            "judge": name, **columns, "scores from the safety model": f"{taken[True] / taken.total():.1%}"
            if "combined" in name else "–"
        })
    return table


# The embedded world --------------------------------------------------------------------------------------------------

def of_the_run(options: argparse.Namespace) -> tuple[list[Row], list[Row], Row, Row]:
    """The training prompts and the held-out rankings of a quickstart, and its settings of the stages `preferences` and
    `reward`."""
    run = options.run
    manifests = {name: json.loads((run / name / "manifest.json").read_text()) for name in ("preferences", "reward")}
    heldout = split(run / "preferences", "heldout")
    judged = {row["id"] for row in heldout}
    prompts = [row for row in results.read(run / "world/prompts.jsonl") if row["id"] not in judged]
    asked, rewarded = ({
        key: value
        for key, value in manifests[name]["settings"].items()
        if key not in ("model", "prompts", "preferences", "skip", "count")
    } for name in ("preferences", "reward"))
    return prompts, heldout[:60 if options.quick else None], asked, rewarded | {"demonstrations": str(run / "world")}


def size(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Accuracy against the number of comparisons (pairs). Prompts are those that the run asks for preferences, and
    those of its demonstrations without the answers, mixed; each is ranked once."""
    from trivium.world.tasks import rows_for
    from trivium.world.town import Town
    prompts, heldout, asked, rewarded = of_the_run(options)
    world = json.loads((options.run / "world/manifest.json").read_text())
    given = world["settings"]["size"]
    town = Town(world["seed"], given["animals"], given["foods"], given["people"], given["places"])
    prompts += rows_for(town, world["seed"], given["demonstrations"], "demonstration")
    random.Random(0).shuffle(prompts)
    counts = [50, 200] if options.quick else options.counts
    pool = results.write(folder / "prompts.jsonl", prompts[:60 if options.quick else None])
    stages: dict[str, Row] = {
        "pool": {
            "kind": "preferences", "model": str(options.run / "sft"), "prompts": str(pool), "count": len(prompts),
            **asked
        }
    }
    ranked = results.read(results.run(folder, "size", stages, seed=world["seed"])["pool"].folder / "comparisons.jsonl")
    random.Random(1).shuffle(ranked)
    sizes = {count: chosen for count in counts if (chosen := with_pairs(ranked, count))}
    starts = {"sft": "from the fine-tuned model", "pretrain": "from the pretrained model"}
    for count, chosen in sizes.items():
        file = results.write(folder / f"{count}.jsonl", ({**row, "split": "train"} for row in chosen))
        for start in starts:
            stages[f"{start}-{count}"] = {
                "kind": "reward", "model": str(options.run / start), "preferences": str(file), **rewarded
            }
    artifacts = results.run(folder, "size", stages, seed=world["seed"])
    table: list[Row] = []
    for count, chosen in sizes.items():
        found = {
            column: share(
                *right_pairs(heldout, scores(artifacts[f"{start}-{count}"].folder, heldout, rewarded["length"])))
            for start, column in starts.items()
        }
        table.append({
            "comparisons": f"{count:,}", "prompts": len(chosen),
            **found, "seconds": artifacts[f"sft-{count}"].manifest["seconds"]
        })
    for name, points in (("by length alone", by_length(heldout, sign_of_length(ranked))), ("a noiseless judge",
                                                                                           truths(heldout))):
        table.append({"comparisons": name, starts["sft"]: share(*right_pairs(heldout, points))})
    for count in set(counts) - set(sizes):
        table.append({
            "comparisons": f"{count:,}",
            "prompts": f"not reached: {len(ranked)} rankings have {sum(len(_pairs(row)) for row in ranked):,} pairs"
        })
    return table


def truths(rows: Sequence[Row]) -> list[list[float]]:
    """What the hidden rubric says."""
    from trivium.stages.preferences.reward_statistics import true_points
    return [true_points(row) for row in rows]


def with_pairs(rows: Sequence[Row], count: int) -> list[Row]:
    """The first rows that have ``count`` pairs together; none where all have fewer."""
    reached = np.cumsum([len(_pairs(row)) for row in rows])
    return list(rows[:int(np.searchsorted(reached, count)) + 1]) if len(reached) and reached[-1] >= count else []


def rankings(folder: Path, options: argparse.Namespace,
             variants: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[Row]], list[Row], Row]:
    """Nine different responses to each training prompt, and reward models of each variant; ``(artifacts, training rows,
    held-out rows, settings)``."""
    from trivium.world.panel import Panel
    prompts, heldout, asked, rewarded = of_the_run(options)
    seed = json.loads((options.run / "preferences/manifest.json").read_text())["seed"]
    pool = results.write(folder / "prompts.jsonl", prompts[:40 if options.quick else None])
    stages: dict[str, Row] = {
        "pool": {
            "kind": "preferences", "model": str(options.run / "sft"), "prompts": str(pool), "count": len(prompts),
            **asked | {"fewest": SAMPLES, "most": SAMPLES}
        }
    }
    ranked = results.read(results.run(folder, "rankings", stages, seed=seed)["pool"].folder / "comparisons.jsonl")
    ranked = [row for row in ranked if len(row["responses"]) >= 9]
    random.Random(0).shuffle(ranked)
    panel = Panel(seed, asked["annotators"], asked["noise"])
    four, nine = ([{
        **row, "split": "train", **{key: row[key][:count]
                                    for key in ("responses", "finished")},
        **panel.rank(row, row["responses"][:count], row["annotator"])
    } for row in ranked] for count in (4, 9))
    time = sum(row["seconds"] for row in four)
    spent = np.cumsum([row["seconds"] for row in nine])
    equal = nine[:int(np.searchsorted(spent, time)) + 1]  # as many nines as all fours take time
    kept = {"K = 9": equal, "K = 4, the same prompts": four[:len(equal)], "K = 4, the same time": four}
    data = {name: [row for row in kept.get(name, equal) if _pairs(row)] for name in variants}
    more: dict[str, Row] = {"margin": {"margin": options.margin}, "regression on ratings": {"loss": "regression"}}
    for name, rows in data.items():
        file = results.write(folder / f"{slug(name)}.jsonl", rows)
        for member in range(members(options)):
            stages[f"{slug(name)}-{member}"] = {
                "kind": "reward", "model": str(options.run / "sft"), "preferences": str(file),
                **rewarded | more.get(name, {}) | {"member": member}
            }
    return results.run(folder, "rankings", stages, seed=seed), data, heldout, rewarded


def members(options: argparse.Namespace) -> int:
    """Heads, and orders of the rankings, over which the figures of `width` and `pairing` are averaged."""
    return 1 if options.quick else options.members


def slug(name: str) -> str:
    """A variant's name as that of a stage."""
    return name.lower().replace(" = ", "").replace(",", "").replace(" ", "-")


def compared(folder: Path, options: argparse.Namespace, variants: Sequence[str], ensemble: bool) -> list[Row]:
    """A table of variants, each beside the first on the same held-out pairs; a figure is the mean over the members."""
    artifacts, data, heldout, rewarded = rankings(folder.parent / "rankings", options, variants)
    table: list[Row] = []
    first: np.ndarray | None = None
    for name in variants:
        points = [
            scores(artifacts[f"{slug(name)}-{member}"].folder, heldout, rewarded["length"])
            for member in range(members(options))
        ]
        judged = {name: points}
        if ensemble and name == variants[0]:
            deviations = [np.std(np.concatenate(each)) for each in points]
            judged[f"ensemble of {len(points)}"] = [[
                (sum(np.array(s) / d for s, d in zip(row, deviations, strict=True))).tolist()
                for row in zip(*points, strict=True)
            ]]
        for label, judges in judged.items():
            found = [right_pairs(heldout, each) for each in judges]
            right, prompts = np.mean([each for each, _ in found], 0), found[0][1]
            first = right if first is None else first
            rows = data[name]
            table.append({
                "learned from": label, "prompts": len(rows), "responses": sum(len(row["responses"]) for row in rows),
                "pairs": sum(len(_pairs(row)) for row in rows),
                "annotators' hours": sum(row["seconds"] for row in rows) / 3600, "held-out accuracy": share(
                    right, prompts), f"against {variants[0]}": difference(right, first, prompts) if table else "–",
                "members": ", ".join(f"{np.mean(each):.1%}" for each, _ in found)
            })
    return table


def width(folder: Path, options: argparse.Namespace) -> list[Row]:
    """K = 9 against K = 4."""
    return compared(folder, options, ["K = 9", "K = 4, the same prompts", "K = 4, the same time"], ensemble=False)


def pairing(folder: Path, options: argparse.Namespace) -> list[Row]:
    """What is learned from rankings of nine."""
    return compared(folder, options, ["K = 9", "margin", "regression on ratings"], ensemble=True)


def add(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark alone."""
    parser.add_argument("--model", type=Path, default=None,
                        help="a chat model to start from on real data; by default a small one is trained first")
    parser.add_argument("--rate", type=float, default=None, help="the learning rate of --model, instead of its default")
    parser.add_argument("--rank", type=int, default=None, help="give --model a LoRA adapter of this rank to learn with")
    parser.add_argument("--sets", nargs="+", default=[*SETS], choices=[*SETS], help="the sets of `real`")
    parser.add_argument("--amounts", type=int, nargs="+", default=[100, 400, 1600],
                        help="numbers of rankings for `amount`")
    parser.add_argument("--read", type=int, default=4000,
                        help="instructions with answers that the small model reads as text")
    parser.add_argument("--shown", type=int, default=1500, help="... and that it is fine-tuned on after that")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 1000, 4000, 16000, 64000],
                        help="numbers of comparisons for `size`")
    parser.add_argument("--members", type=int, default=3,
                        help="heads and orders of the rankings, over which `width` and `pairing` average")
    parser.add_argument("--margin", type=float, default=0.1, help="margin for each point of rating, in `pairing`")


if __name__ == "__main__":
    results.main("reward_results", __doc__ or "",
                 {"real": real, "amount": amount, "two": two, "size": size, "width": width, "pairing": pairing}, add)
