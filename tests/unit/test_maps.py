"""The maps' layouts in Python: what is packed comes back, and the bytes are those of the agent."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from harness.program.maps import AuditRecord, Destination, audit_key

addresses = st.integers(0, 2**32 - 1).map(lambda number: str(ipaddress.IPv4Address(number)))
ports = st.integers(0, 65535)
words = st.integers(0, 2**32 - 1)


@given(st.builds(Destination, addresses, ports, st.integers(0, 255)))
def test_destination_comes_back(destination: Destination) -> None:
    assert Destination.unpack(destination.pack()) == destination


@given(st.builds(AuditRecord, words, words, st.booleans(), addresses, ports))
def test_record_comes_back(record: AuditRecord) -> None:
    assert AuditRecord.unpack(record.pack()) == record


def test_bytes_are_in_network_byte_order() -> None:
    imds = Destination("169.254.169.254", 80)
    assert imds.pack() == bytes([169, 254, 169, 254]) + bytes(12) + b"\x00\x50\x00\x00" + b"\x06\x00\x00\x00"
    assert audit_key(0x1234) == b"\x06\x00\x00\x00" + b"\x12\x34\x00\x00"
    record = AuditRecord(1000, 7, False, "168.63.129.16", 32526)
    assert record.pack()[12:] == bytes([168, 63, 129, 16]) + b"\x7f\x0e\x00\x00"
