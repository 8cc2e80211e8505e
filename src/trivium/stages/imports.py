"""Rows as people have them, brought into this system's own formats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trivium import randomness
from trivium.corpus.plain import is_text
from trivium.corpus.readers import find, has_rows, rows
from trivium.corpus.unpack import ARCHIVES, Bad
from trivium.errors import TriviumError
from trivium.files import Reject, write_rows
from trivium.pipeline import Context
from trivium.stages.settings import Imports
from trivium.tokenizer.chat import check_messages

VERSION = 2
Row = dict[str, Any]


def run(settings: Imports, context: Context) -> dict[str, object]:
    """Write ``demonstrations.jsonl``, ``comparisons.jsonl``, ``prompts.jsonl`` (of the training comparisons), ``evaluation.jsonl``
    (of those held out) and ``rejects.jsonl``, which keeps every row that could not be read, with its reason."""
    rejects: list[Row] = []

    def reject(file: str, row: int, reason: str, text: str) -> None:
        rejects.append({"file": file, "row": row, "reason": reason, "text": text[:2000]})

    def take(sources: list[Path], read: Callable[[Row], Row], limit: int | None) -> list[Row]:
        found: dict[str, Row] = {}
        for source in sources:
            for file, number, row in rows_of_source(source, reject):
                try:
                    made = read(row)
                except KeyError as error:
                    reject(file, number, f"the field {error} is missing or its value unknown", json.dumps(row, ensure_ascii=False))
                except (TriviumError, TypeError, AttributeError, ValueError) as error:
                    reject(file, number, str(error) or type(error).__name__, json.dumps(row, ensure_ascii=False))
                else:
                    found.setdefault(json.dumps(made, sort_keys=True, ensure_ascii=False), made)
        chosen = sorted(found, key=lambda text: randomness.derive(context.seed, "import", text))[:limit]
        return [found[text] for text in chosen]

    demonstrations = take(context.inputs["demonstrations"], demonstration, settings.demonstrations_limit)
    comparisons = take(context.inputs["comparisons"], comparison, settings.comparisons_limit)
    if settings.demonstrations and not demonstrations:
        raise TriviumError(f"{settings.demonstrations[0]}: no demonstration could be read; " + _first(rejects))
    if settings.comparisons and not comparisons:
        raise TriviumError(f"{settings.comparisons[0]}: no comparison could be read; " + _first(rejects))
    prompts: dict[str, dict[str, Row]] = {"train": {}, "heldout": {}}
    for row in comparisons:
        text = json.dumps(row["prompt"], sort_keys=True, ensure_ascii=False)
        heldout = randomness.derive(context.seed, "heldout", text) / 2**64 < settings.heldout
        row["split"] = "heldout" if heldout else "train"
        identity = f"{randomness.derive(0, text):016x}"
        prompts[row["split"]][identity] = {"id": identity, "prompt": row["prompt"]}
    write_rows(context.folder / "demonstrations.jsonl", demonstrations)
    write_rows(context.folder / "comparisons.jsonl", comparisons)
    write_rows(context.folder / "prompts.jsonl", prompts["train"].values())
    write_rows(context.folder / "evaluation.jsonl", prompts["heldout"].values())
    write_rows(context.folder / "rejects.jsonl", rejects)
    if rejects:
        context.progress.say(f"{len(rejects)} rows were rejected: {_first(rejects)}")
    return {"demonstrations": len(demonstrations), "comparisons": len(comparisons), "rejected": len(rejects)}


def _first(rejects: list[Row]) -> str:
    return f"{rejects[0]['file']}: row {rejects[0]['row']}: {rejects[0]['reason']}" if rejects else "there are no rows"


def rows_of_source(source: Path, reject: Reject) -> Iterator[tuple[str, int, Row]]:
    """``(file, row from 1, row)`` of a file, a folder or an archive of JSON, JSON lines or Parquet, compressed or not."""
    for file in find([source]):
        if source.is_dir() and not (has_rows(file.name) or file.name.lower().endswith(ARCHIVES)):
            continue
        for name, number, row in rows(file):
            if isinstance(row, Bad):
                reject(name, number, row.reason, row.text)
            elif not is_text(text := json.dumps(row, ensure_ascii=False)):
                reject(name, number, "holds characters that are no text (lone surrogates)", text.encode("utf-8", "replace").decode())
            else:
                yield name, number, row


def demonstration(row: Row) -> Row:
    """A row of any known kind as ``{"messages": ...}``. Raises :class:`TriviumError` for what is none."""
    if "messages" in row:
        messages = row["messages"]
    elif "conversations" in row:
        roles = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
        messages = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    elif "instruction" in row and "output" in row:
        messages = _turn("\n\n".join(filter(None, (row["instruction"], row.get("input")))), row["output"])
    elif "question" in row and "answer" in row:
        answer = re.sub(r"<<[^<>]*>>", "", row["answer"])  # GSM8K's calculator marks
        messages = _turn(row["question"], answer.replace("\n#### ", "\nThe answer is ") + ("." if "\n#### " in answer else ""))
    elif "prompt" in row and "completion" in row:
        messages = _turn(row["prompt"], row["completion"])
    else:
        raise TriviumError(f"no known kind of demonstration has the fields {', '.join(sorted(row)) or '(none)'}; "
                           "give it `messages`, or `prompt` and `completion`")
    check_messages(messages)
    if messages[-1]["role"] != "assistant":
        raise TriviumError("the last message is not the assistant's")
    return {"messages": [{"role": m["role"], "content": m["content"]} for m in messages]}


def _turn(question: str, answer: str) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def comparison(row: Row) -> Row:
    """A row of any known kind as ``{"prompt": messages, "responses": [...], "ranking": [...]}``."""
    if "responses" in row:
        prompt, responses, ranking = row["prompt"], row["responses"], row["ranking"]
    elif "chosen" in row and "rejected" in row:
        chosen, rejected = row["chosen"], row["rejected"]
        if "prompt" in row or "instruction" in row:
            prompt = row["prompt"] if "prompt" in row else "\n\n".join(filter(None, (row["instruction"], row.get("input"))))
        else:
            first, second = dialogue(chosen), dialogue(rejected)
            if first[:-1] != second[:-1]:
                raise TriviumError("the two dialogues differ before their last turn")
            prompt, chosen, rejected = first[:-1], first[-1]["content"], second[-1]["content"]
        responses, ranking = [chosen, rejected], [[0], [1]]
    else:
        raise TriviumError(f"no known kind of comparison has the fields {', '.join(sorted(row)) or '(none)'}; "
                           "give it `prompt`, `responses` and `ranking`")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    check_messages(prompt)
    if not all(isinstance(text, str) and text.strip() for text in responses):
        raise TriviumError("a response is empty or not a text")
    if len(set(responses)) < len(responses):
        raise TriviumError("two responses are the same")
    if sorted(index for group in ranking for index in group) != list(range(len(responses))):
        raise TriviumError(f"the ranking {ranking} does not name each of the {len(responses)} responses once")
    if len(ranking) < 2:
        raise TriviumError("all responses are tied: nothing can be learned from that")
    return {"prompt": [{"role": m["role"], "content": m["content"]} for m in prompt], "responses": responses, "ranking": ranking}


def dialogue(text: str) -> list[Row]:
    """A dialogue of the HH kind, ``\\n\\nHuman: ...\\n\\nAssistant: ...``, as messages."""
    parts = re.split(r"\n\n(Human|Assistant):", text)
    roles = {"Human": "user", "Assistant": "assistant"}
    messages = [{"role": roles[role], "content": said.strip()} for role, said in zip(parts[1::2], parts[2::2], strict=True)]
    if parts[0].strip() or not messages or messages[-1]["role"] != "assistant":
        raise TriviumError("not a dialogue of 'Human:' and 'Assistant:' turns that ends with the assistant's")
    return messages
