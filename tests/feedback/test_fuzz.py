"""Requests made up from the app's own OpenAPI description: whatever comes, it is answered, and not by a fault of the server."""

from __future__ import annotations

import itertools

import pytest
import schemathesis
from conftest import items
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from trivium.feedback.accounts import Accounts
from trivium.feedback.store import Store
from trivium.feedback.web import COOKIE, create_app


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with Store(tmp_path_factory.mktemp("fuzz") / "p", create=True) as store:
        store.add_items([*items(50), {"prompt": "Write!"}])
        lead = store.add_person("lead", "lead")
        store.add_person("second lead", "lead")
        for _ in range(3):
            task = store.next_work(lead)
            assert task is not None
            store.judge(task.id, lead, [[0], [1], [2]], [3, 2, 1])
        store.next_work(lead)
        app = create_app(store)
        yield store, lead, schemathesis.openapi.from_asgi("/openapi.json", app)


schema = schemathesis.pytest.from_fixture("fuzzed_schema")
turns = itertools.count()


@pytest.fixture(scope="module")
def fuzzed_schema(fuzzed):  # type: ignore[no-untyped-def]
    return fuzzed[2]


@schema.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_server(case, fuzzed) -> None:  # type: ignore[no-untyped-def]
    store, lead, _ = fuzzed
    desk = Accounts(store)
    if next(turns) % 5:
        with store.state() as state:
            present = lead if any(not one.removed and one.id == lead for one in store.people()) else None
            works = sorted(state.works)
        token = desk.open_session(present or store.add_person(f"lead {next(turns)}", "lead"))
        case.cookies = {**(case.cookies or {}), COOKIE: token}
        case.headers = {**(case.headers or {}), "x-csrf-token": desk.csrf(token)}
        if isinstance(case.body, dict) and "csrf" in case.body:
            case.body["csrf"] = desk.csrf(token)
        if case.path_parameters and "number" in case.path_parameters and next(turns) % 2:
            case.path_parameters["number"] = works[next(turns) % len(works)]
    answer = case.call()
    case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance, status_code_conformance])
    assert "default-src 'none'" in answer.headers["content-security-policy"][0]
