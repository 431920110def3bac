"""What a machine needs, and what each distribution calls it: a table.

Set-up reads this with the bare system interpreter, before there is a virtual environment: nothing but the standard
library is imported here, and the syntax is that of Python 3.8, so that an old machine gets a message and no traceback.

Names were taken from the distributions' package descriptions and from BCC's own installation guide; those of Debian
are tried on every run of the tests. A name that depends on the running kernel is in HEADERS_OF_KERNEL.
"""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Needs. The words are also what the command line of this module takes.
PYTHON = "python"  # the distribution's own interpreter, 3.11 or newer
VENV = "venv"  # its module venv, with ensurepip
BCC = "bcc"  # its module bcc (BPF Compiler Collection)
HEADERS = "headers"  # a kernel headers tree, of any kernel: the program uses UAPI types only
CURL = "curl"
NFT = "nft"  # nft(8): the benchmark compares with a REDIRECT rule
IP = "ip"  # ip(8): only a person and the tests run it; the lab speaks netlink itself
CAPSH = "capsh"  # capsh(1): to run a test with fewer capabilities
CLANG = "clang"  # clang(1) with the target bpf: the tests compile objects like an agent's
LLVM_STRIP = "llvm-strip"  # llvm-strip(1): and strip some of them
LIBBPF_HEADERS = "libbpf-headers"  # bpf/bpf_helpers.h
CHROMIUM = "chromium"  # chromium(1): the tests open the HTML pages in it
CHROMEDRIVER = "chromedriver"  # chromedriver(1), by which they do
QEMU = "qemu"  # to boot other kernels
MMDEBSTRAP = "mmdebstrap"  # mmdebstrap(1): makes the root file system of a guest
E2FSPROGS = "e2fsprogs"  # mke2fs(8): puts it into an image
KMOD = "kmod"  # depmod(8), for the modules of another kernel
LZ4 = "lz4"  # lz4(1): unpacks a kernel; Debian 11 and 12 pack theirs so
RPM = "rpm"  # rpmkeys(8): who signed the package of a kernel; rpmbuild(1): the tests make one
GUESTFISH = "guestfish"  # guestfish(1): takes the kernel out of a disk image
GCC = "gcc"  # gcc(1) with binutils
MAKE = "make"  # make(1)
FLEX = "flex"  # flex(1): Kconfig's parser
BISON = "bison"  # bison(1): the same
BC = "bc"  # bc(1): a table of the kernel's time
LIBELF = "libelf"  # gelf.h: objtool
PAHOLE = "pahole"  # pahole(1): the kernel's BTF
PATCH = "patch"  # patch(1)
XZ = "xz"  # xz(1): the source is packed so
CCACHE = "ccache"  # ccache(1): a second build takes a fraction
VAGRANT = "vagrant"  # vagrant(1)
VAGRANT_LIBVIRT = "vagrant-libvirt"  # its provider for libvirt
LIBVIRTD = "libvirtd"  # libvirtd(8), as a program: no service is started
LIBVIRT_QEMU = "libvirt-qemu"  # its driver for QEMU
VIRSH = "virsh"  # virsh(1)
QEMU_IMG = "qemu-img"  # qemu-img(1)
RSYNC = "rsync"  # rsync(1): Vagrant's synced folder
SSH = "ssh"  # ssh(1)
GRUB = "grub"  # grub-mkimage(1) and the first stage for a PC's BIOS
GRUB_EFI = "grub-efi"  # GRUB's modules for UEFI
MTOOLS = "mtools"  # mformat(1), mcopy(1): a FAT file system without a mount
SFDISK = "sfdisk"  # sfdisk(8): a GPT
OVMF = "ovmf"  # UEFI for a machine that QEMU makes

