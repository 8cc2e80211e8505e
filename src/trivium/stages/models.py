"""Models as the stages load, adapt and save them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trivium import randomness
from trivium.artifacts import digest_path, seal
from trivium.errors import TriviumError
from trivium.files import Row, digest_json, disk_errors, made_aside, read_json, room_beside, usual_rights
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, RewardModel
from trivium.model import folder as model_folder
from trivium.model.adapters import AdapterSettings, Attached, attach, has_adapters, peft
from trivium.model.adapters import folder as adapter_folder
from trivium.model.adapters.folder import weights_digest
from trivium.model.encoder import Classifier
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.model.families import described, keep_generation, ours, save_generation
from trivium.model.gguf import Written, write_gguf
from trivium.model.gguf.read import opened
from trivium.model.merging import Mixing, write_mixed
from trivium.model.weights import DTYPES, SaveDtype, shards, stored_dtype, too_large, weights_in
from trivium.resources import peak_memory_mb
from trivium.stage import Context
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.scoring import end_where_scores_are_read, set_scoring_padding
from trivium.training.batch import Tree


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


def load_judge(context: Context, name: str, folder: Path, policy: LanguageModel, tokenizer: ChatTokenizer,
               share: bool) -> RewardModel:
    """The reward model of a folder, which the settings name as ``name``, on the policy's device. ``share`` says that
    the policy's weights are to stay as they are (call it before the policy is given an adapter): a reward model that is
    an adapter on the model that the stage begins with then has no weights of its own but that adapter and its head.
    Raises :class:`TriviumError` for another tokenizer than the policy's."""
    if share and adapter_folder.belongs_on(folder, context.inputs["model"]):
        reward: RewardModel = adapter_folder.beside(policy, folder)
        judged = load_tokenizer(folder, reward.config.vocab_size)
        context.progress.say(f"{name}: an adapter on the policy's own weights, which are held once")
    else:
        reward, judged = load_reward_model(folder)
    if judged.digest != tokenizer.digest:
        raise TriviumError(
            f"{folder}: this reward model (`{name}`) has another tokenizer than the policy; "
            "train it from a model with the policy's"
        )
    return reward.to(policy.lm_head.weight.device).eval()


def load_tokenizer(folder: Path, vocab_size: int) -> ChatTokenizer:
    """The tokenizer of a model folder; refused when it knows more tokens than the model."""
    tokenizer = ChatTokenizer.load(folder)
    if tokenizer.vocab_size > vocab_size:
        raise TriviumError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, but the model only {vocab_size}; take the "
            "tokenizer it was trained with"
        )
    return tokenizer


OWN_LOADERS = ("t5gemma", "modernbert")
"""Encoders and encoder-decoders, which are no causal language models of transformers."""

TRIED = 1 << 30
"""Bytes of weights up to which a model of another family is tried out before a recipe begins: that takes seconds."""


def check_model(folder: Path) -> None:
    """Raise :class:`TriviumError` for a model's folder that cannot be loaded, before time is spent: shards that are
    missing or cut short, pickles, adapters that cannot be read and, where the family is ours, a config that contradicts
    the weights and a tokenizer that knows more tokens than the model. A model of another family that is not too large
    is loaded and tried out (:mod:`trivium.model.gate`); a larger one when its stage begins."""
    if (folder / adapter_folder.CONFIG).exists() and not (folder / "model.safetensors").exists():
        if adapter_folder.is_plain(folder):
            adapter_folder.settings_of(folder)
        else:
            peft.check(folder)
        return  # its base is looked at when it is loaded
    values = read_json(folder / "config.json")
    if values.get("model_type") in OWN_LOADERS:
        shards(folder)
        return
    if not ours(values):
        model_folder.read_config(folder)
        if sum(path.stat().st_size for path in set(shards(folder).values())) <= TRIED:
            model_folder.load(folder, None)
        return
    model, _ = described(folder)
    if (folder / "tokenizer.json").exists():
        load_tokenizer(folder, model.config.vocab_size)


