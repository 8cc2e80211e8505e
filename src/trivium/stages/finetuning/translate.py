"""Sequence-to-sequence fine-tuning: an encoder-decoder learns to write the target of a source, and is scored on
held-out ones."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from trivium.errors import TriviumError
from trivium.files import Row, write_rows
from trivium.generation.sampling import Sampling
from trivium.generation.translate import translate
from trivium.intervals import mean_interval
from trivium.model import folder as model_folder
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters import folder as adapter_folder
from trivium.model.adapters.folder import weights_digest
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.stage import Context, Figure, Input, Panel, Title
from trivium.stages.cost import Estimate, size_of
from trivium.stages.models import adapt, in_format_to_save, load_tokenizer
from trivium.stages.outlook import Cost, Outlook
from trivium.stages.pretraining.spans import PairEpochs, WritingTargets, ids_of, save_folder, save_tokenizer
from trivium.stages.rows import rows_of
from trivium.stages.training import FromModel, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree
from trivium.training.epochs import Limit, contents_of
from trivium.training.machine import prepare


class Translate(FromModel):
    """Fine-tune an encoder-decoder on pairs, and score what it writes for held-out sources."""

    kind: ClassVar[str] = "translate"
    version: ClassVar[int] = 4
    usual: ClassVar[str] = "translate"
    title: ClassVar[Title] = Title("fine-tuning on pairs", "按句对微调", "teach")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("pairs", "pairs learned from", "学习的句对"),
        Figure("chrf", "chrF", "chrF"),
        Figure("bleu", "BLEU", "BLEU"),
        Figure("right", "right to the letter", "逐字正确"),
    )
    panel: ClassVar[Panel] = Panel(headline="chrf", beside=("bleu", "right"))
    every_process: ClassVar[bool] = True
    model: Input = "spans"
    """The encoder-decoder to start from."""
    pairs: Input = "pairs"
    """A stage or a folder with `train.jsonl` and `heldout.jsonl`: rows of `source` and `target`."""
    epochs: float = Field(3.0, gt=0)
    """Passes over the pairs."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest target that is written, in tokens."""
    adapter: AdapterSettings | None = None
    """Train an adapter (lora or bottleneck) beside the frozen model; null trains all weights."""

    @model_validator(mode="after")
    def _no_prefix(self) -> Translate:
        if self.adapter and self.adapter.kind == "prefix":
            raise ValueError("an encoder-decoder has no place for a prefix; choose lora or bottleneck")
        return self

    def training_data(self, context: Context) -> tuple[PairEpochs, ChatTokenizer]:
        """The batches, and the tokenizer that made them."""
        model, tokenizer = start(context)
        return batches_of(self, context, model, tokenizer)[0], tokenizer

    def run(self, context: Context) -> dict[str, object]:
        """Train on the pairs, write a target for each held-out source, and score it: chrF (Popović 2015), BLEU
        (Papineni et al. 2002), and how many are right to the letter."""
        device = prepare(context.threads)
        model, tokenizer = start(context)
        model.to(device)
        heldout = rows_of(context.inputs["pairs"], "heldout.jsonl", ["source", "target"], context, check_pair)
        batches, dropped = batches_of(self, context, model, tokenizer)
        attached = adapt(model, self.adapter, context)
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        outcome = run_training(model, WritingTargets(), batches, steps, self, context,
                               weights_digest(context.inputs["model"]), contents_of(batches.trees))
        if not outcome.leader:
            return {}
        trained = outcome.model.eval()
        sources = [
            ids[:model.config.max_positions] for ids in tokenizer.encode_batch([row["source"] for row in heldout])
        ]
        written = translate(trained, sources, Sampling(temperature=0, max_new_tokens=self.max_new_tokens),
                            tokenizer.document_id)
        said = [tokenizer.decode(ids) for ids in written]
        write_rows(context.folder / "written.jsonl",
                   [{**row, "written": text} for row, text in zip(heldout, said, strict=True)])
        if attached:
            save_tokenizer(tokenizer, context)
            place = context.folder.absolute().parents[2] / context.name  # where the artifact will stand
            base = context.inputs["model"]
            adapter_folder.save(trained, attached, context.folder, os.path.relpath(base.absolute(), place),
                                weights_digest(base), str(base))
            if attached.settings.kind != "lora":  # a PEFT folder has none
                trained.save_config(context.folder, ids_of(tokenizer))
        else:
            with in_format_to_save(trained, context.inputs["model"], context, self.save_dtype):
                save_folder(trained, tokenizer, context)
        return {
            "pairs": len(batches.trees), "left_out": dropped, "heldout": len(heldout), "steps": steps,
            "precision": outcome.precision, "loss": outcome.metrics.get("loss"), "length": batches.length,
            "rows": batches.rows, **scores(said, [row["target"] for row in heldout]),
            **({"trained_parameters": sum(p.numel() for _, p in attached.parameters())} if attached else {})
        }

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, and the held-out targets written and scored."""
        context = estimate.context(self)
        batches, tokenizer = self.training_data(context)
        model, _ = start(context)
        heldout = rows_of(context.inputs["pairs"], "heldout.jsonl", ["source", "target"], context, check_pair)
        steps = max(1, round(self.epochs * batches.steps_per_epoch))
        each = estimate.updates(("translate", model.config, batches.length, batches.rows), lambda: model,
                                WritingTargets(), batches, self.optimization, self.number_format())
        writing = estimate.once(("written", model.config, self.pairs, self.max_new_tokens),
                                lambda: self.writing_seconds(model, tokenizer, heldout))
        return Cost.of_updates(estimate.training(steps, each, size_of(model)) + writing + 1.0, steps, each,
                               f", and {len(heldout):,} targets")

    def writing_seconds(self, model: EncoderDecoder, tokenizer: ChatTokenizer, heldout: list[Row]) -> float:
        """Seconds to write and score the held-out targets, of which a few are written. A random model writes as much
        as the longest target."""
        some = heldout[:64]
        longest = max(len(ids) for ids in tokenizer.encode_batch([row["target"] for row in some])) + 1
        sources = [ids[:model.config.max_positions] for ids in tokenizer.encode_batch([row["source"] for row in some])]
        begun = time.monotonic()
        translate(model.eval(), sources, Sampling(temperature=0, max_new_tokens=min(longest, self.max_new_tokens)),
                  tokenizer.document_id)
        written = time.monotonic() - begun
        targets = [row["target"] for row in heldout]
        begun = time.monotonic()
        scores(targets, targets)
        return written * len(heldout) / len(some) + time.monotonic() - begun

    def outlook(self, estimate: Estimate) -> Outlook:
        """An encoder-decoder like the one it starts from."""
        return Outlook(like=self.model)


BOOTSTRAPS = 1000
"""Samples of the held-out pairs from which the scores' intervals are made."""




