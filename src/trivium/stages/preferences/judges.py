"""The judges of AI feedback: a language model, a reward model, an endpoint, or a function of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from trivium.errors import TriviumError
from trivium.evaluation.judges import EndpointJudge, FunctionJudge, Judge, Pair, Progress, silent
from trivium.evaluation.likelihood import score_continuations
from trivium.extensions import file_of
from trivium.files import Row
from trivium.generation.endpoint import Endpoint
from trivium.model import LanguageModel, RewardModel
from trivium.model import folder as model_folder
from trivium.stages.endpoint import EndpointSettings
from trivium.stages.models import answer_tree, load_tokenizer, prompt_ids
from trivium.stages.scores import score_trees
from trivium.tokenizer.chat import ChatTokenizer, text_of_answer
from trivium.training.settings import NumberFormat

QUESTION = """{principles}

Question: {prompt}

Answer A: {first}

Answer B: {second}

Which answer is better by these principles, A or B?"""


def as_text(messages: Sequence[Row]) -> str:
    """A prompt's messages as plain text."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {text_of_answer(message)}" for message in messages)


def question_by(principles: str, pair: Pair, ending: str = "") -> str:
    """:data:`QUESTION` about a pair."""
    return QUESTION.format(principles=principles, prompt=as_text(pair.prompt), first=pair.first,
                           second=pair.second) + ending


class RewardJudge:
    """A reward model. The probability is the sigmoid of the difference of two scores (Bradley and Terry 1952)."""

    def __init__(self, model: RewardModel, tokenizer: ChatTokenizer, precision: NumberFormat) -> None:
        self.model, self.tokenizer, self.precision = model, tokenizer, precision

    def prefers_first(self, pairs: Sequence[Pair], progress: Progress = silent) -> list[float | None]:
        """By the two answers' scores."""
        trees = [answer_tree(self.tokenizer, {"prompt": pair.prompt, "tools": pair.tools}, (pair.first, pair.second))
                 for pair in pairs]
        scores = score_trees(self.model, trees, max(map(len, trees)), 16, self.precision)
        return [float(1 / (1 + np.exp(second - first))) for first, second in scores]


class LetterJudge:
    """A language model's own choice between the letters A and B, by written principles."""

    def __init__(self, model: LanguageModel, tokenizer: ChatTokenizer, principles: str) -> None:
        self.model, self.tokenizer, self.principles = model, tokenizer, principles

    def prefers_first(self, pairs: Sequence[Pair], progress: Progress = silent) -> list[float | None]:
        """By how likely either letter is. Raises :class:`TriviumError` for a question that is longer than the model's
        positions."""
        questions = [prompt_ids(self.tokenizer, [{"role": "user", "content": question_by(self.principles, pair)}]
                                ).tolist() for pair in pairs]
        longest, positions = max(map(len, questions)), self.model.config.max_positions
        if longest > positions - 2:
            raise TriviumError(f"a question to the judge has {longest} tokens, but the model only {positions} "
                               "positions; shorten `constitution` or max_new_tokens, or take another judge")
        letters = [self.tokenizer.encode("A"), self.tokenizer.encode("B")]
        log_probs = score_continuations(self.model, questions, [letters] * len(questions))
        return [float(1 / (1 + np.exp(b - a))) for (a, _), (b, _) in log_probs]


def judge_of(judge: str | Path, endpoint: EndpointSettings | None, constitution: Sequence[str], seconds: float,
             kept: Path, precision: NumberFormat) -> Judge:
    """The judge that a stage's settings name: an ``endpoint``, whose replies are ``kept``; else ``FILE.py:NAME``, or
    the folder of a reward model or a language model. Raises :class:`TriviumError` for any other model."""
    principles = "\n".join(constitution)
    if endpoint:
        question = partial(question_by, principles, ending=" End with [[A]] or [[B]].")
        return EndpointJudge(Endpoint(**endpoint.model_dump()), question, kept)
    if file_of(str(judge)) is not None:
        return FunctionJudge(str(judge), principles, seconds)
    folder = Path(judge)
    model = model_folder.load(folder)
    tokenizer = load_tokenizer(folder, model.config.vocab_size)
    model.eval()
    if isinstance(model, RewardModel):
        return RewardJudge(model, tokenizer, precision)
    if isinstance(model, LanguageModel):
        return LetterJudge(model, tokenizer, principles)
    raise TriviumError(f"{folder}: {model_folder.what_is(model)} cannot judge; name a chat model or a reward model")
