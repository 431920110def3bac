"""`msp-harness verify --quick` against the sum of its unavoidable parts, alternating.

The parts, in one fresh process: the interpreter's start, import bcc, one BCC compile of the same program, and the lab's
network namespaces (pyroute2's import, two namespaces, a veth, addresses and routes).
"""

from __future__ import annotations

import subprocess
import sys
import time

from bench.spread import spread

ROUNDS = 15
TARGET = 1.5

_FLOOR = """
import os, time
began = time.perf_counter()
import bcc
imported = time.perf_counter()
from harness.program import headers, source
os.environ["BCC_KERNEL_SOURCE"] = str(headers.headers_tree().path)
module = bcc.BPF(text=source.read("connect4.c"), cflags=["-I" + str(source.directory())])
module.dump_func(b"connect4"), module.dump_func(b"complete_sockops")
compiled = time.perf_counter()
from harness.kernel.processes import Namespace, unshare
from harness.lab import topology
output, entry = os.pipe()
ready, go = os.pipe()
child = os.fork()
if child == 0:
    unshare(Namespace.NETWORK)
    os.write(entry, b"1")
    os.read(ready, 1)
    topology.build_vm()
    os._exit(0)
os.read(output, 1)
unshare(Namespace.NETWORK)
topology.build_fabric(child)
os.write(go, b"1")
os.waitpid(child, 0)
built = time.perf_counter()
print(imported - began, compiled - imported, built - compiled)
"""


def _run(arguments: list[str]) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return time.perf_counter() - began, done.stdout


def main() -> None:
    verify, floor, parts = [], [], []
    for _ in range(ROUNDS):
        verify.append(_run(["-m", "harness", "verify", "--quick"])[0])
        seconds, output = _run(["-c", _FLOOR])
        floor.append(seconds)
        imported, compiled, built = map(float, output.split())
        parts.append((seconds - imported - compiled - built, imported, compiled, built))
    names = ("interpreter", "import bcc", "compile", "namespaces")
    print(f"{ROUNDS} rounds, alternating; milliseconds")
    print(f"verify --quick   {spread(verify).text(1000, 0)}")
    print(f"unavoidable      {spread(floor).text(1000, 0)}")
    for name, column in zip(names, zip(*parts, strict=True), strict=True):
        print(f"  {name:<14} {spread(column).text(1000, 0)}")
    ratios = [one / other for one, other in zip(verify, floor, strict=True)]
    print(f"ratio            {spread(ratios).text()}, at most {TARGET} wanted")
