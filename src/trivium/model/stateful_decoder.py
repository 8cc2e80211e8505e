"""Sampling with the cache of ``transformers`` itself: for models that keep more of a text than keys and values.

Every row has a cache of its own, so no text needs padding, and no state of one reaches another. It has the face of
:class:`trivium.model.plain_decoder.PlainDecoder`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trivium.model.transformer import LanguageModel


@dataclass
class State:
    """What is kept of one text."""

    tokens: list[int] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    """The library's cache by the name that the model gives it; empty where the text is computed anew."""


class StatefulDecoder:
    """A cache for each of ``rows`` texts."""

    def __init__(self, model: LanguageModel, rows: int) -> None:
        self.model, self.trunk = model, model.model
        self.prompts: list[State] = [State() for _ in range(rows)]
        """Of each row its prompt, but for the last token: another sample of it may begin there."""
        self.states: list[State | None] = [None] * rows
        """What each row has reached; None where it has not begun."""

    def prefill(self, tokens: Tensor, first: int, lengths: Sequence[int]) -> None:
        """Compute prompts ``[N, T]``, of which the first ``lengths`` tokens are real, into the rows from ``first``."""
        for row, length in enumerate(lengths, first):
            state = State()
            if length:
                self._extend(state, tokens[row - first, :length])
            self.prompts[row], self.states[row] = state, None

    def step(self, tokens: Tensor, places: Tensor, longest: int, even: bool) -> Tensor:
        """Logits ``[N, V]`` in float32 after one more token a row, at ``places [N]``. A row that stands at the end of
        its prompt begins anew."""
        found = []
        for row, place in enumerate(places.tolist()):
            state = self.states[row]
            if place == 0:
                self.prompts[row] = State()
            if state is None or place == len(self.prompts[row].tokens):
                state = self.states[row] = copy.deepcopy(self.prompts[row])
            found.append(self.model.lm_head(self._extend(state, tokens[row:row + 1])))
        return torch.cat(found).float()

    def _extend(self, state: State, tokens: Tensor) -> Tensor:
        """Let a text go on; returns the hidden state ``[1, hidden_size]`` of its last token."""
        trunk: Any = self.trunk
        state.tokens.extend(tokens.tolist())
        if trunk.cached and not (trunk.changing and len(state.tokens) > trunk.even):
            hidden, state.memory = trunk.follow(tokens[None], state.memory)
        else:
            hidden = trunk(torch.tensor([state.tokens], device=tokens.device))
        return hidden[:, -1]

    def move(self, source: list[int], target: list[int], length: int) -> None:
        """Copy rows to others."""
        for one, other in zip(source, target, strict=True):
            self.prompts[other], self.states[other] = self.prompts[one], copy.deepcopy(self.states[one])
