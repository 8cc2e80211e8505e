"""Byte-level BPE, the chat template, and tokenised corpora."""

from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.templates import TemplateTokenizer
from trivium.tokenizer.tokens import Tokens

__all__ = ["ChatTokenizer", "TemplateTokenizer", "Tokens"]
