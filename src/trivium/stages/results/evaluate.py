"""The examination: right answers, win rates and drift on held-out prompts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from trivium import randomness
from trivium.errors import TriviumError, nearest
from trivium.evaluation.checkers import Checker
from trivium.evaluation.examine import Examinee, examine
from trivium.evaluation.statistics import bootstrap, length_controlled, paired_test
from trivium.evaluation.tasks import load_task
from trivium.files import write_rows
from trivium.generation.engine import Sampling, generate
from trivium.intervals import mean_interval
from trivium.model import LanguageModel
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.cost import Estimate
from trivium.stages.models import load_language_model, load_reward_model, prompt_ids, response_ids
from trivium.stages.outlook import Cost
from trivium.stages.preferences.reward import score_trees
from trivium.stages.pretraining.pretrain import bits_per_byte, pieces
from trivium.stages.reinforcement.rollout import log_probs_of
from trivium.stages.rows import Row, rows_of
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Tree, map_trees
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import prepare, resolve_precision
from trivium.world import rubric


class Evaluate(Stage):
    """Measure the models on held-out prompts."""

    kind: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 5
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
    reward: Input | None = None
    """The reward model that judges where no rubric is known."""
    checkers: dict[str, str] = {}
    """What else is counted on greedy answers: checkers as grpo has them, each under a name of your own, as `{right:
    number}`. Where there is no rubric and no `reward`, the first of them judges."""
    checker_seconds: float = Field(10.0, gt=0)
    """The time that a function of your own may take for one answer."""
    best_of: dict[str, list[int]] = {}
    """Best-of-N beside the models themselves: for a model's name the numbers N. `{sft: [4, 16]}` adds sft-best-of-4 and
    sft-best-of-16, the response that `picker` scores highest of so many; both are of the same samples."""
    picker: Input | None = None
    """The reward model that picks for `best_of`."""
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
            raise ValueError("best_of needs a reward model that picks; name it as `picker`")
        for name, numbers in self.best_of.items():
            if name not in self.models:
                raise ValueError(f"best_of: {name!r} is none of the models{nearest(name, self.models)}")
            if not numbers or min(numbers) < 2:
                raise ValueError(f"best_of.{name}: the best of {numbers} is nothing new; give numbers from 2")
        return self

    def references(self) -> Iterator[tuple[str, str]]:
        """The inputs, and what the tasks' files name: a change in a question is a change of the examination."""
        from trivium.evaluation.tasks import load_task, place_of

        yield from super().references()
        for number, name in enumerate(self.tasks):
            if Path(name).is_file():
                for place, file in enumerate(load_task(Path(name)).files()):
                    yield f"tasks.{number}.data.{place}", str(place_of(Path(name), file))

    def run(self, context: Context) -> dict[str, object]:
        """Ask every model the same prompts; judge by the hidden rubric where the truth is known, else by the reward
        model."""
        device = prepare(context.threads)
        if self.models and self.baseline not in self.models:
            raise TriviumError(
                f"evaluate: baseline {self.baseline!r} is none of the models{nearest(self.baseline, self.models)}")
        prompts = rows_of(context.inputs["prompts"], "evaluation.jsonl", ["id", "prompt"], context)[:self.limit]
        known = all("truth" in row for row in prompts)
        checkers = {label: Checker(name, self.checker_seconds) for label, name in self.checkers.items()}
        for checker in checkers.values():
            checker.suits(prompts)
        checked: dict[str, dict[str, list[float]]] = {}
        results: dict[str, dict[str, object]] = {}
        greedy: dict[str, list[str]] = {}
        sampled: dict[str, list[str]] = {}
        reference: LanguageModel | None = None
        digest = ""
        for name, folder in sorted(context.inputs["models"].items(), key=lambda item: item[0] != self.baseline):
            model, tokenizer = load_language_model(folder)
            model.to(device)
            digest = digest or tokenizer.digest
            if tokenizer.digest != digest:
                raise TriviumError(
                    f"{folder}: another tokenizer than the baseline's; only models of one tokenizer can be compared")
            if not results:
                prompts = those_that_fit(prompts, model, tokenizer, self, context)
            if name == self.baseline:
                reference = model
            sampled[name], tokens = answer(model, tokenizer, prompts, self, self.temperature, context, name)
            results[name] = {"mean_length": float(np.mean([len(t) for t in tokens]))}
            if known or checkers:
                greedy[name], _ = answer(model, tokenizer, prompts, self, 0.0, context, name)
                checked[name] = {
                    label: check_all(checker, prompts, greedy[name])
                    for label, checker in checkers.items()
                }
                results[name] |= {
                    label: mean_interval(found) if max(found) <= 1 and min(found) >= 0 else bootstrap(
                        found, None, context.seed)
                    for label, found in checked[name].items()
                }
            if known:
                results[name]["right_answers"] = right_answers(prompts, greedy[name])
                results[name]["right_by_task"] = by_task(prompts, greedy[name])
            if reference is not None and model is not reference:
                results[name]["kl"] = drift(model, reference, tokenizer, prompts, tokens, self)
            if self.tokens:
                results[name]["bits_per_byte"] = validation_bits(model, tokenizer, context.inputs["tokens"], self)
            for number, (texts, lengths) in best_of(model, tokenizer, prompts, self, context, name).items():
                best = f"{name}-best-of-{number}"
                sampled[best] = texts
                results[best] = {"mean_length": float(np.mean(lengths)), "best_of": number}
                if name == self.baseline:
                    results[best]["kl"] = best_of_kl(number)
        first = next(iter(checkers.values()), None)
        points = {
            name: check_all(first, prompts, answers) if first and not known and not self.reward else judge(
                prompts, answers, known, context.inputs.get("reward"), self)
            for name, answers in sampled.items()
        }
        for checker in checkers.values():
            checker.close()
        for name in points:
            if name != self.baseline:
                results[name] |= against_baseline(points[name], points[self.baseline], sampled[name],
                                                  sampled[self.baseline], self, context.seed)
                for label, found in checked.get(name, {}).items():
                    differences = [a - b for a, b in zip(found, checked[self.baseline][label], strict=True)]
                    results[name][f"{label}_difference_vs_{self.baseline}"] = bootstrap(
                        differences, None, context.seed) | {"n": len(prompts)}
                if known and name in greedy:
                    results[name][f"right_difference_vs_{self.baseline}"] = right_difference(
                        prompts, greedy[name], greedy[self.baseline], context.seed)
            results[name]["mean_points"] = float(np.mean(points[name]))
        if self.base and known:
            base = few_shot(context.inputs["base"],
                            rows_of(context.inputs["demonstrations"], "demonstrations.jsonl", ["messages"], context),
                            prompts, self, context.seed)
            greedy["base"] = base
            results["base"] = {"right_answers": right_answers(prompts, base),
                               "right_by_task": by_task(prompts, base)}
            if self.models:  # it is asked greedily, so it is compared with the baseline's greedy answers
                both = [judge(prompts, greedy[name], known, None, self) for name in ("base", self.baseline)]
                results["base"] |= against_baseline(both[0], both[1], base, greedy[self.baseline], self, context.seed)
        write_rows(context.folder / "answers.jsonl", (
            {"id": row["id"], "task": row.get("task"), "prompt": row["prompt"],
             "answers": {name: answers[i] for name, answers in (greedy or sampled).items()},
             "samples": {name: answers[i] for name, answers in sampled.items()},
             "points": {name: values[i] for name, values in points.items()}} for i, row in enumerate(prompts)))
        tasks = run_tasks(self, context)
        summary: dict[str, object] = {
            "models": results,
            "judge": "rubric" if known else "reward model" if self.reward or first is None else "checker",
            "prompts": len(prompts)
        }
        return summary | ({"tasks": tasks} if tasks else {})

    def cost(self, estimate: Estimate) -> Cost:
        """Two answers of each model to each prompt, and two passes over the sampled ones."""
        prompts = estimate.outlook(self.prompts).evaluation_prompts
        known = prompts is not None
        count = prompts if prompts is not None else len(estimate.rows(self.prompts, "evaluation.jsonl", ["prompt"]))
        count = min(count, self.limit or count)
        seconds = sum(estimate.answers(model, count * (2 if known else 1), self.max_new_tokens)
                      for model in self.models.values())
        if self.base and known:
            seconds += estimate.answers(self.base, count, self.max_new_tokens, self.shots)
            seconds += 3 * len(self.models) * count * estimate.judging(self.prompts)
        for name, model in self.models.items():
            if name != self.baseline:  # how far it has drifted
                config = estimate.config(model)
                seconds += 2 * count * estimate.reading(config, min(256, config.max_positions))
        return Cost(seconds, f"{len(self.models)} models, {count:,} prompts")


