"""Labelled texts, masked pretraining and classification, end to end at toy size."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch

from trivium import randomness
from trivium.api import load
from trivium.errors import TriviumError
from trivium.model import folder as model_folder
from trivium.model.encoder import Classifier, joined, load_encoder
from trivium.model.weights import stored_dtype
from trivium.pipeline.run import run
from trivium.planning.inspection import tokens_of
from trivium.recipe.load import load_recipe
from trivium.stages.pretraining.encode import MaskedEpochs, texts
from trivium.training.batch import Tree
from trivium.world.exercises import draw_review

RECIPE = """
name: enc
out: {out}
stages:
  labels: {{tables: [{table}], text: review, heldout: 0.3}}
  corpus: {{documents: [labels], settings: {{rules: [], duplicates: {{near: false}}}}}}
  tokenizer: {{vocab_size: 400}}
  tokens: {{validation: 0.1}}
  encode:
    model: {{hidden_size: 48, intermediate_size: 64, num_layers: 2, num_heads: 3, num_kv_heads: 3, head_dim: 16,
             max_positions: 64}}
    optimization: {{learning_rate: 0.003}}
    length: 64
    rows: 8
    precision: {precision}
    steps: 12
  classify: {{precision: {precision}, length: 64, rows: 4, epochs: 6, optimization: {{learning_rate: 0.002}}}}
