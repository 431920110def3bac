from __future__ import annotations

import contextlib
import email.utils
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.lab.fabric import Fabric
from harness.lab.scenarios import DEFAULT, KNOWN, SCENARIOS, Scenario, scenario
from harness.lab.secure_channel import Key, SecureChannel, new_key
from harness.msp import signature
from tests.loopback import Answer, Wire, lines, listener, port_of, run

STATUS = "/secure-channel/status"
KEY = "/secure-channel/key"
WANTED = json.dumps({"authorizationScheme": "Azure-HMAC-SHA256"}).encode()
IMDS = "/metadata/instance?api-version=2021-02-01"


@dataclass
class Rig:
    channel: SecureChannel
    ports: dict[str, int]

    async def send(
        self,
        method: str,
        path: str,
        *,
        key: Key | None = None,
        body: bytes = b"",
        service: str = "wireserver",
        ahead: float = 0,
        **headers: str,
    ) -> Answer:
        rows = {
            "Host": "lab",
            "Content-Length": str(len(body)),
            "Metadata": "True",
            signature.DATE: email.utils.formatdate(time.time() + ahead, usegmt=True),
            signature.CLAIMS: '{ "isRoot": "true"}',
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            rows[signature.AUTHORIZATION] = signature.sign(key.guid, key.key, method, path, rows.items(), body)
        head = "\n".join((f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in rows.items())))
        async with Wire(self.ports[service]) as wire:
            await wire.send(lines(head) + body)
            return await wire.answer()

    async def acquire(self) -> Key:
        answer = await self.send("POST", KEY, body=WANTED)
        assert answer.status == 200
        told = json.loads(answer.body)
        return Key(told["guid"], told["key"], told["issued"], told["incarnationId"])

    async def attest(self, key: Key, **changes: Any) -> int:
        return (await self.send("POST", f"{KEY}/{key.guid}/key-attestation", key=key, **changes)).status

    async def status(self) -> dict[str, Any]:
        answer = await self.send("GET", STATUS)
        assert answer.status == 200
        told: dict[str, Any] = json.loads(answer.body)
        return told


@contextlib.asynccontextmanager
async def rig(wanted: Scenario = DEFAULT) -> AsyncIterator[Rig]:
    sockets = {name: listener() for name in ("imds", "wireserver", "hostgaplugin")}
    ports = {name: port_of(sock) for name, sock in sockets.items()}
    channel = SecureChannel(wanted)
    fabric = Fabric(sockets, channel=channel)
    await fabric.start()
    try:
        yield Rig(channel, ports)
    finally:
        await fabric.stop()


def test_a_key_is_offered_attested_and_then_named_by_the_status() -> None:
    async def scene() -> None:
        async with rig() as made:
            assert (await made.status())["keyGuid"] is None
            key = await made.acquire()
            assert (await made.status())["keyGuid"] is None  # not before it is attested
            assert await made.attest(key) == 200
            assert (await made.status())["keyGuid"] == key.guid
            assert [event.what for event in made.channel.events] == ["status", "acquire", "status", "attest", "status"]
            assert made.channel.events[3].verdict == "verified"
            assert all(event.missing == () for event in made.channel.events)

    run(scene)


def test_no_second_key_while_one_is_latched() -> None:
    async def scene() -> None:
        async with rig() as made:
            assert await made.attest(await made.acquire()) == 200
            assert (await made.send("POST", KEY, body=WANTED)).status == 403

    run(scene)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"authorizationScheme": "Azure-RSA"}'])
def test_a_key_is_given_for_the_known_scheme_only(body: bytes) -> None:
    async def scene() -> None:
        async with rig() as made:
            assert (await made.send("POST", KEY, body=body)).status == 400
            assert made.channel.offered is None

    run(scene)


def test_an_attestation_must_be_signed_with_that_key_now_and_be_unaltered() -> None:
    async def scene() -> None:
        async with rig() as made:
            key = await made.acquire()
            path = f"{KEY}/{key.guid}/key-attestation"
            assert (await made.send("POST", path)).status == 403
            other = new_key(1)
            assert (await made.send("POST", path, key=other)).status == 403
            assert (await made.send("POST", path, key=Key(key.guid, other.key, "", 1))).status == 403
            assert await made.attest(key, ahead=3600) == 403
            verdicts = [event.verdict for event in made.channel.events][1:]
            assert verdicts[:3] == ["unsigned", f"no key {other.guid}", "the signature is another"]
            assert verdicts[3].startswith("the date is ")
            assert made.channel.latched is None
            assert await made.attest(key) == 200

    run(scene)


def test_once_latched_and_enforced_only_what_is_signed_is_answered() -> None:
    async def scene() -> None:
        async with rig() as made:
            assert (await made.send("GET", IMDS, service="imds")).status == 200  # nothing latched: nothing asked
            key = await made.acquire()
            await made.attest(key)
            assert (await made.send("GET", IMDS, service="imds")).status == 403
            assert (await made.send("GET", IMDS, service="imds", key=key)).status == 200
            large = b"x" * 200_000
            arguments: dict[str, Any] = {"body": large, "x_ms_version": "2012-11-30"}
            health = "/machine?comp=health"
            assert (await made.send("POST", health, key=key, **arguments)).status == 200
            assert (await made.send("POST", health, **arguments)).status == 403
            assert (await made.send("POST", "/machine/?comp=telemetrydata", **arguments)).status == 200
            headers: dict[str, Any] = {"x_ms_vmagentlog_deploymentid": "d", "x_ms_vmagentlog_containerid": "c"}
            assert (await made.send("PUT", "/vmAgentLog", service="hostgaplugin", **headers)).status == 200
            seen = [event for event in made.channel.events if event.what == "request"]
            assert [event.verdict for event in seen[:3]] == ["unsigned", "unsigned", "verified"]
            assert seen[2].claims == '{ "isRoot": "true"}'

    run(scene)


