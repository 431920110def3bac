"""`msp-harness vm verify` against the plain boot of the same kernel, and against virtme-ng, alternating.

The plain boot: the kernel as its package ships it, machine q35, TCG, a static init that powers off; from exec of QEMU
to its end. Of the harness it is always the whole command, from its exec to its end, with the Report written.

Beside each ratio of times stands that of processor time: on a machine that others use, it is the one to look at.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.spread import spread
from harness.checks import programs
from harness.command import run
from harness.vm import accelerator, apt, guest, qemu, saved, spec, suites
from harness.vm.guest import Guest
from harness.vm.initramfs import Archive
from harness.vm.kernels import Kernel
from harness.vm.machine import Machine

KERNELS = ("bullseye", "bookworm")
ROUNDS = 7
FIRST_ROUNDS = 3
PEER_KERNEL = "bookworm:generic"  # virtme-ng's root comes by 9p, which cloud kernels lack
PEER_ROUNDS = 2
_ONLY = "load,attach,redirect"
_INIT = "#!/bin/busybox sh\n/bin/busybox poweroff -f\n"


@dataclass(frozen=True)
class Measure:
    """Something to be timed, and how often it may take the plain boot at most."""

    name: str
    run: Callable[[], object]
    most: float | None = None
    prepare: Callable[[], object] = lambda: None
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def take(self) -> None:
        self.prepare()
        before, began = _processor(), time.perf_counter()
        self.run()
        self.seconds.append(time.perf_counter() - began)
        self.processor.append(_processor() - before)


def _processor() -> float:
    """Seconds of processor time of children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _command(words: Sequence[str | Path]) -> None:
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def plain(kernel: Kernel, root: Guest) -> Callable[[], None]:
    """The floor: boot and power off."""
    archive = Archive()
    archive.directory("dev")
    archive.file("init", _INIT.encode(), mode=0o755)
    archive.copy("bin/busybox", root.busybox)
    content = archive.finished()

    def boot() -> None:
        with tempfile.NamedTemporaryFile() as disk:
            disk.write(content)
            disk.flush()
            _command([
                qemu.binary(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
                "-accel", "tcg", "-cpu", "max", "-m", "512", "-smp", "1", "-kernel", kernel.image,
                "-initrd", disk.name, "-append", "console=ttyS0 quiet panic=-1", "-serial", "null",
            ])  # fmt: skip

    return boot


def verify(text: str, *words: str) -> Callable[[], None]:
    """The command, as a user gives it."""
    with_report = [sys.executable, "-m", "harness", "vm", "verify", "--kernel", text, *words, "--json", os.devnull]
    return lambda: _command(with_report)


def forget(machine: Machine, root: Guest) -> None:
    saved.discard(saved.name(machine, root, accelerator.usable(machine, root)))


def rounds(measures: Sequence[Measure], count: int) -> None:
    for _ in range(count):
        for measure in measures:
            measure.take()


def tell(measures: Sequence[Measure], floor: Measure) -> None:
    for measure in measures:
        of_floor = _ratio(measure.seconds, floor.seconds), _ratio(measure.processor, floor.processor)
        wanted = f"; at most {measure.most} wanted" if measure.most else ""
        print(
            f"  {measure.name:<42}{spread(measure.seconds).text()} s, "
            f"{of_floor[0]:.2f} × the plain boot (processor time {of_floor[1]:.2f} ×){wanted}",
            flush=True,
        )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return spread(ours).median / spread(theirs).median


def main() -> None:
    root = guest.get(print)
    for text in KERNELS:
        machine = Machine(spec.resolve(text, tell=print))
        print(f"{machine.kernel.origin}; {ROUNDS} rounds, alternating; median and quartiles", flush=True)
        floor = Measure("plain boot", plain(machine.kernel, root))
        measures = [
            floor,
            Measure("vm verify --quick, saved guest", verify(text, "--quick"), 0.6),
            Measure(f"vm verify --only {_ONLY}", verify(text, "--only", _ONLY), 0.25),
            Measure("the same once more", verify(text, "--only", _ONLY), 0.25),
        ]
        verify(text, "--quick")()  # from here on there is a saved guest
        rounds(measures, ROUNDS)
        tell(measures, floor)
        again = Measure("plain boot", floor.run)
        first = Measure("first use", verify(text, "--quick"), 3, lambda: forget(machine, root))  # noqa: B023
        rounds([again, first], FIRST_ROUNDS)
        tell([again, first], again)
    _peer(root)


def _peer(root: Guest) -> None:
    """virtme-ng with the same job: it gets the programs compiled, as our guests do."""
    with tempfile.TemporaryDirectory(prefix="msp-harness-bench-") as name:
        place = Path(name)
        peer = _virtme(place)
        kernel = spec.resolve(PEER_KERNEL, tell=print)
        modules = _whole_modules(place, kernel)
        bundle = place / "programs"
        bundle.write_bytes(programs.bundle(("verify", "--quick")))
        inside = f"cd {Path.cwd()} && MSP_HARNESS_PROGRAMS={bundle} {sys.executable} -m harness verify --quick"
        (place / "bin").mkdir()
        (place / "bin" / "busybox").symlink_to(root.busybox)  # it wants a static one
        # The modules where it looks for them, in a mount namespace of its own.
        script = f'mount --bind {modules} /lib/modules && PATH={place}/bin:{peer.parent}:$PATH && exec "$@"'
        command: list[str | Path] = [
            "unshare", "--mount", "sh", "-c", script, "sh",
            peer, "--run", kernel.image, "--disable-kvm", "--user", "root", "--cpus", "2", "--memory", "1G",
            "--rw", "--", inside,
        ]  # fmt: skip
        theirs = Measure(f"virtme-ng, {PEER_ROUNDS} rounds", lambda: _command(command))
        warm = Measure("vm verify --quick, saved guest", verify(PEER_KERNEL, "--quick"))
        cold = Measure("vm verify --quick --fresh", verify(PEER_KERNEL, "--quick", "--fresh"))
        warm.run()
        rounds([theirs, warm, cold], PEER_ROUNDS)
        print(f"{kernel.origin}: virtme-ng / ours, wanted: at least 20 warm, 4 cold")
        for ours in (warm, cold):
            ratios = _ratio(theirs.seconds, ours.seconds), _ratio(theirs.processor, ours.processor)
            print(f"  {ours.name:<42}{ratios[0]:.1f} (processor time {ratios[1]:.1f})")


def _virtme(place: Path) -> Path:
    """virtme-ng from PyPI, in a virtual environment that goes with the place."""
    run([sys.executable, "-m", "venv", place / "venv"], timeout=300)
    run([place / "venv" / "bin" / "pip", "--quiet", "install", "virtme-ng"], timeout=300)
    return place / "venv" / "bin" / "vng"


def _whole_modules(place: Path, kernel: Kernel) -> Path:
    """All modules of a suite's kernel, unpacked: the cache keeps only what our guests load."""
    package = kernel.origin.split()[1]
    asked = suites.Suite.parse(PEER_KERNEL)
    assert asked is not None
    downloaded = apt.Apt(asked.name, place / "apt")
    downloaded.update()
    run(["dpkg-deb", "-x", downloaded.download(package, place / "download"), place / "kernel"], timeout=300)
    return place / "kernel" / "lib" / "modules"
