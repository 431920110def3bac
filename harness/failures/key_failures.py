"""The guide's key failures, with an agent running in a lab against a platform that refuses: the reference agent, or
somebody's.

The agent is healthy when it holds the key that the platform names; what its status says is part of the evidence, for
`keyLatchStatus: RUNNING` and `proxyAgentStatus: SUCCESS` stand there while every key is refused.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from harness.errors import HarnessError
from harness.failures.model import LATCHED, UNLATCHED, Answer, Failure, Family, Recipe, Setting, Shown
from harness.lab import agent_files
from harness.lab.agent_process import (
    QUICK,
    AgentProcess,
    Launch,
    give_known_key,
    is_latched,
    is_success,
    reference_launch,
    says,
    started,
)
from harness.lab.clients import Request
from harness.lab.lab import Lab, open_lab
from harness.lab.scenarios import Scenario, scenario
from harness.msp import codes
from harness.msp.codes import Code
from harness.msp.endpoints import IMDS
from harness.msp.messages import Form
from harness.msp.status import Status
from harness.report.model import Json

TIMES = replace(QUICK, provision=0.3)
"""Provisioning is given up soon, so that `--status --wait` has an answer."""

PATIENCE = 25.0  # seconds until an agent that does not get where it should is looked at as it is
FOREIGN_PATIENCE = 40.0  # the same for somebody's agent, whose times are its own: it may poll every 15 s
_WAIT = 10  # seconds given to --status --wait

_ACQUIRE = "Failed to acquire key details: "
_ATTEST = Form.KEY_NOT_ATTESTED.format(error="")
_STATUS = Form.KEY_STATUS.format(error="")


@dataclass(frozen=True)
class Machine:
    """A VM: its lab, and the disk with the agent's files."""

    lab: Lab
    launch: Launch

    @contextmanager
    def agent(self) -> Iterator[AgentProcess]:
        with started(self.lab, self.launch) as agent:
            yield agent

    def empty_key_folder(self) -> None:
        shutil.rmtree(self.launch.key_folder)


@contextmanager
def machine(setting: Setting, name: str, wanted: Scenario) -> Iterator[Machine]:
    """A VM whose platform behaves so; its agent is not started yet."""
    with open_lab(setting.run, name, proxy_port=0, scenario=wanted) as lab:
        home = setting.run.directory / name
        if setting.agent.binary:
            launch = agent_files.launch(lab, home, setting.agent, None)
        else:
            launch = reference_launch(lab, home, setting.agent_image, TIMES)
        launch = replace(launch, patience=FOREIGN_PATIENCE if setting.agent.binary else PATIENCE)
        give_known_key(lab, launch)
        yield Machine(lab, launch)


def look(agent: AgentProcess, did: str, awaited: Callable[[Status], bool]) -> Answer:
    """How an agent is, once it is as awaited, or as it is when patience ends."""
    lab = agent.lab
    try:
        status = agent.wait_for(awaited, f"as awaited {did}")
    except HarnessError:
        found = agent.status()
        if not agent.alive or found is None:
            raise
        status = found
    latch = status.module("keyLatchStatus")
    states = dict(latch.states) if latch else {}
    message = (latch.message or "") if latch else ""
    seen = lab.ask(Request.to(IMDS))
    who = "the agent" if seen.nonce == lab.nonce else "the endpoint itself"
    asked = agent.ask_status(_WAIT)
    healthy = is_latched(status) and states.get("keyGuid") == lab.platform.status()["keyGuid"]
    facts: dict[str, Json] = {
        "the guide's test": "passed" if guides_test(status) else "failed",
        "proxyAgentStatus": status.status,
        "keyLatchStatus": f"{latch.status if latch else None}: {message}",
        "secureChannelState": states.get("secureChannelState"),
        "keyGuid": "there" if states.get("keyGuid") else "missing",
        "--status --wait": f"exit code {asked.returncode}: {(asked.stderr or asked.stdout).decode().strip()}",
        "a client of IMDS gets": f"{seen.status or seen.error} from {who}",
    }
    when = "once healthy" if healthy else "while it has no key"
    return Answer(
        did, LATCHED if healthy else UNLATCHED, message="" if healthy else message, facts={when: facts},
        observed={
            f"states {when}": dict(states),
            f"the platform saw {when}": sorted({_told(event.what, event.status) for event in lab.platform.events()}),
        },
    )  # fmt: skip


