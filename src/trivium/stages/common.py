"""What several stages do: read prompts, load and save models, turn conversations into trees, fill batches."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from trivium import randomness
from trivium.artifacts import digest_path, seal
from trivium.errors import TriviumError
from trivium.files import digest_json, read_json, read_rows, write_rows
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, RewardModel
from trivium.model import folder as model_folder
from trivium.model.adapters import AdapterSettings, Attached, attach, has_adapters
from trivium.model.adapters import folder as adapter_folder
from trivium.model.adapters.folder import weights_digest as weights_digest
from trivium.model.encoder import Classifier
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.pipeline import Context, peak_memory_mb
from trivium.stages.settings import Looped
from trivium.tokenizer.chat import ChatTokenizer, check_messages
from trivium.training.batch import Batch, Tree, make_batch, pack
from trivium.training.batch import map_trees as map_trees
from trivium.training.loop import Batches, Microbatch, Objective, Outcome, train
from trivium.training.machine import resolve_precision

Row = dict[str, Any]


def rows_of(source: Path, name: str, fields: Sequence[str], context: Context, check: Callable[[Row], None] = lambda row: None,
            numbers: list[int] | None = None) -> list[Row]:
    """The rows of ``source``, a JSONL file or a folder that holds ``name``; each must have ``fields`` and pass ``check``, which
    raises :class:`TriviumError`. Bad rows go to the stage's ``rejects-FILE`` with their reason, and how many is said; raises
    where no good one is left. The good ones' places in the file, from 1, are added to ``numbers``."""
    path = source / name if source.is_dir() else source
    rows: list[Row] = []
    rejects: list[Row] = []

    def reject(file: str, number: int, reason: str, text: str) -> None:
        rejects.append({"file": Path(file).name, "row": number, "reason": reason, "text": text[:2000]})

    for number, row in read_rows(path, reject):
        try:
            missing = next((field for field in fields if field not in row), None)
            if missing is not None:
                raise TriviumError(f"the field {missing!r} is missing")
            for field in ("messages", "prompt"):
                if field in fields:
                    check_messages(row[field])
            check(row)
        except (TriviumError, TypeError, KeyError, AttributeError) as error:
            reject(str(path), number, str(error), json.dumps(row, ensure_ascii=False))
        else:
            rows.append(row)
            if numbers is not None:
                numbers.append(number)
    if not rows:
        hint = ("; here rows are JSON lines of chat messages: a stage `imports` brings other kinds in" if "messages" in fields and rejects
                and not any('"messages"' in reject["text"] for reject in rejects) else "")
        raise TriviumError(f"{path}: " + (f"row {rejects[0]['row']}: {rejects[0]['reason']}; no good row is left{hint}" if rejects else "no rows"))
    if rejects:
        if context.folder.is_dir():
            write_rows(context.folder / f"rejects-{path.name}", rejects)
        context.progress.say(f"{len(rejects)} of {len(rejects) + len(rows)} rows of {path.name} were rejected, see rejects-{path.name}: row "
                             f"{rejects[0]['row']}: {rejects[0]['reason']}")
    return rows


def load_language_model(folder: Path) -> tuple[LanguageModel, ChatTokenizer]:
    """A model folder as a model and its tokenizer."""
    model = model_folder.load(folder)
    if not isinstance(model, LanguageModel):
        raise TriviumError(f"{folder}: {model_folder.what_is(model)}, where a language model was expected")
    return model, load_tokenizer(folder, model.config.vocab_size)


def load_reward_model(folder: Path) -> tuple[RewardModel, ChatTokenizer]:
    """A reward model's folder as a model and its tokenizer."""
    model = model_folder.load(folder)
    if not isinstance(model, RewardModel):
        raise TriviumError(f"{folder}: {model_folder.what_is(model)}, where a reward model was expected")
    return model, load_tokenizer(folder, model.config.vocab_size)


