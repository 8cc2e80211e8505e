"""Rankings of responses: read, checked, as trees, and the pairs that a batch of them holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivium.errors import TriviumError
from trivium.files import Row
from trivium.stage import Context
from trivium.stages.models import answer_tree
from trivium.stages.rows import rows_of
from trivium.tokenizer.chat import ChatTokenizer, check_messages
from trivium.tokenizer.messages import with_answer
from trivium.training.batch import Batch, Tree

Places = list[list[int]]
"""A ranking: groups of responses by their number, best first; those in a group are tied."""


def pairs_of(ranking: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """All (better, worse) pairs of a ranking; ties are in none."""
    return [(better, worse) for i, group in enumerate(ranking) for better in group
            for later in ranking[i + 1:] for worse in later]


@dataclass(frozen=True)
class Rated:
    """A ranking with the ratings that it came with."""

    ranking: Places
    ratings: Sequence[float]
    """Of each response, 1 to 7."""


def add_ratings(batch: Batch) -> None:
    """Give a batch of trees that carry :class:`Rated` rankings its pairs and ratings."""
    trees: list[Tree[Rated]] = batch.trees
    add_pairs_of(batch, [tree.payload.ranking for tree in trees])
    batch.extra["ratings"] = torch.tensor([float(rating) for tree in trees for rating in tree.payload.ratings])


def add_pairs(batch: Batch) -> None:
    """Give a batch of trees that carry their rankings its pairs."""
    trees: list[Tree[Places]] = batch.trees
    add_pairs_of(batch, [tree.payload for tree in trees])


def add_pairs_of(batch: Batch, rankings: Sequence[Places]) -> None:
    """Give a batch the pairs of its trees' rankings: ``winners`` and ``losers [P]`` number the batch's responses, and
    ``pair_weights [P]`` of one prompt add up to 1."""
    winners: list[int] = []
    losers: list[int] = []
    weights: list[float] = []
    first = 0
    for tree, ranking in zip(batch.trees, rankings, strict=True):
        pairs = pairs_of(ranking)
        winners += [first + better for better, _ in pairs]
        losers += [first + worse for _, worse in pairs]
        weights += [1 / len(pairs)] * len(pairs)
        first += len(tree.responses)
    batch.extra |= {
        "winners": torch.tensor(winners, dtype=torch.int64), "losers": torch.tensor(losers, dtype=torch.int64),
        "pair_weights": torch.tensor(weights)
    }
    batch.counts["pairs"] = float(len(winners))


def ordered_right(margins: torch.Tensor) -> torch.Tensor:
    """How many pairs are ordered right, by how far the better response is ahead in each ``[P]``; equal ones count half,
    as a coin would order half of them right."""
    return (margins.sign() + 1).sum() / 2


def rankings(preferences: Path, context: Context, rated: bool = False) -> list[Row]:
    """All good rankings with at least one pair; with good ratings too, where they are needed."""
    def check(row: Row) -> None:
        check_ranking(row)
        if rated:
            check_ratings(row)

    rows = rows_of(preferences, "comparisons.jsonl", ["prompt", "responses", "ranking", "split"], context, check)
    return [row for row in rows if pairs_of(row["ranking"])]


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


def ranked_tree(tokenizer: ChatTokenizer, row: Row, rated: bool = False) -> Tree[Any]:
    """A prompt with its ranked responses; those that were cut short (``finished``) have no token that ends them. It
    carries the ranking, ``rated`` as :class:`Rated`."""
    finished = row.get("finished") or [True] * len(row["responses"])
    return answer_tree(tokenizer, row, row["responses"], finished,
                       Rated(row["ranking"], row["ratings"]) if rated else row["ranking"])


def tell_remarks(tokenizer: ChatTokenizer, answered: Iterable[tuple[Sequence[Row], Any]], context: Context) -> None:
    """Say what is to be known before these ``(prompt, answer)`` are learned by the tokenizer's chat template."""
    for remark in tokenizer.remarks(with_answer(prompt, said) for prompt, said in answered):
        context.progress.say(remark)


def fitting(tokenizer: ChatTokenizer, rows: Sequence[Row], length: int, context: Context) -> list[tuple[Tree, Row]]:
    """Held-out rankings as trees, those that fit ``length`` tokens; how many do not is said."""
    found = [(tree, row) for row in rows if len(tree := ranked_tree(tokenizer, row)) <= length]
    if len(found) < len(rows):
        context.progress.say(f"{len(rows) - len(found)} of {len(rows)} held-out "
                             f"rankings are longer than {length} tokens and were left out")
    return found


def full_ranking(length: int) -> Tree:
    """A prompt with four ranked responses that fills a row of ``length`` places."""
    each = max(1, length // 5)
    return Tree(np.zeros(max(1, length - 4 * each), np.int64), (np.zeros(each, np.int64),) * 4,
                payload=[[0], [1], [2], [3]])
