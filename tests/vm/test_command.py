"""`msp-harness vm` as a user gives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.cli import vm as command
from harness.report import json as form
from harness.vm.kernels import Kernel
from tests.objects.build import Style, build

ROOT = Path(__file__).resolve().parents[2]


def vm(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "vm", *words]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_one_report_for_each_value(kernel: Kernel, tmp_path: Path) -> None:
    """The guide's cgroup failures on whole machines: only with cgroup2 there is anything to attach to."""
    file = tmp_path / "report.json"
    done = vm("verify", "--kernel", "bookworm", "--only", "preflight.cgroup2,attach.link", "--vary", "cgroup=v2,none",
              "--json", str(file))  # fmt: skip
    assert done.returncode == 3, done.stderr
    found = {path.name: form.load(path.read_text()) for path in tmp_path.iterdir()}
    assert found.keys() == {"report.usual.json", "report.cgroup=none.json"}
    assert "in a guest (" in found["report.usual.json"].target
    assert "cgroup=none" in found["report.cgroup=none.json"].target
    outcomes = {name: [result.outcome for result in report.results] for name, report in found.items()}
    assert set(outcomes["report.usual.json"]) == {"PASS"}
    assert "FAIL" in outcomes["report.cgroup=none.json"]


def test_somebodys_object(kernel: Kernel, tmp_path: Path) -> None:
    done = vm("verify", "--kernel", "bookworm", "--object", str(build(Style.CO_RE)), "--only", "load,attach,redirect",
              "--json", "-")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["target"].startswith(f"{build(Style.CO_RE).name} on {kernel.origin} in a guest (")
    assert {result["outcome"] for result in report["results"]} == {"PASS"}


def test_a_failure_of_the_guide(kernel: Kernel) -> None:
    done = vm("reproduce", "--kernel", "bookworm", "attach-tmpfs")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 failures brought about and cured" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("verify", "--kernel", "bookworm", "--only", "nonsense"), "no check is named nonsense"),
        (("verify", "--kernel", "bookworm", "--vary", "cgroup=v3"), "there is no such layout"),
        (("verify", "--kernel", "bookworm", "--cpus", "0"), "give one from 1 to"),
        (("verify", "--kernel", "bookworm", "--quick", "--census"), "--quick leaves out the census"),
        (("verify", "--kernel", "bookworm", "--timeout", "0"), "give seconds above 0"),
        (("verify", "--kernel", "bookworm", "--object", "/nonexistent"), "ENOENT"),
        (("reproduce", "--kernel", "bookworm", "nonsense"), "nonsense"),
    ],
)
def test_wrong_usage(kernel: Kernel, words: tuple[str, ...], told: str) -> None:
    done = vm(*words)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), ["verify", "--quick"]),
        (("--quick",), ["verify", "--quick"]),
        (("--census",), ["verify"]),
        (("--only", "census"), ["verify", "--only=census"]),
        (("--program", "hardened"), ["verify", "--quick", "--program=hardened"]),
    ],
)
def test_the_census_is_left_out_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], words: list[str]
) -> None:
    asked: list[list[str]] = []

    def run(options: object, words: list[str], *rest: object) -> int:
        asked.append(words)
        return 0

    monkeypatch.setattr(command, "_run", run)
    options = cli.parser().parse_args(["vm", "verify", "--kernel", "bookworm", *given])
    assert options.command(options) == 0
    assert asked == [words]
