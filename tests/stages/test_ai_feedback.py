"""Feedback from models: behind an address, the policy itself, or a reward model."""

from __future__ import annotations

import http.server
import json
import threading

import numpy as np
import pytest
from tiny import context

from trivium.errors import TriviumError
from trivium.stages.endpoint import EndpointSettings as Endpoint
from trivium.stages.models import load_reward_model, prompt_ids, response_ids
from trivium.stages.preferences.ai_feedback import AiFeedback
from trivium.stages.preferences.revise import Revise
from trivium.stages.scores import score_trees
from trivium.training.batch import Tree


class Judged(http.server.BaseHTTPRequestHandler):
    """A judge that likes the longer answer; now and then it is busy, or says nothing of use."""

    asked: list = []

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][0]["content"]
        self.asked.append(text)
        if self.asked.count(text) == 1 and len(self.asked) % 3 == 0:
            self.send_response(429)
            self.end_headers()
            return
        if "[[A]] or [[B]]" in text:
            first, second = (text.split(mark)[1].split("\n\n")[0] for mark in ("Answer A: ", "Answer B: "))
            reply = "hm" if "say 3 please" in text else "[[A]]" if len(first) >= len(second) else "[[B]]"
        else:
            reply = "too short" if "this principle" in text else "a better answer"
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    Judged.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judged)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Endpoint(address=f"http://127.0.0.1:{server.server_port}/v1", model="judge", pause=0.01)
    server.shutdown()
    server.server_close()


def test_an_endpoint_ranks_in_both_orders(school, tmp_path, endpoint):
    place, _ = context(school, tmp_path)
    summary = AiFeedback(endpoint=endpoint, responses=3, count=8, max_new_tokens=48, temperature=1.5).run(place)
    rows = [json.loads(line) for line in (tmp_path / "comparisons.jsonl").read_text().splitlines()]
    assert rows and all(row["id"] != "p3" for row in rows)
    for row in rows:
        lengths = [len(text) for text in row["responses"]]
        best = row["ranking"][0]
        assert max(lengths) == max(lengths[i] for i in best)
    assert summary["first_is_preferred"] == pytest.approx(0.5, abs=0.2)
    assert len(Judged.asked) > len(set(Judged.asked))  # some were asked again


def test_a_model_judges_itself_without_a_bias_of_order(school, tmp_path):
    place, _ = context(school, tmp_path)
    summary = AiFeedback(responses=2, count=6, max_new_tokens=24, temperature=1.5,
                         constitution=["Be right."]).run(place)
    rows = [json.loads(line) for line in (tmp_path / "comparisons.jsonl").read_text().splitlines()]
    assert summary["comparisons"] == len(rows) and all(sum(row["shares"]) == pytest.approx(1) for row in rows)


def test_a_reward_model_may_judge(school, tmp_path):
    place, _ = context(school, tmp_path, judge=school / "reward")
    AiFeedback(judge="reward", responses=2, count=6, max_new_tokens=24, temperature=1.5, margin=0.0).run(place)
    reward, tokenizer = load_reward_model(school / "reward")
    for row in map(json.loads, (tmp_path / "comparisons.jsonl").read_text().splitlines()):
        trees = [Tree(prompt_ids(tokenizer, row["prompt"]), (response_ids(tokenizer, text),))
                 for text in row["responses"]]
        scores = [float(s[0]) for s in score_trees(reward, trees, 128, 4, "float32")]
        assert row["ranking"][0] == [int(np.argmax(scores))]


def test_answers_are_criticised_and_revised(school, tmp_path, endpoint):
    place, _ = context(school, tmp_path)
    summary = Revise(endpoint=endpoint, count=12, max_new_tokens=48, temperature=1.5).run(place)
    rows = [json.loads(line) for line in (tmp_path / "demonstrations.jsonl").read_text().splitlines()]
    assert summary["revised"] == len(rows) > 0
    assert all(row["critique"] == "too short" and row["messages"][-1]["content"] == "a better answer" for row in rows)


def test_what_a_judge_said_before_its_endpoint_failed_is_not_asked_again(school, tmp_path, endpoint, monkeypatch):
    """It breaks down halfway, with a page instead of an answer; the same command goes on when it is back."""
    answer = Judged.do_POST

    def broken(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>out of order</html>")
    monkeypatch.setattr(Judged, "do_POST", lambda self: (broken if len(Judged.asked) >= 9 else answer)(self))
    settings = AiFeedback(endpoint=endpoint.model_copy(update={"tries": 2, "workers": 1}),
                          responses=3,
                          count=8,
                          max_new_tokens=48,
                          temperature=1.5)
    place, _ = context(school, tmp_path)
    with pytest.raises(TriviumError, match=r"127.0.0.1:\d+/v1: .*; see that it runs .* run the same command again"):
        settings.run(place)
    known = [json.loads(line) for line in (tmp_path / "scratch/verdicts.jsonl").read_text().splitlines()]
    monkeypatch.setattr(Judged, "do_POST", answer)
    before = list(Judged.asked)
    settings.run(place)
    assert len(known) >= 5 and not set(Judged.asked[len(before):]) & set(before[:5])


def test_an_endpoint_that_is_not_there_is_said(school, tmp_path):
    place, _ = context(school, tmp_path)
    gone = Endpoint(address="http://127.0.0.1:9/v1", model="judge", pause=0.0, tries=2)
    with pytest.raises(TriviumError, match="127.0.0.1:9"):
        AiFeedback(endpoint=gone, responses=2, count=4, max_new_tokens=24, temperature=1.5).run(place)