def guides_test(status: Status) -> bool:
    """What the guide has one look at: proxyAgentStatus is SUCCESS, and the three parts are RUNNING."""
    parts = [status.module(name) for name in ("keyLatchStatus", "ebpfProgramStatus", "proxyListenerStatus")]
    return is_success(status) and all(part is not None and part.status == "RUNNING" for part in parts)


def _told(what: str, status: int) -> str:
    return f"{what} answered {status}" if status else what


def _by_reset(made: Machine, agent: AgentProcess, incarnation: int = 2) -> Answer:
    """The guide's remedy: a larger KeyIncarnationId; nobody touches the agent."""
    made.lab.platform.reset(incarnation)
    return look(agent, f"after a reset to KeyIncarnationId {incarnation}, without a restart", is_latched)


# --- recipes ----------------------------------------------------------------------------------------------------


def _refused(setting: Setting) -> Shown:
    with machine(setting, "key-refused", scenario("unknown")) as made, made.agent() as agent:
        failing = look(agent, "an agent starts with an empty key folder on a VM that has a key", says(_ACQUIRE))
        repaired = _by_reset(made, agent)
    return Shown(failing, repaired, summary=hidden(failing))


def hidden(failing: Answer) -> str:
    """The finding of an agent without a key that passes the guide's test; empty where it does not pass."""
    facts = failing.facts["while it has no key"] if failing.word == UNLATCHED else {}
    if not isinstance(facts, dict) or facts["the guide's test"] != "passed":
        return ""
    return (
        f"reproduced: {failing.did}: every request for a key is answered with 403, and yet proxyAgentStatus says "
        "SUCCESS and keyLatchStatus RUNNING: the guide's test passes; keyGuid is missing, secureChannelState is "
        f"{facts['secureChannelState']}, and the message tells why; remedy works: {_LARGER}"
    )


def _lost_folder(setting: Setting) -> Shown:
    with machine(setting, "key-lost", scenario("enforce")) as made:
        with made.agent() as agent:
            agent.wait_for(is_latched)
            made.empty_key_folder()
            meanwhile = look(agent, "while the agent whose key folder was emptied runs on", is_latched)
        with made.agent() as agent:
            failing = look(agent, "the agent starts again after its key folder was emptied", says(_ACQUIRE))
            return Shown(failing, _by_reset(made, agent), facts={meanwhile.did: meanwhile.word})


def _moved_disk(setting: Setting) -> Shown:
    """The disk of one VM, with its key, goes to another, which had a key of its own."""
    with machine(setting, "key-first-vm", scenario("enforce")) as first, first.agent() as agent:
        agent.wait_for(is_latched)
        with machine(setting, "key-second-vm", scenario("unknown")) as second:
            shutil.copytree(first.launch.key_folder, second.launch.key_folder)
            with second.agent() as moved:
                failing = look(moved, "an agent starts from a disk that was another VM's", says(_ACQUIRE))
                repaired = _by_reset(second, moved)
    return Shown(failing, repaired)


def _values(setting: Setting, *, value: int) -> Shown:
    """A reset with a value that is not larger, then with one that is."""
    with machine(setting, f"key-value-{value}", scenario("unknown")) as made:
        platform = made.lab.platform
        platform.reset(5)  # the VM model's value; a first key is latched under it, and lost
        with made.agent() as agent:
            agent.wait_for(is_latched)
        made.empty_key_folder()
        with made.agent() as agent:
            agent.wait_for(says(_ACQUIRE))
            changed = platform.reset(value)
            made.lab.platform.events()
            _wait_for_polls(made, 3)
            failing = look(agent, f"after a reset from KeyIncarnationId 5 to {value}", says(_ACQUIRE))
            repaired = _by_reset(made, agent, 6)
    return Shown(failing, repaired, facts={f"{value} changes anything": changed, "6 changes anything": True})


