"""Bundles that mean harm: bounded time and memory, a note of what was left out, never an exception, nothing written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from harness.diagnose import intake
from harness.diagnose.facts import AgentStatus, Mounts, NoteKind
from harness.diagnose.limits import Limits
from tests.unit.diagnose.bundles import assert_safe, read_apart

GIB = 1 << 30
PEAK = 250 << 20  # bytes of resident memory that no bundle may need
STATUS = (
    b'{"timestamp": "2026-11-24T10:00:00Z", "proxyAgentStatus": {"version": "1.0.30", "status": "SUCCESS",'
    b' "keyLatchStatus": {"status": "RUNNING", "message": "", "states": {"keyGuid": "a"}}}}\n'
)


def zeros(size: int) -> io.RawIOBase:
    return _Zeros(size)


class _Zeros(io.RawIOBase):
    def __init__(self, size: int):
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._left)
        buffer[:count] = b"a" * count
        self._left -= count
        return count


def _copy(source: io.RawIOBase, write: Callable[[bytes], object]) -> None:
    while chunk := source.read(1 << 20):
        write(chunk)


# --- archive bombs ------------------------------------------------------------------------------------------------


def test_a_zip_bomb(tmp_path: Path) -> None:
    """One member of 1 GiB in 1 MB, and a good file behind it."""
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.log", "w") as member:
            _copy(zeros(GIB), member.write)
        archive.writestr("status.json", STATUS)
    assert path.stat().st_size < GIB / 900
    found = read_apart(path)
    assert found.told("what follows the first 64 MiB")
    assert "AgentStatus" in found.facts  # the rest of the bundle is read
    assert found.peak < PEAK


def test_a_zip_member_without_a_name(tmp_path: Path) -> None:
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("xy", STATUS)
    data = bytearray(inside.getvalue().replace(b"xy", b""))
    for sign, at in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):  # the length of the name, in both headers
        begin = data.find(sign) + at
        data[begin : begin + 2] = b"\0\0"
    end = data.find(b"PK\x05\x06")
    for field, less in ((12, 2), (16, 2)):  # the directory's size and place
        (value,) = struct.unpack_from("<L", data, end + field)
        struct.pack_into("<L", data, end + field, value - less)
    path = tmp_path / "bundle.zip"
    path.write_bytes(data)
    assert [member.filename for member in zipfile.ZipFile(path).infolist()] == [""]
    found = intake.read([path])
    assert_safe(found)
    assert found.of(AgentStatus) or found.notes


def test_a_zip_whose_members_are_one(tmp_path: Path) -> None:
    """A thousand entries of the directory share the bytes of one member: 64 GiB out of 64 KiB."""
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as member:
        _copy(zeros(60 << 20), member.write)
    data = inside.getvalue()
    end = data.rfind(b"PK\x05\x06")
    begin = struct.unpack("<L", data[end + 16 : end + 20])[0]
    entry = data[begin:end]
    tail = bytearray(data[end:])
    struct.pack_into("<HHLL", tail, 8, 1000, 1000, 1000 * len(entry), begin)
    path = tmp_path / "bundle.zip"
    path.write_bytes(data[:begin] + entry * 1000 + tail)
    found = read_apart(path)
    # newer zipfiles see it themselves
    assert found.told("Overlapped entries") or found.told("the archives unpack to more than 768 MiB")
    assert len(found.notes) < 40
    assert found.peak < PEAK


def test_zips_in_zips(tmp_path: Path) -> None:
    """The quine's kin: each level holds several of the next."""
    data = STATUS
    for level in range(8):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(4):
                archive.writestr(f"{level}-{number}.zip" if level else f"{number}.json", data)
        data = packed.getvalue()
    path = tmp_path / "bundle.zip"
    path.write_bytes(data)
    found = read_apart(path)
    assert found.told("archives more than 4 deep")
    assert found.peak < PEAK


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_a_compressed_bomb(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ProxyAgent.log.packed"
    with path.open("wb") as file:
        if kind == "gzip":
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as out:
                _copy(zeros(GIB), out.write)
        elif kind == "bzip2":
            chunk = bz2.compress(bytes(1 << 20))
            file.write(chunk * 1024)
        elif kind == "xz":
            chunk = lzma.compress(b"a" * (1 << 20), preset=0)
            file.write(chunk * 1024)
        else:
            with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as out:
                _copy(zeros(GIB), out.write)
    found = read_apart(path)
    assert found.told("what follows the first 64 MiB")
    assert found.peak < PEAK


def test_a_tar_bomb_on_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.log")
            info.size = 300 << 20
            archive.addfile(info, io.BufferedReader(zeros(info.size)))
    found = read_apart("-", stdin=path)
    assert found.told("the archives unpack to more than 768 MiB")
    assert found.peak < PEAK


def test_memory_that_a_window_asks_for() -> None:
    """xz and zstd may ask for as much memory as they like; they get `window`."""
    small = Limits(window=1 << 20)
    packed = lzma.compress(STATUS, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 16 << 20}])
    found = intake.read_bytes(packed, "status.json.xz", limits=small)
    assert any("Memory usage limit" in note.what for note in found.notes)
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=False)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = writer.compress(os.urandom(1 << 20)) + writer.flush()
    found = intake.read_bytes(packed, "status.json.zst", limits=small)
    assert any(note.kind is NoteKind.DAMAGED for note in found.notes)


