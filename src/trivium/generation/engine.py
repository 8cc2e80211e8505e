"""The sampling engine: continuous batching over a static cache.

Every sample has its own stream of uniform numbers, named by its seed alone, so it is the same whatever shares the batch
(up to the rounding of sums). A prompt is computed once for all its samples. Finished rows leave and waiting ones enter:
:meth:`Engine.step` is one token for every live row, so a server can submit and cancel between steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError
from trivium.generation.decoder import Decoder
from trivium.generation.sampling import Controls, Sampling, draw
from trivium.model.plain_decoder import decoder_of, must_be_plain
from trivium.model.transformer import LanguageModel

__all__ = ["Completion", "Engine", "Engines", "Sample", "Sampling", "generate"]

CACHE_BYTES = 4 * 2**30
"""The most that the keys and values of a batch may take on a processor, whose memory they share with all else."""
PREFILL_TOKENS = {"cpu": 512, "cuda": 8192}
"""Prompts are computed together up to so many tokens: larger products leave a processor's cache, smaller ones leave a
GPU idle."""
KEPT_SHARE = 1 / 8
"""The most of a GPU's memory that an engine may hold between two calls of :func:`generate`."""


@dataclass
class Completion:
    """One sample."""

    tokens: list[int]
    """The sampled tokens, the stop token included."""
    log_probs: np.ndarray
    """The log-probability of each under the full distribution at the sampling temperature (at 1 when greedy), in
    nats."""
    finished: bool
    """Ended with a stop token or text, not for want of room."""


class Guide(Protocol):
    """What one sample may say, token by token: it is asked before each token and told it afterwards. It raises
    :class:`TriviumError` where it cannot go on, which ends its sample and no other."""

    def allowed(self) -> np.ndarray:
        """Which tokens may come next, bool ``[V]``; those that end the sample are among them where it may end."""

    def take(self, token: int) -> bool:
        """Go on behind a token that does not end the sample; returns whether nothing more can come."""


@dataclass
class Sample:
    """A completion that is being made."""

    request: int
    """The number that :meth:`Engine.submit` gave."""
    index: int
    """Which of the request's samples."""
    seed: int
    prompt: Sequence[int] = field(repr=False)
    sampling: Sampling
    stop: Collection[int] = field(repr=False)
    top: int
    pictures: Tensor | None = field(default=None, repr=False)
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    """Of each token, under the full distribution at the sampling temperature (at 1 when greedy)."""
    plain: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)
    """Where ``top`` is not negative: of each token its log-probability at temperature 1, and the ``top`` likeliest
    tokens with theirs."""
    reason: str | None = None
    """``stop``, ``length`` or ``fault`` once it has ended."""
    guide: Guide | None = None
    fault: TriviumError | None = None
    """Why the guide could not go on."""
    echo: bool = False
    """Whether the prompt's own tokens are scored, which are then computed one by one."""
    heard: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)
    """Where the prompt is scored, the same as ``plain`` of each of its tokens but the first."""

    @property
    def ready(self) -> int:
        """Tokens of the prompt that are known when the sample begins, the last of which the next step computes."""
        return 1 if self.echo else len(self.prompt)

    @property
    def forced(self) -> int | None:
        """The token of the prompt that comes next, while it is scored."""
        place = len(self.heard) + 1
        return self.prompt[place] if self.echo and place < len(self.prompt) else None


