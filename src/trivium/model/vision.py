"""Seeing, as LLaVA does it (Liu et al. 2023): an encoder turns a picture into a vector a patch, a projector turns those
into vectors of the decoder's width, and these stand in the prompt where words' embeddings would.

A folder is the decoder's own, which loads everywhere as a model of text, with ``vision.json`` and
``vision.safetensors`` beside it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from trivium.artifacts import check_made
from trivium.errors import TriviumError
from trivium.files import write_json, written_aside
from trivium.model.attention import Attend
from trivium.model.check import read_object
from trivium.model.config import ModelConfig, VisionConfig
from trivium.model.families import save_own
from trivium.model.transformer import LanguageModel, Transformer

CONFIG, WEIGHTS = "vision.json", "vision.safetensors"


def all_patches() -> Attend:
    """Every patch sees all patches of its picture."""
    return lambda layer, q, k, v: F.scaled_dot_product_attention(q, k, v)


class VisionEncoder(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021) of the encoder's blocks. Its vocabulary is the places of patches:
    the embedding is that of places, which are not turned by rotary angles as well. ``mask`` and ``paint`` are of use in
    pretraining alone."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        values = config.channels * config.patch**2
        self.patches = nn.Linear(values, config.hidden_size, bias=False)
        self.model = Transformer(config)
        self.mask = nn.Parameter(torch.zeros(config.hidden_size))
        self.paint = nn.Linear(config.hidden_size, values)

    def cut(self, pixels: Tensor) -> Tensor:
        """The patches of pictures ``[N, channels, size, size]`` of bytes, as numbers from -1 to 1: ``[N, patches,
        channels * patch²]``."""
        n, p = len(pixels), self.config.patch
        grid = (pixels.float() / 127.5 - 1).unfold(2, p, p).unfold(3, p, p)  # [N, channels, rows, columns, p, p]
        return grid.permute(0, 2, 3, 1, 4, 5).reshape(n, self.config.vocab_size, -1)

    def forward(self, pixels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """A vector for every patch, ``[N, patches, hidden_size]``; patches that ``hidden [N, patches]`` names are not
        seen."""
        x = self.patches(self.cut(pixels).to(self.patches.weight.dtype))
        if hidden is not None:
            x = torch.where(hidden[..., None], self.mask.to(x.dtype), x)
        places = torch.zeros(1, x.shape[1], dtype=torch.int64, device=x.device)
        return self.model(x + self.model.embed_tokens.weight, places, all_patches())

    def initialise(self, seed: int) -> VisionEncoder:
        """Random weights that depend on the seed alone. Returns the encoder."""
        generator = torch.Generator(self.mask.device).manual_seed(seed % 2**63)
        self.model.initialise(generator)
        for layer in (self.patches, self.paint):
            nn.init.normal_(layer.weight, 0.0, layer.in_features**-0.5, generator=generator)
        nn.init.zeros_(self.paint.bias)
        nn.init.normal_(self.mask, 0.0, 0.02, generator=generator)
        return self


class Projector(nn.Module):
    """Two layers with a GELU between them (LLaVA-1.5, Liu et al. 2024)."""

    def __init__(self, width: int, target: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, target), nn.Linear(target, target)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., target]``."""
        return self.linear_2(F.gelu(self.linear_1(x)))

    def initialise(self, seed: int) -> Projector:
        """Random weights that depend on the seed alone; what comes out is about as long as the embeddings of words.
        Returns the projector."""
        generator = torch.Generator(self.linear_1.weight.device).manual_seed(seed % 2**63)
        for layer, deviation in ((self.linear_1, 1.0), (self.linear_2, 0.1)):
            nn.init.normal_(layer.weight, 0.0, deviation * layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        return self


class SeeingModel(LanguageModel):
    """A language model with a :class:`VisionEncoder` and a :class:`Projector` in front of it. In its prompts
    ``picture_id``, a token that no text has, stands in each place of a picture's patch."""

    def __init__(self, config: ModelConfig, vision: VisionConfig, picture_id: int) -> None:
        super().__init__(config)
        self.vision, self.projector, self.picture_id = VisionEncoder(vision), Projector(
            vision.hidden_size, config.hidden_size), picture_id

    @property
    def picture_places(self) -> int:
        """The places that a picture takes in a prompt."""
        return self.vision.config.vocab_size

    def pictures(self, pixels: Tensor) -> Tensor:
        """What stands in the prompt for pictures ``[N, channels, size, size]`` of bytes: ``[N, patches,
        hidden_size]``."""
        return self.projector(self.vision(pixels))

    def vectors(self, tokens: Tensor, pictures: Tensor | None) -> Tensor:
        """The embeddings of ``tokens [B, T]``, ``[B, T, hidden_size]``, with ``pictures [N, patches, hidden_size]`` in
        their places, row by row. Raises :class:`TriviumError` for as many places as there are not patches."""
        embedded = self.model.embed_tokens(tokens)
        if pictures is None:
            return embedded
        places = tokens == self.picture_id
        if int(places.sum()) != pictures.shape[:-1].numel():
            raise TriviumError(
                f"the prompt has {int(places.sum())} places for pictures, but the pictures have "
                f"{pictures.shape[:-1].numel()} patches"
            )
        return embedded.masked_scatter(places[..., None], pictures.to(embedded.dtype))

    @classmethod
    def from_language_model(cls, source: LanguageModel, vision: VisionConfig, picture_id: int) -> SeeingModel:
        """``source`` (shared, not copied) behind an encoder and a projector without weights yet."""
        made = cls(source.config, vision, picture_id)
        made.model, made.lm_head = source.model, source.lm_head
        return made

    def save_folder(self, folder: Path, ids: dict[str, Any]) -> None:
        """Write the decoder's folder and, beside it, what sees."""
        with torch.device("meta"):
            decoder = LanguageModel(self.config)
        decoder.model, decoder.lm_head = self.model, self.lm_head
        save_vision(folder, self.vision, self.projector, self.picture_id)
        save_own(decoder, folder, ids)


def save_vision(folder: Path, vision: VisionEncoder, projector: Projector | None = None,
                picture_id: int | None = None) -> None:
    """Write ``vision.json`` and ``vision.safetensors``: an encoder, and the projector of the model that it is part
    of."""
    weights = {f"vision.{name}": tensor for name, tensor in vision.state_dict().items()}
    weights |= {f"projector.{name}": tensor for name, tensor in projector.state_dict().items()} if projector else {}
    with written_aside(folder / WEIGHTS) as aside:
        save_file({name: tensor.detach().cpu().contiguous()
                   for name, tensor in weights.items()}, aside, {"format": "pt"})
    write_json(folder / CONFIG, {"vision": asdict(vision.config), "picture_id": picture_id})


def read_vision(folder: Path) -> tuple[VisionConfig, int | None, dict[str, Tensor]]:
    """What :func:`save_vision` wrote: the encoder's shape, the picture's token, and the weights. Raises
    :class:`TriviumError` for files that are missing, broken or do not fit."""
    values = read_object(folder / CONFIG)
    try:
        config = VisionConfig(**values["vision"])
        picture_id = values["picture_id"] if values["picture_id"] is None else int(values["picture_id"])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise TriviumError(f"{folder / CONFIG}: not a description of a vision encoder ({error})") from error
    try:
        with safetensors.safe_open(folder / WEIGHTS, framework="pt") as file:
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}
    except FileNotFoundError as error:
        raise TriviumError(f"{folder / WEIGHTS}: no such file") from error
    except Exception as error:  # safetensors has one exception type, which its stubs do not export
        raise TriviumError(f"{folder / WEIGHTS}: not a readable safetensors file ({error}); copy it again") from error
    return config, picture_id, weights


