"""The training of a policy from its own responses: what PPO and GRPO have in common around their rollouts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch

from trivium import randomness
from trivium.errors import TriviumError
from trivium.model import LanguageModel
from trivium.model.adapters import Attached
from trivium.model.adapters.folder import weights_digest
from trivium.stages.models import save_trained
from trivium.stages.reinforcement.reference import Reference
from trivium.stages.reinforcement.rollout import Rollout, Rollouts, microbatches
from trivium.stages.reinforcement.watch import Watch, WatchState
from trivium.stages.rewards import Reward
from trivium.stages.training import fingerprint, tracking
from trivium.training.batch import Batch, Tree
from trivium.training.checkpoint import load_checkpoint
from trivium.training.log import Log
from trivium.training.machine import give_back_freed_memory
from trivium.training.objective import Objective
from trivium.training.parallel import whole
from trivium.training.precision import settle
from trivium.training.saving import Saver
from trivium.training.trainer import Trainer

FAR = 50.0
"""Nats a response from the reference from which a policy is said to have run away: of e^50 such responses the reference
would give one."""

FEW_END = 0.5
"""Share of the responses that end, below which that is warned of."""

HOLLOW = 0.2
"""Share of the responses that are empty, or repeat themselves, above which that is warned of."""

COLLAPSED = {"entropy": 0.02, "length": 1.5}
"""Nats a token, and tokens a response, below which a policy is said to have collapsed."""


@dataclass
class RunState:
    """What a checkpoint holds besides weights and the optimizer's state."""

    fingerprint: str
    """Of the data and settings that it belongs to."""
    carried: dict[str, float] = field(default_factory=dict)
    """What an iteration hands to the next one, such as PPO's KL coefficient. It is logged too."""
    watch: WatchState = field(default_factory=WatchState)
    ended: str = ""
    """Why training ended before all iterations; empty as long as it has not."""

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's note holds it."""
        return {"fingerprint": self.fingerprint, "state": self.carried,
                "watch": {"best": self.watch.best, "worse": self.watch.worse}, "ended": self.ended}

    @classmethod
    def from_json(cls, note: Mapping[str, Any]) -> RunState:
        """What :meth:`to_json` wrote."""
        return cls(note["fingerprint"], note["state"], WatchState(**note["watch"]), note["ended"])


