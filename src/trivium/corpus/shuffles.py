"""Tasks of the corpus stage that look at all shards, each at one range of their hashes, which its ``gather`` takes out
of them:

- ``exact_duplicates``: a range of digests -> pairs of equal documents
- ``band_groups``: a range of bands -> those that several documents have
- ``near_duplicates``: such groups -> pairs of similar documents
- ``shared_runs``, ``repeats``: two steps of the search for passages that occur again, see
  :mod:`trivium.corpus.repeated_spans`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trivium.corpus.duplicates import band_groups, bands_of, digests_of, exact_pairs, signatures_of, similar_pairs
from trivium.corpus.repeated_spans import marks_of, repeated_hashes, repeats, windows_of
from trivium.corpus.shards import read_array, write_array
from trivium.corpus.steps import Counts

Arrays = dict[str, np.ndarray]


def exact_gather(parameters: dict[str, Any], inputs: list[Path]) -> Arrays:
    """One range of digests, from all filtered shards."""
    return digests_of(inputs, parameters["starts"], parameters["partition"], parameters["partitions"])


def exact_step(parameters: dict[str, Any], inputs: Arrays, folder: Path) -> Counts:
    """Pairs of equal documents among one range of digests."""
    write_array(folder / "pairs.npy", exact_pairs(**inputs))
    return {}


def groups_gather(parameters: dict[str, Any], inputs: list[Path]) -> Arrays:
    """One range of bands, from all filtered shards; the first input holds the exact duplicates' numbers."""
    return bands_of(inputs[1:], parameters["starts"], np.asarray(read_array(inputs[0])), parameters["partition"],
                    parameters["partitions"])


def groups_step(parameters: dict[str, Any], inputs: Arrays, folder: Path) -> Counts:
    """The bands of one range that several documents have, and these documents."""
    bands, numbers = band_groups(**inputs)
    write_array(folder / "bands.npy", bands)
    write_array(folder / "numbers.npy", numbers)
    return {}


def near_gather(parameters: dict[str, Any], inputs: list[Path]) -> Arrays:
    """The groups of one range, which the first input holds, and their documents' signatures from all filtered
    shards."""
    bands, numbers = (np.asarray(read_array(inputs[0] / name)) for name in ("bands.npy", "numbers.npy"))
    signatures = signatures_of(np.unique(numbers), inputs[1:], parameters["starts"])
    return {"bands": bands, "numbers": numbers, "signatures": signatures}


def near_step(parameters: dict[str, Any], inputs: Arrays, folder: Path) -> Counts:
    """Pairs of similar documents in the groups of one range."""
    pairs, similarities = similar_pairs(inputs["bands"], inputs["numbers"], inputs["signatures"],
                                        parameters["threshold"])
    write_array(folder / "pairs.npy", pairs)
    write_array(folder / "similarities.npy", similarities)
    return {}


def shared_gather(parameters: dict[str, Any], inputs: list[Path]) -> Arrays:
    """One range of minimizers, from all filtered shards; the first input holds the numbers of documents that are
    dropped."""
    return marks_of(inputs[1:], parameters["starts"], np.asarray(read_array(inputs[0])), parameters["partition"],
                    parameters["partitions"])


def shared_step(parameters: dict[str, Any], inputs: Arrays, folder: Path) -> Counts:
    """Which minimizers of one range occur again."""
    write_array(folder / "shared.npy", repeated_hashes(**inputs))
    return {}


def repeats_gather(parameters: dict[str, Any], inputs: list[Path]) -> Arrays:
    """One range of windows, from all shards."""
    return windows_of(inputs, parameters["starts"], parameters["partition"], parameters["partitions"])


def repeats_step(parameters: dict[str, Any], inputs: Arrays, folder: Path) -> Counts:
    """The windows of one range that stood before in the corpus."""
    numbers, words = repeats(**inputs)
    write_array(folder / "numbers.npy", numbers)
    write_array(folder / "words.npy", words)
    return {}
