from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import time
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from harness.errors import HarnessError
from harness.lab.fabric import Fabric
from harness.lab.http import Limits, Request, Response
from harness.lab.imds import VERSIONS
from tests.loopback import Answer, Wire, get, lines, listener, port_of, run, until

VERSION = "api-version=2021-02-01"
METADATA = "Metadata: true"
WIRE = "x-ms-version: 2012-11-30"


@dataclass
class Lab:
    fabric: Fabric
    ports: dict[str, int]

    async def get(self, name: str, path: str, *headers: str) -> Answer:
        return await get(self.ports[name], path, *headers)

    async def send(self, name: str, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
        async with Wire(self.ports[name]) as wire:
            head = "\n".join((f"{method} {path} HTTP/1.1", "Host: lab", f"Content-Length: {len(body)}", *headers))
            await wire.send(lines(head) + body)
            return await wire.answer(body=method != "HEAD")


@contextlib.asynccontextmanager
async def lab(limits: Limits | None = None, remember: int = 100) -> AsyncIterator[Lab]:
    sockets = {name: listener() for name in ("imds", "wireserver", "hostgaplugin")}
    ports = {name: port_of(sock) for name, sock in sockets.items()}
    fabric = Fabric(sockets, limits=limits, remember=remember)
    await fabric.start()
    try:
        yield Lab(fabric, ports)
    finally:
        await fabric.stop()


@pytest.mark.parametrize(
    ("path", "headers", "status", "said"),
    [
        (f"/metadata/instance?{VERSION}", (), 400, "Required metadata header not specified"),
        (f"/metadata/instance?{VERSION}", ("Metadata: false",), 400, "Required metadata header not specified"),
        (f"/metadata/instance?{VERSION}", (METADATA, "X-Forwarded-For: 10.0.0.9"), 400, "X-Forwarded-For"),
        ("/metadata/instance", (METADATA,), 400, "api-version was not specified"),
        ("/metadata/instance?api-version=1999-01-01", (METADATA,), 400, "api-version is invalid"),
        (f"/metadata/nothing?{VERSION}", (METADATA,), 404, "Not found"),
        (f"/metadata/instance/compute/nothing?{VERSION}", (METADATA,), 404, "Not found"),
        (f"/metadata/instance/network/interface/7?{VERSION}", (METADATA,), 404, "Not found"),
        (f"/metadata/instance/compute/location?{VERSION}", (METADATA,), 400, "format=text"),
        (f"/metadata/identity/oauth2/token?{VERSION}", (METADATA,), 400, "invalid_request"),
    ],
)
def test_imds_refuses_in_its_own_words(path: str, headers: tuple[str, ...], status: int, said: str) -> None:
    async def scenario() -> None:
        async with lab() as made:
            answer = await made.get("imds", path, *headers)
            assert answer.status == status
            assert answer.headers["content-type"] == "application/json; charset=utf-8"
            assert answer.headers["server"].startswith("IMDS/")
            body = json.loads(answer.body)
            assert said in body["error"]
            if "api-version" in said:
                assert body["newest-versions"] == sorted(VERSIONS, reverse=True)[:3]

    run(scenario)


def test_imds_refuses_other_methods() -> None:
    async def scenario() -> None:
        async with lab() as made:
            answer = await made.send("imds", "POST", f"/metadata/instance?{VERSION}", METADATA, body=b"x")
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")

    run(scenario)


def test_the_first_of_repeated_parameters_counts_whatever_its_case() -> None:
    async def scenario() -> None:
        async with lab() as made:
            for query, status in ((f"API-Version={VERSIONS[0]}&api-version=x", 200), ("api-version=x&" + VERSION, 400)):
                assert (await made.get("imds", f"/metadata/instance?{query}", METADATA)).status == status

    run(scenario)


def test_imds_tells_of_the_instance() -> None:
    async def scenario() -> None:
        async with lab() as made:
            whole = json.loads((await made.get("imds", f"/metadata/instance?{VERSION}", "metadata: True")).body)
            assert set(whole) == {"compute", "network"}
            headers = (await made.get("imds", "/metadata/versions", METADATA)).headers
            assert str(uuid.UUID(headers["x-ms-request-id"])) == headers["x-ms-request-id"]
            assert abs(email.utils.parsedate_to_datetime(headers["date"]).timestamp() - time.time()) < 3600
            part = json.loads((await made.get("imds", f"/metadata/instance/compute/?{VERSION}", METADATA)).body)
            assert part == whole["compute"]
            versions = json.loads((await made.get("imds", "/metadata/versions", METADATA)).body)
            assert versions == {"apiVersions": VERSIONS}
            token = f"/metadata/identity/oauth2/token?{VERSION}&resource=https%3A%2F%2Fvault.invalid"
            assert json.loads((await made.get("imds", token, METADATA)).body)["resource"] == "https://vault.invalid"

    run(scenario)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/metadata/instance", b"compute/\nnetwork/"),
        ("/metadata/instance/compute/vmSize", b"Standard_D2s_v3"),
        ("/metadata/instance/Network/interface/0/ipv4/ipAddress/0/privateIpAddress", b"10.0.0.4"),
        ("/metadata/instance/network/interface", b"0/"),
    ],
)
def test_imds_gives_text_on_request(path: str, text: bytes) -> None:
    async def scenario() -> None:
        async with lab() as made:
            answer = await made.get("imds", f"{path}?{VERSION}&format=text", METADATA)
            assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
            assert answer.body == text

    run(scenario)


