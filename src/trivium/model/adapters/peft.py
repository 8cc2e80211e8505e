"""LoRA adapters of PEFT that are more than plain LoRA: modules that are saved whole, a vocabulary that has grown, ranks
by pattern, targets by regular expression, tokens trained apart, initialisations that change the base (PiSSA, OLoRA).

PEFT itself puts them on the base and folds them in, so a model is what PEFT makes of it. What PEFT would not make twice
alike is refused, and so is every weight that finds no place.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.model.check import read_object

CONFIG = "adapter_config.json"

STEADY = (True, False, None, "gaussian", "eva", "orthogonal")
"""How A and B may begin where the base stays as it is."""

MOVING = ("pissa", "olora")
"""How they may begin where PEFT takes the beginning out of the base again, by a decomposition that is always the
same."""

PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": STEADY, "fan_in_fan_out": (False,),
    "lora_ga_config": (None,)
}
WITHOUT_EFFECT = {
    "r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "lora_dropout", "task_type", "inference_mode",
    "base_model_name_or_path", "revision", "auto_mapping", "peft_version", "runtime_config", "megatron_core",
    "qalora_group_size", "loftq_config", "eva_config", "layers_pattern", "ensure_weight_tying", "corda_config"
}
"""Settings that plain LoRA uses, or that change nothing in a model that is read."""

OTHERS = ("layer_replication", "alora_invocation_tokens", "use_qalora", "monteclora_config", "velora_config",
          "use_bdlora", "arrow_config", "megatron_config")
"""Settings that change more than weights."""


def plain(config: dict[str, Any]) -> bool:
    """Whether an ``adapter_config.json`` describes LoRA, rsLoRA or DoRA on matrices that are named by their last names,
    and nothing else."""
    targets = config.get("target_modules")
    if not isinstance(targets, list) or any("." in str(name) for name in targets) or set(targets) & {
            "lm_head", "embed_tokens"}:
        return False
    if config.get("modules_to_save") not in (None, [], ["score"]):
        return False
    return all(value in PLAIN[name] if name in PLAIN else not value for name, value in config.items()
               if name not in WITHOUT_EFFECT and name != "modules_to_save")


def check(folder: Path) -> None:
    """Refuse, before any weight is read, an adapter that PEFT would not make the same of every time, or that is no
    change of weights."""
    path = folder / CONFIG
    config = read_object(path)
    if config.get("peft_type") != "LORA":
        raise TriviumError(f"{path}: an adapter of type {config.get('peft_type')!r}; of PEFT's only LORA is read")
    start = config.get("init_lora_weights", True)
    if start not in STEADY + MOVING:
        raise TriviumError(
            f"{path}: init_lora_weights is {start!r}, which changes the base in a way that cannot be repeated exactly; "
            "let PEFT write it as plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)")
    for name in OTHERS:
        if config.get(name):
            raise TriviumError(f"{path}: {name} is {config[name]!r}; only adapters without it are read")


def vocabulary(folder: Path) -> int | None:
    """How many tokens an adapter's own embedding or output matrix has, where it holds one whole."""
    try:
        with safetensors.safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            sizes = {file.get_slice(name).get_shape()[0] for name in file.keys()
                     if name.endswith((".embed_tokens.weight", ".lm_head.weight", ".wte.weight", ".embed_in.weight",
                                       ".embed_out.weight")) and "lora_" not in name}
    except Exception:  # said where the weights are read
        return None
    return max(sizes, default=None)


