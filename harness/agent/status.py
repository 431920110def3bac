"""status.json in the agent's form: what each part says of itself, and who asked for what.

A part's status says that it runs, not that it succeeds: keyLatchStatus is RUNNING while every key is refused, as the
agent's is. That is copied on purpose; states and message tell the difference.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import __version__
from harness.agent.claims import Claims
from harness.errors import HarnessError, errno_text
from harness.msp import messages
from harness.msp.status import MODULES

UNKNOWN, RUNNING, STOPPED = "UNKNOWN", "RUNNING", "STOPPED"

JUDGED = ("ebpfProgramStatus", "keyLatchStatus", "proxyListenerStatus")
"""The parts that decide proxyAgentStatus.status, and whose trouble fails provisioning."""

MOST_ROWS = 200
"""Rows of a summary; what comes later is counted under the row `other`."""


@dataclass(frozen=True)
class Module:
    """One part of the agent."""

    status: str = UNKNOWN
    message: str = ""  # at most 1,024 bytes, cut as the agent cuts
    states: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"status": self.status, "message": self.message}
        return found | ({"states": dict(self.states)} if self.states else {})


@dataclass(frozen=True)
class Row:
    """One line of a summary."""

    user: str
    address: str
    port: int
    command: str
    status: str
    groups: tuple[str, ...]
    path: str

    def document(self, count: int) -> dict[str, Any]:
        return {
            "userName": self.user,
            "userGroups": list(self.groups),
            "ip": self.address,
            "port": self.port,
            "processFullPath": self.path,
            "processCmdLine": self.command,
            "responseStatus": self.status,
            "count": count,
        }


OTHER = Row("other", "", 0, "", "", (), "")


class Board:
    """Where the parts say how they are."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {name: Module() for name in MODULES}
        self.connections = 0
        self._all: Counter[Row] = Counter()
        self._failed: Counter[Row] = Counter()

    def set(self, name: str, status: str, message: str, states: Mapping[str, str] | None = None) -> None:
        """A part's state from now on; a long message is cut."""
        self.modules[name] = Module(status, messages.cut(message), states or {})

    def count(self, claims: Claims | None, address: str, port: int, status: int, *, denied: bool) -> None:
        """One answered request."""
        if claims is None:
            return
        who, groups = claims.user_name, tuple(claims.user_groups)
        row = Row(who, address, port, claims.process_command, str(status), groups, claims.process_path)
        for table in (self._all, self._failed) if denied else (self._all,):
            table[row if row in table or len(table) < MOST_ROWS else OTHER] += 1

    @property
    def status(self) -> str:
        """proxyAgentStatus.status."""
        found = [self.modules[name].status for name in JUDGED]
        if STOPPED in found:
            return "ERROR"
        return "SUCCESS" if all(status == RUNNING for status in found) else "UNKNOWN"

    def document(self) -> dict[str, Any]:
        """The members of status.json."""
        return {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "proxyAgentStatus": {
                "version": __version__,
                "status": self.status,
                **{name: module.document() for name, module in self.modules.items()},
                "proxyConnectionsCount": self.connections,
            },
            "proxyConnectionSummary": [row.document(count) for row, count in self._all.items()],
            "failedAuthenticateSummary": [row.document(count) for row, count in self._failed.items()],
        }

    def text(self) -> str:
        return json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n"


def write_whole(path: Path, text: str, mode: int = 0o644) -> None:
    """Put a text at path so that a reader sees the old one or the new one, whole. Raises HarnessError."""
    part = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(text.encode("utf-8", "replace"))
        part.replace(path)
    except OSError as error:
        raise HarnessError(f"write {path}", errno_text(error.errno or 0), errno=error.errno or 0) from error
