"""Ways to learn from feedback in the embedded world, over several seeds: win rates against SFT, KL, what is kept of
pretraining.

    python benchmarks/rlhf_results.py [--seeds 0 1 2] [--run runs/quickstart] [--out runs/rlhf-results] [--quick] [--set
    ppo.iterations=12]

Runs recipes/rlhf.yaml once for each seed, from the SFT model and the reward model of a finished quickstart, into
``--out``/seed-N. What is finished is found again: the same command goes on. ``--quick`` makes everything tiny, to see
that it runs; its figures mean nothing. Prints tables, and as its last line one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

METHODS = {
    "sft-best-of-4": "best of 4", "sft-best-of-16": "best of 16", "ppo": "PPO", "ppo-ptx": "PPO-ptx",
    "grpo": "GRPO (rubric)", "dpo": "DPO", "ipo": "IPO", "kto": "KTO", "ai-dpo": "DPO on AI feedback",
    "rounds-1-dpo": "one round", "rounds-6-dpo": "six rounds"
}
QUICK = [
    "ppo.iterations=2", "ppo.episodes=16", "ppo-ptx.iterations=2", "ppo-ptx.episodes=16", "grpo.iterations=2",
    "grpo.episodes=4", *(f"{stage}.epochs=0.05" for stage in ("dpo", "ipo", "kto", "ai-dpo")), "ai-feedback.count=16",
    "self-judged.count=4", "rounds.stages.collect.count=12", "rounds.stages.select.count=12",
    "rounds.stages.select.samples=2", "evaluate.limit=24"
]
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""The 97.5 % quantile of Student's t for so many seeds."""


def interval(by_seed: Sequence[Sequence[float]]) -> dict[str, float]:
    """The mean over seeds and prompts of ``by_seed [seeds][prompts]`` with a 95 % interval that counts both: Student's
    over the seeds' means, and the normal one over the prompts' means, their widths added in squares. All seeds have the
    same prompts, so neither alone says how far another run would be."""
    seeds, prompts = len(by_seed), len(by_seed[0])
    means = [math.fsum(row) / prompts for row in by_seed]
    value = math.fsum(means) / seeds
    by_prompt = [math.fsum(column) / seeds for column in zip(*by_seed, strict=True)]
    width = 1.96**2 * math.fsum((x - value) ** 2 for x in by_prompt) / (prompts - 1) / prompts
    if seeds > 1:
        width += STUDENT.get(seeds, 2.3) ** 2 * math.fsum((x - value) ** 2 for x in means) / (seeds - 1) / seeds
    return {"value": value, "low": value - math.sqrt(width), "high": value + math.sqrt(width)}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of JSONL."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shown(rate: dict[str, float], places: int = 1) -> str:
    """A rate with its interval, in percent."""
    return f"{rate['value'] * 100:.{places}f} [{rate['low'] * 100:.{places}f}, {rate['high'] * 100:.{places}f}]"


def wins_over(answers: Sequence[dict[str, Any]], name: str, other: str) -> list[float]:
    """For each prompt whether ``name`` has more points than ``other``; ties half."""
    return [
        float((row["points"][name] > row["points"][other]) + 0.5 * (row["points"][name] == row["points"][other]))
        for row in answers
    ]


