"""The platform's DHCP server: what a client learns, and what it is not moved by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from harness.image.azure import dhcp
from harness.image.azure.deployment import Deployment

MACHINE = Deployment()
SERVER = "02:00:00:00:00:01"


def frame(kind: str, mac: str = MACHINE.mac, flags: int = 0, **more: object) -> bytes:
    options = [("message-type", kind), ("param_req_list", [1, 3, 6, 121, 245]), "end"]
    return bytes(
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=more.get("port", 67))
        / BOOTP(op=more.get("op", 1), xid=7, flags=flags, chaddr=bytes.fromhex(mac.replace(":", "")))
        / DHCP(options=options)
    )


def reply(kind: str, **more: object) -> Ether:
    answered = dhcp.answer(frame(kind, **more), MACHINE, SERVER)  # type: ignore[arg-type]
    assert answered is not None
    assert answered[1] is not None
    return Ether(answered[1])


def options(packet: Ether) -> dict[object, object]:
    return {option[0]: option[1] for option in packet[DHCP].options if isinstance(option, tuple)}


@pytest.mark.parametrize(("asked", "kind"), [("discover", 2), ("request", 5)])
def test_a_client_gets_the_one_lease(asked: str, kind: int) -> None:
    packet = reply(asked)
    found = options(packet)
    assert packet[BOOTP].yiaddr == MACHINE.address
    assert packet[BOOTP].xid == 7
    assert found["message-type"] == kind
    assert found["router"] == MACHINE.gateway
    assert found["subnet_mask"] == "255.255.255.0"
    assert found[dhcp.ENDPOINT] == bytes([168, 63, 129, 16])  # four bytes, as cloud-init unpacks them


def test_routes_lead_to_both_metadata_addresses() -> None:
    assert options(reply("request"))["classless_static_routes"] == [
        f"0.0.0.0/0:{MACHINE.gateway}",
        f"168.63.129.16/32:{MACHINE.gateway}",
        f"169.254.169.254/32:{MACHINE.gateway}",
    ]


def test_the_answer_goes_to_whom_it_is_for() -> None:
    assert reply("discover").dst == MACHINE.mac
    assert reply("discover", flags=0x8000).dst == "ff:ff:ff:ff:ff:ff"


def test_what_the_client_wants_is_told() -> None:
    answered = dhcp.answer(frame("discover"), MACHINE, SERVER)
    assert answered is not None
    assert answered[0] == dhcp.Asked("discover", (1, 3, 6, 121, 245))


@pytest.mark.parametrize("kind", ["release", "decline"])
def test_what_wants_no_answer_gets_none(kind: str) -> None:
    answered = dhcp.answer(frame(kind), MACHINE, SERVER)
    assert answered == (dhcp.Asked(kind, (1, 3, 6, 121, 245)), None)


def test_another_machine_gets_nothing() -> None:
    answered = dhcp.answer(frame("discover", mac="52:54:00:00:00:09"), MACHINE, SERVER)
    assert answered is not None
    assert answered[1] is None


@pytest.mark.parametrize("more", [{"port": 53}, {"op": 2}])
def test_what_is_no_client_s_message_is_left_alone(more: dict[str, object]) -> None:
    assert dhcp.answer(frame("discover", **more), MACHINE, SERVER) is None  # type: ignore[arg-type]


@given(st.binary(max_size=400))
def test_bytes_of_a_stranger_do_no_harm(data: bytes) -> None:
    dhcp.answer(data, MACHINE, SERVER)


@given(st.integers(0, 341), st.binary(min_size=1, max_size=8))
def test_a_message_with_other_bytes_in_it_does_no_harm(at: int, data: bytes) -> None:
    whole = frame("request")
    dhcp.answer(whole[:at] + data + whole[at + len(data) :], MACHINE, SERVER)
