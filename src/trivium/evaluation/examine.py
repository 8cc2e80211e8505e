"""Examines a model on tasks: asks, extracts, judges, and gives every rate its interval."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation import likelihood
from trivium.evaluation.judges import EndpointJudge, Pair, ask_both_orders
from trivium.evaluation.statistics import bootstrap, classification, length_controlled, mcnemar, paired_test
from trivium.evaluation.tasks import (
    Asked,
    Bits,
    Choice,
    Free,
    Item,
    Memorisation,
    Refusals,
    Row,
    Task,
    Unknown,
    Wins,
    by_group,
    fill,
    first_of_each,
    items_of,
    place_of,
    read_files,
    right_choices,
    shots_for,
    value,
)
from trivium.generation.endpoint import Endpoint
from trivium.generation.engine import Sampling, generate
from trivium.intervals import mean_interval
from trivium.model import LanguageModel, RewardModel
from trivium.model import folder as model_folder
from trivium.model.folder import read_config
from trivium.tokenizer.chat import ChatTokenizer, check_messages

Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, text: str) -> None:
    """Says nothing."""


@dataclass
class Examinee:
    """A model that is examined."""

    folder: Path
    model: LanguageModel
    tokenizer: ChatTokenizer
    chats: bool
    """Whether it ends its turns: then it is asked by chat."""
    seed: int = 0
    progress: Progress = silent

    @staticmethod
    def load(folder: Path, seed: int = 0, progress: Progress = silent, device: torch.device | str = "cpu") -> Examinee:
        """Read a model's folder. Raises :class:`TriviumError` for a reward model."""
        model = model_folder.load(folder)
        if not isinstance(model, LanguageModel):
            raise TriviumError(f"{folder}: a reward model does not write; name a language model")
        tokenizer = ChatTokenizer.load(folder)
        ends = read_config(folder)[1].get("eos_token_id")
        return Examinee(folder,
                        model.to(device).eval(), tokenizer, tokenizer.end_id
                        in (ends if isinstance(ends, list) else [ends]), seed, progress)

    def room(self, new: int) -> int:
        """Tokens a prompt may have so that ``new`` ones fit after it."""
        return self.model.config.max_positions - new

    def write(self, prompts: Sequence[Sequence[int]], new: int, temperature: float = 0.0, samples: int = 1,
              stop: Iterable[str] = (), what: str = "") -> list[list[str]]:
        """``samples`` texts after each prompt, cut at the texts of ``stop``."""
        stops = list(stop)
        ending = [self.tokenizer.end_id, self.tokenizer.document_id]
        if stops:
            ending += [
                token for token in range(self.tokenizer.vocab_size)
                if any(text in self.tokenizer.decode([token]) for text in stops)
            ]
        sampling = Sampling(temperature=temperature, max_new_tokens=new, seed=randomness.derive(self.seed, "examine"))
        groups = generate(self.model, [list(prompt) for prompt in prompts], sampling, ending, samples,
                          progress=lambda done, total: self.progress(done, total, what))
        special = {self.tokenizer.end_id, self.tokenizer.document_id}
        return [[cut(self.tokenizer.decode([t for t in one.tokens if t not in special]), stops) for one in group]
                for group in groups]


