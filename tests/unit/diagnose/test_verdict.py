"""Ranking, symptoms, doubts, and what is asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.diagnose import facts as f
from harness.diagnose import intake
from harness.diagnose.rule import Role, Sure
from harness.diagnose.rules import RULES
from harness.diagnose.verdict import Kind, diagnose
from tests.unit.diagnose import made
from tests.unit.diagnose.evidence_corpus import NOW, Case, cases

REFUSED = 'Failed to acquire key details: Key(KeyResponse("acquire", 403))'
ATTACH = "Failed to start redirector: Failed to attach program 'connect4' with error: `bpf_link_create` failed"


def unit(active: str, exit_status: str | None = None) -> f.UnitState:
    name = "azure-proxy-agent.service"
    return f.UnitState(made.source(f"Active: {active}"), name, "loaded", "enabled", active, exit_status=exit_status)


def test_nothing_is_no_evidence_and_never_healthy() -> None:
    found = made.verdict()
    assert (found.kind, found.code.id) == (Kind.CANNOT_TELL, "MSP-E191")
    assert found.asks


def test_a_running_unit_alone_decides_nothing_and_the_missing_status_is_asked_for() -> None:
    found = made.verdict(unit("active"))
    assert (found.kind, found.code.id) == (Kind.CANNOT_TELL, "MSP-E190")
    assert found.asks[0].command == "cat /var/log/azure-proxy-agent/status.json"


def test_causes_are_ranked_by_how_sure_they_are() -> None:
    table = f.Mounts(made.source("mount"), (), "cgroup2")
    found = diagnose(made.evidence(table, unit("failed", exit_status="203/EXEC")), made.NOW)
    assert [(row.code.id, row.sure) for row in found.findings] == [
        ("MSP-P313", Sure.CERTAIN),
        ("MSP-A102", Sure.LIKELY),
    ]


def test_a_symptom_stands_beside_its_cause_and_leads_where_there_is_none() -> None:
    both = made.read(status_json=made.status(ATTACH), mount="$ mount | grep cgroup2\n$ ")
    crashed = diagnose(made.evidence(*both.evidence.facts, unit("failed")), made.NOW)
    assert crashed.code.id == "MSP-A102"
    assert [row.code.id for row in crashed.also] == ["MSP-P313"]
    assert crashed.also[0].role is Role.SYMPTOM
    alone = made.read(status_json=made.status("Failed to start eBPF/redirector with multiple retries"))
    assert (alone.kind, alone.code.id) == (Kind.CAUSE, "MSP-P105")


def test_contradictory_evidence_takes_certainty_away() -> None:
    status = made.read(status_json=made.status(REFUSED, "keyLatchStatus", "RUNNING")).evidence.facts
    assert diagnose(made.evidence(*status), made.NOW).sure is Sure.CERTAIN
    hosts = [f.Identity(made.source(name), f.IdentityKind.HOST, name) for name in ("web-1", "db-1")]
    found = diagnose(made.evidence(*status, *hosts), made.NOW)
    assert found.code.id == "MSP-K102"
    assert [row.code.id for row in found.contradictions] == ["MSP-E104"]


def test_a_command_that_was_answered_is_not_asked_again() -> None:
    asked = made.read(status_json=made.status(ATTACH))
    assert "uname -r" in [ask.command for ask in asked.asks]
    output = f.CommandOutput(made.source("uname -r"), "uname -r", "6.8.0")
    again = diagnose(made.evidence(*asked.evidence.facts, output), made.NOW)
    assert "uname -r" not in [ask.command for ask in again.asks]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_neither_the_order_of_documents_nor_a_second_copy_changes_a_verdict(case: Case) -> None:
    files = [path for path in sorted(case.bundle.rglob("*")) if path.is_file()]
    read = [intake.read_bytes(path.read_bytes(), str(path.relative_to(case.bundle))) for path in files]
    found = [
        diagnose(made.evidence(*(fact for one in several for fact in one.facts)), NOW)
        for several in (read, read[::-1], read + read)
    ]
    told = {(one.kind, one.code.id, one.sure, *(row.code.id for row in one.contradictions)) for one in found}
    assert len(told) == 1


def test_every_finding_has_evidence_a_place_and_something_to_do() -> None:
    found = made.read(status_json=made.status(ATTACH), mount="$ mount | grep cgroup2\n$ ")
    for tried in found.tried:
        for finding in tried.findings:
            assert finding.because
            assert finding.remedy
            assert finding.sure
            assert finding.role


def test_times_are_compared_with_the_moment_given() -> None:
    facts = made.read(status_json=made.status(REFUSED, "keyLatchStatus", "RUNNING")).evidence.facts
    past = diagnose(made.evidence(*facts), datetime(2020, 1, 1, tzinfo=UTC))
    assert [row.code.id for row in past.contradictions] == ["MSP-E103"]


WORDS = st.sampled_from(
    [
        made.status(REFUSED, "keyLatchStatus", "RUNNING"), made.status(ATTACH), "5.4.0-1109-azure", "nodev\tcgroup\n",
        "Unit azure-proxy-agent.service could not be found.", "$ mount | grep cgroup2\n$ ", "ID=rhel\nNAME=x\n",
        "SERVICE_NAME: eBPFCore\n        TYPE : 1  KERNEL_DRIVER\n        STATE : 1  STOPPED\n"
        "        WIN32_EXIT_CODE : 577 (0x241)\n",
        "Error code: Linux.OSProvisioningInternalError\n", "/usr/bin/cloud-init 22.4.2\n",
        "result=error|reason=azure-proxy-agent not found|agent=Cloud-Init/24.3.1|vm_id=x",
        "cgroup2 on /sys/fs/cgroup/unified type cgroup2 (rw)\n", '{"proxyAgentStatus": {"status": "SUCCESS"}}',
    ]
)  # fmt: skip


@given(st.lists(st.one_of(WORDS, st.text(max_size=80), st.binary(max_size=60).map(repr)), max_size=7))
def test_no_rule_raises_whatever_stands_together(texts: list[str]) -> None:
    facts = [fact for text in texts for fact in intake.read_bytes(text.encode("utf-8", "replace"), "x.txt").facts]
    found = diagnose(made.evidence(*facts), made.NOW)
    assert len(found.tried) == len(RULES)
    assert found.kind is not Kind.HEALTHY or any(row.code.id == "MSP-E100" for row in found.findings)
