"""MSP enabled, but not applied: status.json's chain, and what lies beyond RUNNING; and when all is well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.diagnose import facts as f
from harness.diagnose.case import CHAIN, EBPF, KEY, LISTENER, Case, all_disabled, first_line
from harness.diagnose.rule import Ask, Because, Finding, Role, Rule, Sure, because
from harness.diagnose.rules import keys
from harness.diagnose.rules.attach import OUR_PROGRAMS
from harness.diagnose.rules.services import SYSTEMCTL
from harness.diagnose.rules.windows import RUNNING, SC
from harness.msp import codes
from harness.msp import diagnosis_codes as more
from harness.msp.messages import REDIRECTOR_FORMS, Form

STATUS_PATHS = ("/var/log/azure-proxy-agent/status.json", r"C:\WindowsAzure\ProxyAgent\Logs\status.json")
LISTENS = Ask("ss -ltnp 'sport = :3080'", "who listens on the agent's port?", "whether the port is the agent's")
SEEN_RUNNING = "keyLatchStatus, ebpfProgramStatus and proxyListenerStatus RUNNING"


def _in_use(text: str) -> bool:
    return any(words in text for words in ("Address already in use", "os error 98", "EADDRINUSE", "os error 10048"))


def listener(case: Case) -> Iterator[Finding]:
    """proxyListenerStatus."""
    part = case.parts.get(LISTENER)
    if not part or part[0].status in (None, "RUNNING"):
        return
    module, source, _ = part
    young = module.status == "UNKNOWN" and not module.message
    if young:
        return  # `unhealthy` tells of it
    taken = _in_use(module.message or "")
    yield Finding(
        more.LISTENER_NOT_STARTED,
        f"proxyListenerStatus is {module.status}"
        + (": another process has 127.0.0.1:3080." if taken else ": the agent does not listen on 127.0.0.1:3080."),
        (because(source, "the agent's own words"),),
        Sure.CERTAIN,
        steps=(
            "ss -ltnp 'sport = :3080' shows who has the port (Windows: netstat -ano | findstr :3080).",
            "Stop that process or move it to another port; sudo systemctl restart azure-proxy-agent.",
        ),
        asks=(LISTENS,),
        answers=module.message or "",
    )


def unhealthy(case: Case) -> Iterator[Finding]:
    """A part that is not RUNNING, with words that no other rule knows."""
    known = {KEY: keys.trouble(case) is not None, EBPF: case.failing(EBPF, *REDIRECTOR_FORMS, Form.GAVE_UP) is not None}
    for name in CHAIN:
        part = case.parts.get(name)
        if not part or part[0].status in (None, "RUNNING") or known.get(name):
            continue
        module, source, _ = part
        if name == LISTENER and module.message:
            continue
        message = first_line(module.message or "")
        words = f": {message}" if message else ", without a message"
        quiet = module.status == "UNKNOWN" and not module.message
        yield Finding(
            more.PART_NOT_RUNNING,
            f"{name} is {module.status}{words}.".replace("..", "."),
            (because(source, f"{name} must be RUNNING"),),
            Sure.POSSIBLE if quiet else Sure.LIKELY,
            Role.SYMPTOM if quiet or module.message is None else Role.CAUSE,
            asks=(
                Ask(
                    "tail -50 /var/log/azure-proxy-agent/ProxyAgent.log",
                    "what does the agent's log say?",
                    f"why {name} is not RUNNING",
                ),
            ),
            answers=module.message or "",
        )


def not_enforced(case: Case) -> Iterator[Finding]:
    """The platform's state is disabled: a setting, or a setting that has not arrived."""
    state = case.state("secureChannelState")
    said = case.failing(KEY, Form.KEY_NOT_ENFORCED)
    if not said and not (state and all_disabled(state.value)):
        return
    source = state.source if state else said.source if said else None
    if source is None:
        return
    reason = because(source, "no endpoint is enforced or audited")
    if case.wants_msp and case.model:
        yield Finding(
            more.NOT_APPLIED_YET,
            "The VM model enables MSP, and the platform has not applied it: the agent is told `disabled`.",
            (
                because(
                    replace(case.model.source, text="proxyAgentSettings.enabled: true"), "what the VM model asks for"
                ),
                reason,
            ),
            Sure.CERTAIN,
            steps=(
                "Wait a few minutes, then read status.json again: keyLatchStatus.states.secureChannelState changes.",
                "If it stays `disabled`, send the model once more with a PUT; then contact support.",
            ),
        )
        return
    yield Finding(
        codes.KEY_NOT_ENFORCED,
        "MSP is not enforced for this VM: the platform says `disabled`, and nothing is redirected.",
        (reason,),
        Sure.CERTAIN,
        Role.NOTE,
        asks=() if case.model else (keys.MODEL,),
    )


