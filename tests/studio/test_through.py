"""What the page "See through" is told, against the models themselves; what it refuses; and the command beside it."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
import torch
from seen import CHAT, sealed, seen_run
from started import studio_of
from torch.distributions import Categorical, kl_divergence
from typer.testing import CliRunner

import trivium
from trivium.cli.app import app
from trivium.errors import TriviumError
from trivium.planning.see_through import MOST_TOKENS, SeeThrough, answer_in
from trivium.studio.looker import Looker


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return seen_run(tmp_path_factory.mktemp("seen") / "run")


@pytest.fixture(scope="module")
def client(run):
    with studio_of(run.parent, run.parent) as start:
        yield start()


@pytest.fixture(scope="module")
def ask(client):
    def asked(what, status=200, **body):
        answer = client.post(f"/api/runs/run/through/{what}", json={"model": "ppo", **body})
        assert answer.status_code == status, answer.text
        return answer.json()

    return asked


@pytest.fixture(scope="module")
def ids(ask):
    return [token["id"] for token in ask("pieces", messages=CHAT)["tokens"]]


def test_the_models_of_a_run_are_listed_with_what_they_were_made_from(client):
    found = client.get("/api/runs/run/models").json()
    assert found["left_out"] == []
    models = {one["name"]: one for one in found["models"]}
    assert {name: one["kind"] for name, one in models.items()} == {
        "sft": "language", "other": "language", "reward": "reward", "ppo": "language"}
    assert models["ppo"]["made_from"] == {"model": "sft", "reward": "reward"}
    assert (models["ppo"]["layers"], models["ppo"]["heads"]) == (2, 4)


def test_a_model_that_cannot_be_looked_through_is_told(tmp_path):
    encoder = seen_run(tmp_path / "run") / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text('{"model_type": "modernbert"}')
    sealed(tmp_path / "run", "encoder", "encode", {})
    with studio_of(tmp_path, tmp_path) as start:
        found = start().get("/api/runs/run/models").json()
    assert len(found["models"]) == 4 and found["left_out"][0]["name"] == "encoder"
    assert "writes nothing" in found["left_out"][0]["why"]


def test_pieces_are_the_chat_as_the_template_renders_it(ask, run):
    found, tokenizer = ask("pieces", messages=CHAT), trivium.load(run / "ppo").tokenizer
    wanted, learned = tokenizer.encode_chat(CHAT)
    assert [token["id"] for token in found["tokens"]] == wanted
    assert [token["loss"] for token in found["tokens"]] == learned and any(learned) and not all(learned)
    assert found["rendered"] == tokenizer.render(CHAT)
    assert b"".join(bytes.fromhex(token["bytes"]) for token in found["tokens"]).decode() == found["rendered"]
    assert [token["place"] for token in found["tokens"]] == list(range(len(wanted)))
    assert [token["text"] for token in found["tokens"] if token["special"]] == [
        "<|user|>", "<|end|>", "<|assistant|>", "<|end|>"]
    opened = ask("pieces", messages=CHAT[:1])["tokens"]
    assert opened[-1]["text"] == "<|assistant|>" and not any(token["loss"] for token in opened)


def test_a_text_is_no_control_token(ask, run):
    found = ask("pieces", text="4 <|end|> 2")
    assert not any(token["special"] for token in found["tokens"]) and found["rendered"] is None
    assert {token["loss"] for token in found["tokens"]} == {None}
    assert "".join(token["text"] for token in found["tokens"]) == "4 <|end|> 2"


def test_what_comes_next_is_the_models_softmax(ask, run, ids):
    found, loaded = ask("next", ids=ids)["places"], trivium.load(run / "ppo")
    p = loaded.logits(ids).double().softmax(-1)
    assert len(found) == len(ids) and found[-1]["standing"] is None
    for place, one in enumerate(found):
        order = p[place].argsort(descending=True, stable=True).tolist()
        assert [other["id"] for other in one["likeliest"]] == order[:10]
        assert [other["probability"] for other in one["likeliest"]] == pytest.approx(
            p[place, order[:10]].tolist(), rel=1e-4)
        assert one["entropy"] == pytest.approx(float(Categorical(p[place]).entropy()), abs=1e-5)
        if one["standing"]:
            after = ids[place + 1]
            assert one["standing"]["rank"] == order.index(after) + 1
            assert one["standing"]["probability"] == pytest.approx(float(p[place, after]), rel=1e-4)
            assert one["standing"]["log_probability"] == pytest.approx(float(p[place, after].log()), abs=1e-4)
    learned = ask("pieces", messages=CHAT)["tokens"]
    told = [found[token["place"] - 1]["standing"]["log_probability"] for token in learned if token["loss"]]
    assert told == pytest.approx(loaded.log_probs(CHAT).tolist(), abs=1e-4)


def test_attention_is_that_of_transformers(ask, run, ids):
    from transformers import AutoModelForCausalLM
    oracle = AutoModelForCausalLM.from_pretrained(run / "ppo", attn_implementation="eager").eval()
    with torch.no_grad():
        wanted = oracle(torch.tensor([ids]), output_attentions=True).attentions
    for layer in range(2):
        for head in range(4):
            found = ask("attention", ids=ids, layer=layer, head=head)
            assert found["before"] is None and [len(row) for row in found["weights"]] == list(range(1, len(ids) + 1))
            for place, row in enumerate(found["weights"]):
                assert row == pytest.approx(wanted[layer][0, head, place, :place + 1].tolist(), abs=1e-5)


def test_scores_are_those_of_shorter_answers(ask, run, ids):
    tokens = ask("pieces", messages=CHAT)["tokens"]
    first, end = answer_in(tokens)
    found, judge = ask("scores", ids=ids[:end], reward="reward", first=first), trivium.load(run / "reward")
    assert found["shift"] == 0.25 and len(found["scores"]) == end - first
    assert found["scores"][-1] == pytest.approx(judge.score(CHAT) + judge.shift, abs=1e-5)
    for place in range(first, end - 1):
        row = torch.tensor([[*ids[:place + 1], judge.tokenizer.end_id]])
        with torch.no_grad():
            wanted = float(judge.model(row)[0, -1]) + 0.25
        assert found["scores"][place - first] == pytest.approx(wanted, abs=1e-5)


def test_divergence_is_that_of_the_two_models(ask, run, ids):
    found = ask("divergence", ids=ids, reference="sft")
    p, r = (Categorical(logits=trivium.load(run / name).logits(ids).double()[:-1]) for name in ("ppo", "sft"))
    after = torch.tensor(ids[1:])
    assert found["ratios"] == pytest.approx((p.log_prob(after) - r.log_prob(after)).tolist(), abs=1e-4)
    assert found["kl"] == pytest.approx(kl_divergence(p, r).tolist(), abs=1e-4)
    assert ask("divergence", ids=ids[:1], reference="sft") == {"ratios": [], "kl": []}


@pytest.mark.parametrize(("what", "body", "said"), [
    ("pieces", {}, "either a text or"), ("pieces", {"text": "a", "messages": CHAT}, "either a text or"),
    ("pieces", {"messages": [{"role": "usr", "content": "a"}]}, "unknown role 'usr'"),
    ("pieces", {"text": "2 " * 600}, "at most 512 are looked at: shorten it by"),
    ("pieces", {"text": "a", "model": "none"}, "no model 'none'"),
    ("pieces", {"text": "a", "model": "../run/ppo"}, "no model"),
    ("next", {"ids": [4] * 513}, "513 tokens; at most 512"), ("next", {"ids": [10_000]}, "10000 is no token"),
    ("next", {"ids": []}, "ids"), ("next", {"ids": [-1]}, "ids"), ("next", {"ids": [4], "more": 1}, "more"),
    ("next", {"ids": [4], "model": "reward"}, "a reward model"),
    ("attention", {"ids": [4], "layer": 2, "head": 0}, "layers go from 0 to 1"),
    ("attention", {"ids": [4], "layer": 0, "head": 4}, "heads go from 0 to 3"),
    ("scores", {"ids": [4], "reward": "sft"}, "where a reward model was expected"),
    ("scores", {"ids": [4], "reward": "reward", "first": 1}, "place 1"),
    ("scores", {"ids": [4], "reward": "reward", "model": "other"}, "different tokenizers"),
    ("divergence", {"ids": [4], "reference": "other"}, "different tokenizers")])
def test_what_is_wrong_is_said(ask, what, body, said):
    assert said in ask(what, 422, **body)["error"]


def test_no_other_site_and_nobody_without_the_key_looks(client, run):
    body = {"model": "ppo", "text": "a"}
    assert client.post("/api/runs/run/through/pieces", json=body, headers={
        "origin": "https://elsewhere.example"}).status_code == 403
    assert client.post("/api/runs/none/through/pieces", json=body).status_code == 404
    with studio_of(run.parent, run.parent) as start:
        locked = start("--host", "0.0.0.0", TRIVIUM_STUDIO_KEY="secret")
        assert locked.post("/api/runs/run/through/pieces", json=body).status_code == 401
        assert locked.get("/api/runs/run/models").status_code == 401
        assert locked.get("/through").status_code == 303


def test_models_are_kept_and_make_room(run, monkeypatch):
    looking = SeeThrough()
    first, _ = looking.language(run / "sft")
    assert looking.language(run / "sft")[0] is first
    for name in ("ppo", "other"):
        looking.language(run / name)
    looking.language(run / "sft")
    looking.reward(run / "reward")  # a fourth: the longest unused one goes
    assert {key[0].name for key in looking.models} == {"other", "sft", "reward"}
    monkeypatch.setattr("trivium.planning.see_through.available_memory", lambda: 1000.0)
    assert looking.language(run / "sft")[0] is first
    with pytest.raises(TriviumError, match="of memory are free"):
        looking.language(run / "ppo")
    assert looking.models == {}


def test_a_model_that_changed_is_read_again(tmp_path):
    run, looking = seen_run(tmp_path / "run"), SeeThrough()
    before = looking.next(run / "sft", [4, 5])
    (run / "sft").rename(tmp_path / "gone")
    (run / "ppo").rename(run / "sft")
    assert looking.next(run / "sft", [4, 5]) != before


def test_the_process_is_begun_again_when_it_ended_and_rests(run, monkeypatch):
    looker = Looker()
    try:
        asked = {"folder": str(run / "ppo"), "ids": [4, 5, 6]}
        first = looker.ask("next", **asked)
        process = looker.process
        assert looker.ask("next", **asked) == first and looker.process is process
        process.kill()
        process.wait()
        assert looker.ask("next", **asked) == first
        looker.rest()
        assert looker.process
        monkeypatch.setattr("trivium.studio.looker.REST_SECONDS", 0.0)
        time.sleep(0.01)
        looker.rest()
        assert looker.process is None
        looker.most_seconds = 0.05
        with pytest.raises(TriviumError, match="longer than 0 s"):
            looker.ask("next", **asked)
    finally:
        looker.end()
    assert looker.process is None


def test_its_process_ends_with_the_studio(run):
    with studio_of(run.parent, run.parent) as start:
        client = start()
        client.post("/api/runs/run/through/pieces", json={"model": "ppo", "text": "a"})
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(client.process.pid)], capture_output=True,
                                  text=True, check=True).stdout.split()
        assert len(children) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(children[0]), 0)


def near(found, wanted):
    """Equal but for what processes with other threads round otherwise."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            near(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            near(one, other)
    else:
        assert found == (pytest.approx(wanted, rel=1e-4, abs=1e-5) if isinstance(wanted, float) else wanted)


