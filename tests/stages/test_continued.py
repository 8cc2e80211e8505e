"""Pretraining that goes on from a model: ours, a foreign one, with and without an adapter, in every number format."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from test_adapted_stages import make_base
from transformers import AutoModelForCausalLM

from trivium.artifacts import kinds_behind, open_artifact
from trivium.errors import TriviumError
from trivium.pipeline.run import run
from trivium.recipe.load import load_recipe

WORDS = ["lead sinks in water", "cork swims on water", "gold is heavy", "铅会下沉", "软木会浮起来"]


def write_recipe(folder, base, **settings):
    """A recipe that goes on from a model with a small corpus of the folder's own."""
    documents = folder / "corpus/documents"
    if not documents.exists():
        documents.mkdir(parents=True)
        texts = [f"{WORDS[number % 5]}, and {number} {WORDS[(number + 1) % 5]}. " * 6 for number in range(120)]
        (documents / "part-00000.jsonl").write_text("".join(
            json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n"
            for number, text in enumerate(texts)))
    pretrain = {"from": str(base), "length": 64, "rows": 4, "epochs": 3, "precision": "float32",
                "optimization": {"learning_rate": 0.003}} | settings
    file = folder / "recipe.yaml"
    file.write_text(json.dumps({"name": "go-on", "out": str(folder), "stages": {
        "tokens": {"corpus": str(folder / "corpus"), "tokenizer": str(base), "validation": 0.2},
        "pretrain": pretrain}}))
    return file


@pytest.fixture(scope="module", params=["llama", "qwen2", "olmo2"])
def base(request, tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"), request.param)


def test_a_model_goes_on_and_reads_better(base, tmp_path, any_precision):
    made = run(write_recipe(tmp_path, base, precision=any_precision, evaluate_every=5))["pretrain"]
    assert made.summary["validation_bits_per_byte"] < 0.8 * made.summary["validation_bits_per_byte_before"]
    theirs = AutoModelForCausalLM.from_pretrained(made.folder)
    before = AutoModelForCausalLM.from_pretrained(base)
    assert theirs.config.to_dict().keys() >= before.config.to_dict().keys()
    assert not torch.equal(theirs.get_input_embeddings().weight, before.get_input_embeddings().weight)
    assert (made.folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert "continued" in kinds_behind(made.folder) and "pretrain" not in kinds_behind(made.folder)


def test_its_bits_are_those_of_transformers(base, tmp_path):
    made = run(write_recipe(tmp_path, base))["pretrain"]
    from trivium.stages.models import load_tokenizer
    from trivium.tokenizer.tokens import Tokens
    theirs = AutoModelForCausalLM.from_pretrained(made.folder).double().eval()
    tokenizer = load_tokenizer(made.folder, theirs.config.vocab_size)
    heldout = Tokens.open(tmp_path / "go-on/tokens/validation", tokenizer.digest)
    nats, size = 0.0, 0
    for document in heldout:
        ids = [tokenizer.document_id, *document.tolist()]
        size += len(tokenizer.decode(document[:-1].tolist()).encode())
        parts = -(-len(document) // 63)
        for part in np.array_split(np.array(ids[1:]), parts):
            row = torch.tensor([[tokenizer.document_id, *part.tolist()]])
            with torch.no_grad():
                scores = theirs(row).logits.log_softmax(-1)
            nats -= scores[0, :-1].gather(1, row[0, 1:, None]).sum().item()
    assert made.summary["validation_bits_per_byte"] == pytest.approx(nats / np.log(2) / size, rel=1e-4)


def test_an_adapter_goes_on_beside_the_frozen_model(base, tmp_path, precision):
    made = run(write_recipe(tmp_path, base, adapter={"rank": 4}, precision=precision,
                            optimization={"learning_rate": 0.02}))["pretrain"]
    assert made.summary["validation_bits_per_byte"] < made.summary["validation_bits_per_byte_before"]
    assert 0 < made.summary["trained_parameters"] < made.summary["parameters"]
    AutoPeftModelForCausalLM.from_pretrained(made.folder)


def test_a_stage_that_was_pretrained_goes_on(tmp_path):
    base = make_base(tmp_path / "base", "llama")
    file = write_recipe(tmp_path, base)
    recipe = json.loads(file.read_text())
    recipe["stages"]["more"] = recipe["stages"]["pretrain"] | {"kind": "pretrain", "from": "pretrain"}
    file.write_text(json.dumps(recipe))
    made = run(file)
    assert made["more"].summary["validation_bits_per_byte_before"] == pytest.approx(
        made["pretrain"].summary["validation_bits_per_byte"], rel=1e-5)
    again = run(file)
    assert again["more"].digest == made["more"].digest
    assert open_artifact(made["more"].folder).manifest["inputs"]["start"]["digest"] == made["pretrain"].digest


@pytest.mark.parametrize(("settings", "message"), [
    ({"model": {"num_layers": 1}}, "`from` brings a model with its shape and tokenizer; leave `model` out"),
    ({"tokenizer": "mine"}, "`from` brings a model with its shape and tokenizer; leave `tokenizer` out"),
    ({"from": None, "adapter": {"rank": 2}}, "`adapter` is for a model that goes on"),
    ({"length": 4096}, "rows of 4096 tokens, but the model has 128 positions"),
    ({"from": "nowhere"}, "nowhere")])
def test_what_cannot_be_meant_is_refused(tmp_path, settings, message):
    base = make_base(tmp_path / "base", "llama")
    with pytest.raises(TriviumError, match=message):
        run(write_recipe(tmp_path, base, **settings))


def test_tokens_of_another_tokenizer_are_refused(tmp_path):
    base, other = make_base(tmp_path / "base", "llama"), make_base(tmp_path / "other", "llama")
    text = (other / "tokenizer.json").read_text().replace('"1"', '"Ⅰ"')
    (other / "tokenizer.json").write_text(text)
    file = write_recipe(tmp_path, base)
    file.write_text(file.read_text().replace(json.dumps(str(base)), json.dumps(str(other)), 1))
    with pytest.raises(TriviumError, match="tokenizer"):
        run(file)


def test_what_begins_with_random_weights_keeps_its_key(tmp_path):
    base = make_base(tmp_path / "base", "llama")
    stage = load_recipe(write_recipe(tmp_path, base)).stages["pretrain"]
    assert {"adapter", "save_dtype"} <= stage.learned().keys()
    assert not {"adapter", "save_dtype", "start"} & type(stage)().learned().keys()
    assert [where for where, _ in stage.references()] == ["tokens", "start"]
    assert [where for where, _ in type(stage)().references()] == ["tokens", "tokenizer"]