def run_tasks(settings: Evaluate, context: Context) -> dict[str, dict[str, object]]:
    """``{model: {task: figures}}`` of the tasks' files, for every model and the base model; the answers go to
    ``tasks.jsonl``."""
    found: dict[str, dict[str, object]] = {}
    tasks = [(path, load_task(path, [f"limit={settings.task_limit}"] if settings.task_limit else []))
             for path in context.inputs["tasks"]]
    folders = context.inputs["models"] | ({"base": context.inputs["base"]} if settings.base else {})
    rows: list[Row] = []
    for name, folder in folders.items() if tasks else []:
        examinee = Examinee.load(folder, context.seed, context.progress.update)
        other = Examinee.load(folders[settings.baseline],
                              context.seed) if name != settings.baseline and settings.baseline in folders else None
        for path, task in tasks:
            if task.kind == "wins" and other is None:
                continue  # the baseline has nothing to win against
            result = examine(task, path, examinee, other)
            found.setdefault(name, {})[task.name] = result.summary()
            rows += [{"model": name, "task": task.name, **row} for row in result.rows]
    if rows:
        write_rows(context.folder / "tasks.jsonl", rows)
    return found


def against_baseline(points: Sequence[float], others: Sequence[float], answers: Sequence[str],
                     other_answers: Sequence[str], settings: Evaluate, seed: int) -> dict[str, Any]:
    """The win rate over the baseline, and the same with the answers' length held equal."""
    wins = [(a > b) + 0.5 * (a == b) for a, b in zip(points, others, strict=True)]
    lengths = [float(len(a) - len(b)) for a, b in zip(answers, other_answers, strict=True)]
    return {
        f"win_rate_vs_{settings.baseline}": mean_interval(wins),
        f"length_controlled_win_rate_vs_{settings.baseline}": length_controlled(wins, lengths, seed=seed, draws=200)
    }


