"""A platform on loopback, and a reference agent without eBPF that talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.agent.config import Config, Times
from harness.agent.host import Host
from harness.agent.key_folder import KeyFolder
from harness.agent.key_status import KeyStatus
from harness.agent.keys import KeyKeeper, Step
from harness.agent.reference import ReferenceAgent
from harness.lab.fabric import Fabric
from harness.lab.scenarios import DEFAULT, Scenario
from harness.lab.secure_channel import SecureChannel
from harness.msp.endpoints import ENDPOINTS
from tests.loopback import closed_port, listener, port_of

TIMES = Times(monitor=0.01, poll=0.02, unknown=0.01, unknown_for=60, provision=60, ask=0.01, answer=5)


@dataclass
class Platform:
    channel: SecureChannel
    fabric: Fabric
    config: Config
    folder: KeyFolder

    def keeper(self, **hooks: Any) -> KeyKeeper:
        return KeyKeeper(Host(self.config), self.folder, self.config.times, **hooks)

    def whats(self) -> list[str]:
        """What the platform saw since the last call."""
        found = [event.what for event in self.channel.events]
        self.channel.events.clear()
        return found


@dataclass
class Watched:
    """A keeper with what it told."""

    keeper: KeyKeeper
    steps: list[Step]
    applied: list[KeyStatus]

    async def poll(self) -> str:
        """One poll; the events of it in words, and the message after it."""
        self.steps.clear()
        await self.keeper.poll()
        return ", ".join(step.event for step in self.steps)


@contextlib.asynccontextmanager
async def platform(home: Path, scenario: Scenario = DEFAULT, times: Times = TIMES) -> AsyncIterator[Platform]:
    sockets = {endpoint.name: listener() for endpoint in ENDPOINTS}
    places = {name: port_of(sock) for name, sock in sockets.items()}
    endpoints = tuple(replace(row, address="127.0.0.1", port=places[row.name]) for row in ENDPOINTS)
    channel = SecureChannel(scenario)
    fabric = Fabric(sockets, channel=channel)
    config = Config(
        log_folder=home / "log",
        key_folder=home / "keys",
        times=times,
        nonce="5f3a",
        port=closed_port(),
        endpoints=endpoints,
        redirect=False,
    )
    await fabric.start()
    try:
        yield Platform(channel, fabric, config, KeyFolder(config.key_folder))
    finally:
        await fabric.stop()


def watch(made: Platform) -> Watched:
    steps: list[Step] = []
    applied: list[KeyStatus] = []
    return Watched(made.keeper(told=steps.append, applied=applied.append), steps, applied)


@contextlib.asynccontextmanager
async def running(made: Platform) -> AsyncIterator[ReferenceAgent]:
    """A whole agent, with its loops."""
    agent = ReferenceAgent(made.config)
    await agent.start()
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        task.cancel()
        await asyncio.wait({task})
        await agent.stop()
    assert task.cancelled(), task


def status_file(made: Platform) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(made.config.status_file.read_text())
    except FileNotFoundError:
        return {}
    return found


def key_latch(made: Platform) -> dict[str, Any]:
    found: dict[str, Any] = status_file(made).get("proxyAgentStatus", {}).get("keyLatchStatus", {})
    return found
