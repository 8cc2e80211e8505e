"""Folders of causal models of ``transformers`` outside our own families: what is in them, and how they are loaded and
tried out (:mod:`trivium.model.gate`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trivium.errors import TriviumError
from trivium.model.check import check_depth, read_values
from trivium.model.config import ModelConfig
from trivium.model.foreign_models import ForeignLanguageModel, ForeignRewardModel, bring_attention

WITHOUT_END = 1 << 20
"""Positions of a model that has none to run out of."""

LOCAL = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size", "index_topk", "floor_scale")
"""Settings of other kinds of attention, which within so many positions are causal attention."""

_found: dict[tuple[Any, ...], Any] = {}
"""What was found out about a folder's model, by the folder's files."""


def shape_of(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """What the stages need to know of a foreign model's shape, and its ``config.json``. Raises :class:`TriviumError`
    for what is no causal language model, and for quantised weights."""
    transformers = library(folder)
    path = folder / "config.json"
    values = read_values(folder)
    if values.get("quantization_config"):
        kind = values["quantization_config"].get("quant_method", "of some kind")
        raise TriviumError(f"{path}: its weights are quantised ({kind}), which cannot be trained; take the model in "
                           "bf16, f16 or float32")
    try:
        with quiet(transformers):
            whole = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            described = whole.get_text_config(decoder=True)
            known = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    except Exception as error:  # the library has many
        raise TriviumError(f"{path}: no causal language model that transformers knows "
                           f"({' '.join(str(error).split())[:200]})") from error
    if whole.model_type not in known or getattr(whole, "is_encoder_decoder", False):
        raise TriviumError(f"{path}: {whole.model_type!r} is no causal language model")
    if getattr(described, "final_logit_softcapping", None):
        raise TriviumError(f"{path}: final_logit_softcapping is {described.final_logit_softcapping}; models whose "
                           "logits are capped are not supported")
    width = first_of(described, "hidden_size", "d_model", "n_embd")
    layers = first_of(described, "num_hidden_layers", "n_layer", "num_layers")
    if not width or not layers or not getattr(described, "vocab_size", None):
        raise TriviumError(f"{path}: says no width, number of layers or vocabulary that is understood here")
    heads = first_of(described, "num_attention_heads", "n_head", "num_heads") or 1
    longest = first_of(described, "max_position_embeddings", "n_positions", "max_seq_len",
                       "max_target_positions") or WITHOUT_END
    rope = getattr(described, "rope_parameters", None) or {}
    if rope.get("rope_type") == "dynamic":  # stretches with the text
        longest = int(longest * float(rope.get("factor") or 1))
    head = first_of(described, "head_dim") or width // heads
    return ModelConfig(vocab_size=int(described.vocab_size), hidden_size=width, num_layers=layers, num_heads=heads,
                       num_kv_heads=heads, head_dim=2 * max(1, head // 2),
                       max_positions=longest, qk_norm=False,
                       tie_embeddings=bool(getattr(whole, "tie_word_embeddings", False)),
                       intermediate_size=first_of(described, "intermediate_size", "n_inner") or 4 * width), values


def first_of(described: Any, *names: str) -> int:
    """The first of the settings that is a number above 0, or 0."""
    for name in names:
        try:
            value = getattr(described, name, None)
        except Exception:  # of a configuration whose layers differ, which the library refuses to answer
            continue
        value = max(value, default=0) if isinstance(value, (list, tuple)) else value
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1:
            return int(value)
    return 0


def library(folder: Path) -> Any:
    """``transformers``, or a :class:`TriviumError` that says how to get it."""
    try:
        import transformers
    except ImportError as error:
        raise TriviumError(
            f"{folder}: this family is not one of ours; "
            "with `pip install \"trivium[transformers]\"` it is trained all the same"
        ) from error
    return transformers


def load(folder: Path, dtype: torch.dtype | None = torch.float32,
         device: torch.device | str = "cpu") -> ForeignLanguageModel | ForeignRewardModel:
    """A foreign folder as a language model or, when its architecture says so, a reward model. Raises
    :class:`TriviumError` for weights that do not fit, and for a model that is computed rightly in no way."""
    transformers = library(folder)
    config, values = shape_of(folder)
    bring_attention(transformers)
    rewarding = (values.get("architectures") or [""])[0].endswith("ForSequenceClassification")
    from trivium.model.weights import shards
    places = shards(folder)
    check_depth(folder, config.num_layers, len(places))
    try:
        with quiet(transformers):
            whole, told = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False, output_loading_info=True)
    except Exception as error:  # the library has many
        raise TriviumError(
            f"{folder}: cannot be read by transformers ({' '.join(str(error).split())[:300]})") from error
    own = {"score.weight", "lm_head.weight"} if rewarding else set[str]()
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [str(name) for name in told.get(problem) or () if str(name) not in own]
        if names:
            raise TriviumError(f"{folder}: the weights do not fit config.json: {problem.replace('_', ' ')} {names[0]}")
    model = wrapped(whole, config, folder).to(device)
    try_out(model, folder, (*(stamp(path) for path in sorted({folder / "config.json", *places.values()})), dtype))
    if not rewarding:
        return model
    import safetensors
    trunk: Any = model.model
    reward = ForeignRewardModel(model, 0, float(values.get("trivium_score_shift", 0.0)))
    with safetensors.safe_open(places["score.weight"], framework="pt") as file:
        reward.score.weight = nn.Parameter(file.get_tensor("score.weight").to(next(model.parameters())) / trunk.factor)
    return reward


def wrapped(whole: Any, config: ModelConfig, folder: Path) -> ForeignLanguageModel:
    """A model of the library behind our face. Raises :class:`TriviumError` for one without an output matrix."""
    head = whole.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None or not whole.base_model_prefix or not hasattr(
            whole, whole.base_model_prefix):
        raise TriviumError(f"{folder}: its logits are no plain product of hidden states and output matrix (caps, "
                           "scales or biases), which is not supported")
    for module in whole.modules():  # as everywhere: a run must end with the same bits however often it was interrupted
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model = ForeignLanguageModel(whole, config)
    trunk: Any = model.model
    described = whole.config.get_text_config(decoder=True)
    for name in LOCAL:
        if size := first_of(described, name):
            trunk.reach = trunk.kept = min(trunk.reach, size)
    return model


def try_out(model: ForeignLanguageModel, folder: Path, key: tuple[Any, ...]) -> None:
    """Let a model compute as it is right for it; what it was found to be is remembered by ``key``. Raises
    :class:`TriviumError` with the reason where it is refused."""
    from trivium.model.gate import prove
    model.whole[0].eval()
    if key not in _found:
        with quiet(library(folder)):
            _found[key] = prove(model)
    if _found[key].refused:
        raise TriviumError(f"{folder}: {_found[key].refused}")
    _found[key].apply(model)
    model.train()


def stamp(path: Path) -> tuple[str, int, int]:
    """What tells a file from a later one of the same name, without reading it."""
    about = path.stat()
    return str(path.resolve()), about.st_size, about.st_mtime_ns


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the library's remarks on the head that a reward model's folder does not have."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
