from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent import key_status
from harness.agent.key_folder import Key, KeyFolder, KeyUnusable, parse_key
from harness.agent.key_status import InvalidStatus
from harness.agent.keys import RESTING, SETBACKS, TRANSITIONS, Event, State
from harness.agent.rules import Mode
from harness.lab import scenarios
from harness.lab.scenarios import scenario
from harness.lab.secure_channel import SecureChannel, new_key
from tests.agent.platform import TIMES, platform, watch
from tests.loopback import run, until

HEX = "4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59"


# --- the machine as a table -------------------------------------------------------------------------------------


def test_every_resting_state_takes_every_outcome_of_a_poll() -> None:
    for state in RESTING:
        for event in (Event.NO_STATUS, Event.NOT_WANTED, Event.FOUND, Event.ABSENT):
            assert TRANSITIONS[state, event] in RESTING


def test_only_attested_held_and_found_keys_are_latched() -> None:
    ways = {event for (_, event), after in TRANSITIONS.items() if after is State.LATCHED}
    assert ways == {Event.ATTESTED, Event.HELD, Event.FOUND, Event.NO_STATUS}
    assert [before for (before, event), after in TRANSITIONS.items()
            if after is State.LATCHED and event is Event.NO_STATUS] == [State.LATCHED]  # fmt: skip


def test_every_setback_ends_in_a_resting_state() -> None:
    for (_, event), after in TRANSITIONS.items():
        if event in SETBACKS:
            assert after in RESTING


def test_every_state_is_reached() -> None:
    assert {*TRANSITIONS.values(), State.UNKNOWN} == set(State)


# --- against the platform ---------------------------------------------------------------------------------------


