"""What `diagnose --fleet` does in a second of one core, and its memory: against only parsing the same lines as JSON.

The floor is json.loads of each line, which any reader of NDJSON pays. Both take turns, in CPU time of a process of
their own. Then a larger fleet, with a worker a core, for the wall's time and the peak of each process.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.spread import spread
from tests.unit.diagnose.evidence_corpus import cases

ROUNDS = 5
SMALL, LARGE = 5_000, int(os.environ.get("BENCH_FLEET", "50000"))

_FLOOR = """
import json, sys, time
begin = time.process_time()
for line in open(sys.argv[1]):
    json.loads(line)
print(time.process_time() - begin)
"""
_FLEET = """
import resource, sys, time
from pathlib import Path
from harness.diagnose.fleet.run import run
from harness.diagnose.fleet.store import Store
wall, begin = time.monotonic(), time.process_time()
run(Path(sys.argv[1]), Store(Path(sys.argv[2])), int(sys.argv[3]), lambda *_: None)
own = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]
children = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu = time.process_time() - begin + children.ru_utime + children.ru_stime
print(cpu, time.monotonic() - wall, own, children.ru_maxrss)
"""


def texts() -> list[str]:
    """Every status.json of the corpus that is one document by itself."""
    found = []
    for case in cases():
        for path in case.bundle.rglob("status.json"):
            try:
                found.append(json.dumps(json.loads(path.read_text())))
            except ValueError:
                continue
    return found


def measured(program: str, *words: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def fleet(path: Path, size: int) -> Path:
    chosen, those = random.Random(1), texts()
    with path.open("w") as file:
        for number in range(size):
            # A name in each, so that no two lines are equal.
            file.write(chosen.choice(those)[:-1] + f', "vmId": "vm-{number}"}}\n')
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        small, large = fleet(Path(folder) / "small", SMALL), fleet(Path(folder) / "large", LARGE)
        floors, ours = [], []
        for number in range(ROUNDS):
            floors.append(measured(_FLOOR, str(small))[0])
            ours.append(measured(_FLEET, str(small), f"{folder}/{number}.sqlite", "1")[0])
        print(f"bundles of a second of one core: {spread([SMALL / cpu for cpu in ours]).text(digits=0)}")
        ratios = spread([one / floor for one, floor in zip(ours, floors, strict=True)])
        print(f"CPU time against json.loads of the same lines: {ratios.text(digits=1)}")
        jobs = len(os.sched_getaffinity(0))
        cpu, wall, own, children = measured(_FLEET, str(large), f"{folder}/large.sqlite", str(jobs))
        print(
            f"{LARGE:,} bundles with {jobs} workers: {wall:.1f} s, {cpu:.1f} s of CPU, peak memory "
            f"{own / 1024:.0f} MB (parent), {children / 1024:.0f} MB (largest worker)"
        )
