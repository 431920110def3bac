// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused without CAP_PERFMON, and to everybody before 6.3: a part of the key, padding or not, was never written. */
#include <uapi/linux/bpf.h>

/* The hole is the lower half of a slot: a narrow store to its beginning is a spill, for which kernels fill the rest. */
struct key {
	__u64 ip;
#ifdef REPAIRED
	__u64 protocol;		/* as wide as its slot */
#else
	__u32 padding;
	__u32 protocol;
#endif
};

BPF_TABLE("hash", struct key, __u32, policies, 8);

int connect4(struct bpf_sock_addr *ctx)
{
	struct key key;

	key.protocol = ctx->protocol;
	key.ip = ctx->user_ip4;
	return policies.lookup(&key) ? 0 : 1;
}
