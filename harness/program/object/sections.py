"""What a section's name tells a loader: program type, attach type, and what it attaches to.

The names are libbpf's (section_defs in tools/lib/bpf/libbpf.c; Documentation/bpf/libbpf/program_types.rst); aya takes
those of them that matter here. The version is the first mainline one that has the type with this attach type.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.kernel.bpf_types import AttachType as A
from harness.kernel.bpf_types import ProgramType as P


@dataclass(frozen=True)
class Place:
    """A program's type and attach type, where the section's name tells them, and the rest of that name."""

    type: P | None
    attach: A | None
    since: str
    target: str  # "tcp_v4_connect" of kprobe/tcp_v4_connect


# Name (with "/" at its end: anything may follow), type, attach type, first mainline version. The longest name counts.
_ROWS: tuple[tuple[str, P, A | None, str], ...] = (
    ("socket", P.SOCKET_FILTER, None, "3.19"),
    ("sk_reuseport", P.SK_REUSEPORT, A.SK_REUSEPORT_SELECT, "4.19"),
    ("sk_reuseport/migrate", P.SK_REUSEPORT, A.SK_REUSEPORT_SELECT_OR_MIGRATE, "5.14"),
    ("kprobe/", P.KPROBE, None, "4.1"), ("kretprobe/", P.KPROBE, None, "4.1"),
    ("uprobe/", P.KPROBE, None, "4.1"), ("uretprobe/", P.KPROBE, None, "4.1"),
    ("uprobe.s/", P.KPROBE, None, "6.0"), ("uretprobe.s/", P.KPROBE, None, "6.0"),
    ("kprobe.multi/", P.KPROBE, A.TRACE_KPROBE_MULTI, "5.18"),
    ("kretprobe.multi/", P.KPROBE, A.TRACE_KPROBE_MULTI, "5.18"),
    ("kprobe.session/", P.KPROBE, A.TRACE_KPROBE_SESSION, "6.10"),
    ("ksyscall/", P.KPROBE, None, "4.1"), ("kretsyscall/", P.KPROBE, None, "4.1"), ("usdt/", P.KPROBE, None, "4.1"),
    ("tc", P.SCHED_CLS, None, "4.1"), ("classifier", P.SCHED_CLS, None, "4.1"), ("action", P.SCHED_ACT, None, "4.1"),
    ("tcx/ingress", P.SCHED_CLS, A.TCX_INGRESS, "6.6"), ("tcx/egress", P.SCHED_CLS, A.TCX_EGRESS, "6.6"),
    ("netkit/primary", P.SCHED_CLS, A.NETKIT_PRIMARY, "6.7"), ("netkit/peer", P.SCHED_CLS, A.NETKIT_PEER, "6.7"),
    ("tracepoint/", P.TRACEPOINT, None, "4.7"), ("tp/", P.TRACEPOINT, None, "4.7"),
    ("raw_tracepoint/", P.RAW_TRACEPOINT, None, "4.17"), ("raw_tp/", P.RAW_TRACEPOINT, None, "4.17"),
    ("raw_tracepoint.w/", P.RAW_TRACEPOINT_WRITABLE, None, "5.2"),
    ("raw_tp.w/", P.RAW_TRACEPOINT_WRITABLE, None, "5.2"),
    ("tp_btf/", P.TRACING, A.TRACE_RAW_TP, "5.5"),
    ("fentry/", P.TRACING, A.TRACE_FENTRY, "5.5"), ("fentry.s/", P.TRACING, A.TRACE_FENTRY, "5.10"),
    ("fexit/", P.TRACING, A.TRACE_FEXIT, "5.5"), ("fexit.s/", P.TRACING, A.TRACE_FEXIT, "5.10"),
    ("fmod_ret/", P.TRACING, A.MODIFY_RETURN, "5.7"), ("fmod_ret.s/", P.TRACING, A.MODIFY_RETURN, "5.10"),
    ("iter/", P.TRACING, A.TRACE_ITER, "5.8"), ("iter.s/", P.TRACING, A.TRACE_ITER, "6.0"),
    ("freplace/", P.EXT, None, "5.6"), ("syscall", P.SYSCALL, None, "5.14"),
    ("lsm/", P.LSM, A.LSM_MAC, "5.7"), ("lsm.s/", P.LSM, A.LSM_MAC, "5.11"),
    ("lsm_cgroup/", P.LSM, A.LSM_CGROUP, "6.0"),
    ("xdp", P.XDP, None, "4.8"), ("xdp.frags", P.XDP, None, "5.18"),
    ("xdp/devmap", P.XDP, A.XDP_DEVMAP, "5.8"), ("xdp/cpumap", P.XDP, A.XDP_CPUMAP, "5.9"),
    ("perf_event", P.PERF_EVENT, None, "4.9"),
    ("lwt_in", P.LWT_IN, None, "4.10"), ("lwt_out", P.LWT_OUT, None, "4.10"), ("lwt_xmit", P.LWT_XMIT, None, "4.10"),
    ("lwt_seg6local", P.LWT_SEG6LOCAL, None, "4.18"),
    ("sockops", P.SOCK_OPS, A.CGROUP_SOCK_OPS, "4.13"),
    ("sk_skb", P.SK_SKB, None, "4.14"), ("sk_skb/verdict", P.SK_SKB, A.SK_SKB_VERDICT, "5.13"),
    ("sk_skb/stream_parser", P.SK_SKB, A.SK_SKB_STREAM_PARSER, "4.14"),
    ("sk_skb/stream_verdict", P.SK_SKB, A.SK_SKB_STREAM_VERDICT, "4.14"),
    ("sk_msg", P.SK_MSG, A.SK_MSG_VERDICT, "4.17"), ("sk_lookup", P.SK_LOOKUP, A.SK_LOOKUP, "5.9"),
    ("lirc_mode2", P.LIRC_MODE2, A.LIRC_MODE2, "4.18"), ("flow_dissector", P.FLOW_DISSECTOR, A.FLOW_DISSECTOR, "4.20"),
    ("struct_ops", P.STRUCT_OPS, None, "5.6"), ("struct_ops.s", P.STRUCT_OPS, None, "6.0"),
    ("netfilter", P.NETFILTER, A.NETFILTER, "6.4"),
    ("cgroup_skb/ingress", P.CGROUP_SKB, A.CGROUP_INET_INGRESS, "4.10"),
    ("cgroup_skb/egress", P.CGROUP_SKB, A.CGROUP_INET_EGRESS, "4.10"), ("cgroup/skb", P.CGROUP_SKB, None, "4.10"),
    ("cgroup/dev", P.CGROUP_DEVICE, A.CGROUP_DEVICE, "4.15"),
    ("cgroup/sock", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_CREATE, "4.10"),
    ("cgroup/sock_create", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_CREATE, "4.10"),
    ("cgroup/sock_release", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_RELEASE, "5.9"),
    ("cgroup/post_bind4", P.CGROUP_SOCK, A.CGROUP_INET4_POST_BIND, "4.17"),
    ("cgroup/post_bind6", P.CGROUP_SOCK, A.CGROUP_INET6_POST_BIND, "4.17"),
    ("cgroup/bind4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_BIND, "4.17"),
    ("cgroup/bind6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_BIND, "4.17"),
    ("cgroup/connect4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_CONNECT, "4.17"),
    ("cgroup/connect6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_CONNECT, "4.17"),
    ("cgroup/connect_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_CONNECT, "6.7"),
    ("cgroup/sendmsg4", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP4_SENDMSG, "4.18"),
    ("cgroup/sendmsg6", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP6_SENDMSG, "4.18"),
    ("cgroup/recvmsg4", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP4_RECVMSG, "5.2"),
    ("cgroup/recvmsg6", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP6_RECVMSG, "5.2"),
    ("cgroup/getpeername4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_GETPEERNAME, "5.8"),
    ("cgroup/getpeername6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_GETPEERNAME, "5.8"),
    ("cgroup/getsockname4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_GETSOCKNAME, "5.8"),
    ("cgroup/getsockname6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_GETSOCKNAME, "5.8"),
    ("cgroup/sysctl", P.CGROUP_SYSCTL, A.CGROUP_SYSCTL, "5.2"),
    ("cgroup/getsockopt", P.CGROUP_SOCKOPT, A.CGROUP_GETSOCKOPT, "5.3"),
    ("cgroup/setsockopt", P.CGROUP_SOCKOPT, A.CGROUP_SETSOCKOPT, "5.3"),
)  # fmt: skip

UNKNOWN = Place(None, None, "", "")


def place_of(section: str) -> Place:
    """The place of a section's programs; UNKNOWN where the name tells none. `?` in front: loaded on demand."""
    name = section.removeprefix("?")
    best: tuple[int, Place] = (0, UNKNOWN)
    for row, kind, attach, since in _ROWS:
        stem = row.rstrip("/")
        if (name == stem or name.startswith(stem + "/")) and len(stem) > best[0]:
            best = len(stem), Place(kind, attach, since, name[len(stem) + 1 :])
    return best[1]
