// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused: a field of the context is written that connect4 may only read. */
#include <uapi/linux/bpf.h>

int connect4(struct bpf_sock_addr *ctx)
{
#ifdef REPAIRED
	ctx->user_ip4 = ctx->user_ip4;
#else
	ctx->protocol = 17;
#endif
	return 1;
}
