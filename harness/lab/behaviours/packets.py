"""Behaviours that are no TCP connect: datagrams, and a SYN made by hand."""

from __future__ import annotations

import socket
import struct
import time

from harness.lab import topology
from harness.lab.behaviours.common import place
from harness.lab.clients import Request, Seen, Stage

_SYN = 0x02
_SYN_ACK = 0x12
_SEQUENCE = 0x4D535021


def udp_connected(request: Request, stage: Stage) -> Seen:
    """connect() of a UDP socket runs the same hook, with protocol 17."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(place(request))
        peer, port = client.getpeername(), client.getsockname()[1]
        client.send(b"msp-harness")
        return Seen(peer=f"{peer[0]}:{peer[1]}", source_port=port)


def udp_unconnected(request: Request, stage: Stage) -> Seen:
    """sendto() without connect() runs the sendmsg4 hook instead."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"msp-harness", place(request))
        return Seen(source_port=client.getsockname()[1])


def raw_syn(request: Request, stage: Stage) -> Seen:
    """A SYN of the client's own making through a raw socket, and the endpoint's SYN-ACK to it."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as ears,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as client,
    ):
        client.sendto(segment(topology.VM_ADDRESS, request.source_port, *place(request)), (request.address, 0))
        heard = _await_syn_ack(ears, request)
        return Seen(source_port=request.source_port, notes={"syn-ack": heard})


def _await_syn_ack(ears: socket.socket, request: Request) -> bool:
    deadline = time.monotonic() + request.patience
    while (remaining := deadline - time.monotonic()) > 0:
        ears.settimeout(remaining)
        try:
            packet = ears.recv(65536)
        except TimeoutError:
            break
        header = (packet[0] & 0x0F) * 4
        source, target = struct.unpack_from("!HH", packet, header)
        answers = struct.unpack_from("!I", packet, header + 8)[0] == _SEQUENCE + 1
        ours = (source, target) == (request.port, request.source_port)
        if ours and answers and packet[header + 13] & _SYN_ACK == _SYN_ACK:
            return True
    return False


def segment(source: str, source_port: int, target: str, port: int) -> bytes:
    """A TCP SYN without options, its checksum over the pseudo-header of RFC 9293, section 3.1."""
    bare = struct.pack("!HHIIBBHHH", source_port, port, _SEQUENCE, 0, 5 << 4, _SYN, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(bare))
    return bare[:16] + struct.pack("!H", checksum(pseudo + bare)) + bare[18:]


def checksum(data: bytes) -> int:
    """RFC 1071's checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
