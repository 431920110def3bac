"""The long fuzz of what reads a stranger's object: `python -m tests.fuzz.fuzz_object [SECONDS]` (make fuzz).

Real objects are damaged and then read, described, resolved and compared. What is looked for: any exception but
Malformed, and work that does not end soon. No probe is made: the kernel is not what is under test.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness.checks import inspect
from harness.program.object import btf, contents, core, diff, needs
from harness.program.object.btf import Btf
from harness.program.object.contents import Contents
from harness.program.object.elf import Malformed
from tests.objects.build import Style, build
from tests.program.object.mutations import damaged

STYLES = (
    Style.CO_RE,
    Style.LEGACY,
    Style.KFUNC,
    Style.STRIPPED,
    Style.BIG_ENDIAN,
    Style.NO_BTF_MAPS,
    Style.GLOBAL_DATA,
)


def seeds() -> Sequence[bytes]:
    return [build(style).read_bytes() for style in STYLES]


def check(data: bytes, kernel: Btf, other: Contents) -> bool:
    """Read and use an object in every way but by asking the kernel; whether it could be read."""
    try:
        one = contents.read(data)
    except Malformed:
        return False
    subject = inspect.Subject(Path("x.o"), one, "sha256:0")
    subject.__dict__["kernel"] = kernel  # the cached property: the kernel's BTF is read once
    list(inspect.described(subject))
    needs.needs(one, kernel)
    diff.changes(other, one)
    if one.types is not None:
        resolver = core.Resolver(one.types, kernel)
        try:
            for program in one.programs:
                for row in program.relocations:
                    resolver.resolve(row)
        except Malformed:
            pass
    return True


def main(seconds: float) -> int:
    seed = random.randrange(1 << 32)
    print(f"fuzzing objects for {seconds:g} s, seed {seed}", flush=True)
    dice, objects = random.Random(seed), seeds()
    kernel, other = btf.load(btf.KERNEL), contents.read(objects[0])
    _ = kernel.names
    count = readable = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = damaged(dice.choice(objects), dice)
        before = time.process_time()
        try:
            readable += check(data, kernel, other)
        except Exception:
            Path("fuzz-object.o").write_bytes(data)
            print(f"after {count} objects, seed {seed}: the object is in fuzz-object.o", flush=True)
            raise
        if time.process_time() - before > 5:
            Path("fuzz-object.o").write_bytes(data)
            print(
                f"slow: {time.process_time() - before:.1f} s, seed {seed}: the object is in fuzz-object.o", flush=True
            )
            return 1
        count += 1
    print(f"{count} objects, {readable} of them readable, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 300))
