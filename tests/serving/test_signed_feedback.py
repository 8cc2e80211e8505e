"""Feedback is taken on answers that were sampled here, as they were, and on no others."""

from __future__ import annotations

import json
import stat

import httpx
import pytest
from served import running, sampled, voted

from trivium.feedback.store import Store
from trivium.serving.models import Limits


@pytest.fixture(scope="module")
def thumb(server):
    return sampled(server, "one", 11)


def post(server, body):
    place = "/feedback/thumb" if "completion" in body else "/feedback/choice"
    return httpx.post(server + place, json={**body, **({"label": True} if "completion" in body else {"better": 0})})


def events(feedback):
    with Store(feedback, create=True) as store:
        return [event for event in store.events(["thumb", "choice"]) if event.body["who"].startswith("signed")]


@pytest.mark.parametrize("change", [
    {"completion": "I never said so."}, {"completion": " "}, {"model": "two"}, {"model": "nobody"},
    {"who": "somebody else"}, {"who": ""}, {"signature": "0" * 64}, {"signature": "nonsense"}, {"signature": "é"},
    {"messages": [{"role": "user", "content": "Another question?"}]},
    {"messages": [{"role": "system", "content": "Lie."}, {"role": "user", "content": "To be, or not to be?"}]},
    {"messages": [{"role": "assistant", "content": "To be, or not to be?"}]},
])  # fmt: skip
def test_forged_and_altered_answers_are_refused(server, thumb, change):
    assert post(server, thumb).status_code == 200
    answer = post(server, {**thumb, **change})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "not_sampled_here"


def test_what_has_no_signature_is_refused(server, thumb):
    answer = post(server, {name: value for name, value in thumb.items() if name != "signature"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "signature"


def test_a_vote_needs_both_signatures_in_their_places(server):
    pair = voted(sampled(server, "one", 12), sampled(server, "two", 12))
    assert post(server, pair).status_code == 200
    for name in ("signatures", "models", "responses"):
        assert post(server, {**pair, name: pair[name][::-1]}).status_code == 403
    assert post(server, {**pair, "signatures": [pair["signatures"][0]] * 2}).status_code == 403


def test_what_is_said_again_counts_once_and_fills_no_disk(server, feedback):
    thumb = sampled(server, "one", 13, who="signed replay")
    pair = voted(thumb, sampled(server, "two", 13, who="signed replay"))
    before = len(events(feedback))
    for _ in range(5):
        assert post(server, thumb).status_code == post(server, pair).status_code == 200
    assert len(events(feedback)) == before + 2
    assert httpx.post(server + "/feedback/thumb", json={**thumb, "label": None}).status_code == 200
    assert post(server, thumb).status_code == 200
    assert len(events(feedback)) == before + 4


def test_a_signature_of_another_project_is_none(folders, server, thumb, tmp_path):
    key = {"authorization": "Bearer k"}
    with running({"one": folders["one"]}, Limits(rows=2), keys=["k"], feedback=tmp_path / "other") as other:
        own = sampled(other, "one", 11, headers=key)
        assert own["completion"] == thumb["completion"] and own["signature"] != thumb["signature"]
        for body, status in ((thumb, 403), (own, 200)):  # with keys as without
            assert httpx.post(other + "/feedback/thumb", headers=key,
                              json={**body, "label": True}).status_code == status
        assert post(other, own).status_code == 401
    assert post(server, own).status_code == 403
    assert stat.S_IMODE((tmp_path / "other/feedback.sqlite").stat().st_mode) == 0o600  # which holds the key
    with running({"one": folders["one"]}, Limits(rows=2), feedback=tmp_path / "other") as again:
        assert post(again, own).status_code == 200  # the project's key outlives the server


def test_a_stream_signs_the_same_at_its_end(server, thumb):
    request = {"model": "one", "messages": thumb["messages"], "seed": 11, "max_tokens": 8, "user": "tester"}
    said = httpx.post(server + "/v1/chat/completions", json={**request, "stream": True}).text
    parts = [json.loads(line[6:])["choices"][0] for line in said.split("\n\n") if line.startswith("data: {")]
    assert [part.get("signature") for part in parts] == [None] * (len(parts) - 1) + [thumb["signature"]]
    assert "".join(part["delta"].get("content") or "" for part in parts) == thumb["completion"]


def test_without_feedback_nothing_is_signed(folders):
    with running({"one": folders["one"]}, Limits(rows=2)) as address:
        answer = httpx.post(address + "/v1/chat/completions", json={
            "model": "one", "messages": [{"role": "user", "content": "be"}], "max_tokens": 3})
        assert "signature" not in answer.json()["choices"][0]


def test_a_project_that_cannot_be_opened_costs_no_answer(folders, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    with running({"one": folders["one"]}, Limits(rows=2), feedback=tmp_path / "file") as address:
        answer = httpx.post(address + "/v1/chat/completions", json={
            "model": "one", "messages": [{"role": "user", "content": "be"}], "max_tokens": 3})
        assert answer.status_code == 200 and "signature" not in answer.json()["choices"][0]
    assert "answers get no signature" in caplog.text
