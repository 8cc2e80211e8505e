"""One model, one set of questions, several ways to ask: with no examples, with examples, with examples that reason
aloud."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trivium import randomness
from trivium.errors import TriviumError, nearest
from trivium.evaluation import choices, comparing
from trivium.evaluation.checkers import CHECKS
from trivium.evaluation.statistics import mean_difference, rate
from trivium.evaluation.world import fact_of
from trivium.files import read_json, read_rows
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel
from trivium.model import folder as model_folder
from trivium.model.gguf.read import opened
from trivium.tokenizer.chat import ChatTokenizer, check_messages
from trivium.tokenizer.train import END
from trivium.world import rubric

METHODS = {
    "zero-shot": "the question alone",
    "few-shot": "examples before it, each with its final answer (Brown et al. 2020)",
    "chain-of-thought": "examples before it, each with its reasoning (Wei et al. 2022)",
    "step-by-step": "the question alone, with a request to think step by step (Kojima et al. 2022)",
}
"""Every way to ask, and what it puts before the question."""

REQUEST = "Let us think step by step."


@dataclass(frozen=True)
class Question:
    """Something to ask."""

    text: str
    task: str
    right: Callable[[str], bool]
    """Whether an answer is right."""
    cluster: Hashable = None
    """What it asks about, where others may ask the same; None stands alone."""


@dataclass(frozen=True)
class Example:
    """A question with its answer in full, and with the conclusion alone."""

    question: str
    answer: str
    conclusion: str
    task: str

    @property
    def reasons(self) -> bool:
        """Whether the answer says more than its conclusion."""
        return self.answer.strip() != self.conclusion.strip()


def conclusion_of(answer: str) -> str:
    """What an answer comes to: the text after ``####`` (GSM8K), else the sentence with "answer is", else all of it."""
    if "####" in answer:
        return f"The answer is {answer.rsplit('####', 1)[1].strip()}."
    said = re.findall(r"[^.!?]*\banswer is\b[^.!?]*[.!?]?", answer)
    return said[-1].strip() if said else answer


def reasoning_of(answer: str) -> str:
    """An answer as a model should give it: GSM8K's ``<<...>>`` notes left out, and its ``####`` spelt out."""
    text = re.sub(r"<<[^<>]*>>", "", answer)
    return f"{text.rsplit('####', 1)[0].strip()} {conclusion_of(answer)}" if "####" in text else text


def same_answer(expected: str, answer: str) -> bool:
    """Whether ``answer`` comes to ``expected``: its number, when a number is expected; the letter that it settles on,
    when a letter is; else the words themselves, as whole words."""
    check = CHECKS["number"][1]
    if re.fullmatch(r"[-+−]?[\d.,]+ ?%?", expected.strip()) and check({"answer": expected}, expected):
        return bool(check({"answer": expected}, answer))
    letter = choices.letter_of(expected)
    return choices.same_choice(answer, expected) if letter else comparing.contains(answer, expected)


def read_questions(path: Path, task: str | None = None) -> list[Question]:
    """Questions of a JSONL file, or of ``evaluation.jsonl`` in a folder: rows of the embedded world (``prompt``,
    ``truth``, ``task``), or ``{"question", "answer"}`` as in GSM8K. Raises :class:`TriviumError` that names file and
    row."""
    file = path / "evaluation.jsonl" if path.is_dir() else path
    found, tasks = [], set()
    for number, row in read_rows(file):
        try:
            if "truth" in row:
                messages = check_messages(row["prompt"])
                one = Question(messages[-1]["content"], str(row["task"]),
                               lambda text, row=row: rubric.is_right(row, text),  # type: ignore[misc]
                               fact_of(row) if "entity" in row["truth"] else None)
                rubric.is_right(row, "?")
            else:
                expected = str(row["answer"])
                expected = expected.rsplit("####", 1)[1].strip() if "####" in expected else expected
                one = Question(str(row["question"]), str(row.get("task", "questions")),
                               lambda text, expected=expected: same_answer(expected, text))  # type: ignore[misc]
        except (KeyError, TypeError, AttributeError, TriviumError) as error:
            what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise TriviumError(
                f"{file}: row {number}: {what}; a question has `prompt`, `task` and `truth`, or `question` and `answer`"
            ) from error
        tasks.add(one.task)
        if task is None or one.task == task:
            found.append(one)
    if not found:
        raise TriviumError(f"--task {task}: {file} has no such task{nearest(task, tasks)}"
                           if task and tasks else f"{file}: no questions")
    return found


def read_examples(path: Path, task: str | None = None) -> list[Example]:
    """Examples of a JSONL file, or of ``demonstrations.jsonl`` in a folder: chat messages, or ``{"question",
    "answer"}``."""
    file = path / "demonstrations.jsonl" if path.is_dir() else path
    found = []
    for number, row in read_rows(file):
        try:
            if "messages" in row:
                messages = check_messages(row["messages"])
                question, answer = messages[0]["content"], messages[-1]["content"]
            else:
                question, answer = str(row["question"]), str(row["answer"])
        except (KeyError, TriviumError) as error:
            raise TriviumError(
                f"{file}: row {number}: {error}; an example has `messages`, or `question` and `answer`") from error
        if task is None or "task" not in row or row["task"] == task:
            found.append(
                Example(question, reasoning_of(answer), conclusion_of(answer), str(row.get("task", "questions"))))
    return found


