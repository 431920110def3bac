"""Good images as trees in memory, for checks to look at and tests to break: Debian's kind, RHEL's kind, one with a UKI.

image = debian()
image = changed(image, {"/etc/cloud/cloud-init.disabled": file("")})
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.image.image import Disk, Image, Package
from harness.image.tree import Entry, Kind, Tree
from tests.objects.build import Style, build

KERNEL = "6.12.43+deb13-amd64"
RED_KERNEL = "5.14.0-503.11.1.el9_5.x86_64"
MACHINE = "0123456789abcdef0123456789abcdef"
KEY = "5e3f0b7a9d1c4e6f8a2b3c4d5e6f70819a0b1c2d3e4f5061728394a5b6c7d8e9"

CONFIG = "\n".join(
    f"CONFIG_{name}=y"
    for name in (
        "BPF", "BPF_SYSCALL", "BPF_JIT", "CGROUPS", "CGROUP_BPF", "NET", "INET", "KPROBES", "PERF_EVENTS",
        "KPROBE_EVENTS", "BPF_EVENTS", "DEBUG_INFO_BTF",
    )
)  # fmt: skip
IN_INITRAMFS = frozenset({"hv_vmbus", "hv_storvsc", "sd_mod", "ext4", "xfs"})
DRIVERS = ("hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils", "sd_mod", "sr_mod", "udf", "isofs", "ata_piix",
           "pci-hyperv", "nvme", "mana", "mlx5_core")  # fmt: skip

UNIT = """\
[Unit]
Description=Guest Proxy Agent
DefaultDependencies=no
Before=network-pre.target
Wants=network-pre.target

[Service]
ExecStart=/usr/sbin/azure-proxy-agent
Restart=always

[Install]
WantedBy=multi-user.target
"""
LOCAL = """\
[Unit]
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target
Before=sysinit.target
ConditionPathExists=!/etc/cloud/cloud-init.disabled
[Service]
Type=oneshot
ExecStart=/usr/bin/cloud-init init --local
[Install]
WantedBy=cloud-init.target
"""
NETWORK = """\
[Unit]
DefaultDependencies=no
After=cloud-init-local.service
Before=network-online.target
[Service]
ExecStart=/usr/bin/cloud-init init
[Install]
WantedBy=cloud-init.target
"""
TARGETS = {
    "sysinit.target": "[Unit]\nDescription=System Initialization\n",
    "basic.target": "[Unit]\nAfter=sysinit.target\n",
    "network-pre.target": "[Unit]\nDescription=Preparation for Network\n",
    "network.target": "[Unit]\nAfter=network-pre.target\n",
    "network-online.target": "[Unit]\nAfter=network.target\n",
    "multi-user.target": "[Unit]\nAfter=basic.target\n",
}
CLOUD = """\
# A comment
users: [default]
datasource_list: [ Azure, None ]
cloud_init_modules: [seed_random, set_hostname, users_groups, ssh]
cloud_config_modules: [set_passwords, runcmd]
cloud_final_modules: [[scripts-user, always], final-message]
"""
SETTINGS = {
    "logFolder": "/var/log/azure-proxy-agent",
    "eventFolder": "/var/log/azure-proxy-agent/events",
    "latchKeyFolder": "/var/lib/azure-proxy-agent/keys",
    "monitorIntervalInSeconds": 60,
    "pollKeyStatusIntervalInSeconds": 15,
    "hostGAPluginSupport": 1,
    "ebpfProgramName": "ebpf_cgroup.o",
    "cgroupRoot": "/sys/fs/cgroup",
    "fileLogLevel": "Info",
}

NEW_DATASOURCE = '''\
class DataSourceAzure:
    def _check_azure_proxy_agent_status(self):
        """Ask azure-proxy-agent."""
        try:
            cmd = ["azure-proxy-agent", "--status", "--wait", "120"]
            out, err = subp.subp(cmd)
        except subp.ProcessExecutionError as error:
            self._report_failure(errors.ReportableErrorProxyAgentNotFound())

    def crawl_metadata(self):
        if self.cfg.get("ProvisionGuestProxyAgent"):
            self._check_azure_proxy_agent_status()
'''
OLD_DATASOURCE = """\
class DataSourceAzure:
    def crawl_metadata(self):
        return self.get_metadata_from_imds()
