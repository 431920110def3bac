"""Cells filled by processes, with an invented guest: kept, resumed, lost, late, interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import harness
from harness.errors import HarnessError
from harness.matrix import question, run, store
from harness.matrix.model import Cell, Matrix
from harness.matrix.question import Question, Task, given
from harness.report import Outcome, Report
from harness.report import json as report_json
from harness.vm import limits, spec
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Machine
from tests.processes import children
from tests.unit.matrix.made import PANIC, PASSED, report

ROOT = Path(__file__).resolve().parents[3]


def kernel(name: str, digest: str = "") -> Kernel:
    version = {"bullseye": "5.10.0", "bookworm": "6.1.0", "trixie": "6.12.0"}.get(name, "5.10.9")
    return Kernel(
        f"{version}-1-amd64", f"{name} linux-image", Path("vmlinuz"), Path("modules"), digest or f"sha256:{name}", None
    )


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, kernels that are there at once, and a harness whose code stands still."""
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(spec, "resolve", kernel)
    monkeypatch.setattr(store, "harness_digest", lambda: "code")


class Told:
    """A Listener that remembers."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self.cells: list[Cell] = []

    def getting(self, spec: str) -> None: ...

    def begin(self, tasks: Sequence[Task]) -> None: ...

    def starting(self, task: Task) -> None:
        self.started.append((task.row.name, task.program.name))

    def finished(self, task: Task, cell: Cell) -> None:
        self.cells.append(cell)

    def tick(self) -> None: ...


def fine(machine: Machine, job: Job) -> Report:
    return report(PASSED, machine.kernel.release)


def measured(
    monkeypatch: pytest.MonkeyPatch,
    guest: Callable[[Machine, Job], Report] = fine,
    asked: Question | None = None,
    *,
    jobs: int = 2,
    reuse: bool = True,
) -> tuple[Matrix, Told]:
    monkeypatch.setattr(run, "perform", lambda: guest)
    told = Told()
    asked = asked or Question(["bookworm", "bullseye"])
    return run.measure(asked, jobs, told, reuse=reuse), told


def test_a_cell_for_each_kernel_and_program(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, told = measured(monkeypatch)
    assert [row.spec for row in matrix.rows] == ["bullseye", "bookworm"]  # by version
    assert [(cell.row, cell.program) for cell in matrix.cells] == [
        (row, program) for row in ("bullseye", "bookworm") for program in ("plain", "hardened")
    ]
    assert {cell.outcome for cell in matrix.cells} == {Outcome.PASS}
    assert sorted(told.started) == sorted((cell.row, cell.program) for cell in matrix.cells)
    assert {place[0] for place in told.started[:2]} == {"bullseye", "bookworm"}  # no two of one kernel side by side


def test_kernels_that_take_longest_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never booted here may take longest of all; then by what was measured, whatever ran busy once."""
    for name, seconds in (("bullseye", (9.0, 2.0)), ("bookworm", (3.0,))):
        for one in seconds:
            limits.remember(Machine(kernel(name)), "tcg", one)
    _, told = measured(monkeypatch, asked=Question(["bullseye", "bookworm", "trixie"]), jobs=1)
    order = ["trixie", "bookworm", "bullseye"]
    assert told.started == [(name, program) for program in ("plain", "hardened") for name in order]


def test_the_second_time_all_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = measured(monkeypatch)
    again, told = measured(monkeypatch, lambda machine, job: pytest.fail("measured again"))
    assert told.started == []
    assert again.reused == 4
    assert [cell.report for cell in again.cells] == [cell.report for cell in first.cells]
    forced, told = measured(monkeypatch, reuse=False)
    assert (forced.reused, len(told.started)) == (0, 4)


def keys(asked: Question) -> dict[tuple[str, str], str]:
    return {(task.row.name, task.program.name): task.key for task in question.tasks(asked)}


