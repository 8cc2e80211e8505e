"""Rejection sampling (Llama 2, 3.2.3; Llama 3, 4.2.2): many responses to each prompt, of which a reward keeps the
best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from trivium.errors import TriviumError, counted
from trivium.files import Row, write_rows
from trivium.generation.engine import Completion, Sampling, generate
from trivium.intervals import mean_interval
from trivium.model import LanguageModel
from trivium.stage import Context, Figure, Input, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import load_language_model, load_reward_model, prompt_ids
from trivium.stages.outlook import Cost
from trivium.stages.rewards import Answers, ModelReward, RewardSetting, load_reward
from trivium.stages.rows import rows_of
from trivium.stages.training import USUAL_LENGTH, Measuring
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.epochs import Limit
from trivium.training.machine import prepare
from trivium.world import rubric


class Select(Measuring):
    """Rejection sampling: sample several responses to each prompt and keep what a reward likes best."""

    kind: ClassVar[str] = "select"
    version: ClassVar[int] = 2
    title: ClassVar[Title] = Title("best of N (rejection sampling)", "N 选最优（拒绝采样）", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("samples", "responses sampled", "采样的回答"),
        Figure("mean_score", "score before selection", "选优前分数"),
        Figure("mean_gain", "gain by selection", "选优增益"),
        Figure("better_by_truth", "selected is better, by the truth", "按真值更好的比例"),
    )
    model: Input = "sft"
    """The model that responds."""
    reward: RewardSetting = "reward"
    """What picks: a reward model, or whatever else ppo's `reward` may be."""
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
    length: int | None = Field(None, ge=2)
    """Tokens in one packed row of the reward model: a prompt and one response must fit. null: what the longest needs,
    up to the model's positions."""
    rows: int | None = Field(None, ge=1)
    """Packed rows that the reward model judges at once. null: as many as hold 4,096 tokens."""

    def run(self, context: Context) -> dict[str, object]:
        """Write the best response to each prompt as a demonstration (``demonstrations.jsonl``), and best against worst
        as a comparison (``comparisons.jsonl``): for fine-tuning on the one, or DPO on the other."""
        device = prepare(context.threads)
        model, tokenizer = load_language_model(context.inputs["model"])
        limit = Limit(self.length, model.config.max_positions, f"prompts with {self.max_new_tokens} new tokens")

        def load_model(folder: Path, where: str) -> ModelReward:
            judge, judge_tokenizer = load_reward_model(folder)
            if judge_tokenizer.digest != tokenizer.digest:
                raise TriviumError(
                    f"{folder}: the reward model has another tokenizer than the model that responds")
            return ModelReward(judge.to(device), self.length, self.rows, self.number_format(), one_by_one=True)

        with load_reward(self.reward, context.inputs.get("reward"), load_model) as reward:
            rows = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt"], context)
            prompts = self.chosen(rows, tokenizer, limit, context)
            reward.check_rows(prompts)
            completions = self.respond(model.to(device), tokenizer, prompts, context)
            ids = [prompt_ids(tokenizer, row["prompt"], row.get("tools")) for row in prompts]
            answers = Answers.of_completions(tokenizer, prompts, ids, completions)
            scores = [np.where(finished, given, -np.inf)  # what never ends is never the best
                      for finished, given in zip(answers.finished, reward(answers), strict=True)]
        annotator = "reward model" if isinstance(reward, ModelReward) else "reward"
        picks = [picked for i, row in enumerate(prompts) if (picked := pick(
            row, answers.texts[i], answers.finished[i], scores[i], annotator))]
        if not picks:
            raise TriviumError(
                f"{context.name}: not one response ended within {self.max_new_tokens} tokens; raise max_new_tokens")
        write_rows(context.folder / "demonstrations.jsonl", (one.demonstration for one in picks))
        write_rows(context.folder / "comparisons.jsonl", (one.comparison for one in picks if one.comparison))
        return {"prompts": len(prompts), "samples": sum(map(len, completions)), **summary_of(picks)}

    def chosen(self, rows: Sequence[Row], tokenizer: ChatTokenizer, limit: Limit, context: Context) -> list[Row]:
        """The prompts of this round, of those that leave room for an answer; how many do not is said. Raises
        :class:`TriviumError` where none does."""
        sizes = [len(prompt_ids(tokenizer, row["prompt"], row.get("tools"))) + self.max_new_tokens for row in rows]
        fitting = [row for row, size in zip(rows, sizes, strict=True) if size <= limit.tokens]
        over = [size for size in sizes if size > limit.tokens]
        mend = "a smaller `max_new_tokens` takes in more" if limit.tokens == limit.positions else ""
        if not fitting:
            raise TriviumError(f"{context.name}: no prompt fits: {limit.say_left_out(over, len(rows), mend)[9:]}")
        if over:
            context.progress.say(limit.say_left_out(over, len(rows), mend))
        return [fitting[(self.skip + i) % len(fitting)] for i in range(min(self.count, len(fitting)))]

    def respond(self, model: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[Row],
               context: Context) -> list[list[Completion]]:
        """The responses to each prompt."""
        return generate(model, [prompt_ids(tokenizer, row["prompt"], row.get("tools")).tolist() for row in prompts],
                        Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=context.seed),
                        [tokenizer.end_id], self.samples, keys=[(context.name, row["id"]) for row in prompts],
                        progress=lambda done, total: context.progress.update(done, total, "sampling responses"))

    def cost(self, estimate: Estimate) -> Cost:
        """The responses, and a pass of the reward model over them."""
        count, config = self.count * self.samples, estimate.config(self.model)
        seconds = estimate.answers(self.model, count, self.max_new_tokens)
        seconds += count * estimate.reading(config, self.length or min(config.max_positions, USUAL_LENGTH))
        return Cost(seconds + 1.0, f"{counted(count, 'answer')}, each scored")



