"""The judge's endpoint, against a real server on this machine."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.judges import EndpointJudge, FunctionJudge, Pair, Verdict, ask_both_orders, verdict
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task
from trivium.generation.endpoint import Endpoint


class Server:
    """An endpoint whose verdicts are a function of the two answers; ``failures`` are statuses that it gives first."""

    def __init__(self, decide):
        outer = self
        self.asked, self.failures, self.keys = [], [], []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.append(self.headers.get("Authorization"))
                text = body["messages"][0]["content"]
                outer.asked.append(text)
                status = outer.failures.pop(0) if outer.failures else 200
                first, second = (re.search(rf"<answer_{name}>\n(.*?)\n</answer_{name}>", text, re.DOTALL)[1]
                                 for name in "AB")
                reply = {"choices": [{"message": {"role": "assistant", "content": decide(first, second)}}]
                         } if status == 200 else {"error": {"message": "busy"}}
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def preferences(judge, *answers):
    """What a judge prefers of pairs of answers to one question."""
    return [
        found.preference
        for found in ask_both_orders(judge, [Pair([{"role": "user", "content": "?"}], *both) for both in answers])
    ]


def judge_at(server, **settings):
    return EndpointJudge(Endpoint(server.address, "judge", pause=0.01, **settings))


def test_orders_are_swapped_and_averaged():
    with Server(lambda first, second: "I take the first. [[A]]") as server:
        assert preferences(judge_at(server), ("one", "two")) == [0.5]  # liking for a place cancels out
        assert len(server.asked) == 2
    with Server(lambda first, second: "[[A]] at first sight, but no: " +
                ("[[A]]" if len(first) > len(second) else "[[B]]")) as server:
        assert preferences(judge_at(server, workers=2), ("longer", "x"), ("a", "longer"),
                           ("same", "same")) == [1.0, 0.0, 0.5]


def test_replies_without_a_verdict_are_counted_and_not_guessed():
    assert [verdict(text) for text in ("[[A]]", "x [[B]] y", "[[C]]", "[A]", "")] == [1.0, 0.0, 0.5, None, None]
    with Server(lambda first, second: "Both are fine.") as server:
        assert preferences(judge_at(server), ("a", "b")) == [None]
    with Server(lambda first, second: "[[B]]" if first == "a" else "Both are fine.") as server:
        assert preferences(judge_at(server), ("a", "b")) == [0.0]  # what one order says counts alone
    assert Verdict(None, 0.25).preference == 0.75 and not Verdict(None, 0.25).complete


def test_a_busy_endpoint_is_asked_again_and_a_wrong_key_is_not(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    with Server(lambda first, second: "[[A]]") as server:
        server.failures = [429, 503]
        assert preferences(judge_at(server, key_variable="SOME_KEY"), ("a", "b")) == [0.5]
        assert len(server.asked) == 4 and set(server.keys) == {"Bearer secret"}
        server.failures = [401] * 9
        with pytest.raises(TriviumError, match=r"status 401: .*busy.*; see that it runs"):
            Endpoint(server.address, "judge", pause=0.01).ask("<answer_A>\n\n</answer_A><answer_B>\n\n</answer_B>")
        assert len(server.asked) == 5
    with pytest.raises(TriviumError, match="see that it runs"):
        Endpoint(server.address, "judge", tries=2, pause=0.01).ask("?")
    with pytest.raises(TriviumError, match="an address begins with"):
        Endpoint("localhost:1", "judge")


def test_a_win_rate_by_an_endpoint(models, tmp_path):
    path = tmp_path / "wins.yaml"
    (tmp_path / "rows.jsonl").write_text("".join(
        json.dumps({"prompt": f"Tell me about {i}."}) + "\n" for i in range(6)))
    with Server(lambda first, second: "[[A]]" if len(first) > len(second) else "[[B]]"
                if len(second) > len(first) else "[[C]]") as server:
        path.write_text(f"kind: wins\ndata: rows.jsonl\njudge: {server.address}\nmax_new_tokens: 6\n")
        result = load_task(path).examine(path, EvaluatedModel.load(models["chat"]),
                                         EvaluatedModel.load(models["other"]))
    expected = [(len(row["first"]) > len(row["second"])) + 0.5 * (len(row["first"]) == len(row["second"]))
                for row in result.rows]
    assert [row["score"] for row in result.rows] == expected
    assert result.metrics["win_rate"]["value"] == sum(expected) / 6


JUDGES = """
import time
def longer(prompt, first, second, principle):
    assert prompt[-1]["role"] == "user" and principle == "Be long."
    return 0.9 if len(first) > len(second) else 0.1
def place(prompt, first, second, principle): return 1
def raises(prompt, first, second, principle): raise KeyError("no idea")
def hangs(prompt, first, second, principle): time.sleep(60)
def sure(prompt, first, second, principle): return 1.5
def silent(prompt, first, second, principle): return None
def few(prompt, first): return 0.5
"""


def test_a_function_of_ones_own_judges_in_both_orders(tmp_path):
    (tmp_path / "own.py").write_text(JUDGES)
    with FunctionJudge(f"{tmp_path}/own.py:longer", "Be long.") as judge:
        assert preferences(judge, ("longer", "x"), ("a", "longer")) == pytest.approx([0.9, 0.1])
    with FunctionJudge(f"{tmp_path}/own.py:place") as judge:
        assert preferences(judge, ("a", "b")) == [0.5]


@pytest.mark.parametrize("function, message", [("raises", "at prompt '\\?': KeyError: 'no idea'"),
                                               ("hangs", "within 1 seconds; raise `judge_seconds`"),
                                               ("sure", "a probability from 0 to 1 was expected, not 1.5"),
                                               ("silent", "a probability from 0 to 1 was expected, not None"),
                                               ("few", "takes 2 positional arguments"),
                                               ("absent", "there is no 'absent' in it")])
def test_a_judge_of_ones_own_that_misbehaves_is_named(tmp_path, function, message):
    (tmp_path / "own.py").write_text(JUDGES)
    with FunctionJudge(f"{tmp_path}/own.py:{function}",
                       seconds=1.0 if function == "hangs" else 30.0) as judge, pytest.raises(
                           TriviumError, match=rf"^judge {tmp_path}/own.py:{function}: .*{message}"):
        preferences(judge, ("a", "b"))


def test_a_judges_file_must_be_there():
    with pytest.raises(TriviumError, match="judge absent.py:f: no such file"):
        FunctionJudge("absent.py:f")
