"""The layouts of the redirector's maps, and what is in them: bpf/connect4.h in Python.

Addresses are dotted strings and ports plain numbers here; in the maps both are in network byte order, a port in the
low 16 bits of its word.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.kernel import bpf

IPPROTO_TCP = 6


@dataclass(frozen=True)
class Layout:
    """A map as shared/facts/agent.md of the project's guide gives it; sizes in bytes."""

    type: bpf.MapType
    key_size: int
    value_size: int
    entries: int


LAYOUTS = {
    "policy_map": Layout(bpf.MapType.HASH, 24, 24, 10),
    "skip_process_map": Layout(bpf.MapType.HASH, 4, 4, 10),
    "audit_map": Layout(bpf.MapType.LRU_HASH, 8, 20, 200),
    "local_map": Layout(bpf.MapType.LRU_HASH, 8, 24, 200),
}
"""The agent's maps. Ours have its layouts and types; audit_map and local_map have more entries (AUDIT_ENTRIES)."""

AUDIT_ENTRIES = 4096
"""The entries of our audit_map and local_map: bpf/connect4.c's default."""


@dataclass(frozen=True, order=True)
class Destination:
    """Where a connect wants to go, or goes instead."""

    address: str
    port: int
    protocol: int = IPPROTO_TCP

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"

    def pack(self) -> bytes:
        port = socket.htons(self.port)
        return socket.inet_aton(self.address) + bytes(12) + struct.pack("=II", port, self.protocol)

    @classmethod
    def unpack(cls, raw: bytes) -> Destination:
        port, protocol = struct.unpack_from("=II", raw, 16)
        return cls(socket.inet_ntoa(raw[:4]), socket.ntohs(port & 0xFFFF), protocol)


@dataclass(frozen=True)
class AuditRecord:
    """audit_map's value: who asked (uid, and pid in the initial pid namespace) and for which destination."""

    uid: int
    pid: int
    is_root: bool
    address: str
    port: int

    def pack(self) -> bytes:
        numbers = struct.pack("=III", self.uid, self.pid, self.is_root)
        return numbers + socket.inet_aton(self.address) + struct.pack("=I", socket.htons(self.port))

    @classmethod
    def unpack(cls, raw: bytes) -> AuditRecord:
        uid, pid, is_root = struct.unpack_from("=III", raw)
        (port,) = struct.unpack_from("=I", raw, 16)
        return cls(uid, pid, bool(is_root), socket.inet_ntoa(raw[12:16]), socket.ntohs(port & 0xFFFF))


def audit_key(source_port: int, protocol: int = IPPROTO_TCP) -> bytes:
    return struct.pack("=II", protocol, socket.htons(source_port))


def set_policy(policy_map: bpf.Fd, wanted: Destination, instead: Destination) -> None:
    bpf.map_update(policy_map, wanted.pack(), instead.pack())


def clear_policy(policy_map: bpf.Fd, wanted: Destination) -> bool:
    return bpf.map_delete(policy_map, wanted.pack())


def policies(policy_map: bpf.Fd) -> Iterator[tuple[Destination, Destination]]:
    """The rows of policy_map: what is wanted, and where it goes instead."""
    for key in bpf.map_keys(policy_map, LAYOUTS["policy_map"].key_size):
        value = bpf.map_lookup(policy_map, key, LAYOUTS["policy_map"].value_size)
        if value is not None:
            yield Destination.unpack(key), Destination.unpack(value)


def skip(skip_process_map: bpf.Fd, pid: int) -> None:
    """Let this process (in the initial pid namespace) connect directly."""
    bpf.map_update(skip_process_map, struct.pack("=I", pid), struct.pack("=I", pid))


def unskip(skip_process_map: bpf.Fd, pid: int) -> bool:
    return bpf.map_delete(skip_process_map, struct.pack("=I", pid))


def audit_record(audit_map: bpf.Fd, source_port: int) -> AuditRecord | None:
    """Who made the TCP connection that comes from this port, as the redirector saw it."""
    raw = bpf.map_lookup(audit_map, audit_key(source_port), LAYOUTS["audit_map"].value_size)
    return None if raw is None else AuditRecord.unpack(raw)


def unrecorded(audit_map: bpf.Fd, source_ports: Sequence[int], entries: int) -> bool:
    """Whether one of these TCP connections has no record, in a map of so many entries."""
    layout = LAYOUTS["audit_map"]
    keys = bpf.map_keys_at_once(audit_map, layout.key_size, layout.value_size, entries)
    if keys is None:  # a kernel before 5.6: one by one
        return any(audit_record(audit_map, port) is None for port in source_ports)
    return not keys.issuperset(map(audit_key, source_ports))
