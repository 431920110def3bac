"""The rows of the census: what each client does, and why the kernel answers as it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.checks.census_judge import Verdict
from harness.lab.clients import NOBODY
from harness.msp.endpoints import IMDS


class Place(StrEnum):
    """The cgroup in which a client starts, or to which it moves."""

    COVERED = "covered"
    BELOW = "below"  # below the clients' own
    OUTSIDE = "outside"  # beside the one at which the program is attached
    LATE = "late"  # outside, until the row attaches the program there


class Step(StrEnum):
    """What the harness does while a client waits: its stages, in order."""

    JOIN_CONTAINER = "join container"
    ATTACH_LATE = "attach late"
    SKIP_CHILD = "skip child"
    UNSKIP_CHILD = "unskip child"
    HOLD_PROXY = "hold proxy"
    LET_PROXY_GO = "let proxy go"


@dataclass(frozen=True)
class Row:
    """One behaviour. must: the verdict that every kernel owes (another is FAIL); otherwise it is only told (WARN).

    why says how a bypass or a break comes about, by the name of the hook; closes, what would close it.
    """

    name: str
    title: str
    behaviour: str
    must: Verdict | None = None
    why: str = ""
    closes: str = ""
    uid: int = 0
    place: Place = Place.COVERED
    to: Place | None = None
    steps: tuple[Step, ...] = ()
    bound: bool = False  # whether the client is given a source port of its own
    patience: float = 2.0
    datagram: bool = False
    own_network: bool = False  # its packets come from the container's address
    program: str = ""  # the client program to be built (harness.lab.behaviours.programs)
    options: Mapping[str, Any] = field(default_factory=dict)


_R = Verdict.REDIRECTED
_ATTACH_HIGHER = "attach at the cgroup root, as the agent does: every process is below it"
_CONNECT6 = (
    "a program at cgroup/connect6 that treats ::ffff:a.b.c.d as a.b.c.d (`--program hardened` has it), "
    "or a firewall rule besides: after the connect it is IPv4 on the wire"
)
_SOCKETS_CGROUP = (
    "a socket keeps the cgroup in which it was made (sk_cgrp_data, set by cgroup_sk_alloc() in socket()); where the "
    "process is when it calls connect() does not count"
)
_MAPPED_WHY = (
    "an AF_INET6 socket runs the connect6 hook (tcp_v6_pre_connect) and no other, and then goes on as IPv4 "
    "(tcp_v6_connect calls tcp_v4_connect): a connect4 program never sees it"
)
_FORMS_WHY = "the form is gone once it is resolved: the hook sees four bytes"

ROWS: tuple[Row, ...] = (
    Row("blocking", "A blocking connect()", "connect", _R),
    Row("nonblocking", "A non-blocking connect(), then poll()", "census.nonblocking", _R),
    Row("retried", "A non-blocking connect() called again until EISCONN", "census.retried", _R),
    Row("threads", "Two threads, two endpoints, at once", "census.threads", _R),
    Row("fork", "fork() between socket() and connect()", "census.forked", _R),
    Row("exec", "A child by vfork() and exec()", "census.executed", _R),
    Row("uid", "Another uid", "connect", _R, uid=NOBODY),
    Row("setuid", "setuid() between socket() and connect()", "census.setuid_after_socket", _R),
    Row("sub-cgroup", "A cgroup below the covered one", "connect", _R, place=Place.BELOW),
    Row("cgroup-namespace", "A cgroup namespace", "census.cgroup_namespace", _R),
    Row("source-address", "bind() to a source address", "census.bound_address", _R),
    Row("source-port", "bind() to a source port", "connect", _R, bound=True),
    Row("mark", "SO_MARK", "census.marked", _R),
    Row("unspec", "The same socket again after AF_UNSPEC", "census.reconnected", _R),
    Row("unspec-elsewhere", "From one endpoint to another by AF_UNSPEC", "census.reconnected_elsewhere", _R),
    Row(
        "bind-to-device",
        "SO_BINDTODEVICE",
        "census.bound_device",
        why="connect4 rewrites to 127.0.0.1, but the socket may use its device only: its SYN goes out there, to nobody",
        closes="bpf_setsockopt(SO_BINDTODEVICE, none) in connect4 before the rewrite (`--program hardened` does it)",
        bound=True,
        patience=1.0,
    ),
    Row(
        "mptcp",
        "MPTCP",
        "census.mptcp",
        why="only kernels that run the hook for the first subflow (tcp_v4_pre_connect) show it to connect4, as TCP",
        closes="net.mptcp.enabled=0, or a kernel that runs the hook for subflows",
    ),
    Row(
        "fastopen",
        "TCP fast open: sendto() with MSG_FASTOPEN",
        "census.fastopen",
        why="there is no connect() call, but tcp_sendmsg_fastopen() calls __inet_stream_connect(), which runs the hook",
        closes="net.ipv4.tcp_fastopen without its client bit",
    ),
    Row(
        "fastopen-sendmsg",
        "TCP fast open: sendmsg() with MSG_FASTOPEN",
        "census.fastopen",
        why="there is no connect() call, but tcp_sendmsg_fastopen() calls __inet_stream_connect(), which runs the hook",
        closes="net.ipv4.tcp_fastopen without its client bit",
        options={"call": "sendmsg"},
    ),
    Row(
        "fastopen-connect",
        "TCP fast open: TCP_FASTOPEN_CONNECT",
        "census.fastopen_connect",
        why="with a known cookie the SYN waits for the first write; the hook has run in connect() all the same",
        closes="net.ipv4.tcp_fastopen without its client bit",
    ),
    Row(
        "mapped",
        "IPv4-mapped IPv6: a socket to ::ffff:169.254.169.254",
        "census.mapped",
        why=_MAPPED_WHY,
        closes=_CONNECT6,
    ),
    Row(
        "mapped-getaddrinfo",
        'IPv4-mapped IPv6: getaddrinfo("::ffff:169.254.169.254")',
        "census.resolved",
        why=_MAPPED_WHY,
        closes=_CONNECT6,
        options={"forms": {"mapped": f"::ffff:{IMDS.address}"}},
    ),
    Row(
        "mapped-curl",
        "IPv4-mapped IPv6: curl http://[::ffff:169.254.169.254]/",
        "census.curl",
        why=_MAPPED_WHY,
        closes=_CONNECT6,
        options={"forms": {"mapped": f"::ffff:{IMDS.address}"}},
    ),
    Row(
        "io-uring",
        "io_uring: IORING_OP_CONNECT",
        "census.uring",
        why="__sys_connect_file() runs the hook for io_uring as for connect(2)",
        closes="kernel.io_uring_disabled",
    ),
    Row(
        "io-uring-worker",
        "io_uring: IOSQE_ASYNC, so that a worker thread connects",
        "census.uring",
        why="a worker connects: on kernels before 5.12 it is none of the client's, and the record has another pid",
        closes="kernel.io_uring_disabled",
        options={"by": "worker"},
    ),
    Row(
        "io-uring-sqpoll",
        "io_uring: SQPOLL, so that the kernel's thread submits",
        "census.uring",
        why="the ring's own thread connects: before 5.12 it is none of the client's, and the record has another pid",
        closes="kernel.io_uring_disabled",
        options={"by": "sqpoll"},
    ),
    Row(
        "udp",
        "UDP: connect() and send()",
        "census.udp_connected",
        Verdict.DIRECT,
        why="the hook runs for UDP's connect() too: a policy whose key leaves out the protocol rewrites it",
        closes="the protocol in the policy's key",
        datagram=True,
    ),
    Row(
        "udp-sendto",
        "UDP: sendto() without connect()",
        "census.udp_unconnected",
        Verdict.DIRECT,
        why="an unconnected datagram runs the sendmsg4 hook, not connect4",
        closes="nothing to close: the policy is for TCP",
        datagram=True,
    ),
    Row(
        "raw",
        "A SYN made by hand through a raw socket",
        "census.raw_syn",
        why="a raw socket's sendto() runs no cgroup/connect4 hook, and the packet says nothing of a connect",
        closes="no CAP_NET_RAW for who is not trusted, or a firewall rule on the address besides (nftables, output)",
        bound=True,
        patience=1.0,
    ),
    Row(
        "network-namespace",
        "A container with a network of its own",
        "census.network_namespace",
        why="the hook goes by cgroup, so it runs; 127.0.0.1 is then the container's own, and nobody listens there",
        closes="host networking for what needs the endpoint, a listener in the namespace, or a rewrite to an address "
        "that is reachable from containers",
        steps=(Step.JOIN_CONTAINER,),
        own_network=True,
    ),
    Row("host-network", "A container with host networking", "census.host_network", _R),
    Row(
        "outside",
        "A process outside the covered cgroup",
        "connect",
        why="a cgroup program runs for sockets of its cgroup and those below it only",
        closes=_ATTACH_HIGHER,
        place=Place.OUTSIDE,
    ),
    Row(
        "moves-out",
        "Leaves the cgroup between socket() and connect()",
        "census.moved",
        why=_SOCKETS_CGROUP,
        closes=_ATTACH_HIGHER,
        to=Place.OUTSIDE,
    ),
    Row(
        "moves-in",
        "Enters the cgroup between socket() and connect()",
        "census.moved",
        why=_SOCKETS_CGROUP,
        closes=_ATTACH_HIGHER,
        place=Place.OUTSIDE,
        to=Place.COVERED,
    ),
    Row(
        "passed-outside",
        "A socket made inside, passed (SCM_RIGHTS) and connected outside",
        "census.passed",
        why=_SOCKETS_CGROUP,
        closes=_ATTACH_HIGHER,
        to=Place.OUTSIDE,
    ),
    Row(
        "passed-inside",
        "A socket made outside, passed (SCM_RIGHTS) and connected inside",
        "census.passed",
        why=_SOCKETS_CGROUP,
        closes=_ATTACH_HIGHER,
        place=Place.OUTSIDE,
        to=Place.COVERED,
    ),
    Row("passed-uid", "A socket passed to another uid", "census.passed", _R, options={"uid": NOBODY}),
    Row(
        "opened-before",
        "A connection opened before the attach",
        "census.opened_before_attach",
        why="the hook runs in connect(): what is connected already stays where it is",
        closes="attach before the first client runs, or end old connections (`ss -K dst 169.254.169.254`)",
        place=Place.LATE,
        steps=(Step.ATTACH_LATE,),
    ),
    Row(
        "pid-reuse",
        "A client with the pid of a skipped process that ended",
        "census.reused_pid",
        why="skip_process_map knows pids, and a pid is given again once its process is gone",
        closes="delete the entry when the process ends (by who outlives it), or skip by cgroup or by socket mark",
        steps=(Step.SKIP_CHILD, Step.UNSKIP_CHILD),
    ),
    Row(
        "one-port",
        "SO_REUSEPORT: one source port, two endpoints",
        "census.one_port",
        why="the rewrite makes one destination of two: the second connect would be the same four-tuple (EADDRNOTAVAIL)",
        closes="a listener (port) for each endpoint, so that four-tuples stay different",
        bound=True,
    ),
    Row(
        "one-port-two-addresses",
        "One source port at two source addresses, two endpoints",
        "census.one_port_two_addresses",
        why="audit_map's key is (protocol, source port), without the address: the later record replaces the earlier, "
        "and who is accepted after that is taken for the other (the proxy was held still in between to show it)",
        closes="the source address in audit_map's key, or the socket's cookie: a change of the agent's map",
        bound=True,
        steps=(Step.HOLD_PROXY, Step.LET_PROXY_GO),
    ),
    Row("getaddrinfo", "Forms of the address: getaddrinfo() and connect()", "census.resolved", _R, why=_FORMS_WHY),
    Row("curl", "Forms of the address: curl", "census.curl", _R, why=_FORMS_WHY),
    Row("urllib", "Forms of the address: Python's urllib", "census.by_urllib", _R, why=_FORMS_WHY),
    Row(
        "java",
        "Forms of the address: Java",
        "census.program",
        why="Java's sockets are AF_INET6 where there is IPv6, and an IPv4 address becomes ::ffff:a.b.c.d. "
        + _MAPPED_WHY,
        closes="-Djava.net.preferIPv4Stack=true for that client; for all of them " + _CONNECT6,
        program="java",
    ),
    Row(
        "java-ipv4",
        "Forms of the address: Java with preferIPv4Stack",
        "census.program",
        _R,
        why=_FORMS_WHY,
        program="java",
        options={"environment": {"JAVA_TOOL_OPTIONS": "-Djava.net.preferIPv4Stack=true"}},
    ),
    Row("go", "Forms of the address: Go", "census.program", _R, why=_FORMS_WHY, program="go"),
)
