"""The key: not acquired, rejected, lost with its disk, not stored, reset in vain; and RUNNING that hides all this."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from harness.diagnose import facts as f
from harness.diagnose.case import KEY, Case, Said, all_disabled
from harness.diagnose.rule import Ask, Because, Finding, Role, Rule, Sure, because
from harness.msp import codes
from harness.msp import diagnosis_codes as more
from harness.msp.codes import Code
from harness.msp.messages import Form

NULL_GUID = "00000000-0000-0000-0000-000000000000"
RESET = (
    "Compute the next value: msp-harness key-reset --vm-model FILE (FILE: az vm show -g GROUP -n VM).",
    "Apply what it prints: a PUT with a KeyIncarnationId strictly larger than the one before.",
    "Wait a minute: the agent polls every 15 s, acquires the new key by itself, and keyLatchStatus says so.",
)
STATUS = Ask(
    "cat /var/log/azure-proxy-agent/status.json",
    "what do keyLatchStatus.message and .states say?",
    "whether a key is held (states.keyGuid) and enforced (states.secureChannelState)",
)
MODEL = Ask(
    "az vm show -g GROUP -n VM --query '{id:vmId, msp:securityProfile.proxyAgentSettings}'",
    "what does the VM model ask for, and is this the VM that the key was made for?",
    "whether the VM is new to this disk, and which KeyIncarnationId it has",
)

_FORMS: Mapping[Form, Code] = {
    Form.KEY_STATUS: codes.KEY_STATUS_FAILED,
    Form.KEY_VALIDATION: codes.KEY_INVALID_STATUS,
    Form.KEY_LOCAL: codes.KEY_NOT_STORED,
    Form.KEY_LOCAL_FROM: codes.KEY_NOT_STORED,
    Form.KEY_NOT_SAVED: codes.KEY_NOT_STORED,
    Form.KEY_NOT_CHECKED: codes.KEY_NOT_STORED,
    Form.KEY_NOT_ATTESTED: codes.KEY_NOT_ATTESTED,
    Form.KEY_NOT_ACQUIRED: codes.KEY_NOT_OFFERED,
    Form.KEY_REFUSED: codes.KEY_NOT_OFFERED,
    Form.KEY_SEND: codes.KEY_STATUS_FAILED,
    Form.KEY_ANSWER: codes.KEY_NOT_OFFERED,
}
READY = (Form.KEY_FOUND, Form.KEY_ATTESTED)
_REACH = (
    "curl -sS -m 5 -H Metadata:true http://168.63.129.16/?comp=versions (as root) must be answered.",
    "If not: look for a firewall rule, a route or a proxy setting that catches 168.63.129.16:80.",
    "The agent polls again by itself, every 15 s.",
)


def step_of(said: Said) -> str:
    return said.message.fields.get("step", "acquire") if said.message else "acquire"


def code_of(said: Said) -> Code | None:
    """The finding for a key message."""
    code = _FORMS.get(said.form) if said.form else None
    if said.form in (Form.KEY_REFUSED, Form.KEY_ANSWER) and step_of(said) == "attest":
        return codes.KEY_NOT_ATTESTED
    return code


def trouble(case: Case) -> tuple[Said, Code] | None:
    """The key message that stands, when it is one of a failure."""
    said = case.standing.get(KEY)
    code = code_of(said) if said else None
    return (said, code) if said and code else None


def _lost(case: Case) -> tuple[Because, ...]:
    """What shows that the key went with a disk: another vmId, a key file of another guid, an emptied folder."""
    rows: list[Because] = []
    ids: dict[str, f.Identity] = {}
    for row in case.of(f.Identity):
        if row.kind is f.IdentityKind.VM:
            ids.setdefault(_canonical(row.value), row)
    if len(ids) > 1:
        rows += [because(row, f"vmId {row.value}") for row in list(ids.values())[:2]]
    named = _platforms_guid(case)
    for path in case.of(f.PathSeen):
        guid = re.search(r"/keys/([0-9a-f-]{36})\.key$", path.path, re.IGNORECASE)
        if named and guid and path.exists and guid.group(1).casefold() != named[0].casefold():
            rows.append(because(path, f"the disk holds another key than {named[0]}"))
    return tuple(rows)


def _canonical(vm: str) -> str:
    """A vmId; SMBIOS of the first generation shows its first three groups with their bytes reversed."""
    groups = vm.casefold().split("-")
    swapped = "-".join(["".join(re.findall("..", part)[::-1]) for part in groups[:3]] + groups[3:])
    return min(vm.casefold(), swapped)


def _platforms_guid(case: Case) -> tuple[str, f.Source] | None:
    """The guid that the platform names: of a failed check of the local key."""
    for said in case.said:
        if said.form is Form.KEY_NOT_CHECKED and said.message:
            return said.message.fields["guid"], said.source
    return None


def refused(case: Case) -> Iterator[Finding]:
    """Not acquired, or rejected; lost with its disk where the evidence shows that."""
    found = trouble(case)
    if not found or found[1] not in (codes.KEY_NOT_OFFERED, codes.KEY_NOT_ATTESTED):
        return
    said, code = found
    reasons = (because(said.source, "the agent's own words"), *_hidden(case))
    status = said.message.fields.get("status", "") if said.message else ""
    if code is codes.KEY_NOT_ATTESTED:
        yield Finding(
            code, "The platform rejects the key: its attestation is not accepted.", reasons, Sure.CERTAIN,
            steps=(
                "Compare the clocks: `date -u` against a good clock; correct a difference of minutes or more.",
                "sudo systemctl restart azure-proxy-agent",
                "If it stays, reset the key:", *RESET,
            ),
            asks=(Ask("date -u", "is the VM's clock right?", "a clock far off makes attestation fail"),),
            answers=said.text,
        )  # fmt: skip
        return
    lost = _lost(case)
    yield Finding(
        more.KEY_OF_ANOTHER_DISK if lost else code,
        "The platform no longer offers a key"
        + (f" ({status})" if status else "")
        + (
            ": the key it knows is not on this disk, which came from another VM or replaced the OS disk."
            if lost
            else ": one was latched before, and is lost."
        ),
        (*reasons, *lost),
        Sure.LIKELY if lost or not status else Sure.CERTAIN,
        steps=RESET,
        asks=() if case.model else (MODEL,),
        answers=said.text,
    )


def _hidden(case: Case) -> tuple[Because, ...]:
    if case.running(KEY) and case.status and case.overall and case.status.status.status == "SUCCESS":
        return (because(case.overall, "SUCCESS all the same: it says that the agent's loops run, no more"),)
    return ()


def other_trouble(case: Case) -> Iterator[Finding]:
    """The platform not reached, its status not valid, the key folder."""
    found = trouble(case)
    if not found or found[1] in (codes.KEY_NOT_OFFERED, codes.KEY_NOT_ATTESTED):
        return
    said, code = found
    steps: tuple[str, ...] = ()
    if code is codes.KEY_STATUS_FAILED:
        steps = _REACH
    elif code is codes.KEY_NOT_STORED:
        steps = (
            "df -h /var/lib/azure-proxy-agent; ls -ld /var/lib/azure-proxy-agent/keys (root's, mode 0700)",
            "Make room, or mend owner, mode or the read-only mount.",
            "sudo systemctl restart azure-proxy-agent",
        )
    yield Finding(
        code,
        f"{code.title}.",
        (because(said.source, "the agent's own words"), *_hidden(case)),
        Sure.CERTAIN,
        steps=steps,
        answers=said.text,
    )


def hidden(case: Case) -> Iterator[Finding]:
    """RUNNING and SUCCESS, while the states show no key: where the guide's test is not enough."""
    part = case.parts.get(KEY)
    if not part or part[0].status != "RUNNING" or trouble(case):
        return
    module, source, _ = part
    states = module.states
    said = case.standing.get(KEY)
    if said and said.form in (*READY, Form.KEY_NOT_ENFORCED):
        return
    state = (states.get("secureChannelState") or "").casefold()
    guid = states.get("keyGuid") or ""
    if "secureChannelState" not in states or all_disabled(state):
        return
    if state == "unknown" or guid in ("", NULL_GUID):
        yield Finding(
            codes.KEY_TROUBLE_HIDDEN,
            f"keyLatchStatus is RUNNING, but secureChannelState is {states['secureChannelState'] or 'empty'} and "
            f"keyGuid is {guid or 'empty'}: no key is held.",
            (because(source, "RUNNING without a key"), *_hidden(case)),
            Sure.CERTAIN if not guid else Sure.LIKELY,
            steps=(
                "Read keyLatchStatus.message, not its status; then the agent's log for `key`.",
                "If the agent started minutes ago, wait; if it says that a key is refused, reset the key:",
                *RESET,
            ),
            asks=(
                Ask(
                    "grep -h -i 'key' /var/log/azure-proxy-agent/ProxyAgent*.log | tail -20",
                    "what became of the key?",
                    "whether it is refused, or the platform is not reached",
                ),
            ),
        )


