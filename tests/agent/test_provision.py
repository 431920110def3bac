from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import __version__
from harness.agent import config as settings
from harness.agent import provisioning
from harness.agent.config import Config
from harness.agent.provisioning import Provisioning
from harness.agent.status import RUNNING, STOPPED, Board
from harness.lab.http import Request, Response, Server, serve
from harness.lab.scenarios import scenario
from tests.agent.platform import TIMES, platform, running
from tests.loopback import closed_port, get, listener, port_of, run, until

PROJECT = Path(__file__).parents[2]
TICK = "x-ms-azure-time-tick: 638931417044754873"
METADATA = "Metadata: true"


def board(key: str = "", ebpf: str = RUNNING) -> Board:
    made = Board()
    made.set("keyLatchStatus", RUNNING, key)
    made.set("ebpfProgramStatus", ebpf, "no program" if ebpf == STOPPED else "")
    made.set("proxyListenerStatus", RUNNING, "")
    return made


def config(tmp_path: Path, provision: float = 60, **changes: Any) -> Config:
    return Config(
        log_folder=tmp_path, key_folder=tmp_path / "keys", times=replace(TIMES, provision=provision), **changes
    )


def files(made: Config) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in made.key_folder.glob("*.tag")}


def test_success_is_an_empty_tag(tmp_path: Path) -> None:
    made = config(tmp_path)
    flow = Provisioning(made, board(), lambda: True)
    assert flow.answer() == provisioning.Answer(True, "")
    flow.write()
    assert files(made)["status.tag"] == b""
    assert files(made)["provisioned.tag"]
    assert provisioning.tag(made.key_folder) == ""


def test_nothing_is_written_before_the_time_is_up(tmp_path: Path) -> None:
    made = config(tmp_path)
    flow = Provisioning(made, board("Failed to acquire"), lambda: False)
    assert flow.answer() == provisioning.Answer(False, "")
    flow.write()
    assert files(made) == {}
    assert provisioning.tag(made.key_folder) is None


def test_when_the_time_is_up_each_part_has_its_line(tmp_path: Path) -> None:
    made = config(tmp_path, provision=0)
    state = board("Failed to acquire", STOPPED)
    flow = Provisioning(made, state, lambda: False)
    assert flow.answer() == provisioning.Answer(
        True, "ebpfProgramStatus - no program\r\nkeyLatchStatus - Failed to acquire"
    )
    flow.write()
    assert files(made)["status.tag"] == (b"ebpfProgramStatus - no program\r\nkeyLatchStatus - Failed to acquire\r\n")


def test_the_tag_says_so_when_it_recovers(tmp_path: Path) -> None:
    made = config(tmp_path, provision=0)
    ready = [False]
    flow = Provisioning(made, board("refused"), lambda: ready[0])
    flow.write()
    first = files(made)["provisioned.tag"]
    assert files(made)["status.tag"] == b"keyLatchStatus - refused\r\n"
    ready[0] = True
    flow.write()
    assert files(made) == {"status.tag": b"", "provisioned.tag": first}


# --- over the listener ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/provision", (METADATA, TICK), 200),
        ("/provision?x", (METADATA, TICK), 200),
        ("/provision", (TICK,), 400),
        ("/provision", (METADATA,), 400),
        ("/provision", ("Metadata: false", TICK), 400),
        ("/provision", (METADATA, "x-ms-azure-time-tick: now"), 400),
        ("/status", (), 200),
        ("/other", (METADATA, TICK), 421),
        ("/", (), 421),
    ],
)
def test_what_the_listener_answers_itself(path: str, headers: tuple[str, ...], status: int, tmp_path: Path) -> None:
    async def scene() -> None:
        async with platform(tmp_path) as made, running(made) as agent:
            await until(lambda: agent.keeper.ready)
            answer = await get(made.config.port, path, *headers)
            assert answer.status == status
            if status == 200 and path.startswith("/provision"):
                assert json.loads(answer.body) == {"finished": True, "errorMessage": ""}

    run(scene)


def test_notify_polls_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        times = replace(TIMES, poll=3600)
        async with platform(tmp_path, times=times) as made, running(made) as agent:
            await until(lambda: agent.keeper.ready)
            polls = agent.keeper.polls
            await get(made.config.port, "/provision", METADATA, TICK)
            await asyncio.sleep(0.02)
            assert agent.keeper.polls == polls
            await get(made.config.port, "/provision", METADATA, TICK, "x-ms-azure-notify: true")
            await until(lambda: agent.keeper.polls == polls + 1)

    run(scene)


