"""The network that a machine is plugged into: a namespace of the run's own, and the platform at its other end.

    guest                       namespace of the fabric's worker
    its NIC ──── tap device ──── platform0 10.0.0.1/24      DHCP; DNS that refuses
                                 lo 169.254.169.254, 168.63.129.16: the fabric's services

QEMU itself stays outside and holds nothing of this network but the tap device's descriptor. Nothing is routed on: what
the guest sends to anywhere else ends here. With the worker, which dies with its parent, all of it ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any, cast

from pyroute2 import IPRoute

from harness.errors import HarnessError, errno_text
from harness.image.azure import dhcp
from harness.image.azure.deployment import Deployment
from harness.kernel import processes
from harness.kernel.processes import Namespace
from harness.lab import platform
from harness.lab.fabric import Fabric
from harness.lab.worker import Handler, Reply
from harness.msp.endpoints import ENDPOINTS, WIRESERVER

DEVICE = "platform0"

_TUNSETIFF = 0x400454CA  # include/uapi/linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_ETH_P_IP = 0x0800
_FRAME = 2048  # bytes; a DHCP message is some 600
_ANSWER = 1 << 19  # bytes of an answer, which is to fit in one packet
_MOST = 512  # DHCP messages that are remembered
_DNS_PORT, _DNS_HEADER = 53, 12
_REFUSED = 5  # RFC 1035, RCODE


def serve(deployment: Mapping[str, Any]) -> Mapping[str, Handler]:
    """In the worker: the calls. `build` gives the tap device's descriptor, `start` begins to serve."""
    processes.unshare(Namespace.NETWORK)
    state: dict[str, Any] = {"leases": [], "told": 0}
    machine = Deployment(**deployment)

    async def build() -> Reply:
        device = _tap()
        # pyroute2 runs a loop of its own; a thread started after unshare() is in the same namespace
        state["mac"] = await asyncio.to_thread(_addresses, machine)
        state["sockets"] = {
            endpoint.name: socket.create_server((endpoint.address, endpoint.port), backlog=1024)
            for endpoint in ENDPOINTS
        }
        return Reply(None, (device,))

    async def start(scenario: dict[str, Any]) -> None:
        channel = platform.channel(scenario)
        handlers.update(platform.handlers(channel))
        state["fabric"] = Fabric(state["sockets"], channel=channel)
        await state["fabric"].start()
        _answer_dhcp(machine, state)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(_Dns, local_addr=(WIRESERVER.address, _DNS_PORT))

    def requests(after: int) -> list[dict[str, Any]]:
        """What reached the endpoints, from the after-th on, as much as fits in an answer; nothing when that is all."""
        rows: list[dict[str, Any]] = []
        room = _ANSWER
        for seen in islice(state["fabric"].requests, after, None):
            row = asdict(seen) | {"body": seen.body.decode("utf-8", "replace")}
            room -= len(json.dumps(row))
            if rows and room < 0:
                break
            rows.append(row)
        return rows

    handlers: dict[str, Handler] = {
        "build": build,
        "start": start,
        "requests": requests,
        "leases": lambda: state["leases"],
    }
    return handlers


def _tap() -> int:
    """A tap device in this namespace, without a name in the file system: it ends with its last descriptor."""
    descriptor = -1
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), flags))
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        number = error.errno or 0
        remedy = "load the module tun (`modprobe tun`)"
        raise HarnessError("make a tap device", f"/dev/net/tun: {errno_text(number)}", remedy, errno=number) from error
    return descriptor


def _addresses(machine: Deployment) -> str:
    """Give this namespace its addresses; the device's own MAC address."""
    with IPRoute() as routes:
        loopback = routes.link_lookup(ifname="lo")[0]
        routes.link("set", index=loopback, state="up")
        for address in sorted({endpoint.address for endpoint in ENDPOINTS}):
            routes.addr("add", index=loopback, address=address, prefixlen=32)
        device = routes.link_lookup(ifname=DEVICE)[0]
        routes.link("set", index=device, state="up")
        routes.addr("add", index=device, address=machine.gateway, prefixlen=machine.prefix)
        mac: str = routes.get_links(device)[0].get_attr("IFLA_ADDRESS")
    return mac


def _answer_dhcp(machine: Deployment, state: dict[str, Any]) -> None:
    """Answer from now on: on the wire itself, for a client without an address takes no other answer."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
    wire.setblocking(False)
    wire.bind((DEVICE, _ETH_P_IP))

    def arrived() -> None:
        try:
            frame = wire.recv(_FRAME)
        except OSError:
            return
        answered = dhcp.answer(frame, machine, state["mac"])
        if answered is None:
            return
        asked, reply = answered
        if len(state["leases"]) < _MOST:
            state["leases"].append({"at": time.time(), "what": asked.what, "wanted": list(asked.wanted)})
        if reply is not None:
            wire.send(reply)

    asyncio.get_running_loop().add_reader(wire, arrived)
    state["wire"] = wire


class _Dns(asyncio.DatagramProtocol):
    """A name server that refuses every question: a client knows at once, and waits for nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # what asyncio makes is of no such class

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        reply = refusal(data)
        if reply is not None:
            self._transport.sendto(reply, address)


def refusal(query: bytes) -> bytes | None:
    """The answer to a DNS query of one question; None for what is none."""
    if len(query) < _DNS_HEADER or query[2] & 0x80 or query[4:6] != b"\0\1":
        return None
    end = _DNS_HEADER
    while end < len(query) and 0 < query[end] < 64:
        end += 1 + query[end]
    end += 1 + 4  # the root label, type and class
    if end > len(query):
        return None
    flags = bytes([query[2] & 0x79 | 0x80, _REFUSED])
    return query[:2] + flags + query[4:6] + bytes(6) + query[_DNS_HEADER:end]
