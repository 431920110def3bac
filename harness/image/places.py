"""Which contents of a system are read: a table of places, and what is never kept."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.image.tree import Entry, Kind

_KIB, _MIB = 1 << 10, 1 << 20

LARGEST = 96 * _MIB
"""Bytes that are read of all files together."""
MOST = 30_000
"""Files that are read."""


@dataclass(frozen=True)
class Place:
    """Files whose path is like the pattern, a regular expression, and that are no larger than so many bytes."""

    pattern: str
    largest: int


_PYTHON = r"/usr/(local/)?lib(64)?/python3[^/]*/((dist|site)-packages/)?"
_UNITS = r"/(usr/|usr/local/)?lib/systemd/system"

PLACES = (
    Place(r"(/usr/lib|/etc)/os-release", 64 * _KIB),
    Place(r"/(usr/)?s?bin/azure-proxy-agent[^/]*", 48 * _MIB),
    Place(r"/(opt|usr/local)/(.*/)?azure-proxy-agent", 48 * _MIB),
    Place(r"/usr/s?bin/GuestProxyAgent[^/]*", 48 * _MIB),
    Place(r"/usr/lib/azure-proxy-agent/([^/]*|.*\.(o|json))", 16 * _MIB),
    Place(r"/(usr|opt|lib|var)/(.*/)?[^/]*bpf[^/]*\.o", 16 * _MIB),
    Place(r"/var/lib/azure-proxy-agent/.*", 1 * _MIB),
    Place(r"/var/log/azure-proxy-agent/.*", 1 * _MIB),
    Place(r"/var/log/azure/[^/]*(/[^/]*)?", 256 * _KIB),
    Place(r"/var/lib/waagent/[^/]*", 256 * _KIB),
    Place(r"/var/lib/waagent/.*(HandlerManifest\.json|HandlerState|HandlerStatus|\.settings|\.status)", 256 * _KIB),
    Place(r"/var/lib/cloud/.*", 64 * _KIB),
    Place(r"/var/log/(cloud-init(-output)?|waagent)\.log", 1 * _MIB),
    Place(r"/var/lib/dhcp/.*|/var/lib/dbus/machine-id|/var/lib/systemd/random-seed", 64 * _KIB),
    Place(_PYTHON + r"cloudinit/(version|meson_versions|settings)\.py", 256 * _KIB),
    Place(_PYTHON + r"cloudinit/sources/(DataSourceAzure|__init__)\.py", 1 * _MIB),
    Place(_PYTHON + r"cloudinit/sources/(azure|helpers)/[^/]*\.py", 512 * _KIB),
    Place(_PYTHON + r"cloud_init-[^/]*/(METADATA|PKG-INFO|RECORD)", 512 * _KIB),
    Place(_PYTHON + r"cloud_init-[^/]*\.egg-info(/PKG-INFO)?", 512 * _KIB),
    Place(_PYTHON + r"(azurelinuxagent/common/(version|conf)\.py|WALinuxAgent-[^/]*/PKG-INFO)", 512 * _KIB),
    Place(r"/usr/lib/cloud-init/[^/]*", 128 * _KIB),
    Place(_UNITS + r"/[^/]*", 64 * _KIB),
    Place(_UNITS + r"/[^/]*\.(d|wants|requires)/[^/]*", 64 * _KIB),
    Place(r"/(usr/)?lib/systemd/(system-preset|system-generators|system\.conf\.d|network)/[^/]*", 64 * _KIB),
    Place(r"/(usr/|usr/local/)?lib/(sysctl|modules-load|modprobe|tmpfiles|sysusers)\.d/[^/]*", 64 * _KIB),
    Place(r"/(usr/)?lib/modules/[^/]*/modules\.(dep|builtin|softdep)", 4 * _MIB),
    Place(r"/(usr/)?lib/modules/[^/]*/(config|kernel/config)", 1 * _MIB),
    Place(r"/(usr/)?lib/kernel/[^/]*", 64 * _KIB),
    Place(r"(/boot|/usr/lib/ostree-boot)/config-.*", 1 * _MIB),
    Place(r"/boot/grub2?/(grub\.cfg|grubenv|custom\.cfg|user\.cfg)", 2 * _MIB),
    Place(r"/(boot|boot/efi|efi)/loader/(loader\.conf|entries/[^/]*|entries\.srel)", 256 * _KIB),
    Place(r"/(boot/efi|efi|boot)/EFI/[^/]*/grub(\.cfg|env)", 512 * _KIB),
    Place(r"/boot/(extlinux|syslinux)/[^/]*\.(conf|cfg)", 256 * _KIB),
    Place(r"/etc/.*", 512 * _KIB),
)
"""The first row that a path is like counts. The contents of the agent come before those of /etc where there is much."""

DULL = (
    "/etc/ssh/moduli", "/etc/services", "/etc/mime.types", "/etc/ssl/certs/*", "/etc/udev/hwdb.bin", "/etc/ld.so.cache",
    "/etc/selinux/*/policy/*", "/etc/selinux/*/contexts/*", "/etc/pki/*", "/etc/ca-certificates/*",
    "/etc/apt/trusted.gpg*", "/etc/fonts/*", "/etc/locale.gen", "/etc/brltty/*", "/etc/X11/*",
)  # fmt: skip
"""Of /etc, what is often large and never looked at; that it was not read is not told."""


@dataclass(frozen=True)
class Excerpt:
    """Files of which a part is read: what a shell command with the path at its end prints, up to LARGEST_EXCERPT."""

    pattern: str
    command: str


LARGEST_EXCERPT = 512 * _KIB
MOST_EXCERPTS = 4
EXCERPTS = (
    # How systemd was compiled: in none of its smaller files.
    Excerpt(
        r"/(usr/)?lib(64)?/([^/]*-linux-[^/]*/)?systemd/libsystemd-shared-[^/]*\.so",
        "grep -aoE 'default-hierarchy=[a-z]+'",
    ),
    # The sections of a unified kernel image that say something lie before the kernel.
    Excerpt(r"/(boot/efi|efi|boot)/EFI/Linux/[^/]*\.[eE][fF][iI]", f"head -c {LARGEST_EXCERPT}"),
)

PASSED_OVER = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/zoneinfo", "usr/share/i18n",
    "usr/share/icons", "usr/share/help", "usr/share/info", "usr/share/terminfo", "usr/src", "usr/include",
    "usr/share/perl", "usr/share/fonts",
)  # fmt: skip
"""Directories of which not even the names are read: nothing that a system does hangs on what lies in them."""

NAMES_ALONE = (
    "usr/share/*", "usr/lib/modules/*/kernel/*", "lib/modules/*/kernel/*",
    "usr/lib/*-linux-gnu/*", "var/lib/dpkg/info/*", "*.pyc",
)  # fmt: skip
"""Paths, as find's -path has them, of which nothing but the name is read: of most systems most names."""

