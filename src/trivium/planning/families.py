"""How long the stages of encoders, encoder-decoders and models that see will take."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from trivium.files import read_rows
from trivium.generation.sampling import Sampling
from trivium.generation.translate import translate
from trivium.model.encoder import Classifier, MaskedModel, load_encoder
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.model.vision import VisionEncoder
from trivium.planning.measure import Sample, given, size_of, steps_of, updates, with_saves
from trivium.recipe.load import Recipe
from trivium.stage import Stage
from trivium.stages.finetuning import classify, see
from trivium.stages.finetuning import translate as sequences
from trivium.stages.finetuning.classify import Classify
from trivium.stages.finetuning.see import See
from trivium.stages.finetuning.translate import Translate
from trivium.stages.pretraining import encode, spans, vision
from trivium.stages.pretraining.encode import Encode
from trivium.stages.pretraining.spans import Spans
from trivium.stages.pretraining.vision import Vision
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.epochs import PackedEpochs

FEW = 64
"""Held-out rows that are answered to measure an examination."""

Told = tuple[float, str]
"""Seconds, and what they were reckoned from."""


def predict_family(recipe: Recipe, name: str, stage: Stage, sample: Sample) -> Told | None:
    """Seconds of a stage of these families; None for another one."""
    ways: dict[type[Stage], Any] = {
        Encode: reading, Spans: reading, Classify: labelling, Translate: translating, Vision: painting, See: seeing
    }
    way = ways.get(type(stage))
    return way(recipe, name, stage, sample) if way else None


def told(seconds: float, steps: int, each: float, more: str = "") -> Told:
    """As a line of the prediction."""
    return seconds, f"{steps:,} updates of {each * 1000:.0f} ms{more}"


def reading(recipe: Recipe, name: str, stage: Encode | Spans, sample: Sample) -> Told:
    """Updates of masked-token or span-corruption pretraining, and a pass over the held-out text."""
    context = given(recipe, name, stage, sample)
    tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
    factor = sample.factor.get(stage.tokens, 1.0)
    module: Any = encode if isinstance(stage, Encode) else spans
    config = module.shape_of(stage, tokenizer)
    made = (MaskedModel(config) if isinstance(stage, Encode) else EncoderDecoder(config)).initialise(0)
    objective = encode.MaskedModelling() if isinstance(stage, Encode) else spans.WritingTargets()
    batches, unseen = (module.batches_of(part, stage, context, tokenizer) for part in ("train", "validation"))
    steps = stage.steps if stage.steps is not None else steps_of(stage.epochs, batches, factor)
    each = 0.0
    if steps:
        each = updates((stage.kind, made.config, stage.length, stage.rows, stage.optimization.optimizer), lambda: made,
                       objective, batches, stage.optimization, sample)
    return told(
        with_saves(steps * each, steps, size_of(made), sample) + steps_of(1, unseen, factor) * each / 3 + 1.0, steps,
        each, ", and the held-out text")


def labelling(recipe: Recipe, name: str, stage: Classify, sample: Sample) -> Told:
    """Updates on the labelled texts, one pass over the held-out ones, and the comparison with TF-IDF, of which a piece
    is timed."""
    context = given(recipe, name, stage, sample)
    train, heldout = (classify.rows_of(context.inputs["labels"] / f"{part}.jsonl") for part in ("train", "heldout"))
    source: Any = load_encoder(context.inputs["model"])
    made = Classifier.from_encoder(source, classify.labels_of(train), 0)
    some = 1 + len(train) // 1000  # every so manieth row, of every label some
    trees = classify.trees_of(train[::some], ChatTokenizer.load(context.inputs["model"]),
                              min(stage.length, made.config.max_positions))
    batches = PackedEpochs(trees, min(stage.length, made.config.max_positions), stage.rows, recipe.seed,
                           partial(classify.add_labels, made.labels))
    steps = max(1, steps_of(stage.epochs, batches, len(train) / len(trees)))
    each = updates(("classify", made.config, batches.length, stage.rows, len(made.labels)), lambda: made,
                   classify.Labelling(), batches, stage.optimization, sample)
    seconds = with_saves(steps * each, steps, size_of(made),
                         sample) + steps_of(1, batches,
                                            len(heldout) / len(trees)) * each / 3 + 1.0
    if stage.baseline:

        def compare() -> float:
            begun = time.monotonic()
            classify.baseline(train[::some], heldout[::some])
            return time.monotonic() - begun

        seconds += some * sample.once(("baseline", stage.labels), compare)
    return told(seconds, steps, each, ", and the comparison" if stage.baseline else "")


def translating(recipe: Recipe, name: str, stage: Translate, sample: Sample) -> Told:
    """Updates on the pairs, and the held-out ones written and scored; a random model writes as much as the longest
    target."""
    context = given(recipe, name, stage, sample)
    batches, tokenizer = stage.training_data(context)
    made, _ = sequences.start(context)
    heldout = [row for _, row in read_rows(context.inputs["pairs"] / "heldout.jsonl")]
    steps = max(1, round(stage.epochs * batches.steps_per_epoch))
    each = updates(("translate", made.config, batches.length, stage.rows), lambda: made, spans.WritingTargets(),
                   batches, stage.optimization, sample)

    def write() -> float:
        some = heldout[:FEW]
        longest = max(len(ids) for ids in tokenizer.encode_batch([row["target"] for row in some])) + 1
        sources = [ids[:made.config.max_positions] for ids in tokenizer.encode_batch([row["source"] for row in some])]
        begun = time.monotonic()
        translate(made.eval(), sources, Sampling(temperature=0, max_new_tokens=min(longest, stage.max_new_tokens)),
                  tokenizer.document_id)
        written = time.monotonic() - begun
        targets = [row["target"] for row in heldout]
        begun = time.monotonic()
        sequences.scores(targets, targets)
        return written * len(heldout) / len(some) + time.monotonic() - begun

    seconds = sample.once(("written", made.config, stage.pairs, stage.max_new_tokens), write)
    return told(
        with_saves(steps * each, steps, size_of(made), sample) + seconds + 1.0, steps, each,
        f", and {len(heldout):,} targets")


def painting(recipe: Recipe, name: str, stage: Vision, sample: Sample) -> Told:
    """Updates of masked-patch pretraining, after all pictures are opened, and a pass over the held-out ones."""
    context, factor = given(recipe, name, stage, sample), sample.factor.get(stage.pictures, 1.0)
    begun = time.monotonic()
    pixels, unseen = (vision.pictures_of(stage, context, f"{part}.jsonl") for part in ("train", "heldout"))
    opening = time.monotonic() - begun
    batches = vision.PictureEpochs(pixels, stage.model.vocab_size, stage.rows, recipe.seed, stage.mask)
    steps = round(stage.epochs * len(pixels) * factor / stage.rows)
    made = VisionEncoder(stage.model).initialise(0)
    each = updates(("vision", stage.model, stage.rows), lambda: made, vision.Painting(), batches, stage.optimization,
                   sample)
    return told(
        with_saves(steps * each, steps, size_of(made), sample) + factor *
        (opening + len(unseen) / stage.rows * each / 3) + 1.0, steps, each)


def seeing(recipe: Recipe, name: str, stage: See, sample: Sample) -> Told:
    """Updates on conversations about pictures, and the examination, once with the pictures and once without."""
    context, factor = given(recipe, name, stage, sample), sample.factor.get(stage.pictures, 1.0)
    made, tokenizer = see.seeing_model(stage, context)
    begun = time.monotonic()
    batches = see.batches_of(stage, context, made, tokenizer)
    opening = time.monotonic() - begun
    steps = max(1, steps_of(stage.epochs, batches, factor))
    each = updates(
        ("see", made.config, made.vision.config, batches.length, stage.rows, json.dumps(stage.train), stage.rows_from),
        lambda: see.freeze(made, stage.train), see.AnswersAboutPictures(), batches, stage.optimization, sample)
    seconds = with_saves(steps * each, steps, sum(p.numel() for p in made.parameters() if p.requires_grad),
                         sample) + factor * opening + 1.0
    if stage.examine:
        rows = see.read(stage, context, "heldout.jsonl", made, tokenizer)
        count = round(len(rows) * factor)

        def examine() -> float:
            some = [rows[i % len(rows)] for i in range(min(FEW, count))]
            begun = time.monotonic()
            see.examine(made.eval(), tokenizer, some)
            return (time.monotonic() - begun) * count / len(some)

        seconds += 2 * sample.once(("examined", made.config, made.vision.config, stage.pictures), examine)
    return told(seconds, steps, each, ", and the examination" if stage.examine else "")