def load_judge(context: Context, name: str, policy: LanguageModel, tokenizer: ChatTokenizer, share: bool) -> RewardModel | None:
    """The reward model that the input ``name`` names, on the policy's device; None where it names none. ``share`` says that the policy's weights are
    to stay as they are (call it before the policy is given an adapter): a reward model that is an adapter on the model that the stage begins with then
    has no weights of its own but that adapter and its head. Raises :class:`TriviumError` for another tokenizer than the policy's."""
    folder = context.inputs.get(name)
    if not folder:
        return None
    if share and adapter_folder.belongs_on(folder, context.inputs["model"]):
        reward: RewardModel = adapter_folder.load(folder, onto=policy)
        judged = load_tokenizer(folder, reward.config.vocab_size)
        context.progress.say(f"{name}: an adapter on the policy's own weights, which are held once")
    else:
        reward, judged = load_reward_model(folder)
    if judged.digest != tokenizer.digest:
        raise TriviumError(f"{folder}: this reward model (`{name}`) has another tokenizer than the policy; train it from a model with the policy's")
    return reward.to(policy.lm_head.weight.device).eval()


def load_tokenizer(folder: Path, vocab_size: int) -> ChatTokenizer:
    """The tokenizer of a model folder; refused when it knows more tokens than the model."""
    tokenizer = ChatTokenizer.load(folder)
    if tokenizer.vocab_size > vocab_size:
        raise TriviumError(f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, but the model only {vocab_size}; take the tokenizer it was trained with")
    return tokenizer


def check_model(folder: Path) -> None:
    """Raise :class:`TriviumError` for a model's folder that cannot be loaded, before any weight is read: shards that are missing or cut short, pickles,
    and, where the family is ours, a config that contradicts the weights and a tokenizer that knows more tokens than the model."""
    if (folder / adapter_folder.CONFIG).exists():
        return  # its base is looked at when it is loaded
    if read_json(folder / "config.json").get("model_type") not in model_folder.FAMILIES:
        model_folder.shards(folder)
        return
    model, _ = model_folder.described(folder)
    if (folder / "tokenizer.json").exists():
        load_tokenizer(folder, model.config.vocab_size)


def adapt(model: LanguageModel | RewardModel | EncoderDecoder | Classifier, settings: AdapterSettings | None, context: Context, purpose: str = "adapter") -> Attached | None:
    """Freeze a model and give it the stage's adapter, if it has one. Raises :class:`TriviumError` for a model that can only be
    trained with one, and under ``torchrun``."""
    if settings is None:
        if has_adapters(model):
            raise TriviumError(f"{context.name}: the model it starts from holds an adapter that cannot be folded in; give this stage an "
                               "`adapter` too")
        return None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TriviumError(f"{context.name}: adapters are trained in one process; start it without torchrun")
    attached = attach(model, settings, randomness.derive(context.seed, purpose))
    trained, all_of_them = (sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (False, True))
    context.progress.say(f"adapter: {trained:,} of {all_of_them:,} parameters are trained ({trained / all_of_them:.2%})")
    return attached


def as_without(attached: Attached | None) -> contextlib.AbstractContextManager[None]:
    """The context in which a model is what it was before its adapter; any context for a model that has none."""
    return attached.off() if attached else contextlib.nullcontext()


def save_trained(model: LanguageModel | RewardModel, attached: Attached | None, tokenizer: ChatTokenizer, base: Path, context: Context) -> None:
    """Write what a stage trained: its adapter, or the whole model."""
    if attached:
        save_adapter(model, attached, tokenizer, base, context)
    else:
        save_model(model, tokenizer, context.folder)


def save_adapter(model: LanguageModel | RewardModel, attached: Attached, tokenizer: ChatTokenizer, base: Path, context: Context) -> None:
    """Write an adapter's folder (PEFT's, for LoRA) with the tokenizer. LoRA's has no ``config.json``: beside one, ``transformers``
    would look for whole weights. Where the base is an adapter too, what PEFT is told to be the base is a remark: it would put the one in the
    place of the other, and say nothing."""
    tokenizer.save(context.folder)
    place = context.folder.absolute().parents[2] / context.name  # where the artifact will stand
    seen = f"{base} is an adapter itself: merge it first" if (base / adapter_folder.CONFIG).exists() else str(base)
    adapter_folder.save(model, attached, context.folder, os.path.relpath(base.absolute(), place), weights_digest(base), seen)
    if attached.settings.kind != "lora":
        model_folder.save_config(model, context.folder, tokenizer.ids)
    elif not isinstance(model, RewardModel):
        model_folder.save_generation(context.folder, tokenizer.ids)


def merge_adapter(adapter: Path, folder: Path, base: Path | None = None) -> None:
    """Fold a LoRA adapter into its base and write the whole model to ``folder``. Raises :class:`TriviumError` for an adapter that
    cannot be folded in, for another base, and for a folder that holds something."""
    if not (adapter / adapter_folder.CONFIG).exists():
        raise TriviumError(f"{adapter}: no adapter here ({adapter_folder.CONFIG} is missing)")
    if folder.exists() and any(folder.iterdir()):
        raise TriviumError(f"{folder}: holds something already; name a new folder")
    base = base or adapter_folder.base_of(adapter)
    model = adapter_folder.load(adapter, base)
    if has_adapters(model):
        raise TriviumError(f"{adapter}: a {adapter_folder.settings_of(adapter).kind} adapter is no change of a weight, so it cannot be folded in; only LoRA can")
    source = adapter if (adapter / "tokenizer.json").exists() else base
    begun = time.monotonic()
    inputs = {name: {"path": os.path.relpath(path.absolute(), folder.absolute()), "digest": digest_path(path)} for name, path in (("model", base), ("adapter", adapter))}
    save_model(model, load_tokenizer(source, model.config.vocab_size), folder)
    seal(folder, kind="merge", name=folder.name, key=digest_json(inputs), seed=0, settings={}, inputs=inputs, summary={}, seconds=time.monotonic() - begun,
         peak_memory_mb=peak_memory_mb())


def save_model(model: LanguageModel | RewardModel, tokenizer: ChatTokenizer, folder: Path, chat: bool = True) -> None:
    """Write a whole Hugging Face folder: weights, config, tokenizer and chat template."""
    tokenizer.save(folder, chat=chat)
    model_folder.save(model, folder, tokenizer.ids if chat else {"eos": tokenizer.document_id, "pad": tokenizer.pad_id})


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Any]) -> np.ndarray:
    """The token ids that ask for the assistant's next words."""
    return np.array(tokenizer.encode_chat(messages, generation_prompt=True)[0], np.int64)


