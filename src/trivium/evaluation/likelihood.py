"""How likely a model finds texts: continuations of a prompt, and whole documents.

Continuations of one prompt are branches of one tree (:mod:`trivium.training.batch`), so the prompt is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trivium.model import LanguageModel, RewardModel
from trivium.tokenizer.chat import ChatTokenizer, Message
from trivium.training.batch import Batch, Tree, hidden_states, map_trees

ROW_TOKENS = 4096
"""Tokens in one forward pass, about."""
PIECE = 1024
"""Hidden states whose logits are in memory at once."""


def split_at(tokenizer: ChatTokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The tokens of a context and of what continues it, where the whole text is tokenised as one: the boundary lies
    after as many tokens as the context alone has, and spaces at the context's end belong to the continuation (as in
    lm-evaluation-harness)."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    before = tokenizer.encode(context)
    return before, tokenizer.encode(context + continuation)[len(before):]


def split_chat(tokenizer: ChatTokenizer, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
    """The tokens of a chat, and of the assistant's answer to it without the token that ends it: the whole conversation
    is encoded by the template, as it would be learned, and cut where the last turn begins."""
    ids, learned = tokenizer.encode_chat([*messages, {"role": "assistant", "content": answer}])
    end = max((place for place, one in enumerate(learned) if one), default=-1) + 1
    start = max((place for place in range(end) if not learned[place]), default=-1) + 1
    said = ids[start:end]
    return ids[:start], said[:-1] if said and said[-1] == tokenizer.end_id else said


@torch.inference_mode()
def score_continuations(
    model: LanguageModel,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
) -> list[list[tuple[float, bool]]]:
    """For every continuation of every context ``(log-probability in nats, whether greedy decoding would write it)``.
    Contexts must not be empty; what is too long for the model is cut at the context's beginning."""
    longest = model.config.max_positions
    trees = []
    for context, group in zip(contexts, continuations, strict=True):
        room = max(1, longest + 1 - max(map(len, group)))  # a last token is predicted, never read
        trees.append(
            Tree(np.array(context[-room:], np.int64), tuple(np.array(ids[:longest], np.int64) for ids in group)))
    scored = _over(model, trees)
    results = []
    for tree, values in zip(trees, scored, strict=True):
        ends = np.cumsum([len(ids) for ids in tree.responses])[:-1]
        results.append([(math.fsum(part[:, 0]), bool(part[:, 1].all())) for part in np.split(values, ends)])
    return results


def text_log_probs(model: LanguageModel, texts: Sequence[Sequence[int]], start: int) -> list[float]:
    """The log-probability in nats of each text's tokens after the token ``start``. Longer texts than the model can read
    go in windows that do not overlap, save for the last, which sees as much before it as there is room for; every token
    is predicted once."""
    trees: list[Tree] = []
    owner: list[int] = []
    for index, tokens in enumerate(texts):
        for context, predicted in windows(tokens, start, model.config.max_positions):
            trees.append(Tree(np.array(context, np.int64), (np.array(predicted, np.int64),)))
            owner.append(index)
    totals = [0.0] * len(texts)
    for index, values in zip(owner, _over(model, trees), strict=True):
        totals[index] += math.fsum(values[:, 0])
    return totals


def target_log_probs(model: LanguageModel, trees: Sequence[Tree]) -> list[np.ndarray]:
    """The log-probability in nats of every token of each tree's responses, in order. Their float32 values are returned
    as float64."""
    with torch.inference_mode():
        return [values[:, 0].astype(np.float64) for values in _over(model, trees)]


def windows(tokens: Sequence[int], start: int, longest: int) -> list[tuple[list[int], list[int]]]:
    """``(context, predicted)`` for each window of at most ``longest`` tokens that are read (lm-evaluation-harness,
    rolling)."""
    if not tokens:
        return []
    found = [([start], list(tokens[:longest]))]
    done = len(found[0][1])
    while done < len(tokens):
        size = min(len(tokens) - done, longest)
        end = done + size
        found.append((list(tokens[max(0, end - longest - 1):done]), list(tokens[done:end])))
        done = end
    return found


def _over(model: LanguageModel, trees: Sequence[Tree]) -> list[np.ndarray]:
    """For every target of every tree, ``[T, 2]``: its log-probability and whether it is the likeliest token."""
    if not trees:
        return []
    length = max(map(len, trees))
    training = model.training
    model.eval()

    def compute(batch: Batch) -> Tensor:
        states = hidden_states(model.model, batch)[batch.sources]
        parts = []
        for piece, targets in zip(torch.split(states, PIECE), torch.split(batch.targets, PIECE), strict=True):
            log_probs = torch.log_softmax(model.lm_head(piece).float(), -1)
            likeliest = log_probs.argmax(-1) == targets
            parts.append(torch.stack([log_probs.gather(1, targets[:, None])[:, 0], likeliest.float()], 1))
        return torch.cat(parts)

    found = map_trees(compute, trees, length, max(1, ROW_TOKENS // length), model.lm_head.weight.device, per_token=True)
    model.train(training)
    return found


def reward_scores(model: RewardModel, prompts: Sequence[Sequence[int]],
                  responses: Sequence[Sequence[int]]) -> list[float]:
    """A reward model's score of each response, read at its last token, shift included."""
    trees = [
        Tree(np.array(prompt, np.int64), (np.array(response, np.int64),))
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    length = max((len(tree) for tree in trees), default=1)
    model.eval()

    def compute(batch: Batch) -> Tensor:
        return model.score(hidden_states(model.model, batch)[batch.ends]).squeeze(-1).float() + model.shift

    return [
        float(scores[0])
        for scores in map_trees(compute, trees, length, max(1, ROW_TOKENS //
                                                            length), model.score.weight.device, per_token=False)
    ]
