"""The model that a policy's drift is measured from."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trivium.errors import TriviumError
from trivium.files import written_aside
from trivium.model import LanguageModel
from trivium.model.adapters import Attached
from trivium.stages.models import without_adapter
from trivium.training.checkpoint import notes_in, step_of


class Reference:
    """The policy that training began with or, with ``every``, the one of the last iteration that ``every`` divides (Liu
    et al. 2025, ProRL, sec. 3.2). Where adapters are trained it has no weights of its own but another adapter's: it is
    the policy with its adapter off, or as that was then.

    A renewed one is kept in ``scratch`` as long as a checkpoint may be gone back to that needs it, so a killed run goes
    on from the same one."""

    def __init__(self, policy: LanguageModel, attached: Attached | None, scratch: Path, every: int) -> None:
        self.policy, self.attached, self.scratch, self.every = policy, attached, scratch, every
        self.since = 0
        """The iteration before which it was the policy."""
        self.model = policy if attached else copy.deepcopy(policy).eval()
        self.weights: dict[str, Tensor] = {}
        """Of another adapter, once there is one."""

    @contextlib.contextmanager
    def at_work(self) -> Iterator[LanguageModel]:
        """The model, within the context."""
        if not self.attached or not self.weights:
            with without_adapter(self.attached):
                yield self.model
            return
        self._exchange()
        try:
            yield self.model
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """Put the reference's adapter in the place of the policy's, or the other way round."""
        for name, weight in trained(self.policy):
            weight.data, self.weights[name] = self.weights[name], weight.data

    def renew(self, iteration: int, leader: bool) -> None:
        """Become what the reference is in an iteration that begins, with the policy up to date. Raises
        :class:`TriviumError` where its weights were kept, but are not there."""
        since = iteration // self.every * self.every if self.every else 0
        if since == self.since:
            return
        self.since = since
        if since < iteration:
            weights = self._load()
        else:
            weights = {name: weight.detach().clone() for name, weight in trained(self.policy)}
            if leader:
                self._keep(weights)
        if self.attached:
            self.weights = {name: weights[name].to(weight.device) for name, weight in trained(self.policy)}
            return
        with torch.no_grad():
            for name, weight in trained(self.model):
                weight.copy_(weights[name])

    def _place(self, since: int) -> Path:
        return self.scratch / f"reference-{since:08d}.safetensors"

    def _load(self) -> dict[str, Tensor]:
        try:
            return load_file(self._place(self.since))
        except Exception as error:  # safetensors has one exception type, which its stubs do not export
            raise TriviumError(f"{self._place(self.since)}: the reference of the last checkpoint is damaged or gone "
                               f"({error}); move {self.scratch} away to train anew") from error

    def _keep(self, weights: dict[str, Tensor]) -> None:
        with written_aside(self._place(self.since)) as aside:
            save_file({name: weight.contiguous() for name, weight in weights.items()}, aside)
        steps = [step_of(note) for note in notes_in(self.scratch)]
        oldest = min([self.since - self.every, *(step // self.every * self.every for step in steps)])
        for place in self.scratch.glob("reference-????????.safetensors"):
            if place < self._place(oldest):
                place.unlink(missing_ok=True)


def trained(policy: Any) -> list[tuple[str, Any]]:
    """The weights that training changes, by name."""
    return [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]
