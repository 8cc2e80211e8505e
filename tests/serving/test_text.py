"""Text that grows token by token, and the names and counters around it."""

from __future__ import annotations

import pytest

from trivium.cli.serving import named, read_keys
from trivium.errors import TriviumError
from trivium.serving.metrics import Metrics
from trivium.serving.text import GrowingText, token_entry
from trivium.tokenizer.chat import ChatTokenizer


@pytest.fixture(scope="module")
def tokenizer(folders):
    return ChatTokenizer.load(folders["one"])


@pytest.mark.parametrize("text", ["to be, or not to be", "你好，世界。 ok 🙂 é", " spaces  and\nlines\n", "��"])
def test_pieces_are_the_whole(tokenizer, text):
    ids = tokenizer.encode(text)
    growing = GrowingText(tokenizer, [])
    pieces = [growing.push([token], last=place == len(ids) - 1) for place, token in enumerate(ids)]
    assert "".join(pieces) == text
    if "🙂" in text:
        assert not any("\ufffd" in piece for piece in pieces)  # never half a character


def test_a_stop_text_is_found_across_tokens_and_never_shown(tokenizer):
    ids = tokenizer.encode("to be, or not to be: that")
    growing = GrowingText(tokenizer, ["not to bee", "be: th"])
    shown = ""
    for token in ids:
        shown += growing.push([token])
        assert "to be, or not to ".startswith(shown)
    assert shown == "to be, or not to " and growing.done
    assert GrowingText(tokenizer, ["or", "be,"]).push(ids, last=True) == "to "


def test_bytes_of_tokens(tokenizer):
    ids = tokenizer.encode("question 🙂")
    assert b"".join(bytes(token_entry(tokenizer, token, 0.0)["bytes"]) for token in ids).decode() == "question 🙂"
    assert token_entry(tokenizer, tokenizer.end_id, -1.0)["token"] == "<|end|>"


def test_names_of_models(tmp_path):
    assert list(named(["runs/ppo", "other=runs/ppo"])) == ["ppo", "other"]
    with pytest.raises(TriviumError, match="two models are named 'ppo'"):
        named(["a/ppo", "b/ppo"])


def test_keys_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "keys").write_text("# ours\nabc\n\n def \n")
    assert read_keys(tmp_path / "keys") == ["abc", "def"]
    monkeypatch.setenv("TRIVIUM_API_KEYS", "x, y,")
    assert read_keys(None) == ["x", "y"]
    (tmp_path / "none").write_text("# nothing\n")
    with pytest.raises(TriviumError, match="holds no key"):
        read_keys(tmp_path / "none")


def test_prometheus_text():
    metrics = Metrics()
    metrics.describe("seconds", "histogram", "Time.")
    metrics.describe("count", "counter", "Things.")
    metrics.observe("seconds", 0.2, model='a"b')
    metrics.add("count", 2)
    text = metrics.text({})
    assert 'seconds_bucket{model="a\\"b",le="0.1"} 0\n' in text
    assert 'seconds_bucket{model="a\\"b",le="+Inf"} 1\n' in text
    assert "# TYPE count counter\ncount 2\n" in text
