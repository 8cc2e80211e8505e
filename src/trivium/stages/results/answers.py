"""How the models of an examination are asked, and what is measured of their answers."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation.answer_loss import AnswerLoss
from trivium.evaluation.checkers import Checker
from trivium.evaluation.world import fact_of
from trivium.files import Row
from trivium.generation.engine import Completion, Sampling, generate
from trivium.model import LanguageModel
from trivium.progress import Progress
from trivium.stages.models import load_language_model, prompt_ids
from trivium.stages.pretraining.pretrain import bits_per_byte, pieces
from trivium.stages.reinforcement.rollout import log_probs_of
from trivium.stages.rewards import Answers, Reward
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Tree, map_trees
from trivium.training.epochs import PackedEpochs
from trivium.training.settings import NumberFormat


@dataclass
class ModelAnswers:
    """What one model of an examination, or the best of its samples, answered, and what was measured."""

    name: str
    samples: list[str] = field(default_factory=list)
    """An answer to each prompt, sampled: these are compared with the baseline's. Empty for the base model."""
    finished: list[bool] = field(default_factory=list)
    """Which of the sampled answers ended by themselves."""
    greedy: list[str] = field(default_factory=list)
    """An answer to each prompt, decoded greedily: on these right answers are counted. Empty where nothing counts
    them."""
    checked: dict[str, list[float]] = field(default_factory=dict)
    """By each checker's name, what it says of each greedy answer."""
    broken: list[float] = field(default_factory=list)
    """1 for each sampled answer that holds a word that exists nowhere, where the embedded world is asked about."""
    losses: dict[int, AnswerLoss] = field(default_factory=dict)
    """By the prompt's number, the loss of the row's own answer."""
    points: list[float] = field(default_factory=list)
    """The judge's points for each sampled answer."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What the stage's summary says of the model."""


@dataclass(frozen=True)
class Sampled:
    """One answer to each prompt, as texts and as token ids, the mark of the end included."""

    texts: list[str]
    tokens: list[list[int]]
    finished: list[bool]
    """Which of them ended by themselves."""

    @classmethod
    def of_completions(cls, completions: Sequence[Completion], tokenizer: ChatTokenizer) -> Sampled:
        """What was sampled for each prompt."""
        return cls([text_of(one.tokens, tokenizer) for one in completions], [one.tokens for one in completions],
                   [one.finished for one in completions])

    @property
    def mean_length(self) -> float:
        """The mean length of an answer, in tokens."""
        return float(np.mean([len(tokens) for tokens in self.tokens]))


def cluster_of(row: Row) -> Hashable:
    """What a prompt stands and falls with."""
    for name in ("cluster", "group"):
        if row.get(name) is not None:
            return name, str(row[name])
    return fact_of(row) if "truth" in row else json.dumps(row["prompt"], sort_keys=True, ensure_ascii=False)


def prompts_that_fit(prompts: list[Row], model: LanguageModel, tokenizer: ChatTokenizer, max_new_tokens: int,
                     progress: Progress) -> list[Row]:
    """The prompts that leave the model room for an answer; how many do not is reported.

    Raises :class:`TriviumError` where none does."""
    longest = model.config.max_positions - max_new_tokens
    fitting = [row for row in prompts if len(prompt_ids(tokenizer, row["prompt"], row.get("tools"))) <= longest]
    if len(fitting) < len(prompts):
        progress.say(
            f"{len(prompts) - len(fitting)} of {len(prompts)} prompts are too long for the model and were left out")
    if not fitting:
        raise TriviumError(
            "evaluate: every prompt is too long for the model; raise model.max_positions or lower max_new_tokens")
    return fitting


def answer(model: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[Row], sampling: Sampling,
           progress: Progress, name: str) -> Sampled:
    """A model's answer to each prompt."""
    asked = [prompt_ids(tokenizer, row["prompt"], row.get("tools")).tolist() for row in prompts]
    groups = generate(model, asked, sampling, [tokenizer.end_id], keys=[row["id"] for row in prompts],
                      progress=lambda done, total: progress.update(done, total, f"asking {name}"))
    return Sampled.of_completions([group[0] for group in groups], tokenizer)


