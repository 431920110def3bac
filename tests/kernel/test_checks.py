"""Each check of verify on the real kernel: it passes, and what it checks can be broken so that it fails for it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from harness.checks import attach, audit, chain, loading, plan, redirect, removal, selftest
from harness.checks.base import Check, Environment, perform
from harness.kernel import bpf, cgroups
from harness.kernel.bpf import AttachType
from harness.lab import topology
from harness.lab.clients import Request
from harness.lab.lab import Lab
from harness.lab.redirection import Redirection
from harness.msp import codes
from harness.msp.endpoints import IMDS, WIRESERVER
from harness.program import attached, maps
from harness.program.attach import Way, attach_one
from harness.program.compile import Compilation, Join, redirector
from harness.program.image import Image
from harness.program.load import load
from harness.report import Outcome, Result
from harness.verifier.explain import explain_text

CONNECT4 = AttachType.CGROUP_INET4_CONNECT


def by_id(results: Iterator[Result]) -> dict[str, Result]:
    return {result.id: result for result in results}


@pytest.mark.parametrize("check", plan.CHECKS, ids=lambda check: check.name)
def test_check_passes_and_gives_as_many_results_as_its_row_says(check: Check, environment: Environment) -> None:
    results = list(perform(check, environment))
    assert [result for result in results if result.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    assert len(results) == check.results
    assert len({result.id for result in results}) == len(results)
    assert all(result.id == check.name or result.id.startswith(check.name.split(".")[0] + ".") for result in results)


@pytest.mark.parametrize("fault", selftest.FAULTS, ids=lambda fault: fault.name)
def test_fault_fits_the_source(fault: selftest.Fault) -> None:
    assert fault.new in selftest.broken(fault)


def test_every_fault_is_caught(environment: Environment, join: Join) -> None:
    results = list(selftest.self_test(environment, join))
    assert [result.summary for result in results if result.outcome is not Outcome.PASS] == []
    assert len(results) == len(selftest.FAULTS)


def test_self_test_notices_a_check_that_sees_nothing(environment: Environment, join: Join) -> None:
    """The program as it is, given out for a broken one, must be reported as not caught."""
    with Compilation(redirector(join=join)) as compilation:
        result = selftest._caught(environment, selftest.FAULTS[0], compilation)
    assert result.outcome is Outcome.FAIL
    assert "cannot be trusted" in result.summary


Breaking = Callable[[Redirection], None]


@contextmanager
def broken_by(breaking: Breaking, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have every redirection of a check broken in one way before traffic flows."""
    original = Environment.redirect

    @contextmanager
    def redirect_and_break(environment: Environment) -> Iterator[Redirection]:
        with original(environment) as redirection:
            breaking(redirection)
            yield redirection

    with monkeypatch.context() as patch:
        patch.setattr(Environment, "redirect", redirect_and_break)
        yield


def clear(redirection: Redirection) -> None:
    redirection.clear_policy(IMDS)


def to_dead_port(redirection: Redirection) -> None:
    redirection.set_policy(IMDS, removal.DEAD)


def detach(redirection: Redirection) -> None:
    link = redirection.links["connect4"]
    assert link is not None
    bpf.link_detach(link)


def unskip(redirection: Redirection) -> None:
    maps.unskip(redirection.skip_map, redirection.lab.proxy.pid)


def other_audit_map(redirection: Redirection) -> None:
    with bpf.map_create(bpf.MapType.HASH, 8, 20, 8) as empty:
        redirection.lab.use_audit_map(empty)


