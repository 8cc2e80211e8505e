"""The models that a server answers with, and what one client may ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.files import read_json
from trivium.generation.engine import Engine
from trivium.generation.sampling import usual_sampling
from trivium.model import LanguageModel
from trivium.model import folder as model_folder
from trivium.model.encoder import Classifier, MaskedModel, embeddings, is_encoder, load_encoder
from trivium.model.gguf.read import opened
from trivium.model.images import look
from trivium.model.vision import SeeingModel
from trivium.serving.constrained import Forms
from trivium.serving.protocol import ChatRequest
from trivium.serving.reading import THINK
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
    body_seconds: float = 30.0
    """Longest time for a body to arrive (408)."""
    form_seconds: float = 5.0
    """Longest time to read what an answer is bound to, such as a JSON schema; then it is refused (400)."""

    @property
    def samples(self) -> int:
        """Samples that may be promised at a time, for each model."""
        return self.rows + self.queue


@dataclass
class Known:
    """What is said of any model that is served."""

    name: str
    tokenizer: ChatTokenizer
    stage: str | None
    """The kind of stage that made it, where a manifest says so."""
    digest: str
    created: int
    parameters: int
    temperature: float
    """The one that its chats begin with."""

    @classmethod
    def of(cls, name: str, folder: Path, model: nn.Module, vocab_size: int) -> Known:
        """From a model and its folder. Raises :class:`TriviumError` where they do not fit."""
        tokenizer = ChatTokenizer.load(folder)
        if tokenizer.vocab_size > vocab_size:
            raise TriviumError(f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, but the model only "
                               f"{vocab_size}")
        manifest: dict[str, Any] = read_json(folder / "manifest.json") if (folder / "manifest.json").exists() else {}
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return cls(name, tokenizer, str(manifest["kind"]) if manifest.get("kind") else None,
                   str(manifest.get("digest") or "")[:16], int((folder / "tokenizer.json").stat().st_mtime), parameters,
                   usual_sampling(folder, parameters)["temperature"])


@dataclass
class Encoder(Known):
    """A model that reads texts and writes none."""

    model: MaskedModel | Classifier
    turns: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "embeddings"))
    """One request at a time, as each takes all cores; one whose client has gone never gets its turn."""

    @classmethod
    def load(cls, name: str, folder: Path) -> Encoder:
        """From an encoder's folder. Raises :class:`TriviumError` where it cannot be served."""
        model = load_encoder(folder).eval()
        return cls(**vars(Known.of(name, folder, model, model.config.vocab_size)), model=model)

    @property
    def context(self) -> int:
        """The most tokens of a text."""
        return self.model.config.max_positions

    def encode(self, text: str | list[int]) -> list[int]:
        """The tokens of a text, at least one. Raises :class:`TriviumError` for one that is empty, holds tokens that are
        not known, or is longer than the model reads."""
        ids = self.tokenizer.encode(text) if isinstance(text, str) else text
        if not ids or max(ids) >= self.model.config.vocab_size:
            raise TriviumError("an input is empty, or holds a token that the model does not know")
        if len(ids) > self.model.config.max_positions:
            raise TriviumError(f"this model reads {self.model.config.max_positions} tokens; an input has {len(ids)}")
        return ids

    def embed(self, inputs: Sequence[list[int]], dimensions: int | None) -> np.ndarray:
        """Vectors of length 1, ``[N, dimensions]``."""
        found = embeddings(self.model, inputs, self.tokenizer.pad_id)
        if dimensions is None:
            return found
        lengths = np.linalg.norm(found[:, :dimensions], axis=1, keepdims=True)
        return found[:, :dimensions] / np.maximum(lengths, np.finfo(np.float32).tiny)


@dataclass
class Served(Known):
    """A model that answers."""

    engine: Engine
    chat: bool
    """Whether it learned to chat, as far as its manifest tells."""
    eyes: SeeingModel | None = None
    """What sees, in a model that does."""
    taken: int = field(default=0)
    """Samples that were promised and have not ended."""

    @classmethod
    def load(cls, name: str, folder: Path, limits: Limits) -> Served:
        """From a model's folder. Raises :class:`TriviumError` where it cannot be served."""
        folder = opened(folder)
        model = model_folder.load(folder)
        if not isinstance(model, LanguageModel):
            raise TriviumError(f"{folder}: {model_folder.what_is(model)} does not chat; serve a language model, or an "
                               "encoder for embeddings")
        known = Known.of(name, folder, model, model.config.vocab_size)
        engine = Engine(model.eval().to(choose_device()), limits.rows, limits.context, known.tokenizer.decode)
        return cls(**vars(known), engine=engine, chat=known.stage not in ("pretrain", "untrained"),
                   eyes=model if isinstance(model, SeeingModel) else None)

    @property
    def context(self) -> int:
        """The most tokens of a prompt with its answer."""
        return self.engine.capacity

    @cached_property
    def forms(self) -> Forms:
        """The forms that its answers may be bound to."""
        return Forms(self.tokenizer, self.engine.config.vocab_size, self.stop)

    @property
    def stop(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.tokenizer.end_id, self.tokenizer.document_id

    def options(self, request: ChatRequest) -> dict[str, Any]:
        """The variables of the chat template that a request sets."""
        effort, named = request.reasoning_effort, dict(request.chat_template_kwargs or {})
        if effort and "reasoning_effort" in self.tokenizer.variables:
            named.setdefault("reasoning_effort", effort)
        elif effort == "none" and "enable_thinking" in self.tokenizer.variables:
            named.setdefault("enable_thinking", False)
        return named

    def thinks(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt has itself begun to think, as DeepSeek-R1's template has it."""
        return self.tokenizer.decode(prompt[-8:]).rstrip().endswith(THINK)

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


def load(name: str, folder: Path, limits: Limits) -> Served | Encoder:
    """A model of a folder, whatever it is for. Raises :class:`TriviumError` where it cannot be served."""
    return Encoder.load(name, folder) if is_encoder(folder) else Served.load(name, folder, limits)
