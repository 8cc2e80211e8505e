"""Human preferences, here from simulated annotators: several responses to each prompt, ranked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field, model_validator

from trivium import randomness
from trivium.errors import TriviumError
from trivium.files import Row, write_rows
from trivium.generation.engine import Sampling, generate
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import load_language_model, prompt_ids
from trivium.stages.outlook import Cost, Outlook, Rankings
from trivium.stages.preferences.cost import DISTINCT
from trivium.stages.rows import rows_of
from trivium.training.machine import prepare
from trivium.world.panel import Panel, agreement


class Preferences(Stage):
    """Sample several responses to each prompt and have them ranked by the panel of simulated annotators."""

    kind: ClassVar[str] = "preferences"
    version: ClassVar[int] = 4
    title: ClassVar[Title] = Title("ranked responses", "收集偏好", "judge")
    model: Input = "sft"
    """The model whose responses are ranked."""
    prompts: Input = "world"
    """A stage with prompts."""
    count: int = Field(600, ge=1)
    """Prompts to collect rankings for."""
    skip: int = Field(0, ge=0)
    """Prompts to pass over first, such as those of earlier rounds."""
    fewest: int = Field(4, ge=2)
    """Fewest responses to one prompt."""
    most: int = Field(9, ge=2)
    """Most responses to one prompt."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""
    heldout: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts kept for the evaluation of the reward model."""
    annotators: int = Field(5, ge=1)
    """Annotators on the panel; two of them rank each prompt, and the first one's ranking counts."""
    noise: float = Field(1.7, ge=0)
    """Standard deviation of a judgement, in points of the rubric (8 in all). The more alike the responses, the less of
    it makes two annotators agree on 73 % of their pairs, as people do (InstructGPT)."""

    @model_validator(mode="after")
    def _in_order(self) -> Preferences:
        if self.fewest > self.most:
            raise ValueError(f"fewest ({self.fewest}) is more than most ({self.most})")
        return self

    def run(self, context: Context) -> dict[str, object]:
        """Write ``comparisons.jsonl``: a ranking a row, with its prompt, responses, annotator and split."""
        panel = Panel(context.seed, self.annotators, self.noise)
        rows, doubly = [], []
        for row, samples in self.sampled(context):
            finished_of = dict(samples)  # equal responses are one
            responses = list(finished_of)
            if len(responses) < 2:
                continue  # nothing to compare
            rng = randomness.python(context.seed, "annotators", row["id"])
            heldout = rng.random() < self.heldout
            judgements = [
                panel.rank(row, responses, who) for who in rng.sample(range(self.annotators), min(2, self.annotators))
            ]
            doubly.append(tuple(judgement["ranking"] for judgement in judgements))
            rows.append({
                **row, "responses": responses, "finished": list(finished_of.values()),
                **judgements[0], "split": "heldout" if heldout else "train"
            })
        write_rows(context.folder / "comparisons.jsonl", rows)
        return {"prompts": len(rows), "responses": sum(len(row["responses"]) for row in rows),
                "agreement": agreement(doubly) if self.annotators > 1 else None}

    def sampled(self, context: Context) -> Iterator[tuple[Row, list[tuple[str, bool]]]]:
        """Each prompt with its responses, and whether each of them ended by itself."""
        device = prepare(context.threads)
        model, tokenizer = load_language_model(context.inputs["model"])
        prompts = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt", "truth"], context)
        prompts = prompts[self.skip:self.skip + self.count]
        if not prompts:
            raise TriviumError(
                f"{context.name}: no prompt is left after skipping {self.skip}; lower `skip`, or make more prompts")
        wanted = [
            randomness.python(context.seed, "responses", row["id"]).randint(self.fewest, self.most) for row in prompts
        ]
        sampling = Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=context.seed)
        asked = [prompt_ids(tokenizer, row["prompt"], row.get("tools")).tolist() for row in prompts]
        completions = generate(model.to(device), asked, sampling, [tokenizer.end_id], wanted,
                               keys=[row["id"] for row in prompts],
                               progress=lambda done, total: context.progress.update(done, total, "sampling responses"))
        for row, samples in zip(prompts, completions, strict=True):
            yield row, [(tokenizer.decode([token for token in sample.tokens if token != tokenizer.end_id]),
                         sample.finished) for sample in samples]

    def cost(self, estimate: Estimate) -> Cost:
        """The responses, each judged by two annotators."""
        count = self.count * (self.fewest + self.most) / 2
        seconds = estimate.answers(self.model, count, self.max_new_tokens)
        return Cost(seconds + 2 * DISTINCT * count * estimate.judging(self.prompts),
                    f"{count:,.0f} answers, each judged twice")

    def outlook(self, estimate: Estimate) -> Outlook:
        """Rankings of the responses that differ."""
        responses = max(2.0, (self.fewest + self.most) / 2 * DISTINCT)
        return Outlook(rankings=Rankings(self.count, self.heldout, responses, self.prompts))
