"""Human preferences, here from simulated annotators: several responses to each prompt, ranked."""

from __future__ import annotations

from trivium import randomness
from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.generation.engine import Sampling, generate
from trivium.pipeline import Context
from trivium.stages.common import load_language_model, prompt_ids, rows_of
from trivium.stages.settings import Preferences
from trivium.training.machine import prepare
from trivium.world.panel import Panel, agreement

VERSION = 3


def run(settings: Preferences, context: Context) -> dict[str, object]:
    """Write ``comparisons.jsonl``: a ranking a row, with its prompt, responses, annotator and split."""
    device = prepare(context.threads)
    model, tokenizer = load_language_model(context.inputs["model"])
    prompts = rows_of(context.inputs["prompts"], "prompts.jsonl", ["id", "prompt", "truth"], context)
    prompts = prompts[settings.skip:settings.skip + settings.count]
    if not prompts:
        raise TriviumError(f"{context.name}: no prompt is left after skipping {settings.skip}; lower `skip`, or make more prompts")
    wanted = [randomness.python(context.seed, "responses", row["id"]).randint(settings.fewest, settings.most) for row in prompts]
    sampling = Sampling(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens, seed=context.seed)
    completions = generate(model.to(device), [prompt_ids(tokenizer, row["prompt"]).tolist() for row in prompts], sampling,
                           [tokenizer.end_id], wanted, keys=[row["id"] for row in prompts],
                           progress=lambda done, total: context.progress.update(done, total, "sampling responses"))
    panel = Panel(context.seed, settings.annotators, settings.noise)
    rows, doubly = [], []
    for row, samples in zip(prompts, completions, strict=True):
        ended = {tokenizer.decode([t for t in sample.tokens if t != tokenizer.end_id]): sample.finished for sample in samples}
        responses = list(ended)
        if len(responses) < 2:
            continue  # nothing to compare
        rng = randomness.python(context.seed, "annotators", row["id"])
        heldout = rng.random() < settings.heldout
        judgements = [panel.rank(row, responses, who) for who in rng.sample(range(settings.annotators), min(2, settings.annotators))]
        doubly.append(tuple(judgement["ranking"] for judgement in judgements))
        rows.append({**row, "responses": responses, "finished": list(ended.values()), **judgements[0], "split": "heldout" if heldout else "train"})
    write_rows(context.folder / "comparisons.jsonl", rows)
    return {"prompts": len(rows), "responses": sum(len(row["responses"]) for row in rows),
            "agreement": agreement(doubly) if settings.annotators > 1 else None}
