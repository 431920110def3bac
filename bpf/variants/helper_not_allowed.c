// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused: a helper that exists, and that a connect4 program may not call. */
#include <uapi/linux/bpf.h>

int connect4(struct bpf_sock_addr *ctx)
{
#ifndef REPAIRED
	bpf_redirect(0, 0);
#endif
	return 1;
}
