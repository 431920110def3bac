/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The maps of the redirector: their layouts are the Guest Proxy Agent's, so that whoever can read the agent's maps
 * can read these. Every field is a __u32; addresses and ports are in network byte order, a port in the low 16 bits.
 * harness/program/maps.py mirrors this file; a test compares the two through the kernel's map information.
 */
#ifndef MSP_HARNESS_CONNECT4_H
#define MSP_HARNESS_CONNECT4_H

#include <uapi/linux/bpf.h>

/* policy_map: where a connect goes instead. The value is such a struct too. */
struct destination {
	__u32 ip[4];		/* IPv4 in the first word, the others 0 */
	__u32 port;
	__u32 protocol;		/* IPPROTO_TCP */
};

/* audit_map's key: what the proxy knows of a connection when accept() returns. */
struct audit_key {
	__u32 protocol;
	__u32 source_port;
};

/* audit_map's value: who asked, and for what. */
struct audit_entry {
	__u32 uid;
	__u32 pid;		/* thread group, in the initial pid namespace */
	__u32 is_root;
	__u32 ip;		/* where the client wanted to go */
	__u32 port;
};

/* local_map's value: a connect whose source port is not known yet. Its key is a __u64. */
struct pending {
	struct audit_entry entry;
	__u32 protocol;
};

_Static_assert(sizeof(struct destination) == 24, "policy_map: 24 bytes");
_Static_assert(sizeof(struct audit_key) == 8, "audit_map's key: 8 bytes");
_Static_assert(sizeof(struct audit_entry) == 20, "audit_map's value: 20 bytes");
_Static_assert(sizeof(struct pending) == 24, "local_map's value: 24 bytes");
_Static_assert(__builtin_offsetof(struct destination, port) == 16, "port follows ip[4]");
_Static_assert(__builtin_offsetof(struct audit_entry, ip) == 12, "ip follows is_root");

#endif
