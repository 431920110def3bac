"""The fuzz of what reads an image's headers and lists: `python -m tests.fuzz.fuzz_image [SECONDS [RUNS]]` (make fuzz).

By atheris. The first byte of an input chooses the reader. Looked for: anything raised but what the reader says it
raises, a name that could drive a terminal, and work out of proportion.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["harness.image"]):
    from harness.errors import HarnessError
    from harness.image import contents, listing, partitions, qcow2, source, system, vhd, vhdx

from tests.fuzz.fuzzing import fuzz
from tests.image.headers import LINUX, gpt, mbr, vhd_footer

SLOWEST = 4.0  # seconds for the largest input, a hundred times what it should take


def _source(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file, suppress(HarnessError):
        file.write(data)
        file.flush()
        source.identify(file.name, allow_backing=True)


def _names(data: bytes) -> None:
    for path, each in listing.parse(data):
        assert path.isprintable()
        assert not each.entry.target or each.entry.target.isprintable()


def _reader(data: bytes) -> partitions.Read:
    return lambda offset, length: data[offset : offset + length]


READERS: tuple[Callable[[bytes], object], ...] = (
    vhd.footer,
    qcow2.header,
    lambda data: vhdx.parse(_reader(data)),
    lambda data: partitions.table(_reader(data)),
    _names,
    lambda data: system.packages(data.decode("utf-8", "replace").splitlines()),
    lambda data: list(contents.members(data)),
    _source,
)


def target(data: bytes) -> None:
    """One input. Raises whatever a reader raised that it should not."""
    if not data:
        return
    before = time.process_time()
    with suppress(ValueError):
        READERS[data[0] % len(READERS)](data[1:])
    spent = time.process_time() - before
    assert spent < SLOWEST, f"{spent:.1f} s for {len(data)} bytes"


def seeds() -> Sequence[bytes]:
    """A header of each kind, for each reader."""
    headers = (
        vhd_footer(1 << 20),
        b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(12) + (16).to_bytes(4, "big") + bytes(100),
        b"vhdxfile".ljust(192 << 10, b"\0") + b"regi" + bytes(60),
        mbr((0x80, 0x83, 1, 9), (0, 5, 2, 9)) + mbr((0, 0x83, 1, 9)),
        gpt((LINUX, 2048, 4095)),
        b"f 644 0 0 12 ./etc/hosts\0\0l 777 0 0 1 ./bin\0usr/bin\0",
        b"[0] = {\n  app2_name: a\n  app2_version: 1\n}\n",
    )
    return [bytes([number]) + header for number in range(len(READERS)) for header in headers]


def main(arguments: Sequence[str]) -> None:
    fuzz(arguments, target, seeds(), longest=262144, seconds=120)


if __name__ == "__main__":
    main(sys.argv[1:])
