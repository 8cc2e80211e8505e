"""Bits per byte of texts."""

from __future__ import annotations

import math

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task


def test_bits_per_byte_is_the_entropy_of_what_was_said(models, task_file):
    path = task_file("kind: bits\ndata: rows.jsonl\n", [{"text": "The town is small."}, {"text": "狐狸"}])
    result = load_task(path).examine(path, EvaluatedModel.load(models["base"]))
    nats = sum(row["log_prob"] for row in result.rows)
    assert result.metrics["bits_per_byte"]["value"] == pytest.approx(-nats / math.log(2) / (18 + 6))
    with pytest.raises(TriviumError, match=r"rows\.jsonl: row 1: the field 'text' is missing"):
        path = task_file("kind: bits\ndata: rows.jsonl\n", [{"body": "x"}])
        load_task(path).examine(path, EvaluatedModel.load(models["base"]))


def test_bytes_and_words_are_those_of_the_document_not_of_what_is_read(models, task_file):
    path = task_file("kind: bits\ndata: rows.jsonl\nreads: \"{{ document | replaced(' @-@ ', '-') }}\"\n",
                     [{"text": "a well @-@ known fox"}])
    result = load_task(path).examine(path, EvaluatedModel.load(models["base"]))
    joined = task_file("kind: bits\ndata: rows.jsonl\n", [{"text": "a well-known fox"}])
    plain = load_task(joined).examine(joined, EvaluatedModel.load(models["base"]))
    assert result.rows[0]["log_prob"] == plain.rows[0]["log_prob"] and result.metrics["bytes"] == 20
    assert result.metrics["word_perplexity"] == pytest.approx(math.exp(-result.rows[0]["log_prob"] / 5))