def test_whatever_a_result_depends_on_is_in_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.o"
    file.write_bytes(b"\x7fELF one")
    asked = Question(["bookworm"], objects=given([str(file)]))
    before = keys(asked)
    assert keys(asked) == before
    file.write_bytes(b"\x7fELF two")
    after = keys(Question(["bookworm"], objects=given([str(file)])))
    assert after["bookworm", "a.o"] != before["bookworm", "a.o"]
    assert after["bookworm", "plain"] == before["bookworm", "plain"]  # its own object's alone
    other_checks = keys(replace(asked, checks=["load"]))
    varied = keys(replace(asked, variations=["cpus=3"]))
    monkeypatch.setattr(spec, "resolve", lambda name: kernel(name, "sha256:bb"))
    other_kernel = keys(asked)
    monkeypatch.setattr(spec, "resolve", kernel)
    monkeypatch.setattr(store, "harness_digest", lambda: "other code")
    other_code = keys(asked)
    everything = [before, other_checks, varied, other_kernel, other_code]
    found = [key for each in everything for key in each.values()]
    assert len(found) == len(set(found))


def test_the_hash_of_the_harness_is_that_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real harness_digest
    package = tmp_path / "harness"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("one")
    monkeypatch.setattr(harness, "__file__", str(package / "__init__.py"))
    before = store.harness_digest()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_text("x")
    assert store.harness_digest() == before
    (package / "a.py").write_text("two")
    changed = store.harness_digest()
    assert changed != before
    (package / "a.py").rename(package / "b.py")
    assert store.harness_digest() not in (before, changed)


def test_what_could_not_be_found_out_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def panics(machine: Machine, job: Job) -> Report:
        return report(PANIC if machine.kernel.release.startswith("6.1") else PASSED)

    first, _ = measured(monkeypatch, panics)
    assert [cell.outcome for cell in first.cells] == [Outcome.PASS, Outcome.PASS, Outcome.ERROR, Outcome.ERROR]
    again, told = measured(monkeypatch)
    assert {place[0] for place in told.started} == {"bookworm"}
    assert {cell.outcome for cell in again.cells} == {Outcome.PASS}


def test_a_process_that_is_lost_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(machine: Machine, job: Job) -> Report:
        if job.arguments[-1] == "hardened":
            os.write(1, b"about to die\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return fine(machine, job)

    matrix, _ = measured(monkeypatch, dies, Question(["bookworm"]))
    lost = matrix.by_place["bookworm", "hardened"].report
    assert [(one.id, one.outcome) for one in lost.results] == [("guest.lost", Outcome.ERROR)]
    assert "was ended by SIGKILL: about to die" in lost.results[0].summary
    assert lost.kernel == "6.1.0-1-amd64"
    assert matrix.by_place["bookworm", "plain"].outcome is Outcome.PASS


def test_an_exception_in_a_cell_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(machine: Machine, job: Job) -> Report:
        raise ZeroDivisionError("in a cell")

    matrix, _ = measured(monkeypatch, raises, Question(["bookworm"], ["plain"]))
    assert "ended with status 1: ZeroDivisionError: in a cell" in matrix.cells[0].report.results[0].summary


def test_what_the_caller_must_mend_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(machine: Machine, job: Job) -> Report:
        raise HarnessError("boot a kernel", "there is no qemu", "install it", detail="one\ntwo")

    matrix, _ = measured(monkeypatch, refuses, Question(["bookworm"], ["plain"]))
    (result,) = matrix.cells[0].report.results
    assert (result.id, result.outcome, result.remedy) == ("guest.start", Outcome.ERROR, "install it")
    assert result.observed == {"said": ["one", "two"]}


def test_a_kernel_that_cannot_be_had_is_a_row_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str) -> Kernel:
        if name == "gone":
            raise HarnessError("find the suite gone", "404", "name another")
        return kernel(name)

    monkeypatch.setattr(spec, "resolve", resolve)
    matrix, told = measured(monkeypatch, asked=Question(["gone", "bookworm"], ["plain"]))
    assert {cell.row: cell.outcome for cell in matrix.cells} == {"gone": Outcome.ERROR, "bookworm": Outcome.PASS}
    (result,) = matrix.by_place["gone", "plain"].report.results
    assert result.id == "guest.kernel"
    assert "404" in result.summary
    assert told.started == [("bookworm", "plain")]


