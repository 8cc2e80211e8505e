"""Hostile YAML is one clear error each; plain YAML is what PyYAML makes of it."""

import pytest
import yaml

from trivium.errors import TriviumError
from trivium.evaluation.tasks.load import load_task
from trivium.recipe.load import load_recipe
from trivium.yaml_text import read_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n"
                                      for n in range(1, 12))
HOSTILE = {
    "a key twice": ("stages: {}\nname: a\nname: b\n", "line 3: 'name' is given twice (first in line 2)"),
    "a stage twice": ("stages:\n  ppo: {}\n  dpo: {}\n  ppo: {}\n", "line 4: 'ppo' is given twice"),
    "a key twice in one line": ("a: {b: 1, b: 2}", "line 1: 'b' is given twice"),
    "a billion laughs": (LAUGHS, "stands for more than 1,000,000 values"),
    "a billion merges": (MERGES, "stands for more than 1,000,000 values"),
    "an anchor that holds itself": ("name: &a [1, *a]\n", "line 1: the anchor 'a' holds itself"),
    "one that does so by another": ("a: &a {b: &b {c: *a, d: *b}}\n", "line 1: the anchor 'a' holds itself"),
    "3000 levels": ("a: " + "[" * 3000 + "]" * 3000, "line 1: more than 100 levels"),
    "3000 levels of indentation": ("".join(" " * n + "a:\n" for n in range(3000)), "more than 100 levels"),
    "100,000 open brackets": ("[" * 100_000, "more than 100 levels"),
    "a number of 5000 digits": ("a: 1\nb: " + "1" * 5000, "cannot be read as a whole number; put it in quotes"),
    "a day that there is not": ("a: 2026-99-99", "line 1: '2026-99-99' cannot be read as a date"),
    "a number that is none": ("a: !!int x", "line 1: 'x' cannot be read as a whole number"),
    "a null byte": ("a: \0", "not valid YAML"),
    "code": ("a: !!python/object/apply:os.system [x]", "not valid YAML (could not determine a constructor"),
    "a list as a key": ("? [1]\n: 2", "not valid YAML"),
    "a name that is not there": ("a: *b", "line 1: not valid YAML"),
    "tabs": ("a:\n\tb: 1", "line 2: not valid YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_one_clear_line(tmp_path, name):
    text, reason = HOSTILE[name]
    path = tmp_path / "a.yaml"
    path.write_text(text)
    for load in (load_recipe, load_task):
        with pytest.raises(TriviumError) as told:
            load(path)
        said = str(told.value)
        assert said.startswith(f"{path}: ") and reason in said and "\n" not in said and len(said) < 400 + len(str(path))


def test_plain_yaml_is_what_pyyaml_makes_of_it():
    text = """
a: &base {x: 1, y: [1.5, 0x1F, 1_000, 1e3, .inf, no, ~, 2026-01-02]}
b: {<<: *base, x: 2}
c: [*base, *base]
"1": text
1: number
d: |
  lines
  of text
"""
    assert read_yaml(text) == yaml.safe_load(text)
    assert read_yaml("") is None and read_yaml("5") == 5
