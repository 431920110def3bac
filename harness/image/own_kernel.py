"""`--kernel`: the checks of `verify`, on the image's own kernel, with the image's own eBPF object, in our guest."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from harness.errors import HarnessError
from harness.image import kernels, said
from harness.image.image import Image
from harness.msp import guide
from harness.report import Outcome, Report, Result
from harness.vm import disk_kernel
from harness.vm import kernels as vm_kernels
from harness.vm.appliance import SYSROOT, Appliance
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Cgroup, Machine
from harness.vm.run import run

_PREFIX = "own-kernel"
_TITLE = "The image's own kernel was booted"
_WORDS = ("lsm=", "lockdown=", "security=", "selinux=", "apparmor=", "cgroup_disable=", "cgroup_no_v1=")
"""Words of the image's kernel command line that decide how eBPF fares; the others are about its hardware."""


@dataclass(frozen=True)
class Taken:
    """The image's kernel, or why there is none."""

    kernel: Kernel | None
    why_not: str = ""
    remedy: str | None = None


def take(appliance: Appliance, image: Image) -> Taken:
    """Copy the kernel that the image boots into the cache, from the appliance that has its system mounted."""
    release = kernels.kernels(image).default
    if not release:
        return Taken(None, "there is no kernel in the image, or none that is known to boot")
    try:
        return Taken(_copied(appliance, Path(image.name).name, release))
    except HarnessError as error:
        return Taken(None, str(error), error.remedy)


def _copied(appliance: Appliance, name: str, release: str) -> Kernel:
    """Kept by its content: an image that is built again with the same kernel has it there."""
    paths = [f"{SYSROOT}/boot/vmlinuz-{release}", f"{SYSROOT}/lib/modules/{release}"]
    words = " ".join(shlex.quote(path) for path in (paths[0], f"{paths[1]}/vmlinuz", f"{paths[1]}/modules.dep"))
    said = appliance.shell(f"sha256sum {words} 2>/dev/null; true")
    digest = hashlib.sha256(f"{release} {said}".encode()).hexdigest()[:16]
    return vm_kernels.kept(f"image-{digest}", lambda place: disk_kernel.copy_out(appliance, name, release, place))


def verified(image: Image, taken: Taken, results: Sequence[Result], tell: Callable[[str], None]) -> Iterator[Result]:
    """The Results of the guest, each behind `own-kernel.`; results are the checks' that --inspect gave."""
    if taken.kernel is None:
        yield _not_run(taken.why_not, taken.remedy)
        return
    try:
        machine = _machine(Machine(taken.kernel), results)
        job, about = _job(image, results)
        report = run(machine, job, tell)
    except HarnessError as error:
        yield _not_run(str(error), error.remedy)
        return
    yield _about(machine, about, report)
    for result in report.results:
        yield replace(result, id=f"{_PREFIX}.{result.id}", blocking=False)


def _machine(machine: Machine, results: Sequence[Result]) -> Machine:
    """As the image would boot it: its cgroup layout, and what of its command line decides about eBPF."""
    layout = said.text(results, "cgroup.layout", "layout")
    line = said.text(results, "kernel.command-line", "command line")
    words = tuple(word for word in line.split() if word.startswith(_WORDS) and word.isprintable() and '"' not in word)
    return replace(machine, cgroup=Cgroup(layout) if layout in tuple(Cgroup) else Cgroup.V2, words=words)


def _job(image: Image, results: Sequence[Result]) -> tuple[Job, str]:
    """The job, and which object it is about."""
    path = said.text(results, "agent.object", "path")
    data = image.tree.data(path) if path else None
    if data is None:
        return Job(("verify", "--quick")), "our own program: the image has no object that could be read"
    name = PurePosixPath(path).name
    return Job(("verify", "--quick", f"--object=object/{name}"), {f"object/{name}": data}), f"the image's {path}"


def _about(machine: Machine, about: str, report: Report) -> Result:
    failed = next((result for result in report.results if result.group == "guest"), None)
    return Result(
        f"{_PREFIX}.booted",
        _TITLE,
        Outcome.ERROR if failed else Outcome.PASS,
        f"could not find out: {failed.summary}" if failed else f"{machine.kernel.release} ran with {about}",
        evidence={
            "kernel": machine.kernel.release,
            "program": about,
            "cgroup": machine.cgroup,
            "kernel words": list(machine.words),
            "not seen": "the image's initramfs, its boot loader and its services: --boot",
        },
        observed={"guest": report.target},
        guide=guide.SERVICE_LINUX,
    )


def _not_run(why: str, remedy: str | None) -> Result:
    return Result(f"{_PREFIX}.booted", _TITLE, Outcome.ERROR, f"could not find out: {why}", remedy=remedy)
