"""Evidence that contradicts itself: findings of their own, which also say what to collect again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from harness.diagnose import facts as f
from harness.diagnose.case import CHAIN, EBPF, Case, version_of
from harness.diagnose.rule import Ask, Because, Finding, Role, Rule, Sure, because
from harness.diagnose.rules import keys
from harness.diagnose.rules.attach import ASKS
from harness.diagnose.rules.services import SYSTEMCTL
from harness.diagnose.rules.windows import AGENT, DRIVERS, RUNNING
from harness.msp import diagnosis_codes as codes
from harness.msp.messages import Form
from harness.verifier.helpers import version_text
from harness.verifier.parse import parse

AGAIN = Ask(
    "date -u; cat /var/log/azure-proxy-agent/status.json",
    "what does status.json say now, and what is the time?",
    "whether the agent still writes it (every 60 s)",
)
_SKEW = timedelta(minutes=5)  # clocks of two machines, and the time that collecting takes
_JUMP = timedelta(hours=1)  # a log's entries are in order; a clock that is set back shows


def service_down(case: Case) -> Iterator[Finding]:
    """status.json says RUNNING, the service manager that it does not run."""
    told = next((case.parts[name] for name in CHAIN if case.running(name)), None)
    if not told:
        return
    down: list[Because] = []
    if case.unit and case.unit.active in ("inactive", "failed"):
        down.append(because(case.unit, f"the unit is {case.unit.active}"))
    agent = case.service.get(AGENT.casefold())
    if agent and agent.state not in (None, RUNNING):
        down.append(because(agent, f"sc: state {agent.state} {agent.state_name or ''}".rstrip()))
    if case.running(EBPF):
        for name in DRIVERS:
            driver = case.service.get(name.casefold())
            if driver and (driver.state not in (None, RUNNING) or not driver.exists):
                down.append(because(driver, f"sc: {name} {driver.state_name or 'does not exist'}"))
    if down:
        yield Finding(
            codes.STATUS_AGAINST_SERVICE,
            "status.json says RUNNING, while the service manager says that it does not run: the status is of before.",
            (because(told[1], "what status.json says"), *down),
            asks=(AGAIN,),
        )


def stale(case: Case) -> Iterator[Finding]:
    """status.json is older than the rest by more than a few intervals of the monitor; or than the agent's start."""
    newest = next((row for row in case.statuses if row.at), None)
    if not newest or not newest.at:
        return
    limit = max(3 * case.monitor_interval, timedelta(seconds=180))
    if case.unit and case.unit.since_at and case.unit.active == "active" and newest.at < case.unit.since_at - _SKEW:
        yield Finding(
            codes.STALE_STATUS,
            f"status.json is of {newest.time}, before the agent's last start ({case.unit.since}).",
            (
                because(replace(newest.source, text=f"timestamp: {newest.time}"), "its timestamp"),
                because(case.unit, "the service's start"),
            ),
            asks=(AGAIN,),
        )
        return
    collected = case.collected
    if collected and collected.value - newest.at > limit:
        yield Finding(
            codes.STALE_STATUS,
            f"status.json is of {newest.time}, {_span(collected.value - newest.at)} older than the newest entry of "
            f"the logs; the agent writes it every {int(case.monitor_interval.total_seconds())} s.",
            (
                because(replace(newest.source, text=f"timestamp: {newest.time}"), "its timestamp"),
                because(collected.source, "a later entry"),
            ),
            sure=Sure.CERTAIN if collected.value - newest.at > 10 * limit else Sure.LIKELY,
            asks=(AGAIN, SYSTEMCTL) if not case.unit else (AGAIN,),
        )


def _span(delta: timedelta) -> str:
    seconds = int(delta.total_seconds())
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds // size} {word}s"
    return f"{seconds} s"


def times(case: Case) -> Iterator[Finding]:
    """A status of the future, or a log that goes back in time."""
    for row in case.statuses[:1]:
        if row.at and row.at - case.now > _SKEW:
            yield Finding(
                codes.TIMES_DISAGREE,
                f"status.json is of {row.time}, {_span(row.at - case.now)} in the future.",
                (because(replace(row.source, text=f"timestamp: {row.time}"), "its timestamp"),),
                asks=(Ask("date -u", "is the VM's clock right?", "a wrong clock makes keys fail"),),
            )
            return
    for kind in (f.AgentLogEvent, f.UnitLog, f.CloudInitEvent, f.WaagentEvent):
        if found := _back(case.of(kind)):
            before, after = found
            yield Finding(
                codes.TIMES_DISAGREE,
                "The clock was set back: an entry is followed by one that is more than an hour older.",
                (because(before, "an entry"), because(after, "the next one, and older")),
                sure=Sure.LIKELY,
            )
            return


