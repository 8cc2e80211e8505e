"""Seeing through a model: what its tokenizer makes of a text, what it expects after every token, what its heads look
at, what a reward model thinks of an answer as it grows, and where a policy left its reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trivium.errors import TriviumError, counted
from trivium.model import LanguageModel, RewardModel
from trivium.model.check import ADAPTER, chats, is_model, object_in
from trivium.model.folder import read_config
from trivium.model.gguf.read import opened
from trivium.model.looking import attention_weights, divergences, following, scores_if_ended
from trivium.planning.flops import parameters
from trivium.resources import available_memory
from trivium.stages.models import load_language_model, load_reward_model
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.token_bytes import token_bytes

MOST_TOKENS = 512
"""Tokens of a text that is looked at: what is drawn grows with their square."""
MOST_MODELS = 3
"""Models that are kept in memory: a policy, its reference, a reward model."""
LIKELIEST = 10
"""Tokens that are told of those that may come next."""

Stamp = tuple[Path, int, int]


class SeeThrough:
    """Looks through the models of folders. The last few models are kept, as long as their folders stay as they were;
    for another the longest unused ones go, when there are :data:`MOST_MODELS` or memory is short. Numbers are computed
    in float32, and all are of texts of at most :data:`MOST_TOKENS` tokens."""

    def __init__(self) -> None:
        self.models: dict[Stamp, tuple[LanguageModel | RewardModel, ChatTokenizer]] = {}
        self.tokenizers: dict[Stamp, ChatTokenizer] = {}

    def about(self, folder: Path) -> dict[str, Any]:
        """``{"kind", "chats", "layers", "heads", "positions"}`` of a model's folder: the kind is ``language``,
        ``reward`` or ``other``; raises :class:`TriviumError` for a folder that cannot be read."""
        config, values = read_config(opened(folder))
        told = str(object_in(folder / ADAPTER).get("task_type") if (folder / ADAPTER).is_file() else
                   values.get("architectures"))
        kind = ("reward" if "SequenceClassification" in told or "SEQ_CLS" in told else
                "other" if values.get("is_encoder_decoder") else "language")
        return {"kind": kind, "chats": chats(folder), "layers": config.num_layers, "heads": config.num_heads,
                "positions": config.max_positions}

    def pieces(self, folder: Path, text: str | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``{"tokens", "rendered"}``: the tokens that a model reads of a text, or of a chat as the template renders it,
        whose last message may be the user's: then the assistant's turn is opened. A token is ``{"place", "id", "text",
        "bytes", "special", "loss"}`` with its bytes in hexadecimal and whether it carries loss in fine-tuning (None in
        a text that is no chat). ``rendered`` is the chat as text."""
        tokenizer = self.tokenizer(folder)
        if isinstance(text, str):
            ids, rendered = tokenizer.opened(text), None
            learned: Sequence[bool | None] = [None] * len(ids)
        else:
            prompt = bool(text) and isinstance(text[-1], Mapping) and text[-1].get("role") != "assistant"
            ids, learned = tokenizer.encode_chat(text, generation_prompt=prompt)
            rendered = tokenizer.render(text, generation_prompt=prompt)
        check_length(ids)
        return {"rendered": rendered, "tokens": [
            {"place": place, **piece(tokenizer, id), "loss": loss}
            for place, (id, loss) in enumerate(zip(ids, learned, strict=True))]}

    def next(self, folder: Path, ids: Sequence[int]) -> dict[str, Any]:
        """``{"places"}``: for every token ``{"entropy", "likeliest", "standing"}`` of what the model expects after it:
        the entropy in nats; the :data:`LIKELIEST` tokens with ``probability``, ``id``, ``text``, ``bytes`` and
        ``special``; and the ``probability``, ``log_probability`` and ``rank`` (1 is the likeliest) of the token that
        stands there, None after the last."""
        model, tokenizer = self.language(folder)
        found = following(model, tokens_of(model, ids), LIKELIEST)
        ranks, standing = found.ranks.tolist(), found.standing.tolist()
        return {"places": [{
            "entropy": short(entropy),
            "likeliest": [{**piece(tokenizer, id), "probability": short(math.exp(log_p))}
                          for id, log_p in zip(likeliest, log_probs, strict=True)],
            "standing": {"probability": short(math.exp(standing[place])), "log_probability": short(standing[place]),
                         "rank": ranks[place]} if place < len(ranks) else None}
            for place, (entropy, likeliest, log_probs) in enumerate(zip(
                found.entropies.tolist(), found.likeliest.tolist(), found.log_probs.tolist(), strict=True))]}

    def attention(self, folder: Path, ids: Sequence[int], layer: int, head: int) -> dict[str, Any]:
        """``{"weights", "before"}`` of a head of a layer, both counted from 0: a row for each token, with what it gives
        each token up to itself; and what goes to a prefix before the text, where an adapter has one, else None."""
        model, _ = self.language(folder)
        if not 0 <= head < model.config.num_heads:
            raise TriviumError(f"head {head}: the model's heads go from 0 to {model.config.num_heads - 1}")
        weights, before = attention_weights(model, tokens_of(model, ids), layer)
        rows = [[round(value, 7) for value in row[:place + 1]] for place, row in enumerate(weights[head].tolist())]
        return {"weights": rows, "before": [short(one) for one in before[head].tolist()] if before.any() else None}

    def scores(self, folder: Path, judged: Path, ids: Sequence[int], first: int) -> dict[str, Any]:
        """``{"scores", "shift"}``: what the reward model in ``folder`` would give the text, if it ended after each
        token from place ``first`` on, as the tokens of the model in ``judged`` say it. The scores are centred by the
        shift, so that demonstrations average 0."""
        self.check_alike(folder, judged)
        model, tokenizer = self.reward(folder)
        if not 0 <= first < len(ids):
            raise TriviumError(f"place {first}: the text's tokens go from 0 to {len(ids) - 1}")
        found = scores_if_ended(model, tokens_of(model, ids), tokenizer.end_id, first)
        return {"scores": [short(one + model.shift) for one in found.tolist()], "shift": short(model.shift)}

    def divergence(self, folder: Path, reference: Path, ids: Sequence[int]) -> dict[str, Any]:
        """``{"ratios", "kl"}`` at every token but the first, in nats: ``log p - log r`` of the token that stands there,
        for the policy p in ``folder`` and its reference r, and the divergence of the whole distributions,
        ``KL(p || r)``."""
        self.check_alike(folder, reference)
        policy, _ = self.language(folder)
        other, _ = self.language(reference, beside=folder)
        if other.config.vocab_size != policy.config.vocab_size:
            raise TriviumError(f"{reference}: {other.config.vocab_size} outputs, but the policy has "
                               f"{policy.config.vocab_size}")
        tokens_of(other, ids)
        ratios, whole = divergences(policy, other, tokens_of(policy, ids)) if len(ids) > 1 else (Tensor(), Tensor())
        return {"ratios": [short(one) for one in ratios.tolist()], "kl": [short(one) for one in whole.tolist()]}

    def check_alike(self, one: Path, other: Path) -> None:
        """Raise :class:`TriviumError` for folders whose tokens mean different things."""
        if self.tokenizer(one).digest != self.tokenizer(other).digest:
            raise TriviumError(f"{one} and {other} have different tokenizers: the tokens of one mean nothing to the "
                               "other; choose models that were made from one")

    def tokenizer(self, folder: Path) -> ChatTokenizer:
        """A folder's tokenizer."""
        place = opened(folder)
        key = stamp(place)
        if key not in self.tokenizers:
            self.tokenizers = dict([*self.tokenizers.items(), (key, ChatTokenizer.load(place))][-2 * MOST_MODELS:])
        return self.tokenizers[key]

    def language(self, folder: Path, beside: Path | None = None) -> tuple[LanguageModel, ChatTokenizer]:
        """A folder's language model, loaded beside another."""
        model, tokenizer = self._kept(folder, load_language_model, beside)
        if not isinstance(model, LanguageModel):
            raise TriviumError(f"{folder}: a reward model, where a language model is looked through")
        return model, tokenizer

    def reward(self, folder: Path) -> tuple[RewardModel, ChatTokenizer]:
        """A folder's reward model."""
        model, tokenizer = self._kept(folder, load_reward_model)
        if not isinstance(model, RewardModel):
            raise TriviumError(f"{folder}: a language model, where a reward model was expected")
        return model, tokenizer

    def _kept(self, folder: Path, load: Any, beside: Path | None = None) -> tuple[
            LanguageModel | RewardModel, ChatTokenizer]:
        place = opened(folder)
        if not is_model(place):
            raise TriviumError(f"{folder}: no model lies there")
        key, needed = stamp(place), stamp(opened(beside)) if beside else None
        if key in self.models:
            self.models[key] = self.models.pop(key)
            return self.models[key]
        bytes_ = 4 * parameters(read_config(place)[0])
        for old in [old for old in self.models if old != needed]:  # the longest unused one first
            if len(self.models) < MOST_MODELS and bytes_ < available_memory():
                break
            del self.models[old]
        if bytes_ >= (free := available_memory()):
            raise TriviumError(f"{folder}: its weights need {bytes_ / 1e9:.1f} GB in float32, but {free / 1e9:.1f} GB "
                               "of memory are free; end what runs beside it, or take a smaller model")
        model, tokenizer = load(place)
        self.models[key] = model.eval().requires_grad_(False), tokenizer
        return self.models[key]


