"""Mixtures: shares come out as asked for, again and again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.corpus.mixture import MixtureSettings, copies, epochs
from trivium.errors import TriviumError

SIZES = {"web": 8000, "books": 1000, "wiki": 1000}


def test_nothing_asked_for_is_one_epoch_of_all():
    assert not MixtureSettings().enabled
    assert epochs(SIZES, MixtureSettings()) == dict.fromkeys(SIZES, 1.0)


def test_weights_and_size():
    found = epochs(SIZES, MixtureSettings(weights={"books": 3}))
    assert found["books"] == pytest.approx(3 * found["web"]) and found["wiki"] == found["web"]
    assert sum(found[name] * SIZES[name] for name in SIZES) == pytest.approx(10_000)
    assert epochs(SIZES, MixtureSettings(size=5000)) == dict.fromkeys(SIZES, 0.5)
    assert epochs(SIZES, MixtureSettings(weights={"web": 0}, size=1000)) == {"web": 0, "books": 0.5, "wiki": 0.5}


def test_temperature_lifts_small_sources():
    found = epochs(SIZES, MixtureSettings(temperature=2))
    shares = {name: found[name] * SIZES[name] for name in SIZES}
    assert shares["web"] / shares["books"] == pytest.approx(8 ** 0.5)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**9), min_size=1), st.integers(1, 10**10),
       st.floats(0.2, 8))
def test_no_source_beyond_its_epochs_and_the_rest_is_shared(sizes, size, most):
    found = epochs(sizes, MixtureSettings(size=size, max_epochs=most))
    total = sum(found[name] * sizes[name] for name in sizes)
    assert all(value <= most * (1 + 1e-9) for value in found.values())
    assert total == pytest.approx(min(size, most * sum(sizes.values())), rel=1e-6)


def test_copies_follow_the_hash():
    drawn = [copies(str(n), "text", 2.3, 1) for n in range(4000)]
    assert set(drawn) == {2, 3} and abs(sum(drawn) / 4000 - 2.3) < 0.03
    assert drawn == [copies(str(n), "text", 2.3, 1)
                     for n in range(4000)] != [copies(str(n), "text", 2.3, 2) for n in range(4000)]
    fewer = [copies(str(n), "text", 0.4, 1) for n in range(100)]
    more = [copies(str(n), "text", 0.6, 1) for n in range(100)]
    assert all(a <= b for a, b in zip(fewer, more, strict=True))  # a larger share holds the smaller one's documents


def test_faults():
    with pytest.raises(TriviumError, match="did you mean 'books'"):
        epochs(SIZES, MixtureSettings(weights={"bokks": 2}))
    with pytest.raises(TriviumError, match="all sources have the weight 0"):
        epochs({"a": 1}, MixtureSettings(weights={"a": 0}))
    for wrong in ({"temperature": 0}, {"weights": {"a": -1}}, {"size": 0}):
        with pytest.raises(TriviumError):
            MixtureSettings(**wrong)
