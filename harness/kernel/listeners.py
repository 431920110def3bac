"""Who listens on TCP in the caller's network namespace: /proc/net/tcp."""

from __future__ import annotations

import socket
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h


def parse(text: str) -> list[tuple[str, int]]:
    """(address, port) of each listening line; an address is 32 bits in the machine's byte order, a port in hex."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[3] == _LISTEN:
            address, _, port = words[1].partition(":")
            raw = int(address, 16).to_bytes(4, "little" if _little() else "big")
            found.append((socket.inet_ntoa(raw), int(port, 16)))
    return found


def _little() -> bool:
    return socket.htons(1) != 1


def listeners() -> list[tuple[str, int]]:
    return parse(Path("/proc/self/net/tcp").read_text())
