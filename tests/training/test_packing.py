"""Rows by patterns are the rows of best fit, each tree stands in one of them, and any step costs the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium import randomness
from trivium.errors import TriviumError
from trivium.training import packing
from trivium.training.batch import Tree, pack
from trivium.training.epochs import PackedEpochs
from trivium.training.packing import Packing, patterns


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=120), st.integers(40, 50))
def test_patterns_are_the_rows_of_best_fit(sizes, length):
    found = patterns(Counter(sizes), length)
    by_pattern = Counter()
    for pattern, rows in found:
        by_pattern[tuple(sorted(pattern.items()))] += rows
    item_by_item = Counter(tuple(sorted(Counter(sizes[i] for i in row).items())) for row in pack(sizes, length))
    assert by_pattern.total() == item_by_item.total()
    assert by_pattern == item_by_item


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=90), st.integers(0, 9), st.integers(1, 7))
def test_every_tree_stands_in_one_row_of_an_epoch(sizes, seed, block):
    packing.BLOCK, before = block, packing.BLOCK
    try:
        made = Packing(np.array(sizes, np.uint16), 30, seed)
    finally:
        packing.BLOCK = before
    for epoch in range(2):
        rows = made(epoch, 0, made.rows)
        assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
        assert all(sum(sizes[i] for i in row) <= 30 for row in rows)
        third = len(rows) // 3
        assert made(epoch, third, made.rows + 5) == rows[third:]


def test_epochs_and_seeds_have_orders_of_their_own():
    sizes = np.random.default_rng(0).integers(2, 30, 400)
    orders = [Packing(sizes, 32, seed)(epoch, 0, 10**6) for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4
    firsts = Counter(Packing(np.full(6, 5), 5, seed)(0, 0, 1)[0][0] for seed in range(1200))
    assert set(firsts) == set(range(6)) and max(firsts.values()) < 280


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 1000, 4097])
def test_a_permutation_place_by_place_is_one(count):
    whole = randomness.shuffled(np.arange(count), count, 3, "a")
    assert sorted(whole.tolist()) == list(range(count))
    some = np.arange(count)[::-3]
    assert randomness.shuffled(some, count, 3, "a").tolist() == whole[some].tolist()
    assert count < 5 or randomness.shuffled(np.arange(count), count, 3, "b").tolist() != whole.tolist()


def test_what_does_not_fit_is_refused():
    with pytest.raises(TriviumError, match="41 tokens does not fit a row of 40"):
        patterns({41: 1}, 40)
    with pytest.raises(TriviumError, match="0 tokens"):
        patterns({0: 1}, 40)
    assert patterns({41: 0}, 40) == [] and Packing(np.array([], np.int64), 40, 0)(0, 0, 9) == []


def test_a_batch_is_a_function_of_its_step():
    trees = [Tree(np.array([0]), (np.full(size, number),)) for number, size in enumerate([3, 5, 8, 13, 4, 4, 9, 2] * 9)]
    batches, later = PackedEpochs(trees, 16, 3, 1), PackedEpochs(trees, 16, 3, 1)
    told = [batches(step)[0].tokens.tolist() for step in range(3 * batches.steps_per_epoch)]
    assert all(later(step)[0].tokens.tolist() == told[step] for step in reversed(range(len(told))))
    one, other = (batches(1, part, 2)[0].tokens.tolist() for part in (0, 1))
    rows = [one[0], other[0], one[1]]
    assert [row for row in rows if any(row)] == [row for row in told[1] if any(row)]


TEN_BILLION = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from trivium.tokenizer.tokens import Tokens
from trivium.training.epochs import PackedEpochs
from trivium.training.pieces import Pieces

def private():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_Dirty"))

folder, documents, mean = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
total = documents * mean
with open(folder / "tokens.bin", "wb") as file:
    file.truncate(2 * total)
rng, end = np.random.default_rng(0), 0
with open(folder / "offsets.bin", "wb") as file:
    file.write(np.zeros(1, "<u8").tobytes())
    for start in range(0, documents, 1 << 20):
        count = min(1 << 20, documents - start)
        lengths = rng.integers(1, 2 * mean, count)
        if start + count == documents:
            lengths[-1] = max(1, total - end - lengths[:-1].sum())
        file.write((end + np.cumsum(lengths)).astype("<u8").tobytes())
        end += int(lengths.sum())
with open(folder / "tokens.bin", "r+b") as file:
    file.truncate(2 * end)
(folder / "tokens.json").write_text(json.dumps({"format": 1, "dtype": "uint16", "tokens": end, "documents": documents,
                                                "tokenizer": "t", "digests": {}}))
before, begun = private(), time.monotonic()
batches = PackedEpochs(Pieces(Tokens.open(folder), 0, 1024), 1024, 16, 0)
first = batches(0)[0]
seconds, later = time.monotonic() - begun, time.monotonic()
batches(batches.steps_per_epoch * 3 // 2)
print(json.dumps({"tokens": end, "megabytes": (private() - before) / 1024, "seconds": seconds,
                  "later": time.monotonic() - later,
                  "pieces": len(batches.trees)}))
"""


def big(folder, documents, mean):
    ran = subprocess.run([sys.executable, "-c", TEN_BILLION, folder, str(documents), str(mean)], capture_output=True,
                         text=True, check=True)
    return json.loads(ran.stdout)


def test_a_corpus_of_any_size_is_not_held_in_memory(tmp_path):
    found = big(tmp_path, 300_000, 900)
    assert found["tokens"] > 2 * 10**8
    assert found["megabytes"] < 20


@pytest.mark.long
def test_ten_billion_tokens_are_not_either(tmp_path):
    found = big(tmp_path, 10_000_000, 1000)
    print(found)
    assert found["tokens"] > 99 * 10**8 and found["megabytes"] < 200
