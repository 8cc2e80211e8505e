"""Rewards: what says how good each of K responses to a prompt is.

A reward is a reward model, an ensemble of them, a function (a checker by its name or one of the user's own), an address
that is asked over HTTP, or a weighted sum of several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from trivium.errors import TriviumError
from trivium.evaluation.checkers import Checker
from trivium.files import Row
from trivium.generation.endpoint import Endpoint
from trivium.generation.engine import Completion
from trivium.model import RewardModel
from trivium.stages.models import answer_tree
from trivium.stages.reward_settings import RewardEndpoint, RewardTerm, model_places, terms_of
from trivium.stages.reward_settings import RewardSetting as RewardSetting
from trivium.stages.scores import score_trees
from trivium.tokenizer.chat import ChatTokenizer, text_of_answer
from trivium.training.at_once import tokens_at_once
from trivium.training.batch import Tree
from trivium.training.epochs import longest_branch


@dataclass
class Answers:
    """Some prompts, and K responses to each."""

    rows: list[Row]
    """The prompts' rows: an ``id``, the ``prompt`` and whatever a function wants to know of it."""
    trees: list[Tree]
    """Each prompt with its K responses, as tokens."""
    texts: list[list[str]]
    """The K responses as texts."""
    finished: list[list[bool]]
    """Which of the K responses ended by themselves."""
    log_probs: list[list[np.ndarray]] = field(default_factory=list)
    """The log-probability of each token of the K responses, by what sampled them; empty where nothing did."""
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """What each term of a weighted sum says, before it is weighted. :class:`WeightedReward` puts it here."""

    @property
    def lengths(self) -> list[list[int] | None]:
        """How many tokens each of the K responses has, the one that ends it included; None where only texts are
        known."""
        return [list(map(len, tree.responses)) for tree in self.trees] if self.trees else [None] * len(self.rows)

    @classmethod
    def of_completions(cls, tokenizer: ChatTokenizer, rows: Sequence[Row], prompts: Sequence[np.ndarray],
                       completions: Sequence[Sequence[Completion]]) -> Answers:
        """What was sampled: ``prompts`` are token ids, ``completions`` K for each."""
        trees = [Tree(ids, tuple(np.array(one.tokens, np.int64) for one in group))
                 for ids, group in zip(prompts, completions, strict=True)]
        texts = [[tokenizer.decode([token for token in one.tokens if token != tokenizer.end_id]) for one in group]
                 for group in completions]
        return cls(list(rows), trees, texts, [[one.finished for one in group] for group in completions],
                   [[one.log_probs for one in group] for group in completions])

    @classmethod
    def of_texts(cls, tokenizer: ChatTokenizer, rows: Sequence[Row], texts: Sequence[Sequence[str]],
                 finished: Sequence[Sequence[bool]] | None = None) -> Answers:
        """What was written: K texts for each row, all of which ended unless ``finished`` says otherwise."""
        trees = [answer_tree(tokenizer, row, group) for row, group in zip(rows, texts, strict=True)]
        ended = finished or [[True] * len(group) for group in texts]
        words = [[text_of_answer(one) for one in group] for group in texts]
        return cls(list(rows), trees, words, [list(group) for group in ended])


