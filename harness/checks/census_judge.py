"""The verdict of a connection, from proof alone: what client, proxy, audit map and capture say must fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.lab.clients import Seen
from harness.msp.endpoints import PROXY
from harness.program.maps import AuditRecord
from harness.report import Json

LISTENER = f"{PROXY[0]}:{PROXY[1]}"
UNAUDITED = "not looked at, since this kernel cannot complete records"


class Verdict(StrEnum):
    """What became of a connection, the worst last."""

    NOT_APPLICABLE = "not applicable"
    DIRECT = "direct, as it should be"
    REDIRECTED = "redirected"
    MISATTRIBUTED = "redirected, with a wrong record"
    BREAKS = "breaks"
    BYPASSES = "bypasses"
    UNCLEAR = "unclear"

    @property
    def severity(self) -> int:
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Proof:
    """All that was seen of one connection. who is what a right audit record says; pid 0: not to be compared."""

    seen: Seen
    who: AuditRecord
    nonce: str  # what the proxy adds in this lab
    accepts: Sequence[AuditRecord | None] = ()  # the proxy's accepts of this source port: what the audit map said then
    packets: int | None = 0  # SYNs or datagrams of the client itself to the endpoint; None: cannot be told apart
    datagram: bool = False  # policy is for TCP: this must go its own way
    audited: bool = True  # whether the program completes audit records; if not, they are not looked at

    @property
    def wanted(self) -> str:
        return f"{self.who.address}:{self.who.port}"


@dataclass(frozen=True)
class Judgement:
    """A verdict; record is `right`, `none`, or what differs; contradiction says why a verdict is UNCLEAR."""

    proof: Proof
    verdict: Verdict
    record: str = ""
    contradiction: str = ""

    def evidence(self) -> dict[str, Json]:
        """What is the same in every run; a wrong record's differences may hold pids, and are in observed()."""
        seen = self.proof.seen
        told: dict[str, Json] = {"verdict": str(self.verdict), "wanted": self.proof.wanted}
        if self.verdict is Verdict.NOT_APPLICABLE:
            return told | {"reason": seen.unavailable}
        told["client"] = _client(seen, self.proof.nonce)
        told["proxy"] = "accepted that source port" if self.proof.accepts else "saw nothing of that source port"
        if self.record:
            told["audit"] = self.record.partition(":")[0]
        told["capture"] = _capture(self.proof)
        if self.contradiction:
            told["contradiction"] = self.contradiction
        return told | {name: value for name, value in seen.notes.items() if name != "wanted"}

    def observed(self) -> dict[str, Json]:
        seen = self.proof.seen
        told: dict[str, Json] = {"pid": seen.pid, "uid": seen.uid, "source port": seen.source_port}
        record = self.proof.accepts[0] if self.proof.accepts else None
        if record:
            told["record"] = f"uid {record.uid}, pid {record.pid}, for {record.address}:{record.port}"
        return told | ({"difference": self.record} if ":" in self.record else {})


def _client(seen: Seen, nonce: str) -> str:
    if seen.error:
        answer = f"{seen.step}: {seen.error}"
    else:
        answer = f"answer {seen.status}" if seen.answered else "no answer expected"
    peer = f", peer {seen.peer}" if seen.peer else ""
    return answer + peer + (", nonce of the proxy" if seen.nonce and seen.nonce == nonce else "")


def _capture(proof: Proof) -> str:
    if proof.packets is None:
        return "cannot be told: the socket lost its source port"
    what = "datagram" if proof.datagram else "SYN"
    return f"{what} of the client to the endpoint" if proof.packets else f"no {what} of the client to the endpoint"


