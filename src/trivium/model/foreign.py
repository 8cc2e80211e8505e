"""Causal models of ``transformers`` outside our own families, behind the face of ours: slower, but every stage trains
them.

``transformers`` lets a program bring its own attention; ours hands queries, keys and values to ``attend``, as our
Transformer does. So packing, prefixes and the sampling engine's cache work on any model that has that interface, and
this file is all that there is to it. Models whose logits are not a plain product of hidden states and output matrix are
refused.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.files import read_json, write_json
from trivium.model.config import ModelConfig
from trivium.model.transformer import Attend, LanguageModel, RewardModel, causal_attention

_now = threading.local()


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
               scaling: float | None = None, dropout: float = 0.0, **more: Any) -> tuple[Tensor, None]:
    """The attention that ``transformers`` calls: the caller's ``attend``. Returns ``[B, T, heads, d]``."""
    if scaling is not None:  # attend divides by the root of the width
        query = query * (scaling * query.shape[-1] ** 0.5)
    return _now.attend(module.layer_idx, query, key, value).transpose(1, 2).contiguous(), None


class ForeignTrunk(nn.Module):
    """A foreign Transformer without its head, called as ours is."""

    def __init__(self, inner: Any, config: ModelConfig) -> None:
        super().__init__()
        self.inner, self.config = inner, config

    @property
    def embed_tokens(self) -> nn.Module:
        """The embedding."""
        found: nn.Module = self.inner.get_input_embeddings()
        return found

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """Hidden states ``[B, T, hidden_size]``."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        _now.attend = attend or causal_attention()
        hidden: Tensor = self.inner(input_ids=tokens, position_ids=positions.expand(tokens.shape),
                                    use_cache=False).last_hidden_state
        return hidden


class ForeignLanguageModel(LanguageModel):
    """A foreign model with its output matrix."""

    def __init__(self, whole: Any, config: ModelConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.whole = [whole]  # in a list: its parts are ours below, and belong to the module once
        self.trunk_name = f"{whole.base_model_prefix}"
        self.model = ForeignTrunk(getattr(whole, whole.base_model_prefix), config)  # type: ignore[assignment]
        self.lm_head = whole.get_output_embeddings()

    def rewarding(self, seed: int, share: bool = True) -> RewardModel:
        """A reward model on this trunk, or on a copy of it."""
        return ForeignRewardModel(self if share else copy.deepcopy(self), seed)

    def save_folder(self, folder: Path, ids: dict[str, Any]) -> None:
        """Write ``config.json`` and the weights, as ``transformers`` does."""
        whole = self.whole[0]
        with _described(whole, ids):
            whole.save_pretrained(folder)


class ForeignRewardModel(RewardModel):
    """A foreign trunk with one scalar output."""

    def __init__(self, source: ForeignLanguageModel, seed: int, shift: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.config, self.shift = source.config, shift
        self.model = source.model
        self.whole, self.trunk_name = source.whole, source.trunk_name
        self.score = nn.Linear(source.config.hidden_size, 1, bias=False)
        generator = torch.Generator().manual_seed(seed % 2**63)
        nn.init.normal_(self.score.weight, 0.0, (source.config.hidden_size + 1) ** -0.5, generator=generator)

    def save_folder(self, folder: Path, ids: dict[str, Any]) -> None:
        """Write ``config.json`` and the weights under the names of the family's ``ForSequenceClassification``."""
        from trivium.model.weights import save_weights
        with _described(self.whole[0], ids):
            self.whole[0].config.save_pretrained(folder)
        values = read_json(folder / "config.json")
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as known
        kind = str(
            known.get(values["model_type"],
                      type(self.whole[0]).__name__.replace("ForCausalLM", "ForSequenceClassification")))
        if not kind.endswith("ForSequenceClassification"):
            kind = "ForSequenceClassification"
        write_json(folder / "config.json", values | {
            "architectures": [kind], "id2label": {"0": "score"}, "label2id": {"score": 0},
            "dtype": str(next(self.parameters()).dtype).removeprefix("torch."), "trivium_score_shift": self.shift})
        trunk: Any = self.model
        weights = {f"{self.trunk_name}.{name}": tensor for name, tensor in trunk.inner.state_dict().items()}
        save_weights(folder, weights | {"score.weight": self.score.weight}, 5 << 30)


