"""What the tests of the server have in common; see served.py."""

from served import feedback, folders, server

__all__ = ["feedback", "folders", "server"]
