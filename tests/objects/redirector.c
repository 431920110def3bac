// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A redirector in the form in which the Guest Proxy Agent ships its own: section, function and map names, layouts and
 * the order of helper calls are the interface; the code is ours. It is compiled in the styles of build.py:
 *
 *   CO_RE          struct sock is read by CO-RE relocations, else by bpf_probe_read at fixed offsets
 *   KPROBE         the second program, which completes audit records at tcp_connect()
 *   SOCK_OPS       completes them at TCP_CONNECT_CB instead; local_map's key is then the socket's cookie
 *   LEGACY_MAPS    `struct bpf_map_def` in the section "maps", as before BTF maps (libbpf 1.0 no longer takes it)
 *   GLOBAL_DATA    the format string lies in .rodata, a fifth map; else on the stack
 *   WEAK_FIELD     asks whether a field exists that no kernel has: a relocation that may fail
 *   KFUNC=name     calls this kernel function, and then KFUNC_AFTER=name
 *   BUG_…          one defect each
 */
#include <linux/bpf.h>
#include <linux/types.h>
#ifndef GLOBAL_DATA
#define BPF_NO_GLOBAL_DATA
#endif
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#ifdef KPROBE
#include <linux/ptrace.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#endif

#define IPPROTO_TCP 6

typedef struct {
	__u32 ipv4;
	__u32 rest[3];
} ip_address;

typedef struct {
	ip_address destination_ip;
	__u32 destination_port;
	__u32 protocol;
} destination_entry;

typedef struct {
	__u32 protocol;
	__u32 source_port;
} audit_key;

typedef struct {
	__u32 uid;
	__u32 pid;
	__u32 is_root;
	__u32 destination_ipv4;
	__u32 destination_port;
#ifdef BUG_AUDIT_LAYOUT
	__u64 since;
#endif
} audit_entry;

typedef struct {
	__u32 uid;
	__u32 pid;
	__u32 is_root;
	__u32 destination_ipv4;
	__u32 destination_port;
	__u32 protocol;
} local_entry;

#ifdef LEGACY_MAPS
struct bpf_map_def {
	unsigned int type, key_size, value_size, max_entries, map_flags;
};
#define MAP(name, kind, key_type, value_type, count)                                                               \
	struct bpf_map_def SEC("maps") name = {                                                                     \
		.type = BPF_MAP_TYPE_##kind,                                                                        \
		.key_size = sizeof(key_type),                                                                       \
		.value_size = sizeof(value_type),                                                                   \
		.max_entries = count,                                                                               \
	}
#else
#define MAP(name, kind, key_type, value_type, count)                                                               \
	struct {                                                                                                    \
		__uint(type, BPF_MAP_TYPE_##kind);                                                                  \
		__uint(max_entries, count);                                                                         \
		__type(key, key_type);                                                                              \
		__type(value, value_type);                                                                          \
	} name SEC(".maps")
#endif

#ifdef BUG_POLICY_SIZE
typedef __u64 policy_key;
#else
typedef destination_entry policy_key;
#endif

MAP(skip_process_map, HASH, __u32, __u32, 10);
MAP(policy_map, HASH, policy_key, destination_entry, 10);
MAP(audit_map, LRU_HASH, audit_key, audit_entry, 200);
MAP(local_map, LRU_HASH, __u64, local_entry, 200);

#ifdef KFUNC
extern void KFUNC(void) __ksym;
#ifdef KFUNC_AFTER
extern void KFUNC_AFTER(void) __ksym;
#endif
#endif

#ifndef BUG_NO_CONNECT4
SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	destination_entry entry = {0};
	destination_entry *policy;
	local_entry local = {0};
	__u64 pid_tgid, thread;
	__u32 pid;

#ifdef KFUNC
	KFUNC();
#ifdef KFUNC_AFTER
	KFUNC_AFTER();
#endif
#endif
	entry.destination_ip.ipv4 = ctx->user_ip4;
	entry.destination_port = ctx->user_port;
	entry.protocol = ctx->protocol;
#ifdef BUG_POLICY_SIZE
	policy = bpf_map_lookup_elem(&policy_map, &cookie);
#else
	policy = bpf_map_lookup_elem(&policy_map, &entry);
#endif
#ifndef BUG_NULL_CHECK
	if (!policy)
		return 1;
#endif
	bpf_printk("redirect %llu", cookie);
	pid_tgid = bpf_get_current_pid_tgid();
	pid = pid_tgid >> 32;
	if (bpf_map_lookup_elem(&skip_process_map, &pid))
		return 1;
	local.uid = (__u32)bpf_get_current_uid_gid();
	local.pid = pid;
	local.is_root = local.uid == 0;
	local.destination_ipv4 = ctx->user_ip4;
	local.destination_port = ctx->user_port;
	local.protocol = ctx->protocol;
#ifdef SOCK_OPS
	thread = cookie;
#else
	thread = pid_tgid;
#endif
	bpf_map_update_elem(&local_map, &thread, &local, BPF_ANY);
#ifndef BUG_NO_REDIRECT
	ctx->user_ip4 = policy->destination_ip.ipv4;
	ctx->user_port = policy->destination_port;
#endif
#ifdef BUG_DENY
	return 0;
#else
	return 1;
#endif
}
#endif

