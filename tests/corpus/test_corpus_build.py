"""The corpus stage as a whole: nothing is lost, and neither workers nor SIGKILL change a byte."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import trivium
from trivium.corpus.build import Extras, _report, build
from trivium.corpus.languages import LanguageSettings
from trivium.corpus.mixture import MixtureSettings
from trivium.corpus.settings import CorpusSettings, PrivateSettings
from trivium.corpus.tasks import Pool, Task
from trivium.corpus.thresholds import QualityThresholds
from trivium.corpus.truth import measure
from trivium.errors import TriviumError

SETTINGS = CorpusSettings(
    shard_documents=40, without=["fineweb.short_lines"], thresholds=QualityThresholds(min_words=20, min_sentences=3)
)
QUESTION = "What does the great western gullet swallow when the long rains end?"
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "or", "en", "al")]
CREATURES, PLACES, THINGS = (
    [a + b + end for a, b in zip(_SYLLABLES[::step], _SYLLABLES[5::step], strict=False)]
    for step, end in ((2, "k"), (1, "field"), (1, "s"))
)


def story(rng):
    pick = rng.choice
    frames = [
        lambda: (
            f"The {pick(CREATURES)} of the {pick(PLACES)} gathers {rng.randint(2, 99)} {pick(THINGS)} before winter "
            "comes."
        ),
        lambda: f"Nobody in the {pick(PLACES)} had seen a {pick(CREATURES)} with so many {pick(THINGS)}.",
        lambda: (
            f"At {pick(['dawn', 'noon', 'dusk'])} they carried the {pick(THINGS)} to the {pick(PLACES)} and counted "
            f"{rng.randint(3, 80)} of them."
        ),
        lambda: f"A young {pick(CREATURES)} must be fed with {pick(THINGS)} for {rng.randint(2, 60)} weeks.",
        lambda: f"That is why the {pick(PLACES)} smells of {pick(THINGS)} and {pick(THINGS)} in spring.",
        lambda: (
            f"Every {pick(CREATURES)} knows how {pick(THINGS)} are mended, but only few have {pick(THINGS)} to give."
        ),
        lambda: (
            f"When {pick(THINGS)} fall from {pick(PLACES)}, the {pick(CREATURES)} hides them with its {pick(THINGS)}."
        ),
        lambda: (
            f"{pick(CREATURES).title()} and {pick(CREATURES)} share {pick(THINGS)} until the road to {pick(PLACES)} "
            "is dry."
        ),
    ]
    return " ".join(frame() for frame in rng.sample(frames, rng.randint(6, 8)))


def page(text):
    paragraphs = "".join(f"<p>{sentence}.</p>" for sentence in text.rstrip(".").split(". "))
    return (
        "<html><head><title>x</title></head><body><nav><a href='/'>Home</a> <a href='/shop'>Shop</a></nav>"
        f"<main><article>{paragraphs}</article></main><footer>Copyright and imprint</footer></body></html>"
    )


def write_corpus(folder):
    """Planted faults and the truth about them."""
    rng = random.Random(11)
    folder.mkdir()
    rows, truth = [], {}

    def plant(id, text, kinds=(), keep=True, **more):
        rows.append({"id": id, "text": text, "source": "web" if kinds else "books"})
        truth[id] = {"id": id, "kinds": list(kinds), "keep": keep, **more}

    for n in range(120):
        plant(f"good-{n}", story(rng))
    for n in range(10):
        plant(
            f"exact-{n}",
            rows[n]["text"].upper() if n % 2 else rows[n]["text"],
            ["exact_duplicate"],
            False,
            duplicate_of=f"good-{n}",
        )
        words = rows[20 + n]["text"].split()
        words[rng.randrange(len(words))] = "suddenly"
        plant(f"near-{n}", " ".join(words), ["near_duplicate"], False, duplicate_of=f"good-{20 + n}")
        plant(f"spam-{n}", f"cheap deals {n} buy now " * 30, ["spam"], False)
        plant(
            f"harm-{n}",
            f"Take the explosives and build a bomb. Then steal the weapons of the {PLACES[n % 8]}. "
            + story(rng)[:160]
            + ".",
            ["harmful"],
            False,
        )
        plant(f"leak-{n}", f"{story(rng)} {QUESTION} {story(rng)}", ["contaminated"], False)
        plant(
            f"mail-{n}",
            f"{story(rng)} Write to pelk{n}@mail.example.org today. {story(rng)}",
            ["private"],
            private=[{"kind": "email", "text": f"pelk{n}@mail.example.org"}],
        )
    for n in range(20):
        text = story(rng)
        rows.append({"id": f"page-{n}", "html": page(text), "url": f"http://pages.example/{n}"})
        truth[f"page-{n}"] = {"id": f"page-{n}", "kinds": ["boilerplate"], "keep": True, "clean": text}
    rng.shuffle(rows)
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + "{broken\n" + '{"id": "empty"}\n'
    )
    (folder / "one.html").write_text(page(story(rng)))
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return truth


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder / "in", write_corpus(folder / "in")


def run(
    inputs, folder, settings=SETTINGS, workers=1, seed=5, progress=lambda step, done, total: None, texts=(QUESTION,)
):
    pool = Pool(folder / "scratch", workers, progress)
    return build([inputs], Extras(list(texts)), settings, folder / "out", folder / "scratch", seed, pool)


@pytest.fixture(scope="module")
def built(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    return run(corpus[0], folder), folder


def rows_of(folder, kind):
    return [
        json.loads(line)
        for part in sorted((folder / "out" / kind).glob("part-*.jsonl"))
        for line in part.read_text().splitlines()
    ]


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_documents_in_are_kept_or_rejected(corpus, built):
    report, folder = built
    kept, rejects = rows_of(folder, "documents"), rows_of(folder, "rejects")
    ids = [row["id"] for row in kept + rejects]
    assert len(ids) == len(set(ids)) == report["documents"] == len(corpus[1]) + 4
    assert (report["kept"], report["rejected"]) == (len(kept), len(rejects))
    assert set(corpus[1]) < set(ids)
    assert all(set(row) == {"id", "text", "source", "url", "language"} and row["language"] == "en" for row in kept)
    assert all(row["reason"] and row["step"] and len(row["text"]) <= 2000 for row in rejects)
    assert json.loads((folder / "out/counts.json").read_text()) == report
    assert len(list((folder / "out/documents").iterdir())) > 3  # several shards


def test_funnel_and_reasons(built):
    report, folder = built
    documents = {entry["step"]: entry["documents"] for entry in report["funnel"]}
    assert list(documents)[:4] == ["input", "read", "address", "extract"
                                   ] and documents["input"] - documents["read"] == 3
    assert documents["harmful"] - documents["exact_duplicates"] == 10 and documents["contamination"] == report["kept"]
    for entry in report["funnel"]:
        assert sum(source["documents"] for source in entry["sources"].values()) == entry["documents"]
    assert report["funnel"][-1]["bytes"] == sum(len(row["text"].encode()) for row in rows_of(folder, "documents"))
    assert not {"spans", "classifier", "mixture"} & {row["step"] for row in report["funnel"]}  # they are off
    assert set(report["funnel"][0]["sources"]) == {"web", "books", "in"}
    assert report["malformed"] == {"not valid JSON": 1, "no text": 1, "not a kind of file known here (.png)": 1}
    assert report["private"] == {"email": 10}
    assert report["contamination"]["hits"] == [{"text": QUESTION, "number": 1, "documents": 10}]
    malformed = [row for row in rows_of(folder, "rejects") if row["step"] == "read"]
    assert {(row["file"], row["reason"].split(":")[0]) for row in malformed} >= {
        ("in/rows.jsonl", "not valid JSON"),
        ("in/rows.jsonl", "no text"),
    }
    near = [row for row in rows_of(folder, "rejects") if row["step"] == "near_duplicates"]
    assert len(near) == 10 and all(
        "near_duplicate: of " in row["reason"] and ", similarity 0." in row["reason"] for row in near
    )


def test_planted_faults_are_measured(corpus, built):
    rates = measure(corpus[1].values(), rows_of(built[1], "documents"), rows_of(built[1], "rejects"))
    for kind in ("spam", "harmful", "contaminated", "exact_duplicate", "near_duplicate", "private", "boilerplate"):
        assert rates["precision"][kind]["value"] == rates["recall"][kind]["value"] == 1, (kind, rates)
        assert rates["recall"][kind]["n"] >= 10 and rates["recall"][kind]["low"] > 0.7


def test_nothing_private_is_written(built):
    for path in (built[1] / "out").rglob("*.json*"):
        assert "@mail.example.org" not in path.read_text()


def test_two_workers_write_the_same_bytes(corpus, built, tmp_path):
    run(corpus[0], tmp_path, workers=2)
    assert digests(tmp_path / "out") == digests(built[1] / "out")


def test_another_shard_size_gives_the_same_documents(corpus, built, tmp_path):
    settings = CorpusSettings(**{**vars(SETTINGS), "shard_documents": 1000})
    run(corpus[0], tmp_path, settings)
    assert rows_of(tmp_path, "documents") == rows_of(built[1], "documents")


def test_only_what_changed_is_done_again(corpus, built, tmp_path):
    steps = []
    folder = built[1]
    before = {path.name for path in (folder / "scratch").iterdir()}

    def progress(step, done, total):
        steps.append((step, done, total))

    def again(settings):
        return build([corpus[0]], Extras([QUESTION]), settings, tmp_path / "out", folder / "scratch", 5,
                     Pool(folder / "scratch", 1, progress))

    again(SETTINGS)
    assert (
        all(done == total for _, done, total in steps)
        and {path.name for path in (folder / "scratch").iterdir()} == before
    )
    steps.clear()
    private = CorpusSettings(**{**vars(SETTINGS), "private": PrivateSettings(enabled=False)})
    assert again(private)["private"] == {}
    assert {step for step, done, _ in steps if done == 0} == {"finish"}


SCRIPT = """
import os, signal, sys
from pathlib import Path
from trivium.corpus.build import Extras, build
from trivium.corpus.tasks import Pool
sys.path.insert(0, {tests!r})
from test_corpus_build import QUESTION, SETTINGS
count = 0
def progress(step, done, total):
    global count
    count += 1
    if count == int(sys.argv[3]):
        print(step, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
scratch = Path(sys.argv[2], "scratch")
pool = Pool(scratch, 2, progress)
build([Path(sys.argv[1])], Extras([QUESTION]), SETTINGS, Path(sys.argv[2], "out"), scratch, 5, pool)
assert "torch" not in sys.modules
"""  # no main guard: the workers must not need one


def test_killed_runs_go_on_and_end_the_same(corpus, built, tmp_path):
    source = os.pathsep.join(str(Path(folder).parent) for folder in trivium.__path__)
    environment = {**os.environ, "PYTHONPATH": source, "TEST_FOLDER": str(tmp_path)}
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    killed_in, seen = [], {}
    for call in (4, 17, 10**6):
        done = subprocess.run(
            [sys.executable, str(script), str(corpus[0]), str(tmp_path), str(call)],
            env=environment,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if call < 10**6 else 0), done.stderr
        killed_in.append(done.stdout.strip())
        finished = {
            path.name: path.stat().st_mtime_ns
            for path in (tmp_path / "scratch").iterdir()
            if not path.name.startswith(".")
        }
        assert seen.items() <= finished.items()  # finished tasks stayed as they were
        seen = finished
    assert len(set(killed_in)) == 3
    assert digests(tmp_path / "out") == digests(built[1] / "out")
    assert not [path for path in (tmp_path / "scratch").iterdir() if path.name.startswith(".")]
    deadline = time.time() + 10  # no worker outlives its killed parent
    while workers := [
        pid for pid in os.listdir("/proc") if pid.isdigit() and f"TEST_FOLDER={tmp_path}".encode() in _environment(pid)
    ]:
        assert time.time() < deadline, workers
        time.sleep(0.1)


def _environment(pid):
    try:
        return Path("/proc", pid, "environ").read_bytes()
    except OSError:
        return b""


def test_an_empty_corpus_is_an_error(tmp_path):
    empty = tmp_path / "in"
    empty.mkdir()
    with pytest.raises(TriviumError, match="in: holds no files"):
        run(empty, tmp_path)
    (empty / "a.txt").write_text("Too short.")
    with pytest.raises(TriviumError, match="1 document, all rejected.*'quality'.*'gopher_quality.word_count'"):
        run(empty, tmp_path)
    assert rows_of(tmp_path, "rejects")[0]["text"] == "Too short."


def test_names_that_nothing_has_are_errors_at_once(corpus, tmp_path):
    steps = []
    for wrong, match in (({"fields": {"text": "body"}}, "no row holds 'body', which text"), ({
            "mixture": MixtureSettings(weights={"boks": 2})
    }, "no document is of the source 'boks'; did you mean 'books'")):
        with pytest.raises(TriviumError, match=match):
            run(corpus[0], tmp_path, CorpusSettings(**{**vars(SETTINGS), **wrong}),
                progress=lambda step, *_: steps.append(step))
    assert set(steps) == {"read"}
    weighed = CorpusSettings(**{**vars(SETTINGS), "rules": [], "mixture": MixtureSettings(weights={"short": 2}),
                                "language": LanguageSettings(keep=["en"])})
    (tmp_path / "in").mkdir()
    rows = [{"text": "Wie geht es dir und den Kindern heute Abend, mein Freund?", "source": "short"},
            {"text": story(random.Random(0))}]
    (tmp_path / "in/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
            TriviumError,
            match=r"1 document of the source 'short', all rejected.*corpus inspect .*out --source 'short'"):
        run(tmp_path / "in", tmp_path, weighed)
    assert rows_of(tmp_path, "rejects")[0]["source"] == "short"


def test_a_lost_document_stops_the_run():
    with pytest.raises(AssertionError, match="3 documents came in, but 1 were kept and 1 rejected"):
        _report(
            {
                "funnel": {"input": {"sources": {"in": {"documents": 3, "bytes": 9}}}},
                "written": {"kept": 1, "rejected": 1}
            }, set(), [], None)


def _die(parameters, inputs, folder):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_worker_is_one_clear_error(tmp_path):
    with (
        Pool(tmp_path, 2, lambda step, done, total: None) as pool,
        pytest.raises(TriviumError, match="step 'hard' was killed.*fewer workers"),
    ):
        pool.run([Task("hard", _die, {"n": n}) for n in range(3)])
    with pytest.raises(TriviumError, match="workers is 0"):
        Pool(tmp_path, 0, lambda step, done, total: None)


def test_settings_are_read_strictly():
    adapter = TypeAdapter(CorpusSettings)
    assert adapter.validate_python({}) == CorpusSettings()
    assert adapter.validate_python({"thresholds": {"min_words": 5}}).thresholds.min_words == 5
    for wrong, match in (
        ({"rule": []}, "rule"),
        ({"rules": ["c5"]}, "known: c4"),
        ({"extraction": "slow"}, "accurate"),
        ({"private": {"kinds": ["emall"]}}, "did you mean 'email'"),
        ({"shard_documents": 0}, "at least 1"),
    ):
        with pytest.raises((ValueError, TriviumError), match=match):
            adapter.validate_python(wrong)
    properties = adapter.json_schema()["$defs"]
    for name, schema in properties.items():
        for field, value in schema["properties"].items():
            assert value.get("description") or "$ref" in value, f"{name}.{field} is not documented"


@pytest.mark.long
def test_killed_at_any_moment(tmp_path):
    """SIGKILL after random times, with every step on, until a run comes to its end: the same bytes as an undisturbed
    one."""
    inputs = tmp_path / "in"
    write_corpus(inputs)
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from trivium.corpus.build import Extras, build
from trivium.corpus.mixture import MixtureSettings
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.repeated_spans import SpanSettings
from trivium.corpus.tasks import Pool
from test_corpus_build import QUESTION, SETTINGS
settings = CorpusSettings(**{{**vars(SETTINGS), "spans": SpanSettings(enabled=True, words=20),
                             "mixture": MixtureSettings(weights={{"web": 2}})}})
out = Path(sys.argv[1])
pool = Pool(out / "scratch", 2, lambda *a: None)
build([Path({str(inputs)!r})], Extras([QUESTION]), settings, out / "out", out / "scratch", 5, pool)
""")
    source = os.pathsep.join(str(Path(folder).parent) for folder in trivium.__path__)
    command, environment = [sys.executable, str(script)], {**os.environ, "PYTHONPATH": source}
    start = time.time()
    subprocess.run([*command, str(tmp_path / "whole")], env=environment, check=True)
    whole, rng, kills = time.time() - start, random.Random(3), 0
    while True:
        process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment)
        try:
            process.wait(whole * rng.uniform(0.3, 0.9))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            if kills < 20:
                continue
            subprocess.run([*command, str(tmp_path / "killed")], env=environment, check=True)
        break
    assert kills >= 2
    assert digests(tmp_path / "killed/out") == digests(tmp_path / "whole/out")
    counts = json.loads((tmp_path / "whole/out/counts.json").read_text())
    assert counts["copies"] > 0 and counts["epochs"]["web"] > counts["epochs"]["books"]
