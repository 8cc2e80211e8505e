"""AI feedback: a model ranks responses by written principles, in the place of people (Bai et al. 2022b; Lee et al.
2023)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation import judges
from trivium.evaluation.likelihood import score_continuations
from trivium.files import write_rows
from trivium.generation.endpoint import Endpoint
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, RewardModel
from trivium.model import folder as model_folder
from trivium.stage import Context, Figure, Input, Stage, Title
from trivium.stages.endpoint import EndpointSettings
from trivium.stages.models import load_language_model, load_tokenizer, prompt_ids, response_ids
from trivium.stages.preferences.reward import score_trees
from trivium.stages.rows import Row, rows_of
from trivium.training.batch import Tree
from trivium.training.machine import prepare, resolve_precision
from trivium.world import rubric
from trivium.world.panel import ranking


class Speaking(Stage):
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


class AiFeedback(Speaking):
    """AI feedback: a model with a written constitution ranks responses, each pair seen in both orders."""

    kind: ClassVar[str] = "ai_feedback"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("a model's rankings", "模型的排序", "judge")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("comparisons", "comparisons", "比较次数"),
        Figure("unread", "answers that no choice could be read from", "读不出选择的回答"),
        Figure("first_is_preferred", "the first one is preferred", "偏好先出现者的比例"),
        Figure("agreement_with_truth", "agrees with the truth", "与真值一致的比例"),
    )
    responses: int = Field(4, ge=2)
    """Responses to each prompt."""
    margin: float = Field(0.05, ge=0)
    """Responses whose shares of won comparisons are closer than this are tied."""
    heldout: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts kept for evaluation."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``comparisons.jsonl``: rankings by the share of comparisons that a response wins, each made in both
        orders."""
        rows, texts, _ = sampled(self, context, self.responses)
        judge = judge_of(self, context)
        asked: list[tuple[int, int, int]] = [(n, a, b) for n, found in enumerate(texts)
                                             for a, b in itertools.permutations(range(len(found)), 2)]
        if not asked:
            raise TriviumError(
                f"{context.name}: no prompt has two different responses that ended; raise `responses`, `temperature` "
                "or max_new_tokens"
            )
        verdicts = dict(zip(asked, judge([(rows[n], texts[n][a], texts[n][b]) for n, a, b in asked]), strict=True))
        comparisons, unread, firsts, agreed = [], 0, [], []
        for n, (row, found) in enumerate(zip(rows, texts, strict=True)):
            wins: list[list[float]] = [[] for _ in found]
            for a, b in itertools.combinations(range(len(found)), 2):
                one, other = verdicts[n, a, b], verdicts[n, b, a]
                if one is None or other is None:
                    unread += 1
                    continue
                firsts += [one, other]
                share = (one + 1 - other) / 2
                wins[a].append(share)
                wins[b].append(1 - share)
                if "truth" in row and share != 0.5:
                    better, worse = rubric.score(row, found[a]).total, rubric.score(row, found[b]).total
                    if better != worse:
                        agreed.append(float((share > 0.5) == (better > worse)))
            if len(found) < 2 or not all(wins):
                continue
            points = [float(np.mean(won)) for won in wins]
            heldout = randomness.python(context.seed, "heldout", row["id"]).random() < self.heldout
            comparisons.append({
                **row, "responses": found, "finished": [True] * len(found), "ranking": ranking(points, self.margin),
                "shares": points, "annotator": "ai", "split": "heldout" if heldout else "train"
            })
        if not comparisons:
            raise TriviumError(f"{context.name}: not one verdict of the judge can be read")
        if unread:
            context.progress.say(f"{unread} comparisons were left out: the judge's verdict could not be read")
        write_rows(context.folder / "comparisons.jsonl", comparisons)
        summary: dict[str, object] = {"prompts": len(comparisons), "comparisons": len(firsts) // 2, "unread": unread,
                                      "first_is_preferred": float(np.mean(firsts))}
        if agreed:
            from trivium.intervals import mean_interval
            summary["agreement_with_truth"] = mean_interval(agreed)
        return summary


QUESTION = """{principles}

Question: {prompt}

Answer A: {first}

Answer B: {second}

Which answer is better by these principles, A or B?"""

