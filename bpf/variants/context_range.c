// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused: a read beyond the end of the context. */
#include <uapi/linux/bpf.h>

int connect4(struct bpf_sock_addr *ctx)
{
	void *start = ctx;
#ifdef REPAIRED
	volatile __u32 *field = start + __builtin_offsetof(struct bpf_sock_addr, user_ip4);
#else
	volatile __u32 *field = start + sizeof(*ctx) + 64;
#endif

	return *field ? 1 : 0;
}
