"""The other side of ``gpu_rlhf.py``: plain loops over transformers' Qwen2, with SDPA and rows padded as TRL pads
them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gpu_rlhf_rows as given
import numpy as np
import torch
import torch.nn.functional as F
from gpu_rlhf_ours import decoder, packed
from gpu_rlhf_rows import Parts, Plan, Shape, timed
from torch import Tensor, nn

from trivium.training.batch import Tree

EACH = {"sft": 8, "dpo": 8, "ppo": 16, "grpo": 16}
"""Rows that go through the model at a time, in DPO pairs: TRL's default of 8, and about as many tokens as ours where
rows are short."""


class Theirs:
    """A model, its optimizer, and the number format that it is used in."""

    def __init__(self, options: dict[str, Any], shape: Shape, plan: Plan, device: torch.device) -> None:
        from transformers import Qwen2Config, Qwen2ForCausalLM
        with device:
            self.model: Any = Qwen2ForCausalLM(Qwen2Config(
                vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner,
                num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
                max_position_embeddings=plan.positions, tie_word_embeddings=True, attn_implementation="sdpa",
                pad_token_id=0, bos_token_id=1, eos_token_id=None))  # type: ignore[call-arg]
        start = decoder(shape, plan.positions, device)
        self.model.load_state_dict(start.state_dict())
        del start
        self.half = options["weights"] == "bfloat16"
        self.model.to(getattr(torch, options["weights"])).train()
        self.device = device

    def ready(self, *models: nn.Module) -> None:
        """Make the optimizer of all trained models."""
        self.weights = [weight for model in models for weight in model.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, lr=given.LEARNING_RATE, weight_decay=0.0, fused=True)

    def autocast(self) -> Any:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=not self.half)

    def update(self) -> None:
        """Clip and move."""
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def padded(rows: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens and mask ``[B, T]``, padded on the right to the longest row."""
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(tokens)
    for number, row in enumerate(rows):
        tokens[number, :len(row)], mask[number, :len(row)] = row, 1
    return torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)


def log_probs_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of each token, ``[B, T]``."""
    return -F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)


def run(options: dict[str, Any], device: torch.device) -> dict[str, float]:
    """One method."""
    shape, plan = given.SHAPES[options["size"]], given.plan_of(options["size"])
    side = Theirs(options, shape, plan, device)
    if options["method"] in ("sft", "dpo"):
        return tuned(options, side, shape, plan)
    return reinforced(options, side, shape, plan)


def tuned(options: dict[str, Any], side: Theirs, shape: Shape, plan: Plan) -> dict[str, float]:
    """SFT or DPO, of the same rows in each update as our side's, in an order of their own."""
    dpo, each = options["method"] == "dpo", EACH[options["method"]] * options["times"]
    batches = packed((given.pairs if dpo else given.documents)(plan, shape.vocabulary), plan)

    def rows_of(step: int) -> list[Tree]:
        trees = [tree for batch in batches(step) for tree in batch.trees]
        return [trees[i] for i in np.random.default_rng(step).permutation(len(trees))]

    reference = copy.deepcopy(side.model).eval().requires_grad_(False) if dpo else None
    side.ready(side.model)

    def step(number: int) -> float:
        trees, loss = rows_of(number), torch.zeros((), device=side.device)
        total = float(len(trees) if dpo else sum(len(tree.responses[0]) for tree in trees))
        for start in range(0, len(trees), each):
            some = trees[start:start + each]
            with side.autocast():
                part = (pair_losses(side.model, reference, some, side.device) if dpo else document_losses(
                    side.model, some, side.device)).sum() / total
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        side.update()
        return float(loss)

    seconds, loss = timed(step, plan, side.device)
    learned = [tree for number in range(plan.warm, plan.warm + plan.steps) for tree in rows_of(number)]
    return {"tokens_per_second": sum(map(len, learned)) / seconds,
            "operations_per_second": given.operations(shape, learned, 3 + dpo) / seconds, "loss": loss,
            "update_seconds": seconds / plan.steps}


def document_losses(model: Any, trees: Sequence[Tree], device: torch.device) -> Tensor:
    """The summed loss of the responses."""
    tokens, mask = padded([np.concatenate([tree.prompt, *tree.responses]) for tree in trees], device)
    labels = tokens.masked_fill(mask == 0, -100)
    for row, tree in enumerate(trees):
        labels[row, :len(tree.prompt)] = -100
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100,
                           reduction="sum")


