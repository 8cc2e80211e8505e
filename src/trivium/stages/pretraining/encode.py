"""Masked-token pretraining: an encoder learns to guess hidden tokens from both sides (Devlin et al. 2019)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from trivium import randomness
from trivium.errors import TriviumError, counted
from trivium.files import write_bytes, write_json
from trivium.model.config import EncoderConfig
from trivium.model.encoder import MaskedModel, encode, save_encoder
from trivium.objectives.language_modeling import token_log_probs
from trivium.stage import Context, Panel, Title
from trivium.stages.cost import Estimate
from trivium.stages.outlook import Cost
from trivium.stages.training import FromText, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.tokenizer.train import DOCUMENT
from trivium.training.batch import Batch, Tree
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total


class Encode(FromText):
    """Train an encoder from random weights to guess hidden tokens."""

    kind: ClassVar[str] = "encode"
    version: ClassVar[int] = 2
    title: ClassVar[Title] = Title("pretraining, hidden tokens", "预训练（遮盖词元）", "read")
    panel: ClassVar[Panel] = Panel(headline="validation_loss", beside=("chance_loss",))
    every_process: ClassVar[bool] = True
    model: EncoderConfig = EncoderConfig()
    """The model's shape; vocab_size is taken from the tokenizer, and one for the mask."""
    mask: float = Field(0.3, gt=0, lt=1)
    """Share of the tokens that are hidden (ModernBERT: 0.3)."""

    def training_data(self, context: Context) -> tuple[MaskedEpochs, ChatTokenizer]:
        """The batches, and their tokenizer, which knows the mask too."""
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        return batches_of("train", self, context, tokenizer), with_mask(tokenizer)

    def run(self, context: Context) -> dict[str, object]:
        """Train from random weights and measure the loss on hidden tokens of held-out documents."""
        device = prepare(context.threads)
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        if self.length > self.model.max_positions:
            raise TriviumError(
                f"encode: rows of {self.length} tokens, but the model has {self.model.max_positions} positions; raise "
                "model.max_positions or lower length")
        corpus, config = Tokens.open(context.inputs["tokens"] / "train", tokenizer.digest), shape_of(self, tokenizer)
        batches, unseen = (batches_of(part, self, context, tokenizer) for part in ("train", "validation"))
        if not batches.trees or not unseen.trees:
            raise TriviumError("encode: there is nothing to read; the corpus, or its held-out part, is empty")
        model = MaskedModel(config).initialise(randomness.derive(context.seed, "initialise")).to(device)
        steps = self.steps if self.steps is not None else round(self.epochs * batches.steps_per_epoch)
        context.progress.say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, "
                             f"{counted(steps, 'step')}")
        outcome = run_training(model, MaskedModeling(), batches, steps, self, context, corpus.header, heldout=unseen)
        if not outcome.leader:
            return {}
        model = outcome.model.eval()
        nats, count = 0.0, 0.0
        with torch.no_grad():
            for step in range(unseen.steps_per_epoch):
                for batch in unseen(step):
                    nats += MaskedModeling()(model, batch.to(device))["loss"].value.item()
                    count += batch.counts["tokens"]
        save_folder(model, tokenizer, context)
        return {
            "parameters": sum(p.numel() for p in model.parameters()), "steps": steps, "precision": outcome.precision,
            "validation_loss": nats / max(1.0, count), "chance_loss": float(np.log(config.vocab_size))
        }

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, and a pass over the held-out text."""
        context = estimate.context(self)
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        model = MaskedModel(shape_of(self, tokenizer)).initialise(0)
        batches, unseen = (batches_of(part, self, context, tokenizer) for part in ("train", "validation"))
        return self.reading_cost(estimate, model, MaskedModeling(), batches, unseen)

    def stand_in(self, estimate: Estimate) -> Path:
        """An encoder with random weights."""
        context = estimate.context(self)
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        save_folder(MaskedModel(shape_of(self, tokenizer)).initialise(0), tokenizer, context)
        return context.folder


MASK = "<|mask|>"


class MaskedEpochs(PackedEpochs):
    """Packed texts of which some tokens are hidden, others in every epoch: what is hidden depends on the seed, the
    epoch and the text alone, so no slicing of a batch can change it. Of the chosen tokens 80 % become the mask, 10 %
    another token, 10 % stay (Devlin et al. 2019)."""

    def __init__(self, trees: list[Tree], length: int, rows: int, seed: int, mask: int, share: float) -> None:
        super().__init__(trees, length, rows, seed)
        self.mask, self.share = mask, share

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> list[Batch]:
        """As :class:`PackedEpochs`, with sources and targets at the chosen places."""
        batches = super().__call__(step, part, parts, rows)
        for batch in batches:
            self.hide(batch, step // self.steps_per_epoch)
        return batches

    def hide(self, batch: Batch, epoch: int) -> None:
        """Choose and hide tokens of a batch in place."""
        flat, documents = batch.tokens.flatten(), batch.documents.flatten()
        real = (documents >= 0).nonzero()[:, 0]
        draws = [
            randomness.numpy(self.seed, "mask", epoch, tree.payload).random((len(tree), 3)) for tree in batch.trees
        ]
        drawn = torch.from_numpy(np.concatenate([*draws, np.zeros((0, 3))]))
        chosen = drawn[:, 0] < self.share
        batch.sources = batch.places = real[chosen]
        batch.targets = flat[batch.sources].clone()
        kind, other = drawn[chosen, 1], (drawn[chosen, 2] * self.mask).long()
        flat[batch.sources] = torch.where(kind < 0.8, self.mask, torch.where(kind < 0.9, other, batch.targets))
        batch.owners = torch.zeros_like(batch.sources)
        batch.counts["tokens"] = float(len(batch.targets))


class MaskedModeling(Objective):
    """The mean negative log-likelihood of the hidden tokens, in nats, and how many are guessed."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Only hidden places reach the output matrix."""
        hidden = encode(model.model, batch.tokens, batch.documents).flatten(0, 1)[batch.sources]
        log_probs = token_log_probs(model.head(hidden), model.model.embed_tokens.weight, batch.targets)
        return {"loss": Total(-log_probs.sum(), "tokens")}


