"""How clients behave: one function a behaviour, by subject; the census runs them all, by the name `census.FUNCTION`."""

from __future__ import annotations

from collections.abc import Mapping

from harness.lab import clients
from harness.lab.behaviours import addresses, packets, process, sockets, uring

BEHAVIOURS: Mapping[str, clients.Behaviour] = {
    f"census.{function.__name__}": function
    for function in (
        sockets.nonblocking,
        sockets.retried,
        sockets.bound_address,
        sockets.bound_device,
        sockets.marked,
        sockets.mptcp,
        sockets.fastopen,
        sockets.fastopen_connect,
        sockets.mapped,
        sockets.reconnected,
        sockets.reconnected_elsewhere,
        sockets.one_port,
        sockets.one_port_two_addresses,
        process.threads,
        process.forked,
        process.executed,
        process.setuid_after_socket,
        process.moved,
        process.passed,
        process.cgroup_namespace,
        process.host_network,
        process.network_namespace,
        process.contained_agent,
        process.opened_before_attach,
        process.reused_pid,
        packets.udp_connected,
        packets.udp_unconnected,
        packets.raw_syn,
        uring.uring,
        addresses.resolved,
        addresses.curl,
        addresses.by_urllib,
        addresses.program,
    )
}
