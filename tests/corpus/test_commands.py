"""The commands, as a user meets them: build, inspect, train-filter, and the report's funnel."""

import json
import random

import pytest
from test_corpus_build import story
from typer.testing import CliRunner

from trivium.cli.app import app
from trivium.errors import TriviumError

RECIPE = """
name: mine
out: {out}
threads: 1
stages:
  harm:
    kind: filter
    finds: harmful
    rows: [{folder}/rows.csv]
    text: said
    label: kind
    labels: [bad]
    regularization: 1000
  corpus:
    documents: [{folder}/in]
    evaluation: [{folder}/questions.jsonl]
    harmful_filter: harm
    blocked_domains: [{folder}/domains.txt]
    settings:
      rules: [gopher_repetition]
      harmful: {{max_harm: 0.7}}
      spans: {{enabled: true}}
      mixture: {{weights: {{in: 2}}}}
  tokenizer: {{vocab_size: 400}}
  tokens: {{validation: 0.2}}
  report: {{stages: [corpus, tokenizer, tokens]}}
"""


def call(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("mine"), random.Random(2)
    (folder / "in").mkdir()
    good = [story(rng) for _ in range(30)]
    bad = [
        story(rng)[:200] + " " +
        " ".join(rng.sample(["vile", "wicked", "nasty", "cruel", "awful", "rotten", "foul", "mean"], 7))
        for _ in range(30)
    ]
    deutsch = (
        "Der alte Mann und die Kinder gingen mit dem Hund an den Fluss, und das Wasser war nicht kalt. Sie "
        "blieben dort, bis es dunkel wurde."
    )
    rows = [{"text": text}
            for text in [*good[:20], *bad[:5], deutsch]] + [{"text": story(rng), "url": "http://sub.blocked.example/x"}]
    rows[3]["text"] += " What does the great western gullet swallow when the long dry rains finally end in spring?"
    (folder / "in/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rows.csv").write_text("said,kind\n" + "".join(f'"{text}",good\n' for text in [*good[1:], deutsch]) +
                                     "".join(f'"{text}",bad\n' for text in bad))
    (folder / "questions.jsonl").write_text(json.dumps({"question": rows[3]["text"].split(". ")[-1]}) + "\n")
    (folder / "domains.txt").write_text("blocked.example\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, out=folder / "runs"))
    return folder


def test_build_inspect_and_report(place):
    counts = json.loads(call("corpus", "build", place / "recipe.yaml", "--quiet", "--json"))["corpus"]
    assert {"address": {"blocked_domain": 1},
            "contamination": {"evaluation_text": 1}}.items() <= counts["reasons"].items()
    assert counts["reasons"]["harmful"] == {"classifier.harmful": 5} and counts["contamination"]["texts_hit"] == 1
    assert counts["documents"] == counts["kept"] + counts["rejected"] == 27
    after = {row["step"]: row["languages"] for row in counts["funnel"]}
    assert after["language"]["de"]["documents"] == 1 and after["extract"] == {}
    before, drawn = ({row["step"]: row["sources"]
                      for row in counts["funnel"]}[step] for step in ("contamination", "mixture"))
    assert counts["epochs"] == {
        name: drawn.get(name, {"bytes": 0})["bytes"] / before[name]["bytes"]
        for name in before
    } and set(counts["planned_epochs"]) == set(before)
    corpus = place / "runs/mine/corpus"
    text = call("corpus", "inspect", corpus, "--by", "language", "--samples", "1")
    assert "27 documents in = " in text and "blocked_domain" in text and "--- in/rows.jsonl" in text
    shown = json.loads(call("corpus", "inspect", corpus, "--step", "harmful", "--samples", "9", "--json"))["samples"]
    assert len(shown["rejects"]) == 5 and not shown["documents"]
    none = call("corpus", "inspect", corpus, "--step", "repetition")
    assert none == "no document was rejected at the step repetition\n"
    with pytest.raises(TriviumError, match="did you mean 'harmful'"):
        call("corpus", "inspect", corpus, "--step", "harm")
    with pytest.raises(TriviumError, match=r"no document is as asked for; reasons are .*blocked_domain"):
        call("corpus", "inspect", corpus, "--reason", "blocked_domian", "--json")
    with pytest.raises(TriviumError, match=r"no counts\.json"):
        call("corpus", "inspect", place)
    call("run", place / "recipe.yaml", "--quiet")
    page = (place / "runs/mine/report/index.html").read_text()
    assert "by language" in page and "blocked_domain" in page and "about how many tokens" in page
    for said in ("tokens, about", "how often each source is read", "× ", "bytes a token of this tokenizer",
                 "evaluation texts", "Made in "):
        assert said in page, said
    summary = json.loads((place / "runs/mine/tokenizer/manifest.json").read_text())["summary"]
    assert set(summary["bytes_per_token"]) == {"en", "de"
                                               } and summary["bytes_per_token"]["en"] > summary["bytes_per_token"]["de"]


def test_a_changed_list_makes_the_corpus_anew(place):
    before = json.loads(call("corpus", "build", place / "recipe.yaml", "--quiet", "--json"))["corpus"]
    (place / "domains.txt").write_text("another.example\n")
    after = json.loads(call("corpus", "build", place / "recipe.yaml", "--quiet", "--json"))["corpus"]
    assert "address" in before["reasons"] and "address" not in after["reasons"]


def test_a_failed_build_is_looked_at_and_goes_on_with_other_settings(place, monkeypatch):
    (place / "again").mkdir()
    (place / "again/page.html").write_text(f"<html><body><main><p>{story(random.Random(9))}</p></main></body></html>")
    (place / "again.yaml").write_text(
        f"name: again\nout: {place}/runs\nthreads: 1\nstages:\n  corpus:\n    documents: [{place}/again]\n"
        "    settings: {rules: [gopher_quality]}\n")
    with pytest.raises(TriviumError, match="1 document, all rejected.*trivium corpus inspect") as failed:
        call("corpus", "build", place / "again.yaml", "--quiet", "--set", "corpus.settings.thresholds.min_words=999")
    assert "word_count" in call("corpus", "inspect", str(failed.value).split("inspect ")[1].split(";")[0])
    monkeypatch.setattr("trivium.corpus.steps.extract_step", None)  # what was extracted is not extracted again
    assert json.loads(call("corpus", "build", place / "again.yaml", "--quiet", "--json"))["corpus"]["kept"] == 1
    assert not (place / "runs/again/.work/corpus-tasks").exists()  # raw documents do not stay


def test_train_filter(place):
    shown = json.loads(
        call("corpus", "train-filter", place / "filters/harm", "--rows", place / "rows.csv", "--text", "said",
             "--label", "kind", "--labels", "bad", "--characters").splitlines()[-1])
    assert shown["sought"] == shown["other"] == 30 and shown["heldout_f1"] > 0.9
    assert (place / "filters/harm/filter.safetensors").exists()
    for wrong, match in ((["--text",
                           "sayd"], "the field 'sayd' is missing"), (["--labels",
                                                                      "worse"], "no row has the label 'worse'"),
                         (["--set", "limt=3"], "unknown setting; did you mean 'limit'")):
        with pytest.raises(TriviumError, match=match):
            call("corpus", "train-filter", place / "filters/x", "--rows", place / "rows.csv", "--text", "said",
                 "--label", "kind", "--labels", "bad", *wrong)
