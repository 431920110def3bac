"""Lab kernels are built while other tests run: a process of its own begins when it is known which tests want them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.kernel import packages, processes
from harness.vm import lab_kernels, qemu

ROOT = Path(__file__).parents[2]

PROGRAMS = {
    qemu.BINARY: packages.QEMU,
    "mmdebstrap": packages.MMDEBSTRAP,
    "mke2fs": packages.E2FSPROGS,
    "depmod": packages.KMOD,
}

# Whoever wants a kernel afterwards waits for this one's lock; what fails here fails there again, with its reason.
_BUILD = """
import sys
from harness.errors import HarnessError
from harness.vm import lab_kernels
for name in sys.argv[1:]:
    try:
        lab_kernels.get(name)
    except HarnessError as error:
        sys.exit(f"{error}")
"""


def cannot_boot() -> str:
    """Why no guest can be booted here; empty where one can."""
    if os.geteuid() != 0:
        return "needs root, to make the guest's file system"
    missing = [need for program, need in PROGRAMS.items() if shutil.which(program) is None]
    return packages.install_hint(missing) if missing else ""


def wanted(tests: Iterable[str]) -> list[str]:
    """The lab kernels that tests with these ids boot, in the table's order, which lets each build use the one before.

    An id has the kernel's name first among its parameters.
    """
    found = " ".join(tests)
    specs = [(row.name, lab_kernels.PREFIX + row.name) for row in lab_kernels.LAB_KERNELS]
    return [name for name, spec in specs if re.search(rf"\[{spec}[]-]", found)]


def start(names: Iterable[str]) -> subprocess.Popen[bytes]:
    """Build them in the background, at low priority. It ends with whoever started it."""
    parent = os.getpid()
    return subprocess.Popen(
        ["nice", "-n", "10", sys.executable, "-c", _BUILD, *names],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: processes.die_with_parent(parent),
    )