def test_the_command_says_the_same(run, tmp_path, ask, ids, monkeypatch):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": CHAT[:1]}) + "\n" + json.dumps(
        {"messages": CHAT}) + "\n")

    def command(*words):
        return CliRunner().invoke(app, ["inspect", "text", str(run / "ppo"), *words])

    monkeypatch.chdir(tmp_path)
    options = ["--reward", str(run / "reward"), "--reference", str(run / "sft"), "--layer", "1", "--head", "2"]
    found = json.loads(command("--chat", "rows.jsonl", "--row", "1", *options, "--json").stdout)
    assert found["tokens"] == ask("pieces", messages=CHAT)["tokens"]
    near(found["next"], ask("next", ids=ids)["places"])
    near(found["attention"]["weights"], ask("attention", ids=ids, layer=1, head=2)["weights"])
    first, end = answer_in(found["tokens"])
    near(found["scores"]["scores"], ask("scores", ids=ids[:end], reward="reward", first=first)["scores"])
    near(found["divergence"]["kl"], ask("divergence", ids=ids, reference="sft")["kl"])
    shown = command("--chat", "rows.jsonl", "--row", "1", *options, "--after", "3").stdout
    assert f"{len(ids)} tokens; {sum(bool(token['loss']) for token in found['tokens'])} carry loss" in shown
    assert "after " in shown and "layer 1, head 2" in shown
    for words, said in ((["a", "--chat", "rows.jsonl"], "one of the two"), (["a", "--head", "1"], "go together"),
                        (["--chat", "rows.jsonl", "--row", "2"], "has 2 lines"), (["a", "--after", "9"], "--after 9"),
                        (["2 " * 600], f"at most {MOST_TOKENS}"), (["a", "--layer", "9", "--head", "0"], "layer 9")):
        refused = command(*words)
        assert isinstance(refused.exception, TriviumError) and said in str(refused.exception)
