"""Raw documents -> clean documents."""

from trivium.corpus.settings import CorpusSettings

__all__ = ["CorpusSettings"]
