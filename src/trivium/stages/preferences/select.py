"""Rejection sampling (Llama 2, 3.2.3; Llama 3, 4.2.2): many responses to each prompt, of which a reward model keeps the
best."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.generation.engine import Sampling, generate
from trivium.intervals import mean_interval
from trivium.stage import Context, Figure, Input, Stage, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import load_language_model, load_reward_model, prompt_ids
from trivium.stages.outlook import Cost
from trivium.stages.preferences.reward import score_trees
from trivium.stages.rows import rows_of
from trivium.training.batch import Tree
from trivium.training.machine import prepare, resolve_precision
from trivium.world import rubric


class Select(Stage):
    """Rejection sampling: sample several responses to each prompt and keep what a reward model likes best."""

    kind: ClassVar[str] = "select"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("best of N (rejection sampling)", "N 选最优（拒绝采样）", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("samples", "responses sampled", "采样的回答"),
        Figure("mean_score", "score before selection", "选优前分数"),
        Figure("mean_gain", "gain by selection", "选优增益"),
        Figure("better_by_truth", "selected is better, by the truth", "按真值更好的比例"),
    )
    model: Input = "sft"
    """The model that responds."""
    reward: Input = "reward"
    """The reward model that picks."""
    prompts: Input = "world"
    """A stage with prompts."""
    samples: int = Field(8, ge=2)
    """Responses to each prompt."""
    count: int = Field(500, ge=1)
    """Prompts."""
    skip: int = Field(0, ge=0)
    """Prompts to pass over first, such as those of earlier rounds; counting begins anew at the end of the prompts."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""
    length: int = Field(512, ge=2)
    """Tokens in one packed row of the reward model."""
    rows: int = Field(16, ge=1)
    """Packed rows that the reward model judges at once."""

    def run(self, context: Context) -> dict[str, object]:
        """Write the best response to each prompt as a demonstration (``demonstrations.jsonl``), and best against worst
        as a comparison (``comparisons.jsonl``): for fine-tuning on the one, or DPO on the other."""
        device = prepare(context.threads)
        model, tokenizer = load_language_model(context.inputs["model"])
        reward, reward_tokenizer = load_reward_model(context.inputs["reward"])
        if reward_tokenizer.digest != tokenizer.digest:
            raise TriviumError(
                f"{context.inputs['reward']}: the reward model has another tokenizer than the model that responds")
        rows = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt"], context)
        length = min(self.length, model.config.max_positions)
        ids = {row["id"]: prompt_ids(tokenizer, row["prompt"]) for row in rows}
        fitting = [row for row in rows if len(ids[row["id"]]) + self.max_new_tokens <= length]
        if not fitting:
            raise TriviumError(
                f"{context.name}: no prompt leaves room for {self.max_new_tokens} new tokens in rows of {length}; "
                "raise `length`"
            )
        prompts = [fitting[(self.skip + i) % len(fitting)] for i in range(min(self.count, len(fitting)))]
        groups = generate(model.to(device), [ids[row["id"]].tolist() for row in prompts],
                          Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=context.seed),
                          [tokenizer.end_id], self.samples, keys=[(context.name, row["id"]) for row in prompts],
                          progress=lambda done, total: context.progress.update(done, total, "sampling responses"))
        flat = [(row, sample) for row, group in zip(prompts, groups, strict=True) for sample in group]
        trees = [Tree(ids[row["id"]], (np.array(sample.tokens, np.int64),)) for row, sample in flat]
        found = score_trees(reward.to(device), trees, length, self.rows, resolve_precision("auto", device))
        demonstrations, comparisons, firsts, gains, points = [], [], [], [], []
        at = 0
        for row, group in zip(prompts, groups, strict=True):
            scores = [
                float(s[0]) + reward.shift if sample.finished else -np.inf
                for s, sample in zip(found[at:at + len(group)], group, strict=True)
            ]
            at += len(group)
            texts = [tokenizer.decode([t for t in sample.tokens if t != tokenizer.end_id]) for sample in group]
            best, worst = int(np.argmax(scores)), int(np.argmin(scores))
            if scores[best] == -np.inf or not texts[best]:
                continue  # none of them ended
            messages = [*row["prompt"], {"role": "assistant", "content": texts[best]}]
            kept = {name: row[name] for name in ("task", "truth") if name in row}
            demonstrations.append({"id": row["id"], "messages": messages, "score": scores[best], "of": len(group)}
                                  | kept)
            ended = [score for score in scores if score > -np.inf]
            firsts.append(float(np.mean(ended)))
            gains.append(scores[best] - firsts[-1])
            if "truth" in row:
                points.append((rubric.score(row, texts[best]).total,
                               float(np.mean([rubric.score(row, text).total for text in texts]))))
            if texts[worst] != texts[best]:
                comparisons.append({
                    "id": row["id"], "prompt": row["prompt"], "responses": [texts[best],
                                                                            texts[worst]], "ranking": [[0], [1]],
                    "finished": [True, group[worst].finished], "annotator": "reward model", "split": "train"
                })
        if not demonstrations:
            raise TriviumError(
                f"{context.name}: not one response ended within {self.max_new_tokens} tokens; raise max_new_tokens")
        write_rows(context.folder / "demonstrations.jsonl", demonstrations)
        write_rows(context.folder / "comparisons.jsonl", comparisons)
        summary: dict[str, object] = {"prompts": len(prompts), "samples": len(flat), "kept": len(demonstrations),
                                      "mean_score": float(np.mean(firsts)), "mean_gain": float(np.mean(gains))}
        if points:
            summary["better_by_truth"] = mean_interval([float(a > b) + 0.5 * float(a == b) for a, b in points])
        return summary

    def cost(self, estimate: Estimate) -> Cost:
        """The responses, and a pass of the reward model over them."""
        count = self.count * self.samples
        seconds = estimate.answers(self.model, count, self.max_new_tokens)
        seconds += count * estimate.reading(estimate.config(self.model), self.length)
        return Cost(seconds + 1.0, f"{count:,} answers, each scored")
