"""What a pretraining run, and the alignment after it, would take: arithmetic, days, money, energy, data, memory."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from trivium.errors import TriviumError, nearest
from trivium.model.config import ModelConfig
from trivium.planning.flops import forward_flops, parameters, shape_for, six_n_d, training_flops
from trivium.planning.known import INSTRUCTGPT_PETAFLOP_DAYS, INSTRUCTGPT_SOURCE, PETAFLOP_DAY, RUNS, Alignment
from trivium.planning.machines import HOST, PUE, Gpu, gpu_named, utilization
from trivium.planning.memory import STAGES, layouts, memory_per_gpu

EXISTING = 300e12
"""Tokens of public text that people wrote, quality and repetition taken into account: about 300 trillion, 100 to 1,000
with 90 % certainty (Villalobos et al. 2024)."""

TOKENS_A_BOOK = 67_000
"""A trillion tokens are 15 million books."""

CHARACTERS_A_TOKEN = 1.5
"""Chinese characters in a token of a tokenizer with a large Chinese vocabulary (1.5 to 1.8 by Qwen's documentation)."""

OPTIMAL = 20
"""Tokens a parameter that make the most of a given amount of arithmetic (Hoffmann et al. 2022)."""

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def quantity(text: str, what: str) -> float:
    """A number such as ``8B``, ``15T``, ``1.5e12`` or ``561M``. Raises :class:`TriviumError` for anything else, and for
    what is not above zero."""
    found = re.fullmatch(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:[eE][+-]?[0-9]{1,3})?)\s*([a-zA-Z]?)\s*", text)
    if not found or found[2].lower() not in UNITS:
        raise TriviumError(f"{what} {text}: not a number; write it as 8B, 15T, 561M or 1.5e12")
    value = float(found[1].replace(",", "").replace("_", "")) * UNITS[found[2].lower()]
    if not 0 < value < 1e30:
        raise TriviumError(f"{what} {text}: it must be above zero" + (" and finite" if value else ""))
    return value


@dataclass(frozen=True)
class Plan:
    """What is planned. Every check of it is in :func:`make_plan`."""

    name: str
    shape: ModelConfig
    parameters: float
    active: float
    tokens: float
    length: int
    gpu: Gpu
    count: int
    utilization: float
    price: float
    exact: bool
    """Whether ``shape`` is the model's own, rather than one of its size."""


def make_plan(params: str, tokens: str | None, gpu: str, count: int, price: float = 2.0, active: str | None = None,
              reached: float | None = None, length: int = 8192, epochs: float = 1.0) -> Plan:
    """Check what a user asked for. ``params`` is a number or the name of a known run; ``reached`` is the share of the
    peak, by rule when None. Raises :class:`TriviumError` for what cannot be."""
    known = RUNS.get(params.lower())
    if known is None and not params.strip()[:1].isdigit() and params.strip()[:1] not in "-.":
        raise TriviumError(f"--params {params}: neither a number (8B) nor a known run{nearest(params.lower(), RUNS)}")
    n = known.parameters if known else quantity(params, "--params")
    if not 1000 <= n <= 1e15:
        raise TriviumError(f"--params {params}: models have between 1,000 and 10¹⁵ parameters")
    if active is not None and quantity(active, "--active") > n:
        raise TriviumError(f"--active {active}: more than all {n:.3g} parameters")
    met = quantity(active, "--active") if active is not None else known.active if known else n
    d = quantity(tokens, "--tokens") if tokens is not None else known.tokens if known else OPTIMAL * met
    if not 0 < epochs <= 1000:
        raise TriviumError(f"--epochs {epochs}: it must lie between 0 and 1000")
    if d > EXISTING:
        raise TriviumError(
            f"--tokens {tokens}: more than the about 300T tokens of public text there are (Villalobos et al. 2024); "
            "passes over the same text are --epochs")
    if count < 1 or count > 10_000_000:
        raise TriviumError(f"--count {count}: at least 1 GPU is needed" if count <
                           1 else f"--count {count}: more GPUs than are made in a year")
    if not 0 <= price < math.inf:
        raise TriviumError(f"--price {price}: dollars an hour of one GPU; it must be 0 or more")
    if reached is not None and not 0 < reached <= 1:
        raise TriviumError(f"--utilization {reached}: a share of the GPUs' peak, above 0 and at most 1")
    if not 1 <= length <= 10_000_000:
        raise TriviumError(f"--length {length}: tokens in a row; it must be at least 1")
    card = gpu_named(gpu)
    exact = known is not None and known.shape is not None
    shape = known.shape if known and known.shape else shape_for(met)
    return Plan(known.name if known else params, shape, n, met, d * epochs, known.length if known else length, card,
                count, reached or utilization(card, count, n), price, exact)