def start(context: Context) -> tuple[EncoderDecoder, ChatTokenizer]:
    """The model to start from."""
    model: Any = model_folder.load(context.inputs["model"])
    if not isinstance(model, EncoderDecoder):
        raise TriviumError(f"{context.inputs['model']}: no encoder-decoder; start from a `spans` stage")
    return model, load_tokenizer(context.inputs["model"], model.config.vocab_size)


def batches_of(settings: Translate, context: Context, model: EncoderDecoder,
               tokenizer: ChatTokenizer) -> tuple[PairEpochs, int]:
    """The pairs that fit, as batches, and how many do not."""
    limit = Limit(settings.length, model.config.max_positions, "pairs")
    rows = rows_of(context.inputs["pairs"], "train.jsonl", ["source", "target"], context, check_pair)
    every = pairs_of(rows, tokenizer)
    trees, dropped = fitting(every, limit.tokens)
    over = [size for tree in every if (size := longer_side(tree)) > limit.tokens]
    if not trees:
        raise TriviumError(f"{context.name}: no pair fits: {limit.say_left_out(over, len(rows))[9:]}")
    if dropped:
        context.progress.say(limit.say_left_out(over, len(rows)))
    length, count = settings.lay_out(context, list(map(longer_side, trees)), limit.positions, settings.epochs)
    return PairEpochs(trees, length, count, context.seed, tokenizer.document_id), dropped


def longer_side(tree: Tree) -> int:
    """Tokens of the longer one of source and target."""
    return max(len(tree.prompt), 1 + len(tree.responses[0]))


def check_pair(row: Row) -> None:
    """Refuse a pair with a side that is no text, or empty."""
    for name in ("source", "target"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise TriviumError(f"{name} is {'empty' if isinstance(row[name], str) else 'no text'}")


def pairs_of(rows: Sequence[Row], tokenizer: ChatTokenizer) -> list[Tree]:
    """Pairs as trees: the source is the prompt, the target with the token that ends it the response."""
    sources, targets = (tokenizer.encode_batch([row[name] for row in rows]) for name in ("source", "target"))
    return [
        Tree(np.array(source, np.int64), (np.array([*target, tokenizer.document_id], np.int64),))
        for source, target in zip(sources, targets, strict=True)
    ]


def fitting(trees: Sequence[Tree], length: int) -> tuple[list[Tree], int]:
    """The pairs of which both sides fit, and how many do not."""
    kept = [tree for tree in trees if longer_side(tree) <= length]
    return kept, len(trees) - len(kept)


def scores(written: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    """chrF and BLEU of a whole set by sacrebleu, from 0 to 100, with 95 % intervals by bootstrap over pairs, and the
    share that is right to the letter. BLEU counts characters in Chinese, and where no target has several words. Raises
    :class:`TriviumError` where sacrebleu is missing."""
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
        from sacrebleu.significance import _bootstrap_resample
    except ImportError as error:
        raise TriviumError('translate: the scores need sacrebleu: pip install "trivium[translate]"') from error
    chinese = any("\u4e00" <= letter <= "\u9fff" for text in wanted for letter in text)
    words = any(" " in text for text in wanted)
    found: dict[str, Any] = {}
    for name, metric in (("chrf", CHRF()), ("bleu", BLEU(tokenize="zh" if chinese else "13a" if words else "char"))):
        score: Any = metric.corpus_score(list(written), [list(wanted)])
        _, drawn = _bootstrap_resample(metric._extract_corpus_statistics(list(written), [list(wanted)]), metric,
                                       BOOTSTRAPS)
        values = sorted(float(one.score) for one in drawn)  # sacrebleu's own interval fails on some that are 0
        half = 0.5 * (values[-1 - BOOTSTRAPS // 40] - values[BOOTSTRAPS // 40])
        low, high = (max(0.0, min(100.0, float(np.mean(values)) + sign * half)) for sign in (-1, 1))
        found[name] = {
            "value": float(score.score), "low": low, "high": high, "n": len(wanted),
            "signature": str(metric.get_signature())
        }
    return found | {"right": mean_interval([float(a == b) for a, b in zip(written, wanted, strict=True)])}
