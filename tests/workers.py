"""How `make test` spreads the tests over two workers (pytest-xdist): in units, of which each stays with one worker.

A unit is a file, so that what its tests share is made once; tests that must not run side by side or share more are one
unit together. The longest begin first, so that no worker is left alone with one in the end.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

README_IMAGES = "tests/test_readme.py::test_command[msp-harness image "
"""Minutes of libguestfs and of booting, which touch nothing of this kernel."""

LAB_KERNELS = "lab kernels"
"""The unit that waits for their build (tests.vm.lab_builds), and so comes last."""

TOGETHER = {
    README_IMAGES: (README_IMAGES,),
    # They leave what a killed run leaves, and anybody's next run removes that.
    "this kernel": ("tests/kernel/", "tests/test_readme.py", "tests/verifier/", "tests/program/test_libbpf.py"),
    # They throw saved guests away, and ask whether the next job saves or resumes one.
    "guests": ("tests/vm/",),
    # They look at the same good samples.
    "samples": ("tests/image/test_sample.py", "tests/image/test_breaks.py"),
}
FIRST = ("tests/image/azure/test_boots.py", "tests/image/test_read.py", README_IMAGES, *TOGETHER["this kernel"],
         "tests/vm/", "tests/image/")  # fmt: skip
"""The longest, as CI measured them."""


def unit(nodeid: str) -> str:
    """The unit of a test."""
    if nodeid.startswith("tests/vm/") and "[lab:" in nodeid:
        return LAB_KERNELS
    return next((what for what, places in TOGETHER.items() if nodeid.startswith(places)), nodeid.partition("::")[0])


def rank(nodeid: str) -> int:
    """By what tests are sorted: the first of FIRST, what is not in it, what waits for a build."""
    if unit(nodeid) == LAB_KERNELS:
        return len(FIRST) + 1
    return next((number for number, place in enumerate(FIRST) if nodeid.startswith(place)), len(FIRST))


def scheduler(config: pytest.Config, log: object) -> Any:
    """Gives a worker that has little left to do the next unit, in the order in which the tests were collected."""
    config.option.loadscopereorder = False
    found = LoadScopeScheduling(config, log)
    found._split_scope = unit
    return found
