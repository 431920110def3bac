// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused: what a lookup gives is used although it may be NULL. */
#include <uapi/linux/bpf.h>

BPF_TABLE("hash", __u32, __u64, seen, 8);

int connect4(struct bpf_sock_addr *ctx)
{
	__u32 key = ctx->user_ip4;
	__u64 *count = seen.lookup(&key);

#ifdef REPAIRED
	if (!count)
		return 1;
#endif
	*count += 1;
	return 1;
}
