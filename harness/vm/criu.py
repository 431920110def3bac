"""CRIU: a process with its memory and descriptors is written into files, and comes back from them as often as wanted.

A distribution's own may not know a newer kernel (3.17.1, of Debian 12, fails from 6.13 on), so where this machine has
none that works here, a newer one is unpacked into the cache and run by its own loader with its own libraries. Whether
one works is tried with a small process, once for each boot of this machine.

https://criu.org/CLI has the options.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import facts
from harness.vm import cache, mmdebstrap, qemu, scratch
from harness.vm.qemu import Ends, Running

KIND = "criu"

RUN = Path("/run")
"""Where CRIU writes, which is not to be this machine's; and what is made to be frozen can write, too."""

_RUN = f"mount -t tmpfs -o size=100% criu {RUN}"

_AGAIN = (
    "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
    "sh", "-c", f'{_RUN} && cp "$0" /run/criu.kdat 2>/dev/null; exec "$@"',
)  # fmt: skip
"""Runs CRIU that brings a process back, which has the pid again that it had: so in a pid namespace of its own.

Its first word is the file of what CRIU found out about this kernel, without which it asks for 50 ms each time.
"""

_SUITE = "trixie"  # the first release of Debian whose CRIU (4.1.1) works on kernels from 6.13 on
_VERSION = 1  # of how it is unpacked and tried
_SECONDS = 60  # to freeze takes a tenth of a second
_TRIAL_SECONDS = 10
_END_SECONDS = 5  # it takes milliseconds


def command(tell: Callable[[str], None] = lambda line: None) -> tuple[str, ...]:
    """The words that start a CRIU that works here; none where there is none, which tell is told once, and why."""
    if os.geteuid() != 0:
        return ()
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(_place().read_text())
        if record["asked"] == _asked():
            return _held(tuple(map(str, record["command"])))
    found, why = _found(tell)
    if found:
        _ask_about_kernel(found)
    else:
        tell(f"guests are saved by QEMU alone, whose copies take longer: {why}")
    _remember(found, why)
    return found


def _about_kernel() -> Path:
    """What CRIU found out about this kernel, in CRIU's own form. It is good for this boot; CRIU sees when it is not."""
    return cache.directory() / "criu.kdat"


def _ask_about_kernel(criu: Sequence[str]) -> None:
    inside = f'{_RUN} && "$0" "$@" check >/dev/null && cat /run/criu.kdat'
    done = run(["unshare", "--mount", "sh", "-c", inside, *criu], check=False)
    if done.returncode == 0:
        cache.note(_about_kernel(), done.stdout)


def distrust(why: str) -> None:
    """Do without from here on, until this machine boots again: it failed in earnest."""
    _remember((), why)


def _remember(found: Sequence[str], why: str) -> None:
    cache.note(_place(), json.dumps({"asked": _asked(), "command": found, "why": why}))


def _place() -> Path:
    return cache.directory() / "criu.json"


def _asked() -> list[str | int]:
    """What an answer is for: this boot of this machine, and its own CRIU."""
    own = shutil.which("criu")
    return [_VERSION, facts.boot_id(), str(own), Path(own).stat().st_mtime_ns if own else 0]


def _held(found: tuple[str, ...]) -> tuple[str, ...]:
    """The same, kept from being removed from the cache."""
    entry = cache.directory() / KIND / _name()
    if found and Path(found[0]).is_relative_to(entry) and not cache.hold(entry):
        raise KeyError(KIND)  # it was removed
    return found


def _found(tell: Callable[[str], None]) -> tuple[tuple[str, ...], str]:
    """A CRIU that passes the trial, or nothing and why."""
    own = shutil.which("criu")
    if own and not _fault((own,)):
        return (own,), ""
    try:
        unpacked = _unpacked(tell)
    except HarnessError as error:
        return (), f"{error}"
    why = _fault(unpacked)
    return ((), why) if why else (unpacked, "")


def _name() -> str:
    return f"{_SUITE}-{_VERSION}"


def _unpacked(tell: Callable[[str], None]) -> tuple[str, ...]:
    """A newer CRIU with its libraries, in the cache. Raises HarnessError where it cannot be had."""

    def make(place: Path) -> None:
        tell(f"unpacking CRIU from {_SUITE}'s packages")
        mmdebstrap.unpack(_SUITE, place / "root", "extract", ["criu"])

    root = cache.kept(KIND, _name(), make).absolute() / "root"
    loaders = sorted(root.glob("usr/lib/*/ld-linux-*.so.*"))
    if not loaders:
        raise HarnessError("run CRIU with its own libraries", "there is no loader among them")
    return str(loaders[0]), "--library-path", str(loaders[0].parent), str(root / "usr" / "sbin" / "criu")


