"""Learned filters: they learn, are the same after a trip to disk, and refuse what they are not."""

import random

import numpy as np
import pytest

from trivium.corpus.classifier import FeatureSettings, Filter, features, measured, train
from trivium.errors import TriviumError


def examples(count=240):
    rng = random.Random(5)
    good, bad = (["careful", "study", "shows", "results", "of", "measurements", "in",
                  "winter"], ["click", "win", "free", "prize", "now", "offer", "limited", "deal"])
    both = ["the", "a", "of", "and", "to", "in", "it", "is", "that", "was", "for", "on"]
    texts, labels = [], []
    for number in range(count):
        label = number % 2 == 0
        texts.append(" ".join(
            rng.choice(good if label else bad) if rng.random() < 0.3 else rng.choice(both)
            for _ in range(40)) + f" {number}")
        labels.append(label)
    return texts, labels


@pytest.mark.parametrize("characters", [False, True])
def test_it_learns_and_survives_disk(tmp_path, characters):
    texts, labels = examples()
    made = train(texts, labels, "good", FeatureSettings(bits=14, characters=characters), 10.0,
                 [n % 5 == 0 for n in range(len(texts))])
    assert made.header["heldout"]["f1"] > 0.95 and made.header["heldout"]["roc_area"] > 0.98
    again = train(texts, labels, "good", FeatureSettings(bits=14, characters=characters), 10.0,
                  [n % 5 == 0 for n in range(len(texts))])
    made.save(tmp_path / "a")
    again.save(tmp_path / "b")
    for name in ("filter.json", "filter.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = Filter.load(tmp_path / "a")
    assert [loaded.score(text) for text in texts] == [made.score(text) for text in texts]
    assert 0 <= loaded.score("") <= 1 and 0 <= loaded.score("\ud800 x") <= 1


def test_features_have_unit_length_and_ignore_case():
    settings = FeatureSettings()
    buckets, values = features("One two one.", settings)
    # one, two, "one two", "two one"
    assert np.isclose((values**2).sum(), 1) and (np.diff(buckets) > 0).all() and len(buckets) == 4
    assert (features("ONE TWO, one", settings)[0] == buckets).all()
    assert len(features("", settings)[0]) == 0 and len(features("红楼梦", settings)[0]) == 5


def test_what_is_no_filter_is_refused(tmp_path):
    (tmp_path / "filter.json").write_text('{"format": 1}')
    with pytest.raises(TriviumError, match="not the header of a learned filter"):
        Filter.load(tmp_path)
    (tmp_path / "filter.json").write_text('{"format": 1, "finds": "good", "features": {}}')
    (tmp_path / "filter.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(TriviumError, match="damaged"):
        Filter.load(tmp_path)
    with pytest.raises(TriviumError, match="1 texts of the sought class"):
        train(["a", "b", "c"], [True, False, False], "good", FeatureSettings(), 1.0, [False] * 3)


def test_measured_against_hand_counts():
    found = measured([0.9, 0.8, 0.4, 0.2, 0.5], [True, False, True, False, True])
    assert found["precision"]["value"] == 2 / 3 and found["recall"]["value"] == 2 / 3 and found["f1"] == 2 / 3
    assert found["roc_area"] == pytest.approx(4 / 6)  # pairs (sought, other) in the right order
