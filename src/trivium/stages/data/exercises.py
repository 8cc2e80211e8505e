"""Prompts made by code, whose answers code can check."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from trivium import randomness
from trivium.corpus.evaluation_sets import read_evaluation
from trivium.corpus.words import plain_words
from trivium.data.exercises.making import KINDS, make
from trivium.errors import TriviumError, nearest
from trivium.feedback.rows import prompt_key, split_of
from trivium.files import Row, write_rows
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.outlook import Small

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate

ALIKE = 8
"""Words in a row that a prompt must not share with one that is avoided."""


class Exercises(Stage):
    """Make prompts whose answers code can check: instructions of IFEval's kinds, sums, counting."""

    kind: ClassVar[str] = "exercises"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("exercises made by code", "程序出的练习", "teach")
    kinds: dict[str, float] = {"instructions": 1.0, "sums": 1.0}
    """The kinds with their weights: instructions (write about a topic as told: IFEval's kinds), sums (two numbers of
    two digits), letters (of a word), words (of a list), items (things altogether)."""
    count: int = Field(2000, ge=10)
    """Prompts, those held out included; all are different."""
    languages: list[Literal["en", "zh"]] = Field(["en"], min_length=1)
    """Languages that prompts are in: en, zh."""
    difficulty: int = Field(1, ge=1, le=3)
    """1: one instruction, sums without a sign; 2: up to two, larger numbers, times one digit; 3: up to three, times two
    digits."""
    heldout: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts, chosen by a hash of what is asked, that is kept from training for the evaluation: the same
    sum in other words is on the same side."""
    avoid: list[Input] = []
    """Files of evaluation sets, such as IFEval's: no prompt shares eight words in a row with one of theirs."""

    @field_validator("kinds")
    @classmethod
    def _are_known(cls, kinds: dict[str, float]) -> dict[str, float]:
        for name, weight in kinds.items():
            if name not in KINDS:
                raise ValueError(f"there are no exercises {name!r}{nearest(name, KINDS)}")
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {name!r} is {weight:g}; give a number above 0, or leave it out")
        if not kinds:
            raise ValueError("name at least one kind of exercise")
        return kinds

    def run(self, context: Context) -> dict[str, object]:
        """Write ``prompts.jsonl``, to learn from, and ``evaluation.jsonl``, the prompts held out: rows with ``check``,
        the checker of the answer, and what that needs."""
        taken = self.texts_to_avoid(context)
        refused = Counter[str]()

        def shares_words(text: str) -> bool:
            found = not taken.isdisjoint(spans(text))
            refused["prompts"] += found
            return found

        rows: dict[str, list[Row]] = {"train": [], "heldout": []}
        for row in make(self.count, self.kinds, self.languages, self.difficulty, context.seed, shares_words):
            prompt = [{"role": "user", "content": row["prompt"]}]
            split = split_of(sha256(row.pop("key").encode()).hexdigest(), self.heldout)
            rows[split].append({"id": f"{randomness.derive(0, prompt_key(prompt)):016x}", **row, "prompt": prompt})
        for split, made in rows.items():
            if not made:
                raise TriviumError(f"{context.name}: no prompt falls to the {split} share; raise `count`")
        write_rows(context.folder / "prompts.jsonl", rows["train"])
        write_rows(context.folder / "evaluation.jsonl", rows["heldout"])
        return {"prompts": len(rows["train"]), "heldout": len(rows["heldout"]), "avoided": refused["prompts"],
                "kinds": dict(sorted(Counter(row["task"] for made in rows.values() for row in made).items()))}

    def sample(self, estimate: Estimate) -> Small:
        """All of them: they are made in seconds."""
        return Small(self)

    def cost(self, estimate: Estimate) -> Cost:
        """The time of the sample."""
        return estimate.sampled(self, 0.0)

    def texts_to_avoid(self, context: Context) -> set[str]:
        """Every span of :data:`ALIKE` words of the questions in ``avoid``."""
        found = set[str]()
        for source in context.inputs["avoid"]:
            texts = read_evaluation(source, False, lambda text: context.progress.say(f"avoid: {text}"))
            found.update(span for text in texts.questions for span in spans(text))
        return found


def spans(text: str) -> set[str]:
    """Every :data:`ALIKE` words in a row; all words of a text of fewer."""
    words = plain_words(text)
    return {" ".join(words[start:start + ALIKE]) for start in range(max(1, len(words) - ALIKE + 1))}