def not_reset(case: Case) -> Iterator[Finding]:
    """A reset that did not grow: model and agent name the same incarnation, or the model's is smaller."""
    model = case.model
    state = case.state("keyIncarnationId")
    if not model or model.key_incarnation_id is None or not state or not state.value.isdecimal():
        return
    ours, held = model.key_incarnation_id, int(state.value)
    reasons = (
        because(
            replace(model.source, text=f"proxyAgentSettings.keyIncarnationId: {ours}"), "what the VM model asks for"
        ),
        because(state.source, "what the agent's key is of"),
    )
    found = trouble(case)
    refused_now = bool(found and found[1] in (codes.KEY_NOT_OFFERED, codes.KEY_NOT_ATTESTED))
    if ours < held or (ours == held and refused_now):
        yield Finding(
            more.RESET_NOT_INCREASING,
            f"KeyIncarnationId is {ours} in the VM model, {'below' if ours < held else 'the same as'} the {held} of "
            "the agent's key: no reset takes place.",
            reasons,
            Sure.CERTAIN if ours < held else Sure.LIKELY,
            Role.CAUSE if refused_now else Role.NOTE,
            steps=RESET,
        )
    elif ours > held:
        yield Finding(
            more.RESET_PENDING,
            f"The VM model asks for KeyIncarnationId {ours}; the agent still has a key of {held}.",
            reasons,
            Sure.LIKELY,
            Role.NOTE,
        )


