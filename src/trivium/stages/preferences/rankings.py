"""Rankings of responses: read, checked, as trees, and the pairs that a batch of them holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium.errors import TriviumError
from trivium.files import Row
from trivium.stage import Context
from trivium.stages.models import answer_tree
from trivium.stages.rows import rows_of
from trivium.stages.training import Looped
from trivium.tokenizer.chat import ChatTokenizer, check_messages
from trivium.tokenizer.messages import with_answer
from trivium.training.batch import Batch, Tree
from trivium.training.epochs import Limit, longest_branch

Places = list[list[int]]
"""A ranking: groups of responses by their number, best first; those in a group are tied."""


def pairs_of(ranking: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """All (better, worse) pairs of a ranking; ties are in none."""
    return [(better, worse) for i, group in enumerate(ranking) for better in group
            for later in ranking[i + 1:] for worse in later]


def ties_of(ranking: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """All pairs of a ranking whose responses are tied."""
    return [pair for group in ranking for pair in itertools.combinations(group, 2)]


@dataclass(frozen=True)
class Rated:
    """A ranking with the ratings that it came with."""

    ranking: Places
    ratings: Sequence[float]
    """Of each response, 1 to 7."""


@dataclass(frozen=True)
class Part:
    """Some pairs of a ranking that is spread over several trees: each pair is in one of them."""

    pairs: tuple[tuple[int, int], ...]
    """Better and worse, numbers of this tree's responses."""
    total: int
    """Pairs of the whole ranking."""
    weights: tuple[float, ...]
    """Of each response, one over the number of trees that it is in."""
    ratings: tuple[float, ...] = ()
    """Of each response, 1 to 7, where there are any."""


@dataclass(frozen=True)
class TiedPart(Part):
    """A part for a loss that learns from ties too. A class of its own leaves the digests of other trees as they
    were."""

    ties: tuple[tuple[int, int], ...] = ()
    """Those of the pairs whose responses are tied."""


def part_of(tree: Tree[Any]) -> Part:
    """The pairs of a tree, which carries a ranking, a rated one or a part of one."""
    if isinstance(tree.payload, Part):
        return tree.payload
    rated = isinstance(tree.payload, Rated)
    pairs = tuple(pairs_of(tree.payload.ranking if rated else tree.payload))
    return Part(pairs, len(pairs), (1.0,) * len(tree.responses), tuple(tree.payload.ratings) if rated else ())


def add_ratings(batch: Batch) -> None:
    """Give a batch of trees that carry rated rankings its pairs and ratings, and what each response weighs."""
    add_pairs(batch)
    parts = list(map(part_of, batch.trees))
    batch.extra["ratings"] = torch.tensor([float(rating) for part in parts for rating in part.ratings])
    weights = [weight for part in parts for weight in part.weights]
    batch.extra["response_weights"] = torch.tensor(weights)
    batch.counts["responses"] = float(sum(weights))


def add_pairs(batch: Batch) -> None:
    """Give a batch of trees that carry rankings its pairs: ``winners`` and ``losers [P]`` number the batch's responses,
    and ``pair_weights [P]`` of one ranking add up to 1. Of a ranking in several trees each counts as its share of the
    pairs."""
    parts = [part_of(tree) for tree in batch.trees]
    winners: list[int] = []
    losers: list[int] = []
    weights: list[float] = []
    first = 0
    for tree, part in zip(batch.trees, parts, strict=True):
        winners += [first + better for better, _ in part.pairs]
        losers += [first + worse for _, worse in part.pairs]
        weights += [1 / part.total] * len(part.pairs)
        first += len(tree.responses)
    batch.extra |= {
        "winners": torch.tensor(winners, dtype=torch.int64), "losers": torch.tensor(losers, dtype=torch.int64),
        "pair_weights": torch.tensor(weights)
    }
    tied = [isinstance(part, TiedPart) and pair in part.ties for part in parts for pair in part.pairs]
    if any(tied):
        batch.extra["tied"] = torch.tensor(tied)
    batch.counts |= {"pairs": float(len(winners) - sum(tied)),
                     "trees": float(sum(len(part.pairs) / part.total for part in parts if part.total))}


