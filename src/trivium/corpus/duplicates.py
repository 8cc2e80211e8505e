"""Exact and near duplicates, in steps that each look at a part of the corpus only.

1. Every shard writes, sorted by hash: one digest a document of its normalised text, a MinHash signature (Broder 1997)
   of its runs of five words, and one hash for each band of the signature. 2. A partition is a range of hash values. Its
   task reads that range from every shard, finds equal digests, or equal bands, and for the latter compares the
   signatures: pairs of an estimated Jaccard similarity at the threshold become edges. 3. Union-find joins edges into
   clusters. The document that comes first in the corpus stands for its cluster.

Order and clusters depend on the corpus alone, never on how many processes or partitions there were.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

import numpy as np

from trivium.corpus.shards import among, in_range, read_array, write_array
from trivium.corpus.words import mix, ngram_hashes, visible, word_hash
from trivium.errors import TriviumError, extra
from trivium.randomness import derive


@dataclass(frozen=True)
class DuplicateSettings:
    """The search for duplicates."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    exact: bool = True
    """Keep one of the documents that differ in case and white space alone."""
    near: bool = True
    """Keep one of the documents that share most of their runs of words."""
    run: int = 5
    """Length of a run, in words, or in characters for scripts without spaces."""
    bands: int = 14
    """Bands of the signature: documents that agree in one band are compared."""
    rows: int = 8
    """Permutations in a band. 14 bands of 8 find 92 % of pairs at a Jaccard similarity of 0.8; more bands of fewer rows
    find more pairs, and take longer."""
    threshold: float = 0.7
    """Least similarity of duplicates, estimated from the signatures."""

    def __post_init__(self) -> None:
        for name in ("run", "bands", "rows"):
            if getattr(self, name) < 1:
                raise TriviumError(f"corpus: duplicates: {name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.threshold <= 1:
            raise TriviumError(f"corpus: duplicates: threshold is {self.threshold}; it lies above 0 and is at most 1")


def text_digest(text: str) -> tuple[int, int]:
    """128 bits of the text without case, unseen characters and white space's forms."""
    digest = blake2b(" ".join(visible(text).lower().split()).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def shingles(text: str, hashes: np.ndarray, run: int) -> np.ndarray:
    """Hashes of the document's runs of words, from those of its plain words; of all its words when they are fewer, of
    the text when it has none."""
    if not len(hashes):
        return np.array([word_hash(text)], np.uint64)
    return ngram_hashes(hashes, min(run, len(hashes)))


def signatures(texts: list[str], plain: list[np.ndarray], settings: DuplicateSettings, seed: int) -> np.ndarray:
    """MinHash signatures of texts with the hashes of their plain words: uint32 [documents, bands * rows]."""
    with extra("corpus"):
        import rensa

    permutations = settings.bands * settings.rows
    sets = [shingles(text, hashes, settings.run) for text, hashes in zip(texts, plain, strict=True)]
    if not sets:
        return np.empty((0, permutations), np.uint32)
    offsets = np.cumsum([0, *map(len, sets)], dtype=np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), offsets, permutations,
                                                                 derive(seed, "minhash"))
    return np.array(matrix.to_rows(), np.uint32)


def band_hashes(signature: np.ndarray, settings: DuplicateSettings) -> np.ndarray:
    """One hash a band: uint64 [documents, bands]. Equal values in different bands give different hashes."""
    banded = signature.astype(np.uint64).reshape(-1, settings.bands, settings.rows)
    total = np.broadcast_to(np.arange(1, settings.bands + 1, dtype=np.uint64), banded.shape[:2])
    for row in range(settings.rows):
        total = mix(total * np.uint64(0x9E3779B97F4A7C15) + banded[:, :, row])
    return total


def estimated_jaccard(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """The share of equal permutations: float [len(many)]."""
    shares: np.ndarray = (many == one).mean(axis=1)
    return shares


def write_marks(texts: list[str], plain: list[np.ndarray], settings: DuplicateSettings, seed: int,
                folder: Path) -> None:
    """Step 1 for one shard. ``plain``: the hashes of each text's plain words."""
    if settings.exact:
        digests = np.array([text_digest(text) for text in texts], np.uint64).reshape(-1, 2)
        order = np.lexsort((np.arange(len(texts)), digests[:, 1], digests[:, 0]))
        write_array(folder / "digests.npy", digests[order])
        write_array(folder / "digest_rows.npy", order.astype(np.uint32))
    if settings.near:
        signature = signatures(texts, plain, settings, seed)
        hashes = band_hashes(signature, settings)
        rows = np.repeat(np.arange(len(texts), dtype=np.uint32), settings.bands)
        order = np.lexsort((rows, hashes.ravel()))
        write_array(folder / "signatures.npy", signature)
        write_array(folder / "bands.npy", hashes.ravel()[order])
        write_array(folder / "band_rows.npy", rows[order])


def digests_of(shards: list[Path], starts: list[int], partition: int, partitions: int) -> dict[str, np.ndarray]:
    """What step 2 for exact duplicates compares: one range of the shards' digests, uint64 [documents, 2], and the
    documents' numbers. Documents are numbered through the corpus; ``starts`` holds each shard's first number."""
    digests, numbers = [], []
    for shard, start in zip(shards, starts, strict=True):
        ours = read_array(shard / "digests.npy")
        part = in_range(ours[:, 0], partition, partitions)
        digests.append(np.asarray(ours[part]))
        numbers.append(read_array(shard / "digest_rows.npy")[part].astype(np.int64) + start)
    return {"digests": np.concatenate(digests), "numbers": np.concatenate(numbers)}


def exact_pairs(digests: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Step 2 for exact duplicates: (first document, later document) of equal digest, int64 [pairs, 2]."""
    order = np.lexsort((numbers, digests[:, 1], digests[:, 0]))
    digest, number = digests[order], numbers[order]
    new = np.ones(len(number), bool)
    new[1:] = (digest[1:] != digest[:-1]).any(axis=1)
    first = number[np.maximum.accumulate(np.where(new, np.arange(len(number)), 0))] if len(number) else number
    return np.stack([first, number], axis=1)[~new]


def bands_of(shards: list[Path], starts: list[int], dropped: np.ndarray, partition: int,
             partitions: int) -> dict[str, np.ndarray]:
    """What step 2 for near duplicates looks for groups in: one range of the shards' bands, and the numbers of their
    documents. ``dropped`` are the numbers of documents that are exact duplicates already, sorted."""
    marks, numbers = [], []
    for shard, start in zip(shards, starts, strict=True):
        ours = read_array(shard / "bands.npy")
        part = in_range(ours, partition, partitions)
        number = read_array(shard / "band_rows.npy")[part].astype(np.int64) + start
        alive = ~among(number, dropped)
        marks.append(np.asarray(ours[part])[alive])
        numbers.append(number[alive])
    return {"bands": np.concatenate(marks), "numbers": np.concatenate(numbers)}


def band_groups(bands: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(bands, documents' numbers)``, sorted, of the bands that more than one document has."""
    order = np.lexsort((numbers, bands))
    band, number = bands[order], numbers[order]
    again = band[1:] == band[:-1]
    shared = np.r_[False, again] | np.r_[again, False] if len(band) else np.zeros(0, bool)
    return band[shared], number[shared]


def similar_pairs(bands: np.ndarray, numbers: np.ndarray, signatures: np.ndarray, threshold: float,
                  most_leaders: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Step 2 for near duplicates: pairs of at least the threshold's estimated similarity in the groups of
    :func:`band_groups`, int64 [pairs, 2], enough of them to connect every cluster, and their similarities, float32
    [pairs]. ``signatures``: those of the documents in the groups, in the order of their numbers."""
    bounds = np.flatnonzero(np.r_[True, bands[1:] != bands[:-1], True]) if len(bands) else np.zeros(1, np.int64)
    sizes = np.diff(bounds)
    begins = bounds[:-1]
    twos = begins[sizes == 2]
    pairs = np.unique(np.stack([numbers[twos], numbers[twos + 1]], axis=1), axis=0) if len(twos) else np.empty(
        (0, 2), np.int64)
    members = np.unique(numbers)
    similarity = np.concatenate([
        np.empty(0, np.float32), *((signatures[np.searchsorted(members, part[:, 0])] == signatures[np.searchsorted(
            members, part[:, 1])]).mean(axis=1, dtype=np.float32)
                                   for part in np.array_split(pairs, 1 + len(pairs) // 65536))
    ])
    edges = {(one, other): value
             for (one, other), value in zip(pairs.tolist(), similarity.tolist()) if value >= threshold}
    for start, size in zip(begins[sizes > 2].tolist(), sizes[sizes > 2].tolist(), strict=True):
        group = numbers[start:start + size]
        edges |= _group_edges(group, signatures[np.searchsorted(members, group)], threshold, most_leaders)
    found = sorted(edges)
    return np.array(found, np.int64).reshape(-1, 2), np.array([edges[pair] for pair in found], np.float32)


def near_pairs(shards: list[Path], starts: list[int], dropped: np.ndarray, threshold: float, partition: int,
               partitions: int, most_leaders: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Step 2 for near duplicates as a whole, for one range of bands."""
    bands, numbers = band_groups(**bands_of(shards, starts, dropped, partition, partitions))
    return similar_pairs(bands, numbers, signatures_of(np.unique(numbers), shards, starts), threshold, most_leaders)


def signatures_of(members: np.ndarray, shards: list[Path], starts: list[int]) -> np.ndarray:
    """The signatures of documents by their sorted numbers, one shard after another: no more than one is mapped at a
    time."""
    ends = np.searchsorted(members, [*starts, np.iinfo(np.int64).max])
    parts = [read_array(shard / "signatures.npy")[members[first:after] - start]
             for shard, start, first, after in zip(shards, starts, ends[:-1], ends[1:]) if after > first]
    return np.concatenate(parts) if parts else np.empty((0, 1), np.uint32)


def _group_edges(group: np.ndarray, signature: np.ndarray, threshold: float,
                 most_leaders: int) -> dict[tuple[int, int], float]:
    """Enough pairs to connect the similar members of one group. Each member in turn is compared with those that it is
    not connected to yet; after ``most_leaders`` of them the rest is left to the other bands, or one huge group of
    unlike documents would take quadratic time."""
    edges: dict[tuple[int, int], float] = {}
    component = np.arange(len(group))
    for leader in range(min(len(group) - 1, most_leaders)):
        others = np.flatnonzero(component != component[leader])
        if not len(others):
            break
        shares = estimated_jaccard(signature[leader], signature[others])
        similar = others[shares >= threshold]
        for other, share in zip(similar, shares[shares >= threshold].tolist()):
            edges[int(min(group[leader], group[other])), int(max(group[leader], group[other]))] = share
        if len(similar):
            component[np.isin(component, component[similar])] = component[leader]
    return edges


def clusters(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step 3: ``(documents, the smallest number of each one's cluster)``, sorted, for every document in a pair.
    Union-find in rounds over all pairs at once: each takes the smaller of two roots, then every path is halved."""
    documents, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(-1, 2)
    parent = np.arange(len(documents))
    while True:
        roots = parent[places]
        smaller = roots.min(axis=1)
        before = parent.copy()
        for column in (0, 1):
            np.minimum.at(parent, roots[:, column], smaller)
            np.minimum.at(parent, places[:, column], smaller)
        parent = parent[parent]
        if (parent == before).all():
            return documents, documents[parent]