def _back(rows: Sequence[f.Fact]) -> tuple[f.Fact, f.Fact] | None:
    last: f.Fact | None = None
    last_at = datetime.max.replace(tzinfo=UTC)
    for row in rows:
        at, counted = getattr(row, "at", None), getattr(row, "count", 1)
        if not at or counted > 1:  # of equal entries the last one's place and the last one's time are told
            continue
        here, there = row.source, last.source if last else None
        in_order = there is not None and here.document == there.document and here.line > there.line
        if last and in_order and last_at - at > _JUMP:
            return last, row
        last, last_at = row, at
    return None


def two_machines(case: Case) -> Iterator[Finding]:
    """Different host names, vmIds or machine-ids."""
    seen: dict[f.IdentityKind, dict[str, f.Fact]] = {}
    for row in case.of(f.Identity):
        value = row.value.casefold()
        value = keys._canonical(value) if row.kind is f.IdentityKind.VM else value.partition(".")[0]
        seen.setdefault(row.kind, {}).setdefault(value, row)
    hosts = seen.setdefault(f.IdentityKind.HOST, {})
    for line in case.of(f.UnitLog):
        if line.host:
            hosts.setdefault(line.host.casefold().partition(".")[0], line)
    for kernel in case.of(f.KernelRelease):
        if kernel.host:
            hosts.setdefault(kernel.host.casefold().partition(".")[0], kernel)
    hosts.pop("localhost", None)
    lost = keys._lost(case) and keys.trouble(case)
    for kind, values in seen.items():
        if len(values) > 1 and not (kind is f.IdentityKind.VM and lost and len(hosts) < 2):
            names = list(values)
            yield Finding(
                codes.TWO_MACHINES,
                f"Two {kind.value}s: {names[0]} and {names[1]}.",
                tuple(because(fact, f"{kind.value} {name}") for name, fact in list(values.items())[:2]),
                sure=Sure.LIKELY if kind is f.IdentityKind.HOST else Sure.CERTAIN,
            )
            return


def two_versions(case: Case) -> Iterator[Finding]:
    """status.json, executable and package do not agree on the agent's version."""
    seen: dict[tuple[int, ...], tuple[str, f.Fact]] = {}
    rows: list[tuple[str | None, f.Fact]] = []
    if case.status:
        rows.append((case.status.status.version, case.status))
    rows += [(row.version, row) for row in case.of(f.AgentVersion)]
    if case.package and case.package.installed:
        rows.append((case.package.version, case.package))
    for text, fact in rows:
        if text and (version := version_of(text)):
            seen.setdefault(version[:3], (text, fact))
    if len(seen) > 1:
        (one, first), (other, second) = list(seen.values())[:2]
        yield Finding(
            codes.TWO_VERSIONS,
            f"The agent is {one} by {first.source.document} and {other} by {second.source.document}.",
            (because(first, f"version {one}"), because(second, f"version {other}")),
            sure=Sure.CERTAIN,
            asks=(
                Ask("systemctl cat azure-proxy-agent.service", "which executable does the unit start?", "which runs"),
            ),
        )


def two_kernels(case: Case) -> Iterator[Finding]:
    seen: Mapping[str, f.KernelRelease] = {row.release: row for row in reversed(case.of(f.KernelRelease))}
    if len(seen) > 1:
        names = list(seen)
        yield Finding(
            codes.TWO_KERNELS,
            f"Two kernels: {names[0]} and {names[1]}.",
            tuple(because(row, row.release) for row in list(seen.values())[:2]),
            asks=(ASKS["release"],),
        )


def itself(case: Case) -> Iterator[Finding]:
    """proxyAgentStatus SUCCESS beside a part that is STOPPED."""
    if not case.status or case.status.status.status != "SUCCESS":
        return
    for name in CHAIN:
        module = case.status.status.module(name)
        if module and module.status == "STOPPED":
            yield Finding(
                codes.STATUS_AGAINST_ITSELF,
                f"proxyAgentStatus says SUCCESS while {name} is STOPPED.",
                (because(case.parts[name][1], f"{name} is STOPPED"), because(case.overall or case.status, "SUCCESS")),
            )
            return


_BACKPORTING = (".el", "-default", ".fc", "150400", "150500", "150600")
"""Distributions that bring newer verifiers to old versions: there the form dates nothing."""


def log_form(case: Case) -> Iterator[Finding]:
    """The form of the verifier log dates another kernel than `uname -r`."""
    said = case.failing(EBPF, Form.LOAD)
    kernel = case.kernel
    if not said or not said.message or not kernel or not kernel.version:
        return
    if any(mark in kernel.release for mark in _BACKPORTING):
        return
    form = parse(said.message.fields["log"]).generation
    if (form.first and kernel.version < form.first) or (form.last and kernel.version > form.last):
        ends = (("from", form.first), ("to", form.last))
        shown = " ".join(f"{word} {version_text(version)}" for word, version in ends if version)
        yield Finding(
            codes.LOG_AGAINST_KERNEL,
            f"The log has the form of kernels {shown}; uname says {kernel.release}.",
            (because(said.source, "the log's form"), because(kernel, "uname -r")),
            sure=Sure.LIKELY,
            asks=(ASKS["release"],),
        )


