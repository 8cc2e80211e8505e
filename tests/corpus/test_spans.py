"""Passages that occur more than once: against brute force."""

import random

import numpy as np
import pytest

from trivium.corpus.duplicates import DuplicateSettings, write_marks
from trivium.corpus.repeated_spans import (
    SpanSettings,
    cut,
    least,
    mark,
    marks_of,
    minimizers,
    repeated_hashes,
    repeats,
    run_hashes,
    windows,
    windows_of,
    words_of,
)
from trivium.corpus.shards import read_array, write_array
from trivium.corpus.words import plain_hashes, word_hashes

SETTINGS = SpanSettings(enabled=True, words=12, min_words_left=1)


def corpus(seed=3):
    rng = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(60)]
    passages = [[rng.choice(vocabulary) for _ in range(rng.randint(8, 30))] for _ in range(8)]
    texts = []
    for _ in range(30):
        words = [rng.choice(vocabulary) for _ in range(rng.randint(0, 60))]
        for passage in rng.sample(passages, rng.randint(0, 3)):
            place = rng.randint(0, len(words))
            words[place:place] = passage
        texts.append(" ".join(words).replace("w7", "W7,").replace("w9", "w9.\n"))
    return texts


def expected(texts, dropped=()):
    seen, gone = set(), {}
    for number, text in enumerate(texts):
        if number in dropped:
            continue
        words = words_of(text)
        for start in range(len(words) - SETTINGS.words + 1):
            window = tuple(words[start:start + SETTINGS.words])
            if window in seen:
                gone.setdefault(number, []).append(start)
            seen.add(window)
    return gone


def found(tmp_path, texts, sizes, partitions, dropped=()):
    shards, held, starts, parts, start = [], [], [], [], 0
    gone = np.array(sorted(dropped), np.int64)
    for size in sizes:
        shard = tmp_path / f"{partitions}-{len(sizes)}-{len(shards)}"
        shard.mkdir()
        mark(texts[start:start + size], plain_hashes(texts[start:start + size]), SETTINGS, shard)
        shards.append(shard)
        starts.append(start)
        start += size
    common = [repeated_hashes(**marks_of(shards, starts, gone, part, partitions)) for part in range(partitions)]
    for shard, first, size in zip(shards, starts, sizes, strict=True):
        held.append(shard / "held")
        held[-1].mkdir()
        windows({row: texts[first + row]
                 for row in range(size) if first + row not in dropped}, common, SETTINGS, held[-1])
    for part in range(partitions):
        parts.append(repeats(**windows_of(held, starts, part, partitions)))
    gathered = {}
    for numbers, words in parts:
        for number, word in zip(numbers.tolist(), words.tolist(), strict=True):
            gathered.setdefault(number, []).append(word)
    return {number: sorted(words) for number, words in sorted(gathered.items())}


@pytest.mark.parametrize(("sizes", "partitions"), [([30], 1), ([10, 13, 7], 1), ([1] * 30, 3), ([29, 1], 7)])
def test_equals_brute_force_for_any_cut(tmp_path, sizes, partitions):
    texts = corpus()
    truth = expected(texts)
    assert sum(map(len, truth.values())) > 50
    assert found(tmp_path, texts, sizes, partitions) == truth
    (tmp_path / "x").mkdir()
    assert found(tmp_path / "x", texts, sizes, partitions, {0, 5}) == expected(texts, {0, 5})


def test_cut_takes_the_passage_and_leaves_the_rest():
    text = "Before it. " + " ".join(f"word{n}" for n in range(12)) + "! After it, more."
    kept, removed, left = cut(text, np.array([2]), SETTINGS)
    assert (kept, removed, left) == ("Before it.\nAfter it, more.", 12, 5)
    assert cut(text, np.array([0, 2, 5]), SETTINGS) == ("", 17, 0)
    assert cut("一二三四五六七八九十甲乙丙丁", np.array([0]), SETTINGS)[0] == "丙丁"


def test_run_hashes_and_windows():
    hashes = word_hashes([f"w{n % 7}" for n in range(40)])
    runs = run_hashes(hashes, 5)
    assert len(runs) == 36 and len(set(runs.tolist())) == 7 and (runs[7:] == runs[:-7]).all()
    values = np.random.default_rng(0).integers(0, 2**63, 50).astype(np.uint64)
    for width in (1, 2, 5, 26):
        assert least(values, width).tolist() == [min(values[k:k + width]) for k in range(50 - width + 1)]
    assert all(len(part) == 0 for part in minimizers(hashes[:9], 12))


def test_arrays_on_disk_are_empty_when_nothing_is_marked(tmp_path):
    assert mark(["short"], plain_hashes(["short"]), SETTINGS, tmp_path) == 0 and len(read_array(
        tmp_path / "marks.npy")) == 0
    write_marks([], [], DuplicateSettings(), 0, tmp_path)
    write_array(tmp_path / "x.npy", np.empty(0))


def test_marks_fall_evenly_into_the_partitions():
    marks = minimizers(np.random.default_rng(0).integers(0, 2**64, 200_000, np.uint64), 50)[1]
    counts = np.bincount((marks >> np.uint64(60)).astype(np.int64), minlength=16)
    assert counts.max() < 1.1 * len(marks) / 16
