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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from harness import interruption
from harness.command import text
from harness.errors import HarnessError
from harness.kernel import packages, processes
from harness.vm import wire
from harness.vm.machine import KVM, Machine

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
    return "host" if accelerator == KVM else "max"


def hardware(machine: Machine, accelerator: str, *drives: Path) -> list[str]:
    """The words for QEMU that decide what a saved guest is restored into: all but memory, kernel and ports' ends.

    drives: the guest's root, then its interpreter, where it has one.
    """
    names = [f"drive{number}" for number in range(len(drives))]
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", _BOARD, "-accel", accelerator, "-cpu", model(accelerator), "-smp", str(machine.cpus),
        *(word for name, file in zip(names, drives, strict=True) for word in (
            "-drive", f"file={file},format=raw,if=none,id={name},readonly=on,cache=unsafe,file.locking=off",
            "-device", f"virtio-blk-pci,drive={name}",
        )),
        "-device", "virtio-serial-pci",
        *(word for name in wire.PORTS for word in ("-device", f"virtserialport,chardev={name},name={name}")),
    ]  # fmt: skip


def words(machine: Machine) -> list[str]:
    """The kernel's command line."""
    return [*_WORDS, *([f"lsm={machine.lsm}"] if machine.lsm else []), *machine.words]


class Refused(Exception):
    """A saved guest that is not taken back, in the words of who refused."""


class Ends(NamedTuple):
    """Descriptors of our ends of a way to the guest or to QEMU: one socket, or two pipes."""

    reader: int
    writer: int

    @classmethod
    def of(cls, connection: socket.socket) -> Ends:
        return cls(connection.fileno(), connection.fileno())


@dataclass
class Running:
    """A QEMU at work."""

    process: subprocess.Popen[bytes]
    began: float  # by the monotonic clock
    _port: Ends
    _outputs: Mapping[str, int]  # descriptors of the files behind the console, stdout, stderr, and QEMU's own words
    _unpacker: wire.Unpacker = field(default_factory=wire.Unpacker)
    _messages: list[dict[str, Any]] = field(default_factory=list)

    def send(self, message: Mapping[str, Any], deadline: float) -> bool:
        """Whether the guest took all of it before the deadline; not, when it or QEMU is gone."""
        rest = memoryview(wire.packed(message))
        while rest:
            if not ready(self._port.writer, deadline, write=True):
                return False
            try:
                rest = rest[os.write(self._port.writer, rest) :]
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
            if not ready(self._port.reader, deadline):
                return None
            try:
                piece = os.read(self._port.reader, _PIECE)
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
        return text(self.content(name)).replace("\r\n", "\n")

    def content(self, name: str) -> bytes:
        """The same as it is."""
        with open(self._outputs[name], "rb", closefd=False) as file:
            file.seek(0)
            return file.read()


def ready(port: int, deadline: float, *, write: bool = False) -> bool:
    """Wait for an end of a socket or pipe; whether it is ready by the deadline (monotonic clock)."""
    interruption.check()
    left = max(0.0, deadline - time.monotonic())
    found = select.select([] if write else [port], [port] if write else [], [], left)
    interruption.check()
    return any(found)


OUTPUTS = ("console", wire.STDOUT, wire.STDERR)
"""What the guest only writes to, by the names of their character devices."""

OWN_WORDS = "qemu"
"""What QEMU itself says, beside them."""


@contextmanager
def start(arguments: Sequence[str], descriptors: Sequence[int] = (), *, huge_pages: bool = True) -> Iterator[Running]:
    """Run QEMU with these words and the console and ports of a guest; it is killed at the end of the with block.

    huge_pages: see at_work(). Raises HarnessError when it cannot be started.
    """
    with ExitStack() as stack:
        outputs = stack.enter_context(unnamed_outputs())
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        ours.setblocking(False)
        paths = {name: f"/proc/self/fd/{number}" for name, number in outputs.items()}
        words = characters(f"socket,id={wire.PORT},fd={theirs.fileno()}", paths)
        inherited = (theirs.fileno(), *outputs.values(), *descriptors)
        command = [str(binary()), *words, *arguments]
        running = stack.enter_context(at_work(command, Ends.of(ours), outputs, inherited, huge_pages=huge_pages))
        theirs.close()
        yield running


