"""Everything that can be set about the making of a corpus."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from trivium.corpus.contamination import ContaminationSettings
from trivium.corpus.crawls import CrawlSettings
from trivium.corpus.duplicates import DuplicateSettings
from trivium.corpus.extract import ExtractionLimits
from trivium.corpus.harmful import HarmfulSettings
from trivium.corpus.languages import (
    LONG_WORDED,
    STOP_WORDS,
    UNKNOWN,
    UNSPACED_LANGUAGES,
    LanguageSettings,
    defaults,
    known,
)
from trivium.corpus.mixture import MixtureSettings
from trivium.corpus.private import KINDS
from trivium.corpus.quality import FAMILIES, chosen
from trivium.corpus.repeated_spans import SpanSettings
from trivium.corpus.thresholds import QualityThresholds
from trivium.errors import TriviumError, nearest
from trivium.faults import explain


@dataclass(frozen=True)
class PrivateSettings:
    """The replacement of private data."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Replace private data by placeholders such as <EMAIL>."""
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    """Which kinds: secret (keys and tokens), national_id, email, iban, card, ipv6, ipv4 (public addresses), phone,
    plate (of cars in China), account (of QQ and WeChat, named as such), address (in China, named as such)."""
    names: bool = False
    """Replace the names of people by <NAME>, too, which needs the extra `names`: learned models find two thirds
    of them or more, and take other words for names."""
    pipeline: str = "en_core_web_sm"
    """The spaCy pipeline that finds names in texts that are not Chinese."""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise TriviumError(f"corpus: private: there is no kind {kind!r} of private data{nearest(kind, KINDS)}")


@dataclass(frozen=True)
class ClassifierSettings:
    """The use of a learned quality filter."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    min_quality: float = 0.5
    """Least probability of being good."""
    pareto: float = 0.0
    """Instead: keep a document when a draw from a Pareto distribution of this shape is above 1 - its probability, so
    that some low ones stay (GPT-3: 9). 0 uses min_quality."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_quality <= 1 or self.pareto < 0:
            raise TriviumError(
                f"corpus: classifier: min_quality is {self.min_quality} and pareto {self.pareto}; "
                "one lies between 0 and 1, the other is 0 or more")


@dataclass(frozen=True)
class CorpusSettings:
    """The way from raw documents to a clean corpus."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    fields: dict[str, str] = field(default_factory=dict)
    """What the rows of JSON, Parquet and CSV files call text, html, id, url and source, where they call them otherwise:
    {text: content}."""
    extraction: Literal["accurate", "fast"] = "accurate"
    """How the main text of HTML pages is found: accurate (trafilatura), or fast (resiliparse, several times as
    fast)."""
    limits: ExtractionLimits = field(default_factory=ExtractionLimits)
    """What the extraction of a single page may cost."""
    language: LanguageSettings = field(default_factory=LanguageSettings)
    """The identification of languages."""
    rules: list[str] = field(default_factory=lambda: list(FAMILIES))
    """Quality rules: families (gopher_repetition, gopher_quality, c4, fineweb) or single ones, such as c4.sentences.
    The rule c4.terminal_punctuation belongs to no family and works only when named."""
    without: list[str] = field(default_factory=list)
    """Rules to leave out of those."""
    thresholds: QualityThresholds = field(default_factory=QualityThresholds)
    """The quality rules' thresholds."""
    thresholds_by_language: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Other thresholds for documents of some languages, by their codes: {de: {max_word_length: 12}}."""
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    """How the learned quality filter is used, where the stage is given one."""
    harmful: HarmfulSettings = field(default_factory=HarmfulSettings)
    """The filter of harmful documents."""
    duplicates: DuplicateSettings = field(default_factory=DuplicateSettings)
    """The search for duplicates."""
    spans: SpanSettings = field(default_factory=SpanSettings)
    """The search for passages that occur more than once."""
    private: PrivateSettings = field(default_factory=PrivateSettings)
    """The replacement of private data."""
    contamination: ContaminationSettings = field(default_factory=ContaminationSettings)
    """The search for evaluation texts."""
    crawl: CrawlSettings = field(default_factory=CrawlSettings)
    """Lists of a crawl's files."""
    mixture: MixtureSettings = field(default_factory=MixtureSettings)
    """How much of each source the corpus holds."""
    book_characters: int = 20_000
    """Plain text and Markdown files longer than this are split at paragraphs into documents of at most so many
    characters."""
    max_document_bytes: int = 64 << 20
    """Longest row, and largest file of a kind that is read whole (Markdown, plain text, JSON lists)."""
    max_page_bytes: int = 16 << 20
    """Largest HTML page."""
    max_unpacked_bytes: int = 64 << 30
    """Most that one compressed file or archive may unpack to, against decompression bombs."""
    shard_documents: int = 1000
    """Documents in one shard, the unit of work; an HTML page counts as ten. The corpus does not depend on it, only the
    cut into files does."""

    def __post_init__(self) -> None:
        chosen(self.rules, self.without)
        if self.language.enabled and (code := next(
            (code for code in self.thresholds_by_language if code not in known()), None)):
            raise TriviumError(f"corpus: thresholds_by_language: there is no language {code!r}{nearest(code, known())}")
        if self.thresholds_by_language and not self.language.enabled:
            raise TriviumError(
                "corpus: thresholds_by_language would never be used, as language.enabled is false; set it to true")
        self.thresholds_of()
        for name in self.fields:
            if name not in ("text", "html", "id", "url", "source"):
                raise TriviumError(
                    "corpus: fields: there is no field "
                    f"{name!r}{nearest(name, ('text', 'html', 'id', 'url', 'source'))}"
                )
        for name in ("book_characters", "max_document_bytes", "max_page_bytes", "max_unpacked_bytes",
                     "shard_documents"):
            if getattr(self, name) < 1:
                raise TriviumError(f"corpus: {name} is {getattr(self, name)}; it must be at least 1")

    def thresholds_of(self) -> dict[str, QualityThresholds]:
        """The thresholds by language: those of ``""`` for documents whose language was not asked for, of ``*`` for
        languages that nothing is known about. A threshold that is set, and is not the papers', holds for every
        language."""
        base, papers = self.thresholds, QualityThresholds()
        found = {"": base}
        codes = {*STOP_WORDS, *UNSPACED_LANGUAGES, *LONG_WORDED, *self.thresholds_by_language, "en", UNKNOWN, "*"}
        for language in sorted(codes):
            milder: dict[str, Any] = {name: value for name, value in defaults(language).items()
                                      if getattr(base, name) == getattr(papers, name)}
            words = base.stop_words if language in ("en", UNKNOWN) else STOP_WORDS.get(language, [])
            found[language] = replace(base, stop_words=words, **milder)
        if self.thresholds_by_language:
            from pydantic import TypeAdapter, ValidationError
        for language, values in self.thresholds_by_language.items():
            for name in values:
                if name not in base.__dataclass_fields__:
                    raise TriviumError(f"corpus: thresholds_by_language: {language}: there is no threshold {name!r}"
                                       f"{nearest(name, base.__dataclass_fields__)}")
            try:
                found[language] = TypeAdapter(QualityThresholds).validate_python({**asdict(found[language]), **values})
            except ValidationError as error:
                where = f"corpus: thresholds_by_language: {language}: "
                raise TriviumError(explain(error.errors(include_url=False), values, where,
                                           lambda _: base.__dataclass_fields__)) from error
        return found