def best_of(model: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[Row], numbers: Sequence[int],
            picker: Reward, sampling: Sampling, progress: Progress, name: str) -> dict[int, Sampled]:
    """By each N of ``numbers``: of the first N of a model's samples the one that ``picker`` scores highest. A response
    that never ends is picked only where none does."""
    prompt_tokens, most = [prompt_ids(tokenizer, row["prompt"], row.get("tools")) for row in prompts], max(numbers)
    groups = generate(model, [ids.tolist() for ids in prompt_tokens], sampling, [tokenizer.end_id], most,
                      keys=[row["id"] for row in prompts],
                      progress=lambda done, total: progress.update(done, total, f"asking {name}, {most} times"))
    scores = picker(Answers.of_completions(tokenizer, prompts, prompt_tokens, groups))
    best: dict[int, Sampled] = {}
    for number in numbers:
        picked = [max(zip(group[:number], values[:number], strict=True), key=lambda one: (one[0].finished, one[1]))[0]
                  for group, values in zip(groups, scores, strict=True)]
        best[number] = Sampled.of_completions(picked, tokenizer)
    return best


def best_of_kl(number: int) -> float:
    """KL(best of N || the model) in nats: ``log N - (N - 1) / N`` (Stiennon et al. 2020, G.3), an upper bound where
    responses repeat (Beirami et al. 2024)."""
    return math.log(number) - (number - 1) / number


def text_of(tokens: Iterable[int], tokenizer: ChatTokenizer) -> str:
    """An answer's text, without the mark of its end."""
    return tokenizer.decode([token for token in tokens if token != tokenizer.end_id])


def few_shot_answers(folder: Path, demonstrations: Sequence[Row], prompts: Sequence[Row], shots: int,
                     max_new_tokens: int, seed: int) -> list[str]:
    """A pretrained model's greedy answers, prompted with a few demonstrations of the same task as plain text (Brown et
    al. 2020)."""
    model, tokenizer = load_language_model(folder)
    longest = model.config.max_positions - max_new_tokens - 1
    contexts = []
    for row in prompts:
        alike = [demonstration for demonstration in demonstrations if demonstration.get("task") == row.get("task")]
        examples = randomness.python(seed, "shots", row["id"]).sample(alike, min(shots, len(alike)))
        text = "".join(f"Question: {messages[0]['content']}\nAnswer: {messages[-1]['content']}\n\n"
                       for messages in (example["messages"] for example in examples))
        text += f"Question: {row['prompt'][-1]['content']}\nAnswer:"
        contexts.append(tokenizer.started(tokenizer.encode(text)[-longest:]))
    breaks = [token for token in range(tokenizer.vocab_size) if "\n" in tokenizer.decode([token])]
    groups = generate(model, contexts, Sampling(temperature=0.0, max_new_tokens=max_new_tokens),
                      [tokenizer.document_id, *breaks])
    texts = [tokenizer.decode([token for token in group[0].tokens if token != tokenizer.document_id])
             for group in groups]
    return [text.split("\n")[0].strip() for text in texts]


def check_answers(checker: Checker, prompts: Sequence[Row], answers: Sequence[str]) -> list[float]:
    """What a checker says of each answer."""
    return [checker(row, [text])[0] for row, text in zip(prompts, answers, strict=True)]


def reward_points(reward: Reward, prompts: Sequence[Row], answers: Sequence[str],
                  finished: Sequence[bool]) -> list[float]:
    """The score that a reward, whose models read texts, gives to each answer."""
    given = Answers(list(prompts), [], [[text] for text in answers], [[ended] for ended in finished])
    return [float(scores[0]) for scores in reward(given)]


def sampled_kl(model: LanguageModel, reference: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[Row],
               tokens: Sequence[Sequence[int]], temperature: float, progress: Progress, name: str) -> float:
    """KL(model || reference) of a response in nats, estimated from the model's own samples ``tokens``, drawn at
    ``temperature``. ``progress`` is told how far it is with the model called ``name``."""
    trees = [Tree(prompt_ids(tokenizer, row["prompt"], row.get("tools")), (np.array(ids, np.int64),))
             for row, ids in zip(prompts, tokens, strict=True)]
    length = max(map(len, trees))

    def log_probs(one: LanguageModel, what: str) -> list[np.ndarray]:
        one.eval()
        return map_trees(lambda batch: log_probs_of(one, batch, temperature), trees, length, 16,
                         model.lm_head.weight.device, per_token=True,
                         progress=lambda done, total: progress.update(done, total, f"rows of {name} read by {what}"))

    drifts = zip(log_probs(model, "itself"), log_probs(reference, "the reference"), strict=True)
    return float(np.mean([(a - b).sum() for a, b in drifts]))


def validation_bits(model: LanguageModel, tokenizer: ChatTokenizer, tokens: Path, precision: NumberFormat) -> float:
    """Bits per byte of a tokenised corpus's validation documents."""
    documents = Tokens.open(tokens / "validation", tokenizer.digest)
    size = sum(len(tokenizer.decode(document[:-1].tolist()).encode()) for document in documents)
    length = min(256, model.config.max_positions)
    return bits_per_byte(model, PackedEpochs(pieces(documents, tokenizer, length), length, 16, 0), size,
                         precision)
