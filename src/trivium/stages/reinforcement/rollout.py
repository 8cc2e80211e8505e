"""Practice: a policy answers, is scored, and learns from it. What PPO and GRPO have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError
from trivium.files import written_aside
from trivium.generation.engine import Completion, Sampling, generate
from trivium.generation.vllm import VllmEngine
from trivium.model import LanguageModel, RewardModel
from trivium.model.adapters import Attached
from trivium.objectives.language_modeling import token_log_probs
from trivium.objectives.policy import combined_scores, whiten
from trivium.stage import Context
from trivium.stages.models import prompt_ids, save_trained
from trivium.stages.preferences.reward import score_trees
from trivium.stages.reinforcement.practice import APART, Practice
from trivium.stages.rows import Row, rows_of
from trivium.stages.training import fingerprint
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, hidden_states, make_batch, map_trees, pack
from trivium.training.checkpoint import load_checkpoint, save_checkpoint
from trivium.training.log import Log
from trivium.training.machine import autocast, give_back_freed_memory, resolve_precision
from trivium.training.objective import Objective
from trivium.training.parallel import World, join, whole
from trivium.training.trainer import Trainer
from trivium.world import rubric


def log_probs_of(policy: Any, batch: Batch, temperature: float) -> Tensor:
    """Log-probability of every response token, ``[N]``, at the sampling temperature."""
    hidden = hidden_states(policy.model, batch)
    return token_log_probs(hidden[batch.sources], policy.lm_head.weight, batch.targets, temperature)


class Engine(Protocol):
    """What samples responses: this process, or a server that is sent the weights."""

    def send(self, model: LanguageModel) -> None:
        """Sample from these weights from now on. Called by the first process, whenever the policy has changed."""

    def __call__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Sequence[int],
                 samples: int, keys: Sequence[object]) -> list[list[Completion]]:
        """``samples`` completions of each prompt; ``keys`` name their random streams."""


class Here:
    """The engine of this process: it samples from the model itself."""

    def send(self, model: LanguageModel) -> None:
        """Nothing needs to be sent."""

    def __call__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Sequence[int],
                 samples: int, keys: Sequence[object]) -> list[list[Completion]]:
        """``samples`` completions of each prompt."""
        return generate(model, prompts, sampling, stop, samples, keys=keys)


def engine_of(settings: Practice, context: Context) -> Engine:
    """The engine that the settings name. Raises :class:`TriviumError` for a server and an adapter together."""
    if settings.engine is None:
        return Here()
    if settings.adapter:
        raise TriviumError(
            f"{context.name}: a server is sent whole models only; train without `adapter`, or sample here, without "
            "`engine`"
        )
    given = settings.engine.model_dump()
    return VllmEngine(weights=Path(given.pop("weights")) / context.name, **given)


@dataclass
class Answered:
    """Prompts with what the policy said to them."""

    rows: list[Row]
    trees: list[Tree]
    """A prompt with its K responses."""
    samples: list[list[Completion]]
    """The K completions of each."""

    def texts(self, tokenizer: ChatTokenizer) -> list[list[str]]:
        """The K responses to each prompt, as texts."""
        return [[tokenizer.decode([t for t in sample.tokens if t != tokenizer.end_id]) for sample in group]
                for group in self.samples]


@dataclass
class Rollout:
    """Responses and, for each tree, arrays over the tokens of its responses, one after another."""

    trees: list[Tree]
    arrays: dict[str, list[np.ndarray]]
    """What the objective is given for each token, by name; all float32."""
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    """What is logged: sums and the counts that make them means, over this process's share."""
    example: dict[str, Any] = field(default_factory=dict)
    """Logged as it is: what was said to one of the prompts."""


