"""What host and guest say to each other over the virtio-serial port `job`: JSON objects, each behind its length.

    guest: {"booted": …}    all is mounted and imported; why cgroups could not be laid out as wanted, if so
    host:  {"prepare": …}   files and environment; where the guest is to be saved
    guest: {"ready": …}     what every job needs is made: now it may be saved
    host:  {"job": …}       command line, files, environment, time, seed
    guest: {"accepted": …}  it has the job: a resumed guest is alive
    guest: {"ended": …}     exit status and report; in place of ready, too, when what prepares ends

A guest that is to write down its interpreter (harness.vm.interpreter) says nothing of that, but

    guest: {"writing": …}   all is mounted and imported
    guest: {"written": …}   how many bytes it has written to the port stdout

A message is four bytes (its length in bytes, big-endian) and JSON in UTF-8. Bytes in it are base64.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.errors import HarnessError

PORT = "job"
"""The port's name in the guest (/sys/class/virtio-ports/*/name)."""

INTERPRETER = "/dev/vdb"
"""Where a guest finds an interpreter that was written down (harness.vm.interpreter), and what it maps of it."""

STDOUT, STDERR = "stdout", "stderr"
"""Ports that take what the job prints."""

PORTS = (PORT, STDOUT, STDERR)

_LENGTH = 4  # bytes
_LARGEST = 256 << 20  # bytes of a message; a job may carry somebody's object


def packed(message: Mapping[str, Any]) -> bytes:
    content = json.dumps(message).encode()
    return len(content).to_bytes(_LENGTH, "big") + content


class Unpacker:
    """Bytes in pieces as they come, messages out."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The messages that are whole with this piece. Raises HarnessError for what is no message."""
        self._waiting += piece
        while len(self._waiting) >= _LENGTH:
            length = int.from_bytes(self._waiting[:_LENGTH], "big")
            if length > _LARGEST:
                raise _garbled(f"a message of {length} bytes")
            if len(self._waiting) < _LENGTH + length:
                return
            content = bytes(self._waiting[_LENGTH : _LENGTH + length])
            del self._waiting[: _LENGTH + length]
            try:
                message = json.loads(content)
            except ValueError as error:
                raise _garbled(f"no JSON ({error})") from error
            except RecursionError as error:
                raise _garbled("JSON that is nested too deeply") from error
            if not isinstance(message, dict):
                raise _garbled("JSON that is no object")
            yield message


def _garbled(what: str) -> HarnessError:
    return HarnessError("read the guest's port", f"there came {what}")
