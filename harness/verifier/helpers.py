"""BPF helpers: number, name, the first mainline version, and since when a cgroup/sock_addr program may call them.

Sources: the numbers and names are enum bpf_func_id of include/uapi/linux/bpf.h, which is append-only (a test compares
them with the running kernel's BTF). A helper's first version follows from the number, since numbers are handed out
in order: FIRST_BY_NUMBER holds the first number that each release added. Which helpers a sock_addr program may call
comes from the history of sock_addr_func_proto() and the base list in net/core/filter.c and kernel/bpf/helpers.c.
Distribution kernels take helpers back to older versions: a table gives suspects, a probe the verdict.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

Version = tuple[int, int]

_NAMES = """
unspec map_lookup_elem map_update_elem map_delete_elem probe_read ktime_get_ns trace_printk get_prandom_u32
get_smp_processor_id skb_store_bytes l3_csum_replace l4_csum_replace tail_call clone_redirect get_current_pid_tgid
get_current_uid_gid get_current_comm get_cgroup_classid skb_vlan_push skb_vlan_pop skb_get_tunnel_key
skb_set_tunnel_key perf_event_read redirect get_route_realm perf_event_output skb_load_bytes get_stackid csum_diff
skb_get_tunnel_opt skb_set_tunnel_opt skb_change_proto skb_change_type skb_under_cgroup get_hash_recalc
get_current_task probe_write_user current_task_under_cgroup skb_change_tail skb_pull_data csum_update
set_hash_invalid get_numa_node_id skb_change_head xdp_adjust_head probe_read_str get_socket_cookie get_socket_uid
set_hash setsockopt skb_adjust_room redirect_map sk_redirect_map sock_map_update xdp_adjust_meta
perf_event_read_value perf_prog_read_value getsockopt override_return sock_ops_cb_flags_set msg_redirect_map
msg_apply_bytes msg_cork_bytes msg_pull_data bind xdp_adjust_tail skb_get_xfrm_state get_stack
skb_load_bytes_relative fib_lookup sock_hash_update msg_redirect_hash sk_redirect_hash lwt_push_encap
lwt_seg6_store_bytes lwt_seg6_adjust_srh lwt_seg6_action rc_repeat rc_keydown skb_cgroup_id get_current_cgroup_id
get_local_storage sk_select_reuseport skb_ancestor_cgroup_id sk_lookup_tcp sk_lookup_udp sk_release map_push_elem
map_pop_elem map_peek_elem msg_push_data msg_pop_data rc_pointer_rel spin_lock spin_unlock sk_fullsock tcp_sock
skb_ecn_set_ce get_listener_sock skc_lookup_tcp tcp_check_syncookie sysctl_get_name sysctl_get_current_value
sysctl_get_new_value sysctl_set_new_value strtol strtoul sk_storage_get sk_storage_delete send_signal
tcp_gen_syncookie skb_output probe_read_user probe_read_kernel probe_read_user_str probe_read_kernel_str
tcp_send_ack send_signal_thread jiffies64 read_branch_records get_ns_current_pid_tgid xdp_output get_netns_cookie
get_current_ancestor_cgroup_id sk_assign ktime_get_boot_ns seq_printf seq_write sk_cgroup_id sk_ancestor_cgroup_id
ringbuf_output ringbuf_reserve ringbuf_submit ringbuf_discard ringbuf_query csum_level skc_to_tcp6_sock
skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock skc_to_udp6_sock get_task_stack load_hdr_opt
store_hdr_opt reserve_hdr_opt inode_storage_get inode_storage_delete d_path copy_from_user snprintf_btf
seq_printf_btf skb_cgroup_classid redirect_neigh per_cpu_ptr this_cpu_ptr redirect_peer task_storage_get
task_storage_delete get_current_task_btf bprm_opts_set ktime_get_coarse_ns ima_inode_hash sock_from_file check_mtu
for_each_map_elem snprintf sys_bpf btf_find_by_name_kind sys_close timer_init timer_set_callback timer_start
timer_cancel get_func_ip get_attach_cookie task_pt_regs get_branch_snapshot trace_vprintk skc_to_unix_sock
kallsyms_lookup_name find_vma loop strncmp get_func_arg get_func_ret get_func_arg_cnt get_retval set_retval
xdp_get_buff_len xdp_load_bytes xdp_store_bytes copy_from_user_task skb_set_tstamp ima_file_hash kptr_xchg
map_lookup_percpu_elem skc_to_mptcp_sock dynptr_from_mem ringbuf_reserve_dynptr ringbuf_submit_dynptr
ringbuf_discard_dynptr dynptr_read dynptr_write dynptr_data tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6
tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6 ktime_get_tai_ns user_ringbuf_drain cgrp_storage_get
cgrp_storage_delete
"""

HELPER_NAMES: tuple[str, ...] = tuple(_NAMES.split())
"""The name without `bpf_`, by number."""

_NUMBERS: Mapping[str, int] = {name: number for number, name in enumerate(HELPER_NAMES)}

# (first number of the release, release)
_FIRST_BY_NUMBER: tuple[tuple[int, Version], ...] = (
    (1, (3, 19)), (4, (4, 1)), (12, (4, 2)), (17, (4, 3)), (23, (4, 4)), (26, (4, 5)), (27, (4, 6)), (31, (4, 8)),
    (37, (4, 9)), (42, (4, 10)), (45, (4, 11)), (46, (4, 12)), (48, (4, 13)), (51, (4, 14)), (54, (4, 15)),
    (58, (4, 16)), (60, (4, 17)), (65, (4, 18)), (81, (4, 19)), (84, (4, 20)), (91, (5, 0)), (93, (5, 1)),
    (99, (5, 2)), (109, (5, 3)), (111, (5, 5)), (116, (5, 6)), (120, (5, 7)), (125, (5, 8)), (136, (5, 9)),
    (142, (5, 10)), (156, (5, 11)), (163, (5, 12)), (164, (5, 13)), (166, (5, 14)), (169, (5, 15)), (176, (5, 16)),
    (180, (5, 17)), (186, (5, 18)), (194, (5, 19)), (204, (6, 0)), (208, (6, 1)), (210, (6, 2)),
)  # fmt: skip

# What a cgroup/connect4 program (BPF_PROG_TYPE_CGROUP_SOCK_ADDR) may call, and since which mainline version.
_CONNECT4: Mapping[str, Version] = {
    # 4.17, the hook's first version: the base list, uid_gid and bind
    "map_lookup_elem": (4, 17), "map_update_elem": (4, 17), "map_delete_elem": (4, 17), "get_prandom_u32": (4, 17),
    "get_smp_processor_id": (4, 17), "get_numa_node_id": (4, 17), "tail_call": (4, 17), "ktime_get_ns": (4, 17),
    "trace_printk": (4, 17), "get_current_uid_gid": (4, 17), "bind": (4, 17),
    # "bpf: Support bpf_get_socket_cookie in more prog types", and cgroup local storage
    "get_socket_cookie": (4, 19), "get_local_storage": (4, 19),
    "map_push_elem": (4, 20), "map_pop_elem": (4, 20), "map_peek_elem": (4, 20),
    "sk_lookup_tcp": (5, 0), "sk_lookup_udp": (5, 0), "sk_release": (5, 0),
    "spin_lock": (5, 1), "spin_unlock": (5, 1), "skc_lookup_tcp": (5, 2),
    # "bpf: Enable retrival of pid/tgid/comm from bpf cgroup hooks" and its neighbours of March 2020
    "get_current_pid_tgid": (5, 7), "get_current_comm": (5, 7), "get_current_cgroup_id": (5, 7),
    "get_current_ancestor_cgroup_id": (5, 7), "get_netns_cookie": (5, 7), "perf_event_output": (5, 7),
    "get_cgroup_classid": (5, 7),
    "setsockopt": (5, 8), "getsockopt": (5, 8), "ktime_get_boot_ns": (5, 8), "ringbuf_output": (5, 8),
    "ringbuf_reserve": (5, 8), "ringbuf_submit": (5, 8), "ringbuf_discard": (5, 8), "ringbuf_query": (5, 8),
    "probe_read_user": (5, 8), "probe_read_kernel": (5, 8), "get_current_task": (5, 8),
    "timer_init": (5, 15), "timer_set_callback": (5, 15), "timer_start": (5, 15), "timer_cancel": (5, 15),
    "loop": (5, 17), "strncmp": (5, 17),
    # in the base list from the release that introduced them
    "jiffies64": (5, 6), "per_cpu_ptr": (5, 10), "this_cpu_ptr": (5, 10), "ktime_get_coarse_ns": (5, 11),
    "for_each_map_elem": (5, 13), "snprintf": (5, 13), "map_lookup_percpu_elem": (5, 19), "kptr_xchg": (5, 19),
    "dynptr_from_mem": (5, 19), "dynptr_read": (5, 19), "dynptr_write": (5, 19), "dynptr_data": (5, 19),
    "ktime_get_tai_ns": (6, 1), "user_ringbuf_drain": (6, 1), "cgrp_storage_get": (6, 2), "cgrp_storage_delete": (6, 2),
}  # fmt: skip


def number_of(name: str) -> int | None:
    """The number of a helper, with or without `bpf_`; None when the table has no such name."""
    return _NUMBERS.get(name.removeprefix("bpf_"))


def name_of(number: int) -> str | None:
    """`bpf_map_lookup_elem` for 1; None above the table's end."""
    return f"bpf_{HELPER_NAMES[number]}" if 0 < number < len(HELPER_NAMES) else None


def introduced(number: int) -> Version | None:
    """The first mainline version that has the helper at all."""
    if not 0 < number < len(HELPER_NAMES):
        return None
    return _FIRST_BY_NUMBER[bisect_right(_FIRST_BY_NUMBER, number, key=lambda row: row[0]) - 1][1]


def allowed_in_connect4(number: int) -> Version | None:
    """The first mainline version whose connect4 programs may call the helper; None where the table does not say."""
    return _CONNECT4.get(HELPER_NAMES[number]) if 0 < number < len(HELPER_NAMES) else None


def version_text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