# What `msp-harness verify` cannot do without, and what the census, the tests and the benchmark use besides.
RUNTIME_NEEDS = (PYTHON, VENV, BCC, HEADERS)
TOOL_NEEDS = (CURL, NFT, IP, CAPSH)
ALL_NEEDS = RUNTIME_NEEDS + TOOL_NEEDS
# What it takes to compile the tests' objects; set-up installs it for `make test` only.
TEST_NEEDS = (CLANG, LLVM_STRIP, LIBBPF_HEADERS)
# What it takes to look at the HTML pages, on distributions with apt; set-up installs it for `make test` only.
BROWSER_NEEDS = (CHROMIUM, CHROMEDRIVER)
# What it takes to boot another kernel, on distributions with apt; set-up never installs it.
VM_NEEDS = (QEMU, MMDEBSTRAP, E2FSPROGS, KMOD, LZ4)
# What it takes to take kernels from other places than apt; set-up installs it for `make test` only.
KERNEL_NEEDS = (RPM, GUESTFISH)
# What it takes to build lab kernels, there; set-up installs it for `make test` only.
BUILD_NEEDS = (GCC, MAKE, FLEX, BISON, BC, LIBELF, PAHOLE, PATCH, XZ, CCACHE)
# What it takes to run Vagrant with a box of our own; set-up installs it for `make vagrant-test` and `test-all` only.
VAGRANT_NEEDS = (VAGRANT, VAGRANT_LIBVIRT, LIBVIRTD, LIBVIRT_QEMU, VIRSH, QEMU_IMG, RSYNC, SSH, GRUB)
# What it takes to make images of whole systems and to boot them; set-up installs it for `make test` only.
SAMPLE_NEEDS = (MMDEBSTRAP, E2FSPROGS, GRUB, GRUB_EFI, MTOOLS, SFDISK, QEMU_IMG, OVMF)

WHAT = {
    PYTHON: "Python 3.11 or newer",
    VENV: "Python's venv",
    BCC: "BCC's Python module",
    HEADERS: "kernel headers",
    CURL: "curl",
    NFT: "nft",
    IP: "ip",
    CAPSH: "capsh",
    CLANG: "clang",
    LLVM_STRIP: "llvm-strip",
    LIBBPF_HEADERS: "libbpf's headers",
    CHROMIUM: "Chromium",
    CHROMEDRIVER: "Chromium's driver",
    QEMU: "QEMU",
    MMDEBSTRAP: "mmdebstrap",
    E2FSPROGS: "mke2fs",
    KMOD: "depmod",
    LZ4: "lz4",
    RPM: "rpm",
    GUESTFISH: "guestfish",
    GCC: "gcc",
    MAKE: "make",
    FLEX: "flex",
    BISON: "bison",
    BC: "bc",
    LIBELF: "libelf's headers",
    PAHOLE: "pahole",
    PATCH: "patch",
    XZ: "xz",
    CCACHE: "ccache",
    VAGRANT: "Vagrant",
    VAGRANT_LIBVIRT: "Vagrant's provider for libvirt",
    LIBVIRTD: "libvirtd",
    LIBVIRT_QEMU: "libvirt's driver for QEMU",
    VIRSH: "virsh",
    QEMU_IMG: "qemu-img",
    RSYNC: "rsync",
    SSH: "ssh",
    GRUB: "grub-mkimage",
    GRUB_EFI: "GRUB for UEFI",
    MTOOLS: "mtools",
    SFDISK: "sfdisk",
    OVMF: "OVMF",
}


@dataclass(frozen=True)
class Distribution:
    """A family of distributions: its packages by need and the command that installs them.

    {arch} in a package's name stands for Debian's name of the architecture, {release} for `uname -r`.
    """

    name: str
    ids: tuple[str, ...]  # ID or ID_LIKE of os-release(5)
    install: tuple[str, ...]  # the words before the packages
    packages: Mapping[str, str]
    headers_of_kernel: str  # the package with the running kernel's own headers, which a mirror may no longer have
    note: str = ""
    automatic: bool = False  # set-up installs them itself