class Reward(Protocol):
    """What says how good responses are. A ``with`` block closes it."""

    def __call__(self, answers: Answers) -> list[np.ndarray]:
        """K finite scores for each prompt. Raises :class:`TriviumError`, naming the prompt, where there are none."""
        ...

    def check_rows(self, rows: Sequence[Row]) -> None:
        """Raise :class:`TriviumError` where a prompt's row lacks what the reward needs."""
        return None

    def close(self) -> None:
        """End the processes that it started."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ModelReward(Reward):
    """A reward model's score of each response, centred on demonstrations by the model's shift.

    The K responses to a prompt share one computation of it as far as they fit a row of ``length`` tokens together
    (None: what the longest prompt needs with its responses, up to the model's positions), ``rows`` of which are read at
    once (None: those that hold 4,096 tokens); with ``one_by_one`` each is read with a prompt of its own.
    ``centred`` False leaves the shift out. A ``tokenizer`` is the model's own, with which it reads the responses'
    texts, whatever their tokens were."""

    def __init__(self, model: RewardModel, length: int | None, rows: int | None, precision: str,
                 one_by_one: bool = False, centred: bool = True, tokenizer: ChatTokenizer | None = None) -> None:
        self.model, self.length, self.rows, self.precision = model, length, rows, precision
        self.one_by_one, self.centred, self.tokenizer = one_by_one, centred, tokenizer

    def __call__(self, answers: Answers) -> list[np.ndarray]:
        """The scores, whether a response ended or not."""
        trees, shift = answers.trees, self.model.shift if self.centred else 0.0
        if self.tokenizer is not None:
            trees = Answers.of_texts(self.tokenizer, answers.rows, answers.texts).trees
        if self.one_by_one:
            alone = [Tree(tree.prompt, (response,)) for tree in trees for response in tree.responses]
            flat = [float(found[0]) + shift for found in self._read(alone)]
            ends = np.cumsum([len(tree.responses) for tree in trees])
            scores = np.split(np.array(flat), ends[:-1])
        else:
            scores = [found + shift for found in self._read(trees)]
        check_finite(answers, scores)
        return scores

    def _read(self, trees: Sequence[Tree]) -> list[np.ndarray]:
        longest, most = max(map(longest_branch, trees)), self.model.config.max_positions
        length = max(longest, self.length or min(max(map(len, trees)), most))
        rows = self.rows or max(1, tokens_at_once(self.model.config) // length)
        return score_trees(self.model, trees, length, rows, self.precision)


class EnsembleReward(Reward):
    """Several rewards of the same responses as one (Coste et al. 2024): their ``mean``, the ``worst`` of them, or,
    with ``uncertainty``, the mean less ``weight`` times their variance; each response by itself."""

    def __init__(self, members: Sequence[Reward], combine: str, weight: float) -> None:
        self.members, self.combine, self.weight = list(members), combine, weight

    def __call__(self, answers: Answers) -> list[np.ndarray]:
        """The combined scores, in float64."""
        by_member = [member(answers) for member in self.members]
        return [self._together(np.stack([np.asarray(one, np.float64) for one in scores]))
                for scores in zip(*by_member, strict=True)]

    def _together(self, scores: np.ndarray) -> np.ndarray:
        """``[members, K]`` as ``[K]``."""
        if self.combine == "worst":
            return scores.min(0)
        mean: np.ndarray = scores.mean(0)
        return mean - self.weight * scores.var(0) if self.combine == "uncertainty" else mean

    def check_rows(self, rows: Sequence[Row]) -> None:
        """All members must suit the rows."""
        for member in self.members:
            member.check_rows(rows)

    def close(self) -> None:
        """Close every member."""
        for member in self.members:
            member.close()


class FunctionReward(Reward):
    """A checker by its name, or a function of the user's own, in a process of its own with a time limit."""

    def __init__(self, checker: Checker) -> None:
        self.checker = checker

    def __call__(self, answers: Answers) -> list[np.ndarray]:
        """What the function says of each prompt's responses."""
        return [np.array(self.checker(row, texts, finished, lengths))
                for row, texts, finished, lengths in zip(answers.rows, answers.texts, answers.finished, answers.lengths,
                                                         strict=True)]

    def check_rows(self, rows: Sequence[Row]) -> None:
        """A checker by its name needs the row's ``truth`` or ``answer``."""
        self.checker.suits(rows)

    def close(self) -> None:
        """End the function's process."""
        self.checker.close()


class EndpointReward(Reward):
    """An address that is asked about each prompt."""

    def __init__(self, settings: RewardEndpoint, where: str = "reward") -> None:
        self.settings, self.where = settings, where
        self.endpoint = Endpoint(settings.address, "", settings.key_variable, settings.tries, settings.timeout,
                                 settings.pause, settings.workers)

    def __call__(self, answers: Answers) -> list[np.ndarray]:
        """What it replies, several prompts being asked about at a time."""
        return self.endpoint.at_once(self._ask, [answers.rows, answers.texts, answers.finished, answers.lengths],
                                     lambda done, total: None)

    def _ask(self, row: Row, responses: Sequence[str], finished: Sequence[bool],
             tokens: Sequence[int] | None) -> np.ndarray:
        body = {"row": row, "responses": list(responses), "finished": [bool(one) for one in finished],
                **({} if tokens is None else {"tokens": list(tokens)})}
        try:
            return self.endpoint.post("", body, lambda reply: numbers_of(reply["scores"], len(responses)))
        except TriviumError as error:
            raise TriviumError(f"{self.where}: at prompt {row.get('id')!r}: {error}") from error


class WeightedReward(Reward):
    """A weighted sum of rewards by their names. What each of them says is kept in :attr:`Answers.parts`."""

    def __init__(self, terms: Mapping[str, tuple[Reward, float]]) -> None:
        self.terms = dict(terms)

    def __call__(self, answers: Answers) -> list[np.ndarray]:
        """The sums, in float64."""
        answers.parts = {name: reward(answers) for name, (reward, _) in self.terms.items()}
        totals = [np.zeros(len(texts)) for texts in answers.texts]
        for name, (_, weight) in self.terms.items():
            totals = [total + weight * part for total, part in zip(totals, answers.parts[name], strict=True)]
        return totals

    def check_rows(self, rows: Sequence[Row]) -> None:
        """All terms must suit the rows."""
        for reward, _ in self.terms.values():
            reward.check_rows(rows)

    def close(self) -> None:
        """Close every term."""
        for reward, _ in self.terms.values():
            reward.close()


def load_reward(setting: str | Mapping[str, RewardTerm], place: Any, load_model: Callable[[Path, str], Reward],
                where: str = "reward") -> Reward:
    """The reward that a setting names. ``place`` is the setting's entry in ``Context.inputs``, and ``load_model``
    makes a reward of a model's folder, given its place in the settings, such as ``reward.helpful``.

    Raises :class:`TriviumError` for an unknown checker and for a file that is not there."""
    places = model_places(setting, place)

    def load(name: str, term: RewardTerm) -> Reward:
        named = f"{where}.{name}" if name else where
        if term.models:
            return EnsembleReward([load_model(folder, f"{named}.models.{number}")
                                   for number, folder in enumerate(places[name])], term.combine, term.uncertainty)
        if term.model is not None:
            return load_model(places[name][0], named)
        if term.endpoint is not None:
            return EndpointReward(term.endpoint, named)
        assert term.function is not None
        hint = f"{named}.seconds" if name else f"{where}: {{score: {{function: ..., seconds: ...}}}}"
        return FunctionReward(Checker(term.function, term.seconds, named, hint))

    terms = terms_of(setting)
    if isinstance(setting, str):
        return load("", terms[""])
    return WeightedReward({name: (load(name, term), term.weight) for name, term in terms.items()})


def numbers_of(given: Any, count: int) -> np.ndarray:
    """``count`` finite numbers that came from outside. Raises :class:`TriviumError` for anything else."""
    if not isinstance(given, list) or len(given) != count or not all(
            isinstance(value, (int, float)) and math.isfinite(value) for value in given):
        raise TriviumError(f"{count} finite numbers were expected, not {given!r:.200}")
    return np.array(given, np.float64)


def check_finite(answers: Answers, scores: Sequence[np.ndarray]) -> None:
    """Raise :class:`TriviumError`, naming the prompt, for a reward model's score that is not finite."""
    for row, given in zip(answers.rows, scores, strict=True):
        if not np.isfinite(given).all():
            raise TriviumError(
                f"the score of a response to prompt {row['id']} is not finite ({given.tolist()}); look at the reward "
                "model's weights")
