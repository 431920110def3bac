"""`agent run` on the real kernel: the reference agent in every scenario, as a foreign binary, broken in every way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.agent import config as settings
from harness.agent.config import Config
from harness.checks import agent_run
from harness.checks.agent_run import AgentOptions
from harness.kernel import cgroups
from harness.lab import agent_files, state
from harness.lab.agent_files import AgentFiles
from harness.lab.scenarios import SCENARIOS, scenario
from harness.lab.state import Run
from harness.lab.worker import wait_until
from harness.program.image import Image
from harness.report import Outcome, Result
from tests.agent.faulty import FAULTS

PROJECT = Path(__file__).parents[2]
Results = dict[str, Result]
Try = Callable[..., Results]

NO_KEY = {"unknown", "refused", "attest-refused", "status-error", "status-malformed", "status-missing",
          "status-scheme", "unreachable", "clock"}  # fmt: skip


@pytest.fixture
def attempt(run: Run, image: Image) -> Try:
    """Runs an agent and gives its Results by id."""

    def attempted(
        binary: Path | None = None, config: Path | None = None, *, of: str = "enforce", patience: float = 30
    ) -> Results:
        options = AgentOptions(AgentFiles(binary, None, config), scenario(of), patience)
        own = None if binary else image
        return {
            result.id: result
            for result in agent_run.in_lab(run, options, own, lambda seconds, step, saw: None, kprobes=True)
        }

    return attempted


@pytest.fixture
def foreign(tmp_path: Path, image: Image) -> Callable[[str], tuple[Path, Path]]:
    """A wrapper script that starts the reference agent with a fault as if it were somebody's binary, and its config."""

    def written(fault: str) -> tuple[Path, Path]:
        image_file, config = tmp_path / "image.json", tmp_path / "proxy-agent.json"
        image_file.write_text(image.dump())
        times = agent_files.REFERENCE_TIMES
        config.write_text(json.dumps(settings.document(Config(times=times, image=image_file))))
        path = os.pathsep.join([str(PROJECT), *(entry for entry in sys.path if entry)])
        return script(
            tmp_path, f'export PYTHONPATH="{path}"\nexec "{sys.executable}" -m tests.agent.faulty {fault} "$@"'
        ), config

    return written


def script(folder: Path, text: str, mode: int = 0o755) -> Path:
    made = folder / "agent"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(mode)
    return made


def bad(results: Results) -> dict[str, str]:
    return {name: row.summary for name, row in results.items() if row.outcome in (Outcome.FAIL, Outcome.ERROR)}


@pytest.mark.parametrize("name", [row.name for row in SCENARIOS])
def test_the_reference_agent_in_every_scenario(attempt: Try, name: str) -> None:
    results = attempt(of=name)
    assert bad(results) == {}
    hidden = {key for key, row in results.items() if row.code == "MSP-K108"}
    assert bool(hidden) == (name in NO_KEY)
    if name in ("enforce", "known", "slow"):
        others = {key: row.outcome for key, row in results.items() if row.outcome is not Outcome.PASS}
        assert others == {}
        assert len(results) == agent_run.EXPECTED


def test_as_a_foreign_binary(attempt: Try, foreign: Callable[[str], tuple[Path, Path]]) -> None:
    assert bad(attempt(*foreign("none"))) == {}


CAUGHT = {
    "not-signing": {"traffic.imds.root", "traffic.imds.nobody", "traffic.wireserver.root"},
    "no-claims": {"traffic.imds.root", "traffic.wireserver.root"},
    "wrong-claims": {"traffic.imds.root", "traffic.wireserver.root"},
    "passes-forged": {"listener.forged-headers"},
    "listens-everywhere": {"listener.loopback"},
    "loose-key": {"files.keys"},
    "loose-status": {"files.modes"},
    "lies-about-the-key": {"truth.key"},
    "empty-policy": {"agent.policy", "truth.ebpf", "truth.overall"},
    "tells-the-key": {"files.secrets"},
    "lets-everybody-in": {"traffic.wireserver.nobody", "traffic.hostgaplugin.nobody", "listener.root-only"},
    "dies-of-nonsense": {"listener.malformed"},
    "open-proxy": {"listener.open-proxy"},
}
"""What has to fail for each fault."""


def test_every_fault_has_its_row() -> None:
    assert set(CAUGHT) | {"none"} == set(FAULTS)