_DEBIAN = {
    PYTHON: "python3",
    VENV: "python3-venv",
    BCC: "python3-bpfcc",
    HEADERS: "linux-headers-{arch}",
    CURL: "curl",
    NFT: "nftables",
    IP: "iproute2",
    CAPSH: "libcap2-bin",
    CLANG: "clang",
    LLVM_STRIP: "llvm",
    LIBBPF_HEADERS: "libbpf-dev",
    CHROMIUM: "chromium",
    CHROMEDRIVER: "chromium-driver",
    QEMU: "qemu-system-x86",
    MMDEBSTRAP: "mmdebstrap",
    E2FSPROGS: "e2fsprogs",
    KMOD: "kmod",
    LZ4: "lz4",
    RPM: "rpm",
    GUESTFISH: "guestfish",
    GCC: "gcc",
    MAKE: "make",
    FLEX: "flex",
    BISON: "bison",
    BC: "bc",
    LIBELF: "libelf-dev",
    PAHOLE: "dwarves",
    PATCH: "patch",
    XZ: "xz-utils",
    CCACHE: "ccache",
    VAGRANT: "vagrant",
    VAGRANT_LIBVIRT: "vagrant-libvirt",
    LIBVIRTD: "libvirt-daemon",
    LIBVIRT_QEMU: "libvirt-daemon-driver-qemu",
    VIRSH: "libvirt-clients",
    QEMU_IMG: "qemu-utils",
    RSYNC: "rsync",
    SSH: "openssh-client",
    GRUB: "grub-pc-bin",
    GRUB_EFI: "grub-efi-amd64-bin",
    MTOOLS: "mtools",
    SFDISK: "fdisk",
    OVMF: "ovmf",
}
"""Debian's packages by need; Ubuntu names a few differently."""

DISTRIBUTIONS = (
    Distribution(
        "Ubuntu",
        ("ubuntu",),
        ("apt-get", "install", "-y"),
        {
            **_DEBIAN,
            HEADERS: "linux-headers-generic",
            CHROMIUM: "chromium-browser",
            CHROMEDRIVER: "chromium-chromedriver",
        },
        "linux-headers-{release}",
        note="python3-bpfcc is in the component universe",
        automatic=True,
    ),
    Distribution(
        "Debian",
        ("debian",),
        ("apt-get", "install", "-y"),
        _DEBIAN,
        "linux-headers-{release}",
        automatic=True,
    ),
    Distribution(
        "Azure Linux",
        ("azurelinux", "mariner"),
        ("tdnf", "install", "-y"),
        {
            PYTHON: "python3",
            VENV: "python3",
            BCC: "python3-bcc",
            HEADERS: "kernel-devel",
            CURL: "curl",
            NFT: "nftables",
            IP: "iproute",
            CAPSH: "libcap",
            CLANG: "clang",
            LLVM_STRIP: "llvm",
            LIBBPF_HEADERS: "libbpf-devel",
        },
        "kernel-devel-{release}",
        note="CBL-Mariner 2 has Python 3.9, which is too old; Azure Linux 3 has 3.12",
    ),
    Distribution(
        "Fedora",
        ("fedora",),
        ("dnf", "install", "-y"),
        {
            PYTHON: "python3",
            VENV: "python3",
            BCC: "python3-bcc",
            HEADERS: "kernel-devel",
            CURL: "curl",
            NFT: "nftables",
            IP: "iproute",
            CAPSH: "libcap",
            CLANG: "clang",
            LLVM_STRIP: "llvm",
            LIBBPF_HEADERS: "libbpf-devel",
        },
        "kernel-devel-{release}",
    ),
    Distribution(
        "Red Hat Enterprise Linux and kin",
        ("rhel", "centos", "rocky", "almalinux", "ol"),
        ("dnf", "install", "-y"),
        {
            PYTHON: "python3",
            VENV: "python3",
            BCC: "python3-bcc",
            HEADERS: "kernel-devel",
            CURL: "curl",
            NFT: "nftables",
            IP: "iproute",
            CAPSH: "libcap",
            CLANG: "clang",
            LLVM_STRIP: "llvm",
            LIBBPF_HEADERS: "libbpf-devel",
        },
        "kernel-devel-{release}",
        note="python3-bcc is built for the system's python3: 3.9 in release 9, which is too old, 3.12 in release 10",
    ),
    Distribution(
        "SUSE",
        ("suse", "opensuse", "sles", "opensuse-leap", "opensuse-tumbleweed"),
        ("zypper", "--non-interactive", "install"),
        {
            PYTHON: "python3",
            VENV: "python3",
            BCC: "python3-bcc",
            HEADERS: "kernel-default-devel",
            CURL: "curl",
            NFT: "nftables",
            IP: "iproute2",
            CAPSH: "libcap-progs",
            CLANG: "clang",
            LLVM_STRIP: "llvm",
            LIBBPF_HEADERS: "libbpf-devel",
        },
        "kernel-default-devel",
        note="release 15 has Python 3.6 as python3, which is too old",
    ),
)

