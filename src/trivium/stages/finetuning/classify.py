"""Fine-tune an encoder to tell labels, and compare it with counting words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from trivium import randomness
from trivium.errors import TriviumError
from trivium.files import read_rows, write_rows
from trivium.intervals import mean_interval
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters.folder import merge, weights_digest
from trivium.model.encoder import Classifier, MaskedModel, joined, load_encoder, read_encoder_config
from trivium.stage import Context, Figure, Input, Panel, Title
from trivium.stages.cost import Estimate, size_of, steps_of
from trivium.stages.models import adapt, in_format_to_save
from trivium.stages.outlook import Cost
from trivium.stages.pretraining.encode import save_folder
from trivium.stages.training import FromModel, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Batch, Tree, make_batch, pack
from trivium.training.epochs import Limit, PackedEpochs, contents_of
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total


class Classify(FromModel):
    """Fine-tune an encoder on labelled texts."""

    kind: ClassVar[str] = "classify"
    version: ClassVar[int] = 3
    usual: ClassVar[str] = "classify"
    title: ClassVar[Title] = Title("fine-tuning on labels", "按标签微调", "teach")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("accuracy", "texts labelled right", "标签正确率"),
        Figure("always_the_commonest", "… always the commonest label", "……总答最常见的标签"),
        Figure("tf_idf", "… TF-IDF and logistic regression", "……TF-IDF 与逻辑回归"),
    )
    panel: ClassVar[Panel] = Panel(headline="accuracy", beside=("always_the_commonest", "tf_idf"), curves=("accuracy",))
    alone: ClassVar[bool] = True
    model: Input = "encode"
    """The encoder to start from."""
    labels: Input = "labels"
    """The stage with the labelled texts."""
    epochs: float = Field(3.0, gt=0)
    """Passes over them."""
    baseline: bool = True
    """Compare with TF-IDF and logistic regression; needs scikit-learn."""
    adapter: AdapterSettings | None = None
    """Train a LoRA adapter, and the head, beside the frozen encoder; it is folded into the folder's weights. null
    trains all weights."""

    @model_validator(mode="after")
    def _folds_in(self) -> Classify:
        if self.adapter and self.adapter.kind != "lora":
            raise ValueError(f"a {self.adapter.kind} adapter cannot be folded into an encoder's weights; choose lora")
        return self

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The batches, and the tokenizer that made them. A tree is a text, or two with a token between them; its
        payload is its label."""
        config, tokenizer = read_encoder_config(context.inputs["model"]), ChatTokenizer.load(context.inputs["model"])
        rows = rows_of(context.inputs["labels"] / "train.jsonl")
        limit = Limit(self.length, config.max_positions, "texts")
        trees = trees_of(rows, tokenizer, limit.tokens)
        say_cut(rows, tokenizer, limit, context)
        length, count = self.lay_out(context, list(map(len, trees)), limit.positions, self.epochs)
        return PackedEpochs(trees, length, count, context.seed, partial(add_labels, labels_of(rows))), tokenizer

    def run(self, context: Context) -> dict[str, object]:
        """Train on the labelled texts, and count right labels on the held-out ones."""
        device = prepare(context.threads)
        source = load_encoder(context.inputs["model"])
        if not isinstance(source, MaskedModel):
            raise TriviumError(f"{context.inputs['model']}: already a classifier; start from a pretrained encoder")
        tokenizer = ChatTokenizer.load(context.inputs["model"])
        train, heldout = (rows_of(context.inputs["labels"] / f"{part}.jsonl") for part in ("train", "heldout"))
        labels = labels_of(train)
        outside = next((row for row in heldout if row["label"] not in labels), None)
        if outside:
            raise TriviumError(f"classify: the label {outside['label']!r} is held out only; no text to learn it from")
        batches, _ = self.training_data(context)
        model = Classifier.from_encoder(source, labels, randomness.derive(context.seed, "head")).to(device)
        attached = adapt(model, self.adapter, context)
        for part in (model.head, model.classifier):  # what is new learns whole
            part.requires_grad_(True)
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        outcome = run_training(model, Labelling(), batches, steps, self, context,
                               weights_digest(context.inputs["model"]), contents_of(batches.trees))
        if not outcome.leader:
            return {}
        trained = sum(p.numel() for p in outcome.model.parameters() if p.requires_grad)
        # ModernBERT fuses the matrices that an adapter changes one by one, so its folder holds the changed ones
        if attached:
            merge(attached, outcome.model)
        with in_format_to_save(outcome.model, context.inputs["model"], context, self.save_dtype):
            save_folder(outcome.model, tokenizer, context, pairs="second" in train[0])
        longest = min(self.length or model.config.max_positions, model.config.max_positions)
        unseen = trees_of(heldout, tokenizer, longest)
        guesses = label_all(outcome.model, unseen, max(batches.length, *map(len, unseen)))
        right = [float(labels[guess] == row["label"]) for guess, row in zip(guesses, heldout, strict=True)]
        write_rows(context.folder / "mistakes.jsonl",
                   [{**row, "guess": labels[guess]}
                    for guess, row in zip(guesses, heldout, strict=True) if labels[guess] != row["label"]])
        most = max(sum(row["label"] == label for row in heldout) for label in labels)
        return {
            "length": batches.length, "rows": batches.rows,
            "labels": labels, "train": len(train), "heldout": len(heldout), "steps": steps,
            "precision": outcome.precision, "accuracy": mean_interval(right),
            "always_the_commonest": most / len(heldout), "tf_idf": baseline(train, heldout) if self.baseline else None,
            **({"trained_parameters": trained} if attached else {})
        }

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, a pass over the held-out texts, and the comparison with TF-IDF, of which a piece is timed."""
        context = estimate.context(self)
        train, heldout = (rows_of(context.inputs["labels"] / f"{part}.jsonl") for part in ("train", "heldout"))
        source: Any = load_encoder(context.inputs["model"])
        model = Classifier.from_encoder(source, labels_of(train), 0)
        some = 1 + len(train) // 1000  # of every label some
        most = model.config.max_positions
        trees = trees_of(train[::some], ChatTokenizer.load(context.inputs["model"]), min(self.length or most, most))
        length, rows = self.lay_out(context, list(map(len, trees)), most, self.epochs * some)
        batches = PackedEpochs(trees, length, rows, context.seed, partial(add_labels, model.labels))
        steps = max(1, steps_of(self.epochs, batches, len(train) / len(trees)))
        each = estimate.updates(("classify", model.config, length, rows, len(model.labels)), lambda: model,
                                Labelling(), batches, self.optimization, self.number_format())
        unseen = steps_of(1, batches, len(heldout) / len(trees))
        seconds = estimate.training(steps, each, size_of(model)) + unseen * each / 3 + 1.0

        def compare() -> float:
            begun = time.monotonic()
            baseline(train[::some], heldout[::some])
            return time.monotonic() - begun

        if self.baseline:
            seconds += some * estimate.once(("baseline", self.labels), compare)
        return Cost.of_updates(seconds, steps, each, ", and the comparison" if self.baseline else "")


Row = dict[str, str]


class Labelling(Objective):
    """Cross-entropy over the labels of a batch's texts."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over texts."""
        logits = model(batch.tokens, batch.documents)
        return {"loss": Total(F.cross_entropy(logits, batch.extra["labels"], reduction="sum"), "trees"),
                "accuracy": Total((logits.argmax(-1) == batch.extra["labels"]).float().sum(), "trees")}