def texts(corpus: Tokens, length: int) -> list[Tree]:
    """Documents as trees without a response; long ones are cut into equal pieces. ``payload`` is their number."""
    pieces = [part.astype(np.int64) for document in corpus if len(document) > 1
              for part in np.array_split(document[:-1], -(-(len(document) - 1) // length))]
    return [Tree(piece, (), payload=number) for number, piece in enumerate(pieces)]




def batches_of(part: str, settings: Encode, context: Context, tokenizer: ChatTokenizer) -> MaskedEpochs:
    """Those of the corpus's ``train`` or ``validation``."""
    trees = texts(Tokens.open(context.inputs["tokens"] / part, tokenizer.digest), settings.length)
    return MaskedEpochs(trees, settings.length, settings.rows, context.seed, tokenizer.vocab_size, settings.mask)


def shape_of(settings: Encode, tokenizer: ChatTokenizer) -> EncoderConfig:
    """The model's shape, with a row of the embedding for the mask."""
    return replace(settings.model, vocab_size=tokenizer.vocab_size + 1)




def with_mask(tokenizer: ChatTokenizer, pairs: bool = False) -> ChatTokenizer:
    """A tokenizer that knows the mask as well; with ``pairs``, other programs that give it two texts get the token
    between them that :func:`joined` puts there."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    known = Tokenizer.from_buffer(tokenizer.data)
    known.add_special_tokens([MASK])
    if pairs:
        known.post_processor = TemplateProcessing(single="$A", pair=f"$A {DOCUMENT} $B",
                                                  special_tokens=[(DOCUMENT, tokenizer.document_id)])
    return ChatTokenizer(known.to_str(pretty=True).encode())


def save_folder(model: Any, tokenizer: ChatTokenizer, context: Context, pairs: bool = False) -> None:
    """Write the model and its tokenizer, which knows the mask as well."""
    tokenizer.save(context.folder, chat=False)
    write_bytes(context.folder / "tokenizer.json", with_mask(tokenizer, pairs).data)
    write_json(context.folder / "special_tokens_map.json",
               {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "mask_token": MASK})
    write_json(
        context.folder / "tokenizer_config.json", {
            "eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "mask_token": MASK,
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
            "model_max_length": model.config.max_positions, "model_input_names": ["input_ids", "attention_mask"]
        })
    save_encoder(model, context.folder, {"pad": tokenizer.pad_id, "document": tokenizer.document_id})
