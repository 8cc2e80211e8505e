"""A stage's `version` is raised when what it computes changes: a changed source has a raised version, or a reason.

``tests/stage_versions.json`` holds, for every built-in stage, its version and a digest of the modules that it imports,
directly or through one another. Comments, docstrings and layout do not count, nor does what only shows or predicts: the
command line, planning, the report, messages.

    python tests/test_versions.py                                      records raised versions and new stages
    python tests/test_versions.py --exempt "moved code only" ppo dpo   and these (or: all), whose numbers stay the same
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from trivium.stages.registry import BUILT_IN, built_in

SOURCE = Path(__file__).parents[1] / "src"
RECORD = Path(__file__).with_name("stage_versions.json")
WITHOUT = ("trivium.cli", "trivium.errors", "trivium.planning", "trivium.progress", "trivium.report", "trivium.version")


def file_of(module: str) -> Path | None:
    """A module's file, or its package's ``__init__.py``; None for what is no module of ours."""
    place = SOURCE.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def counts(module: str) -> bool:
    """Whether a module's source may change what a stage computes; the package itself only leads to others."""
    without = any(module == name or module.startswith(f"{name}.") for name in WITHOUT) or module.endswith(".cost")
    return module != "trivium" and not without and file_of(module) is not None


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all in it, but not what only type checkers read."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            children: list[ast.stmt] = child.orelse
        else:
            children = [child]  # type: ignore[list-item]
        for inner in children:
            yield from statements(inner)


@cache
def tree(module: str) -> ast.Module:
    file = file_of(module)
    assert file is not None
    return ast.parse(file.read_bytes())


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of ours that a module imports, at once or when it needs them, and the packages around them."""
    named: set[str] = set()
    for node in statements(tree(module)):
        if isinstance(node, ast.Import):
            named |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module
            named |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    around = {".".join(name.split(".")[:end]) for name in named if name.startswith("trivium.")
              for end in range(1, name.count(".") + 2)}
    return frozenset(filter(counts, around))


def reached(module: str) -> list[str]:
    """A module and all that it imports, directly or through one another."""
    found, todo = set[str](), {module}
    while todo:
        name = todo.pop()
        found.add(name)
        todo |= imports(name) - found
    return sorted(found)


def written(node: Any) -> str:
    """A syntax tree as a text that is the same under every Python: without places, docstrings and empty fields."""
    if isinstance(node, list):
        return f"[{','.join(written(item) for item in node if not is_docstring(item))}]"
    if isinstance(node, ast.AST):
        fields = [f"{name}={written(value)}" for name, value in ast.iter_fields(node)
                  if value not in (None, []) or (isinstance(node, ast.Constant) and name == "value")]
        return f"{type(node).__name__}({','.join(fields)})"
    return repr(node)


def is_docstring(node: Any) -> bool:
    """Whether a statement is a text alone: what a module, a function or a setting means."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def digest(module: str) -> str:
    """Of a module's source, as far as it can change what is computed."""
    return hashlib.sha256(written(tree(module)).encode()).hexdigest()[:12]


def now() -> dict[str, Any]:
    """What the sources say: the modules' digests, and each stage's version, digest and modules."""
    stages = {}
    for kind in BUILT_IN:
        names = reached(built_in(kind).__module__)
        whole = hashlib.sha256("".join(f"{name}={digest(name)};" for name in names).encode()).hexdigest()[:12]
        stages[kind] = {"version": built_in(kind).version, "digest": whole, "modules": names}
    modules = {name: digest(name) for stage in stages.values() for name in stage["modules"]}
    return {"modules": modules, "stages": stages}


def faults(found: dict[str, Any], record: dict[str, Any]) -> dict[str, str]:
    """What is wrong with each stage whose source is not the one that was recorded."""
    said = {}
    for kind, stage in found["stages"].items():
        before = record["stages"].get(kind)
        if before is None:
            said[kind] = "is new"
        elif stage["version"] < before["version"]:
            said[kind] = f"has version {stage['version']}, after {before['version']}"
        elif stage["digest"] != before["digest"]:
            changed = [name for name in stage["modules"] if found["modules"][name] != record["modules"].get(name)]
            raised = "raised" if stage["version"] > before["version"] else "the same"
            said[kind] = f"imports what changed ({', '.join(changed) or 'a module less'}), its version is {raised}"
        elif stage["version"] != before["version"]:
            said[kind] = f"has version {stage['version']}, after {before['version']}"
    return said