def piece(tokenizer: ChatTokenizer, id: int) -> dict[str, Any]:
    """A token's ``id``, ``text``, ``bytes`` in hexadecimal, and whether it is ``special``: a control token, that no
    text is turned into. The bytes of a token that the tokenizer does not have are none."""
    known = token_bytes(tokenizer)
    return {"id": id, "text": tokenizer.decode([id]), "bytes": known[id].hex() if id < len(known) else "",
            "special": id in tokenizer.stop_ids}


def answer_in(tokens: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Where the last answer begins, and the place behind its end, among tokens as :meth:`SeeThrough.pieces` gives them:
    the last stretch that carries loss, without what a template writes after the end; all tokens where none does."""
    places = {one["place"] for one in tokens if one["loss"]}
    if not places:
        return 0, len(tokens)
    return max(place for place in places if place - 1 not in places), max(places) + 1


def check_length(ids: Sequence[int]) -> None:
    """Raise :class:`TriviumError` for a text that is too long to be looked at."""
    if len(ids) > MOST_TOKENS:
        raise TriviumError(f"the text has {len(ids)} tokens; at most {MOST_TOKENS} are looked at: shorten it by "
                           f"{counted(len(ids) - MOST_TOKENS, 'token')}")


def tokens_of(model: LanguageModel | RewardModel, ids: Sequence[int]) -> Tensor:
    """Token ids ``[T]`` that the model has, no more than it has positions. Raises :class:`TriviumError` otherwise."""
    check_length(ids)
    size, most = model.config.vocab_size, model.config.max_positions
    if not ids:
        raise TriviumError("a text without a token: there is nothing to look at")
    if len(ids) > most:
        raise TriviumError(f"the text has {len(ids)} tokens, more than the model's {most} positions")
    if wrong := [id for id in ids if not 0 <= id < size]:
        raise TriviumError(f"{wrong[0]} is no token of this model: they go from 0 to {size - 1}")
    return torch.tensor(ids)


def short(value: float) -> float:
    """A number to eight digits, which is more than float32 has."""
    return float(f"{value:.8g}")


def stamp(folder: Path) -> Stamp:
    """What tells a folder's model from a later one in its place."""
    files = [path.stat() for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    if not files:
        raise TriviumError(f"{folder}: no model lies there")
    return folder.resolve(), max(one.st_mtime_ns for one in files), sum(one.st_size for one in files)
