"""The platform's DHCP server: one lease, for one machine, with option 245, by which agents find WireServer.

Options as a Linux VM on Azure sees them: mask, router, DNS, routes to the two metadata addresses beside the default
one, and 245 with WireServer's address as four bytes. The lease never ends while the machine lives.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from harness.image.azure.deployment import Deployment
from harness.msp.endpoints import IMDS, WIRESERVER

SERVER_PORT, CLIENT_PORT = 67, 68
LEASE = 0xFFFFFFFF  # seconds: for ever, as Azure gives it
ENDPOINT = 245
"""The option with WireServer's address."""

_ROUTES = 121  # classless static routes, RFC 3442
_BROADCAST = "ff:ff:ff:ff:ff:ff"
_NAMES = {1: "discover", 3: "request", 4: "decline", 7: "release", 8: "inform"}
_ANSWERS = {"discover": "offer", "request": "ack"}


@dataclass(frozen=True)
class Asked:
    """A message of the client's: what it is (discover, request …) and which options it wants."""

    what: str
    wanted: tuple[int, ...] = ()


def asked(frame: bytes) -> tuple[Asked, Ether] | None:
    """A frame as it came off the wire; None for what is no DHCP message of a client."""
    try:
        packet = Ether(frame)
        if UDP not in packet or packet[UDP].dport != SERVER_PORT or DHCP not in packet or packet[BOOTP].op != 1:
            return None
        found = _options(packet)
        kind = found.get("message-type")
        if not isinstance(kind, int):
            return None
        wanted = found.get("param_req_list")
        numbers = tuple(int(number) for number in wanted) if isinstance(wanted, list | tuple | bytes) else ()
    except Exception:  # whatever scapy makes of bytes from a guest
        return None
    return Asked(_NAMES.get(kind, f"message {kind}"), numbers), packet


def _options(packet: Ether) -> dict[str, object]:
    found: dict[str, object] = {}
    for option in packet[DHCP].options:
        if isinstance(option, tuple) and len(option) > 1:
            value = option[1:] if option[0] == "param_req_list" and not isinstance(option[1], list) else option[1]
            found[str(option[0])] = value
    return found


def answer(frame: bytes, deployment: Deployment, server_mac: str) -> tuple[Asked, bytes | None] | None:
    """What the client asked, and the frame to send; none for what needs no answer, and for other machines."""
    told = asked(frame)
    if told is None:
        return None
    question, packet = told
    mac = bytes(packet[BOOTP].chaddr)[:6].hex(":")
    kind = _ANSWERS.get(question.what)
    if kind is None or mac != deployment.mac:
        return question, None
    options = [
        ("message-type", kind),
        ("server_id", deployment.gateway),
        ("lease_time", LEASE),
        ("subnet_mask", str(ipaddress.ip_network(f"0.0.0.0/{deployment.prefix}").netmask)),
        ("router", deployment.gateway),
        ("name_server", WIRESERVER.address),
        (_ROUTES, routes(deployment)),
        (ENDPOINT, socket.inet_aton(WIRESERVER.address)),
        "end",
    ]
    request = packet[BOOTP]
    reply = (
        Ether(src=server_mac, dst=_BROADCAST if request.flags & 0x8000 else deployment.mac)
        / IP(src=deployment.gateway, dst="255.255.255.255" if request.flags & 0x8000 else deployment.address)
        / UDP(sport=SERVER_PORT, dport=CLIENT_PORT)
        / BOOTP(
            op=2, xid=request.xid, flags=request.flags, yiaddr=deployment.address, siaddr=deployment.gateway,
            chaddr=request.chaddr,
        )
        / DHCP(options=options)
    )  # fmt: skip
    return question, bytes(reply)


def routes(deployment: Deployment) -> bytes:
    """The default route and one to each metadata address, as option 121 has them."""
    gateway = socket.inet_aton(deployment.gateway)
    near = [bytes([32]) + socket.inet_aton(address) + gateway for address in (WIRESERVER.address, IMDS.address)]
    return b"".join([bytes([0]) + gateway, *near])
