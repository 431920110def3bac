"""Images that were compiled before: kept in the cache, and bundled for machines that have no compiler.

An entry of the cache is a bundle of one program. It is used for the same source, compiler and kernel headers only;
one that is damaged is compiled again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.program import bundle, headers
from harness.program.bundle import Bundle
from harness.program.compile import Compilation, Source
from harness.program.image import Image

_AT_ONCE = 2  # compilers side by side


def directory() -> Path:
    return Path(os.environ.get("MSP_HARNESS_CACHE") or headers.CACHE) / "images"


def bundled(sources: Sequence[Source]) -> bytes:
    """The bundle of these sources: from the cache, and compiled as far as they are not there.

    Raises HarnessError where BCC or headers are missing, a program does not compile, or the cache cannot be written.
    """
    toolchain = _toolchain()
    found: dict[str, Image] = {}
    missing = []
    for code in sources:
        image = _kept(code, toolchain)
        if image is None:
            missing.append(code)
        else:
            found[code.digest] = image
    for begin in range(0, len(missing), _AT_ONCE):
        batch = missing[begin : begin + _AT_ONCE]
        with ExitStack() as stack:
            started = [stack.enter_context(Compilation(code)) for code in batch]
            for code, compilation in zip(batch, started, strict=True):
                found[code.digest] = compilation.result()
                _keep(code, toolchain, found[code.digest])
    return bundle.pack(found)


def _toolchain() -> str:
    """What compiles, as a hash: BCC's files by name, size and time, and the headers."""
    found = importlib.util.find_spec("bcc")
    tree = headers.headers_tree()
    files = [Path(found.origin), Path(found.origin).with_name("version.py")] if found and found.origin else []
    files.append(tree.path / "include/generated/autoconf.h")
    told = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    return hashlib.sha256(json.dumps([tree.release, str(tree.path), told]).encode()).hexdigest()


def _entry(code: Source, toolchain: str) -> Path:
    return directory() / hashlib.sha256(f"{code.digest} {toolchain}".encode()).hexdigest()[:32]


def _kept(code: Source, toolchain: str) -> Image | None:
    """An entry of the cache; None where there is none that can be used."""
    try:
        return Bundle.parse(_entry(code, toolchain).read_bytes()).find(code.digest)
    except (OSError, HarnessError):
        return None


def _keep(code: Source, toolchain: str, image: Image) -> None:
    """Whole or not at all: written beside its place, then renamed."""
    place = _entry(code, toolchain)
    work = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        work.write_bytes(bundle.pack({code.digest: image}))
        work.replace(place)
    except OSError as error:
        happened = f"{errno_text(error.errno or 0)}: {error.filename or error}"
        remedy = "make room there, run as root, or name another directory with MSP_HARNESS_CACHE"
        raise HarnessError(f"keep programs in {place.parent}", happened, remedy, errno=error.errno or 0) from error
    finally:
        with suppress(OSError):
            work.unlink()
