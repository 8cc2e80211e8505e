"""Trivium trains a language model the whole way, from raw documents to a served chat model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trivium.version import __version__

if TYPE_CHECKING:
    from trivium.api import Model, load
    from trivium.curriculum import Curriculum
    from trivium.pipeline.run import run

__all__ = ["Curriculum", "Model", "__version__", "load", "run"]


def __getattr__(name: str) -> Any:
    """Load the Python face on first use, so that importing a part of the package stays quick."""
    if name in __all__:
        from trivium.errors import check_system
        check_system()
    if name in ("Model", "load"):
        from trivium import api
        return getattr(api, name)
    if name == "Curriculum":
        from trivium.curriculum import Curriculum
        return Curriculum
    if name == "run":
        from trivium.pipeline.run import run
        return run
    raise AttributeError(f"module 'trivium' has no attribute {name!r}")
