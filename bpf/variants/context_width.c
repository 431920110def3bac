// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused: a field of the context is written with another width than its own. */
#include <uapi/linux/bpf.h>

int connect4(struct bpf_sock_addr *ctx)
{
	void *port = &ctx->user_port;

#ifdef REPAIRED
	*(volatile __u32 *)port = bpf_htons(3080);
#else
	*(volatile __u16 *)port = bpf_htons(3080);
#endif
	return 1;
}
