"""Self-Instruct against a small server of our own: filters, origins, failures that pass, and going on after an
interruption."""

from __future__ import annotations

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

import trivium
from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig
from trivium.model import folder as model_folder
from trivium.stages.finetuning.selfinstruct import (
    SelfInstruct,
    journal,
    parse_instance,
    parse_tasks,
    rouge_l,
    teller,
    tokens_of,
)
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer

WORDS = [
    a + b for a in ("riv", "pri", "stor", "mach", "song", "law", "gard", "plan", "hab", "bridg")
    for b in ("er", "ing", "ed", "ism", "ful", "est")
]


class Oracle(BaseHTTPRequestHandler):
    """Answers by rule; every fifth request fails once with 429, and after ``limit`` requests all fail."""

    asked: list[dict] = []
    limit = 10**9

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Oracle.asked.append(
            {"prompt": body["messages"][0]["content"], "key": self.headers.get("Authorization"), "seed": body["seed"]})
        n = len(Oracle.asked)
        if n > Oracle.limit or n % 5 == 0:
            self.send_response(401 if n > Oracle.limit else 429)
            self.end_headers()
            return
        text = self.answer(body["messages"][0]["content"], n)
        data = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, prompt, n):
        if prompt.startswith("Does the task"):
            return " yes" if "Rank" in prompt.rpartition("Task:")[2] else " No."
        if prompt.startswith("The task is a classification"):
            return " first\nInput: one and two"
        if prompt.startswith("Give one example"):
            return " none\nOutput: Here it is.\n\nTask: another"
        rng = random.Random(n)
        first, second = (" ".join(rng.sample(WORDS, 8)) for _ in range(2))
        return (f" {first}\nTask 10: {first} please\nTask 11: Draw it\nTask 12: Draw a picture of {second}\n"
                f"13. 请写{''.join(rng.sample('春夏秋冬山河湖海日月星辰', 8))}的诗\n14. Rank {second}")

    def log_message(self, *words):
        pass


@pytest.fixture
def recipe(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Oracle)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Oracle.asked, Oracle.limit = [], 10**9
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps({"instruction": f"Tell me {text}."}) + "\n" for text in (
        "how to bake bread", "a joke about cats", "what rhymes with moon", "when the train leaves")))
    (tmp_path / "recipe.yaml").write_text(
        f"name: run\nout: {tmp_path}\nstages:\n  selfinstruct: {{seeds: {tmp_path}/seeds.jsonl, endpoint: "
        f"{{address: 'http://127.0.0.1:{server.server_port}/v1', model: default, key_variable: OPENAI_API_KEY, pause: "
        "0.01}, count: 12}\n"
    )
    yield tmp_path / "recipe.yaml"
    server.shutdown()
    server.server_close()


def test_rows_with_origins_and_rejects_with_reasons(recipe, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    artifact = trivium.run(recipe)["selfinstruct"]
    rows = [json.loads(line) for line in (artifact.folder / "demonstrations.jsonl").read_text().splitlines()]
    rejects = [json.loads(line) for line in (artifact.folder / "rejects.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and all(row["origin"]["shown"] and row["origin"]["model"] == "default" for row in rows)
    assert {row["origin"]["id"] for row in rows} == {f"task-{i}" for i in range(12)}
    said = [row["messages"][0]["content"].split("\n")[0] for row in rows]
    assert all(rouge_l(tokens_of(a), tokens_of(b)) < 0.7 for i, a in enumerate(said) for b in said[:i])
    reasons = " ".join(row["reason"] for row in rejects)
    assert "too like an earlier task" in reasons and "2 words" in reasons and "'picture' is banned" in reasons
    assert any(text.startswith("请写") for text in said)
    for row in rows:
        assert row["messages"][1]["content"] == ("first" if row["task"] == "classification" else "Here it is.")
    assert Oracle.asked[0]["key"] == "Bearer secret" and "secret" not in json.dumps(artifact.manifest)


def test_it_goes_on_and_asks_nothing_twice(recipe):
    whole = trivium.run(recipe, out=str(recipe.parent / "whole"))["selfinstruct"]
    prompts = [(row["prompt"], row["seed"]) for row in Oracle.asked]
    Oracle.asked, Oracle.limit = [], 14
    with pytest.raises(TriviumError, match="status 401"):
        trivium.run(recipe)
    answered = {(row["prompt"], row["seed"]) for i, row in enumerate(Oracle.asked[:14], 1) if i % 5}
    Oracle.limit = 10**9
    first = len(Oracle.asked)
    again = trivium.run(recipe)["selfinstruct"]
    assert not answered & {(row["prompt"], row["seed"]) for row in Oracle.asked[first:]}
    assert len(prompts) > 14 and again.summary["demonstrations"] == whole.summary["demonstrations"] == 12


def test_a_local_model_is_asked(tmp_path):
    texts = [f"Task {i}: {word} the river\nAnswer: yes" for i, word in enumerate(WORDS)]
    tokenizer = ChatTokenizer(tokenizer_training.train(iter(texts), 300))
    tokenizer.save(tmp_path)
    model_folder.save(
        LanguageModel(
            ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=1,
                        num_heads=2, num_kv_heads=1, head_dim=16, max_positions=96)).initialise(0), tmp_path,
        tokenizer.ids)
    context = SimpleNamespace(inputs={"model": tmp_path}, seed=0, name="selfinstruct")
    name, ask = teller(SelfInstruct(seeds="x", model="x", max_new_tokens=16), context)
    first, again, other = ask("Task 1:", 1), ask("Task 1:", 1), ask("Task 1:", 2)
    assert name == tmp_path.name and first == again != other and "<|" not in first
    with pytest.raises(TriviumError,
                       match="leaves no room for an answer in 96 positions; lower `shots` or `max_new_tokens`"):
        ask("Task 1: the river " * 30, 1)


def test_a_torn_journal_goes_on(tmp_path):
    asked = []

    def ask(prompt, number):
        asked.append(number)
        return f"{prompt} {number}"
    assert [journal(ask, tmp_path / "asked.jsonl")("p", n) for n in (1, 2)] == ["p 1", "p 2"]
    with open(tmp_path / "asked.jsonl", "a") as file:
        file.write('{"key": "12", "ans')  # a crash
    again = journal(ask, tmp_path / "asked.jsonl")
    assert [again("p", n) for n in (1, 2, 3)] == ["p 1", "p 2", "p 3"] and asked == [1, 2, 3]
    assert len((tmp_path / "asked.jsonl").read_text().splitlines()) == 3


def test_parsing():
    assert parse_tasks(" Do this\nand that\nTask 10: Do\n11. 写诗") == ["Do this and that", "Do", "写诗"]
    assert parse_instance(" Hello\nOutput: Bonjour\n\nTask: x", False) == ("Hello", "Bonjour")
    assert parse_instance(" none\nOutput: x", False) == ("", "x") and parse_instance(" bad\nInput: cold soup",
                                                                                     True) == ("cold soup", "bad")
    assert parse_instance("nothing", False) is None and parse_instance(" x\nOutput: ", False) is None
    assert rouge_l(["a", "b", "c", "d"],
                   ["a", "c", "d", "e"]) == pytest.approx(0.75) and tokens_of("写 a 诗!") == ["写", "a", "诗"]
