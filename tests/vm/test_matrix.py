"""A real matrix, small: two kernels, our two programs, two objects; a baseline; killed, interrupted, resumed."""

from __future__ import annotations

import re
import secrets
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.kernel.probes import Answer
from harness.matrix import json as matrix_json
from harness.matrix.abilities import ABILITIES
from harness.matrix.floors import floors
from harness.report import Outcome
from harness.vm.kernels import Kernel
from tests.objects.build import Style, build

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "harness", "matrix"]
BOTH = ("--kernels", "bullseye,bookworm", "--checks", "load,attach,redirect")

both_kernels = pytest.mark.parametrize("kernel", ["bullseye"], indirect=True)  # bookworm is every other test's


def fresh(path: Path, style: Style) -> str:
    """An object with bytes at its end that no run has seen before."""
    path.write_bytes(build(style).read_bytes() + secrets.token_bytes(16))
    return str(path)


@pytest.fixture
def objects(tmp_path: Path) -> tuple[str, str]:
    """An object as the agent's were, and one as they are."""
    paths = (fresh(tmp_path / "old-style.o", Style.FIXED), fresh(tmp_path / "co-re.o", Style.CO_RE))
    return "--objects", ",".join(paths)


def matrix(*words: str, status: int = 0) -> str:
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@both_kernels
def test_two_kernels_and_four_programs(kernel: Kernel, objects: tuple[str, str], tmp_path: Path) -> None:
    paths = {form: tmp_path / f"matrix.{form}" for form in ("json", "junit", "markdown", "html")}
    outputs = [word for form, path in paths.items() for word in (f"--{form}", str(path))]
    baseline = tmp_path / "baseline.json"

    said = matrix(*BOTH, *objects, *outputs, "--write-baseline", str(baseline))
    assert len(re.findall(r"^\[\d/8\] ", said, re.MULTILINE)) == 8
    found = matrix_json.read(str(paths["json"]))
    assert [program.name for program in found.programs] == ["plain", "hardened", "old-style.o", "co-re.o"]
    assert [row.spec for row in found.rows] == ["bullseye", "bookworm"]
    assert found.rows[0].release == kernel.release
    assert {cell.outcome for cell in found.cells} <= {Outcome.PASS, Outcome.WARN}
    for cell in found.cells:
        answers = {ability.name: ability.ask(cell.report).answer for ability in ABILITIES}
        assert set(answers.values()) == {Answer.YES}, (cell.row, cell.program)
    assert {floor.text for floor in floors(found)} == {
        "accepted by all that were asked, 5.10 (bullseye) to 6.1 (bookworm); nothing older was asked"
    }
    assert [suite.get("name") for suite in ET.fromstring(paths["junit"].read_text())] == ["bullseye", "bookworm"]
    assert paths["markdown"].read_text().startswith("## ✅ 4 programs on 2 kernels: all 8 hold\n")
    assert paths["html"].read_text().count('<details class="cell ') == 8

    again = matrix(*BOTH, *objects, "--baseline", str(baseline))
    assert "nothing changed compared with the baseline" in again
    assert "8 of 8 kept from before" in again
    assert len(re.findall(r" \(kept\)$", again, re.MULTILINE)) == 8

    worse = tmp_path / "co-re.o"
    fresh(worse, Style.BUG_NULL_CHECK)
    said = matrix(*BOTH, *objects, "--baseline", str(baseline), status=1)
    assert "worse   bullseye × co-re.o load.connect4: the verifier refused" in said
    assert "6 of 8 kept from before" in said

    broken = tmp_path / "broken.json"
    matrix("--programs", "none", *BOTH, "--objects", str(worse), "--json", str(broken), status=1)
    said = matrix("--programs", "none", *BOTH, "--objects", str(worse), "--baseline", str(broken))
    assert "nothing changed compared with the baseline; 1 program on 2 kernels: 2 of 2 pairs fail" in said
    fresh(worse, Style.CO_RE)
    said = matrix("--programs", "none", *BOTH, "--objects", str(worse), "--baseline", str(broken))
    assert "fixed   bullseye × co-re.o load.connect4" in said


@contextmanager
def with_one_cell_done(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A matrix under way: one cell is done, and others are not."""
    with subprocess.Popen([*COMMAND, *words, "--jobs", "1"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert next(line for line in process.stdout if line.startswith("[")).startswith("[1/4] ")
            yield process
        finally:
            process.kill()


def descendants(pid: int) -> set[int]:
    children = [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    return set(children).union(*map(descendants, children)) if children else set()


def is_qemu(pid: int) -> bool:
    return "qemu" in Path(f"/proc/{pid}/comm").read_text()


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@both_kernels
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_ended_half_way_it_leaves_no_guest_and_goes_on_where_it_was(
    kernel: Kernel, objects: tuple[str, str], number: signal.Signals, status: int
) -> None:
    words = ("--programs", "none", *BOTH, *objects)
    with with_one_cell_done(*words) as process:
        deadline = time.monotonic() + 60
        while not any(map(is_qemu, there := descendants(process.pid))):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) == status
    wait_until_gone(there)
    said = matrix(*words)
    assert "1 of 4 kept from before" in said
    assert said.splitlines()[-1].startswith("✓ 2 programs on 2 kernels: all 4 hold")


def test_a_suite_that_is_not_there_is_one_row_of_errors(kernel: Kernel) -> None:
    words = ("--kernels", "bookworm,no-such-suite", "--programs", "plain", "--checks", "load")
    said = matrix(*words, status=1)
    assert "PASS  bookworm × plain: holds" in said
    assert "ERROR no-such-suite × plain: no answer: guest.kernel: could not find out:" in said


def test_machines_of_two_kinds(kernel: Kernel, tmp_path: Path) -> None:
    """On one with v1 cgroups only nothing can be attached: that is said, and the other holds."""
    path = tmp_path / "matrix.json"
    words = ("--kernels", "bookworm", "--programs", "plain", "--checks", "load", "--vary", "cgroup=v2,v1")
    matrix(*words, "--json", str(path), status=1)
    found = matrix_json.read(str(path))
    assert [row.name for row in found.rows] == ["bookworm", "bookworm cgroup=v1"]
    assert found.cells[0].outcome is Outcome.PASS
    (bad,) = [one for one in found.cells[1].report.results if one.outcome is Outcome.FAIL]
    assert bad.id == "preflight.cgroup2"
