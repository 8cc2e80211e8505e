"""Self-Instruct: a model writes new instructions from a few seeds, and instances of them (Wang et al. 2023, section
2)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation.overlap import f_measure, longest_common
from trivium.files import Journal, Row, read_rows, write_json, write_rows
from trivium.generation.endpoint import Endpoint
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.endpoint import EndpointSettings
from trivium.stages.models import load_language_model, prompt_ids


class SelfInstruct(Stage):
    """Have a model write new demonstrations from a few seed tasks (Self-Instruct)."""

    kind: ClassVar[str] = "selfinstruct"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("demonstrations by a model", "模型自写示范", "teach")
    seeds: Input
    """Seed tasks: JSONL with `instruction` in each row, or demonstrations."""
    model: Input | None = None
    """The chat model that writes; null for an `endpoint`."""
    endpoint: EndpointSettings | None = None
    """A model behind an address."""
    count: int = Field(100, ge=1)
    """Demonstrations to write."""
    shots: int = Field(8, ge=2)
    """Tasks shown to the model; a quarter of them are its own."""
    likeness: float = Field(0.7, gt=0, le=1)
    """ROUGE-L with any earlier task from which an instruction is too like it."""
    fewest_words: int = Field(3, ge=1)
    """Shortest instruction, in words (in characters, for Chinese)."""
    most_words: int = Field(150, ge=1)
    """Longest instruction."""
    banned: list[str] = [
        "image", "images", "picture", "pictures", "graph", "graphs", "file", "files", "map", "maps", "draw", "plot",
        "video", "audio", "图片", "视频"
    ]
    """Words that no instruction may have: what a model of text cannot do."""
    temperature: float = Field(0.7, ge=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer, in tokens."""

    @model_validator(mode="after")
    def _one_model(self) -> SelfInstruct:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("name a `model` or an `endpoint`, one of them")
        return self

    def run(self, context: Context) -> dict[str, object]:
        """Write ``demonstrations.jsonl``, each row with its origin, and ``rejects.jsonl``. Every answer of the model is
        kept as it comes, so an interrupted run asks for none twice."""
        seeds = read_seeds(context.inputs["seeds"])
        name, ask = teller(self, context)
        ask = journal(ask, context.scratch / "asked.jsonl")
        tasks: list[Row] = [{"instruction": text, "id": f"seed-{i}"} for i, text in enumerate(seeds)]
        words = [tokens_of(task["instruction"]) for task in tasks]
        rows: list[Row] = []
        rejects: list[Row] = []
        number = fruitless = 0
        while len(rows) < self.count:
            if fruitless >= 50:
                raise TriviumError(
                    f"{context.name}: the last 50 answers of {name} gave no new task "
                    f"({rejects[-1]['reason'] if rejects else 'nothing to read'}); "
                    "take another model, or fewer rows")
            shown = choose(tasks, self.shots, len(seeds), context.seed, number)
            prompt = WRITE.format(
                tasks="\n".join(f"Task {i}: {task['instruction']}" for i, task in enumerate(shown, 1)),
                next=len(shown) + 1)
            written = parse_tasks(ask(prompt, number))
            number += 1
            fruitless += 1
            for instruction in written:
                if len(rows) >= self.count:
                    break
                found = tokens_of(instruction)
                reason = refused(instruction, found, words, self)
                if reason is None:
                    yes = ask(CLASSIFY.format(task=instruction), number).strip().lower().startswith(("yes", "是"))
                    answer = ask((LABELLED if yes else INSTANCE).format(task=instruction), number + 1)
                    number += 2
                    instance = parse_instance(answer, label_first=yes)
                    reason = "no input and output could be read from the instance" if instance is None else None
                if reason is not None or instance is None:
                    rejects.append(
                        {"instruction": instruction, "reason": reason, "from": [task["id"] for task in shown]})
                    continue
                given, output = instance
                words.append(found)
                task = {"instruction": instruction, "id": f"task-{len(rows)}"}
                tasks.append(task)
                fruitless = 0
                rows.append({
                    "messages": [{"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction},
                                 {"role": "assistant", "content": output}], "task": "classification" if yes else "open",
                    "origin": {"id": task["id"], "shown": [t["id"] for t in shown], "model": name}
                })
                context.progress.update(len(rows), self.count, f"{len(rejects)} rejected")
        write_rows(context.folder / "demonstrations.jsonl", rows)
        write_rows(context.folder / "rejects.jsonl", rejects)
        kinds = Counter(re.sub(r"\d[\d.]*|'.*'", "…", row["reason"]) for row in rejects)
        report = {
            "demonstrations": len(rows), "classification": sum(row["task"] == "classification" for row in rows),
            "rejected": dict(kinds.most_common()), "asked": number
        }
        write_json(context.folder / "report.json", report)
        return dict(report)


Ask = Callable[[str, int], str]
"""``ask(prompt, number)``: a model's answer; the number names its random stream."""

WRITE = (
    "Come up with more tasks like these, each in one or two sentences and unlike the others. Number them "
    "on.\n\n{tasks}\nTask {next}:"
)
CLASSIFY = (
    "Does the task have a small fixed set of possible answers (a classification)? Answer yes or no.\n\n"
    "Task: Say whether the review is good or bad.\nAnswer: yes\n\nTask: Write a poem about the sea.\nAnswer: "
    "no\n\nTask: {task}\nAnswer:"
)
INSTANCE = ("Give one example of the task: an input, if it needs one (else write: none), and the right output.\n\n"
            "Task: Translate the sentence into French.\nInput: Good evening.\nOutput: Bonsoir.\n\nTask: {task}\nInput:")
LABELLED = (
    "The task is a classification. Choose one of its possible answers, and then write an input that it is right "
    "for.\n\n"
    "Task: Say whether the review is good or bad.\nOutput: bad\nInput: The soup was cold.\n\nTask: {task}\nOutput:")
"""Classification tasks are written answer first, so that not all inputs get one label (their section 2.2)."""




def read_seeds(path: Path) -> list[str]:
    """The instructions of seed tasks: rows with ``instruction``, or with chat ``messages``."""
    found = []
    for number, row in read_rows(path / "demonstrations.jsonl" if path.is_dir() else path):
        messages = row.get("messages")
        said = [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
        text = row.get("instruction") or next((m.get("content") for m in said if m.get("role") == "user"), None)
        if not isinstance(text, str) or not text.strip():
            raise TriviumError(f"{path}: row {number}: a seed task needs an `instruction`")
        found.append(text.strip())
    if len(found) < 2:
        raise TriviumError(f"{path}: {len(found)} seed tasks are too few; write at least 2")
    return found


def choose(tasks: Sequence[Row], shots: int, seeds: int, seed: int, number: int) -> list[Row]:
    """The tasks that are shown: three quarters of them people's, the others the model's own, when there are some."""
    rng = randomness.python(seed, "shown", number)
    own = min(shots // 4, len(tasks) - seeds)
    shown = rng.sample(tasks[:seeds], min(shots - own, seeds)) + rng.sample(tasks[seeds:], own)
    rng.shuffle(shown)
    return shown


def parse_tasks(text: str) -> list[str]:
    """The tasks of a numbered list; the first one's number was in the prompt."""
    parts = re.split(r"(?:^|\n)\s*(?:Task\s*)?\d+\s*[:.、：)]\s*",
                     "\n1: " + re.sub(r"^\s*(?:Task\s*)?\d+\s*[:.、：)]\s*", "", text))
    return [" ".join(part.split()) for part in parts if part.strip()]


def parse_instance(text: str, label_first: bool) -> tuple[str, str] | None:
    """Input (empty for none) and output of an instance whose first word was in the prompt."""
    first, second = ("Output", "Input") if label_first else ("Input", "Output")
    match = re.match(rf"\s*(?:{first}\s*[:：])?(.*?)\n\s*{second}\s*[:：](.*?)(?:\n\s*(?:Task|{first})\b.*)?$", text,
                     re.DOTALL)
    if not match:
        return None
    given, output = (match[2], match[1]) if label_first else (match[1], match[2])
    given, output = given.strip(), output.strip()
    given = "" if re.fullmatch(r"(?i)<?(none|no ?input|n/a|无)>?\.?", given) else given
    return None if not output or output == given else (given, output)


def tokens_of(text: str) -> list[str]:
    """Words, or single characters where a script has no spaces, in lower case."""
    return re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+", text.lower())


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004): the F-measure of the longest common subsequence. O(len(first) * len(second))."""
    return f_measure(longest_common(first, second), len(first), len(second))


def refused(instruction: str, words: Sequence[str], known: Sequence[Sequence[str]],
            settings: SelfInstruct) -> str | None:
    """Why an instruction is not taken; None for a good one."""
    if not settings.fewest_words <= len(words) <= settings.most_words:
        return f"{len(words)} words"
    banned = next(
        (word for word in settings.banned if (word.lower() in words if word.isascii() else word in instruction)), None)
    if banned is not None:
        return f"the word {banned!r} is banned"
    for other in known:
        # The common part is no longer than the shorter one, which bounds the score from above.
        if 2 * min(len(words), len(other)) / (len(words) + len(other) or 1) >= settings.likeness and rouge_l(
                words, other) >= settings.likeness:
            return f"too like an earlier task (ROUGE-L of {rouge_l(words, other):.2f})"
    return None


def journal(ask: Ask, path: Path) -> Ask:
    """``ask`` with a memory on disk: what was answered before is not asked again."""
    kept = Journal(path)
    return lambda prompt, number: kept(f"{randomness.derive(number, prompt):016x}", lambda: ask(prompt, number))


def teller(settings: SelfInstruct, context: Context) -> tuple[str, Ask]:
    """The model's name and how it is asked: a folder, or an endpoint that speaks OpenAI's protocol."""
    if settings.endpoint:
        endpoint = Endpoint(**settings.endpoint.model_dump())
        return settings.endpoint.model, lambda prompt, number: endpoint.ask(
            prompt, settings.temperature, settings.max_new_tokens,
            randomness.derive(context.seed, number) % 2**31)
    from trivium.generation.engine import Sampling, generate
    model, tokenizer = load_language_model(context.inputs["model"])

    def ask(prompt: str, number: int) -> str:
        ids = prompt_ids(tokenizer, [{"role": "user", "content": prompt}]).tolist()
        room = model.config.max_positions - settings.max_new_tokens
        if len(ids) > room:
            raise TriviumError(
                f"{context.name}: a prompt of {len(ids)} tokens leaves no room for an answer in "
                f"{model.config.max_positions} positions; "
                "lower `shots` or `max_new_tokens`")
        sampling = Sampling(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens,
                            seed=randomness.derive(context.seed, "ask", number))
        tokens = generate(model, [ids], sampling, [tokenizer.end_id, tokenizer.document_id])[0][0].tokens
        return tokenizer.decode([token for token in tokens if token not in (tokenizer.end_id, tokenizer.document_id)])

    return context.inputs["model"].name, ask
