"""Bytes that come one after the other: bounded, with a look ahead; and what unpacks them."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol, cast

from harness.diagnose.budget import Budget
from harness.diagnose.limits import Limits

CHUNK = 1 << 18


class Damaged(Exception):
    """The bytes are not what their beginning says; str() says how."""


class Stream:
    """read(n) gives n bytes, fewer only at the end. peek(n) gives them without taking them."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks = chunks
        self._held = bytearray()
        self.taken = 0  # bytes that were read
        self.damage = ""  # why the bytes ended before their end

    def _fill(self, size: int) -> None:
        while len(self._held) < size:
            try:
                chunk = next(self._chunks, None)
            except Damaged as error:
                self.damage = str(error)
                chunk = None
            if chunk is None:
                self._chunks = iter(())
                return
            self._held += chunk

    def peek(self, size: int) -> bytes:
        self._fill(size)
        return bytes(self._held[:size])

    def read(self, size: int) -> bytes:
        self._fill(size)
        taken = bytes(self._held[:size])
        del self._held[:size]
        self.taken += len(taken)
        return taken

    def pieces(self, size: int | None = None) -> Iterator[bytes]:
        """All that is left, or size bytes, in pieces."""
        left = size
        while left is None or left > 0:
            piece = self.read(CHUNK if left is None else min(left, CHUNK))
            if not piece:
                return
            if left is not None:
                left -= len(piece)
            yield piece

    def skip(self, size: int) -> bool:
        """Pass over size bytes; whether there were so many."""
        return sum(len(piece) for piece in self.pieces(size)) == size


class _Decompressor(Protocol):
    """What bz2 and lzma give, and _Deflate makes of zlib."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Deflate:
    """zlib's object with the interface of the other two."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)  # gzip's header and trailer

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


def kind(head: bytes) -> str | None:
    """How the bytes are packed, by their first; None when they are not."""
    return next((name for magic, name in _KINDS if head.startswith(magic)), None)


def _maker(name: str, limits: Limits) -> Callable[[], _Decompressor]:
    if name == "gzip":
        return _Deflate
    if name == "bzip2":
        return bz2.BZ2Decompressor
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.window)


def unpacked(packed: Stream, name: str, budget: Budget) -> Stream:
    """What a stream unpacks to, charged to the budget as it is read. Raises Exhausted (when read)."""
    chunks = _zstd(packed, budget) if name == "zstd" else _inflated(packed, _maker(name, budget.limits), budget)
    return Stream(chunks)


def _inflated(packed: Stream, make: Callable[[], _Decompressor], budget: Budget) -> Iterator[bytes]:
    inner = make()
    try:
        while True:
            if inner.eof:  # members may follow each other; what else follows is padding
                data = inner.unused_data + packed.read(CHUNK)
                if not data.strip(b"\0"):
                    return
                inner = make()
            elif inner.needs_input:
                data = packed.read(CHUNK)
                if not data:
                    raise Damaged("it ends before its end")
            else:
                data = b""
            chunk = inner.decompress(data, CHUNK)
            budget.spend("inflated", len(chunk))
            if chunk:
                yield chunk
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise Damaged(f"it cannot be unpacked further: {error}") from error


def _zstd(packed: Stream, budget: Budget) -> Iterator[bytes]:
    import zstandard

    reader = zstandard.ZstdDecompressor(max_window_size=budget.limits.window).stream_reader(
        cast("IO[bytes]", _File(packed)), read_size=CHUNK, read_across_frames=True
    )
    try:
        while chunk := reader.read(CHUNK):
            budget.spend("inflated", len(chunk))
            yield chunk
    except zstandard.ZstdError as error:
        raise Damaged(f"it cannot be unpacked further: {error}") from error


class _File:
    """A stream as zstandard wants it."""

    def __init__(self, stream: Stream):
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(CHUNK if size < 0 else size)
