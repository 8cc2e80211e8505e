"""Tokenised corpora on disk."""

import json

import numpy as np
import pytest

from trivium.errors import TriviumError
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens, write
from trivium.tokenizer.train import train

DOCUMENTS = [
    "One ferry.",
    "",
    "Two <|endoftext|> ferries, 27!",
    "渡船 \U0001f642",
    *(f"document {n} " * n for n in range(40)),
]


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer(train(iter(DOCUMENTS), 300))


@pytest.fixture
def folder(tokenizer, tmp_path):
    write(tmp_path / "tokens", iter(DOCUMENTS), tokenizer, batch=7)
    return tmp_path / "tokens"


def test_documents_come_back(folder, tokenizer):
    tokens = Tokens.open(folder, tokenizer.digest)
    assert len(tokens) == len(DOCUMENTS) and tokens.tokens.dtype == np.uint16
    for index, (text, ids) in enumerate(zip(DOCUMENTS, tokens, strict=True)):
        assert ids[-1] == tokenizer.document_id and (ids[:-1] != tokenizer.document_id).all()
        assert tokenizer.decode(ids[:-1].tolist()) == text
        assert (tokens.document(index) == ids).all()
    assert (tokens.document(-1) == tokens.document(len(DOCUMENTS) - 1)).all()
    assert tokens.total == sum(len(tokenizer.encode(text)) + 1 for text in DOCUMENTS) == len(tokens.tokens)
    with pytest.raises(IndexError):
        tokens.document(len(DOCUMENTS))


def test_the_format_is_as_documented(folder, tokenizer):
    header = json.loads((folder / "tokens.json").read_text())
    assert {name: header[name] for name in ("format", "dtype", "documents", "tokenizer")} == {
        "format": 1,
        "dtype": "uint16",
        "documents": len(DOCUMENTS),
        "tokenizer": tokenizer.digest,
    }
    flat = np.fromfile(folder / "tokens.bin", "<u2")
    offsets = np.fromfile(folder / "offsets.bin", "<u8")
    assert len(flat) == header["tokens"] == offsets[-1] and len(offsets) == len(DOCUMENTS) + 1 and offsets[0] == 0
    assert tokenizer.decode(flat[offsets[2] : offsets[3] - 1].tolist()) == DOCUMENTS[2]


def test_batches_change_nothing(folder, tokenizer, tmp_path):
    write(tmp_path / "other", iter(DOCUMENTS), tokenizer)
    for name in ("tokens.bin", "offsets.bin", "tokens.json"):
        assert (tmp_path / "other" / name).read_bytes() == (folder / name).read_bytes()


def test_wide_tokens(tmp_path):
    big = ChatTokenizer(train(iter(DOCUMENTS), 300))
    wide = json.loads(big.data)
    wide["model"]["vocab"] |= {f"<unused {n}>": 300 + n for n in range(70_000)}
    tokenizer = ChatTokenizer(json.dumps(wide).encode())
    assert write(tmp_path, iter(DOCUMENTS), tokenizer)["dtype"] == "uint32"
    assert [ids.tolist()[:-1] for ids in Tokens.open(tmp_path)] == tokenizer.encode_batch(DOCUMENTS)


def test_an_empty_corpus(tokenizer, tmp_path):
    assert write(tmp_path, iter(()), tokenizer)["tokens"] == 0
    assert len(Tokens.open(tmp_path)) == Tokens.open(tmp_path).total == 0


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (
            lambda folder: (folder / "tokens.bin").write_bytes((folder / "tokens.bin").read_bytes()[:-2]),
            r"tokens\.bin: .*truncated or changed",
        ),
        (
            lambda folder: (folder / "offsets.bin").write_bytes((folder / "offsets.bin").read_bytes()[:-8]),
            r"offsets\.bin: .*truncated or changed",
        ),
        (lambda folder: (folder / "tokens.bin").unlink(), r"tokens\.bin: no such file"),
        (lambda folder: (folder / "tokens.json").unlink(), r"tokens\.json: no such file"),
        (lambda folder: (folder / "tokens.json").write_text('{"format": 2}'), "not a header of tokens in format 1"),
        (
            lambda folder: (folder / "tokens.json").write_text('{"format": 1}'),
            "'dtype' is missing|'digests' is missing",
        ),
        (lambda folder: flip(folder / "tokens.bin"), r"tokens\.bin: changed since it was written"),
        (lambda folder: flip(folder / "offsets.bin"), r"offsets\.bin: changed since it was written"),
    ],
)
def test_damage_is_seen(folder, damage, match):
    damage(folder)
    with pytest.raises(TriviumError, match=match):
        Tokens.open(folder)


def test_another_tokenizer_is_refused(folder):
    with pytest.raises(TriviumError, match="made by another tokenizer"):
        Tokens.open(folder, "0" * 64)


def test_an_unfinished_write_has_no_header(folder, tokenizer):
    def documents():
        yield from DOCUMENTS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(folder, documents(), tokenizer, batch=3)
    with pytest.raises(TriviumError, match=r"tokens\.json: no such file"):
        Tokens.open(folder)
