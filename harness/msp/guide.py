"""The troubleshooting guide as data: its headings, and the excerpts that failures are compared with, byte for byte."""

from __future__ import annotations

from importlib import resources

NEW_VM = "New Virtual Machine (VM) or Virtual Machine Scale Sets deployment failures"
NEW_VM_WINDOWS = NEW_VM + ": Windows"
NEW_VM_LINUX = NEW_VM + ": Linux"
NOT_APPLIED = "MSP enabled, but not applied in existing VM or Virtual Machine Scale Sets"
SERVICE = "GPA service missing or not running"
SERVICE_WINDOWS = "GPA service missing or not running: Windows VM"
SERVICE_LINUX = "GPA service missing or not running: Linux VM"  # the prerequisites stand there
SETUP_FAILED = "GPA service is running, but unable to set up"
CHAIN = "Confirming the issue still exists: Check proxyAgentStatus"
EBPF_FAILED = "eBPF setup failed"
LOAD_FAILED = "Failed to load eBPF program"
ATTACH_FAILED = "Failed to attach cgroup program for redirection"
KEY_REJECTED = "Failed to acquire key / key rejected"
KEY_RESET = "Key recovery / key reset"

LOAD_EXCERPT = "load-failed.txt"
ATTACH_EXCERPT = "attach-failed.txt"
EXCERPTS = (LOAD_EXCERPT, ATTACH_EXCERPT)

CGROUP_QUESTIONS = ("grep cgroup /proc/filesystems", "mount | grep cgroup2")
"""The two commands that the guide gives for a failed attach."""


def excerpt(name: str) -> str:
    """The text of one code block of the guide, exactly as it stands there (a fragment of a status.json, not JSON)."""
    return excerpt_bytes(name).decode("utf-8")


def excerpt_bytes(name: str) -> bytes:
    """The same as bytes. Raises FileNotFoundError for a name that is not in EXCERPTS."""
    return resources.files("harness.msp").joinpath("guide-excerpts", name).read_bytes()
