"""The platform's secure channel in a lab: what the harness tells the fabric's process, and hears from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.lab.scenarios import Scenario
from harness.lab.secure_channel import Event, Key, SecureChannel
from harness.lab.worker import Handler, Worker


@dataclass(frozen=True)
class Platform:
    """Calls to a fabric that speaks the secure channel. Each raises HarnessError where it does not."""

    fabric: Worker

    def set(self, scenario: Scenario) -> None:
        """Behave like this from now on."""
        self.fabric.call("platform_set", scenario=scenario.dump())

    def reset(self, incarnation: int) -> bool:
        """Give the VM model this KeyIncarnationId; whether that changed anything."""
        changed: bool = self.fabric.call("platform_reset", incarnation=incarnation)
        return changed

    def events(self) -> list[Event]:
        """What was seen since the last call, in order."""
        return [Event(**row | {"missing": tuple(row["missing"])}) for row in self.fabric.call("platform_events")]

    def status(self) -> Mapping[str, Any]:
        """The members of a status as the platform means it now, whatever it answers to a poll."""
        found: dict[str, Any] = self.fabric.call("platform_status")
        return found

    def known_key(self) -> Key | None:
        """The key that the agent's folder is to hold before it starts, as the scenario says."""
        row = self.fabric.call("platform_known_key")
        return row and Key(**row)

    def latched_key(self) -> Key | None:
        row = self.fabric.call("platform_latched_key")
        return row and Key(**row)


def channel(scenario: Mapping[str, Any]) -> SecureChannel:
    return SecureChannel(Scenario(**scenario))


def handlers(served: SecureChannel) -> Mapping[str, Handler]:
    """In the fabric's worker: the calls of Platform."""

    def events() -> list[dict[str, Any]]:
        rows = [asdict(event) for event in served.events]
        served.events.clear()
        return rows

    return {
        "platform_set": lambda scenario: served.set_scenario(Scenario(**scenario)),
        "platform_reset": served.reset,
        "platform_events": events,
        "platform_status": served.status,
        "platform_known_key": lambda: served.known_key and asdict(served.known_key),
        "platform_latched_key": lambda: served.latched and asdict(served.latched),
    }
