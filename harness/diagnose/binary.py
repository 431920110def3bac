"""Files that are no text: what they are, and the command that makes a text of them."""

from __future__ import annotations

KINDS: tuple[tuple[bytes, str], ...] = (
    (b"LPKSHHRH", "a binary journal: send `journalctl --file FILE -o short-iso` of it"),
    (b"ElfFile\0", "a Windows event log (.evtx): send `wevtutil query-events FILE /logfile:true /format:xml` of it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: send it as zip or tar"),
    (b"Rar!\x1a\x07", "a RAR archive: send it as zip or tar"),
    (b"MSCF", "a cabinet archive: unpack it with `expand` and send it as zip"),
    (b"\x7fELF", "an ELF file: `msp-harness verify --object` reads eBPF objects"),
    (b"MZ", "a Windows program"),
    (b"\x89PNG", "a picture: send what it shows as text"),
    (b"\xff\xd8\xff", "a picture: send what it shows as text"),
    (b"%PDF", "a PDF: send what it shows as text"),
    (b"\xd0\xcf\x11\xe0", "an Office document or Outlook mail: send what it shows as text"),
    (b"conectix", "a disk image"),
    (b"QFI\xfb", "a disk image"),
    (b"\xd4\xc3\xb2\xa1", "a capture of network traffic"),
    (b"\x0a\x0d\x0d\x0a", "a capture of network traffic"),
    (b"SQLite format 3\0", "an SQLite database"),
)


def kind(head: bytes) -> str | None:
    """What a binary file is, by its first bytes; None where they say nothing. Two letters alone say nothing."""
    return next((what for magic, what in KINDS if len(magic) > 2 and head.startswith(magic)), None)


def describe(head: bytes) -> str:
    """What a file is that is known to be binary."""
    return next((what for magic, what in KINDS if head.startswith(magic)), "no text")