def response_ids(tokenizer: ChatTokenizer, text: str) -> np.ndarray:
    """A response's token ids, with the token that ends it."""
    return np.array(tokenizer.encode_response(text), np.int64)


def fits(trees: Iterable[Tree], length: int, say: Callable[[str], None]) -> list[Tree]:
    """The trees that fit a row; how many do not is said."""
    kept, dropped = [], 0
    for tree in trees:
        if len(tree) <= length:
            kept.append(tree)
        else:
            dropped += 1
    if dropped:
        say(f"{dropped} of {dropped + len(kept)} sequences are longer than {length} tokens and were left out")
    if not kept:
        raise TriviumError(f"no sequence fits a row of {length} tokens; raise `length`" if dropped else "there is nothing to train on: no row "
                           "belongs to the training split; bring more rows or lower `heldout`")
    return kept


class PackedEpochs:
    """Batches of packed trees, a pure function of the step: each epoch packs all trees anew in an order of its own.

    Rows are shuffled after packing, and each batch holds ``rows`` of them, the last of an epoch empty ones as well, so that
    every batch has one shape."""

    def __init__(self, trees: Sequence[Tree], length: int, rows: int, seed: int,
                 finish: Callable[[Batch], None] = lambda batch: None) -> None:
        self.trees, self.length, self.rows, self.seed, self.finish = trees, length, rows, seed, finish
        self.epoch, self.order = -1, []  # type: tuple[int, list[list[int]]]
        self.sizes = [self.size_of(tree) for tree in trees]
        self.tokens = sum(self.sizes)
        self.rows_per_epoch = len(self._rows_of(0))
        self.steps_per_epoch = math.ceil(self.rows_per_epoch / rows)

    def size_of(self, tree: Tree) -> int:
        """The places that a tree takes in a row."""
        return len(tree)

    def make(self, rows: list[list[Tree]], count: int, epoch: int) -> Batch:
        """A batch of ``count`` rows that hold the trees of ``rows``."""
        return make_batch(rows, self.length, count)

    def _rows_of(self, epoch: int) -> list[list[int]]:
        if epoch != self.epoch:
            rng = randomness.numpy(self.seed, "order", epoch)
            shuffled = rng.permutation(len(self.trees))
            packed = pack([self.sizes[i] for i in shuffled], self.length)
            rows = [[int(shuffled[i]) for i in row] for row in packed]
            self.epoch, self.order = epoch, [rows[i] for i in rng.permutation(len(rows))]
        return self.order

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> list[Batch]:
        """The slice ``part`` of ``parts`` of the batch at a step, in microbatches of at most ``rows`` rows. Raises
        :class:`TriviumError` for more parts than rows."""
        if parts > self.rows:
            raise TriviumError(f"a batch of {self.rows} rows cannot be shared by {parts} processes; raise `rows` or start fewer")
        epoch, within = divmod(step, self.steps_per_epoch)
        chosen = self._rows_of(epoch)[within * self.rows:(within + 1) * self.rows]
        share = math.ceil(self.rows / parts)
        chosen = chosen[part::parts] + [[] for _ in range(share)]
        batches = []
        for start in range(0, share, rows or share):
            end = min(start + (rows or share), share)
            batch = self.make([[self.trees[i] for i in row] for row in chosen[start:end]], end - start, epoch)
            self.finish(batch)
            batches.append(batch)
        return batches


