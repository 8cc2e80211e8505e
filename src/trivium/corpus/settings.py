"""Everything that can be set about the making of a corpus."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trivium.corpus.contamination import ContaminationSettings
from trivium.corpus.duplicates import DuplicateSettings
from trivium.corpus.harmful import HarmfulSettings
from trivium.corpus.private import KINDS
from trivium.corpus.quality import FAMILIES, chosen
from trivium.corpus.thresholds import QualityThresholds
from trivium.errors import TriviumError, nearest


@dataclass(frozen=True)
class PrivateSettings:
    """The replacement of private data."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Replace private data by placeholders such as <EMAIL>."""
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    """Which kinds: email, iban, card, ipv6, ipv4, phone."""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise TriviumError(f"corpus: private: there is no kind {kind!r} of private data{nearest(kind, KINDS)}")


@dataclass(frozen=True)
class CorpusSettings:
    """The way from raw documents to a clean corpus."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    extraction: Literal["accurate", "fast"] = "accurate"
    """How the main text of HTML pages is found: accurate (trafilatura), or fast (resiliparse, several times as
    fast)."""
    rules: list[str] = field(default_factory=lambda: list(FAMILIES))
    """Quality rules: families (gopher_repetition, gopher_quality, c4, fineweb) or single ones, such as c4.sentences.
    The rule c4.terminal_punctuation belongs to no family and works only when named."""
    without: list[str] = field(default_factory=list)
    """Rules to leave out of those."""
    thresholds: QualityThresholds = field(default_factory=QualityThresholds)
    """The quality rules' thresholds."""
    harmful: HarmfulSettings = field(default_factory=HarmfulSettings)
    """The filter of harmful documents."""
    duplicates: DuplicateSettings = field(default_factory=DuplicateSettings)
    """The search for duplicates."""
    private: PrivateSettings = field(default_factory=PrivateSettings)
    """The replacement of private data."""
    contamination: ContaminationSettings = field(default_factory=ContaminationSettings)
    """The search for evaluation texts."""
    book_characters: int = 20_000
    """Plain text and Markdown files longer than this are split at paragraphs into documents of at most so many
    characters."""
    max_document_bytes: int = 256 << 20
    """Longest row, and largest file of a kind that is read whole (HTML, Markdown, plain text, JSON lists)."""
    max_unpacked_bytes: int = 64 << 30
    """Most that one compressed file or archive may unpack to, against decompression bombs."""
    shard_documents: int = 1000
    """Documents in one shard, the unit of work; an HTML page counts as ten. The corpus does not depend on it, only the
    cut into files does."""

    def __post_init__(self) -> None:
        chosen(self.rules, self.without)
        for name in ("book_characters", "max_document_bytes", "max_unpacked_bytes", "shard_documents"):
            if getattr(self, name) < 1:
                raise TriviumError(f"corpus: {name} is {getattr(self, name)}; it must be at least 1")
