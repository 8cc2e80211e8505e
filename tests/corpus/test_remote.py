"""Documents and results at URLs: a real S3 server, a web server of this machine, and a proxy that cuts connections."""

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import logging
import os
import socket
import socketserver
import sys
import threading
from pathlib import Path

import pytest

from trivium import remote
from trivium.artifacts import open_artifact
from trivium.data.readers import find
from trivium.errors import TriviumError
from trivium.pipeline.run import run
from trivium.recipe.load import load_recipe

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYexamplekey"
PASSWORD = "correct-horse-battery"
TEXT = ("The harbour of the old town is deep enough for large ships. In winter the fishermen mend their nets there, "
        "and the children of the street watch them. Number {} on the quay was built by a merchant who sold salt. ")


@pytest.fixture(scope="module")
def store():
    """The S3 server's address, and a client for what tests put there."""
    import boto3
    with pytest.MonkeyPatch.context() as patch:
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET,
                            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="texts")
        yield client
        server.stop()


def put(store, key, data):
    store.put_object(Bucket="texts", Key=key, Body=data if isinstance(data, bytes) else data.encode())


def lines(numbers):
    return "".join(json.dumps({"text": TEXT.format(n) * 3}) + "\n" for n in numbers)


def recipe(folder, documents, **more):
    path = folder / "r.yaml"
    corpus = {"documents": documents, "settings": {"rules": [], "duplicates": {"near": False, "exact": False}}}
    corpus["settings"] |= more.pop("settings", {})
    path.write_text(json.dumps({"name": "r", "out": str(folder / "runs"), "threads": 1, **more,
                                "stages": {"corpus": corpus}}))
    return path


def texts(folder):
    return [json.loads(line)["text"] for part in sorted((folder / "documents").glob("*.jsonl"))
            for line in part.read_text().splitlines()]


