"""What users bring: stages of plugins, functions in files, recipes in Python, and what an edit of them does."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

import trivium
import trivium.errors
from trivium.artifacts import lineage, open_artifact
from trivium.errors import TriviumError
from trivium.extensions import code_files, file_of, load_object, resolve
from trivium.files import write_rows
from trivium.recipe.load import load_recipe
from trivium.stage import Context, Input, Stage
from trivium.stages.registry import Stages

PLUGIN = '''
from pathlib import Path
from typing import ClassVar

import helper
from trivium.stage import Context, Input, Stage, Title


class Count(Stage):
    """Counts words."""

    kind: ClassVar[str] = "count"
    title: ClassVar[Title] = Title("words counted", "数词")
    texts: Input
    """A file."""
    least: int = 1
    """Shortest word that counts."""

    def run(self, context: Context) -> dict[str, object]:
        words = [word for word in context.inputs["texts"].read_text().split() if len(word) >= self.least]
        (context.folder / "count").write_text(str(helper.scaled(len(words))))
        return {"words": len(words)}
'''
HELPER = "def scaled(number):\n    return {factor} * number\n"
RECIPE = "name: trial\nplugins: [plugins/words.py]\nstages:\n  count: {texts: ./raw.txt}\n"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/words.py").write_text(PLUGIN)
    (tmp_path / "plugins/helper.py").write_text(HELPER.format(factor=1))
    (tmp_path / "raw.txt").write_text("one two three")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def command(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "trivium.cli", *arguments], cwd=where, capture_output=True, text=True,
                          check=False)


def test_a_plugins_stage_is_run_traced_and_listed_by_the_commands(place):
    done = command("run", "recipe.yaml", where=place)
    assert done.returncode == 0, done.stderr
    assert (place / "runs/trial/count/count").read_text() == "3"
    traced = command("trace", "runs/trial/count", where=place).stdout
    assert "plugins/words.py" in traced and "plugins/helper.py" in traced and "raw.txt" in traced
    assert "Shortest word that counts." in command("schema", "count", "--plugin", "plugins/words.py",
                                                   where=place).stdout
    wrong = command("run", "recipe.yaml", "--set", "count.lest=2", where=place)
    assert (wrong.returncode,
            wrong.stderr) == (2, "error: recipe.yaml: stages.count.lest: unknown setting; did you mean 'least'?\n")


def test_an_edit_of_a_plugin_or_of_what_it_imports_runs_the_stage_again(place):
    first = trivium.run("recipe.yaml")["count"]
    assert trivium.run("recipe.yaml")["count"].manifest["key"] == first.manifest["key"]
    (place / "plugins/helper.py").write_text(HELPER.format(factor=10))
    second = trivium.run("recipe.yaml")["count"]
    assert (place / "runs/trial/count/count").read_text() == "30" and second.manifest["key"] != first.manifest["key"]
    assert not any(changed for *_, changed in lineage(place / "runs/trial/count"))
    (place / "plugins/helper.py").write_text(HELPER.format(factor=1))
    assert trivium.run("recipe.yaml")["count"].digest == first.digest  # the earlier result comes back
    assert (place / "runs/trial/count/count").read_text() == "3"


def test_a_stage_goes_on_after_an_edit_and_says_so(place):
    (place / "plugins/words.py").write_text(
        PLUGIN.replace('        return {"words"', '        (context.scratch / "half").write_text("")\n'
                       '        raise KeyboardInterrupt\n        return {"words"'))
    with pytest.raises(KeyboardInterrupt):
        trivium.run("recipe.yaml")
    (place / "plugins/words.py").write_text(PLUGIN)
    assert trivium.run("recipe.yaml")["count"].summary == {"words": 3, "edited": ["stage.words.py"]}


def test_a_plugin_that_fails_or_takes_a_known_kind_is_one_clear_error(place):
    (place / "plugins/words.py").write_text("x = 1\nraise ValueError('no')\n")
    with pytest.raises(TriviumError, match=r"plugins/words.py:2: ValueError: no"):
        load_recipe("recipe.yaml")
    (place / "plugins/words.py").write_text(PLUGIN.replace('"count"', '"ppo"'))
    with pytest.raises(TriviumError, match="a stage of kind 'ppo' already"):
        load_recipe("recipe.yaml")
    with pytest.raises(TriviumError, match=r"none.py: no such file"):
        load_recipe("recipe.yaml", ["plugins=[none.py]"])


def test_a_function_in_a_file_is_found_by_name(place):
    assert load_object("plugins/helper.py:scaled")(4) == 4
    (place / "plugins/helper.py").write_text(HELPER.format(factor=2))
    assert load_object("plugins/helper.py:scaled")(4) == 8  # as it is now
    with pytest.raises(TriviumError, match=r"plugins/helper.py: there is no 'scald' in it; did you mean 'scaled'"):
        load_object("plugins/helper.py:scald")


def test_the_files_of_code_are_those_that_it_imports_from_beside_it(place):
    (place / "plugins/package").mkdir()
    (place / "plugins/package/__init__.py").write_text("")
    (place / "plugins/package/deep.py").write_text("from . import other\n")
    (place / "plugins/package/other.py").write_text("import json, helper\n")
    (place / "plugins/unused.py").write_text("")
    (place / "plugins/main.py").write_text("def f():\n    from package.deep import x\n    import torch\n")
    assert {where
            for where, _ in code_files("reward", Path("plugins/main.py"))} == {
                "reward.main.py", "reward.package/__init__.py", "reward.package/deep.py", "reward.package/other.py",
                "reward.helper.py"
            }


def test_runners_are_added_to_the_stages_that_there_are(place):
    def shout(settings, context):
        (context.folder / "text").write_text(
            (context.inputs["inputs"]["said"] / "prompts.jsonl").read_text()[:10].upper())
        return {"loud": settings.loud}

    (place / "shout.yaml").write_text("name: shout\nstages:\n  world: {size: {documents_bytes: 20000}}\n"
                                      "  shout: {inputs: {said: world}, loud: true}\n")
    artifacts = trivium.run("shout.yaml", runners={"shout": (shout, 1)})
    assert artifacts["shout"].summary == {"loud": True} and list(artifacts) == ["world", "shout"]
    with pytest.raises(TriviumError, match="there is no stage of kind 'shout'"):
        trivium.run("shout.yaml")


class Shorten(Stage):
    """Keeps the first letters."""

    kind: ClassVar[str] = "shorten"
    source: Input
    letters: int = 3

    def run(self, context: Context) -> dict[str, object]:
        (context.folder / "text").write_text((context.inputs["source"] / "count").read_text()[:self.letters])
        return {}


def test_a_recipe_in_python_is_the_recipe_of_a_file(place):
    curriculum = trivium.Curriculum("mine", seed=3, plugins=["plugins/words.py"])
    counted = curriculum.add("count", name="counted", texts=place / "raw.txt", least=4)
    curriculum.add(Shorten, source=counted, letters=1)
    artifacts = curriculum.run()
    assert (artifacts["shorten"].folder / "text").read_text() == "1" and artifacts["shorten"].manifest["seed"] == 3
    (place / "mine.yaml").write_text(curriculum.yaml())
    again = trivium.run("mine.yaml", ["shorten=null"])["counted"]
    assert again.manifest["key"] == artifacts["counted"].manifest["key"]
    with pytest.raises(TriviumError, match="there is no stage of kind 'shorten'"):
        trivium.run("mine.yaml")  # a class of this program's own has no name in a file
    with pytest.raises(TriviumError, match="has a step of that name already"):
        curriculum.add("count", name="counted", texts="raw.txt")
    with pytest.raises(TriviumError, match="belongs to another curriculum"):
        trivium.Curriculum("other").add(Shorten, source=counted)


def test_an_installed_package_offers_stages(place, monkeypatch):
    """A folder with metadata, as pip writes it, on the path of a new process."""
    site = place / "site"
    (site / "wordcount-1.0.dist-info").mkdir(parents=True)
    (site / "wordcount-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: wordcount\nVersion: 1.0\n")
    (site / "wordcount-1.0.dist-info/entry_points.txt").write_text("[trivium.stages]\ncount = wordcount:Count\n")
    (site / "wordcount.py").write_text(PLUGIN.replace("import helper\n", "").replace("helper.scaled", ""))
    (place / "recipe.yaml").write_text(RECIPE.replace("plugins: [plugins/words.py]\n", ""))
    monkeypatch.setenv("PYTHONPATH", f"{site}")
    done = command("run", "recipe.yaml", "--json", where=place)
    assert done.returncode == 0 and json.loads(done.stdout)["count"]["summary"] == {"words": 3}, done.stderr
    assert "stage.wordcount.py" in open_artifact(place / "runs/trial/count").manifest["inputs"]
    assert "count: Counts words." in command("schema", where=place).stdout


KIT = {
    "entry_points.txt": """
