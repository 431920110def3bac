"""What reading evidence may cost: every bound in one table. Whatever a bound leaves out is told in a Note."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bytes where nothing else is said. All hold for one read()."""

    document: int = 16 * _MIB  # of one document that are kept: its first tenth and its end
    unpacked: int = 64 * _MIB  # that one member of an archive may unpack to
    total: int = 256 * _MIB  # of all documents that are read
    inflated: int = 768 * _MIB  # that all archives together may unpack to
    documents: int = 20_000  # number of files and members
    nesting: int = 4  # archives in archives
    archive: int = 128 * _MIB  # of a zip that is held in memory: one in an archive, or on standard input
    folders: int = 32  # levels of a directory
    directory: int = 4 * _MIB  # of a zip's central directory
    name: int = 1 << 16  # of a name, and of a header that holds one
    window: int = 128 * _MIB  # memory that xz and zstd may ask for
    xml: int = 4 * _MIB  # of one XML document
    line: int = 1 << 15  # characters of a line that readers of text see
    entries: int = 4_000  # different entries of one log
    notes: int = 200  # number of notes that are told one by one
    same_notes: int = 10  # of those with the same words


LIMITS = Limits()
