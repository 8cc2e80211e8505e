"""The annotation app: server-rendered pages over a :class:`~trivium.feedback.store.Store`.

Whatever comes from a browser or a model is hostile. Texts of prompts and responses are escaped and never interpreted.
The Content-Security-Policy allows no inline script or style. Whoever changes something carries a token of their
session.
"""

from trivium.feedback.web.app import create_app
from trivium.feedback.web.visitors import COOKIE

__all__ = ["COOKIE", "create_app"]
