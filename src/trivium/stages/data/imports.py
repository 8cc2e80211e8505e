"""Rows as people have them, brought into this system's own formats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trivium import randomness
from trivium.data.demonstrations import Read, Source, kind_of, mix, read
from trivium.data.judged import Judged, by_hash, read_judged
from trivium.data.row_kinds.comparisons import comparison
from trivium.data.row_kinds.fields import Fields
from trivium.data.row_kinds.messages import Reading
from trivium.data.row_kinds.thumbs import thumb
from trivium.errors import TriviumError, counted, nearest
from trivium.feedback.rows import prompt_key, split_of
from trivium.files import Reject, Row, write_json, write_rows
from trivium.stage import Context, Input, Stage, Title, not_default
from trivium.stages.outlook import Outlook, Rankings, Small
from trivium.stages.preferences.rankings import check_ratings

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class Imports(Stage):
    """Bring demonstrations, comparisons and thumbs of other formats into this system's own."""

    kind: ClassVar[str] = "imports"
    version: ClassVar[int] = 11
    title: ClassVar[Title] = Title("rows brought in", "导入数据", "teach")
    demonstrations: list[Input] | dict[str, Input] = []
    """Files or folders of demonstrations, each under a name of your own where `sources` is to say more about it: chat
    messages, ShareGPT, Alpaca, GSM8K, prompt/completion, question/answer in English or Chinese, in JSON, CSV, Excel,
    Parquet or Arrow."""
    sources: dict[str, Source] = {}
    """How to read the demonstrations, comparisons or thumbs of that name, and their weight in the mixture."""
    rows: int | None = Field(None, ge=1)
    """Rows of the mixture; null for as many as the sources have together."""
    comparisons: list[Input] | dict[str, Input] = []
    """Files or folders of comparisons, each under a name of your own where `sources` is to say more about it: rankings,
    chosen and rejected in texts or messages, with or without a prompt, Anthropic's HH dialogues."""
    thumbs: list[Input] | dict[str, Input] = []
    """Files or folders of single answers with a label, good or bad, each under a name of your own where `sources` is to
    say more about it: `prompt`, `completion` and `label`, or any form of a demonstration with `label` or `kto_tag`."""
    demonstrations_limit: int | None = Field(None, ge=1)
    """Most demonstrations to keep, chosen by a hash of the row; null keeps all."""
    comparisons_limit: int | None = Field(None, ge=1)
    """Most comparisons to keep, chosen by a hash of the row; null keeps all."""
    heldout: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts, chosen by a hash of the prompt alone, that is kept from training for the evaluation."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``demonstrations.jsonl`` (and ``sources.json``, a report by source), ``comparisons.jsonl``,
        ``thumbs.jsonl`` where there are thumbs, ``prompts.jsonl`` (of the training comparisons and thumbs, of rows that
        ask alone, and of sources that say so, with what an answer is checked by), ``evaluation.jsonl`` (of those held
        out), ``documents/texts.jsonl`` (rows that are texts alone) and ``rejects.jsonl``, which keeps every row that
        could not be read, with its reason."""
        rejects: list[Row] = []

        def reject(file: str, row: int, reason: str, text: str) -> None:
            rejects.append({"file": file, "row": row, "reason": reason, "text": text[:2000]})

        prompts = Prompts(self.heldout)
        said: list[str] = []
        given = {kind: places_of(context.inputs.get(kind) or []) for kind in ("demonstrations", "comparisons",
                                                                              "thumbs")}
        self.check_sources(given)
        found = self.demonstrations_of(given["demonstrations"], reject, rejects, said)
        named = isinstance(context.inputs["demonstrations"], dict)
        how = {name: self.source(name) for name in given["demonstrations"]}
        demonstrations, report = mix(found, how, self.rows, context.seed)
        taught = []
        for row in demonstrations[:self.demonstrations_limit]:
            answer = {name: row.pop(name) for name in ("answer",) if name in row}
            asks = how[row["source"]].prompts
            if not asks or prompts.ask(row["messages"][:-1], tools=row.get("tools"), messages=row["messages"],
                                       **answer) == "train":
                taught.append(row if named else {name: value for name, value in row.items() if name != "source"})
        for name, source in found.items():
            for row in by_hash(source.prompts, how[name].limit, context.seed):
                prompts.ask(**row)
        judged: dict[str, list[Row]] = {}
        whole = {_called(name, given["demonstrations"][name]): counts for name, counts in report.items()}
        for kind, make in (("comparisons", rated_comparison), ("thumbs", thumb)):
            sources = self.judged_of(kind, given[kind], make, reject, said)
            rows = [row for name, one in sources.items()
                    for row in by_hash(one.made, self.source(name).limit, context.seed)]
            judged[kind] = by_hash(rows, self.comparisons_limit if kind == "comparisons" else None, context.seed)
            if given[kind] and not rows:
                raise TriviumError(f"{next(iter(given[kind].values()))}: no {kind[:-1]} could be read; " +
                                   _first(rejects))
            for row in judged[kind]:
                # an export of feedback has drawn its own test split, at random
                row["split"] = prompts.ask(row["prompt"], row.get("split"), row.get("tools"))
            for name, one in sources.items():
                called = _called(name, given[kind][name])
                whole[f"{kind}: {called}" if called in whole else called] = {
                    "rows": one.rows, "kept": len(one.made), "rejected": dict(one.rejected.most_common())}
        texts = [{"text": text} for source in found.values() for text in source.texts]
        self.write(context.folder, taught, judged, prompts, texts, rejects, whole)
        self.tell(context, whole, rejects, found, texts, said)
        return {"demonstrations": len(taught), "comparisons": len(judged["comparisons"]),
                **({"thumbs": len(judged["thumbs"])} if given["thumbs"] else {}), "rejected": len(rejects),
                **({"sources": report} if named else {})}

    def source(self, name: str) -> Source:
        """How a source is read."""
        return self.sources.get(name, Source.model_construct())

    def check_sources(self, given: Mapping[str, Mapping[str, Path]]) -> None:
        """Refuse settings of a source that there is not, or that say nothing about what it is."""
        every = {name for places in given.values() for name in places}
        for name, settings in self.sources.items():
            if name not in every:
                raise TriviumError(f"imports.sources.{name}: no demonstrations, comparisons or thumbs have this name"
                                   f"{nearest(name, every)}")
            useless = ["weight", "format", "templates", "prompts"]
            if name not in given["demonstrations"]:
                useless += ["labels"] if name not in given["thumbs"] else []
                bad = next((one for one in useless if one in not_default(settings)), None)
                if bad is not None:
                    raise TriviumError(f"imports.sources.{name}.{bad}: says nothing about comparisons or thumbs; "
                                       "leave it out")

    def demonstrations_of(self, places: Mapping[str, Path], reject: Reject, rejects: list[Row],
                          said: list[str]) -> dict[str, Read]:
        """What each source of demonstrations gave. Raises :class:`TriviumError` for one that gave nothing."""
        found: dict[str, Read] = {}
        seen: dict[bytes, tuple[str, int]] = {}
        for name, path in places.items():
            found[name] = source = read(path, self.source(name), f"imports.sources.{name}", reject, seen, said.append)
            said += [f"{_called(name, path)}: {line}" for line in source.notes.lines()]
            for rows, what in ((source.prompts, "ask alone, and go to prompts.jsonl"),
                               (source.texts, "are texts without a question, and go to documents/texts.jsonl for a "
                                              "stage `corpus`")):
                if rows:
                    said.append(f"{_called(name, path)}: rows that {what}: {len(rows):,}")
            last = name == list(places)[-1]
            nothing = not (source.made or source.prompts or source.texts)
            if nothing and (not name.isdigit() or (last and not any(
                    one.made or one.prompts or one.texts for one in found.values()))):
                raise TriviumError(f"{path}: no demonstration could be read; {_first(rejects)}")
        return found

    def judged_of(self, kind: str, places: Mapping[str, Path], make: Callable[[Fields, Reading], Row], reject: Reject,
                  said: list[str]) -> dict[str, Judged]:
        """What each source of comparisons or thumbs gave."""
        seen: set[bytes] = set()
        found = {}
        for name, path in places.items():
            found[name] = source = read_judged(path, self.source(name), make, reject, seen, said.append)
            said += [f"{_called(name, path)}: {line}" for line in source.notes.lines()]
        return found

    def write(self, folder: Path, demonstrations: list[Row], judged: Mapping[str, list[Row]], prompts: Prompts,
              texts: list[Row], rejects: list[Row], report: Mapping[str, Row]) -> None:
        """Write what was made of the rows."""
        write_rows(folder / "demonstrations.jsonl", demonstrations)
        write_rows(folder / "comparisons.jsonl", judged["comparisons"])
        if self.thumbs:
            write_rows(folder / "thumbs.jsonl", judged["thumbs"])
        write_rows(folder / "prompts.jsonl", prompts.of["train"].values())
        write_rows(folder / "evaluation.jsonl", prompts.of["heldout"].values())
        write_rows(folder / "rejects.jsonl", rejects)
        if texts:
            write_rows(folder / "documents" / "texts.jsonl", texts)
        if report:
            write_json(folder / "sources.json", report)

    def tell(self, context: Context, report: Mapping[str, Row], rejects: list[Row], found: Mapping[str, Read],
             texts: list[Row], said: Iterable[str]) -> None:
        """Say what became of the rows."""
        for name, counts in report.items():
            context.progress.say(f"{name}: {counted(counts['rows'], 'row')}, "
                                 f"{sum(counts['rejected'].values()):,} rejected, "
                                 f"{counts.get('used', counts['kept']):,} used")
        if rejects:
            kinds = Counter(kind_of(row["reason"]) for row in rejects).most_common()
            context.progress.say(f"{counted(len(rejects), 'row')} rejected, see rejects.jsonl:")
            for kind, number in kinds[:5]:
                context.progress.say(f"  {number:,} × {kind}")
            if len(kinds) > 5:
                context.progress.say(f"  and {counted(len(kinds) - 5, 'other reason')}")
        for line in said:
            context.progress.say(line)
        if otherwise := sum(source.otherwise for source in found.values()):
            context.progress.say(f"kept though an earlier row has the same question: {counted(otherwise, 'row')}")

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


class Prompts:
    """Prompts to practise on and those held out, each once."""

    def __init__(self, heldout: float) -> None:
        """``heldout`` is the share of the prompts that is kept from training."""
        self.heldout = heldout
        self.of: dict[str, dict[str, Row]] = {"train": {}, "heldout": {}}

    def ask(self, prompt: list[Row], split: str | None = None, tools: list[Row] | None = None, **more: Any) -> str:
        """Make a prompt of it; the split that it belongs to: its own or, where it has none, by a hash of the prompt
        alone, so that it is the same in every run."""
        text = json.dumps(prompt, sort_keys=True, ensure_ascii=False)
        split = split or split_of(prompt_key(prompt), self.heldout)
        identity = f"{randomness.derive(0, text):016x}"
        if split == "train":
            more.pop("messages", None)  # the right answer is for those who examine
        self.of[split][identity] = {"id": identity, "prompt": prompt, **({"tools": tools} if tools else {}), **more}
        return split


def rated_comparison(fields: Fields, reading: Reading) -> Row:
    """A comparison whose ratings, where it has any, are good ones."""
    made = comparison(fields, reading)
    if "ratings" in made:
        check_ratings(made)
    return made


def places_of(given: Iterable[Path] | Mapping[str, Path]) -> dict[str, Path]:
    """Sources by their name, or by their place in a list."""
    return dict(given) if isinstance(given, Mapping) else {str(place): path for place, path in enumerate(given)}


def _called(name: str, path: Path) -> str:
    return path.name if name.isdigit() else name


def _first(rejects: list[Row]) -> str:
    return f"{rejects[0]['file']}: row {rejects[0]['row']}: {rejects[0]['reason']}" if rejects else "there are no rows"