def spread(tree: Tree[Any], length: int) -> list[Tree[Any]]:
    """A ranking as trees of at most ``length`` tokens, each pair in one of them; itself where it fits. The responses of
    a pair are in one tree: ``length`` must hold the longest pair."""
    if len(tree) <= length:
        return [tree]
    whole, sizes = part_of(tree), [len(response) for response in tree.responses]
    left, groups = list(whole.pairs), list[tuple[list[int], list[tuple[int, int]]]]()
    while left:
        members = list(left[0])
        room = length - len(tree.prompt) - sum(sizes[i] for i in members)
        for other in range(len(sizes)):
            news = other not in members and any(other in pair and {*pair} - {other} <= {*members} for pair in left)
            if news and sizes[other] <= room:
                members.append(other)
                room -= sizes[other]
        taken = [pair for pair in left if {*pair} <= {*members}]
        left = [pair for pair in left if pair not in taken]
        groups.append((sorted(members), taken))
    times = [sum(i in members for members, _ in groups) for i in range(len(sizes))]

    def part(members: list[int], pairs: list[tuple[int, int]]) -> Part:
        places = {pair: (members.index(pair[0]), members.index(pair[1])) for pair in pairs}
        made = replace(whole, pairs=tuple(places.values()), weights=tuple(1 / times[i] for i in members),
                       ratings=tuple(whole.ratings[i] for i in members) if whole.ratings else ())
        if isinstance(made, TiedPart):
            return replace(made, ties=tuple(places[pair] for pair in pairs if pair in made.ties))
        return made

    return [Tree(tree.prompt, tuple(tree.responses[i] for i in members), payload=part(members, pairs))
            for members, pairs in groups]


def longest_pair(tree: Tree[Any]) -> int:
    """Tokens of a tree's prompt with the longest pair of its responses that a row must hold."""
    sizes = [len(response) for response in tree.responses]
    return len(tree.prompt) + max((sizes[better] + sizes[worse] for better, worse in part_of(tree).pairs), default=0)


@dataclass(frozen=True)
class Packed:
    """Rankings laid out for training."""

    trees: list[Tree[Any]]
    """Those that fit a row, and the parts of those that do not."""
    length: int
    rows: int


def lay_out(trees: Sequence[Tree[Any]], settings: Looped, context: Context, positions: int, epochs: float) -> Packed:
    """Lay rankings out in rows. A row is at least as long as the longest pair, whatever `length` says: a branch is
    bound by the model's positions, a row is not."""
    pair = max(map(longest_pair, trees))
    length, rows = settings.lay_out(context, list(map(len, trees)), max(positions, pair), epochs)
    if length < pair:
        context.progress.say(f"rows are {pair:,} tokens long, as the two responses of a pair need them, and not "
                             f"{length:,} (`length`)")
        length = pair
    parts = [spread(tree, length) for tree in trees]
    several = sum(len(part) > 1 for part in parts)
    if several:
        context.progress.say(f"{several:,} of {len(trees):,} rankings do not fit a row of {length:,} tokens and are "
                             "spread over several")
    return Packed([tree for part in parts for tree in part], length, rows)


def count_rankings(trees: Sequence[Tree[Any]]) -> int:
    """How many rankings trees hold, those in several trees once."""
    return round(sum(len(part.pairs) / part.total for part in map(part_of, trees)))


def ordered_right(margins: torch.Tensor) -> torch.Tensor:
    """How many pairs are ordered right, by how far the better response is ahead in each ``[P]``; equal ones count half,
    as a coin would order half of them right."""
    return (margins.sign() + 1).sum() / 2


def rankings(preferences: Path, context: Context, rated: bool = False, tied: bool = False) -> list[Row]:
    """All good rankings with at least one pair, of which ``tied`` ones count where they are learned from; with good
    ratings too, where they are needed."""
    def check(row: Row) -> None:
        check_ranking(row)
        if rated:
            check_ratings(row)

    rows = rows_of(preferences, "comparisons.jsonl", ["prompt", "responses", "ranking", "split"], context, check)
    return [row for row in rows if pairs_of(row["ranking"]) or (tied and ties_of(row["ranking"]))]


