"""What crosses the veth, seen from the fabric's side: a packet socket that is read when somebody asks.

Packets wait in the socket's buffer, so nothing has to run while traffic flows, and what a client has sent is there
before its connect() returns. scapy takes the packets apart.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h
_BUFFER = 64 << 20  # bytes


@dataclass(frozen=True)
class Packet:
    """An IPv4 TCP or UDP packet: who sent what to whom."""

    protocol: str  # tcp, udp
    source: str
    source_port: int
    destination: str
    port: int
    flags: str = ""  # TCP's, as scapy writes them: S, SA, PA …

    @property
    def opens(self) -> bool:
        """Whether this begins something: the first SYN of a connection, or a UDP datagram."""
        return self.flags == "S" if self.protocol == "tcp" else True


class Capture:
    """Open a capture on a device of the caller's network namespace. Needs CAP_NET_RAW."""

    def __init__(self, device: str):
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind((device, 0))
        self._socket.setblocking(False)

    def drain(self) -> tuple[list[Packet], int]:
        """The packets since the last call, and how many the kernel dropped for want of room."""
        frames = []
        while True:
            try:
                frames.append(self._socket.recv(65536))
            except BlockingIOError:
                break
        _, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return [packet for packet in map(dissect, frames) if packet is not None], dropped


def dissect(frame: bytes) -> Packet | None:
    """An Ethernet frame's TCP or UDP over IPv4; None for anything else."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.l2 import Ether

    packet = Ether(frame)
    if not packet.haslayer(IP):
        return None
    ip = packet[IP]
    if packet.haslayer(TCP):
        tcp = packet[TCP]
        return Packet("tcp", ip.src, tcp.sport, ip.dst, tcp.dport, str(tcp.flags))
    if packet.haslayer(UDP):
        return Packet("udp", ip.src, packet[UDP].sport, ip.dst, packet[UDP].dport)
    return None
