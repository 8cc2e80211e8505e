"""The stage that trains a tokenizer: on documents, and on what is said in demonstrations."""

from __future__ import annotations

import json

import pytest

import trivium
from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.tokenizer.chat import ChatTokenizer

WORDS = "one two three four five six seven eight nine ten"


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus" / "documents").mkdir(parents=True)
    write_rows(tmp_path / "corpus" / "documents" / "part-00000.jsonl", [{"text": f"{WORDS} {n}"} for n in range(20)])
    write_rows(tmp_path / "rows.jsonl", [{"messages": [{"role": "user", "content": f"Say {n}."},
                                                       {"role": "assistant", "content": f"Gladly: {n}."}]}
                                         for n in range(20)])
    return tmp_path


def trained(folder, **settings):
    stage = {"corpus": str(folder / "corpus"), "vocab_size": 330, **settings}
    (folder / "recipe.yaml").write_text(json.dumps({"name": "run", "out": str(folder), "stages": {"tokenizer": stage}}))
    made = trivium.run(folder / "recipe.yaml")
    return ChatTokenizer.load(made["tokenizer"].folder)


def test_what_answers_say_counts_as_well(corpus):
    alone, both = trained(corpus), trained(corpus, demonstrations=str(corpus / "rows.jsonl"))
    assert len(alone.encode("Gladly")) > 1 and len(both.encode("Gladly")) == 1
    assert len(both.encode(" seven")) == 1


def test_demonstrations_without_conversations_are_refused(corpus):
    write_rows(corpus / "rows.jsonl", [{"text": "Gladly."}])
    with pytest.raises(TriviumError, match="messages"):
        trained(corpus, demonstrations=str(corpus / "rows.jsonl"))
