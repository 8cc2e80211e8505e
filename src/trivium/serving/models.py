"""The models that a server answers with, and what one client may ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trivium.errors import TriviumError
from trivium.files import read_json
from trivium.generation.engine import Engine
from trivium.model import LanguageModel
from trivium.model import folder as model_folder
from trivium.model.gguf.read import opened
from trivium.model.images import look
from trivium.model.vision import SeeingModel
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.machine import choose_device


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server."""

    rows: int = 32
    """Samples computed at a time, for each model."""
    queue: int = 64
    """Samples that may wait beyond these, for each model, before clients are told to come again later (429)."""
    body: int = 1_000_000
    """Largest body of a request, in bytes (413)."""
    seconds: float = 120.0
    """Longest time for one answer; then it is cut off (408)."""
    context: int = 4096
    """Longest prompt with its answer, in tokens, where the model's own limit is not shorter."""

    @property
    def samples(self) -> int:
        """Samples that may be promised at a time, for each model."""
        return self.rows + self.queue


@dataclass
class Served:
    """A model that answers."""

    name: str
    engine: Engine
    tokenizer: ChatTokenizer
    stage: str | None
    """The kind of stage that made it, where a manifest says so."""
    chat: bool
    """Whether it learned to chat, as far as its manifest tells."""
    digest: str
    created: int
    eyes: SeeingModel | None = None
    """What sees, in a model that does."""
    parameters: int = 0
    taken: int = field(default=0)
    """Samples that were promised and have not ended."""

    @classmethod
    def load(cls, name: str, folder: Path, limits: Limits) -> Served:
        """From a model's folder. Raises :class:`TriviumError` where it cannot be served."""
        folder = opened(folder)
        model = model_folder.load(folder)
        if not isinstance(model, LanguageModel):
            raise TriviumError(f"{folder}: {model_folder.what_is(model)} does not chat; serve a language model")
        tokenizer = ChatTokenizer.load(folder)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise TriviumError(f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, but the model only "
                               f"{model.config.vocab_size}")
        manifest: dict[str, Any] = read_json(folder / "manifest.json") if (folder / "manifest.json").exists() else {}
        stage = manifest.get("kind")
        engine = Engine(model.eval().to(choose_device()), limits.rows, limits.context, tokenizer.decode)
        return cls(name, engine, tokenizer, str(stage) if stage else None, stage not in ("pretrain", "untrained"),
                   str(manifest.get("digest") or "")[:16], int((folder / "tokenizer.json").stat().st_mtime),
                   model if isinstance(model, SeeingModel) else None,
                   sum(parameter.numel() for parameter in model.parameters()))

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None,
               options: dict[str, Any] | None = None) -> tuple[list[int], Tensor | None]:
        """The tokens that ask for the next words of a chat, and its pictures as they stand in the prompt; ``tools`` are
        what the model may call, ``options`` variables of its chat template. Raises :class:`TriviumError` for pictures
        that cannot be seen, and for variables that the template has not. How many pictures fit is known before one of
        them is opened."""
        places = self.eyes.picture_places if self.eyes else 0
        unknown = next((name for name in options or {} if name not in self.tokenizer.variables), None)
        if unknown is not None:
            known = ", ".join(sorted(self.tokenizer.variables)) or "none"
            raise TriviumError(f"chat_template_kwargs: this model's chat template has no variable {unknown[:60]!r}; "
                               f"known: {known}")
        ids = self.tokenizer.encode_chat(messages, generation_prompt=True, picture_places=places, tools=tools,
                                         options=options)[0]
        if self.eyes is None or self.eyes.picture_id not in ids or len(ids) >= self.engine.capacity:
            return ids, None
        vision = self.eyes.vision.config
        pixels = torch.from_numpy(look(messages, vision.size, vision.channels))
        with torch.inference_mode():
            return ids, self.eyes.pictures(pixels.to(self.engine.device))

    def encode_text(self, prompt: str | list[int]) -> list[int]:
        """The tokens of a text to continue. Raises :class:`TriviumError` for tokens that the model does not know."""
        if isinstance(prompt, str):
            return self.tokenizer.opened(prompt)
        if not prompt or max(prompt) >= self.engine.config.vocab_size:
            raise TriviumError("a prompt of tokens is empty or holds one that the model does not know")
        return prompt