"""


def reviews(path, n=240):
    rng = randomness.python(0, "reviews")
    drawn = [draw_review(rng) for _ in range(n)]
    rows = ["review,label"] + [f'"{r.text}",{"good" if r.positive else "bad"}' for r in drawn]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_labels_are_learned_in_float32_and_written_as_the_base_was(tmp_path):
    from transformers import AutoModelForSequenceClassification
    (tmp_path / "r.yaml").write_text(
        RECIPE.format(out=tmp_path / "runs", table=reviews(tmp_path / "r.csv", 80), precision="float32"))
    few = "{kind: classify, precision: float32, epochs: 0.1, baseline: false, save_dtype: f16, adapter: {rank: 2}}"
    made = run(tmp_path / "r.yaml", ["encode.steps=1", "classify.epochs=0.1", "classify.save_dtype=bf16",
                                     f"stages.adapted={few}"])
    for stage, kind in (("classify", torch.bfloat16), ("adapted", torch.float16)):
        folder = made[stage].folder
        assert stored_dtype(folder) == AutoModelForSequenceClassification.from_pretrained(folder).dtype == kind


def test_reviews_are_told_apart_and_transformers_agrees(tmp_path, any_precision):
    from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
    (tmp_path / "r.yaml").write_text(
        RECIPE.format(out=tmp_path / "runs", table=reviews(tmp_path / "r.csv"), precision=any_precision))
    artifacts = run(tmp_path / "r.yaml")
    encoded, classified = artifacts["encode"], artifacts["classify"].summary
    assert encoded.summary["precision"] == classified["precision"] == any_precision
    assert encoded.summary["validation_loss"] < encoded.summary["chance_loss"]
    assert classified["accuracy"]["low"] > classified["always_the_commonest"] and classified["tf_idf"]["value"] > 0.8
    folder = artifacts["classify"].folder
    tokenizer, theirs, ours = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(
        folder).eval(), load_encoder(folder).eval()
    assert isinstance(ours, Classifier) and ours.labels == ["bad", "good"]
    batch = tokenizer(["The soup was good.", "We waited long and the bread was old."], return_tensors="pt",
                      padding=True)
    with torch.no_grad():
        logits = theirs(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        documents = torch.where(batch["attention_mask"].bool(), torch.tensor([[0], [1]]), -1)
        assert torch.allclose(ours(batch["input_ids"], documents), logits, atol=2e-5)
    assert AutoTokenizer.from_pretrained(
        encoded.folder).mask_token_id == AutoModelForMaskedLM.from_pretrained(encoded.folder).config.vocab_size - 1
    assert load(folder).label("The soup was good.") == pytest.approx(
        dict(zip(["bad", "good"], logits[0].softmax(-1).tolist(), strict=True)), abs=1e-4)
    said = ["The soup was good.", "We waited long and the bread was old."]
    with torch.no_grad():
        hidden, mask = AutoModel.from_pretrained(
            encoded.folder).eval()(**batch).last_hidden_state, batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    reader = load(encoded.folder)
    assert reader.embed(said) == pytest.approx(means, abs=1e-4) and reader.similarity(*said) == pytest.approx(
        float(means[0] @ means[1]), abs=1e-4)
    assert reader.embed([]).shape == (0, 48) and reader.similarity(said[0], said[0]) == pytest.approx(1)
    for wrong in (lambda: reader.label("x"), lambda: reader.embed([""]), lambda: reader.generate("x")):
        with pytest.raises(TriviumError, match="knows no labels|empty text|an encoder, where"):
            wrong()
    with pytest.raises(TriviumError, match="an encoder reads and labels, but writes nothing"):
        model_folder.load(encoded.folder)
    looked = list(tokens_of(load_recipe(tmp_path / "r.yaml"), "encode", 0))
    hidden_ones = [token for token in looked if token["loss"]]
    assert 0.2 < len(hidden_ones) / len(looked) < 0.4 and sum(token["text"] == "<|mask|>" and "target" in token
                                                              for token in hidden_ones) > len(hidden_ones) / 2
    rows = {
        row["text"]: row["label"]
        for row in map(json.loads, (artifacts["labels"].folder / "train.jsonl").read_text().splitlines())
    }
    segments = {}
    for token in tokens_of(load_recipe(tmp_path / "r.yaml"), "classify", 0):
        segments.setdefault((token["segment"], token["label"]), []).append(token["text"])
    assert segments and all(rows["".join(texts)] == label for (_, label), texts in segments.items())


def test_two_texts_are_judged_together_by_an_adapter(tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    rng = randomness.python(0, "two")
    said = [f"{rng.choice(['soup', 'bread', 'fish'])} number {i}" for i in range(60)]
    (tmp_path / "t.csv").write_text("a,b,label\n" +
                                    "".join(f"{one},{one if i % 2 else said[i - 1]},{'same' if i % 2 else 'other'}\n"
                                            for i, one in enumerate(said)) + "alone,,same\n")
    text = RECIPE.format(out=tmp_path / "runs", table=tmp_path / "t.csv",
                         precision="float32").replace("text: review",
                                                      "text: a, second: b").replace("steps: 12", "steps: 1")
    (tmp_path / "r.yaml").write_text(text.replace("epochs: 6", "adapter: {rank: 2}, epochs: 1"))
    artifacts = run(tmp_path / "r.yaml")
    assert json.loads((artifacts["labels"].folder / "rejects.jsonl").read_text())["reason"] == "no second text"
    folder, before = artifacts["classify"].folder, load_encoder(artifacts["encode"].folder)
    after = load_encoder(folder)
    assert artifacts["classify"].summary["trained_parameters"] < sum(p.numel() for p in after.parameters()) / 2
    assert torch.equal(after.model.embed_tokens.weight, before.model.embed_tokens.weight)
    # folded in
    assert not torch.equal(after.model.layers[0].mlp.up_proj.weight, before.model.layers[0].mlp.up_proj.weight)
    given = AutoTokenizer.from_pretrained(folder)(said[0], said[1], return_tensors="pt")
    with torch.no_grad():
        theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()(
            given["input_ids"], attention_mask=given["attention_mask"]).logits[0].softmax(-1)
    assert load(folder).label(said[0],
                              said[1]) == pytest.approx(dict(zip(["other", "same"], theirs.tolist(), strict=True)),
                                                        abs=1e-4)
    with pytest.raises(TriviumError, match="prefix adapter cannot be folded"):
        load_recipe(tmp_path / "r.yaml", ["classify.adapter={kind: prefix}"])


@pytest.mark.parametrize(("first", "second", "length", "kept"), [([1, 2], [3], 9, [1, 2, 0, 3]),
                                                                 ([1] * 9, [2] * 2, 6, [1, 1, 1, 0, 2, 2]),
                                                                 ([1] * 2, [2] * 9, 6, [1, 1, 0, 2, 2, 2]),
                                                                 ([1] * 9, [2] * 9, 6, [1, 1, 1, 0, 2, 2])])
def test_of_two_texts_the_longer_is_cut(first, second, length, kept):
    assert joined(first, second, 0, length) == kept


def test_what_is_hidden_does_not_depend_on_slices():
    trees = [Tree(torch.randint(6, 90, (9,)).numpy(), (), payload=i) for i in range(20)]
    batches = MaskedEpochs(trees, 32, 4, 0, 99, 0.3)

    def hidden(parts):
        found = []
        for part in range(parts):
            for batch in batches(0, part, parts):
                found += sorted(batch.targets.tolist())
        return sorted(found)

    whole = batches(0)[0]
    assert hidden(1) == hidden(2) and len(whole.targets) == whole.counts["tokens"] > 0
    assert (whole.tokens.flatten()[whole.sources] == 99).float().mean() > 0.5
    later = batches(batches.steps_per_epoch)[0]
    assert later.targets.tolist() != whole.targets.tolist()


@pytest.mark.parametrize(("rows", "settings", "message"), [
    ("review,label\ngood,1\n", "", "at least two labels"),
    ("review,labels\ngood,1\nbad,0\n", "", "no column 'label'; did you mean 'labels'"),
    ("review,label\na,1\nb,2\nc,3\n", ", most: 2", "3 different labels, more than 2"),
    ("review,label\na,1\nb,2\nc,3\n", ", labels: ['1']", "the label '2' is outside the list"),
])
def test_bad_tables_are_one_clear_error(tmp_path, rows, settings, message):
    (tmp_path / "t.csv").write_text(rows)
    (tmp_path / "r.yaml").write_text(
        f"name: t\nout: {tmp_path}/runs\nstages:\n  labels: {{tables: [{tmp_path}/t.csv], text: review{settings}}}\n")
    with pytest.raises(TriviumError) as error:
        run(tmp_path / "r.yaml")
    assert message in str(error.value)


def test_a_label_outside_the_list_is_rejected_with_its_row(tmp_path):
    (tmp_path / "t.csv").write_text("review,label\n" + "".join(f"text {i},{i % 2}\n"
                                                               for i in range(60)) + "odd,7\n,1\n")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.write(tmp_path / "t.csv", "inside.csv")
    (tmp_path / "r.yaml").write_text(
        f"name: t\nout: {tmp_path}/runs\nstages:\n  labels: {{tables: [{tmp_path}/t.zip], text: review, labels: ['0', "
        "'1']}\n"
    )
    artifact = run(tmp_path / "r.yaml")["labels"]
    rejects = [json.loads(line) for line in (artifact.folder / "rejects.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [61, 62] and "outside the list" in rejects[0]["reason"]
    assert artifact.summary["train"] + artifact.summary["heldout"] == 60
    (tmp_path / "t.zip").write_bytes(b"not a zip")
    with pytest.raises(TriviumError, match="damaged zip archive"):
        run(tmp_path / "r.yaml")


def test_long_texts_are_cut_and_nothing_is_lost():
    import numpy as np
    found = texts([np.arange(2, 31), np.array([0])], 10)  # type: ignore[arg-type]
    assert np.concatenate([tree.prompt for tree in found]).tolist() == list(range(2, 30)) and max(map(len, found)) <= 10
