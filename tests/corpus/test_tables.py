"""Tables and lists as people save them: character sets, separators, stray quotes, Excel, Arrow, and long JSON, held
against what csv, json, pandas and datasets make of the same files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random

import openpyxl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from trivium.data.encodings import as_utf8
from trivium.data.readers import Limits, find, rows
from trivium.data.unpack import Bad
from trivium.errors import TriviumError

ZH = [{"问题": "我的快递什么时候到？", "答案": "明天下午，请您留意。"}, {"问题": "Can I return it?", "答案": "可以的"}]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def read(path, **limits):
    """The good rows of a file, the bad ones, and what is said of it."""
    said: list[str] = []
    found = [row for file in find([path]) for _, _, row in rows(file, Limits(**limits), said.append)]
    return ([row for row in found if not isinstance(row, Bad)], [row for row in found if isinstance(row, Bad)], said)


def table(delimiter=",", rows=ZH):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16", "utf-16-le", "utf-16-be",
                                      "utf-32"])
@pytest.mark.parametrize("form", ["csv", "semicolons", "tabs", "bars", "jsonl", "json", "gz"])
def test_character_sets_and_separators_are_told(tmp_path, encoding, form):
    delimiter = {"semicolons": ";", "tabs": "\t", "bars": "|"}.get(form, ",")
    path = tmp_path / ("rows.json" if form == "json" else "rows.jsonl" if form == "jsonl" else
                       "rows.csv.gz" if form == "gz" else "rows.csv")
    text = ("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ZH) if form == "jsonl" else
            json.dumps(ZH, ensure_ascii=False, indent=1) if form == "json" else table(delimiter))
    path.write_bytes(gzip.compress(text.encode(encoding)) if form == "gz" else text.encode(encoding))
    good, bad, said = read(path)
    assert good == ZH and bad == []
    assert any("read as" in line for line in said) == (not encoding.startswith("utf-8"))
    assert any("separated by" in line for line in said) == (delimiter != ",")


@pytest.mark.parametrize(("encoding", "text"), [
    ("big5", "問題,答案\n我的訂單什麼時候到？,明天下午到，請您注意查收。\n"),
    ("shift_jis", "質問,答え\n私の注文はいつ届きますか？,明日の午後に届きます。\n"),
    ("cp1251", "вопрос,ответ\nГде мой заказ?,Он будет завтра днём.\n"),
    ("gbk", "label,review\n1,味道很好\n0,太咸了\n"), ("gbk", '{"a": "你好吗，我很好"}'),
])
def test_what_bytes_tell(encoding, text):
    stream, name = as_utf8(io.BytesIO(text.encode(encoding)))
    assert stream.read().decode() == text and name != "utf-8"


@pytest.mark.parametrize(("encoding", "text"), [("cp949", "질문,대답\n주문은 언제 도착하나요?,내일 오후입니다\n"),
                                                ("cp1252", "a,b\nStraße,Über\n")])
def test_where_guessing_fails_the_rows_are_rejected_and_the_setting_reads_them(tmp_path, encoding, text):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    good, bad, _ = read(tmp_path / "a.csv")
    assert not good and [row.reason for row in bad] == ["invalid UTF-8 in the row"]
    good, bad, _ = read(tmp_path / "a.csv", encoding=encoding)
    assert [list(row.values()) for row in good] == [text.splitlines()[1].split(",")] and not bad


def test_a_row_of_another_character_set_costs_that_row_alone(tmp_path):
    lines = [f"第{i}个问题是什么,这是第{i}个答案".encode() for i in range(20)]
    lines[7] = "第7个问题是什么,这是第7个答案".encode("gbk")
    (tmp_path / "a.csv").write_bytes(b"q,a\n" + b"\n".join(lines))
    good, bad, _ = read(tmp_path / "a.csv")
    assert len(good) == 19 and len(bad) == 1 and {row["q"] for row in good} == {
        f"第{i}个问题是什么" for i in range(20) if i != 7}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=12), st.sampled_from(",;\t|"),
       st.sampled_from(["\r\n", "\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_every_csv_that_csv_writes_comes_out_unchanged(tmp_path, cells, delimiter, end, quoting):
    path = tmp_path / "a.csv"
    if "\r" not in end:
        quoting = csv.QUOTE_ALL  # csv itself leaves a lone \r unquoted otherwise
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
        writer.writerow(["first", "second", "third"])
        writer.writerows(cells)
    good, bad, _ = read(path)
    assert not bad and [tuple(row.values()) for row in good] == cells


def test_a_csv_of_pandas_and_of_datasets_is_read_as_they_read_it(tmp_path):
    import pandas

    texts = ["x\ny", "x;y", "", "z|\t", "é"] * 10
    frame = pandas.DataFrame({"q": [f'say "{i}", 第{i}次' for i in range(50)], "a": texts})
    for delimiter in (",", ";", "\t"):
        frame.to_csv(tmp_path / "a.csv", index=False, sep=delimiter)
        theirs = pandas.read_csv(tmp_path / "a.csv", sep=delimiter, dtype=str, keep_default_na=False)
        assert read(tmp_path / "a.csv")[0] == theirs.to_dict("records") == frame.to_dict("records")


def test_a_separator_inside_quotes_does_not_count(tmp_path):
    (tmp_path / "a.csv").write_text('"q","a"\n"one\ttwo","x"\n"three\tfour","y;"\n')
    assert read(tmp_path / "a.csv")[0] == [{"q": "one\ttwo", "a": "x"}, {"q": "three\tfour", "a": "y;"}]


QUOTES = ['"a 5" nail 10",x', '"never closed,x', 'a,"never closed', '"closed" and on,x', 'a,"b"c"', '"a""b,x', '",x']


@pytest.mark.parametrize("line", QUOTES)
@pytest.mark.parametrize("place", [0, 1, 150, 298, 299])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_stray_quote_costs_its_line(tmp_path, line, place, quoting):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting).writerows([f"question {i}", f"an answer, {i}" if i % 7 == 0 else f"answer {i}"]
                                                for i in range(300))
    lines = text.getvalue().split("\r\n")
    (tmp_path / "a.csv").write_bytes("\r\n".join(["q,a", *lines[:place], line, *lines[place + 1:]]).encode())
    good, bad, _ = read(tmp_path / "a.csv")
    assert len(good) == 299 and len(bad) == 1 and bad[0].text.strip() == line
    assert [row["q"] for row in good] == [f"question {i}" for i in range(300) if i != place]


def test_quoted_texts_of_many_lines_are_one_cell(tmp_path):
    cell = "\n".join(f"line {i}" for i in range(40))
    (tmp_path / "a.csv").write_text(table(rows=[{"q": cell, "a": "b"}, {"q": "c", "a": cell}]))
    assert read(tmp_path / "a.csv")[0] == [{"q": cell, "a": "b"}, {"q": "c", "a": cell}]


def test_every_sheet_of_a_workbook_as_pandas_reads_it(tmp_path):
    import pandas

    book = openpyxl.Workbook()
    sheet = book.active
    cells = [["问题", "答案", "n"], ["2 + 3?", 5, 2.5], ["几点？", "三点", None], [None, None, None], ["=", "是", True]]
    for values in cells:
        sheet.append(values)
    other = book.create_sheet("more")
    other.append(["问题", "答案"])
    other.append(["早", "早上好"])
    book.save(tmp_path / "a.xlsx")
    good, bad, _ = read(tmp_path / "a.xlsx")
    assert good == [{"问题": "2 + 3?", "答案": "5", "n": "2.5"}, {"问题": "几点？", "答案": "三点", "n": None},
                    {"问题": "=", "答案": "是", "n": "true"}, {"问题": "早", "答案": "早上好"}] and not bad
    theirs = pandas.read_excel(tmp_path / "a.xlsx", dtype=str, keep_default_na=False).to_dict("records")
    assert [row["答案"] for row in theirs if row["答案"]] == [row["答案"] for row in good[:3]]
    (tmp_path / "b.xlsx").write_bytes(b"no workbook")
    assert "damaged Excel workbook" in read(tmp_path / "b.xlsx")[1][0].reason
    (tmp_path / "c.xls").write_bytes(b"old")
    with pytest.raises(TriviumError, match=r"save it as \.xlsx or CSV"):
        read(tmp_path / "c.xls")


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_files(tmp_path, kind):
    rows_there = [{"q": f"q{i}", "turns": [{"from": "human", "value": str(i)}]} for i in range(600)]
    rows_there[3]["q"] = None
    data = pa.Table.from_pylist(rows_there)
    with (ipc.new_stream if kind == "stream" else ipc.new_file)(tmp_path / "a.arrow", data.schema) as file:
        file.write_table(data, max_chunksize=250)
    assert read(tmp_path / "a.arrow")[0] == rows_there
    cut = (tmp_path / "a.arrow").read_bytes()[:5000]
    (tmp_path / "b.arrow").write_bytes(cut)
    assert "damaged Arrow" in read(tmp_path / "b.arrow")[1][0].reason


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(TEXT, LEAVES | st.lists(TEXT, max_size=2), max_size=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4), min_size=1, max_size=6),
       st.sampled_from(["list", "pretty", "lines", "concatenated", "wrapped", "pretty wrapped"]))
def test_every_json_comes_out_as_json_reads_it(tmp_path, items, form):
    text = {"list": json.dumps(items), "pretty": json.dumps(items, indent=2, ensure_ascii=False),
            "lines": "\n".join(map(json.dumps, items)),
            "concatenated": "\n".join(json.dumps(item, indent=1) for item in items),
            "wrapped": json.dumps({"version": 1, "data": items}),
            "pretty wrapped": json.dumps({"data": items, "version": "1"}, indent=1)}[form]
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    good, bad, said = read(tmp_path / "a.json", unwrap=True)
    assert good == items and not bad and bool(said) == ("wrapped" in form)


def test_lists_longer_than_the_longest_row_are_streamed(tmp_path):
    items = [{"text": random.Random(i).randbytes(200).hex()} for i in range(500)]
    for indent in (None, 1):
        for made in (items, {"info": "x", "data": items}):
            (tmp_path / "a.json").write_text(json.dumps(made, indent=indent))
            assert read(tmp_path / "a.json", unwrap=True, max_document_bytes=1000)[0] == items
    good, bad, _ = read(tmp_path / "a.json", unwrap=True, max_document_bytes=300)
    assert not good and "a row of more than 300 bytes" in bad[0].reason


@pytest.mark.parametrize(("text", "count", "reason"), [
    ('[{"a": 1}, {"a": 2},, {"a": 3}]', 2, "Expecting value: line 1; the rest of the file was not read"),
    ('[{"a": 1},\n {"a": 2},\n {"a" 3}]', 2, "not valid JSON: Expecting ':' delimiter: line 3"),
    ('[{"a": 1}, {"a": 2}', 2, "not valid JSON"), ('[{"a": 1}] [', 1, "something stands behind the end"),
    ('{"a": 1}\n{"a": \n{"a": 3}', 2, "not valid JSON"), ('[{"a": 1}, 5, {"a": 2}]', 2, "not an object: a JSON int"),
    ("[" * 100000, 0, "nested too deeply"),
])
def test_rows_before_a_fault_are_kept(tmp_path, text, count, reason):
    (tmp_path / "a.json").write_text(text)
    good, bad, _ = read(tmp_path / "a.json")
    assert len(good) == count and any(reason in row.reason for row in bad)
