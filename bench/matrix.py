"""A matrix of kernels against the sum of its single verdicts, alternating; and the same matrix once more, unchanged.

Both sides start from saved guests, as does everything after the first use of a kernel. Of the default kernels the first
two, three, and so on: where their number is no multiple of the cores', a core is idle at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.spread import spread
from harness.matrix.question import KERNELS

ROUNDS = 5
TARGET = 0.6  # of the sum of single verdicts, on two cores
UNCHANGED_SECONDS = 2.0


def _run(command: Sequence[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "harness", *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def _matrix(kernels: Sequence[str], *words: str) -> float:
    return _run(("matrix", "--kernels", ",".join(kernels), "--programs", "plain", *words))


def main() -> None:
    _matrix(KERNELS, "--no-cache")  # from here on every kernel has a saved guest
    sizes = range(2, len(KERNELS) + 1)
    together: dict[int, list[float]] = {size: [] for size in sizes}
    alone: dict[int, list[float]] = {size: [] for size in sizes}
    unchanged = []
    for _ in range(ROUNDS):
        singles = [_run(("vm", "verify", "--kernel", kernel, "--quick")) for kernel in KERNELS]
        for size in sizes:
            together[size].append(_matrix(KERNELS[:size], "--no-cache"))
            alone[size].append(sum(singles[:size]))
        unchanged.append(_matrix(KERNELS))
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; {', '.join(KERNELS)}, the first of them or all; {ROUNDS} rounds")
    for size in sizes:
        ratios = spread([one / other for one, other in zip(together[size], alone[size], strict=True)])
        print(
            f"{size} kernels: matrix {spread(together[size]).text()} s, single verdicts {spread(alone[size]).text()} s"
        )
        print(f"           matrix / sum {ratios.text()} (target: at most {TARGET} on 2 cores)")
    print(f"unchanged, all of it kept   {spread(unchanged).text()} s (target: under {UNCHANGED_SECONDS:g} s)")
