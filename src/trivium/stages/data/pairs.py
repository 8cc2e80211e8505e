"""Pairs of texts to translate between: read or generated, checked, and split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from trivium import randomness
from trivium.data.encodings import check_encoding
from trivium.data.readers import irregular, opened
from trivium.data.sources import Source, rows_of_source
from trivium.data.unpack import DAMAGE, Bad, Budget, members
from trivium.errors import TriviumError, counted
from trivium.files import write_rows
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.outlook import Small

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class Pairs(Stage):
    """Pairs of a source and its target: number words and digits, or files of your own."""

    kind: ClassVar[str] = "pairs"
    version: ClassVar[int] = 3
    title: ClassVar[Title] = Title("pairs to translate", "翻译句对", "read")
    numbers: int = Field(0, ge=0)
    """Numbers below a million, chosen by the seed, in English words and in digits."""
    files: list[Input] = []
    """JSON, JSON lines, CSV, Excel, Parquet or Arrow with the two fields; or folders and tar.gz archives in which
    source.txt and target.txt lie beside each other, line by line."""
    encoding: str | None = None
    """The character set of files of rows, as in gb18030 or utf-16; null tells it by their bytes."""
    source: str = "source"
    """The rows' field with what is read."""
    target: str = "target"
    """The rows' field with what is to be written."""
    heldout: float = Field(0.05, gt=0, lt=1)
    """Share of the pairs, chosen by a hash of the source, that is kept for the examination."""
    heldout_most: int = Field(500, ge=1)
    """Most pairs of the examination; the rest of the share is used for nothing."""

    @model_validator(mode="after")
    def _something_to_read(self) -> Pairs:
        if not self.numbers and not self.files:
            raise ValueError("give `numbers`, or `files` of pairs")
        return self

    def run(self, context: Context) -> dict[str, object]:
        """Write ``train.jsonl`` and ``heldout.jsonl`` (``source``, ``target``), and both sides of what is learned from
        as raw documents, so that a corpus can be made of them that knows nothing of the held-out ones."""
        rows: dict[str, str] = {}
        rejects: list[dict[str, Any]] = []
        found = 0
        for name, number, source, target in everything(self, context, rejects):
            found += 1
            if not source or not target:
                rejects.append({"file": name, "row": number, "reason": f"no {self.target if source else self.source}"})
            else:
                rows.setdefault(source, target)
        if rejects:
            write_rows(context.folder / "rejects.jsonl", rejects)
            context.progress.say(
                f"{counted(len(rejects), 'row')} rejected, see rejects.jsonl: {rejects[0]['file']}: "
                f"row {rejects[0]['row']}: {rejects[0]['reason']}"
            )
        parts: dict[str, list[dict[str, str]]] = {"train": [], "heldout": []}
        for source, target in rows.items():  # by the source alone, so that a pair is on the same side in every run
            kept = randomness.python(0, "pairs", source).random() < self.heldout
            parts["heldout" if kept else "train"].append({"source": source, "target": target})
        for name, part in parts.items():
            if not part:
                reason = f": {rejects[0]['file']}: row {rejects[0]['row']}: {rejects[0]['reason']}" if rejects else ""
                raise TriviumError(f"pairs: no pair is left for {name}; bring more rows or change `heldout`{reason}")
        parts["heldout"] = parts["heldout"][:self.heldout_most]
        for name, part in parts.items():
            write_rows(context.folder / f"{name}.jsonl", part)
        write_rows(context.folder / "documents" / "texts.jsonl",
                   [{"text": text} for pair in parts["train"] for text in (pair["source"], pair["target"])])
        return {
            "train": len(parts["train"]), "heldout": len(parts["heldout"]), "rejected": len(rejects),
            "repeated": found - len(rejects) - len(rows)
        }

    def sample(self, estimate: Estimate) -> Small:
        """All pairs are read."""
        return Small(self)

    def cost(self, estimate: Estimate) -> Cost:
        """The time of the sample, a share of which grows with the data."""
        return estimate.sampled(self, 0.15)


LARGEST = 500_000_000
"""Bytes of the largest text that is unpacked."""

ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")