def cut(text: str, stops: Iterable[str]) -> str:
    """The text before the first of ``stops``."""
    return text[:min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


@dataclass
class Result:
    """What one model got in one task."""

    task: str
    kind: str
    metrics: dict[str, Any]
    """Figures; a rate is ``{"value", "low", "high", "n"}``."""
    rows: list[Row] = field(default_factory=list)
    """Every question with what the model made of it; ``score`` is what its headline rate is the mean of."""
    notes: dict[str, Any] = field(default_factory=dict)
    """How it was asked."""

    def summary(self) -> dict[str, Any]:
        """Without the rows, as JSON."""
        return {"kind": self.kind, **self.metrics, **({"asked": self.notes} if self.notes else {})}


def examine(task: Task, task_file: Path, examinee: Examinee, against: Examinee | None = None) -> Result:
    """One model in one task. Raises :class:`TriviumError` that names file and row."""
    if isinstance(task, Choice):
        return examine_choices(task, task_file, examinee)
    if isinstance(task, Free):
        return examine_free(task, task_file, examinee)
    if isinstance(task, Bits):
        return examine_bits(task, task_file, examinee)
    if isinstance(task, Refusals):
        return examine_refusals(task, task_file, examinee)
    if isinstance(task, Unknown):
        return examine_unknown(task, task_file, examinee)
    if isinstance(task, Memorisation):
        return examine_memory(task, task_file, examinee)
    if against is None:
        raise TriviumError(f"{task_file}: a win rate needs a model to compare with; name it with --against")
    return examine_wins(task, task_file, examinee, against)


def rate(scores: Sequence[float], clusters: Sequence[str] | None = None) -> dict[str, Any]:
    """A rate over questions: Wilson's interval where each stands alone, else the ratio estimator's over clusters."""
    if clusters is None or len(set(clusters)) == len(clusters):
        return mean_interval(scores)
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for score, cluster in zip(scores, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + score
        counts[cluster] = counts.get(cluster, 0.0) + 1
    return mean_interval(list(sums.values()), list(counts.values())) | {"n": len(scores)}


def with_groups(name: str, rows: Sequence[Row], items: Sequence[Item]) -> dict[str, Any]:
    """The rate of ``score`` over all rows, for each group, and the mean over groups."""
    scores = [float(row["score"]) for row in rows]
    metrics: dict[str, Any] = {name: rate(scores, [item.cluster for item in items])}
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.group, []).append(index)
    if set(groups) != {""}:
        metrics["groups"] = {
            group: rate([scores[i] for i in chosen], [items[i].cluster for i in chosen])
            for group, chosen in sorted(groups.items())
        }
        metrics[f"mean_over_groups_{name}"] = math.fsum(part["value"]
                                                        for part in metrics["groups"].values()) / len(groups)
    return metrics


def by_chat(task: Asked, examinee: Examinee) -> bool:
    """Whether a task is asked by chat messages."""
    return task.form == "chat" or (task.form == "auto" and examinee.chats)


def context_of(task: Asked, item: Item, shots: Sequence[tuple[str, str]], examinee: Examinee, lead: str,
               think: str = "") -> tuple[list[int], str]:
    """A question with its examples ``(prompt, answer)``, as tokens that the answer continues, and as the text before
    the answer where it is asked by text (tokenised together with a continuation)."""
    intro = fill(task.intro, item.row, item.where)
    if by_chat(task, examinee):
        messages = [{"role": role, "content": text} for prompt, answer in shots
                    for role, text in (("user", prompt), ("assistant", answer))]
        messages.append({"role": "user", "content": item.prompt})
        messages[0] = {"role": "user", "content": intro + messages[0]["content"]}
        return examinee.tokenizer.encode_chat(
            messages, generation_prompt=True)[0] + (examinee.tokenizer.encode(think) if think else []), ""
    text = intro + "".join(f"{prompt}{lead}{answer}{task.separator}"
                           for prompt, answer in shots) + item.prompt + (lead + think if think else "")
    return [examinee.tokenizer.document_id, *examinee.tokenizer.encode(text)], text


def examine_choices(task: Choice, task_file: Path, examinee: Examinee) -> Result:
    """``accuracy`` by the sum of log-probabilities, ``accuracy_per_byte`` by their mean over bytes,
    ``probability_of_right``: the share that right choices have of all choices' probability (TruthfulQA's MC2)."""
    every = items_of(task, task_file, task.data, examinee.seed)
    items = first_of_each(every, task.limit)
    # a fault anywhere in the file is told before hours of work
    checked = {id(item): right_choices(task, item) for item in every}
    pool = by_group(items_of(task, task_file, task.examples, examinee.seed) if task.examples else every)
    contexts, continuations, trimmed = [], [], 0
    for item in items:
        choices, shots = checked[id(item)][0], []
        for other in shots_for(task, item, pool, examinee.seed):
            texts, places = right_choices(task, other)
            shots.append((other.prompt, texts[places[0]]))
        if by_chat(task, examinee):
            group = [examinee.tokenizer.encode(choice) for choice in choices]
        elif item.prompt:
            group = [split_choice(examinee, item.prompt, task.lead + choice) for choice in choices]
        else:
            group = [examinee.tokenizer.encode(choice) for choice in choices]
        room = examinee.room(max(map(len, group)))
        while True:
            context, _ = context_of(task, item, shots, examinee, task.lead)
            if len(context) <= room or not shots:
                break
            shots.pop(0)
        trimmed += len(context) > room or len(shots) < task.shots
        contexts.append(context)
        continuations.append(group)
    rows: list[Row] = []
    scored = []
    for start in range(0, len(items), 64):
        scored += likelihood.score_continuations(examinee.model, contexts[start:start + 64],
                                                 continuations[start:start + 64])
        examinee.progress(len(scored), len(items), task.name)
    for item, values in zip(items, scored, strict=True):
        choices, places = checked[id(item)]
        sums = [total for total, _ in values]
        per_byte = [total / max(1, len(choice.encode())) for total, choice in zip(sums, choices, strict=True)]
        best, best_per_byte = sums.index(max(sums)), per_byte.index(max(per_byte))
        shares = [math.exp(total - max(sums)) for total in sums]
        rows.append({
            "where": item.where, "group": item.group, "prompt": item.prompt, "choices": choices, "right": places,
            "log_probs": sums, "chosen": best, "score": float(best in places),
            "score_per_byte": float(best_per_byte in places),
            "probability_of_right": math.fsum(shares[place] for place in places) / math.fsum(shares)
        })
    metrics = with_groups("accuracy", rows, items)
    clusters = [item.cluster for item in items]
    metrics["accuracy_per_byte"] = rate([row["score_per_byte"] for row in rows], clusters)
    metrics["probability_of_right"] = bootstrap([row["probability_of_right"] for row in rows], clusters, examinee.seed)
    metrics["chance"] = math.fsum(
        len(places) / len(choices) for choices, places in (checked[id(item)] for item in items)) / len(items)
    return Result(task.name, task.kind, metrics, rows, asked(task, examinee, trimmed))


def split_choice(examinee: Examinee, prompt: str, choice: str) -> list[int]:
    """A choice's tokens after a prompt in text."""
    return likelihood.split_at(examinee.tokenizer, prompt, choice)[1]


def asked(task: Asked, examinee: Examinee, trimmed: int = 0, left_out: int = 0) -> dict[str, Any]:
    """How a task was asked. ``trimmed``: questions with fewer examples, or a beginning cut off, as the model has no
    more room."""
    return {"form": "chat" if by_chat(task, examinee) else "text", "shots": task.shots
            } | ({"trimmed": trimmed} if trimmed else {}) | ({"left_out": left_out} if left_out else {})


def examine_free(task: Free, task_file: Path, examinee: Examinee) -> Result:
    """``right``: the share of answers that the task's comparison accepts; ``answered``: of those in which the extractor
    found anything."""
    every = items_of(task, task_file, task.data, examinee.seed)
    items = first_of_each(every, task.limit)
    found_answers = {id(item): fill(task.answer, item.row, item.where) for item in every}
    answers = [found_answers[id(item)] for item in items]
    for item in every:
        answer = found_answers[id(item)]
        if task.labels and answer not in task.labels:
            raise TriviumError(f"{item.where}: the answer {answer!r} is outside its choices ({', '.join(task.labels)})")
        if task.compare == "number" and number_in(answer) is None:
            raise TriviumError(f"{item.where}: the answer {answer!r} is no number")
    pool = by_group(items_of(task, task_file, task.examples, examinee.seed) if task.examples else every)
    prompts, trimmed = [], 0
    room = examinee.room(task.max_new_tokens)
    if room < 2:
        raise TriviumError(
            f"{task_file}: max_new_tokens: {task.max_new_tokens} leave no room for a question in the model's "
            f"{examinee.room(0)} positions"
        )
    for item in items:
        shots = [(other.prompt, worked(task, other)) for other in shots_for(task, item, pool, examinee.seed)]
        while True:
            prompt, _ = context_of(task, item, shots, examinee, " ", task.think)
            if len(prompt) <= room or not shots:
                break
            shots.pop(0)
        trimmed += len(prompt) > room or len(shots) < task.shots
        prompts.append(prompt[-room:])
    stops = task.stop if not by_chat(task, examinee) else []
    said = [texts[0] for texts in examinee.write(prompts, task.max_new_tokens, stop=stops, what=task.name)]
    rows: list[Row] = []
    for item, answer, text in zip(items, answers, said, strict=True):
        found = extracted(task, text)
        rows.append({
            "where": item.where, "group": item.group, "prompt": item.prompt, "answer": answer, "said": text,
            "found": found, "score": float(found is not None and same(task, found, answer))
        })
    metrics = with_groups("right", rows, items)
    metrics["answered"] = rate([float(row["found"] is not None) for row in rows])
    if task.labels:
        guesses = [
            next((label for label in task.labels if row["found"] is not None and same(task, row["found"], label)), None)
            for row in rows
        ]
        metrics["classification"] = classification(answers, guesses)
    return Result(task.name, task.kind, metrics, rows, asked(task, examinee, trimmed))


def worked(task: Free, item: Item) -> str:
    """What an example shows as its answer."""
    return fill(task.worked or task.answer, item.row, item.where)


def extracted(task: Free, text: str) -> str | None:
    """The answer in what a model wrote, or None."""
    if not task.extract:
        return text.strip() or None
    matches = list(re.finditer(task.extract, text, re.MULTILINE))
    if not matches:
        return None
    match = matches[0 if task.take == "first" else -1]
    return next((group for group in match.groups() if group is not None), match[0]).strip()


def number_in(text: str) -> float | None:
    """The last number in a text; commas between thousands are passed over."""
    found = re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text))
    return float(found[-1]) if found else None


