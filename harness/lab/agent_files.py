"""The files of an agent that is started in a lab at its own fixed paths, and none of which the host sees.

The agent's folders lie on overlays: what it writes lands in the run's directory, and a folder of the host that has the
same name (an agent installed here) is hidden by an opaque one. An executable of somebody else's is copied to where
packages install it, its object beside it and to where packages install that.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.agent import config as settings
from harness.agent.config import Config, Times
from harness.errors import HarnessError, errno_text
from harness.lab.agent_process import CGROUP_MOUNT, Launch
from harness.lab.lab import Lab
from harness.program.image import Image

EXECUTABLE = Path("/usr/sbin/azure-proxy-agent")
OBJECT = Path("/usr/lib/azure-proxy-agent/ebpf_cgroup.o")
CONFIG = settings.DEFAULT_PATH
LOGS = Path("/var/log/azure-proxy-agent")
KEYS = Path("/var/lib/azure-proxy-agent/keys")
"""Where a Linux image has them: "Files and units" of shared/facts/agent.md."""

OVERLAYS = (Path("/etc"), Path("/usr/sbin"), Path("/usr/lib"), Path("/var/lib"), Path("/var/log"))
_LARGEST = 1 << 20  # bytes of a configuration
_NOT_COVERED = ("", "dev", "proc", "run", "sys", "tmp")
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64le", 22: "s390x"}
"""e_machine of ELF headers (include/uapi/linux/elf-em.h) by uname's words."""

REFERENCE_TIMES = Times(monitor=0.2, poll=0.5, unknown=0.1, unknown_for=300, provision=5, ask=0.1, answer=5)


@dataclass(frozen=True)
class AgentFiles:
    """What the user gives: the executable of a real agent (None: the reference agent), its object, its settings."""

    binary: Path | None = None
    object: Path | None = None
    config: Path | None = None

    @property
    def title(self) -> str:
        return str(self.binary) if self.binary else "the reference agent (for laboratories)"


def problem_of(binary: Path) -> str:
    """Why a file cannot be executed here, as far as looking at it tells; empty when nothing speaks against it."""
    try:
        if not binary.is_file():
            return "there is no such file" if not binary.exists() else "it is no regular file"
        if not os.access(binary, os.X_OK):
            return "EACCES (Permission denied): it is not executable; `chmod +x` it"
        with binary.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        return errno_text(error.errno or 0)
    if head[:2] == b"#!":
        return ""
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return "ENOEXEC (Exec format error): it is neither an ELF executable nor a script with #!"
    (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    here = platform.machine()
    found = _MACHINES.get(machine, f"ELF machine {machine}")
    known = found == here or (here == "x86_64" and found == "i386")
    return "" if known else f"ENOEXEC (Exec format error): it is for {found}, and this machine is {here}"


def launch(lab: Lab, home: Path, files: AgentFiles, image: Image | None) -> Launch:
    """Lay out an agent's files below home, a folder of the run that is made; image is for the reference agent.

    Raises HarnessError when a file cannot be read, or when the configuration has folders that cannot be covered.
    """
    home.mkdir(mode=0o700)
    settings_of = _given(files.config) if files.config else _default(lab, home, files, image)
    folders = {
        name: _folder(settings_of, name, default) for name, default in (("logFolder", LOGS), ("latchKeyFolder", KEYS))
    }
    overlays = list(OVERLAYS)
    for folder in folders.values():
        _cover(overlays, folder)
    command, environment = _command(files)
    made = Launch(command, Path(), Path(), home / "output", environment, overlays=tuple(overlays),
                  ask=[*command, "--status"])  # fmt: skip
    logs, keys = (made.written(folders[name]) for name in ("logFolder", "latchKeyFolder"))
    for hidden in (CONFIG.parent, LOGS, KEYS.parent, OBJECT.parent, folders["logFolder"], folders["latchKeyFolder"]):
        _opaque(made.written(hidden), made, hidden)
    # an agent makes its own key folder, with the mode that is to be looked at
    if keys.is_dir():
        keys.rmdir()
    text = files.config.read_bytes() if files.config else json.dumps(settings_of, indent=2).encode()
    made.written(CONFIG).write_bytes(text)
    if files.binary:
        _install(made, files)
    return Launch(command, logs, keys, made.output, environment, overlays=made.overlays, ask=made.ask)


def _command(files: AgentFiles) -> tuple[list[str], dict[str, str]]:
    if files.binary:
        return [str(EXECUTABLE)], {}
    return [sys.executable, "-m", "harness.agent"], {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _default(lab: Lab, home: Path, files: AgentFiles, image: Image | None) -> dict[str, Any]:
    """The agent's settings with short times, so that a run is short."""
    image_file = None
    if image is not None:
        image_file = home / "image.json"
        image_file.write_text(image.dump())
    config = Config(
        log_folder=LOGS, key_folder=KEYS, cgroup_root=CGROUP_MOUNT, times=REFERENCE_TIMES, image=image_file,
        nonce=lab.nonce,
    )  # fmt: skip
    found = settings.document(config)
    if files.binary:  # a real agent reads whole seconds, and has no laboratory's settings
        del found["lab"]
        found |= {"monitorIntervalInSeconds": 1, "pollKeyStatusIntervalInSeconds": 1}
    return found


def _given(path: Path) -> Mapping[str, Any]:
    attempted = f"read the agent's configuration {path}"
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST))
    except OSError as error:
        raise HarnessError(attempted, errno_text(error.errno or 0), "give a readable file") from error
    except ValueError as error:
        raise HarnessError(attempted, f"it is not JSON: {error}", "give the agent's proxy-agent.json") from error
    if not isinstance(found, dict):
        raise HarnessError(attempted, "it is not a JSON object", "give the agent's proxy-agent.json")
    return found


def _folder(found: Mapping[str, Any], name: str, default: Path) -> Path:
    value = found.get(name, str(default))
    path = Path(value) if isinstance(value, str) else Path()
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
        remedy = "give an absolute path with at least two parts"
        raise HarnessError(f"use the configuration's {name}", f"{value!r} is no folder for an agent", remedy)
    return path


def _cover(overlays: list[Path], folder: Path) -> None:
    """See that a folder lies on an overlay."""
    if any(folder.is_relative_to(top) for top in overlays):
        return
    top = Path("/", folder.parts[1])
    if folder.parts[1] in _NOT_COVERED or not top.is_dir() or any(other.is_relative_to(top) for other in overlays):
        remedy = f"name a folder below {', '.join(map(str, OVERLAYS))} in the configuration"
        raise HarnessError(f"keep what the agent writes to {folder} from the host", f"{top} cannot be covered", remedy)
    overlays.append(top)


def _opaque(upper: Path, made: Launch, inside: Path) -> None:
    """Make a folder that hides the host's of the same name; what else is in the folders above it stays to be seen."""
    top = next(top for top in made.overlays if inside.is_relative_to(top))
    upper.mkdir(parents=True, exist_ok=True)
    if upper != made.written(top):
        os.setxattr(upper, "trusted.overlay.opaque", b"y")


def _install(made: Launch, files: AgentFiles) -> None:
    assert files.binary is not None
    beside = files.binary.parent / OBJECT.name
    found = files.object or (beside if beside.is_file() else None) or (OBJECT if OBJECT.is_file() else None)
    where = made.written(EXECUTABLE)
    where.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy(files.binary, where)
        if found is not None:
            for place in (made.written(OBJECT), where.with_name(OBJECT.name)):
                shutil.copy(found, place)
    except OSError as error:
        raise HarnessError(
            f"copy the agent's files into the run: {error.filename}", errno_text(error.errno or 0)
        ) from error
