"""What must not be learned by heart: the questions, choices and answers of evaluation sets, whatever their rows look
like.

A text is a *question* by the name of its field, at any depth, or where no field has such a name by being the first or
the longest text of its row. A *passage* is what a question is asked about: it stands in books and encyclopedias, which
are no leak, and is searched only on request. All other texts, choices and solutions among them, are *answers*: each is
searched by itself, without labels, and only where it is long enough to be no accident.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from trivium.corpus.words import plain_words
from trivium.data.readers import InputFile, Limits, find, has_rows, rows
from trivium.data.unpack import ARCHIVES, COMPRESSED, Bad
from trivium.errors import TriviumError

QUESTIONS = frozenset((
    "question", "questions", "prompt", "prompts", "input", "instruction", "text", "problem", "query", "goal", "ctx",
    "stem", "sentence", "sentence1", "sentence2", "sentence_good", "sentence_bad", "premise", "hypothesis", "turns",
    "test_case", "task", "statement", "claim", "题目", "题干", "问题", "问", "指令", "输入"))
PASSAGES = frozenset(("context", "contexts", "passage", "article", "document", "paragraph", "story", "support",
                      "background", "evidence", "材料", "文章", "背景"))
ANSWERS = frozenset(("answer", "answers", "choices", "options", "endings", "candidates", "targets", "correct_answers",
                     "incorrect_answers", "correct answers", "incorrect answers", "mc1_targets", "mc2_targets", "选项",
                     "答案"))
_ANSWERING = frozenset(("assistant", "gpt", "bot", "model", "chatgpt", "ai"))
_BLANK = re.compile(r"__+|(?<!\w)_(?!\w)|[(（]\s*[)）]|\[(?:MASK|BLANK)\]")
_LINE_WORDS = 8
_FILLED = 8  # a row with more answers than that is no sentence with a blank and what may fill it


@dataclass
class EvaluationTexts:
    """The texts of evaluation sets."""

    questions: list[str] = field(default_factory=list)
    """Searched whatever their length, but for very short ones."""
    answers: list[str] = field(default_factory=list)
    """Searched where they are long enough."""

    def add(self, other: EvaluationTexts) -> None:
        """Take over those of another set."""
        self.questions += other.questions
        self.answers += other.answers


def read_evaluation(source: Path, passages: bool, say: Callable[[str], None]) -> EvaluationTexts:
    """The texts of a file, folder or glob of rows or plain text. ``say`` is told how they were read, and which files of
    a folder hold no rows. Raises :class:`TriviumError` for a row or file that cannot be read, and where there are no
    texts: nothing is left out unseen."""
    found = EvaluationTexts()
    files = find([source])
    told, without, guessed = Counter[str](), list[str](), list[str]()
    for file in files:
        name = PurePosixPath(file.name.lower())
        if name.suffix in COMPRESSED and not file.name.lower().endswith(ARCHIVES):
            name = name.with_suffix("")
        if has_rows(file.name) or name.suffix == ".txt" or file.name.lower().endswith(ARCHIVES):
            texts, how = _of_file(file, name.suffix == ".txt", passages, guessed.append)
            found.add(texts)
            told[how] += 1
        elif len(files) == 1:
            raise TriviumError(f"{file.path}: holds no rows; name JSON, JSON lines, CSV, Parquet, Excel or plain text "
                               "with questions")
        else:
            without.append(file.name)
    if not found.questions:
        raise TriviumError(f"{source}: holds no evaluation texts; name JSON, JSON lines, Parquet or CSV files with "
                           "questions, prompts or texts")
    for how, number in told.items():
        say(f"{source.name}: {number:,} {'file' if number == 1 else 'files'}: {how}")
    for line in [*guessed[:_SAID], *([f"and so of {len(guessed) - _SAID:,} more"] if len(guessed) > _SAID else [])]:
        say(line)
    if without:
        say(f"{source.name}: without rows and not searched for: {', '.join(without[:_SAID])}"
            + (f" and {len(without) - _SAID:,} more" if len(without) > _SAID else ""))
    return found


_SAID = 5


def _of_file(file: InputFile, plain: bool, passages: bool, say: Callable[[str], None]) -> tuple[EvaluationTexts, str]:
    """The texts, and which fields hold what."""
    found, number = EvaluationTexts(), 0
    names: dict[str, dict[str, None]] = {role: {} for role in ("questions", "answers", "passages")}
    for place, row, value in rows(file, Limits(unwrap=True, heads=QUESTIONS | PASSAGES | ANSWERS), say):
        if isinstance(value, Bad):
            where = f"{place}: row {row}" if row else place
            raise TriviumError(f"{where}: {value.reason}; mend it or leave it out of the evaluation texts, for what it "
                               "asks would not be searched for")
        number += 1
        texts = texts_of(value)
        for role, name, text in texts:
            names[role][name] = None
            if role != "passages" or passages:
                (found.answers if role == "answers" else found.questions).append(text)
        found.questions += filled(texts)
        if plain:  # a question a line, perhaps
            found.answers += [line for _, _, text in texts for line in text.splitlines()
                              if len(plain_words(line)) >= _LINE_WORDS]
    if not number:
        raise TriviumError(f"{file.name}: holds no rows; mend it or leave it out of the evaluation texts")
    roles = [f"{', '.join(repr(name) for name in list(held)[:8])} as {role}" for role, held in names.items() if held]
    how = "; ".join(roles) or "no texts"
    return found, how + (", which are not searched for" if names["passages"] and not passages else "")


Text = tuple[str, str, str]
"""Role, name of the field, text."""


def texts_of(row: dict[str, Any]) -> list[Text]:
    """The texts of a row, each with its role."""
    texts = [(role, name, text) for role, name, text in _leaves(row, "", "") if text.strip()]
    if not any(role == "questions" for role, _, _ in texts):
        unknown = [text for role, _, text in texts if role == ""] or [text for role, _, text in texts
                                                                      if role == "passages"]
        # a short text may be a label: the first that may be a sentence, and the longest, ask
        first = next((text for text in unknown if len(plain_words(text)) >= 3), "")
        asking = {first, max(unknown, key=len, default="")}
        texts = [("questions" if role != "answers" and text in asking else role, name, text)
                 for role, name, text in texts]
    return [(role or "answers", name, text) for role, name, text in texts]


def filled(texts: list[Text]) -> list[str]:
    """Questions with a blank, each with every answer in it."""
    answers = [text for role, _, text in texts if role == "answers"]
    if not 0 < len(answers) <= _FILLED:
        return []
    blanks = [text for role, _, text in texts if role == "questions" and _BLANK.search(text)]
    return [_BLANK.sub(lambda _, answer=answer: answer, text) for text in blanks  # type: ignore[misc]
            for answer in answers if len(plain_words(answer)) > 0]


def _leaves(value: Any, role: str, name: str) -> Iterator[Text]:
    if isinstance(value, str):
        if not re.match(r"https?://\S+$", value):
            several = role == "answers" and name.lower().endswith("answers") and ";" in value
            yield from ((role, name, part) for part in (value.split(";") if several else [value]))
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part, role, name)
    elif isinstance(value, dict):
        speaker = value.get("role", value.get("from"))
        if isinstance(speaker, str) and ("content" in value or "value" in value):
            said = "answers" if speaker.lower() in _ANSWERING else role or "questions"
            yield from _leaves(value.get("content", value.get("value")), said, name or "content")
            return
        for key, part in value.items():
            yield from _leaves(part, _role(str(key).lower().strip(), role), str(key))


def _role(name: str, above: str) -> str:
    if above == "answers" or name in ANSWERS:
        return "answers"
    if name in QUESTIONS:
        return "questions"
    return "passages" if name in PASSAGES else above
