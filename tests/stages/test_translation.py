"""Pairs, span corruption and sequence-to-sequence fine-tuning, end to end at toy size."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import torch

from trivium.api import load
from trivium.errors import TriviumError
from trivium.model.config import EncoderDecoderConfig
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.pipeline.run import run
from trivium.planning.inspection import tokens_of
from trivium.recipe.load import load_recipe
from trivium.stages.data.pairs import in_words
from trivium.stages.finetuning.translate import scores
from trivium.stages.pretraining.spans import PairEpochs, WritingTargets, corrupted
from trivium.training.batch import Tree

RECIPE = """
name: seq
out: {out}
stages:
  pairs: {{numbers: 150, heldout: 0.2, heldout_most: 6}}
  corpus:
    documents: [pairs]
    settings: {{rules: [], language: {{enabled: false}}, duplicates: {{near: false}}, private: {{enabled: false}}}}
  tokenizer: {{vocab_size: 320}}
  tokens: {{validation: 0.1}}
  spans:
    model: {{hidden_size: 32, intermediate_size: 48, num_layers: 1, num_heads: 2, num_kv_heads: 1, head_dim: 16,
             max_positions: 64}}
    length: 48
    rows: 8
    sentinels: 12
    epochs: 2
    precision: {precision}
  translate:
    precision: {precision}
    length: 48
    rows: 4
    epochs: 2
    max_new_tokens: 8
    optimization: {{learning_rate: 0.003}}
  adapted:
    kind: translate
    precision: {precision}
    length: 48
    rows: 4
    epochs: 1
    max_new_tokens: 8
    adapter: {{rank: 2}}
  halved:
    kind: translate
    model: translate
    precision: {precision}
    length: 48
    rows: 4
    epochs: 0.1
    max_new_tokens: 2
    save_dtype: bf16
