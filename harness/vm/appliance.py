"""A disk image read by libguestfs: its appliance is a small virtual machine that alone touches the image's data.

guestfish(1) is driven over its standard input, a command at a time. TCG: a /dev/kvm that is there may not work.

shell() is libguestfs' `debug sh`: a shell of the appliance's own, beside the system that is mounted at SYSROOT, and
none of whose programs it runs. One command of it does what thousands of libguestfs' calls would.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from harness import interruption
from harness.command import text
from harness.errors import HarnessError
from harness.kernel import packages, processes
from harness.vm import appliance_kernel, cache, forget, scratch
from harness.vm.appliance_kernel import Kernel

KIND = "appliance"
_KEPT = 3  # of them, 0.5 GB each
_START_SECONDS = 240  # the appliance alone takes 17 s on an idle machine under TCG; its first use builds it
_SECONDS = 300  # for a command: a kernel's modules are the largest thing that is copied
_END_SECONDS = 10  # it takes a few hundredths of one
_NAMES = 4096  # of a directory
_ANSWER = 64 << 20  # bytes of a command's answer; libguestfs' own limit of a message is 4 MiB
_ERRORS = 1 << 20  # bytes of its standard error that are looked at, from its end
_PIECE = 2_900_000  # bytes that are less than 4 MiB in base64
_SHOWN = 160  # characters of a command in an error
_LINE = (
    7_800  # characters of a script in one line: guestfish's are of 8 KiB at most, and it cuts longer ones in silence
)
_SCRIPT = 1 << 20  # characters of a script in base64
_ROOT = re.compile(r"/dev/[A-Za-z0-9/_.:+-]+|btrfsvol:[A-Za-z0-9/_.:+@-]+")


# Of the two disks, the one that is not the appliance's own root.
_FIND_DISK = """root=$(mountpoint -d /)
for each in /sys/block/sd*; do read -r number <$each/dev; [ "$number" = "$root" ] || disk=/dev/${each##*/}; done
"""

KERNEL_WORDS = "mitigations=off"
"""For the appliance's kernel: nobody shares its machine, and under TCG retpolines take a tenth of all time."""

SYSROOT = "/sysroot"
"""Where shell() finds the file systems that are mounted."""


class Appliance:
    """A disk image in an appliance that ends with the with block.

    format is QEMU's name of the image's format. A disk is only ever read, unless it is writable: a scratch disk.
    name is what errors call it.
    """

    def __init__(self, disk: Path, format: str, *, writable: bool = False, name: str = ""):
        self._disk, self._format, self._writable = disk, format, writable
        self._attempted = f"read {name or disk.name} with libguestfs"
        self._mark = f"msp-harness: {secrets.token_hex(16)}"  # what an image holds cannot be it
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Appliance:
        if shutil.which("guestfish") is None:
            raise HarnessError(self._attempted, "there is no guestfish", packages.install_hint([packages.GUESTFISH]))
        self._stack = ExitStack()
        try:
            self._start(self._stack.enter_context(scratch.directory("guestfs")))
            mode = "cachemode:unsafe" if self._writable else "readonly:true"
            self.ask(f"add {quoted(str(self._disk))} {mode} format:{self._format}")
            self.ask("run", _START_SECONDS)
        except BaseException:
            self._end()
            raise
        return self

    def _start(self, work: Path) -> None:
        self._work, given, parent = work, environment(work), os.getpid()
        with processes.signals_held():
            self._errors = self._stack.enter_context((work / "errors").open("w+b"))
            self._process = subprocess.Popen(
                ["guestfish"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=given,
                start_new_session=True,  # libguestfs' QEMU and recovery process end with it
                preexec_fn=lambda: processes.die_with_parent(parent),
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def mount_system(self) -> None:
        """Mount, inside the appliance and read only, the file systems of the operating system on the disk."""
        roots = self.ask("inspect-os")
        if not roots:
            raise HarnessError(self._attempted, "there is no operating system on it that libguestfs knows")
        root = roots[0].strip()
        if not _ROOT.fullmatch(root):
            raise HarnessError(self._attempted, f"its root has the unusual name {root!r}")
        self.ask(f"mount-ro {root} /")
        for line in self.ask(f"inspect-get-mountpoints {root}"):  # as the disk's fstab has it: it may be wrong
            place, _, device = (word.strip() for word in line.partition(":"))
            if place in ("/boot", "/usr") and _ROOT.fullmatch(device):  # no more is looked at
                self.ask(f"-mount-ro {device} {place}")

    def names(self, directory: str) -> list[str]:
        """The names in a directory of the system; none where there is no such directory."""
        if self.ask(f"is-dir {quoted(directory)} followsymlinks:true") != ["true"]:
            return []
        return self.ask(f"ls {quoted(directory)}")[:_NAMES]

    def text(self, path: str, largest: int) -> str:
        """A text file of the system; nothing where there is none, or one that is larger."""
        if self.ask(f"is-file {quoted(path)} followsymlinks:true") != ["true"]:
            return ""
        if int(self.ask(f"filesize {quoted(path)}")[0]) > largest:
            return ""
        target = self._work / "text"
        self.download(path, target, largest)
        return text(target.read_bytes())

    def download(self, path: str, target: Path, largest: int) -> None:
        """Copy a file of the system to the host, up to so many bytes. Raises HarnessError for a larger one."""
        self.ask(f"download {quoted(path)} - {_piped(target, largest)}")
        self._check(target, path, largest)

    def archive(self, directory: str, target: Path, largest: int) -> None:
        """A tar archive of a directory of the system, up to so many bytes. Raises HarnessError for a larger one."""
        self.ask(f"tar-out {quoted(directory)} - {_piped(target, largest)}")
        self._check(target, directory, largest)

    def shell(self, script: str, seconds: float = _SECONDS) -> str:
        """What a shell script in the appliance prints, its complaints included.

        $disk is the disk's device there: libguestfs' /dev/sda may be another's name, since Linux counts as it finds.
        """
        script = (_FIND_DISK if "disk" in script else "") + script
        packed = base64.b64encode(script.encode()).decode()
        if len(packed) > _SCRIPT:
            raise HarnessError(self._attempted, f"a script of {len(packed)} bytes is too long")
        if len(packed) <= _LINE:
            source = f"echo {packed} |"
        else:
            self._put(packed, "/tmp/script")
            source = "cat /tmp/script |"
        return "\n".join(self.ask(f'debug sh "{source} base64 -d | sh; true"', seconds))

    def put(self, data: bytes, path: str) -> None:
        """Write a file of the appliance's own, in base64."""
        self._put(base64.b64encode(data).decode(), path)

    def _put(self, packed: str, path: str) -> None:
        for offset in range(0, len(packed), _LINE):
            self.ask(f'debug sh "echo -n {packed[offset : offset + _LINE]} {">>" if offset else ">"}{path}; true"')

    def content(self, path: str, largest: int, seconds: float = _SECONDS) -> bytes:
        """A file of the appliance's own, up to so many bytes; nothing where there is none."""
        place, parts = shlex.quote(path), []
        for offset in range(0, largest, _PIECE):
            size = min(_PIECE, largest - offset)
            script = f"tail -c +{offset + 1} {place} 2>/dev/null | head -c {size} | base64 -w0"
            try:
                parts.append(base64.b64decode(self.shell(script, seconds), validate=True))
            except (binascii.Error, ValueError):
                raise HarnessError(self._attempted, f"{path} came back damaged from the appliance") from None
            if len(parts[-1]) < size:
                break
        return b"".join(parts)

    def complaints(self) -> int:
        """How much libguestfs has complained so far, in bytes: more after a command means that it failed."""
        return self._errors.seek(0, os.SEEK_END)

    def said(self) -> str:
        """libguestfs' last complaint: why a command that was allowed to fail did so."""
        return self._complaints()[0]

    def _check(self, target: Path, path: str, largest: int) -> None:
        if target.stat().st_size > largest:
            raise HarnessError(self._attempted, f"{path} in it is larger than {largest >> 20} MiB")

    def ask(self, command: str, seconds: float = _SECONDS) -> list[str]:
        """The lines that a command of guestfish prints. Raises HarnessError with libguestfs' words."""
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        deadline, said = time.monotonic() + seconds, b""
        try:
            stdin.write(f"{command}\necho {quoted(self._mark)}\n".encode())
            stdin.flush()
        except BrokenPipeError:
            raise self._failed(command) from None
        end = f"{self._mark}\n".encode()
        while not (said == end or said.endswith(b"\n" + end)):
            ready = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            interruption.check()
            if not ready:
                raise HarnessError(self._attempted, f"`{_short(command)}` had not ended after {seconds:g} s")
            piece = os.read(stdout.fileno(), 1 << 16)
            if not piece:
                raise self._failed(command)
            said += piece
            if len(said) > _ANSWER:
                raise HarnessError(self._attempted, f"`{_short(command)}` printed more than {_ANSWER >> 20} MiB")
        return text(said.removesuffix(end)).splitlines()

    def _failed(self, command: str) -> HarnessError:
        last, lines = self._complaints()
        return HarnessError(
            self._attempted, f"`{_short(command)}`: {last}", "-v shows more", detail="\n".join(lines[-40:])
        )

    def _complaints(self) -> tuple[str, list[str]]:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _ERRORS))
        lines = [line for line in text(self._errors.read(_ERRORS)).splitlines() if line.strip()]
        last = next((line for line in reversed(lines) if "libguestfs:" in line or "error" in line), "nothing on stderr")
        return last, lines

    def _end(self) -> None:
        """End guestfish with its QEMU: by itself, so that it removes its sockets; else by force."""
        if self._process is not None:
            with processes.signals_held():
                for stream in (self._process.stdin, self._process.stdout):
                    with suppress(BrokenPipeError):
                        if stream is not None:
                            stream.close()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_END_SECONDS)
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._stack.close()