def right_difference(prompts: Sequence[Row], answers: Sequence[str], others: Sequence[str],
                     seed: int) -> dict[str, Any]:
    """How much more often a model is right than the baseline on the same prompts, with a bootstrap interval over facts
    and the p-value of a paired test."""
    first, second = ([float(rubric.is_right(row, text)) for row, text in zip(prompts, texts, strict=True)]
                     for texts in (answers, others))
    clusters = [fact_of(row) for row in prompts]
    difference = bootstrap([a - b for a, b in zip(first, second, strict=True)], clusters, seed)
    return difference | {"n": len(prompts), "p_value": paired_test(first, second, clusters, seed)}


def those_that_fit(prompts: list[Row], model: LanguageModel, tokenizer: ChatTokenizer, settings: Evaluate,
                   context: Context) -> list[Row]:
    """The prompts that leave the model room for an answer; how many do not is said."""
    room = model.config.max_positions - settings.max_new_tokens
    kept = [row for row in prompts if len(prompt_ids(tokenizer, row["prompt"])) <= room]
    if len(kept) < len(prompts):
        context.progress.say(
            f"{len(prompts) - len(kept)} of {len(prompts)} prompts are too long for the model and were left out")
    if not kept:
        raise TriviumError(
            "evaluate: every prompt is too long for the model; raise model.max_positions or lower max_new_tokens")
    return kept