# --- archives that lie --------------------------------------------------------------------------------------------


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_a_tar_with_devices_links_and_names(tmp_path: Path) -> None:
    data = _tar(
        (_info("disk", tarfile.BLKTYPE), b""),
        (_info("tty", tarfile.CHRTYPE), b""),
        (_info("pipe", tarfile.FIFOTYPE), b""),
        (_info("passwd", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (_info("shadow", tarfile.LNKTYPE, "/etc/shadow"), b""),
        (_info("../../../etc/cron.d/x"), STATUS),
        (_info("/etc/absolute"), STATUS),
        (_info("red\x1b[31m\nname"), STATUS),
        (_info("latin\udce9.json"), STATUS),
        (_info("x" * 5000), STATUS),
    )
    before = sorted(tmp_path.rglob("*"))
    found = intake.read_bytes(data, "bundle.tar")
    assert sorted(tmp_path.rglob("*")) == before
    assert_safe(found)
    assert len(found.of(AgentStatus)) == 5
    told = {(note.document.split("/", 1)[1], note.what) for note in found.notes}
    assert {("disk", "a device"), ("tty", "a device"), ("pipe", "a device")} <= told
    assert {("passwd", "a link"), ("shadow", "a link")} <= told
    assert sum("leads out of the archive" in what for _, what in told) == 2
    names = [document.name for document in found.documents]
    assert "bundle.tar/red\\x1b[31m\\nname" in names
    assert "bundle.tar/latin\\xe9.json" in names


def test_a_tar_whose_sizes_lie(tmp_path: Path) -> None:
    """A pax header and a member that claim 8 GiB each, in an archive of 2 KiB."""
    for kind in (b"x", b"L", b"0"):
        header = bytearray(_tar((_info("status.json"), STATUS))[:512])
        header[156:157] = kind
        header[124:136] = b"100000000000"  # octal: 8 GiB
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path = tmp_path / f"bundle-{kind[0]}.tar"
        path.write_bytes(bytes(header) + b"10 a=b\n".ljust(1024, b"\0"))
        found = read_apart(path)
        assert any(kind == "damaged" for kind, _, _ in found.notes)
        assert found.peak < PEAK


def test_a_zip_whose_directory_claims_much(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(10 * GIB)
        file.seek(0, 2)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 0xF0000000, 16, 0))
    found = read_apart(path)
    assert found.told("the zip's directory claims 4,026,531,840 bytes")
    assert found.peak < PEAK


def test_links_devices_and_passwords_in_a_zip() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        device = zipfile.ZipInfo("device")
        device.external_attr = 0o020666 << 16
        archive.writestr(device, "")
        archive.writestr("../../up.json", STATUS)
        archive.writestr("good.json", STATUS)
    data = bytearray(packed.getvalue())
    found = intake.read_bytes(bytes(data), "b.zip")
    assert_safe(found)
    assert len(found.of(AgentStatus)) == 2
    assert {"a link", "a device or pipe"} <= {note.what for note in found.notes}
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1  # encrypted, says the directory
    found = intake.read_bytes(bytes(data), "b.zip")
    assert any(note.what.startswith("encrypted") for note in found.notes)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_archives_that_are_cut(keep: float) -> None:
    tar = _tar(*((_info(f"{number}/status.json"), STATUS) for number in range(20)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"{number}/status.json", STATUS)
    for data in (tar, packed.getvalue(), gzip.compress(tar), bz2.compress(tar), lzma.compress(tar)):
        found = intake.read_bytes(data[: int(len(data) * keep)], "bundle")
        assert_safe(found)
        # all was read where only the padding at the end is gone
        assert any(note.kind is NoteKind.DAMAGED for note in found.notes) or len(found.of(AgentStatus)) == 20


# --- files --------------------------------------------------------------------------------------------------------


def test_a_sparse_file_of_10_gb(tmp_path: Path) -> None:
    """What stands at its beginning and at its end is read; the hole is not."""
    path = tmp_path / "ProxyAgent.log"
    with path.open("wb") as file:
        file.write(b"2026-11-24T10:00:00.000Z [INFO]    the beginning\n")
        file.truncate(10 * GIB)
        file.seek(0, 2)
        file.write(b"\n2026-11-24T11:00:00.000Z [ERROR]   the end\n")
    found = read_apart(path)
    assert found.facts.count("AgentLogEvent") == 2
    assert found.told("bytes in its middle")
    assert found.peak < PEAK
    hole = tmp_path / "hole"
    with hole.open("wb") as file:
        file.truncate(10 * GIB)
    found = read_apart(hole, stdin=None)
    assert not found.facts
    assert found.peak < PEAK


def test_a_directory_of_traps(tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "status.json").write_bytes(STATUS)
    (root / "passwd").symlink_to("/etc/passwd")
    (root / "loop").symlink_to(root)
    (root / "nowhere").symlink_to("nothing")
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "\x1b]0;title\x07")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe\n.json")).write_bytes(STATUS)
    deep = root
    for _ in range(60):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "status.json").write_bytes(STATUS)
    found = intake.read([root])
    assert_safe(found)
    assert len(found.of(AgentStatus)) == 2
    whats = [note.what for note in found.notes]
    assert whats.count("a link, which is not followed") == 3
    assert whats.count("a device, pipe or socket") == 2
    assert any("folders more than 32 deep" in what for what in whats)
    assert "\\xff\\xfe\\n.json" in [document.name for document in found.documents]