def load_vision(folder: Path) -> VisionEncoder:
    """The vision encoder of a folder: one that was pretrained alone, or that of a model that sees."""
    check_made(folder)
    config, _, weights = read_vision(folder)
    return fill(
        folder, VisionEncoder(config),
        {name.removeprefix("vision."): tensor
         for name, tensor in weights.items() if name.startswith("vision.")})


def load_seeing(model: LanguageModel, folder: Path, dtype: torch.dtype | None,
                device: torch.device | str) -> SeeingModel:
    """A folder's decoder behind the encoder and the projector that stand in the same folder."""
    config, picture_id, weights = read_vision(folder)
    if picture_id is None:
        raise TriviumError(f"{folder / CONFIG}: picture_id is missing, so this encoder belongs to no decoder")
    seeing = SeeingModel.from_language_model(model, config, picture_id)
    for part in ("vision", "projector"):
        fill(folder, getattr(seeing, part),
             {name.removeprefix(f"{part}."): tensor
              for name, tensor in weights.items() if name.startswith(f"{part}.")})
    return seeing.to(device=device, dtype=dtype)


def fill(folder: Path, module: Any, weights: dict[str, Tensor]) -> Any:
    """Give a module its weights; raises :class:`TriviumError` where they do not fit."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise TriviumError(
            f"{folder / WEIGHTS}: the weights do not fit {CONFIG} ({' '.join(str(error).split())[:200]})") from error
    return module
