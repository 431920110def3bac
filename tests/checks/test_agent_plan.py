"""Where each scenario leads an agent, who may ask then, and what is wrong with a request: without a kernel."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.checks.agent_steps import Plan, plan_of
from harness.checks.agent_traffic import allowed, executable_of_clients, parse_claims, unproved
from harness.lab.agent_files import AgentFiles, problem_of
from harness.lab.clients import NOBODY, PATHS
from harness.lab.scenarios import SCENARIOS, scenario
from harness.lab.secure_channel import Event, SecureChannel
from harness.msp.endpoints import ENDPOINTS, HOSTGAPLUGIN, IMDS, WIRESERVER

LEADS = {
    "disabled": "unwanted",
    "v1-disabled": "unwanted",
    **dict.fromkeys(
        ("unknown", "refused", "attest-refused", "status-error", "status-malformed", "status-missing", "status-scheme",
         "unreachable", "clock"),
        "refused",
    ),
}  # fmt: skip


def plan(name: str) -> Plan:
    wanted = scenario(name)
    return plan_of(wanted, SecureChannel(wanted).status())


@pytest.mark.parametrize("name", [row.name for row in SCENARIOS])
def test_where_a_scenario_leads(name: str) -> None:
    found = plan(name)
    assert found.key == LEADS.get(name, "latched")
    assert (found.refusal is not None) == (found.key == "refused")
    assert found.key == "latched" or found.redirected == ()


def test_what_is_redirected() -> None:
    assert plan("enforce").redirected == ENDPOINTS
    assert plan("rules-disabled").redirected == ()
    assert plan("v1-wireserver").redirected == (WIRESERVER, HOSTGAPLUGIN)


@pytest.mark.parametrize(
    ("name", "endpoint", "uid", "may"),
    [
        ("enforce", IMDS, NOBODY, True),
        ("enforce", WIRESERVER, NOBODY, False),
        ("enforce", WIRESERVER, 0, True),
        ("denied", IMDS, 0, False),
        ("audit-denied", IMDS, NOBODY, True),
        ("audit", WIRESERVER, NOBODY, False),
        ("imds-root", IMDS, NOBODY, False),
        ("imds-root", IMDS, 0, True),
    ],
)
def test_who_may_ask(name: str, endpoint: object, uid: int, may: bool) -> None:
    assert allowed(plan(name), endpoint, uid, PATHS[endpoint.name]) is may  # type: ignore[attr-defined, arg-type]


CLAIMS = {
    "userId": 0,
    "processId": 42,
    "processFullPath": str(executable_of_clients()),
    "runAsElevated": True,
}
EVENT = Event("request", "imds", "GET", "/", 0, "verified", claims=json.dumps(CLAIMS))


def test_a_proved_request() -> None:
    assert list(unproved(EVENT, 42, 0)) == []
    strings = {name: str(value).lower() if value is True else str(value) for name, value in CLAIMS.items()}
    assert list(unproved(replace(EVENT, claims=json.dumps(strings)), 42, 0)) == []


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_that_lacks_or_lies(name: str) -> None:
    lacking = {key: value for key, value in CLAIMS.items() if key != name}
    (problem,) = unproved(replace(EVENT, claims=json.dumps(lacking)), 42, 0)
    assert f"lack {name}" in problem
    (problem,) = unproved(replace(EVENT, claims=json.dumps(CLAIMS | {name: "other"})), 42, 0)
    assert f"say {name} other" in problem


def test_no_claims_and_no_signature() -> None:
    assert len(list(unproved(replace(EVENT, verdict="unsigned"), 42, 0))) == 1
    for text in ("", "[1]", "{", "[" * 100_000):
        assert parse_claims(text) is None
        assert len(list(unproved(replace(EVENT, claims=text), 42, 0))) == 1


def test_what_can_be_executed(tmp_path: Path) -> None:
    assert problem_of(Path("/bin/sh").resolve()) == ""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert "EACCES" in problem_of(script) or os.access(script, os.X_OK)
    script.chmod(0o755)
    assert problem_of(script) == ""
    assert "regular" in problem_of(tmp_path)
    assert "laboratories" in AgentFiles().title