def check_ranking(row: Row) -> None:
    """Refuse a ranking that does not name each response once."""
    for number, response in enumerate(row["responses"], 1):
        check_response(response, f"response {number}")
    finished = row.get("finished") or [True] * len(row["responses"])
    if len(finished) != len(row["responses"]):
        raise TriviumError(f"`finished` says of {len(finished)} responses whether they ended; "
                           f"there are {len(row['responses'])}")
    if not all(text or done for text, done in zip(row["responses"], finished, strict=True)):
        raise TriviumError("a response is empty and never ended, so it has no token to learn from")
    if sorted(index for group in row["ranking"] for index in group) != list(range(len(row["responses"]))):
        raise TriviumError(
            f"the ranking {row['ranking']} does not name each of "
            f"the {len(row['responses'])} responses once, as in [[0], [2, 1]]"
        )


def check_response(response: Any, what: str) -> None:
    """Refuse a response that is neither a text nor one message of the assistant; ``what`` names it."""
    if isinstance(response, str):
        return
    if not isinstance(response, Mapping) or response.get("role", "assistant") != "assistant":
        raise TriviumError(f"{what} is neither a text nor a message of the assistant")
    try:
        check_messages([{"role": "assistant", **response}])
    except TriviumError as error:
        raise TriviumError(f"{what}: {str(error).removeprefix('message 1: ')}") from error


def check_ratings(row: Row) -> None:
    """Refuse ratings that are not a number from 1 to 7 for each response."""
    ratings = row.get("ratings")
    if not isinstance(ratings, list) or len(ratings) != len(row["responses"]):
        raise TriviumError(
            f"a rating of each of the {len(row['responses'])} responses is needed (`ratings`), not {ratings!r}")
    bad = next((value for value in ratings if not isinstance(value, (int, float)) or not 1 <= value <= 7), None)
    if bad is not None:
        raise TriviumError(f"the rating {bad!r} is not a number from 1 to 7")


def ranked_tree(tokenizer: ChatTokenizer, row: Row, rated: bool = False, tied: bool = False) -> Tree[Any]:
    """A prompt with its ranked responses; those that were cut short (``finished``) have no token that ends them. It
    carries the ranking, ``rated`` as :class:`Rated`, or with its ``tied`` pairs as a :class:`TiedPart`."""
    finished = row.get("finished") or [True] * len(row["responses"])
    payload: Any = Rated(row["ranking"], row["ratings"]) if rated else row["ranking"]
    if tied:
        ties, better = ties_of(row["ranking"]), pairs_of(row["ranking"])
        payload = TiedPart((*better, *ties), len(better) + len(ties), (1.0,) * len(row["responses"]),
                           tuple(row["ratings"]) if rated else (), tuple(ties))
    return answer_tree(tokenizer, row, row["responses"], finished, payload)


def tell_remarks(tokenizer: ChatTokenizer, answered: Iterable[tuple[Sequence[Row], Any]], context: Context) -> None:
    """Say what is to be known before these ``(prompt, answer)`` are learned by the tokenizer's chat template."""
    for remark in tokenizer.remarks(with_answer(prompt, said) for prompt, said in answered):
        context.progress.say(remark)


def fitting(tokenizer: ChatTokenizer, rows: Sequence[Row], limit: Limit, context: Context) -> list[tuple[Tree, Row]]:
    """Held-out rankings as trees, those whose branches fit; how many do not is said."""
    every = [(ranked_tree(tokenizer, row), row) for row in rows]
    over = [size for tree, _ in every if (size := longest_branch(tree)) > limit.tokens]
    if over:
        context.progress.say(replace(limit, what="held-out rankings").say_left_out(over, len(rows)))
    return [(tree, row) for tree, row in every if longest_branch(tree) <= limit.tokens]


def full_ranking(length: int) -> Tree:
    """A prompt with four ranked responses that fills a row of ``length`` places."""
    each = max(1, length // 5)
    return Tree(np.zeros(max(1, length - 4 * each), np.int64), (np.zeros(each, np.int64),) * 4,
                payload=[[0], [1], [2], [3]])