"""
PARSING_DATASOURCE = """\
class DataSourceAzure:
    def crawl_metadata(self):
        self.cfg["ProvisionGuestProxyAgent"] = ovf.provision_guest_proxy_agent
        return self.get_metadata_from_imds()
"""


def file(data: str | bytes = b"", mode: int = 0o644, attributes: Mapping[str, bytes] | None = None) -> Entry:
    content = data.encode() if isinstance(data, str) else data
    return Entry(Kind.FILE, mode, size=len(content), data=content, attributes=attributes or {})


def link(target: str) -> Entry:
    return Entry(Kind.LINK, 0o777, target=target)


def folder(mode: int = 0o755) -> Entry:
    return Entry(Kind.DIRECTORY, mode)


def unread(size: int = 1 << 30, mode: int = 0o644) -> Entry:
    """A file that is there and whose content was not read."""
    return Entry(Kind.FILE, mode, size=size)


def elf(machine: int = 62) -> bytes:
    """The head of an executable; 62 is x86-64, 183 AArch64."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(64)


@functools.cache
def ebpf(style: Style = Style.CO_RE) -> bytes:
    return build(style).read_bytes()


def changed(image: Image, entries: Mapping[str, Entry | None]) -> Image:
    """The same image with other files; None takes one away with all below it."""
    return replace(image, tree=image.tree.with_entries(entries))


def edited(image: Image, path: str, old: str, new: str) -> Image:
    """The same image with a text in a file replaced by another; it must be there."""
    text = image.tree.text(path)
    assert text is not None, path
    assert old in text, (path, old)
    return changed(image, {path: file(text.replace(old, new))})


def without_packages(image: Image, *names: str) -> Image:
    return replace(image, packages={name: row for name, row in image.packages.items() if name not in names})


def _kernel(release: str, config: str = CONFIG, drivers: Sequence[str] = DRIVERS) -> dict[str, Entry]:
    modules = f"/usr/lib/modules/{release}"
    return {
        f"/boot/vmlinuz-{release}": unread(8 << 20),
        f"/boot/config-{release}": file(config),
        f"{modules}/modules.dep": file("".join(f"kernel/drivers/{name}.ko.xz:\n" for name in drivers)),
        f"{modules}/modules.builtin": file("kernel/drivers/base/firmware.ko\n"),
    }


def _agent() -> dict[str, Entry]:
    return {
        "/usr/sbin/azure-proxy-agent": file(elf(), 0o755),
        "/usr/lib/azure-proxy-agent/ebpf_cgroup.o": file(ebpf()),
        "/etc/azure/proxy-agent.json": file(json.dumps(SETTINGS)),
        "/usr/lib/systemd/system/azure-proxy-agent.service": file(UNIT),
        "/etc/systemd/system/multi-user.target.wants/azure-proxy-agent.service": link(
            "/usr/lib/systemd/system/azure-proxy-agent.service"
        ),
        "/var/lib/azure-proxy-agent/keys": folder(0o700),
        "/var/log/azure-proxy-agent": folder(),
    }


def _cloud_init(top: str, version: str, datasource: str = NEW_DATASOURCE) -> dict[str, Entry]:
    return {
        f"{top}/cloudinit/version.py": file(f'__VERSION__ = "{version}"\n_PACKAGED_VERSION = "@@PACKAGED_VERSION@@"\n'),
        f"{top}/cloudinit/settings.py": file('CFG_BUILTIN = {"datasource_list": ["NoCloud", "Azure", "None"]}\n'),
        f"{top}/cloudinit/sources/DataSourceAzure.py": file(datasource),
        f"{top}/cloudinit/sources/helpers/azure.py": file("class OvfEnvXml:\n    pass\n"),
        f"{top}/cloud_init-{version}.dist-info/METADATA": file(f"Name: cloud-init\nVersion: {version}\n"),
        "/etc/cloud/cloud.cfg": file(CLOUD),
        "/etc/cloud/cloud.cfg.d/05_logging.cfg": file("_log: [x]\n"),
        "/usr/lib/systemd/system/cloud-init-local.service": file(LOCAL),
        "/usr/lib/systemd/system/cloud-init.service": file(NETWORK),
        "/etc/systemd/system/cloud-init.target.wants/cloud-init-local.service": link(
            "/usr/lib/systemd/system/cloud-init-local.service"
        ),
        "/etc/systemd/system/cloud-init.target.wants/cloud-init.service": link(
            "/usr/lib/systemd/system/cloud-init.service"
        ),
    }


