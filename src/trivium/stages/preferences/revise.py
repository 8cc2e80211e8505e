"""Critique and revision (Bai et al. 2022b, section 3): a model mends its own answers by written principles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import model_validator

from trivium import randomness
from trivium.errors import TriviumError
from trivium.extensions import file_of
from trivium.files import Row, write_rows
from trivium.generation.endpoint import Endpoint
from trivium.generation.engine import Sampling, generate
from trivium.stage import Context, Title
from trivium.stages.models import load_language_model, prompt_ids
from trivium.stages.preferences.ai_feedback import Speaking, sampled
from trivium.stages.preferences.judges import as_text


class Revise(Speaking):
    """Constitutional AI's first half: answer, criticise the answer by a principle, and write it anew."""

    kind: ClassVar[str] = "revise"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("answers revised by a constitution", "按宪章修订回答", "teach")

    @model_validator(mode="after")
    def _a_judge_that_writes(self) -> Revise:
        if self.judge and file_of(self.judge):
            raise ValueError(f"{self.judge}: a function judges, but cannot write; name a model or an `endpoint`")
        return self

    def run(self, context: Context) -> dict[str, object]:
        """Write ``demonstrations.jsonl``: prompts with the revised answers, each with its first answer, principle and
        critique."""
        rows, texts, _ = sampled(self, context, 1)
        answered = [(row, found[0]) for row, found in zip(rows, texts, strict=True) if found]
        if not answered:
            raise TriviumError(
                f"{context.name}: not one answer ended within {self.max_new_tokens} tokens; raise max_new_tokens")
        principles = [
            randomness.python(context.seed, "principle", row["id"]).choice(self.constitution) for row, _ in answered
        ]
        critiques = speak(self, context, "critique", [
            CRITIQUE.format(prompt=as_text(row["prompt"]), answer=answer, principle=principle)
            for (row, answer), principle in zip(answered, principles, strict=True)
        ])
        revised = speak(self, context, "revision", [
            REVISION.format(prompt=as_text(row["prompt"]), answer=answer, critique=critique)
            for (row, answer), critique in zip(answered, critiques, strict=True)
        ])
        kept: list[Row] = [{
            "id": row["id"], "messages": [*row["prompt"], {"role": "assistant",
                                                           "content": new}], "first": answer, "principle": principle,
            "critique": critique, **{name: row[name]
                                     for name in ("task", "truth", "tools") if name in row}
        } for (row, answer), principle, critique, new in zip(answered, principles, critiques, revised, strict=True)
                           if new]
        if not kept:
            raise TriviumError(f"{context.name}: every revision is empty")
        write_rows(context.folder / "demonstrations.jsonl", kept)
        return {
            "prompts": len(rows), "revised": len(kept),
            "changed": sum(row["first"] != row["messages"][-1]["content"] for row in kept)
        }


CRITIQUE = (
    "{prompt}\n\nSomebody answered: {answer}\n\nBy this principle, what could be better about the answer? "
    "{principle}"
)
REVISION = (
    "{prompt}\n\nSomebody answered: {answer}\n\nA critic said: {critique}\n\nWrite the answer anew, mended. "
    "Give the answer alone."
)


def speak(settings: Revise, context: Context, what: str, texts: Sequence[str]) -> list[str]:
    """What the judge, the endpoint or the model itself says to each text."""
    if settings.endpoint:
        endpoint = Endpoint(**settings.endpoint.model_dump())
        return [
            reply.strip() for reply in endpoint.ask_all(texts, lambda done, total: context.progress.update(
                done, total, what), settings.temperature, settings.max_new_tokens, context.scratch / f"{what}.jsonl")
        ]
    model, tokenizer = load_language_model(context.inputs.get("judge") or context.inputs["model"])
    room = model.config.max_positions - settings.max_new_tokens
    asked = [prompt_ids(tokenizer, [{"role": "user", "content": text}]).tolist() for text in texts]
    longest = max(map(len, asked))
    if longest > room:
        raise TriviumError(
            f"{context.name}: a {what} asks with {longest} tokens, "
            f"which leaves no room for {settings.max_new_tokens} new ones in the "
            f"model's {model.config.max_positions} positions; lower max_new_tokens, or take another judge")
    groups = generate(model, asked, Sampling(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens,
                                             seed=randomness.derive(context.seed, what)), [tokenizer.end_id])
    return [tokenizer.decode([t for t in group[0].tokens if t != tokenizer.end_id]).strip() for group in groups]
