"""The settings of reinforcement learning that its methods have in common."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from trivium.model import LanguageModel
from trivium.model.adapter_settings import AdapterSettings
from trivium.stage import Input
from trivium.stages.chat_settings import FromChat
from trivium.stages.cost import Estimate, weights_of
from trivium.stages.defaults import row_length
from trivium.stages.outlook import Cost, Outlook
from trivium.stages.reward_settings import RewardSetting
from trivium.stages.training import full_row
from trivium.training.batch import Batch, make_batch, pack, split_tree
from trivium.training.epochs import longest_branch
from trivium.training.objective import Objective
from trivium.training.settings import Optimization
from trivium.training.trainer import Trainer

APART = ("precision bf16-weights would set the policy apart from its reference, whose weights are float32; choose bf16")


class Server(BaseModel):
    """A vLLM server that samples in the place of this process; docs/scale.md says how it is started."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    address: str
    """Such as http://127.0.0.1:8000, without /v1."""
    model: str
    """The name it serves the model by."""
    weights: str
    """A folder that this process and the server both see: the policy is handed over in it."""
    key_variable: str = ""
    """The environment variable that holds the server's key, if it wants one."""
    tries: int = Field(6, ge=1)
    """Attempts at each request; between them the pause doubles."""
    pause: float = Field(1.0, ge=0)
    """Seconds before the second attempt."""
    timeout: float = Field(600.0, gt=0)
    """Seconds to wait for a reply."""
    workers: int = Field(32, ge=1)
    """Prompts that are asked at a time."""