_ECHO = 'exec 3<>"$0" 4<>"$1"; echo ready >&4; read word <&3; echo "$word again" >&4'


def _fault(criu: Sequence[str]) -> str:
    """What goes wrong when a process that waits for a word is frozen, and brought back to hear it; or nothing."""
    with (
        scratch.directory("criu") as place,
        qemu.unnamed_outputs() as outputs,
        qemu.pipe() as (hears, word),
        qemu.pipe() as (answer, says),
    ):
        ways = place / "in", place / "out"
        for way in ways:
            os.mkfifo(way)
        echo = freezable(["sh", "-c", _ECHO, *map(str, ways)], Path("/dev/null"))
        try:
            with (
                FileIO(os.open(ways[1], os.O_RDWR | os.O_CLOEXEC), "r") as said,
                qemu.at_work(echo, Ends(said.fileno(), -1), outputs, (), apart=True) as running,
            ):
                if _line(said) != "ready":
                    return f"a small process does not start: {running.output(qemu.OWN_WORDS)}"
                freeze(criu, running.process, place / "images")
            word.write(b"once\n")
            inherited = {ways[0]: hears.fileno(), ways[1]: says.fileno()}
            port = Ends(answer.fileno(), word.fileno())
            with thawed(criu, place / "images", inherited, port, outputs) as running:
                says.close()
                heard = _line(answer)
                return "" if heard == "once again" else f"no process comes back: {running.output(qemu.OWN_WORDS)}"
        except HarnessError as error:
            return f"{error}"


def _line(file: FileIO) -> str:
    """What is there to be read within some seconds."""
    ready = qemu.ready(file.fileno(), time.monotonic() + _TRIAL_SECONDS)
    return text(file.read(100) or b"").strip() if ready else ""


def freezable(command: Sequence[str], output: Path) -> list[str]:
    """A command such that its process can be frozen: in a mount namespace, in which all that it has open is opened.

    It has a RUN of its own, which is in memory and ends with it.
    """
    inside = f'{_RUN} && exec "$@" </dev/null >"$0" 2>&1'
    return ["unshare", "--mount", "sh", "-c", inside, str(output), *command]


def freeze(criu: Sequence[str], process: subprocess.Popen[bytes], images: Path) -> None:
    """Write a process of a command that is freezable() into a new directory; it ends with that. Raises HarnessError."""
    images.mkdir()
    inside = ["nsenter", f"--mount=/proc/{process.pid}/ns/mnt"]
    words = ["dump", f"--tree={process.pid}", "--manage-cgroups=ignore", "--verbosity=1"]
    done = run([*inside, *criu, *words, f"--images-dir={images.absolute()}"], timeout=_SECONDS, check=False)
    if done.returncode:
        raise HarnessError("freeze a process by CRIU", " / ".join(text(done.stderr).splitlines()))
    process.wait(_SECONDS)


@contextmanager
def thawed(
    criu: Sequence[str], images: Path, inherited: Mapping[Path, int], port: Ends, outputs: Mapping[str, int]
) -> Iterator[Running]:
    """Bring a process back, until the end of the with block.

    inherited: what it has open now in place of the files that it had open. If it does not come back, the Running ends,
    and its own words say why.
    """
    names = [f"--inherit-fd=fd[{number}]:{str(path).lstrip('/')}" for path, number in inherited.items()]
    words = [
        "restore",
        f"--images-dir={images.absolute()}",
        "--work-dir=/run",
        "--manage-cgroups=ignore",
        "--verbosity=1",
    ]
    command = [*_AGAIN, str(_about_kernel().absolute()), *criu, *words, *names]
    with qemu.at_work(command, port, outputs, tuple(inherited.values()), end=_end, apart=True) as running:
        yield running


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what was brought back, after which CRIU and unshare(1) end too; where there is none, the namespace."""
    chain = [process.pid]
    while len(chain) < 3 and (children := _children(chain[-1])):
        chain.append(children[0])
    with suppress(ProcessLookupError):
        os.kill(chain[-1], signal.SIGKILL)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