class PolicyTraining:
    """A model in training, ``policy`` being the part of it that answers: its optimizer, log, checkpoints and watch.

    Under ``torchrun`` the model is spread over the processes, and each has a whole copy that answers, ``acting``. A
    killed run takes up the iteration that was interrupted from its beginning, and as all of it is a pure function of
    the weights and the iteration, ends alike.

    Within a ``with`` block every :class:`TriviumError` of an iteration names that iteration. ``drifts`` says whether a
    reference is kept, which the policy's drift is measured from and which becomes the policy itself every
    ``reference_every`` iterations (0: never). ``inputs`` are those that name the models that the run
    depends on; ``carried`` is what the first iteration begins with."""

    def __init__(self, rollouts: Rollouts, model: Any, policy: LanguageModel, objective: Objective, reward: Reward,
                 gold: Reward | None, attached: Attached | None, drifts: bool, inputs: tuple[str, ...],
                 carried: Mapping[str, float] | None = None, reference_every: int = 0) -> None:
        self.rollouts, self.model, self.objective = rollouts, model, objective
        settings, context, world = rollouts.settings, rollouts.context, rollouts.world
        self.settings, self.context, self.world = settings, context, world
        self.parallel = settings.at_once(context.inputs, rollouts.length, policy.config)
        self.said: set[str] = set()
        settings.warn(context)
        self.updates = settings.epochs * settings.minibatches
        check_shares(settings.episodes // settings.minibatches, world.slice[1], context.name)
        say = context.progress.say if world.leader else lambda text: None
        settle(model, rollouts.precision, say)
        self.acting, self.policy = (model, policy) if world.mesh is None else acting_copy(model, policy)
        self.attached = attached and attached.within(self.policy)
        self.reference = Reference(self.policy, self.attached, context.scratch, reference_every) if drifts else None
        rollouts.policy = self.policy
        self.trainer = Trainer(model, settings.optimization, settings.iterations * self.updates, rollouts.precision,
                               settings.parallel, world)
        digests = [weights_digest(folder) for name in inputs for folder in folders_in(context.inputs.get(name))]
        mark = fingerprint(*digests, rollouts.prompts, settings.learned(), rollouts.precision, context.seed)
        self.saver = Saver(context.scratch, world, rollouts.device, settings.checkpoints, least=0.0,
                           kept=context.folder / "checkpoints", say=say)
        checkpoint = load_checkpoint(context.scratch, model, self.trainer.optimizers, mark, world, say=say)
        self.iteration, self.state = (checkpoint[0], RunState.from_json(checkpoint[1])) if checkpoint else (
            0, RunState(mark, dict(carried or {})))
        self.saver.saved = self.iteration or None
        self.watch = Watch(rollouts, gold, reward, self.state.watch)
        self.log = Log(context.folder / "log.jsonl", self.iteration, tracking(settings, context),
                       say) if world.leader else None
        self._in_iteration = False

    def __enter__(self) -> Self:
        self.saver.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.saver.__exit__(kind, error, trace)
        self.watch.close()
        if self.log:
            self.log.close()
        if self._in_iteration and isinstance(error, TriviumError):
            saved = self.saver.saved
            kept = f" (the checkpoint after iteration {saved - 1} is kept)" if saved else ""
            raise TriviumError(f"{self.context.name}: iteration {self.iteration}: {error}{kept}") from error

    @property
    def ended(self) -> bool:
        """Whether training has ended before all iterations."""
        return bool(self.state.ended)

    def iterations(self) -> Iterator[int]:
        """The iterations that are left, until the KL budget is spent or the watch says so. The policy that answers is
        up to date in each."""
        self.context.progress.update(self.iteration, self.settings.iterations)
        while self.iteration < self.settings.iterations and not self.ended:
            self._refresh()
            if self.reference:
                self.reference.renew(self.iteration, self.world.leader)
            self._in_iteration = True
            yield self.iteration
            self._in_iteration = False

    def _refresh(self) -> None:
        """Bring the weights that answer up to date."""
        if self.acting is not self.model:
            spread = dict(self.model.named_parameters())
            with torch.no_grad():
                for name, mine in self.acting.named_parameters():
                    if mine.requires_grad:
                        mine.copy_(whole(spread[name]))
        self.acting.eval()
        if self.world.leader:
            self.rollouts.engine.send(self.policy)
        self.world.add([0.0], self.rollouts.device)  # nobody samples before the weights are there

    def reference_log_probs(self, trees: Sequence[Tree]) -> list[np.ndarray] | None:
        """The log-probability of every token under the reference, measured as the policy's are; None without one."""
        if self.reference is None:
            return None
        with self.reference.at_work() as model:
            return self.rollouts.log_probs(model, trees)

    def measure(self, rollout: Rollout) -> dict[str, Any]:
        """A rollout's metrics over all processes, with the watch's where it is its turn. Decides whether this iteration
        ends training. Raises :class:`TriviumError` for a KL that is not finite."""
        if self.trainer.frozen:
            give_back_freed_memory()
        sums = self.world.add([number for pair in rollout.sums.values() for number in pair], self.rollouts.device)
        metrics = {name: sums[2 * i] / max(sums[2 * i + 1], 1e-9) for i, name in enumerate(rollout.sums)}
        if self.settings.watch_every and self.iteration % self.settings.watch_every == 0:
            metrics |= self.watch.measure(self.iteration)
            if self.watch.past_the_peak:
                self.state.ended = "past the peak"
        if not np.isfinite(metrics.get("kl", 0.0)):
            raise TriviumError("the policy's KL to its reference is not finite; lower the learning rate")
        if self.settings.kl_budget is not None and metrics["kl"] > self.settings.kl_budget:
            self.state.ended = "KL budget"
        return metrics

    def minibatches(self, rollout: Rollout) -> Iterator[tuple[int, list[Batch]]]:
        """The number of each update and this process's share of its responses, as microbatches; none when training has
        ended. Every pass has an order of its own."""
        if self.ended:
            return
        s, (part, parts) = self.settings, self.world.slice
        for update in range(self.updates):
            epoch, share = divmod(update, s.minibatches)
            order = randomness.numpy(self.context.seed, "minibatches", self.iteration, epoch).permutation(s.episodes)
            mine = [int(i) // parts for i in order[share::s.minibatches] if i % parts == part]
            yield self.iteration * self.updates + update, microbatches(
                rollout, mine, self.rollouts.length, self.parallel.rows, self.world, self.rollouts.device)

    def step(self, update: int, batches: list[Batch]) -> dict[str, Any]:
        """Improve the model; the metrics of it. The first update of an iteration tells how far its ratios are from
        1."""
        metrics = self.trainer.step(update, batches, self.objective)
        self.rollouts.says("updates")(update % self.updates + 1, self.updates)
        ratio_error = metrics.pop("ratio_error")
        return metrics | ({"first_ratio_error": ratio_error} if update % self.updates == 0 else {})

    def finish(self, metrics: dict[str, Any], example: Mapping[str, Any]) -> None:
        """End an iteration: warn, log, and write a checkpoint. Raises :class:`TriviumError` for an update that was
        skipped."""
        metrics = metrics | self.state.carried
        if "skipped" in metrics:
            raise TriviumError("the gradient is not finite; lower the learning rate")
        self._warn(metrics)
        if self.log:
            self.log(self.iteration, {**metrics, **example})
        self.context.progress.update(self.iteration + 1, self.settings.iterations,
                                     f"score {metrics['score']:+.2f}" +
                                     (f"  KL {metrics['kl']:.2f}" if "kl" in metrics else ""))
        self.iteration += 1
        if self.saver.due(self.iteration):
            self.saver.save(self.iteration, self.model, self.trainer.optimizers, self.state.to_json())

    def _warn(self, metrics: Mapping[str, Any]) -> None:
        """Say where a policy is about to collapse or has run away."""
        for name, least in COLLAPSED.items():
            if name in metrics and metrics[name] < least:
                self.context.progress.say(
                    f"iteration {self.iteration}: {name} is down to {metrics[name]:.2g}: the policy may have collapsed")
        if metrics["finished"] < FEW_END and "finished" not in self.said:
            self.said.add("finished")
            s = self.settings
            judged = "are judged as they are" if s.unfinished_score is None else f"score {s.unfinished_score:g}"
            self.context.progress.say(
                f"WARNING: iteration {self.iteration}: only {metrics['finished']:.0%} of the responses ended within "
                f"`max_new_tokens: {s.max_new_tokens}`; the others {judged} (`unfinished_score`); raise it")
        for name, how in (("empty", "are empty"), ("repeating", "say the same again and again")):
            if metrics[name] > HOLLOW and name not in self.said:
                self.said.add(name)
                self.context.progress.say(
                    f"WARNING: iteration {self.iteration}: {metrics[name]:.0%} of the responses {how}: the reward may "
                    "be fooled; weigh the checker `sound` into it, or lower the learning rate")
        if metrics.get("kl", 0.0) > FAR:
            self.context.progress.say(
                f"iteration {self.iteration}: a response is {metrics['kl']:.0f} nats from the reference: the policy "
                "has run away; raise kl_coefficient, lower the learning rate, or set a kl_budget")

    def save(self) -> dict[str, object]:
        """Write the policy, or the best one where the watch found the last ones worse; the stage's summary. Nothing in
        any process but the first."""
        s, state, iteration = self.settings, self.state, self.iteration
        self._refresh()
        if self.ended:
            self.context.progress.say(f"ended after {iteration - 1} of {s.iterations} iterations: {state.ended}")
        elif s.watch_every:
            last = self.watch.measure(iteration)
            if self.log:
                self.log(iteration, last)
        if not self.world.leader:
            return {}
        if s.watch_every and state.watch.worse:
            self.watch.restore_best(self.policy)
            self.context.progress.say("the best policy by the watch is kept")
        save_trained(self.policy, self.attached, self.rollouts.tokenizer, self.context.inputs["model"], self.context,
                     s.save_dtype)
        episodes = (iteration - self.ended) * s.episodes * self.rollouts.samples
        return {"length": self.rollouts.length, "episodes": episodes, "ended": state.ended or "all iterations",
                "precision": self.rollouts.precision, **state.carried}


def acting_copy(model: Any, policy: LanguageModel) -> tuple[Any, LanguageModel]:
    """A copy of a model and of the policy in it. Frozen weights never change, and are the very same in both."""
    frozen = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    copied: tuple[Any, LanguageModel] = copy.deepcopy((model, policy), frozen)
    return copied


def check_shares(prompts: int, parts: int, name: str) -> None:
    """Raise :class:`TriviumError` where a minibatch has fewer prompts than there are processes."""
    if parts > prompts:
        raise TriviumError(f"{name}: minibatches of {prompts} prompts cannot be shared by {parts} processes; raise "
                           "`episodes`, lower `minibatches` or start fewer")


def folders_in(place: Any) -> list[Any]:
    """The folders that an input names, those within mappings and lists included."""
    if isinstance(place, (Mapping, list)):
        inner = place.values() if isinstance(place, Mapping) else place
        return [folder for inside in inner for folder in folders_in(inside)]
    return [place] if place else []
