"""Windows: the agent's service and the drivers of eBPF for Windows, by the numbers of sc; the agent's own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.diagnose import facts as f
from harness.diagnose.case import EBPF, Case
from harness.diagnose.rule import Ask, Finding, Role, Rule, Sure, because
from harness.msp import diagnosis_codes as codes
from harness.msp import win32
from harness.msp.messages import Form

AGENT = "GuestProxyAgent"
DRIVERS = ("eBPFCore", "NetEbpfExt")  # in the order in which they start
RUNNING = 4
_NO_SERVICE = 1060

SC = tuple(
    Ask(f"sc query {name}", f"is {name} there, and in which state?", "whether it is missing, stopped or RUNNING")
    for name in (AGENT, *DRIVERS)
)


def _absent(row: f.WindowsService) -> bool:
    return not row.exists or row.error == _NO_SERVICE


def _down(row: f.WindowsService) -> bool:
    return not _absent(row) and row.state is not None and row.state != RUNNING


def drivers_down(case: Case) -> bool:
    """Whether sc shows a driver of eBPF for Windows that is missing or not RUNNING."""
    rows = [case.service[name.casefold()] for name in DRIVERS if name.casefold() in case.service]
    return any(_down(row) or _absent(row) for row in rows)


def _state(row: f.WindowsService) -> str:
    """`state 1 STOPPED, WIN32_EXIT_CODE 577: the signature is not accepted …`."""
    text = f"state {row.state} {row.state_name or '(unknown)'}"
    if row.win32_exit_code is not None:
        text += f", WIN32_EXIT_CODE {row.win32_exit_code}: {win32.exit_code(row.win32_exit_code).text}"
    if row.service_exit_code:
        text += f", SERVICE_EXIT_CODE {row.service_exit_code}"
    return text


def agent_missing(case: Case) -> Iterator[Finding]:
    row = case.service.get(AGENT.casefold())
    if row and _absent(row):
        yield Finding(
            codes.WINDOWS_AGENT_MISSING,
            f"The service {AGENT} does not exist (1060).",
            (because(row, "sc finds no such service"),),
            steps=(
                "See that MSP is enabled in the VM model: the platform then installs the agent by an extension.",
                "If it is, look at the status of Microsoft.CPlat.ProxyAgent.ProxyAgentWindows in the portal "
                "(Extensions + applications), and retry.",
            ),
        )


def agent_stopped(case: Case) -> Iterator[Finding]:
    row = case.service.get(AGENT.casefold())
    if row and _down(row):
        meaning = win32.exit_code(row.win32_exit_code or 0)
        yield Finding(
            codes.WINDOWS_AGENT_STOPPED,
            f"{AGENT} is not running: {_state(row)}.",
            (because(row, f"state {row.state}"),),
            role=Role.SYMPTOM if drivers_down(case) else Role.CAUSE,
            steps=(
                *((f"{meaning.remedy[0].upper()}{meaning.remedy[1:]}.",) if row.win32_exit_code else ()),
                f"sc start {AGENT}",
                r"If it stops again, read C:\WindowsAzure\ProxyAgent\Logs.",
            ),
        )


def driver_missing(case: Case) -> Iterator[Finding]:
    for name in DRIVERS:
        row = case.service.get(name.casefold())
        if row and _absent(row):
            yield Finding(
                codes.DRIVER_MISSING,
                f"The driver {name} does not exist (1060): eBPF for Windows is not, or only partly, installed.",
                (because(row, "sc finds no such service"),),
                steps=(
                    "Opt out of MSP in the VM model and enable it again: the platform installs eBPF for Windows anew.",
                    "sc query eBPFCore and sc query NetEbpfExt must both say 4 RUNNING.",
                ),
            )
            return


def driver_stopped(case: Case) -> Iterator[Finding]:
    """The first driver in order of start that is down: NetEbpfExt cannot run without eBPFCore."""
    for name in DRIVERS:
        row = case.service.get(name.casefold())
        if not row or not _down(row):
            continue
        meaning = win32.exit_code(row.win32_exit_code or 0)
        remedy = f"{meaning.remedy[0].upper()}{meaning.remedy[1:].replace('NAME', name)}." if meaning.remedy else ""
        yield Finding(
            codes.DRIVER_STOPPED,
            f"{name} is not running: {_state(row)}.",
            (because(row, f"state {row.state}, exit code {row.win32_exit_code}"),),
            steps=(
                *((remedy,) if row.win32_exit_code else ()),
                *(f"sc start {driver}" for driver in DRIVERS[DRIVERS.index(name) :]),
                f"sc stop {AGENT} & sc start {AGENT}",
                r"C:\WindowsAzure\ProxyAgent\Logs\status.json must then say ebpfProgramStatus RUNNING.",
            ),
        )
        return


_EVENTS = frozenset({7000, 7001, 7003, 7009, 7011, 7023, 7024, 7026, 7031, 7034, 7038, 7041})
"""Of the Service Control Manager: a service or driver that did not start, or ended."""


def events(case: Case) -> Iterator[Finding]:
    """The Service Control Manager's events, where nobody ran sc."""
    for event in reversed(case.of(f.WindowsEvent)):
        if event.id not in _EVENTS or "Service Control Manager" not in (event.provider or ""):
            continue
        words = " ".join([event.message or "", *(value for _, value in event.data)])
        named = next((name for name in (*DRIVERS, AGENT) if name.casefold() in words.casefold()), None)
        if not named or named.casefold() in case.service:
            continue
        yield Finding(
            codes.DRIVER_STOPPED if named in DRIVERS else codes.WINDOWS_AGENT_STOPPED,
            f"Event {event.id}{f' of {event.time}' if event.time else ''}: {named} did not start or ended.",
            (because(event, "the Service Control Manager's event"),),
            steps=(f"sc query {named}: its STATE now, and WIN32_EXIT_CODE.", f"sc start {named}"),
            asks=tuple(ask for ask in SC if ask.command.endswith(named)),
        )
        return