def mounts_against_kernel(case: Case) -> Iterator[Finding]:
    kinds = case.evidence.first(f.Filesystems)
    table = next((row for row in case.of(f.Mounts) if row.cgroup2), None)
    if kinds and not kinds.cgroup2 and table:
        yield Finding(
            codes.MOUNTS_AGAINST_KERNEL,
            "cgroup2 is among the mounts, and not among the file systems that the kernel knows.",
            (because(table, "cgroup2 is mounted"), because(kinds, "no `nodev cgroup2`")),
            asks=(ASKS["filesystems"], ASKS["mounts"]),
        )


_KERNELS_OF: Sequence[tuple[str, frozenset[str]]] = (
    (".el", frozenset({"rhel", "centos", "rocky", "almalinux", "ol", "fedora"})),
    (".fc", frozenset({"fedora", "rhel", "centos"})),
    ("-azure", frozenset({"ubuntu", "sles", "suse", "sles_sap"})),
    ("-generic", frozenset({"ubuntu"})),
    (".azl", frozenset({"azurelinux"})),
    (".cm2", frozenset({"mariner"})),
    ("-cloud-amd64", frozenset({"debian"})),
    ("-cloud-arm64", frozenset({"debian"})),
    ("-flatcar", frozenset({"flatcar"})),
)


def container(case: Case) -> Iterator[Finding]:
    """A kernel of one distribution, os-release of another."""
    kernel, os = case.kernel, case.os
    if not kernel or not os or not os.id:
        return
    like = {os.id.casefold(), *(os.fields.get("ID_LIKE") or "").casefold().split()}
    for mark, ids in _KERNELS_OF:
        if mark in kernel.release and not like & ids:
            yield Finding(
                codes.FROM_A_CONTAINER,
                f"The kernel {kernel.release} is not of {os.pretty or os.id}: os-release is a container's.",
                (because(kernel, "the kernel"), because(os, "os-release")),
                sure=Sure.LIKELY,
            )
            return


_STATUS = (f.AgentStatus,)
_ROLE = Role.CONTRADICTION

RULES: Sequence[Rule] = (
    Rule("evidence.service", "status.json RUNNING, the service not", service_down,
         (_STATUS, (f.UnitState, f.WindowsService)), (codes.STATUS_AGAINST_SERVICE,),
         ("applied.confirm.chain", "setup.ebpf#RUNNING"), role=_ROLE),
    Rule("evidence.stale", "An old status.json", stale, (_STATUS,), (codes.STALE_STATUS,),
         ("applied.confirm.status-json",), role=_ROLE),
    Rule("evidence.times", "Timestamps that cannot all be true", times,
         ((f.AgentStatus, f.AgentLogEvent, f.UnitLog, f.CloudInitEvent, f.WaagentEvent),), (codes.TIMES_DISAGREE,),
         ("applied.confirm.status-json",), role=_ROLE),
    Rule("evidence.two-machines", "Evidence of two machines", two_machines,
         ((f.Identity, f.UnitLog, f.KernelRelease),), (codes.TWO_MACHINES,), (), role=_ROLE),
    Rule("evidence.two-versions", "Two versions of the agent", two_versions,
         ((f.AgentStatus, f.AgentVersion), (f.AgentVersion, f.Package)), (codes.TWO_VERSIONS,), ("service",),
         role=_ROLE),
    Rule("evidence.two-kernels", "Two kernels", two_kernels, ((f.KernelRelease,),), (codes.TWO_KERNELS,),
         ("setup.load#uname -r",), role=_ROLE),
    Rule("evidence.itself", "SUCCESS beside a part that is STOPPED", itself, (_STATUS,),
         (codes.STATUS_AGAINST_ITSELF,), ("applied.confirm.chain",), role=_ROLE),
    Rule("evidence.log-form", "A verifier log of another kernel", log_form,
         ((f.AgentStatus, f.AgentLogEvent), (f.KernelRelease,)), (codes.LOG_AGAINST_KERNEL,),
         ("setup.load#block1", "setup.load#uname -r"), Sure.LIKELY, _ROLE),
    Rule("evidence.mounts", "cgroup2 mounted, and unknown to the kernel", mounts_against_kernel,
         ((f.Filesystems,), (f.Mounts,)), (codes.MOUNTS_AGAINST_KERNEL,), ("setup.attach#step3",), role=_ROLE),
    Rule("evidence.container", "os-release of a container", container, ((f.KernelRelease,), (f.OsRelease,)),
         (codes.FROM_A_CONTAINER,), (), Sure.LIKELY, _ROLE),
)  # fmt: skip
