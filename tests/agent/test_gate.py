"""The proxy of a whole agent: rules, claims and signatures, as the platform sees them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.agent.redirector import Redirector
from harness.agent.reference import ReferenceAgent
from harness.lab import scenarios
from harness.lab.scenarios import Scenario, item, scenario
from harness.lab.secure_channel import Event
from harness.msp.signature import AUTHORIZATION, CLAIMS, DATE
from harness.program.maps import AuditRecord
from tests.agent.platform import Platform, platform, running
from tests.loopback import Answer, Wire, lines, run, until

IMDS = "/metadata/instance?api-version=2021-02-01"
VERSION = "x-ms-version: 2012-11-30"


@dataclass
class Rig:
    """An agent whose every client is written down as this record says."""

    made: Platform
    agent: ReferenceAgent
    record: AuditRecord | None

    def client(self, endpoint: str, uid: int = 0) -> None:
        row = self.made.config.endpoint(endpoint)
        self.record = AuditRecord(uid, os.getppid(), uid == 0, row.address, row.port)

    async def send(self, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
        async with Wire(self.made.config.port) as wire:
            await wire.send(lines("\n".join((f"{method} {path} HTTP/1.1", "Host: lab", *headers))) + body)
            return await wire.answer()

    def requests(self) -> list[Event]:
        found = [event for event in self.made.channel.events if event.what == "request"]
        self.made.channel.events.clear()
        return found


@contextlib.asynccontextmanager
async def rig(home: Path, monkeypatch: pytest.MonkeyPatch, wanted: Scenario = scenarios.DEFAULT) -> AsyncIterator[Rig]:
    async with platform(home, wanted) as made, running(made) as agent:
        made_rig = Rig(made, agent, None)
        monkeypatch.setattr(Redirector, "audit", lambda self, port: made_rig.record)
        await until(lambda: agent.keeper.ready and agent.board.modules["telemetryLoggerStatus"].status == "RUNNING")
        made.channel.events.clear()
        yield made_rig


def test_what_is_forwarded_is_signed_and_carries_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch) as made:
            made.client("imds")
            assert (await made.send("GET", IMDS, "Metadata: true")).status == 200
            (event,) = made.requests()
            assert (event.verdict, event.endpoint) == ("verified", "imds")
            claims = json.loads(event.claims)
            assert (claims["userId"], claims["userName"], claims["runAsElevated"]) == (0, "root", True)
            assert claims["processId"] == os.getppid()
            assert claims["processFullPath"] == str(Path(f"/proc/{os.getppid()}/exe").readlink())

    run(scene)


@pytest.mark.parametrize("name", [AUTHORIZATION, CLAIMS, DATE, CLAIMS.upper(), "x-ms-azure-host-other"])
def test_forged_headers_are_overwritten(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch) as made:
            made.client("imds", 65534)
            assert (await made.send("GET", IMDS, "Metadata: true", f"{name}: forged")).status == 200
            (event,) = made.requests()
            assert event.verdict == "verified"
            assert json.loads(event.claims)["userId"] == 65534
            seen = made.made.fabric.requests[-1]
            assert "forged" not in [value for _, value in seen.headers]
            assert len([key for key, _ in seen.headers if key.lower() == name.lower()]) <= 1

    run(scene)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("Content-Length: 5", b"hello"),
        ("Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ("Content-Length: 0", b""),
        ("Content-Length: 200000", b"x" * 200_000),
    ],
)
def test_bodies_are_signed_however_they_come(
    framing: str, body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch) as made:
            made.client("wireserver")
            target = "/machine?b=2&comp=health&A=%2F&flag"
            answer = await made.send("POST", target, VERSION, framing, body=body)
            assert answer.status == 200
            (event,) = made.requests()
            assert event.verdict == "verified"
            framed = {name.lower() for name, _ in made.made.fabric.requests[-1].headers}
            assert ("content-length" in framed, "transfer-encoding" in framed) == (True, False)
            assert made.made.fabric.requests[-1].body_bytes == (len(body) if "Length" in framing else 5)

    run(scene)


def test_a_body_too_long_to_be_signed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch) as made:
            monkeypatch.setattr("harness.agent.proxy.SIGNED_BODY", 10)
            made.client("wireserver")
            answer = await made.send("POST", "/machine?comp=health", VERSION, "Content-Length: 11", body=b"x" * 11)
            assert answer.status == 413
            assert made.requests() == []

    run(scene)


def test_telemetry_and_logs_are_passed_on_unsigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch) as made:
            monkeypatch.setattr("harness.agent.proxy.SIGNED_BODY", 10)
            made.client("wireserver")
            body = b"x" * 100_000
            length = f"Content-Length: {len(body)}"
            assert (await made.send("POST", "/machine/?comp=telemetrydata", VERSION, length, body=body)).status == 200
            made.client("hostgaplugin")
            names = ("x-ms-vmagentlog-deploymentid: d", "x-ms-vmagentlog-containerid: c")
            assert (await made.send("PUT", "/vmAgentLog", *names, length, body=body)).status == 200
            assert [(event.verdict, bool(event.claims)) for event in made.requests()] == [("unsigned", True)] * 2

    run(scene)


def test_without_a_key_claims_are_sent_and_nothing_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch, scenario("disabled")) as made:
            made.client("imds")
            assert (await made.send("GET", IMDS, "Metadata: true")).status == 200
            (event,) = made.requests()
            assert (event.verdict, bool(event.claims)) == ("unsigned", True)

    run(scene)


def test_connect_is_refused_and_nothing_forwarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch) as made:
            for endpoint in ("imds", None):
                if endpoint:
                    made.client(endpoint)
                else:
                    made.record = None
                async with Wire(made.made.config.port) as wire:
                    assert (await wire.ask("CONNECT 1.2.3.4:80 HTTP/1.1\nHost: 1.2.3.4")).status == 405
            assert made.requests() == []

    run(scene)


def test_a_redirected_client_gets_the_endpoints_provision_and_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the agent answers itself, it answers to who asked the agent."""

    async def scene() -> None:
        async with rig(tmp_path, monkeypatch) as made:
            made.client("wireserver")
            for path in ("/status", "/provision"):
                assert (await made.send("GET", path)).status == 404
            assert len(made.requests()) == 2

    run(scene)