def win_rates(seeds: list[int], runs: list[dict[str, Any]], answers: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Wins against SFT, with KL, points and right answers."""
    found: dict[str, Any] = {}
    print(f"\nwins against SFT by the rubric, % [95 %]; {len(answers[0])} prompts a seed")
    print(f"{'method':20}" + "".join(f"{f'seed {seed}':>22}"
                                     for seed in seeds) + f"{'over seeds':>22}  {'KL':>6}  {'points':>7}  {'right':>6}")
    start = [run["models"]["sft"] for run in runs]
    print(f"{'SFT':20}" + " " * 22 * (len(seeds) + 1) +
          f"  {0:6.2f}  {mean(start, 'mean_points'):7.2f}  {mean(start, 'right_answers') * 100:6.1f}")
    for name, label in METHODS.items():
        models = [run["models"][name] for run in runs]
        over = interval([wins_over(rows, name, "sft") for rows in answers])
        kl, points = mean(models, "kl"), mean(models, "mean_points")
        right = mean(models, "right_answers") if "right_answers" in models[0] else None
        found[name] = {
            "by_seed": [model["win_rate_vs_sft"] for model in models], "over_seeds": over, "kl": kl, "points": points,
            "right_answers": right
        }
        print(f"{label:20}" + "".join(f"{shown(model['win_rate_vs_sft']):>22}"
                                      for model in models) + f"{shown(over):>22}  {kl:6.2f}  {points:7.2f}  " +
              (f"{right * 100:6.1f}" if right is not None else f"{'':6}"))
    rounds = interval([wins_over(rows, "rounds-6-dpo", "rounds-1-dpo") for rows in answers])
    print(f"six rounds against one: {shown(rounds)}")
    return found | {"six rounds against one": rounds}


def mean(models: Sequence[dict[str, Any]], key: str) -> float:
    """A figure's mean over seeds."""
    values = [model[key]["value"] if isinstance(model[key], dict) else model[key] for model in models]
    return math.fsum(values) / len(values)


def at_equal_kl(out: Path, seeds: list[int], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a nat of KL buys: the rubric's points gained, of best-of-N at its analytic KL, and of the iteration of PPO,
    PPO-ptx and GRPO whose KL is nearest to that; then at the KL that DPO, IPO and KTO ended with. An iteration's points
    are those of its own rollout's prompts, minus those of the first rollout."""
    logs = {
        name: [rows_of(out / f"seed-{seed}" / name / "log.jsonl") for seed in seeds]
        for name in ("ppo", "ppo-ptx", "grpo")
    }
    start = mean([run["models"]["sft"] for run in runs], "mean_points")
    found = []
    print(f"\nthe rubric's points gained, at about equal KL (nats a response)\n{'method':20}{'KL':>8}{'gain':>8}   " +
          "".join(f"{METHODS[name] + ' nearest: KL, gain':>34}" for name in logs))
    for name in ("sft-best-of-4", "sft-best-of-16", "dpo", "ipo", "kto"):
        models = [run["models"][name] for run in runs]
        kl = mean(models, "kl")
        row: dict[str, Any] = {"method": METHODS[name], "kl": kl, "gain": mean(models, "mean_points") - start}
        for other, each in logs.items():
            nearest = [
                min((line for line in lines if "gold" in line), key=lambda line: abs(line["kl"] - kl)) for lines in each
            ]
            row[other] = {
                "kl": math.fsum(line["kl"] for line in nearest) / len(seeds),
                "gain": math.fsum(line["gold"] - lines[0]["gold"]
                                  for line, lines in zip(nearest, each, strict=True)) / len(seeds)
            }
        found.append(row)
        print(f"{row['method']:20}{kl:8.2f}{row['gain']:+8.2f}   " +
              "".join(f"{row[other]['kl']:26.2f}{row[other]['gain']:+8.2f}" for other in logs))
    return found


def what_is_kept(run: Path, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Bits per byte of held-out pretraining documents, and right answers by task, before and after PPO and PPO-ptx."""
    before = json.loads((run / "pretrain/manifest.json").read_text())["summary"]["validation_bits_per_byte"]
    names = ("sft", "ppo", "ppo-ptx")
    models = {name: [each["models"][name] for each in runs] for name in names}
    bits = {"pretrained": [before], **{name: [model["bits_per_byte"] for model in models[name]] for name in names}}
    print("\nbits per byte of held-out pretraining documents, by seed")
    for name, values in bits.items():
        print(f"{name:20}" + "".join(f"{value:9.4f}" for value in values))
    tasks = {
        task: {
            name: math.fsum(model["right_by_task"][task]["value"] for model in models[name]) / len(runs)
            for name in names
        }
        for task in runs[0]["models"]["sft"]["right_by_task"]
    }
    print(f"\nright answers by task, %, means over seeds\n{'task':20}" + "".join(f"{name:>10}" for name in names))
    for task, values in tasks.items():
        print(f"{task:20}" + "".join(f"{values[name] * 100:10.1f}" for name in names))
    return {"bits_per_byte": bits, "right_by_task": tasks}


def main() -> None:
    """All seeds, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="a finished quickstart")
    parser.add_argument("--out", type=Path, default=Path("runs/rlhf-results"))
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--set", action="append", default=[], help="override a setting of the recipe; repeatable")
    options = parser.parse_args()

    import trivium
    text = (common.HERE.parent / "recipes/rlhf.yaml").read_text(encoding="utf-8")
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = options.out / "rlhf.yaml"
    recipe.write_text(text.replace("runs/quickstart", str(options.run)), encoding="utf-8")
    runs, answers, seconds = [], [], {}
    for seed in options.seeds:
        print(f"seed {seed} ...", file=sys.stderr, flush=True)
        artifacts = trivium.run(recipe, [
            f"name=seed-{seed}", f"seed={seed}", f"out={options.out}", *(QUICK if options.quick else []), *options.set
        ], quiet=False)
        runs.append(artifacts["evaluate"].summary)
        answers.append(rows_of(artifacts["evaluate"].folder / "answers.jsonl"))
        seconds[seed] = {name: artifact.manifest["seconds"] for name, artifact in artifacts.items()}
    figures = {
        "wins": win_rates(options.seeds, runs, answers), "at_equal_kl": at_equal_kl(options.out, options.seeds, runs),
        "kept": what_is_kept(options.run, runs)
    }
    judges = {
        name: [
            json.loads((options.out / f"seed-{seed}" / name / "manifest.json").read_text())["summary"]
            for seed in options.seeds
        ]
        for name in ("ai-feedback", "self-judged")
    }
    for name, summaries in judges.items():
        agreement = ", ".join(shown(one["agreement_with_truth"]) for one in summaries if "agreement_with_truth" in one)
        print(f"\n{name}: agreement with the truth, % by seed: {agreement}; the first is preferred: " +
              ", ".join(f"{one['first_is_preferred'] * 100:.1f}" for one in summaries), end="")
    print("\n\nseconds a seed: " + ", ".join(f"{seed}: {math.fsum(each.values()):.0f}"
                                             for seed, each in seconds.items()))
    print(
        json.dumps({
            "benchmark": "rlhf_results", "quick": options.quick, "figures": figures, "judges": judges,
            "seconds": seconds, "machine": common.machine()
        }))


if __name__ == "__main__":
    main()