Pair = tuple[Row, str, str]
Judge = Callable[[Sequence[Pair]], list[float | None]]
"""For each (prompt, first, second), in this order only, the probability that the first is better; None where the judge
says nothing that can be read."""


def said(messages: Sequence[Row]) -> str:
    """A prompt's messages as plain text."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def judge_of(settings: Speaking, context: Context) -> Judge:
    """The judge that the settings name: an endpoint, a reward model, or a language model's own choice between the
    letters A and B."""
    principles = "\n".join(settings.constitution)
    if settings.endpoint:
        endpoint = Endpoint(**settings.endpoint.model_dump())

        def by_endpoint(pairs: Sequence[Pair]) -> list[float | None]:
            texts = [QUESTION.format(principles=principles, prompt=said(row["prompt"]), first=first, second=second) +
                     " End with [[A]] or [[B]]." for row, first, second in pairs]
            return [
                judges.verdict(reply) for reply in endpoint.ask_all(
                    texts, lambda done, total: context.progress.update(done, total, "judging"), kept=context.scratch /
                    "verdicts.jsonl")
            ]
        return by_endpoint
    folder: Path = context.inputs.get("judge") or context.inputs["model"]
    model = model_folder.load(folder)
    tokenizer = load_tokenizer(folder, model.config.vocab_size)
    model.eval()
    if not isinstance(model, LanguageModel | RewardModel):
        raise TriviumError(f"{folder}: {model_folder.what_is(model)} cannot judge; name a chat model or a reward model")
    if isinstance(model, RewardModel):
        def by_reward(pairs: Sequence[Pair]) -> list[float | None]:
            both = [
                Tree(prompt_ids(tokenizer, row["prompt"]), tuple(response_ids(tokenizer, text) for text in texts))
                for row, *texts in pairs
            ]
            scores = score_trees(model, both, max(map(len, both)), 16,
                                 resolve_precision("auto", model.score.weight.device))
            return [float(1 / (1 + np.exp(s[1] - s[0]))) for s in scores]
        return by_reward

    def by_letters(pairs: Sequence[Pair]) -> list[float | None]:
        asked = [
            prompt_ids(tokenizer, [{
                "role": "user", "content": QUESTION.format(principles=principles, prompt=said(row["prompt"]),
                                                           first=first, second=second)
            }]).tolist() for row, first, second in pairs
        ]
        room = model.config.max_positions - 2
        if any(len(ids) > room for ids in asked):
            raise TriviumError(
                f"{context.name}: a question to the judge has {max(map(len, asked))} tokens, but the model only "
                f"{model.config.max_positions} "
                "positions; shorten `constitution` or max_new_tokens, or take another judge")
        letters = [tokenizer.encode("A"), tokenizer.encode("B")]
        found = score_continuations(model, asked, [letters] * len(asked))
        return [float(1 / (1 + np.exp(b - a))) for (a, _), (b, _) in found]
    return by_letters


def sampled(settings: Speaking, context: Context, each: int) -> tuple[list[Row], list[list[str]], LanguageModel]:
    """The prompts of the stage, the different responses to each that ended, and the model that gave them."""
    device = prepare(context.threads)
    model, tokenizer = load_language_model(context.inputs["model"])
    rows = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt"], context)
    rows = rows[settings.skip:settings.skip + settings.count]
    room = model.config.max_positions - settings.max_new_tokens
    rows = [row for row in rows if len(prompt_ids(tokenizer, row["prompt"])) <= room]
    if not rows:
        raise TriviumError(
            f"{context.name}: no prompt is left after skipping {settings.skip}, or none fits the model; lower `skip`, "
            "or make more"
        )
    groups = generate(
        model.to(device), [prompt_ids(tokenizer, row["prompt"]).tolist() for row in rows],
        Sampling(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens,
                 seed=context.seed), [tokenizer.end_id], each, keys=[(context.name, row["id"]) for row in rows],
        progress=lambda done, total: context.progress.update(done, total, "sampling responses"))
    texts = [list(dict.fromkeys(text for sample in group if sample.finished and (
        text := tokenizer.decode([t for t in sample.tokens if t != tokenizer.end_id]).strip()))) for group in groups]
    return rows, texts, model
