"""Fine-tuning: the best checkpoint is kept, training stops in time, the past is rehearsed, and long answers are not cut
unasked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import trivium
from trivium.cli.app import inspect_batch
from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig
from trivium.model import folder as model_folder
from trivium.stages.finetuning.sft import AnswersAndQuestions, conversation, mark_answers, shortened
from trivium.stages.pretraining.pretrain import LanguageModeling, pieces
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.tokenizer.tokens import write as write_tokens
from trivium.training.batch import make_batch
from trivium.training.optimizers import Optimization
from trivium.training.trainer import Trainer

PAIRS = [(f"Say {word} {n}.", f"{word}, {n}!") for word in ("red", "blue", "green", "grey") for n in range(10)]
FAST = {"length": 64, "rows": 8, "optimization": {"learning_rate": 0.02, "schedule": "constant"}}


def chat(asked, answered):
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def write(path, pairs):
    path.write_text("".join(json.dumps({"messages": chat(*pair)}) + "\n" for pair in pairs))
    return str(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = ChatTokenizer(tokenizer_training.train(iter([a + " " + b for a, b in PAIRS] * 3), 300))
    tokenizer.save(folder)
    model_folder.save(
        LanguageModel(
            ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=1,
                        num_heads=2, num_kv_heads=1, head_dim=16, max_positions=64)).initialise(0), folder,
        tokenizer.ids)
    return folder


def run(tmp_path, **stages):
    (tmp_path / "recipe.yaml").write_text(json.dumps({"name": "run", "out": str(tmp_path), "stages": stages}))
    return trivium.run(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(("fault", "message"), [
    ("contradiction", r"mlp.down_proj.weight has shape \(32, 48\), but config.json asks for \(32, 64\)"),
    ("missing shard", "no such file; copy it again"),
    ("cut short", "not a readable safetensors file"),
    ("pickle", "is a pickle, which is never read"),
    ("tokenizer", "entries, but the model only 200"),
])
def test_a_model_that_cannot_be_loaded_is_said_before_the_first_stage(base, tmp_path, fault, message):
    given = tmp_path / "given"
    shutil.copytree(base, given)
    weights = given / "model.safetensors"
    if fault == "contradiction":
        (given / "config.json").write_text(
            json.dumps(json.loads((given / "config.json").read_text()) | {"intermediate_size": 64}))
    elif fault == "missing shard":
        model = model_folder.load(base)
        weights.unlink()
        model_folder.save(model, given, {"eos": 1, "pad": 0}, shard_bytes=20_000)
        sorted(given.glob("model-*"))[1].unlink()
    elif fault == "cut short":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif fault == "pickle":
        weights.rename(given / "pytorch_model.bin")
    else:
        model_folder.save(LanguageModel(replace(model_folder.load(base).config, vocab_size=200)), given,
                          {"eos": 1, "pad": 0})
    with pytest.raises(TriviumError, match=message):
        run(tmp_path, imports={"demonstrations": [write(tmp_path / "rows.jsonl", PAIRS)]},
            sft={"model": str(given), "demonstrations": "imports", **FAST})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("processes", "changes", "message"), [
    (9, {}, "sft: 9 processes cannot share a batch of 8 rows; raise `rows` or start fewer"),
    (3, {"parallel": {"tensor_parallel": 2}}, "sft: tensor_parallel is 2, which does not divide 3 processes"),
    (2, {"adapter": {"kind": "lora"}, "parallel": {"tensor_parallel": 2}}, "sft: tensor_parallel cuts no adapters"),
    (2, {"adapter": {"dora": True}, "precision": "bf16-weights"}, "sft: DoRA with `precision: bf16-weights` is trained "
                                                                  "in one process"),
])
def test_more_processes_than_can_share_are_refused_before_the_first_stage(base, tmp_path, monkeypatch, processes,
                                                                          changes, message):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(TriviumError, match=message):
        run(tmp_path, imports={"demonstrations": [write(tmp_path / "rows.jsonl", PAIRS)]},
            sft={"model": str(base), "demonstrations": "imports", **FAST, **changes})
    assert not (tmp_path / "run").exists()


def test_a_batch_is_shown_as_the_model_sees_it(base, tmp_path, capsys):
    """Every conversation of it: positions from 0, and loss on the answer and the token that ends it alone."""
    (tmp_path / "recipe.yaml").write_text(json.dumps({"name": "run", "out": str(tmp_path), "stages": {"sft": {
        "model": str(base), "demonstrations": write(tmp_path / "rows.jsonl", PAIRS), **FAST, "rows": 2}}}))
    inspect_batch(tmp_path / "recipe.yaml", "sft", as_json=True)
    shown = {}
    for token in map(json.loads, capsys.readouterr().out.splitlines()):
        whose = token["segment"] if token["continues"] is None else token["continues"]
        shown.setdefault((token["row"], whose), []).append(token)
    tokenizer = ChatTokenizer.load(base)
    answers = {tuple(tokenizer.encode_response(answer)) for _, answer in PAIRS}
    assert len(shown) > 2 and {row for row, _ in shown} == {0, 1}
    for tokens in shown.values():
        assert [token["position"] for token in tokens] == list(range(len(tokens)))
        assert tuple(token["id"] for token in tokens if token["loss"]) in answers
    inspect_batch(tmp_path / "recipe.yaml", "sft", row=1)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("carry loss (*)") and last.startswith(
        f"{sum(len(tokens) for (row, _), tokens in shown.items() if row == 1)} tokens")


def test_what_auto_means_is_recorded(base, tmp_path, monkeypatch, any_precision):
    """By the manifest of each stage, and by its first lines: in every format DPO and KTO begin at their reference, and
    learn."""
    monkeypatch.setenv("TRIVIUM_AUTO_PRECISION", any_precision)
    ranked = tmp_path / "ranked.jsonl"
    ranked.write_text("".join(
        json.dumps({"prompt": asked, "chosen": answered, "rejected": "no"}) + "\n" for asked, answered in PAIRS))
    fast = {**FAST, "optimization": {"learning_rate": 0.003}, "epochs": 2}
    artifacts = run(tmp_path,
                    imports={"demonstrations": [write(tmp_path / "rows.jsonl", PAIRS)], "comparisons": [str(ranked)]},
                    sft={"model": str(base), "demonstrations": "imports", **FAST, "epochs": 2,
                         "validation": 0.2}, reward={"preferences": "imports",
                                                     **fast}, dpo={"preferences": "imports",
                                                                   **fast}, kto={"feedback": "imports", **fast})
    for stage in ("sft", "reward", "dpo", "kto"):
        manifest = json.loads((artifacts[stage].folder / "manifest.json").read_text())
        assert manifest["summary"]["precision"] == any_precision and manifest["settings"]["precision"] == "auto"
        assert {tensor.dtype
                for tensor in load_file(artifacts[stage].folder / "model.safetensors").values()} == {torch.float32}
    first, last = ({
        stage: json.loads((artifacts[stage].folder / "log.jsonl").read_text().splitlines()[place])
        for stage in ("dpo", "kto")
    } for place in (0, -1))
    assert first["dpo"]["margin"] == first["kto"]["baseline"] == 0 and last["dpo"]["margin"] > 0
    monkeypatch.setenv("TRIVIUM_AUTO_PRECISION", "half")
    with pytest.raises(TriviumError, match="TRIVIUM_AUTO_PRECISION is 'half'"):
        run(tmp_path, sft={"model": str(base), "demonstrations": str(tmp_path / "rows.jsonl"), **FAST})


def test_the_best_checkpoint_is_kept_and_training_stops_in_time(base, tmp_path, any_precision):
    rows = write(tmp_path / "rows.jsonl", PAIRS)
    fast = {
        **FAST, "rows": 2, "optimization": {"learning_rate": 0.1, "schedule": "constant", "warmup": 0.0},
        "precision": any_precision
    }
    artifact = run(
        tmp_path, sft={
            "model": str(base), "demonstrations": rows, "epochs": 20, "validation": 0.3, "patience": 2,
            "evaluate_every": 3, **fast
        })["sft"]
    log = [json.loads(line) for line in (artifact.folder / "log.jsonl").read_text().splitlines()]
    seen = {row["step"] + 1: row["validation_loss"] for row in log if "validation_loss" in row}
    summary = artifact.summary
    assert summary["best_step"] == min(seen, key=seen.get) and summary["validation_loss"] == min(seen.values())
    assert summary["steps"] == summary["best_step"] + 6 < summary["planned_steps"]
    assert log[-1]["loss"] < log[0]["loss"]
    # The weights are those of the best step: a run of just so many updates ends with them.
    again = run(
        tmp_path / "x" if (tmp_path / "x").mkdir() is None else tmp_path, sft={
            "model": str(base), "demonstrations": rows,
            "epochs": summary["best_step"] / (summary["planned_steps"] / 20), "validation": 0.3, "evaluate_every": 3,
            **fast
        })["sft"]
    assert again.summary["steps"] == summary["best_step"]
    first, second = (trivium.load(a.folder).model.state_dict() for a in (artifact, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("epochs", "said"), [(1, "only 1 update; one teaches"), (4, "only 4 updates; so few"),
                                              (50, None)])
def test_training_of_few_updates_is_said_to_be_short(base, tmp_path, capfd, epochs, said):
    rows = write(tmp_path / "rows.jsonl", PAIRS[:8])
    recipe = {
        "name": "run", "out": str(tmp_path),
        "stages": {"sft": {"model": str(base), "demonstrations": rows, "epochs": epochs, "validation": 0, **FAST}}
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert trivium.run(tmp_path / "recipe.yaml", quiet=False)["sft"].summary["steps"] == epochs
    shown = " ".join(capfd.readouterr().err.split())
    assert said in shown if said else "only" not in shown


def test_the_past_is_rehearsed_and_the_report_shows_what_that_kept(base, tmp_path):
    """One task after another: without rehearsal the first is forgotten, with earlier rows or with the model's own
    (LAMOL) it is not."""
    old, new = write(tmp_path / "old.jsonl", [(f"Say {word} {n}.", f"{word}!") for word in ("red", "blue", "green")
                                              for n in range(40)]), write(tmp_path / "new.jsonl",
                                                                          [(f"{n} grey {word}?", f"grey {n}")
                                                                           for word in ("Say", "say")
                                                                           for n in range(20)])
    fast = {**FAST, "optimization": {"learning_rate": 0.02, "schedule": "linear"}, "precision": "float32"}
    second = {"kind": "sft", "model": "first", "demonstrations": new, "epochs": 6, "earlier": {"old": old}, **fast}
    artifacts = run(
        tmp_path,
        first={"kind": "sft", "model": str(base), "demonstrations": old, "epochs": 12, "prompt_loss": 1.0,
               **fast}, without=second, rows={**second, "rehearsal": {"share": 0.4}},
        generated={**second, "rehearsal": {"share": 0.4, "generated": True, "max_new_tokens": 12},
                   "prompt_loss": 1.0}, report={"stages": ["without", "rows", "generated"]})
    scores = {name: artifacts[name].summary["earlier"]["old"] for name in ("without", "rows", "generated")}
    assert all(score["before"]["n"] == 12 and score["before"]["value"] == 1 for score in scores.values())
    assert scores["without"]["after"]["high"] < min(scores[name]["after"]["low"] for name in ("rows", "generated"))
    for name in ("rows", "generated"):
        assert artifacts[name].summary["rehearsed"] == artifacts[name].summary["by_source"]["rehearsal"][
            "conversations"] == 27
    page = (artifacts["report"].folder / "index.html").read_text()
    memory = page[page.index('id="memory"'):page.index('id="curves"')]
    assert memory.index("without") < memory.index("40% earlier rows") < memory.index("40% made up by the model")
    assert "without (without rehearsal) forgot" in page and "rows (40%" not in page


def test_rehearsal_needs_something_to_rehearse(base, tmp_path):
    rows = write(tmp_path / "rows.jsonl", PAIRS)
    with pytest.raises(TriviumError, match="rehearsal needs `earlier` demonstrations"):
        run(tmp_path, sft={"model": str(base), "demonstrations": rows, "rehearsal": {"share": 0.3}})


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_documents_among_the_demonstrations_are_not_forgotten(base, tmp_path, precision):
    """What documents taught a model is lost in fine-tuning, unless a share of its tokens are theirs."""
    tokenizer = ChatTokenizer.load(base)
    texts = [f"blue {n} red {n} green {n} grey" for n in range(10)]
    write_tokens(tmp_path / "corpus" / "train", texts, tokenizer)
    trees = pieces(Tokens.open(tmp_path / "corpus" / "train"), tokenizer, 64)
    documents = make_batch([[tree] for tree in trees], 64)
    knowing = model_folder.load(base)
    trainer = Trainer(knowing, Optimization(learning_rate=0.01), 100, "float32")
    for step in range(100):
        trainer.step(step, [documents], LanguageModeling())
    model_folder.save(knowing, tmp_path / "knowing", tokenizer.ids)
    tokenizer.save(tmp_path / "knowing")
    tuned = {"kind": "sft", "model": str(tmp_path / "knowing"), "demonstrations": write(tmp_path / "rows.jsonl", PAIRS),
             "epochs": 8, **FAST, "precision": precision}
    made = run(tmp_path, alone=tuned,
               mixed={**tuned, "pretraining": str(tmp_path / "corpus"), "pretraining_share": 0.3})
    before, alone, mixed = (
        Trainer(model_folder.load(folder), Optimization(learning_rate=0.01), 1).evaluate(
            [documents], LanguageModeling())["loss"]
        for folder in (tmp_path / "knowing", made["alone"].folder, made["mixed"].folder))
    assert alone > before + 1 and mixed < before + 0.3
    summary = made["mixed"].summary
    assert summary["demonstrations"] == made["alone"].summary["demonstrations"] == len(PAIRS)
    share = summary["pretraining_tokens"] / (summary["pretraining_tokens"] + summary["tokens"])
    assert share == pytest.approx(0.3, abs=0.05) or summary["pretraining_tokens"] == sum(map(len, trees))
    assert "pretraining_tokens" not in made["alone"].summary


def test_documents_of_another_tokenizer_are_refused(base, tmp_path):
    other = ChatTokenizer(tokenizer_training.train(iter(["quite another text"] * 9), 290))
    write_tokens(tmp_path / "corpus" / "train", ["another text"], other)
    with pytest.raises(TriviumError, match="tokenizer"):
        run(tmp_path, sft={"model": str(base), "demonstrations": write(tmp_path / "rows.jsonl", PAIRS), "epochs": 1,
                           "pretraining": str(tmp_path / "corpus"), **FAST})


def test_conversations_longer_than_a_row(base, tmp_path):
    rows = write(tmp_path / "rows.jsonl", [*PAIRS, ("Say it.", "red " * 90), ("red " * 90, "x")])
    left = run(tmp_path, sft={"model": str(base), "demonstrations": rows, "epochs": 1, **FAST})["sft"]
    assert left.summary["left_out"] == 2 and left.summary["demonstrations"] == 40
    assert left.summary["by_source"] == {
        "": {
            "conversations": 40, "cut": 0, "left_out": 2,
            **{name: left.summary[name]
               for name in ("tokens", "learned_tokens")}
        }
    }
    rejects = [json.loads(line) for line in (left.folder / "rejects-trees.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [41, 42] and "more than a row's 64" in rejects[0]["reason"]
    cut = run(tmp_path, sft={"model": str(base), "demonstrations": rows, "epochs": 1, "too_long": "cut", **FAST})["sft"]
    assert cut.summary["cut"] == 1 and cut.summary["left_out"] == 1


def test_what_is_too_long_is_listed_held_out_or_not(base, tmp_path):
    """With its place in the file; phrasings of one row are on one side."""
    long = [{"messages": chat("Say it.", "red " * 90 + str(n)), "group": n} for n in range(10)]
    short = [{"messages": chat(f"{ask} {n}", "red"), "group": n} for n in range(10)
             for ask in ("Say", "Do say", "Please say")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*long, *short)))
    made = run(
        tmp_path, sft={
            "model": str(base), "demonstrations": str(tmp_path / "rows.jsonl"), "epochs": 1, "validation": 0.4,
            **FAST, "length": 128
        })["sft"]
    rejects = [json.loads(line) for line in (made.folder / "rejects-trees.jsonl").read_text().splitlines()]
    assert sorted(row["row"] for row in rejects) == list(range(1, 11)) and all(
        "more than the model's 64 positions" in row["reason"] for row in rejects)
    assert made.summary["held_out"] + made.summary[
        "demonstrations"] == 30 and made.summary["held_out"] % 3 == 0 and 0 < made.summary["left_out"] < 10


def test_rows_of_another_kind_are_told_the_way_in(base, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(
            TriviumError, match=
            "rows.jsonl: row 1: the field 'messages' is missing; no good row is left; .* a stage `imports` brings "
            "other kinds in"
    ):
        run(tmp_path, sft={"model": str(base), "demonstrations": str(tmp_path / "rows.jsonl"), **FAST})


def test_a_conversation_that_starts_with_the_assistant_is_rejected(base, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(
        json.dumps({"messages": m}) + "\n" for m in ([chat("a", "b")[1]], chat("a", " "), chat("a", "b"))))
    artifact = run(tmp_path,
                   sft={"model": str(base), "demonstrations": str(tmp_path / "rows.jsonl"), "epochs": 1, **FAST})["sft"]
    reasons = [json.loads(line)["reason"] for line in (artifact.folder / "rejects-rows.jsonl").read_text().splitlines()]
    assert "starts with the assistant" in reasons[0] and "content is empty" in reasons[1]


def test_questions_have_a_loss_of_their_own(base):
    loaded = trivium.load(base)
    tree = conversation(loaded.tokenizer, chat("Say red.", "red!"), questions=True)
    plain = conversation(loaded.tokenizer, chat("Say red.", "red!"))
    batch, other = make_batch([[tree]], 32), make_batch([[plain]], 32)
    mark_answers(batch)
    totals = AnswersAndQuestions(0.25)(loaded.model, batch)
    from trivium.stages.pretraining.pretrain import LanguageModeling
    torch.testing.assert_close(totals["loss"].value, LanguageModeling()(loaded.model, other)["loss"].value)
    assert batch.counts["tokens"] == other.counts["tokens"] and batch.counts["asked"] == len(
        tree) - 1 - batch.counts["tokens"]
    with pytest.raises(TriviumError, match="the question alone is as long as a row's 9 tokens"):
        shortened(plain, len(plain.prompt), "a row's 9 tokens")