def test_more_files_than_are_read(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.json").write_bytes(STATUS)
    found = intake.read([tmp_path], limits=Limits(documents=10))
    assert len(found.of(AgentStatus)) == 10
    assert [note.what for note in found.notes if note.kind is NoteKind.LEFT_OUT]


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads everything: EACCES is made up, and told by its name."""
    (tmp_path / "secret").write_bytes(STATUS)
    (tmp_path / "status.json").write_bytes(STATUS)
    real = os.open

    def refuse(path: os.PathLike[str] | str, *rest: int) -> int:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    found = intake.read([tmp_path])
    assert len(found.of(AgentStatus)) == 1
    assert "EACCES" in found.notes[0].what


# --- texts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [100, 5_000, 200_000])
def test_deep_json(levels: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = opening * levels + "1" + closing * levels
        found = intake.read_bytes(text.encode() + b"\n" + STATUS, "deep.json")
        assert_safe(found)
        assert len(found.of(AgentStatus)) == 1
    deep = b'{"error": ' * levels + b'{"code": "OSProvisioningTimedOut", "message": "m"}' + b"}" * levels
    assert_safe(intake.read_bytes(deep, "error.json"))


def test_json_with_numbers_without_end() -> None:
    number = b"9" * 10_000
    found = intake.read_bytes(b'{"proxyAgentStatus": {"status": "ERROR", "proxyConnectionsCount": ' + number + b"}}")
    assert_safe(found)
    assert found.of(AgentStatus)[0].connection_count is None


ENTITIES = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;"><!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;"><!ENTITY x SYSTEM "file:///etc/passwd">]>
<Environment><ProvisioningSection><HostName>&e;&x;</HostName></ProvisioningSection>
<PlatformSettings><ProvisionGuestProxyAgent>true</ProvisionGuestProxyAgent></PlatformSettings></Environment>
"""


def test_xml_entities() -> None:
    found = intake.read_bytes(ENTITIES, "ovf-env.xml")
    assert_safe(found)
    assert any("entities" in note.what for note in found.notes)
    assert "root:" not in str(found)
    event = ENTITIES.replace(b"<Environment>", b"<Event>").replace(b"</Environment>", b"</Event>")
    assert_safe(intake.read_bytes(event, "events.xml"))


def test_deep_xml() -> None:
    for tag in ("Event", "Environment"):
        text = f"<{tag}><ProvisioningSection>" + "<a>" * 100_000 + "</a>" * 100_000 + f"</ProvisioningSection></{tag}>"
        assert_safe(intake.read_bytes(text.encode(), "deep.xml"))


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\x9b31m\u202eevil\u2066\r\x08\x00\x7f"


def test_terminal_escapes_reach_no_fact() -> None:
    lines = [
        f"2026-11-24T10:00:00.000Z [ERROR]   {ESCAPES}",
        f"Nov 24 10:00:00 vm1 azure-proxy-agent[1]: {ESCAPES}",
        '{"proxyAgentStatus": {"version": "%s", "keyLatchStatus": {"status": "%s", "message": "%s",'
        ' "states": {"%s": "%s"}}}}' % (("\\u001b[31m\\u202e\\ud800\\u0007",) * 5),
        '[{"timestampUTC":"\\u001b","status":{"name":"\\u001b","operation":"\\u001b","status":"\\u001b","code":1,'
        '"formattedMessage":{"message":"\\u001b]0;x\\u0007"},"substatus":[]}}]',
        '{"error":{"code":"\\u001b[1m","message":"\\u001b[31m"}}',
        '{"__REALTIME_TIMESTAMP":"1","MESSAGE":[27,91,51,49,109],"_HOSTNAME":"\\u001b[31m"}',
        f"root@vm1:~# echo '{ESCAPES}'",
        "<Event><System><Provider Name='a&#x9b;31m'/><EventID>1</EventID></System></Event>",
    ]
    for text in (*lines, "\n".join(lines)):
        assert_safe(intake.read_bytes(text.encode("utf-8", "surrogatepass"), ESCAPES))


def test_huge_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with path.open("wb") as file:
        file.write(b"2026-11-24T10:00:00.000Z [ERROR]   ")
        for _ in range(50):
            file.write(b"x " * (1 << 19))
        file.write(b"\n" + STATUS)
    found = read_apart(path)
    assert "AgentLogEvent" in found.facts
    assert "AgentStatus" in found.facts
    assert found.told("lines longer than 32,768 characters")
    assert found.peak < PEAK


def test_octal_digits_of_mountinfo_are_not_obeyed(tmp_path: Path) -> None:
    r"""`\033` is what a terminal obeys, `\x` and `\N{` what Python's own unescaping would stumble over."""
    line = r"36 35 0:31 / /sys/fs/cgroup\033[31m\x\N{a\134 rw,nosuid - cgroup2 cgroup2 rw"
    found = intake.read_bytes(f"{line}\n".encode(), "mountinfo")
    assert_safe(found)
    assert [str(row.point) for fact in found.of(Mounts) for row in fact.cgroup2] == [
        "/sys/fs/cgroup\\x1b[31m\\x\\N{a\\"
    ]
