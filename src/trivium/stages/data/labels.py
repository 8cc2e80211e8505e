"""Labelled texts: read, checked, and split into those that are learned from and those that are kept for the
examination."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trivium import randomness
from trivium.errors import TriviumError, nearest
from trivium.files import read_rows, read_text, write_rows
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.outlook import Small

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class Labels(Stage):
    """Read labelled texts, and keep some of them for the examination."""

    kind: ClassVar[str] = "labels"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("labelled texts", "带标签文本", "read")
    tables: list[Input]
    """CSV files with a head, zip archives of them, or JSON lines."""
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
        for path in context.inputs["tables"]:
            for name, number, row in table(path, self):
                text, label = tuple(
                    str(row.get(column) or "").strip()
                    for column in columns), str(row.get(self.label) if row.get(self.label) is not None else "").strip()
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
                f"{len(rejects)} rows were rejected, see rejects.jsonl: {rejects[0]['file']}: "
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
        for text, label in rows.items():  # by the text itself, so that a text never changes sides
            kept = randomness.python(context.seed, "labels", *text).random() < self.heldout
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


LARGEST = 500_000_000
"""Bytes of the largest table that is unpacked."""




def table(path: Path, settings: Labels) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """``(file, row from 1, row)`` of a CSV file with a head, such files in a zip archive, or JSON lines."""
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if info.filename.endswith(".csv"):
                        if info.file_size > LARGEST:
                            raise TriviumError(f"{path}/{info.filename}: more than {LARGEST:,} bytes unpacked")
                        with archive.open(info) as file:
                            yield from _csv(f"{path}/{info.filename}", file.read(LARGEST + 1), settings)
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
            raise TriviumError(f"{path}: not a readable zip archive ({error})") from error
    elif path.suffix == ".csv":
        yield from _csv(str(path), read_text(path).encode(), settings)
    else:
        for number, row in read_rows(path):
            yield str(path), number, row


def _csv(name: str, data: bytes, settings: Labels) -> Iterator[tuple[str, int, dict[str, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        for wanted in (settings.text, settings.label, *([settings.second] if settings.second else [])):
            if wanted not in (reader.fieldnames or []):
                raise TriviumError(
                    f"{name}: there is no column {wanted!r}{nearest(wanted, reader.fieldnames or ['(none)'])}")
        for number, row in enumerate(reader, 2):
            yield name, number, row
    except UnicodeDecodeError as error:
        raise TriviumError(f"{name}: byte {error.start}: not valid UTF-8; convert the file to UTF-8") from error
    except csv.Error as error:
        raise TriviumError(f"{name}: not a CSV table ({error})") from error