def test_wireserver_leads_from_versions_to_the_shared_config() -> None:
    async def scenario() -> None:
        async with lab() as made:
            versions = ElementTree.fromstring((await made.get("wireserver", "/?comp=versions")).body)
            assert versions.findtext("Preferred/Version") == "2015-04-05"
            assert "2012-11-30" in [version.text for version in versions.findall("Supported/Version")]
            for path in ("/machine?comp=goalstate", "/machine/?comp=goalstate"):
                answer = await made.get("wireserver", path, WIRE)
                assert answer.headers["content-type"] == "text/xml; charset=utf-8"
                state = ElementTree.fromstring(answer.body)
                assert state.findtext("Machine/ExpectedState") == "Started"
            url = state.findtext("Container/RoleInstanceList/RoleInstance/Configuration/SharedConfig") or ""
            base = "http://168.63.129.16:80"
            assert url.startswith(base)
            shared = ElementTree.fromstring((await made.get("wireserver", url.removeprefix(base), WIRE)).body)
            assert shared.tag == "SharedConfig"
            stale = await made.get("wireserver", url.removeprefix(base).replace("incarnation=1", "incarnation=0"), WIRE)
            assert stale.status == 410

    run(scenario)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/machine?comp=goalstate", (), 400, "MissingRequiredHeader"),
        ("GET", "/machine?comp=goalstate", ("x-ms-version: 2000-01-01",), 400, "InvalidHeaderValue"),
        ("GET", "/machine?comp=other", (WIRE,), 400, "InvalidQueryParameterValue"),
        ("GET", "/", (), 400, "InvalidQueryParameterValue"),
        ("GET", "/elsewhere", (WIRE,), 404, "ResourceNotFound"),
        ("DELETE", "/?comp=versions", (WIRE,), 405, "UnsupportedHttpVerb"),
    ],
)
def test_wireserver_refuses_in_xml(method: str, path: str, headers: tuple[str, ...], status: int, code: str) -> None:
    async def scenario() -> None:
        async with lab() as made:
            answer = await made.send("wireserver", method, path, *headers)
            assert answer.status == status
            assert ElementTree.fromstring(answer.body).findtext("Code") == code

    run(scenario)


@pytest.mark.parametrize("comp", ["health", "roleProperties", "telemetrydata"])
def test_wireserver_takes_reports(comp: str) -> None:
    async def scenario() -> None:
        async with lab() as made:
            answer = await made.send("wireserver", "POST", f"/machine/?comp={comp}", WIRE, body=b"<x/>" * 50_000)
            assert answer.status == 200
            assert made.fabric.requests[-1].body_bytes == 200_000

    run(scenario)


