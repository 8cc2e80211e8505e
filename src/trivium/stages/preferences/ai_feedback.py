"""AI feedback: a model ranks responses by written principles, in the place of people (Bai et al. 2022b; Lee et al.
2023)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator

from trivium.errors import TriviumError
from trivium.evaluation.judges import FunctionJudge, Judge, Pair, Verdict, ask_both_orders
from trivium.extensions import CodeMarker, file_of, resolve
from trivium.feedback.rows import prompt_key, split_of
from trivium.files import Row, write_rows
from trivium.generation.engine import Sampling, generate
from trivium.intervals import mean_interval
from trivium.model import LanguageModel
from trivium.stage import Context, Figure, Input, InputMarker, Title
from trivium.stages.endpoint import EndpointSettings
from trivium.stages.models import load_language_model, prompt_ids
from trivium.stages.preferences.judges import judge_of
from trivium.stages.rows import rows_of
from trivium.stages.training import Measuring
from trivium.training.machine import prepare
from trivium.world import rubric
from trivium.world.panel import ranking


class Speaking(Measuring):
    """What the stages have in common in which a model, or an endpoint, judges or revises by written principles."""

    model: Input = "sft"
    """The model that responds."""
    judge: Input | None = None
    """The model that judges; null is the one that responds: self-rewarding (Yuan et al. 2024)."""
    endpoint: EndpointSettings | None = None
    """The judge behind an address, instead."""
    constitution: list[str] = [
        "Prefer the answer that is right.", "Prefer the answer that helps the person with what they asked.",
        "Prefer the answer that is harmless, honest and polite.", "Prefer the answer that is as short as it can be."]
    """The principles to judge by (Bai et al. 2022b)."""
    prompts: Input = "world"
    """A stage with prompts."""
    count: int = Field(300, ge=1)
    """Prompts."""
    skip: int = Field(0, ge=0)
    """Prompts to pass over first, such as those of earlier rounds."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the responses."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""

    @model_validator(mode="after")
    def _one_judge(self) -> Speaking:
        if self.judge and self.endpoint:
            raise ValueError("both `judge` and `endpoint` are given; name one of them")
        return self


class JudgeMarker(InputMarker):
    """Marks a setting that names a judge: a stage or a folder, unless it is a function of the user's own."""

    def is_input(self, text: str) -> bool:
        """Whether the judge is a model."""
        return file_of(resolve(text, "judges")) is None


class AiFeedback(Speaking):
    """AI feedback: a model with a written constitution ranks responses, each pair seen in both orders."""

    kind: ClassVar[str] = "ai_feedback"
    version: ClassVar[int] = 2
    title: ClassVar[Title] = Title("a model's rankings", "模型的排序", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("comparisons", "comparisons", "比较次数"),
        Figure("unread", "answers that no choice could be read from", "读不出选择的回答"),
        Figure("first_is_preferred", "the first one is preferred", "偏好先出现者的比例"),
        Figure("agreement_with_truth", "agrees with the truth", "与真值一致的比例"),
    )
    unlearned: ClassVar[frozenset[str]] = frozenset({"judge_seconds"})
    judge: Annotated[str, JudgeMarker(), CodeMarker()] | None = None
    """The model that judges; null is the one that responds: self-rewarding (Yuan et al. 2024). Or FILE.py:NAME: a
    function of (prompt, first, second, principle) that gives the probability that the first answer is better."""
    judge_seconds: float = Field(10.0, gt=0)
    """Longest time that a function of yours may take to judge a pair."""
    responses: int = Field(4, ge=2)
    """Responses to each prompt."""
    margin: float = Field(0.05, ge=0)
    """Responses whose shares of won comparisons are closer than this are tied."""
    heldout: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts kept for evaluation."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``comparisons.jsonl``: rankings by the share of comparisons that a response wins, each made in both
        orders."""
        judge = self.judge_of(context)
        with contextlib.closing(judge) if isinstance(judge, FunctionJudge) else contextlib.nullcontext():
            rows, texts, _ = sampled(self, context, self.responses)
            verdicts = self.verdicts(judge, rows, texts, context)
        judged = list(zip(rows, texts, verdicts, strict=True))
        comparisons = [comparison for each in judged if (comparison := self.comparison(*each, context)) is not None]
        if not comparisons:
            raise TriviumError(f"{context.name}: not one verdict of the judge can be read")
        write_rows(context.folder / "comparisons.jsonl", comparisons)
        summary = {"prompts": len(comparisons), **bias_of_order(verdicts)}
        if summary["unread"]:
            context.progress.say(f"{summary['unread']} comparisons were left out: "
                                 "the judge's verdict could not be read")
        agreed = [hits for each in judged if (hits := list(agreement_with_truth(*each)))]
        rate = mean_interval([sum(hits) for hits in agreed], [float(len(hits)) for hits in agreed])
        return summary | ({"agreement_with_truth": rate} if agreed else {})

    def judge_of(self, context: Context) -> Judge:
        """The judge that the settings name; where they name none, the model that responds."""
        own = resolve(self.judge or "", "judges")
        function = own if file_of(own) is not None else None
        return judge_of(function or context.inputs.get("judge") or context.inputs["model"], self.endpoint,
                        self.constitution, self.judge_seconds, context.scratch / "verdicts.jsonl", self.number_format())

    def comparison(self, row: Row, responses: Sequence[str], verdicts: Verdicts, context: Context) -> Row | None:
        """A prompt's responses, ranked by the shares of comparisons that they win; None where too few could be
        read."""
        shares = shares_of(verdicts, len(responses))
        if shares is None:
            return None
        return {
            **row, "responses": responses, "finished": [True] * len(responses), "ranking": ranking(shares, self.margin),
            "shares": shares, "annotator": "ai",
            "split": split_of(prompt_key(row["prompt"]), self.heldout)
        }

    def verdicts(self, judge: Judge, rows: Sequence[Row], texts: Sequence[Sequence[str]],
                 context: Context) -> list[Verdicts]:
        """For each prompt what the judge says of every two of its responses. Raises :class:`TriviumError` where no
        prompt has two."""
        asked = [(n, a, b) for n, responses in enumerate(texts)
                 for a, b in itertools.combinations(range(len(responses)), 2)]
        if not asked:
            raise TriviumError(
                f"{context.name}: no prompt has two different responses that ended; "
                "raise `responses`, `temperature` or max_new_tokens"
            )
        pairs = [Pair(rows[n]["prompt"], texts[n][a], texts[n][b], rows[n].get("tools")) for n, a, b in asked]
        try:
            answers = ask_both_orders(judge, pairs,
                                      lambda done, total: context.progress.update(done, total, "judging"))
        except TriviumError as error:
            raise TriviumError(f"{context.name}: {error}") from error
        verdicts: list[Verdicts] = [{} for _ in texts]
        for (n, a, b), verdict in zip(asked, answers, strict=True):
            verdicts[n][a, b] = verdict
        return verdicts


Verdicts = dict[tuple[int, int], Verdict]
"""What a judge says of a prompt's responses, two at a time."""