class ReinforcementSettings(FromChat):
    """What the stages have in common in which a policy learns from its own responses."""

    unlearned: ClassVar[frozenset[str]] = FromChat.unlearned | {"engine"}
    engine: Server | None = None
    """A vLLM server that samples; null samples here."""
    model: Input = "sft"
    """The policy to start from, and the reference."""
    prompts: Input = "world"
    """A stage with prompts."""
    safety: Input | None = None
    """A second reward model, of safety, combined with the one that is learned from as in Llama 2: its score counts on
    prompts marked `"safety": true` and for responses that it finds unsafe, the first model's elsewhere; scores are then
    whitened over a rollout. null for none."""
    safety_threshold: float = Field(0.15, ge=0, le=1)
    """The probability of being safe, by the safety model, below which a response counts as unsafe."""
    gold: RewardSetting | None = None
    """What the policy does not learn from: the judge of the watch. Whatever `reward` may be, such as a second reward
    model. null: the rubric where the prompts' truth is known, `right_and_sound` where each has its `check`."""
    length: int | None = Field(None, ge=2)
    """Tokens in one packed row: a prompt and one response must fit, and the responses to a prompt that do not fit
    together are spread over several rows. null: what the longest prompt needs with all its responses, up to the model's
    positions."""
    rows: int | None = Field(None, ge=1)
    """Packed rows in a pass without gradients. null: as many as hold 4,096 tokens."""
    optimization: Optimization = Optimization(epsilon=1e-5)
    """The optimizer and its schedule; PPO wants a larger epsilon (Huang et al. 2024)."""
    iterations: int = Field(10, ge=1)
    """Rollouts."""
    episodes: int = Field(128, ge=1)
    """Prompts in a rollout; all that there are, where that is fewer and none is set."""
    epochs: int = Field(4, ge=1)
    """Passes over each rollout."""
    minibatches: int = Field(2, ge=1)
    """Updates in each pass."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; log-probabilities everywhere are those at this temperature."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, in tokens."""
    sampling_precision: Literal["float32", "bf16"] = "float32"
    """Number format in which responses are sampled here, whatever they are trained in. bf16 halves what a GPU reads for
    each token and what it keeps of the past; a LoRA adapter is folded into what is sampled from. Models with other
    adapters, and of other families, are sampled in float32."""
    kl_budget: float | None = Field(None, gt=0)
    """End when a rollout's KL to the reference, in nats a response, is beyond it."""
    unfinished_score: float | None = -1.0
    """The score of a response that never ends, whoever judges it: a model, a checker, a function or a sum; null leaves
    it to what judges."""
    watch_every: int = Field(0, ge=0)
    """Rollouts between two looks of the over-optimisation watch; 0 for none."""
    watch_prompts: int = Field(64, ge=2)
    """Prompts kept out of training for the watch."""
    watch_patience: int = Field(2, ge=1)
    """Looks in a row that must find the policy worse than the best one before training ends."""
    adapter: AdapterSettings | None = None
    """Train adapters; the reference (and, in PPO, the reward model) is then the same weights with them off. null trains
    all weights. A reward model that is itself an adapter on `model` shares those weights too."""

    @property
    def update_slices(self) -> tuple[int, str]:
        """The prompts of an update: a slice is one of them."""
        return (self.episodes // self.minibatches,
                "prompts (`episodes` over `minibatches`); raise `episodes`, lower `minibatches`")

    @model_validator(mode="after")
    def _enough_episodes(self) -> ReinforcementSettings:
        if self.minibatches > self.episodes:
            raise ValueError(f"minibatches ({self.minibatches}) are more than episodes ({self.episodes})")
        if self.precision == "bf16-weights":
            raise ValueError(APART)
        if self.sampling_precision != "float32":
            if self.engine:
                raise ValueError("sampling_precision is for what is sampled here; leave it out beside `engine`, whose "
                                 "server has its own")
            if self.adapter and self.adapter.kind != "lora":
                raise ValueError(f"sampling_precision: an adapter of the kind {self.adapter.kind} cannot be folded "
                                 "into the weights that are sampled from; leave it out, or choose lora")
        return self

    def outlook(self, estimate: Estimate) -> Outlook:
        """A model like the one it starts from."""
        return Outlook(like=self.model, adapter=self.adapter)

    def rollout_cost(self, estimate: Estimate, samples: int, passes: int, model: Callable[[LanguageModel], nn.Module],
                      objective: Objective, extra: Sequence[str],
                      cut: Callable[[Batch], list[Batch]] = lambda batch: [batch]) -> Cost:
        """The cost of rollouts of ``samples`` responses to a prompt, each read in ``passes`` passes without gradients,
        and of the updates. One update is timed: of what ``model`` makes of a random policy, on a minibatch with the
        fields ``extra``, of which ``cut`` makes microbatches."""
        config = estimate.config(self.model)
        prompts, most = max(1, self.episodes // self.minibatches), self.length or config.max_positions
        groups = [tree for tree in estimate.dialogues(prompts, samples) if longest_branch(tree) <= most]
        length = self.length or row_length(None, list(map(len, groups)) or [most], most)
        trees = [part for tree in groups for part in split_tree(tree, length)] or [full_row(length)]

        def update() -> float:
            made = model(LanguageModel(config).initialise(0)).to(estimate.device)
            trainer, times = Trainer(made, self.optimization, 1000), list[float]()
            for step in range(3):
                rows = [[trees[i] for i in row] for row in pack([len(tree) for tree in trees], length)]
                batch = make_batch(rows, length)
                batch.extra = {name: torch.zeros(len(batch.targets)) for name in extra}
                begun = time.monotonic()
                trainer.step(step, cut(batch), objective)
                times.append(time.monotonic() - begun)
            return statistics.mean(times[1:])

        count = self.episodes * samples
        roll = estimate.answers(self.model, count, self.max_new_tokens)
        learn = self.epochs * self.minibatches * estimate.once((self.kind, config, length, prompts, samples), update)
        learn += passes * count * estimate.reading(config, length)
        saving = 2 * estimate.saving(weights_of(config))
        return Cost(self.iterations * (roll + learn + saving) + 1.0,
                    f"{self.iterations} iterations of {roll:.1f} s of answers and {learn:.1f} s of learning")
