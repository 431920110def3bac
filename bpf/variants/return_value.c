// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused: a return value that connect4 does not take. */
#include <uapi/linux/bpf.h>

int connect4(struct bpf_sock_addr *ctx)
{
#ifdef REPAIRED
	return ctx->user_port ? 1 : 0;
#else
	return ctx->user_port ? 1 : 2;
#endif
}
