"""The Python face: what the commands do with a model, a program can do too."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivium.errors import TriviumError
from trivium.generation.engine import Sampling, generate
from trivium.generation.sampling import usual_sampling
from trivium.generation.translate import translate
from trivium.model import LanguageModel, RewardModel
from trivium.model import folder as model_folder
from trivium.model.encoder import Classifier, MaskedModel, embeddings, is_encoder, joined, load_encoder, padded
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.model.folder import what_is
from trivium.model.gguf.read import opened
from trivium.model.images import look
from trivium.model.vision import SeeingModel
from trivium.objectives.language_modeling import token_log_probs
from trivium.tokenizer.chat import ChatTokenizer, Message

EMPTY = "an empty text has no vector and no label"


class Model:
    """A model folder, ready to answer or, for a reward model, to judge; an encoder's, to compare and label."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder = opened(folder)
        self.model = (load_encoder(folder) if is_encoder(folder) else model_folder.load(folder)).eval()
        self.tokenizer = ChatTokenizer.load(folder)
        if self.tokenizer.vocab_size > self.model.config.vocab_size:
            raise TriviumError(f"{folder}: the tokenizer has {self.tokenizer.vocab_size} entries, but the model only "
                               f"{self.model.config.vocab_size}")

    def _language_model(self) -> LanguageModel:
        if not isinstance(self.model, LanguageModel):
            raise TriviumError(
                f"{self.folder}: {what_is(self.model)}, where a language model is needed; "
                "it has .score(messages), or .translate(text)"
            )
        return self.model

    @torch.no_grad()
    def generate(self, prompt: str | Sequence[Message], temperature: float | None = None, max_new_tokens: int = 128,
                 top_p: float | None = None, top_k: int | None = None, seed: int = 0,
                 tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """An answer to chat messages, or the continuation of a text; reasoning and calls of ``tools`` (functions in
        OpenAI's form) stand in it as the model writes them. A model that sees takes messages whose content is
        a list of parts, pictures among them, as OpenAI's API has it: data URLs, or names of files in the current folder
        and below. Temperature, top-p and top-k are, unless given, those of the model's ``generation_config.json``, else
        0.3 for models of less than 500 million parameters and 0.7 for others. An encoder-decoder translates the text,
        or that of the last message."""
        if isinstance(self.model, EncoderDecoder):
            return self.translate(prompt if isinstance(prompt, str) else prompt[-1]["content"], temperature or 0.0,
                                  max_new_tokens, 1.0 if top_p is None else top_p, top_k or 0, seed)
        model, pictures = self._language_model(), None
        if isinstance(prompt, str):
            ids = self.tokenizer.opened(prompt)
        else:
            ids = self.tokenizer.encode_chat(
                prompt, generation_prompt=True,
                picture_places=model.picture_places if isinstance(model, SeeingModel) else 0, tools=tools)[0]
            if isinstance(model, SeeingModel):
                pixels = look(prompt, model.vision.config.size, model.vision.config.channels, Path.cwd())
                pictures = model.pictures(torch.from_numpy(pixels)) if len(pixels) else None
        stop = [self.tokenizer.end_id, self.tokenizer.document_id]
        asked = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        usual: dict[str, Any] = usual_sampling(self.folder, sum(weight.numel() for weight in model.parameters()))
        sampling = Sampling(max_new_tokens=max_new_tokens, seed=seed,
                            **usual | {name: value for name, value in asked.items() if value is not None})
        tokens = generate(model, [ids], sampling, stop, pictures=[pictures])[0][0].tokens
        if isinstance(prompt, str) and max_new_tokens and (not tokens or tokens[0] in stop):
            warnings.warn("the model ended the text at once, with its first token; a model that is tuned to chat "
                          "answers messages: generate([{'role': 'user', 'content': ...}])", stacklevel=2)
        return self.tokenizer.decode([token for token in tokens if token not in stop])

    def translate(self, source: str, temperature: float = 0.0, max_new_tokens: int = 128, top_p: float = 1.0,
                  top_k: int = 0, seed: int = 0) -> str:
        """What an encoder-decoder writes for a source, by its likeliest tokens unless a temperature is given."""
        if not isinstance(self.model, EncoderDecoder):
            raise TriviumError(f"{self.folder}: {what_is(self.model)}, where an encoder-decoder is needed")
        sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens, top_p=top_p, top_k=top_k, seed=seed)
        return self.tokenizer.decode(
            translate(self.model, [self.tokenizer.encode(source)], sampling, self.tokenizer.document_id)[0])

    def _encoder(self) -> MaskedModel | Classifier:
        if not isinstance(self.model, (MaskedModel, Classifier)):
            raise TriviumError(f"{self.folder}: {what_is(self.model)}, where an encoder is needed")
        return self.model

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], rows: int = 32) -> np.ndarray:
        """An encoder's vectors ``[N, hidden_size]`` of length 1: the mean of each text's last hidden states. Texts are
        cut at the model's positions; ``rows`` are read at a time."""
        model = self._encoder()
        cut = [ids[:model.config.max_positions] for ids in self.tokenizer.encode_batch(texts)]
        if not all(cut):
            raise TriviumError(EMPTY)
        return embeddings(model, cut, self.tokenizer.pad_id, rows)

    def similarity(self, one: str, other: str) -> float:
        """How alike an encoder finds two texts, from -1 to 1: the cosine of the angle between their vectors."""
        a, b = self.embed([one, other])
        return float(a @ b)

    @torch.inference_mode()
    def label(self, text: str, second: str | None = None) -> dict[str, float]:
        """The probability that a classifier gives each label of a text, or of two texts, the likeliest first."""
        model, most = self._encoder(), self.model.config.max_positions
        if not isinstance(model, Classifier):
            raise TriviumError(f"{self.folder}: this encoder knows no labels; fine-tune it by a `classify` stage")
        ids = self.tokenizer.encode(text)
        ids = ids[:most] if second is None else joined(ids, self.tokenizer.encode(second), self.tokenizer.document_id,
                                                       most)
        if not ids:
            raise TriviumError(EMPTY)
        probabilities = model(*padded([ids], self.tokenizer.pad_id))[0].softmax(-1)
        return {model.labels[i]: float(probabilities[i]) for i in probabilities.argsort(descending=True).tolist()}

    @torch.inference_mode()
    def logits(self, token_ids: Sequence[int] | Sequence[Sequence[int]] | Tensor | np.ndarray) -> Tensor:
        """Logits of the next token after each of ``token_ids``: ``[T, vocab_size]`` of a text ``[T]``, ``[B, T,
        vocab_size]`` of texts of one length ``[B, T]``. Raises :class:`TriviumError` for anything else, and for numbers
        that are no tokens of the model."""
        model, tokens = self._language_model(), self._tokens(token_ids)
        found: Tensor = model(tokens if tokens.ndim == 2 else tokens[None])
        return found if tokens.ndim == 2 else found[0]

    def _tokens(self, token_ids: object) -> Tensor:
        """Token ids as whole numbers ``[T]`` or ``[B, T]`` that the model has."""
        size = self.model.config.vocab_size
        if isinstance(token_ids, str):
            raise TriviumError("token ids are asked for, not a text; .tokenizer.encode(text) gives a text's")
        try:
            tokens = torch.as_tensor(token_ids)
        except (TypeError, ValueError, RuntimeError):
            raise TriviumError("token ids are whole numbers: a list [T], or lists of one length [B, T]") from None
        if tokens.ndim not in (1, 2) or not tokens.numel():
            raise TriviumError(f"token ids come as [T] or [B, T], with at least one token, not as {list(tokens.shape)}")
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise TriviumError(f"token ids are whole numbers, not {str(tokens.dtype).removeprefix('torch.')}")
        tokens = tokens.long()
        if int(tokens.min()) < 0 or int(tokens.max()) >= size:
            wrong = tokens[(tokens < 0) | (tokens >= size)].flatten()[0]
            raise TriviumError(f"{int(wrong)} is no token of this model: they go from 0 to {size - 1}")
        if tokens.shape[-1] > (most := self.model.config.max_positions):
            raise TriviumError(f"{tokens.shape[-1]} tokens are more than the model's {most} positions")
        return tokens

    def _row(self, token_ids: Sequence[int] | Tensor) -> Tensor:
        """Token ids as a row ``[1, T]`` that fits the model."""
        return self._tokens(token_ids).reshape(1, -1)

    @torch.inference_mode()
    def log_probs(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None) -> np.ndarray:
        """Log-probabilities of what the assistant says in ``messages``, a number for each of its tokens, in nats."""
        model = self._language_model()
        ids, learn = self.tokenizer.encode_chat(messages, tools=tools)
        tokens = self._row(ids)[0]
        places = torch.tensor(learn).nonzero()[:, 0]
        hidden = model.model(tokens[None])[0]
        return token_log_probs(hidden[places - 1], model.lm_head.weight, tokens[places]).numpy()

    @torch.inference_mode()
    def score(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> float:
        """A reward model's score of the last answer in ``messages``, read where training read it: at the token that
        ends the answer, whatever the template writes after it. Add ``.shift`` for a score by which demonstrations
        average 0. ``tools`` are the functions that the template shows the model."""
        if not isinstance(self.model, RewardModel):
            raise TriviumError(f"{self.folder}: a language model does not score; name a reward model")
        if not messages or messages[-1].get("role") != "assistant":
            raise TriviumError("a score is one of an answer, but the last message is not the assistant's")
        judged = [*messages[:-1], {name: value for name, value in messages[-1].items() if name != "train"}]
        more: dict[str, Any] = {"tools": tools} if tools else {}
        ids, learned = self.tokenizer.encode_chat(judged, **more)
        end = max(place for place, learn in enumerate(learned) if learn)
        return self.model(self._row(ids[:end + 1]))[0, -1].item()

    @property
    def shift(self) -> float:
        """What centres a reward model's scores on demonstrations."""
        return self.model.shift if isinstance(self.model, RewardModel) else 0.0


def load(folder: str | Path) -> Model:
    """Read a model folder, or a GGUF file. Raises :class:`TriviumError` for a folder that is not whole."""
    return Model(Path(folder))
