"""An agent on its way from start to SUCCESS, each step seen from outside: kernel, fabric and files, not its word."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.agent import key_status
from harness.agent.key_status import InvalidStatus, KeyStatus
from harness.agent.rules import Mode
from harness.checks.results import Findings
from harness.errors import HarnessError
from harness.kernel import cgroups
from harness.kernel.bpf import AttachType
from harness.lab.agent_process import AgentProcess, in_short, is_success
from harness.lab.lab import Lab
from harness.lab.scenarios import KNOWN, UNKNOWN, Scenario
from harness.lab.secure_channel import CLOCK_TOLERANCE, Event
from harness.msp import codes
from harness.msp.codes import Code
from harness.msp.endpoints import ENDPOINTS, Endpoint
from harness.program import attached, maps
from harness.report import Json, Outcome, Result
from harness.verifier.explain import explain_text

CONNECT4 = AttachType.CGROUP_INET4_CONNECT
PAUSE = 0.02  # seconds between two looks
SETTLE = 2.0  # seconds for status.json to say what has just come about; times the agent's own interval is at most 1 s

TITLES = {
    "start": "The agent starts and stays",
    "loaded": "A program is loaded",
    "attached": "connect4 is effective for clients",
    "key": "The key is acquired",
    "attested": "The key is attested",
    "policy": "The policy is in place",
    "status": "status.json says SUCCESS",
}


@dataclass(frozen=True)
class Plan:
    """Where a scenario leads an agent: latched (a key is held), unwanted (none is), or refused (it gets none).

    rules are what the platform wants to be in force, None where the agent cannot learn them. refusal is the finding
    that a refused agent's message belongs to.
    """

    scenario: Scenario
    key: str
    rules: KeyStatus | None
    refusal: Code | None = None

    def mode(self, endpoint: Endpoint) -> Mode:
        """How an endpoint is to be treated once the agent has got where it should."""
        if self.key != "latched" or self.rules is None:
            return Mode.DISABLED
        return self.rules.items[endpoint.name].mode

    @property
    def redirected(self) -> tuple[Endpoint, ...]:
        return tuple(endpoint for endpoint in ENDPOINTS if self.mode(endpoint) is not Mode.DISABLED)


def plan_of(scenario: Scenario, status: object) -> Plan:
    """From a scenario and the members of a status that the platform gives in it."""
    rules: KeyStatus | None = None
    with suppress(InvalidStatus):
        rules = key_status.parse(json.dumps(status).encode())
    if scenario.unreachable or scenario.status:
        return Plan(scenario, "refused", None, codes.KEY_STATUS_FAILED)
    if rules is None:
        return Plan(scenario, "refused", None, codes.KEY_INVALID_STATUS)
    if not rules.wanted:
        return Plan(scenario, "unwanted", rules)
    if scenario.latched == UNKNOWN or (scenario.acquire != 200 and scenario.latched != KNOWN):
        return Plan(scenario, "refused", rules, codes.KEY_NOT_OFFERED)
    if scenario.latched != KNOWN and (scenario.attest != 200 or abs(scenario.clock) > CLOCK_TOLERANCE):
        return Plan(scenario, "refused", rules, codes.KEY_NOT_ATTESTED)
    return Plan(scenario, "latched", rules)


@dataclass
class Watch:
    """An agent that is watched; reached holds the seconds from its start at which each step was first seen."""

    lab: Lab
    agent: AgentProcess
    plan: Plan
    told: Callable[[float, str, str], None]  # seconds, step, what was seen: for --follow
    foreign: frozenset[int] = frozenset()  # programs that were effective before it started
    started: float = field(default_factory=time.monotonic)
    reached: dict[str, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def hear(self) -> list[Event]:
        """All that the platform has seen so far."""
        self.events += self.lab.platform.events()
        return self.events

    def programs(self) -> tuple[int, ...]:
        """The agent's connect4 programs that run for a client."""
        found = attached.effective(self.lab.client_cgroup, CONNECT4)
        return tuple(one for one in found if one not in self.foreign)

    def policies(self) -> set[tuple[maps.Destination, maps.Destination]]:
        """The rows of the policy maps of those programs."""
        return {row for one in self.programs() for row in attached.describe(one).policies}

    def redirected(self) -> set[str]:
        """The endpoints' names that the policy holds."""
        names = {(endpoint.address, endpoint.port): endpoint.name for endpoint in ENDPOINTS}
        rows = {wanted for wanted, _ in self.policies()}
        return {names.get((row.address, row.port), str(row)) for row in rows}

    def count(self, what: str, *, good: bool) -> int:
        return sum(event.what == what and (event.status == 200) is good for event in self.events)

    def look(self) -> None:
        """See which steps have been reached."""
        self.hear()
        for name, saw in self._seen():
            if name not in self.reached and saw:
                self.reached[name] = time.monotonic() - self.started
                self.told(self.reached[name], name, saw)

    def _seen(self) -> Iterator[tuple[str, str]]:
        programs = self.programs()
        held = f"program {programs[0]} is effective in the client's cgroup" if programs else ""
        loaded = held or _loaded(self.lab.attach_cgroup / "agent")
        yield "loaded", loaded
        yield "attached", held
        yield "key", self._key()
        yield "attested", self._attested()
        wanted = {endpoint.name for endpoint in self.plan.redirected}
        held_rows = self.redirected()
        if programs and wanted and held_rows == wanted:
            yield "policy", f"policy_map redirects {', '.join(sorted(held_rows))}"
        status = self.agent.status()
        yield "status", "proxyAgentStatus is SUCCESS" if status and is_success(status) else ""

    def _key(self) -> str:
        if self.count("acquire", good=True):
            return "the platform gave a key"
        known = self.plan.scenario.latched == KNOWN and any(event.verdict == "verified" for event in self.events)
        return "it signs with the key of its folder" if known else ""

    def _attested(self) -> str:
        if self.count("attest", good=True):
            return "the platform accepted the attestation"
        return self._key() if self.plan.scenario.latched == KNOWN else ""

    def goal(self) -> tuple[str, ...]:
        """The steps that this scenario lets an agent reach."""
        if self.plan.key == "latched":
            return tuple(TITLES)[1:] if self.plan.redirected else ("loaded", "attached", "key", "attested", "status")
        return ("loaded", "attached", "status")

    def refused(self) -> bool:
        """Whether the platform has refused often enough, where that is all that can come about."""
        if self.plan.key != "refused":
            return True
        if self.plan.scenario.unreachable:
            return time.monotonic() - self.started > SETTLE
        return self.count("acquire", good=False) + self.count("attest", good=False) > 1 or self.count_status() > 2

    def count_status(self) -> int:
        return sum(event.what == "status" for event in self.events) if self.plan.rules is None else 0

    def follow(self, patience: float) -> None:
        """Until every step of the goal was seen, the agent has ended, or patience (seconds) is over."""
        deadline = self.started + patience
        while self.agent.alive and time.monotonic() < deadline:
            self.look()
            if set(self.goal()) <= set(self.reached) and self.refused():
                break
            time.sleep(PAUSE)
        self.look()

    def wait(self, holds: Callable[[], bool], seconds: float = SETTLE) -> bool:
        """Give the agent a moment to bring something about."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline or not self.agent.alive:
                return holds()
            time.sleep(PAUSE)
        return True


def _loaded(cgroup: Path) -> str:
    """The first program whose descriptor a process of this cgroup holds, by /proc/PID/fdinfo."""
    for pid in cgroups.processes(cgroup):
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(link.readlink()) == "anon_inode:bpf-prog":
                        return f"process {pid} holds a program"
    return ""


def last_words(agent: AgentProcess, lines: int = 5) -> str:
    """The end of what an agent printed."""
    return "\n".join(agent.told().strip().splitlines()[-lines:])[-1000:]


def how_it_ended(agent: AgentProcess) -> str:
    """For an agent that is not alive any more."""
    code = os.waitstatus_to_exitcode(agent.exit_status or 0)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"it ended by itself with {how}; its last output: {last_words(agent, 2) or 'it printed nothing'}"


def while_alive(watch: Watch, results: Iterator[Result]) -> Iterator[Result]:
    """Results as they come; what is found out while the agent ends says only that, and nothing comes after it."""
    code = codes.NOT_STARTED
    for result in results:
        if watch.agent.alive:
            yield result
            continue
        evidence: dict[str, Json] = {"found meanwhile": result.summary}
        yield replace(result, outcome=Outcome.FAIL, summary=f"during this, {how_it_ended(watch.agent)}", evidence={},
                      observed=evidence, remedy=code.remedy, code=code.id, guide=code.guide)  # fmt: skip
        return


def judged(watch: Watch, patience: float, kprobes: bool, real: bool) -> Iterator[Result]:
    """A Result for each step."""
    yield _start(watch)
    wanted = watch.goal()
    missing = "" if watch.agent.alive else "the agent has ended"
    for name, title in list(TITLES.items())[1:]:
        seconds = watch.reached.get(name)
        observed: dict[str, Json] = {} if seconds is None else {"seconds from the start": round(seconds, 3)}
        if name in ("key", "attested", "policy") and name not in wanted:
            yield _not_wanted(watch, name, title, observed)
        elif seconds is not None:
            yield Result(f"agent.{name}", title, Outcome.PASS, _reached(watch, name), {}, observed)
        elif missing:
            yield Result(f"agent.{name}", title, Outcome.SKIP, f"it did not get so far: {missing}")
        else:
            missing = f"not seen within {patience:g} s: {title.lower()}"
            yield _missed(watch, name, title, missing, kprobes=kprobes, real=real)


def _start(watch: Watch) -> Result:
    agent = watch.agent
    found = Findings()
    if not agent.alive:
        found.expect(False, how_it_ended(agent))
    return found.result("agent.start", TITLES["start"], "it runs in namespaces of its own, at the run's cgroup",
                        remedy=codes.NOT_STARTED.remedy, code=None if agent.alive else codes.NOT_STARTED.id,
                        observed={"pid": agent.pid, "output": last_words(agent, 20)})  # fmt: skip


def _reached(watch: Watch, name: str) -> str:
    policy = ", ".join(sorted(watch.redirected())) or "nothing"
    return {
        "loaded": "the kernel has it",
        "attached": "its program is in the effective list of the client's cgroup",
        "key": "it has the key that the platform names",
        "attested": "the platform verified the attestation's signature",
        "policy": f"policy_map redirects what the rules want: {policy}",
        "status": "proxyAgentStatus is SUCCESS",
    }[name]


def _not_wanted(watch: Watch, name: str, title: str, observed: dict[str, Json]) -> Result:
    """A step that this scenario has not."""
    plan = watch.plan
    identity = f"agent.{name}"
    if name == "policy":
        rows = sorted(watch.redirected())
        if rows:
            summary = f"policy_map redirects {', '.join(rows)}, and in this scenario nothing is to be redirected"
            return Result(identity, title, Outcome.FAIL, summary, remedy=codes.STATUS_WRONG.remedy,
                          code=codes.STATUS_WRONG.id)  # fmt: skip
        return Result(identity, title, Outcome.PASS, "policy_map is empty, as this scenario wants it")
    if plan.key == "unwanted":
        if name in watch.reached:
            summary = "the platform wants no key, and yet the agent has got one"
            return Result(identity, title, Outcome.FAIL, summary, {}, observed)
        return Result(identity, title, Outcome.SKIP, f"scenario {plan.scenario.name}: the platform wants no key")
    told: dict[str, Json] = {
        f"{what} refused": watch.count(what, good=False) for what in ("acquire", "attest", "status")
    }
    summary = f"scenario {plan.scenario.name}: {plan.scenario.title}; the agent holds none"
    return Result(identity, title, Outcome.SKIP, summary, {}, told, code=plan.refusal.id if plan.refusal else None)


def _missed(watch: Watch, name: str, title: str, missing: str, *, kprobes: bool, real: bool) -> Result:
    status = watch.agent.status()
    said = in_short(status) if status else "there is no status.json"
    code, remedy = codes.NOT_STARTED.id, codes.NOT_STARTED.remedy
    module = status.module("ebpfProgramStatus") if status else None
    if name in ("loaded", "attached") and module and module.status != "RUNNING" and module.message:
        with suppress(HarnessError):
            for explained in explain_text(module.message):
                code, remedy = explained.code.id, explained.help
    if name in ("loaded", "attached") and real and not kprobes:
        missing += "; this kernel has no kprobes, and Microsoft's agent attaches one before connect4"
        remedy = f"run it on a kernel with CONFIG_KPROBE_EVENTS; {remedy}"
    return Result(f"agent.{name}", title, Outcome.FAIL, f"{missing}; {said}", {},
                  {"output": last_words(watch.agent, 20)}, remedy, code=code)  # fmt: skip
