"""Verdicts of the census from proof, as tables; no kernel needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.checks.census import outcome, result, rows
from harness.checks.census_judge import LISTENER, Proof, Verdict, Verdicts, compare, judge
from harness.checks.census_rows import ROWS, Row
from harness.lab.behaviours import BEHAVIOURS, programs
from harness.lab.behaviours.addresses import forms
from harness.lab.behaviours.packets import checksum, segment
from harness.lab.clients import PLAIN, Seen
from harness.program.maps import AuditRecord
from harness.report import Outcome

NONCE = "a" * 32
WHO = AuditRecord(0, 100, True, "169.254.169.254", 80)
THROUGH = Seen(peer=LISTENER, source_port=40000, status=200, nonce=NONCE, pid=100)
AROUND = Seen(peer="169.254.169.254:80", source_port=40000, status=200, pid=100)
REFUSED = Seen(error="ECONNREFUSED", step="connect", pid=100)
DATAGRAM = Seen(peer="169.254.169.254:80", source_port=40000, pid=100)

REDIRECTED = Proof(THROUGH, WHO, NONCE, [WHO])
BYPASSES = Proof(AROUND, WHO, NONCE, packets=1)
BREAKS = Proof(REFUSED, WHO, NONCE, packets=None)
DIRECT = Proof(DATAGRAM, WHO, NONCE, packets=1, datagram=True)


@pytest.mark.parametrize(
    ("proof", "verdict"),
    [
        (REDIRECTED, Verdict.REDIRECTED),
        (replace(REDIRECTED, packets=None), Verdict.REDIRECTED),
        (replace(REDIRECTED, seen=replace(THROUGH, peer="")), Verdict.REDIRECTED),  # curl does not tell the peer
        (replace(REDIRECTED, seen=replace(THROUGH, status=403)), Verdict.REDIRECTED),
        (replace(REDIRECTED, accepts=[replace(WHO, uid=1)]), Verdict.MISATTRIBUTED),
        (replace(REDIRECTED, accepts=[replace(WHO, port=32526)]), Verdict.MISATTRIBUTED),
        (replace(REDIRECTED, accepts=[None]), Verdict.MISATTRIBUTED),
        (replace(REDIRECTED, accepts=[None], audited=False), Verdict.REDIRECTED),
        (BYPASSES, Verdict.BYPASSES),
        (replace(BYPASSES, seen=Seen(source_port=20000)), Verdict.BYPASSES),  # a SYN made by hand
        (replace(BYPASSES, seen=replace(REFUSED, source_port=40000)), Verdict.BYPASSES),
        (BREAKS, Verdict.BREAKS),
        (replace(BREAKS, seen=Seen(error="timeout", step="connect", source_port=2), packets=0), Verdict.BREAKS),
        # accepted, and then nothing came of it
        (replace(BREAKS, seen=Seen(error="ECONNRESET", step="answer", source_port=2), accepts=[WHO]), Verdict.BREAKS),
        (DIRECT, Verdict.DIRECT),
        (replace(DIRECT, seen=Seen(source_port=40000)), Verdict.DIRECT),
        (replace(DIRECT, seen=replace(DATAGRAM, peer=LISTENER), packets=0), Verdict.REDIRECTED),
        (replace(DIRECT, packets=0), Verdict.BREAKS),
        (replace(BREAKS, seen=Seen(unavailable="no such kernel")), Verdict.NOT_APPLICABLE),
    ],
)
def test_verdict(proof: Proof, verdict: Verdict) -> None:
    found = judge(proof)
    assert (found.verdict, found.contradiction) == (verdict, "")


@pytest.mark.parametrize(
    ("proof", "contradiction"),
    [
        (replace(REDIRECTED, accepts=[]), "saw nothing of that source port"),
        (replace(REDIRECTED, packets=1), "a SYN of that source port went to the endpoint"),
        (replace(REDIRECTED, seen=replace(THROUGH, peer="169.254.169.254:80")), "the peer is 169.254.169.254:80"),
        (replace(REDIRECTED, nonce="b" * 32), "not this lab's"),
        (replace(BYPASSES, packets=0), "neither by the proxy nor over the veth"),
        (replace(BYPASSES, packets=None), "neither by the proxy nor over the veth"),
        (replace(BYPASSES, accepts=[WHO], packets=0), "did not answer"),
        (replace(BYPASSES, seen=replace(REFUSED, source_port=2), accepts=[WHO]), "of it went to the endpoint as well"),
        (replace(BREAKS, seen=Seen()), "no answer, no error and no SYN"),
        (replace(BREAKS, seen=Seen(error="timeout", step="client")), "the client itself failed"),
        (replace(BREAKS, seen=Seen(error="ended without a word", step="child")), "the client itself failed"),
        (replace(DIRECT, seen=replace(DATAGRAM, peer=LISTENER)), f"the peer is {LISTENER}"),
    ],
)
def test_proofs_that_exclude_one_another_are_unclear(proof: Proof, contradiction: str) -> None:
    found = judge(proof)
    assert found.verdict is Verdict.UNCLEAR
    assert contradiction in found.contradiction


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (WHO, "right"),
        (None, "none"),
        (replace(WHO, uid=7, is_root=False), "wrong: uid 7 instead of 0, is_root False instead of True"),
        (replace(WHO, pid=7), "wrong: pid 7 instead of 100"),
        (
            replace(WHO, address="168.63.129.16", port=1),
            "wrong: address 168.63.129.16 instead of 169.254.169.254, port 1 instead of 80",
        ),
    ],
)
def test_compare(record: AuditRecord | None, text: str) -> None:
    assert compare(record, WHO) == text


def test_pid_of_another_namespace_is_not_compared() -> None:
    assert compare(replace(WHO, pid=7), replace(WHO, pid=0)) == "right"


def verdicts(*proofs: Proof) -> Verdicts:
    return Verdicts([judge(proof) for proof in proofs])


def controlled(proof: Proof, control: Verdict) -> Proof:
    return replace(proof, seen=replace(proof.seen, notes={"control": str(control)}))


UNAVAILABLE = replace(BREAKS, seen=Seen(unavailable="no such kernel"))
ANY = Row("any", "Any", "connect", why="because of the hook", closes="another hook")
MUST = replace(ANY, must=Verdict.REDIRECTED)
MUST_BE_DIRECT = replace(ANY, must=Verdict.DIRECT)


@pytest.mark.parametrize(
    ("row", "found", "wanted"),
    [
        (ANY, verdicts(REDIRECTED), Outcome.PASS),
        (ANY, verdicts(BYPASSES), Outcome.WARN),
        (ANY, verdicts(BREAKS), Outcome.WARN),
        (ANY, verdicts(replace(REDIRECTED, accepts=[None])), Outcome.WARN),
        (ANY, verdicts(UNAVAILABLE), Outcome.SKIP),
        (ANY, verdicts(UNAVAILABLE, REDIRECTED), Outcome.PASS),
        (ANY, verdicts(REDIRECTED, BREAKS), Outcome.WARN),
        (ANY, verdicts(replace(REDIRECTED, accepts=[])), Outcome.ERROR),
        (ANY, verdicts(BYPASSES, controlled(REDIRECTED, Verdict.REDIRECTED)), Outcome.WARN),
        (ANY, verdicts(BYPASSES, controlled(BYPASSES, Verdict.REDIRECTED)), Outcome.ERROR),
        (MUST, verdicts(REDIRECTED), Outcome.PASS),
        (MUST, verdicts(BYPASSES), Outcome.FAIL),
        (MUST, verdicts(BREAKS), Outcome.FAIL),
        (MUST, verdicts(REDIRECTED, replace(REDIRECTED, accepts=[None])), Outcome.FAIL),
        (MUST, verdicts(UNAVAILABLE), Outcome.SKIP),
        (MUST_BE_DIRECT, verdicts(DIRECT), Outcome.PASS),
        (MUST_BE_DIRECT, verdicts(replace(DIRECT, seen=replace(DATAGRAM, peer=LISTENER), packets=0)), Outcome.FAIL),
    ],
)
def test_outcome(row: Row, found: Verdicts, wanted: Outcome) -> None:
    assert outcome(row, found) is wanted


def test_result_says_why_and_who_closes_it() -> None:
    found = result(ANY, {"plain": verdicts(BYPASSES), "hardened": verdicts(REDIRECTED)})
    assert found.outcome is Outcome.WARN
    assert found.summary == "plain: bypasses; hardened: redirected: because of the hook"
    assert found.remedy == "another hook (closed by hardened)"
    assert rows([found]) == [("census.any", "Any", {"plain": "bypasses", "hardened": "redirected"})]


def test_result_of_what_is_well_needs_no_explanation() -> None:
    found = result(ANY, {"plain": verdicts(REDIRECTED), "hardened": verdicts(REDIRECTED)})
    assert (found.outcome, found.summary, found.remedy) == (Outcome.PASS, "redirected", None)


def test_skip_and_error_say_the_reason() -> None:
    assert result(ANY, {"plain": verdicts(UNAVAILABLE)}).summary == "not applicable (no such kernel)"
    assert "saw nothing" in result(ANY, {"plain": verdicts(replace(REDIRECTED, accepts=[]))}).summary


def test_evidence_is_the_same_whatever_the_pids_and_ports_are() -> None:
    later = replace(THROUGH, source_port=50000, pid=200)
    again = replace(REDIRECTED, seen=later, who=replace(WHO, pid=200), accepts=[replace(WHO, pid=200)])
    first, second = (result(ANY, {"plain": verdicts(proof)}) for proof in (REDIRECTED, again))
    assert first.evidence == second.evidence
    assert first.observed != second.observed
    wrong = [replace(REDIRECTED, accepts=[replace(WHO, pid=pid)]) for pid in (7, 8)]
    assert len({str(result(ANY, {"plain": verdicts(proof)}).evidence) for proof in wrong}) == 1


def test_rows_are_complete() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 30
    assert [row.name for row in ROWS if row.behaviour not in {**BEHAVIOURS, **PLAIN}] == []
    assert [row.name for row in ROWS if row.must is None and not (row.why and row.closes)] == []
    of_failures = {"census.contained_agent"}  # harness.failures has it: it is an agent's, no client's
    assert {row.behaviour for row in ROWS} >= set(BEHAVIOURS) - of_failures


def test_forms_of_an_address() -> None:
    written = list(forms("169.254.169.254").values())
    assert written == ["169.254.169.254", "0xA9FEA9FE", "2852039166", "0251.0376.0251.0376", "169.254.43518"]


@pytest.mark.parametrize("language", programs.LANGUAGES)
def test_program_whose_tools_are_missing_is_unavailable(
    language: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda tool: None)
    with programs.build({language}) as built:
        assert "not installed" in built(language)["unavailable"]
    assert list(tmp_path.iterdir()) == []


def test_compiler_that_fails_is_unavailable_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = replace(programs.LANGUAGES["java"], tools=(), compile=("sh", "-c", "echo no such class >&2; exit 3"))
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(programs, "LANGUAGES", {"java": broken})
    with programs.build({"java"}) as built:
        assert built("java") == {"unavailable": "sh ended with status 3: no such class"}
    assert list((tmp_path / "programs").iterdir()) == []


def test_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = replace(
        programs.LANGUAGES["java"],
        tools=(),
        compile=("sh", "-c", "echo x >> {output}/count"),
        run=("cat", "{output}/count"),
    )
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(programs, "LANGUAGES", {"java": made})
    for _ in range(2):
        with programs.build({"java"}) as built:
            counted = Path(built("java")["command"][1])
    assert counted.read_text() == "x\n"


def test_checksum_of_a_segment_made_by_hand_is_right() -> None:
    from scapy.layers.inet import IP, TCP

    made = segment("10.0.0.4", 20000, "169.254.169.254", 80)
    packet = IP(bytes(IP(src="10.0.0.4", dst="169.254.169.254", proto=6) / made))
    wanted = packet.copy()
    del wanted[TCP].chksum
    assert packet[TCP].chksum == IP(bytes(wanted))[TCP].chksum
    assert (packet[TCP].sport, packet[TCP].dport, str(packet[TCP].flags)) == (20000, 80, "S")
    assert checksum(bytes(2)) == 0xFFFF
