"""Lessons: the answers that are known beforehand, and files that are not what they should be."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
import torch

from trivium.data.digits import read_idx, read_mnist
from trivium.errors import TriviumError
from trivium.lessons.animals import Animals, best_possible, herd
from trivium.lessons.digits import PARAMETERS, bend, network
from trivium.lessons.lesson import Epochs, Examples
from trivium.lessons.next_word import Counts
from trivium.lessons.run import run_lesson


def test_the_line_comes_to_the_least_squares_answer_and_a_long_step_leaps_out(tmp_path):
    artifact = run_lesson("line", [], tmp_path, quiet=True)
    numbers = artifact.summary
    best, attempts = numbers["least_squares"], numbers["attempts"]
    close = attempts["step 0.1"]
    assert abs(close["a"] - best["a"]) < 1e-3 and abs(close["b"] - best["b"]) < 1e-3
    assert numbers["gradient_at_zero"]["by_hand"] == pytest.approx(numbers["gradient_at_zero"]["by_backpropagation"],
                                                                   rel=1e-5)
    assert attempts["step 0.4 (too long)"]["error"] > 1e6 > 1 > attempts["step 0.4, halved when progress "
                                                                         "stops"]["error"]
    assert 0.3 < numbers["longest_step"] < 0.4  # 0.3 converges and 0.4 does not
    page = (artifact.folder / "index.html").read_text()
    assert "plotly" in page and "http-equiv" not in page and json.loads(
        (artifact.folder / "numbers.json").read_text()) == numbers
    again = run_lesson("line", [], tmp_path, quiet=True)
    assert again.manifest["created"] == artifact.manifest["created"]  # found again, not run again


def test_a_hidden_layer_tells_animals_apart_that_planes_cannot(tmp_path):
    numbers = run_lesson("animals", ["species=12", "examples=60", "steps=300"], tmp_path, quiet=True).summary
    linear, hidden, best = numbers["models"]["linear"], numbers["models"]["hidden"], numbers["best"]
    assert best["loss"] <= hidden["test_loss"] < linear["test_loss"] < numbers["chance"]["loss"] == pytest.approx(
        math.log(12))
    example = numbers["example"]
    assert sum(example["probabilities"]) <= 1 + 1e-5


def test_the_best_possible_judge_knows_the_densities():
    settings = Animals(species=2, examples=2000)
    points, species, _ = herd(settings, 3, "test", 2000)
    scores = best_possible(points, settings, 3)
    assert (scores.argmax(1) == species).mean() > 0.9  # two species of twelve decades of weight rarely overlap


def idx(path, sizes, data, kind=8, zipped=False):
    raw = bytes([0, 0, kind, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes) + bytes(data)
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    return path


def small_mnist(folder, n=40, label=None):
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = np.arange(n) % 10
        if label is not None:
            labels[3] = label
        images = rng.integers(0, 60, (n, 28, 28))
        for i, digit in enumerate(labels % 10):
            images[i, 2 * digit:2 * digit + 3] = 255
        idx(folder / f"{part}-images-idx3-ubyte.gz", (n, 28, 28), images.ravel().tolist(), zipped=True)
        idx(folder / f"{part}-labels-idx1-ubyte", (n,), labels.tolist())
    return folder


def test_the_digits_network_has_637710_parameters():
    assert sum(p.numel() for p in network(0).parameters()) == PARAMETERS == 637_710


def test_digits_are_learned_from_idx_files(tmp_path):
    (tmp_path / "digits").mkdir()
    data = small_mnist(tmp_path / "digits", 200)
    numbers = run_lesson("digits", [f"data={json.dumps(str(data))}", "epochs=6", "rows=20", "few=20", "few_epochs=3"],
                         tmp_path / "runs", quiet=True).summary
    assert numbers["data"] == "mnist" and numbers["test_accuracy"] > 0.9 and numbers["train_images"] == 200
    assert set(numbers["overfitting"]) == {"few", "few-bent"}


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: idx(f / "train-labels-idx1-ubyte", (41,), range(40)), "announces 41 = 41 bytes, but 40 follow"),
    (lambda f: idx(f / "train-labels-idx1-ubyte", (39,), [0] * 39), "39 labels for 40 images"),
    (lambda f: idx(f / "train-labels-idx1-ubyte", (40,), [0] * 40, kind=13), "not an IDX file of bytes in 1 dimension"),
    (lambda f: (f / "train-labels-idx1-ubyte").write_bytes(b""), "begins with nothing"),
    (lambda f: (f / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bnot gzip at all"), "cannot be read"),
    (lambda f:
     (f / "train-images-idx3-ubyte.gz").unlink(), "train-images-idx3-ubyte (or train-images-idx3-ubyte.gz) is missing"),
    (lambda f: idx(f / "train-images-idx3-ubyte.gz", (40, 20, 20), [0] * 16000), "images of 20 × 20"),
    (lambda f: idx(f / "train-images-idx3-ubyte.gz", (2**32 - 1, 2**32 - 1, 2**32 - 1), [0]), "but 1 follow"),
])
def test_a_bad_idx_file_is_one_clear_error(tmp_path, change, message):
    small_mnist(tmp_path)
    change(tmp_path)
    with pytest.raises(TriviumError, match="idx") as error:
        read_mnist(tmp_path, "train")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_label_outside_the_list_and_a_bomb_are_refused(tmp_path, monkeypatch):
    small_mnist(tmp_path, label=12)
    with pytest.raises(TriviumError, match="label 4 is 12; the labels are 0 to 9"):
        read_mnist(tmp_path, "train")
    monkeypatch.setattr("trivium.data.digits.LARGEST", 10_000)
    bomb = idx(tmp_path / "bomb.gz", (100_000,), bytes(100_000), zipped=True)
    with pytest.raises(TriviumError, match="more than 10,000 bytes"):
        read_idx(bomb, 1)


def test_bent_images_depend_on_seed_and_step_alone():
    batch = Examples(torch.rand(4, 784), torch.arange(4))
    assert torch.equal(bend(batch, 1, 2).inputs, bend(batch, 1, 2).inputs)
    assert not torch.equal(bend(batch, 1, 2).inputs, bend(batch, 1, 3).inputs)


def test_an_epoch_shows_every_example_once_whatever_the_number_of_slices():
    table = Examples(torch.arange(10.0), torch.arange(10))
    batches = Epochs(table, 4, 0)
    whole = [batches(step)[0].targets.tolist() for step in range(3)]
    assert sorted(target for batch in whole for target in batch) == list(range(10)) and batches.steps_per_epoch == 3
    parts = [batches(1, part, 2)[0].targets.tolist() for part in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole[1])


def test_counts_are_probabilities():
    counts = Counts(2, 5, [np.array([1, 2, 3, 2, 3, 4])])
    for before in ((), (2,), (1, 2), (4, 4), (0, 3)):
        assert sum(counts.probability(before, word) for word in range(5)) == pytest.approx(1)
    assert counts.probability((1, 2), 3) > 0.5 > counts.probability((1, 2), 4)


def test_counting_and_learning_are_measured_on_the_same_words(tmp_path):
    numbers = run_lesson("next-word", ["documents_bytes=50000", "steps=40", "vocabulary=200", "length=48"], tmp_path,
                         quiet=True).summary
    losses = numbers["loss"]
    assert losses["counts after one word"] < losses["counts of words"] < losses["all words alike"]
    assert losses["a tiny Transformer"] < losses["counts of words"]


@pytest.mark.parametrize(("name", "overrides", "message"), [
    ("lines", [], "did you mean 'line'"),
    ("digits", ["epoch=2"], "did you mean 'epochs'"),
    ("digits", ["data=./none"], "no such file or folder"),
    ("line", ["points=1"], "points"),
])
def test_a_wrong_lesson_or_setting_names_the_nearest(tmp_path, name, overrides, message):
    with pytest.raises(TriviumError, match=message):
        run_lesson(name, overrides, tmp_path, quiet=True)


@pytest.mark.browser
def test_a_page_speaks_both_languages(tmp_path, chromium):
    place = run_lesson("animals", ["species=5", "examples=40", "steps=20"], tmp_path, quiet=True).folder / "index.html"
    wrong = []
    for locale, said, other in (("en-US", ("Which animal is it?", "step", "linear"), ("是哪种动物？", "步", "线性")),
                                ("zh-CN", ("是哪种动物？", "步", "线性"), ("Which animal is it?", "step", "linear"))):
        page = chromium.new_page(locale=locale)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(place.as_uri())
        for heading, axis, name in (said, other):
            assert page.inner_text("h1") == heading and page.title() == f"{heading} – Trivium"
            page.wait_for_function("([axis, name]) => [...document.querySelectorAll('.xtitle')].at(-1)?.textContent "
                                   "=== axis && document.querySelector('.legendtext')?.textContent === name",
                                   arg=[axis, name])
            chinese = page.evaluate("""[...document.querySelectorAll('span[lang="zh-Hans"]')].filter(
                (one) => one.checkVisibility()).length""")
            english = page.evaluate("""[...document.querySelectorAll('span[lang="en"]')].filter(
                (one) => one.checkVisibility()).length""")
            assert (chinese > 15 and not english) if heading == "是哪种动物？" else (english > 15 and not chinese)
            page.click("#language")
        page.close()
    assert wrong == []
