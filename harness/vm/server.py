"""PID 1 of a guest: one interpreter with all that a job needs imported, and a child of it that does the job.

It is started by harness.vm.initramfs. The child prepares what every job needs, says on the port that it is ready, and
waits there; that is when a guest is saved. A job gets a guest of its own, and the child is there already when it comes.
What they print, and what the kernel prints, goes to the console, which has no other use.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import pkgutil
import random
import runpy
import shutil
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import HarnessError
from harness.kernel import mounts
from harness.report import Report
from harness.report import json as form
from harness.vm import undump, wire
from harness.vm.machine import Cgroup

REPORT = "report.json"
"""Where a script leaves its Report, in the job's directory."""

SCRIPT = "python"
"""A command line `python FILE …` runs a script that came with the job, in place of a command of msp-harness."""

_MACHINE = Path("/msp/machine.json")
_PORTS = Path("/sys/class/virtio-ports")
_CGROUP = Path("/sys/fs/cgroup")
_JOB = Path("/tmp/job")  # its directory
_WRITABLE = (Path("/tmp"), Path("/run"), Path("/dev/shm"))
_IMPORTED = ("cli", "report", "kernel", "program", "lab", "checks")
_SELDOM = (
    "verifier",
    "agent",
    "failures",
    "checks.agent_",
    "checks.census",
    "checks.compare",
    "checks.here",
    "checks.inspect",
    "lab.behaviours",
    "lab.cost",
    "report.compare",
    "report.html",
    "report.junit",
    "report.markdown",
    "report.page",
    "lab.agent_",
    "lab.platform",
    "lab.scenarios",
    "lab.secure",
)
"""What most jobs do without: packages, and the beginnings of modules' names."""

_LATE = ("importlib.resources", "rich.console", "rich.text", "rich.cells", "rich.table")
"""What the packages above import only when they want it."""

_ASKING = ("platform", "pyroute2.config")
"""What asks the kernel while it is imported. In this order."""

_MOUNTS = (
    ("proc", Path("/proc"), ""),
    ("sysfs", Path("/sys"), ""),
    ("tmpfs", Path("/run"), "mode=755"),
    ("tmpfs", Path("/tmp"), "mode=1777"),
    ("tmpfs", Path("/dev/shm"), "mode=1777"),
    ("securityfs", Path("/sys/kernel/security"), ""),
    ("bpf", Path("/sys/fs/bpf"), ""),
)
"""Type, place, options. A kernel may lack one: what needs it will say so."""

_TOGETHER = (("cpu", "cpuacct"), ("net_cls", "net_prio"))  # v1 controllers that systemd mounts as one hierarchy

_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207  # include/uapi/linux/random.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # include/uapi/linux/sockios.h, if.h
_RB_POWER_OFF = 0x4321FEDC  # LINUX_REBOOT_CMD_POWER_OFF, include/uapi/linux/reboot.h


def main() -> NoReturn:
    """Serve until the machine is taken away; an error of ours ends it, with the trace on the console."""
    try:
        _mount_all()
        _import_to_stay()
        if json.loads(_MACHINE.read_text())["write_down"]:
            _write_down()
        _serve()
    except BaseException:
        traceback.print_exc()
        print("guest: the server failed", flush=True)
    finally:
        ctypes.CDLL(None).reboot(ctypes.c_int(_RB_POWER_OFF - (1 << 32) if _RB_POWER_OFF >> 31 else _RB_POWER_OFF))
    raise SystemExit  # reboot(2) does not return


def _mount_all() -> None:
    for kind, place, options in _MOUNTS:
        _mount(kind, place, options)


def _import_to_stay() -> None:
    gc.disable()  # nothing that is imported is ever let go
    import_all()
    gc.enable()
    gc.freeze()  # a child that collects would else write to every page that it shares