def answer(model: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[Row], settings: Evaluate,
           temperature: float, context: Context, name: str) -> tuple[list[str], list[list[int]]]:
    """A model's answers, as texts and as tokens."""
    sampling = Sampling(temperature=temperature, max_new_tokens=settings.max_new_tokens,
                        seed=randomness.derive(context.seed, "evaluate"))
    groups = generate(model, [prompt_ids(tokenizer, row["prompt"]).tolist()
                              for row in prompts], sampling, [tokenizer.end_id], keys=[row["id"] for row in prompts],
                      progress=lambda done, total: context.progress.update(done, total, f"asking {name}"))
    tokens = [group[0].tokens for group in groups]
    return [tokenizer.decode([t for t in ids if t != tokenizer.end_id]) for ids in tokens], tokens


def check_all(checker: Checker, prompts: Sequence[Row], answers: Sequence[str]) -> list[float]:
    """What a checker says of each answer."""
    return [checker(row, [text])[0] for row, text in zip(prompts, answers, strict=True)]


def best_of(model: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[Row], settings: Evaluate,
            context: Context, name: str) -> dict[int, tuple[list[str], list[int]]]:
    """By each N that is asked for: of the first N of a model's samples the one that the reward model `picker` scores
    highest, as texts and their lengths in tokens. A response that never ends is picked only where none does."""
    numbers = settings.best_of.get(name)
    if not numbers:
        return {}
    reward, reward_tokenizer = load_reward_model(context.inputs["picker"])
    if reward_tokenizer.digest != tokenizer.digest:
        raise TriviumError(f"{context.inputs['picker']}: the reward model that picks has another tokenizer than {name}")
    asked = [prompt_ids(tokenizer, row["prompt"]) for row in prompts]
    groups = generate(
        model, [ids.tolist() for ids in asked],
        Sampling(temperature=settings.temperature,
                 max_new_tokens=settings.max_new_tokens, seed=randomness.derive(context.seed, "evaluate",
                                                                                "best of")), [tokenizer.end_id],
        max(numbers), keys=[row["id"] for row in prompts],
        progress=lambda done, total: context.progress.update(done, total, f"asking {name}, {max(numbers)} times"))
    trees = [
        Tree(ids, tuple(np.array(sample.tokens, np.int64) for sample in group))
        for ids, group in zip(asked, groups, strict=True)
    ]
    device = model.lm_head.weight.device
    found = score_trees(reward.to(device), trees, max(map(len, trees)), 4, resolve_precision("auto", device))
    picked: dict[int, tuple[list[str], list[int]]] = {number: ([], []) for number in numbers}
    for group, scores in zip(groups, found, strict=True):
        order = sorted(range(len(group)), key=lambda i: (not group[i].finished, -scores[i]))
        for number, (texts, lengths) in picked.items():
            tokens = group[next(i for i in order if i < number)].tokens
            texts.append(tokenizer.decode([t for t in tokens if t != tokenizer.end_id]))
            lengths.append(len(tokens))
    return picked


def best_of_kl(number: int) -> float:
    """KL(best of N || the model) in nats: ``log N - (N - 1) / N`` (Stiennon et al. 2020, G.3), an upper bound where
    responses repeat (Beirami et al. 2024)."""
    return math.log(number) - (number - 1) / number


def validation_bits(model: LanguageModel, tokenizer: ChatTokenizer, tokens: Path, settings: Evaluate) -> float:
    """Bits per byte of a tokenised corpus's validation documents."""
    heldout = Tokens.open(tokens / "validation", tokenizer.digest)
    size = sum(len(tokenizer.decode(document[:-1].tolist()).encode()) for document in heldout)
    length = min(256, model.config.max_positions)
    return bits_per_byte(model, PackedEpochs(pieces(heldout, tokenizer, length), length, 16, 0), size,
                         resolve_precision("auto", model.lm_head.weight.device))