def _system(library: str, compiled: str) -> dict[str, Entry]:
    return {
        "/lib": link("usr/lib"),
        "/sbin": link("usr/sbin"),
        "/bin": link("usr/bin"),
        "/usr/sbin/init": link("../lib/systemd/systemd"),
        "/usr/lib/systemd/systemd": file(elf(), 0o755),
        library: file(b"...+PAM default-hierarchy=" + compiled.encode() + b"\0..."),
        "/usr/bin/findmnt": file(elf(), 0o755),
        "/etc/machine-id": file(""),
        "/etc/hostname": file("localhost\n"),
        "/etc/shadow": file("root:*:19000:0:99999:7:::\ndaemon:*:19000::::::\n"),
        "/etc/ssh/sshd_config": file("PermitRootLogin no\n"),
        "/root": folder(0o700),
        "/boot": folder(),
        "/dev": folder(),
        "/sys": folder(),
        "/usr/sbin/waagent": file("#!/usr/bin/python3\n", 0o755),
        "/usr/bin/python3": file(elf(), 0o755),
        "/usr/lib/systemd/system/walinuxagent.service": file("[Service]\nExecStart=/usr/sbin/waagent -daemon\n"),
        "/etc/systemd/system/multi-user.target.wants/walinuxagent.service": link(
            "/lib/systemd/system/walinuxagent.service"
        ),
        "/etc/waagent.conf": file("# comment\nProvisioning.Agent=auto\nResourceDisk.Format=n\n"),
        **{f"/usr/lib/systemd/system/{name}": file(text) for name, text in TARGETS.items()},
    }


def _packages(**versions: str) -> dict[str, Package]:
    return {name.replace("_", "-"): Package(name.replace("_", "-"), version) for name, version in versions.items()}


GRUB = f"""\
set default="0"
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {{
	linux	/boot/vmlinuz-{KERNEL} root=UUID=1 ro console=tty0 console=ttyS0,115200 earlyprintk=ttyS0
	initrd	/boot/initrd.img-{KERNEL}
}}
"""
DISK = Disk("raw", 3 << 30, 3 << 30, "gpt", firmware="both")


def debian() -> Image:
    """Debian 13: GRUB's menu, dpkg, merged /usr, cloud-init 25.1.4."""
    tree = {
        **_system("/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so", "unified"),
        **_kernel(KERNEL),
        **_agent(),
        **_cloud_init("/usr/lib/python3/dist-packages", "25.1.4"),
        "/etc/os-release": link("../usr/lib/os-release"),
        "/usr/lib/os-release": file('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'),
        "/etc/fstab": file("UUID=1 / ext4 rw,discard 0 1\n"),
        "/boot/grub/grub.cfg": file(GRUB),
        f"/boot/initrd.img-{KERNEL}": unread(),
    }
    packages = _packages(
        azure_proxy_agent="1.0.30", cloud_init="25.1.4-1+deb13u1", systemd="257.8-1", waagent="2.12.0.2-3"
    )
    system = {"type": "linux", "distro": "debian", "product_name": "Debian GNU/Linux 13 (trixie)",
              "major_version": "13", "arch": "x86_64", "package_format": "deb"}  # fmt: skip
    return Image(
        "debian.raw", DISK, Tree(tree), packages, system, ("/dev/sda1: Debian GNU/Linux 13 (trixie)",),
        initramfs={f"/boot/initrd.img-{KERNEL}": IN_INITRAMFS},
    )  # fmt: skip


ENTRY = f"""\
title Red Hat Enterprise Linux
version {RED_KERNEL}
linux /vmlinuz-{RED_KERNEL}
initrd /initramfs-{RED_KERNEL}.img
options root=/dev/mapper/rhel-root $kernelopts $tuned_params
grub_class rhel
"""