def _write_down() -> None:
    """Send home this interpreter, with all that is imported, and go off. Whoever starts it goes on behind this."""
    ports = _ports()
    descriptor = os.open(ports[wire.STDOUT], os.O_WRONLY)
    port = _Port(os.open(ports[wire.PORT], os.O_RDWR))
    port.say(writing={})
    if size := undump.write(descriptor, wire.INTERPRETER):
        port.say(written={"size": size})
        port.hear()  # the host has what it wanted, and ends this machine
    for name in _ASKING:
        importlib.reload(sys.modules[name])
    _mount_all()


def _serve() -> None:
    ctypes.CDLL(None).personality(0)  # what this starts has a layout of memory that is random, as usual
    # Who is woken waits until who runs has to wait: to change processes is what an emulated processor does worst.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    problem = _mount_cgroups(Cgroup(json.loads(_MACHINE.read_text())["cgroup"]))
    _raise_loopback()
    ports = _ports()
    port = _Port(os.open(ports[wire.PORT], os.O_RDWR | os.O_CLOEXEC))
    port.say(booted={"release": os.uname().release, "cgroup": problem})
    while True:
        message = port.hear()
        killed_before = _killed_for_memory()
        _JOB.mkdir()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _be_job(message, port, ports)
        while (ended := os.waitpid(-1, 0))[0] != child:  # PID 1 gets everybody's orphans
            pass
        port.say(ended=_told(os.waitstatus_to_exitcode(ended[1]), _killed_for_memory() - killed_before))
        shutil.rmtree(_JOB, ignore_errors=True)


class _Port:
    """The way to the host."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._unpacker = wire.Unpacker()
        self._waiting: list[dict[str, Any]] = []

    def say(self, **message: Mapping[str, Any]) -> None:
        rest = memoryview(wire.packed(message))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def hear(self) -> dict[str, Any]:
        while not self._waiting:
            piece = os.read(self._descriptor, 1 << 16)
            if not piece:
                raise HarnessError("hear the host", "its end of the port is closed")
            self._waiting += self._unpacker.feed(piece)
        return self._waiting.pop(0)


def _mount(kind: str, place: Path, options: str = "") -> str:
    """Why it cannot be mounted, which the console hears too; empty when it is."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        mounts.mount(kind, place, kind, data=options)
    except (OSError, HarnessError) as error:
        print(f"guest: {error}", flush=True)
        return f"{error}"
    return ""


def _mount_cgroups(layout: Cgroup) -> str:
    """Mount a layout: why this kernel cannot have it, or nothing.

    A kernel without cgroup2 is one of the guide's failures: under v2 it is left to the checks to find.
    """
    if layout is Cgroup.V2:
        _mount("cgroup2", _CGROUP)
    if layout in (Cgroup.V2, Cgroup.NONE):
        return ""
    problem = _mount("tmpfs", _CGROUP, "mode=755")
    lines = Path("/proc/cgroups").read_text().splitlines()[1:] if Path("/proc/cgroups").exists() else []
    controllers = [name for name, _, _, enabled in (line.split() for line in lines) if enabled == "1"]
    mounted = 0
    for name in controllers:
        group = next((names for names in _TOGETHER if name in names), (name,))
        if name == group[0] or group[0] not in controllers:
            together = ",".join(each for each in group if each in controllers)
            mounted += not _mount("cgroup", _CGROUP / together, together)
    _mount("cgroup", _CGROUP / "systemd", "none,name=systemd,xattr")
    if not mounted:
        problem = "this kernel has no v1 controllers (the console says why each was refused)"
    if layout is Cgroup.HYBRID:
        problem = problem or _mount("cgroup2", _CGROUP / "unified")
    return problem


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name, flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", name, flags | _IFF_UP))


def import_all(*, seldom: bool = False) -> None:
    """What nearly all jobs import, once and before a guest is saved; with seldom what some import, too."""
    _import_rtnetlink()
    left_out = tuple(f"harness.{name}" for name in (() if seldom else _SELDOM))
    for top in (*_IMPORTED, *(name for name in _SELDOM if seldom and "." not in name)):
        _import_below(f"harness.{top}", left_out)
    for name in _LATE:
        importlib.import_module(name)
    importlib.import_module("harness.cli").parser()