class Practising:
    """The prompts, the models that act in this process, and the means of asking and measuring them."""

    def __init__(self, settings: Practice, context: Context, policy: LanguageModel, tokenizer: ChatTokenizer,
                 samples: int) -> None:
        self.settings, self.context, self.policy, self.tokenizer, self.samples = settings, context, policy, tokenizer, samples
        self.engine = engine_of(settings, context)
        self.device = policy.lm_head.weight.device
        self.precision = resolve_precision(settings.precision, self.device)
        if self.precision == "bf16-weights":
            raise TriviumError(f"{context.name}: {APART}")
        rows = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt"], context)
        self.ids = {row["id"]: prompt_ids(tokenizer, row["prompt"]) for row in rows}
        self.length = min(settings.length, policy.config.max_positions)
        fitting = [row for row in rows if len(self.ids[row["id"]]) + settings.max_new_tokens * samples <= self.length]
        if len(fitting) < len(rows):
            context.progress.say(
                f"{len(rows) - len(fitting)} of {len(rows)} prompts with {samples} x {settings.max_new_tokens} new "
                "tokens do "
                f"not fit rows of {self.length} and are left out")
        kept = settings.watch_prompts if settings.watch_every else 0
        self.watched, self.prompts = fitting[:kept], fitting[kept:]
        if len(self.prompts) < settings.episodes:
            raise TriviumError(
                f"{context.name}: {len(self.prompts)} prompts fit rows of {self.length} tokens with {samples} x "
                f"{settings.max_new_tokens} new ones, but a rollout needs {settings.episodes}; lower `episodes` or "
                "raise `length`"
            )
        self.known = all("truth" in row for row in self.prompts)
        self.world = World()
        """The processes of the run; each asks its share of the prompts."""

    def chosen(self, iteration: int) -> list[Row]:
        """This process's prompts of an iteration: of the next ones in an order that is drawn anew when all have been
        asked."""
        episodes = self.settings.episodes
        epoch, start = divmod(iteration * episodes, len(self.prompts) - len(self.prompts) % episodes)
        order = randomness.numpy(self.context.seed, "prompts", epoch).permutation(len(self.prompts))
        part, parts = self.world.slice
        return [self.prompts[i] for i in order[start:start + episodes][part::parts]]

    def answer(self, rows: Sequence[Row], samples: int, *stream: object) -> Answered:
        """Ask the policy; ``stream`` names the randomness."""
        sampling = Sampling(temperature=self.settings.temperature, max_new_tokens=self.settings.max_new_tokens,
                            seed=randomness.derive(self.context.seed, *stream))
        groups = self.engine(self.policy, [self.ids[row["id"]].tolist() for row in rows], sampling,
                             [self.tokenizer.end_id], samples, [row["id"] for row in rows])
        trees = [Tree(self.ids[row["id"]], tuple(np.array(sample.tokens, np.int64) for sample in group))
                 for row, group in zip(rows, groups, strict=True)]
        return Answered(list(rows), trees, groups)

    def over_tokens(self, compute: Callable[[Batch], Tensor], trees: Sequence[Tree]) -> list[np.ndarray]:
        """``compute`` for every token of every tree's responses, without gradients."""
        def in_precision(batch: Batch) -> Tensor:
            with autocast(self.precision, self.device):
                return compute(batch)
        return map_trees(in_precision, trees, self.length, self.settings.rows, self.device, per_token=True)

    def log_probs(self, model: LanguageModel, trees: Sequence[Tree]) -> list[np.ndarray]:
        """The log-probability of every token at the sampling temperature."""
        return self.over_tokens(lambda batch: log_probs_of(model, batch, self.settings.temperature), trees)

    def scores(self, reward: RewardModel, answered: Answered, safety: RewardModel | None = None,
               threshold: float = 0.15) -> list[np.ndarray]:
        """The reward model's score of each response, centred on demonstrations; a fixed low one for those that never
        end. With a ``safety`` model the two are combined, and whitened over the rollout, as Llama 2's were."""
        found = self.centred(reward, answered)
        if safety:
            found = over_all([
                combined_scores(helpful, safe, np.array(about_safety(row)), threshold)
                for row, helpful, safe in zip(answered.rows, found, self.centred(safety, answered), strict=True)
            ], self.world)
        return [np.where([sample.finished for sample in group], scores, self.settings.unfinished_score)
                for scores, group in zip(found, answered.samples, strict=True)]

    def centred(self, reward: RewardModel, answered: Answered) -> list[np.ndarray]:
        """The reward model's score of each response, as if all had ended."""
        return [
            scores + reward.shift
            for scores in score_trees(reward, answered.trees, self.length, self.settings.rows, self.precision)
        ]

    def true_points(self, answered: Answered) -> list[np.ndarray]:
        """The hidden rubric's points for each response, where the prompts' truth is known."""
        return [np.array([rubric.score(row, text).total for text in texts])
                for row, texts in zip(answered.rows, answered.texts(self.tokenizer), strict=True)]


def example_of(answered: Answered, scores: Sequence[np.ndarray], tokenizer: ChatTokenizer) -> dict[str, Any]:
    """The first prompt, the first response to it and its score, for the log."""
    return {
        "sample_prompt": "\n".join(str(message["content"]) for message in answered.rows[0]["prompt"]),
        "sample": answered.texts(tokenizer)[0][0], "sample_score": float(scores[0][0])
    }