def redhat() -> Image:
    """RHEL 9: boot loader entries, grubenv, rpm, SELinux, cloud-init 24.4."""
    tree = {
        **_system("/usr/lib/systemd/libsystemd-shared-252.so", "unified"),
        **_kernel(RED_KERNEL),
        **_agent(),
        **_cloud_init("/usr/lib/python3.9/site-packages", "24.4"),
        "/usr/sbin/azure-proxy-agent": file(
            elf(), 0o755, attributes={"security.selinux": b"system_u:object_r:bin_t:s0\0"}
        ),
        "/etc/os-release": file('ID="rhel"\nVERSION_ID="9.5"\nPRETTY_NAME="Red Hat Enterprise Linux 9.5 (Plow)"\n'),
        "/etc/fstab": file("/dev/mapper/rhel-root / xfs defaults 0 0\nUUID=2 /boot xfs defaults 0 0\n"),
        "/boot/grub2/grub.cfg": file('insmod blscfg\nblscfg\nset tuned_params=""\n'),
        "/boot/grub2/grubenv": file(
            f"saved_entry={MACHINE}-{RED_KERNEL}\nkernelopts=ro console=ttyS0 crashkernel=1G\n"
        ),
        f"/boot/loader/entries/{MACHINE}-{RED_KERNEL}.conf": file(ENTRY),
        f"/boot/initramfs-{RED_KERNEL}.img": unread(),
        "/etc/selinux/targeted/policy/policy.33": unread(),
        "/etc/selinux/config": file("SELINUX=enforcing\nSELINUXTYPE=targeted\n"),
    }
    packages = _packages(
        azure_proxy_agent="1.0.30-1.el9", cloud_init="24.4-3.el9", systemd="252-46.el9", WALinuxAgent="2.7.0-1"
    )
    system = {"type": "linux", "distro": "rhel", "product_name": "Red Hat Enterprise Linux 9.5 (Plow)",
              "major_version": "9", "arch": "x86_64", "package_format": "rpm"}  # fmt: skip
    return Image(
        "rhel.vhd", replace(DISK, format="vhd-fixed"), Tree(tree), packages, system, ("/dev/rhel/root: RHEL 9.5",),
        initramfs={f"/boot/initramfs-{RED_KERNEL}.img": IN_INITRAMFS},
    )  # fmt: skip


def pe(sections: Mapping[str, bytes]) -> bytes:
    """A PE file with these sections and nothing to run: the form of a unified kernel image."""
    start = 0x80
    begin = start + 24 + 40 * len(sections)
    table, body = b"", b""
    for name, data in sections.items():
        table += struct.pack("<8sIIII16x", name.encode(), len(data), 0x1000, len(data), begin + len(body))
        body += data
    head = b"MZ" + bytes(0x3A) + struct.pack("<I", start) + bytes(start - 0x40)
    return head + b"PE\0\0" + struct.pack("<HH12xHH", 0x8664, len(sections), 0, 0) + table + body


UKI = f"/boot/efi/EFI/Linux/{MACHINE}-{KERNEL}.efi"


def unified() -> Image:
    """Debian with a unified kernel image and systemd-boot: no grub.cfg, no /boot/vmlinuz."""
    image = debian()
    line = b"root=UUID=1 rw console=ttyS0\n\0"
    tree = image.tree.with_entries(
        {
            "/boot/grub": None,
            f"/boot/vmlinuz-{KERNEL}": None,
            f"/boot/initrd.img-{KERNEL}": None,
            f"/boot/config-{KERNEL}": None,
            f"/usr/lib/modules/{KERNEL}/config": file(CONFIG),
            UKI: file(pe({".linux": b"MZ", ".uname": KERNEL.encode(), ".cmdline": line})),
            "/boot/efi/loader/loader.conf": file("timeout 3\n"),
            "/etc/fstab": file("UUID=1 / ext4 rw 0 1\nUUID=3 /boot/efi vfat umask=0077 0 1\n"),
        }
    )
    return replace(image, name="uki.raw", tree=tree)


GOOD = {"debian": debian, "redhat": redhat, "unified": unified}
