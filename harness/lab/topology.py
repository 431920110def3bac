"""The lab's network: a VM's namespace and the fabric's, joined by a veth.

    VM namespace                          fabric namespace
    eth0 10.0.0.4/24  ───── veth ─────    fabric0 10.0.0.1/24
    default via 10.0.0.1                  lo 169.254.169.254/32, 168.63.129.16/32, 192.0.2.1/32

The metadata addresses exist only on the fabric side. 192.0.2.1 (TEST-NET-1) is an address that no policy names.
"""

from __future__ import annotations

import errno
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from harness.msp import endpoints

VM_ADDRESS = "10.0.0.4"
FABRIC_ADDRESS = "10.0.0.1"
OTHER_ADDRESS = "192.0.2.1"
VM_DEVICE = "eth0"
FABRIC_DEVICE = "fabric0"
CONTAINER_ADDRESS = "10.0.1.2"
CONTAINER_GATEWAY = "10.0.1.1"
CONTAINER_DEVICE = "eth0"


def _up(routes: IPRoute, device: str) -> int:
    """Bring a device up; its index."""
    index: int = routes.link_lookup(ifname=device)[0]
    routes.link("set", index=index, state="up")
    return index


def build_fabric(vm_pid: int) -> None:
    """In the fabric's namespace: make the veth, whose other end goes to the namespace of process vm_pid."""
    with IPRoute() as routes:
        loopback = _up(routes, "lo")
        for address in sorted({endpoint.address for endpoint in endpoints.ENDPOINTS} | {OTHER_ADDRESS}):
            routes.addr("add", index=loopback, address=address, prefixlen=32)
        routes.link("add", ifname=FABRIC_DEVICE, kind="veth", peer={"ifname": VM_DEVICE, "net_ns_pid": vm_pid})
        device = _up(routes, FABRIC_DEVICE)
        routes.addr("add", index=device, address=FABRIC_ADDRESS, prefixlen=24)
        routes.route("add", dst=f"{CONTAINER_ADDRESS}/32", gateway=VM_ADDRESS, oif=device)


def build_vm() -> None:
    """In the VM's namespace, once build_fabric has run: addresses and routes."""
    with IPRoute() as routes:
        _up(routes, "lo")
        device = _up(routes, VM_DEVICE)
        routes.addr("add", index=device, address=VM_ADDRESS, prefixlen=24)
        routes.route("add", dst="0.0.0.0/0", gateway=FABRIC_ADDRESS, oif=device)


def join_container(container_pid: int) -> None:
    """In the VM's namespace: give the namespace of a process a way to the fabric, as a container's bridge does."""
    with IPRoute() as routes:
        name = f"c{container_pid}"
        routes.link("add", ifname=name, kind="veth", peer={"ifname": CONTAINER_DEVICE, "net_ns_pid": container_pid})
        device = _up(routes, name)
        routes.addr("add", index=device, address=CONTAINER_GATEWAY, prefixlen=24)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def leave_container(container_pid: int) -> None:
    """In the VM's namespace: take that way back at once; the kernel would, a while after the namespace has gone."""
    with IPRoute() as routes:
        for index in routes.link_lookup(ifname=f"c{container_pid}"):
            try:
                routes.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:  # the kernel was faster
                    raise


def build_container() -> None:
    """In the container's namespace, once join_container has run."""
    with IPRoute() as routes:
        _up(routes, "lo")
        device = _up(routes, CONTAINER_DEVICE)
        routes.addr("add", index=device, address=CONTAINER_ADDRESS, prefixlen=24)
        routes.route("add", dst="0.0.0.0/0", gateway=CONTAINER_GATEWAY, oif=device)