def about_safety(row: Row) -> bool:
    """Whether a prompt is one of those on which safety comes first: its row says so (``"safety": true``), or the
    world's truth that it is harmful."""
    return bool(row.get("safety", (row.get("truth") or {}).get("harmful", False)))


def over_all(arrays: Sequence[np.ndarray], world: World, shift_mean: bool = True) -> list[np.ndarray]:
    """Whiten arrays as one, over those of all processes."""
    flat = np.concatenate(arrays)
    if world.mesh is None:
        flat = whiten(flat, shift_mean)
    else:
        mean, variance = moments(flat, world)
        scaled = (flat - mean) / (np.sqrt(variance) + 1e-8)
        flat = scaled if shift_mean else scaled + mean
    return np.split(flat, np.cumsum([len(a) for a in arrays])[:-1])


def moments(flat: np.ndarray, world: World) -> tuple[float, float]:
    """The mean and the variance of the values of all processes."""
    if world.mesh is None:
        return float(flat.mean()), float(flat.var())
    count, total, squares = world.add(
        [float(len(flat)), float(flat.sum()), float((flat**2).sum())], torch.device(world.mesh.device_type))
    return total / count, max(squares / count - (total / count)**2, 0.0)


def check_scores(answered: Answered, scores: Sequence[np.ndarray]) -> None:
    """Raise :class:`TriviumError`, naming the prompt, for a score that is not finite."""
    for row, given in zip(answered.rows, scores, strict=True):
        if not np.isfinite(given).all():
            raise TriviumError(
                f"the score of a response to prompt {row['id']} is not finite ({given.tolist()}); look at the reward "
                "model's weights"
            )


def split_tokens(tree: Tree, values: np.ndarray) -> list[np.ndarray]:
    """An array over a tree's tokens, as one for each of its responses."""
    return np.split(values, np.cumsum([len(response) for response in tree.responses])[:-1])


