"""Clients that stay: one process for many requests, and never one that may have something left in it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.kernel import cgroups
from harness.lab import topology
from harness.lab.clients import NOBODY, Request
from harness.lab.lab import Lab
from harness.lab.worker import wait_until

OTHER = Request(topology.OTHER_ADDRESS, 80)


def test_one_process_for_many_requests(lab: Lab) -> None:
    first, second = lab.ask(OTHER), lab.ask(OTHER)
    assert (first.status, second.status) == (200, 200)
    assert first.pid == second.pid
    assert first.source_port != second.source_port


def test_requests_at_once_are_processes_of_their_own(lab: Lab) -> None:
    with lab.client(OTHER) as one, lab.client(OTHER) as other:
        assert one.pid != other.pid
        assert one.seen().status == other.seen().status == 200


def test_uid_and_cgroup_belong_to_the_process(lab: Lab) -> None:
    root = lab.ask(OTHER)
    nobody = lab.ask(Request(topology.OTHER_ADDRESS, 80, uid=NOBODY))
    outside = lab.ask(Request(topology.OTHER_ADDRESS, 80, cgroup=str(lab.outside_cgroup)))
    assert len({root.pid, nobody.pid, outside.pid}) == 3
    assert (root.uid, nobody.uid) == (0, NOBODY)
    assert Path(f"/proc/{nobody.pid}/status").read_text().count(f"{NOBODY}") >= 8  # uids and gids, all four each
    assert cgroups.processes(lab.outside_cgroup) == [outside.pid]
    assert {root.pid, nobody.pid} <= set(cgroups.processes(lab.client_cgroup))


@pytest.mark.parametrize(
    "request_",
    [
        Request(topology.VM_ADDRESS, 9),  # ECONNREFUSED
        Request(topology.OTHER_ADDRESS, 80, behaviour="failed-then-direct"),
        Request(topology.OTHER_ADDRESS, 80, behaviour="census.nonblocking"),
    ],
)
def test_none_that_may_have_something_left_is_used_again(lab: Lab, request_: Request) -> None:
    before = lab.ask(OTHER)
    tried = lab.ask(request_)
    after = lab.ask(OTHER)
    assert after.status == 200
    assert tried.pid != after.pid
    assert (after.pid == before.pid) == (tried.pid != before.pid)


def test_one_that_is_left_in_its_stage_ends(lab: Lab) -> None:
    with lab.client(Request(topology.OTHER_ADDRESS, 80, behaviour="wait")) as client:
        client.seen()
    assert not Path(f"/proc/{client.pid}").exists()
    assert lab.ask(OTHER).pid != client.pid


def test_one_that_was_killed_is_replaced(lab: Lab) -> None:
    first = lab.ask(OTHER)
    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(time.monotonic() + 10, lambda: ") Z " in Path(f"/proc/{first.pid}/stat").read_text())
    assert lab.ask(OTHER).status == 200
    second = lab.ask(OTHER)
    lab.kill(second.pid)
    assert not Path(f"/proc/{second.pid}").exists()
    assert lab.ask(OTHER).status == 200


def test_one_that_dies_at_work_is_an_error(lab: Lab) -> None:
    with lab.client(Request(topology.OTHER_ADDRESS, 80, behaviour="wait")) as client:
        client.seen()
        os.kill(client.pid, signal.SIGKILL)
        client.release()
        with pytest.raises(HarnessError, match="ended without a word"):
            client.seen()
    assert lab.ask(OTHER).status == 200
