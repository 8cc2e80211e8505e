"""Packed rows of a model that cannot be packed: every branch of a tree is computed in a row of its own.

A batch of packed rows (:mod:`trivium.training.batch`) says which tokens see which. Where a model mixes tokens by more
than the attention that it can be given, its rows are taken apart: each response, with its prompt before it, becomes a
row that begins at position 0, and the hidden states go back to the places where the batch expects them. A prompt is
computed once for each of its responses; padding stands at the right, where a causal model cannot see it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def branches(documents: np.ndarray, parents: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Of packed rows ``[R, L]``: for each branch the places of its tokens in the flattened rows, and how many of the
    first ones another branch has given already."""
    found: list[tuple[np.ndarray, int]] = []
    for row in range(len(documents)):
        names, starts = np.unique(documents[row], return_index=True)
        segments = {int(name): row * documents.shape[1] + np.flatnonzero(documents[row] == name)
                    for name, _ in sorted(zip(names, starts, strict=True), key=lambda one: one[1]) if name >= 0}
        before = {int(documents.flat[places[0]]): int(parents.flat[places[0]]) for places in segments.values()}
        followed, given = set(before.values()), set[int]()
        for name, places in segments.items():
            prompt = segments.get(before[name])
            if prompt is not None:
                found.append((np.concatenate([prompt, places]), len(prompt) if before[name] in given else 0))
                given.add(before[name])
            elif name not in followed:
                found.append((places, 0))
    return found


def chunks(lengths: list[int], room: int, alike: int) -> list[list[int]]:
    """Group branches into batches of at most ``room`` places, padding included (a longer one alone), the longest first;
    those longer than ``alike`` only with others of their length."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        width = lengths[groups[-1][0]] if groups else 0
        if not groups or width * (len(groups[-1]) + 1) > room or (width > alike and width != lengths[i]):
            groups.append([])
        groups[-1].append(i)
    return groups


def hidden_apart(trunk: Any, tokens: Tensor, documents: Tensor, parents: Tensor) -> Tensor:
    """Hidden states ``[R * L, hidden_size]`` of packed rows ``[R, L]``, zeros at padding; every branch is computed as
    a text of its own by ``trunk``. Memory for one forward pass is bound by the packed rows' size."""
    flat, device = tokens.flatten(), tokens.device
    found = branches(documents.cpu().numpy(), parents.cpu().numpy())
    lengths = [len(places) for places, _ in found]
    states, targets = [], []
    alike = trunk.even if trunk.changing else max(lengths, default=0)
    for group in chunks(lengths, tokens.numel(), alike):
        width = max(lengths[i] for i in group)
        index, new = np.zeros((len(group), width), np.int64), np.zeros((len(group), width), bool)
        for row, i in enumerate(group):
            places, given = found[i]
            index[row, :len(places)] = places
            new[row, given:len(places)] = True
        where, wanted = torch.from_numpy(index).to(device), torch.from_numpy(new).to(device)
        states.append(trunk(flat[where])[wanted])
        targets.append(where[wanted])
    if not states:  # padding alone: still a part of the graph, for processes that wait for one another
        states, targets = [trunk(flat[None, :1])[0] * 0], [torch.zeros(1, dtype=torch.int64, device=device)]
    values = torch.cat(states)
    return values.new_zeros(tokens.numel(), values.shape[1]).index_put((torch.cat(targets),), values)
