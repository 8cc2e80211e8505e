"""Artifacts: what the digest covers, and what is found out about a folder that was touched."""

from __future__ import annotations

import os

import pytest

from test_pipeline import go, recipe  # noqa: F401
from trivium.artifacts import check_made, digest_path, lineage, open_artifact, seal
from trivium.errors import TriviumError


def made(folder, time=1):
    for name, text in {"text": "hello", "inner/manifest.json": "{}", "log.jsonl": f"{time}",
                       "report/page": f"{time}"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return seal(folder, kind="write", name="w", key="k", seed=0, settings={}, inputs={}, summary={"n": 1}, seconds=time,
                peak_memory_mb=1.0)


def test_records_are_checked_but_not_part_of_the_digest(tmp_path):
    one, two = made(tmp_path / "one"), made(tmp_path / "two", time=2)
    assert one.digest == two.digest and one.manifest["seconds"] != two.manifest["seconds"]
    assert set(one.manifest["files"]) == {"text", "inner/manifest.json"}
    assert set(one.manifest["records"]) == {"log.jsonl", "report/page"}
    opened = open_artifact(tmp_path / "one", verify=True)
    assert (opened.kind, opened.name, opened.summary) == ("write", "w", {"n": 1})
    (tmp_path / "one/log.jsonl").write_text("9")
    with pytest.raises(TriviumError, match=r"log.jsonl: changed"):
        open_artifact(tmp_path / "one", verify=True)


def test_an_edit_of_the_same_size_is_noticed_without_verifying_all(tmp_path):
    made(tmp_path / "one")
    sealed = (tmp_path / "one/manifest.json").stat().st_mtime_ns
    (tmp_path / "one/text").write_text("jello")
    os.utime(tmp_path / "one/text", ns=(sealed + 1, sealed + 1))
    with pytest.raises(TriviumError, match=r"text: changed since it was made .digest mismatch"):
        open_artifact(tmp_path / "one")


def test_an_untouched_copy_is_still_the_artifact(tmp_path):
    made(tmp_path / "one")
    os.utime(tmp_path / "one/text")  # younger than the manifest, but the same
    assert open_artifact(tmp_path / "one").kind == "write"


@pytest.mark.parametrize(("fault", "message"), [
    (lambda folder: (folder / "text").unlink(), "text: missing"),
    (lambda folder: (folder / "more").write_text(""), "more: added"),
    (lambda folder: (folder / "manifest.json").unlink(), "no artifact here"),
    (lambda folder: (folder / "manifest.json").write_text("[]"), "not a manifest"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "not valid JSON"),
])
def test_a_touched_folder_is_named(tmp_path, fault, message):
    made(tmp_path / "one")
    fault(tmp_path / "one")
    with pytest.raises(TriviumError, match=message):
        open_artifact(tmp_path / "one")


def edit(folder, **values):
    import json
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({key: value for key, value in (manifest | values).items()
                                                      if value is not None}))


@pytest.mark.parametrize(("values", "said"), [
    ({"key": None}, "`key`"), ({"key": 7}, "`key` is a number"), ({"created": "yesterday"}, "no time"),
    ({"created": None}, "`created`"), ({"seconds": "many"}, "no time"), ({"files": {"text": {"bytes": 5}}}, "no list"),
    ({"inputs": []}, "`inputs` is a list"), ({"inputs": {"a": {"path": "x"}}}, "an input without"),
    ({"records": "log"}, "`records`"),
    ({"format": 99, "versions": {"trivium": "9.9"}}, "by Trivium 9.9.*update Trivium"),
    ({"format": 2, "versions": None}, "a later Trivium"),
])
def test_a_damaged_manifest_and_one_of_the_future_are_one_line(tmp_path, values, said):
    made(tmp_path / "one")
    edit(tmp_path / "one", **values)
    with pytest.raises(TriviumError, match=rf"manifest\.json: .*{said}"):
        open_artifact(tmp_path / "one")


def test_verifying_minds_what_a_killed_process_or_a_file_manager_left(tmp_path):
    made(tmp_path / "one")
    left = tmp_path / "one/inner/.text.123.abc.tmp/text"
    left.parent.mkdir()
    left.touch()
    open_artifact(tmp_path / "one")
    with pytest.raises(TriviumError, match=r"inner/\.text\.123\.abc\.tmp/text: a half-written file.*remove it"):
        open_artifact(tmp_path / "one", verify=True)
    left.unlink()
    left.parent.rmdir()
    (tmp_path / "one/.DS_Store").touch()
    open_artifact(tmp_path / "one")
    with pytest.raises(TriviumError, match=r"\.DS_Store: added"):
        open_artifact(tmp_path / "one", verify=True)
    (tmp_path / "one/.DS_Store").unlink()
    (tmp_path / "one/link").symlink_to("nothing")
    with pytest.raises(TriviumError, match="link: added"):
        open_artifact(tmp_path / "one")


