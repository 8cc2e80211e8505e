"""What the lead of a project may choose."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

FLAGS = ("instruction", "wrong", "harmful", "private", "offensive", "language", "repetitive", "cut_short")
"""Marks on a response: did not follow the instruction, wrong, harmful, private data, offensive, in the wrong language,
repeats itself, ends too early."""

SKIPS = ("unclear", "unqualified", "no_difference", "distressing", "broken", "other")
"""Reasons to skip: the prompt is unclear, the annotator does not know the matter, the responses do not differ, the
content is distressing, the item is broken, something else."""

RATINGS = range(1, 8)
ROLES = ("annotator", "lead")
KINDS = ("human", "simulated", "ai")


class FeedbackSettings(BaseModel):
    """How work is given out in a project."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, allow_inf_nan=False)
    title: str = Field(default="Feedback", min_length=1, max_length=80)
    """The project's name, shown on every page."""
    guidelines: str = Field(default="", max_length=20_000)
    """What annotators should know, shown beside their work, as plain text."""
    rendered: bool = True
    """Whether prompts and responses are shown with their Markdown rendered, until somebody switches to the source."""
    overlap: int = Field(default=2, ge=1, le=50)
    """People who judge the same item, where items overlap."""
    overlap_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the items, chosen by a hash, that overlap; one person judges each of the others."""
    lease_minutes: float = Field(default=30.0, gt=0, le=10_080)
    """Minutes that an item stays with the person who took it; then it is offered to others."""
    daily_quota: int = Field(default=0, ge=0, le=10_000)
    """Most answers of one person on one day (UTC); 0 for no limit. The lead may set another for a person."""
    quota: int = Field(default=0, ge=0, le=10_000_000)
    """Most answers of one person in all; 0 for no limit. The lead may set another for a person."""
    known_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the work that is items whose answer is known, while there are any that the person has not seen."""
    repeat_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the work that is an item the person has judged before, in another order."""
    repeat_after: int = Field(default=10, ge=1, le=10_000)
    """Judgements that must lie between an item and its repetition."""
    uncertain_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the work on training items that goes to those an ensemble of reward models disagrees on most, where its
    scores were imported; the rest is random."""
    heldout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the prompts, chosen by a hash of the prompt alone, that is the test split. Its items are always drawn at
    random."""
    error_kinds: tuple[str, ...] = Field(default=(), max_length=20)
    """Kinds of errors that labelers mark on parts of an answer; none leaves marking out."""
    free_writing: bool = True
    """Whether annotators may write prompts of their own, besides answering those that were imported."""
    disputed_below: float = Field(default=0.6, ge=0, le=1)
    """An item is disputed when its annotators order less than this share of their pairs alike."""
    disputed_skips: int = Field(default=3, ge=1, le=50)
    """An item is disputed, too, when so many people skipped it."""
    seed: int = Field(default=0, ge=0, le=2**53)
    """Seed of the orders in which responses are shown and of what comes next."""

    @field_validator("error_kinds")
    @classmethod
    def _kinds(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(kind.strip() for kind in kinds if kind.strip()))
        if any(len(kind) > 60 or not kind.isprintable() for kind in found):
            raise ValueError("a kind of error is a line of up to 60 characters")
        return found