def adapt(model: LanguageModel | RewardModel | EncoderDecoder | Classifier, settings: AdapterSettings | None,
          context: Context, purpose: str = "adapter") -> Attached | None:
    """Freeze a model and give it the stage's adapter, if it has one. Raises :class:`TriviumError` for a model that can
    only be trained with one."""
    trunk: Any = model.model
    if getattr(trunk, "reach", None) == 0:
        context.progress.say(f"texts are not packed: {trunk.why}; each is computed in a row of its own, a prompt "
                             "once for each of its responses")
    elif getattr(trunk, "why", ""):
        context.progress.say(f"texts share a row up to {trunk.reach} tokens; longer ones are computed in rows of their "
                             "own")
    if settings is None:
        if has_adapters(model):
            raise TriviumError(
                f"{context.name}: the model it starts from holds an adapter "
                "that cannot be folded in; give this stage an `adapter` too")
        return None
    attached = attach(model, settings, randomness.derive(context.seed, purpose))
    trained, all_of_them = (sum(p.numel() for p in model.parameters() if p.requires_grad or every)
                            for every in (False, True))
    context.progress.say(
        f"adapter: {trained:,} of {all_of_them:,} parameters are trained ({trained / all_of_them:.2%})")
    return attached


def without_adapter(attached: Attached | None) -> contextlib.AbstractContextManager[None]:
    """The context in which a model is what it was before its adapter; any context for a model that has none."""
    return attached.off() if attached else contextlib.nullcontext()


def save_trained(model: LanguageModel | RewardModel, attached: Attached | None, tokenizer: ChatTokenizer, base: Path,
                 context: Context, save_dtype: SaveDtype) -> None:
    """Write what a stage trained: its adapter, or the whole model, whose weights are then rounded as they were
    written."""
    if attached:
        save_adapter(model, attached, tokenizer, base, context)
        return
    with in_format_to_save(model, base, context, save_dtype):
        save_model(model, tokenizer, context.folder, base=base)


def in_format_to_save(model: nn.Module, base: Path, context: Context,
                      save_dtype: SaveDtype) -> contextlib.AbstractContextManager[None]:
    """The context in which a model's weights have the format in which they are written; they are rounded afterwards."""
    return weights_in(model, dtype_to_save(model, base, save_dtype, context.progress.say))


def dtype_to_save(model: nn.Module, base: Path, wanted: str, say: Callable[[str], None]) -> torch.dtype:
    """The number format in which a model is written: that of its base's weights, unless another one is wanted. A
    float16 that cannot hold a weight gives way to float32, which is said."""
    while (base / adapter_folder.CONFIG).exists() and not (base / "model.safetensors").exists():
        base = adapter_folder.base_of(base)
    dtype = stored_dtype(base) if wanted == "base" else DTYPES[wanted]
    if dtype == torch.float16 and too_large(model, dtype):
        say("a weight is too large for float16, so the weights are written in float32; save_dtype could be bf16")
        return torch.float32
    return dtype


def generation_of(base: Path) -> dict[str, Any]:
    """What a folder's ``generation_config.json`` says; an adapter that has none is asked by that of its base."""
    path = base / "generation_config.json"
    if not path.exists() and (base / adapter_folder.CONFIG).exists():
        return generation_of(adapter_folder.base_of(base))
    return dict(read_json(path)) if path.exists() else {}


def save_adapter(model: LanguageModel | RewardModel, attached: Attached, tokenizer: ChatTokenizer, base: Path,
                 context: Context) -> None:
    """Write an adapter's folder (PEFT's, for LoRA) with the tokenizer. LoRA's has no ``config.json``: beside one,
    ``transformers`` would look for whole weights. Where the base is an adapter too, what PEFT is told to be the base is
    a remark: it would put the one in the place of the other, and say nothing."""
    tokenizer.save(context.folder)
    place = context.folder.absolute().parents[2] / context.name  # where the artifact will stand
    seen = f"{base} is an adapter itself: merge it first" if (base / adapter_folder.CONFIG).exists() else str(base)
    if isinstance(model, RewardModel) and model_folder.read_config(base)[1].get("pad_token_id") == tokenizer.end_id:
        context.progress.say(
            "the base's padding is the token that ends answers, so other programs would read the scores of batches one "
            "token early; `trivium merge` writes a whole reward model that they read right")
    adapter_folder.save(model, attached, context.folder, os.path.relpath(base.absolute(), place), weights_digest(base),
                        seen)
    if attached.settings.kind != "lora":
        model_folder.save_config(model, context.folder, tokenizer.ids)
    elif not isinstance(model, RewardModel):
        save_generation(context.folder, tokenizer.ids)
        keep_generation(context.folder, generation_of(base))


