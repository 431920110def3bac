"""Somebody's eBPF object: read, taken to pieces, and compared, without loading it."""