def test_a_cell_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    task = question.tasks(Question(["bookworm"], ["plain"]))[0]
    found: list[Report] = []
    before = children()

    def hangs(machine: Machine, job: Job) -> Report:
        signal.pause()
        raise AssertionError

    run.fill([task], 1, hangs, Told(), lambda task, report: found.append(report), limit=0.2)
    assert [one.id for one in found[0].results] == ["guest.time"]
    assert children() <= before


def test_two_matrices_at_once_share_what_either_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, asked=Question(["bookworm"], ["plain"]))
    matrix, told = measured(monkeypatch, asked=Question(["bookworm"]))
    assert told.started == [("bookworm", "hardened")]
    assert matrix.reused == 1


def test_a_kept_report_that_was_damaged_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured(monkeypatch, asked=Question(["bookworm"], ["plain"]))
    (kept,) = (tmp_path / "vm" / "reports").glob("*.json")
    for damage in (b"", b"\xff", kept.read_bytes()[:100]):
        kept.write_bytes(damage)
        _, told = measured(monkeypatch, asked=Question(["bookworm"], ["plain"]))
        assert told.started == [("bookworm", "plain")]


def test_a_cache_that_cannot_be_written_costs_the_next_run_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm" / "reports").write_text("in the way")
    matrix, _ = measured(monkeypatch, asked=Question(["bookworm"], ["plain"]))
    assert matrix.cells[0].outcome is Outcome.PASS


def test_old_ones_are_removed(tmp_path: Path) -> None:
    assert store.keep("old", report(PASSED))
    assert store.keep("new", report(PASSED))
    path = tmp_path / "vm" / "reports" / "old.json"
    os.utime(path, (time.time() - 100 * 86400,) * 2)
    store.prune()
    assert store.find("old") is None
    assert store.find("new") == report(PASSED)


def test_objects_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.o", tmp_path / "b" / "x.o", tmp_path / "plain"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x7fELF")
    asked = Question(["bookworm"], objects=given([str(path) for path in paths]))
    names = [program.name for program in asked.columns()]
    assert names == ["plain", "hardened", *map(str, paths)]
    job = asked.job(asked.columns()[2])
    assert job.arguments == ("verify", "--quick", "--object", "./x.o")
    assert job.files == {"./x.o": b"\x7fELF"}


_PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from harness import interruption
from harness.matrix import run, store
from harness.matrix.question import Question
from harness.vm import limits, spec
from tests.unit.matrix import test_run

directory = Path(sys.argv[1])
spec.resolve = test_run.kernel
store.harness_digest = lambda: "code"

def guest(machine, job):
    (directory / f"cell-{os.getpid()}").write_text("")
    if job.arguments[-1] == "hardened":
        time.sleep(600)  # until somebody ends it
    return test_run.fine(machine, job)

run.perform = lambda: guest
interruption.install()

class Told(test_run.Told):
    def finished(self, task, cell):
        print("done", task.program.name, flush=True)

try:
    run.measure(Question(["bookworm"]), 2, Told())
except interruption.Interrupted as interrupted:
    sys.exit(interrupted.exit_code)
"""


@pytest.fixture
def under_way(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A matrix in a process of its own, of which one cell is done and one takes long."""
    words = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "done plain\n"
            wait_for(lambda: len(cells(tmp_path)) == 2)
            yield process
        finally:
            process.kill()


def cells(directory: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in directory.glob("cell-*")]


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_interrupted_it_leaves_no_process_and_goes_on_where_it_was(
    number: signal.Signals,
    status: int,
    under_way: subprocess.Popen[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way.send_signal(number)
    assert under_way.wait(60) == status
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in cells(tmp_path)))
    matrix, told = measured(monkeypatch, asked=Question(["bookworm"]))
    assert told.started == [("bookworm", "hardened")]
    assert matrix.reused == 1


def test_reports_are_as_a_guest_sent_them(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, _ = measured(monkeypatch, asked=Question(["bookworm"], ["plain"]))
    assert report_json.dump(matrix.cells[0].report) == report_json.dump(report(PASSED, "6.1.0-1-amd64"))
