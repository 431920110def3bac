"""What this kernel and this process are: read from /proc and /sys, judged by nobody here."""

from __future__ import annotations

import gzip
import os
import platform
import resource
from collections.abc import Mapping
from pathlib import Path

CAPABILITIES: Mapping[str, int] = {
    "CAP_CHOWN": 0,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""Numbers of include/uapi/linux/capability.h; those that matter here. CAP_PERFMON and CAP_BPF exist from 5.8 on."""


def release() -> str:
    return platform.release()


def boot_id() -> str:
    """What names this boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def distribution() -> str:
    """PRETTY_NAME of os-release."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown distribution"


def capabilities() -> set[str]:
    """The effective capabilities among those of CAPABILITIES."""
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    return {name for name, bit in CAPABILITIES.items() if effective >> bit & 1}


def last_capability() -> int:
    """The highest capability that the kernel knows: below 39, there is no CAP_BPF."""
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except OSError:
        return 0


def in_user_namespace() -> bool:
    """Whether root here is not the machine's root."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def lockdown() -> str | None:
    """none, integrity or confidentiality; None where the kernel has no lockdown LSM or does not show it."""
    try:
        words = Path("/sys/kernel/security/lockdown").read_text().split()
    except OSError:
        return None
    return next((word.strip("[]") for word in words if word.startswith("[")), None)


def memlock_limit() -> int | None:
    """RLIMIT_MEMLOCK's soft limit in bytes; None: unlimited."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def sysctl(name: str) -> str | None:
    """A sysctl by its dotted name; None where the kernel has none of that name."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def has_btf() -> bool:
    return Path("/sys/kernel/btf/vmlinux").exists()


def has_kprobes() -> bool:
    """Whether perf_event_open can make kprobes (CONFIG_KPROBE_EVENTS, 4.17)."""
    return Path("/sys/bus/event_source/devices/kprobe/type").exists()


def config() -> dict[str, str]:
    """The kernel's configuration where it shows it (/proc/config.gz, /boot/config-RELEASE), else empty."""
    for path, reader in (("/proc/config.gz", gzip.open), (f"/boot/config-{release()}", open)):
        try:
            with reader(path, "rt") as file:
                lines = [line.strip() for line in file]
        except OSError:
            continue
        pairs = (line.split("=", 1) for line in lines if line.startswith("CONFIG_") and "=" in line)
        return {key: value.strip('"') for key, value in pairs}
    return {}


def cpus() -> int:
    return os.cpu_count() or 1
