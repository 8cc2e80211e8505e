"""Rollouts at a vLLM server: a real HTTP server here speaks its API, with our sampling engine behind it."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.generation.engine import Sampling, generate
from trivium.generation.vllm import VllmEngine, WeightsFromDisk
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.model import folder as model_folder
from trivium.progress import Progress
from trivium.recipe.load import load_recipe
from trivium.stages.models import save_model
from trivium.stages.reinforcement.ppo import Ppo
from trivium.stages.reinforcement.settings import Server
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.optimizers import Optimization


class Worker(WeightsFromDisk):
    """A server's worker: a model and the method that the extension adds."""

    def __init__(self, folder):
        self.model_runner = SimpleNamespace(model=self)
        self.policy = model_folder.load(folder)

    def load_weights(self, weights):
        self.policy.load_state_dict(dict(weights), strict=False)


class Vllm(http.server.BaseHTTPRequestHandler):
    """The parts of vLLM's API that a rollout needs."""

    def do_POST(self):
        state, text = self.server.state, self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = json.loads(text) if text else None
        state.asked.append((self.path, body))
        if state.faults:
            return self.reply(*state.faults.pop(0))
        if self.path == "/collective_rpc":
            return self.reply(200, {"results": [getattr(state.worker, body["method"])(*body["args"])]})
        if self.path == "/reset_prefix_cache":
            return self.reply(200, None)
        assert self.path == "/v1/completions" and body["return_token_ids"] and body["model"] == "policy"
        with state.lock:
            group = generate(state.worker.policy, [body["prompt"]],
                             Sampling(body["temperature"], 0, body["top_p"], body["max_tokens"], body["seed"]),
                             body["stop_token_ids"], body["n"])[0]
        choices = [{
            "index": i, "text": "", "finish_reason": "stop" if one.finished else "length",
            "token_ids": one.tokens if state.ids else None, "logprobs": {
                "tokens": [f"token_id:{t}" for t in one.tokens], "token_logprobs": [float(x) for x in one.log_probs]
            }
        } for i, one in enumerate(group)]
        return self.reply(200, {"choices": choices[::-1]})

    def reply(self, status, value):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tokenizer = ChatTokenizer(
        tokenizer_training.train(["what is two and two? it is four.", "please say hello."] * 9, 290))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=2,
                         num_heads=2, num_kv_heads=1, head_dim=16, max_positions=128)
    for name, model in (("sft", LanguageModel(config).initialise(0)),
                        ("reward", RewardModel.from_language_model(LanguageModel(config).initialise(1), 1))):
        (folder / name).mkdir()
        save_model(model, tokenizer, folder / name)
    write_rows(folder / "prompts.jsonl",
               [{"id": n, "prompt": [{"role": "user", "content": f"say {n}"}]} for n in range(8)])
    return folder


@pytest.fixture
def served(models):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Vllm)
    server.state = SimpleNamespace(worker=Worker(models / "sft"), asked=[], faults=[], lock=threading.Lock(), ids=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.state.address = f"http://127.0.0.1:{server.server_port}"
    yield server.state
    server.shutdown()
    server.server_close()


def engine(served, tmp_path, **more):
    return VllmEngine(served.address, "policy", tmp_path / "weights", pause=0.01, tries=3, **more)


def test_ppo_learns_from_what_a_server_samples(models, served, tmp_path):
    """Every rollout is sampled from the weights of its iteration: else the log-probabilities of server and trainer
    would part."""
    progress = Progress(quiet=True)
    context = SimpleNamespace(
        folder=tmp_path, scratch=tmp_path / "scratch", progress=progress, seed=0, name="ppo", run_name="r", threads=1,
        inputs={"model": models / "sft", "reward": models / "reward", "prompts": models / "prompts.jsonl"})
    settings = Ppo(iterations=3, episodes=8, epochs=2, max_new_tokens=6, rows=4, length=64, precision="float32",
                   optimization=Optimization(learning_rate=1e-2),
                   engine=Server(address=served.address, model="policy", weights=str(tmp_path / "weights"), pause=0.01))
    settings.run(context)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(line["log_prob_disagreement"] < 1e-4 for line in log) and log[2]["kl"] > 1e-3
    asked = [body for path, body in served.asked if path == "/v1/completions"]
    assert len(asked) == 24 and all(
        (body["temperature"], body["top_p"], body["top_k"]) == (1.0, 1.0, -1) for body in asked)
    assert len({body["seed"] for body in asked}) == 24
    # and the last one for who looks at the policy there
    assert [path for path, _ in served.asked].count("/reset_prefix_cache") == 4
    assert len(list((tmp_path / "weights/ppo").iterdir())) == 1  # what was handed over before is gone


def test_tokens_and_log_probs_are_those_of_the_weights_that_were_sent(models, served, tmp_path):
    model = model_folder.load(models / "sft")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    asking = engine(served, tmp_path)
    asking.send(model)
    for ids in (True, False):
        served.ids, told = ids, []
        found = asking(model, [[7, 8, 9], [5]], Sampling(0.7, max_new_tokens=5), [2], 3, ["a", "b"],
                       lambda done, total, told=told: told.append((done, total)))
        assert [len(group) for group in found] == [3, 3] and told == [(1, 2), (2, 2)]
        for prompt, group in zip(([7, 8, 9], [5]), found, strict=True):
            for one in group:
                logits = model(torch.tensor([prompt + one.tokens]))[0, len(prompt) - 1:-1]
                expected = torch.log_softmax(logits / 0.7, -1)[range(len(one.tokens)), one.tokens]
                np.testing.assert_allclose(one.log_probs, expected.detach().numpy(), atol=1e-4)


def test_a_server_that_is_busy_is_asked_again_and_one_that_answers_otherwise_is_told_of(models, served, tmp_path):
    model, asking = model_folder.load(models / "sft"), engine(served, tmp_path)
    served.faults = [(429, {}), (503, {})]
    assert len(asking(model, [[7]], Sampling(max_new_tokens=3), [2], 2, ["a"], lambda done, total: None)[0]) == 2
    choice = {
        "index": 0, "finish_reason": "stop", "token_ids": [9], "logprobs": {"tokens": ["x"], "token_logprobs": [-1.0]}
    }
    for fault, message in (({"choices": [choice]}, "ended at token 9"), ({"choices": []},
                                                                         "0 completions of a prompt, not 1"),
                           ({"choices": [choice | {"token_ids": [9, 2]}]}, "2 token ids with 1 log-prob")):
        served.faults = [(200, fault)]
        with pytest.raises(TriviumError, match=message):
            asking(model, [[7]], Sampling(max_new_tokens=3), [2], 1, ["a"], lambda done, total: None)
    served.faults = [(200, {"results": [3]})]
    with pytest.raises(TriviumError, match=r"its workers loaded \[3\]"):
        asking.send(model)
    served.faults = [(404, {"error": "no such method"})]
    with pytest.raises(TriviumError, match="status 404"):
        asking.send(model)


def test_where_samples_are_made_is_not_what_is_learned(models, tmp_path):
    path = tmp_path / "r.yaml"
    text = "name: r\nstages:\n  ppo: {{model: {m}/sft, reward: {m}/reward, prompts: {m}/prompts.jsonl{more}}}\n"
    path.write_text(text.format(m=models, more=", engine: {address: 'http://h:1', model: p, weights: w}"))
    stage = load_recipe(path).stages["ppo"]
    assert stage.engine.model == "p" and "engine" in stage.unlearned and Path(stage.engine.weights) == Path("w")
