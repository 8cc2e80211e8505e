"""Languages, and rules that go by them."""

import pytest
from pydantic import TypeAdapter

from trivium.corpus.languages import (
    LONG_WORDED,
    STOP_WORDS,
    TWINS,
    UNSPACED_LANGUAGES,
    LanguageSettings,
    identify,
    known,
)
from trivium.corpus.quality import check, chosen
from trivium.corpus.settings import CorpusSettings
from trivium.errors import TriviumError

TEXTS = {
    "en": "The old bridge over the river was closed for repairs, and the people of the village had to walk along the "
          "bank until the work was done.",
    "de": "Die alte Brücke über den Fluss war wegen Bauarbeiten gesperrt, und die Leute aus dem Dorf mussten am Ufer "
          "entlanggehen, bis alles fertig war.",
    "fr": "Le vieux pont sur la rivière était fermé pour des travaux, et les gens du village devaient marcher le long "
          "de la rive jusqu'à la fin.",
    "zh": "河上的旧桥因为维修关闭了，村里的人只好沿着河岸走，一直等到工程结束。第二天早上，孩子们又可以过桥去上学了。",
    "ja": "川にかかる古い橋は修理のために閉鎖されていたので、"
          "村の人々は工事が終わるまで川岸を歩かなければならなかった。",
    "th": "สะพานเก่าข้ามแม่น้ำปิดซ่อมแซม ชาวบ้านจึงต้องเดินเลียบฝั่งแม่น้ำไปจนกว่างานจะเสร็จ",
    "sw": "Daraja la zamani juu ya mto lilifungwa kwa ajili ya matengenezo, na watu wa kijiji walilazimika kutembea "
          "kando ya mto hadi kazi ilipokwisha.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_languages_are_told(code):
    assert identify(TEXTS[code], LanguageSettings())[0] == code


def test_what_is_no_language_is_unknown():
    assert identify("1 2 3 :-)", LanguageSettings(min_confidence=0.9))[0] == "und"
    twins = {code for group in TWINS for code in group}
    assert {*STOP_WORDS, *UNSPACED_LANGUAGES, *LONG_WORDED, *twins} <= set(known())


def test_stop_words_go_by_the_language():
    thresholds = CorpusSettings().thresholds_of()
    rule = ["gopher_quality.stop_words"]
    assert check(TEXTS["de"], rule, thresholds["de"]) is None and check(TEXTS["de"], rule, thresholds["en"])
    assert check(TEXTS["zh"], rule, thresholds["zh"]) is None and check(TEXTS["th"], rule, thresholds["th"]) is None
    assert check("Sama sama " * 30, rule, thresholds["*"]) is None


def test_running_text_without_spaces_passes_every_rule():
    thresholds = CorpusSettings().thresholds_of()
    paragraph = ("村子东边有一条小河，河水从山里流下来，一年四季都很清。"
                 "春天的时候，老人坐在树下讲过去的事情，孩子们一边听一边折纸船。\n")
    text = paragraph + ("有一天，一只纸船漂到了很远的地方，被一个渔夫捡到了。"
                        "他把船放在窗台上，每次看见它，就想起自己小时候的家。\n后来他写了一封信。")
    assert check(text, [
        rule for rule in chosen(["gopher_repetition", "gopher_quality", "c4", "fineweb"], [])
        if not rule.startswith("c4.l") or rule == "c4.lorem_ipsum"
    ][:15], thresholds["zh"]) is None


def test_thresholds_by_language_are_read_strictly():
    adapter = TypeAdapter(CorpusSettings)
    made = adapter.validate_python({"thresholds_by_language": {"de": {"max_word_length": 12}}})
    assert made.thresholds_of()["de"].max_word_length == 12 and made.thresholds_of()["en"].max_word_length == 10
    for wrong, match in (({"thresholds_by_language": {"de": {"max_wrd_length": 12}}}, "max_word_length"),
                         ({"thresholds_by_language": {"de": {"max_word_length": "long"}}}, "max_word_length"),
                         ({"thresholds_by_language": {"xx": {}}}, "no language 'xx'"),
                         ({"thresholds_by_language": {"de": {}}, "language": {"enabled": False}}, "never be used"),
                         ({"language": {"keep": ["english"]}}, "no language 'english'"),
                         ({"fields": {"txt": "body"}}, "did you mean 'text'")):
        with pytest.raises((TriviumError, ValueError), match=match):
            adapter.validate_python(wrong)
