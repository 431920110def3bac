"""Every failure of the catalogue, brought about for real on the running kernel, with its remedy; and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.failures import catalogue, reproduce
from harness.failures.model import Failure, Family
from harness.kernel import cgroups, features
from harness.kernel.cgroups import Layout, Mount
from harness.kernel.features import Answer
from harness.lab import state
from harness.lab.worker import wait_until
from harness.report.model import Outcome, Result
from harness.verifier.explain import explain_text

PROJECT = Path(__file__).parents[2]

# What the text of a log cannot tell by itself: nothing is refused in the guide's up to its cut.
NOT_IN_THE_LOG = {"guide-log"}


@pytest.fixture(scope="module")
def results() -> Mapping[str, Result]:
    """All of them, once."""
    return {result.id.removeprefix("reproduce."): result for result in reproduce(["all"])}


def pieces(result: Result, key: str) -> str:
    value = result.evidence.get(key, "")
    assert isinstance(value, str)
    return value


@pytest.mark.parametrize("failure", catalogue(), ids=lambda failure: failure.name)
def test_reproduced_and_remedied_or_not_of_this_kernel(failure: Failure, results: Mapping[str, Result]) -> None:
    result = results[failure.name]
    assert result.outcome in (Outcome.PASS, Outcome.SKIP), result.summary
    if result.outcome is Outcome.SKIP:
        assert failure.needs, "only what needs another kernel or machine may be left out"
        assert "to have it" in result.summary
        pytest.skip(result.summary)
    assert result.code == failure.code.id
    assert pieces(result, "did then")


@pytest.mark.parametrize(
    "failure", [row for row in catalogue() if row.family is Family.LOAD and row.says], ids=lambda failure: failure.name
)
def test_the_log_alone_leads_explain_to_the_same_code(failure: Failure, results: Mapping[str, Result]) -> None:
    """explain reads the log; it knows nothing of the recipe."""
    result = results[failure.name]
    log = pieces(result, "log") or pieces(result, "nearest log")
    assert log
    if failure.name not in NOT_IN_THE_LOG:
        assert explain_text(log)[0].code is failure.code


def test_the_guides_failure_is_left_out_only_where_the_probe_says_so(results: Mapping[str, Result]) -> None:
    probed = next(row for row in features.FEATURES if row.name == "pid-tgid").probe()
    outcome = {Answer.YES: Outcome.SKIP, Answer.NO: Outcome.PASS}[probed.answer]
    assert results["guide-pid-tgid"].outcome is outcome


def test_the_guides_log_is_laid_beside_this_kernels(results: Mapping[str, Result]) -> None:
    evidence = results["guide-log"].evidence
    strict, bare = evidence["similarity"], evidence["similarity without register states"]
    assert isinstance(strict, float)
    assert isinstance(bare, float)
    assert 0 < strict <= bare <= 1
    assert bare > 0.8  # every instruction and every source line; not how precision is told, and repeated lines
    side = evidence["side by side without register states"]
    assert isinstance(side, list)
    assert "  16: (85) call bpf_map_lookup_elem#1" in side
    assert evidence["mask"]


def test_a_v1_hierarchy_is_made_where_the_host_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a unified host: it is made in the child's mounts, and goes with them."""
    layout = cgroups.layout

    def without_the_hosts(table: list[Mount] | None = None) -> Layout:
        found = layout(table)
        return replace(found, v1=tuple(mount for mount in found.v1 if state.PREFIX in mount.super_options))

    if not layout().v1:
        pytest.skip("the host is unified: the recipe itself makes one")
    monkeypatch.setattr(cgroups, "layout", without_the_hosts)
    (result,) = reproduce(["attach-v1"])
    assert result.outcome is Outcome.PASS, result.summary
    gone = "name=" + state.PREFIX
    assert wait_until(time.monotonic() + 30, lambda: gone not in Path("/proc/self/cgroup").read_text())


def test_a_failed_attach_has_one_text_and_many_causes(results: Mapping[str, Result]) -> None:
    rows = [
        results[row.name]
        for row in catalogue()
        if row.family is Family.ATTACH and row.form is None and results[row.name].outcome is Outcome.PASS
    ]
    assert len({pieces(row, "message") for row in rows}) == 1
    assert len({row.code for row in rows}) >= 6
    assert len({pieces(row, "answer") for row in rows}) >= 5


def test_all_48_ways_of_attaching_two_programs(results: Mapping[str, Result]) -> None:
    evidence = results["attach-combinations"].evidence
    assert evidence["unexpected"] == []
    table = evidence["first, then second"]
    assert isinstance(table, dict)
    assert sum(len(row) for order in table.values() for row in order.values()) == 48


def test_two_runs_have_the_same_evidence(results: Mapping[str, Result]) -> None:
    names = ["guide", "load-null-check", "load-too-complex", "attach", "applied-first-mount", "map-no-cap-bpf"]
    for again in reproduce(names):
        assert again.evidence == results[again.id.removeprefix("reproduce.")].evidence


def test_progress_is_told_of_each() -> None:
    told: list[str] = []

    class Listener:
        def starting(self, id: str, title: str) -> None:
            told.append(id)

        def finished(self, result: Result) -> None:
            told.append(f"{result.id} done")

    assert [result.id for result in reproduce(["attach-type", "attach-removed"], Listener())] == told[::2]
    assert told[1::2] == [f"{name} done" for name in told[::2]]


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of state for this test: other runs of this machine are none of its business."""
    monkeypatch.setenv("MSP_HARNESS_STATE", str(tmp_path))
    return tmp_path


def run_ids(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")]


def cgroup_of(run: str) -> Path:
    return cgroups.layout().cgroup2[0].point / f"{state.PREFIX}{run}"


def below(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_nothing_is_left_after_a_run_and_mounts_are_the_hosts_own(own_state: Path) -> None:
    mounts, children = Path("/proc/self/mountinfo").read_text(), below(os.getpid())
    seen: set[str] = set()
    for result in reproduce(["applied", "attach", "load-no-cap-bpf"]):
        assert result.outcome is not Outcome.ERROR
        seen |= set(run_ids(own_state))
    assert len(seen) == 1
    assert not run_ids(own_state)
    assert not any(cgroup_of(run).exists() for run in seen)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert below(os.getpid()) == children


def alive(pid: str) -> bool:
    """A process that is no zombie: whose init does not wait for orphans is not our matter."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("name", ["attach-hybrid", "applied-loader-killed-attach", "applied-first-mount"])
def test_a_killed_run_leaves_nothing_that_the_next_does_not_find(name: str, own_state: Path) -> None:
    """The process stops inside a recipe, when everything is built and attached, and is killed there."""
    script = (
        "import signal\n"
        "from harness.failures import applied, applied_order, perform, reproduce\n"
        "def stop(*words, **more):\n"
        "    print('built', flush=True)\n"
        "    signal.pause()\n"
        "applied.ask = applied_order.ask = perform.judged = stop\n"
        f"list(reproduce([{name!r}]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"built\n"
        (run,) = run_ids(own_state)
        workers = below(process.pid)
        assert cgroup_of(run).is_dir()
        assert workers or name == "attach-hybrid"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert state.clean() == [run]
    assert not cgroup_of(run).exists()
    assert wait_until(time.monotonic() + 30, lambda: not any(alive(pid) for pid in workers))


def test_names_are_known_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "begin", lambda root: pytest.fail("a run was begun"))
    with pytest.raises(HarnessError, match="no failure of that name"):
        next(reproduce(["attach-type", "no-such"]))
