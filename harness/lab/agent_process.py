"""An agent as a process of its own in a lab: started, followed, stopped.

It lives in the VM's network namespace and in mount and cgroup namespaces of its own. Those are entered from the lab's
`vm` cgroup with cgroup2 mounted anew at /sys/fs/cgroup, and nowhere else: the root that it finds and attaches to is
the run's cgroup, and the host sees nothing of it. It is in no pid namespace, since the redirector compares pids of
the initial one. It dies with the harness, however that ends, and what it attached goes with it.

    with open_lab(run, proxy_port=0, scenario=scenario("enforce")) as lab, reference_agent(lab, run, image) as agent:
        agent.wait_for(is_provisioned)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from harness.agent import config as settings
from harness.agent import key_folder
from harness.agent.config import Config, Times
from harness.agent.key_folder import KeyFolder
from harness.command import run as run_command
from harness.errors import HarnessError
from harness.kernel import cgroups, mounts, processes
from harness.kernel.processes import Namespace
from harness.lab.lab import Lab
from harness.lab.state import Run
from harness.lab.worker import end, wait_until
from harness.msp import status as status_json
from harness.msp.status import Status
from harness.program.image import Image

QUICK = Times(monitor=0.05, poll=0.2, unknown=0.1, unknown_for=300, provision=120, ask=0.05, answer=5)
"""The reference agent's times for tests and recipes."""

PATIENCE = 15.0  # seconds that wait_for() waits at most, if neither it nor the Launch is told otherwise
STOP_PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL

CGROUP_MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Launch:
    """How an agent is started.

    binds are (what, where it is seen by the agent): files on files, folders on folders. What the agent writes below
    one of overlays (say /etc, /var/log, /var/lib) lands in the run's directory, at written(): an agent whose paths
    are fixed can be given files there before it starts, and the host sees none of it.
    """

    command: Sequence[str]
    log_folder: Path
    key_folder: Path
    output: Path  # its standard output and error
    environment: Mapping[str, str] = field(default_factory=dict)
    binds: Sequence[tuple[Path, Path]] = ()
    ask: Sequence[str] = ()  # the command that asks for the status; `--wait N` is added
    overlays: Sequence[Path] = ()
    patience: float = PATIENCE

    def written(self, path: Path) -> Path:
        """Where the harness finds what the agent has at path, which is below one of overlays."""
        for top in self.overlays:
            if path.is_relative_to(top):
                return _overlay_folder(self, top) / "upper" / path.relative_to(top)
        raise ValueError(f"{path} is below none of {self.overlays}")


def _overlay_folder(launch: Launch, top: Path) -> Path:
    return launch.output.parent / "overlay" / "-".join(top.parts[1:])


