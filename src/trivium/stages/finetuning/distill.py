"""Distillation: a student learns the distributions of its teacher, over rows that are given and over its own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from trivium import randomness
from trivium.errors import TriviumError
from trivium.generation.engine import Engines, Sampling, generate
from trivium.model import LanguageModel
from trivium.model.merging import vocabulary
from trivium.objectives.distillation import Divergence, divergences
from trivium.objectives.language_modeling import token_log_probs
from trivium.stage import Context, Input, Title
from trivium.stages.cost import Estimate, weights_of
from trivium.stages.finetuning.sft import Demonstrations, Sft
from trivium.stages.models import load_language_model
from trivium.stages.outlook import Cost, Step
from trivium.stages.training import decoder_to_train, full_row
from trivium.training.batch import Batch, Tree, hidden_states, make_batch, pack
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import autocast, resolve_precision
from trivium.training.objective import Objective, Total
from trivium.training.parallel import join


class Distill(Sft):
    """Fine-tune a student on demonstrations, or on its own answers to them, with a teacher's whole distributions."""

    kind: ClassVar[str] = "distill"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("distillation", "蒸馏", "teach")
    teacher: Input = "teacher"
    """The model to learn from, which has the same tokenizer. It is only read."""
    divergence: Divergence = "forward_kl"
    """How far the student is from its teacher: forward_kl covers all that the teacher would say, reverse_kl keeps to
    what it would say most, jensen_shannon lies between them, by `beta`."""
    beta: float = Field(0.5, gt=0, lt=1)
    """Of jensen_shannon: near 0 it goes to the forward divergence, near 1 to the reverse one."""
    temperature: float = Field(1.0, gt=0)
    """Both models' logits are divided by it; above 1 the teacher's unlikely words count more."""
    divergence_share: float = Field(1.0, gt=0, le=1)
    """Weight of the divergence; the rest is that of the usual loss on the demonstrations' own words."""
    on_policy: float = Field(0.0, ge=0, le=1)
    """Share of the updates whose answers the student itself draws, as it is then, to the demonstrations' questions
    (GKD, Agarwal et al. 2024, algorithm 1)."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest answer that the student draws."""

    def objective(self, context: Context, model: Any, device: torch.device) -> Objective:
        """The divergence from the teacher."""
        if self.prompt_loss or self.embedding_noise:
            raise TriviumError(f"{context.name}: prompt_loss and embedding_noise belong to `sft`; leave them out")
        folder = context.inputs["teacher"]
        if vocabulary(folder) != vocabulary(context.inputs["model"]):
            raise TriviumError(f"{context.name}: {folder} has another vocabulary than {context.inputs['model']}; a "
                               "teacher's distributions are over its own. Let it write answers instead, and fine-tune "
                               "on them")
        teacher, _ = load_language_model(folder)
        kind = resolve_precision(self.precision, device)
        rounded = torch.float32 if kind == "float32" else torch.bfloat16
        teacher = teacher.requires_grad_(False).eval().to(device, rounded)
        context.progress.say(f"teacher: {sum(p.numel() for p in teacher.parameters()):,} parameters, the student has "
                             f"{sum(p.numel() for p in model.parameters()):,}")
        return Distillation(teacher, kind, self.divergence, self.beta, self.temperature, self.divergence_share)

    def batches(self, context: Context, model: Any, data: Demonstrations, device: torch.device) -> PackedEpochs:
        """The demonstrations' batches, some of them answered by the student."""
        if not self.on_policy:
            return data.train
        kind = resolve_precision(self.precision, device)
        if join(device, 1).size > 1:
            raise TriviumError(f"{context.name}: on_policy draws answers in one process; start one, or set it to 0")
        if kind == "bf16-weights":
            raise TriviumError(f"{context.name}: on_policy draws from the weights as they are; choose bf16 or float32")
        if self.pretraining is not None:
            raise TriviumError(f"{context.name}: `pretraining` holds no questions to be answered; leave it out, or set "
                               "on_policy to 0")
        longest = max(len(tree.prompt) for tree in data.train.trees) + self.max_new_tokens
        if longest > model.config.max_positions:
            raise TriviumError(f"{context.name}: a question with {self.max_new_tokens} new tokens takes {longest}, "
                               f"more than the model's {model.config.max_positions} positions; lower max_new_tokens")
        return OnPolicyEpochs(data.train, model, data.tokenizer.end_id, self.on_policy, self.max_new_tokens, kind)

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, and the teacher's passes, which are forward alone."""
        alone = super().cost(estimate)
        ratio = weights_of(estimate.config(self.teacher)) / weights_of(estimate.config(self.model))
        more = ", and the teacher's passes" + ("; the student's own answers are not counted" if self.on_policy else "")
        return Cost(alone.seconds * (1 + ratio / 3), alone.basis + more)

    def training_step(self, estimate: Estimate, processes: int) -> Step:
        """Student and teacher, and full rows."""
        config, larger = estimate.config(self.model), estimate.config(self.teacher)
        kind = resolve_precision(self.precision, estimate.device)
        objective = Distillation(None, kind, self.divergence, self.beta, self.temperature, self.divergence_share)

        def models() -> tuple[Any, list[Any]]:
            student, _ = decoder_to_train(config, self.adapter)
            objective.teacher = LanguageModel(larger).requires_grad_(False)
            if kind != "float32":
                objective.teacher.to(torch.bfloat16)
            return student, [objective.teacher]

        return self.step_with(estimate, models, objective, self.full_batches(
            processes, full_row(self.usual_layout(config)[0]), config=config))