[trivium.stages]
words = kit.stages:Words
[trivium.preference_losses]
doubled = kit.learning:doubled
[trivium.rewards]
brief = kit.learning:brief
[trivium.readers]
notes = kit.reading:notes
[trivium.optimizers]
signs = kit.learning:Signs
""",
    "stages.py": """
from typing import ClassVar

from trivium.files import read_rows
from trivium.stage import Context, Input, Stage


class Words(Stage):
    kind: ClassVar[str] = "words"
    demonstrations: Input

    def run(self, context: Context) -> dict[str, object]:
        rows = [row for _, row in read_rows(context.inputs["demonstrations"] / "demonstrations.jsonl")]
        return {"words": sum(len(row["messages"][-1]["content"].split()) for row in rows)}
""",
    "learning.py": """
import torch


class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad.sign(), alpha=group["lr"])


def doubled(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    margins = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    return -2 * torch.nn.functional.logsigmoid(margins)


def brief(row, responses):
    return [-float(len(response)) for response in responses]
""",
    "reading.py": """
def notes(path):
    for number, block in enumerate(path.read_text().split("--")):
        yield {"text": block.strip(), "id": str(number)}
""",
}
KIT_RECIPE = """
name: trial
stages:
  corpus:
    documents: [raw.notes]
    readers: {.notes: notes}
    settings: {rules: [], language: {enabled: false}, duplicates: {near: false}}
  tokenizer: {vocab_size: 320}
  tokens: {validation: 0.1}
  pretrain:
    model: {hidden_size: 32, intermediate_size: 48, num_layers: 1, num_heads: 2, num_kv_heads: 1, head_dim: 16}
    optimization: &signs {optimizer: signs, learning_rate: 0.001}
    length: 64
    rows: 4
    steps: 10
  sft: {demonstrations: rows, optimization: *signs, length: 64, rows: 4, epochs: 4}
  dpo: {preferences: rows, loss: doubled, length: 64, rows: 4, epochs: 2}
  ppo:
    prompts: rows
    reward: brief
    unfinished_score: null
    iterations: 2
    episodes: 4
    max_new_tokens: 6
    length: 64
  words: {demonstrations: rows}
"""


def test_an_installed_package_takes_part_in_a_whole_run(tmp_path, monkeypatch):
    """One package offers a reader, an optimizer, a preference loss, a reward and a stage, each by a name."""
    information = tmp_path / "site/kit-1.0.dist-info"
    for folder in (information, tmp_path / "site/kit", tmp_path / "rows"):
        folder.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: kit\nVersion: 1.0\n")
    (tmp_path / "site/kit/__init__.py").write_text("")
    for name, content in KIT.items():
        ((information if name == "entry_points.txt" else tmp_path / "site/kit") / name).write_text(content)
    (tmp_path / "raw.notes").write_text("\n--\n".join(
        f"The {n} farmers of the valley bring {n + 2} apples to the market, and {n} more for the mayor of the town."
        for n in range(40)))
    asked = [[{"role": "user", "content": f"Say {n}."}] for n in range(8)]
    write_rows(tmp_path / "rows/demonstrations.jsonl",
               [{"messages": [*prompt, {"role": "assistant", "content": "yes, please"}]} for prompt in asked])
    write_rows(tmp_path / "rows/prompts.jsonl", [{"id": n, "prompt": prompt} for n, prompt in enumerate(asked)])
    write_rows(tmp_path / "rows/comparisons.jsonl",
               [{"prompt": prompt, "responses": ["yes", "no"], "ranking": [[0], [1]], "split": "train"}
                for prompt in asked])
    (tmp_path / "recipe.yaml").write_text(KIT_RECIPE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    done = command("run", "recipe.yaml", "--json", where=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/trial"
    code = {name: {where for where in open_artifact(run / name).manifest["inputs"] if where.endswith(".py")}
            for name in ("corpus", "pretrain", "sft", "dpo", "ppo", "words")}
    assert code == {"corpus": {"readers..notes.kit/reading.py"}, "pretrain": {"optimization.optimizer.kit/learning.py"},
                    "sft": {"optimization.optimizer.kit/learning.py"}, "dpo": {"loss.kit/learning.py"},
                    "ppo": {"reward.kit/learning.py"}, "words": {"stage.kit/stages.py"}}
    made = json.loads(done.stdout)
    assert made["corpus"]["summary"]["kept"] == 40 and made["words"]["summary"] == {"words": 16}
    logs = {name: [json.loads(line) for line in (run / name / "log.jsonl").read_text().splitlines()]
            for name in ("pretrain", "sft", "dpo", "ppo")}
    assert all(logs[name][-1]["loss"] < logs[name][0]["loss"] for name in ("pretrain", "sft", "dpo"))
    assert logs["dpo"][0]["loss"] == pytest.approx(2 * math.log(2), abs=1e-3)  # twice that of DPO, at a margin of 0
    assert all(line["sample_score"] == -len(line["sample"]) for line in logs["ppo"])


def test_the_registry_holds_what_a_plugin_brings_and_all_that_is_built_in(place):
    stages = Stages([Path("plugins/words.py")])
    assert "count" in stages and "ppo" in stages and "cuont" not in stages
    assert stages["count"](texts="raw.txt").least == 1 and len(stages) == len(list(stages)) == len(Stages()) + 1


def test_a_plugin_registers_by_name_what_settings_take(place):
    """A format of rows that a plugin's file registers, and one that an installed package offers, as FILE.py:NAME."""
    (place / "formats.py").write_text(
        "from trivium.extensions import register\n\n@register('formats', 'pair')\ndef pair(row):\n"
        "    return [{'role': 'user', 'content': row['q']}, {'role': 'assistant', 'content': row['a']}]\n")
    (place / "rows.jsonl").write_text('{"q": "One?", "a": "Two."}\n')
    (place / "recipe.yaml").write_text("name: named\nplugins: [formats.py]\nstages:\n  imports:\n"
                                       "    demonstrations: {mine: rows.jsonl}\n    sources: {mine: {format: pair}}\n")
    done = command("run", "recipe.yaml", where=place)
    assert done.returncode == 0, done.stderr
    assert '"Two."' in (place / "runs/named/imports/demonstrations.jsonl").read_text()
    wrong = command("run", "recipe.yaml", "--set", "imports.sources.mine.format=piar", where=place)
    assert "there is no format 'piar'; did you mean 'pair'" in wrong.stderr and wrong.returncode == 2


def test_a_name_resolves_to_the_file_that_its_code_is_in(place):
    (place / "named.py").write_text(
        "from trivium.extensions import register\n\n@register('rewards', 'mine')\ndef score(row, texts):\n    return "
        "[1] * len(texts)\n"
    )
    load_object("named.py:score")
    assert resolve("mine", "rewards") == f"{place / 'named.py'}:score" and resolve("mine", "judges") == "mine"
    assert resolve("x.py:f", "rewards") == "x.py:f" and resolve("exact", "rewards") == "exact"
    assert resolve("http://a:80/b", "rewards") == "http://a:80/b"
    assert file_of("trivium.errors:nearest") == Path(
        trivium.errors.__file__) and load_object("trivium.errors:nearest") is trivium.errors.nearest
    assert file_of("no.such.module:name") is None and file_of("runs/base/sft") is None
    (place / "other.py").write_text((place / "named.py").read_text())
    with pytest.raises(TriviumError, match="rewards: the name 'mine' is taken by"):
        load_object("other.py:score")


def test_a_name_of_two_kinds_puts_the_bytes_of_both_into_the_key(place):
    """A reward and a judge of one name: the key of a stage that is judged holds both files, not the wrong one."""
    from trivium.stages.preferences.ai_feedback import AiFeedback
    for group in ("rewards", "judges"):
        (place / f"{group}.py").write_text(f"from trivium.extensions import register\n\n@register('{group}', 'twice')\n"
                                           "def own(*arguments):\n    return 1.0\n")
        load_object(f"{group}.py:own")
    assert {file.name for where, file in AiFeedback(judge="twice").code()} == {"rewards.py", "judges.py"}


def test_what_was_edited_while_an_earlier_stage_ran_is_refused(place):
    """The first stage writes another helper, which the second would name in its key without running it."""
    (place / "plugins/words.py").write_text(PLUGIN + '''

class Edit(Stage):
    kind: ClassVar[str] = "edit"

    def run(self, context: Context) -> dict[str, object]:
        Path("plugins/helper.py").write_text("def scaled(number):\\n    return 100 * number\\n")
        return {}
''')
    (place / "recipe.yaml").write_text(RECIPE + "  edit: {}\n")
    with pytest.raises(TriviumError, match=r"helper.py was edited while the stage ran"):
        trivium.run("recipe.yaml", only=["edit"])
    done = command("run", "recipe.yaml", where=place)
    assert done.returncode == 0 and (place / "runs/trial/count/count").read_text() == "300", done.stderr


def test_neighbours_in_folders_and_packages_are_reread_and_in_the_key(place):
    (place / "plugins/package").mkdir()
    for name, content in {"package/__init__.py": "", "package/deep.py": "FACTOR = 2\n",
                          "helper.py": "from package.deep import FACTOR\n\ndef scaled(n):\n"
                                       "    return FACTOR * n\n"}.items():
        (place / "plugins" / name).write_text(content)
    first = trivium.run("recipe.yaml")["count"]
    assert (place / "runs/trial/count/count").read_text() == "6"
    assert {"stage.package/__init__.py", "stage.package/deep.py"} <= first.manifest["inputs"].keys()
    (place / "plugins/package/deep.py").write_text("FACTOR = 5\n")
    assert trivium.run("recipe.yaml")["count"].digest != first.digest
    assert (place / "runs/trial/count/count").read_text() == "15"


def test_a_function_imports_its_neighbour_when_it_is_called(place):
    (place / "late.py").write_text("def call():\n    import late_neighbour\n    return late_neighbour.VALUE\n")
    (place / "late_neighbour.py").write_text("VALUE = 7\n")
    assert load_object("late.py:call")() == 7
    assert {file.name for _, file in code_files("x", place / "late.py")} == {"late.py", "late_neighbour.py"}


def test_two_plugins_of_one_kind_are_refused(place):
    (place / "plugins/again.py").write_text(PLUGIN)
    with pytest.raises(TriviumError, match="'count'"):
        load_recipe("recipe.yaml", ["plugins=[plugins/words.py, plugins/again.py]"])


def test_a_plugin_that_ends_the_program_is_one_line(place):
    (place / "plugins/words.py").write_text("import sys\nsys.exit(3)\n")
    done = command("run", "recipe.yaml", where=place)
    assert done.returncode == 2 and done.stderr == "error: recipe.yaml: plugins/words.py:2: SystemExit: 3\n"


def test_a_plugin_that_is_no_python_is_one_line(place):
    done = command("schema", "--plugin", "recipe.yaml", where=place)
    assert done.returncode == 2 and "ends in .py" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("code, found", [
    ("raise ValueError('unlucky')", r"count: .*words.py:\d+: ValueError: unlucky"),
    ("return None", "count: .*a mapping was expected"),
    ("return {'x': object()}", "count: .*not JSON serializable"),
    ("return {'x': float('nan')}", "count: .*not JSON compliant"),
])
def test_a_stage_of_ones_own_that_fails_is_one_line(place, code, found):
    (place / "plugins/words.py").write_text(PLUGIN.replace('return {"words": len(words)}', code))
    with pytest.raises(TriviumError, match=found):
        trivium.run("recipe.yaml")


@pytest.mark.parametrize("setting, found", [
    ("grpo.checker=none.py:f", "none.py: no such file"),
    ("grpo.checker=plugins/helper.py:scalde", "there is no 'scalde' in it; did you mean 'scaled'"),
    ("grpo.checker=nmuber", "stages.grpo.checker: there is no checker 'nmuber'; did you mean 'number'"),
    ("grpo.reward=plugins/helper.py:scalde", "there is no 'scalde' in it; did you mean 'scaled'"),
    ("grpo={reward: plugins/helper.py:scaled, checker: number}", "leave one of the two out"),
])
def test_code_that_is_not_there_is_found_before_the_first_stage(place, setting, found):
    (place / "recipe.yaml").write_text(RECIPE + "  grpo: {model: ./raw.txt, prompts: ./raw.txt}\n")
    done = command("run", "recipe.yaml", "--set", setting, *(["--set", "grpo.model=./raw.txt", "--set",
                                                              "grpo.prompts=./raw.txt"] if "{" in setting else []),
                   where=place)
    assert done.returncode == 2 and found in done.stderr, done.stderr
    assert not (place / "runs").exists()


@pytest.mark.parametrize("code, found", [
    ("def f(row):\n    return [1.0]\n", "it is called as FUNCTION(row, responses)"),
    ("def f(row, responses):\n    return None\n", "2 numbers were expected, not None"),
    ("def f(row, responses):\n    return ['good', 'bad']\n", "2 numbers were expected, not ['good', 'bad']"),
    ("def f(row, responses):\n    return row['answr']\n", "KeyError: 'answr' (line 2)"),
])
def test_what_a_reward_of_ones_own_does_wrongly_is_said(place, code, found):
    from trivium.evaluation.checkers import Checker
    (place / "wrong.py").write_text(code)
    with Checker("wrong.py:f") as checker, pytest.raises(TriviumError) as raised:
        checker({"id": 1, "answer": "2"}, ["a", "b"])
    assert found in str(raised.value)