def merge_adapter(adapter: Path, folder: Path, base: Path | None = None, save_dtype: str = "base",
                  say: Callable[[str], None] = print) -> None:
    """Fold a LoRA adapter into its base and write the whole model to ``folder``. Raises :class:`TriviumError` for an
    adapter that cannot be folded in, for another base, and for a folder that holds something."""
    if not (adapter / adapter_folder.CONFIG).exists():
        raise TriviumError(f"{adapter}: no adapter here ({adapter_folder.CONFIG} is missing)")
    if folder.exists() and any(folder.iterdir()):
        raise TriviumError(f"{folder}: holds something already; name a new folder")
    base = opened(base) if base else adapter_folder.base_of(adapter)
    model = model_folder.load_adapter(adapter, base)
    if has_adapters(model):
        raise TriviumError(
            f"{adapter}: a {adapter_folder.settings_of(adapter).kind} adapter is no change of a weight, so it cannot "
            "be folded in; only LoRA can"
        )
    source = adapter if (adapter / "tokenizer.json").exists() else base
    begun = time.monotonic()
    inputs = {
        name: {"path": os.path.relpath(path.absolute(), folder.absolute()), "digest": digest_path(path)}
        for name, path in (("model", base), ("adapter", adapter))
    }
    with made_aside(folder) as aside:
        with weights_in(model, dtype_to_save(model, base, save_dtype, say)):
            save_model(model, load_tokenizer(source, model.config.vocab_size), aside,
                       base=adapter if (adapter / "generation_config.json").exists() else base)
        seal(aside, kind="merge", name=folder.name, key=digest_json(inputs), seed=0, settings={}, inputs=inputs,
             summary={}, seconds=time.monotonic() - begun, peak_memory_mb=peak_memory_mb())


def merge_models(models: Sequence[Path], folder: Path, mixing: Mixing, base: Path | None = None,
                 save_dtype: str = "base", say: Callable[[str], None] = print) -> None:
    """Mix whole models, or LoRA adapters that are folded into their bases first, into one that is written to
    ``folder``. Raises :class:`TriviumError` for models that do not fit one another, and for a folder that holds
    something."""
    mixing.check(len(models), base is not None)
    if folder.exists() and any(folder.iterdir()):
        raise TriviumError(f"{folder}: holds something already; name a new folder")
    begun = time.monotonic()
    named = [(f"model {place + 1}", model) for place, model in enumerate(models)] + ([("base", base)] if base else [])
    inputs = {name: {"path": os.path.relpath(path.absolute(), folder.absolute()), "digest": digest_path(path)}
              for name, path in named}
    with made_aside(folder) as aside, room_beside(folder.absolute()) as place:
        whole = []
        for number, (name, path) in enumerate(named):
            path = opened(path)
            if (path / adapter_folder.CONFIG).exists() and not (path / "model.safetensors").exists():
                say(f"{name}: {path} is an adapter, and is folded into its base first")
                merge_adapter(path, place / str(number), save_dtype="float32", say=say)
                path = place / str(number)
            whole.append(path)
        dtype = None if save_dtype == "base" else DTYPES[save_dtype]
        write_mixed(whole[:len(models)], whole[-1] if base else None, mixing, aside, dtype)
        usual_rights(aside)
        settings = {"method": mixing.method, "weights": mixing.shares(len(models)), "seed": mixing.seed} | (
            {"density": mixing.kept} if mixing.method in ("ties", "dare", "dare_ties") else {})
        seal(aside, kind="merge", name=folder.name, key=digest_json([inputs, settings]), seed=mixing.seed,
             settings=settings, inputs=inputs, summary={}, seconds=time.monotonic() - begun,
             peak_memory_mb=peak_memory_mb())


def export_gguf(folder: Path, path: Path, kind: str = "f16", say: Callable[[str], None] = print) -> Written:
    """Write a model's folder as a GGUF file; a LoRA adapter is folded into its base first, beside the file."""
    folder = opened(folder)
    if not (folder / adapter_folder.CONFIG).exists() or (folder / "model.safetensors").exists():
        return write_gguf(folder, path, kind, say)
    with disk_errors(path), room_beside(path.absolute()) as place:
        whole = place / folder.resolve().name
        merge_adapter(folder, whole, save_dtype="float32", say=say)
        return write_gguf(whole, path, kind, say)


