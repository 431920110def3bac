"""Preflight's judgement, with machines that nobody here has; the real ones are in tests/kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.checks import preflight
from harness.checks.machine import LockedMemory, Machine
from harness.kernel import cgroups, facts
from harness.kernel.features import FEATURES, Answer, Probed
from harness.program.compile import Join
from harness.report import Outcome

ALL = {feature.name: Probed(Answer.YES, "loads") for feature in FEATURES}
MACHINE = Machine(ALL, Path("/sys/fs/cgroup"))


def lacking(name: str, answer: Answer = Answer.NO, said: str = "EINVAL (Invalid argument), empty log") -> Machine:
    return replace(MACHINE, features=ALL | {name: Probed(answer, said)})


def test_kernel_that_has_everything() -> None:
    assert preflight.kernel(MACHINE).outcome is Outcome.PASS


@pytest.mark.parametrize("name", [feature.name for feature in FEATURES if feature.needed])
def test_kernel_without_what_is_needed_blocks(name: str) -> None:
    result = preflight.kernel(lacking(name))
    assert (result.outcome, result.blocking) == (Outcome.FAIL, True)
    title = next(feature.title for feature in FEATURES if feature.name == name)
    assert title in result.summary
    assert result.remedy


@pytest.mark.parametrize("name", [feature.name for feature in FEATURES if feature.without])
def test_kernel_without_the_rest_warns_what_is_lost(name: str) -> None:
    result = preflight.kernel(lacking(name))
    assert (result.outcome, result.blocking) == (Outcome.WARN, False)
    assert next(feature.without for feature in FEATURES if feature.name == name) in result.summary


def test_kernel_that_could_not_be_asked_is_no_verdict() -> None:
    result = preflight.kernel(lacking("connect4", Answer.UNKNOWN, "EPERM (Operation not permitted)"))
    assert (result.outcome, result.blocking) == (Outcome.ERROR, True)
    assert "EPERM" in result.summary


def test_versions_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old number with everything probed passes; a new one without a helper does not."""
    monkeypatch.setattr(facts, "release", lambda: "3.10.0")
    assert preflight.kernel(MACHINE).outcome is Outcome.PASS
    monkeypatch.setattr(facts, "release", lambda: "7.3.0")
    assert preflight.kernel(lacking("pid-tgid")).outcome is Outcome.FAIL


def layout(name: str, *points: str) -> Callable[[], cgroups.Layout]:
    mounts = tuple(cgroups.Mount(Path(point), "/", "cgroup2", "rw") for point in points)
    return lambda: cgroups.Layout(name, mounts, ())


def test_no_cgroup2_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "supported", lambda: False)
    result = preflight.cgroup2()
    assert (result.outcome, result.blocking, result.code) == (Outcome.FAIL, True, "MSP-A104")


def test_no_cgroup2_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "supported", lambda: True)
    monkeypatch.setattr(cgroups, "layout", layout("legacy"))
    result = preflight.cgroup2()
    assert (result.outcome, result.blocking, result.code) == (Outcome.FAIL, True, "MSP-A102")


def test_cgroup2_in_a_hybrid_layout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    monkeypatch.setattr(cgroups, "supported", lambda: True)
    monkeypatch.setattr(cgroups, "layout", layout("hybrid", str(tmp_path)))
    result = preflight.cgroup2()
    assert (result.outcome, result.blocking, result.code) == (Outcome.WARN, False, "MSP-A103")


def test_several_cgroup2_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    monkeypatch.setattr(cgroups, "supported", lambda: True)
    monkeypatch.setattr(cgroups, "layout", layout("unified", str(tmp_path), "/sys/fs/cgroup"))
    result = preflight.cgroup2()
    assert result.outcome is Outcome.WARN
    assert f"the agent takes the first: {tmp_path}" in result.summary


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [(None, Outcome.PASS), ("none", Outcome.PASS), ("integrity", Outcome.PASS), ("confidentiality", Outcome.WARN)],
)
def test_lockdown(mode: str | None, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "lockdown", lambda: mode)
    assert preflight.lockdown().outcome is outcome


@pytest.mark.parametrize(
    ("refused", "still_refused", "outcome", "blocking"),
    [("", "", Outcome.PASS, False), ("EPERM", "", Outcome.WARN, False), ("EPERM", "EPERM", Outcome.FAIL, True)],
)
def test_memlock_is_judged_by_making_maps(refused: str, still_refused: str, outcome: Outcome, blocking: bool) -> None:
    machine = replace(MACHINE, locked_memory=LockedMemory(65536, refused, still_refused))
    result = preflight.memlock(machine)
    assert (result.outcome, result.blocking) == (outcome, blocking)
    assert "65536 B" in result.summary
    assert ("ulimit -l" in (result.remedy or "")) == bool(refused)


@pytest.mark.parametrize("join", [Join.SOCK_OPS, Join.KPROBE])
def test_a_way_of_completing_records_that_is_not_there_blocks(join: Join) -> None:
    assert preflight.cannot_join(MACHINE, join) is None
    assert preflight.cannot_join(MACHINE, Join.NONE) is None
    result = preflight.cannot_join(lacking(preflight.JOINS[join], said="no such thing"), join)
    assert result is not None
    assert (result.outcome, result.blocking) == (Outcome.FAIL, True)
    assert "no such thing" in result.summary
    other = next(other for other in preflight.JOINS if other is not join)
    assert f"--audit {other}`" in (result.remedy or "")


def test_missing_tools_are_a_warning_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = preflight.tools()
    assert result.outcome is Outcome.WARN
    assert "curl" in result.summary


def test_it_gives_as_many_results_as_it_says() -> None:
    assert len(list(preflight.look(MACHINE))) == preflight.RESULTS