@pytest.mark.parametrize("wanted", ["audit", "v1-wireserver"])
def test_where_it_is_not_enforced_imds_answers_unsigned_requests(wanted: str) -> None:
    async def scene() -> None:
        async with rig(scenario(wanted)) as made:
            await made.attest(await made.acquire())
            assert (await made.send("GET", IMDS, service="imds")).status == 200
            status = (await made.send("GET", "/?comp=versions")).status
            assert status == (200 if wanted == "audit" else 403)

    run(scene)


@given(st.lists(st.integers(-3, 9), max_size=12))
def test_only_a_strictly_larger_incarnation_resets_the_key(values: list[int]) -> None:
    channel = SecureChannel(scenario("unknown"))
    for value in values:
        before = (channel.incarnation, channel.latched)
        changed = channel.reset(value)
        assert changed is (value > before[0])
        if changed:
            assert (channel.incarnation, channel.latched) == (value, None)
        else:
            assert (channel.incarnation, channel.latched) == before


def test_a_reset_offers_a_new_key() -> None:
    async def scene() -> None:
        async with rig(scenario("unknown")) as made:
            lost = (await made.status())["keyGuid"]
            assert lost
            assert (await made.send("POST", KEY, body=WANTED)).status == 403
            assert not made.channel.reset(1)
            assert (await made.send("POST", KEY, body=WANTED)).status == 403
            assert made.channel.reset(2)
            told = await made.status()
            assert (told["keyGuid"], told["keyIncarnationId"]) == (None, 2)
            key = await made.acquire()
            assert (key.incarnation, key.guid != lost) == (2, True)

    run(scene)


VERSION_1 = {"authorizationScheme", "keyDeliveryMethod", "keyGuid", "keyIncarnationId", "requiredClaimsHeaderPairs",
             "version", "secureChannelState"}  # fmt: skip
VERSION_2 = VERSION_1 - {"secureChannelState"} | {"secureChannelEnabled", "authorizationRules"}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("enforce", VERSION_2),
        ("v1", VERSION_1),
        ("disabled", VERSION_2),
        ("status-missing", VERSION_2 - {"authorizationScheme", "keyDeliveryMethod"}),
    ],
)
def test_the_members_of_a_status(name: str, members: set[str]) -> None:
    async def scene() -> None:
        async with rig(scenario(name)) as made:
            assert set(await made.status()) == members

    run(scene)


def test_refusals_of_scenarios() -> None:
    async def scene() -> None:
        async with rig(scenario("refused")) as made:
            assert (await made.send("POST", KEY, body=WANTED)).status == 403
            made.channel.set_scenario(scenario("attest-refused"))
            key = await made.acquire()
            assert await made.attest(key) == 403
            made.channel.set_scenario(scenario("clock"))
            assert await made.attest(key) == 403
            made.channel.set_scenario(DEFAULT)
            assert await made.attest(key) == 200
            made.channel.set_scenario(scenario("status-malformed"))
            answer = await made.send("GET", STATUS)
            with pytest.raises(ValueError, match="Unterminated string"):
                json.loads(answer.body)
            made.channel.set_scenario(scenario("status-error"))
            assert (await made.send("GET", STATUS)).status == 500

    run(scene)


def test_unreachable_resets_wireserver_and_leaves_imds() -> None:
    async def scene() -> None:
        async with rig(scenario("unreachable")) as made:
            async with Wire(made.ports["wireserver"]) as wire:
                await wire.send(lines(f"GET {STATUS} HTTP/1.1\nHost: lab"))
                assert await wire.is_reset()
            assert (await made.send("GET", IMDS, service="imds")).status == 200

    run(scene)


def test_slow_answers_come_after_their_delay() -> None:
    async def scene() -> None:
        async with rig(DEFAULT.changed(delay=0.05)) as made:
            started = time.monotonic()
            await made.status()
            assert time.monotonic() - started >= 0.05

    run(scene)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", KEY, 404), ("POST", STATUS, 404), ("GET", "/secure-channel/x", 404), ("PUT", KEY, 405)],
)
def test_what_is_not_offered(method: str, path: str, status: int) -> None:
    async def scene() -> None:
        async with rig() as made:
            assert (await made.send(method, path)).status == status

    run(scene)


def test_without_a_channel_its_paths_do_not_exist() -> None:
    async def scene() -> None:
        sock = listener()
        fabric = Fabric({"wireserver": sock})
        await fabric.start()
        try:
            async with Wire(port_of(sock)) as wire:
                assert (await wire.ask(f"GET {STATUS} HTTP/1.1\nHost: lab")).status == 404
        finally:
            await fabric.stop()

    run(scene)


def test_headers_that_an_agent_sends_are_missed() -> None:
    async def scene() -> None:
        async with rig() as made, Wire(made.ports["wireserver"]) as wire:
            assert (await wire.ask(f"GET {STATUS} HTTP/1.1\nHost: lab\nMetadata: True")).status == 200
            assert made.channel.events[0].missing == (signature.DATE, signature.CLAIMS)

    run(scene)


def test_scenarios_have_names_of_their_own_and_go_through_json() -> None:
    assert len({row.name for row in SCENARIOS}) == len(SCENARIOS)
    for row in SCENARIOS:
        again = SecureChannel(Scenario(**json.loads(json.dumps(row.dump()))))
        assert (again.known_key is not None) is (row.latched == KNOWN)
        assert again.status() | {"keyGuid": None} == SecureChannel(row).status() | {"keyGuid": None}


def test_an_unknown_scenario_names_the_nearest() -> None:
    with pytest.raises(HarnessError, match="did you mean audit"):
        scenario("audited")
