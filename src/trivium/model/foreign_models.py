"""Causal models of ``transformers`` outside our own families, behind the face of ours.

``transformers`` lets a program bring its own attention; ours hands queries, keys and values to ``attend``, as our
Transformer does. So packing, prefixes and the sampling engine's cache work on any model that mixes tokens by that
interface alone. What mixes them in other ways too (a recurrent state, a short convolution, sinks, caps, a window that
is shorter than the text) is computed by the library's own attention, every branch of a tree in a row of its own
(:mod:`trivium.model.apart`). Which of the two is right for a model is tried out when it is loaded
(:mod:`trivium.model.gate`).
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
from torch.utils.checkpoint import checkpoint

from trivium.errors import TriviumError
from trivium.files import read_json, usual_rights, write_json
from trivium.model.attention import Attend
from trivium.model.config import ModelConfig
from trivium.model.transformer import LanguageModel, RewardModel

OURS = "trivium"
"""The name under which ``transformers`` knows our attention."""

HARMLESS = {"is_causal", "position_ids", "use_cache", "output_attentions", "output_hidden_states", "return_dict",
            "logits_to_keep", "num_items_in_batch", "output_router_logits", "position_embeddings", "cache_position"}
"""What ``transformers`` tells an attention that does not change what it computes in a causal model."""

_now = threading.local()


class Told:
    """What a model told our attention in a forward pass: whether it asks for more than causal attention."""

    def __init__(self) -> None:
        self.calls = 0
        self.more: set[str] = set()
        """What ``attend`` would not compute."""
        self.masks: list[Any] = []
        """Functions ``(row, head, query place, key place) -> seen``."""


@contextlib.contextmanager
def telling() -> Iterator[Told]:
    """Within it, our attention notes what it is told."""
    _now.told = Told()
    try:
        yield _now.told
    finally:
        _now.told = None


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
               dropout: float = 0.0, scaling: float | None = None, **more: Any) -> tuple[Tensor, None]:
    """The attention that ``transformers`` calls: the caller's ``attend``, or the library's where there is none. Returns
    ``[B, T, heads, d]``."""
    attend = getattr(_now, "attend", None)
    if attend is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        return sdpa_attention_forward(module, query, key, value, attention_mask, 0.0, scaling, **more)
    told = getattr(_now, "told", None)
    if told is not None:
        told.calls += 1
        told.more |= {name for name, value in more.items() if value is not None and name not in HARMLESS
                      and name != "sliding_window"} | ({"a mask of its own"} if attention_mask is not None else set())
    if scaling is not None:  # attend divides by the root of the width
        query = query * (scaling * query.shape[-1] ** 0.5)
    return attend(module.layer_idx, query, key, value).transpose(1, 2).contiguous(), None


def _mask(*given: Any, **more: Any) -> Tensor | None:
    """The mask that ``transformers`` asks for: none for ``attend``, which knows what it hides."""
    if getattr(_now, "attend", None) is None:
        from transformers.masking_utils import sdpa_mask
        return sdpa_mask(*given, **more)
    if getattr(_now, "told", None) is not None:
        _now.told.masks.append(more.get("mask_function"))
    return None


def bring_attention(transformers: Any) -> None:
    """Make our attention known to ``transformers``."""
    transformers.AttentionInterface.register(OURS, _attention)
    transformers.AttentionMaskInterface.register(OURS, _mask)


class ForeignTrunk(nn.Module):
    """A foreign Transformer without its head, called as ours is."""

    def __init__(self, inner: Any, config: ModelConfig) -> None:
        super().__init__()
        self.inner, self.config = inner, config
        self.reach = config.max_positions
        """Up to so many positions ``attend`` computes all that mixes tokens; 0 for a model where it never does."""
        self.even = config.max_positions
        """Up to so many positions rotary positions are the same whatever the longest text of a batch."""
        self.kept = config.max_positions
        """Up to so many positions keys and values are all that is to be kept of a text."""
        self.why = ""
        """What else mixes tokens, in words."""
        self.cached = True
        """Whether the library's own cache gives what the whole text gives."""
        self.factor = 1.0
        """What the family multiplies its logits by."""
        self.changing = [module for module in inner.modules()
                         if any(kind in str(getattr(module, "rope_type", "")) for kind in ("dynamic", "longrope"))]
        """Rotary positions that are stretched by the longest text of a batch."""
        for module in self.changing:
            original = getattr(module, "original_max_seq_len", self.even)
            rope: Any = getattr(module.config, "rope_parameters", None) or {}
            self.even = min(self.even, int(original), int(rope.get("original_max_position_embeddings") or self.even))
        self.reach = self.kept = min(self.reach, self.even)

    @property
    def embed_tokens(self) -> nn.Module:
        """The embedding."""
        found: nn.Module = self.inner.get_input_embeddings()
        return found

    @property
    def layers(self) -> list[nn.Module]:
        """Its blocks: the first list of as many modules as there are layers; none where there is no such list."""
        lists = (module for module in self.inner.modules() if isinstance(module, nn.ModuleList))
        return next((list(layers) for layers in lists if len(layers) == self.config.num_layers), [])

    def packs(self, longest: int) -> bool:
        """Whether texts of up to so many positions can share a row, and ``attend`` can be given."""
        return longest <= self.reach

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """Hidden states ``[B, T, hidden_size]``. Without ``attend`` each row is a text of its own, and the library's
        own attention is used. Raises :class:`TriviumError` for an ``attend`` that would not do what the model does."""
        if attend is None:
            return self._scaled(self._run(tokens)[0])
        if not self.reach:
            raise TriviumError(f"this model cannot be given another attention: {self.why}")
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        self._unstretch()
        _now.attend = attend
        try:
            hidden = self.inner(input_ids=tokens, position_ids=positions.expand(tokens.shape), use_cache=False)
        finally:
            _now.attend = None
        return self._scaled(hidden.last_hidden_state)

    def follow(self, tokens: Tensor, memory: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Hidden states ``[B, T, hidden_size]`` of what follows a text, and the library's own cache with it;
        ``memory`` is empty at a text's begin."""
        hidden, memory = self._run(tokens, memory, True)
        return self._scaled(hidden), memory

    def _run(self, tokens: Tensor, memory: dict[str, Any] | None = None,
             use_cache: bool = False) -> tuple[Tensor, dict[str, Any]]:
        self._unstretch()
        _now.attend = None
        found = self.inner(input_ids=tokens, use_cache=use_cache, **(memory or {}))
        names = ("cache", "past_key_values", "cache_params", "state")
        kept = {name: found[name] for name in names if use_cache and found.get(name) is not None}
        kept = dict(list(kept.items())[:1])  # newer releases give one under two names
        if use_cache and not kept:
            raise TriviumError("the model gives no cache")
        return found.last_hidden_state, kept

    def _scaled(self, hidden: Tensor) -> Tensor:
        return hidden if self.factor == 1 else hidden * self.factor

    def _unstretch(self) -> None:
        """Rotary positions as they were made: the library's dynamic ones keep the stretch of a longer text before."""
        for module in self.changing:
            for name in [name for name in vars(module)["_buffers"] if name.endswith("original_inv_freq")]:
                setattr(module, name.replace("original_", ""), getattr(module, name).clone())
            if hasattr(module, "original_max_seq_len"):
                module.max_seq_len_cached = module.original_max_seq_len


def once_more(layer: nn.Module) -> None:
    """Make a foreign layer keep its input only, and compute the rest again for the gradient. By then another batch may
    be the current one: the layer attends again as it did."""
    forward = layer.forward

    def forward_and_again(*given: Any, **named: Any) -> Any:
        attend = getattr(_now, "attend", None)

        def as_it_was(*given: Any, **named: Any) -> Any:
            before, _now.attend = getattr(_now, "attend", None), attend
            try:
                return forward(*given, **named)
            finally:
                _now.attend = before

        return checkpoint(as_it_was, *given, use_reentrant=False, **named)

    layer.forward = forward_and_again


class ForeignLanguageModel(LanguageModel):
    """A foreign model with its output matrix."""

    def __init__(self, whole: Any, config: ModelConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.whole = [whole]  # in a list: its parts are ours below, and belong to the module once
        self.trunk_name = f"{whole.base_model_prefix}"
        self.native = whole.config._attn_implementation
        """The library's own attention for it."""
        self.model = ForeignTrunk(getattr(whole, whole.base_model_prefix), config)  # type: ignore[assignment]
        self.lm_head = whole.get_output_embeddings()

    def tie(self) -> None:
        """The library ties what is tied."""

    def rewarding(self, seed: int, share: bool = True) -> RewardModel:
        """A reward model on this trunk, or on a copy of it."""
        return ForeignRewardModel(self if share else copy.deepcopy(self), seed)

    def save_folder(self, folder: Path, ids: dict[str, Any]) -> None:
        """Write ``config.json`` and the weights, as ``transformers`` does."""
        whole = self.whole[0]
        with _described(whole, ids):
            whole.save_pretrained(folder)
        usual_rights(folder)


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
        """Write ``config.json`` and the weights under the names of the family's ``ForSequenceClassification``, which
        reads hidden states before the family's factor on logits."""
        from trivium.model.weights import name_of_dtype, save_weights
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
            "dtype": name_of_dtype(self),
            "trivium_score_shift": self.shift})
        trunk: Any = self.model
        weights = {f"{self.trunk_name}.{name}": tensor for name, tensor in trunk.inner.state_dict().items()}
        save_weights(folder, weights | {"score.weight": self.score.weight * trunk.factor}, 5 << 30)


@contextlib.contextmanager
def _described(whole: Any, ids: dict[str, Any]) -> Iterator[None]:
    """Within it, the model's config names the chat's tokens and the usual attention."""
    kept = whole.config._attn_implementation
    whole.config.eos_token_id, whole.config.pad_token_id = ids["eos"], ids["pad"]
    generation = getattr(whole, "generation_config", None)
    if generation is not None:  # the base's own settings are added to the file, which the library might refuse to write
        whole.generation_config = type(generation)(eos_token_id=ids["eos"], pad_token_id=ids["pad"], do_sample=True)
    if kept == OURS:
        whole.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        whole.config._attn_implementation = kept
        if generation is not None:
            whole.generation_config = generation
