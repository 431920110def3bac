"""What was seen of one boot from outside. Times are seconds since power on, by the host's clock, unless said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.image.azure import health
from harness.image.azure.health import HealthReport
from harness.image.azure.outcome import Arrived
from harness.lab.secure_channel import Event
from harness.msp import signature


@dataclass(frozen=True)
class Asked:
    """A request that reached the platform. status is None where the client hung up before its answer."""

    at: float
    endpoint: str  # imds, wireserver, hostgaplugin
    method: str
    target: str
    status: int | None
    headers: Sequence[Sequence[str]] = ()
    body: str = ""  # of a health report

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    @property
    def client(self) -> str:
        """Who it says that it is: Cloud-Init/25.1.4, WALinuxAgent …; empty where it does not."""
        return self.header("user-agent")

    @property
    def provisioner(self) -> bool:
        """Whether what provisions the machine asked, and neither its agent nor somebody else."""
        return self.client.lower().startswith(("cloud-init", "walinuxagent"))

    @property
    def through_agent(self) -> bool:
        """Whether an agent's proxy passed it on: it alone adds claims, and drops those of others."""
        return bool(self.header(signature.CLAIMS))

    @property
    def signed(self) -> bool:
        return bool(self.header(signature.AUTHORIZATION))


@dataclass(frozen=True)
class Lease:
    """A DHCP message of the client's."""

    at: float
    what: str  # discover, request …


@dataclass(frozen=True)
class Observation:
    """One boot. began: power on, seconds since the epoch. stopped: why watching ended. limit: what it was, in words.

    off: whether the machine went off when its button was pressed. said: what QEMU said.
    """

    began: float
    msp: bool
    stopped: str
    seconds: float
    limit: str
    accelerator: str
    asked: Sequence[Asked] = ()
    events: Sequence[Event] = ()  # of the secure channel; their times are seconds since the epoch
    leases: Sequence[Lease] = ()
    console: str = ""
    said: str = ""
    off: bool = False
    troubles: Sequence[str] = field(default_factory=tuple)

    @property
    def leased_at(self) -> float | None:
        return next((row.at for row in self.leases if row.what == "request"), None)

    @property
    def latched_at(self) -> float | None:
        """When a key was first latched: the moment of the first attestation that was granted."""
        return next((row.at - self.began for row in self.events if row.what == "attest" and row.status == 200), None)

    @property
    def agent_at(self) -> float | None:
        """When an agent first asked for its key's status."""
        return next((row.at - self.began for row in self.events if row.what == "status"), None)

    @property
    def reports(self) -> list[Arrived]:
        """The health reports that the platform accepted and that can be read."""
        return [row for row, problem in self._reports() if row is not None]

    @property
    def refused(self) -> list[Asked]:
        """What provisions the machine asked directly and was not given: the key is latched, so it must be signed."""
        return [row for row in self.asked if row.provisioner and row.status == 403 and not row.signed]

    @property
    def unreadable(self) -> list[str]:
        return [problem for _, problem in self._reports() if problem]

    def _reports(self) -> list[tuple[Arrived | None, str]]:
        rows: list[tuple[Arrived | None, str]] = []
        for asked in self.asked:
            if asked.body and asked.status == 200:
                try:
                    rows.append((Arrived(asked.at, health.parse(asked.body)), ""))
                except health.Unreadable as problem:
                    rows.append((None, str(problem)))
        return rows

    @property
    def provisioners(self) -> list[str]:
        """The names that they gave, in order."""
        return list(dict.fromkeys(row.client for row in self.asked if row.provisioner))


def first_failure(observation: Observation) -> HealthReport | None:
    return next((row.report for row in observation.reports if not row.report.ready), None)
