"""Embeddings over HTTP, of an encoder of random weights; transformers is the oracle for its hidden states."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import openai
import pytest
import torch
from served import running

import trivium
from trivium.model.config import EncoderConfig
from trivium.model.encoder import MaskedModel, save_encoder
from trivium.serving.models import Limits
from trivium.tokenizer import train
from trivium.tokenizer.chat import ChatTokenizer

TEXTS = ["to be, or not", "你好，世界。", "the"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder") / "reader"
    tokenizer = ChatTokenizer(train.train(iter(["to be, or not to be: the question. 你好，世界。"] * 20), 320))
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=4,
        head_dim=8,
        max_positions=64,
    )
    place.mkdir()
    save_encoder(
        MaskedModel(config).initialise(3), place, {"pad": tokenizer.pad_id, "document": tokenizer.document_id}
    )
    tokenizer.save(place)
    return place


@pytest.fixture(scope="module")
def address(folder, folders):
    with running({"reader": folder, "one": folders["one"]}, Limits(rows=2)) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.agreement
def test_vectors_are_the_mean_of_the_hidden_states_that_transformers_has(client, folder, agree):
    from transformers import AutoModel

    oracle, tokenizer = AutoModel.from_pretrained(folder).eval(), ChatTokenizer.load(folder)
    found = client.embeddings.create(model="reader", input=TEXTS)
    assert [one.index for one in found.data] == [0, 1, 2] and found.model == "reader"
    ids = [tokenizer.encode(text) for text in TEXTS]
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(map(len, ids))
    for one, tokens in zip(found.data, ids, strict=True):
        with torch.no_grad():
            mean = oracle(torch.tensor([tokens])).last_hidden_state[0].mean(0)
        off = np.abs(np.array(one.embedding) - torch.nn.functional.normalize(mean, dim=0).numpy()).max()
        agree("embeddings served: off by", "transformers", float(off), 1e-5)
    assert np.array([one.embedding for one in found.data]) == pytest.approx(
        trivium.load(folder).embed(TEXTS), abs=1e-6
    )


def test_forms_of_inputs_and_answers(client, address, folder):
    tokenizer = ChatTokenizer.load(folder)
    ids = [tokenizer.encode(text) for text in TEXTS]
    by_text = [one.embedding for one in client.embeddings.create(model="reader", input=TEXTS).data]
    for given, kept in ((TEXTS[0], by_text[:1]), (ids[0], by_text[:1]), (ids, by_text), ([TEXTS[1]], by_text[1:2])):
        for form in ("float", "base64", None):
            body = {"model": "reader", "input": given, "encoding_format": form}
            data = httpx.post(address + "/v1/embeddings", json=body).json()["data"]
            if form == "base64":
                assert all(isinstance(one["embedding"], str) for one in data)
                data = [{"embedding": np.frombuffer(base64.b64decode(one["embedding"]), "<f4")} for one in data]
            assert np.array([one["embedding"] for one in data]) == pytest.approx(np.array(kept), abs=1e-6)


def test_fewer_dimensions_are_the_first_ones_at_length_1(client):
    whole = np.array([one.embedding for one in client.embeddings.create(model="reader", input=TEXTS).data])
    short = np.array(
        [one.embedding for one in client.embeddings.create(model="reader", input=TEXTS, dimensions=5).data]
    )
    assert short == pytest.approx(whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True), abs=1e-6)


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"model": "one"}, 400, "'one' is a language model, which has no embeddings; ask an encoder: reader"),
        ({"model": "reade"}, 404, "did you mean 'reader'"),
        ({"input": ""}, 400, "an input is empty"),
        ({"input": []}, 400, "input"),
        ({"input": [""]}, 400, "an input is empty"),
        ({"input": [[10**6]]}, 400, "not know"),
        ({"input": "be " * 200}, 400, "reads 64 tokens"),
        ({"dimensions": 33}, 400, "have 32 numbers, not 33"),
        ({"dimensions": 0}, 400, "dimensions"),
        ({"encoding_format": "int8"}, 400, "encoding_format"),
        ({"input": ["x"] * 3000}, 400, "input"),
        ({"input": None}, 400, "input"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_has_no_vector_is_refused(address, more, status, words):
    answer = httpx.post(address + "/v1/embeddings", json={"model": "reader", "input": "x", **more})
    assert answer.status_code == status and words in answer.json()["error"]["message"], answer.text


def test_an_encoder_is_listed_and_does_not_write(client, address):
    assert {one.id: one.embeds for one in client.models.list()} == {"reader": True, "one": False}
    for ask in (
        lambda: client.completions.create(model="reader", prompt="x"),
        lambda: client.chat.completions.create(model="reader", messages=[{"role": "user", "content": "x"}]),
    ):
        with pytest.raises(openai.BadRequestError, match="is an encoder, which writes nothing; ask /v1/embeddings"):
            ask()
    assert httpx.get(address + "/settings.json").status_code == 200
