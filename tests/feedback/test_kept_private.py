"""A project's database is its owner's alone, and an invite is never used up for nothing."""

from __future__ import annotations

import os
import signal
import stat

import pytest
import sqlalchemy

from trivium.errors import TriviumError
from trivium.feedback.accounts import Accounts
from trivium.feedback.store import Store


@pytest.mark.parametrize("umask", [0, 0o022])
def test_the_database_and_what_lies_beside_it_are_private(tmp_path, umask):
    before = os.umask(umask)
    try:
        for name in ("anna", "ben"):
            with Store(tmp_path / "p", create=True) as store:
                store.add_person(name)
                rights = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "p").iterdir()}
            assert rights.keys() >= {"feedback.sqlite", "feedback.sqlite-wal"} and set(rights.values()) == {0o600}
            (tmp_path / "p/feedback.sqlite").chmod(0o644)  # as an earlier version made it
    finally:
        os.umask(before)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/feedback.sqlite").symlink_to(tmp_path / "nowhere/file")
    with pytest.raises(TriviumError, match=r"feedback\.sqlite: cannot be written"):
        Store(tmp_path / "p", create=True)


def accepts(place, token, instant):
    """Accept an invite, in a process that is killed at a statement that writes; whether it was."""
    process = os.fork()
    if not process:
        written = 0
        with Store(place) as store:

            @sqlalchemy.event.listens_for(store.engine, "before_cursor_execute")
            def before(connection, cursor, statement, *_):
                nonlocal written
                written += not statement.startswith("SELECT")
                if written > instant:
                    os.kill(os.getpid(), signal.SIGKILL)

            Accounts(store).accept(token, "anna", "long enough 123", "here")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def test_an_invite_that_is_accepted_at_the_moment_of_a_kill_is_whole_or_unused(tmp_path):
    with Store(tmp_path / "p", create=True) as store:
        token = Accounts(store).invite()
    seen = []
    for instant in range(30):
        killed = accepts(tmp_path / "p", token, instant)
        with Store(tmp_path / "p") as store:
            unused, person = bool(Accounts(store).open_invites()), store.person("anna")
            assert unused != bool(person), instant  # the one or the other
            seen.append(unused)
            if person:
                assert Accounts(store).login("anna", "long enough 123", "here")
                break
        assert killed
    assert len(seen) > 2 and seen[0] and not seen[-1]