def pair_losses(model: Any, reference: Any, trees: Sequence[Tree], device: torch.device) -> Tensor:
    """DPO's loss of each pair, chosen and rejected rows in one pass of each model."""
    order = [(tree, k) for k in range(2) for tree in trees]
    tokens, mask = padded([np.concatenate([tree.prompt, tree.responses[k]]) for tree, k in order], device)
    learned = mask[:, 1:].bool()
    for row, (tree, _) in enumerate(order):
        learned[row, :len(tree.prompt) - 1] = False

    def sums(of: Any) -> Tensor:
        logits = of(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        return (log_probs_of(logits[:, :-1], tokens[:, 1:]) * learned).sum(-1)

    with torch.no_grad():
        before = sums(reference)
    ratios = sums(model) - before
    return -F.logsigmoid(given.BETA * (ratios[:len(trees)] - ratios[len(trees):]))


class Value(nn.Module):
    """PPO's value model: a copy of the policy's trunk under a head of one number."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(model.model)
        head = self.trunk.embed_tokens.weight
        self.score = nn.Linear(head.shape[1], 1, bias=False, device=head.device, dtype=head.dtype)

    def forward(self, tokens: Tensor, new: int) -> Tensor:
        """The values before each of the last ``new`` tokens, ``[B, new]``."""
        hidden = self.trunk(input_ids=tokens, use_cache=False).last_hidden_state
        found: Tensor = self.score(hidden[:, -new - 1:-1]).squeeze(-1).float()
        return found


def new_log_probs(model: Any, tokens: Tensor, new: int) -> Tensor:
    """Of the last ``new`` tokens, ``[B, new]``."""
    logits = model(input_ids=tokens, use_cache=False, logits_to_keep=new + 1).logits
    return log_probs_of(logits[:, :-1], tokens[:, -new:])


def advantages_and_returns(rewards: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """GAE with a discount of 1 and lambda 0.95, whitened; all ``[B, T]``."""
    running, found = torch.zeros_like(rewards[:, 0]), []
    for t in reversed(range(rewards.shape[1])):
        following = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros_like(running)
        running = rewards[:, t] + following - values[:, t] + 0.95 * running
        found.append(running)
    advantages = torch.stack(found[::-1], 1)
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8), advantages + values


def reinforced(options: dict[str, Any], side: Theirs, shape: Shape, plan: Plan) -> dict[str, float]:
    """PPO or GRPO. All prompts and responses are of one length, so nothing is padded."""
    ppo, each = options["method"] == "ppo", EACH[options["method"]] * options["times"]
    new, device = plan.new, side.device
    count, samples = (plan.episodes, 1) if ppo else (plan.groups, plan.samples)
    reference = copy.deepcopy(side.model).eval().requires_grad_(False)
    value = Value(side.model) if ppo else None
    side.ready(*((side.model, value) if value else (side.model,)))
    generator = torch.Generator().manual_seed(0)

    def by_parts(compute: Any, tokens: Tensor) -> Tensor:
        with torch.no_grad(), side.autocast():
            return torch.cat([compute(part) for part in torch.split(tokens, each)])

    clock = Parts(device)
    for iteration in range(1 + plan.iterations):
        side.model.eval()
        clock.restart()
        asked = torch.tensor(given.questions(plan, shape.vocabulary, count, iteration), device=device)
        with torch.no_grad(), side.autocast():
            tokens = side.model.generate(asked, attention_mask=torch.ones_like(asked), do_sample=True, temperature=1.0,
                                         top_k=0, top_p=1.0, min_new_tokens=new, max_new_tokens=new,
                                         num_return_sequences=samples)
        clock.end("sampling")
        scores = torch.tensor(given.scores(count, samples, iteration), dtype=torch.float32, device=device)
        old = by_parts(lambda part: new_log_probs(side.model, part, new), tokens)
        before = by_parts(lambda part: new_log_probs(reference, part, new), tokens)
        extra = [old, before]
        if value:
            values = by_parts(lambda part: value(part, new), tokens)
            rewards = -given.KL * (old - before)
            rewards[:, -1] += scores[:, 0]
            extra += [values, *advantages_and_returns(rewards, values)]
        else:
            groups = (scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + 1e-4)
            extra.append(groups.flatten()[:, None].expand(-1, new))
        clock.end("scoring")
        side.model.train()
        for _ in range(given.EPOCHS[options["method"]]):
            order = torch.randperm(len(tokens), generator=generator).to(device)
            for chosen in order.chunk(given.MINIBATCHES):
                for part in torch.split(chosen, each):
                    with side.autocast():
                        loss = policy_loss(side.model, value, tokens[part], [array[part] for array in extra], new)
                    (loss * len(part) / len(chosen)).backward()  # type: ignore[no-untyped-call]
                side.update()
        clock.end("update")
    parts = clock.medians()
    passes = 3 * (1 + ppo) * given.EPOCHS[options["method"]]
    trees = [Tree(np.zeros(plan.prompt), (np.zeros(new),) * samples)] * count
    return {"tokens_per_second": count * samples * new / parts["iteration_seconds"], **parts,
            "operations_per_second": given.operations(shape, trees, passes) / parts["update_seconds"]}


def policy_loss(model: Any, value: Value | None, tokens: Tensor, extra: list[Tensor], new: int) -> Tensor:
    """The clipped surrogate with PPO's value loss, or with GRPO's KL penalty: a mean over tokens."""
    old, before = extra[:2]
    now = new_log_probs(model, tokens, new)
    advantages = extra[3] if value else extra[2]
    ratios = (now - old).exp()
    losses = torch.maximum(-advantages * ratios, -advantages * ratios.clamp(1 - given.CLIP, 1 + given.CLIP))
    if value is None:
        apart = before - now
        return (losses + given.KL * (apart.exp() - 1 - apart)).mean()
    values, returns = extra[2], extra[4]
    found = value(tokens, new)
    clipped = values + (found - values).clamp(-given.CLIP, given.CLIP)
    return (losses + given.VALUE * 0.5 * torch.maximum((found - returns)**2, (clipped - returns)**2)).mean()
