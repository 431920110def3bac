// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The harness's own redirector. What it does at connect():
 *
 *   connect4            a destination of policy_map is replaced, unless the caller is in skip_process_map; who asked
 *                       waits in local_map, because the kernel has not chosen the source port yet
 *   complete_sockops    at TCP_CONNECT_CB the port is known: the record goes to audit_map under (protocol, port)
 *   complete_kprobe     the same from a kprobe on tcp_connect, as the agent does it; for kernels without the first
 *   connect6            (hardened) the same for IPv4-mapped destinations of AF_INET6 sockets, which connect4 never sees
 *
 * JOIN_BY_THREAD: local_map is keyed by pid_tgid (all that a kprobe has) instead of the socket's cookie.
 * A record of an earlier connection must never speak for a later one, so a connect to loopback that is not redirected
 * removes what audit_map holds under its source port. (The agent's key has neither address nor network namespace: two
 * clients with one port at two source addresses, or in two namespaces, still share a record.)
 */
#include "connect4.h"

#define AF_INET 2
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define LOOPBACK_NET 127
/* struct sock_common, include/net/sock.h, unchanged since 3.8: skc_daddr comes first, skc_dport before skc_num */
#define SKC_DADDR_OFFSET 0
#define SKC_NUM_OFFSET 14
#define SKC_FAMILY_OFFSET 16

/*
 * Where struct pt_regs has a function's first argument: di, regs[0], a0. These layouts stay, since users' programs rely
 * on them; linux/ptrace.h would be the inside of one kernel, and takes clang more than a second.
 */
#if defined(__x86_64__)
#define FIRST_ARGUMENT 112
#elif defined(__aarch64__)
#define FIRST_ARGUMENT 0
#elif defined(__riscv)
#define FIRST_ARGUMENT 80
#endif

#ifndef AUDIT_ENTRIES
#define AUDIT_ENTRIES 4096
#endif

BPF_TABLE("hash", struct destination, struct destination, policy_map, 10);
BPF_TABLE("hash", __u32, __u32, skip_process_map, 10);
BPF_TABLE("lru_hash", struct audit_key, struct audit_entry, audit_map, AUDIT_ENTRIES);
BPF_TABLE("lru_hash", __u64, struct pending, local_map, AUDIT_ENTRIES);

static __always_inline __u64 connection(void *ctx)
{
#ifdef JOIN_BY_THREAD
	return bpf_get_current_pid_tgid();
#else
	return bpf_get_socket_cookie(ctx);
#endif
}

/* The policy's answer for where ctx wants to go, or NULL. */
static __always_inline struct destination *redirect_for(struct bpf_sock_addr *ctx, __u32 ip)
{
	struct destination wanted = {};

	wanted.ip[0] = ip;
	wanted.port = ctx->user_port;
	wanted.protocol = ctx->protocol;
	return policy_map.lookup(&wanted);
}

static __always_inline int skipped(void)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	return skip_process_map.lookup(&pid) != 0;
}

static __always_inline void remember(struct bpf_sock_addr *ctx, __u32 ip)
{
	__u64 key = connection(ctx);
	__u32 uid = bpf_get_current_uid_gid();
	struct pending who = {};

	who.entry.uid = uid;
	who.entry.pid = bpf_get_current_pid_tgid() >> 32;
	who.entry.is_root = uid == 0;
	who.entry.ip = ip;
	who.entry.port = ctx->user_port;
	who.protocol = ctx->protocol;
	local_map.update(&key, &who);
}

/* A socket may have wanted an endpoint before, in a connect that failed on its way. */
static __always_inline void forget(void *ctx)
{
	__u64 key = connection(ctx);

	local_map.delete(&key);
}

/*
 * A TCP connect has got its source port (host byte order); remote is where it goes. Only what goes to loopback can
 * meet the listener, and only there does a record of the same port matter: the VM's other connects may well have the
 * port of a client that waits to be accepted.
 */
static __always_inline void complete_record(__u64 connection, __u16 source_port, __u32 remote)
{
	struct pending *who = local_map.lookup(&connection);
	struct audit_key key = {};

	key.protocol = IPPROTO_TCP;
	key.source_port = bpf_htons(source_port);
	if (who) {
		key.protocol = who->protocol;
		audit_map.update(&key, &who->entry);
		local_map.delete(&connection);
	} else if (bpf_ntohl(remote) >> 24 == LOOPBACK_NET) {
		audit_map.delete(&key);
	}
}

#ifdef HARDENED
/* A socket bound to a device cannot reach the listener, which is on loopback. */
static __always_inline void unbind_device(struct bpf_sock_addr *ctx)
{
	char none[1] = {};

	bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, none, sizeof(none));
}
#endif

int connect4(struct bpf_sock_addr *ctx)
{
	__u32 ip = ctx->user_ip4;
	struct destination *to = redirect_for(ctx, ip);

	if (!to || skipped()) {
		forget(ctx);
		return 1;
	}
#ifdef HARDENED
	unbind_device(ctx);
#endif
	remember(ctx, ip);
	ctx->user_ip4 = to->ip[0];
	ctx->user_port = to->port;
	return 1;
}

#ifdef HARDENED
int connect6(struct bpf_sock_addr *ctx)
{
	__u32 ip = ctx->user_ip6[3];
	struct destination *to;

	if (ctx->user_ip6[0] || ctx->user_ip6[1] || ctx->user_ip6[2] != bpf_htonl(0xffff))
		return 1;
	to = redirect_for(ctx, ip);
	if (!to || skipped()) {
		forget(ctx);
		return 1;
	}
	unbind_device(ctx);
	remember(ctx, ip);
	ctx->user_ip6[3] = to->ip[0];
	ctx->user_port = to->port;
	return 1;
}
#endif

#ifdef JOIN_BY_THREAD
int complete_kprobe(void *ctx)
{
	void *sk = (void *)*(unsigned long *)(ctx + FIRST_ARGUMENT);
	__u32 remote = 0;
	__u16 port = 0, family = 0;

	bpf_probe_read(&remote, sizeof(remote), sk + SKC_DADDR_OFFSET);
	bpf_probe_read(&port, sizeof(port), sk + SKC_NUM_OFFSET);
	bpf_probe_read(&family, sizeof(family), sk + SKC_FAMILY_OFFSET);
#ifndef HARDENED
	/* Not ours: no hook saw it. What waits is of a connect of this thread that failed before it came here. */
	if (family != AF_INET)
		forget(ctx);
#endif
	complete_record(bpf_get_current_pid_tgid(), port, remote);
	return 0;
}
#endif

/* Joined by thread (kernels from 6.10), it stands in for the kprobe of somebody else's object where there are none. */
int complete_sockops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		complete_record(connection(ctx), ctx->local_port, ctx->remote_ip4);
	return 1;
}
