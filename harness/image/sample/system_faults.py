"""Faults of everything else in a sample: kernel, modules, boot, generalisation, the disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from harness.errors import HarnessError
from harness.image.sample import menu
from harness.image.sample.disk import MIB, SECTOR
from harness.image.sample.site import Site
from harness.vm import suites

_LEGACY = "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"  # systemd 256 and 257 want it; from 258 on there is cgroup2 alone
_WAAGENT = """\
[Unit]
Description=Azure Linux Agent
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=/usr/sbin/waagent -daemon

[Install]
WantedBy=multi-user.target
"""
_PASSWORD = "$6$sample$"
"""Begins the hash of a password; what follows is that of no known one."""


def cgroup_v1(site: Site) -> None:
    site.line += f" systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1 {_LEGACY}"


def cgroup_hybrid(site: Site) -> None:
    site.line += f" systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0 {_LEGACY}"


def no_console(site: Site) -> None:
    words = (word for word in site.line.split() if not word.startswith(("console=", "earlyprintk=")))
    site.line = " ".join(words)


def no_hyperv(site: Site) -> None:
    """Gone from /lib/modules; the initramfs keeps what finds the root disk."""
    found = [path for name in ("hv_*.ko*", "hyperv_*.ko*") for path in site.path("usr/lib/modules").rglob(name)]
    if not found:
        raise HarnessError("break a sample", "it has no module of Hyper-V's")
    for path in found:
        path.unlink()
    for release in menu.kernels(site.root):
        site.run("depmod", release)


def initramfs_without_hyperv(site: Site) -> None:
    """As one is that was made on another hypervisor, with the drivers of that machine alone."""
    listed = site.read("etc/initramfs-tools/modules").splitlines(keepends=True)
    site.write("etc/initramfs-tools/modules", "".join(name for name in listed if not name.startswith("hv_")))
    site.run("update-initramfs", "-u", "-k", "all")


def netvsc_blacklisted(site: Site) -> None:
    site.write("etc/modprobe.d/hardening.conf", "blacklist hv_netvsc\ninstall hv_netvsc /bin/false\n")


def udf_blacklisted(site: Site) -> None:
    names = ("cramfs", "udf", "isofs")
    site.write("etc/modprobe.d/hardening.conf", "".join(f"install {name} /bin/false\n" for name in names))


def two_kernels(site: Site) -> None:
    """Another suite's kernel beside it, and the older of the two boots."""
    other = "bookworm" if site.suite == "bullseye" else "bullseye"
    place = site.root.parent / "packages"
    place.mkdir()
    packages = suites.packages_of(suites.Suite(other), place)
    inside = site.path("other-kernel")
    inside.mkdir()
    for package in packages:
        shutil.copy(package, inside)
    site.run("sh", "-c", "dpkg -i --force-depends /other-kernel/*.deb")
    shutil.rmtree(inside)
    shutil.rmtree(place)
    site.default = len(menu.kernels(site.root)) - 1


def no_loader(site: Site) -> None:
    site.layout = replace(site.layout, loader=False)


def misaligned(site: Site) -> None:
    site.layout = replace(site.layout, start=MIB // SECTOR + 1)


def odd_size(site: Site) -> None:
    site.layout = replace(site.layout, size=site.layout.size + 256 * 1024)


def waagent(site: Site) -> None:
    site.write("etc/waagent.conf", "Provisioning.Agent=waagent\nResourceDisk.Format=n\n")
    site.write("usr/sbin/waagent", "#!/bin/sh\nexec sleep infinity\n", 0o755)
    site.write("usr/lib/systemd/system/walinuxagent.service", _WAAGENT)
    site.run("systemctl", "enable", "walinuxagent")


def machine_id(site: Site) -> None:
    site.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")


def host_keys(site: Site) -> None:
    for kind in ("rsa", "ed25519"):
        site.run(
            "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@built-here", "-f", f"/etc/ssh/ssh_host_{kind}_key"
        )


def root_password(site: Site) -> None:
    rows = site.read("etc/shadow").splitlines()
    fields = [row.split(":") for row in rows]
    for one in fields:
        if one[0] == "root":
            one[1] = _PASSWORD + "x" * 86
    kept = site.path("etc/shadow").stat()
    site.write("etc/shadow", "".join(":".join(one) + "\n" for one in fields), kept.st_mode & 0o7777)
    os.chown(site.path("etc/shadow"), kept.st_uid, kept.st_gid)
