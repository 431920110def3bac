"""A tar stream made here and unpacked in the appliance, through a named pipe: it lies nowhere in between."""

from __future__ import annotations

import errno
import os
import re
import select
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from harness.errors import HarnessError, errno_text
from harness.vm import archives
from harness.vm.appliance import Appliance, quoted

_SECONDS = 900  # to unpack archives.LARGEST bytes under TCG
_WAIT = 0.02  # seconds between two looks whether the pipe has a reader
_PIECE = 1 << 20

BLOCK = 512
"""Bytes of a block of tar."""

GAVE_UP = re.compile("not recoverable|Skipping to next header")
"""tar(1)'s words where it left out some of an archive; an extended expression for grep(1), too."""

CUT_OFF = "it is cut off: a tar ends with blocks of zeros"
WHOLE = "copy it again, whole; where its maker leaves the end out, pack it again with tar(1)"

Writer = Callable[[BinaryIO], None]
"""Writes an archive to a stream."""


def unpack(appliance: Appliance, work: Path, writer: Writer, directory: str) -> str:
    """Unpack what the writer writes into a directory of the mounted disk; what tar complained of, or nothing.

    work is a directory of this run's own. Raises what the writer raises, and HarnessError where tar gave up half way.
    """
    pipe = work / "stream"
    os.mkfifo(pipe, 0o600)
    sending = _Sending(pipe, writer)
    try:
        before = appliance.complaints()
        appliance.ask(f"-tar-in {quoted(str(pipe))} {quoted(directory)} xattrs:true", _SECONDS)
        complained = appliance.complaints() != before
    finally:
        sending.end()
        pipe.unlink()
    if sending.failed is not None:
        raise sending.failed
    said = appliance.said() if complained else ""
    if GAVE_UP.search(said):
        raise HarnessError("unpack the archive", said, WHOLE)
    return said


def copying(path: Path) -> Writer:
    """The writer of an archive that lies in a file, packed or not. It raises HarnessError for one without its end.

    tar(1) takes an archive that was cut off between two members for a whole one.
    """

    def write(target: BinaryIO) -> None:
        end = b""
        with archives.unpacked(path) as file:
            while piece := file.read(_PIECE):
                target.write(piece)
                end = (end + piece)[-BLOCK:]
        if end != bytes(BLOCK):
            raise HarnessError(f"read {path.name}", CUT_OFF, WHOLE)

    return write


class _Sending:
    """A thread that writes to a pipe until all is written, or nobody reads, or it is ended."""

    def __init__(self, pipe: Path, writer: Writer):
        self._pipe, self._writer = pipe, writer
        self._ended = threading.Event()
        self.failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        descriptor = self._opened()
        if descriptor is None:
            return
        try:
            target = _Pipe(descriptor, self._ended)
            self._writer(target)  # type: ignore[arg-type]
        except _NobodyReads:
            pass  # tar has seen the end of the archive, or failed: it says so itself
        except OSError as error:
            happened = errno_text(error.errno or 0)
            self.failed = HarnessError(f"read {error.filename or 'the image'}", happened, errno=error.errno or 0)
        except Exception as error:
            self.failed = error
        finally:
            os.close(descriptor)

    def _opened(self) -> int | None:
        while not self._ended.is_set():
            try:
                return os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads yet
                    return None
                self._ended.wait(_WAIT)
        return None


class _NobodyReads(Exception):
    """No error of the archive's: whoever writes is to stop. No OSError, which would be told as one of the file's."""


class _Pipe:
    """A file to write to, that gives up when nobody reads any more."""

    def __init__(self, descriptor: int, ended: threading.Event):
        self._descriptor, self._ended = descriptor, ended

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            if self._ended.is_set():
                raise _NobodyReads
            if select.select([], [self._descriptor], [], 0.5)[1]:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise _NobodyReads from None
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""