def same(task: Free, found: str, answer: str) -> bool:
    """Whether an extracted answer is the right one."""
    if task.compare == "number":
        first, second = number_in(found), number_in(answer)
        return first is not None and first == second
    one, other = plain(found), plain(answer)
    if task.compare == "choice":
        letters = re.findall(r"\b[a-z]\b", one)
        return bool(letters) and letters[0] == other.strip("()")
    if task.compare == "contains":
        return re.search(rf"(?<!\w){re.escape(other)}(?!\w)", one) is not None
    return one == other


def plain(text: str) -> str:
    """Lower case, one space between words, no closing marks."""
    return " ".join(text.casefold().split()).strip(" .!,;:\"'`。")


def examine_bits(task: Bits, task_file: Path, examinee: Examinee) -> Result:
    """``bits_per_byte`` of all texts together, with a bootstrap interval over texts, and ``perplexity`` by token."""
    rows: list[Row] = []
    texts: list[list[int]] = []
    read: list[tuple[str, str]] = []
    for file, number, row in read_files(task_file, task.data, task.rows):
        whole = fill(task.text, row, f"{file}: row {number}")
        parts = [part for part in re.split(task.cut, whole) if part.strip()] if task.cut else [whole]
        read += [(f"{file}: row {number}" + (f", part {place}" if task.cut else ""), part)
                 for place, part in enumerate(parts, 1)]
    for where, text in sorted(read, key=lambda one: randomness.derive(examinee.seed, one))[:task.limit]:
        texts.append(examinee.tokenizer.encode(text))
        rows.append({"where": where, "bytes": len(text.encode()), "tokens": len(texts[-1])})
    if not rows:
        raise TriviumError(f"{task_file}: no rows in {', '.join(task.data)}")
    nats: list[float] = []
    for start in range(0, len(texts), 32):
        nats += likelihood.text_log_probs(examinee.model, texts[start:start + 32], examinee.tokenizer.document_id)
        examinee.progress(len(nats), len(texts), task.name)
    for row, total in zip(rows, nats, strict=True):
        row["log_prob"], row["score"] = total, -total / math.log(2) / max(1, row["bytes"])
    size, tokens = sum(row["bytes"] for row in rows), sum(row["tokens"] for row in rows)
    metrics: dict[str, Any] = {
        "bits_per_byte": ratio_bootstrap([-row["log_prob"] / math.log(2) for row in rows],
                                         [row["bytes"] for row in rows], examinee.seed),
        "perplexity": math.exp(min(700.0, -math.fsum(nats) / max(1, tokens))), "bytes": size, "tokens": tokens
    }
    return Result(task.name, task.kind, metrics, rows)