@pytest.mark.parametrize("fault", CAUGHT)
def test_a_fault_is_caught(attempt: Try, foreign: Callable[[str], tuple[Path, Path]], fault: str) -> None:
    results = attempt(*foreign(fault), patience=5)
    failed = bad(results)
    assert CAUGHT[fault] <= set(failed)
    assert all(results[name].code for name in CAUGHT[fault])


def test_a_binary_that_exits_at_once(attempt: Try, tmp_path: Path) -> None:
    results = attempt(script(tmp_path, "echo cannot find my libraries >&2; exit 3"))
    start = results["agent.start"]
    assert (start.outcome, start.code) == (Outcome.FAIL, "MSP-P107")
    assert "exit code 3" in start.summary
    assert "cannot find my libraries" in start.summary


def test_a_binary_that_hangs(attempt: Try, tmp_path: Path) -> None:
    results = attempt(script(tmp_path, "echo waiting; exec sleep 600"), patience=1)
    assert results["agent.start"].outcome is Outcome.PASS
    loaded = results["agent.loaded"]
    assert loaded.outcome is Outcome.FAIL
    assert loaded.observed["output"] == "waiting"
    assert results["agent.attached"].outcome is Outcome.SKIP
    assert results["truth.status"].outcome is Outcome.FAIL


def test_nothing_that_a_binary_writes_reaches_the_host(attempt: Try, tmp_path: Path) -> None:
    places = ("/etc", "/var/log", "/var/lib", "/usr/lib", "/usr/sbin")
    attempt(script(tmp_path, "for d in " + " ".join(places) + "; do echo x >$d/msp-harness-test; done; exit 1"))
    assert [place for place in places if Path(place, "msp-harness-test").exists()] == []


@pytest.mark.parametrize(
    ("name", "content", "mode", "said"),
    [
        ("missing", None, 0, "no such file"),
        ("not executable", b"#!/bin/sh\n", 0o644, "EACCES"),
        ("no executable", b"hello", 0o755, "ENOEXEC"),
        ("other architecture", b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x16\x00" + bytes(44), 0o755, "s390x"),
    ],
)
def test_a_file_that_cannot_be_executed(tmp_path: Path, name: str, content: bytes | None, mode: int, said: str) -> None:
    file = tmp_path / "agent"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    report = agent_run.run_agent(AgentOptions(AgentFiles(file)), lambda result: None)
    (result,) = report.results
    assert (result.id, result.outcome) == ("agent.start", Outcome.FAIL)
    assert said in result.summary


@pytest.mark.parametrize("step", ["start", "attached", "status"])
def test_sigkill_of_the_harness_leaves_no_process(tmp_path: Path, step: str) -> None:
    """The agent is a shell whose child lives on: only the warden can end that."""
    binary = script(tmp_path, "sleep 600 & sleep 601 & wait") if step == "start" else None
    words = ["--binary", str(binary)] if binary else []
    command = [sys.executable, "-m", "harness", "agent", "run", "--follow", *words]
    environment = os.environ | {"MSP_HARNESS_STATE": str(tmp_path / "state"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=PROJECT) as harness:
        assert harness.stdout is not None
        for line in harness.stdout:
            if f" {step} " in line:
                break
        (home,) = [path for path in (tmp_path / "state").iterdir() if path.is_dir()]
        group = Path((home / "cgroup").read_text().strip())
        time.sleep(0.1)  # the shell starts its children
        assert any(cgroups.processes(below) for below in cgroups.tree(group))
        harness.send_signal(signal.SIGKILL)
        harness.wait()
    assert wait_until(time.monotonic() + 10, lambda: not any(cgroups.processes(below) for below in cgroups.tree(group)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSP_HARNESS_STATE", str(tmp_path / "state"))
        assert state.clean() == [home.name]
    assert not group.exists()


def test_an_agent_that_is_killed_while_it_is_tried(run: Run, image: Image) -> None:
    """The check under way says so, and none that follows takes the silence for a finding."""
    results = []
    for result in agent_run.in_lab(run, AgentOptions(), image, lambda seconds, step, saw: None, kprobes=True):
        results.append(result)
        if result.id == "agent.start":
            killed = int(str(result.observed["pid"]))
        if result.id == "listener.loopback":
            os.kill(killed, signal.SIGKILL)
    failed = [result for result in results if result.outcome is Outcome.FAIL]
    assert [result.id for result in failed] == ["listener.connect"]
    assert "signal 9" in failed[0].summary
