"""The settings of stages that make a chat model of a base: its template, what its system says, and the day."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from trivium.model import LanguageModel
from trivium.model.folder import read_config
from trivium.stage import Context, InputMarker, refusing
from trivium.stages.models import load_language_model, load_tokenizer
from trivium.stages.training import FromModel
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.choice import choose
from trivium.tokenizer.named import check_name


class TemplateMarker(InputMarker):
    """Marks a setting that may name a chat template's file."""

    def is_input(self, text: str) -> bool:
        """Whether it does."""
        return text.endswith(".jinja")


class FromChat(FromModel):
    """What stages have in common that learn from chats: how a chat is written for a base that begins to chat."""

    template: Annotated[str | None, TemplateMarker()] = None
    """How chats are written: chatml, llama3, qwen3, mistral, gemma, phi3, zephyr, plain, or the path of a `.jinja`
    file. null keeps the base's own, and is plain for a base that has none. Tokens that a template needs must be in the
    vocabulary."""
    system: str | None = Field(None, min_length=1)
    """What the system says in chats in which it says nothing; it is saved in the template. null keeps the base's."""
    date: datetime.date | None = None
    """The day that a template is told which asks for one (`strftime_now`), as in 2025-01-01; null keeps the base's, and
    is 2025-01-01 for a base that has none."""

    @field_validator("template")
    @classmethod
    def _template_is_known(cls, template: str | None) -> str | None:
        with refusing():
            if template is not None:
                check_name(template)
        return template

    def chat_tokenizer(self, tokenizer: ChatTokenizer, inputs: dict[str, Any],
                       say: Callable[[str], None] = lambda text: None) -> ChatTokenizer:
        """The base's tokenizer with these settings; ``inputs`` are the places of the stage's. Tokens of the template
        that are spelt as text are told to ``say``. Raises :class:`TriviumError` for a template that does not fit."""
        if self.template is None and self.system is None and self.date is None:
            return tokenizer
        named = self.template
        template = Path(inputs.get("template", named)) if named and named.endswith(".jinja") else named
        chosen, spelt = choose(tokenizer, template, self.system, self.date)
        if spelt:
            say(f"template {self.template}: {', '.join(spelt)} are no tokens of this vocabulary and are spelt as text")
        return chosen

    def load_policy(self, context: Context) -> tuple[LanguageModel, ChatTokenizer]:
        """The model that the stage starts from, and its tokenizer with these settings."""
        model, tokenizer = load_language_model(context.inputs["model"])
        return model, self.chat_tokenizer(tokenizer, context.inputs, context.progress.say)

    def load_chat_tokenizer(self, context: Context, say: Callable[[str], None] = lambda text: None) -> ChatTokenizer:
        """That tokenizer alone."""
        config, _ = read_config(context.inputs["model"])
        return self.chat_tokenizer(load_tokenizer(context.inputs["model"], config.vocab_size), context.inputs, say)
