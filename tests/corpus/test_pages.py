"""Pages as they really are: their character sets and content codings, what extraction would lose, and what would hold
it up."""

import contextlib
import gzip
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import asdict
from pathlib import Path

import brotli
import pytest
import webencodings
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.corpus import killable
from trivium.corpus.extract import ExtractionLimits, extract
from trivium.corpus.shards import read_shard, write_shard
from trivium.corpus.steps import extract_step
from trivium.data.charsets import BAD, decoded, named
from trivium.data.content_codings import unpacked
from trivium.data.page_text import decode_page
from trivium.data.unpack import Bad
from trivium.errors import TriviumError

SENTENCE = "The ferry crosses the river twice a day, and nobody waits for it long."
TEXTS = {
    "gbk": "渡船每天过河两次，大家都喜欢在岸边等它。", "gb18030": "渡船每天过河两次，大家都喜欢在岸边等它。",
    "gb2312": "渡船每天过河两次，大家都喜欢在岸边等它。", "big5": "渡船每天過河兩次，大家都喜歡在岸邊等它。",
    "shift_jis": "渡し船は一日に二度、川を渡ります。①と㈱も。", "euc-jp": "渡し船は一日に二度、川を渡ります。",
    "iso-2022-jp": "渡し船は一日に二度、川を渡ります。", "euc-kr": "나룻배는 하루에 두 번 강을 건넌다. 똠방각하",
    "windows-1251": "Паром пересекает реку дважды в день.", "koi8-r": "Паром пересекает реку дважды в день.",
    "koi8-u": "Пором перетинає річку двічі на день.", "ibm866": "Паром пересекает реку дважды в день.",
    "iso-8859-5": "Паром пересекает реку дважды в день.", "x-mac-cyrillic": "Паром пересекает реку дважды в день.",
    "windows-1252": "Le bac traverse la rivière – deux fois.", "iso-8859-1": "Le bac traverse la rivière – deux fois.",
    "iso-8859-15": "Le bac coûte 5 € l’œuf à part".replace("’", "'"), "macintosh": "Le bac traverse la rivière.",
    "windows-1250": "Prom przepływa rzekę dwa razy, świetnie.", "iso-8859-2": "Prom przepływa rzekę dwa razy.",
    "windows-1253": "Το πλοίο περνά το ποτάμι δύο φορές.", "iso-8859-7": "Το πλοίο περνά το ποτάμι δύο φορές.",
    "windows-1254": "Vapur nehri günde iki kez geçiyor, şık.", "iso-8859-9": "Vapur nehri günde iki kez geçiyor, şık.",
    "windows-1255": "המעבורת חוצה את הנהר פעמיים ביום", "iso-8859-8-i": "המעבורת חוצה את הנהר פעמיים ביום",
    "windows-1256": "العبارة تعبر النهر مرتين في اليوم", "iso-8859-6": "العبارة تعبر النهر مرتين",
    "windows-1257": "Prāmis šķērso upi divreiz dienā.", "iso-8859-13": "Prāmis šķērso upi divreiz dienā.",
    "windows-1258": "Phà qua sông hai lân môi ngày.", "windows-874": "เรือข้ามฟากข้ามแม่น้ำวันละสองครั้ง",
    "tis-620": "เรือข้ามฟากข้ามแม่น้ำวันละสองครั้ง",
}
PYTHONS = {"gbk": "gb18030", "gb2312": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949", "windows-874": "cp874",
           "tis-620": "cp874", "iso-8859-1": "cp1252", "iso-8859-9": "cp1254", "iso-8859-8-i": "iso8859-8",
           "x-mac-cyrillic": "mac-cyrillic", "macintosh": "mac-roman"}


def page(body, head=""):
    return f"<!DOCTYPE html><html><head><title>T</title>{head}</head><body>{body}</body></html>"


