// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Refused where the licence that the loader names is not GPL: trace_printk is for GPL programs only. */
#include <uapi/linux/bpf.h>

int connect4(struct bpf_sock_addr *ctx)
{
	bpf_trace_printk("connect4");
	return 1;
}