@dataclass
class Pick:
    """What is kept of the responses to a prompt."""

    demonstration: Row
    """The prompt with its best response."""
    comparison: Row | None
    """The best response against the worst; None where they are alike."""
    mean: float
    """The mean score of those that ended."""
    gain: float
    """How far the best one's is above it."""
    points: tuple[float, float] | None
    """The rubric's points for the best one, and for all of them in the mean; None where the truth is not known."""


def summary_of(picks: Sequence[Pick]) -> dict[str, object]:
    """The means over prompts and, where the truth is known, how often the pick is better than the mean response."""
    summary: dict[str, object] = {"kept": len(picks), "mean_score": float(np.mean([one.mean for one in picks])),
                                  "mean_gain": float(np.mean([one.gain for one in picks]))}
    points = [one.points for one in picks if one.points]
    if points:
        summary["better_by_truth"] = mean_interval([float(a > b) + 0.5 * float(a == b) for a, b in points])
    return summary


def pick(row: Row, texts: Sequence[str], finished: Sequence[bool], scores: np.ndarray, annotator: str) -> Pick | None:
    """The best of a prompt's responses; None where none of them ended. ``scores`` are minus infinity for those that did
    not."""
    best, worst = int(np.argmax(scores)), int(np.argmin(scores))
    if scores[best] == -np.inf or not texts[best]:
        return None
    kept = {name: row[name] for name in ("task", "truth", "tools") if name in row}
    demonstration = {"id": row["id"], "messages": [*row["prompt"], {"role": "assistant", "content": texts[best]}],
                     "score": float(scores[best]), "of": len(texts)} | kept
    comparison = None if texts[worst] == texts[best] else {
        "id": row["id"], "prompt": row["prompt"], "responses": [texts[best], texts[worst]], "ranking": [[0], [1]],
        "finished": [True, finished[worst]], "annotator": annotator, "split": "train",
        **{name: row[name] for name in ("tools",) if name in row}}
    points = None
    if "truth" in row:
        points = rubric.score(row, texts[best]).total, float(np.mean([rubric.score(row, one).total for one in texts]))
    mean = float(np.mean(scores[scores > -np.inf]))
    return Pick(demonstration, comparison, mean, float(scores[best]) - mean, points)