def article(body):
    return page(f"<article><h1>The ferry</h1><p>{SENTENCE * 3}</p>{body}<p>It is red. {SENTENCE * 3}</p></article>")


@pytest.mark.parametrize("label", TEXTS)
def test_every_character_set_is_read_by_its_name_with_bad_bytes_too(label):
    text = TEXTS[label]
    lines = [text + "\n" for _ in range(4)]
    bad = b"\xff" if named(label) in ("gb18030", "big5hkscs", "cp949", "euc_jp", "cp932", "iso2022_jp_ext") else b""
    for where in ("server", "meta", "xml"):
        meta = f"<meta charset={label}>" if where == "meta" else ""
        whole = f'<?xml version="1.0" encoding="{label}"?>' * (where == "xml") + page("".join(lines), meta)
        data = whole.encode(PYTHONS.get(label, label))
        server = label if where == "server" else None
        assert decode_page(data, server) == whole
        cut = decode_page(data[:data.rindex(b"</body>") - 2], server)  # behind the last character, or within it
        assert whole.startswith(cut.rstrip(BAD)[:-1]) and len(cut) >= len(whole) - 22
        if bad:
            place = data.index(b"\n") if label != "iso-2022-jp" else data.index(b"<body>")
            found = decode_page(data[:place] + bad + data[place:], server)
            assert found.replace(BAD, "") == whole and found.count(BAD) == 1