def test_hostgaplugin_answers_as_agents_expect() -> None:
    async def scenario() -> None:
        async with lab() as made:
            assert json.loads((await made.get("hostgaplugin", "/versions")).body) == ["2015-09-01"]
            assert (await made.get("hostgaplugin", "/health")).status == 200
            settings = await made.get("hostgaplugin", "/vmSettings")
            assert json.loads(settings.body)["extensionGoalStates"] == []
            etag = f"If-None-Match: {settings.headers['etag']}"
            assert (await made.get("hostgaplugin", "/vmSettings", etag)).status == 304
            artifact = await made.get("hostgaplugin", "/extensionArtifact")
            assert (artifact.status, json.loads(artifact.body)["errorCode"]) == (400, "MissingRequiredHeader")
            log = ("x-ms-vmagentlog-deploymentid: a", "x-ms-vmagentlog-containerid: b")
            assert (await made.send("hostgaplugin", "PUT", "/vmAgentLog", *log, body=b"zip")).status == 200
            assert (await made.send("hostgaplugin", "PUT", "/vmAgentLog", body=b"zip")).status == 400
            assert (await made.send("hostgaplugin", "POST", "/versions")).status == 405
            assert (await made.get("hostgaplugin", "/other")).status == 404

    run(scenario)


def test_every_request_is_recorded_with_who_sent_it() -> None:
    async def scenario() -> None:
        async with lab() as made, Wire(made.ports["imds"]) as wire:
            await wire.ask(f"GET /metadata/instance?{VERSION} HTTP/1.1\nHost: lab\nMetadata: true")
            await wire.ask("GET /metadata/instance HTTP/1.1\nHost: lab")
            await wire.send(b"rubbish\r\n\r\n")
            assert (await wire.answer()).status == 400
            first, second, third = made.fabric.requests
            assert (first.endpoint, first.method, first.status) == ("imds", "GET", 200)
            assert first.target == f"/metadata/instance?{VERSION}"
            assert first.peer == ("127.0.0.1", wire.port)
            assert ("Metadata", "true") in first.headers
            assert second.status == 400
            assert (third.method, third.status) == ("", 400)
            assert "illegal request line" in third.note

    run(scenario)


def test_a_client_that_leaves_its_request_unfinished_is_recorded_too() -> None:
    async def scenario() -> None:
        async with lab() as made:
            async with Wire(made.ports["wireserver"]) as wire:
                await wire.send(lines("POST /machine?comp=health HTTP/1.1\nHost: lab\nContent-Length: 9") + b"half")
            await until(lambda: bool(made.fabric.requests))
            (seen,) = made.fabric.requests
            assert (seen.status, seen.body_bytes) == (None, 4)
            assert "hung up" in seen.note

    run(scenario)


def test_the_record_is_bounded() -> None:
    async def scenario() -> None:
        async with lab(remember=3) as made:
            for number in range(5):
                await made.get("hostgaplugin", f"/health?{number}")
            assert [seen.target for seen in made.fabric.requests] == ["/health?2", "/health?3", "/health?4"]

    run(scenario)


def test_a_scenario_can_delay_alter_and_break_an_answer() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def slow(request: Request, serve: Callable[[], Awaitable[Response]]) -> Response:
            await release.wait()
            response = await serve()
            return Response(503, response.headers, b"[]")

        async with lab() as made:
            made.fabric.scenarios["hostgaplugin"] = slow
            asked = asyncio.create_task(made.get("hostgaplugin", "/versions"))
            await until(lambda: made.fabric.open_connections == 1)
            assert (await made.get("wireserver", "/?comp=versions")).status == 200
            assert not asked.done()
            release.set()
            assert ((await asked).status, (await asked).body) == (503, b"[]")
            del made.fabric.scenarios["hostgaplugin"]
            assert (await made.get("hostgaplugin", "/versions")).status == 200

    run(scenario)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with listener() as sock, pytest.raises(HarnessError, match="the services are imds, wireserver, hostgaplugin"):
        Fabric({"imbs": sock})
