"""What a corpus takes, against a build of this machine, the recorded run of 10 GB, and by hand."""

import json
import random
import time

import pytest
from typer.testing import CliRunner

from trivium.cli.app import app
from trivium.corpus.build import Extras, build
from trivium.corpus.tasks import Pool
from trivium.errors import TriviumError
from trivium.planning.crawl import MEASURED, Prices, Rates, bytes_of, corpus_stage, estimate, measure, rates_of
from trivium.recipe.load import load_recipe


def recipe(folder, documents, **settings):
    path = folder / "r.yaml"
    path.write_text(json.dumps({"name": "r", "stages": {"corpus": {"documents": documents, "settings": settings}}}))
    return path


def ask(*words):
    return CliRunner().invoke(app, ["estimate", "corpus", *map(str, words)])


def test_a_whole_crawl_by_hand(tmp_path):
    (tmp_path / "warc.paths").write_text("a.warc.gz\n")
    file = recipe(tmp_path, [str(tmp_path / "warc.paths")])
    large = ["--input", "100TB", "--workers", 2000]
    found = json.loads(ask(file, *large, "--core-hour", 0.05, "--head-rate", 3000, "--json").stdout)
    seconds = sum(rates_of(corpus_stage(load_recipe(file), None), "pages").seconds.values())
    assert found["unpacked_bytes"] == pytest.approx(4.5e14) and found["machines"] == 32
    assert found["core_hours"] == pytest.approx(4.5e8 * seconds / 3600)
    compute = 4.5e8 * seconds / 2000
    assert compute <= found["hours"] * 3600 <= 1.12 * compute and found["slices"] > 1
    assert found["dollars"]["processors"] == pytest.approx(found["hours"] * 2000 * 0.05)
    assert sum(found["by_step_core_hours"].values()) == pytest.approx(found["core_hours"])
    assert found["network_bytes"]["read"] == 1e14 and "repeats" not in found["by_step_core_hours"]
    said = ask(file, *large).stdout
    assert "bound by the head machine's network" in said
    assert "2,000 processes, 32 machines" in said and "AMX" in said and "core_hour 0.04" in said


def test_it_foretells_the_recorded_run_of_10_gb():
    """That run's machine did 1.25 and 1.78 MB a second with 0.1 GB; at 10 GB 1.47, and 34.8 GB with the input."""
    speed = (1.25 + 1.78) / 2 * sum(MEASURED["text"].seconds.values())
    found = estimate(MEASURED["text"], 1e10, 2, remote=False, speed=speed)
    assert found["core_hours"] * 3600 == pytest.approx(1e4 / 1.47, rel=0.2)
    assert found["head_disk_bytes"] + 1e10 == pytest.approx(34.8e9, rel=0.2)
    assert found["slices"] == 1 and found["machines"] == 1


def test_slices_keep_the_gathering_small():
    rates = Rates({"filter": 0.1, "near_duplicates": 0.01}, 0.1, 0.1, 0.1, 0.1, 1000.0, 1.0)
    small, large = (estimate(rates, size, 100, Prices()) for size in (1e11, 1e14))
    assert small["slices"] < large["slices"]
    assert large["hours"] * 3600 <= 1.11 * large["core_hours"] * 36
    assert estimate(rates, 1e12, 100, head_rate=1e5)["hours"] > 10 * estimate(rates, 1e12, 100)["hours"]


@pytest.mark.parametrize("words, match", [
    (["--input", "many"], "many: no size"), (["--input", "1TB", "--kind", "books"], "known are pages, text"),
    (["--input", "1TB", "--stage", "x"], "no such corpus stage"), (["--input", "1TB", "--speed", "0"], "above 0")])
def test_wrong_words_are_one_line(tmp_path, words, match):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(TriviumError, match=match):
        raise ask(recipe(tmp_path, [str(tmp_path / "a.txt")]), *words).exception


def test_sizes_are_read():
    assert [bytes_of(text) for text in ("100TB", "1.5 gb", "2KiB", "7", "1e3")] == [1e14, 1.5e9, 2048, 7, 1000]


@pytest.mark.long
def test_a_sample_tells_of_the_whole(tmp_path):
    rng = random.Random(3)
    words = [a + b + c for a in "bdfgklm" for b in ("a", "en", "il", "or") for c in ("ta", "ro", "men", "s", "ck")]
    (tmp_path / "in").mkdir()
    for part in range(4):
        texts = [". ".join(" ".join(["the", "and", *rng.choices(words, k=9)]) for _ in range(9)) + "."
                 for _ in range(500)]
        (tmp_path / f"in/{part}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    stage = corpus_stage(load_recipe(recipe(tmp_path, [str(tmp_path / "in")])), None)
    rates = measure(stage, 300_000)
    size = sum(file.stat().st_size for file in (tmp_path / "in").glob("*"))
    before = time.process_time()
    build([tmp_path / "in"], Extras(), stage.settings, tmp_path / "out", tmp_path / "tasks", 0,
          Pool(tmp_path / "tasks", 1, lambda *_: None))
    took = time.process_time() - before
    assert estimate(rates, size, 1)["core_hours"] * 3600 == pytest.approx(took, rel=0.6)
    assert {"read", "extract", "filter", "near_duplicates", "finish"} <= set(rates.seconds)
    assert rates.text_share == pytest.approx(1, abs=0.01)