class Engine:
    """Samples from ``model``, at most ``rows`` sequences at a time of up to ``capacity`` tokens each (the model's
    longest by default). ``decode`` turns tokens into text, for stop texts. The weights are copied: later changes of the
    model are not seen. Products use the model's number format, or autocast's where that is on. Not for several
    threads."""

    def __init__(self, model: LanguageModel, rows: int = 64, capacity: int | None = None,
                 decode: Callable[[Sequence[int]], str] | None = None) -> None:
        self.config = model.config
        self.device = model.lm_head.weight.device
        self.rows = rows
        self.capacity = min(capacity or self.config.max_positions, self.config.max_positions)
        self.decoder = decoder_of(model, rows, self.capacity) or Decoder(model, rows, self.capacity, format_of(model))
        self.vectors: Callable[[Tensor, Tensor | None], Tensor] | None = getattr(model, "vectors", None)
        """Of a model that sees: embeddings of tokens and pictures."""
        self.decode = decode
        self.waiting: deque[Sample] = deque()
        self.live: list[Sample] = []
        self.lengths = np.zeros(rows, np.int64)
        """Tokens of each row that are in the cache."""
        self.pending = torch.zeros(rows, dtype=torch.int64, device=self.device)
        """The next token to compute of each row."""
        self.seen: Tensor | None = None
        self._controls: Controls | None = None
        self._submitted = 0

    def serves(self, model: LanguageModel, rows: int, capacity: int, dtype: torch.dtype) -> bool:
        """Whether it can go on as an engine of another model, of the same shape, by :meth:`renew`."""
        return (isinstance(self.decoder, Decoder) and not must_be_plain(model) and self.config == model.config
                and self.device == model.lm_head.weight.device and self.decoder.dtype == dtype and self.rows >= rows
                and self.capacity >= capacity)

    def renew(self, model: LanguageModel) -> None:
        """Forget all samples, and go on with the weights of a model that it :meth:`serves`. What was captured for the
        GPU and the cache stay."""
        assert isinstance(self.decoder, Decoder)
        self.decoder.renew(model)
        self.waiting.clear()
        self.live.clear()
        self.seen = self._controls = None

    def submit(self, prompt: Sequence[int], sampling: Sampling, seeds: Sequence[int], stop: Collection[int] = (),
               top: int = -1, pictures: Tensor | None = None, guides: Sequence[Guide] = (), echo: bool = False) -> int:
        """Queue a prompt for as many samples as there are 64-bit ``seeds``; returns the request's number. Samples end
        at a token of ``stop``, a text of ``sampling.stop``, after ``max_new_tokens`` or where the row is full. With
        ``top`` >= 0 log-probabilities at temperature 1 are kept, of the tokens and of so many alternatives. ``pictures
        [N, patches, hidden_size]`` (from :meth:`trivium.model.vision.SeeingModel.pictures`) stand in the prompt's
        places for them. ``guides`` bind each sample to what it may say; ``echo`` scores the prompt, too, which needs
        ``top`` >= 0. Raises :class:`TriviumError` for a prompt that is empty, holds unknown tokens or leaves no room,
        and for pictures that a model cannot see."""
        if not prompt:
            raise TriviumError("the prompt is empty")
        if len(prompt) >= self.capacity:
            raise TriviumError(
                f"the prompt has {len(prompt)} tokens; with an answer it does not fit {self.capacity} positions")
        if min(prompt) < 0 or max(prompt) >= self.config.vocab_size:
            raise TriviumError(f"the prompt holds a token outside the model's {self.config.vocab_size}")
        if sampling.stop and self.decode is None:
            raise TriviumError("stop texts need a tokenizer: give `decode`")
        if pictures is not None and self.vectors is None:
            raise TriviumError("the prompt has a picture, but this model reads text alone")
        self._submitted += 1
        stop = frozenset(stop)
        self.waiting.extend(
            Sample(self._submitted, i, seed, prompt, sampling, stop, top, pictures,
                   guide=guides[i] if guides else None, echo=echo) for i, seed in enumerate(seeds))
        return self._submitted

    def cancel(self, request: int) -> None:
        """Forget a request; its rows are free at once."""
        self.waiting = deque(sample for sample in self.waiting if sample.request != request)
        self._leave([row for row, sample in enumerate(self.live) if sample.request == request])

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.live or self.waiting)

    @torch.inference_mode()
    def step(self) -> list[Sample]:
        """One more token for every live row, after waiting samples entered free rows. Returns the samples that got
        one; those that ended have a ``reason`` and leave."""
        with torch.autocast(self.device.type, enabled=False):
            self._admit()
            if not self.live:
                return []
            count = len(self.live)
            lengths = self.lengths[:count]
            longest = int(lengths.max()) + 1
            logits = self.decoder.step(self.pending[:count], torch.from_numpy(lengths).to(self.device), longest,
                                       bool((lengths == longest - 1).all()))
            lengths += 1
            if self._controls is None:
                self._controls = Controls([sample.sampling for sample in self.live], self.device)
            drawn = np.array([len(sample.tokens) for sample in self.live])
            uniforms = torch.from_numpy(
                randomness.uniforms(np.array([sample.seed for sample in self.live], np.uint64), drawn)).to(self.device)
            tokens, log_probs = draw(logits, self._controls, uniforms, None if self.seen is None else self.seen[:count],
                                     self._allowed())
            forced = {row: sample.forced for row, sample in enumerate(self.live) if sample.forced is not None}
            if forced:
                tokens[list(forced)] = torch.tensor(list(forced.values()), device=self.device)
            self.pending[:count] = tokens
            if self.seen is not None:
                self.seen[torch.arange(count, device=self.device), tokens] = True
            self._note_plain(logits, tokens)
        stepped = list(self.live)
        said = torch.stack([tokens.double(), log_probs.double()]).tolist()  # one wait for the device
        for row, (token, log_prob, length) in enumerate(zip(map(int, said[0]), said[1], lengths.tolist(), strict=True)):
            if row not in forced:
                self._said(stepped[row], token, log_prob, full=length + 1 >= self.capacity)
        self._leave([row for row, sample in enumerate(stepped) if sample.reason])
        return [sample for row, sample in enumerate(stepped) if row not in forced or sample.reason]

    def _said(self, sample: Sample, token: int, log_prob: float, full: bool) -> None:
        """Let a sample have its next token, and end where it must."""
        sample.tokens.append(token)
        sample.log_probs.append(log_prob)
        if sample.fault:
            sample.reason = "fault"
        elif token in sample.stop or (sample.sampling.stop and self._says_stop(sample)) or self._completes(sample):
            sample.reason = "stop"
        elif len(sample.tokens) >= sample.sampling.max_new_tokens or full:
            sample.reason = "length"

    def _completes(self, sample: Sample) -> bool:
        """Whether the newest token leaves nothing more to say, by the sample's guide."""
        try:
            return sample.guide is not None and sample.guide.take(sample.tokens[-1])
        except TriviumError as error:
            sample.fault = error
            return True

    def _allowed(self) -> Tensor | None:
        """The tokens that each live row may draw, bool ``[B, V]``; None where all may draw all."""
        guided = [(row, sample) for row, sample in enumerate(self.live) if sample.guide and sample.forced is None]
        if not guided:
            return None
        allowed = np.ones((len(self.live), self.config.vocab_size), bool)
        for row, sample in guided:
            assert sample.guide is not None
            try:
                allowed[row] = sample.guide.allowed()
            except TriviumError as error:
                sample.fault = error
        return torch.from_numpy(allowed).to(self.device)

    def _note_plain(self, logits: Tensor, tokens: Tensor) -> None:
        """Log-probabilities at temperature 1 for the rows that want them."""
        rows = [row for row, sample in enumerate(self.live) if sample.top >= 0]
        if not rows:
            return
        plain = torch.log_softmax(logits[rows], dim=-1)
        chosen = plain.gather(1, tokens[rows][:, None])[:, 0].tolist()
        values, ids = plain.topk(max(1, *(self.live[row].top for row in rows)), dim=-1)
        for row, log_prob, ids_of_row, values_of_row in zip(rows, chosen, ids.tolist(), values.tolist(), strict=True):
            top = self.live[row].top
            sample = self.live[row]
            (sample.plain if sample.forced is None else sample.heard).append(
                (log_prob, list(zip(ids_of_row[:top], values_of_row[:top], strict=True))))

    def _says_stop(self, sample: Sample) -> bool:
        """Whether the newest token completed a stop text. A token holds a byte at least, so a short tail is enough."""
        assert self.decode is not None
        reach = max(len(text.encode()) for text in sample.sampling.stop) + 4
        said = self.decode(sample.tokens[-reach:])
        return any(text in said for text in sample.sampling.stop)

    def _admit(self) -> None:
        """Give free rows to waiting samples, several at a time, and compute their prompts but for the last token, which
        the next step does. Samples whose prompt is in a row already copy it from there."""
        free = self.rows - len(self.live)
        if not self.waiting or free < min(len(self.waiting), max(1, self.rows // 8)):
            return
        entering = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        home = {sample.request: row for row, sample in enumerate(self.live)}
        leaders = list({sample.request: sample for sample in reversed(entering) if sample.request not in home}.values())
        leaders.sort(key=lambda sample: sample.ready)
        start = len(self.live)
        self._prefill(leaders, start)
        home |= {sample.request: start + i for i, sample in enumerate(leaders)}
        chosen = {id(sample) for sample in leaders}
        followers = [sample for sample in entering if id(sample) not in chosen]
        if followers:
            first = start + len(leaders)
            self.decoder.move([home[sample.request] for sample in followers], list(range(first,
                                                                                         first + len(followers))),
                              max(sample.ready for sample in followers))
        for sample in (*leaders, *followers):
            self._begin(sample, len(self.live))
        self._controls = None

    def _begin(self, sample: Sample, row: int) -> None:
        """Let a sample start in a row that holds its prompt."""
        if row == len(self.live):
            self.live.append(sample)
        else:
            self.live[row] = sample
        self.lengths[row] = sample.ready - 1
        self.pending[row] = sample.prompt[sample.ready - 1]
        if sample.sampling.repetition_penalty != 1 and self.seen is None:
            self.seen = torch.zeros(self.rows, self.config.vocab_size, dtype=torch.bool, device=self.device)
        if self.seen is not None:
            self.seen[row] = False
            self.seen[row, torch.tensor(sample.prompt, device=self.device)] = True

    def _prefill(self, leaders: Sequence[Sample], first: int) -> None:
        """Compute prompts, ordered by length, into the rows from ``first`` on."""
        begin, most = 0, PREFILL_TOKENS.get(self.device.type, PREFILL_TOKENS["cpu"])
        while begin < len(leaders):
            end = begin + 1
            while end < len(leaders) and (end + 1 - begin) * (leaders[end].ready - 1) <= most:
                end += 1
            width = leaders[end - 1].ready - 1
            if width:
                padded = np.zeros((end - begin, width), np.int64)
                for row, sample in enumerate(leaders[begin:end]):
                    padded[row, :sample.ready - 1] = sample.prompt[:sample.ready - 1]
                tokens = torch.from_numpy(padded).to(self.device)
                pictures = [sample.pictures for sample in leaders[begin:end]]
                if self.vectors and any(seen is not None for seen in pictures):
                    tokens = torch.cat(
                        [self.vectors(row[None], seen) for row, seen in zip(tokens, pictures, strict=True)])
                self.decoder.prefill(tokens, first + begin,
                                     [sample.ready - 1 for sample in leaders[begin:end]])
            begin = end

    def _leave(self, rows: list[int]) -> None:
        """Free rows. A waiting sample of the same prompt takes a row over at once, so a prompt is never computed twice;
        the last rows move into the other holes."""
        if not rows:
            return
        self._controls = None
        empty = []
        for row in rows:
            request = self.live[row].request
            heir = self.waiting[0] if self.waiting and self.waiting[0].request == request else None
            if heir is not None:
                self.waiting.popleft()
                self._begin(heir, row)
            else:
                empty.append(row)
        kept = len(self.live) - len(empty)
        holes = [row for row in empty if row < kept]
        gone = set(empty)
        movers = [row for row in range(kept, len(self.live)) if row not in gone]
        if holes:
            self.decoder.move(movers, holes, int(self.lengths[movers].max()))
            self.lengths[holes] = self.lengths[movers]
            self.pending[holes] = self.pending[movers]
            if self.seen is not None:
                self.seen[holes] = self.seen[movers]
            for hole, mover in zip(holes, movers, strict=True):
                self.live[hole] = self.live[mover]
        del self.live[kept:]
        if not self.live and not self.waiting:
            self.seen = None


def format_of(model: LanguageModel) -> torch.dtype:
    """The number format of products: the model's, or autocast's where that is on."""
    weight = model.lm_head.weight
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class Engines:
    """Keeps an engine from one call of :func:`generate` to the next, which then only takes the new weights in: what
    reinforcement learning needs, whose policy changes between rollouts. On a GPU a new engine captures its steps anew,
    which takes longer than many of them; so there one is kept, where it holds little (:data:`KEPT_SHARE`). ``keep``
    says whether to, instead."""

    def __init__(self, keep: bool | None = None) -> None:
        self.keep = keep
        self.kept: Engine | None = None

    def engine(self, model: LanguageModel, rows: int, capacity: int,
               decode: Callable[[Sequence[int]], str] | None) -> Engine:
        """An engine of ``model`` with ``rows`` rows of ``capacity`` tokens, at least."""
        if self.kept is not None and self.kept.serves(model, rows, capacity, format_of(model)):
            self.kept.renew(model)
            self.kept.decode = decode
            return self.kept
        self.kept = None  # its memory is free before another's is taken
        if not self._keeps(model, rows, capacity):
            return Engine(model, rows, capacity, decode)
        roomy = min(-(-capacity // 128) * 128, model.config.max_positions)  # prompts of the next call may be longer
        self.kept = Engine(model, rows, roomy, decode)
        return self.kept

    def _keeps(self, model: LanguageModel, rows: int, capacity: int) -> bool:
        if must_be_plain(model):
            return False
        device = model.lm_head.weight.device
        if self.keep is not None or device.type != "cuda":
            return bool(self.keep)
        held = sum(parameter.numel() for parameter in model.parameters()) * format_of(model).itemsize
        return held + rows * row_bytes(model, capacity) <= KEPT_SHARE * torch.cuda.get_device_properties(
            device).total_memory


def row_bytes(model: LanguageModel, capacity: int) -> int:
    """What the keys and values of a text of ``capacity`` tokens take."""
    config = model.config
    return (2 * config.num_layers * config.num_kv_heads * config.head_dim * capacity
            * model.lm_head.weight.element_size())


def affordable(model: LanguageModel, capacity: int, rows: int) -> int:
    """How many of ``rows`` texts of up to ``capacity`` tokens have their keys and values in :data:`CACHE_BYTES`, one
    at least; all of them on a GPU."""
    on_cpu = model.lm_head.weight.device.type == "cpu"
    return max(1, min(rows, CACHE_BYTES // row_bytes(model, capacity))) if on_cpu else rows


def generate(model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling],
             stop: Collection[int], samples: int | Sequence[int] = 1, batch_rows: int = 128,
             keys: Sequence[object] | None = None, progress: Callable[[int, int], None] | None = None,
             decode: Callable[[Sequence[int]], str] | None = None,
             pictures: Sequence[Tensor | None] | None = None,
             engines: Engines | None = None) -> list[list[Completion]]:
    """Complete each prompt ``samples`` times (a number for all, or one for each), by one ``sampling`` or one for each.
    ``keys`` name the prompts' random streams; by default their indices do. Generation ends at a token of ``stop``, a
    text of ``sampling.stop`` (which needs ``decode``), after ``max_new_tokens``, or at the model's last position.
    ``pictures`` are those of each prompt, see :meth:`Engine.submit`; ``engines`` keeps the engine for a next call.
    Raises :class:`TriviumError` for a prompt that is
    empty or leaves no room."""
    wanted = [samples] * len(prompts) if isinstance(samples, int) else list(samples)
    rules = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    results: list[list[Completion | None]] = [[None] * n for n in wanted]
    total, done = sum(wanted), 0
    if not total:
        return [[] for _ in prompts]
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise TriviumError(f"prompt {index} is empty")
        if len(prompt) >= model.config.max_positions:
            raise TriviumError(f"prompt {index} has {len(prompt)} tokens; with an answer it does not fit the model's "
                               f"{model.config.max_positions} positions")
    # Those that take longest go first, so that a batch is full of work to its end.
    order = sorted((p for p in range(len(prompts)) if wanted[p]),
                   key=lambda p: (-rules[p].max_new_tokens, -len(prompts[p]), p))
    capacity = max(len(prompts[p]) + rules[p].max_new_tokens for p in order)
    engine = (engines or Engines(keep=False)).engine(
        model, min(affordable(model, capacity, batch_rows), total), capacity, decode)
    stop = frozenset(stop)
    asked = {
        engine.submit(prompts[p], rules[p],
                      [randomness.derive(rules[p].seed, keys[p] if keys else p, s) for s in range(wanted[p])],
                      stop, pictures=pictures[p] if pictures else None): p
        for p in order
    }
    while engine.busy:
        ended = [sample for sample in engine.step() if sample.reason]
        for sample in ended:
            results[asked[sample.request]][sample.index] = Completion(
                sample.tokens, np.array(sample.log_probs, np.float32), sample.reason == "stop")
        done += len(ended)
        if ended and progress:
            progress(done, total)
    return [[completion for completion in group if completion is not None] for group in results]