def judge(proof: Proof) -> Judgement:
    """The verdict of one connection; UNCLEAR, with the reason, where two proofs exclude one another."""
    seen = proof.seen
    if seen.unavailable:
        return Judgement(proof, Verdict.NOT_APPLICABLE)
    contradiction = _contradiction(proof)
    if contradiction:
        return Judgement(proof, Verdict.UNCLEAR, contradiction=contradiction)
    if proof.datagram:
        return Judgement(proof, _datagram_verdict(proof))
    if seen.nonce:
        record = compare(proof.accepts[0], proof.who) if proof.audited else UNAUDITED
        right = record in ("right", UNAUDITED)
        return Judgement(proof, Verdict.REDIRECTED if right else Verdict.MISATTRIBUTED, record)
    if seen.answered or proof.packets:
        return Judgement(proof, Verdict.BYPASSES)
    return Judgement(proof, Verdict.BREAKS)


def _datagram_verdict(proof: Proof) -> Verdict:
    if proof.packets:
        return Verdict.DIRECT
    return Verdict.REDIRECTED if proof.seen.peer == LISTENER else Verdict.BREAKS


def _contradiction(proof: Proof) -> str:
    """Why the proofs cannot all be true; empty when they can."""
    seen, accepted, sent = proof.seen, bool(proof.accepts), bool(proof.packets)
    through = seen.nonce != "" and seen.nonce == proof.nonce
    rules = (
        (seen.nonce != "" and not through, "the answer has a nonce that is not this lab's"),
        (through and not accepted, "the answer has the proxy's nonce, but the proxy saw nothing of that source port"),
        (through and sent, "the answer has the proxy's nonce, but a SYN of that source port went to the endpoint"),
        (through and seen.peer not in ("", LISTENER), f"the answer has the proxy's nonce, but the peer is {seen.peer}"),
        (accepted and seen.answered and not through, "the proxy accepted that source port, but did not answer"),
        (accepted and sent, "the proxy accepted that source port, and a SYN of it went to the endpoint as well"),
        (
            proof.datagram and sent and seen.peer not in ("", proof.wanted),
            f"sent there, though the peer is {seen.peer}",
        ),
        (seen.answered and not accepted and not sent, "answered, but neither by the proxy nor over the veth"),
        (seen.step in ("client", "child"), f"the client itself failed: {seen.error}"),
        (not proof.datagram and not (seen.answered or seen.error or sent), "no answer, no error and no SYN"),
    )
    return next((text for holds, text in rules if holds), "")


def compare(record: AuditRecord | None, who: AuditRecord) -> str:
    """`right`, `none`, or `wrong: uid 1 instead of 0, …`. A pid of 0 in who is not compared."""
    if record is None:
        return "none"
    names = [name for name in ("uid", "pid", "is_root", "address", "port") if name != "pid" or who.pid]
    pairs = [(name, getattr(record, name), getattr(who, name)) for name in names]
    wrong = [f"{name} {got} instead of {wanted}" for name, got, wanted in pairs if got != wanted]
    return f"wrong: {', '.join(wrong)}" if wrong else "right"


@dataclass(frozen=True)
class Verdicts:
    """A behaviour under one program: its connections, and those that only show that the others mean something."""

    judgements: Sequence[Judgement]

    @property
    def own(self) -> list[Judgement]:
        return [one for one in self.judgements if "control" not in one.proof.seen.notes]

    @property
    def verdict(self) -> Verdict:
        """The worst of the behaviour's own connections; not applicable only when all are."""
        return max((one.verdict for one in self.own), key=lambda verdict: verdict.severity)

    @property
    def reason(self) -> str:
        """Why it is not applicable, or unclear."""
        worst = next(one for one in self.own if one.verdict is self.verdict)
        return worst.proof.seen.unavailable or worst.contradiction

    @property
    def lost_controls(self) -> list[str]:
        """What the controls say instead of what they should."""
        return [
            f"the control to {one.proof.wanted} was to be `{one.proof.seen.notes['control']}` and was `{one.verdict}`"
            for one in self.judgements
            if one.proof.seen.notes.get("control", one.verdict) != one.verdict
            and one.verdict is not Verdict.NOT_APPLICABLE
        ]

    @property
    def contradictory(self) -> bool:
        return any(one.verdict is Verdict.UNCLEAR for one in self.judgements)