def test_what_is_half_written_is_never_sealed(tmp_path):
    (tmp_path / "two/.text.9.abc.tmp").mkdir(parents=True)
    (tmp_path / "two/.text.9.abc.tmp/text").touch()
    assert made(tmp_path / "one").digest == made(tmp_path / "two").digest
    open_artifact(tmp_path / "two", verify=True)


def test_bits_that_rot_are_found_when_a_model_is_loaded(tmp_path):
    made(tmp_path / "one")
    before = (tmp_path / "one/text").stat()
    check_made(tmp_path / "one")
    (tmp_path / "one/text").write_text("hellp")
    os.utime(tmp_path / "one/text", ns=(before.st_atime_ns, before.st_mtime_ns))
    open_artifact(tmp_path / "one")  # by size and time alone it is the same
    check_made(tmp_path / "one")  # once per process
    made(tmp_path / "other")
    (tmp_path / "other/text").write_text("hellp")
    os.utime(tmp_path / "other/text", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(TriviumError, match="other/text: changed since it was made"):
        check_made(tmp_path / "other")
    made(tmp_path / "third")
    (tmp_path / "third/notes.md").touch()
    check_made(tmp_path / "third")  # nothing would read it
    made(tmp_path / "fourth")
    (tmp_path / "fourth/chat_template.jinja").touch()
    with pytest.raises(TriviumError, match=r"chat_template\.jinja: added"):
        check_made(tmp_path / "fourth")
    check_made(tmp_path)  # no artifact


def test_a_manifest_without_records_is_still_read(tmp_path):
    import json
    made(tmp_path / "one")
    manifest = json.loads((tmp_path / "one/manifest.json").read_text())
    for name, digest in manifest.pop("records").items():
        manifest["files"][name] = {"sha256": digest, "bytes": (tmp_path / "one" / name).stat().st_size}
    (tmp_path / "one/manifest.json").write_text(json.dumps(manifest))
    assert open_artifact(tmp_path / "one", verify=True).name == "w"


def test_the_digest_of_a_raw_folder_follows_names_and_contents(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a").write_text("1")
    first = digest_path(tmp_path / "raw")
    (tmp_path / "raw/a").rename(tmp_path / "raw/b")
    assert digest_path(tmp_path / "raw") != first
    with pytest.raises(TriviumError, match="no such file or folder"):
        digest_path(tmp_path / "none")


def test_lineage_goes_back_to_raw_files(recipe, tmp_path):  # noqa: F811
    (tmp_path / "raw.txt").write_text("raw")
    go(recipe, "write.source=./raw.txt")
    whole = list(lineage(tmp_path / "runs/trial/join"))
    chain, code = ([link for link in whole if (link[2].suffix == ".py") == of_code] for of_code in (False, True))
    assert sorted((depth, field) for depth, field, *_ in chain) == [(0, ""), (1, "named.b"), (1, "parts.0"),
                                                                    (2, "source")]
    # its own code is part of each stage
    assert {field for _, field, place, *_ in code} >= {"stage.test_pipeline.py", "runner.test_pipeline.py"}
    assert not any(changed for *_, changed in chain)
    (tmp_path / "raw.txt").write_text("changed")
    assert [field for _, field, _, _, changed in lineage(tmp_path / "runs/trial/join") if changed] == ["source"]


def test_lineage_knows_what_a_pattern_matched(recipe, tmp_path):  # noqa: F811
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.txt").write_text("1")
    go(recipe, "write.source=raw/*.txt")

    def changed():
        return [field for _, field, _, _, changed in lineage(tmp_path / "runs/trial/write") if changed]

    assert changed() == []
    (tmp_path / "raw/b.txt").write_text("2")
    assert changed() == ["source"]
    with pytest.raises(TriviumError, match="matches no file"):
        go(recipe, "write.source=raw/*.jsonl")


def test_a_folder_with_a_name_that_is_no_utf8_has_a_digest(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    first = digest_path(tmp_path)
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("y")
    assert digest_path(tmp_path) != first
