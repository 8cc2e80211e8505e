"""Requests made up from the server's own OpenAPI description: whatever comes is answered as described, and not by a
fault of the server."""

from __future__ import annotations

import os
import time

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from served import running

from trivium.serving.models import Limits

SECONDS = float(os.environ.get("TRIVIUM_FUZZ_SECONDS", "150"))
CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]


@pytest.mark.parametrize("seconds", [0, pytest.param(SECONDS, marks=pytest.mark.long)])
def test_no_request_breaks_the_server(folders, tmp_path, seconds):
    with running({"one": folders["one"]}, Limits(rows=2, context=64), feedback=tmp_path / "project") as address:
        schema, seen = schemathesis.openapi.from_url(f"{address}/openapi.json"), set()
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) > 8

        def ask_of(operation, examples):
            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def ask(case):
                if isinstance(case.body, dict) and len(seen) % 2 and "model" in case.body:
                    case.body["model"] = "one"
                answer = case.call()
                seen.add(answer.status_code)
                case.validate_response(answer, checks=CHECKS)
            ask()

        end = time.monotonic() + seconds
        while True:
            for operation in operations:
                ask_of(operation, 20 if seconds else 2)
            if time.monotonic() >= end:
                break
        assert {200, 400} <= seen
        assert httpx.get(address + "/health").status_code == 200
