"""The capture's own reading of headers against scapy's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from harness.lab.capture import Packet, dissect

ADDRESSES = st.ip_addresses(v=4).map(str)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, ADDRESSES, PORTS, PORTS, st.integers(0, 0x1FF), st.binary(max_size=20), st.booleans())
def test_tcp_and_udp_as_scapy_reads_them(
    source: str, destination: str, source_port: int, port: int, flags: int, payload: bytes, options: bool
) -> None:
    ip = IP(src=source, dst=destination, options=[b"\x01"] * 4 if options else [])
    tcp, udp = TCP(sport=source_port, dport=port, flags=flags), UDP(sport=source_port, dport=port)
    for transport, protocol in ((tcp, "tcp"), (udp, "udp")):
        frame = bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / ip / transport / payload)
        read = Ether(frame)[TCP if protocol == "tcp" else UDP]
        letters = str(read.flags) if protocol == "tcp" else ""
        assert dissect(frame) == Packet(protocol, source, read.sport, destination, read.dport, letters)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: bytes(12) + b"\x08\x00" + rest))
def test_any_frame_is_a_packet_or_nothing(frame: bytes) -> None:
    packet = dissect(frame)
    assert packet is None or packet.protocol in ("tcp", "udp")


def test_a_later_fragment_has_no_ports() -> None:
    ip = IP(src="10.0.0.4", dst="169.254.169.254", frag=3, proto=6)
    frame = bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / ip / (b"\x00\x50" * 12))
    assert dissect(frame) is None