def in_words(number: int) -> str:
    """A number below a million in English, as in ``three hundred and five thousand and twelve``. Raises ``ValueError``
    for others."""
    if not 0 <= number < 1_000_000:
        raise ValueError(f"{number} is not between 0 and 999,999")
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = number % size
    return f"{in_words(number // size)} {name}" + (f"{' and' if rest < 100 else ''} {in_words(rest)}" if rest else "")


def everything(settings: Pairs, context: Context, rejects: list[dict[str, Any]]) -> Iterator[tuple[str, int, str, str]]:
    """``(file, row from 1, source, target)`` of all there is; what cannot be read as a row goes to ``rejects``."""
    rng = randomness.python(context.seed, "numbers")
    for number in range(1, settings.numbers + 1):
        value = rng.randrange(10 ** rng.randint(1, 6))  # short ones as often as long ones
        yield "numbers", number, in_words(value), str(value)

    def reject(file: str, number: int, reason: str, text: str) -> None:
        rejects.append({"file": Path(file).name, "row": number, "reason": reason, "text": text[:2000]})

    source = Source.model_construct(encoding=settings.encoding and check_encoding(settings.encoding))
    for path in context.inputs.get("files", []):
        if path.is_dir() or path.name.endswith((".tar.gz", ".tgz", ".tar")):
            yield from aligned(path)
        else:
            for _, number, row in rows_of_source(path, reject, source, context.progress.say):
                texts = [row.get(name) for name in (settings.source, settings.target)]
                if not all(isinstance(text, str) for text in texts):
                    reject(str(path), number, f"{settings.source} and {settings.target} must be texts",
                           json.dumps(row, ensure_ascii=False))
                else:
                    yield path.name, number, str(texts[0]).strip(), str(texts[1]).strip()


def aligned(path: Path) -> Iterator[tuple[str, int, str, str]]:
    """The lines of ``source.txt`` and of the ``target.txt`` beside it, in a folder or an archive, at any depth."""
    texts = dict(_files(path))
    places = sorted({name.parent
                     for name in texts if name.name == "source.txt"}
                    & {name.parent
                       for name in texts if name.name == "target.txt"})
    if not places:
        raise TriviumError(f"{path}: no source.txt with a target.txt beside it")
    for place in places:
        source, target = ([line.strip() for line in texts[place / name].splitlines()]
                          for name in ("source.txt", "target.txt"))
        if len(source) != len(target):
            raise TriviumError(
                f"{path}: {place}: source.txt has {counted(len(source), 'line')} and "
                f"target.txt {len(target)}; they must stand line by line"
            )
        for number, pair in enumerate(zip(source, target, strict=True), 1):
            if any(pair):
                yield f"{path.name}: {place}", number, *pair


def _files(path: Path) -> Iterator[tuple[PurePosixPath, str]]:
    left = LARGEST

    def text(name: str, data: bytes) -> tuple[PurePosixPath, str]:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise TriviumError(f"{path}: more than {LARGEST:,} bytes of text")
        try:
            return PurePosixPath(name), data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise TriviumError(
                f"{path}: {name}: byte {error.start}: not valid UTF-8; convert the file to UTF-8") from error

    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            if file.name in ("source.txt", "target.txt"):
                if irregular(file) or file.stat().st_size > left:
                    raise TriviumError(f"{file}: {irregular(file) or f'more than {left:,} bytes of text'}")
                yield text(file.relative_to(path).as_posix(), file.read_bytes())
        return
    try:
        with opened(path) as stream:
            for name, member in members(stream, path.name, Budget(100 * LARGEST)):
                if PurePosixPath(name).name in ("source.txt", "target.txt") and not isinstance(member, Bad):
                    yield text(name, member.read(left + 1))
                elif isinstance(member, Bad) and PurePosixPath(name).name in (DAMAGE, "source.txt", "target.txt"):
                    raise member
    except Bad as bad:
        raise TriviumError(f"{path}: not a readable tar archive ({bad.reason})") from bad
    except OSError as error:
        raise TriviumError(f"{path}: cannot be read ({error.strerror})") from error
