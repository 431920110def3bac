"""`image.read` against the least that tells anything of an image, alternating, on the same image.

The floor is guestfish with nothing of ours around it: it starts the appliance, inspects the system, mounts its file
systems read only and lists its packages. Ours does that, and reads headers, partitions, all names and some hundred
files; it is a process of its own, as the command is. The floor's appliance has its kernel as the package ships it, ours
the same one unpacked and with words of ours (KERNEL_WORDS).

Beside the ratio of times stands that of processor time: on a machine that others use, it is the one to look at.
BENCH_IMAGE names the image; without it, it is a good sample of ours, built on first use.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.spread import spread
from bench.vm import Measure, plain, rounds
from harness.image import checks, own_kernel, sample
from harness.image.read import read
from harness.report import Outcome
from harness.vm import appliance, appliance_kernel, guest, scratch

ROUNDS = int(os.environ.get("BENCH_IMAGE_ROUNDS", "5"))
SUITE = "bookworm"
MOST = 1.3
SIDE_BY_SIDE = 2
_READ = "import sys; from harness.image.read import read; assert read(sys.argv[1]).tree.exists('/etc')"


def bare(image: Path, form: str, root: str) -> Callable[[], None]:
    """guestfish alone, for a system with all of it in one file system."""
    commands = (
        f"add {appliance.quoted(str(image))} readonly:true format:{form}",
        "run",
        "inspect-os",
        f"inspect-get-mountpoints {root}",
        f"mount-ro {root} /",
        f"inspect-list-applications2 {root}",
    )

    def run() -> None:
        with scratch.directory("bench") as work:
            done = subprocess.run(
                ["guestfish"],
                input="\n".join(commands).encode(),
                env={**appliance.environment(work, appliance_kernel.packed()), "LIBGUESTFS_APPEND": ""},
                capture_output=True,
            )
        if done.returncode or b"app2_name" not in done.stdout:
            sys.exit(f"bench: guestfish on {image}: {done.stderr.decode(errors='replace')}")

    return run


def ours(image: Path) -> Callable[[], None]:
    words = [sys.executable, "-c", _READ, str(image)]

    def run() -> None:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            sys.exit(f"bench: image.read of {image}: {done.stderr.decode(errors='replace')}")

    return run


def beside(image: Path) -> Callable[[], None]:
    """Several at once, as a pipeline checks them."""
    words = [sys.executable, "-c", _READ, str(image)]

    def run() -> None:
        for started in [subprocess.Popen(words, stdin=subprocess.DEVNULL) for _ in range(SIDE_BY_SIDE)]:
            if started.wait():
                sys.exit(f"bench: image.read of {image} beside another ended with {started.returncode}")

    return run


def tell(measures: Sequence[Measure], floor: Measure, name: str = "guestfish") -> None:
    for measure in measures:
        times = spread(measure.seconds).median / spread(floor.seconds).median
        processor = spread(measure.processor).median / spread(floor.processor).median
        wanted = f"; at most {measure.most} wanted" if measure.most else ""
        print(
            f"  {measure.name:<46}{spread(measure.seconds).text()} s, {times:.2f} × {name} "
            f"(processor time {processor:.2f} ×){wanted}",
            flush=True,
        )


def main() -> None:
    named = os.environ.get("BENCH_IMAGE")
    image = Path(named) if named else sample.good(SUITE, tell=print)
    found = read(str(image), tell=print)  # from here on there is an appliance, and the image is in the page cache
    root, form = found.systems[0].partition(": ")[0], {"vhd-fixed": "raw", "vhd-dynamic": "vpc"}
    print(
        f"{image.name}, {image.stat().st_size >> 20} MiB; {ROUNDS} rounds, alternating; median and quartiles",
        flush=True,
    )
    floor = Measure(
        "guestfish: start, inspect, mount, packages", bare(image, form.get(found.disk.format, found.disk.format), root)
    )
    measures = [floor, Measure("image.read", ours(image), MOST)]
    rounds(measures, ROUNDS)
    tell(measures, floor)
    again, several = Measure(floor.name, floor.run), Measure(f"{SIDE_BY_SIDE} of them side by side", beside(image))
    rounds([again, several], 2)
    tell([again, several], again)
    own_kernel_against_its_boot(image)


def own_kernel_against_its_boot(image: Path) -> None:
    """What --kernel adds to a check, once the kernel is out of the image, against the plain boot of that kernel."""
    taken: list[own_kernel.Taken] = []
    found = read(str(image), also=lambda appliance, image: taken.append(own_kernel.take(appliance, image)))
    kernel, results = taken[0].kernel, list(checks.check(found))
    if kernel is None:
        sys.exit(f"bench: the kernel of {image}: {taken[0].why_not}")

    def verified() -> None:
        failed = [one for one in own_kernel.verified(found, taken[0], results, print) if one.outcome is Outcome.ERROR]
        if failed:
            sys.exit(f"bench: --kernel of {image}: {failed[0].summary}")

    verified()  # from here on there is a saved guest
    floor = Measure(f"plain boot of {kernel.release}", plain(kernel, guest.get()))
    measures = [floor, Measure("--kernel, with the image's object", verified)]
    rounds(measures, ROUNDS)
    tell(measures, floor, "the plain boot")