def _import_below(name: str, left_out: tuple[str, ...]) -> None:
    """A module or package and all below it. pkgutil.walk_packages() imports each package, wanted or not."""
    found = importlib.import_module(name)
    for module in pkgutil.iter_modules(getattr(found, "__path__", ()), f"{name}."):
        if not module.name.endswith("__main__") and not module.name.startswith(left_out):
            _import_below(module.name, left_out)


def _import_rtnetlink() -> None:
    """Of pyroute2 what harness.lab.topology uses: the package itself imports all that it has, in half a second more."""
    found = importlib.util.find_spec("pyroute2")
    assert found is not None  # the guest's root has it
    package = importlib.util.module_from_spec(found)
    sys.modules["pyroute2"] = package
    for module, name in (("pyroute2.iproute.linux", "IPRoute"), ("pyroute2.netlink.exceptions", "NetlinkError")):
        setattr(package, name, getattr(importlib.import_module(module), name))


def _ports() -> dict[str, str]:
    """The devices of the ports by name."""
    found = {(port / "name").read_text().strip(): f"/dev/{port.name}" for port in _PORTS.iterdir()}
    missing = set(wire.PORTS) - found.keys()
    if missing:
        raise HarnessError("open the guest's ports", f"there is no {', '.join(sorted(missing))}")
    return found


def _set_clock(seconds: float) -> None:
    """A saved guest's clock stood still meanwhile."""
    time.clock_settime(time.CLOCK_REALTIME, seconds)


def _seed(seed: bytes) -> None:
    """Resumed copies of a guest share its random state: each gets some of its own."""
    with Path("/dev/urandom").open("wb", buffering=0) as device:
        fcntl.ioctl(device, _RNDADDENTROPY, struct.pack("ii", 8 * len(seed), len(seed)) + seed)
        fcntl.ioctl(device, _RNDRESEEDCRNG)
    random.seed()  # of this process, which was there before


def _told(status: int, killed: int) -> dict[str, Any]:
    """How a job ended: its exit status, its Report, and what may have kept it from one."""
    report = _JOB / REPORT
    return {
        "status": status,
        "report": report.read_text() if report.exists() else None,
        "full": [str(place) for place in _WRITABLE if _full(place)],
        "out_of_memory": killed,
    }


def _be_job(message: Mapping[str, Any], port: _Port, ports: Mapping[str, str]) -> NoReturn:
    """The job's process, from what prepares it to its end: never returns."""
    status = 1
    try:
        os.setsid()
        os.chdir(_JOB)
        if "prepare" in message:
            _take(message["prepare"])
            port.say(ready={"lab": importlib.import_module("harness.checks.ready").prepare()})
            message = port.hear()
        job = message["job"]
        _set_clock(job["time"])
        _seed(base64.b64decode(job["seed"]))
        port.say(accepted={})
        for number, name in ((1, wire.STDOUT), (2, wire.STDERR)):
            device = os.open(ports[name], os.O_WRONLY)
            os.dup2(device, number)
            os.close(device)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        _take(job)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = _command(job["arguments"], port)
        sys.stdout.flush()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _take(given: Mapping[str, Any]) -> None:
    """Write files into the job's directory, where this process is, and set variables."""
    for name, content in given["files"].items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
    os.environ.update(given["environment"])


def _command(arguments: list[str], port: _Port) -> int:
    if arguments[0] == SCRIPT:
        sys.argv = arguments[1:]
        runpy.run_path(arguments[1], run_name="__main__")
        return 0

    def send(report: Report) -> None:
        """At once: what is left to do is to end, and the host, which has what it wanted, ends all of this faster."""
        port.say(ended={"report": form.dump(report, indent=None)})

    importlib.import_module("harness.cli.output").takers.append(send)
    status: int = importlib.import_module("harness.cli").main(arguments)  # by name, as `python -m harness` has it
    return status


def _full(place: Path) -> bool:
    room = os.statvfs(place)
    return room.f_bavail == 0 or room.f_favail == 0


def _killed_for_memory() -> int:
    """How many processes the kernel has killed for memory so far."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
