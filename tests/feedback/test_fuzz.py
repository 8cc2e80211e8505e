"""Requests made up from the app's own OpenAPI description: whatever comes is answered as described, and not by a fault
of the server."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import schemathesis
from annotating import items
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from trivium.feedback.accounts import Accounts
from trivium.feedback.store import Store
from trivium.feedback.web import COOKIE, create_app


@pytest.mark.parametrize(("under", "examples"), [("/api/", 1), pytest.param("/", 10, marks=pytest.mark.long)])
def test_no_request_breaks_the_server(project: Path, under: str, examples: int) -> None:
    with Store(project, create=True) as store:
        store.add_items([*items(50), {"prompt": "Write!"}])
        boss = store.add_person("boss", "lead")
        for _ in range(3):
            task = store.next_work(boss)
            assert task is not None
            store.judge(task.id, boss, [[0], [1], [2]], [3, 2, 1])
        store.next_work(boss)
        store.next_work(boss, "write")
        desk, turns, seen = Accounts(store), itertools.count(), set()
        works = [event.id for event in store.events(["lease"])]
        schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(store))
        operations = [
            operation for found in schema.get_all_operations() if (operation := found.ok()).path.startswith(under)
        ]
        assert len(operations) > (25 if under == "/" else 5)
        for operation in operations:
            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def ask(case: schemathesis.Case) -> None:
                turn = next(turns)
                if turn % 5:  # most come from somebody who may do everything
                    if store.person("boss") is None:
                        store.add_person(f"boss {turn}", "lead")
                    leads = [one.id for one in store.people() if one.role == "lead" and not one.removed]
                    token = desk.open_session(leads[0])
                    case.cookies = {**(case.cookies or {}), COOKIE: token}
                    case.headers = {**(case.headers or {}), "x-csrf-token": desk.csrf(token)}
                    if isinstance(case.body, dict) and "csrf" in case.body:
                        case.body["csrf"] = desk.csrf(token)
                    if "number" in (case.path_parameters or {}) and turn % 2:
                        case.path_parameters["number"] = works[turn % len(works)]
                answer = case.call()
                seen.add(answer.status_code)
                case.validate_response(
                    answer, checks=[not_a_server_error, response_schema_conformance, status_code_conformance])
                assert "default-src 'none'" in answer.headers["content-security-policy"][0]
            ask()
        assert {200, 401, 422} <= seen
        assert len(list(store.events(["item"]))) == 51
