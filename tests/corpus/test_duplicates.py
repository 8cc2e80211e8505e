"""Duplicates: against brute force, and the same for any cut into shards and partitions."""

import itertools
import random

import numpy as np
import pytest

from trivium.corpus.duplicates import (
    DuplicateSettings,
    band_hashes,
    clusters,
    digests_of,
    estimated_jaccard,
    exact_pairs,
    near_pairs,
    shingles,
    signatures,
    text_digest,
    write_marks,
)
from trivium.corpus.words import plain_hashes
from trivium.errors import TriviumError

SETTINGS = DuplicateSettings()


def jaccards(texts):
    """The true similarity of every pair, by brute force."""
    sets = [
        frozenset(shingles(text, hashes, SETTINGS.run).tolist())
        for text, hashes in zip(texts, plain_hashes(texts), strict=True)
    ]
    return {
        (a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in itertools.combinations(range(len(texts)), 2)
    }


def corpus(seed=0, originals=60):
    """Random texts, each with copies that have 0 to 5 words changed."""
    rng = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(3000)]
    texts = []
    for _ in range(originals):
        words = rng.choices(vocabulary, k=rng.randint(60, 150))
        for changes in rng.sample(range(6), rng.randint(1, 4)):
            copy = list(words)
            for place in rng.sample(range(len(copy)), changes):
                copy[place] = rng.choice(vocabulary)
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    return texts


def marked(tmp_path, texts, sizes, settings=SETTINGS, seed=3):
    """Shards of the given sizes on disk."""
    shards, starts = [], []
    start = 0
    for number, size in enumerate(sizes):
        folder = tmp_path / f"shard-{number}"
        folder.mkdir(parents=True)
        write_marks(texts[start : start + size], plain_hashes(texts[start : start + size]), settings, seed, folder)
        shards.append(folder)
        starts.append(start)
        start += size
    assert start == len(texts)
    return shards, starts


def near(shards, starts, partitions=1, threshold=0.7, dropped=(), **more):
    parts = [
        near_pairs(shards, starts, np.array(dropped, np.int64), threshold, part, partitions, **more)[0]
        for part in range(partitions)
    ]
    return clustered(np.concatenate(parts))


def clustered(pairs):
    return dict(zip(*(part.tolist() for part in clusters(pairs)), strict=True))


def test_signatures_estimate_the_true_jaccard():
    texts = corpus()[:80]
    signature = signatures(texts, plain_hashes(texts), SETTINGS, 1)
    assert signature.shape == (80, 112) and signature.dtype == np.uint32
    for (one, other), true in jaccards(texts).items():
        # 5 standard deviations of 112 independent trials
        assert (
            abs(estimated_jaccard(signature[one], signature[[other]])[0] - true)
            <= 5 * np.sqrt(true * (1 - true) / 112) + 1e-9
        )
    assert (signatures(texts, plain_hashes(texts), SETTINGS, 1) == signature).all() and (signatures(
        texts, plain_hashes(texts), SETTINGS, 2) != signature).any()


def test_bands_find_what_the_formula_says():
    rng = random.Random(5)
    found, expected = [], []
    for _ in range(300):
        shared, own = rng.randint(60, 90), 10
        sets = [np.array([rng.getrandbits(63) for _ in range(own)], np.uint64) for _ in range(2)]
        both = np.array([rng.getrandbits(63) for _ in range(shared)], np.uint64)
        true = shared / (shared + 2 * own)
        words = [" ".join(f"{value:x}" for value in np.r_[both, part]) for part in sets]
        one, other = band_hashes(signatures(words, plain_hashes(words), DuplicateSettings(run=1), rng.getrandbits(60)),
                                 SETTINGS)
        found.append(bool((one == other).any()))
        expected.append(1 - (1 - true**8) ** 14)
    deviation = np.sqrt(sum(p * (1 - p) for p in expected))
    assert abs(sum(found) - sum(expected)) < 4 * deviation


def test_clusters_equal_brute_force(tmp_path):
    texts = corpus(originals=80)
    signature = signatures(texts, plain_hashes(texts), SETTINGS, 3)
    bands = band_hashes(signature, SETTINGS)
    pairs = [
        (a, b)
        for a, b in itertools.combinations(range(len(texts)), 2)
        if (bands[a] == bands[b]).any() and (signature[a] == signature[b]).mean() >= 0.7
    ]
    assert len(pairs) > 40
    found = near(*marked(tmp_path, texts, [len(texts)]))
    assert found == clustered(np.array(pairs))
    # and against the true similarities: all clear pairs together, all clear strangers apart
    for (a, b), true in jaccards(texts).items():
        together = found.get(a, -1) == found.get(b, -2)
        assert together or true < 0.93
        assert not together or true > 0.2


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_shards_and_partitions_change_nothing(tmp_path, partitions):
    texts = corpus(seed=1)
    texts += texts[:5] + [texts[7].upper().replace(" ", "\n")]
    whole, cut = [len(texts)], [0, 40, 1, 0, len(texts) - 41, 0]
    one, many = marked(tmp_path / "one", texts, whole), marked(tmp_path / "many", texts, cut)
    assert near(*many, partitions=partitions) == near(*one)
    exact = [
        sorted(pair for part in range(count) for pair in exact_pairs(**digests_of(*shards, part, count)).tolist())
        for shards, count in ((one, 1), (many, partitions))
    ]
    count = len(texts)
    assert exact[0] == exact[1] == sorted([[k, count - 6 + k] for k in range(5)] + [[7, count - 1]])
    # what is dropped already is no longer compared
    dropped = sorted(pair[1] for pair in exact[0])
    assert not set(near(*many, partitions=partitions, dropped=dropped)) & set(dropped)


def test_a_huge_group_is_bounded_but_found(tmp_path):
    rng = random.Random(2)
    base = [f"w{n}" for n in range(400)]
    texts = []
    for _ in range(120):
        copy = list(base)
        copy[rng.randrange(400)] = "other"
        texts.append(" ".join(copy))
    shards = marked(tmp_path, texts, [120])
    assert set(near(*shards, most_leaders=2).values()) == {0} and len(near(*shards)) == 120


def test_chains_are_one_cluster():
    assert clustered(np.array([[5, 9], [2, 3], [9, 2], [11, 12]])) == {2: 2, 3: 2, 5: 2, 9: 2, 11: 11, 12: 11}
    assert clustered(np.empty((0, 2), np.int64)) == {}


def test_short_and_unspaced_texts(tmp_path):
    settings = DuplicateSettings(bands=56, rows=2)
    chinese = (
        "村子里的老渡船每天过河两次,人们按照它的时间来调整自己家里的钟表,春天河水上涨的时候老人总要等到风向转变才肯开船"
    )
    texts = [
        "Yes.",
        "yes",
        "No.",
        "!!!",
        "???",
        chinese,
        chinese.replace("老人", "船夫"),
        chinese[::-1],
        "one two three",
        "three two one",
    ]
    found = near(*marked(tmp_path, texts, [len(texts)], settings))
    assert found == {0: 0, 1: 0, 5: 5, 6: 5}


def test_digest_ignores_case_and_white_space():
    assert text_digest("A  b\nC") == text_digest("a b c ") != text_digest("a bc")


def test_settings_are_checked():
    for wrong in ({"bands": 0}, {"rows": 0}, {"run": 0}, {"threshold": 0.0}, {"threshold": 1.5}):
        with pytest.raises(TriviumError, match=next(iter(wrong))):
            DuplicateSettings(**wrong)
