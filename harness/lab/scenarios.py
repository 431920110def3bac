"""How the platform's secure channel behaves: one row a scenario, chosen by a test or on the command line.

A scenario is data; harness.lab.secure_channel acts on it. The members of rules are those of shared/facts/
secure-channel.md, as they go over the wire.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from harness.errors import HarnessError

NEVER, KNOWN, UNKNOWN = "never", "known", "unknown"
"""Whether a key was latched before: no; yes, and the agent's key folder holds it; yes, and the agent has lost it."""

ENDPOINTS = ("imds", "wireserver", "hostga")
"""The members of authorizationRules."""


def item(mode: str = "enforce", access: str = "allow", identity: str = "", **rules: Any) -> dict[str, Any]:
    """One endpoint's authorization item; identity is its rule id."""
    found: dict[str, Any] = {"defaultAccess": access, "mode": mode, "id": identity or f"msp-lab-{mode}"}
    return found | ({"rules": rules} if rules else {})


def items(mode: str, access: str = "allow") -> dict[str, Any]:
    return {name: item(mode, access, f"msp-lab-{name}") for name in ENDPOINTS}


@dataclass(frozen=True)
class Scenario:
    """What the platform says and does.

    state is secureChannelState of version 1.0 and counts for nothing in 2.0. acquire and attest are the statuses of
    the answers, 200 for the usual course. status, where given, replaces the answer to a poll: (status, body). clock
    is how many seconds the platform's clock is ahead. delay is in seconds.
    """

    name: str
    title: str
    version: str = "2.0"
    state: str = "WireserverAndImds"
    enabled: bool = True
    rules: Mapping[str, Any] = field(default_factory=lambda: items("enforce"))
    latched: str = NEVER
    acquire: int = 200
    attest: int = 200
    status: tuple[int, str] | None = None
    without: tuple[str, ...] = ()  # members that a status lacks
    members: Mapping[str, Any] = field(default_factory=dict)  # members of a status that are otherwise
    delay: float = 0.0  # before each answer of the secure channel
    unreachable: bool = False  # every connection to WireServer breaks off
    clock: float = 0.0

    def dump(self) -> dict[str, Any]:
        """As JSON; Scenario(**that) is the same again."""
        return asdict(self)

    def changed(self, **changes: Any) -> Scenario:
        return replace(self, **changes)

    def wire_rules(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self.rules))


ROOT_ONLY = item(
    access="deny",
    identity="msp-lab-root-only",
    privileges=[{"name": "instance", "path": "/metadata/instance"}],
    roles=[{"name": "reader", "privileges": ["instance"]}],
    identities=[{"name": "root", "userName": "root"}],
    roleAssignments=[{"role": "reader", "identities": ["root"]}],
)
"""IMDS for root, and of it nothing but /metadata/instance."""

SCENARIOS = (
    Scenario("enforce", "a key is offered, rules enforced for the three endpoints"),
    Scenario("audit", "a key is offered, rules only audited", rules=items("audit")),
    Scenario("disabled", "MSP is off: no key was ever latched, none is wanted", enabled=False, rules={}),
    Scenario("rules-disabled", "MSP is on, and every endpoint's mode is disabled", rules=items("disabled")),
    Scenario("mixed", "WireServer enforced, IMDS audited, HostGAPlugin enforced",
             rules=items("enforce") | {"imds": item("audit", identity="msp-lab-imds")}),
    Scenario("v1", "a status of version 1.0: WireServer and IMDS", version="1.0"),
    Scenario("v1-wireserver", "a status of version 1.0: WireServer alone", version="1.0", state="Wireserver"),
    Scenario("v1-disabled", "a status of version 1.0: MSP is off", version="1.0", state="Disabled"),
    Scenario("known", "a key was latched before, and the agent's folder holds it", latched=KNOWN),
    Scenario("unknown", "a key was latched before, and the agent has lost it: 403", latched=UNKNOWN),
    Scenario("refused", "no key was latched, and the platform gives none: 403", acquire=403),
    Scenario("attest-refused", "a key is given, and its attestation refused: 403", attest=403),
    Scenario("status-error", "the status is answered with 500", status=(500, "")),
    Scenario("status-malformed", "the status is not JSON", status=(200, '{"authorizationScheme": "Azure-HMAC-')),
    Scenario("status-missing", "the status lacks members that must be there",
             without=("authorizationScheme", "keyDeliveryMethod")),
    Scenario("status-scheme", "the status wants another authorization scheme",
             members={"authorizationScheme": "Azure-RSA"}),
    Scenario("slow", "each answer of the secure channel takes 2 s", delay=2.0),
    Scenario("unreachable", "WireServer breaks off every connection", unreachable=True),
    Scenario("clock", "the platform's clock is a day ahead, so that it refuses what is signed", clock=86400.0),
    Scenario("denied", "rules that deny everything to everybody", rules=items("enforce", "deny")),
    Scenario("audit-denied", "rules that would deny everything, only audited", rules=items("audit", "deny")),
    Scenario("imds-root", "IMDS for root only, and of it only /metadata/instance",
             rules=items("enforce") | {"imds": ROOT_ONLY}),
)  # fmt: skip

DEFAULT = SCENARIOS[0]


def scenario(name: str) -> Scenario:
    """The scenario of a name. Raises HarnessError with the nearest names."""
    for row in SCENARIOS:
        if row.name == name:
            return row
    near = difflib.get_close_matches(name, [row.name for row in SCENARIOS], 3, 0.5)
    remedy = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(row.name for row in SCENARIOS)}"
    raise HarnessError(f"set the platform to {name!r}", "there is no scenario of that name", remedy)
