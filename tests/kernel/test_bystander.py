"""Programs that are attached as long as a run lasts; what proxy and fabric saw before is never taken for the next."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from harness.kernel import bpf
from harness.kernel.bpf import AttachType
from harness.lab import topology
from harness.lab.bystander import bystanders
from harness.lab.clients import Request
from harness.lab.lab import Lab
from harness.lab.state import Run
from harness.program import attached
from harness.program.attach import Way

OTHER = Request(topology.OTHER_ADDRESS, 80)
KINDS = (AttachType.CGROUP_INET4_CONNECT, AttachType.CGROUP_SOCK_OPS)


def names(group: Path, kind: AttachType) -> list[str]:
    return [program.name for program in attached.at(group, kind).programs]


@pytest.mark.parametrize("way", [Way.LINK, Way.MULTI])
def test_they_are_there_until_the_end_and_run_for_nobody(run: Run, lab: Lab, way: Way) -> None:
    group = run.cgroup / "bystander"
    before = attached.effective(lab.client_cgroup, KINDS[0])
    with bystanders(run, way):
        assert [names(group, kind) for kind in KINDS] == [["bystander"], ["bystander"]]
        assert not (group / "cgroup.procs").read_text()
        assert attached.effective(lab.client_cgroup, KINDS[0]) == before
    assert [names(group, kind) for kind in KINDS] == [[], []]


def test_a_kernel_that_refuses_them_is_left_to_the_checks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise bpf.BpfError("load bystander", errno.EINVAL)

    monkeypatch.setattr(bpf, "prog_load", refuse)
    with bystanders(run, Way.LINK):
        assert [names(run.cgroup / "bystander", kind) for kind in KINDS] == [[], []]


def sent(lab: Lab) -> list[int]:
    return [packet.source_port for packet in lab.since()[1] if packet.opens]


def test_what_was_done_before_is_forgotten_and_what_comes_after_is_not(lab: Lab) -> None:
    lab.ask(OTHER)
    lab.forget()
    one = lab.ask(OTHER)
    assert sent(lab) == [one.source_port]
    lab.forget()  # there is nothing
    another = lab.ask(OTHER)
    assert sent(lab) == [another.source_port]


def test_a_client_that_goes_on_after_all_was_told_is_forgotten_too(lab: Lab) -> None:
    """It was started before, connects later, and must not be taken for what comes then."""
    with lab.client(Request(topology.OTHER_ADDRESS, 80, behaviour="wait")) as waiting:
        waiting.seen()
        assert sent(lab) == []
        waiting.release()
        early = waiting.seen()
        lab.forget()
        late = lab.ask(OTHER)
        assert early.status == late.status == 200
        assert sent(lab) == [late.source_port]


def test_a_client_that_was_closed_after_all_was_told_is_forgotten_too(lab: Lab) -> None:
    with lab.client(OTHER) as client:
        lab.since()
        client.seen()
    lab.forget()
    assert sent(lab) == []