def _wait_for_polls(made: Machine, count: int) -> None:
    """Until the agent has asked so often again."""
    deadline, seen = time.monotonic() + made.launch.patience, 0
    while seen < count and time.monotonic() < deadline:
        time.sleep(0.02)
        seen += sum(event.what == "status" for event in made.lab.platform.events())


def _recovering(name: str, wanted: str, cause: str, message: str, mended: str) -> Recipe:
    """A platform that behaves as a scenario says, and then as it should: the agent recovers by its next poll."""

    def recipe(setting: Setting) -> Shown:
        with machine(setting, name, scenario(wanted)) as made, made.agent() as agent:
            failing = look(agent, f"an agent starts {cause}", says(message))
            made.lab.platform.set(scenario("enforce"))
            return Shown(failing, look(agent, f"after {mended}, without a restart", is_latched))

    return recipe


def _not_stored(setting: Setting) -> Shown:
    """Where the key folder should be lies a file."""
    with machine(setting, "key-not-stored", scenario("enforce")) as made:
        made.launch.key_folder.write_text("")
        with made.agent() as agent:
            failing = look(agent, "an agent starts whose key folder cannot be made", says("Failed to save"))
            made.launch.key_folder.unlink()
            return Shown(failing, look(agent, "after the folder could be made, without a restart", is_latched))


def _row(name: str, title: str, code: Code, recipe: Recipe, remedy: str) -> Failure:
    return Failure(name, title, Family.KEY, code, (UNLATCHED,), recipe, remedy, LATCHED, program="")


_LARGER = "a larger KeyIncarnationId was put into the VM model, and the agent got a new key by itself"

KEYS = (
    _row("key-refused", "The platform no longer offers a key: acquiring it is answered with 403", codes.KEY_NOT_OFFERED,
         _refused, _LARGER),
    _row("key-lost", "The key folder was emptied, and the agent started again", codes.KEY_NOT_OFFERED, _lost_folder,
         _LARGER),
    _row("key-moved-disk", "The disk was moved to another VM, which has a key of its own", codes.KEY_NOT_OFFERED,
         _moved_disk, _LARGER),
    _row("key-reset-equal", "A reset with the same KeyIncarnationId changes nothing", codes.KEY_NOT_OFFERED,
         partial(_values, value=5), _LARGER),
    _row("key-reset-smaller", "A reset with a smaller KeyIncarnationId changes nothing", codes.KEY_NOT_OFFERED,
         partial(_values, value=4), _LARGER),
    _row("key-rejected", "The platform rejects the key: its attestation is answered with 403", codes.KEY_NOT_ATTESTED,
         _recovering("key-rejected", "attest-refused", "on a platform that refuses attestations", _ATTEST,
                     "the platform accepted attestations again"),
         "the platform accepted attestations again"),
    _row("key-clock", "The clocks of VM and platform are a day apart: the attestation is refused",
         codes.KEY_NOT_ATTESTED,
         _recovering("key-clock", "clock", "while the clocks are a day apart", _ATTEST, "the clocks were set right"),
         "the clocks were set right"),
    _row("key-not-stored", "The key cannot be written to the disk", codes.KEY_NOT_STORED, _not_stored,
         "the folder could be made"),
    _row("key-status-unreachable", "WireServer cannot be reached", codes.KEY_STATUS_FAILED,
         _recovering("key-unreachable", "unreachable", "while WireServer breaks off every connection", _STATUS,
                     "WireServer answered again"),
         "WireServer answered again"),
    _row("key-status-invalid", "The platform's key status does not validate", codes.KEY_INVALID_STATUS,
         _recovering("key-invalid", "status-missing", "whose platform's status lacks members", _STATUS,
                     "the status was whole"),
         "the status was whole"),
)  # fmt: skip
