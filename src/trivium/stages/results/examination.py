"""The same prompts put to every model, and what is measured of the answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation import world
from trivium.evaluation.answer_loss import answer_losses, loss_difference, loss_figures
from trivium.evaluation.checkers import Checker
from trivium.evaluation.judges import EndpointJudge, Pair, ask_both_orders
from trivium.evaluation.statistics import mean_difference, mean_with_interval
from trivium.evaluation.win_rates import win_rates, wins_by_points
from trivium.files import Row, write_rows
from trivium.generation.endpoint import Endpoint
from trivium.generation.engine import Sampling
from trivium.model import LanguageModel
from trivium.stage import Context
from trivium.stages.models import load_language_model, load_reward_model
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
from trivium.stages.rewards import ModelReward, Reward, load_reward
from trivium.stages.rows import rows_of
from trivium.tokenizer.chat import ChatTokenizer

if TYPE_CHECKING:
    from trivium.stages.results.evaluate import Evaluate


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
        if self.settings.models and not (self.judged or self.checkers or self.answered or self.settings.tasks):
            raise TriviumError("evaluate: these prompts have no known truth; name a reward to judge the answers, such "
                               "as a reward model (`reward:`), checkers (`checkers:`) or a `judge:`, or bring rows "
                               "with `messages`, which hold the right answers")
        if self.settings.judge is not None:
            self.endpoint.check()

    @property
    def answered(self) -> bool:
        """Whether rows say what the right answer is, so that its loss can be measured."""
        return any("messages" in row for row in self.prompts)

    @property
    def judged(self) -> bool:
        """Whether there is anything that says which of two answers is better."""
        settings = self.settings
        return bool(self.truth_known or settings.judge or settings.reward or settings.checkers)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that judges."""
        one = self.settings.judge
        assert one is not None
        return Endpoint(one.address, one.model, one.key_variable, one.tries, one.timeout, one.pause, one.workers)

    @cached_property
    def names(self) -> list[str]:
        """The names of the embedded world that is asked about."""
        return world.names_of(self.context.inputs["prompts"])

    @property
    def clusters(self) -> list[Hashable]:
        """What each prompt stands and falls with: its row's ``cluster`` or ``group``, the fact that it asks for, or
        else prompts of the same words."""
        return [cluster_of(row) for row in self.prompts]

    @property
    def judge_name(self) -> str:
        """What the sampled answers are judged by: a judge's name, rubric, reward model, reward (of another kind),
        checker or nothing."""
        if self.settings.judge is not None:
            return self.settings.judge.model
        if self.truth_known:
            return "rubric"
        if not self.judged:
            return ""
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
            if tokenizer.digest != ChatTokenizer.load(inputs["models"][settings.compared]).digest:
                raise TriviumError(
                    f"{folder}: the reward model that picks has another tokenizer than {settings.compared}")
            return ModelReward(model.to(device), None, 4, precision, centred=False)

        if settings.reward and settings.models and not self.truth_known and settings.judge is None:
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
        for name, folder in sorted(folders.items(), key=lambda item: item[0] != self.settings.compared):
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
        answers = ModelAnswers(name)
        if self.judged:
            sampled = answer(model, tokenizer, self.prompts, self.sampling(settings.temperature), progress, name)
            answers = ModelAnswers(name, sampled.texts, sampled.finished, figures={"mean_length": sampled.mean_length})
            if model is not baseline:
                answers.figures["kl"] = sampled_kl(model, baseline, tokenizer, self.prompts, sampled.tokens,
                                                   settings.temperature, progress, name)
        if self.truth_known or self.checkers or not self.judged:
            greedy = answer(model, tokenizer, self.prompts, self.sampling(0.0), progress, name)
            answers.greedy = greedy.texts
            answers.figures.setdefault("mean_length", greedy.mean_length)
        if self.answered:
            self.measure_loss(answers, model, tokenizer)
        for label, checker in self.checkers.items():
            answers.checked[label] = check_answers(checker, self.prompts, answers.greedy)
            answers.figures[label] = mean_with_interval(answers.checked[label], self.context.seed, self.clusters)
        if self.truth_known:
            answers.figures |= self.right_answers(answers.greedy)
            answers.broken = world.broken(self.prompts, answers.samples, self.names)
            answers.figures["broken_words"] = mean_with_interval(answers.broken, self.context.seed, self.clusters)
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
            if name == self.settings.compared:
                figures["kl"] = best_of_kl(number)
            answers.append(ModelAnswers(f"{name}-best-of-{number}", sampled.texts, sampled.finished, figures=figures))
        return answers

    def measure_loss(self, answers: ModelAnswers, model: LanguageModel, tokenizer: ChatTokenizer) -> None:
        """Measure the loss of the rows' own answers. Those longer than the model can read are left out."""
        rows = [(place, row) for place, row in enumerate(self.prompts) if "messages" in row]
        losses = answer_losses(model, tokenizer, [row for _, row in rows], lambda done, total: (
            self.context.progress.update(done, total, f"reading answers with {answers.name}")))
        answers.losses = {place: loss for (place, _), loss in zip(rows, losses, strict=True) if loss is not None}
        if len(answers.losses) < len(rows):
            answers.figures["answers_too_long"] = len(rows) - len(answers.losses)
        if answers.losses:
            clusters = self.clusters
            answers.figures |= loss_figures(list(answers.losses.values()),
                                            [clusters[place] for place in answers.losses], self.context.seed)

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
        for one in models if self.judged and self.settings.judge is None else ():
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
            if one.points:
                one.figures["mean_points"] = float(np.mean(one.points))

    def compare_with(self, one: ModelAnswers, baseline: ModelAnswers) -> None:
        """Add a model's win rates over the baseline, and how much more often its greedy answers are right."""
        seed, name, clusters = self.context.seed, self.settings.compared, self.clusters
        if self.settings.judge is not None:
            one.figures |= self.judged_wins(one, baseline)
        elif self.judged:
            one.figures |= self.win_rates(one.points, baseline.points, one.samples, baseline.samples)
        if both := [place for place in one.losses if place in baseline.losses]:
            one.figures[f"answer_loss_difference_vs_{name}"] = loss_difference(
                [one.losses[place] for place in both], [baseline.losses[place] for place in both],
                [clusters[place] for place in both], seed)
        if one.broken and baseline.broken:
            one.figures[f"broken_words_difference_vs_{name}"] = mean_difference(one.broken, baseline.broken, seed,
                                                                                clusters)
        for label, checked in one.checked.items() if baseline.checked else ():
            one.figures[f"{label}_difference_vs_{name}"] = mean_difference(checked, baseline.checked[label], seed,
                                                                           clusters)
        if self.truth_known and one.greedy:
            one.figures[f"right_difference_vs_{name}"] = world.right_difference(self.prompts, one.greedy,
                                                                                baseline.greedy, seed)

    def win_rates(self, points: Sequence[float], other_points: Sequence[float], answers: Sequence[str],
                  others: Sequence[str]) -> dict[str, Any]:
        """The win rate over the baseline, and the same with the answers' length held equal."""
        return self.rates(wins_by_points(points, other_points, answers, others), answers, others, self.clusters)

    def judged_wins(self, one: ModelAnswers, baseline: ModelAnswers) -> dict[str, Any]:
        """The same by the endpoint that judges, asked in both orders. Replies without a verdict are counted. Raises
        :class:`TriviumError` where there is none in any."""
        judge = EndpointJudge(self.endpoint, kept=self.context.scratch / "verdicts.jsonl")
        pairs = [Pair(row["prompt"], first, second)
                 for row, first, second in zip(self.prompts, one.samples, baseline.samples, strict=True)]
        verdicts = ask_both_orders(judge, pairs, lambda done, total: (
            self.context.progress.update(done, total, f"judging {one.name}")))
        wins = [0.5 if pair.first == pair.second else verdict.preference
                for pair, verdict in zip(pairs, verdicts, strict=True)]
        kept = [place for place, win in enumerate(wins) if win is not None]
        if not kept:
            raise TriviumError(f"evaluate: judge {self.judge_name}: no verdict could be read in any of its replies; it "
                               "must end with [[A]], [[B]] or [[C]]")
        clusters = self.clusters
        found = self.rates([float(wins[place] or 0.0) for place in kept], [one.samples[place] for place in kept],
                           [baseline.samples[place] for place in kept], [clusters[place] for place in kept])
        return found | ({"without_verdict": len(wins) - len(kept)} if len(kept) < len(wins) else {})

    def rates(self, wins: Sequence[float], answers: Sequence[str], others: Sequence[str],
              clusters: Sequence[Hashable]) -> dict[str, Any]:
        """Win rates under the names that the summary has for them."""
        rates, name = win_rates(wins, answers, others, clusters, self.context.seed, draws=200), self.settings.compared
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
             **({"answer": row["answer"]} if "answer" in row else {}),
             "answers": {one.name: (one.greedy or one.samples)[number] for one in asked_greedily or models},
             "samples": {one.name: one.samples[number] for one in models if one.samples},
             "points": {one.name: one.points[number] for one in models if one.points},
             "checked": {one.name: {label: values[number] for label, values in one.checked.items()}
                         for one in models if one.checked},
             "losses": {one.name: one.losses[number].mean for one in models if number in one.losses}}
            for number, row in enumerate(self.prompts)))

    def write_pairs(self, models: Sequence[ModelAnswers], count: int) -> int:
        """Write ``pairs.jsonl`` and ``pairs-key.jsonl``, and return how many pairs there were to write: prompts drawn
        without return, the models in turn, and only answers that differ and are not empty, as the app asks."""
        sampled = {one.name: one.samples for one in models if one.samples}
        baseline = sampled.pop(self.settings.compared, [])
        random = randomness.numpy(self.context.seed, "blind pairs")
        pairs: list[Row] = []
        key: list[Row] = []
        names = list(sampled)
        for number in random.permutation(len(self.prompts) if baseline and names else 0).tolist():
            if len(pairs) == count:
                break
            turn = len(pairs) % len(names)
            said = baseline[number].strip()
            name = next((one for one in names[turn:] + names[:turn] if said and sampled[one][number].strip()
                         and sampled[one][number].strip() != said), None)
            if name is None:
                continue
            row = self.prompts[number]
            both = [(name, sampled[name][number]), (self.settings.compared, baseline[number])]
            both = [both[place] for place in random.permutation(2)]
            pairs.append({"id": row["id"], "prompt": row["prompt"], "responses": [text for _, text in both]})
            key.append({"id": row["id"], "models": [model for model, _ in both]})
        write_rows(self.context.folder / "pairs.jsonl", pairs)
        write_rows(self.context.folder / "pairs-key.jsonl", key)
        if len(pairs) < count:
            self.context.progress.say(f"{len(pairs)} of {count} pairs: there are {len(self.prompts)} prompts, and to "
                                      "the others an answer is empty, or every model says what "
                                      f"{self.settings.compared} says")
        return len(pairs)
