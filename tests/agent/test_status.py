from __future__ import annotations

import asyncio
import json
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent import config as settings
from harness.agent.claims import Claims
from harness.agent.config import Config, Times
from harness.agent.status import MOST_ROWS, RUNNING, STOPPED, UNKNOWN, Board, write_whole
from harness.errors import HarnessError
from harness.lab.scenarios import scenario
from harness.msp import status as reader
from harness.msp.endpoints import ENDPOINTS
from tests.agent.platform import key_latch, platform, running, status_file
from tests.loopback import get, listener, port_of, run, until

WHO = Claims(0, "root", ("root",), 10, "/usr/bin/curl", "curl", "curl x", True)
JUDGED = ("keyLatchStatus", "ebpfProgramStatus", "proxyListenerStatus")


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ((RUNNING, RUNNING, RUNNING), "SUCCESS"),
        ((RUNNING, STOPPED, RUNNING), "ERROR"),
        ((STOPPED, UNKNOWN, RUNNING), "ERROR"),
        ((RUNNING, UNKNOWN, RUNNING), "UNKNOWN"),
        ((UNKNOWN, UNKNOWN, UNKNOWN), "UNKNOWN"),
    ],
)
def test_the_status_of_the_whole(states: tuple[str, ...], status: str) -> None:
    board = Board()
    for name, state in zip(JUDGED, states, strict=True):
        board.set(name, state, "")
    assert board.status == status


def test_the_document_is_what_the_reader_knows() -> None:
    board = Board()
    board.set("keyLatchStatus", RUNNING, "m", {"keyGuid": "g"})
    board.count(WHO, "168.63.129.16", 80, 403, denied=True)
    board.count(WHO, "168.63.129.16", 80, 403, denied=True)
    board.count(WHO, "169.254.169.254", 80, 200, denied=False)
    found = reader.read(board.text())
    assert found
    assert (found.whole, found.status, len(found.modules)) == (True, "UNKNOWN", 5)
    latch = found.module("keyLatchStatus")
    assert latch
    assert (latch.status, latch.message, latch.states) == (RUNNING, "m", {"keyGuid": "g"})
    document = board.document()
    assert [row["count"] for row in document["proxyConnectionSummary"]] == [2, 1]
    assert document["failedAuthenticateSummary"] == [
        {
            "userName": "root",
            "userGroups": ["root"],
            "ip": "168.63.129.16",
            "port": 80,
            "processFullPath": "/usr/bin/curl",
            "processCmdLine": "curl x",
            "responseStatus": "403",
            "count": 2,
        }
    ]
    assert "states" not in document["proxyAgentStatus"]["ebpfProgramStatus"]


def test_a_message_is_cut_at_1024_bytes_with_a_mark() -> None:
    board = Board()
    board.set("ebpfProgramStatus", STOPPED, "x" * 5000)
    assert board.modules["ebpfProgramStatus"].message == "x" * 1024 + "..."