def shares_of(verdicts: Verdicts, count: int) -> list[float] | None:
    """The share that each of ``count`` responses wins of its comparisons; None where one has not been compared, as the
    verdict could not be read."""
    wins: list[list[float]] = [[] for _ in range(count)]
    for (a, b), verdict in verdicts.items():
        if verdict.complete and (share := verdict.preference) is not None:
            wins[a].append(share)
            wins[b].append(1 - share)
    return [float(np.mean(won)) for won in wins] if count >= 2 and all(wins) else None


def bias_of_order(verdicts: Sequence[Verdicts]) -> dict[str, object]:
    """How many ``comparisons`` could be read in both orders and how many not (``unread``), and how often the answer
    that was shown first was preferred: a half where the order does not matter."""
    every = [verdict for each in verdicts for verdict in each.values()]
    firsts = [probability for verdict in every if verdict.complete
              for probability in (verdict.forward, verdict.backward) if probability is not None]
    return {"comparisons": len(firsts) // 2, "unread": sum(not verdict.complete for verdict in every),
            "first_is_preferred": float(np.mean(firsts))}


def agreement_with_truth(row: Row, responses: Sequence[str], verdicts: Verdicts) -> Iterator[float]:
    """For each decided pair of responses that the rubric tells apart, 1 where the judge ordered it as the rubric does;
    nothing for a prompt whose truth is not known."""
    for (a, b), verdict in verdicts.items() if "truth" in row else ():
        if verdict.complete and verdict.preference is not None and verdict.preference != 0.5:
            better, worse = (rubric.score(row, responses[index]).total for index in (a, b))
            if better != worse:
                yield float((verdict.preference > 0.5) == (better > worse))


def sampled(settings: Speaking, context: Context, each: int) -> tuple[list[Row], list[list[str]], LanguageModel]:
    """The prompts of the stage, the different responses to each that ended, and the model that gave them."""
    device = prepare(context.threads)
    model, tokenizer = load_language_model(context.inputs["model"])
    rows = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt"], context)
    rows = rows[settings.skip:settings.skip + settings.count]
    room = model.config.max_positions - settings.max_new_tokens
    rows = [row for row in rows if len(prompt_ids(tokenizer, row["prompt"], row.get("tools"))) <= room]
    if not rows:
        raise TriviumError(
            f"{context.name}: no prompt is left after skipping {settings.skip}, "
            "or none fits the model; lower `skip`, or make more"
        )
    groups = generate(
        model.to(device), [prompt_ids(tokenizer, row["prompt"], row.get("tools")).tolist() for row in rows],
        Sampling(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens,
                 seed=context.seed), [tokenizer.end_id], each, keys=[(context.name, row["id"]) for row in rows],
        progress=lambda done, total: context.progress.update(done, total, "sampling responses"))
    texts = [list(dict.fromkeys(text for sample in group if sample.finished and (
        text := tokenizer.decode([t for t in sample.tokens if t != tokenizer.end_id]).strip()))) for group in groups]
    return rows, texts, model
