"""Lab kernels are built while other tests run: a process of its own begins when it is known which tests want them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.kernel import processes
from harness.vm import lab_kernels

ROOT = Path(__file__).parents[2]

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


def wanted(items: Iterable[pytest.Item]) -> list[str]:
    """The lab kernels that these tests boot, in the table's order, which lets each build use the one before."""
    specs = {spec for item in items if (spec := spec_of(item)).startswith(lab_kernels.PREFIX)}
    return [row.name for row in lab_kernels.LAB_KERNELS if lab_kernels.PREFIX + row.name in specs]


def spec_of(item: pytest.Item) -> str:
    """The kernel that a test's parameter names; empty for none."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return str(parameters.get("kernel", ""))


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
