"""Fine-tune an encoder to tell labels, and compare it with counting words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation.intervals import mean_interval
from trivium.files import read_rows, write_rows
from trivium.model.encoder import Classifier, MaskedModel, load_encoder
from trivium.pipeline import Context
from trivium.stages.common import PackedEpochs, contents_of, run_training, weights_digest
from trivium.stages.encode import save_folder
from trivium.stages.settings import Classify
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, make_batch, pack
from trivium.training.loop import Total
from trivium.training.machine import prepare

VERSION = 1


class Labelling:
    """Cross-entropy over the labels of a batch's texts."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over texts."""
        logits = model(batch.tokens, batch.documents)
        return {"loss": Total(F.cross_entropy(logits, batch.extra["labels"], reduction="sum"), "trees"),
                "accuracy": Total((logits.argmax(-1) == batch.extra["labels"]).float().sum(), "trees")}


def add_labels(batch: Batch) -> None:
    """Give a batch its texts' labels, and number the texts from 0."""
    batch.extra["labels"] = torch.tensor([tree.payload for tree in batch.trees], dtype=torch.int64)


def run(settings: Classify, context: Context) -> dict[str, object]:
    """Train on the labelled texts, and count right labels on the held-out ones."""
    device = prepare(context.threads)
    source = load_encoder(context.inputs["model"])
    if not isinstance(source, MaskedModel):
        raise TriviumError(f"{context.inputs['model']}: already a classifier; start from a pretrained encoder")
    tokenizer = ChatTokenizer.load(context.inputs["model"])
    train, heldout = (rows_of(context.inputs["labels"] / f"{part}.jsonl") for part in ("train", "heldout"))
    labels = sorted({row["label"] for row in train})
    outside = next((row for row in heldout if row["label"] not in labels), None)
    if outside:
        raise TriviumError(f"classify: the label {outside['label']!r} is held out only; no text to learn it from")
    length = min(settings.length, source.config.max_positions)

    def trees(rows: Sequence[dict[str, str]]) -> list[Tree]:
        ids = tokenizer.encode_batch([row["text"] for row in rows])
        return [Tree(np.array(text[:length], np.int64), (), payload=labels.index(row["label"])) for row, text in zip(rows, ids, strict=True)]

    batches = PackedEpochs(trees(train), length, settings.rows, context.seed, add_labels)
    model = Classifier.from_encoder(source, labels, randomness.derive(context.seed, "head")).to(device)
    steps = max(1, round(settings.epochs * batches.steps_per_epoch))
    outcome = run_training(model, Labelling(), batches, steps, settings, context, weights_digest(context.inputs["model"]), contents_of(batches.trees))
    if not outcome.leader:
        return {}
    guesses = label_all(outcome.model, trees(heldout), length)
    right = [float(labels[guess] == row["label"]) for guess, row in zip(guesses, heldout, strict=True)]
    save_folder(outcome.model, tokenizer, context)
    write_rows(context.folder / "mistakes.jsonl", [{**row, "guess": labels[guess]} for guess, row in zip(guesses, heldout, strict=True)
                                                    if labels[guess] != row["label"]])
    most = max(sum(row["label"] == label for row in heldout) for label in labels)
    return {"labels": labels, "train": len(train), "heldout": len(heldout), "steps": steps, "accuracy": mean_interval(right),
            "always_the_commonest": most / len(heldout), "tf_idf": baseline(train, heldout) if settings.baseline else None}


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a split."""
    return [{"text": str(row["text"]), "label": str(row["label"])} for _, row in read_rows(path)]


@torch.no_grad()
def label_all(model: Classifier, trees: list[Tree], length: int, rows: int = 16) -> list[int]:
    """The likeliest label of each text."""
    model.eval()
    found = [0] * len(trees)
    packed = pack([max(1, len(tree)) for tree in trees], length)
    for start in range(0, len(packed), rows):
        chosen = packed[start:start + rows]
        batch = make_batch([[trees[i] for i in row] for row in chosen], length, len(chosen)).to(model.classifier.weight.device)
        for index, guess in zip((i for row in chosen for i in row), model(batch.tokens, batch.documents).argmax(-1).tolist(), strict=True):
            found[index] = guess
    return found


def baseline(train: Sequence[dict[str, str]], heldout: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Right labels by TF-IDF of one to three characters and logistic regression."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise TriviumError('classify: the comparison needs scikit-learn: pip install "trivium[lessons]", or set baseline to false') from error
    counted = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
    model = LogisticRegression(max_iter=300, C=4.0)
    model.fit(counted.fit_transform([row["text"] for row in train]), [row["label"] for row in train])
    guesses = model.predict(counted.transform([row["text"] for row in heldout]))
    return mean_interval([float(guess == row["label"]) for guess, row in zip(guesses, heldout, strict=True)])