def save_model(model: LanguageModel | RewardModel, tokenizer: ChatTokenizer, folder: Path, chat: bool = True,
               base: Path | None = None) -> None:
    """Write a whole Hugging Face folder: weights in the format that they have, config, tokenizer and chat template; and
    the generation settings of the ``base`` that the model was made from."""
    tokenizer.save(folder, chat, "qwen2" if getattr(model.config, "attention_bias", False) else "")
    ids = tokenizer.ids if chat else {"eos": tokenizer.document_id, "pad": tokenizer.pad_id}
    if isinstance(model, RewardModel):
        ids = ids | {"pad": set_scoring_padding(tokenizer, folder)}
        end_where_scores_are_read(tokenizer, folder)
    with with_rows(model, ids["pad"] + 1):
        model_folder.save(model, folder, ids)
    if base is not None:
        keep_generation(folder, generation_of(base))


@contextlib.contextmanager
def with_rows(model: LanguageModel | RewardModel, rows: int) -> Iterator[None]:
    """Within it, a reward model's embedding has at least so many rows: a row of zeros for padding past the tokenizer's
    entries, which no score depends on."""
    config, embedding = model.config, model.model.embed_tokens
    if rows <= config.vocab_size:
        yield
        return
    kept, whole = embedding.weight, getattr(model, "whole", None)
    more = kept.detach().new_zeros(rows - len(kept), kept.shape[1])
    embedding.weight = nn.Parameter(torch.cat([kept.detach(), more]))
    model.config = replace(config, vocab_size=rows)
    if whole:
        whole[0].config.vocab_size = rows
    try:
        yield
    finally:
        embedding.weight, model.config = kept, config
        if whole:
            whole[0].config.vocab_size = config.vocab_size


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Any], tools: Sequence[Any] | None = None) -> np.ndarray:
    """The token ids that ask for the assistant's next words; ``tools`` are what it may call."""
    return np.array(tokenizer.encode_chat(messages, generation_prompt=True, tools=tools)[0], np.int64)


def response_ids(tokenizer: ChatTokenizer, response: Any) -> np.ndarray:
    """A response's token ids as they follow a question, with the token that ends it."""
    return np.array(tokenizer.encode_response(response), np.int64)


def answer_tree(tokenizer: ChatTokenizer, row: Row, responses: Sequence[Any], finished: Sequence[bool] | None = None,
                payload: Any = None) -> Tree[Any]:
    """A row's ``prompt`` (with its ``tools``) and K responses to it, each a text or a message of the assistant, as
    tokens. Each conversation is encoded as a whole and parted where its answer begins. Responses that are not
    ``finished`` have no token that ends them. Raises :class:`TriviumError`, naming the row, for what the chat template
    refuses."""
    try:
        parted = [tokenizer.encode_answer(row["prompt"], response, row.get("tools")) for response in responses]
    except TriviumError as error:
        raise TriviumError(f"row {row.get('id', '(without an id)')}: {error}") from error
    # where the beginning of an answer and the end of its prompt are one token, it is the answer's
    prompts = [prompt for prompt, _ in parted]
    shared = next((i for i, ids in enumerate(zip(*prompts, strict=False)) if len(set(ids)) > 1),
                  min(map(len, prompts)))
    said = [[*prompt[shared:], *(response if done else response[:-1])]
            for (prompt, response), done in zip(parted, finished or [True] * len(parted), strict=True)]
    return Tree(np.array(parted[0][0][:shared], np.int64), tuple(np.array(ids, np.int64) for ids in said),
                payload=payload)


def sample_text(model: LanguageModel, tokenizer: ChatTokenizer, start: Sequence[int], seed: int,
                tokens: int = 64) -> str:
    """What a model says after ``start``."""
    stop = [tokenizer.end_id, tokenizer.document_id]
    drawn = generate(model, [list(start)], Sampling(max_new_tokens=tokens, seed=seed), stop)[0][0].tokens
    return tokenizer.decode([token for token in drawn if token not in stop])
