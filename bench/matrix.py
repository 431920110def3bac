"""A matrix of kernels against the sum of its single verdicts, alternating; and the same matrix once more, unchanged.

Both sides start from saved guests, as does everything after the first use of a kernel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.spread import spread

KERNELS = ("bullseye", "bookworm", "trixie")
ROUNDS = 5
TARGET = 0.6  # of the sum of single verdicts, on two cores
UNCHANGED_SECONDS = 2.0


def _run(command: Sequence[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "harness", *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def main() -> None:
    matrix = ("matrix", "--kernels", ",".join(KERNELS), "--programs", "plain")
    _run((*matrix, "--no-cache"))  # from here on every kernel has a saved guest
    together, alone, unchanged = [], [], []
    for _ in range(ROUNDS):
        together.append(_run((*matrix, "--no-cache")))
        alone.append(sum(_run(("vm", "verify", "--kernel", kernel, "--quick")) for kernel in KERNELS))
        unchanged.append(_run(matrix))
    ratios = spread([one / other for one, other in zip(together, alone, strict=True)])
    print(f"{len(os.sched_getaffinity(0))} cores, {len(KERNELS)} kernels: {', '.join(KERNELS)}; {ROUNDS} rounds")
    print(f"matrix                      {spread(together).text()} s")
    print(f"sum of single verdicts      {spread(alone).text()} s")
    print(f"matrix / sum                {ratios.text()} (target: at most {TARGET} on 2 cores)")
    print(f"unchanged, all of it kept   {spread(unchanged).text()} s (target: under {UNCHANGED_SECONDS:g} s)")