class AgentProcess:
    """A running agent."""

    def __init__(self, lab: Lab, launch: Launch, pid: int):
        self.lab = lab
        self.launch = launch
        self.pid = pid
        self.exit_status: int | None = None  # as waitpid gives it, once it is known

    @property
    def alive(self) -> bool:
        if self.exit_status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_status = status
        return self.exit_status is None

    def document(self) -> dict[str, Any]:
        """The members of its status.json; empty while there is none."""
        try:
            found = json.loads((self.launch.log_folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def status(self) -> Status | None:
        """Its status.json, as anybody reads one; None while there is none."""
        try:
            return status_json.read((self.launch.log_folder / "status.json").read_bytes())
        except OSError:
            return None

    def told(self) -> str:
        """What it printed."""
        return self.launch.output.read_text(errors="replace") if self.launch.output.exists() else ""

    def key_files(self) -> list[Path]:
        return sorted(self.launch.key_folder.glob("*.key"))

    def wait_for(
        self, wanted: Callable[[Status], bool], what: str = "be as wanted", seconds: float | None = None
    ) -> Status:
        """The first status that is as wanted. Raises HarnessError with the last one, or when the agent ends."""
        last: Status | None = None
        seconds = self.launch.patience if seconds is None else seconds

        def reached() -> bool:
            nonlocal last
            last = self.status()
            return (last is not None and wanted(last)) or not self.alive

        wait_until(time.monotonic() + seconds, reached, 0.01)
        if last is not None and wanted(last):
            return last
        attempted = f"see the agent {what}"
        if not self.alive:
            raise HarnessError(attempted, f"it ended with {self.exit_status}", detail=self.told())
        raise HarnessError(attempted, f"not within {seconds:g} s; it says: {in_short(last)}", detail=self.told())

    def ask_status(self, wait: float) -> subprocess.CompletedProcess[bytes]:
        """`--status --wait N`, asked beside the agent, in its namespaces."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--cgroup"]
        command = [*enter, *self.launch.ask, "--wait", f"{wait:g}"]
        return run_command(
            command, timeout=wait + 30, environment=os.environ | dict(self.launch.environment), check=False
        )

    def stop(self) -> int:
        """SIGTERM, and SIGKILL if that does not help; the exit code, negative for a signal's number."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            if not wait_until(time.monotonic() + STOP_PATIENCE, lambda: not self.alive, 0.005):
                self.kill()
        return os.waitstatus_to_exitcode(self.exit_status or 0)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.alive:
            end(self.pid)
            self.exit_status = int(signal.SIGKILL)


def in_short(status: Status | None) -> str:
    if status is None:
        return "nothing"
    parts = [f"{module.name} {module.status} ({module.message})" for module in status.modules]
    return f"{status.status}; " + "; ".join(parts)


def is_success(status: Status) -> bool:
    """What the guide has one look at: proxyAgentStatus.status. It is not enough (see is_latched)."""
    return status.status == "SUCCESS"


def is_latched(status: Status) -> bool:
    """SUCCESS, with a key in hand and a state to show for it."""
    states = _key_states(status)
    return (
        is_success(status) and bool(states.get("keyGuid")) and states.get("secureChannelState") not in ("", "Unknown")
    )


def says(form_beginning: str) -> Callable[[Status], bool]:
    """Whether keyLatchStatus's message begins so."""

    def wanted(status: Status) -> bool:
        module = status.module("keyLatchStatus")
        return module is not None and (module.message or "").startswith(form_beginning)

    return wanted


def _key_states(status: Status) -> Mapping[str, str]:
    module = status.module("keyLatchStatus")
    return module.states if module else {}


# --- starting ---------------------------------------------------------------------------------------------------


def reference_launch(
    lab: Lab, home: Path, image: Image, times: Times = QUICK, changes: Mapping[str, Any] | None = None
) -> Launch:
    """Files for a reference agent in a folder of the run, made if it is not there. changes are members of Config."""
    home.mkdir(mode=0o700, exist_ok=True)
    image_file, config_file = home / "image.json", home / "proxy-agent.json"
    image_file.write_text(image.dump())
    config = Config(
        log_folder=home / "log", key_folder=home / "keys", cgroup_root=CGROUP_MOUNT, times=times, image=image_file,
        nonce=lab.nonce,
    )  # fmt: skip
    config = replace(config, **(changes or {}))
    config_file.write_text(json.dumps(settings.document(config)))
    command = [sys.executable, "-m", "harness.agent", "--config", str(config_file)]
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return Launch(command, config.log_folder, config.key_folder, home / "output", paths, ask=[*command, "--status"])


def give_known_key(lab: Lab, launch: Launch) -> None:
    """Put the key that the scenario says is known into the agent's folder."""
    if key := lab.platform.known_key():
        KeyFolder(launch.key_folder).save(key_folder.Key(key.guid, key.key, key.issued, key.incarnation))


@contextmanager
def reference_agent(
    lab: Lab,
    run: Run,
    image: Image,
    *,
    name: str = "agent",
    times: Times = QUICK,
    changes: Mapping[str, Any] | None = None,
) -> Iterator[AgentProcess]:
    """A reference agent in a lab that was opened with proxy_port=0 and a scenario, until the end of the with block."""
    launch = reference_launch(lab, run.directory / name, image, times, changes)
    give_known_key(lab, launch)
    with started(lab, launch) as agent:
        yield agent


@contextmanager
def started(lab: Lab, launch: Launch) -> Iterator[AgentProcess]:
    """Start an agent, and stop it at the end of the with block. Call it while the process has one thread: it forks.

    Raises HarnessError when it cannot be started; what it does then is to be followed by wait_for().
    """
    agent = AgentProcess(lab, launch, _spawn(lab, launch))
    try:
        yield agent
    finally:
        agent.stop()


def _spawn(lab: Lab, launch: Launch) -> int:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = processes.fork_child()
    if pid == 0:
        _become(parent, lab, launch, writing)
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            trouble = pipe.read()  # ends when exec closes the other end
    except BaseException:
        end(pid)
        raise
    if trouble:
        end(pid)
        raise HarnessError(f"start the agent `{launch.command[0]}`", trouble)
    return pid


def _become(parent: int, lab: Lab, launch: Launch, writing: int) -> NoReturn:
    """The child: becomes the agent, or tells why not."""
    try:
        processes.die_with_parent(parent)
        os.setsid()  # Ctrl-C is the harness's; it ends the agent
        for name in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(name, signal.SIG_DFL)
        _enter(lab)
        for top in launch.overlays:
            folder = _overlay_folder(launch, top)
            for below in ("upper", "work"):
                (folder / below).mkdir(parents=True, exist_ok=True)
            mounts.overlay(top, folder / "upper", folder / "work")
        for source, target in launch.binds:
            mounts.bind(source, target)
        output = os.open(launch.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, stream in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(number, stream)
        os.closerange(3, writing)
        os.closerange(writing + 1, 1 << 20)
        os.execvpe(launch.command[0], list(launch.command), os.environ | dict(launch.environment))
    except BaseException as error:
        os.write(writing, str(error).encode() or type(error).__name__.encode())
    finally:
        os._exit(1)


def _enter(lab: Lab) -> None:
    """Take the namespaces that the module's text names."""
    cgroups.move(0, lab.attach_cgroup)
    processes.unshare(Namespace.CGROUP)
    mounts.take_own()
    for mount in reversed(cgroups.layout().cgroup2):
        mounts.unmount(mount.point)
    mounts.mount("cgroup2", CGROUP_MOUNT, "cgroup2")
    found = cgroups.layout().cgroup2
    if [(mount.point, mount.root) for mount in found] != [(CGROUP_MOUNT, "/")]:
        # An agent that found another would attach to the host's: nothing is started then.
        raise HarnessError("hide the host's cgroups from the agent", f"it would see {found}")
    cgroups.move(0, CGROUP_MOUNT / "agent")
    processes.enter(lab.vm.pid, Namespace.NETWORK)
