"""The examination: right answers, win rates and drift on held-out prompts."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator

from trivium import randomness
from trivium.errors import TriviumError, nearest
from trivium.evaluation import world
from trivium.evaluation.checkers import Checker
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.run import LoadedTask, answer_rows, examine, load_tasks
from trivium.evaluation.statistics import mean_difference, mean_with_interval
from trivium.evaluation.tasks.load import load_task
from trivium.evaluation.tasks.rows import place_of
from trivium.evaluation.win_rates import win_rates, wins_by_points
from trivium.files import Row, write_rows
from trivium.generation.engine import Sampling
from trivium.model import LanguageModel
from trivium.stage import Code, Context, Input, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import load_language_model, load_reward_model
from trivium.stages.outlook import Cost
from trivium.stages.results.answers import (
    ModelAnswers,
    answer,
    best_of,
    best_of_kl,
    check_answers,
    cluster_of,
    few_shot_answers,
    prompts_that_fit,
    reward_points,
    sampled_kl,
    validation_bits,
)
from trivium.stages.reward_settings import has_model
from trivium.stages.rewards import ModelReward, Reward, RewardSetting, load_reward
from trivium.stages.rows import rows_of
from trivium.stages.training import Measuring
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.machine import prepare


class Evaluate(Measuring):
    """Measure the models on held-out prompts."""

    kind: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 7
    title: ClassVar[Title] = Title("the examination", "评测", "exam")
    models: dict[str, Input] = {}
    """The chat models to measure, each under a name of your own."""
    base: Input | None = None
    """A pretrained model, measured with a few demonstrations in its prompt."""
    baseline: str = "sft"
    """The model, by that name, that others are compared with."""
    prompts: Input = "world"
    """A stage with evaluation prompts."""
    demonstrations: Input = "world"
    """Where the base model's few examples come from."""
    reward: RewardSetting | None = None
    """What judges where no rubric is known: a reward model, or whatever else ppo's `reward` may be."""
    checkers: dict[str, Code] = {}
    """What else is counted on greedy answers: checkers as grpo has them, each under a name of your own, as `{right:
    number}`. Where there is no rubric and no `reward`, the first of them judges."""
    checker_seconds: float = Field(10.0, gt=0)
    """The time that a function of your own may take for one answer."""
    best_of: dict[str, list[int]] = {}
    """Best-of-N beside the models themselves: for a model's name the numbers N. `{sft: [4, 16]}` adds sft-best-of-4 and
    sft-best-of-16, the response that `picker` scores highest of so many; both are of the same samples."""
    picker: RewardSetting | None = None
    """What picks for `best_of`: a reward model, or whatever else ppo's `reward` may be."""
    tokens: Input | None = None
    """A tokenised corpus, on whose validation documents the models' bits per byte are measured: what was kept of
    pretraining."""
    limit: int | None = Field(None, ge=1)
    """Most prompts; null takes all."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the answers that are compared; right answers are counted on greedy ones."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer, in tokens."""
    shots: int = Field(4, ge=0)
    """Examples in the base model's prompt."""
    tasks: list[Input] = []
    """Further tasks, as YAML files: see docs/evaluation.md. Every model and the base model is examined on them."""
    task_limit: int | None = Field(None, ge=1)
    """Most questions of each of a task's groups; null for what the task says."""

    @model_validator(mode="after")
    def _someone_picks(self) -> Evaluate:
        if self.best_of and not self.picker:
            raise ValueError("best_of needs a reward that picks, such as a reward model; name it as `picker`")
        for name, numbers in self.best_of.items():
            if name not in self.models:
                raise ValueError(f"best_of: {name!r} is none of the models{nearest(name, self.models)}")
            if not numbers or min(numbers) < 2:
                raise ValueError(f"best_of.{name}: the best of {numbers} is nothing new; give numbers from 2")
        return self

    def references(self) -> Iterator[tuple[str, str]]:
        """The inputs, and what the tasks' files name: a change in a question is a change of the examination."""
        yield from super().references()
        for number, name in enumerate(self.tasks):
            if Path(name).is_file():
                for place, file in enumerate(load_task(Path(name)).files()):
                    yield f"tasks.{number}.data.{place}", str(place_of(Path(name), file))

    def run(self, context: Context) -> dict[str, object]:
        """Ask every model the same prompts; judge by the hidden rubric where the truth is known, else by the reward,
        or else by the first checker."""
        device = prepare(context.threads)
        if self.models and self.baseline not in self.models:
            raise TriviumError(
                f"evaluate: baseline {self.baseline!r} is none of the models{nearest(self.baseline, self.models)}")
        tasks = load_tasks(context.inputs["tasks"], [f"limit={self.task_limit}"] if self.task_limit else [])
        prompts = rows_of(context.inputs["prompts"], "evaluation.jsonl", ["id", "prompt"], context)[:self.limit]
        with ExitStack() as stack:
            checkers = {label: stack.enter_context(Checker(name, self.checker_seconds))
                        for label, name in self.checkers.items()}
            exam = Examination(self, context, prompts, checkers)
            exam.load_rewards(stack, device)
            models = exam.ask(device)
            exam.judge(models)
        exam.compare(models)
        if self.base and exam.truth_known:
            models.append(exam.ask_base(models[0] if models else None))
        exam.write_answers(models)
        summary: dict[str, object] = {"models": {one.name: one.figures for one in models}, "judge": exam.judge_name,
                                      "prompts": len(exam.prompts)}
        return summary | ({"tasks": run_tasks(self, context, tasks)} if tasks else {})

    def cost(self, estimate: Estimate) -> Cost:
        """Two answers of each model to each prompt, and two passes over the sampled ones; another of the reward model
        that judges."""
        prompts = estimate.outlook(self.prompts).evaluation_prompts
        known = prompts is not None
        count = prompts if prompts is not None else len(estimate.rows(self.prompts, "evaluation.jsonl", ["prompt"]))
        count = min(count, self.limit or count)
        seconds = sum(estimate.answers(model, count * (2 if known else 1), self.max_new_tokens)
                      for model in self.models.values())
        if self.base and known:
            seconds += estimate.answers(self.base, count, self.max_new_tokens, self.shots)
            seconds += 3 * len(self.models) * count * estimate.judging(self.prompts)
        judged = not known and self.reward is not None and has_model(self.reward)
        for name, model in self.models.items():
            passes = 2 * (name != self.baseline) + judged  # how far it has drifted, and what it is worth
            if passes:
                config = estimate.config(model)
                seconds += passes * count * estimate.reading(config, min(256, config.max_positions))
        return Cost(seconds, f"{len(self.models)} models, {count:,} prompts")