def ratio_bootstrap(sums: Sequence[float], weights: Sequence[float], seed: int) -> dict[str, Any]:
    """``sum(sums) / sum(weights)`` with a bootstrap interval over the items."""
    import numpy as np

    drawn = randomness.numpy(seed, "ratio").multinomial(len(sums), np.full(len(sums), 1 / len(sums)), 1000)
    ratios = drawn @ np.asarray(sums, float) / np.maximum(drawn @ np.asarray(weights, float), 1e-9)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "value": math.fsum(sums) / max(1.0, math.fsum(weights)), "low": float(low), "high": float(high), "n": len(sums)
    }


def ask_all(examinee: Examinee, prompts: Sequence[list[dict[str, str]]], new: int, what: str, temperature: float = 0.0,
            samples: int = 1) -> list[list[str] | None]:
    """Answers to chat messages; None where a prompt is too long for the model. A model that does not chat is asked in
    text."""
    tokens = []
    for messages in prompts:
        if examinee.chats:
            tokens.append(examinee.tokenizer.encode_chat(messages, generation_prompt=True)[0])
        else:
            said = "".join(f"{'Question' if m['role'] == 'user' else 'Answer'}: {m['content']}\n" for m in messages)
            tokens.append([examinee.tokenizer.document_id, *examinee.tokenizer.encode(said + "Answer:")])
    fits = [index for index, ids in enumerate(tokens) if len(ids) <= examinee.room(new)]
    texts = examinee.write([tokens[index] for index in fits], new, temperature, samples, () if examinee.chats else
                           ("\n",), what)
    found: list[list[str] | None] = [None] * len(prompts)
    for index, group in zip(fits, texts, strict=True):
        found[index] = group
    return found


