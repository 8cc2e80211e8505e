"""Small models on a real server at 127.0.0.1."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import httpx
import pytest
import torch

from trivium.artifacts import seal
from trivium.clients import Patience
from trivium.feedback.store import Store
from trivium.listening import server as server_of
from trivium.model import LanguageModel, ModelConfig, folder
from trivium.serving.app import create_app
from trivium.serving.models import Limits, load
from trivium.tokenizer import train
from trivium.tokenizer.chat import ChatTokenizer


def write_model(place, seed):
    """A model of random weights that rarely ends a turn by itself, so that answers last as long as asked."""
    tokenizer = ChatTokenizer(train.train(iter(["to be, or not to be: that is the question. 你好，世界。"] * 20), 300))
    model = LanguageModel(
        ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4,
                    num_kv_heads=2, head_dim=8, max_positions=2048, tie_embeddings=False)).initialise(seed)
    with torch.no_grad():
        unfit = [token for token in range(6, tokenizer.vocab_size) if not tokenizer.decode([token]).isprintable()]
        model.lm_head.weight[[*range(6), *unfit]] = 0
    place.mkdir()
    folder.save(model, place, {"eos": tokenizer.end_id, "pad": tokenizer.pad_id})
    tokenizer.save(place)
    seal(place, kind="sft", name="sft", key="", seed=0, settings={}, inputs={}, summary={}, seconds=1.0,
         peak_memory_mb=1.0)
    return place


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {name: write_model(place / name, seed) for seed, name in enumerate(["one", "two"])}


@contextlib.contextmanager
def running(folders, limits, keys=(), feedback=None, patience=Patience(), **more):  # noqa: B008
    models = [load(name, place, limits) for name, place in folders.items()]
    app = create_app(models, limits, keys, (lambda: Store(feedback, create=True)) if feedback else None, **more)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = server_of(app, patience, cancels=True, log_level="error", timeout_graceful_shutdown=2)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="session")
def feedback(tmp_path_factory):
    return tmp_path_factory.mktemp("feedback") / "project"


@pytest.fixture(scope="session")
def server(folders, feedback):
    with running(folders, Limits(rows=4, queue=12, body=200_000), feedback=feedback) as address:
        yield address


def sampled(address, model, seed, who="tester", **more):
    """An answer, as a thumb sends it back, without its label."""
    messages = [{"role": "user", "content": "To be, or not to be?"}]
    answer = httpx.post(address + "/v1/chat/completions", json={
        "model": model, "messages": messages, "seed": seed, "max_tokens": 8, "user": who}, **more)
    choice = answer.raise_for_status().json()["choices"][0]
    return {"messages": messages, "completion": choice["message"]["content"], "model": model, "who": who,
            "signature": choice["signature"]}


def voted(*thumbs):
    """Two answers, as a vote sends them back, without what is better."""
    return {"messages": thumbs[0]["messages"], "who": thumbs[0]["who"], "models": [one["model"] for one in thumbs],
            "responses": [one["completion"] for one in thumbs], "signatures": [one["signature"] for one in thumbs]}