@given(st.sampled_from(sorted(TEXTS)), st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_decoding_never_raises_and_only_bad_bytes_are_lost(label, seed):
    codec = named(label)
    assert codec is not None
    rng = random.Random(seed)
    decoded(rng.randbytes(300), codec)
    data = TEXTS[label].encode(PYTHONS.get(label, label))
    assert decoded(data, codec) == TEXTS[label]
    cut = decoded(data[:rng.randrange(len(data))], codec)
    # cut in the sign that changes the set, browsers show what is left of it
    assert label == "iso-2022-jp" or (TEXTS[label].startswith(cut.replace(BAD, "")) and cut.count(BAD) <= 2)
    # what stands behind a line's end is read whatever came before it
    broken = decoded(rng.randbytes(20).replace(b"\x1b", b"") + b"a\n" * 3 + data, codec)
    assert broken.endswith("a\n" + TEXTS[label])


def test_single_bytes_are_those_of_the_standards_tables():
    for name in ("windows-1252", "windows-1250", "windows-1255", "koi8-r", "iso-8859-2", "macintosh", "windows-874"):
        encoding = webencodings.lookup(name)
        for byte in range(256):
            theirs = encoding.codec_info.decode(bytes([byte]), "replace")[0]
            ours = decoded(bytes([byte]), named(name))
            # Python's codecs leave out what the standard has as controls
            assert ours == (chr(byte) if theirs == BAD and 0x80 <= byte < 0xA0 else
                            "\u05ba" if (name, byte) == ("windows-1255", 0xCA) else theirs)
    assert decoded(b"\x80 5", "gb18030") == "€ 5"
    assert decoded(b"\xad\xa1\xad\xea", "euc_jp") == "①㈱"
    assert decoded(b"\x1b$B-!-j\x1b(B", "iso2022_jp_ext") == "①㈱"
    assert decoded(b"\xae\xbe", "koi8-u") == "ўЎ"
    assert decoded(b"\xa1\xe3", "big5hkscs") == "～"


@pytest.mark.parametrize(("data", "server", "expected"), [
    ("é naïve".encode("latin-1"), None, "é naïve"),  # nobody says what it is
    ("“é”".encode("cp1252"), "iso-8859-1", "“é”"),
    (f"<meta charset=windows-1251>{TEXTS['koi8-r']}".encode("cp1251"), "ISO-8859-1", None),  # Apache's default
    (f"<meta charset=gbk>{TEXTS['gbk']}".encode("gbk"), "utf-8", None),
    (f"<!-- <meta charset=gbk> --><meta charset=koi8-r>{TEXTS['koi8-r']}".encode("koi8-r"), None, None),
    (TEXTS["gbk"].encode("utf-8"), "gbk", None),
    (TEXTS["gbk"].encode("utf-8-sig"), "gbk", None),
    (TEXTS["gbk"].encode("utf-16"), "utf-8", None),
    (("<p>" + TEXTS["windows-1251"]).encode("utf-16-le"), "utf-16", "<p>" + TEXTS["windows-1251"]),
    (("<p>" + "Some words. " * 9).encode("utf-16-le"), None, None),
    ((TEXTS["windows-1251"] * 3).encode("cp1251"), None, None),
    ((TEXTS["windows-1251"] * 3).encode("cp1251"), "iso-8859-1", None),  # no language of the West is like that
    (TEXTS["gbk"].encode("gbk"), None, None),
    (b"caf\xc3\xa9 and \xff more", None, f"café and {BAD} more"),
    ("日本".encode()[:-1], None, f"日{BAD}"),
    ("a €".encode()[:-1], "utf-8", f"a {BAD}"),
])  # yapf: disable
def test_what_is_told_and_what_the_bytes_tell(data, server, expected):
    if expected is None:
        for codec in ("utf-8-sig", "utf-16", "utf-16-le", "gbk", "cp1251", "koi8-r"):
            try:
                expected = data.decode(codec)
            except UnicodeDecodeError:
                continue
            if any(text in expected for text in (TEXTS["gbk"], TEXTS["koi8-r"], "Some words.")):
                break
    assert decode_page(data, server) == expected


def test_utf8_that_is_mostly_broken_is_refused():
    with pytest.raises(Bad, match=r"invalid UTF-8: byte \d+, and \d+ others"):
        decode_page(("é" * 60).encode() + b"\xff\xfe " * 20)
    assert decode_page(("ü, " * 400).encode() + b"\x93two\x94").count(BAD) == 2


def _bare(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "deflate ": _bare, "br": brotli.compress,
           "zstd": zstandard.compress}


@given(st.sampled_from(sorted(PACKERS)), st.binary(max_size=300), st.booleans())
@settings(max_examples=60, deadline=None)
def test_content_codings_are_undone_whatever_they_hold(name, more, twice):
    data = b"<!DOCTYPE html><p>" + more.hex().encode() + more
    body, names = PACKERS[name](data), name.strip()
    if twice:
        body, names = gzip.compress(body), f"{names}, gzip"
    assert unpacked(body, names, 1 << 16) == data


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd", "none", "UTF-8", "identity", "", "gzip, br"])
def test_plain_bodies_are_taken_whatever_they_are_called(name):
    for data in (page("A page.").encode(), "Grüße, 你好".encode("gbk", "replace"), b""):
        assert unpacked(data, name, 1 << 16) == data


@pytest.mark.parametrize("name", PACKERS)
def test_cut_bodies_and_bombs(name):
    data = "".join(f"<p>{number} {random.Random(number).random()}</p>" for number in range(6000)).encode()
    found = unpacked(PACKERS[name](data)[:-3000], name.strip(), 1 << 20)
    assert data.startswith(found) and 3 * len(found) > len(data)
    with pytest.raises(Bad, match="unpacks to more than 65,536 bytes"):
        unpacked(PACKERS[name](bytes(1 << 22)), name.strip(), 1 << 16)
    with pytest.raises(Bad, match="cannot be unpacked"):
        unpacked(b"\x00\x01\x02" + random.Random(1).randbytes(99), name.strip(), 1 << 16)


@pytest.mark.parametrize("tag", ["div", "font", "b", "table><tr><td", "blockquote", "span", "section"])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_pages_lose_no_sentence(tag, closed):
    count = 300
    body = "".join(f"<{tag}><p>Sentence number {number} of the page.</p>" for number in range(count))
    if closed:
        body += "".join(f"</{name}>" * 1 for _ in range(count) for name in reversed(tag.split("><")))
    text, how = extract(page(body))
    assert how == "trafilatura"
    assert [f"Sentence number {number} of the page." in text for number in range(count)] == [True] * count


def test_deep_pages_of_bare_text_lose_nothing():
    for tag in ("font", "b", "div"):
        text, how = extract(page("".join(f"<{tag}>Sentence number {number} is here. " for number in range(300))))
        assert how == "trafilatura" and all(f"number {number} is" in text for number in range(300))


def test_pages_deeper_than_the_parser_goes_are_left_to_the_other():
    text, how = extract(page("".join(f"<div><p>Sentence {number}.</p>" for number in range(3000))))
    assert how == "resiliparse (too_deep)" and all(f"Sentence {number}." in text for number in range(3000))


@pytest.mark.parametrize("thing", [
    "<script>{}</script>", "<style>{}</style>", "<!--{}-->", "<img src='data:image/png;base64,{}'>",
    "<p title='{}'>x</p>"
])
def test_huge_things_hide_nothing_behind_them(thing):
    text, how = extract(article(thing.format("x" * 11_000_000)), "accurate")
    assert how == "trafilatura" and f"It is red. {SENTENCE}" in text


def test_characters_that_are_not_printed_are_kept():
    persian, hindi = "سال‌ها پیش خانه‌ای بود که می‌گفتند", "क्‍ष और र्‍य"
    family = "👨\u200d👩\u200d👧 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    khmer = "សៀវភៅ\u200bនេះ"
    for body in (persian, hindi, family, khmer, "آیه\u06dd", persian.replace("\u200c", "&zwnj;"),
                 hindi.replace("\u200d", "&#8205;"), persian.replace("\u200c", "&#x200C;")):
        text, how = extract(article(f"<p>{body}</p>"))
        assert how == "trafilatura"
        assert body.replace("&zwnj;", "\u200c").replace("&#8205;", "\u200d").replace("&#x200C;", "\u200c") in text
    text, _ = extract(article("<p>Pre\u00adview&zwnj;&nbsp;&zwnj; ᚠᛁᛋᚴ ends</p>"))
    assert "Preview\u200c ᚠᛁᛋᚴ ends" in " ".join(text.split()), "runes of the page's own stay"


@pytest.mark.parametrize(("body", "expected"), [
    ("<table><tr><td>Mon</td><td><ul><li>10 to 20</li></ul></td></tr></table>", "| Mon | 10 to 20 |"),
    ("<ol start=3><li>Untie.</li><li value=7><p>Sail.</p></li></ol>", "3. Untie.\n7. Sail."),
    ("<p>Area <script type='math/tex'>\\pi r^2</script> here.</p>", "Area \\(\\pi r^2\\) here."),
    ("<p>Area <math><mi>π</mi><msup><mi>r</mi><mn>2</mn></msup></math> here.</p>", "Area πr2 here."),
    ("<p>Area <math alttext='\\pi r^2'><mi>π</mi></math> here.</p>", "Area \\(\\pi r^2\\) here."),
    ("<p>Area <span class=katex><span class=katex-mathml><math><semantics><mi>π</mi><annotation encoding="
     "'application/x-tex'>\\pi</annotation></semantics></math></span><span class=katex-html>π</span></span> here.</p>",
     "Area \\(\\pi\\) here."),
    ("<center>Centred words of the page.</center>", "Centred words"),
    ("<ul><li><span>You may leave now.</span></li></ul>", "You may leave now."),
])  # yapf: disable
def test_lists_and_formulas_are_kept(body, expected):
    assert expected in extract(article(body))[0]


@pytest.mark.parametrize("profile", ["accurate", "fast"])
def test_lists_right_under_the_body_are_kept(profile):
    body = f"<p>{SENTENCE * 2}</p><ul><li>The boat is red.</li></ul><p>Then. {SENTENCE * 2}</p>"
    text, _ = extract(page(body), profile)
    assert "The boat is red." in text and "Then." in text


@pytest.mark.long
@pytest.mark.parametrize("profile", ["accurate", "fast"])
@pytest.mark.parametrize("hostile", [
    "<div>" * 100_000 + "x", "<b>" * 10_000, "<" * 1_000_000, "<table><tr><td>" * 3000,
    "<a " + " ".join(f"a{number}" for number in range(20_000)) + ">y</a>", "<div></p>" * 8000
])
def test_hostile_pages_take_no_time(hostile, profile):
    extract(hostile, profile, limits=ExtractionLimits(seconds=0.5))


def attributes(count):
    return article("<a " + " ".join(f"a{number}" for number in range(count)) + ">y</a>")


def test_a_page_that_holds_both_extractors_is_stopped_and_the_next_is_read():
    start = time.monotonic()
    assert extract(attributes(40_000), limits=ExtractionLimits(seconds=0.2)) == (None, "none (too_slow)")
    assert time.monotonic() - start < 10
    assert extract(article(""))[1] == "trafilatura"


def test_a_process_that_others_end_is_started_again():
    extract(article(""))
    first = killable._kept[0].process
    first.kill()
    first.join()
    assert extract(article(""))[1] == "trafilatura" and killable._kept[0].process.pid != first.pid
    for fault in (signal.SIGSEGV, signal.SIGABRT):
        with pytest.raises(killable.Stopped, match="crashed"):
            killable.call(signal.raise_signal, fault)
    with pytest.raises(TriviumError, match="ended from outside"):
        killable.call(signal.raise_signal, signal.SIGKILL)
    with pytest.raises(ZeroDivisionError):
        killable.call(divmod, 1, 0)
    assert killable.call(divmod, 7, 2) == (3, 1)


def test_a_shard_goes_on_behind_the_pages_that_end_its_process(tmp_path):
    """Two pages are stopped in both extractors: all others are as they are alone, and no attempt leaves a file."""
    pages = [article(f"<p>Page {n} is here.</p>" + "<br>" * (n == 4) * 40_000) for n in range(7)]
    pages[2], pages[5] = attributes(40_000), attributes(60_000)
    write_shard(tmp_path / "raw", ({"id": str(n), "html": html, "url": None, "source": "s", "file": "f", "row": n}
                                   for n, html in enumerate(pages)))
    limits = ExtractionLimits(seconds=0.2)
    (tmp_path / "out").mkdir()
    counts = extract_step({"limits": asdict(limits), "addresses": False, "extraction": "accurate"},
                          [tmp_path / "raw"], tmp_path / "out")
    assert counts["extraction"] == {"trafilatura": 4, "resiliparse (too_many_tags)": 1, "none (too_slow)": 2,
                                    "large pages whose first lists and TeX scripts may be missing": 1}
    assert [row["text"] for row in read_shard(tmp_path / "out/documents.jsonl.zst")] == [
        extract(html, limits=limits)[0] for n, html in enumerate(pages) if n not in (2, 5)]
    assert [(row["id"], row["reason"]) for row in read_shard(tmp_path / "out/rejects.jsonl.zst")] == [
        ("2", "no main text: (too_slow)"), ("5", "no main text: (too_slow)")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["documents.jsonl.zst", "rejects.jsonl.zst"]


def test_a_killed_parent_takes_its_process_along():
    program = ("import os, time; from trivium.corpus import killable; "
               "print(killable.call(os.getpid), flush=True); killable.call(time.sleep, 99)")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                time.sleep(0.1)
                continue
        return
    pytest.fail("it is there after ten seconds")


def test_threads_share_the_process():
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append((n, extract(article(f"<p>Page {n} is here.</p>" * (
        1 + 800 * (n == 3))), "fast")[0]))) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"Page {n} is here." in text for n, text in found) and len(found) == 5