def _short(command: str) -> str:
    return command if len(command) <= _SHOWN else f"{command[:_SHOWN]}…"


def quoted(word: str) -> str:
    """A word for guestfish: in double quotes, as its manual has it. A line's end cannot be in one."""
    if "\n" in word:
        raise HarnessError(f"read {word!r} with libguestfs", "its name has more than one line")
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _piped(target: Path, largest: int) -> str:
    """The end of a command, whose output goes to a file: no more than one byte too many, whatever the disk holds."""
    return f"| head -c {largest + 1} > {shlex.quote(str(target))}"


def environment(work: Path, kernel: Kernel | None = None) -> dict[str, str]:
    """What guestfish is run with; work is a directory of the run's own. Without a kernel, it is the quickest."""
    kernel = kernel or appliance_kernel.unpacked()
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "HOME": str(work),
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(work),
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
        "LIBGUESTFS_CACHEDIR": str(_place(kernel)),
        "LIBGUESTFS_APPEND": KERNEL_WORDS,
        "SUPERMIN_KERNEL": str(kernel.image),
        "SUPERMIN_KERNEL_VERSION": kernel.release,
        "SUPERMIN_MODULES": str(kernel.modules),
    }


def _place(kernel: Kernel) -> Path:
    """Where supermin(1) keeps the appliance of a kernel: it would not see that it is given another one."""
    entry = cache.kept(KIND, kernel.name, lambda place: None)
    forget.all_but(_KEPT, KIND)
    return entry
