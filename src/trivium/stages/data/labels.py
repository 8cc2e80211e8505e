"""Labelled texts: read, checked, and split into those that are learned from and those that are kept for the
examination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trivium import randomness
from trivium.data.encodings import check_encoding
from trivium.data.sources import Source, rows_of_source
from trivium.errors import TriviumError, counted, nearest
from trivium.files import write_rows
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.outlook import Small

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class Labels(Stage):
    """Read labelled texts, and keep some of them for the examination."""

    kind: ClassVar[str] = "labels"
    version: ClassVar[int] = 2
    title: ClassVar[Title] = Title("labelled texts", "带标签文本", "read")
    tables: list[Input]
    """CSV files with a head, Excel, Parquet, Arrow, JSON or JSON lines; folders and archives of them."""
    encoding: str | None = None
    """The character set of text files, as in gb18030 or utf-16; null tells it by their bytes."""
    text: str = "text"
    """The column of the text."""
    label: str = "label"
    """The column of the label."""
    second: str | None = None
    """The column of a second text, where labels say how two texts go together (paraphrase or not, entailment); null for
    none."""
    labels: list[str] = []
    """The labels there are; rows with another one are rejected. Empty takes all that are found."""
    most: int = Field(100, ge=2)
    """Most different labels."""
    heldout: float = Field(0.1, gt=0, lt=1)
    """Share of the texts, chosen by a hash, that is kept for the examination."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``train.jsonl`` and ``heldout.jsonl`` (``text``, ``second`` where there are two, ``label``), and the
        texts learned from as raw documents, so that a corpus can be made of them that knows nothing of the held-out
        ones."""
        columns = [self.text, *([self.second] if self.second else [])]
        rows: dict[tuple[str, ...], str] = {}
        rejects: list[dict[str, Any]] = []
        repeated = 0

        def reject(file: str, number: int, reason: str, text: str) -> None:
            rejects.append({"file": file, "row": number, "reason": reason, "text": text[:2000]})

        for path in context.inputs["tables"]:
            for name, number, row in table(path, self, context, reject):
                text = tuple(str(row.get(column) or "").strip() for column in columns)
                label = label_text(row.get(self.label))
                if not all(text) or not label:
                    rejects.append({
                        "file": name, "row": number,
                        "reason": f"no {'label' if all(text) else 'text' if not text[0] else 'second text'}"
                    })
                elif self.labels and label not in self.labels:
                    rejects.append({
                        "file": name, "row": number,
                        "reason": f"the label {label!r} is outside the list{nearest(label, self.labels)}"
                    })
                elif text in rows:
                    repeated += 1
                else:
                    rows[text] = label
        if rejects:
            write_rows(context.folder / "rejects.jsonl", rejects)
            context.progress.say(
                f"{counted(len(rejects), 'row')} rejected, see rejects.jsonl: {rejects[0]['file']}: "
                f"row {rejects[0]['row']}: {rejects[0]['reason']}"
            )
        counts = Counter(rows.values())
        if len(counts) < 2:
            reason = (f"; the first rejected row: {rejects[0]['file']}: row {rejects[0]['row']}: {rejects[0]['reason']}"
                      if rejects else "")
            raise TriviumError(
                f"labels: at least two labels with texts are needed, but there are {len(counts)}{reason}")
        if len(counts) > self.most:
            raise TriviumError(
                f"labels: {len(counts)} different labels, more than {self.most}; "
                f"is {self.label!r} the right column? (`label`, `most`)"
            )
        parts: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": []}
        for text, label in rows.items():  # by the text alone, so that a text is on the same side in every run
            kept = randomness.python(0, "labels", *text).random() < self.heldout
            parts["heldout" if kept else "train"].append(dict(zip(("text", "second"), text)) | {"label": label})
        for name, part in parts.items():
            if not part:
                raise TriviumError(f"labels: no text is left for {name}; bring more rows or change `heldout`")
            write_rows(context.folder / f"{name}.jsonl", part)
        write_rows(context.folder / "documents" / "texts.jsonl",
                   [{"text": row[name]} for row in parts["train"] for name in ("text", "second") if name in row])
        return {
            "train": len(parts["train"]), "heldout": len(parts["heldout"]), "labels": dict(counts),
            "rejected": len(rejects), "repeated": repeated
        }

    def sample(self, estimate: Estimate) -> Small:
        """All tables are read."""
        return Small(self)

    def cost(self, estimate: Estimate) -> Cost:
        """The time of the sample, a share of which grows with the data."""
        return estimate.sampled(self, 0.15)


def table(path: Path, settings: Labels, context: Context,
          reject: Callable[[str, int, str, str], None]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """``(file, row from 1, row)`` of a table of any kind, or of those in a folder or an archive; what cannot be read
    goes to ``reject``. Raises :class:`TriviumError` where a column that the settings name is in no row."""
    wanted = [settings.text, settings.label, *([settings.second] if settings.second else [])]
    met: dict[str, None] = {}
    source = Source.model_construct(encoding=settings.encoding and check_encoding(settings.encoding))
    for name, number, row in rows_of_source(path, reject, source, context.progress.say):
        met |= dict.fromkeys(row)
        yield name, number, row
    missing = next((column for column in wanted if met and column not in met), None)
    if missing is not None:
        raise TriviumError(f"{path}: there is no column {missing!r}{nearest(missing, met)}")


def label_text(value: Any) -> str:
    """A label as text: 1.0 and 1 are one label, and true is spelt as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()