def choose(examples: Sequence[Example], question: Question, shots: int, seed: int, number: int) -> list[Example]:
    """The examples that stand before a question: of its task, where there are any; the same ones for every method;
    those that reason, where there are enough of them."""
    alike = [example for example in examples if example.task == question.task] or list(examples)
    alike = [example for example in alike if example.question != question.text]
    reasoning = [example for example in alike if example.reasons]
    if len(reasoning) >= shots:
        alike = reasoning
    return randomness.python(seed, "shots", number).sample(alike, min(shots, len(alike)))


def prompt_for(method: str, question: Question, examples: Sequence[Example], tokenizer: ChatTokenizer,
               chat: bool) -> list[int]:
    """The token ids that ask: turns of a chat, or for a model that only continues text, questions and answers below one
    another."""
    shown = [] if method in ("zero-shot", "step-by-step") else [
        (example.question, example.answer if method == "chain-of-thought" else example.conclusion)
        for example in examples
    ]
    text = f"{question.text} {REQUEST}" if method == "step-by-step" else question.text
    if chat:
        turns = [
            turn for asked, answer in shown
            for turn in ({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
        ]
        return tokenizer.encode_chat([*turns, {"role": "user", "content": text}], generation_prompt=True)[0]
    before = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in shown)
    return tokenizer.started(tokenizer.encode(f"{before}Question: {text}\nAnswer:"))


def compare(folder: Path, questions: Sequence[Question], examples: Sequence[Example], methods: Sequence[str],
            shots: int = 4, max_new_tokens: int = 96, seed: int = 0,
            progress: Callable[[str, int, int], None] = lambda method, done, total: None) -> dict[str, Any]:
    """Ask every question in every way, greedily, and count right answers.

    Returns ``{"questions", "left_out", "methods": {name: {"right", "mean_tokens", "versus", "answers"}}}``. ``right``
    has its 95 % interval; ``versus`` is the difference from the first method, question by question, with the interval
    of a paired mean. Questions about one fact count as one cluster. Questions that are too long for the model with any
    method are left out for all, so that all answer the same ones.
    """
    check_methods(methods, examples, shots)
    folder = opened(folder)
    model = model_folder.load(folder)
    if not isinstance(model, LanguageModel):
        raise TriviumError(f"{folder}: a reward model, where a language model was expected")
    tokenizer = ChatTokenizer.load(folder)
    chat = read_json(folder / "tokenizer_config.json").get("eos_token") == END
    chosen = [choose(examples, question, shots, seed, number) for number, question in enumerate(questions)]
    prompts = {method: [prompt_for(method, question, before, tokenizer, chat)
                        for question, before in zip(questions, chosen, strict=True)] for method in methods}
    longest = model.config.max_positions - max_new_tokens
    fitting = [i for i in range(len(questions)) if all(len(prompts[method][i]) <= longest for method in methods)]
    if not fitting:
        raise TriviumError(f"no question fits the model's {model.config.max_positions} positions with {shots} examples "
                           f"and {max_new_tokens} new tokens; lower --shots or --max-new-tokens")
    results: dict[str, Any] = {}
    first: list[float] = []
    clusters = [(i if questions[i].cluster is None else questions[i].cluster) for i in fitting]
    for method in methods:
        answers, lengths = ask(model, tokenizer, [prompts[method][i] for i in fitting], chat, max_new_tokens,
                               partial(progress, method))
        right = [float(questions[i].right(answer)) for i, answer in zip(fitting, answers, strict=True)]
        first = first or right
        versus = mean_difference(right, first, seed, clusters) if method != methods[0] else None
        results[method] = {"right": rate(right, clusters), "mean_tokens": float(np.mean(lengths)), "versus": versus,
                           "answers": answers}
    return {
        "model": str(folder), "questions": len(fitting), "left_out": len(questions) - len(fitting), "shots": shots,
        "chat": chat, "first": methods[0], "methods": results
    }


def ask(model: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[list[int]], chat: bool, max_new_tokens: int,
        progress: Callable[[int, int], None]) -> tuple[list[str], list[int]]:
    """A greedy answer to each prompt, and its length in tokens. Without ``chat`` an answer ends with its line."""
    stop = [tokenizer.end_id, tokenizer.document_id]
    if not chat:
        stop += [token for token in range(tokenizer.vocab_size) if "\n" in tokenizer.decode([token])]
    groups = generate(model, prompts, Sampling(temperature=0.0, max_new_tokens=max_new_tokens), stop, progress=progress)
    answers = [tokenizer.decode([token for token in group[0].tokens if token not in stop]).strip() for group in groups]
    return answers, [len(group[0].tokens) for group in groups]


def check_methods(methods: Sequence[str], examples: Sequence[Example], shots: int) -> None:
    """Raise :class:`TriviumError` for an unknown way to ask, and for one that the examples do not suffice for."""
    for method in methods:
        if method not in METHODS:
            raise TriviumError(f"--method {method}: unknown{nearest(method, METHODS)}")
    if shots < 1:
        raise TriviumError(f"--shots {shots}: at least 1 example is needed")
    needs = {"few-shot", "chain-of-thought"} & set(methods)
    if needs and not examples:
        raise TriviumError(f"{' and '.join(sorted(needs))} need examples: name a file of them with --examples")
    if "chain-of-thought" in methods and not any(example.reasons for example in examples):
        raise TriviumError("chain-of-thought needs examples that reason: answers with more than the conclusion, which "
                           "is marked by `####` or \"The answer is\"")
