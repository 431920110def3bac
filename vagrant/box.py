"""The box: a small Debian of this machine's own suite, made without a loop device.

It has what set-up looks for (python3, BCC, a kernel headers tree and the tools), so that a machine made of it can be
provisioned without a mirror; the wheels come from elsewhere (vagrant.wheels). What lies in the directory box/ is copied
into it as it stands. It is kept under the hash of its recipe, which is this code.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.image.sample import disk as boot_disk
from harness.kernel import packages
from harness.program import headers
from harness.vm import apt, cache
from vagrant import disk

FILES = Path(__file__).parent / "box"
KERNEL = "linux-image-cloud-amd64"
"""The package that depends on the newest kernel for virtual machines."""

_SIZE = 3 << 30  # bytes of the disk; what is not used takes no room
_MAKE_SECONDS = 1200
_BASE = (
    "initramfs-tools", "systemd-sysv", "udev", "dbus", "openssh-server", "sudo", "rsync", "procps", "ca-certificates",
    "make", "kmod",
)  # fmt: skip
_NEEDS = tuple(need for need in packages.ALL_NEEDS if need != packages.HEADERS)
_WITHOUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# A machine that lives for minutes does without; each of these costs 1 to 13 s of an emulated boot.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dev-hugepages.mount", "dev-mqueue.mount", "e2scrub_all.timer",
    "e2scrub_reap.service", "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@efi_pstore.service",
    "modprobe@fuse.service", "modprobe@loop.service", "systemd-binfmt.service",
    "systemd-networkd-wait-online.service",
)  # fmt: skip
_VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  # without it Vagrant asks the guest some 25 times which system it is
  config.vm.guest = :debian
end
"""


@dataclass(frozen=True)
class Box:
    """A box file for vagrant-libvirt, and the release of the kernel in it, as `uname -r` prints it."""

    path: Path
    kernel: str


def get() -> Box:
    """The box for this machine's suite; it takes two minutes to make.

    Raises HarnessError when this is no Debian on x86-64, a program is missing or packages cannot be had.
    """
    suite = apt.codename()
    tree = headers.headers_tree()
    digest = hashlib.sha256(json.dumps([suite, KERNEL, packages.package_names(_NEEDS, _debian())]).encode())
    digest.update(tree.release.encode())
    code = [Path(name) for name in (__file__, disk.__file__, boot_disk.__file__)]
    for path in sorted(path for path in (*FILES.rglob("*"), *code) if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    name = f"{suite}-{digest.hexdigest()[:16]}"
    entry = cache.kept("boxes", name, lambda place: _make(suite, tree, place))
    return Box(entry / "debian.box", (entry / "kernel.txt").read_text().strip())


def _debian() -> packages.Distribution:
    row = packages.distribution()
    attempted = "make a box for Vagrant"
    if row is None or row.name != "Debian":
        raise HarnessError(attempted, "it is made of Debian's packages, by Debian's apt", "run this on Debian")
    if platform.machine() != "x86_64":
        raise HarnessError(attempted, f"its boot loader is for x86-64, and this is {platform.machine()}")
    if os.geteuid() != 0:
        raise HarnessError(attempted, "this is not root", "run this as root")
    return row


def _make(suite: str, tree: headers.Headers, place: Path) -> None:
    root, box, sources = place / "root", place / "box", place / "sources.list"
    box.mkdir()
    sources.write_text("".join(f"{source.line()}\n" for source in apt.sources_of(suite)))
    wanted = (KERNEL, *_BASE, *packages.package_names(_NEEDS, _debian()))
    run(
        [
            # A kill leaves neither a process nor a mount: the kernel ends unshare with its parent, and all with it.
            "setpriv", "--pdeathsig", "KILL",
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase",
            f"--include={','.join(wanted)}",
            *(f"--dpkgopt=path-exclude={path}" for path in _WITHOUT),
            # before the kernel's package makes one: how an initramfs is made
            f'--setup-hook=mkdir -p "$1/etc"; cp -R {shlex.quote(str(FILES))}/etc/initramfs-tools "$1/etc"',
            suite, root, sources,
        ],
        timeout=_MAKE_SECONDS,
    )  # fmt: skip
    _finish(root, tree)
    (release,) = (path.name for path in (root / "lib/modules").iterdir())
    (box / "kernel.txt").write_text(f"{release}\n")
    disk.make(root, box / "box.img", _SIZE)
    (box / "Vagrantfile").write_text(_VAGRANTFILE)
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": _SIZE >> 30}
    (box / "metadata.json").write_text(json.dumps(metadata))
    with tarfile.open(place / "debian.box", "w") as archive:
        for name in ("metadata.json", "Vagrantfile", "kernel.txt", "box.img"):
            archive.add(box / name, name)
    shutil.copy(box / "kernel.txt", place)
    shutil.rmtree(root)
    shutil.rmtree(box)
    sources.unlink()


def _finish(root: Path, tree: headers.Headers) -> None:
    """The files of box/, a user vagrant who may log in with Vagrant's well-known key, headers, and no slow services."""
    for name in ("include", f"arch/{headers.architecture()}/include"):
        shutil.copytree(tree.path / name, root / "usr/src" / f"linux-headers-{tree.release}" / name)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copytree(FILES, root, dirs_exist_ok=True)
    for file in FILES.rglob("*"):  # a checkout has the modes that its user's umask left
        (root / file.relative_to(FILES)).chmod(0o755 if file.is_dir() or file.stat().st_mode & 0o100 else 0o644)
    (root / "etc/sudoers.d/vagrant").chmod(0o440)
    run(["chroot", root, "useradd", "--shell", "/bin/bash", "vagrant"])
    # Not `!`, the default: sshd refuses a locked account even with a key.
    run(["chroot", root, "usermod", "--password", "*", "vagrant"])
    for path, mode in (("", 0o755), (".ssh", 0o700), (".ssh/authorized_keys", 0o600)):
        (root / "home/vagrant" / path).chmod(mode)
    run(["chroot", root, "chown", "-R", "vagrant:vagrant", "/home/vagrant"])
    run(["chroot", root, "systemctl", "enable", "systemd-networkd", "ssh"])
    for unit in _MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (root / "etc/machine-id").write_text("")
    for unwanted in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / unwanted, ignore_errors=True)
