"""What a model of another family can do is tried out when it is loaded, on its own weights, by a few texts of two dozen
tokens in all.

The library's logits of each text alone are the measure. Packed documents and several responses under one prompt must
have the same, and so must a text that is sampled token by token. What does not is computed another way, if that way
gives the measure: texts in rows of their own, the library's own cache, or no cache. A model that is right in no way is
refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.model.apart import hidden_apart
from trivium.model.attention import causal_attention, packed_attention
from trivium.model.foreign_models import OURS, ForeignLanguageModel, telling
from trivium.model.plain_decoder import PlainDecoder
from trivium.model.stateful_decoder import StatefulDecoder

FAULTS = (AttributeError, TypeError, ValueError, RuntimeError, KeyError, IndexError, AssertionError,
          NotImplementedError, ImportError, TriviumError)
"""What a library's model raises when it is asked for what it was not written for."""


@dataclass(frozen=True)
class Found:
    """What was found out about a model."""

    refused: str = ""
    """Why it is refused; empty for a model that is right."""
    reach: int = 0
    kept: int = 0
    cached: bool = True
    factor: float = 1.0
    why: str = ""

    def apply(self, model: ForeignLanguageModel) -> None:
        """Let a model compute as it was found to be right."""
        trunk: Any = model.model
        trunk.reach, trunk.kept, trunk.cached = self.reach, self.kept, self.cached
        trunk.factor, trunk.why = self.factor, self.why
        if self.reach:
            model.whole[0].set_attn_implementation(OURS)


