"""QEMU: one process, one guest, and the ways to it: the console, the ports, the monitor.

Nothing of it has a name in the file system, and QEMU ends with whoever started it: a kill leaves nothing behind.
"""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import interruption
from harness.command import text
from harness.errors import HarnessError
from harness.kernel import packages, processes
from harness.vm import wire
from harness.vm.machine import Machine

BINARY = "qemu-system-x86_64"

_BOARD = "q35,memory-backend=ram,sata=off,smbus=off,i8042=off,vmport=off"  # without what Linux would look for long
_WORDS = (
    "console=ttyS0", "quiet", "loglevel=4",
    "panic=-1", "oops=panic",  # with -no-reboot a panic ends QEMU; an oops must not go unseen
    "no_timer_check", "cryptomgr.notests", "noreplace-smp",  # emulated, each takes tenths of a second
    "random.trust_cpu=on",  # nothing else gives a guest entropy before its first job
)  # fmt: skip
_PIECE = 1 << 16
_MONITOR_SECONDS = 120  # an answer takes milliseconds


@functools.cache
def binary() -> Path:
    """Raises HarnessError where there is no QEMU."""
    found = shutil.which(BINARY)
    if found is None:
        raise HarnessError("boot a kernel", f"there is no {BINARY}", packages.install_hint([packages.QEMU]))
    return Path(found).resolve()


def model(accelerator: str) -> str:
    """The processor that a guest sees."""
    return "host" if accelerator == "kvm" else "max"


def hardware(machine: Machine, accelerator: str, root: Path) -> list[str]:
    """The words for QEMU that decide what a saved guest is restored into: all but memory, kernel and ports' ends."""
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", _BOARD, "-accel", accelerator, "-cpu", model(accelerator), "-smp", str(machine.cpus),
        "-drive", f"file={root},format=raw,if=none,id=root,readonly=on,cache=unsafe",
        "-device", "virtio-blk-pci,drive=root",
        "-device", "virtio-serial-pci",
        *(word for name in wire.PORTS for word in ("-device", f"virtserialport,chardev={name},name={name}")),
    ]  # fmt: skip


def words(machine: Machine) -> list[str]:
    """The kernel's command line."""
    return [*_WORDS, *([f"lsm={machine.lsm}"] if machine.lsm else []), *machine.words]


@dataclass
class Running:
    """A QEMU at work."""

    process: subprocess.Popen[bytes]
    began: float  # by the monotonic clock
    _port: socket.socket
    _outputs: Mapping[str, int]  # descriptors of the files behind the console, stdout, stderr, and QEMU's own words
    _unpacker: wire.Unpacker = field(default_factory=wire.Unpacker)
    _messages: list[dict[str, Any]] = field(default_factory=list)

    def send(self, message: Mapping[str, Any], deadline: float) -> bool:
        """Whether the guest took all of it before the deadline; not, when it or QEMU is gone."""
        rest = memoryview(wire.packed(message))
        while rest:
            if not _ready(self._port, deadline, write=True):
                return False
            try:
                rest = rest[self._port.send(rest, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            except OSError:
                return False
        return True

    def receive(self, deadline: float) -> dict[str, Any] | None:
        """The guest's next message; None when none came by the deadline (monotonic clock), or QEMU ended.

        Raises HarnessError for what is no message.
        """
        while not self._messages:
            if not _ready(self._port, deadline):
                return None
            try:
                piece = self._port.recv(_PIECE)
            except ConnectionError:
                return None
            if not piece:
                return None
            self._messages += self._unpacker.feed(piece)
        return self._messages.pop(0)

    def ended(self, patience: float = 0) -> int | None:
        """QEMU's exit status, waiting that many seconds for it; None while it runs."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def output(self, name: str) -> str:
        """What came out so far: console, stdout, stderr; qemu is QEMU's own."""
        with open(self._outputs[name], "rb", closefd=False) as file:
            file.seek(0)
            return text(file.read()).replace("\r\n", "\n")


def _ready(port: socket.socket, deadline: float, *, write: bool = False) -> bool:
    """Wait for a socket."""
    interruption.check()
    left = max(0.0, deadline - time.monotonic())
    found = select.select([] if write else [port], [port] if write else [], [], left)
    interruption.check()
    return any(found)


@contextmanager
def start(arguments: Sequence[str], descriptors: Sequence[int] = ()) -> Iterator[Running]:
    """Run QEMU with these words and the console and ports of a guest; it is killed at the end of the with block.

    Raises HarnessError when it cannot be started.
    """
    with ExitStack() as stack:
        outputs = {name: stack.enter_context(memory(name)) for name in ("console", wire.STDOUT, wire.STDERR, "qemu")}
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs:
            chardevs = [f"socket,id={wire.PORT},fd={theirs.fileno()}"]
            files = ("console", wire.STDOUT, wire.STDERR)
            chardevs += [f"file,id={name},path=/proc/self/fd/{outputs[name]}" for name in files]
            command = [
                str(binary()),
                *(word for chardev in chardevs for word in ("-chardev", chardev)),
                "-serial",
                "chardev:console",
                *arguments,
            ]
            parent, began = os.getpid(), time.monotonic()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=outputs["qemu"],
                stderr=outputs["qemu"],
                pass_fds=(theirs.fileno(), *outputs.values(), *descriptors),
                preexec_fn=lambda: processes.die_with_parent(parent),
            )
        try:
            yield Running(process, began, ours, outputs)
        finally:
            process.kill()
            process.wait()


@contextmanager
def memory(name: str, content: bytes = b"") -> Iterator[int]:
    """A file without a name, which QEMU opens by its number and which ends with its last user."""
    number = os.memfd_create(name)
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(content)
        yield number
    finally:
        os.close(number)


class Monitor:
    """QEMU's monitor (QMP): commands by name, answers in JSON."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._lines = connection.makefile("rb")
        try:
            self._answer()  # the greeting
            self.ask("qmp_capabilities")
        except BaseException:
            self._lines.close()
            raise

    def ask(self, command: str, descriptor: int | None = None, **arguments: object) -> Any:
        """Raises HarnessError with QEMU's own words."""
        line = json.dumps({"execute": command, "arguments": arguments}).encode()
        socket.send_fds(self._connection, [line], [] if descriptor is None else [descriptor])
        while True:
            answer = self._answer()
            if "error" in answer:
                raise HarnessError(f"have QEMU {command}", str(answer["error"].get("desc")))
            if "return" in answer:  # and no event
                return answer["return"]

    def _answer(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise HarnessError("ask QEMU's monitor", "it is gone")
        found: dict[str, Any] = json.loads(line)
        return found


def monitor() -> tuple[list[str], socket.socket, socket.socket]:
    """Words for QEMU that give it a monitor, the end that it is to inherit (then to be closed), and our end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(_MONITOR_SECONDS)
    return ["-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control"], theirs, ours
