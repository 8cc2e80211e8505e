"""The task of instructions that code can check: four figures, its kinds, and what the command line shows of them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from trivium.cli.app import app
from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task

TASK = "kind: instructions\ndata: rows.jsonl\nmax_new_tokens: 12\n"
COMMA, WORDS, QUOTED = "punctuation:no_comma", "length_constraints:number_words", "startend:quotation"
ROWS = [{"key": 1, "prompt": "Say little.", "instruction_id_list": [COMMA, WORDS],
         "kwargs": [{}, {"num_words": 30, "relation": "less than"}]},
        {"key": 2, "prompt": "Quote me.", "instruction_id_list": [QUOTED], "kwargs": [{}]},
        {"key": 3, "prompt": "Quote me at once.", "instruction_id_list": [QUOTED, COMMA], "kwargs": [{}, {}]}]


def test_strict_and_loose_by_prompt_and_by_instruction(models, task_file, monkeypatch):
    said = iter([["no comma here"], ["Here:\n\"tea\""], ["\"tea, milk\""]])
    monkeypatch.setattr(EvaluatedModel, "generate", lambda self, prompts, *given, **more: [next(said) for _ in prompts])
    path = task_file(TASK, ROWS)
    result = load_task(path).examine(path, EvaluatedModel.load(models["chat"]))
    figures = {name: result.metrics[name]["value"] for name in result.metrics if name != "kinds"}
    assert figures == pytest.approx({"prompt_strict": 1 / 3, "instruction_strict": 3 / 5, "prompt_loose": 2 / 3,
                                     "instruction_loose": 4 / 5})
    assert {name: (kind["value"], kind["n"]) for name, kind in result.metrics["kinds"].items()} == {
        COMMA: (0.5, 2), WORDS: (1.0, 1), QUOTED: (0.5, 2)}
    assert [row["score"] for row in result.rows] == [1.0, 0.0, 0.0] and result.rows[1]["loose"] == [True]


def test_on_the_command_line(models, task_file):
    path = task_file(TASK, ROWS)
    shown = CliRunner().invoke(app, ["evaluate", str(models["chat"]), "--task", str(path), "--limit", "2"])
    assert shown.exit_code == 0, shown.output
    for name in ("prompt strict", "instruction strict", "prompt loose", "instruction loose", QUOTED, "max_new_tokens"):
        assert name in shown.output
    assert load_task(path).examine(path, EvaluatedModel.load(models["base"])).notes["form"] == "text"


@pytest.mark.parametrize(("row", "said"), [
    ({**ROWS[1], "instruction_id_list": ["startend:quote"]}, r"row 4: there is no instruction 'startend:quote'"),
    ({**ROWS[1], "kwargs": []}, r"row 4: kwargs must be a list of 1 mapping"),
    ({**ROWS[1], "prompt": "tea and milk " * 90}, r"row 4: its prompt has \d+ tokens and leaves no room")])
def test_a_row_that_cannot_be_asked_is_told(models, task_file, row, said):
    path = task_file(TASK, [*ROWS, row])
    with pytest.raises(TriviumError, match=said):
        load_task(path).examine(path, EvaluatedModel.load(models["chat"]))
