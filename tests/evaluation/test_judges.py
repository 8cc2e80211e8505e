"""The judge's endpoint, against a real server on this machine."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.judges import Judge, verdict
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task


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
                first, second = (re.search(rf"<answer_{name}>\n(.*?)\n</answer_{name}>", text, re.DOTALL)[1] for name in "AB")
                reply = {"choices": [{"message": {"role": "assistant", "content": decide(first, second)}}]} if status == 200 else {"error": {"message": "busy"}}
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


def test_orders_are_swapped_and_averaged():
    with Server(lambda first, second: "I take the first. [[A]]") as server:
        assert Judge(server.address, "judge").prefers("?", "one", "two") == 0.5  # liking for a place cancels out
        assert len(server.asked) == 2
    with Server(lambda first, second: "[[A]] at first sight, but no: " + ("[[A]]" if len(first) > len(second) else "[[B]]")) as server:
        judge = Judge(server.address, "judge", workers=2)
        assert judge.compare(["?"] * 3, ["longer", "a", "same"], ["x", "longer", "same"]) == [1.0, 0.0, 0.5]


def test_replies_without_a_verdict_are_counted_and_not_guessed():
    assert [verdict(text) for text in ("[[A]]", "x [[B]] y", "[[C]]", "[A]", "")] == [1.0, 0.0, 0.5, None, None]
    with Server(lambda first, second: "Both are fine.") as server:
        assert Judge(server.address, "judge").prefers("?", "a", "b") is None


def test_a_busy_endpoint_is_asked_again_and_a_wrong_key_is_not(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    with Server(lambda first, second: "[[A]]") as server:
        server.failures = [429, 503]
        assert Judge(server.address, "judge", "SOME_KEY", pause=0.01).prefers("?", "a", "b") == 0.5
        assert len(server.asked) == 4 and set(server.keys) == {"Bearer secret"}
        server.failures = [401] * 9
        with pytest.raises(TriviumError, match=r"status 401: .*busy.*; see that it runs"):
            Judge(server.address, "judge", pause=0.01).ask("<answer_A>\n\n</answer_A><answer_B>\n\n</answer_B>")
        assert len(server.asked) == 5
    with pytest.raises(TriviumError, match="see that it runs"):
        Judge(server.address, "judge", tries=2, pause=0.01).ask("?")
    with pytest.raises(TriviumError, match="an address begins with"):
        Judge("localhost:1", "judge")


def test_a_win_rate_by_an_endpoint(models, tmp_path):
    path = tmp_path / "wins.yaml"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"Tell me about {i}."}) + "\n" for i in range(6)))
    with Server(lambda first, second: "[[A]]" if len(first) > len(second) else "[[B]]" if len(second) > len(first) else "[[C]]") as server:
        path.write_text(f"kind: wins\ndata: rows.jsonl\njudge: {server.address}\nmax_new_tokens: 6\n")
        result = load_task(path).examine(path, EvaluatedModel.load(models["chat"]),
                                         EvaluatedModel.load(models["other"]))
    expected = [(len(row["first"]) > len(row["second"])) + 0.5 * (len(row["first"]) == len(row["second"])) for row in result.rows]
    assert [row["score"] for row in result.rows] == expected
    assert result.metrics["win_rate"]["value"] == sum(expected) / 6
