"""Noise on the embeddings while a model is fine-tuned (NEFTune, Jain et al. 2024)."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError
from trivium.training.batch import Batch, Tree
from trivium.training.epochs import PackedEpochs

SEEDS = "noise_seeds"


class NoisyEpochs(PackedEpochs):
    """Batches whose texts are read with noise of a seed of their own, which is another one in each epoch. So the noise
    is a pure function of the step, whatever the microbatches and processes."""

    def make(self, rows: list[list[Tree]], count: int, epoch: int) -> Batch:
        """A batch with the seed of each of its trees."""
        batch = super().make(rows, count, epoch)
        batch.extra[SEEDS] = torch.tensor([self._seed(tree, epoch) for tree in batch.trees], dtype=torch.int64)
        return batch

    def _seed(self, tree: Tree, epoch: int) -> int:
        text = np.concatenate([tree.prompt, *tree.responses]).astype(np.int64).tobytes()
        return randomness.derive(self.seed, "noise", epoch, hashlib.blake2b(text, digest_size=8).hexdigest()) >> 1


def noise_of(batch: Batch, width: int, alpha: float) -> Tensor:
    """What is added to the embeddings of a batch's places, ``[R * L, width]``: uniform in ``alpha / sqrt(n * width)
    (-1, 1)`` for a text of ``n`` tokens (their algorithm 1); zero in padding."""
    found = torch.zeros(batch.tokens.numel(), width)
    places = (batch.documents.flatten() >= 0).nonzero()[:, 0].cpu()
    begin = 0
    for tree, seed in zip(batch.trees, batch.extra[SEEDS].tolist(), strict=True):
        size = len(tree)
        drawn = torch.rand(size, width, generator=torch.Generator().manual_seed(seed))
        found[places[begin:begin + size]] = (2 * drawn - 1) * (alpha / math.sqrt(size * width))
        begin += size
    return found


@contextlib.contextmanager
def noisy(trunk: Any, batch: Batch, alpha: float) -> Iterator[None]:
    """Within it, the trunk reads the batch with noise where it has seeds; batches that are held out have none. Raises
    :class:`TriviumError` for a trunk of another family that reads each text in a row of its own."""
    if not alpha or SEEDS not in batch.extra:
        yield
        return
    embedding = trunk.embed_tokens
    noise = noise_of(batch, embedding.weight.shape[1], alpha)

    def add(module: object, given: object, vectors: Tensor) -> Tensor:
        if not batch.trees:
            return vectors
        count = vectors.shape[0] * vectors.shape[1]
        added = noise if count == len(noise) else noise[(batch.documents.flatten() >= 0).cpu()]
        if len(added) != count:
            raise TriviumError("embedding_noise: this model reads each text in a row of its own, which noise is not "
                               "made for; leave it out")
        return vectors + added.to(vectors).view(vectors.shape)

    handle = embedding.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
