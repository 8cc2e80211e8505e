"""Names of people, where somebody asks for their replacement."""

import importlib.util

import pytest

from trivium.corpus import names as module
from trivium.corpus.names import check, names, without_names
from trivium.errors import TriviumError

CHINESE = "请把材料交给张建国和李晓明。王小波在北京住了十年，<EMAIL>是他的信箱。"


def test_a_missing_model_is_told_with_what_installs_it():
    wanted = "python -m spacy download" if importlib.util.find_spec("spacy") else r"trivium\[names\]"
    with pytest.raises(TriviumError, match=wanted):
        check("no_such_pipeline")


def test_chinese_names_are_replaced_and_nothing_else():
    pytest.importorskip("jieba")
    assert [CHINESE[start:end] for start, end in names(CHINESE, "")] == ["张建国", "李晓明", "王小波"]
    assert without_names(CHINESE, "") == ("请把材料交给<NAME>和<NAME>。<NAME>在北京住了十年，<EMAIL>是他的信箱。", 3)
    assert without_names("她说天气很好。", "") == ("她说天气很好。", 0)


def test_a_long_text_is_read_in_pieces_whose_places_are_right(monkeypatch):
    pytest.importorskip("jieba")
    monkeypatch.setattr(module, "PIECE", 37)
    text = CHINESE * 5
    found = names(text, "")
    assert [text[start:end] for start, end in found] == ["张建国", "李晓明", "王小波"] * 5


def test_english_names_are_found_by_a_pipeline(tmp_path):
    spacy = pytest.importorskip("spacy")
    made = spacy.blank("en")
    made.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Lee"},
                                                {"label": "GPE", "pattern": "Paris"}])
    made.to_disk(tmp_path / "made")
    text = "Ann Lee of Paris wrote to <EMAIL>, and Ann Lee again."
    assert without_names(text, str(tmp_path / "made")) == ("<NAME> of Paris wrote to <EMAIL>, and <NAME> again.", 2)
