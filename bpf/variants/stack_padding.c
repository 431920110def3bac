// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused without CAP_PERFMON, and to everybody before 6.3: the padding of a key was never written. */
#include <uapi/linux/bpf.h>

struct key {
	__u8 protocol;		/* three bytes of padding follow */
	__u32 ip;
};

BPF_TABLE("hash", struct key, __u32, policies, 8);

int connect4(struct bpf_sock_addr *ctx)
{
	struct key key;

#ifdef REPAIRED
	__builtin_memset(&key, 0, sizeof(key));
#endif
	key.protocol = ctx->protocol;
	key.ip = ctx->user_ip4;
	return policies.lookup(&key) ? 0 : 1;
}
