"""How often a judge prefers a model's answers to those of the model it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation import world
from trivium.evaluation.judges import EndpointJudge, ask_both_orders
from trivium.evaluation.judges import Pair as Asked
from trivium.evaluation.model import EvaluatedModel, Progress, reward_scores
from trivium.evaluation.statistics import paired_test
from trivium.evaluation.tasks.rows import messages_of, place_of, read_files
from trivium.evaluation.tasks.task import Result, Task
from trivium.evaluation.tasks.templates import render
from trivium.evaluation.win_rates import win_rates, wins_by_points
from trivium.files import Row
from trivium.generation.endpoint import Endpoint

ADDRESSES = ("http://", "https://")


@dataclass(frozen=True)
class Pair:
    """A prompt's row, with one answer of each of the two models."""

    row: Row
    answer: str
    other: str


class Wins(Task):
    """How often a judge prefers a model's answers to those of the model it is compared with. Rows have ``prompt`` (chat
    messages or text); a stage's folder with ``evaluation.jsonl`` will do."""

    kind: ClassVar[str] = "wins"
    needs_opponent: ClassVar[bool] = True
    judge: str = "rubric"
    """rubric (the embedded world's), the folder of a reward model, or the address of an endpoint (http://HOST/v1)."""
    judge_model: str = "judge"
    """The name of the endpoint's model."""
    judge_key: str = "TRIVIUM_JUDGE_KEY"
    """The environment variable that holds the endpoint's key."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature of both models."""
    samples: int = Field(1, ge=1)
    """Answers to each prompt."""
    cluster: str = ""
    """A template that names prompts which stand and fall together: intervals count them as one. Empty: each prompt,
    with all answers to it, is its own."""
    best_of: int = Field(1, ge=1)
    """Each of the examined model's answers is the best of so many, by the reward model `picker`; the model that it is
    compared with answers once."""
    picker: str = ""
    """The folder of the reward model that picks for `best_of`."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer, in tokens."""

    @model_validator(mode="after")
    def _someone_picks(self) -> Wins:
        if self.best_of > 1 and not self.picker:
            raise ValueError("best_of needs a reward model that picks; name its folder as `picker`")
        return self

    def files(self) -> list[str]:
        """Every file, folder or pattern that the task reads."""
        judge = [] if self.judge == "rubric" or self.judge.startswith(ADDRESSES) else [self.judge]
        return [*self.data, *judge, *([self.picker] if self.picker else [])]

    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """``win_rate`` of one model over another, ties half, with an interval over prompts; the p-value of a paired
        test; and ``length_controlled``, the rate without the judge's liking for length."""
        if opponent is None:
            raise TriviumError(f"{file}: a win rate needs a model to compare with; name it with --against")
        pairs = self.answer(file, self.prompts(file, model.seed), model, opponent)
        rows = [{"where": pair.row["where"], "cluster": pair.row["cluster"], "prompt": pair.row["prompt"],
                 "first": pair.answer, "second": pair.other, "score": win}
                for pair, win in zip(pairs, self.compare(file, pairs, model.progress), strict=True)]
        decided = [row for row in rows if row["score"] is not None]
        if not decided:
            raise TriviumError(f"judge {self.judge}: no verdict could be read in any of its replies; "
                               "it must end with [[A]], [[B]] or [[C]]")
        notes: dict[str, Any] = {"judge": self.judge, "against": str(opponent.folder)}
        if self.best_of > 1:
            notes |= {"best_of": self.best_of, "picker": self.picker}
        if len(decided) < len(rows):
            notes["without_verdict"] = len(rows) - len(decided)
        return self.result(metrics_of(decided, model.seed), rows, notes)

    def check(self, file: Path) -> None:
        """Raise :class:`TriviumError` for a row that is no prompt, and for a judge that cannot be asked."""
        if not self.prompts(file, 0):
            raise TriviumError(f"{file}: no rows in {', '.join(self.data)}")
        if self.judge.startswith(ADDRESSES):
            self.endpoint().check()
        for name, folder in (("judge", self.judge), ("picker", self.picker)):
            place = place_of(file, folder)
            if folder not in ("", "rubric") and not folder.startswith(ADDRESSES) and not any(
                    (place / config).is_file() for config in ("config.json", "adapter_config.json")):
                raise TriviumError(f"{file}: {name}: {folder}: no model's folder; name that of a reward model")

    def endpoint(self) -> Endpoint:
        """The endpoint that judges."""
        return Endpoint(self.judge, self.judge_model, self.judge_key)

    def prompts(self, file: Path, seed: int) -> list[Row]:
        """The rows with ``prompt`` as chat messages and ``where``, at most ``limit``."""
        rows: list[Row] = []
        for name in self.data:
            place = place_of(file, name)
            source = place / "evaluation.jsonl" if place.is_dir() else place
            for found, number, row in read_files(file, [str(source)], self.rows):
                where = f"{found}: row {number}"
                if "prompt" not in row:
                    raise TriviumError(f"{where}: the field 'prompt' is missing")
                if self.judge == "rubric" and "truth" not in row:
                    raise TriviumError(f"{where}: the field 'truth' is missing, "
                                       "which the rubric judges by; name another judge")
                rows.append({**row, "where": where, "prompt": messages_of(row["prompt"], where),
                             "cluster": render(self.cluster, row, where) if self.cluster else where})
        return randomness.python(seed, "wins").sample(rows, min(self.limit, len(rows))) if self.limit else rows

    def answer(self, file: Path, rows: Sequence[Row], model: EvaluatedModel, opponent: EvaluatedModel) -> list[Pair]:
        """``samples`` answers of each model to each prompt that is short enough for both."""
        prompts = [row["prompt"] for row in rows]
        answers, others = (one.answer(prompts, self.max_new_tokens, self.name, self.temperature, self.samples * times)
                           for one, times in ((model, self.best_of), (opponent, 1)))
        if self.best_of > 1:
            answers = self.pick(file, prompts, answers, model.progress)
        pairs = [Pair(row, a, b) for row, group, other_group in zip(rows, answers, others, strict=True)
                 if group and other_group for a, b in zip(group, other_group, strict=True)]
        if not pairs:
            raise TriviumError(f"{file}: every prompt is too long for the models")
        return pairs

    def pick(self, file: Path, prompts: Sequence[Any], answers: Sequence[list[str] | None],
             progress: Progress) -> list[list[str] | None]:
        """Of every ``best_of`` answers in a row the one that the reward model `picker` scores highest."""
        progress(0, len(prompts), "picking")
        scores = iter(reward_scores(place_of(file, self.picker),
                                    [(prompt, text) for prompt, group in zip(prompts, answers, strict=True)
                                     for text in group or []]))
        picked: list[list[str] | None] = []
        for group in answers:
            scored = [(next(scores), text) for text in group or []]
            best = [max(scored[start:start + self.best_of], key=lambda one: one[0])[1]
                    for start in range(0, len(scored), self.best_of)]
            picked.append(best if group else None)
        return picked

    def compare(self, file: Path, pairs: Sequence[Pair], progress: Progress) -> Sequence[float | None]:
        """The win of each pair's first answer: 1, 0 or between, and None without a verdict."""
        if self.judge.startswith(ADDRESSES):
            judge = EndpointJudge(self.endpoint())
            verdicts = ask_both_orders(judge, [Asked(pair.row["prompt"], pair.answer, pair.other) for pair in pairs],
                                       lambda done, total: progress(done, total, "judging"))
            return [verdict.preference for verdict in verdicts]
        answers, others = [pair.answer for pair in pairs], [pair.other for pair in pairs]
        return wins_by_points(self.points(file, pairs, answers), self.points(file, pairs, others), answers, others)

    def points(self, file: Path, pairs: Sequence[Pair], texts: Sequence[str]) -> list[float]:
        """The points of one text for each pair's prompt, by the rubric or by a reward model."""
        if self.judge == "rubric":
            return world.points([pair.row for pair in pairs], texts)
        return reward_scores(place_of(file, self.judge), [(pair.row["prompt"], text)
                                                          for pair, text in zip(pairs, texts, strict=True)])


def metrics_of(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """The figures of all pairs with a verdict."""
    wins, clusters = [row["score"] for row in rows], [row["cluster"] for row in rows]
    answers, others = [row["first"] for row in rows], [row["second"] for row in rows]
    return win_rates(wins, answers, others, clusters, seed) | {
        "p_value": paired_test(wins, [1 - win for win in wins], clusters, seed),
        "mean_characters": sum(map(len, answers)) / len(rows),
        "mean_characters_of_the_other": sum(map(len, others)) / len(rows)}
