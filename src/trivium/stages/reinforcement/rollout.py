"""Rollouts: a policy's responses to prompts, and arrays over their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation.hollow import is_empty, repeats
from trivium.files import Row
from trivium.generation.engine import Sampling
from trivium.model import LanguageModel
from trivium.objectives.language_modeling import token_log_probs
from trivium.stage import Context
from trivium.stages.defaults import row_length
from trivium.stages.models import prompt_ids
from trivium.stages.reinforcement.engines import engine_of
from trivium.stages.reinforcement.settings import APART, ReinforcementSettings
from trivium.stages.rewards import Answers
from trivium.stages.rows import rows_of
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.at_once import tokens_at_once
from trivium.training.batch import Batch, Tree, hidden_states, make_batch, map_trees, pack, split_tree
from trivium.training.epochs import Limit
from trivium.training.machine import autocast, resolve_precision
from trivium.training.parallel import World, join
from trivium.world import rubric

Sums = dict[str, tuple[float, float]]
"""By name: a sum over this process's share, and the count that makes it a mean."""


@dataclass
class Rollout:
    """Responses and, for each tree, arrays over the tokens of its responses, one after another."""

    trees: list[Tree]
    arrays: dict[str, list[np.ndarray]]
    """What the objective is given for each token, by name; all float32 in the end."""
    sums: Sums = field(default_factory=dict)
    """What is logged."""
    example: dict[str, Any] = field(default_factory=dict)
    """Logged as it is: what was said to one of the prompts."""

    def only(self, kept: Sequence[Sequence[bool]]) -> Rollout:
        """The same without the responses that are not ``kept``, so that they count in no mean; a prompt may be left
        with none."""
        def left(parts: Sequence[np.ndarray], stay: Sequence[bool]) -> list[np.ndarray]:
            return [part for part, stays in zip(parts, stay, strict=True) if stays]

        arrays = {name: [np.concatenate([np.zeros(0), *left(split_by_response(tree, array), stay)])
                         for tree, array, stay in zip(self.trees, values, kept, strict=True)]
                  for name, values in self.arrays.items()}
        trees = [Tree(tree.prompt, tuple(left(tree.responses, stay)))
                 for tree, stay in zip(self.trees, kept, strict=True)]
        return Rollout(trees, arrays, self.sums, self.example)