"""


def test_the_whole_way_and_transformers_writes_the_same(tmp_path, any_precision):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    (tmp_path / "r.yaml").write_text(RECIPE.format(out=tmp_path / "runs", precision=any_precision))
    artifacts = run(tmp_path / "r.yaml")
    assert {artifacts[stage].summary["precision"] for stage in ("spans", "translate", "adapted")} == {any_precision}
    assert artifacts["spans"].summary["validation_loss"] < artifacts["spans"].summary["chance_loss"]
    summary, place = artifacts["translate"].summary, artifacts["translate"].folder
    assert summary["heldout"] == 6 and summary["chrf"]["low"] <= summary["chrf"]["value"] <= summary["chrf"][
        "high"] and summary["right"]["n"] == 6
    rows = [json.loads(line) for line in (place / "written.jsonl").read_text().splitlines()]
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForSeq2SeqLM.from_pretrained(place).eval()
    for row in rows[:3]:
        given = tokenizer(row["source"], return_tensors="pt")
        said = model.generate(**given, max_new_tokens=8, do_sample=False)
        assert tokenizer.decode(said[0], skip_special_tokens=True) == row["written"].replace("<|endoftext|>", "")
    assert load(place).translate(rows[0]["source"], max_new_tokens=8) == rows[0]["written"] == load(place).generate(
        rows[0]["source"], 0.0, 8)
    assert artifacts["adapted"].summary["trained_parameters"] < 6000 and (artifacts["adapted"].folder /
                                                                          "adapter_model.safetensors").exists()
    assert AutoModelForSeq2SeqLM.from_pretrained(artifacts["halved"].folder).dtype == torch.bfloat16
    for stage in ("spans", "translate"):
        tokens = list(tokens_of(load_recipe(tmp_path / "r.yaml"), stage, 0))
        source, target = ([token for token in tokens if token["side"] == side] for side in ("source", "target"))
        assert not any(token["loss"] for token in source) and sum(token["loss"] for token in target) > len(target) / 2
        assert any(token["text"].startswith("<|span_") for token in source) == (stage == "spans")
    with pytest.raises(TriviumError, match="no encoder-decoder"):
        (tmp_path / "s.yaml").write_text(
            f"name: s\nout: {tmp_path}/runs\nstages:\n  pretrain: {{epochs: 0, tokens: {artifacts['tokens'].folder}, "
            f"tokenizer: {artifacts['tokenizer'].folder}}}\n"
            f"  translate: {{model: pretrain, pairs: {artifacts['pairs'].folder}}}\n")
        run(tmp_path / "s.yaml")


def test_packed_pairs_give_the_loss_of_each_alone():
    config = EncoderDecoderConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2,
                                  num_kv_heads=2, head_dim=16, max_positions=64)
    model, rng = EncoderDecoder(config).initialise(0), np.random.default_rng(0)
    trees = [
        Tree(rng.integers(2, 50, a), (np.append(rng.integers(2, 50, b), 0),))
        for a, b in ((5, 3), (9, 6), (4, 4), (7, 2), (3, 8))
    ]
    (batch,) = PairEpochs(trees, 24, 2, 0, end=0, target_length=24)(0)
    total = WritingTargets()(model, batch)["loss"].value
    alone = torch.zeros(())
    for tree in trees:
        target = torch.from_numpy(tree.responses[0])
        logits = model(
            torch.from_numpy(tree.prompt)[None],
            torch.cat([torch.zeros(1, dtype=torch.int64), target[:-1]])[None])
        alone = alone + torch.nn.functional.cross_entropy(logits[0], target, reduction="sum")
    assert torch.allclose(total, alone, rtol=1e-5) and batch.counts["tokens"] == sum(
        len(tree.responses[0]) for tree in trees)
    total.backward()
    # padding that sees nothing would make it nan
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(("n", "share", "span", "most"), [(2, 0.15, 3, 9), (7, 0.15, 3, 9), (100, 0.15, 3, 9),
                                                          (100, 0.15, 3, 2), (50, 0.4, 1, 99)])
def test_spans_and_what_is_left_are_the_text(n, share, span, most):
    text = np.arange(n)
    source, target = corrupted(text, 1000, share, span, most, np.random.default_rng(0))
    count = int((source >= 1000).sum())
    assert 1 <= count <= most and source[0] == 0 and target[0] == 1000
    spans = {1000 + i: part for i, part in enumerate(np.split(target, np.flatnonzero(target >= 1000))[1:])}
    again = np.concatenate([spans[token][1:] if token >= 1000 else [token] for token in source])
    assert again.tolist() == text.tolist()
    assert len(target) - count == min(max(1, round(n * share)), n - 1)
    assert all(len(part) > 1 for part in spans.values())


@pytest.mark.parametrize(("number", "words"),
                         [(0, "zero"), (13, "thirteen"), (40, "forty"), (305, "three hundred and five"),
                          (1000, "one thousand"), (21_017, "twenty-one thousand and seventeen"),
                          (999_999, "nine hundred and ninety-nine thousand nine hundred and ninety-nine")])
def test_numbers_in_words(number, words):
    assert in_words(number) == words


def pairs_of(tmp_path, text, **files):
    for name, content in files.items():
        (tmp_path / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name.replace("__", "/")).write_text(content)
    (tmp_path / "r.yaml"
     ).write_text(f"name: t\nout: {tmp_path}/runs\nstages:\n  pairs: {{heldout: 0.4, {text.format(tmp_path)}}}\n")
    return run(tmp_path / "r.yaml")["pairs"]


def test_lines_beside_lines_and_rows(tmp_path):
    (tmp_path / "book" / "one").mkdir(parents=True)
    (tmp_path / "book" / "one" / "source.txt").write_text("".join(f"old {i}\n" for i in range(20)))
    (tmp_path / "book" / "one" / "target.txt").write_text("".join(f"new {i}\n" for i in range(20)))
    with tarfile.open(tmp_path / "book.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "book", "book")
    (tmp_path / "rows.jsonl").write_text('{"en": "a", "zh": "b"}\n{"en": "c"}\n{"en": "d", "zh": " "}\n')
    for place in ("book", "book.tar.gz"):
        artifact = pairs_of(tmp_path, f"files: [{{}}/{place}]")
        assert artifact.summary["train"] + artifact.summary["heldout"] == 20
    artifact = pairs_of(tmp_path, "numbers: 30, files: [{}/rows.jsonl], source: en, target: zh")
    rejects = [json.loads(line) for line in (artifact.folder / "rejects.jsonl").read_text().splitlines()]
    assert [(row["row"], row["reason"]) for row in rejects] == [(2, "en and zh must be texts"), (3, "no zh")]
    texts = (artifact.folder / "documents" / "texts.jsonl").read_text()
    held = [json.loads(line) for line in (artifact.folder / "heldout.jsonl").read_text().splitlines()]
    assert held and not any(json.dumps(row["source"]) + "}" in texts for row in held)


@pytest.mark.parametrize(("source", "target", "message"), [("a\nb\n", "c\n", "2 lines and target.txt 1"),
                                                           (None, "c\n", "no source.txt with a target.txt beside it")])
def test_lines_that_do_not_match_are_one_clear_error(tmp_path, source, target, message):
    (tmp_path / "book").mkdir()
    if source:
        (tmp_path / "book" / "source.txt").write_text(source)
    (tmp_path / "book" / "target.txt").write_text(target)
    with pytest.raises(TriviumError, match=message):
        pairs_of(tmp_path, "files: [{}/book]")
    (tmp_path / "bad.tar.gz").write_bytes(b"no archive")
    with pytest.raises(TriviumError, match="not a readable tar archive"):
        pairs_of(tmp_path, "files: [{}/bad.tar.gz]")


def test_scores_are_sacrebleus():
    import sacrebleu
    written, wanted = ["the cat sat on the mat", "a dog"], ["the cat sat on a mat", "a dog ran"]
    found = scores(written, wanted)
    assert found["chrf"]["value"] == pytest.approx(sacrebleu.corpus_chrf(written, [wanted]).score)
    assert found["bleu"]["value"] == pytest.approx(sacrebleu.corpus_bleu(written, [wanted]).score)
    assert found["right"]["value"] == 0 and scores(["305"], ["305"])["chrf"]["value"] == pytest.approx(100)
    assert "tok:zh" in scores(["好"], ["好 人"])["bleu"]["signature"]
