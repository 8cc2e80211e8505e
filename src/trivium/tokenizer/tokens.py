"""Tokenised corpora on disk: all tokens in one flat array that is mapped into memory, and where each document begins.

    tokens.json    {"format": 1, "dtype", "tokens", "documents", "tokenizer": digest, "digests": {file: SHA-256}}
    tokens.bin     every token, little-endian uint16 (uint32 for more than 65,536 entries); each document ends with the
                   tokenizer's document token
    offsets.bin    little-endian uint64 [documents + 1]: document i is tokens[offsets[i]:offsets[i + 1]]
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trivium.errors import TriviumError
from trivium.files import digest_file, disk_errors, fsync_folder, read_json, write_json
from trivium.tokenizer.chat import ChatTokenizer

FORMAT = 1
HEADER, TOKENS, OFFSETS = "tokens.json", "tokens.bin", "offsets.bin"


def write(folder: Path, documents: Iterable[str], tokenizer: ChatTokenizer, batch: int = 1024) -> dict[str, Any]:
    """Tokenise ``documents``, ``batch`` at a time, straight to disk; returns the header, which is written last: a
    folder without one is unfinished."""
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    stream = iter(documents)
    total = count = 0
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HEADER).unlink(missing_ok=True)
        with open(folder / TOKENS, "wb") as tokens, open(folder / OFFSETS, "wb") as offsets:
            digests = {TOKENS: hashlib.sha256(), OFFSETS: hashlib.sha256()}

            def put(file: BinaryIO, name: str, array: np.ndarray) -> None:
                data = array.tobytes()
                digests[name].update(data)
                file.write(data)

            put(offsets, OFFSETS, np.zeros(1, "<u8"))
            while texts := list(islice(stream, batch)):
                encoded = [[*ids, tokenizer.document_id] for ids in tokenizer.encode_batch(texts)]
                lengths = np.array([len(ids) for ids in encoded], "<u8")
                put(tokens, TOKENS, np.concatenate([np.array(ids, dtype) for ids in encoded]))
                put(offsets, OFFSETS, np.cumsum(lengths, dtype="<u8") + np.uint64(total))
                total, count = total + int(lengths.sum()), count + len(texts)
            for file in (tokens, offsets):
                file.flush()
                os.fsync(file.fileno())
        fsync_folder(folder)
        header = {"format": FORMAT, "dtype": "uint16" if dtype.itemsize == 2 else "uint32", "tokens": total,
                  "documents": count, "tokenizer": tokenizer.digest,
                  "digests": {name: digest.hexdigest() for name, digest in digests.items()}}
        write_json(folder / HEADER, header)
    return header


class Tokens:
    """A tokenised corpus, mapped into memory: any size opens at once, and processes share it."""

    def __init__(self, folder: Path, header: dict[str, Any], tokens: np.ndarray, offsets: np.ndarray) -> None:
        self.folder, self.header, self.tokens, self.offsets = folder, header, tokens, offsets

    @classmethod
    def open(cls, folder: Path, tokenizer: str | None = None, verify: bool = True) -> Tokens:
        """Open a folder of :func:`write`. Sizes are always checked, the files' digests with ``verify`` (it reads all of
        them), and with ``tokenizer``, a digest, that this tokenizer made them."""
        header = read_json(folder / HEADER)
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise TriviumError(f"{folder / HEADER}: not a header of tokens in format {FORMAT}")
        if missing := {"dtype", "tokens", "documents", "tokenizer", "digests"} - set(header):
            raise TriviumError(f"{folder / HEADER}: the field {min(missing)!r} is missing")
        if header["dtype"] not in ("uint16", "uint32"):
            raise TriviumError(f"{folder / HEADER}: dtype is {header['dtype']!r}; known are uint16 and uint32")
        if tokenizer is not None and header["tokenizer"] != tokenizer:
            raise TriviumError(f"{folder}: made by another tokenizer ({header['tokenizer'][:12]}, not "
                               f"{tokenizer[:12]}); tokenise the documents again")
        dtype = np.dtype(header["dtype"]).newbyteorder("<")
        tokens = _map(folder / TOKENS, dtype, header["tokens"])
        offsets = _map(folder / OFFSETS, np.dtype("<u8"), header["documents"] + 1)
        for name, digest in header["digests"].items() if verify else ():
            if digest_file(folder / name) != digest:
                raise TriviumError(f"{folder / name}: changed since it was written; tokenise the documents again")
        if int(offsets[0]) != 0 or int(offsets[-1]) != header["tokens"]:
            raise TriviumError(f"{folder / OFFSETS}: does not belong to {TOKENS}; tokenise the documents again")
        return cls(folder, header, tokens, offsets)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    @property
    def total(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def document(self, index: int) -> np.ndarray:
        """One document's tokens, its document token at the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        index %= len(self)
        return self.tokens[int(self.offsets[index]):int(self.offsets[index + 1])]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.document(index) for index in range(len(self)))


def _map(path: Path, dtype: np.dtype[Any], count: int) -> np.ndarray:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise TriviumError(f"{path}: no such file; tokenise the documents again") from error
    if size != count * dtype.itemsize:
        raise TriviumError(f"{path}: {size:,} bytes, where {HEADER} says {count * dtype.itemsize:,}: truncated or "
                           "changed; tokenise the documents again")
    return np.memmap(path, dtype, "r") if count else np.empty(0, dtype)  # an empty file cannot be mapped
