"""The examination: right answers, win rates and drift on held-out prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from trivium.errors import TriviumError, counted, nearest
from trivium.evaluation.checkers import Checker, check_name
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.run import LoadedTask, answer_rows, examine, load_tasks
from trivium.evaluation.tasks.load import load_task
from trivium.evaluation.tasks.rows import place_of
from trivium.files import Row, write_rows
from trivium.stage import Code, Context, Input, Stage, Title, not_default
from trivium.stages.cost import Estimate
from trivium.stages.endpoint import EndpointSettings
from trivium.stages.outlook import Cost
from trivium.stages.results.exam_rows import exam_rows, held_out_of, same_tokenizer
from trivium.stages.results.examination import Examination
from trivium.stages.reward_settings import has_model
from trivium.stages.rewards import RewardSetting
from trivium.stages.training import Measuring
from trivium.training.machine import prepare


class Evaluate(Measuring):
    """Measure the models on held-out prompts."""

    kind: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 9
    title: ClassVar[Title] = Title("the examination", "评测", "exam")
    models: dict[str, Input] = {}
    """The chat models to measure, each under a name of your own."""
    base: Input | None = None
    """A pretrained model, measured with a few demonstrations in its prompt."""
    baseline: str | None = None
    """The model, by that name, that others are compared with; null takes `before`, else `sft`, else the first."""
    prompts: Input = "world"
    """What is asked: a stage with evaluation prompts, an `sft` stage with held-out rows, or a file of rows with
    `prompt` or `messages`. By default the stage `world`; in a recipe without it, the rows that the
    models' own fine-tuning held out (`validation`), else the prompts that their `imports` held out."""
    demonstrations: Input = "world"
    """Where the base model's few examples come from."""
    reward: RewardSetting | None = None
    """What judges where no rubric is known: a reward model, or whatever else ppo's `reward` may be."""
    judge: EndpointSettings | None = None
    """A model behind an OpenAI-compatible address that says which of two answers is better, asked in both orders; it
    judges before everything else. `{address: "http://HOST/v1", model: NAME, key_variable: MY_KEY}`."""
    checkers: dict[str, Code] | None = None
    """What else is counted on greedy answers: checkers as grpo has them, each under a name of your own, as `{right:
    number, overlap: rouge_l}`. Where there is no rubric, no `judge` and no `reward`, the first of them judges. Null
    takes `exact` and `rouge_l`, which then do not judge, where the rows are held-out conversations."""
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
    pairs: int = Field(0, ge=0)
    """Blind pairs for people: so many prompts, the models in turn, each with a sampled answer of the model and one of
    the baseline. `pairs.jsonl` is what `trivium annotate` takes, in an order that says nothing; `pairs-key.jsonl` says
    whose they are."""
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

    @model_validator(mode="after")
    def _demonstrations_are_shown_to_somebody(self) -> Evaluate:
        if not self.base and not_default(self) & {"demonstrations", "shots"}:
            raise ValueError("`demonstrations` and `shots` are shown to a pretrained model alone, to which the "
                             "questions would be new; name it as `base`, or leave them out")
        return self

    def references(self) -> Iterator[tuple[str, str]]:
        """The inputs, and what the tasks' files name: a change in a question is a change of the examination."""
        yield from ((where, name) for where, name in super().references() if where != "demonstrations" or self.base)
        for number, name in enumerate(self.tasks):
            if Path(name).is_file():
                for place, file in enumerate(load_task(Path(name)).files()):
                    yield f"tasks.{number}.data.{place}", str(place_of(Path(name), file))

    def learned(self) -> dict[str, Any]:
        """The settings that decide what the stage makes. Pairs are among them where there are any."""
        return {name: value for name, value in super().learned().items() if name != "pairs" or value}

    def within(self, earlier: Mapping[str, Stage]) -> Stage:
        """With ``prompts`` that the models' own stages held out, where the recipe has no ``world``. Raises
        :class:`TriviumError` where nothing is held out, and for a checker that there is not."""
        for label, name in (self.checkers or {}).items():
            check_name(name, f"checkers.{label}: ")
        if "prompts" in self.model_fields_set or "world" in earlier or Path("world").exists() or not self.models:
            return self
        if any(model not in earlier and not Path(model).exists() for model in self.models.values()):
            return self  # the check of references names it
        judged = bool(self.judge or self.reward or self.checkers or self.tasks)
        return self.model_copy(update={"prompts": held_out_of(self.models.values(), earlier, judged)})

    @property
    def compared(self) -> str:
        """The name of the model that others are compared with."""
        return self.baseline or next((name for name in ("before", "sft", *self.models) if name in self.models), "sft")

    def run(self, context: Context) -> dict[str, object]:
        """Ask every model the same prompts; judge by the judge that is named or the hidden rubric where the truth is
        known, else by the reward, or else by the first checker. Where the right answers are known, their loss too."""
        device = prepare(context.threads)
        if self.models and self.compared not in self.models:
            raise TriviumError(
                f"evaluate: baseline {self.baseline!r} is none of the models{nearest(self.compared, self.models)}")
        same_tokenizer(context.inputs["models"], self.compared)
        tasks = load_tasks(context.inputs["tasks"], [f"limit={self.task_limit}"] if self.task_limit else [])
        for file, task in tasks:
            task.check(file)
        prompts = exam_rows(context.inputs["prompts"], context)[:self.limit]
        with ExitStack() as stack:
            checkers = {label: stack.enter_context(Checker(name, self.checker_seconds))
                        for label, name in self.checkers_of(prompts).items()}
            exam = Examination(self, context, prompts, checkers)
            exam.load_rewards(stack, device)
            models = exam.ask(device)
            exam.judge(models)
        exam.compare(models)
        if self.base and exam.truth_known:
            models.append(exam.ask_base(models[0] if models else None))
        exam.write_answers(models)
        summary: dict[str, object] = {"models": {one.name: one.figures for one in models}, "judge": exam.judge_name,
                                      "baseline": self.compared, "prompts": len(exam.prompts)}
        if self.pairs:
            summary["pairs"] = exam.write_pairs(models, self.pairs)
        return summary | ({"tasks": run_tasks(self, context, tasks)} if tasks else {})

    def checkers_of(self, prompts: Sequence[Row]) -> dict[str, str]:
        """The checkers, by the names that their figures have."""
        answers = all("messages" in row and "truth" not in row for row in prompts)
        return dict(self.checkers) if self.checkers is not None else DEFAULT_CHECKERS if answers else {}

    def cost(self, estimate: Estimate) -> Cost:
        """Two answers of each model to each prompt, and two passes over the sampled ones; another of the reward model
        that judges."""
        prompts = estimate.outlook(self.prompts).evaluation_prompts
        known = prompts is not None
        count = prompts if prompts is not None else self.count(estimate)
        count = min(count, self.limit or count)
        seconds = sum(estimate.answers(model, count * (2 if known else 1), self.max_new_tokens)
                      for model in self.models.values())
        if self.base and known:
            seconds += estimate.answers(self.base, count, self.max_new_tokens, self.shots)
            seconds += 3 * len(self.models) * count * estimate.judging(self.prompts)
        judged = not known and self.judge is None and self.reward is not None and has_model(self.reward)
        for name, model in self.models.items():
            passes = 2 * (name != self.compared) + judged  # how far it has drifted, and what it is worth
            if passes:
                config = estimate.config(model)
                seconds += passes * count * estimate.reading(config, min(256, config.max_positions))
        return Cost(seconds, f"{counted(len(self.models), 'model')}, {counted(count, 'prompt')}")


    def count(self, estimate: Estimate) -> int:
        """How many rows are asked, where they are no world's: those of a file, or the share that fine-tuning will hold
        out."""
        stage = estimate.stages.get(self.prompts)
        share = getattr(stage, "validation", 0.0)
        if stage is not None and share:
            rows = estimate.rows(str(getattr(stage, "demonstrations", "")), "demonstrations.jsonl", ["messages"])
            return max(1, round(share * len(rows)))
        return len(estimate.rows(self.prompts, "evaluation.jsonl", []))


DEFAULT_CHECKERS = {"exact": "exact", "rouge_l": "rouge_l"}


def run_tasks(settings: Evaluate, context: Context, tasks: Sequence[LoadedTask]) -> dict[str, dict[str, object]]:
    """``{model: {task: figures}}`` of the tasks' files, for every model and the base model; the answers go to
    ``tasks.jsonl``. The baseline is not compared with itself."""
    folders = context.inputs["models"] | ({"base": context.inputs["base"]} if settings.base else {})
    results: dict[str, dict[str, object]] = {}
    rows: list[Row] = []
    for name, folder in folders.items():
        model = EvaluatedModel.load(folder, context.seed, context.progress.update)
        baseline = None
        if name != settings.compared and settings.compared in folders:
            baseline = EvaluatedModel.load(folders[settings.compared], context.seed)
        for task, result in examine(model, tasks, baseline):
            results.setdefault(name, {})[task] = result.summary()
            rows += answer_rows(name, result)
    if rows:
        write_rows(context.folder / "tasks.jsonl", rows)
    return results
