"""Labelled texts, masked pretraining and classification, end to end at toy size."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch

from trivium import randomness
from trivium.errors import TriviumError
from trivium.model.encoder import Classifier, load_encoder
from trivium.pipeline import run
from trivium.stages.encode import MaskedEpochs, texts
from trivium.training.batch import Tree
from trivium.world.lessons import draw_review

RECIPE = """
name: enc
out: {out}
stages:
  labels: {{tables: [{table}], text: review, heldout: 0.3}}
  corpus: {{documents: [labels], settings: {{rules: [], duplicates: {{near: false}}}}}}
  tokenizer: {{vocab_size: 400}}
  tokens: {{validation: 0.1}}
  encode:
    model: {{hidden_size: 48, intermediate_size: 64, num_layers: 2, num_heads: 3, num_kv_heads: 3, head_dim: 16, max_positions: 64}}
    optimization: {{learning_rate: 0.003}}
    length: 64
    rows: 8
    steps: 12
  classify: {{length: 64, rows: 4, epochs: 6, optimization: {{learning_rate: 0.002}}}}
"""


def reviews(path, n=240):
    rng = randomness.python(0, "reviews")
    drawn = [draw_review(rng) for _ in range(n)]
    rows = ["review,label"] + [f'"{r.text}",{"good" if r.positive else "bad"}' for r in drawn]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_reviews_are_told_apart_and_transformers_agrees(tmp_path):
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
    (tmp_path / "r.yaml").write_text(RECIPE.format(out=tmp_path / "runs", table=reviews(tmp_path / "r.csv")))
    artifacts = run(tmp_path / "r.yaml")
    encoded, classified = artifacts["encode"], artifacts["classify"].summary
    assert encoded.summary["validation_loss"] < encoded.summary["chance_loss"]
    assert classified["accuracy"]["low"] > classified["always_the_commonest"] and classified["tf_idf"]["value"] > 0.8
    folder = artifacts["classify"].folder
    tokenizer, theirs, ours = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval(), load_encoder(folder).eval()
    assert isinstance(ours, Classifier) and ours.labels == ["bad", "good"]
    batch = tokenizer(["The soup was good.", "We waited long and the bread was old."], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = theirs(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        documents = torch.where(batch["attention_mask"].bool(), torch.tensor([[0], [1]]), -1)
        assert torch.allclose(ours(batch["input_ids"], documents), logits, atol=2e-5)
    assert AutoTokenizer.from_pretrained(encoded.folder).mask_token_id == AutoModelForMaskedLM.from_pretrained(encoded.folder).config.vocab_size - 1


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
    (tmp_path / "r.yaml").write_text(f"name: t\nout: {tmp_path}/runs\nstages:\n  labels: {{tables: [{tmp_path}/t.csv], text: review{settings}}}\n")
    with pytest.raises(TriviumError) as error:
        run(tmp_path / "r.yaml")
    assert message in str(error.value)


def test_a_label_outside_the_list_is_rejected_with_its_row(tmp_path):
    (tmp_path / "t.csv").write_text("review,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(60)) + "odd,7\n,1\n")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.write(tmp_path / "t.csv", "inside.csv")
    (tmp_path / "r.yaml").write_text(f"name: t\nout: {tmp_path}/runs\nstages:\n  labels: {{tables: [{tmp_path}/t.zip], text: review, labels: ['0', '1']}}\n")
    artifact = run(tmp_path / "r.yaml")["labels"]
    rejects = [json.loads(line) for line in (artifact.folder / "rejects.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [62, 63] and "outside the list" in rejects[0]["reason"]
    assert artifact.summary["train"] + artifact.summary["heldout"] == 60
    (tmp_path / "t.zip").write_bytes(b"not a zip")
    with pytest.raises(TriviumError, match="not a readable zip"):
        run(tmp_path / "r.yaml")


def test_long_texts_are_cut_and_nothing_is_lost():
    import numpy as np
    found = texts([np.arange(2, 31), np.array([0])], 10)  # type: ignore[arg-type]
    assert np.concatenate([tree.prompt for tree in found]).tolist() == list(range(2, 30)) and max(map(len, found)) <= 10
