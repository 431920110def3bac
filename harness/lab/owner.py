"""A process that attaches a program and is killed: what stays behind is what the kernel keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from harness.errors import HarnessError
from harness.kernel import bpf
from harness.kernel.bpf import AttachType
from harness.program.attach import Way, attach_one


def own(program: int, tell: Callable[[str], None], *, cgroup: str, kind: int, way: str) -> NoReturn:
    """In the owner: attach the program of this descriptor, tell what went wrong or nothing, and never detach."""
    try:
        with attach_one(bpf.Fd(program), Path(cgroup), AttachType(kind), Way(way)):
            tell("")
            while True:
                time.sleep(3600)
    except HarnessError as error:
        tell(f"{error}")
        raise SystemExit(1) from error