@contextlib.contextmanager
def _described(whole: Any, ids: dict[str, Any]) -> Iterator[None]:
    """Within it, the model's config names the chat's tokens and the usual attention."""
    kept = whole.config._attn_implementation
    whole.config.eos_token_id, whole.config.pad_token_id = ids["eos"], ids["pad"]
    generation = getattr(whole, "generation_config", None)
    if generation is not None:  # the base's own settings are added to the file, which the library might refuse to write
        whole.generation_config = type(generation)(eos_token_id=ids["eos"], pad_token_id=ids["pad"], do_sample=True)
    whole.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        whole.config._attn_implementation = kept
        if generation is not None:
            whole.generation_config = generation


def shape_of(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """What the stages need to know of a foreign model's shape, and its ``config.json``."""
    transformers = library(folder)
    values = read_json(folder / "config.json")
    try:
        described = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
        heads = int(described.num_attention_heads)
        kv_heads = int(getattr(described, "num_key_value_heads", None) or heads)
        longest = int(described.max_position_embeddings)
        layers, width = int(described.num_hidden_layers), int(described.hidden_size)
    except (ValueError, AttributeError, TypeError, OSError, KeyError) as error:
        raise TriviumError(
            f"{folder / 'config.json'}: no causal language model that transformers knows ({error})") from error
    for name, plain in (("final_logit_softcapping", None), ("attn_logit_softcapping", None), ("logit_scale", 1.0),
                        ("logits_scaling", 1.0)):
        if getattr(described, name, plain) not in (None, plain):
            raise TriviumError(
                f"{folder / 'config.json'}: {name} is {getattr(described, name)}; models whose logits or scores are "
                "capped or scaled are not supported"
            )
    window = getattr(described, "sliding_window", None)
    if window:
        longest = min(longest, int(window))  # within it, a sliding window hides nothing
    return ModelConfig(vocab_size=int(described.vocab_size), hidden_size=width, num_layers=layers, num_heads=heads,
                       num_kv_heads=kv_heads, head_dim=int(getattr(described, "head_dim", None)
                                                           or width // heads), max_positions=longest, qk_norm=False,
                       intermediate_size=int(getattr(described, "intermediate_size", None) or 4 * width)), values


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
    :class:`TriviumError` for a model without the attention interface, or with logits of another kind."""
    transformers = library(folder)
    config, values = shape_of(folder)
    transformers.AttentionInterface.register("trivium", _attention)
    rewarding = (values.get("architectures") or [""])[0].endswith("ForSequenceClassification")
    from trivium.model.weights import shards
    places = shards(folder)
    try:
        with _quiet(transformers):
            whole, told = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype or "auto", attn_implementation="trivium", use_safetensors=True,
                trust_remote_code=False, output_loading_info=True)
    except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
        raise TriviumError(
            f"{folder}: cannot be read by transformers ({' '.join(str(error).split())[:300]})") from error
    own = {"score.weight", "lm_head.weight"} if rewarding else set[str]()
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [str(name) for name in told.get(problem) or () if str(name) not in own]
        if names:
            raise TriviumError(f"{folder}: the weights do not fit config.json: {problem.replace('_', ' ')} {names[0]}")
    for module in whole.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # as everywhere: a run must end with the same bits however often it was interrupted
    model = ForeignLanguageModel(whole, config).to(device)
    whole.eval()
    tokens = torch.arange(min(8, config.max_positions), device=device)[None] % config.vocab_size
    with torch.no_grad():
        try:
            agree = torch.allclose(model.lm_head(model.model(tokens)),
                                   whole(input_ids=tokens).logits, atol=1e-4, rtol=1e-3)
        except (AttributeError, TypeError, RuntimeError) as error:
            raise TriviumError(
                f"{folder}: its attention cannot be exchanged, so it cannot be trained here ({error})") from error
        whole.set_attn_implementation("eager")
        theirs = whole(input_ids=tokens).logits
        whole.set_attn_implementation("trivium")
        agree = agree and torch.allclose(theirs, model.lm_head(model.model(tokens)), atol=1e-3, rtol=1e-3)
    if not agree or getattr(model.lm_head, "bias", None) is not None:
        raise TriviumError(
            f"{folder}: its logits are no plain product of hidden states and "
            "output matrix (caps, scales or biases), which is not supported"
        )
    model.train()
    if not rewarding:
        return model
    import safetensors
    reward = ForeignRewardModel(model, 0, float(values.get("trivium_score_shift", 0.0)))
    with safetensors.safe_open(places["score.weight"], framework="pt") as file:
        reward.score.weight = nn.Parameter(file.get_tensor("score.weight").to(next(model.parameters())))
    return reward


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the library's remarks on the head that a reward model's folder does not have."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity_warning()