def judge(prompts: Sequence[Row], answers: Sequence[str], known: bool, reward: Path | None,
          settings: Evaluate) -> list[float]:
    """Points for each answer: the rubric's total, or the reward model's score."""
    if known:
        return [rubric.score(row, text).total for row, text in zip(prompts, answers, strict=True)]
    if reward is None:
        raise TriviumError(
            "evaluate: these prompts have no known truth; name a reward model to judge the answers (`reward:`)")
    model, tokenizer = load_reward_model(reward)
    trees = [
        Tree(prompt_ids(tokenizer, row["prompt"]), (response_ids(tokenizer, text),))
        for row, text in zip(prompts, answers, strict=True)
    ]
    length = max(len(tree) for tree in trees)
    return [
        float(scores[0])
        for scores in score_trees(model, trees, length, 16, resolve_precision("auto", model.score.weight.device))
    ]


def drift(model: LanguageModel, reference: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[Row],
          tokens: Sequence[Sequence[int]], settings: Evaluate) -> float:
    """KL(model || reference) of a response in nats, estimated from the model's own samples."""
    trees = [
        Tree(prompt_ids(tokenizer, row["prompt"]), (np.array(ids, np.int64),))
        for row, ids in zip(prompts, tokens, strict=True)
    ]
    length = max(len(tree) for tree in trees)
    device = model.lm_head.weight.device
    model.eval()
    reference.eval()
    new = map_trees(lambda batch: log_probs_of(model, batch, settings.temperature), trees, length, 16, device,
                    per_token=True)
    old = map_trees(lambda batch: log_probs_of(reference, batch, settings.temperature), trees, length, 16, device,
                    per_token=True)
    return float(np.mean([(a - b).sum() for a, b in zip(new, old, strict=True)]))


def right_answers(prompts: Sequence[Row], answers: Sequence[str]) -> dict[str, Any]:
    """The share of right answers. Questions about one fact stand and fall together, so they count as one cluster."""
    clusters: dict[Hashable, list[float]] = {}
    for row, text in zip(prompts, answers, strict=True):
        clusters.setdefault(fact_of(row), []).append(float(rubric.is_right(row, text)))
    return mean_interval([sum(right)
                          for right in clusters.values()], [float(len(right))
                                                            for right in clusters.values()]) | {"n": len(prompts)}


def fact_of(row: Row) -> Hashable:
    """What a prompt asks about: questions about one fact stand and fall together."""
    truth = row["truth"]
    return (truth["entity"], truth["attribute"]) if "entity" in truth else str(row["id"])


def by_task(prompts: Sequence[Row], answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Right answers for each family of tasks."""
    found = {}
    for task in sorted({row["task"] for row in prompts}):
        asked = [(row, text) for row, text in zip(prompts, answers, strict=True) if row["task"] == task]
        found[task] = right_answers([row for row, _ in asked], [text for _, text in asked])
    return found


def few_shot(folder: Path, demonstrations: Sequence[Row], prompts: Sequence[Row], settings: Evaluate,
             seed: int) -> list[str]:
    """A pretrained model's answers, prompted with a few demonstrations of the same task as plain text (GPT-3)."""
    model, tokenizer = load_language_model(folder)
    asked = []
    for row in prompts:
        alike = [d for d in demonstrations if d.get("task") == row.get("task")]
        shots = randomness.python(seed, "shots", row["id"]).sample(alike, min(settings.shots, len(alike)))
        text = "".join(f"Question: {d['messages'][0]['content']}\nAnswer: {d['messages'][-1]['content']}\n\n"
                       for d in shots)
        text += f"Question: {row['prompt'][-1]['content']}\nAnswer:"
        room = model.config.max_positions - settings.max_new_tokens - 1
        asked.append([tokenizer.document_id, *tokenizer.encode(text)[-room:]])
    breaks = [i for i in range(tokenizer.vocab_size) if "\n" in tokenizer.decode([i])]
    groups = generate(model, asked, Sampling(temperature=0.0, max_new_tokens=settings.max_new_tokens),
                      [tokenizer.document_id, *breaks])
    return [
        tokenizer.decode([t for t in group[0].tokens if t != tokenizer.document_id]).split("\n")[0].strip()
        for group in groups
    ]
