// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused: a loop that ends only when chance wills it. */
#include <uapi/linux/bpf.h>

int connect4(struct bpf_sock_addr *ctx)
{
#ifdef REPAIRED
	for (int tries = 0; tries < 8; tries++)
		if (bpf_get_prandom_u32() == 1)
			break;
#else
	while (bpf_get_prandom_u32() != 1)
		;
#endif
	return 1;
}
