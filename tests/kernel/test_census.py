"""The census on the real kernel: what must hold everywhere holds, and without a redirect nobody is said to have one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest

from harness.checks.census import census, measure, outcome, rows
from harness.checks.census_judge import Verdict
from harness.checks.census_rows import ROWS, Row
from harness.kernel import cgroups
from harness.lab.lab import Lab, open_lab
from harness.lab.redirection import Redirection, redirect
from harness.lab.state import Run
from harness.msp.endpoints import ENDPOINTS, PROXY
from harness.program.image import Image
from harness.program.load import load
from harness.report import Outcome, Result

QUICK = [row for row in ROWS if not row.program]
MUST = [row for row in QUICK if row.must is Verdict.REDIRECTED]
DIRECT = [row for row in QUICK if row.must is Verdict.DIRECT]


@contextmanager
def at_work(run: Run, *images: tuple[str, Image], proxy_port: int = PROXY[1]) -> Iterator[dict[str, Redirection]]:
    with ExitStack() as stack:
        labs = {name: stack.enter_context(open_lab(run, name, proxy_port=proxy_port)) for name, _ in images}
        yield {
            name: stack.enter_context(redirect(labs[name], stack.enter_context(load(image)))) for name, image in images
        }


def verdict(result: Result, program: str) -> str:
    told = result.evidence[program]
    assert isinstance(told, Mapping)
    return str(told["verdict"])


def test_plain_and_hardened_side_by_side(run: Run, image: Image, hardened_image: Image) -> None:
    with at_work(run, ("plain", image), ("hardened", hardened_image)) as redirections:
        results = list(census(redirections))
        directories = [path for path in cgroups.tree(run.cgroup) if path.name.startswith(("below-", "late-"))]
    assert [result for result in results if result.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    assert [result.id for result in results] == [f"census.{row.name}" for row in ROWS]
    assert len(rows(results)) == len(ROWS)
    found = {result.id.removeprefix("census."): result for result in results}
    for name in ("mapped", "mapped-getaddrinfo"):
        assert (verdict(found[name], "plain"), verdict(found[name], "hardened")) == ("bypasses", "redirected")
        assert "closed by hardened" in (found[name].remedy or "")
    assert (verdict(found["bind-to-device"], "plain"), verdict(found["bind-to-device"], "hardened")) == (
        "breaks",
        "redirected",
    )
    for name, wanted in {
        "raw": "bypasses",
        "outside": "bypasses",
        "moves-in": "bypasses",
        "moves-out": "redirected",
        "passed-outside": "redirected",
        "opened-before": "bypasses",
        "network-namespace": "breaks",
        "one-port": "breaks",
        "one-port-two-addresses": "redirected, with a wrong record",
    }.items():
        assert verdict(found[name], "plain") == wanted, name
    assert directories == []


@pytest.mark.parametrize("row", MUST + DIRECT, ids=lambda row: row.name)
def test_every_row_that_must_hold_can_be_run_alone(row: Row, run: Run, image: Image) -> None:
    with at_work(run, ("plain", image)) as redirections:
        found = measure(redirections, [row])["plain"][row.name]
    assert found.verdict is row.must
    assert all(one.record in ("right", "") for one in found.judgements)


def test_without_policy_nobody_is_redirected(run: Run, image: Image) -> None:
    """The negative control of the census: the program is attached and has nothing to do."""
    with at_work(run, ("empty", image)) as redirections:
        for endpoint in ENDPOINTS:
            assert redirections["empty"].clear_policy(endpoint)
        found = measure(redirections)["empty"]
    wanted = {Verdict.BYPASSES, Verdict.DIRECT, Verdict.NOT_APPLICABLE}
    assert {name: str(one.verdict) for name, one in found.items() if one.verdict not in wanted} == {}
    assert {row.name: outcome(row, found[row.name]) for row in MUST} == {row.name: Outcome.FAIL for row in MUST}
    assert all(found[row.name].verdict is Verdict.DIRECT for row in DIRECT)


def test_where_the_proxy_does_not_listen_clients_break(run: Run, image: Image) -> None:
    with at_work(run, ("deaf", image), proxy_port=PROXY[1] + 1) as redirections:
        found = measure(redirections, QUICK)["deaf"]
    assert {row.name: str(found[row.name].verdict) for row in MUST} == {row.name: "breaks" for row in MUST}
    assert found["blocking"].own[0].proof.seen.error == "ECONNREFUSED"
    assert {outcome(row, found[row.name]) for row in MUST} == {Outcome.FAIL}
    assert found["outside"].verdict is Verdict.BYPASSES


def test_record_for_somebody_else_is_no_pass(run: Run, image: Image) -> None:
    """A proxy that reads another map finds nobody: every answer is the proxy's, and none is right."""
    with at_work(run, ("plain", image)) as redirections, load(image) as other:
        redirections["plain"].lab.use_audit_map(other.maps["audit_map"])
        found = measure(redirections, MUST)["plain"]
    assert {one.verdict for one in found.values()} == {Verdict.MISATTRIBUTED}
    assert {judgement.record for one in found.values() for judgement in one.judgements} == {"none"}


def set_in_vm(lab: Lab, setting: str) -> None:
    """NAME=VALUE, of the VM's network namespace."""
    name, _, value = setting.partition("=")
    line = f"echo '{value}' > /proc/sys/{name.replace('.', '/')}"
    subprocess.run(["nsenter", "-t", str(lab.vm.pid), "-n", "sh", "-c", line], check=True)


def test_what_is_switched_off_is_not_applicable_with_the_reason(run: Run, image: Image) -> None:
    names = {"mptcp": "net.mptcp.enabled=0", "fastopen": "net.ipv4.tcp_fastopen=0"}
    with at_work(run, ("plain", image)) as redirections:
        for setting in names.values():
            set_in_vm(redirections["plain"].lab, setting)
        results = list(census(redirections, [row for row in ROWS if row.name in names]))
    assert {result.outcome for result in results} == {Outcome.SKIP}
    assert "IPPROTO_MPTCP" in results[0].summary
    assert "tcp_fastopen" in results[1].summary


def test_source_ports_that_the_proxy_has_too_confuse_nobody(run: Run, image: Image) -> None:
    """With few ports to choose from, clients and the proxy's own connections have the same ones all the time.

    Records may then be lost for real (audit_map's key has no address), which is a verdict like any other.
    """
    with at_work(run, ("plain", image)) as redirections:
        set_in_vm(redirections["plain"].lab, "net.ipv4.ip_local_port_range=40000 40099")
        found = measure(redirections, MUST)["plain"]
    contradictions = {name: [judged.contradiction for judged in one.judgements] for name, one in found.items()}
    assert {name: texts for name, texts in contradictions.items() if any(texts)} == {}
    assert found["blocking"].own[0].proof.seen.nonce != ""
