"""Every input of every stage is given every kind of wrong file: each is refused in one plain line that names the stage
or the file."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import yaml

import trivium
from trivium.errors import TriviumError
from trivium.files import write_rows

FOREIGN = ["Traceback", "Input should be", "NoneType", "expected string", "has no attribute", "pydantic", "KeyError",
           "site-packages", "not subscriptable", "indices must", "Errno", "<class", "Error:", "unhashable",
           "is not iterable", "JSONDecode", "'utf-8' codec", "fault of Trivium"]
"""Words of Python and its libraries, and of what nobody expected."""

SAID = [{"role": "user", "content": "say 3 please"}, {"role": "assistant", "content": "yes"}]
ROWS = {
    "nothing": "null\n", "a list": "[1, 2]\n", "a number": "3\n",
    "nulls": json.dumps(dict.fromkeys(["id", "messages", "prompt", "text", "label", "completion", "chosen"])),
    "numbers": json.dumps(dict.fromkeys(
        ["messages", "prompt", "responses", "ranking", "chosen", "rejected", "text", "label", "completion", "source",
         "target", "instruction"], 3)),
    "lists": json.dumps({"id": [1], "messages": [[]], "prompt": [3], "responses": [1, None], "ranking": [["a"]],
                         "chosen": [None], "rejected": {}, "text": [], "label": [], "completion": {}, "source": []}),
    "objects": json.dumps({"messages": {"role": 1}, "prompt": {"a": 1}, "responses": {}, "ranking": {},
                           "chosen": {"x": 1}, "rejected": {"y": [1]}, "completion": {"role": 3}, "label": {}}),
    "cut off": '{"messages": [{"role": "user", "content": "he',
}
"""Rows of JSON lines that are none, by what is wrong."""

TABLES = ("prompts", "demonstrations", "comparisons", "evaluation", "train", "heldout", "truth", "facts")


@pytest.fixture(scope="module")
def place(school, tmp_path_factory):
    """Good inputs of every kind."""
    place = tmp_path_factory.mktemp("good")
    (place / "corpus/documents").mkdir(parents=True)
    write_rows(place / "corpus/documents/part-000.jsonl",
               [{"text": f"A page of {n} words about the cat and the dog. " * 9} for n in range(12)])
    write_rows(place / "demos.jsonl", [{"messages": SAID}] * 4)
    write_rows(place / "ranked.jsonl", [{"id": f"{n}", "prompt": SAID[:1], "responses": ["yes", "no"],
                                         "ranking": [[0], [1]], "split": ["train", "heldout"][n % 2]}
                                        for n in range(8)])
    (place / "asked").mkdir()
    write_rows(place / "asked/evaluation.jsonl", [{"id": f"{n}", "prompt": SAID[:1]} for n in range(4)])
    write_rows(place / "labels.jsonl", [{"text": f"good {n}", "label": "ab"[n % 2]} for n in range(20)])
    write_rows(place / "pairs.jsonl", [{"source": f"one {n}", "target": f"eins {n}"} for n in range(20)])
    write_rows(place / "seeds.jsonl", [{"instruction": f"Say {n}."} for n in range(4)])
    (place / "page.txt").write_text("A text about a cat and the dog that it saw. " * 30)
    write_rows(place / "exam.jsonl", [{"prompt": f"What is {n}?", "answer": "a number"} for n in range(4)])
    (place / "task.yaml").write_text(f"kind: free\ndata: {place}/exam.jsonl\n")
    (place / "r.yaml").write_text(yaml.safe_dump({"name": "t", "out": str(place), "stages": {
        "tokens": {"corpus": str(place / "corpus"), "tokenizer": str(school / "sft"), "validation": 0.3}}}))
    trivium.run(place / "r.yaml")
    return place


def stages_of(school, place):
    """Every stage with good inputs, as small as can be."""
    sft, reward, prompts = str(school / "sft"), str(school / "reward"), str(school / "world")
    small = {"rows": 2, "length": 128, "precision": "float32"}
    few = {"max_new_tokens": 4, "precision": "float32"}
    read = {"tokens": str(place / "t/tokens"), "tokenizer": sft, "steps": 1, **small}
    policy = {"model": sft, "prompts": prompts, "iterations": 1, "episodes": 4, "reward": reward, "gold": reward, **few}
    file = {path.stem: str(path) for path in place.iterdir()}
    return {
        "corpus": {"documents": [file["page"]], "evaluation": prompts}, "imports": {
            "demonstrations": [file["demos"]], "comparisons": [file["ranked"]]},
        "filter": {"rows": [file["labels"]], "labels": ["a"]}, "labels": {"tables": [file["labels"]]},
        "pairs": {"files": [file["pairs"]]}, "tokenizer": {"corpus": file["corpus"], "vocab_size": 300},
        "tokens": {"corpus": file["corpus"], "tokenizer": sft}, "pretrain": read, "encode": read, "spans": read,
        "vision": {"pictures": file["demos"]}, "classify": {"model": sft, "labels": file["labels"]},
        "see": {"model": sft, "pictures": file["demos"]}, "translate": {"model": sft, "pairs": file["pairs"]},
        "sft": {"model": sft, "demonstrations": file["demos"], "earlier": {"old": file["demos"]}, **small},
        "selfinstruct": {"model": sft, "seeds": file["seeds"]},
        "ai_feedback": {"model": sft, "judge": sft, "prompts": prompts, **few},
        "revise": {"model": sft, "judge": sft, "prompts": prompts, **few},
        "preferences": {"model": sft, "prompts": prompts, **few},
        "dpo": {"model": sft, "preferences": file["ranked"], **small},
        "kto": {"model": sft, "feedback": str(school / "thumbs.jsonl"), **small},
        "reward": {"model": sft, "preferences": file["ranked"], "demonstrations": file["demos"], **small},
        "select": {"model": sft, "reward": reward, "prompts": prompts, **few},
        "grpo": policy | {"samples": 2}, "ppo": policy | {"value": reward, "pretraining": read["tokens"]},
        "evaluate": {"models": {"a": sft}, "baseline": "a", "base": sft, "prompts": prompts, "limit": 2,
                     "demonstrations": str(school / "world"), "tasks": [file["task"]], **few},
        "report": {"stages": [read["tokens"]]},
    }


def inputs_of(settings, path=()):
    """The places of paths in settings."""
    for name, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        if isinstance(value, (dict, list)):
            yield from inputs_of(value, (*path, name))
        elif isinstance(value, str) and value.startswith("/"):
            yield (*path, name)


def wrong_files(folder):
    """Files and folders that no input may be, by what is wrong with them."""
    (folder / "empty").mkdir()
    (folder / "words").mkdir()
    (folder / "words/readme.md").write_text("Nothing of use.")
    found = {"missing": folder / "none.jsonl", "an empty folder": folder / "empty", "another folder": folder / "words"}
    for ending in ("jsonl", "bin"):
        (folder / f"empty.{ending}").write_bytes(b"")
        (folder / f"binary.{ending}").write_bytes(bytes(range(256)) * 20)
        found |= {f"empty {ending}": folder / f"empty.{ending}", f"binary {ending}": folder / f"binary.{ending}"}
    for what, text in ROWS.items():
        inside = folder / what.replace(" ", "-")
        inside.mkdir()
        for name in TABLES:
            (inside / f"{name}.jsonl").write_text(f"{text}\n" * 2)
        (folder / f"{what}.jsonl").write_text(f"{text}\n" * 2)
        found[f"rows of {what}"] = inside if what in ("numbers", "lists") else folder / f"{what}.jsonl"
    return found


def refusal(recipe, stages):
    """What a run says that must be refused."""
    recipe.write_text(yaml.safe_dump({"name": "t", "out": str(recipe.parent / "out"), "stages": stages}))
    with pytest.raises(TriviumError) as caught:
        trivium.run(recipe)
    said = str(caught.value)
    assert "\n" not in said and not any(word in said for word in FOREIGN), said
    return said


KINDS = ["corpus", "imports", "filter", "labels", "pairs", "tokenizer", "tokens", "pretrain", "encode", "spans",
         "vision", "classify", "see", "translate", "sft", "selfinstruct", "ai_feedback", "revise", "preferences", "dpo",
         "kto", "reward", "select", "grpo", "ppo", "evaluate", "report"]


NO_ENCODER = ("an encoder's is 'modernbert'", "no encoder-decoder")
"""What these two stages say of the school's model, before they look at anything else."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_wrong_input_is_refused_in_one_plain_line(kind, school, place, tmp_path):
    settings = stages_of(school, place)[kind]
    wrong = wrong_files(tmp_path)
    for where in inputs_of(settings):
        rows = where[0] not in ("model", "models", "judge", "reward", "gold", "value", "tokenizer", "tokens")
        for what, path in wrong.items():
            if "rows" in what and not rows:
                continue
            given = copy.deepcopy(settings)
            inside = given
            for part in where[:-1]:
                inside = inside[part]
            inside[where[-1]] = str(path)
            said = refusal(tmp_path / "r.yaml", {kind: given})
            known = [str(path), path.name, kind, *(NO_ENCODER if kind in ("classify", "translate") else ())]
            assert any(words in said for words in known), (what, said)


BROKEN = {"empty": b"", "binary": bytes(range(256)) * 9, "cut off": None, "a list": b"[]", "nothing": b"null"}


@pytest.mark.parametrize("kind, where",
                         [("sft", "model"), ("dpo", "model"), ("ppo", "reward"), ("tokens", "tokenizer")])
def test_every_broken_file_of_a_model_is_named(kind, where, school, place, tmp_path):
    settings = stages_of(school, place)[kind]
    names = ["config.json", "tokenizer.json", "tokenizer_config.json"] + ["model.safetensors"] * (where != "tokenizer")
    for name in names:
        for what, data in BROKEN.items():
            folder = tmp_path / f"{name} {what}"
            shutil.copytree(settings[where], folder)
            (folder / name).write_bytes((folder / name).read_bytes()[:90] if data is None else data)
            said = refusal(tmp_path / "r.yaml", {kind: {**settings, where: str(folder)}})
            assert str(folder) in said, said