def add_labels(labels: Sequence[str], batch: Batch) -> None:
    """Give a batch its texts' labels, as places in the list."""
    batch.extra["labels"] = torch.tensor([labels.index(tree.payload) for tree in batch.trees], dtype=torch.int64)




def labels_of(rows: Sequence[Row]) -> list[str]:
    """The labels that there are, in order."""
    return sorted({row["label"] for row in rows})


def trees_of(rows: Sequence[Row], tokenizer: ChatTokenizer, length: int) -> list[Tree]:
    """Texts, or pairs of them, cut at ``length`` tokens."""
    firsts, seconds = (tokenizer.encode_batch([row.get(name, "") for row in rows]) for name in ("text", "second"))
    return [
        Tree(
            np.array(
                joined(first, second, tokenizer.document_id, length) if "second" in row else first[:length], np.int64),
            (), payload=row["label"]) for row, first, second in zip(rows, firsts, seconds, strict=True)
    ]




def say_cut(rows: Sequence[Row], tokenizer: ChatTokenizer, limit: Limit, context: Context) -> None:
    """Say how many texts are cut at the limit."""
    sizes = [sum(len(tokenizer.encode(row[name])) for name in ("text", "second") if name in row) for row in rows]
    over = [size for size in sizes if size > limit.tokens]
    if over:
        context.progress.say(limit.say_left_out(over, len(rows)).replace("were left out", "are cut"))


def rows_of(path: Path) -> list[Row]:
    """The rows of a split: ``text``, ``label`` and, where two texts are judged together, ``second``."""
    return [{name: str(row[name]) for name in ("text", "second", "label") if name in row} for _, row in read_rows(path)]


@torch.no_grad()
def label_all(model: Classifier, trees: list[Tree], length: int, rows: int = 16) -> list[int]:
    """The likeliest label of each text."""
    model.eval()
    found = [0] * len(trees)
    packed = pack([max(1, len(tree)) for tree in trees], length)
    for start in range(0, len(packed), rows):
        chosen = packed[start:start + rows]
        batch = make_batch([[trees[i] for i in row] for row in chosen], length,
                           len(chosen)).to(model.classifier.weight.device)
        for index, guess in zip((i for row in chosen for i in row),
                                model(batch.tokens, batch.documents).argmax(-1).tolist(), strict=True):
            found[index] = guess
    return found


def baseline(train: Sequence[Row], heldout: Sequence[Row]) -> dict[str, Any]:
    """Right labels by TF-IDF of one to three characters and logistic regression; of two texts, what they share and
    where they differ."""
    try:
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise TriviumError(
            'classify: the comparison needs scikit-learn: pip install "trivium[classify]", or set baseline to false'
        ) from error
    counted = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
    counted.fit([row[name] for row in train for name in ("text", "second") if name in row])

    def features(rows: Sequence[Row]) -> Any:
        first = counted.transform([row["text"] for row in rows])
        if "second" not in rows[0]:
            return first
        second = counted.transform([row["second"] for row in rows])
        return hstack([first.multiply(second), abs(first - second)])

    model = LogisticRegression(max_iter=300, C=4.0)
    model.fit(features(train), [row["label"] for row in train])
    guesses = model.predict(features(heldout))
    return mean_interval([float(guess == row["label"]) for guess, row in zip(guesses, heldout, strict=True)])
