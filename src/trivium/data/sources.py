"""A source of rows: the settings that say how it is read, the files that are taken, and each row's fields."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trivium.data.encodings import check_encoding
from trivium.data.phrasings import Phrasing
from trivium.data.plain_text import is_text
from trivium.data.readers import TABLE, InputFile, Limits, find, has_rows, rows, rows_by
from trivium.data.row_kinds.demonstrations import FORMATS
from trivium.data.row_kinds.fields import Fields, without_columns
from trivium.data.row_kinds.messages import CALL, ROLES, TAGS, Reading
from trivium.data.unpack import ARCHIVES, Bad, Budget, members
from trivium.errors import TriviumError, counted, nearest
from trivium.extensions import Code
from trivium.files import Reject, Row


class Source(BaseModel):
    """How the rows of one source are read and how many of them are used."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, coerce_numbers_to_str=True)

    weight: float | None = Field(None, gt=0)
    """Share of the mixture, relative to the other sources' weights (1 where others have one); null for all: every row
    once. For demonstrations."""
    limit: int | None = Field(None, ge=1)
    """Most rows of it, chosen by a hash; null for all."""
    reader: Code | None = None
    """`FILE.py:NAME`: a function of your own that is given a file's path and yields its rows, each a mapping of fields;
    null reads the kinds of files that are known."""
    format: Code | None = None
    """What a row is: chat, sharegpt, alpaca, gsm8k or completion, or `FILE.py:NAME`, a function of your own that makes
    a list of messages of a row; null finds it out by the row's fields. For demonstrations."""
    split: str | None = None
    """Read only files whose path has this word, as the splits of a data set's folder have. null leaves out those of a
    test or validation split where there is a training split beside them."""
    encoding: str | None = None
    """The character set of its text files, as in gb18030, big5 or utf-16; null tells it by their bytes."""
    columns: dict[str, str] = {}
    """Names of fields and the columns they are found in, as in `{text: review}`; a column inside another is a path, as
    in `instances.0.output`. What is named here goes before what a row has besides."""
    values: dict[str, str] = {}
    """Fields that all rows share, as in `{language: French}`; what a row has itself goes before them."""
    roles: dict[str, str] = {}
    """What the rows call the roles, as in `{doctor: assistant}`: system, user, assistant, tool or function_call. Usual
    names are known, in English and Chinese."""
    tags: dict[str, str] = {}
    """LLaMA-Factory's tags: `role_tag` and `content_tag` name a message's two fields, `user_tag`, `assistant_tag`,
    `system_tag`, `observation_tag` and `function_tag` the roles."""
    labels: dict[str, str] = {}
    """The values that the field `label` may have, and what each is called; a row with another is rejected. For thumbs
    each is called true or false."""
    templates: str | list[Phrasing] = []
    """Phrasings that turn a row into a conversation: a family's name (classification, judgement, extraction,
    translation, reasoning, reasoning-steps; with -zh in Chinese) or Jinja texts of your own. Which one a row gets
    depends on a hash of it. For demonstrations."""
    prompts: bool = False
    """Its questions become prompts to practise on too, each with its row's `answer` to check by (of GSM8K's, what
    stands after ####); those of the held-out share are for the evaluation, and are no demonstrations."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            return value if value is None else check_encoding(value)
        except TriviumError as error:
            raise ValueError(str(error)) from error

    @field_validator("roles")
    @classmethod
    def _known_roles(cls, value: dict[str, str]) -> dict[str, str]:
        for name, role in value.items():
            if role not in (*ROLES, CALL):
                raise ValueError(f"{name}: there is no role {role!r}{nearest(role, (*ROLES, CALL))}")
        return value

    @field_validator("tags")
    @classmethod
    def _known_tags(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name not in (known := ("role_tag", "content_tag", *TAGS)):
                raise ValueError(f"there is no tag {name!r}{nearest(name, known)}")
        return value

    def reading(self) -> Reading:
        """How a row's messages are read."""
        roles = {**{there: TAGS[tag] for tag, there in self.tags.items() if tag in TAGS}, **self.roles}
        return Reading({name.strip().casefold(): role for name, role in roles.items()}, self.tags.get("role_tag"),
                       self.tags.get("content_tag"))

    def named(self, row: Row) -> Row:
        """A row with its columns renamed and its label put in words, for templates: the columns keep their own names
        too."""
        row = {**row, **without_columns(row, self.columns)}
        if self.labels:
            row = {**row, "label": self.label(row), "labels": list(dict.fromkeys(self.labels.values()))}
        return {**self.values, **row}

    def fields(self, row: Row) -> Fields:
        """A row's fields, in which what `columns` names goes before what else the row has."""
        row = without_columns(row, self.columns)
        if self.labels:
            row = {**row, "label": self.label(row)}
        named = {*self.columns, *self.values, *(FORMATS.get(self.format or "", ()))}
        shared = [name for name in self.values if name not in row]
        return Fields({**self.values, **row}, named, shared)

    def label(self, row: Row) -> str:
        """What the row's label is called. 1, 1.0 and true are the labels `1` and `true`, however a table spells
        them."""
        name = next((name for name in ("label", "kto_tag") if row.get(name) is not None), None)
        if name is None:
            raise TriviumError(
                "`labels` needs a field `label`, which no column is called and `columns` does not name; the row has " +
                ", ".join(map(str, row)))
        value = row[name]
        spelt = [str(value).strip(), str(value).strip().lower(), str(value).strip().removesuffix(".0")]
        if isinstance(value, bool):
            spelt.append(str(int(value)))
        known = next((text for text in spelt if text in self.labels), None)
        if known is None:
            raise TriviumError(f"the label {spelt[0]!r} is none of {', '.join(self.labels)}")
        return self.labels[known]


METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that data sets' folders have beside the rows."""
_HELD_OUT = re.compile(r"(^|[-_./])(test|testing|validation|valid|val|dev|eval|heldout)([-_./]|\d|$)", re.IGNORECASE)
_TRAIN = re.compile(r"(^|[-_./])(train|training)([-_./]|\d|$)", re.IGNORECASE)


def rows_of_source(source: Path, reject: Reject, settings: Source | None = None,
                   say: Callable[[str], None] = lambda text: None) -> Iterator[tuple[str, int, Row]]:
    """``(file, row from 1, row)`` of a file, a folder or an archive of JSON, JSON lines, CSV, Excel, Parquet or Arrow,
    compressed or not. ``say`` is told what was guessed, and which files were left out."""
    settings = settings or Source.model_construct()
    limits = Limits(encoding=settings.encoding, unwrap=True)
    for file in files_of_source(source, settings, say):
        pruned = file.name.lower().endswith(TABLE)
        wanted = _members_wanted(source, file, settings.split, say)
        for name, number, row in (rows_by(settings.reader, file) if settings.reader else
                                  rows(file, limits, say, wanted)):
            if isinstance(row, Bad):
                mend = ("; name the file's `encoding` under `sources`"
                        if row.reason.startswith("invalid UTF-8") and settings.encoding is None else "")
                reject(name, number, row.reason + mend, row.text)
            elif not is_text(text := json.dumps(row, ensure_ascii=False, default=str)):
                reject(name, number, "holds characters that are no text (lone surrogates)",
                       text.encode("utf-8", "replace").decode())
            else:
                yield name, number, {key: _without_nulls(value) for key, value in row.items()} if pruned else row


def files_of_source(source: Path, settings: Source, say: Callable[[str], None]) -> list[InputFile]:
    """The files of a source that hold rows of its split."""
    files = find([source], any_kind=settings.reader is not None)
    if source.is_dir() and not settings.reader:
        files = [file for file in files if file.path.name not in METADATA
                 and (has_rows(file.name) or file.name.lower().endswith(ARCHIVES))]
    if not files:
        raise TriviumError(f"{source}: no files of rows; known are JSON, JSON lines, CSV, Excel, Parquet and Arrow")
    if settings.split is not None:
        chosen = [file for file in files if _has_word(_inside(source, file), settings.split)
                  or file.name.lower().endswith(ARCHIVES)]
        if not chosen:
            raise TriviumError(f"{source}: no file's name has {settings.split!r} in it")
        return chosen
    if source.is_dir() and any(_TRAIN.search(_inside(source, file)) for file in files):
        aside = [file for file in files if _is_held_out(_inside(source, file))]
        if aside:
            names = ", ".join(_inside(source, file) for file in aside[:4]) + (" ..." if len(aside) > 4 else "")
            say(f"{source.name}: of {counted(len(files), 'file')} those of other splits than training were "
                f"left out ({names}); `split` names the one to read")
            return [file for file in files if file not in aside]
    return files


def _inside(source: Path, file: InputFile) -> str:
    """A file's path inside its source."""
    return file.path.relative_to(source).as_posix() if source.is_dir() else file.path.name


def _has_word(path: str, word: str) -> bool:
    return re.search(rf"(^|[-_./]){re.escape(word)}([-_./]|$)", path) is not None


def _is_held_out(path: str) -> bool:
    return _HELD_OUT.search(path) is not None and _TRAIN.search(path) is None


def _members_wanted(source: Path, file: InputFile, split: str | None,
                    say: Callable[[str], None]) -> Callable[[str], bool]:
    """Which files inside an archive are taken: those of the split, unless the archive's own name says it; without a
    split, as in a folder, not the test files beside a training split."""
    if not file.name.lower().endswith(ARCHIVES):
        return lambda name: True
    if split is not None and not _has_word(_inside(source, file), split):
        return lambda name: _has_word(name, split)
    names = [name for name in _names_inside(file) if Path(name).name not in METADATA and has_rows(name)]
    aside = [name for name in names if _is_held_out(name)] if split is None and any(map(_TRAIN.search, names)) else []
    if aside:
        say(f"{file.name}: files of other splits than training were left out ({', '.join(aside[:4])}"
            f"{' ...' if len(aside) > 4 else ''}); `split` names the one to read")
    return lambda name: Path(name).name not in METADATA and name not in aside


def _names_inside(file: InputFile) -> list[str]:
    """The names of an archive's files; of a damaged one, those before the damage."""
    names: list[str] = []
    with contextlib.suppress(Bad, OSError), open(file.path, "rb") as stream:
        for name, _ in members(stream, file.name, Budget(Limits().max_unpacked_bytes)):
            names.append(name)
    return names


def _without_nulls(value: Any) -> Any:
    """A value without the fields that a table fills up with null where another row has them."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
