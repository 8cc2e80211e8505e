"""Files that are never half written: what a kill leaves, what a disk says, and who may read them."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from trivium import files
from trivium.errors import TriviumError
from trivium.files import (
    TEMPORARY,
    disk_errors,
    fsync_folder,
    made_aside,
    read_rows,
    read_text,
    sweep,
    write_json,
    write_text,
    written_aside,
)

HALF = """
import os, signal, sys
from pathlib import Path
from trivium.files import made_aside, written_aside
place = Path(sys.argv[1])
with (made_aside if sys.argv[2] == "folder" else written_aside)(place) as aside:
    half = aside / "weights" if sys.argv[2] == "folder" else aside
    half.with_name(".tmpAbCdEf").write_bytes(b"what a library keeps beside it")
    half.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_goes_when_the_same_is_written_again(tmp_path, kind):
    place = tmp_path / "model"
    killed = subprocess.run([sys.executable, "-c", HALF, str(place), kind], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert TEMPORARY.fullmatch(left.name) and not place.exists()
    with (made_aside if kind == "folder" else written_aside)(place) as aside:
        (aside / "weights" if kind == "folder" else aside).write_text("whole")
    assert list(tmp_path.iterdir()) == [place]


def test_sweeping_takes_what_any_process_left_and_nothing_else(tmp_path):
    for name in (".a.json.77.xYz_12.tmp/a.json", "in/.b.1.q.tmp/.tmpQQ", "in/.hidden", "in/kept.tmp", ".c.tmp/kept"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sweep(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".c.tmp/kept", "in/.hidden", "in/kept.tmp"]


def test_what_another_process_is_writing_stays(tmp_path):
    other = tmp_path / f".notes.{os.getppid()}.abc.tmp"
    other.mkdir()
    write_text(tmp_path / "notes", "mine")
    assert other.is_dir() and (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0, 0o666)])
def test_files_get_the_rights_of_the_umask_whatever_writes_them(tmp_path, umask, rights):
    before = os.umask(umask)
    try:
        with written_aside(tmp_path / "model.safetensors") as aside:
            save_file({"weight": torch.zeros(2)}, aside)  # which makes its own files private
        write_json(tmp_path / "config.json", {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {rights}


@pytest.mark.parametrize(("number", "said"), [
    (errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EROFS, "cannot be written"),
    (errno.EFBIG, "ulimit -f"), (errno.ENAMETOOLONG, "too long"), (errno.EEXIST, "in the way"),
    (errno.ESTALE, "network drive failed"), (errno.EIO, "network drive failed")])
def test_what_a_disk_says_is_one_line_that_names_the_place(tmp_path, number, said):
    with pytest.raises(TriviumError, match=said) as caught, disk_errors(tmp_path / "place"):
        raise OSError(number, os.strerror(number), str(tmp_path / "place"))
    assert str(tmp_path / "place") in str(caught.value) and "\n" not in str(caught.value)


def test_too_few_inodes_are_no_full_disk(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    state = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*state[:7], 0, *state[8:])))
    assert "out of inodes" in str(files.refusal(full, tmp_path))
    monkeypatch.setattr(os, "statvfs", lambda path: state)
    assert "the disk is full" in str(files.refusal(full, tmp_path))


def test_a_limit_on_the_size_of_files_is_one_line(tmp_path):
    script = ("import resource, torch; from pathlib import Path; from trivium.model.weights import save_weights\n"
              "from trivium.errors import TriviumError\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
              f"try: save_weights(Path({str(tmp_path)!r}), {{'w': torch.zeros(9999)}}, 1 << 30)\n"
              "except TriviumError as error: print(error)")
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "model.safetensors: a file may not be that large here" in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [] and resource.getrlimit(resource.RLIMIT_FSIZE)[0] < 0


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_systems_that_cannot_fsync_folders_will_do(tmp_path, monkeypatch, number):
    real = os.fsync

    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    write_text(tmp_path / "text", "whole")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        fsync_folder(tmp_path)


def test_the_longest_names_that_a_file_system_takes_can_be_written(tmp_path):
    write_text(tmp_path / ("é" * 127), "whole")
    with pytest.raises(TriviumError, match="too long"):
        write_text(tmp_path / ("n" * 256), "never")
    with pytest.raises(TriviumError, match="too long"):
        write_text(tmp_path.joinpath(*["deep" * 50] * 25), "never")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    for read in (read_text, lambda path: list(read_rows(path))):
        with pytest.raises(TriviumError, match=r"loop\.jsonl: cannot be read"):
            read(loop)