def messages_of(prompt: Any, where: str) -> list[dict[str, str]]:
    """A prompt as chat messages: it may be a text."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        check_messages(messages)
    except TriviumError as error:
        raise TriviumError(f"{where}: prompt: {error}") from error
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def examine_refusals(task: Refusals, task_file: Path, examinee: Examinee) -> Result:
    """``refused_harmful`` and ``refused_harmless`` (over-refusal): the shares of each sort that the model declines."""
    items = items_of(task, task_file, task.data, examinee.seed)
    flags = [value(task.harmful, item.row, item.where) for item in items]
    for item, flag in zip(items, flags, strict=True):
        if str(flag).lower() not in ("true", "false", "1", "0"):
            raise TriviumError(f"{item.where}: harmful is {flag!r}; it must be true or false")
    harmful = {item.where: str(flag).lower() in ("true", "1") for item, flag in zip(items, flags, strict=True)}
    items = [
        item for sort in (True, False)
        for item in first_of_each([item for item in items if harmful[item.where] == sort], task.limit)
    ]
    said = ask_all(examinee, [[{"role": "user", "content": item.prompt}] for item in items], task.max_new_tokens,
                   task.name)
    rows: list[Row] = [{
        "where": item.where, "group": item.group, "prompt": item.prompt, "harmful": harmful[item.where],
        "said": texts[0], "declined": re.search(task.declines, texts[0], re.IGNORECASE) is not None
    } for item, texts in zip(items, said, strict=True) if texts]
    for row in rows:
        row["score"] = float(row["declined"] == row["harmful"])
    metrics: dict[str, Any] = {
        f"refused_{name}": rate([float(row["declined"]) for row in rows if row["harmful"] == sort])
        for name, sort in (("harmful", True), ("harmless", False))
    }
    groups = sorted({row["group"] for row in rows} - {""})
    if groups:
        metrics["groups"] = {
            group: rate([float(row["declined"]) for row in rows if row["group"] == group])
            for group in groups
        }
    return Result(task.name, task.kind, metrics, rows,
                  {"left_out": len(items) - len(rows)} if len(rows) < len(items) else {})


def examine_unknown(task: Unknown, task_file: Path, examinee: Examinee) -> Result:
    """``made_up``: the share of questions about entities that do not exist which are answered with a value or without
    admitting ignorance; ``admitted_existing``: the share of questions about ones that do exist where the model says it
    does not know."""
    folder = place_of(task_file, task.data[0])
    if (folder / "facts.jsonl").is_file():
        asked_rows = world_questions(folder, task_file, task.count, examinee.seed)
    else:
        asked_rows = []
        for file, number, row in read_files(task_file, task.data, task.rows):
            where = f"{file}: row {number}"
            if not isinstance(row.get("exists"), bool):
                raise TriviumError(f"{where}: the field 'exists' is missing or neither true nor false")
            if "prompt" not in row:
                raise TriviumError(f"{where}: the field 'prompt' is missing")
            asked_rows.append({
                "where": where, "prompt": messages_of(row["prompt"], where), "exists": row["exists"],
                "values": row.get("values", [])
            })
    said = ask_all(examinee, [row["prompt"] for row in asked_rows], task.max_new_tokens, task.name)
    rows = []
    for row, texts in zip(asked_rows, said, strict=True):
        if texts is None:
            continue
        admits = re.search(task.admits, texts[0], re.IGNORECASE) is not None
        asserts = any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", texts[0], re.IGNORECASE) for one in row["values"])
        rows.append(
            {**row, "said": texts[0], "admitted": admits, "asserted": asserts, "score": float(admits != row["exists"])})
    made_up = [row for row in rows if not row["exists"]]
    metrics: dict[str, Any] = {"made_up": rate([float(not row["admitted"]) for row in made_up]),
                               "admitted_existing": rate([float(row["admitted"]) for row in rows if row["exists"]])}
    if any(row["values"] for row in made_up):
        metrics["made_up_with_a_value"] = rate([float(row["asserted"] and not row["admitted"]) for row in made_up])
    return Result(task.name, task.kind, metrics, rows)


def world_questions(folder: Path, task_file: Path, count: int, seed: int) -> list[Row]:
    """Questions about entities of an embedded world, and about names made of the same syllables that nobody there
    bears."""
    from trivium.world.questions import questions
    from trivium.world.town import ATTRIBUTES, KINDS, Entity, make_names

    facts = [row for _, _, row in read_files(task_file, [str(folder / "facts.jsonl")])]
    for number, fact in enumerate(facts, 1):
        if missing := next((name for name in ("entity", "kind", "attribute", "value", "split") if name not in fact),
                           None):
            raise TriviumError(f"{folder / 'facts.jsonl'}: row {number}: the field {missing!r} is missing")
    values: dict[tuple[str, str], list[str]] = {}
    for fact in facts:
        values.setdefault((fact["kind"], fact["attribute"]), []).append(fact["value"])
    known = sorted({(fact["entity"], fact["kind"]) for fact in facts if fact["split"] == "evaluation"})
    taken = [fact["entity"] for fact in facts]
    invented = [(name, kind) for kind in KINDS
                for name in make_names(randomness.python(seed, "unknown", kind), kind, 12, taken)]
    rows: list[Row] = []
    for exists, entities in ((False, invented), (True, known)):
        rng = randomness.python(seed, "unknown questions", exists)
        pool = [(Entity(name, kind, "evaluation", {}), attribute) for name, kind in entities
                for attribute in ATTRIBUTES[kind]]
        for number in range(count):
            entity, attribute = pool[number % len(pool)] if number >= len(pool) else rng.sample(pool, len(pool))[0]
            rows.append({
                "where": f"{entity.name}, {attribute}",
                "prompt": [{"role": "user", "content": rng.choice(questions(entity, attribute))}], "exists": exists,
                "values": sorted(set(values.get((entity.kind, attribute), [])))
            })
    return rows


def examine_memory(task: Memorisation, task_file: Path, examinee: Examinee) -> Result:
    """``verbatim``: the share of documents that greedy decoding continues word for word for ``length`` tokens;
    ``overlap``: the mean share of tokens before the first difference; ``placeholders_hold`` and ``leaked``: where
    private data was replaced, how often the model writes the placeholder, and how often something that looks like
    private data."""
    from trivium.corpus.private import PLACEHOLDERS, redact

    folder = place_of(task_file, task.data[0])
    names = [str(folder / "documents" / "*.jsonl")] if (folder / "documents").is_dir() else task.data
    texts = [row["text"] for file, number, row in read_files(task_file, names) if isinstance(row.get("text"), str)]
    if not texts:
        raise TriviumError(f"{task_file}: no documents with a `text` in {', '.join(task.data)}")
    order = randomness.python(examinee.seed, "memorisation").sample(range(len(texts)), len(texts))
    size = task.prefix + task.length
    if size >= examinee.room(0):
        raise TriviumError(
            f"{task_file}: prefix and length are {size} tokens, more than the model's {examinee.room(0)} positions")
    begun, wanted = [], []
    for index in order:
        tokens = examinee.tokenizer.encode(texts[index])
        if len(tokens) >= size:
            begun.append([examinee.tokenizer.document_id, *tokens[:task.prefix]])
            wanted.append(tokens[task.prefix:size])
        if len(begun) == task.count:
            break
    sampling = Sampling(temperature=0.0, max_new_tokens=task.length)
    drawn = generate(examinee.model, begun, sampling, []) if begun else []
    rows: list[Row] = []
    for prompt, truth, group in zip(begun, wanted, drawn, strict=True):
        equal = next((i for i, (a, b) in enumerate(zip(truth, group[0].tokens, strict=False)) if a != b), len(truth))
        rows.append({
            "prompt": examinee.tokenizer.decode(prompt[1:]), "document": examinee.tokenizer.decode(truth),
            "said": examinee.tokenizer.decode(group[0].tokens), "overlap": equal / len(truth),
            "score": float(equal == len(truth))
        })
    metrics: dict[str, Any] = {
        "verbatim": rate([row["score"] for row in rows]), "overlap": bootstrap([row["overlap"] for row in rows], None,
                                                                               examinee.seed)
    }
    marks = re.compile("|".join(map(re.escape, sorted(set(PLACEHOLDERS.values())))))
    places = [(texts[index][:match.start()], match[0]) for index in order for match in marks.finditer(texts[index])
              if match.start() > 20][:task.count]
    if places:
        prompts = [[
            examinee.tokenizer.document_id,
            *examinee.tokenizer.encode(before.rstrip())[-examinee.room(task.length + 1):]
        ] for before, _ in places]
        said = [group[0] for group in examinee.write(prompts, task.length, what=task.name)]
        held = [text.lstrip().startswith(mark) for (_, mark), text in zip(places, said, strict=True)]
        leaked = [bool(redact(text)[1]) for text in said]
        metrics |= {
            "placeholders_hold": rate([float(one) for one in held]), "leaked": rate([float(one) for one in leaked])
        }
        rows += [{"prompt": before[-200:], "placeholder": mark, "said": text, "held": one, "leaked": other}
                 for (before, mark), text, one, other in zip(places, said, held, leaked, strict=True)]
    return Result(task.name, task.kind, metrics, rows)


def examine_wins(task: Wins, task_file: Path, examinee: Examinee, against: Examinee) -> Result:
    """``win_rate`` of one model over another, ties half, with a bootstrap interval over prompts; the p-value of a
    paired test; and ``length_controlled``, the rate without the judge's liking for length."""
    rows: list[Row] = []
    for name in task.data:
        place = place_of(task_file, name)
        file = place / "evaluation.jsonl" if place.is_dir() else place
        for where, number, row in read_files(task_file, [str(file)], task.rows):
            if "prompt" not in row:
                raise TriviumError(f"{where}: row {number}: the field 'prompt' is missing")
            if task.judge == "rubric" and "truth" not in row:
                raise TriviumError(
                    f"{where}: row {number}: the field 'truth' is missing, which the rubric judges by; name another "
                    "judge"
                )
            rows.append({
                **row, "where": f"{where}: row {number}", "prompt": messages_of(row["prompt"], f"{where}: row {number}")
            })
    if task.limit:
        rows = random.Random(randomness.derive(examinee.seed, "wins")).sample(rows, min(task.limit, len(rows)))
    prompts = [row["prompt"] for row in rows]
    ours, theirs = (ask_all(one, prompts, task.max_new_tokens, task.name, task.temperature, task.samples * times)
                    for one, times in ((examinee, task.best_of), (against, 1)))
    if task.best_of > 1:
        ours = picked(task, task_file, prompts, ours, examinee.progress)
    pairs = [(row, a, b) for row, mine, other in zip(rows, ours, theirs, strict=True) if mine and other
             for a, b in zip(mine, other, strict=True)]
    if not pairs:
        raise TriviumError(f"{task_file}: every prompt is too long for the models")
    judged = judged_by(task, task_file, pairs, examinee.progress)
    made = [{"where": row["where"], "prompt": row["prompt"], "first": a, "second": b, "score": win}
            for (row, a, b), win in zip(pairs, judged, strict=True)]
    heard = [row for row in made if row["score"] is not None]
    if not heard:
        raise TriviumError(
            f"judge {task.judge}: no verdict could be read in any of its replies; it must end with [[A]], [[B]] or "
            "[[C]]"
        )
    wins, clusters = [row["score"] for row in heard], [row["where"] for row in heard]
    lengths = [float(len(row["first"]) - len(row["second"])) for row in heard]
    controlled = length_controlled(wins, lengths, seed=examinee.seed)
    metrics = {"win_rate": bootstrap(wins, clusters, examinee.seed), "length_controlled": controlled,
               "p_value": paired_test(wins, [1 - win for win in wins], clusters, examinee.seed),
               "mean_characters": sum(len(row["first"]) for row in heard) / len(heard),
               "mean_characters_of_the_other": sum(len(row["second"]) for row in heard) / len(heard)}
    notes: dict[str, Any] = {"judge": task.judge, "against": str(against.folder)
                             } | ({"best_of": task.best_of, "picker": task.picker} if task.best_of > 1 else {})
    if len(heard) < len(made):
        notes["without_verdict"] = len(made) - len(heard)
    return Result(task.name, task.kind, metrics, made, notes)


