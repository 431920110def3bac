"""verify on other kernels: on real ones with kprobes, and on one that charges locked memory.

A boot takes 4 s and a verification 10 to 30 s under TCG, on two cores that others use as well.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import harness
from harness.program import source
from harness.report import Outcome, Report
from harness.vm import verify
from harness.vm.kernels import Kernel

GROUPS = {"load", "attach", "redirect", "untouched", "authorization", "audit", "removal", "chain"}
COMPLETING = {"sock_ops": "load.complete_sockops", "kprobe": "load.complete_kprobe"}


def outcomes(report: Report) -> dict[str, Outcome]:
    return {result.id: result.outcome for result in report.results}


@pytest.mark.parametrize(
    ("kernel", "audit"),
    [("bookworm", "sock_ops"), ("bookworm", "kprobe"), ("bullseye", "kprobe")],
    indirect=["kernel"],
)
def test_redirection_holds(kernel: Kernel, audit: str) -> None:
    report = verify.verify(kernel, ["--quick", "--audit", audit])
    assert report.kernel == kernel.release
    assert report.target == f"{kernel.origin} in a guest (tcg)" or report.target.endswith("(kvm)")
    assert [result for result in report.results if result.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    assert {result.group for result in report.results} == GROUPS | {"preflight"}
    found = outcomes(report)
    assert {found[id] for id in found if not id.startswith("preflight.")} == {Outcome.PASS}
    assert found["preflight.kernel"] is Outcome.PASS  # kprobes and BTF are there too
    assert COMPLETING[audit] in found


@pytest.mark.parametrize("kernel", ["bullseye"], indirect=True)
def test_locked_memory_is_charged_before_5_11(kernel: Kernel) -> None:
    """64 KiB, the default there, refuse the maps: verify lifts its own limit and warns of it."""
    report = verify.verify(kernel, ["--only", "preflight", "--only", "load.maps"])
    found = {result.id: result for result in report.results}
    assert found["preflight.memlock"].outcome is Outcome.WARN
    assert "EPERM" in found["preflight.memlock"].summary
    assert found["load.maps"].outcome is Outcome.PASS


def test_a_kprobe_that_completes_nothing_is_noticed(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kprobe on another function than tcp_connect: redirection works, and no record names a client."""
    package = tmp_path / "harness"
    shutil.copytree(Path(harness.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source.directory(), tmp_path / "bpf")
    attach = package / "program" / "attach.py"
    text = attach.read_text()
    assert text.count('KPROBE_FUNCTION = "tcp_connect"') == 1
    attach.write_text(text.replace('KPROBE_FUNCTION = "tcp_connect"', 'KPROBE_FUNCTION = "tcp_check_req"'))
    monkeypatch.setattr(harness, "__file__", str(package / "__init__.py"))
    report = verify.verify(kernel, ["--audit", "kprobe", "--only", "redirect", "--only", "attach"])
    found = outcomes(report)
    assert {found[id] for id in found if id.startswith("redirect.")} == {Outcome.FAIL}
    assert found["attach.link"] is Outcome.PASS