class Rollouts:
    """The prompts of a run, and the means to have them answered and to measure the answers.

    ``policy`` is whole in every process, and each answers its share of the prompts. Raises :class:`TriviumError` where
    too few prompts fit."""

    def __init__(self, settings: ReinforcementSettings, context: Context, policy: LanguageModel,
                 tokenizer: ChatTokenizer, samples: int) -> None:
        settings = settings.settled(context.inputs)
        self.context, self.tokenizer, self.samples = context, tokenizer, samples
        self.policy = policy
        self.engine = engine_of(settings, context)
        self.device = policy.lm_head.weight.device
        self.precision = resolve_precision(settings.precision, self.device)
        if self.precision == "bf16-weights":
            raise TriviumError(f"{context.name}: {APART}")
        self.world: World = join(self.device, settings.parallel.tensor_parallel)
        rows = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt"], context)
        self.ids = {row["id"]: prompt_ids(tokenizer, row["prompt"], row.get("tools")) for row in rows}
        fitting = self._fitting(rows, settings, policy.config.max_positions)
        kept = settings.watch_prompts if settings.watch_every else 0
        self.watched, self.prompts = fitting[:kept], fitting[kept:]
        count = len(self.prompts)
        if settings.minibatches <= count < settings.episodes and "episodes" not in settings.model_fields_set:
            settings = settings.model_copy(update={"episodes": count})
            context.progress.say(f"a rollout asks all {count} prompts (`episodes`)")
        if count < settings.episodes:
            raise TriviumError(f"{context.name}: a rollout needs {settings.episodes} prompts, and there are {count} "
                               "for it; lower `episodes` or bring more prompts")
        self.settings = settings
        groups = [len(self.ids[row["id"]]) + samples * settings.max_new_tokens for row in fitting]
        branch = max(len(self.ids[row["id"]]) for row in fitting) + settings.max_new_tokens
        self.length = row_length(settings.length, groups, max(policy.config.max_positions, branch))
        self.rows = settings.rows or max(1, tokens_at_once(policy.config) // self.length)
        self.truth_is_known = all("truth" in row for row in self.prompts)

    def _fitting(self, rows: Sequence[Row], settings: ReinforcementSettings, positions: int) -> list[Row]:
        """The prompts that leave room for a response; how many do not is said. Raises :class:`TriviumError` where none
        does."""
        limit = Limit(settings.length, positions, f"prompts with {settings.max_new_tokens} new tokens")
        sizes = [len(self.ids[row["id"]]) + settings.max_new_tokens for row in rows]
        over = [size for size in sizes if size > limit.tokens]
        mend = "a smaller `max_new_tokens` takes in more" if limit.tokens == positions else ""
        if len(over) == len(rows):
            raise TriviumError(f"{self.context.name}: no prompt fits: {limit.say_left_out(over, len(rows), mend)[9:]}")
        if over:
            self.context.progress.say(limit.say_left_out(over, len(rows), mend))
        return [row for row, size in zip(rows, sizes, strict=True) if size <= limit.tokens]

    def prompts_of(self, iteration: int) -> list[Row]:
        """This process's prompts of an iteration: of the next ones in an order that is drawn anew when all have been
        asked."""
        part, parts = self.world.slice
        return [self.prompts[i] for i in self._asked(iteration)[part::parts]]

    def further_prompts(self, iteration: int) -> list[Row]:
        """All prompts that are not an iteration's, in an order of its own; the same in every process."""
        asked = set(self._asked(iteration).tolist())
        order = randomness.numpy(self.context.seed, "further prompts", iteration).permutation(len(self.prompts))
        return [self.prompts[i] for i in order.tolist() if i not in asked]

    def _asked(self, iteration: int) -> np.ndarray:
        """The numbers of an iteration's prompts, of all processes."""
        episodes = self.settings.episodes
        epoch, start = divmod(iteration * episodes, len(self.prompts) - len(self.prompts) % episodes)
        order: np.ndarray = randomness.numpy(self.context.seed, "prompts", epoch).permutation(len(self.prompts))
        return order[start:start + episodes]

    def answer(self, rows: Sequence[Row], samples: int, *stream: object) -> Answers:
        """The policy's responses; ``stream`` names the randomness."""
        sampling = Sampling(temperature=self.settings.temperature, max_new_tokens=self.settings.max_new_tokens,
                            seed=randomness.derive(self.context.seed, *stream))
        completions = self.engine(self.policy, [self.ids[row["id"]].tolist() for row in rows], sampling,
                                  [self.tokenizer.end_id], samples, [row["id"] for row in rows],
                                  self.says("responses"))
        return Answers.of_completions(self.tokenizer, rows, [self.ids[row["id"]] for row in rows], completions)

    def over_tokens(self, compute: Callable[[Batch], Tensor], trees: Sequence[Tree]) -> list[np.ndarray]:
        """``compute`` for every token of every tree's responses, without gradients."""
        def in_precision(batch: Batch) -> Tensor:
            with autocast(self.precision, self.device):
                return compute(batch)
        return map_trees(in_precision, trees, self.length, self.rows, self.device, per_token=True,
                         progress=self.says("rows read"))

    def says(self, what: str) -> Callable[[int, int], None]:
        """What tells of a part of an iteration how much of it is done."""
        return lambda done, total: self.context.progress.within(done, total, what)

    def log_probs(self, model: LanguageModel, trees: Sequence[Tree]) -> list[np.ndarray]:
        """The log-probability of every token at the sampling temperature."""
        return self.over_tokens(lambda batch: log_probs_of(model, batch, self.settings.temperature), trees)

    def metrics(self, answers: Answers, scores: Sequence[np.ndarray], log_probs: Sequence[np.ndarray],
                reference_log_probs: Sequence[np.ndarray] | None) -> Sums:
        """What every rollout logs of its answers and their scores."""
        responses = float(sum(map(len, scores)))
        sums = drift_metrics(answers, log_probs, reference_log_probs)
        sums["score"] = (float(sum(given.sum() for given in scores)), responses)
        for name, is_so in (("empty", is_empty), ("repeating", repeats)):
            sums[name] = (float(sum(is_so(text) for texts in answers.texts for text in texts)), responses)
        sums |= {f"score_{name}": (float(sum(given.sum() for given in part)), responses)
                 for name, part in answers.parts.items()}
        return sums

    def gold(self, answers: Answers) -> Sums:
        """The hidden rubric's points, where the prompts' truth is known; nothing elsewhere."""
        if not self.truth_is_known:
            return {}
        points = np.concatenate(true_points(answers))
        return {"gold": (float(points.sum()), float(len(points)))}


def log_probs_of(policy: Any, batch: Batch, temperature: float) -> Tensor:
    """Log-probability of every response token, ``[N]``, at the sampling temperature."""
    hidden = hidden_states(policy.model, batch)
    return token_log_probs(hidden[batch.sources], policy.lm_head.weight, batch.targets, temperature)


def true_points(answers: Answers) -> list[np.ndarray]:
    """The hidden rubric's points for each response to prompts whose truth is known."""
    return [np.array([rubric.score(row, text).total for text in texts])
            for row, texts in zip(answers.rows, answers.texts, strict=True)]


def drift_metrics(answers: Answers, log_probs: Sequence[np.ndarray],
                  reference_log_probs: Sequence[np.ndarray] | None) -> Sums:
    """KL to the reference, where there is one, of a response (k1) and of a token (k3), lengths, the share that ended,
    and how far the engine's log-probabilities are from the training forward's."""
    responses = float(sum(map(len, answers.finished)))
    tokens = float(sum(map(len, log_probs)))
    sampled = np.concatenate([each for group in answers.log_probs for each in group])
    drift: Sums = {}
    if reference_log_probs is not None:
        ratio = np.concatenate(reference_log_probs).astype(np.float64) - np.concatenate(log_probs)
        drift = {"kl": (float(-ratio.sum()), responses),
                 "kl_per_token": (float((np.exp(ratio) - 1 - ratio).sum()), tokens)}
    return drift | {
        "length": (tokens, responses), "finished": (float(sum(map(sum, answers.finished))), responses),
        "log_prob_disagreement": (float(np.abs(sampled - np.concatenate(log_probs)).max()), 1.0)}


def example_of(answers: Answers, scores: Sequence[np.ndarray]) -> dict[str, Any]:
    """The first prompt, the first response to it and its score, for the log."""
    return {"sample_prompt": "\n".join(str(message["content"]) for message in answers.rows[0]["prompt"]),
            "sample": answers.texts[0][0], "sample_score": float(scores[0][0])}


def split_by_response(tree: Tree, values: np.ndarray) -> list[np.ndarray]:
    """An array over a tree's tokens, as one for each of its responses."""
    return np.split(values, np.cumsum([len(response) for response in tree.responses])[:-1])


def in_parts(rollout: Rollout, chosen: Sequence[int], length: int) -> tuple[list[Tree], dict[str, list[np.ndarray]]]:
    """Some of a rollout's trees with their arrays, those longer than ``length`` as several."""
    trees: list[Tree] = []
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in rollout.arrays}
    for number in map(int, chosen):
        if not rollout.trees[number].responses:
            continue
        parts = split_tree(rollout.trees[number], length)
        trees += parts
        ends = np.cumsum([sum(map(len, part.responses)) for part in parts])[:-1]
        for name, values in rollout.arrays.items():
            arrays[name] += np.split(values[number], ends)
    return trees, arrays


def microbatches(rollout: Rollout, chosen: Sequence[int], length: int, rows: int | None, world: World,
                 device: torch.device) -> list[Batch]:
    """Some of a rollout's trees, packed into microbatches of at most ``rows`` rows, as many in every process, with
    their arrays in the order of each one's targets. The responses of a tree that does not fit a row are in several, but
    each response is whole in one: what is learned from it does not depend on the others."""
    trees, values = in_parts(rollout, chosen, length)
    packed = pack([len(tree) for tree in trees], length)
    part, parts = world.slice
    most = max(1, *map(int, world.add([float(len(packed) * (one == part)) for one in range(parts)], device)))
    batches, empty = [], np.zeros(0, np.float32)
    for start in range(0, most, rows or most):
        group = packed[start:start + (rows or most)]
        order = [i for row in group for i in row]
        batch = make_batch([[trees[i] for i in row] for row in group], length)
        batch.extra = {name: torch.from_numpy(np.concatenate([empty, *(arrays[i] for i in order)]).astype(np.float32))
                       for name, arrays in values.items()}
        batches.append(batch)
    return batches
