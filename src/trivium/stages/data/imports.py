"""Rows as people have them, brought into this system's own formats."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trivium import randomness
from trivium.data.demonstrations import Read, Source, kind_of, mix, read, rows_of_source
from trivium.errors import TriviumError, nearest
from trivium.files import Reject, Row, write_json, write_rows
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.outlook import Outlook, Rankings, Small
from trivium.stages.preferences.rankings import check_ranking, check_ratings
from trivium.tokenizer.chat import check_messages

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class Imports(Stage):
    """Bring demonstrations and comparisons of other formats into this system's own."""

    kind: ClassVar[str] = "imports"
    version: ClassVar[int] = 7
    title: ClassVar[Title] = Title("rows brought in", "导入数据", "teach")
    demonstrations: list[Input] | dict[str, Input] = []
    """Files or folders of demonstrations, each under a name of your own where `sources` is to say more about it: chat
    messages, ShareGPT, Alpaca, GSM8K, prompt/completion, CSV with named columns, folders of Parquet."""
    sources: dict[str, Source] = {}
    """How to read the demonstrations of that name, and their weight in the mixture."""
    rows: int | None = Field(None, ge=1)
    """Rows of the mixture; null for as many as the sources have together."""
    comparisons: list[Input] = []
    """Files or folders of comparisons: rankings, prompt/chosen/rejected, Anthropic's HH dialogues."""
    demonstrations_limit: int | None = Field(None, ge=1)
    """Most demonstrations to keep, chosen by a hash of the row; null keeps all."""
    comparisons_limit: int | None = Field(None, ge=1)
    """Most comparisons to keep, chosen by a hash of the row; null keeps all."""
    heldout: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts, chosen by a hash, that is kept from training for the evaluation."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``demonstrations.jsonl`` (and of them ``sources.json``, a report by source), ``comparisons.jsonl``,
        ``prompts.jsonl`` (of the training comparisons, and of sources that say so, with what an answer is checked by),
        ``evaluation.jsonl`` (of those held out) and ``rejects.jsonl``, which keeps every row that could not be read,
        with its reason."""
        rejects: list[Row] = []

        def reject(file: str, row: int, reason: str, text: str) -> None:
            rejects.append({"file": file, "row": row, "reason": reason, "text": text[:2000]})

        given = context.inputs["demonstrations"]
        named: dict[str, Path] = given if isinstance(given, dict) else {str(i): path for i, path in enumerate(given)}
        for name in self.sources:
            if name not in named:
                raise TriviumError(f"imports.sources.{name}: no demonstrations have this name{nearest(name, named)}")
        how = {name: self.sources.get(name, Source.model_construct()) for name in named}
        found: dict[str, Read] = {}
        seen: dict[str, tuple[str, int]] = {}
        for name, path in named.items():
            found[name] = read(path, how[name], f"imports.sources.{name}", reject, seen)
            if not found[name].made and (isinstance(given, dict) or
                                         (not any(source.made
                                                  for source in found.values()) and name == list(named)[-1])):
                raise TriviumError(f"{path}: no demonstration could be read; {_first(rejects)}")
        demonstrations, report = mix(found, how, self.rows, context.seed)
        prompts: dict[str, dict[str, Row]] = {"train": {}, "heldout": {}}

        def ask(prompt: list[Row], split: str | None = None, **more: Any) -> str:
            """Make a prompt of it; the split that it belongs to, by a hash where it has none."""
            text = json.dumps(prompt, sort_keys=True, ensure_ascii=False)
            heldout = randomness.derive(context.seed, "heldout", text) / 2**64 < self.heldout
            split = split or ("heldout" if heldout else "train")
            identity = f"{randomness.derive(0, text):016x}"
            prompts[split][identity] = {"id": identity, "prompt": prompt, **more}
            return split

        taught = []
        for row in demonstrations[:self.demonstrations_limit]:
            answer = {"answer": row.pop("answer")} if "answer" in row else {}
            if not how[row["source"]].prompts or ask(row["messages"][:-1], **answer) == "train":
                taught.append(row if isinstance(given, dict) else {"messages": row["messages"]})
        demonstrations = taught
        comparisons = take_comparisons(context.inputs["comparisons"], self.comparisons_limit, context.seed, reject)
        if self.comparisons and not comparisons:
            raise TriviumError(f"{self.comparisons[0]}: no comparison could be read; " + _first(rejects))
        for row in comparisons:
            # an export of feedback has drawn its own test split, at random
            row["split"] = ask(row["prompt"], row.get("split"))
        for name, counts in report.items() if isinstance(given, dict) else ():
            context.progress.say(
                f"{name}: {counts['rows']:,} rows, "
                f"{sum(counts['rejected'].values()):,} rejected, {counts['used']:,} used"
            )
        write_rows(context.folder / "demonstrations.jsonl", demonstrations)
        write_rows(context.folder / "comparisons.jsonl", comparisons)
        write_rows(context.folder / "prompts.jsonl", prompts["train"].values())
        write_rows(context.folder / "evaluation.jsonl", prompts["heldout"].values())
        write_rows(context.folder / "rejects.jsonl", rejects)
        if report:
            write_json(context.folder / "sources.json", report)
        if rejects:
            kinds = Counter(kind_of(row["reason"]) for row in rejects).most_common()
            context.progress.say(f"{len(rejects)} rows were rejected, see rejects.jsonl: " +
                                 "; ".join(f"{number} × {kind}" for kind, number in kinds[:5]) +
                                 (f"; and {len(kinds) - 5} other reasons" if len(kinds) > 5 else ""))
        if otherwise := sum(source.otherwise for source in found.values()):
            context.progress.say(f"{otherwise} rows ask what an earlier row asks and answer otherwise; they are kept")
        return {"demonstrations": len(demonstrations), "comparisons": len(comparisons), "rejected": len(rejects),
                **({"sources": report} if isinstance(given, dict) else {})}

    def sample(self, estimate: Estimate) -> Small:
        """All rows are read."""
        return Small(self)

    def cost(self, estimate: Estimate) -> Cost:
        """The time of the sample, a share of which grows with the data."""
        return estimate.sampled(self, 0.15)

    def outlook(self, estimate: Estimate) -> Outlook:
        """The rankings that the sample holds, which are all of them."""
        if not self.comparisons:
            return Outlook()
        rows = estimate.rows(estimate.name_of(self), "comparisons.jsonl", ["responses", "ranking", "split"])
        return Outlook(rankings=Rankings(len(rows), sum(row["split"] == "heldout" for row in rows) / len(rows),
                                         sum(len(row["responses"]) for row in rows) / len(rows)))


def take_comparisons(sources: list[Path], limit: int | None, seed: int, reject: Reject) -> list[Row]:
    """All good comparisons, each once, in an order by hash."""
    found: dict[str, Row] = {}
    for source in sources:
        for file, number, row in rows_of_source(source, reject):
            try:
                made = comparison(row)
            except KeyError as error:
                reject(file, number, f"the field {error} is missing or its value unknown",
                       json.dumps(row, ensure_ascii=False, default=str))
            except (TriviumError, TypeError, AttributeError, ValueError) as error:
                reject(file, number,
                       str(error) or type(error).__name__, json.dumps(row, ensure_ascii=False, default=str))
            else:
                found.setdefault(json.dumps(made, sort_keys=True, ensure_ascii=False), made)
    chosen = sorted(found, key=lambda text: randomness.derive(seed, "import", text))[:limit]
    return [found[text] for text in chosen]


def _first(rejects: list[Row]) -> str:
    return f"{rejects[0]['file']}: row {rejects[0]['row']}: {rejects[0]['reason']}" if rejects else "there are no rows"


def comparison(row: Row) -> Row:
    """A row of any known kind as ``{"prompt": messages, "responses": [...], "ranking": [...]}``, with the ``ratings``,
    ``finished``, ``annotator`` and ``split`` that it has. Raises :class:`TriviumError` for one from which nothing can
    be learned."""
    if "responses" in row:
        prompt, responses, ranking = row["prompt"], row["responses"], row["ranking"]
    elif "chosen" in row and "rejected" in row:
        chosen, rejected = row["chosen"], row["rejected"]
        if "prompt" in row or "instruction" in row:
            prompt = row["prompt"] if "prompt" in row else "\n\n".join(
                filter(None, (row["instruction"], row.get("input"))))
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
    if not isinstance(responses, list) or not all(isinstance(text, str) and text.strip() for text in responses):
        raise TriviumError("a response is empty or not a text")
    if len(responses) < 2:
        raise TriviumError("one response only: there is nothing to compare it with")
    if len(set(responses)) < len(responses):
        raise TriviumError("two responses are the same")
    made: Row = {
        "prompt": [{"role": m["role"], "content": m["content"]} for m in prompt], "responses": responses,
        "ranking": ranking
    }
    check_ranking(made)
    if len(ranking) < 2:
        raise TriviumError("all responses are tied: nothing can be learned from that")
    for name in ("ratings", "finished", "annotator"):
        if row.get(name) is not None:
            made[name] = row[name]
    if "ratings" in made:
        check_ratings(made)
    if "finished" in made and (not isinstance(made["finished"], list) or len(made["finished"]) != len(responses)):
        raise TriviumError(f"`finished` does not say of each of the {len(responses)} responses whether it ended")
    return made | ({"split": row["split"]} if row.get("split") in ("train", "heldout") else {})


def dialogue(text: str) -> list[Row]:
    """A dialogue of the HH kind, ``\\n\\nHuman: ...\\n\\nAssistant: ...``, as messages."""
    parts = re.split(r"\n\n(Human|Assistant):", text)
    roles = {"Human": "user", "Assistant": "assistant"}
    messages = [{"role": roles[role], "content": said.strip()}
                for role, said in zip(parts[1::2], parts[2::2], strict=True)]
    if parts[0].strip() or not messages or messages[-1]["role"] != "assistant":
        raise TriviumError("not a dialogue of 'Human:' and 'Assistant:' turns that ends with the assistant's")
    return messages
