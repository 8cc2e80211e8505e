"""Our models in lm-evaluation-harness (the extra ``eval``):
``lm_eval.simple_evaluate(model=HarnessModel("runs/quickstart/sft"), tasks=[...])``.

It scores and writes with this package's own kernels; the numbers are those of the harness's ``hf`` model on the same
folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from trivium.errors import TriviumError, extra
from trivium.evaluation import likelihood
from trivium.evaluation.model import EvaluatedModel, cut_at
from trivium.generation.engine import Sampling, generate

with extra("eval"):
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

BATCH = 256
"""Requests that are laid out at once."""


class HarnessModel(LM):
    """A model folder behind the harness's interface."""

    def __init__(self, pretrained: str | Path, device: torch.device | str = "cpu", max_gen_toks: int = 256) -> None:
        super().__init__()
        self.evaluated = EvaluatedModel.load(Path(pretrained), device=device)
        self.max_gen_toks = max_gen_toks
        self.texts = Tokenizer.from_file(str(Path(pretrained) / "tokenizer.json"))
        self.start = self.evaluated.tokenizer.end_id if self.evaluated.chat else self.evaluated.tokenizer.document_id

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps its rendered chats under."""
        return self.evaluated.tokenizer.digest

    def encode(self, text: str) -> list[int]:
        """A text's tokens. The harness writes chats as text, so special tokens are read as such here."""
        return self.texts.encode(text, add_special_tokens=False).ids

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Context and continuation, tokenised as one and cut after the context's tokens."""
        if not context:
            tokens = self.encode(continuation)
            return (tokens[:1], tokens[1:]) if tokens[0] == self.start else ([self.start], tokens)
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        before = self.encode(context)
        return before, self.encode(context + continuation)[len(before):]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether greedy decoding would write it) of each (context, continuation).
        Continuations of one context share its computation."""
        order: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for index, request in enumerate(requests):
            context, continuation = self.pair(*request.args)
            # cut for each pair, as the harness does
            context = context[-max(1, self.evaluated.longest_prompt(0) + 1 - len(continuation)):]
            order.setdefault(tuple(context), []).append((index, continuation))
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        groups = list(order.items())
        for start in range(0, len(groups), BATCH):
            part = groups[start:start + BATCH]
            scored = likelihood.score_continuations(self.evaluated.language_model, [context for context, _ in part],
                                                    [[ids for _, ids in group] for _, group in part])
            for (_, group), values in zip(part, scored, strict=True):
                for (index, _), value in zip(group, values, strict=True):
                    found[index] = value
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text, in nats."""
        texts = [self.encode(request.args[0]) for request in requests]
        return likelihood.text_log_probs(self.evaluated.language_model, texts, self.start)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to the first of the texts in ``until``."""
        tokenizer, found = self.evaluated.tokenizer, [""] * len(requests)
        by_settings: dict[tuple[Any, ...], list[int]] = {}
        for index, request in enumerate(requests):
            settings = dict(request.args[1])
            until = settings.get("until") or []
            sampled = settings.get("do_sample", settings.get("temperature", 0) > 0)
            key = (tuple([until] if isinstance(until, str) else until),
                   int(settings.get("max_gen_toks",
                                    self.max_gen_toks)), float(settings.get("temperature", 1.0)) if sampled else 0.0,
                   float(settings.get("top_p", 1.0)) if sampled else 1.0)
            by_settings.setdefault(key, []).append(index)
        for (until, new, temperature, top_p), indices in by_settings.items():
            longest = self.evaluated.longest_prompt(new)
            if longest < 1:
                raise TriviumError(f"max_gen_toks: {new} leave no room for a prompt in the model's "
                                   f"{self.evaluated.longest_prompt(0)} positions")
            prompts = [self.encode(requests[index].args[0])[-longest:] or [self.start] for index in indices]
            groups = generate(self.evaluated.language_model, prompts,
                              Sampling(temperature=temperature, top_p=top_p, max_new_tokens=new), [self.start])
            for index, group in zip(indices, groups, strict=True):
                tokens = [token for token in group[0].tokens if token != self.start]
                found[index] = cut_at(self.texts.decode(tokens, skip_special_tokens=True),
                                      self.stops(until, tokenizer.decode([self.start])))
        return found

    @staticmethod
    def stops(until: Iterable[str], end: str) -> list[str]:
        """The texts that end an answer."""
        return [*(text for text in until if text), end]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as text, by the model's own template."""
        return self.evaluated.tokenizer.render(chat_history, generation_prompt=add_generation_prompt)