def measures(answered: Answered, new: Sequence[np.ndarray],
             old: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    """What every rollout logs: KL to the reference of a response (k1) and of a token (k3), lengths, the share that
    ended, and how far the engine's log-probabilities are from the training forward's."""
    responses = float(sum(len(group) for group in answered.samples))
    tokens = float(sum(map(len, new)))
    sampled = np.concatenate([sample.log_probs for group in answered.samples for sample in group])
    ratio = np.concatenate(old).astype(np.float64) - np.concatenate(new)
    return {"kl": (float(-ratio.sum()), responses), "kl_per_token": (float((np.exp(ratio) - 1 - ratio).sum()), tokens),
            "length": (tokens, responses),
            "finished": (float(sum(sample.finished for group in answered.samples for sample in group)), responses),
            "log_prob_disagreement": (float(np.abs(sampled - np.concatenate(new)).max()), 1.0)}


def microbatches(rollout: Rollout, chosen: Sequence[int], length: int, rows: int | None, world: World,
                 device: torch.device) -> list[Batch]:
    """Some of a rollout's trees, packed into microbatches of at most ``rows`` rows, as many in every process, with
    their arrays in the order of each one's targets."""
    packed = pack([len(rollout.trees[i]) for i in chosen], length)
    part, parts = world.slice
    most = max(1, *map(int, world.add([float(len(packed) * (one == part)) for one in range(parts)], device)))
    batches, empty = [], np.zeros(0, np.float32)
    for start in range(0, most, rows or most):
        group = packed[start:start + (rows or most)]
        order = [int(chosen[i]) for row in group for i in row]
        batch = make_batch([[rollout.trees[int(chosen[i])] for i in row] for row in group], length)
        batch.extra = {name: torch.from_numpy(np.concatenate([empty, *(arrays[i] for i in order)]).astype(np.float32))
                       for name, arrays in rollout.arrays.items()}
        batches.append(batch)
    return batches


FAR = 50.0
"""Nats a response from the reference from which a policy is said to have run away: of e^50 such responses the reference
would give one."""

Scores = Callable[[Answered], Sequence[np.ndarray]]
"""The score of each response."""


class Watch:
    """The over-optimisation watch: now and then the policy answers prompts that it never trains on, and a judge that it
    does not learn from says how good the answers are: the hidden rubric where the truth is known, else the model
    `gold`.

    Past some point a policy that is optimised against a reward model gets worse by any other measure (Stiennon et al.
    2020, fig. 5; Gao et al. 2023). The best policy so far is kept. One that is worse than it by two standard errors of
    the paired differences is warned of; after `watch_patience` such measurements in a row the practice ends, with the
    best policy. What the policy does learn from (``learned_from``) judges the same answers, to be drawn beside it."""

    def __init__(self, practising: Practising, gold: RewardModel | None, scratch: Path, learned_from: Scores) -> None:
        self.practising, self.gold, self.place = practising, gold, scratch / "best.safetensors"
        self.learned_from = learned_from
        self.best: list[float] = []
        self.worse = 0
        if gold is None and not practising.known and practising.settings.watch_every:
            raise TriviumError(
                f"{practising.context.name}: watch_every needs a judge: prompts whose truth is known, or a reward "
                "model "
                "that the policy does not learn from (`gold:`)")

    @property
    def state(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {"best": self.best, "worse": self.worse}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.best, self.worse = state["best"], state["worse"]

    def __call__(self, done: int, rows: Sequence[Row] | None = None) -> dict[str, float]:
        """Measure after ``done`` iterations."""
        p = self.practising
        answered = p.answer(rows or p.watched, 1, "watch")
        points = p.true_points(answered) if self.gold is None else p.scores(self.gold, answered)
        found = [float(value[0]) for value in points]
        mean = float(np.mean(found))
        if not self.best or mean > np.mean(self.best):
            self.best, self.worse = found, 0
            if p.world.leader:
                with written_aside(self.place) as aside:
                    save_file({name: weight.detach().contiguous() for name, weight in trained(p.policy)}, aside)
        else:
            lost = np.array(self.best) - found
            if lost.mean() > 2 * lost.std(ddof=1) / np.sqrt(len(lost)):
                self.worse += 1
                p.context.progress.say(
                    f"after {done} iterations the answers are worse than the best policy's: {mean:.2f} against "
                    f"{np.mean(self.best):.2f} by a judge it does not learn from; it may be fooling its reward")
            else:
                self.worse = 0
        looks = {"watched_gold": found, "watched_score": [float(value[0]) for value in self.learned_from(answered)]}
        return {
            name: float(measure(values))
            for key, values in looks.items()
            for name, measure in ((key, np.mean), (f"{key}_spread", np.std))
        }

    @property
    def past_the_peak(self) -> bool:
        """Whether the practice should end."""
        return self.worse >= self.practising.settings.watch_patience


def trained(policy: LanguageModel) -> list[tuple[str, Tensor]]:
    """The weights that training changes, by name."""
    return [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]


def practise(model: Any, policy_of: Callable[[Any], Any], practising: Practising, objective: Objective,
             roll_out: Callable[[Practising, Any, int, dict[str, float]], Rollout], *, state: dict[str, float],
             made_from: Sequence[object], extra: Callable[[int, int, int],
                                                          list[Batch]] = lambda update, part, parts: [],
             apart: Callable[[Batch], list[Batch]] = lambda batch: [batch],
             adapt: Callable[[dict[str, float], dict[str, float]],
                             None] = lambda state, metrics: None, learned_from: Scores, gold: RewardModel | None = None,
             attached: Attached | None = None) -> dict[str, object]:
    """Roll out, improve, again: ``iterations`` times, or until the KL budget is spent or the watch says so. Writes the
    policy.

    ``model`` is trained, and under ``torchrun`` spread over the processes; ``roll_out(practising, acting, iteration,
    state)`` asks and measures a whole copy of it in each process, for that process's share of the prompts.
    ``learned_from`` is the reward, for the watch. ``extra`` are further microbatches of an update, and ``apart`` makes
    several of one. ``state`` is what an iteration hands to the next one, changed by ``adapt``. A killed run takes up
    the iteration that was interrupted from its beginning, and as all of it is a pure function of the weights and the
    iteration, ends alike.
    """
    settings, context, device = practising.settings, practising.context, practising.device
    world = join(device, settings.parallel.tensor_parallel)
    part, parts = world.slice
    practising.world = world
    if parts > settings.episodes // settings.minibatches:
        raise TriviumError(
            f"{context.name}: minibatches of {settings.episodes // settings.minibatches} prompts cannot be shared by "
            f"{parts} processes; raise "
            "`episodes`, lower `minibatches` or start fewer")
    acting = model if world.mesh is None else copy.deepcopy(model)
    practising.policy = policy_of(acting)
    updates = settings.epochs * settings.minibatches
    trainer = Trainer(model, settings.optimization, settings.iterations * updates, practising.precision,
                      settings.parallel, world)
    mark = fingerprint(*made_from, practising.prompts, settings.learned(), practising.precision, context.seed)
    context.scratch.mkdir(parents=True, exist_ok=True)
    watch = Watch(practising, gold, context.scratch, learned_from)
    found = load_checkpoint(context.scratch, model, trainer.optimizers, mark, world)
    first, ended = 0, ""
    if found:
        first, ended = found[0], found[1]["ended"]
        state |= found[1]["state"]
        watch.restore(found[1]["watch"])
    log = Log(context.folder / "log.jsonl", first, context.folder /
              "tensorboard" if settings.track else None) if world.leader else None

    def save(iteration: int) -> None:
        save_checkpoint(context.scratch, iteration, model, trainer.optimizers,
                        {"fingerprint": mark, "state": state, "watch": watch.state, "ended": ended}, world=world)

    def refresh() -> None:
        if acting is not model:
            with torch.no_grad():
                for mine, spread in zip(acting.parameters(), model.parameters(), strict=True):
                    mine.copy_(whole(spread))
        acting.eval()
        if world.leader:
            practising.engine.send(policy_of(acting))
        world.add([0.0], device)  # nobody samples before the weights are there

    def trouble(problem: object) -> TriviumError:
        return TriviumError(f"{context.name}: iteration {iteration}: {problem}" +
                            (f" (the checkpoint after iteration {iteration - 1} is kept)" if iteration else ""))

    iteration = first
    while iteration < settings.iterations and not ended:
        refresh()
        try:
            rollout = roll_out(practising, acting, iteration, state)
        except TriviumError as error:
            raise trouble(error) from error
        if trainer.frozen:
            give_back_freed_memory()
        sums = world.add([number for pair in rollout.sums.values() for number in pair], device)
        metrics = {name: sums[2 * i] / max(sums[2 * i + 1], 1e-9) for i, name in enumerate(rollout.sums)}
        if settings.watch_every and iteration % settings.watch_every == 0:
            metrics |= watch(iteration)
            if watch.past_the_peak:
                ended = "past the peak"
        if not np.isfinite(metrics["kl"]):
            raise trouble("the policy's KL to its reference is not finite; lower the learning rate")
        if settings.kl_budget is not None and metrics["kl"] > settings.kl_budget:
            ended = "KL budget"
        if not ended:
            for update, (epoch, share) in enumerate(
                (e, m) for e in range(settings.epochs) for m in range(settings.minibatches)):
                order = randomness.numpy(context.seed, "minibatches", iteration, epoch).permutation(settings.episodes)
                mine = [int(i) // parts for i in order[share::settings.minibatches] if i % parts == part]
                number = iteration * updates + update
                made = microbatches(rollout, mine, practising.length, settings.parallel.rows, world, device)
                metrics |= trainer.step(number,
                                        [*extra(number, part, parts), *(one for batch in made
                                                                        for one in apart(batch))], objective)
                if update == 0:
                    metrics["first_ratio_error"] = metrics.pop("ratio_error")
            metrics.pop("ratio_error", None)
            adapt(state, metrics)
        metrics |= state
        if "skipped" in metrics:
            raise trouble("the gradient is not finite; lower the learning rate")
        for name, least in (("entropy", 0.02), ("length", 1.5)):
            if name in metrics and metrics[name] < least:
                context.progress.say(
                    f"iteration {iteration}: {name} is down to {metrics[name]:.2g}: the policy may have collapsed")
        if metrics["kl"] > FAR:
            context.progress.say(
                f"iteration {iteration}: a response is {metrics['kl']:.0f} nats from the reference: the policy has run "
                "away; raise "
                "kl_coefficient, lower the learning rate, or set a kl_budget")
        if log:
            log(iteration, metrics | rollout.example)
        context.progress.update(iteration + 1, settings.iterations,
                                f"score {metrics['score']:+.2f}  KL {metrics['kl']:.2f}")
        iteration += 1
        save(iteration)
    refresh()
    if ended:
        context.progress.say(f"ended after {iteration - 1} of {settings.iterations} iterations: {ended}")
    if settings.watch_every and not ended:
        last = watch(iteration)
        if log:
            log(iteration, last)
    if not world.leader:
        return {}
    policy = policy_of(acting)
    if settings.watch_every and watch.worse:
        best = load_file(watch.place)
        with torch.no_grad():
            for name, weight in trained(policy):
                weight.copy_(best[name])
        context.progress.say("the best policy by the watch is kept")
    save_trained(policy, attached, practising.tokenizer, context.inputs["model"], context)
    return {
        "episodes": (iteration - bool(ended)) * settings.episodes * practising.samples, "precision": practising.precision, "ended": ended
        or "all iterations", **state
    }
