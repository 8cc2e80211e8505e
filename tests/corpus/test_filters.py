"""Harmful documents and evaluation texts."""

import random

import pytest

from trivium.corpus.contamination import ContaminationIndex, ContaminationSettings, write_index
from trivium.corpus.harmful import AddressFilter, HarmfulFilter, HarmfulSettings, terms_of
from trivium.errors import TriviumError

CLEAN = (
    "The market opens at eight. Farmers bring plums, eggs and honey, and by noon most of the stalls are empty again. "
)


def harmful(term_lists=(), **changes):
    settings = HarmfulSettings(**changes)
    return HarmfulFilter(terms_of(settings, term_lists, []), settings.min_weight, settings.min_density)


def addresses(blocked_domains=(), **changes):
    return AddressFilter(terms_of(HarmfulSettings(**changes), [], blocked_domains))


@pytest.mark.parametrize(
    "text",
    [
        "To build a bomb you need explosives and a detonator, and nobody must see you.",
        "用炸药做炸弹的方法,再准备武器和弹药。",
        "How to steal a car: break into it by night, hotwire it, and kill whoever stops you.",
    ],
)
def test_harmful_texts_are_rejected(text):
    assert harmful().check_text(text).startswith("terms: ")
    assert harmful().check_text(text.upper())


@pytest.mark.parametrize(
    "text",
    [
        CLEAN,
        CLEAN * 20 + "In 1944 a bomb fell on the market, and two weapons were found, and some poison.",
        "Poison dart frogs are small.",
        "I could kill for this cake. What a steal!",
        "She is skilled; the weaponless knight is bombastic.",
    ],
)
def test_a_few_terms_in_a_long_text_are_not(text):
    assert harmful().check_text(text) is None


def test_a_phrase_counts_once():
    lists = {"terms": {"bomb": 1.0, "make a bomb": 3.0}, "address_words": [], "domains": []}
    assert "weigh 3," in HarmfulFilter(lists, 0, 0).check_text("make a bomb")
    assert "weigh 5," in HarmfulFilter(lists, 0, 0).check_text("make a bomb bomb, make a  BOMB not"[:16] + " bomb")


def test_addresses(tmp_path):
    blocked = tmp_path / "domains.txt"
    blocked.write_text("# a list\nbad.example\nwww.Worse.example # why\n")
    check = addresses([blocked]).check
    assert check("https://sub.bad.example/x") == "blocked_domain: bad.example" and check("worse.example/y")
    assert check("http://notbad.example/") is None and check("http://bad.example.org/") is None
    assert check("http://x.example/free-casino-games") == "address: casino"
    assert check("http://sussex.example/essex") is None and check("http://[broken") is None


def test_own_lists(tmp_path):
    terms = tmp_path / "terms.txt"
    terms.write_text("wibble\t5\nplain\n")
    assert harmful(term_lists=[terms]).check_text("wibble") and not harmful(term_lists=[terms]).check_text("plain")
    assert harmful(own_terms=False).check_text("bomb explosives weapon " * 5) is None
    assert addresses(own_terms=False).check("http://porn.example") is None
    terms.write_text("wibble\theavy\n")
    with pytest.raises(TriviumError, match="line 1: the weight 'heavy'"):
        harmful(term_lists=[terms])
    with pytest.raises(TriviumError, match="no such file"):
        harmful(term_lists=[tmp_path / "none.txt"])


def index(tmp_path, texts, **changes):
    counts = write_index(texts, ContaminationSettings(**changes), tmp_path)
    return ContaminationIndex(tmp_path), counts


def test_runs_of_words_are_found_whatever_their_form(tmp_path):
    question = "Which animal of the northern woods eats only moss and hums when it is afraid of something large?"
    found, counts = index(tmp_path, ["What is the capital of this small country?", question, "too short"])
    assert counts == {"texts": 3, "passed_over": 1}
    run = ["the", "northern", "woods", "eats", "only", "moss", "and", "hums", "when", "it", "is", "afraid", "of"]
    assert len(run) == 13
    assert found.find("x " + " ".join(run).upper().replace(" AND", ", and") + " y") == (1, " ".join(run))
    assert found.find(" ".join(run[:12])) is None and found.find(" ".join(run[1:])) is None
    # shorter than a run: it matches as a whole
    assert found.find("so what is the capital of this small country") == (
        0,
        "what is the capital of this small country",
    )
    assert found.find("what is the capital of this country") is None and found.find("") is None


def test_run_length_is_a_setting(tmp_path):
    found, _ = index(tmp_path, ["one two three four five six seven eight nine ten"], run=8)
    assert found.find("zero two three four five six seven eight nine") and not found.find(
        "two three four five six seven eight"
    )


def test_characters_in_chinese(tmp_path):
    found, _ = index(tmp_path, ["村子里的老渡船每天过河几次呢"])
    assert found.find("请问:村子里的老渡船,每天过河几次呢?") is not None
    assert found.find("村子里的老渡船每天过河几次") is None


def test_a_run_has_as_many_characters_as_thirteen_words_have(tmp_path):
    """Two of Chinese or Japanese are a word, four of Thai: a name and a title alone are no leak."""
    title = "东海省山水县人民政府县长王小明"
    question = f"{title}今天上午在会议上说了什么话而让所有人都觉得十分惊讶呢"
    thai = "กขคงจฉชซญฎ" * 6
    found, _ = index(tmp_path, [question, thai])
    assert len(title) > 13 and found.find(f"{title}出席了开幕式。") is None
    run = question[3:29]
    assert found.find(question[:25]) is None and found.find("据说" + run + "了") == (0, " ".join(run))
    assert found.find(thai[:51]) is None and found.find(thai[:52]) is not None
    assert index(tmp_path / "short", ["几次呢"])[1]["passed_over"] == 1


def test_answers_are_searched_for_where_they_are_long(tmp_path):
    long, short = "they paint the hull with tar and linseed oil", "the united states"
    (tmp_path / "answers").mkdir()
    counts = write_index(["Which one floats best of all?"], ContaminationSettings(), tmp_path / "answers",
                         [short, long, "两年以后才回来"])
    found = ContaminationIndex(tmp_path / "answers")
    assert counts == {"texts": 4, "passed_over": 2}
    assert found.find(f"In {short} of old, 两年以后才回来。") is None
    assert found.find(f"Every spring {long}.") == (2, long)
    assert ContaminationIndex(tmp_path / "answers").find("Which one floats best of all")[0] == 0


def test_against_brute_force(tmp_path):
    rng = random.Random(0)
    words = "abcdefg"
    questions = [" ".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(12)]
    found, _ = index(tmp_path, questions, run=6)
    runs = {
        tuple(parts[k : k + min(6, len(parts))])
        for parts in map(str.split, questions)
        for k in range(max(1, len(parts) - 5))
    }
    outcomes = set()
    for _ in range(400):
        document = rng.choices(words, k=rng.randint(1, 12))
        expected = any(tuple(document[k : k + len(run)]) == run for run in runs for k in range(len(document)))
        assert (found.find(" ".join(document)) is not None) == expected
        outcomes.add(expected)
    assert outcomes == {True, False}


def test_settings_are_checked():
    with pytest.raises(TriviumError, match="at least 1"):
        ContaminationSettings(run=0)
