// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused: a helper with a number that no kernel has yet. */
#include <uapi/linux/bpf.h>

static long (*from_the_future)(void) = (void *)100000;

int connect4(struct bpf_sock_addr *ctx)
{
#ifndef REPAIRED
	from_the_future();
#endif
	return 1;
}
