"""Exercises made by code: right answers, instructions that can be followed, and a policy that learns from them."""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny import FEW, context, lines

from trivium.data.exercises.making import KINDS, make
from trivium.errors import TriviumError
from trivium.evaluation.checkers import Checker
from trivium.evaluation.hollow import is_empty, misses, repeats
from trivium.evaluation.instructions.checks import KINDS as INSTRUCTIONS
from trivium.evaluation.instructions.following import fault, verdicts
from trivium.files import read_rows, write_rows
from trivium.recipe.load import load_recipe
from trivium.stages.data.exercises import Exercises, spans
from trivium.stages.reinforcement.grpo import Grpo
from trivium.stages.reinforcement.ppo import Ppo
from trivium.training.optimizers import Optimization

SIGNS = {"+": 1, "-": -1}


def counted_again(task, prompt):
    """The right answer, worked out from the prompt's text alone."""
    if task == "sums":
        numbers, signs = list(map(int, re.findall(r"\d+", prompt))), re.findall(r"[-+×]", prompt)
        return prod(numbers) if signs == ["×"] else numbers[0] + sum(
            SIGNS[sign] * number for sign, number in zip(signs, numbers[1:], strict=True))
    if task == "items":
        return sum(map(int, re.findall(r"\d+", prompt)))
    if task == "letters":
        text = re.search('[“"](.*)[”"]', prompt)[1]
        letter = re.search(r"(?:letter|字母) (\w)\b", prompt)[1]
        return sum(one == letter for one in text)
    text = re.search(r"“(.*)”|[：:] ?(.*?)\??$", prompt)
    text = text[1] or text[2]
    return len(text.split()) if text.isascii() else len(text)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_answers_are_right(language, difficulty):
    kinds = {name: 1.0 for name in KINDS if name != "instructions"}
    rows = list(make(120, kinds, [language], difficulty, seed=difficulty))
    assert {row["task"] for row in rows} == set(kinds) and len({row["prompt"] for row in rows}) == 120
    check = Checker("by_row")
    check.suits(rows)
    for row in rows:
        right = counted_again(row["task"], row["prompt"])
        assert int(row["answer"]) == right, row
        assert check(row, [f"It is {right}.", f"It is {right + 1}.", ""]) == [1.0, 0.0, 0.0]
    if difficulty == 1:
        assert all(10 <= int(number) <= 99 for row in rows if row["task"] == "sums"
                   for number in re.findall(r"\d+", row["prompt"]))


def shaped(given, word):
    """Paragraphs of the shape that the instructions ask for, and what stands between them."""
    blank, number = "\n\n", given.get("num_paragraphs", 1)
    body = [word] * number
    if "nth_paragraph" in given:
        body[given["nth_paragraph"] - 1] = f"{given['first_word']} {word}"
    elif "num_paragraphs" in given:
        blank = "\n***\n"
    elif "num_bullets" in given:
        body, blank = [f"* {word}"] * given["num_bullets"], "\n"
    elif "section_spliter" in given:
        body = [f"{given['section_spliter']} {place + 1}\n{word}" for place in range(given["num_sections"])]
    return body, blank


def solved(row):
    """An answer that follows a row's instructions, written by one who knows them."""
    language, kinds = row["language"], {kind.split(":")[1] for kind in row["instruction_id_list"]}
    given = {name: value for one in row["kwargs"] for name, value in one.items()}
    about = row.get("about", ["soup"])[0]
    if "json_format" in kinds:
        return json.dumps({"said": about}, ensure_ascii=False)
    if "two_responses" in kinds:
        return f"{about}\n******\n{about} {about}"
    if "constrained_response" in kinds:
        return "My answer is no."
    if "response_language" in kinds:
        return {"en": "It is a fine thing to see in the evening and nobody forgets it.",
                "es": "Es una cosa muy bonita que se ve por la tarde y nadie la olvida.",
                "fr": "C'est une belle chose que l'on voit le soir et que personne n'oublie.",
                "de": "Es ist eine schöne Sache, die man am Abend sieht und die niemand vergisst.",
                "it": "È una cosa molto bella che si vede la sera e che nessuno dimentica."}[given["language"]]
    if "repeat_prompt" in kinds:
        return given["prompt_to_repeat"] + f" {about}"
    space, stop, filler = (" ", ".", "so") if language == "en" else ("", "。", "丘")
    body, blank = shaped(given, filler)
    more = ["this is one that has no other"] if kinds & {"english_capital", "english_lowercase"} else []
    for kind, one in zip(row["instruction_id_list"], row["kwargs"], strict=True):
        if one.get("relation", one.get("let_relation", one.get("capital_relation"))) == "less than":
            continue
        words = {"existence": [], "frequency": "keyword", "letter_frequency": "letter",
                 "capital_word_frequency": "OK", "number_placeholders": f"[{filler}]",
                 "number_highlighted_sections": f"*{filler}*", "number_words": filler,
                 "number_sentences": f"{filler}{stop}"}.get(kind.split(":")[1])
        if words is not None:
            most = max((value for value in one.values() if isinstance(value, int)), default=1)
            more += one["keywords"] if words == [] else [one.get(words, words)] * most
    body[-1] += space + space.join([about, *more])
    text = blank.join(body)
    text = f"<<{filler}>>\n{text}" if "title" in kinds else text
    text = f"{text}\n{given['postscript_marker']} {filler}" if "postscript" in kinds else text
    text = f"{text} {given['end_phrase']}" if "end_checker" in kinds else text
    text = text.upper() if "english_capital" in kinds else text.lower() if "english_lowercase" in kinds else text
    line = "\n" * text.startswith("*")
    return f'"{line}{text}"' if "quotation" in kinds else text


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_every_set_of_instructions_can_be_followed(language, difficulty):
    rows = list(make(400, {"instructions": 1.0}, [language], difficulty, seed=9))
    Checker("by_row").suits(rows)
    for row in rows:
        answer = solved(row)
        assert not fault(row) and len(row["kwargs"]) <= difficulty
        assert all(verdicts(row, answer)), (row["prompt"], answer, verdicts(row, answer))
        assert not misses(answer, row.get("about", ()))
    if language == "en":
        assert {kind for row in rows for kind in row["instruction_id_list"]} == set(INSTRUCTIONS)