# --- `--status --wait` --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(answers: list[Response]) -> AsyncIterator[tuple[int, list[Request]]]:
    """A listener that gives these answers, the last for ever."""
    asked: list[Request] = []
    sock = listener()

    async def handler(request: Request) -> Response:
        asked.append(request)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    server: Server = await serve(sock, handler)
    try:
        yield port_of(sock), asked
    finally:
        await server.stop()


def told(finished: object, message: object = "") -> Response:
    return Response(200, (), json.dumps({"finished": finished, "errorMessage": message}).encode())


@pytest.mark.parametrize(
    ("answers", "seconds", "code", "text", "questions"),
    [
        ([told(True)], 0.0, 0, "provisioned", 1),
        ([told(False), told(False), told(True)], 5.0, 0, "provisioned", 3),
        ([told(True, "keyLatchStatus - x")], 5.0, 1, "keyLatchStatus - x", 1),
        ([told(False)], 0.0, 1, "not finished after 0 s", 1),
        ([Response(503)], 0.0, 1, "status 503", 1),
        ([told("yes")], 0.0, 1, "not of the known form", 1),
        ([Response(200, (), b"[]")], 0.0, 1, "not of the known form", 1),
        ([Response(200, (), b"{")], 0.0, 1, "no answer from the agent", 1),
        ([Response(500), told(True)], 5.0, 0, "provisioned", 2),
    ],
)
def test_asking(answers: list[Response], seconds: float, code: int, text: str, questions: int, tmp_path: Path) -> None:
    async def scene() -> None:
        async with answering(list(answers)) as (port, asked):
            made = config(tmp_path, port=port)
            status, words = await asyncio.to_thread(provisioning.wait, made, seconds)
            assert (status, text in words) == (code, True), words
            assert len(asked) == questions
            assert all(request.target == "/provision" for request in asked)
            assert all(request.header("metadata") == "true" for request in asked)
            assert all((request.header("x-ms-azure-time-tick") or "").isdigit() for request in asked)
            notified = [request.header("x-ms-azure-notify") for request in asked]
            if all(answer.status == 200 for answer in answers):
                assert notified == ["true"] + [None] * (questions - 1)

    run(scene)


def test_no_agent_is_a_failure_that_names_the_port(tmp_path: Path) -> None:
    port = closed_port()
    status, words = provisioning.wait(config(tmp_path, port=port), 0)
    assert (status, f"127.0.0.1:{port}" in words) == (1, True)


# --- the command ------------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "harness.agent", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)


def test_the_version() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_a_configuration_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = command("--config", str(tmp_path / "none"))
    assert (done.returncode, "ENOENT" in done.stderr) == (2, True)


def test_a_process_from_start_to_end(tmp_path: Path) -> None:
    """Started, asked as cloud-init asks, and ended by SIGTERM, with no eBPF."""

    async def scene() -> None:
        async with platform(tmp_path) as made:
            file = tmp_path / "proxy-agent.json"
            file.write_text(json.dumps(settings.document(made.config)))
            line = (sys.executable, "-m", "harness.agent", "--config", str(file))
            agent = await asyncio.create_subprocess_exec(*line, cwd=PROJECT)
            try:
                done = await asyncio.to_thread(command, "--config", str(file), "--status", "--wait", "20")
                assert (done.returncode, done.stdout, done.stderr) == (0, "provisioned\n", "")
                await until(lambda: provisioning.tag(made.config.key_folder) == "")
            finally:
                agent.terminate()
                assert await agent.wait() == 0

    run(scene)


def test_asking_a_process_that_has_trouble(tmp_path: Path) -> None:
    async def scene() -> None:
        times = replace(TIMES, provision=0.05)
        async with platform(tmp_path, scenario("refused"), times) as made, running(made):
            await until(lambda: provisioning.tag(made.config.key_folder) is not None)
            status, words = await asyncio.to_thread(provisioning.wait, made.config, 5.0)
            assert (status, words) == (
                1,
                'keyLatchStatus - Failed to acquire key details: Key(KeyResponse("acquire", 403))',
            )

    run(scene)
