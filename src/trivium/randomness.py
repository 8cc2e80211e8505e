"""Randomness as a pure function: every random number is named by a seed and a path, never by what was drawn before.

Nothing about a generator's state is ever saved. A stage that resumes at step n asks again for ``(seed, stage, n)`` and
gets the same numbers, on any number of processes.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np


def derive(seed: int, *path: object) -> int:
    """A 64-bit seed for one named purpose, e.g. ``derive(seed, "sft", "order", epoch)``."""
    text = "\x1f".join(map(repr, (seed, *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def python(seed: int, *path: object) -> random.Random:
    """A standard-library generator for one named purpose."""
    return random.Random(derive(seed, *path))


def numpy(seed: int, *path: object) -> np.random.Generator:
    """A counter-based NumPy generator for one named purpose."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *path)))


def uniforms(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """One uniform number in [0, 1) for each pair of a 64-bit seed and a position: the finaliser of SplitMix64
    (Steele, Lea & Flood 2014) over their combination. Arrays broadcast; a sample's randomness so depends on its own
    seed and position alone, whatever else shares the batch."""
    with np.errstate(over="ignore"):
        z = np.asarray(seeds,
                       np.uint64) + (np.asarray(positions, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(places: np.ndarray, count: int, seed: int, *path: object) -> np.ndarray:
    """Where ``places`` of a shuffled order of ``count`` things point: a permutation that is computed place by place and
    never held, a Feistel network whose results beyond ``count`` go round again (Black and Rogaway 2002)."""
    half = np.uint64(max(1, (int(count - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(derive(seed, *path, turn)) for turn in range(6)]
    found = np.asarray(places, np.uint64).copy()
    waiting = np.arange(len(found))
    while len(waiting):
        left, right = found[waiting] >> half, found[waiting] & mask
        for key in keys:
            with np.errstate(over="ignore"):
                z = (right + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ key
                z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            left, right = right, left ^ ((z ^ (z >> np.uint64(31))) & mask)
        found[waiting] = left << half | right
        waiting = waiting[found[waiting] >= np.uint64(count)]
    return found.astype(np.int64)