def made(school, folder, seed=0, avoid=(), **settings):
    """The stage's folder, its summary and its rows of both sides."""
    place, _ = context(school, folder, avoid=list(avoid))
    place.seed = seed
    summary = Exercises(**settings).run(place)
    return summary, [[row for _, row in read_rows(folder / f"{name}.jsonl")] for name in ("prompts", "evaluation")]


def test_a_seed_makes_the_same_rows_and_no_question_is_on_both_sides(school, tmp_path):
    kinds = {"sums": 3.0, "letters": 1.0, "instructions": 2.0}
    settings = {"kinds": kinds, "count": 300, "languages": ["en", "zh"], "heldout": 0.3}
    summary, (train, heldout) = made(school, tmp_path / "a", **settings)
    assert made(school, tmp_path / "b", **settings)[1] == [train, heldout]
    assert made(school, tmp_path / "c", seed=1, **settings)[1] != [train, heldout]
    assert (summary["prompts"], summary["heldout"]) == (len(train), len(heldout)) and len(train + heldout) == 300
    assert sum(summary["kinds"].values()) == 300 and summary["kinds"]["sums"] > summary["kinds"]["letters"] > 20
    assert len({row["id"] for row in train + heldout}) == 300 and 50 < len(heldout) < 130
    assert {row["language"] for row in train} == {"en", "zh"}

    def asked(row):
        text = row["prompt"][0]["content"]
        if row["task"] == "sums":
            numbers = re.findall(r"\d+", text)
            return tuple(sorted(numbers) if "+" in text else [*numbers, "-"])
        return text
    assert not {*map(asked, train)} & {*map(asked, heldout)}


def test_what_is_avoided_is_not_asked(school, tmp_path):
    settings = {"kinds": {"instructions": 1.0}, "count": 40}
    _, (train, _) = made(school, tmp_path / "a", **settings)
    taken = [row["prompt"][0]["content"] for row in train[:5]]
    write_rows(tmp_path / "exam.jsonl", [{"prompt": f"First: {text}"} for text in taken])
    summary, others = made(school, tmp_path / "b", avoid=[tmp_path / "exam.jsonl"], **settings)
    spoken = set().union(*map(spans, taken))
    assert summary["avoided"] >= 5
    assert all(spoken.isdisjoint(spans(row["prompt"][0]["content"])) for rows in others for row in rows)


@pytest.mark.parametrize(("settings", "said"), [
    ({"kinds": {"sumz": 1}}, "no exercises 'sumz'.*sums"), ({"kinds": {}}, "name at least one kind"),
    ({"kinds": {"sums": 0}}, "weight of 'sums' is 0"), ({"languages": ["de"]}, "'en' or 'zh'"),
    ({"difficulty": 4}, "less than or equal to 3")])
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        Exercises(**settings)


def test_too_many_are_refused(school, tmp_path):
    with pytest.raises(TriviumError, match=r"only \d+ different exercises of words .*lower `count`"):
        made(school, tmp_path / "a", kinds={"words": 1.0}, languages=["zh"], count=500)
    with pytest.raises(TriviumError, match="no prompt falls to the heldout share; raise `count`"):
        made(school, tmp_path / "b", count=10, heldout=1e-9)


@pytest.mark.parametrize(("text", "about", "hollow"), [
    ("", [], True), (" ...!", [], True), ("Yes.", [], False), ("tea " * 13, [], True),
    ("one two three four five six seven eight nine ten eleven twelve", [], False), ("tea " * 11, [], False),
    ("好" * 12, [], True), ("Soups are fine.", ["soup"], False), ("Tea is fine.", ["soup", "bowl"], True)])