def alignment_flops(parameters_: float, amounts: Alignment) -> dict[str, float]:
    """Operations of the stages after pretraining, by 6ND and 2ND.

    PPO: for each token of an episode the policy writes (2N), is compared with the reference (2N) and learns (6N), the
    reward model reads (2R), the value model reads and learns (2R + 6R); PPO-ptx learns from ``mixed`` rows of
    pretraining text beside (6N each).
    """
    r = min(amounts.reward_parameters, parameters_)
    episodes = amounts.episodes * amounts.length
    return {
        "sft": six_n_d(parameters_, amounts.demonstrations * amounts.epochs * amounts.length),
        "reward": six_n_d(r, amounts.ranked * amounts.responses * amounts.length),
        "ppo": episodes * (10 * parameters_ + 10 * r + amounts.mixed * 6 * parameters_),
    }


def hours(flops: float, plan: Plan) -> float:
    """GPU-hours for so many operations."""
    return flops / (plan.gpu.peak * plan.utilization) / 3600


def estimate(plan: Plan, amounts: Alignment | None = None) -> dict[str, Any]:
    """Everything that follows from a plan, as JSON. Money is in dollars, energy in megawatt-hours, memory in bytes."""
    rule = six_n_d(plan.active, plan.tokens)
    # A mixture of experts, or a shape that is only near in size: the exact count is scaled to the parameters that a
    # token meets.
    exact = training_flops(plan.shape, plan.tokens,
                           plan.length) * (1.0 if plan.exact else plan.active / parameters(plan.shape))
    work = exact
    gpu_hours = hours(work, plan)
    stages = {"pretraining": work} | alignment_flops(plan.active, amounts or Alignment())
    total = sum(stages.values())
    optimal_n = math.sqrt(work / (6 * OPTIMAL))
    memory = []
    whole = plan.shape if plan.active == plan.parameters else shape_for(plan.parameters)
    for layout in layouts(plan.count):
        for stage in STAGES:
            needed = memory_per_gpu(whole, stage, layout, plan.length)
            memory.append(
                {"layout": layout.name, "stage": stage, **needed, "fits": needed["total"] <= 0.92 * plan.gpu.memory})
    return {
        "parameters": plan.parameters,
        "active_parameters": plan.active,
        "tokens": plan.tokens,
        "flops": {
            "six_n_d": rule, "exact": exact,
            "exact_for": plan.name if plan.exact else "a Llama-like shape of this size",
            "forward_per_token": forward_flops(plan.shape, plan.length)
        },
        "gpu": plan.gpu.name,
        "count": plan.count,
        "peak_flops_per_second": plan.gpu.peak,
        "utilization": plan.utilization,
        "gpu_hours": gpu_hours,
        "days": gpu_hours / plan.count / 24,
        "price_per_gpu_hour": plan.price,
        "money": gpu_hours * plan.price,
        "energy_mwh": gpu_hours * plan.gpu.watts * HOST * PUE / 1e6,
        "books": plan.tokens / TOKENS_A_BOOK,
        "chinese_characters": plan.tokens * CHARACTERS_A_TOKEN,
        "compute_optimal": {
            "tokens_for_these_parameters": OPTIMAL * plan.active, "parameters_for_this_compute": optimal_n,
            "tokens_for_this_compute": OPTIMAL * optimal_n
        },
        "stages": [{
            "stage": name, "flops": flops, "share": flops / total, "gpu_hours": hours(flops, plan),
            "money": hours(flops, plan) * plan.price
        } for name, flops in stages.items()],
        "memory": memory,
        "shape": {
            name: getattr(plan.shape, name)
            for name in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
                         "vocab_size")
        } | {"parameters": parameters(plan.shape)},
    }


