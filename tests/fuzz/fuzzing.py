"""A fuzzer's run: seeds in a folder that goes with it, limits, and for SECONDS RUNS the same inputs each time."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris


def fuzz(
    arguments: Sequence[str], target: Callable[[bytes], None], seeds: Sequence[bytes], *, longest: int, seconds: int
) -> None:
    """arguments: none, SECONDS, or SECONDS RUNS; seconds: without. longest: bytes of an input. It ends the process."""
    given = int(float(arguments[0])) if arguments else seconds
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            Path(folder, str(number)).write_bytes(seed)
        options = [f"-max_total_time={given}", f"-max_len={longest}", "-timeout=60", "-rss_limit_mb=2048",
                   "-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={folder}/"]  # fmt: skip
        if len(arguments) > 1:
            options += [f"-runs={int(arguments[1])}", "-seed=1"]
        atheris.Setup([sys.argv[0], *options, folder], target)
        atheris.Fuzz()