def recorded(found: dict[str, Any], record: dict[str, Any], reason: str = "",
             exempt: tuple[str, ...] = ()) -> dict[str, Any]:
    """The new record. Raises :class:`ValueError` for a stage whose source changed without a raised version or a
    reason."""
    wrong = faults(found, record)
    made: dict[str, Any] = {}
    for kind, stage in found["stages"].items():
        before = record["stages"].get(kind, {"version": 0, "exemptions": []})
        exemptions, same = before["exemptions"], stage["version"] == before["version"]
        if stage["version"] < before["version"] or (kind in wrong and same and not (reason and kind in exempt)):
            raise ValueError(f"{kind} {wrong[kind]}: raise it in {built_in(kind).__module__}, or say why its numbers "
                             f'stay the same:\n    python tests/test_versions.py --exempt "REASON" {kind}')
        exemptions = [*exemptions, reason] if kind in wrong and same else exemptions if same else []
        made[kind] = {"version": stage["version"], "digest": stage["digest"], "exemptions": exemptions}
    return {"modules": found["modules"], "stages": made}


def test_what_a_stage_computes_changes_only_with_its_version():
    wrong = faults(now(), json.loads(RECORD.read_text(encoding="utf-8")))
    assert not wrong, "\n".join(["see tests/test_versions.py; then record it with: python tests/test_versions.py",
                                 *(f"  {kind} {what}" for kind, what in wrong.items())])


def test_no_stage_of_the_record_is_gone():
    assert set(json.loads(RECORD.read_text(encoding="utf-8"))["stages"]) == set(BUILT_IN)


def test_a_changed_source_is_recorded_only_with_a_raised_version_or_a_reason():
    record = recorded(now(), {"modules": {}, "stages": {}})
    changed = now()
    changed["modules"]["trivium.objectives.preference"] = "another"
    changed["stages"]["dpo"]["digest"] = "another"
    assert faults(changed, record) == {
        "dpo": "imports what changed (trivium.objectives.preference), its version is the same"}
    with pytest.raises(ValueError, match="dpo imports what changed"):
        recorded(changed, record)
    with pytest.raises(ValueError, match="dpo imports what changed"):
        recorded(changed, record, "moved code only", ("ppo",))
    exempted = recorded(changed, record, "moved code only", ("dpo",))
    assert exempted["stages"]["dpo"]["exemptions"] == ["moved code only"] and not faults(changed, exempted)
    changed["stages"]["dpo"]["version"] += 1
    assert recorded(changed, exempted)["stages"]["dpo"]["exemptions"] == []


def test_comments_docstrings_and_layout_do_not_count():
    one = ast.parse('"""A."""\ndef f(x):\n    """B."""\n    return [x, 1]  # why\n')
    two = ast.parse('def f(x):\n    return [x,\n            1]\n')
    assert written(one) == written(two) != written(ast.parse("def f(x):\n    return [x, 2]\n"))


def test_a_stage_reaches_its_losses_and_not_the_command_line():
    names = reached("trivium.stages.preferences.dpo")
    assert {"trivium.objectives.preference", "trivium.training.loop", "trivium.model", "trivium.stage"} <= set(names)
    assert not [name for name in names if name.startswith(WITHOUT)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the sources of the stages.")
    parser.add_argument("--exempt", default="", metavar="REASON", help="why the stages give the same numbers as before")
    parser.add_argument("stages", nargs="*", help="the stages that are exempt; `all` for all")
    given = parser.parse_args()
    unknown = set(given.stages) - {*BUILT_IN, "all"}
    if unknown or bool(given.exempt.strip()) != bool(given.stages):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}" if unknown
                     else "--exempt takes a reason and the stages that it is true of")
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"modules": {}, "stages": {}}
    try:
        made = recorded(now(), record, given.exempt, BUILT_IN if "all" in given.stages else tuple(given.stages))
    except ValueError as error:
        sys.exit(f"refused: {error}")
    RECORD.write_text(json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