def known_runs() -> list[dict[str, Any]]:
    """Every known run beside what the estimate says of it: GPU-hours or, of InstructGPT's stages, whose hours were not
    published, petaflop/s-days."""
    rows: list[dict[str, Any]] = []
    for run in RUNS.values():
        if run.gpu_hours:
            guess = estimate(make_plan(run.name, None, run.gpu, run.count))["gpu_hours"]
            rows.append({
                "run": run.name, "gpu": run.gpu, "unit": "GPU-hours", "published": run.gpu_hours, "estimated": guess,
                "source": run.source
            })
    gpt3 = RUNS["gpt-3"]
    assert gpt3.shape is not None
    stages = {"pretraining": training_flops(gpt3.shape, gpt3.tokens, gpt3.length)} | alignment_flops(
        gpt3.parameters, Alignment())
    for stage, published in INSTRUCTGPT_PETAFLOP_DAYS.items():
        rows.append({
            "run": f"instructgpt-{stage}", "gpu": None, "unit": "petaflop/s-days", "published": published,
            "estimated": stages[stage] / PETAFLOP_DAY, "source": INSTRUCTGPT_SOURCE
        })
    return [row | {"ratio": row["estimated"] / row["published"]} for row in rows]


def large(value: float) -> str:
    """A number in a few digits: 15.0T, 8.03B, 1,234."""
    for limit, unit in ((1e15, ""), (1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= limit and not unit:
            return f"{value:.3g}"
        if value >= limit:
            count = value / limit
            return f"{count:.3g}{unit}" if count < 1000 else f"{count:,.0f}{unit}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def describe(plan: Plan, found: dict[str, Any]) -> str:
    """The estimate as text."""
    flops = found["flops"]
    mixture = f" ({large(plan.active)} met by a token)" if plan.active != plan.parameters else ""
    lines = [
        f"{large(plan.parameters)} parameters{mixture}, {large(plan.tokens)} tokens, {plan.count:,} × {plan.gpu.name} "
        f"({plan.gpu.peak / 1e12:,.0f} TFLOP/s each, {plan.gpu.source})",
        "",
        f"  arithmetic         {flops['exact']:.3g} FLOPs, counted for {flops['exact_for']} with rows of "
        f"{plan.length:,} tokens; 6·N·D = {flops['six_n_d']:.3g}",
        f"  utilization        {plan.utilization:.0%} of the peak",
        f"  time               {found['days']:,.3g} days; {large(found['gpu_hours'])} GPU-hours",
        f"  money              ${large(found['money'])} at ${plan.price:g} a GPU-hour",
        f"  energy             {found['energy_mwh']:,.3g} MWh "
        f"({plan.gpu.watts:g} W a GPU, servers × {HOST}, data centre × {PUE})",
        f"  the text           {large(found['books'])} books, or {large(found['chinese_characters'])} Chinese "
        f"characters (at {CHARACTERS_A_TOKEN} a token)",
        f"  compute-optimal    {large(found['compute_optimal']['tokens_for_these_parameters'])} tokens for these "
        "parameters; this arithmetic would best go to "
        f"{large(found['compute_optimal']['parameters_for_this_compute'])} parameters and "
        f"{large(found['compute_optimal']['tokens_for_this_compute'])} tokens",
        "",
        "  stage              FLOPs   share     GPU-hours         money   (alignment in InstructGPT's amounts)",
    ]
    for row in found["stages"]:
        lines.append(
            f"  {row['stage']:14} {row['flops']:9.2g} {row['share']:7.2%} {large(row['gpu_hours']):>13} "
            f"{'$' + large(row['money']):>13}"
        )
    lines += [
        "",
        f"  memory of a GPU in GB, of {plan.gpu.memory / 1e9:g}; "
        f"a row of {plan.length:,} tokens, blocks recomputed (* does not fit)",
        "  " + f"{'':42}" + "".join(f"{stage:>11}" for stage in STAGES)
    ]
    for name in dict.fromkeys(row["layout"] for row in found["memory"]):
        cells = "".join(f"{row['total'] / 1e9:10,.1f}{' ' if row['fits'] else '*'}" for row in found["memory"]
                        if row["layout"] == name)
        lines.append(f"  {name:42}{cells}")
    return "\n".join(lines)
