"""A suite's root file system for samples: Debian's own packages, laid out as its images for Azure are.

It is made once for each suite and kept as a tar under the hash of its recipe; what a sample has besides is laid over
it. It is generalised: no machine-id, no host keys, no state of cloud-init.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.command import run, text
from harness.errors import HarnessError
from harness.vm import cache, mmdebstrap, suites

KIND = "sample-roots"
"""Where these are in the cache."""

LABEL = "sample-root"
"""The root file system's label: what fstab and the kernel's command line name it by."""

_MERGE = 'cd "$1"; for name in bin sbin lib lib64; do mkdir -p usr/$name; ln -s usr/$name $name; done'
_VERSION = 1  # of how one is made, where the recipe does not show it
_MAKE_SECONDS = 1200
_COMMON = (
    "initramfs-tools", "systemd-sysv", "udev", "dbus", "kmod", "cloud-init", "openssh-server", "sudo",
    "iproute2", "netbase", "procps", "ca-certificates", "python3",
)  # fmt: skip
_WITHOUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# What finds the root disk on Azure, and on the machines that QEMU makes; a small initramfs loads fast in an emulation.
_MODULES = (
    "hv_vmbus", "hv_storvsc", "virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "ahci",
    "ata_piix", "ext4", "crc32c_generic",
)  # fmt: skip
# A machine that lives for minutes does without; each of these costs 1 to 13 s of an emulated boot.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "dev-hugepages.mount",
    "dev-mqueue.mount", "e2scrub_all.timer", "e2scrub_reap.service", "modprobe@dm_mod.service",
    "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service", "modprobe@loop.service",
    "systemd-binfmt.service", "systemd-networkd-wait-online.service", "systemd-pcrmachine.service",
)  # fmt: skip
COMMAND_LINE = f"root=LABEL={LABEL} ro console=tty0 console=ttyS0,115200 earlyprintk=ttyS0,115200 consoleblank=0"
"""As Debian's images for Azure have it."""

_BEFORE = {
    "etc/initramfs-tools/conf.d/sample": "MODULES=list\nCOMPRESS=gzip\nRESUME=none\n",
    "etc/initramfs-tools/modules": "".join(f"{name}\n" for name in _MODULES),
}
"""What the kernel's package is to find when it makes an initramfs."""

_AFTER = {
    "etc/fstab": f"LABEL={LABEL} / ext4 defaults,errors=remount-ro 0 1\n",
    "etc/hostname": "localhost\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/default/grub": (
        'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_TERMINAL="serial console"\n'
        f'GRUB_CMDLINE_LINUX="{COMMAND_LINE.partition(" ro ")[2]}"\n'
    ),
    "etc/cloud/cloud.cfg.d/90-azure.cfg": "# Azure alone is looked for\ndatasource_list: [ Azure ]\n",
    "etc/cloud/cloud.cfg.d/91-locale.cfg": "# the one that needs nothing made\nlocale: C.UTF-8\n",
    "etc/machine-id": "",
}


@dataclass(frozen=True)
class Suite:
    """What differs: the DHCP client that its cloud-init runs by itself, and what brings the network up for good.

    merges: its packages do not make /bin, /sbin and /lib links into /usr by themselves, as its images have them.
    """

    name: str
    dhcp: str
    network: str
    merges: bool = False


SUITES: Mapping[str, Suite] = {
    row.name: row
    for row in (
        Suite("bullseye", "isc-dhcp-client", "ifupdown", merges=True),
        Suite("bookworm", "isc-dhcp-client", "systemd-networkd"),
        Suite("trixie", "dhcpcd-base", "systemd-networkd"),
        Suite("forky", "dhcpcd-base", "systemd-networkd"),
        Suite("sid", "dhcpcd-base", "systemd-networkd"),
    )
}


def get(name: str, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The tar of a suite's root file system; the first time it takes some minutes, which tell is told.

    Raises HarnessError for a suite that is not in SUITES, without root, and when packages cannot be had.
    """
    suite = SUITES.get(name)
    attempted = f"make a sample of {name}"
    if suite is None:
        raise HarnessError(attempted, "there is no such suite here", f"take one of {', '.join(SUITES)}")
    if platform.machine() != "x86_64":
        raise HarnessError(attempted, f"its kernel is for x86-64, and this is {platform.machine()}")
    if os.geteuid() != 0:
        raise HarnessError(attempted, "this is not root: it makes files of other owners", "run it as root")
    recipe = [_VERSION, _packages(suite), suite.network, _WITHOUT, _MASKED, _BEFORE, _AFTER]
    recipe += [_MERGE] if suite.merges else []
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]

    def make(place: Path) -> None:
        tell(f"making a root file system of {name}, from its packages")
        _make(suite, place, tell)

    return cache.kept(KIND, f"{name}-{digest}", make) / "root.tar"


def _packages(suite: Suite) -> tuple[str, ...]:
    network = () if suite.network.startswith("systemd-") else (suite.network,)
    return (*_COMMON, suite.dhcp, *network)


def _make(suite: Suite, place: Path, tell: Callable[[str], None]) -> None:
    """Its kernel is the newest for virtual machines, which have Hyper-V's drivers, that the mirror really has."""
    kernel = suites.get(suites.Suite(suite.name), refresh=True, tell=tell).origin.split()[1]
    root, before = place / "root", place / "before"
    write(before, _BEFORE)
    words = [
        *(f"--dpkgopt=path-exclude={path}" for path in _WITHOUT),
        *(f"--aptopt={line}" for line in _allowances()),
        *([f"--setup-hook={_MERGE}"] if suite.merges else []),
        f'--setup-hook=cp -R {before}/. "$1"',
    ]
    mmdebstrap.unpack(suite.name, root, "minbase", (kernel, *_packages(suite)), words, seconds=_MAKE_SECONDS)
    _finish(root, suite)
    run(
        ["tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-cf", place / "root.tar", "."],
        timeout=600,
    )
    for path in (root, before):
        shutil.rmtree(path)


def _allowances() -> list[str]:
    """What this machine's apt lets pass: lists that are out of date, say, since it uses an archive."""
    lines = text(run(["apt-config", "dump"]).stdout).splitlines()
    return [line for line in lines if line.startswith("Acquire::Check-")]


def _finish(root: Path, suite: Suite) -> None:
    """Settings, no slow services, and nothing that belongs to one machine."""
    write(root, _AFTER)
    if suite.network.startswith("systemd-"):
        run(["chroot", root, "systemctl", "enable", suite.network])
    run(["chroot", root, "passwd", "--lock", "root"])
    for unit in _MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for path in (*(root / "etc/ssh").glob("ssh_host_*"), *(root / "var/lib/cloud").glob("*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for unwanted in ("var/cache/apt", "var/lib/apt/lists", "usr/lib/python3.9/test"):
        shutil.rmtree(root / unwanted, ignore_errors=True)
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)


def write(root: Path, files: Mapping[str, str | bytes], mode: int = 0o644) -> None:
    """Write files below a root. What is there is replaced and never written into, be it a link or a file."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
