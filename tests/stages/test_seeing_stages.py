"""Pictures, masked patches and LLaVA's two steps, end to end at toy size."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from trivium.api import load
from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig, folder
from trivium.model.images import look
from trivium.pipeline.run import run
from trivium.planning.inspection import tokens_of
from trivium.recipe.load import load_recipe
from trivium.stages.data.pictures import SIDE, draw, drawn_shapes
from trivium.stages.pretraining.vision import PictureEpochs
from trivium.tokenizer import train
from trivium.tokenizer.chat import ChatTokenizer

RECIPE = """
name: seeing
out: {out}
stages:
  pictures: {{digits: 24, shapes: 24, heldout: 4, most: 2}}
  vision:
    model: {{size: 28, patch: 14, hidden_size: 32, intermediate_size: 48, num_layers: 1, num_heads: 2, num_kv_heads: 2,
             head_dim: 16}}
    rows: 16
    epochs: 2
    precision: {precision}
  align:
    kind: see
    model: {model}
    vision: vision
    rows_from: captions
    train: [projector]
    length: 96
    rows: 4
    examine: false
    precision: {precision}
  see: {{model: align, precision: {precision}, length: 96, rows: 4, epochs: 1, optimization: {{learning_rate: 0.003}}}}
"""


def chat_model(place):
    tokenizer = ChatTokenizer(
        train.train(
            iter(
                ["How many circles are there? Which digit is this? a handwritten 7, two squares and one triangle"] * 9),
            330))
    model = LanguageModel(
        ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=1, num_heads=2,
                    num_kv_heads=2, head_dim=16, max_positions=128)).initialise(0)
    place.mkdir()
    folder.save(model, place, tokenizer.ids)
    tokenizer.save(place)
    return place


def test_the_two_steps_train_what_they_name_and_the_result_answers(tmp_path, any_precision):
    (tmp_path / "r.yaml").write_text(
        RECIPE.format(out=tmp_path / "runs", model=chat_model(tmp_path / "chat"), precision=any_precision))
    artifacts = run(tmp_path / "r.yaml")
    assert [artifacts[stage].summary["precision"] for stage in ("vision", "align", "see")] == [any_precision] * 3
    before, aligned, seeing = (folder.load(place)
                               for place in (tmp_path / "chat", artifacts["align"].folder, artifacts["see"].folder))
    assert torch.equal(aligned.model.layers[0].mlp.up_proj.weight, before.model.layers[0].mlp.up_proj.weight)
    assert not torch.equal(seeing.model.layers[0].mlp.up_proj.weight, aligned.model.layers[0].mlp.up_proj.weight)
    assert not torch.equal(seeing.projector.linear_1.weight, aligned.projector.linear_1.weight)
    assert torch.equal(seeing.vision.patches.weight, aligned.vision.patches.weight)
    summary = artifacts["see"].summary
    assert {"all", "digit", "shapes"} == set(summary["right"]) and summary["right"]["all"]["n"] == 8
    mistakes = [json.loads(line) for line in (artifacts["see"].folder / "mistakes.jsonl").read_text().splitlines()]
    assert len(mistakes) == 8 - round(8 * summary["right"]["all"]["value"])
    rows = [json.loads(line) for line in (artifacts["pictures"].folder / "heldout.jsonl").read_text().splitlines()]
    said = {mistake["row"]: mistake["said"] for mistake in mistakes}
    answer = load(artifacts["see"].folder).generate(rows[0]["messages"][:1], 0.0,
                                                    max_new_tokens=len(said.get(1, "")) + 2)
    assert answer.startswith(said.get(1, rows[0]["messages"][-1]["content"]))
    assert artifacts["vision"].summary["validation_loss"] > 0
    tokens = list(tokens_of(load_recipe(tmp_path / "r.yaml"), "see", 0))
    pictures = sum(token["text"] == "(picture)" for token in tokens)
    # patches of 14 pixels
    assert pictures == 4 * len({token["segment"] for token in tokens if token["text"] == "(picture)"}) > 0
    with pytest.raises(TriviumError, match="a stage of kind 'vision' has no batches of its own to look at"):
        list(tokens_of(load_recipe(tmp_path / "r.yaml"), "vision", 0))


def test_shapes_are_as_many_as_the_answer_says():
    for kind, pixels, caption, answers in drawn_shapes("train", 40, 5, seed=3):
        assert pixels.shape == (SIDE, SIDE) and kind == "shapes" and len(answers) == 3
        total = sum(int(number) for _, number in answers)
        assert connected(pixels > 100) == total, caption
        assert all((f"{word[:-1]}" in caption) == (number != "0") for word, number in answers)
    circle, square = (draw([(shape, 10, 10, 3.5)]) for shape in ("circle", "square"))
    assert abs(float(circle.sum()) / 255 - np.pi * 3.5**2) < 1 and not np.array_equal(circle, square)


def connected(ink):
    """How many pieces of ink there are."""
    left, count = {tuple(place) for place in np.argwhere(ink)}, 0
    while left:
        count, todo = count + 1, [left.pop()]
        while todo:
            y, x = todo.pop()
            near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            todo += near
    return count


def test_hidden_patches_do_not_depend_on_slices():
    pixels = np.arange(10, dtype=np.uint8).repeat(16).reshape(10, 1, 4, 4)
    batches = PictureEpochs(pixels, 4, 6, seed=0, mask=0.5)
    whole, pieces = batches(0)[0], batches(0, rows=4)
    assert len(pieces) == 2 and torch.equal(torch.cat([piece.hidden for piece in pieces]), whole.hidden)
    assert torch.equal(torch.cat([piece.pixels for piece in pieces]), whole.pixels) and (whole.hidden.sum(1) == 2).all()
    assert not torch.equal(batches(2)[0].pixels, whole.pixels)


def test_bad_rows_are_rejected_and_a_model_that_reads_alone_says_what_it_needs(tmp_path):
    place = tmp_path / "rows"
    place.mkdir()
    good = {
        "messages": [{
            "role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}]
        }, {"role": "assistant", "content": "7"}]
    }
    for name in ("captions", "train", "heldout"):
        (place / f"{name}.jsonl").write_text(json.dumps(good) + "\n")
    stage = "name: t\nout: {}\nstages:\n  vision: {{epochs: 0, pictures: {}}}\n".format(tmp_path / "runs", place)
    (tmp_path / "r.yaml").write_text(stage)
    with pytest.raises(TriviumError, match="row 1: message 1: .*not fetched from an address; .*no good row is left"):
        run(tmp_path / "r.yaml")
    (tmp_path / "s.yaml").write_text(
        f"name: t\nout: {tmp_path}/runs\nstages:\n  see: {{model: {chat_model(tmp_path / 'chat')}, pictures: "
        f"{place}}}\n"
    )
    with pytest.raises(TriviumError, match="name a `vision` stage"):
        run(tmp_path / "s.yaml")
    assert look([{"role": "user", "content": "no picture"}], 8, 1).shape == (0, 1, 8, 8)