_SAID = (f.AgentStatus, f.AgentLogEvent, f.UnitLog, f.StatusTag, f.ProvisioningReport, f.ExtensionStatus)

RULES: Sequence[Rule] = (
    Rule("setup.key.refused", "The key is not offered, or rejected", refused, (_SAID,),
         (codes.KEY_NOT_OFFERED, codes.KEY_NOT_ATTESTED, more.KEY_OF_ANOTHER_DISK),
         ("setup.key", "reset", "reset.how", "reset.how#step1", "reset.how#step2", "reset.how#PUT",
          "reset.how#KeyIncarnationId", "reset.how#ProxyAgentSettings")),
    Rule("setup.key.other", "The key status, or the key folder", other_trouble, (_SAID,),
         (codes.KEY_STATUS_FAILED, codes.KEY_INVALID_STATUS, codes.KEY_NOT_STORED), ("setup.key",)),
    Rule("applied.key-hidden", "RUNNING, and no key is held", hidden, ((f.AgentStatus,),),
         (codes.KEY_TROUBLE_HIDDEN,),
         ("applied.confirm.chain#row1", "applied.confirm.chain#keyLatchStatus", "setup.key")),
    Rule("reset.not-increasing", "A key reset that does not grow, or is under way", not_reset,
         ((f.VmModel,), (f.AgentStatus,)), (more.RESET_NOT_INCREASING, more.RESET_PENDING),
         ("reset.how#note1", "reset.how#KeyIncarnationId")),
)  # fmt: skip
