"""verify on other kernels: on real ones with kprobes, and on one that charges locked memory.

Each is a copy of a saved guest: a boot, and then seconds for each verification, under TCG.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import harness
from harness.program import source
from harness.report import Outcome, Report
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Machine
from harness.vm.run import run

GROUPS = {"load", "attach", "redirect", "untouched", "authorization", "audit", "removal", "chain"}
COMPLETING = {"sock_ops": "load.complete_sockops", "kprobe": "load.complete_kprobe"}


def verify(kernel: Kernel, *arguments: str, fresh: bool = False) -> Report:
    return run(Machine(kernel), Job(("verify", *arguments), fresh=fresh))


def outcomes(report: Report) -> dict[str, Outcome]:
    return {result.id: result.outcome for result in report.results}


@pytest.mark.parametrize(
    ("kernel", "audit"),
    [("bookworm", "sock_ops"), ("bookworm", "kprobe"), ("bullseye", "kprobe"), ("trixie", "sock_ops")],
    indirect=["kernel"],
)
def test_redirection_holds(kernel: Kernel, audit: str) -> None:
    report = verify(kernel, "--quick", "--audit", audit)
    assert report.kernel == kernel.release
    assert report.target.startswith(f"{kernel.origin} in a guest (")
    assert [result for result in report.results if result.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    assert {result.group for result in report.results} == GROUPS | {"preflight"}
    found = outcomes(report)
    assert {found[id] for id in found if not id.startswith("preflight.")} == {Outcome.PASS}
    assert found["preflight.kernel"] is Outcome.PASS  # kprobes and BTF are there too
    assert COMPLETING[audit] in found


@pytest.mark.parametrize("kernel", ["bullseye"], indirect=True)
def test_locked_memory_is_charged_before_5_11(kernel: Kernel) -> None:
    """64 KiB, the default there, refuse the maps: verify lifts its own limit and warns of it."""
    report = verify(kernel, "--only", "preflight", "--only", "load.maps")
    found = {result.id: result for result in report.results}
    assert found["preflight.memlock"].outcome is Outcome.WARN
    assert "EPERM" in found["preflight.memlock"].summary
    assert found["load.maps"].outcome is Outcome.PASS


def change(place: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str) -> None:
    """Have guests run a copy of this package in which one text of a file is another.

    They are booted: nobody asks for such a one twice.
    """
    package = place / "harness"
    shutil.copytree(Path(harness.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source.directory(), place / "bpf")
    text = (package / file).read_text()
    assert text.count(old) == 1
    (package / file).write_text(text.replace(old, new))
    monkeypatch.setattr(harness, "__file__", str(package / "__init__.py"))


def test_a_kprobe_that_completes_nothing_is_noticed(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kprobe on another function than tcp_connect: redirection works, and no record names a client."""
    where = 'KPROBE_FUNCTION = "{}"'
    change(tmp_path, monkeypatch, "program/attach.py", where.format("tcp_connect"), where.format("tcp_check_req"))
    found = outcomes(verify(kernel, "--audit", "kprobe", "--only", "redirect", "--only", "attach", fresh=True))
    assert {found[id] for id in found if id.startswith("redirect.")} == {Outcome.FAIL}
    assert found["attach.link"] is Outcome.PASS


def test_what_waits_for_a_thread_does_not_speak_for_its_next_socket(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the failed connect another socket, of a family that connect4 never sees, goes to the proxy.

    A kprobe knows the thread and no more: a record that a failed connect left waiting was taken by that one.
    """
    change(
        tmp_path,
        monkeypatch,
        "lab/clients.py",
        '        client.connect(tuple(request.options["then"]))\n        return replace(exchange(client',
        "        other = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)\n"
        '        other.connect(("::ffff:" + request.options["then"][0], request.options["then"][1]))\n'
        "        return replace(exchange(other",
    )
    report = verify(kernel, "--audit", "kprobe", "--only", "audit.same-socket", fresh=True)
    assert outcomes(report) == {"audit.same-socket": Outcome.PASS}