def delayed(case: Case) -> Iterator[Finding]:
    """Enabled, and the agent still on its way: parts UNKNOWN, no trouble told."""
    silent = [name for name in CHAIN if name in case.parts and case.parts[name][0].status == "UNKNOWN"
              and not case.parts[name][0].message]  # fmt: skip
    if not silent or keys.trouble(case) or case.failing(EBPF, *REDIRECTOR_FORMS, Form.GAVE_UP):
        return
    if any(case.parts[name][0].status == "STOPPED" for name in CHAIN if name in case.parts):
        return
    yield Finding(
        more.NOT_APPLIED_YET,
        f"{', '.join(silent)} {'is' if len(silent) == 1 else 'are'} UNKNOWN: the agent has just started and is not "
        "set up yet.",
        (because(case.parts[silent[0]][1], "UNKNOWN, without a message"),),
        Sure.LIKELY,
        steps=(
            "Read status.json again after a minute: the agent writes it every 60 s.",
            "If it stays UNKNOWN, read /var/log/azure-proxy-agent/ProxyAgent.log.",
        ),
    )


def never_reported(case: Case) -> Iterator[Finding]:
    """No status.json where it is written."""
    if case.statuses:
        return
    for path in case.of(f.PathSeen):
        if path.path.replace("\\\\", "\\") in STATUS_PATHS and not path.exists:
            yield Finding(
                more.NEVER_REPORTED,
                f"There is no {path.path}: the agent never ran, or ended before its first report.",
                (because(path, "no such file"),),
                Sure.CERTAIN,
                Role.SYMPTOM,
                asks=SC[:1] if case.system == "windows" else () if case.unit else (SYSTEMCTL,),
            )
            return


def audit_only(case: Case) -> Iterator[Finding]:
    state = case.state("secureChannelState")
    if state and "audit" in state.value.casefold() and "enforce" not in state.value.casefold():
        yield Finding(
            more.AUDIT_ONLY,
            f"secureChannelState is `{state.value}`: requests are logged, none is refused.",
            (because(state.source, "the endpoints' modes"),),
            Sure.CERTAIN,
            Role.NOTE,
        )


def refuses(case: Case) -> Iterator[Finding]:
    """421: the proxy did not find who asked."""
    for status in case.statuses[:1]:
        rows = [row for row in (*status.connections, *status.failed) if (row.status or "").startswith("421")]
        if rows:
            count = sum(row.count or 1 for row in rows)
            yield Finding(
                more.PROXY_REFUSES,
                f"{count} requests were refused with 421: their audit entries were lost.",
                (because(status, "responseStatus 421"),),
                Sure.LIKELY,
                Role.NOTE,
            )


def not_attached(case: Case) -> Iterator[Finding]:
    """ebpfProgramStatus RUNNING beside a whole cgroup tree without the agent's program."""
    tree = next((table for table in case.of(f.CgroupPrograms) if table.whole), None)
    if not tree or not case.running(EBPF) or case.failing(EBPF, *REDIRECTOR_FORMS):
        return
    rows = [row for row in tree.programs if row.connect4]
    ours = [row for row in rows if row.name in OUR_PROGRAMS]
    if not ours:
        others = f"; others are: {', '.join(row.name or str(row.id) for row in rows[:3])}" if rows else ""
        yield Finding(
            more.STATUS_AGAINST_KERNEL,
            f"ebpfProgramStatus says RUNNING, and no program connect4 is attached to any cgroup{others}.",
            (because(case.parts[EBPF][1], "the agent says RUNNING"), because(tree, "the cgroup tree")),
            Sure.LIKELY if rows else Sure.CERTAIN,
            Role.CAUSE,
            steps=(
                "sudo systemctl restart azure-proxy-agent; sudo bpftool cgroup tree must then list connect4.",
                "If it vanishes again, another product detaches it: `bpftool link` shows who holds links.",
            ),
        )


