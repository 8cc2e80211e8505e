"""Signatures of answers: what was not sampled here, as it was sampled here, gets no thumb and no vote."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from trivium.feedback.rows import canonical
from trivium.serving.errors import ApiError
from trivium.serving.messages import ChatMessage


class Signer:
    """Signs with a key of a feedback project, which is made of the project's ``secret``. One signature is for one
    visitor, one model, one chat and one answer, so it is good for one thumb, however often it is sent."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"answers that were sampled here", "sha256")

    def sign(self, who: str, model: str, messages: Sequence[ChatMessage], completion: str) -> str:
        """The signature of an answer to a chat, hexadecimal."""
        text = canonical([who, model, [message.words() for message in messages], completion])
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def check(self, signature: str, who: str, model: str, messages: Sequence[ChatMessage], completion: str) -> None:
        """Raise :class:`ApiError` (403) unless the signature is that of this answer."""
        expected = self.sign(who, model, messages, completion)
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
            raise ApiError(403, "this answer was not sampled here for this visitor: send the model, the messages, the "
                           "answer and its `signature` as they came, and as `who` the `user` of the request",
                           "permission_error", param="signature", code="not_sampled_here")


def as_row(thought: str, words: str) -> str:
    """An answer as one text, the form in which feedback has it: its reasoning, if it told any, before its words."""
    return f"<think>\n{thought}\n</think>\n\n{words}" if thought else words