def test_a_summary_has_a_bounded_number_of_rows() -> None:
    board = Board()
    for port in range(MOST_ROWS + 50):
        board.count(WHO, "1.2.3.4", port, 200, denied=False)
    rows = board.document()["proxyConnectionSummary"]
    assert len(rows) == MOST_ROWS + 1
    assert sum(row["count"] for row in rows) == MOST_ROWS + 50


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, done = tmp_path / "log" / "status.json", threading.Event()
    texts = [json.dumps({"of": letter * 200_000}) for letter in "ab"]
    write_whole(path, texts[0])

    def write() -> None:
        for number in range(60):
            write_whole(path, texts[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_text() in texts
    writer.join()
    assert [file.name for file in path.parent.iterdir()] == ["status.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match=r"status\.json: ENOTDIR|status\.json: EEXIST"):
        write_whole(tmp_path / "file" / "status.json", "")


# --- the whole agent --------------------------------------------------------------------------------------------


def test_it_says_success_when_the_key_is_latched(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path, scenario("mixed")) as made, running(made):
            await until(lambda: "keyGuid" in key_latch(made).get("states", {}))
            assert key_latch(made)["states"]["secureChannelState"] == (
                "WireServer Enforce -  IMDS Audit - HostGA Enforce"
            )
            assert status_file(made)["proxyAgentStatus"]["status"] == "SUCCESS"

    run(scene)


def test_running_hides_a_refused_key(tmp_path: Path) -> None:
    """The guide looks at `status` alone; states and message tell."""

    async def scene() -> None:
        async with platform(tmp_path, scenario("unknown")) as made, running(made):
            await until(lambda: key_latch(made).get("message", "").startswith("Failed to acquire"))
            assert key_latch(made)["status"] == RUNNING
            assert status_file(made)["proxyAgentStatus"]["status"] == "SUCCESS"
            assert key_latch(made)["states"]["secureChannelState"] == "Unknown"
            assert "keyGuid" not in key_latch(made)["states"]
            made.channel.reset(2)
            await until(lambda: "keyGuid" in key_latch(made)["states"])

    run(scene)


def test_the_listener_serves_the_same_document(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made, running(made) as agent:
            answer = await get(made.config.port, "/status")
            assert answer.status == 200
            assert (
                json.loads(answer.body)["proxyAgentStatus"].keys() == agent.board.document()["proxyAgentStatus"].keys()
            )
            assert agent.board.connections == 1

    run(scene)


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            taken = listener()
            made.config = replace(made.config, port=port_of(taken))
            async with running(made):
                await until(lambda: status_file(made) != {})
                part = status_file(made)["proxyAgentStatus"]["proxyListenerStatus"]
                assert (part["status"], "EADDRINUSE" in part["message"]) == (STOPPED, True)
                assert status_file(made)["proxyAgentStatus"]["status"] == "ERROR"
            taken.close()

    run(scene)


def test_no_key_and_no_secret_in_what_others_may_read(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made, running(made) as agent:
            await until(lambda: agent.keeper.ready)
            await asyncio.sleep(0.05)
            assert agent.keeper.key
            for path in tmp_path.rglob("*"):
                if path.is_file() and path.suffix != ".key":
                    assert agent.keeper.key.key not in path.read_text()

    run(scene)


def test_it_goes_on_where_its_files_cannot_be_written(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            (tmp_path / "blocked").write_text("")
            made.config = replace(made.config, log_folder=tmp_path / "blocked" / "log")
            async with running(made) as agent:
                await until(lambda: agent.keeper.ready)

    run(scene)


def test_after_the_end_every_part_is_stopped(tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made:
            async with running(made):
                pass
            agent = status_file(made)["proxyAgentStatus"]
            assert {agent[name]["status"] for name in JUDGED} == {STOPPED}

    run(scene)


# --- settings ---------------------------------------------------------------------------------------------------


def test_settings_survive_their_file(tmp_path: Path) -> None:
    config = Config(
        log_folder=tmp_path / "l",
        key_folder=tmp_path / "k",
        cgroup_root=tmp_path,
        host_ga_plugin=False,
        times=Times(1, 2, 3, 4, 5, 6, 7),
        image=tmp_path / "i",
        nonce="n",
        port=1,
        endpoints=(replace(ENDPOINTS[0], address="127.0.0.1", port=5), *ENDPOINTS[1:]),
        redirect=False,
    )
    file = tmp_path / "proxy-agent.json"
    file.write_text(json.dumps(settings.document(config)))
    assert settings.read(file) == config


def test_an_agents_own_file_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "proxy-agent.json"
    file.write_text(
        '{"logFolder": "/l", "latchKeyFolder": "/k", "monitorIntervalInSeconds": 60, "wireServerSupport": 2}'
    )
    found = settings.read(file)
    assert (found.log_folder, found.key_folder, found.times.poll) == (Path("/l"), Path("/k"), 15)


@pytest.mark.parametrize("text", ["", "[]", '{"monitorIntervalInSeconds": "often"}', '{"logFolder": 1}', '{"lab": 1}'])
def test_a_wrong_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "proxy-agent.json"
    file.write_text(text)
    with pytest.raises(HarnessError, match="cannot read the configuration"):
        settings.read(file)
    file.unlink()
    with pytest.raises(HarnessError, match="ENOENT"):
        settings.read(file)


def test_denied_is_told_apart() -> None:
    """Not the endpoint's own 403s: what the agent refused."""
    board = Board()
    board.count(WHO, "168.63.129.16", 80, 403, denied=False)
    assert board.document()["failedAuthenticateSummary"] == []
