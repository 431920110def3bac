"""What a customer sends, in whatever it is packed: the same facts, and names that say where they stood."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
import zstandard

from harness.diagnose import facts as f
from harness.diagnose import intake
from harness.diagnose.facts import Evidence, NoteKind
from harness.diagnose.limits import LIMITS, Limits
from harness.errors import HarnessError

FILES = {
    "logs/anything.dat": b'{"timestamp": "2026-11-24T10:00:00Z", "proxyAgentStatus": {"status": "ERROR"}}',
    "logs/1": b"2026-11-24T10:00:00.123Z [ERROR]   Failed to start eBPF/redirector with multiple retries\n",
    "uname": b"5.10.0-32-amd64\n",
    "picture.txt": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
}


def tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def zipped(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return packed.getvalue()


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKED: dict[str, Callable[[], bytes]] = {
    "tar": tar,
    "tar.gz": lambda: gzip.compress(tar()),
    "tar.bz2": lambda: bz2.compress(tar()),
    "tar.xz": lambda: lzma.compress(tar()),
    "tar.zst": lambda: zst(tar()),
    "zip": zipped,
    "zip, stored": lambda: zipped(zipfile.ZIP_STORED),
    "zip, bzip2": lambda: zipped(zipfile.ZIP_BZIP2),
    "gzip in members": lambda: gzip.compress(tar()[:700]) + gzip.compress(tar()[700:]),
    "a tar in a zip": lambda: _in_zip("inner.tar.gz", gzip.compress(tar())),
    "a zip in a tar": lambda: gzip.compress(_in_tar("inner.zip", zipped())),
}


def _in_zip(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, data)
    return packed.getvalue()


def _in_tar(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def check(found: Evidence, prefix: str = "") -> None:
    assert len(found.of(f.AgentStatus)) == 1
    assert len(found.of(f.AgentLogEvent)) == 1
    assert [one.release for one in found.of(f.KernelRelease)] == ["5.10.0-32-amd64"]
    assert found.of(f.AgentStatus)[0].source.document == f"{prefix}logs/anything.dat"
    assert sorted(document.name for document in found.documents) == sorted(prefix + name for name in FILES)
    assert [(note.kind, note.document) for note in found.notes] == [(NoteKind.NOT_UNDERSTOOD, f"{prefix}picture.txt")]
    assert "picture" in found.notes[0].what


@pytest.mark.parametrize("how", PACKED)
def test_every_archive(how: str, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(PACKED[how]())
    inner = {"a tar in a zip": "/inner.tar.gz", "a zip in a tar": "/inner.zip"}.get(how, "")
    check(intake.read([path]), f"{path}{inner}/")
    with path.open("rb") as file:
        check(intake.read(["-"], stdin=file), f"(standard input){inner}/")
    check(intake.read_bytes(path.read_bytes(), "sent"), f"sent{inner}/")
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / "b")
    check(intake.read([folder]), f"b{inner}/")


def mail(*, page: bool = False) -> EmailMessage:
    """A mail as a client saves it: quoted-printable, a wrapped and quoted text, a bundle attached."""
    text = "Grüße,\n\n> root@vm1:~# uname -r\n> 5.4.0-1109-azure\n> root@vm1:~# mount | grep cgroup2\n> root@vm1:~#\n"
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "MSP", "a@example.org", "b@example.org"
    if page:
        message.set_content(
            "<p>" + text.replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>\n"), subtype="html"
        )
    else:
        message.set_content(text, charset="iso-8859-1", cte="quoted-printable")
    message.add_attachment(gzip.compress(tar()), maintype="application", subtype="gzip", filename="logs.tar.gz")
    return message


@pytest.mark.parametrize("page", [False, True])
def test_a_saved_mail(page: bool) -> None:
    found = intake.read_bytes(mail(page=page).as_bytes(), "mail.eml")
    assert [one.release for one in found.of(f.KernelRelease)] == ["5.4.0-1109-azure", "5.10.0-32-amd64"]
    assert found.of(f.KernelRelease)[0].source.document == "mail.eml/part 1"
    assert found.of(f.Mounts)[0].mounts == ()
    assert found.of(f.AgentStatus)[0].source.document == "mail.eml/logs.tar.gz/logs/anything.dat"


def test_mails_in_mails() -> None:
    data = mail().as_bytes()
    for _ in range(12):
        outer = EmailMessage()
        outer["Subject"] = "Fwd"
        outer.add_attachment(data, maintype="application", subtype="octet-stream", filename="../m.eml")
        data = outer.as_bytes()
    found = intake.read_bytes(data, "m.eml")
    assert len(found.documents) == 1
    assert any("leads out of the archive" in note.what for note in found.notes)
    flat = b"MIME-Version: 1.0\nContent-Type: message/rfc822\n\n" * 20_000 + FILES["logs/anything.dat"]
    intake.read_bytes(flat, "m.eml")
    intake.read_bytes(b"Content-Type: text/plain; charset=x\0y\nContent-Transfer-Encoding: base64\n\n%%%", "m.eml")


def test_a_directory_and_files(tmp_path: Path) -> None:
    for name, data in FILES.items():
        path = tmp_path / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    check(intake.read([tmp_path / "bundle"]))
    two = intake.read([tmp_path / "bundle", tmp_path / "bundle" / "uname"])
    assert [one.source.document for one in two.of(f.KernelRelease)] == ["bundle/uname", str(tmp_path / "bundle/uname")]
    (tmp_path / "link").symlink_to(tmp_path / "bundle")  # what the user names is followed
    check(intake.read([tmp_path / "link"]))


def test_a_packed_log_keeps_its_name(tmp_path: Path) -> None:
    path = tmp_path / "ProxyAgent.log.gz"
    path.write_bytes(gzip.compress(FILES["logs/1"]))
    (event,) = intake.read([path]).of(f.AgentLogEvent)
    assert event.source.document == str(tmp_path / "ProxyAgent.log")


def test_a_pipe_and_proc(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(FILES["uname"]))
    writer.start()
    found = intake.read([pipe])
    writer.join()
    assert found.of(f.KernelRelease)
    assert intake.read(["/proc/filesystems"]).of(f.Filesystems)[0].whole
    assert intake.read(["/proc/self/mountinfo"]).of(f.Mounts)[0].mounts


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"cannot read .*nothing: ENOENT .*give a directory, an archive"):
        intake.read([tmp_path / "nothing"])
    with pytest.raises(HarnessError, match="cannot read"):
        intake.read(["a\0b"])


def test_nothing() -> None:
    found = intake.read_bytes(b"")
    assert (list(found.facts), list(found.notes)) == ([], [])
    assert found.first(f.AgentStatus) is None
    assert intake.read([]).documents == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"LPKSHHRH" + bytes(200), "journalctl --file"),
        (b"ElfFile\0" + bytes(200), "wevtutil query-events"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(range(200)), "send it as zip or tar"),
        (b"\x7fELF\2\1\1" + bytes(200), "an ELF file"),
    ],
)
def test_binary_files_are_named_with_what_to_send_instead(data: bytes, words: str) -> None:
    found = intake.read_bytes(data)
    assert words in found.notes[0].what


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    lines = b"".join(b"2026-11-24T10:00:00.000Z [INFO]    entry %05d\n" % number for number in range(20_000))
    path = tmp_path / "ProxyAgent.log"
    path.write_bytes(lines)
    small = Limits(document=100_000, unpacked=2_000_000)
    for found in (
        intake.read([path], limits=small),
        intake.read_bytes(gzip.compress(lines), "ProxyAgent.log.gz", limits=small),
    ):
        messages = [event.message for event in found.of(f.AgentLogEvent)]
        assert messages[0] == "entry 00000"
        assert messages[-1] == "entry 19999"
        assert 500 < len(messages) < 2500
        (note,) = found.notes
        assert "bytes in its middle" in note.what


def test_a_log_with_more_entries_than_are_kept() -> None:
    count = LIMITS.entries + 100
    lines = b"".join(b"2026-11-24T10:00:00.000Z [INFO]    entry %05d\n" % number for number in range(count))
    found = intake.read_bytes(lines, "ProxyAgent.log")
    assert len(found.of(f.AgentLogEvent)) == LIMITS.entries
    assert found.of(f.AgentLogEvent)[-1].message == f"entry {count - 1:05}"
    assert any("entries before the last" in note.what for note in found.notes)


def test_notes_of_one_kind_are_counted(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}").symlink_to("nothing")
    found = intake.read([tmp_path])
    assert len(found.notes) == LIMITS.same_notes + 1
    assert found.notes[-1].what == "40 more: a link, which is not followed"
