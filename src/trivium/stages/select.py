"""Rejection sampling (Llama 2, 3.2.3; Llama 3, 4.2.2): many responses to each prompt, of which a reward model keeps the best."""

from __future__ import annotations

import numpy as np

from trivium.errors import TriviumError
from trivium.evaluation.intervals import mean_interval
from trivium.files import write_rows
from trivium.generation.engine import Sampling, generate
from trivium.pipeline import Context
from trivium.stages.common import load_language_model, load_reward_model, prompt_ids, rows_of
from trivium.stages.reward import score_trees
from trivium.stages.settings import Select
from trivium.training.batch import Tree
from trivium.training.machine import prepare, resolve_precision
from trivium.world import rubric

VERSION = 1


def run(settings: Select, context: Context) -> dict[str, object]:
    """Write the best response to each prompt as a demonstration (``demonstrations.jsonl``), and best against worst as a comparison
    (``comparisons.jsonl``): for fine-tuning on the one, or DPO on the other."""
    device = prepare(context.threads)
    model, tokenizer = load_language_model(context.inputs["model"])
    reward, reward_tokenizer = load_reward_model(context.inputs["reward"])
    if reward_tokenizer.digest != tokenizer.digest:
        raise TriviumError(f"{context.inputs['reward']}: the reward model has another tokenizer than the model that responds")
    rows = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt"], context)
    length = min(settings.length, model.config.max_positions)
    ids = {row["id"]: prompt_ids(tokenizer, row["prompt"]) for row in rows}
    fitting = [row for row in rows if len(ids[row["id"]]) + settings.max_new_tokens <= length]
    if not fitting:
        raise TriviumError(f"{context.name}: no prompt leaves room for {settings.max_new_tokens} new tokens in rows of {length}; raise `length`")
    prompts = [fitting[(settings.skip + i) % len(fitting)] for i in range(min(settings.count, len(fitting)))]
    groups = generate(model.to(device), [ids[row["id"]].tolist() for row in prompts],
                      Sampling(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens, seed=context.seed),
                      [tokenizer.end_id], settings.samples, keys=[(context.name, row["id"]) for row in prompts],
                      progress=lambda done, total: context.progress.update(done, total, "sampling responses"))
    flat = [(row, sample) for row, group in zip(prompts, groups, strict=True) for sample in group]
    trees = [Tree(ids[row["id"]], (np.array(sample.tokens, np.int64),)) for row, sample in flat]
    found = score_trees(reward.to(device), trees, length, settings.rows, resolve_precision("auto", device))
    demonstrations, comparisons, firsts, gains, points = [], [], [], [], []
    at = 0
    for row, group in zip(prompts, groups, strict=True):
        scores = [float(s[0]) + reward.shift if sample.finished else -np.inf for s, sample in zip(found[at:at + len(group)], group, strict=True)]
        at += len(group)
        texts = [tokenizer.decode([t for t in sample.tokens if t != tokenizer.end_id]) for sample in group]
        best, worst = int(np.argmax(scores)), int(np.argmin(scores))
        if scores[best] == -np.inf or not texts[best]:
            continue  # none of them ended
        messages = [*row["prompt"], {"role": "assistant", "content": texts[best]}]
        kept = {name: row[name] for name in ("task", "truth") if name in row}
        demonstrations.append({"id": row["id"], "messages": messages, "score": scores[best], "of": len(group)} | kept)
        ended = [score for score in scores if score > -np.inf]
        firsts.append(float(np.mean(ended)))
        gains.append(scores[best] - firsts[-1])
        if "truth" in row:
            points.append((rubric.score(row, texts[best]).total, float(np.mean([rubric.score(row, text).total for text in texts]))))
        if texts[worst] != texts[best]:
            comparisons.append({"id": row["id"], "prompt": row["prompt"], "responses": [texts[best], texts[worst]], "ranking": [[0], [1]],
                                "finished": [True, group[worst].finished], "annotator": "reward model", "split": "train"})
    if not demonstrations:
        raise TriviumError(f"{context.name}: not one response ended within {settings.max_new_tokens} tokens; raise max_new_tokens")
    write_rows(context.folder / "demonstrations.jsonl", demonstrations)
    write_rows(context.folder / "comparisons.jsonl", comparisons)
    summary: dict[str, object] = {"prompts": len(prompts), "samples": len(flat), "kept": len(demonstrations),
                                  "mean_score": float(np.mean(firsts)), "mean_gain": float(np.mean(gains))}
    if points:
        summary["better_by_truth"] = mean_interval([float(a > b) + 0.5 * float(a == b) for a, b in points])
    return summary
