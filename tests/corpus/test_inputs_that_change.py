"""Documents that change, go or fail while they are read, and finished pieces of work that are damaged: nothing of
either is ever in a corpus."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile

import pytest

from trivium.corpus.build import Extras, build
from trivium.corpus.settings import CorpusSettings, LanguageSettings
from trivium.corpus.tasks import Pool
from trivium.data.readers import InputFile, Malformed, read, rows
from trivium.errors import TriviumError
from trivium.files import digest_file

PLAIN = CorpusSettings(rules=[], language=LanguageSettings(enabled=False))


@pytest.fixture
def papers(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"in/{name}.jsonl").write_text("".join(
            json.dumps({"text": f"The {number}th paper of {name} speaks of {number * 7} ships in the harbour."}) + "\n"
            for number in range(20)))
    return tmp_path


def make(papers, name="out", meanwhile=None, said=None):
    """Build the corpus; ``meanwhile`` is done when the inputs have been listed and hashed, before they are read."""

    def progress(step, done, total):
        if meanwhile and step == "read" and done == 0:
            meanwhile()

    pool = Pool(papers / "scratch", 1, progress)
    pool.say = (said if said is not None else []).append
    return build([papers / "in"], Extras(), PLAIN, papers / name, papers / "scratch", 1, pool)


def digests(folder):
    return {str(path.relative_to(folder)): digest_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("meanwhile", "said"), [
    (lambda folder: (folder / "b.jsonl").rename(folder.parent / "away"), r"b\.jsonl: cannot be read"),
    (lambda folder: (folder / "b.jsonl").write_text('{"text": "Another."}\n'), r"b\.jsonl: was changed while it was"),
    (lambda folder: (folder / "c.jsonl").write_text('{"text": "One more."}\n'), r"c\.jsonl: came or went"),
])
def test_what_changes_while_it_is_read_ends_the_stage_and_leaves_no_trace(papers, meanwhile, said):
    whole = (papers / "in/b.jsonl").read_bytes()
    with pytest.raises(TriviumError, match=said):
        make(papers, meanwhile=lambda: meanwhile(papers / "in"))
    (papers / "in/b.jsonl").write_bytes(whole)  # it comes back, and the same command goes on
    (papers / "in/c.jsonl").unlink(missing_ok=True)
    (papers / "away").unlink(missing_ok=True)
    assert make(papers)["documents"] == 40
    again = papers / "fresh"
    again.mkdir()
    (papers / "in").rename(again / "in")
    make(again)
    assert digests(papers / "out") == digests(again / "out")


class Failing(io.BytesIO):
    """A file on a drive that goes away after some bytes."""

    def __init__(self, data):
        super().__init__(data)
        self.left = len(data) // 2

    def read(self, size=-1):
        self.left -= size if size > 0 else 1 << 30
        if self.left < 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        return super().read(size)

    def readline(self, size=-1):
        return self.read(size)

    def readinto(self, buffer):
        data = self.read(len(buffer))
        buffer[:len(data)] = data
        return len(data)

    read1 = read


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt", "a.csv", "a.tar.gz", "a.warc.gz"])
@pytest.mark.parametrize("how", [read, rows])
def test_a_drive_that_fails_is_no_damage_of_the_file(tmp_path, monkeypatch, name, how):
    data = b'{"text": "said"}\n' * 50_000
    if ".tar" in name:
        with io.BytesIO() as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                about = tarfile.TarInfo("rows.jsonl")
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
            data = packed.getvalue()
    (tmp_path / name).write_bytes(gzip.compress(data, 0) if name.endswith("gz") else data)
    monkeypatch.setattr("trivium.data.readers.open", lambda path, mode: Failing(path.read_bytes()), raising=False)
    with pytest.raises(TriviumError, match=rf"{name}: cannot be read .Stale file handle.; run the same command again"):
        list(how(InputFile(tmp_path / name, name, "in")))


def test_links_to_nothing_and_pipes_are_rejected_without_being_waited_for(papers):
    (papers / "in/link.jsonl").symlink_to("nowhere")
    os.mkfifo(papers / "in/pipe.jsonl")
    counts = make(papers)
    assert counts["documents"] == 42 and counts["kept"] == 40
    assert sum(counts["malformed"].values()) == 2 and "link to nothing" in next(iter(counts["malformed"]))
    (one,) = read(InputFile(papers / "in/pipe.jsonl", "pipe.jsonl", "in"))
    assert isinstance(one, Malformed)


def damages():
    return {"emptied": lambda path: path.write_bytes(b""), "gone": lambda path: path.unlink(),
            "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])}


@pytest.mark.parametrize("damage", damages())
@pytest.mark.parametrize("file", ["counts.json", "files.json", "raw-00000.jsonl.zst"])
def test_a_damaged_piece_of_finished_work_is_done_again(papers, damage, file):
    make(papers)
    wanted = digests(papers / "out")
    for place in (papers / "scratch").glob(f"*/{file}"):
        os.chmod(place, 0o644)
        damages()[damage](place)
    said = []
    make(papers, said=said)
    assert digests(papers / "out") == wanted and all("it is done again" in text for text in said) and said
    said.clear()
    make(papers, said=said)
    assert not said
