"""A fine-tuned model beside the one that it began as: the recipe of docs/sft.md, on a tiny model."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import trivium
from trivium.errors import TriviumError
from trivium.evaluation.answer_loss import answer_losses
from trivium.evaluation.checkers import Checker
from trivium.files import read_rows, write_rows
from trivium.recipe.load import load_recipe
from trivium.stages.models import load_language_model

DOCS = Path(__file__).parents[2] / "docs" / "sft.md"


def recipe_of_the_docs():
    section = DOCS.read_text("utf-8").partition("## Before and after")[2]
    return re.search(r"```yaml\n(name: .*?)```", section, re.DOTALL)[1]


@pytest.fixture
def place(school, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "chats.jsonl", [
        {"messages": [{"role": "user", "content": f"say {n} please"},
                      {"role": "assistant", "content": ("yes", "no thanks", "hello")[n % 3]}]} for n in range(90)])
    text = recipe_of_the_docs().replace("path/to/base", str(school / "sft"))
    text = text.replace("validation: 0.1}", "validation: 0.1, precision: PRECISION, epochs: 3, rows: 4, length: 64, "
                        "optimization: {learning_rate: 0.003}}")
    text = text.replace("after: sft}}", "after: sft}, precision: PRECISION, max_new_tokens: 8}")
    (tmp_path / "mine.yaml").write_text(text.replace("PRECISION", "float32"))
    return tmp_path


def test_the_recipe_of_the_docs_measures_both_on_the_rows_held_out(school, place):
    made = trivium.run("mine.yaml")
    summary = made["evaluate"].summary
    assert summary["baseline"] == "before" and summary["judge"] == "" and set(summary["models"]) == {"before", "after"}
    heldout = [row for _, row in read_rows(made["sft"].folder / "heldout.jsonl")]
    assert summary["prompts"] == len(heldout) == made["sft"].summary["held_out"] > 2
    answers = [row for _, row in read_rows(made["evaluate"].folder / "answers.jsonl")]
    for name, folder in (("before", school / "sft"), ("after", made["sft"].folder)):
        model, tokenizer = load_language_model(folder)
        losses = answer_losses(model, tokenizer, heldout)
        figures = summary["models"][name]
        assert figures["answer_loss"]["value"] == pytest.approx(
            sum(one.nats for one in losses) / sum(one.tokens for one in losses), abs=1e-5)
        for number, (row, answer) in enumerate(zip(heldout, answers, strict=True)):
            reference = row["messages"][-1]["content"]
            assert answer["answer"] == reference and answer["losses"][name] == pytest.approx(losses[number].mean)
            for checker in ("exact", "rouge_l"):
                assert answer["checked"][name][checker] == Checker(checker)({"answer": reference},
                                                                            [answer["answers"][name]])[0]
        assert 0 <= figures["rouge_l"]["low"] < figures["rouge_l"]["high"] <= 1
    after = summary["models"]["after"]
    assert after["answer_loss_difference_vs_before"]["value"] == pytest.approx(
        after["answer_loss"]["value"] - summary["models"]["before"]["answer_loss"]["value"], abs=1e-6)
    assert after["answer_loss"]["value"] == pytest.approx(made["sft"].summary["validation_loss"], abs=1e-4)
    assert "win_rate_vs_before" not in after and "rouge_l_difference_vs_before" in after
    page = (made["report"].folder / "index.html").read_text("utf-8")
    assert "loss of the right answers" in page and "ROUGE-L" in page and answers[0]["answers"]["after"] in page
    assert "reference: " in page and "minus before" in page and "BCa" in page and answers[0]["answer"] in page


@pytest.mark.bf16
def test_it_is_the_same_in_bf16(place):
    text = (place / "mine.yaml").read_text().replace("float32", "bf16")
    (place / "mine.yaml").write_text(text)
    after = trivium.run("mine.yaml")["evaluate"].summary["models"]["after"]
    assert after["answer_loss"]["low"] <= after["answer_loss"]["value"] <= after["answer_loss"]["high"]


class Prefers(BaseHTTPRequestHandler):
    """A judge that likes the longer answer, and sometimes says nothing."""

    asked = 0

    def do_GET(self):
        self.send_response(404)
        self.end_headers()

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
        first, second = re.findall(r"<answer_[AB]>\n(.*?)\n</answer_[AB]>", text, re.DOTALL)
        Prefers.asked += 1
        said = "[[C]]" if len(first) == len(second) else "[[A]]" if len(first) > len(second) else "[[B]]"
        body = json.dumps({"choices": [{"message": {"content": f"Longer. {said}"}}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_judge_behind_an_address_compares_them(place):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Prefers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        made = trivium.run("mine.yaml", [f"evaluate.judge={{address: '{address}', model: longer}}"])["evaluate"]
    finally:
        server.shutdown()
        server.server_close()
    answers = [row["samples"] for _, row in read_rows(made.folder / "answers.jsonl")]
    wins = [(len(one["after"]) > len(one["before"])) + 0.5 * (len(one["after"]) == len(one["before"]))
            for one in answers]
    rate = made.summary["models"]["after"]["win_rate_vs_before"]
    assert rate["value"] == pytest.approx(sum(wins) / len(wins)) and Prefers.asked > 0
    assert rate["low"] < rate["high"] and made.summary["judge"] == "longer"
    with pytest.raises(TriviumError, match=r"endpoint http://127.0.0.1:1/v1: cannot be reached \(.*; see that it runs"):
        trivium.run("mine.yaml", ["evaluate.judge={address: \"http://127.0.0.1:1/v1\", model: longer}"])


@pytest.mark.parametrize(("change", "message"), [
    (["sft.validation=0"], r"stages\.evaluate\.prompts: no rows are held out .* give the stage 'sft' a share of "
                           "`validation`, such as 0.05, or name a file of rows as `prompts`"),
    (["sft.validation=0", "imports.comparisons=[chats.jsonl]"],
     r"stages\.evaluate\.prompts: what 'imports' holds out has no right answers; give the stage 'sft' a share of "
     r"`validation`, such as 0.05, or say what judges the answers \(`reward`, `judge` or `checkers`\), or name a file"),
    (["evaluate.prompts=none.jsonl"], r"stages\.evaluate\.prompts: none\.jsonl: no such file"),
    (["evaluate.checkers={a: rogue_l}"],
     r"stages\.evaluate\.checkers\.a: there is no checker 'rogue_l'; did you mean 'rouge_l'"),
])
def test_what_is_missing_is_said_before_anything_is_trained(place, change, message):
    with pytest.raises(TriviumError, match=message) as error:
        load_recipe("mine.yaml", change)
    assert "\n" not in str(error.value) and not (place / "runs").exists()


def test_rows_of_ones_own_are_refused_before_sampling(school, place):
    write_rows(place / "rows.jsonl", [{"prompt": "say 1 please"}])
    text = f"name: own\nstages:\n  evaluate: {{models: {{before: {school / 'sft'}}}, prompts: rows.jsonl, MORE}}\n"
    for more, message in (("limit: 1", "no known truth; name a reward"),
                          ("checkers: {a: chrf}", "'chrf' needs the field 'answer', which prompt")):
        (place / "own.yaml").write_text(text.replace("MORE", more))
        with pytest.raises(TriviumError, match=message):
            trivium.run("own.yaml")


def test_a_model_that_there_is_not_is_named(place):
    (place / "mine.yaml").write_text((place / "mine.yaml").read_text().replace("after: sft}", "after: sfft}").replace(
        "PRECISION", "float32"))
    with pytest.raises(TriviumError, match="stages.evaluate.models.after: no earlier stage and no file is called"):
        load_recipe(place / "mine.yaml")
