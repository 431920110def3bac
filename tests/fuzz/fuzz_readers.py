"""The fuzz of everything that reads evidence: `python -m tests.fuzz.fuzz_readers [SECONDS [RUNS]]` (make fuzz).

By atheris.

The first byte of an input chooses what the rest is: a document, a part of one behind a sign, a tar, a zip, a mail,
or something packed. Looked for: an exception, a text that could drive a terminal, and work out of proportion. Seeds are
the corpora of evidence. A bounded run of the same target is part of the tests.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["harness.diagnose", "harness.msp"]):
    from harness.diagnose import intake
    from harness.diagnose.limits import Limits
    from harness.diagnose.readers.table import READERS

from tests.fuzz.fuzzing import fuzz
from tests.unit.diagnose.bundles import assert_safe

CORPUS = Path(__file__).parents[1] / "corpus"
LIMITS = Limits(document=1 << 20, unpacked=1 << 20, total=4 << 20, inflated=8 << 20, documents=200)
SLOWEST = 4.0  # seconds for the largest input, a hundred times what it should take
_PACK = (gzip.compress, bz2.compress, lzma.compress)


def target(data: bytes) -> None:
    """One input. Raises AssertionError or whatever a reader raised."""
    if not data:
        return
    before = time.process_time()
    choice, rest = data[0] % 9, data[1:]
    if choice < 3:
        found = intake.read_bytes(rest, "document", limits=LIMITS)
    elif choice == 3:
        row = READERS[rest[0] % len(READERS)] if rest else READERS[0]
        sign = row.signs[rest[1] % len(row.signs)] if len(rest) > 1 and row.signs else ""
        found = intake.read_bytes(sign.encode() + rest[2:], row.said or "name", limits=LIMITS)
    elif choice == 4:
        found = intake.read_bytes(_zip(rest), "bundle.zip", limits=LIMITS)
    elif choice == 5:
        found = intake.read_bytes(b"PK\x03\x04" + rest, "bundle.zip", limits=LIMITS)
    elif choice == 6:
        found = intake.read_bytes(_tar(rest), "bundle.tar", limits=LIMITS)
    elif choice == 7:
        found = intake.read_bytes(b"MIME-Version: 1.0\nContent-Type: " + rest, "mail.eml", limits=LIMITS)
    else:
        packed = _PACK[len(rest) % 3](rest)
        found = intake.read_bytes(packed[: len(packed) - len(rest) % 5], "packed", limits=LIMITS)
    assert_safe(found)
    spent = time.process_time() - before
    assert spent < SLOWEST, f"{spent:.1f} s for {len(data)} bytes"


def _zip(rest: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(rest[:20].decode("latin-1").replace("\0", "") or "a", rest[20:])
    data = bytearray(packed.getvalue())
    for at in rest[:4]:  # damage
        data[at * 7 % len(data)] ^= at
    return bytes(data)


def _tar(rest: bytes) -> bytes:
    """A tar's header of the input's bytes, its checksum set right."""
    header = bytearray(rest[:512].ljust(512, b"\0"))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + rest[512:]


def seeds() -> Sequence[bytes]:
    found = [b"\0" + path.read_bytes()[:20_000] for path in sorted(CORPUS.rglob("*")) if path.is_file()]
    return found[:2_000]


def main(arguments: Sequence[str]) -> None:
    fuzz(arguments, target, seeds(), longest=65536, seconds=300)


if __name__ == "__main__":
    main(sys.argv[1:])
