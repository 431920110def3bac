"""The reference agent with one fault, as a program of its own: `python -m tests.agent.faulty FAULT …`.

Each fault is a patch of one thing; what is left is the agent as it is. Its settings are those of the lab.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.agent import __main__ as program
from harness.agent import gate, headers, key_folder, proxy, reference, status
from harness.agent.claims import Claims, claims_of
from harness.msp.signature import AUTHORIZATION, CLAIMS


def without(name: str) -> None:
    """The proxied requests lack a header of the agent's."""
    original = gate.Gate.headers

    def patched(self: gate.Gate, claims: Claims, method: str, target: str, given: Any, body: bytes) -> Any:
        return tuple(row for row in original(self, claims, method, target, given, body) if row[0] != name)

    setattr(gate.Gate, "headers", patched)  # noqa: B010


def wrong_claims() -> None:
    """It tells the platform of another user."""
    original = claims_of
    given = gate.Gate.__init__

    def patched(self: gate.Gate, *arguments: Any) -> None:
        given(self, *arguments)
        self.identify = lambda record: replace(original(record), user_id=record.uid + 1)

    setattr(gate.Gate, "__init__", patched)  # noqa: B010


def passes_forged() -> None:
    headers.HOST_PREFIX = "x-nothing-"


def listens_everywhere() -> None:
    original = socket.create_server
    socket.create_server = lambda address, **more: original(("0.0.0.0", address[1]), **more)


def loose_key() -> None:
    original = key_folder.KeyFolder.save

    def patched(self: key_folder.KeyFolder, key: key_folder.Key) -> None:
        original(self, key)
        self.file(key.guid).chmod(0o644)

    setattr(key_folder.KeyFolder, "save", patched)  # noqa: B010


def lies_about_the_key() -> None:
    """It names a key that nobody latched."""
    from harness.agent.keys import KeyKeeper

    original = KeyKeeper.states
    setattr(KeyKeeper, "states", lambda self: original(self) | {"keyGuid": "11111111-2222-3333-4444-555555555555"})  # noqa: B010


def empty_policy() -> None:
    """It says RUNNING, and redirects nothing."""
    setattr(reference.ReferenceAgent, "_apply", lambda self, found: setattr(self.gate, "items", found.items))  # noqa: B010


def tells_the_key() -> None:
    original = reference.ReferenceAgent._step

    def patched(self: reference.ReferenceAgent, step: Any) -> None:
        original(self, step)
        if self.keeper.key:
            self.log(f"debug: key is {self.keeper.key.key}")

    setattr(reference.ReferenceAgent, "_step", patched)  # noqa: B010


def lets_everybody_in() -> None:
    setattr(gate.Gate, "denial", lambda self, claims, endpoint, request: None)  # noqa: B010


def dies_of_nonsense() -> None:
    """A request that is none ends it; CONNECT does not."""

    def patched(self: proxy._Session, code: int, why: str) -> None:
        if code != 405:
            os._exit(7)

    setattr(proxy._Session, "refused", patched)  # noqa: B010


def open_proxy() -> None:
    """It trusts the Host header, as a forward proxy does."""
    original = proxy._Session.answer

    async def patched(self: proxy._Session, request: Any) -> Any:
        host = (request.header("host") or "").partition(":")[0]
        if host.count(".") == 3 and host != "127.0.0.1":
            await asyncio.get_running_loop().run_in_executor(None, knock, host)
        return await original(self, request)

    setattr(proxy._Session, "answer", patched)  # noqa: B010


def knock(host: str) -> None:
    socket.create_connection((host, 80), 1).close()


def loose_status() -> None:
    original = status.write_whole

    def patched(path: Path, text: str, mode: int = 0o644) -> None:
        original(path, text, mode)
        path.chmod(0o666)

    setattr(reference, "write_whole", patched)  # noqa: B010


FAULTS: Mapping[str, Callable[[], None]] = {
    "not-signing": lambda: without(AUTHORIZATION),
    "no-claims": lambda: without(CLAIMS),
    "wrong-claims": wrong_claims,
    "passes-forged": passes_forged,
    "listens-everywhere": listens_everywhere,
    "loose-key": loose_key,
    "loose-status": loose_status,
    "lies-about-the-key": lies_about_the_key,
    "empty-policy": empty_policy,
    "tells-the-key": tells_the_key,
    "lets-everybody-in": lets_everybody_in,
    "dies-of-nonsense": dies_of_nonsense,
    "open-proxy": open_proxy,
    "none": lambda: None,
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(program.main(sys.argv[2:]))
