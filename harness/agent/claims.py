"""Who a client is: what the agent tells an endpoint of it, and what rules are matched with."""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.msp.signature import CLAIMS
from harness.program.maps import AuditRecord

_LONGEST = 1024  # bytes of a command line: escaped in the header it may be six times as long
_MOST_GROUPS = 64  # in the header, which an endpoint would refuse as too long


@dataclass(frozen=True)
class Claims:
    """A client as it was when its connection was accepted; what a process that is gone cannot tell is empty."""

    user_id: int
    user_name: str
    user_groups: Sequence[str]
    process_id: int
    process_path: str
    process_name: str
    process_command: str
    elevated: bool

    def header(self) -> tuple[str, str]:
        """The claims header: JSON in ASCII."""
        told = {
            "userId": self.user_id,
            "userName": self.user_name,
            "userGroups": list(self.user_groups[:_MOST_GROUPS]),
            "processId": self.process_id,
            "processFullPath": self.process_path,
            "processName": self.process_name,
            "processCmdLine": self.process_command,
            "runAsElevated": self.elevated,
        }
        return CLAIMS, json.dumps(told)


def claims_of(record: AuditRecord) -> Claims:
    """What the machine knows of a client that the redirector wrote down."""
    name, groups = _user(record.uid)
    path = _read_link(Path(f"/proc/{record.pid}/exe"))
    command = _command(Path(f"/proc/{record.pid}/cmdline"))
    return Claims(record.uid, name, groups, record.pid, path, Path(path).name, command, record.is_root)


def _user(uid: int) -> tuple[str, tuple[str, ...]]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return "", ()
    found = []
    for gid in os.getgrouplist(user.pw_name, user.pw_gid):
        try:
            found.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return user.pw_name, tuple(found)


def _read_link(path: Path) -> str:
    try:
        return os.fsencode(path.readlink()).decode("utf-8", "replace")  # a path may be any bytes
    except OSError:
        return ""


def _command(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_LONGEST)
    except OSError:
        return ""
    return raw.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