def healthy(case: Case) -> Iterator[Finding]:
    """All that the guide asks, and what it does not: a key is held, and the program is attached where that is shown."""
    if any(not case.running(name) for name in CHAIN) or keys.trouble(case):
        return
    if case.failing(EBPF, *REDIRECTOR_FORMS) or (case.status and case.status.status.status not in ("SUCCESS", None)):
        return
    said = case.standing.get(KEY)
    guid, state = case.state("keyGuid"), case.state("secureChannelState")
    held = (said is not None and said.form in keys.READY) or (guid is not None and guid.value != keys.NULL_GUID)
    if not held or (state and (state.value.casefold() == "unknown" or all_disabled(state.value))):
        return
    reasons: list[Because] = [Because(SEEN_RUNNING, case.parts[EBPF][1])]
    if said and said.form in keys.READY:
        reasons.append(because(said.source, "a key is held"))
    elif guid:
        reasons.append(because(guid.source, f"the key {guid.value} is held"))
    service = case.service.get("guestproxyagent")
    if case.unit and case.unit.active == "active":
        reasons.append(because(case.unit, "the service runs"))
    elif service and service.state == RUNNING:
        reasons.append(because(service, "the service runs"))
    yield Finding(more.NOTHING_WRONG, "The agent is healthy: " + SEEN_RUNNING + ", a key is held.", tuple(reasons))


_STATUS = (f.AgentStatus,)

RULES: Sequence[Rule] = (
    Rule("applied.listener", "The proxy listener does not run", listener, (_STATUS,), (more.LISTENER_NOT_STARTED,),
         ("applied.confirm.chain#row3", "applied.confirm.chain#proxyListenerStatus")),
    Rule("applied.unhealthy", "A part is not RUNNING", unhealthy, (_STATUS,), (more.PART_NOT_RUNNING,),
         ("applied.confirm.chain", "applied.confirm.chain#row1", "applied.confirm.chain#row2",
          "applied.confirm.chain#ebpfProgramStatus", "applied.confirm.chain#row3"), Sure.LIKELY),
    Rule("applied.not-enforced", "The platform's state is disabled", not_enforced,
         ((f.AgentStatus, f.AgentLogEvent, f.UnitLog),), (codes.KEY_NOT_ENFORCED, more.NOT_APPLIED_YET), ("applied",)),
    Rule("applied.delayed", "The agent is not set up yet", delayed, (_STATUS,), (more.NOT_APPLIED_YET,),
         ("applied.confirm", "applied"), Sure.LIKELY),
    Rule("applied.never-reported", "There is no status.json", never_reported, ((f.PathSeen,),),
         (more.NEVER_REPORTED,),
         ("applied.confirm.status-json", "applied.confirm.status-json#/var/log/azure-proxy-agent/",
          "applied.confirm.status-json#/var/log/azure-proxy-agent/status.json",
          r"applied.confirm.status-json#C:\WindowsAzure\ProxyAgent\Logs",
          r"applied.confirm.status-json#C:\WindowsAzure\ProxyAgent\Logs\status.json"),
         Sure.CERTAIN, Role.SYMPTOM),
    Rule("applied.audit-only", "MSP only audits", audit_only, (_STATUS,), (more.AUDIT_ONLY,), ("applied",),
         Sure.CERTAIN, Role.NOTE),
    Rule("applied.refuses", "The proxy refuses with 421", refuses, (_STATUS,), (more.PROXY_REFUSES,), ("applied",),
         Sure.LIKELY, Role.NOTE),
    Rule("applied.not-attached", "RUNNING, and no program is attached", not_attached,
         (_STATUS, (f.CgroupPrograms,)), (more.STATUS_AGAINST_KERNEL,),
         ("applied.confirm.chain#row2", "applied.confirm.chain#ebpfProgramStatus")),
    Rule("healthy", "All parts run, and a key is held", healthy, (_STATUS,), (more.NOTHING_WRONG,),
         ("applied.confirm.chain", "guide"), Sure.CERTAIN, Role.HEALTHY),
)  # fmt: skip