@pytest.mark.parametrize(
    ("breaking", "check", "failing", "reason"),
    [
        (clear, redirect.redirected, "redirect.imds", "no nonce of the proxy"),
        (to_dead_port, redirect.redirected, "redirect.imds", "ECONNREFUSED"),
        (detach, redirect.redirected, "redirect.wireserver", "over the veth"),
        (unskip, redirect.redirected, "redirect.imds", "508"),
        (other_audit_map, redirect.redirected, "redirect.imds", "421"),
        (clear, redirect.authorized, "authorization.imds.nobody", "no nonce"),
        (detach, redirect.authorized, "authorization.wireserver.nobody", "itself sent 1 SYN"),
        (clear, chain.chain, "chain.imds", "breaks at the policy row"),
        (to_dead_port, chain.chain, "chain.imds", "breaks at the policy row"),
        (detach, chain.chain, "chain.imds", "breaks at the link"),
        (other_audit_map, audit.audited, "audit.not-inherited", "421 for WireServer"),
        (detach, audit.audited, "audit.pid-reuse", "no nonce"),
        (clear, audit.audited, "audit.retried", "no nonce"),
        (detach, removal.removed, "removal.policy", "WireServer meanwhile"),
    ],
)  # fmt: skip
def test_check_fails_for_the_right_reason(
    breaking: Breaking,
    check: Callable[[Environment], Iterator[Result]],
    failing: str,
    reason: str,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with broken_by(breaking, monkeypatch):
        result = by_id(check(environment))[failing]
    assert result.outcome is Outcome.FAIL
    assert reason in result.summary


def test_untouched_fails_when_the_capture_sees_nothing(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = Lab.since
    monkeypatch.setattr(Lab, "since", lambda lab: (since(lab)[0], []))
    result = by_id(redirect.untouched(environment))["untouched.other-address"]
    assert result.outcome is Outcome.FAIL
    assert "nothing of the client crossed the veth" in result.summary


def test_load_fails_when_a_layout_differs(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = dict(maps.LAYOUTS) | {"audit_map": replace(maps.LAYOUTS["audit_map"], value_size=24)}
    monkeypatch.setattr(maps, "LAYOUTS", layouts)
    result = by_id(loading.loaded(environment))["load.maps"]
    assert result.outcome is Outcome.FAIL
    assert result.summary == "audit_map's value has 20 B, not 24"


def test_attach_is_refused_below_an_exclusive_program(environment: Environment, image: Image) -> None:
    """EPERM by every way, told apart from a missing privilege, and the neighbour is named."""
    with load(image) as other, attach_one(other.programs["connect4"], environment.lab.cgroup, CONNECT4, Way.SINGLE):
        results = by_id(attach.ways(environment))
        path = next(attach.neighbours(environment))
    assert {result.outcome for result in results.values()} == {Outcome.FAIL}
    assert {result.evidence["errno"] for result in results.values()} == {"EPERM"}
    assert {result.code for result in results.values()} == {codes.EXCLUSIVE_PROGRAM.id}
    assert path.outcome is Outcome.WARN
    assert "exclusive" in path.summary


def test_attach_beside_another_product(environment: Environment, image: Image) -> None:
    """A multi-attached neighbour, as Cilium's, does not conflict, and is named."""
    with load(image) as other, attach_one(other.programs["connect4"], environment.lab.cgroup, CONNECT4, Way.MULTI):
        results = by_id(attach.ways(environment))
        path = next(attach.neighbours(environment))
    assert results["attach.link"].outcome is Outcome.PASS
    assert path.outcome is Outcome.WARN
    assert "PROG_ATTACH" in json.dumps(path.observed)


def test_stale_redirect_needs_all_three_signs(environment: Environment) -> None:
    """A live listener, or a link that holds the program, is no stale redirect."""
    lab = environment.lab
    with environment.redirect() as redirection:
        redirection.set_policy(IMDS, removal.DEAD)
        assert removal.stale_redirects(lab) == []  # held by a link
    redirection = removal._unattached(environment)
    with attach_one(environment.loaded.programs["connect4"], lab.attach_cgroup, CONNECT4, Way.SINGLE):
        assert removal.stale_redirects(lab) == []  # everybody listens
        redirection.set_policy(WIRESERVER, removal.DEAD)
        assert len(removal.stale_redirects(lab)) == 1


def test_removal_fails_when_the_program_stays(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second descriptor of the link keeps the program: closing and killing are then not enough."""
    kept: list[int] = []
    original = bpf.link_create

    def create_and_keep(*arguments: object, **more: object) -> bpf.Fd:
        link = original(*arguments, **more)  # type: ignore[arg-type]
        kept.append(os.dup(link.fileno()))
        return link

    monkeypatch.setattr(bpf, "link_create", create_and_keep)
    try:
        result = removal._closed(environment)
    finally:
        for number in kept:
            os.close(number)
    assert result.outcome is Outcome.FAIL
    assert "still runs" in result.summary


def test_a_link_that_somebody_looks_at_is_gone_all_the_same(environment: Environment) -> None:
    """Who lists the links of the machine, as another run does, holds each for a moment."""
    program = environment.loaded.programs["connect4"]
    with attach_one(program, environment.lab.attach_cgroup, CONNECT4) as link:
        assert link is not None
        looking = os.dup(link.fileno())
        ends = threading.Timer(0.2, os.close, (looking,))
        ends.start()
    assert bpf.prog_info(program).id not in attached.effective(environment.lab.client_cgroup, CONNECT4)
    ends.join()


def test_map_information_of_the_kernel_agrees_with_python(environment: Environment) -> None:
    for name, layout in maps.LAYOUTS.items():
        info = bpf.map_info(environment.loaded.maps[name])
        assert (info.type, info.key_size, info.value_size) == (layout.type, layout.key_size, layout.value_size)
        assert info.max_entries == (maps.AUDIT_ENTRIES if layout.entries == 200 else layout.entries)


def test_what_a_killed_owner_attached_is_listed_with_its_policy(environment: Environment) -> None:
    lab = environment.lab
    with environment.redirect():
        place = attached.at(lab.attach_cgroup, CONNECT4)
    assert place.mode == "multi"
    assert [program.name for program in place.programs] == ["connect4"]
    assert place.programs[0].link is not None
    assert dict(place.programs[0].policies)[maps.Destination(IMDS.address, IMDS.port)] == maps.Destination(
        "127.0.0.1", 3080
    )
    assert cgroups.supported()


def test_other_connect_with_the_same_port_does_not_take_a_record(environment: Environment) -> None:
    """Between a client's connect and its accept, somebody else may connect elsewhere from the same port."""
    with environment.redirect() as redirection:
        seen = environment.lab.ask(Request.to(IMDS, source_port=20_000, behaviour="reset"))
        other = environment.lab.ask(Request(topology.OTHER_ADDRESS, 80, source_port=20_000, behaviour="reset"))
        assert (seen.status, other.status) == (200, 200)
        assert redirection.audit(20_000) is not None


@pytest.mark.parametrize("level", [1, 2])
def test_accepted_log_is_explained_as_accepted(level: int, image: Image) -> None:
    """Whatever this kernel prints of a program that it takes is no complaint."""
    with load(image, log_level=level) as loaded:
        for log in loaded.logs.values():
            (explained,) = explain_text(log)
            assert explained.code.id == "MSP-V203", explained.lines