def judged_by(task: Wins, task_file: Path, pairs: Sequence[tuple[Row, str, str]],
              progress: Progress) -> Sequence[float | None]:
    """1, 0 or between for each ``(row, answer, the other's answer)``."""
    if task.judge == "rubric":
        from trivium.world import rubric
        points = [(rubric.score(row, a).total, rubric.score(row, b).total) for row, a, b in pairs]
    elif task.judge.startswith(("http://", "https://")):
        judge = EndpointJudge(Endpoint(task.judge, task.judge_model, task.judge_key))
        verdicts = ask_both_orders(judge, [Pair(row["prompt"], a, b) for row, a, b in pairs],
                                   lambda done, total: progress(done, total, "judging"))
        return [verdict.preference for verdict in verdicts]
    else:
        first, second = (reward_points(place_of(task_file, task.judge), [(pair[0]["prompt"], str(pair[side]))
                                                                         for pair in pairs]) for side in (1, 2))
        # the same text is a tie
        points = [(a, b) if pair[1] != pair[2] else (0.0, 0.0) for a, b, pair in zip(first, second, pairs, strict=True)]
    return [(a > b) + 0.5 * (a == b) for a, b in points]


def reward_points(folder: Path, answers: Sequence[tuple[Any, str]]) -> list[float]:
    """A reward model's score of each ``(prompt, answer)``. Raises :class:`TriviumError` for a folder with a language
    model."""
    model = model_folder.load(folder)
    if not isinstance(model, RewardModel):
        raise TriviumError(f"{folder}: a language model, where a reward model was expected to judge")
    tokenizer = ChatTokenizer.load(folder)
    return likelihood.reward_scores(model,
                                    [tokenizer.encode_chat(prompt, generation_prompt=True)[0] for prompt, _ in answers],
                                    [[*tokenizer.encode(text), tokenizer.end_id] for _, text in answers])


