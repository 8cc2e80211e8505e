"""What a client is told where there is no answer."""

from __future__ import annotations


class ApiError(Exception):
    """An error that the client is told, in the form of OpenAI's."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None,
                 code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message.encode("utf-8", "replace").decode(), "type": kind, "param": param, "code": code
            }
        }
