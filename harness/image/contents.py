"""A mounted system's names and contents, brought out of the appliance: one list, one archive, both bounded."""

from __future__ import annotations

import base64
import io
import shlex
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import HarnessError
from harness.image import listing, places
from harness.image.listing import Named
from harness.image.tree import Entry, Tree
from harness.vm.appliance import SYSROOT, Appliance

_NAMES = 64 << 20  # bytes of the list of names
_MOST_NAMES = 400_000  # of them, and of their lengths below
_LENGTH = 4096  # bytes of a path (PATH_MAX)
_DEPTH = 64  # directories in directories
_FIND_SECONDS = 180
_TAR_SECONDS = 240
_SPARE = 60  # seconds for the answer
FIRST = 2_000_000  # bytes that come with the answer: libguestfs' message holds 4 MiB, of base64 and complaints
_ARCHIVE = places.LARGEST + (64 << 20)  # bytes, with headers
_COMPLAINTS = 100_000  # bytes of what find and tar complain of
_ATTRIBUTE = "SCHILY.xattr."  # of a pax header


@dataclass(frozen=True)
class Contents:
    """The tree, and what of it could not be read, by path, with the reason."""

    tree: Tree
    unseen: Mapping[str, str]


def contents(appliance: Appliance) -> Contents:
    """Read the system that is mounted in the appliance. Raises HarnessError where nothing comes out of it."""
    named, unseen = _names(appliance)
    entries = {path: each.entry for path, each in named.items()}
    chosen, left = places.choose(entries)
    unseen |= left
    read, failed = _files(appliance, [named[path].raw for path in chosen])
    for path in chosen:
        raw = named[path].raw
        found = read.get(raw)
        if raw in failed or found is None:
            unseen[path] = failed.get(raw, "it could not be read")
        elif found is not None:
            entries[path] = replace(entries[path], data=places.masked(path, found[0]), attributes=found[1])
    for path, data in _excerpts(appliance, entries):
        entries[path] = replace(entries[path], data=data)
    return Contents(Tree(entries), unseen)


def _names(appliance: Appliance) -> tuple[dict[str, Named], dict[str, str]]:
    found, unseen = _listed(appliance, ["."])
    if unseen.keys() & {"names"}:  # the list was too long: what matters comes first
        first, _ = _listed(appliance, list(places.important()))
        found = first | dict(list(found.items())[: _MOST_NAMES - len(first)])
    return found, unseen


def _listed(appliance: Appliance, begins: Sequence[str]) -> tuple[dict[str, Named], dict[str, str]]:
    unseen: dict[str, str] = {}
    where = shlex.join(begins)
    dull = " -o ".join(f"-path './{each}'" for each in places.NAMES_ALONE)
    passed = " -o ".join(f"-path './{each}'" for each in places.PASSED_OVER)
    alone = f"-printf '{listing.NAME_ONLY}'"
    form = f"\\( {passed} \\) {alone} -prune -o \\( {dull} \\) {alone} -o -printf '{listing.FORMAT}'"
    script = (
        f"cd {SYSROOT} || exit\n"
        f"timeout {_FIND_SECONDS} find {where} -maxdepth {_DEPTH} {form} 2>/tmp/complaints"
        f" | head -c {_NAMES + 1} | gzip -1 >/tmp/packed\n"
    )
    packed, said = _answer(appliance, script, _NAMES, _FIND_SECONDS)
    listed = _unpacked(packed, _NAMES + 1)
    if len(listed) > _NAMES:
        unseen["names"] = f"the system has more than {_NAMES >> 20} MiB of names; the rest of them was not read"
    found: dict[str, Named] = {}
    for path, each in listing.parse(listed):
        if len(each.raw) > _LENGTH:
            unseen[path[:_LENGTH]] = f"its path is longer than {_LENGTH} bytes"
            continue
        if len(found) >= _MOST_NAMES:
            unseen["names"] = f"the system has more than {_MOST_NAMES} names; the rest of them was not read"
            break
        found[path] = each
        if each.raw.count(b"/") >= _DEPTH - 1:
            unseen["depth"] = f"below {path[:200]}: more than {_DEPTH} directories lie one in the other"
    for path, why in _complaints(said, "find: "):
        unseen[path] = why
    if not found:
        raise HarnessError("list the names of the image's system", "find in the appliance gave none", detail=repr(said))
    return found, unseen