class Cutting(socketserver.ThreadingTCPServer):
    """Passes connections on to another address, and cuts those whose numbers are given after some bytes of the
    answer."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, target, cut, after):
        super().__init__(("127.0.0.1", 0), None)
        self.target, self.cut, self.after, self.count, self.cuts = target, cut, after, 0, 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def finish_request(self, request, client_address):
        self.count += 1
        left = self.after if self.cut(self.count) else sys.maxsize
        with socket.create_connection(self.target) as onward:
            threading.Thread(target=self.copy, args=(request, onward), daemon=True).start()
            while data := onward.recv(1 << 14):
                request.sendall(data[:left])
                left -= len(data)
                if left <= 0:
                    self.cuts += 1
                    break

    @staticmethod
    def copy(source, target):
        try:
            while data := source.recv(1 << 14):
                target.sendall(data)
        except OSError:
            pass

    def handle_error(self, request, client_address):
        pass


def test_a_corpus_from_a_bucket_is_that_of_the_same_folder_and_goes_to_a_bucket(store, tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO)
    (tmp_path / "docs/deep").mkdir(parents=True)
    for name, numbers in (("b.jsonl", range(5)), ("deep/a.jsonl", range(5, 9)), ("deep/w x+ü%20?.jsonl", [77])):
        (tmp_path / "docs" / name).write_text(lines(numbers))
        put(store, f"docs/{name}", lines(numbers))
    put(store, "docs/.hidden.jsonl", lines([10]))
    put(store, "docs/empty/", b"")
    (tmp_path / "local").mkdir()
    local = run(recipe(tmp_path / "local", [str(tmp_path / "docs")]))["corpus"]
    file = recipe(tmp_path, ["s3://texts/docs"], publish="s3://texts/results")
    made = run(file, quiet=False)["corpus"]
    assert texts(made.folder) == texts(local.folder) and len(texts(made.folder)) == 10
    names = {name: digest for name, digest in made.manifest["files"].items() if name.startswith("documents")}
    assert names == {name: local.manifest["files"][name] for name in names}
    fetched = [json.loads(line) for line in (made.folder / "fetched.jsonl").read_text().splitlines()]
    assert {row["url"].removeprefix("s3://texts/docs/"): row["sha256"] for row in fetched} == {
        path.relative_to(tmp_path / "docs").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "docs").rglob("*.jsonl")}
    assert made.manifest["inputs"]["documents.0"]["path"] == "s3://texts/docs"
    # what was published is the same artifact: by the same digest, for every kind of stage
    there = remote.manifest_of("s3://texts/results/r/corpus")
    assert there == made.manifest and remote.digest("s3://texts/results/r/corpus") == made.digest
    assert run(file)["corpus"].manifest == made.manifest  # unchanged, though every mark was asked for again
    put(store, "docs/b.jsonl", lines(range(3)))
    changed = run(file)["corpus"]
    assert changed.digest != made.digest
    assert remote.digest("s3://texts/results/r/corpus") == changed.digest
    said = caplog.text + "".join(capsys.readouterr())
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "published at s3://texts/results/r/corpus" in said
    assert SECRET not in said and SECRET.encode() not in written and b"AKIDEXAMPLE" not in written


def test_an_artifact_at_a_url_is_an_input_by_the_same_digest(store, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text(lines(range(40)))
    first = recipe(tmp_path, [str(tmp_path / "in")], publish="s3://texts/given")
    made = run(first)["corpus"]
    digests = []
    for place in (str(made.folder), "s3://texts/given/r/corpus"):
        second = tmp_path / "second.yaml"
        second.write_text(json.dumps({
            "name": "second", "out": str(tmp_path / f"out{len(digests)}"), "threads": 1,
            "stages": {"corpus": {"documents": [place], "settings": {"rules": []}},
                       "tokenizer": {"corpus": place, "vocab_size": 300}}}))
        digests.append({name: [value["digest"] for value in artifact.manifest["inputs"].values()]
                        for name, artifact in run(second).items()})
    assert digests[0]["tokenizer"] == digests[1]["tokenizer"] == [made.digest]
    assert digests[1]["corpus"] == [made.digest]
    tokenizer = open_artifact(tmp_path / "out1/second/tokenizer").manifest
    assert tokenizer["inputs"]["corpus"]["path"] == "s3://texts/given/r/corpus"


def test_cut_connections_are_taken_up_again(store, tmp_path, monkeypatch):
    data = os.urandom(3_000_000)
    put(store, "big.bin", data)
    host, port = store.meta.endpoint_url.removeprefix("http://").split(":")
    monkeypatch.setattr(remote, "RANGE", 1 << 20)
    proxy = Cutting((host, int(port)), lambda number: number <= 6, 700_000)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_address[1]}")
    fresh_systems()
    try:
        found = remote.fetch(remote.describe("s3://texts/big.bin"), tmp_path / "big")
        assert (tmp_path / "big").read_bytes() == data and found == hashlib.sha256(data).hexdigest()
        assert proxy.cuts >= 3
        proxy.cut, proxy.after = lambda number: True, 10
        monkeypatch.setattr(remote, "TRIES", 2)
        with pytest.raises(TriviumError, match="big.bin: the connection breaks off, or nobody answers, 2 times"):
            remote.describe("s3://texts/big.bin")
    finally:
        proxy.shutdown()
        proxy.server_close()
        fresh_systems()


def fresh_systems():
    """File systems are kept by fsspec, with the addresses that they were made with."""
    import s3fs
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_object_that_changes_after_it_was_listed_ends_the_stage(store, tmp_path, monkeypatch):
    put(store, "moving/a.jsonl", lines(range(3)))
    put(store, "moving/b.jsonl", lines(range(3, 6)))
    [_, (_, later)] = remote.listing("s3://texts/moving")
    put(store, "moving/b.jsonl", lines(range(6, 9)))  # of the same size
    assert later.size == remote.describe(later.url).size
    with pytest.raises(TriviumError, match="^s3://texts/moving/b.jsonl: was changed after it was listed"):
        remote.fetch(later, tmp_path / "b")
    now, real = remote.describe(later.url), remote._whole_range
    monkeypatch.setattr(remote, "_whole_range", lambda *given: (real(*given), put(store, "moving/b.jsonl", "[]"))[0])
    with pytest.raises(TriviumError, match="was changed after it was listed"):
        remote.fetch(now, tmp_path / "b")  # while it is read


class Site(http.server.BaseHTTPRequestHandler):
    """Files with or without parts, for whom has the word."""

    files, ranges, word, torn, said = {}, True, None, 0, []

    def do_GET(self):
        path, _, query = self.path.partition("?")
        Site.said.append((self.path, self.headers["Authorization"]))
        if Site.word and Site.word not in (query, self.headers["Authorization"]):
            self.send_error(403)
            return
        if path not in Site.files:
            self.send_error(404)
            return
        data = Site.files[path]
        asked = self.headers["Range"] if Site.ranges else None
        start, stop = map(int, asked.removeprefix("bytes=").split("-")) if asked else (0, len(data) - 1)
        if asked and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        part = data[start:stop + 1]
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        cut = Site.torn > 0 and len(part) > 1
        Site.torn -= cut
        with contextlib.suppress(OSError):
            self.wfile.write(part[:len(part) // 2] if cut else part)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    Site.files, Site.ranges, Site.word, Site.torn, Site.said = {}, True, None, 0, []
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_server_that_tears_is_asked_again(site, tmp_path, ranges):
    Site.files, Site.ranges, Site.torn = {"/a.bin": os.urandom(200_000), "/empty": b""}, ranges, 2
    found = remote.fetch(remote.describe(f"{site}/a.bin"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == Site.files["/a.bin"] and Site.torn == 0
    assert found == hashlib.sha256(Site.files["/a.bin"]).hexdigest()
    remote.fetch(remote.describe(f"{site}/empty"), tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""
    with pytest.raises(TriviumError, match="/none.bin: nothing is there"):
        remote.describe(f"{site}/none.bin")


def test_no_secret_is_stored_or_said(site, tmp_path, monkeypatch, capsys):
    Site.files = {"/a.jsonl": lines(range(4))[:-1].encode()}
    host = site.removeprefix("http://")
    for url in (f"http://me:{PASSWORD}@{host}/a.jsonl", f"{site}/a.jsonl?token={PASSWORD}", f"s3://{PASSWORD}@texts/a",
                f"{site}/a.jsonl?{PASSWORD}"):
        with pytest.raises(TriviumError, match="which would be stored with the results") as error:
            load_recipe(recipe(tmp_path, [url]))
        assert PASSWORD not in str(error.value)
    Site.word = f"token={PASSWORD}"
    file = recipe(tmp_path, [f"{site}/a.jsonl?token=${{TOKEN}}"])
    with pytest.raises(TriviumError, match="no environment variable TOKEN"):
        run(file)
    for value, match in (("wrong", "access is denied"), (PASSWORD, None)):
        monkeypatch.setenv("TOKEN", value)
        if match:
            with pytest.raises(TriviumError, match=match) as error:
                run(file)
            assert value not in str(error.value) and error.value.__suppress_context__
        else:
            assert len(texts(run(file, quiet=False)["corpus"].folder)) == 4
    Site.word = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert len(find([Path(f"http://me:${{TOKEN}}@{host}/a.jsonl")])) == 1
    assert Site.said[-1] == ("/a.jsonl", Site.word)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert not written and PASSWORD not in "".join(capsys.readouterr())


def warc(numbers):
    """A web archive, packed record by record."""
    data = io.BytesIO()
    for n in numbers:
        page = f"<html><body><article><p>{TEXT.format(n) * 5}</p></article></body></html>".encode()
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
        head = (f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x.example/{n}\r\n"
                f"WARC-Record-ID: <urn:{n}>\r\nContent-Type: application/http; msgtype=response\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode()
        data.write(gzip.compress(head + body + b"\r\n\r\n"))
    return data.getvalue()


def test_a_crawls_list_of_paths_is_a_source(site, store, tmp_path):
    names = [f"crawl-data/CC-MAIN-2031-07/segments/{n}/warc/CC-MAIN-{n}.warc.gz" for n in range(6)]
    for n, name in enumerate(names):
        Site.files[f"/{name}"] = warc([2 * n, 2 * n + 1])
        put(store, name, Site.files[f"/{name}"])
    packed = gzip.compress("\n".join(names).encode() + b"\n")
    Site.files["/crawl-data/CC-MAIN-2031-07/warc.paths.gz"] = packed
    found = []
    for base in (site, "s3://texts"):
        folder = tmp_path / base[:2]
        folder.mkdir()
        given = [f"{site}/crawl-data/CC-MAIN-2031-07/warc.paths.gz"]
        crawl = {"base": base, "sample": 4}
        made = run(recipe(folder, given, settings={"extraction": "fast", "crawl": crawl}))["corpus"]
        rows = [json.loads(line) for line in (made.folder / "fetched.jsonl").read_text().splitlines()]
        found.append((texts(made.folder), [row["url"].removeprefix(base) for row in rows]))
        ids = [json.loads(line) for part in (made.folder / "documents").glob("*")
               for line in part.read_text().splitlines()]
        assert {row["source"] for row in ids} == {"CC-MAIN-2031-07"} and len(ids) == 8
    assert found[0] == found[1] and len(found[0][1]) == 4 and found[0][1] == sorted(found[0][1])
    (tmp_path / "bad.paths").write_text("../x.warc.gz\n")
    with pytest.raises(TriviumError, match="bad.paths: line 1: '../x.warc.gz' is no path below crawl.base"):
        run(recipe(tmp_path, [str(tmp_path / "bad.paths")]))
    (tmp_path / "gone.paths").write_text("a.warc.gz\n")
    with pytest.raises(TriviumError, match=f"{site}/a.warc.gz: nothing is there"):
        run(recipe(tmp_path, [str(tmp_path / "gone.paths")], settings={"crawl": {"base": site}}))


@pytest.mark.long
def test_thousands_of_keys_are_listed(store):
    for n in range(2500):
        put(store, f"many/{n % 7}/{n:05}.txt", str(n))
    found = remote.listing("s3://texts/many")
    assert len(found) == 2500 and [name for name, _ in found] == sorted(f"{n % 7}/{n:05}.txt" for n in range(2500))
    assert len(remote.listing("s3://texts/many/*/0000*.txt")) == 10
