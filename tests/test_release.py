"""What a user gets: the package's description, its extras, its recipes, and a clear word where something is missing."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from trivium.recipe.load import load_recipe
from trivium.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
IMPORTED_AS = {"argon2": "argon2-cffi", "lm_eval": "lm-eval", "math_verify": "math-verify", "mlflow": "mlflow-skinny",
               "PIL": "pillow", "python_multipart": "python-multipart", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Packages whose modules have another name."""
COME_ALONG = {"markupsafe": "jinja2", "scipy": "scikit-learn"}
"""Packages that another one cannot do without."""

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
for name in [name for name in sys.modules if name.partition(".")[0] in {names}]:
    del sys.modules[name]
"""


def named(requirements):
    """The names of packages in requirements, such as ``torch>=2.11``."""
    return {re.split(r"[\[<>=!~ ]", requirement)[0].lower() for requirement in requirements} - {"trivium"}


def python(code, *words, **more):
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, **more)


def test_the_version_is_that_of_the_changelog_and_of_the_citation():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$", changes, re.M)[1] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert PROJECT["project"]["dynamic"] == ["version"]


def test_the_licence_is_the_one_that_the_package_names():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0" and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_what_always_comes_is_in_no_extra_and_all_extras_are_in_all():
    base = named(PROJECT["project"]["dependencies"])
    for extra, requirements in EXTRAS.items():
        assert not base & named(requirements), extra
    whole = [extra for part in EXTRAS["all"] for extra in re.fullmatch(r"trivium\[(.*)\]", part)[1].split(",")]
    assert sorted(whole) == sorted(EXTRAS.keys() - {"all", "dev"})


def test_every_package_that_is_imported_is_declared():
    declared = named([*PROJECT["project"]["dependencies"], *(one for group in EXTRAS.values() for one in group)])
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else [
                node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, "trivium", "vllm"}:
                package = COME_ALONG.get(name) or IMPORTED_AS.get(name, name)
                assert package.lower() in declared, f"{file}: {name}"


def test_everything_but_servers_loads_without_any_extra(tmp_path):
    base = named(PROJECT["project"]["dependencies"])
    extra = named(one for group in EXTRAS.values() for one in group) - base
    modules = {name for name, package in {**IMPORTED_AS, **COME_ALONG}.items() if package in extra} | {
        name.replace("-", "_") for name in extra}
    code = HIDE.format(names=sorted(modules)) + """
import importlib, pkgutil, trivium
from trivium.errors import TriviumError
for module in pkgutil.walk_packages(trivium.__path__, "trivium."):
    if not module.name.startswith(
            ("trivium.feedback.", "trivium.serving.", "trivium.listening")) and not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except TriviumError as error:
            print(module.name, str(error).partition("pip install ")[2])
"""
    done = python(code, cwd=tmp_path)
    lessons = [f"trivium.{name}" for name in ("lessons.animals", "lessons.digits", "lessons.line", "lessons.next_word",
                                              "lessons.page", "planning.scaling")]
    assert done.stdout.splitlines() == ['trivium.evaluation.harness "trivium[eval]"',
                                        *(f'{name} "trivium[lessons]"' for name in lessons)], done.stderr


@pytest.mark.parametrize(("missing", "words", "message"), [
    ("trafilatura", ["quickstart"
                     ], 'trafilatura is not installed; this needs the extra `corpus`: pip install "trivium[corpus]"'),
    ("zstandard", ["run", "recipes/quickstart.yaml", "--only", "corpus", "--set", "world.size.documents_bytes=50000"
                   ], 'zstandard is not installed; this needs the extra `corpus`: pip install "trivium[corpus]"'),
    ("plotly", ["lesson", "line"
                ], 'plotly is not installed; this needs the extra `lessons`: pip install "trivium[lessons]"'),
])
def test_a_missing_extra_is_one_line_that_names_it(tmp_path, missing, words, message):
    code = HIDE.format(names=[missing]) + "from trivium.cli.__main__ import main; main()"
    done = python(code, *words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == f"error: {message}"
    assert "Traceback" not in done.stderr


WINDOWS = HIDE.format(names=["fcntl", "resource", "termios", "pwd", "grp"]) + "sys.platform = 'win32'\n"


def test_windows_is_refused_in_one_line(tmp_path):
    done = python(WINDOWS + "from trivium.cli.__main__ import main; main()", "run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: Trivium runs on Linux and macOS; on Windows use WSL2\n"
    code = "import trivium\ntry:\n    trivium.run\nexcept Exception as error:\n    print(type(error).__name__, error)"
    assert python(WINDOWS + code).stdout == "TriviumError Trivium runs on Linux and macOS; on Windows use WSL2\n"


def test_the_program_is_the_one_that_checks_the_system():
    assert PROJECT["project"]["scripts"] == {"trivium": "trivium.cli.__main__:main"}


def test_the_recipes_are_part_of_the_package():
    package = ROOT / "src/trivium"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["trivium"]
    packed = {file.relative_to(package) for pattern in patterns for file in package.glob(pattern)}
    own = [file.relative_to(ROOT) for file in (ROOT / "recipes").rglob("*")
           if file.is_file() and "__pycache__" not in file.parts]
    assert len(own) > 20 and not set(own) - packed


def test_recipes_that_name_the_packages_files_work_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("""name: mine
stages:
  grpo: {model: ., prompts: ., checker: "recipes/checks.py:sums"}
  evaluate: {models: {sft: .}, prompts: ., tasks: [recipes/tasks/world-unknown.yaml]}
""")
    stages = load_recipe("mine.yaml", only=["grpo"]).stages
    file, _, name = stages["grpo"].checker.partition(":")
    assert Path(file).is_file() and name == "sums" and Path(stages["evaluate"].tasks[0]).is_file()
    assert load_recipe("recipes/quickstart.yaml").name == "quickstart" and not (tmp_path / "recipes").exists()


def test_the_users_own_recipe_goes_before_the_packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/quickstart.yaml").write_text("name: mine\nstages: {tokens: }\n")
    assert load_recipe("recipes/quickstart.yaml", ["tokens=null"]).name == "mine"


def test_quickstart_says_what_it_does_and_what_to_do_next(tmp_path):
    sets = ["world.size.documents_bytes=60000", "tokenizer.vocab_size=400", "name=mine"]
    done = subprocess.run([sys.executable, "-m", "trivium.cli", "quickstart", "--quiet", "--out", "my runs", "--only",
                           "tokenizer", *(word for one in sets for word in ("--set", one))],
                          capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "into my runs/mine: world → corpus → tokenizer" in lines[0] and "minutes" in lines[1]
    assert lines[2] == "Done: my runs/mine. Next:" and "--out 'my runs'" in lines[-1]
    assert (tmp_path / "my runs/mine/tokenizer/tokenizer.json").is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_quickstart_installs_no_tools_of_developers():
    plans = {target: subprocess.run(["make", "-nB", target], cwd=ROOT, capture_output=True, text=True,
                                    check=True).stdout for target in ("quickstart", "lint")}
    assert "[corpus,lessons,serve]" in plans["quickstart"] and "trivium quickstart" in plans["quickstart"]
    assert "dev]" not in plans["quickstart"] and "dev]" in plans["lint"]


def test_the_guide_for_contributors_names_what_there_is():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = [place for place in re.findall(r"`([\w./-]+)`", text) if "/" in place and not place.endswith("dist/")]
    assert len(places) > 30 and not [place for place in places if not (ROOT / place).exists()]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= {*targets}