def folded(model: Any, folder: Path, weights: dict[str, Tensor]) -> Any:
    """A language model with an adapter folded into its weights by PEFT. Raises :class:`TriviumError` for weights that
    do not fit it, and for what cannot be folded in."""
    check(folder)
    try:
        import peft
    except ImportError as error:
        raise TriviumError(f"{folder}: this adapter is more than plain LoRA and needs PEFT: "
                           "pip install \"trivium[transformers]\"") from error
    path = folder / CONFIG
    values = read_object(path)
    unknown = set(values) - set(peft.LoraConfig.__dataclass_fields__)
    if odd := sorted(name for name in unknown if values[name]):
        raise TriviumError(f"{path}: {odd[0]} is {values[odd[0]]!r}, which this release of PEFT does not know")
    if hasattr(model, "score"):
        raise TriviumError(f"{folder}: only plain LoRA is read on a reward model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT warns of is refused below, or does not matter once folded in
        config = peft.LoraConfig.from_pretrained(str(folder))
        config.modules_to_save = [name for name in config.modules_to_save or () if name != "score"] or None
        config.inference_mode, config.task_type = True, None
        whole = as_library(model)
        grown(whole, folder, weights)
        parted(whole, folder, weights, config)
        try:
            adapted = peft.PeftModel(whole, config)
            wanted = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
            if lacking := sorted(wanted - set(weights)):
                raise TriviumError(f"{folder}: the adapter's weights lack {lacking[0]}: it is for another base, or not "
                                   "whole")
            loaded: Any = peft.set_peft_model_state_dict(adapted, weights)
            if left := loaded.unexpected_keys:
                raise TriviumError(f"{folder}: the adapter holds {left[0]}, for which the model has no place")
            whole = adapted.merge_and_unload()
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise TriviumError(f"{folder}: PEFT cannot fold this adapter in ({' '.join(str(error).split())[:200]})"
                               ) from error
    return as_ours(model, whole, folder)


def as_library(model: Any) -> Any:
    """A model as the library's: its own where it is one, otherwise one of the same weights without contents else."""
    if hasattr(model, "whole"):
        return model.whole[0]
    import transformers

    from trivium.model.families import write_config
    library: Any = transformers
    values = write_config(model.config, {"eos": None, "pad": None})
    with torch.device("meta"):
        whole = library.AutoModelForCausalLM.from_config(
            library.AutoConfig.for_model(values.pop("model_type"), **values))
    whole.load_state_dict(model.state_dict(), assign=True)
    whole.tie_weights()
    return whole


def grown(whole: Any, folder: Path, weights: dict[str, Tensor]) -> None:
    """Give a model the vocabulary of an adapter that holds whole embeddings of another size."""
    rows = vocabulary(folder)
    if rows is None or rows == whole.get_input_embeddings().weight.shape[0]:
        return
    names = {module: name.rpartition(".")[2] for name, module in whole.named_modules()}
    tied = whole.get_input_embeddings().weight is whole.get_output_embeddings().weight
    for module in [whole.get_input_embeddings()] + ([] if tied else [whole.get_output_embeddings()]):
        if not any(name.endswith(f".{names[module]}.weight") and len(tensor) == rows
                   for name, tensor in weights.items()):
            raise TriviumError(f"{folder}: the adapter has a vocabulary of {rows}, but no {names[module]} for it")
    whole.resize_token_embeddings(rows, mean_resizing=False)


def parted(whole: Any, folder: Path, weights: dict[str, Tensor], config: Any) -> None:
    """Untie the output matrix from the embedding where an adapter changes one of them: folded in, the change would
    reach the other too, which PEFT does not do before it folds in."""
    embedding, head = whole.get_input_embeddings(), whole.get_output_embeddings()
    if embedding.weight is not head.weight:
        return
    names = {name.rpartition(".")[2] for name, module in whole.named_modules() if module in (embedding, head)}
    if not any(f".{name}.lora_" in key for name in names for key in weights):
        return
    if config.trainable_token_indices or config.ensure_weight_tying:
        raise TriviumError(f"{folder}: the adapter changes the embedding or the output matrix, which are one in this "
                           "model, in two ways; let PEFT fold it in")
    head.weight = nn.Parameter(head.weight.detach().clone())
    whole.config.get_text_config().tie_word_embeddings = whole.config.tie_word_embeddings = False


def as_ours(model: Any, whole: Any, folder: Path) -> Any:
    """What was folded in, as the model that it was folded into: of another vocabulary or untied where that changed."""
    embedding, head = whole.get_input_embeddings().weight, whole.get_output_embeddings().weight
    tied = model.config.tie_embeddings and (embedding is head or torch.equal(embedding, head))
    config = replace(model.config, vocab_size=embedding.shape[0], tie_embeddings=tied)
    if hasattr(model, "whole"):
        from trivium.model.foreign import stamp, try_out, wrapped
        if not tied:
            whole.config.get_text_config().tie_word_embeddings = whole.config.tie_word_embeddings = False
        made = wrapped(whole, config, folder)
        whole.set_attn_implementation(model.native)
        made.native = model.native
        try_out(made, folder, (stamp(folder / "adapter_model.safetensors"), config))
        return made
    from trivium.model.transformer import LanguageModel, WithoutContents
    with WithoutContents():
        own = LanguageModel(config)
    weights = {name: tensor.detach().contiguous() for name, tensor in whole.state_dict().items()}
    if odd := sorted(set(weights) ^ set(own.state_dict())):
        raise TriviumError(f"{folder}: folded in, the adapter gives {odd[0]}, which a {config.family} does not have")
    own.load_state_dict(weights, assign=True)
    own.tie()
    for parameter in own.parameters():
        assert isinstance(parameter, nn.Parameter)
        parameter.requires_grad_(True)
    return own