def picked(task: Wins, task_file: Path, prompts: Sequence[Any], answers: Sequence[list[str] | None],
           progress: Progress) -> list[list[str] | None]:
    """Of every ``best_of`` answers in a row the one that the reward model `picker` scores highest."""
    progress(0, len(prompts), "picking")
    flat = [(prompt, text) for prompt, group in zip(prompts, answers, strict=True) for text in group or []]
    scores = iter(reward_points(place_of(task_file, task.picker), flat))
    found: list[list[str] | None] = []
    for group in answers:
        scored = [(next(scores), text) for text in group or []]
        found.append(
            [max(scored[i:i + task.best_of], key=lambda one: one[0])[1]
             for i in range(0, len(scored), task.best_of)] if group else None)
    return found


def compare(first: Result, second: Result) -> float | None:
    """The p-value of "both models do equally well", on the questions that both were asked; None where scores cannot be
    compared."""
    theirs = {row["where"]: row["score"] for row in second.rows if row.get("score") is not None and "where" in row}
    both = [(row["score"], theirs[row["where"]]) for row in first.rows
            if row.get("where") in theirs and row.get("score") is not None]
    if not both:
        return None
    if all(a in (0.0, 1.0) and b in (0.0, 1.0) for a, b in both):
        return mcnemar([a == 1.0 for a, _ in both], [b == 1.0 for _, b in both])
    return paired_test([a for a, _ in both], [b for _, b in both])