class Distillation(Objective):
    """The divergence of a student's distributions from its teacher's, over the places of the answers, and beside it the
    usual loss."""

    def __init__(self, teacher: Any, precision: str, kind: Divergence, beta: float, temperature: float,
                 share: float) -> None:
        self.teacher, self.precision = teacher, precision
        self.kind, self.beta, self.temperature = kind, beta, temperature
        self.weights = {"divergence": share, "loss": 1 - share}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Two means over tokens; the usual loss is none of the student's own words."""
        device = batch.tokens.device
        with torch.no_grad(), autocast(self.precision, device):
            seen = hidden_states(self.teacher.model, batch)[batch.sources]
        hidden = hidden_states(model.model, batch)[batch.sources]
        mine, theirs = model.lm_head.weight, self.teacher.lm_head.weight
        common = min(len(mine), len(theirs))  # padding to a round number of rows belongs to no token
        found = divergences(hidden, mine[:common], seen, theirs[:common], self.kind, self.beta, self.temperature)
        totals = {"divergence": Total(found.sum(), "tokens")}
        if "own" not in batch.counts:
            totals["loss"] = Total(-token_log_probs(hidden, mine, batch.targets).sum(), "tokens")
        return totals


class OnPolicyEpochs(PackedEpochs):
    """Batches of which a share, chosen by the step, holds answers that the model draws when it is asked for them. They
    are a pure function of the step and the weights, so a run that goes on draws what it would have drawn."""

    def __init__(self, data: PackedEpochs, model: LanguageModel, end: int, share: float, new: int,
                 precision: str) -> None:
        super().__init__(data.trees, data.length, data.rows, data.seed, data.finish)
        self.model, self.end, self.share, self.new, self.precision = model, end, share, new, precision
        self.length = max(data.length, max(len(tree.prompt) for tree in data.trees) + new)
        self.engines = Engines()

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> list[Batch]:
        """The batch at a step."""
        if randomness.derive(self.seed, "on policy", step) / 2**64 >= self.share:
            return super().__call__(step, part, parts, rows)
        batches = []
        trees = self.drawn(step)
        packed = [[trees[place] for place in row] for row in pack([len(tree) for tree in trees], self.length)]
        for start in range(0, len(packed), rows or len(packed)):
            batch = make_batch(packed[start:start + (rows or len(packed))], self.length)
            batch.counts["own"] = float(len(batch.trees))
            batches.append(batch)
        return batches

    def drawn(self, step: int) -> list[Tree]:
        """The questions of a batch, drawn anew in each epoch, with the model's own answers."""
        epoch, within = divmod(step, self.steps_per_epoch)
        chosen = [self.trees[place] for row in
                  self.packing(epoch, within * self.rows, (within + 1) * self.rows) for place in row]
        return answered(self.model, chosen, self.end, self.new, randomness.derive(self.seed, "own words", step),
                        self.precision, self.engines)


def answered(model: LanguageModel, trees: Sequence[Tree], end: int, new: int, seed: int, precision: str,
             engines: Engines) -> list[Tree]:
    """The trees' prompts with answers that a model draws at temperature 1."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(precision, model.lm_head.weight.device):
            said = generate(model, [tree.prompt.tolist() for tree in trees], Sampling(max_new_tokens=new, seed=seed),
                            [end], engines=engines)
    finally:
        model.train(training)
    return [Tree(tree.prompt, (np.array(one.tokens, np.int64), )) for tree, (one, ) in zip(trees, said, strict=True)]
