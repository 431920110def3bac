"""Vagrant: machines of other kernels for CI, a box of our own, and the whole way tried in a private world."""