@contextmanager
def unnamed_outputs() -> Iterator[dict[str, int]]:
    """Files without a name for what comes out of a guest, and for QEMU's own words."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(memory(name)) for name in (*OUTPUTS, OWN_WORDS)}


def characters(port: str, outputs: Mapping[str, str]) -> list[str]:
    """QEMU's words for the character devices of a guest: the port for jobs, and the files of what it writes to."""
    devices = [port, *(f"file,id={name},path={outputs[name]}" for name in OUTPUTS)]
    return [*(word for device in devices for word in ("-chardev", device)), "-serial", "chardev:console"]


@contextmanager
def at_work(
    command: Sequence[str],
    port: Ends,
    outputs: Mapping[str, int],
    descriptors: Sequence[int],
    *,
    end: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.kill,
    apart: bool = False,
    huge_pages: bool = True,
) -> Iterator[Running]:
    """Run a command that is a QEMU or brings one back, until the end of the with block.

    apart: with nothing of this process's but what it is given here: no session, no directory. Without huge_pages it has
    memory page by page, as it touches it: what lives for seconds, and is emulated, takes longer to clear huge ones, of
    which it then needs little, than it gains by them.
    """
    parent, began = os.getpid(), time.monotonic()

    def begin() -> None:
        processes.die_with_parent(parent)
        if not huge_pages:
            processes.without_huge_pages()  # whatever QEMU advises the kernel

    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=outputs[OWN_WORDS],
        stderr=outputs[OWN_WORDS],
        pass_fds=descriptors,
        cwd="/" if apart else None,
        start_new_session=apart,
        preexec_fn=begin,
    )
    try:
        yield Running(process, began, port, outputs)
    finally:
        end(process)
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


@contextmanager
def pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """A pipe: its end for reading and its end for writing; neither waits."""
    numbers = os.pipe()
    with FileIO(numbers[0], "r") as reader, FileIO(numbers[1], "w") as writer:
        for number in numbers:
            os.set_blocking(number, False)
        yield reader, writer


class Monitor:
    """QEMU's monitor (QMP): commands by name, answers in JSON."""

    def __init__(self, ends: Ends):
        self._ends = ends
        self._read = b""
        self._answer()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        """Raises HarnessError with QEMU's own words."""
        os.write(self._ends.writer, order(command, **arguments))
        return self._returned(command)

    def give(self, connection: socket.socket, name: str, descriptor: int) -> None:
        """Hand over a descriptor under a name, by the connection that this monitor has."""
        socket.send_fds(connection, [order("getfd", fdname=name)], [descriptor])
        self._returned("getfd")

    def _returned(self, command: str) -> Any:
        while True:
            answer = self._answer()
            if "error" in answer:
                raise HarnessError(f"have QEMU {command}", str(answer["error"].get("desc")))
            if "return" in answer:  # and no event
                return answer["return"]

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + _MONITOR_SECONDS
        while b"\n" not in self._read:
            piece = os.read(self._ends.reader, _PIECE) if ready(self._ends.reader, deadline) else b""
            if not piece:
                raise HarnessError("ask QEMU's monitor", "it is gone, or silent")
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def order(command: str, **arguments: object) -> bytes:
    """A command to the monitor, as it is written there."""
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


def monitor() -> tuple[list[str], socket.socket, socket.socket]:
    """Words for QEMU that give it a monitor, the end that it is to inherit (then to be closed), and our end."""
    ours, theirs = socket.socketpair()
    return ["-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control"], theirs, ours