@dataclass
class Examination:
    """The same prompts put to every model."""

    settings: Evaluate
    context: Context
    prompts: list[Row]
    checkers: Mapping[str, Checker]
    reward: Reward | None = None
    """What judges, unless the rubric or a checker does."""
    picker: Reward | None = None
    """What picks for ``best_of``."""

    def __post_init__(self) -> None:
        self.truth_known = all("truth" in row for row in self.prompts)
        for checker in self.checkers.values():
            checker.suits(self.prompts)
        if self.settings.models and not (self.truth_known or self.settings.reward or self.checkers):
            raise TriviumError("evaluate: these prompts have no known truth; name a reward to judge the answers, such "
                               "as a reward model (`reward:`)")

    @property
    def clusters(self) -> list[Hashable]:
        """What each prompt stands and falls with: its row's ``cluster`` or ``group``, the fact that it asks for, or
        else prompts of the same words."""
        return [cluster_of(row) for row in self.prompts]

    @property
    def judge_name(self) -> str:
        """What the sampled answers are judged by: rubric, reward model, reward (of another kind) or checker."""
        if self.truth_known:
            return "rubric"
        if self.reward is not None and not isinstance(self.reward, ModelReward):
            return "reward"
        return "reward model" if self.reward is not None or not self.checkers else "checker"

    def load_rewards(self, stack: ExitStack, device: torch.device) -> None:
        """Load what judges and what picks, as far as they are needed; ``stack`` closes them.

        Raises :class:`TriviumError` for a prompt that lacks what one of them asks for, and for a reward model that
        picks with another tokenizer than the baseline's."""
        settings, inputs, precision = self.settings, self.context.inputs, self.settings.number_format()

        def judge(folder: Path, where: str) -> ModelReward:
            model, tokenizer = load_reward_model(folder)
            return ModelReward(model, None, 16, precision, centred=False, tokenizer=tokenizer)

        def picker(folder: Path, where: str) -> ModelReward:
            model, tokenizer = load_reward_model(folder)
            if tokenizer.digest != ChatTokenizer.load(inputs["models"][settings.baseline]).digest:
                raise TriviumError(
                    f"{folder}: the reward model that picks has another tokenizer than {settings.baseline}")
            return ModelReward(model.to(device), None, 4, precision, centred=False)

        if settings.reward and settings.models and not self.truth_known:
            self.reward = stack.enter_context(load_reward(settings.reward, inputs.get("reward"), judge))
            self.reward.check_rows(self.prompts)
        if settings.picker and settings.best_of:
            self.picker = stack.enter_context(load_reward(settings.picker, inputs.get("picker"), picker, "picker"))
            self.picker.check_rows(self.prompts)

    def ask(self, device: torch.device) -> list[ModelAnswers]:
        """The answers of every model, the baseline first, and of the best of its samples where that is wanted.

        Prompts that are too long for the baseline are left out for all."""
        answers: list[ModelAnswers] = []
        baseline: LanguageModel | None = None
        digest = ""
        folders = self.context.inputs["models"]
        for name, folder in sorted(folders.items(), key=lambda item: item[0] != self.settings.baseline):
            model, tokenizer = load_language_model(folder)
            model.to(device)
            if baseline is None:
                baseline, digest = model, tokenizer.digest
                self.prompts = prompts_that_fit(self.prompts, model, tokenizer, self.settings.max_new_tokens,
                                                self.context.progress)
            elif tokenizer.digest != digest:
                raise TriviumError(
                    f"{folder}: another tokenizer than the baseline's; only models of one tokenizer can be compared")
            answers.append(self.ask_model(name, model, tokenizer, baseline))
            answers += self.ask_best_of(name, model, tokenizer)
        return answers

    def ask_model(self, name: str, model: LanguageModel, tokenizer: ChatTokenizer,
                  baseline: LanguageModel) -> ModelAnswers:
        """A model's answers, and all that is measured of the model alone."""
        settings, progress = self.settings, self.context.progress
        sampled = answer(model, tokenizer, self.prompts, self.sampling(settings.temperature), progress, name)
        answers = ModelAnswers(name, sampled.texts, sampled.finished, figures={"mean_length": sampled.mean_length})
        if self.truth_known or self.checkers:
            answers.greedy = answer(model, tokenizer, self.prompts, self.sampling(0.0), progress, name).texts
        for label, checker in self.checkers.items():
            answers.checked[label] = check_answers(checker, self.prompts, answers.greedy)
            answers.figures[label] = mean_with_interval(answers.checked[label], self.context.seed, self.clusters)
        if self.truth_known:
            answers.figures |= self.right_answers(answers.greedy)
        if model is not baseline:
            answers.figures["kl"] = sampled_kl(model, baseline, tokenizer, self.prompts, sampled.tokens,
                                               settings.temperature)
        if settings.tokens:
            answers.figures["bits_per_byte"] = validation_bits(model, tokenizer, self.context.inputs["tokens"],
                                                              self.settings.number_format())
        return answers

    def ask_best_of(self, name: str, model: LanguageModel, tokenizer: ChatTokenizer) -> list[ModelAnswers]:
        """The best of a model's samples, for each number that ``best_of`` names for it."""
        numbers = self.settings.best_of.get(name)
        if not numbers or self.picker is None:
            return []
        best = best_of(model, tokenizer, self.prompts, numbers, self.picker,
                       self.sampling(self.settings.temperature, "best of"), self.context.progress, name)
        answers = []
        for number, sampled in best.items():
            figures: dict[str, Any] = {"mean_length": sampled.mean_length, "best_of": number}
            if name == self.settings.baseline:
                figures["kl"] = best_of_kl(number)
            answers.append(ModelAnswers(f"{name}-best-of-{number}", sampled.texts, sampled.finished, figures=figures))
        return answers

    def ask_base(self, baseline: ModelAnswers | None) -> ModelAnswers:
        """The base model's greedy answers, compared with the baseline's greedy ones."""
        settings, inputs = self.settings, self.context.inputs
        demonstrations = rows_of(inputs["demonstrations"], "demonstrations.jsonl", ["messages"], self.context)
        greedy = few_shot_answers(inputs["base"], demonstrations, self.prompts, settings.shots, settings.max_new_tokens,
                                  self.context.seed)
        answers = ModelAnswers("base", greedy=greedy, figures=self.right_answers(greedy))
        if baseline:
            points, others = world.points(self.prompts, greedy), world.points(self.prompts, baseline.greedy)
            answers.figures |= self.win_rates(points, others, greedy, baseline.greedy)
        return answers

    def judge(self, models: Sequence[ModelAnswers]) -> None:
        """Give points to every sampled answer."""
        for one in models:
            if self.truth_known:
                one.points = world.points(self.prompts, one.samples)
            elif self.reward is not None:
                one.points = reward_points(self.reward, self.prompts, one.samples, one.finished)
            else:
                one.points = check_answers(next(iter(self.checkers.values())), self.prompts, one.samples)

    def compare(self, models: Sequence[ModelAnswers]) -> None:
        """Compare every model with the baseline, the first of them."""
        for one in models:
            if one is not models[0]:
                self.compare_with(one, models[0])
            one.figures["mean_points"] = float(np.mean(one.points))

    def compare_with(self, one: ModelAnswers, baseline: ModelAnswers) -> None:
        """Add a model's win rates over the baseline, and how much more often its greedy answers are right."""
        seed, name = self.context.seed, self.settings.baseline
        one.figures |= self.win_rates(one.points, baseline.points, one.samples, baseline.samples)
        for label, checked in one.checked.items():
            one.figures[f"{label}_difference_vs_{name}"] = mean_difference(checked, baseline.checked[label], seed,
                                                                           self.clusters)
        if self.truth_known and one.greedy:
            one.figures[f"right_difference_vs_{name}"] = world.right_difference(self.prompts, one.greedy,
                                                                                baseline.greedy, seed)

    def win_rates(self, points: Sequence[float], other_points: Sequence[float], answers: Sequence[str],
                  others: Sequence[str]) -> dict[str, Any]:
        """The win rate over the baseline, and the same with the answers' length held equal."""
        wins, name = wins_by_points(points, other_points, answers, others), self.settings.baseline
        rates = win_rates(wins, answers, others, self.clusters, self.context.seed, draws=200)
        return {f"win_rate_vs_{name}": rates["win_rate"],
                f"length_controlled_win_rate_vs_{name}": rates["length_controlled"]}

    def right_answers(self, answers: Sequence[str]) -> dict[str, Any]:
        """The shares of right answers to the embedded world's prompts."""
        return {"right_answers": world.right_answers(self.prompts, answers),
                "right_by_task": world.right_by_task(self.prompts, answers)}

    def sampling(self, temperature: float, *path: str) -> Sampling:
        """How the answers are drawn; ``path`` names a stream of random numbers of its own."""
        return Sampling(temperature=temperature, max_new_tokens=self.settings.max_new_tokens,
                        seed=randomness.derive(self.context.seed, "evaluate", *path))

    def write_answers(self, models: Sequence[ModelAnswers]) -> None:
        """Write ``answers.jsonl``: each prompt with all answers to it and their points."""
        asked_greedily = [one for one in models if one.greedy]
        write_rows(self.context.folder / "answers.jsonl", (
            {"id": row["id"], "task": row.get("task"), "prompt": row["prompt"],
             "answers": {one.name: (one.greedy or one.samples)[number] for one in asked_greedily or models},
             "samples": {one.name: one.samples[number] for one in models if one.samples},
             "points": {one.name: one.points[number] for one in models if one.points}}
            for number, row in enumerate(self.prompts)))



def run_tasks(settings: Evaluate, context: Context, tasks: Sequence[LoadedTask]) -> dict[str, dict[str, object]]:
    """``{model: {task: figures}}`` of the tasks' files, for every model and the base model; the answers go to
    ``tasks.jsonl``. The baseline is not compared with itself."""
    folders = context.inputs["models"] | ({"base": context.inputs["base"]} if settings.base else {})
    results: dict[str, dict[str, object]] = {}
    rows: list[Row] = []
    for name, folder in folders.items():
        model = EvaluatedModel.load(folder, context.seed, context.progress.update)
        baseline = None
        if name != settings.baseline and settings.baseline in folders:
            baseline = EvaluatedModel.load(folders[settings.baseline], context.seed)
        for task, result in examine(model, tasks, baseline):
            results.setdefault(name, {})[task] = result.summary()
            rows += answer_rows(name, result)
    if rows:
        write_rows(context.folder / "tasks.jsonl", rows)
    return results
