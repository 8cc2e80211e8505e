"""What the commands say where a package of their extra is not installed."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Hiding(MetaPathFinder):
    hidden = sys.argv.pop(1)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hiding())
from trivium.cli.app import main
main()
"""


@pytest.mark.parametrize(("package", "extra", "command"), [
    ("fastapi", "serve", ["serve", "model"]),
    ("uvicorn", "serve", ["serve", "model"]),
    ("fastapi", "annotate", ["annotate", "project"]),
    ("python_multipart", "annotate", ["annotate", "project"]),
    ("sqlalchemy", "annotate", ["feedback", "create", "project"]),
    ("argon2", "annotate", ["feedback", "invite", "project"]),
])
def test_a_missing_package_is_one_line_that_names_its_extra(package, extra, command, tmp_path):
    if command[:2] == ["feedback", "invite"]:
        from trivium.feedback.store import Store
        Store(tmp_path / "project", create=True).close()
    run = subprocess.run([sys.executable, "-c", WITHOUT, package, *command], capture_output=True, text=True,
                         cwd=tmp_path, timeout=120)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.count("\n") == 1 and "Traceback" not in run.stderr
    assert run.stderr.strip().endswith(f'{package} is not installed; this needs the extra `{extra}`: '
                                       f'pip install "trivium[{extra}]"')


def test_a_form_without_its_library_is_refused_with_the_extra(server, monkeypatch):
    body = {"model": "two", "messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}
    monkeypatch.setitem(sys.modules, "llguidance", None)
    answer = httpx.post(server + "/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert 'pip install "trivium[structured]"' in answer.json()["error"]["message"], answer.text
    monkeypatch.undo()
    assert httpx.post(server + "/v1/chat/completions", json=body | {"max_tokens": 2}).status_code == 200


def test_a_fault_in_our_own_modules_is_not_blamed_on_an_extra():
    from trivium.errors import extra
    with pytest.raises(ImportError, match=r"trivium\.nowhere"):
        with extra("serve"):
            import trivium.nowhere  # noqa: F401