#if defined(KPROBE) || defined(SOCK_OPS)
/* The kernel has chosen the source port (host byte order): what connect4 left under key becomes an audit record. */
static __always_inline int complete(__u64 key, __u16 source_port)
{
	local_entry *local = bpf_map_lookup_elem(&local_map, &key);
	audit_key where = {0};
	audit_entry who = {0};

	if (!local)
		return 0;
	where.protocol = local->protocol;
	where.source_port = bpf_htons(source_port);
	who.uid = local->uid;
	who.pid = local->pid;
	who.is_root = local->is_root;
	who.destination_ipv4 = local->destination_ipv4;
	who.destination_port = local->destination_port;
	bpf_map_update_elem(&audit_map, &where, &who, BPF_ANY);
	bpf_map_delete_elem(&local_map, &key);
	return 1;
}
#endif

#ifdef SOCK_OPS
SEC("sockops")
int complete_sockops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		complete(bpf_get_socket_cookie(ctx), ctx->local_port);
	return 1;
}
#endif

#ifdef KPROBE
#ifdef CO_RE
struct sock_common {
	__u32 skc_daddr;
	__u16 skc_dport;
	__u16 skc_num;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
#ifdef WEAK_FIELD
	int sk_field_of_another_kernel;
#endif
} __attribute__((preserve_access_index));

#define READ(to, sk, field, offset) to = BPF_CORE_READ((struct sock *)(sk), __sk_common.field)
#else
/* struct sock_common, include/net/sock.h, unchanged since 3.8 */
#define READ(to, sk, field, offset) bpf_probe_read(&(to), sizeof(to), (void *)(sk) + (offset))
#endif

/* A connect that connect4 did not see, to a destination of the policy: a record of a direct connection. */
static __always_inline void direct(__u32 ip, __u16 port, __u16 source_port)
{
	__u32 uid = (__u32)bpf_get_current_uid_gid();
	destination_entry entry = {0};
	audit_key where = {0};
	audit_entry who = {0};

	entry.destination_ip.ipv4 = ip;
	entry.destination_port = port;
	entry.protocol = IPPROTO_TCP;
	if (!bpf_map_lookup_elem(&policy_map, &entry))
		return;
	where.protocol = IPPROTO_TCP;
	where.source_port = bpf_htons(source_port);
	who.uid = uid;
	who.pid = bpf_get_current_pid_tgid() >> 32;
	who.is_root = uid == 0;
	who.destination_ipv4 = ip;
	who.destination_port = port;
	bpf_map_update_elem(&audit_map, &where, &who, BPF_ANY);
}

SEC("kprobe/tcp_v4_connect")
int tcp_v4_connect(struct pt_regs *ctx)
{
	void *sk = (void *)PT_REGS_PARM1(ctx);
	__u16 source_port = 0, port = 0;
	__u32 ip = 0;

	READ(ip, sk, skc_daddr, 0);
	READ(port, sk, skc_dport, 12);
	READ(source_port, sk, skc_num, 14);
#ifdef WEAK_FIELD
	if (bpf_core_field_exists(((struct sock *)sk)->sk_field_of_another_kernel))
		return 0;
#endif
	if (!complete(bpf_get_current_pid_tgid(), source_port))
		direct(ip, port, source_port);
	return 0;
}
#endif

char _license[] SEC("license") = "Dual MIT/GPL";