USERS = item("enforce", "deny", "users",
             privileges=[{"name": "goal", "path": "/machine"}],
             roles=[{"name": "agent", "privileges": ["goal"]}],
             identities=[{"name": "nobody", "userName": "nobody"}],
             roleAssignments=[{"role": "agent", "identities": ["nobody"]}])  # fmt: skip
GOAL = "/machine?comp=goalstate"


@pytest.mark.parametrize(
    ("rules", "endpoint", "path", "uid", "status"),
    [
        (scenarios.items("enforce"), "imds", IMDS, 65534, 200),
        (scenarios.items("enforce"), "wireserver", GOAL, 0, 200),
        (scenarios.items("enforce"), "wireserver", GOAL, 65534, 403),
        (scenarios.items("audit"), "wireserver", GOAL, 65534, 403),
        (scenarios.items("enforce", "deny"), "imds", IMDS, 0, 403),
        (scenarios.items("audit", "deny"), "imds", IMDS, 0, 200),
        (scenarios.items("audit", "deny"), "imds", IMDS, 65534, 200),
        (scenarios.items("disabled", "deny"), "imds", IMDS, 0, 200),
        ({"wireserver": USERS}, "wireserver", GOAL, 65534, 200),
        ({"wireserver": USERS}, "wireserver", GOAL, 0, 403),
        ({"wireserver": USERS}, "wireserver", "/?comp=versions", 65534, 403),
        ({"wireserver": USERS}, "hostgaplugin", "/versions", 0, 403),  # follows wireserver
    ],
)
def test_modes_and_rules(
    rules: dict[str, Any],
    endpoint: str,
    path: str,
    uid: int,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch, scenarios.DEFAULT.changed(rules=rules)) as made:
            made.client(endpoint, uid)
            assert (await made.send("GET", path, VERSION, "Metadata: true")).status == status
            failed = made.agent.board.document()["failedAuthenticateSummary"]
            assert [row["responseStatus"] for row in failed] == (["403"] if status == 403 else [])
            assert len(made.requests()) == (0 if status == 403 else 1)

    run(scene)


def test_what_is_only_audited_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with rig(tmp_path, monkeypatch, scenario("audit-denied")) as made:
            made.client("imds")
            await made.send("GET", IMDS, "Metadata: true")
            assert "audit: would be refused: GET /metadata/instance" in made.made.config.log_file.read_text()

    run(scene)