_SECRET = (
    "*.key", "*.prv", "*.pfx", "*.p12", "*.priv", "*/ssh_host_*_key", "/etc/ssl/private/*", "/etc/pki/*/private/*",
    "/etc/shadow?*", "/etc/gshadow*", "/etc/.pwd.lock", "/etc/ppp/*-secrets", "/etc/security/opasswd",
    "/etc/NetworkManager/system-connections/*", "/etc/letsencrypt/*", "*/id_rsa", "*/id_ed25519", "*/id_ecdsa",
    "/etc/wireguard/*", "/etc/krb5.keytab",
)  # fmt: skip
_IMPORTANT = ("etc", "boot", "usr/lib/systemd", "usr/lib/modules", "lib/systemd", "lib/modules", "var/lib/waagent")
_HASH = re.compile(rb"^([^:\n]*:!*)[^:!*\n][^:\n]*", re.MULTILINE)  # in the second field of a line of shadow(5)
_PLAIN = re.compile(r"[A-Za-z0-9/._+@=-]+")  # a path that a shell takes as it is
_ROWS = tuple((re.compile(place.pattern, re.DOTALL), place.largest) for place in PLACES)


def is_secret(path: str) -> bool:
    """Whether a file's content is never kept: its name and size say enough."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in _SECRET)


def is_dull(path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in DULL)


def masked(path: str, data: bytes) -> bytes:
    """A file's content as it is kept: of /etc/shadow no hash, but whether there is one ("$", "!$")."""
    return _HASH.sub(rb"\1$", data) if path == "/etc/shadow" else data


def excerpts(entries: Mapping[str, Entry]) -> list[tuple[str, str]]:
    """The files of which a part is read, with the command that gives it."""
    found = []
    for path, entry in entries.items():
        if entry.kind is Kind.FILE and _PLAIN.fullmatch(path):
            found += [(path, row.command) for row in EXCERPTS if re.fullmatch(row.pattern, path)]
    return found[:MOST_EXCERPTS]


def wanted(path: str, entry: Entry) -> tuple[int, str]:
    """The row of PLACES that has this file, -1 for none; and why its content is not read all the same."""
    if entry.kind is not Kind.FILE:
        return -1, ""
    for number, (pattern, largest) in enumerate(_ROWS):
        if pattern.fullmatch(path):
            if is_secret(path) or is_dull(path):
                return -1, ""
            if entry.size > largest:
                return -1, f"it has {entry.size} bytes, and no more than {largest} are read of such a file"
            return number, ""
    return -1, ""


def choose(entries: Mapping[str, Entry]) -> tuple[list[str], dict[str, str]]:
    """The files to read, and those that are left out for their size or number, with the reason."""
    chosen: list[str] = []
    left: dict[str, str] = {}
    rows: list[tuple[int, int, str]] = []
    for path, entry in entries.items():
        row, reason = wanted(path, entry)
        if reason:
            left[path] = reason
        elif row >= 0:
            rows.append((row, entry.size, path))
    total = 0
    for _, size, path in sorted(rows):
        if total + size > LARGEST or len(chosen) >= MOST:
            left[path] = f"no more than {LARGEST >> 20} MiB and {MOST} files are read of an image"
            continue
        total += size
        chosen.append(path)
    return chosen, left


def important() -> Iterator[str]:
    """Where to look first when a system has too many names to look at all; relative to its root."""
    yield from _IMPORTANT