class Epochs(Batches, Protocol):
    """Batches that go through their data again and again."""

    steps_per_epoch: int


FEW_UPDATES = 20
"""A run of fewer is said to be short: with few rows the default batch is all of them."""


def run_training(model: torch.nn.Module, objective: Objective, batches: Epochs, steps: int, settings: Looped,
                 context: Context, *made_from: object, heldout: Epochs | None = None,
                 sample: Callable[[Any], str] | None = None, evaluate_every: int | None = None, keep_best: bool = False,
                 patience: int = 0) -> Outcome:
    """The training loop with a stage's settings. ``made_from`` names what the run depends on besides them; ``heldout`` is
    the data for ``evaluate_every`` (the stage's setting, unless given)."""

    def validation(part: int, parts: int) -> list[Microbatch]:
        assert heldout is not None
        return [batch for step in range(heldout.steps_per_epoch) for batch in heldout(step, part, parts)]

    if (hasattr(model, "whole") or hasattr(model, "vision")) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TriviumError(f"{context.name}: models of other families, and those that see, are trained in one process; start it without torchrun")
    if 0 < steps < FEW_UPDATES:
        context.progress.say(f"only {steps} update{'s' if steps != 1 else ''}, which teach little: smaller batches (`rows`, `length`) or more `epochs` give more")
    return train(model, objective, batches, steps, settings.optimization, scratch=context.scratch, log=context.folder / "log.jsonl",
                 fingerprint=fingerprint(*made_from, settings.learned(), context.seed), parallel=settings.parallel,
                 precision=resolve_precision(settings.precision, next(model.parameters()).device),
                 validation=validation if heldout else None, sample=sample, keep_best=keep_best, patience=patience,
                 evaluate_every=getattr(settings, "evaluate_every", 0) if evaluate_every is None else evaluate_every,
                 track=context.folder / "tensorboard" if settings.track else None, progress=context.progress.update,
                 say=context.progress.say)


def fingerprint(*parts: object) -> str:
    """A name for data and settings, by which a checkpoint is known to belong to them."""
    return str(randomness.derive(0, *map(str, parts)))


def sample_text(model: LanguageModel, tokenizer: ChatTokenizer, start: Sequence[int], seed: int, tokens: int = 64) -> str:
    """What a model says after ``start``."""
    stop = [tokenizer.end_id, tokenizer.document_id]
    drawn = generate(model, [list(start)], Sampling(max_new_tokens=tokens, seed=seed), stop)[0][0].tokens
    return tokenizer.decode([token for token in drawn if token not in stop])


def contents_of(trees: Sequence[Tree]) -> str:
    """A digest of all that trees hold."""
    digest = hashlib.sha256()
    for tree in trees:
        for part in (tree.prompt, *tree.responses, *(tree.loss or ())):
            digest.update(len(part).to_bytes(8, "little") + np.ascontiguousarray(part).tobytes())
        digest.update(repr(tree.payload).encode())
    return digest.hexdigest()