@dataclass(frozen=True)
class Texts:
    """A prompt with two responses, and another document with one."""

    prompt: Tensor
    responses: tuple[Tensor, Tensor]
    other: Tensor
    answer: Tensor

    @classmethod
    def of(cls, vocabulary: int, longest: int, device: torch.device) -> Texts:
        """Texts that any model can read, of at most ``longest`` tokens each."""
        room = min(longest, 9)
        sizes = (max(1, room // 2), max(1, room - room // 2), max(1, (room - room // 2) - 2), max(1, room // 3),
                 max(1, room // 2))
        drawn = torch.randint(0, vocabulary, (sum(sizes),), generator=torch.Generator().manual_seed(11)).to(device)
        prompt, one, two, other, answer = torch.split(drawn, list(sizes))
        return cls(prompt, (one, two), other, answer)

    def alone(self) -> list[Tensor]:
        """The three texts."""
        return [torch.cat([self.prompt, self.responses[0]]), torch.cat([self.prompt, self.responses[1]]),
                torch.cat([self.other, self.answer])]

    def packed(self) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
        """All in one row ``[1, T]``: tokens, positions, documents, parents, and where each text's tokens stand."""
        parts = [self.prompt, *self.responses, self.other, self.answer]
        parents, starts = [-2, 0, 0, -2, 3], [0, len(self.prompt), len(self.prompt), 0, len(self.other)]
        row = torch.cat(parts)
        places = torch.split(torch.arange(len(row), device=row.device), [len(part) for part in parts])
        positions = [start + torch.arange(len(part)) for start, part in zip(starts, parts, strict=True)]
        names = [torch.full((len(part),), i) for i, part in enumerate(parts)]
        before = [torch.full((len(part),), parent) for part, parent in zip(parts, parents, strict=True)]
        place, name, parent = (torch.cat(one)[None].to(row.device) for one in (positions, names, before))
        return (row[None], place, name, parent,
                [torch.cat([places[0], places[1]]), torch.cat([places[0], places[2]]),
                 torch.cat([places[3], places[4]])])


class Trial:
    """The trial of one model. What differs by no more than ``tolerance``, a share of the logits' deviation, is
    rounding: ``rounding``, or what a text differs by among copies of itself."""

    def __init__(self, model: ForeignLanguageModel, rounding: float) -> None:
        self.model, self.whole = model, model.whole[0]
        self.trunk: Any = model.model
        self.texts = Texts.of(model.config.vocab_size, model.config.max_positions, model.lm_head.weight.device)
        self.measure = [self.whole(input_ids=text[None], use_cache=False).logits[0].float()
                        for text in self.texts.alone()]
        if not all(bool(one.isfinite().all()) for one in self.measure):
            raise TriviumError("its logits are not finite")
        self.deviation = max(float(torch.cat(self.measure).std()), 1e-6)
        thrice = self.whole(input_ids=self.texts.alone()[0].expand(3, -1), use_cache=False).logits[1].float()
        self.tolerance = max(rounding, 8 * float((thrice - self.measure[0]).abs().max()) / self.deviation)

    def off(self, found: list[Tensor]) -> float:
        """By how much logits differ from the measure, as a share of the deviation."""
        worst = max(float((one.float() - wanted).abs().max()) for one, wanted in zip(found, self.measure, strict=True))
        return worst / self.deviation if worst == worst else float("inf")

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""
        return self.model.lm_head(hidden)

    def plain(self) -> str:
        """Whether its logits are hidden states times a matrix (and a factor, which is noted), and each token's depend
        on those before it alone; returns what is wrong."""
        found = [self.head(self.trunk(text[None]))[0] for text in self.texts.alone()]
        if self.off(found) > self.tolerance:
            theirs, ours = torch.cat(self.measure), torch.cat(found).float()
            self.trunk.factor = float((theirs * ours).sum() / (ours * ours).sum())
            found = [self.head(self.trunk(text[None]))[0] for text in self.texts.alone()]
            if self.off(found) > self.tolerance:
                return ("its logits are no plain product of hidden states and output matrix (caps, scales or biases), "
                        "which is not supported")
        text, size = self.texts.alone()[0], len(self.texts.prompt)
        changed = torch.cat([text[:size], text[size:].flip(0)[:-1], text[:1]])
        before = self.head(self.trunk(changed[None]))[0, :size].float()
        if float((before - self.measure[0][:size]).abs().max()) > self.tolerance * self.deviation:
            return "its tokens see those that come after them, so it writes no text"
        return ""

    def apart(self) -> float:
        """By how much texts in rows of their own, side by side, differ from the measure."""
        tokens, _, documents, parents, places = self.texts.packed()
        hidden = hidden_apart(self.trunk, tokens, documents, parents)
        return self.off([self.head(hidden[place]) for place in places])

    def packed(self) -> float:
        """By how much texts in one row differ from the measure."""
        tokens, positions, documents, parents, places = self.texts.packed()
        hidden = self.trunk(tokens, positions, packed_attention(documents, parents, positions))
        return self.off([self.head(hidden[0, place]) for place in places])

    def sampled(self, decoder: PlainDecoder | StatefulDecoder) -> float:
        """By how much the logits of texts that go on token by token, after prompts side by side and with one of these
        copied, differ from the measure."""
        texts, starts = self.texts.alone(), [len(self.texts.prompt) - 1, len(self.texts.other) - 1]
        prompts = torch.zeros(2, max(starts), dtype=torch.int64, device=texts[0].device)
        for row, text in enumerate((texts[0], texts[2])):
            prompts[row, :starts[row]] = text[:starts[row]]
        if max(starts):
            decoder.prefill(prompts, 0, starts)
        decoder.move([1], [2], max(starts))
        decoder.move([0], [1], max(starts))
        begins = [starts[0], starts[0], starts[1]]
        worst = 0.0
        for i in range(min(len(text) - begin for text, begin in zip(texts, begins, strict=True))):
            places = torch.tensor([begin + i for begin in begins], device=prompts.device)
            tokens = torch.stack([text[begin + i] for text, begin in zip(texts, begins, strict=True)])
            logits = decoder.step(tokens, places, int(places.max()) + 1, len(set(begins)) == 1)
            wanted = torch.stack([one[begin + i] for one, begin in zip(self.measure, begins, strict=True)])
            by = float((logits - wanted).abs().max()) / self.deviation
            worst = max(worst, by if by == by else float("inf"))
        return worst


def prove(model: ForeignLanguageModel) -> Found:
    """Try a model out; leaves it as it was. The model computes by the library's own attention when it comes here."""
    trunk: Any = model.model
    with torch.no_grad(), in_float32(model) as rounding:
        try:
            trial = Trial(model, rounding)
            if wrong := trial.plain():
                return Found(wrong)
            if (by := trial.apart()) > trial.tolerance:
                return Found(f"padding after a text changes its logits by {by:.2g} of their deviation")
        except FAULTS as error:
            return Found(f"it cannot be computed as a causal language model ({' '.join(str(error).split())[:200]})")
        trunk.cached = _works(lambda: trial.sampled(StatefulDecoder(model, 3)), trial.tolerance)
        reach, kept, why = exchanged(model, trial)
        model.whole[0].set_attn_implementation(model.native)
        return Found("", reach, kept, trunk.cached, trunk.factor, why)


def exchanged(model: ForeignLanguageModel, trial: Trial) -> tuple[int, int, str]:
    """Up to how many positions texts can be packed, and sampled with keys and values alone, by the attention that we
    bring; and where they cannot, why."""
    trunk: Any = model.model
    text = trial.texts.alone()[0][None]
    try:
        model.whole[0].set_attn_implementation(OURS)
        with telling() as told:
            alone = trial.head(trunk(text, None, causal_attention()))[0].float()
        if not told.calls:
            return 0, 0, "its attention is its own"
        if told.more:
            return 0, 0, f"its attention is more than causal ({', '.join(sorted(told.more))})"
        if float((alone - trial.measure[0]).abs().max()) > trial.tolerance * trial.deviation:
            return 0, 0, "its attention is more than causal"
        if (by := trial.packed()) > trial.tolerance:
            return 0, 0, f"packed into one row, texts change one another's logits by {by:.2g} of their deviation"
        reaches = [seen_up_to(mask, trunk.reach) for mask in told.masks if mask is not None]
        kinds = getattr(model.whole[0].config.get_text_config(decoder=True), "layer_types", None) or ["unknown"]
        if set(kinds) == {"full_attention"} and trunk.reach in reaches:
            reaches = []  # the library makes a mask of every kind, those that no layer asks for too
        reach = min([trunk.reach, *reaches])
        if reach < text.shape[1]:
            return 0, 0, f"its attention reaches no farther than {reach} tokens back"
        works = _works(lambda: trial.sampled(PlainDecoder(model, 3, 16)), trial.tolerance)
        return reach, reach if works else 0, f"beyond {reach} positions it computes otherwise" if (
            reach < model.config.max_positions) else ""
    except FAULTS as error:
        return 0, 0, f"its attention cannot be exchanged ({' '.join(str(error).split())[:100]})"


def _works(trial: Any, tolerance: float) -> bool:
    try:
        return trial() <= tolerance
    except FAULTS:
        return False


def seen_up_to(mask: Any, longest: int) -> int:
    """The most positions within which a mask ``(row, head, query place, key place) -> seen`` is plainly causal."""
    nought = torch.zeros((), dtype=torch.int64)

    def all_seen(size: int) -> bool:
        return bool(mask(nought, nought, torch.tensor(size - 1), torch.arange(size)).all())

    if all_seen(longest):
        return longest
    low, high = 1, longest  # all is seen at `low`, not at `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if all_seen(middle) else (low, middle)
    return low


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[float]:
    """Within it, a model's weights are float32 where memory allows, which loses nothing; gives the share of the logits'
    deviation that rounding may change then."""
    tensors = [one for one in (*model.parameters(), *model.buffers())
               if one.dtype in (torch.bfloat16, torch.float16)]
    if not tensors:
        yield 2e-4
        return
    needed = 2 * sum(one.nbytes for one in tensors)
    free = (torch.cuda.mem_get_info(tensors[0].device)[0] if tensors[0].is_cuda else
            os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if needed > free:
        yield 0.05
        return
    kinds = [one.dtype for one in tensors]
    for one in tensors:
        one.data = one.data.float()
    try:
        yield 2e-4
    finally:
        for one, kind in zip(tensors, kinds, strict=True):
            one.data = one.data.to(kind)