_DEBIAN_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armmp", "ppc64le": "powerpc64le"}


def os_release(root: Path = Path("/")) -> dict[str, str]:
    """The fields of os-release(5), /etc before /usr/lib; empty where there is none."""
    for place in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / place).read_text("utf-8", "replace")
        except OSError:
            continue
        return dict(_fields(text))
    return {}


def _fields(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:  # an unmatched quote
            words = [value]
        yield name, " ".join(words)


def distribution(fields: Mapping[str, str] | None = None) -> Distribution | None:
    """The row for this machine (or for these fields of os-release): by ID, then by ID_LIKE in its order."""
    fields = os_release() if fields is None else fields
    for word in (fields.get("ID", ""), *fields.get("ID_LIKE", "").split()):
        for row in DISTRIBUTIONS:
            if word.lower() in row.ids:
                return row
    return None


def package_names(
    needs: Iterable[str], row: Distribution, *, machine: str | None = None, release: str | None = None
) -> tuple[str, ...]:
    """The packages for these needs, each once, in the order of the needs.

    machine is `uname -m`; release, where given, asks for the headers of that very kernel. Raises KeyError for a need
    that is not in the table.
    """
    machine = platform.machine() if machine is None else machine
    arch = _DEBIAN_ARCHITECTURE.get(machine, machine)
    names: dict[str, None] = {}
    for need in needs:
        if need == HEADERS and release is not None:
            names[row.headers_of_kernel.format(release=release)] = None
        else:
            names[row.packages[need].format(arch=arch)] = None
    return tuple(names)


def install_command(needs: Iterable[str], row: Distribution, *, machine: str | None = None) -> str:
    """`apt-get install -y python3-bpfcc linux-headers-amd64`."""
    return shlex.join((*row.install, *package_names(needs, row, machine=machine)))


def install_hint(needs: Iterable[str], fields: Mapping[str, str] | None = None, *, machine: str | None = None) -> str:
    """What to do about these needs on this machine, as a clause for an error: `install … with …`.

    On a distribution that is not in the table it says what to look for, with two known names of each package.
    """
    needs = tuple(needs)
    fields = os_release() if fields is None else fields
    row = distribution(fields)
    if row is not None:
        note = f" ({row.note})" if row.note and not {PYTHON, VENV, BCC}.isdisjoint(needs) else ""
        return f"install with `{install_command(needs, row, machine=machine)}`{note}"
    known = {row.name: row for row in DISTRIBUTIONS}
    wanted = (
        f"{WHAT[need]} ({package_names((need,), known['Debian'], machine=machine)[0]} in Debian, "
        f"{package_names((need,), known['Fedora'], machine=machine)[0]} in Fedora)"
        for need in needs
    )
    name = fields.get("PRETTY_NAME") or fields.get("ID") or "this distribution, which has no os-release file,"
    return f"install {', '.join(wanted)}: the package names of {name} are not known here"


def main(arguments: list[str]) -> int:
    """`python3 -m harness.kernel.packages NEED…` prints the hint; set-up's shell part calls it."""
    unknown = [need for need in arguments if need not in ALL_NEEDS]
    if unknown or not arguments:
        print(f"usage: packages NEED…, of: {' '.join(ALL_NEEDS)}", file=sys.stderr)
        return 2
    print(install_hint(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