def _complaints(said: bytes, begin: str) -> Iterator[tuple[str, str]]:
    """`find: './etc/x': Input/output error`, `tar: etc/x: Cannot open: Permission denied`."""
    for line in listing.text(said.replace(b"\n", b"\0")).split("\\x00"):
        if line.startswith(begin):
            path, colon, why = line.removeprefix(begin).partition(": ")
            path = path.strip("'\u2018\u2019").removeprefix("./")
            if colon:
                yield f"/{path}", why


def _files(
    appliance: Appliance, wanted: Sequence[bytes]
) -> tuple[dict[bytes, tuple[bytes, Mapping[str, bytes]]], dict[bytes, str]]:
    """Contents and extended attributes of files by their raw path; and what tar could not read, with its words."""
    if not wanted:
        return {}, {}
    appliance.put(zlib.compress(b"".join(each + b"\0" for each in wanted), wbits=31), "/tmp/given")
    script = (
        f"cd {SYSROOT} || exit\n"
        f"base64 -d /tmp/given | gzip -dc >/tmp/paths\n"
        f"timeout {_TAR_SECONDS} tar --create --format=pax --null --no-unquote --verbatim-files-from --no-recursion"
        " --hard-dereference --numeric-owner --xattrs --xattrs-include='*' --quoting-style=literal"
        " --files-from=/tmp/paths"
        f" 2>/tmp/complaints | head -c {_ARCHIVE} | gzip -1 >/tmp/packed\n"
    )
    packed, said = _answer(appliance, script, _ARCHIVE, _TAR_SECONDS)
    failed = {each.encode(): why for path, why in _complaints(said, "tar: ") if (each := path.removeprefix("/"))}
    return dict(members(_unpacked(packed, _ARCHIVE))), failed


def _excerpts(appliance: Appliance, entries: Mapping[str, Entry]) -> Iterator[tuple[str, bytes]]:
    """The parts of files of which only a part is read."""
    wanted = places.excerpts(entries)
    if not wanted:
        return
    limited = f"| head -c {places.LARGEST_EXCERPT} | base64 -w0; echo"
    script = "\n".join(f"timeout 20 {command} .{path} 2>/dev/null {limited}" for path, command in wanted)
    lines = appliance.shell(f"cd {SYSROOT} || exit\n{script}").splitlines()
    for (path, _), line in zip(wanted, lines, strict=False):
        if line:
            yield path, _decoded(line)


def _answer(appliance: Appliance, script: str, largest: int, seconds: float) -> tuple[bytes, bytes]:
    """What a script left in /tmp/packed, and the complaints: in one answer where it is small, as it mostly is."""
    script += f"head -c {_COMPLAINTS} /tmp/complaints | base64 -w0; echo\nhead -c {FIRST} /tmp/packed | base64 -w0\n"
    said, _, first = appliance.shell(script, seconds + _SPARE).partition("\n")
    packed = _decoded(first)
    if len(packed) == FIRST:
        packed = appliance.content("/tmp/packed", largest)
    return packed, _decoded(said)


def members(archive: bytes) -> Iterator[tuple[bytes, tuple[bytes, Mapping[str, bytes]]]]:
    """Raw path, content and extended attributes of the regular files in an archive, up to where it is damaged."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                file = tar.extractfile(member)
                data = file.read() if file is not None else b""
                if len(data) == member.size:
                    attributes = {
                        name.removeprefix(_ATTRIBUTE): value.encode("utf-8", "surrogateescape")
                        for name, value in member.pax_headers.items()
                        if name.startswith(_ATTRIBUTE)
                    }
                    yield _raw(member.name), (data, attributes)
    except (tarfile.TarError, ValueError, EOFError, OverflowError):
        return  # it was cut off, or is damaged: what is missing is told as that


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape").removeprefix(b"./")


def _decoded(said: str) -> bytes:
    try:
        return base64.b64decode(said.strip(), validate=True)
    except ValueError:
        return said.encode("utf-8", "replace")


def _unpacked(packed: bytes, largest: int) -> bytes:
    """What gzip packed, up to so many bytes; what is damaged ends it."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        return unpacker.decompress(packed, largest)
    except zlib.error:
        return b""