def test_from_nothing_to_a_latched_key(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            seen = watch(made)
            assert (seen.keeper.state, seen.keeper.key) == (State.UNKNOWN, None)
            assert seen.keeper.states()["secureChannelState"] == "Unknown"
            assert await seen.poll() == "absent, acquired, saved, attested"
            assert [step.after for step in seen.steps] == [
                State.MISSING, State.OFFERED, State.STORED, State.LATCHED,
            ]  # fmt: skip
            latched = made.channel.latched
            assert latched
            assert seen.keeper.key == Key(latched.guid, latched.key, latched.issued, 1)
            assert seen.keeper.message == "Successfully attest the key and ready to use."
            assert seen.keeper.states() == {
                "secureChannelState": "WireServer Enforce -  IMDS Enforce - HostGA Enforce",
                "keyGuid": latched.guid,
                "keyIncarnationId": "1",
                "wireServerRuleId": "msp-lab-wireserver",
                "imdsRuleId": "msp-lab-imds",
                "hostGARuleId": "msp-lab-hostga",
            }
            assert made.whats() == ["status", "acquire", "attest"]
            assert await seen.poll() == "held"
            assert made.whats() == ["status"]
            assert len(seen.applied) == 2

    run(scene)


def test_no_event_is_without_the_headers_of_an_agent(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            await watch(made).poll()
            assert [event.missing for event in made.channel.events] == [(), (), ()]

    run(scene)


def test_folder_and_files_are_roots_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            made.folder.path.mkdir(mode=0o755)
            await watch(made).poll()
            assert stat.S_IMODE(made.folder.path.stat().st_mode) == 0o700
            assert made.channel.latched
            file = made.folder.file(made.channel.latched.guid)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert [path.name for path in made.folder.path.iterdir()] == [f"{made.channel.latched.guid}.key"]

    run(scene)


def test_a_key_in_the_folder_is_found_and_nothing_acquired(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path, scenario("known")) as made:
            known = made.channel.known_key
            assert known
            made.folder.save(Key(known.guid, known.key, known.issued, known.incarnation))
            seen = watch(made)
            assert await seen.poll() == "found"
            assert made.whats() == ["status"]
            assert seen.keeper.message == "Found key details from local and ready to use."
            assert await seen.poll() == "held"
            assert seen.keeper.message == "Found key details from local and ready to use."

    run(scene)


def test_a_lost_key_is_refused_until_a_larger_incarnation(tmp_path: Path) -> None:
    """Strictly larger: equal and smaller values change nothing; then healthy again without a restart."""

    async def scene() -> None:
        async with platform(tmp_path, scenario("unknown")) as made:
            seen = watch(made)
            for incarnation in (None, 1, 0, -1):
                assert incarnation is None or not made.channel.reset(incarnation)
                assert await seen.poll() == "absent, refused"
                assert seen.keeper.message == 'Failed to acquire key details: Key(KeyResponse("acquire", 403))'
                assert (seen.keeper.state, seen.keeper.key) == (State.MISSING, None)
                assert seen.keeper.states()["secureChannelState"] == "Unknown"
                assert "keyGuid" not in seen.keeper.states()
            assert seen.applied == []
            assert made.channel.reset(2)
            assert await seen.poll() == "absent, acquired, saved, attested"
            assert seen.keeper.states()["keyIncarnationId"] == "2"
            assert len(seen.applied) == 1

    run(scene)


def test_a_reset_of_a_latched_key_gives_another(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            seen = watch(made)
            await seen.poll()
            first = seen.keeper.key
            assert made.channel.reset(7)
            assert await seen.poll() == "absent, acquired, saved, attested"
            assert seen.keeper.key
            assert first
            assert (seen.keeper.key.guid != first.guid, seen.keeper.key.incarnation) == (True, 7)
            assert len(list(made.folder.path.glob("*.key"))) == 2

    run(scene)


@pytest.mark.parametrize(
    ("name", "events", "message"),
    [
        ("disabled", "not wanted", "Customer has not enforce the secure channel state."),
        ("v1-disabled", "not wanted", "Customer has not enforce the secure channel state."),
        ("refused", "absent, refused", 'Failed to acquire key details: Key(KeyResponse("acquire", 403))'),
        (
            "attest-refused",
            "absent, acquired, saved, not attested",
            'Failed to attest the key: Key(KeyResponse("attest", 403))',
        ),
        (
            "clock",
            "absent, acquired, saved, not attested",
            'Failed to attest the key: Key(KeyResponse("attest", 403))',
        ),
        (
            "status-error",
            "no status",
            "Failed to get key status - Key error: Failed to status key with status code: 500",
        ),
        (
            "status-malformed",
            "no status",
            "Failed to get key status - Key error: Key status validation failed with the error: the body is not JSON",
        ),
        (
            "status-missing",
            "no status",
            "Failed to get key status - Key error: Key status validation failed with the error: "
            "authorizationScheme must be 'Azure-HMAC-SHA256'",
        ),
        (
            "unreachable",
            "no status",
            "Failed to get key status - Key error: Failed to send status key with error: ",
        ),
    ],
)
def test_what_is_said_of_each_trouble(name: str, events: str, message: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path, scenario(name)) as made:
            seen = watch(made)
            for _ in range(2):  # the second time the same, and nothing worse
                assert await seen.poll() == events
                assert seen.keeper.message.startswith(message)
                assert seen.keeper.key is None
            made.channel.set_scenario(scenarios.DEFAULT)
            await seen.poll()
            assert seen.keeper.state is State.LATCHED

    run(scene)


def test_a_latched_key_survives_polls_that_fail(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            seen = watch(made)
            await seen.poll()
            key = seen.keeper.key
            made.channel.set_scenario(scenario("status-error"))
            assert await seen.poll() == "no status"
            assert seen.keeper.message.startswith("Failed to get key status - ")
            assert (seen.keeper.key, key is not None) == (key, True)
            assert len(seen.applied) == 1
            made.channel.set_scenario(scenarios.DEFAULT)
            assert await seen.poll() == "held"
            assert seen.keeper.message == "Successfully attest the key and ready to use."

    run(scene)


def test_a_key_that_is_no_longer_wanted_does_not_sign(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            seen = watch(made)
            await seen.poll()
            made.channel.set_scenario(scenario("disabled"))
            assert await seen.poll() == "not wanted"
            assert (seen.keeper.key, seen.keeper.ready) == (None, True)
            made.channel.set_scenario(scenarios.DEFAULT)
            assert await seen.poll() == "found"

    run(scene)


def test_a_key_that_cannot_be_saved_is_not_attested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            seen = watch(made)

            def full(*_: object) -> None:
                raise OSError(errno.ENOSPC, "no space")

            with monkeypatch.context() as patched:
                patched.setattr("os.fsync", full)
                assert await seen.poll() == "absent, acquired, not saved"
            assert seen.keeper.message.startswith("Failed to save key details to file: ")
            assert "ENOSPC" in seen.keeper.message
            assert list(made.folder.path.glob("*.key")) == []
            assert await seen.poll() == "absent, acquired, saved, attested"

    run(scene)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"guid": 1}', json.dumps({"key": HEX})])
def test_a_damaged_file_of_the_key_is_said_and_then_acquired_anew(content: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path, scenario("unknown")) as made:
            assert made.channel.latched
            made.folder.prepare()
            made.folder.file(made.channel.latched.guid).write_text(content)
            seen = watch(made)
            assert await seen.poll() == "absent, refused"
            assert seen.steps[0].message.startswith(
                f"Failed to check the key '{made.channel.latched.guid}' details saved locally: "
            )

    run(scene)


def test_it_polls_by_itself_often_while_unknown_and_when_woken(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path, scenario("unknown"), times=replace(TIMES, poll=3600, unknown=0.001)) as made:
            seen = watch(made)
            task = asyncio.create_task(seen.keeper.run())
            await until(lambda: seen.keeper.polls > 3)  # a refused key leaves the state unknown
            made.channel.reset(2)
            await until(lambda: seen.keeper.ready)
            polls = seen.keeper.polls
            seen.keeper.wake()
            await until(lambda: seen.keeper.polls == polls + 1)
            task.cancel()
            await asyncio.wait({task})

    run(scene)


# --- the status -------------------------------------------------------------------------------------------------


def body(name: str = "enforce", **changes: Any) -> bytes:
    found = SecureChannel(scenario(name)).status() | changes
    return json.dumps({key: value for key, value in found.items() if value != "absent"}).encode()


@pytest.mark.parametrize(
    ("name", "state", "modes"),
    [
        ("enforce", "WireServer Enforce -  IMDS Enforce - HostGA Enforce", "eee"),
        ("mixed", "WireServer Enforce -  IMDS Audit - HostGA Enforce", "eae"),
        ("rules-disabled", "WireServer Disabled -  IMDS Disabled - HostGA Disabled", "ddd"),
        ("disabled", "disabled", "ddd"),
        ("v1", "wireserverandimds", "eee"),
        ("v1-wireserver", "wireserver", "ede"),
        ("v1-disabled", "disabled", "ddd"),
    ],
)
def test_states_and_modes(name: str, state: str, modes: str) -> None:
    status = key_status.parse(body(name))
    assert status.state == state
    assert status.wanted is (state != "disabled")
    wanted = {"e": Mode.ENFORCE, "a": Mode.AUDIT, "d": Mode.DISABLED}
    assert [status.items[endpoint].mode for endpoint in ("wireserver", "imds", "hostgaplugin")] == [
        wanted[letter] for letter in modes
    ]


def test_hostga_follows_wireserver_where_it_has_no_item_of_its_own() -> None:
    rules = {"wireserver": scenarios.item("audit", identity="w"), "imds": scenarios.item("enforce")}
    status = key_status.parse(body(authorizationRules=rules))
    assert status.items["hostgaplugin"] == status.items["wireserver"]
    assert status.state == "WireServer Audit -  IMDS Enforce - HostGA Audit"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"authorizationScheme": "absent"}, "authorizationScheme"),
        ({"keyDeliveryMethod": "post"}, "keyDeliveryMethod"),
        ({"version": "3.0"}, "version"),
        ({"version": 2.0}, "version"),
        ({"keyGuid": "../../etc/passwd"}, "keyGuid is not a guid"),
        ({"keyGuid": 7}, "keyGuid is not a guid"),
        ({"keyIncarnationId": -1}, "keyIncarnationId"),
        ({"keyIncarnationId": 1 << 32}, "keyIncarnationId"),
        ({"keyIncarnationId": True}, "keyIncarnationId"),
        ({"secureChannelEnabled": "absent"}, "secureChannelEnabled"),
        ({"authorizationRules": []}, None),
        ({"authorizationRules": [1]}, "authorizationRules is not an object"),
        ({"authorizationRules": {"imds": {"mode": "on", "defaultAccess": "deny"}}}, "imds.mode is 'on'"),
        ({"version": "1.0", "secureChannelState": "On"}, "secureChannelState"),
    ],
)
def test_members_that_do_not_validate(changes: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert key_status.parse(body(**changes)).items["imds"].mode is Mode.DISABLED
        return
    with pytest.raises(InvalidStatus) as caught:
        key_status.parse(body(**changes))
    assert said in str(caught.value)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["enforce", "deny", "2.0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(SecureChannel().status())), JSONS), st.binary(max_size=30))
def test_whatever_comes_is_a_status_or_invalid(changes: dict[str, Any], raw: bytes) -> None:
    for text in (json.dumps(SecureChannel().status() | changes).encode(), raw):
        with contextlib.suppress(InvalidStatus):
            assert set(key_status.parse(text).items) == {"imds", "wireserver", "hostgaplugin"}


# --- the folder -------------------------------------------------------------------------------------------------


def test_a_key_is_the_same_after_the_folder(tmp_path: Path) -> None:
    folder, offered = KeyFolder(tmp_path / "keys"), new_key(3)
    key = Key(offered.guid, offered.key, offered.issued, 3)
    folder.save(key)
    folder.save(key)
    assert folder.load(key.guid) == key
    assert folder.load("another") is None


@pytest.mark.parametrize("guid", ["../x", "", "a/b", "a" * 65])
def test_only_guids_are_names_of_files(guid: str, tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable):
        KeyFolder(tmp_path).load(guid)


def test_a_file_with_another_key_is_not_taken(tmp_path: Path) -> None:
    folder, key = KeyFolder(tmp_path), Key("one", HEX)
    folder.save(key)
    folder.file("one").rename(folder.file("two"))
    with pytest.raises(KeyUnusable, match="holds the key one"):
        folder.load("two")


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    assert HEX not in repr(Key("one", HEX))
    with pytest.raises(KeyUnusable) as caught:
        parse_key({"authorizationScheme": "Azure-HMAC-SHA256", "guid": "g", "key": HEX + "zz"})
    assert HEX not in str(caught.value)