def test_hollow_answers(text, about, hollow):
    assert (is_empty(text) or repeats(text) or misses(text, about)) is hollow
    row = {"prompt": [], "about": about, "check": "contains", "answer": text}
    assert Checker("sound")(row, [text]) == [float(not hollow)]
    assert Checker("right_and_sound")(row, [text]) == [float(not hollow)]


@pytest.mark.parametrize(("row", "said"), [
    ({"answer": "1"}, "needs the field 'check'"), ({"check": "numbr", "answer": "1"}, "no checker 'numbr'.*number"),
    ({"check": "by_row"}, "no checker 'by_row'"), ({"check": "number"}, "needs the field 'answer'"),
    ({"check": "number", "answer": "none"}, "compares one number"),
    ({"check": "instructions"}, "needs the field 'instr")])
def test_a_row_whose_check_cannot_be_made_is_told(row, said):
    with pytest.raises(TriviumError, match=said):
        Checker("by_row").suits([{"id": "a", "check": "number", "answer": "2"}, {"id": "b", **row}])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("stage", [Grpo, Ppo])
def test_exercises_as_prompts(school, tmp_path, precision, stage):
    made(school, tmp_path / "made", kinds={"instructions": 1.0, "sums": 1.0}, count=60)
    place, _ = context(school, tmp_path, prompts=tmp_path / "made")
    settings = FEW | {"precision": precision, "length": 200, "max_new_tokens": 12, "unfinished_score": None}
    reward = {"right": {"function": "by_row"}, "sound": {"function": "sound", "weight": 0.5}}
    summary = stage(**settings, reward=reward, watch_every=1, watch_prompts=8).run(place)
    done = lines(tmp_path)
    assert summary["precision"] == precision and summary["ended"] == "all iterations" and len(done) == 3
    for line in done[:2]:
        assert line["score"] == pytest.approx(line["score_right"] + 0.5 * line["score_sound"])
        assert 0 <= line["watched_gold"] <= 1 and 0 <= line["empty"] <= 1 and 0 <= line["repeating"] <= 1
        assert 0 <= line["score_right"] <= 1


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_share_that_is_right_rises(school, tmp_path, precision):
    """By rows that name their own checker."""
    write_rows(tmp_path / "prompts.jsonl", [
        {"id": f"p{n}", "prompt": [{"role": "user", "content": f"say {n} please"}],
         "check": "instructions", "instruction_id_list": ["keywords:letter_frequency"],
         "kwargs": [{"letter": "ns"[n % 2], "let_frequency": 2, "let_relation": "at least"}]} for n in range(24)])
    place, _ = context(school, tmp_path, prompts=tmp_path / "prompts.jsonl", reward=None)
    settings = FEW | {"iterations": 12, "samples": 8, "precision": precision, "unfinished_score": None}
    Grpo(**settings, checker="by_row", optimization=Optimization(learning_rate=0.005)).run(place)
    scores = [line["score"] for line in lines(tmp_path)]
    assert sum(scores[-3:]) / 3 > sum(scores[:2]) / 2 + 0.25, scores


def test_the_watch_stops_a_policy_that_fools_its_reward(school, tmp_path):
    """Answers are paid for being short, until nothing is left of them; an empty one follows no instruction."""
    write_rows(tmp_path / "prompts.jsonl", [
        {"id": f"p{n}", "prompt": [{"role": "user", "content": f"say {n} please"}], "check": "instructions",
         "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]} for n in range(24)])
    (tmp_path / "short.py").write_text("def short(row, responses):\n    return [-len(text) for text in responses]\n")
    place, said = context(school, tmp_path, prompts=tmp_path / "prompts.jsonl", reward=None)
    settings = FEW | {"iterations": 30, "samples": 8, "epochs": 2, "unfinished_score": None}
    summary = Grpo(**settings, checker=f"{tmp_path / 'short.py'}:short", kl_coefficient=0.0, watch_every=1,
                   watch_prompts=16, optimization=Optimization(learning_rate=0.01)).run(place)
    done = lines(tmp_path)
    assert summary["ended"] == "past the peak" and len(done) < 25
    assert done[-1]["score"] > done[0]["score"] and done[-1]["watched_gold"] < done[0]["watched_gold"]
    assert any("are empty: the reward may be fooled" in text for text in said)
    assert any("the best policy by the watch is kept" in text for text in said)


def test_the_recipe_of_methods_is_a_recipe(tmp_path, monkeypatch):
    """The judge that examines is none that a method learns from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows/documents").mkdir(parents=True)
    for name in ("demonstrations", "comparisons", "judge", "ifeval"):
        write_rows(tmp_path / f"rows/{name}.jsonl", [])
    stages = load_recipe(Path(__file__).parents[2] / "recipes/real/align.yaml", ["evaluate.tasks=[]"]).stages
    assert {"dpo", "ipo", "kto", "ppo", "ppo-ptx", "grpo", "rounds-2-tune"} <= set(stages)
    assert stages["evaluate"].reward == "judge" and stages["ppo"].reward == stages["evaluate"].picker == "reward"
    assert stages["judge"].preferences != stages["reward"].preferences