def api_not_loaded(case: Case) -> Iterator[Finding]:
    said = case.failing(EBPF, Form.LOAD_API)
    if said:
        seen = any(name.casefold() in case.service for name in DRIVERS)
        yield Finding(
            codes.EBPF_API_NOT_LOADED,
            "The agent could not load the library of eBPF for Windows.",
            (because(said.source, "the agent's own words"),),
            role=Role.CAUSE,
            steps=(
                "sc query eBPFCore & sc query NetEbpfExt: both must exist and be RUNNING.",
                "If they do not exist, have the platform install eBPF for Windows again: opt out of MSP, enable it.",
            ),
            asks=() if seen else SC[1:],
            answers=said.text,
        )


_SERVICE = (f.WindowsService,)

RULES: Sequence[Rule] = (
    Rule("service.windows.agent-missing", "GuestProxyAgent does not exist", agent_missing, (_SERVICE,),
         (codes.WINDOWS_AGENT_MISSING,),
         ("service.windows#step1", "service.windows#GuestProxyAgent", "service.windows", "service")),
    Rule("service.windows.agent-stopped", "GuestProxyAgent is not running", agent_stopped, (_SERVICE,),
         (codes.WINDOWS_AGENT_STOPPED,), ("service.windows#step1", "service.windows#GuestProxyAgent")),
    Rule("setup.ebpf.driver-missing", "eBPFCore or NetEbpfExt does not exist", driver_missing, (_SERVICE,),
         (codes.DRIVER_MISSING,),
         ("service.windows#step2", "service.windows#eBPFCore", "service.windows#NetEbpfExt", "setup.ebpf")),
    Rule("setup.ebpf.driver-stopped", "eBPFCore or NetEbpfExt is not RUNNING", driver_stopped, (_SERVICE,),
         (codes.DRIVER_STOPPED,), ("setup.ebpf#block1", "setup.ebpf#block2", "setup.ebpf#RUNNING", "setup.ebpf")),
    Rule("service.windows.events", "Windows' events tell that a service or driver failed", events,
         ((f.WindowsEvent,),), (codes.DRIVER_STOPPED, codes.WINDOWS_AGENT_STOPPED), ("service.windows",), Sure.LIKELY),
    Rule("setup.ebpf.api-not-loaded", "eBPF for Windows cannot be loaded", api_not_loaded,
         ((f.AgentStatus, f.AgentLogEvent, f.StatusTag),), (codes.EBPF_API_NOT_LOADED,), ("setup.ebpf",),
         Sure.CERTAIN),
)  # fmt: skip
