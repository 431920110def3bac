"""The breaks: each takes a good image and spoils one thing; what it must be told is beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.image.image import Disk, Image, Package
from harness.report import Outcome
from tests.image import trees
from tests.image.trees import KERNEL, changed, edited, file, folder, link, unread
from tests.objects.build import Style

PASS, WARN, FAIL, ERROR, SKIP = Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.ERROR, Outcome.SKIP

UNIT = "/usr/lib/systemd/system/azure-proxy-agent.service"
WANTS = "/etc/systemd/system/multi-user.target.wants/azure-proxy-agent.service"
AGENT = "/usr/sbin/azure-proxy-agent"
OBJECT = "/usr/lib/azure-proxy-agent/ebpf_cgroup.o"
CONFIG = "/etc/azure/proxy-agent.json"
CLOUD = "/usr/lib/python3/dist-packages/cloudinit"
LIBRARY = "/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so"
MODULES = f"/usr/lib/modules/{KERNEL}"
GRUB = "/boot/grub/grub.cfg"
PROGRAM = file(trees.elf(), 0o755)
DATASOURCE = f"{CLOUD}/sources/DataSourceAzure.py"
WAAGENT_CONF = "/usr/lib/python3/dist-packages/azurelinuxagent/common/conf.py"
KEY_FOLDER = "/var/lib/azure-proxy-agent/keys"


@dataclass(frozen=True)
class Break:
    """id: the Result that must have the outcome, the code and these words. good: the image that is broken."""

    id: str
    outcome: Outcome
    code: str | None
    words: str
    do: Callable[[Image], Image]
    good: Callable[[], Image] = trees.debian

    @property
    def name(self) -> str:
        return f"{self.id}:{self.words[:40]}".replace(" ", "-")


def lay(entries: dict[str, object]) -> Callable[[Image], Image]:
    """Lay files over: text, bytes, an Entry, or None, which takes one away."""
    found = {path: file(value) if isinstance(value, str | bytes) else value for path, value in entries.items()}
    return lambda image: changed(image, found)  # type: ignore[arg-type]


def edit(path: str, old: str, new: str) -> Callable[[Image], Image]:
    return lambda image: edited(image, path, old, new)


def line(words: str) -> Callable[[Image], Image]:
    """Words more on the command line."""
    return edit(GRUB, "console=tty0", f"console=tty0 {words}")


def option(name: str) -> Callable[[Image], Image]:
    """A configuration without an option."""
    return edit(f"/boot/config-{KERNEL}", f"CONFIG_{name}=y", f"# CONFIG_{name} is not set")


def driver(name: str) -> Callable[[Image], Image]:
    return edit(f"{MODULES}/modules.dep", f"kernel/drivers/{name}.ko.xz:\n", "")


def settings(**members: object) -> Callable[[Image], Image]:
    return lay({CONFIG: json.dumps({**trees.SETTINGS, **members})})


def unit(old: str, new: str) -> Callable[[Image], Image]:
    return edit(UNIT, old, new)


def service(text: str) -> Callable[[Image], Image]:
    """A drop-in for the agent's unit."""
    return lay({"/etc/systemd/system/azure-proxy-agent.service.d/50-local.conf": f"[Service]\n{text}\n"})


def old_systemd(number: int, compiled: str) -> Callable[[Image], Image]:
    new = f"/usr/lib/systemd/libsystemd-shared-{number}.so"
    return lay({LIBRARY: None, new: f"+PAM default-hierarchy={compiled}\0"})


def no_package(name: str) -> Callable[[Image], Image]:
    return lambda image: trees.without_packages(image, name)


def package(name: str, version: str) -> Callable[[Image], Image]:
    return lambda image: replace(image, packages={**image.packages, name: Package(name, version)})


def both(*changes: Callable[[Image], Image]) -> Callable[[Image], Image]:
    def do(image: Image) -> Image:
        for change in changes:
            image = change(image)
        return image

    return do


def unseen(**reasons: str) -> Callable[[Image], Image]:
    return lambda image: replace(image, unseen={path.replace("_", "/"): why for path, why in reasons.items()})


def initramfs(*modules: str) -> Callable[[Image], Image]:
    """With these modules in it, or, without any, not looked into."""
    return lambda image: replace(
        image, initramfs={path: frozenset(modules) for path in image.initramfs} if modules else {}
    )


def system(**fields: str) -> Callable[[Image], Image]:
    return lambda image: replace(image, system={**image.system, **fields})


def form(name: str) -> Callable[[Image], Image]:
    return lambda image: replace(image, disk=Disk(name))


no_agent = both(
    lay({AGENT: None, OBJECT: None, CONFIG: None, UNIT: None, WANTS: None, KEY_FOLDER: None}),
    no_package("azure-proxy-agent"),
)

SYSTEM: Sequence[Break] = (
    Break("system.found", FAIL, "MSP-P330", "no operating system",
          lambda image: replace(changed(image, {"/etc/os-release": None, "/usr/lib/os-release": None}), system={})),
    Break("system.found", WARN, None, "ubuntu, and os-release says debian", system(distro="ubuntu")),
    Break("system.found", WARN, None, "version 11, and os-release says 13", system(major_version="11")),
    Break("system.found", FAIL, "MSP-P330", "windows, not Linux", system(type="windows")),
    Break("system.found", ERROR, None, "/dev/sda1 is encrypted",
          lambda image: replace(changed(image, {"/etc/os-release": None, "/usr/lib/os-release": None}), system={},
                                disk=replace(image.disk, encrypted=("/dev/sda1",)))),
    Break("system.read", WARN, None, "/boot", unseen(_boot="a damaged file system")),
    Break("system.architecture", FAIL, None, "riscv64",
          lay({"/usr/lib/systemd/systemd": file(trees.elf(243), 0o755)})),
    Break("system.single", WARN, None, "2 systems", lambda image: replace(image, systems=("a: Debian", "b: Fedora"))),
)  # fmt: skip

KERNELS: Sequence[Break] = (
    Break("kernel.default", FAIL, "MSP-P330", "no kernel", lay({f"/boot/vmlinuz-{KERNEL}": None})),
    Break("kernel.default", FAIL, "MSP-P334", "no modules for it", lay({MODULES: None})),
    Break("kernel.default", ERROR, None, "mounts UUID=2 on /boot",
          lay({"/etc/fstab": "UUID=1 / ext4 rw\nUUID=2 /boot ext4 rw\n", f"/boot/vmlinuz-{KERNEL}": None,
               "/boot/grub": None, f"/boot/initrd.img-{KERNEL}": None, f"/boot/config-{KERNEL}": None})),
    Break("kernel.default", ERROR, None, "grub.cfg was not read", lay({GRUB: unread()})),
    Break("kernel.floor", WARN, "MSP-P318", "older than the guide's 5.15",
          lay({f"/boot/vmlinuz-{KERNEL}": None, "/boot/vmlinuz-5.10.0-30-amd64": unread()})),
    Break("kernel.command-line", ERROR, None, "not known", lay({"/boot/grub": None})),
    *(Break(id, SKIP, None, "without a boot loader", both(lay({"/boot/grub": None}), form("tar")))
      for id in ("kernel.command-line", "kernel.lockdown")),
    Break("kernel.lockdown", ERROR, None, "the command line is not known", lay({"/boot/grub": None})),
    Break("kernel.console", WARN, None, "no console=ttyS0",
          edit(GRUB, " console=ttyS0,115200 earlyprintk=ttyS0", "")),
    Break("kernel.lockdown", FAIL, "MSP-P335", "command line", line("lockdown=confidentiality")),
    Break("kernel.lockdown", FAIL, "MSP-P335", "its configuration forces", edit(
        f"/boot/config-{KERNEL}", "CONFIG_BPF=y", "CONFIG_BPF=y\nCONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y")),
    Break("kernel.config", ERROR, None, "only --kernel can tell", lay({f"/boot/config-{KERNEL}": None})),
    Break("kernel.config", ERROR, None, "was not read", lay({f"/boot/config-{KERNEL}": unread()})),
    Break("kernel.config.BPF_SYSCALL", FAIL, "MSP-P331", "off", option("BPF_SYSCALL")),
    Break("kernel.config.CGROUPS", FAIL, "MSP-A104", "off", option("CGROUPS")),
    Break("kernel.config.CGROUP_BPF", FAIL, "MSP-A111", "off", option("CGROUP_BPF")),
    Break("kernel.config.KPROBES", FAIL, "MSP-P333", "off", option("KPROBES")),
    Break("kernel.config.BPF_EVENTS", FAIL, "MSP-P333", "off", option("BPF_EVENTS")),
    Break("kernel.config.BPF_JIT", WARN, None, "off", option("BPF_JIT")),
    Break("kernel.config.DEBUG_INFO_BTF", FAIL, "MSP-P332", "CO-RE relocations", option("DEBUG_INFO_BTF")),
    Break("kernel.config.DEBUG_INFO_BTF", WARN, "MSP-P332", "no CO-RE relocations",
          both(option("DEBUG_INFO_BTF"), lay({OBJECT: trees.ebpf(Style.FIXED)}))),
)  # fmt: skip

CGROUPS: Sequence[Break] = (
    Break("cgroup.layout", FAIL, "MSP-A102", "v1 alone", old_systemd(239, "legacy")),
    Break("cgroup.layout", FAIL, "MSP-A102", "does not start", line("systemd.unified_cgroup_hierarchy=0")),
    Break("cgroup.layout", WARN, "MSP-A103", "hybrid", old_systemd(241, "hybrid")),
    Break("cgroup.layout", WARN, "MSP-A103", "hybrid",
          both(old_systemd(252, "unified"), line("systemd.unified_cgroup_hierarchy=0"))),
    Break("cgroup.layout", FAIL, "MSP-A103", "cgroupRoot, since there is no findmnt",
          both(old_systemd(241, "hybrid"), lay({"/usr/bin/findmnt": None}))),
    Break("cgroup.layout", FAIL, "MSP-A102", "v1 alone", both(old_systemd(252, "unified"), line(
        "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"))),
    Break("cgroup.layout", WARN, None, "was not read", both(old_systemd(252, "unified"),
          lay({"/usr/lib/systemd/libsystemd-shared-252.so": unread()}))),
    Break("cgroup.layout", WARN, None, "command line is not known",
          both(old_systemd(252, "unified"), lay({"/boot/grub": None}))),
    Break("cgroup.layout", ERROR, None, "not systemd",
          lay({"/usr/sbin/init": link("openrc-init"), "/usr/sbin/openrc-init": file(trees.elf())})),
    Break("cgroup.layout", ERROR, None, "no systemd was found", both(lay({LIBRARY: None}), no_package("systemd"))),
    Break("cgroup.target", FAIL, "MSP-A114", "cgroupRoot, since there is no findmnt",
          both(lay({"/usr/bin/findmnt": None}), settings(cgroupRoot="/sys/fs/cgroup/unified"))),
)  # fmt: skip

DRIVERS: Sequence[Break] = (
    *(Break(f"modules.{name}", FAIL, "MSP-P334", f"has no {name}", driver(name))
      for name in ("hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils", "sd_mod", "sr_mod", "udf")),
    *(Break(f"modules.{name}", WARN, None, f"has no {name}", driver(name)) for name in ("isofs", "nvme", "mana")),
    Break("modules.udf", FAIL, "MSP-P334", "install udf /bin/true",
          lay({"/etc/modprobe.d/cis.conf": "# CIS\ninstall udf /bin/true\n"})),
    Break("modules.hv_netvsc", FAIL, "MSP-P334", "blacklist hv-netvsc",
          lay({"/etc/modprobe.d/x.conf": "blacklist hv-netvsc\n"})),
    Break("modules.hv_storvsc", FAIL, "MSP-P334", "on the command line", line("module_blacklist=floppy,hv_storvsc")),
    Break("modules.drivers", ERROR, None, "neither modules.builtin", lay({
        f"{MODULES}/modules.dep": None, f"{MODULES}/modules.builtin": None, f"{MODULES}/x": "",
        f"/boot/config-{KERNEL}": None})),
    Break("modules.drivers", ERROR, None, "modules.dep was not read", lay({f"{MODULES}/modules.dep": unread()})),
    Break("modules.initramfs", FAIL, "MSP-P334", "no initramfs", lay({f"/boot/initrd.img-{KERNEL}": None})),
    Break("modules.initramfs", FAIL, "MSP-P334", "has no hv_storvsc: the root disk is not found",
          initramfs("hv_vmbus", "sd_mod")),
    Break("modules.initramfs", FAIL, "MSP-P334", 'hostonly="yes" in /etc/dracut.conf.d takes the drivers',
          both(initramfs("virtio_scsi"), lay({"/etc/dracut.conf.d/1.conf": 'hostonly="yes"\n'})), trees.redhat),
    Break("modules.initramfs", ERROR, None, "could not find out whether /boot/initrd.img",
          both(initramfs(), lambda image: replace(image, unseen={f"/boot/initrd.img-{KERNEL}": "it is damaged"}))),
    Break("modules.initramfs", SKIP, None, "in a form that is not read here", initramfs()),
    Break("modules.initramfs", WARN, None, "MODULES=dep",
          both(initramfs(), lay({"/etc/initramfs-tools/initramfs.conf": "MODULES=dep\n"}))),
    Break("modules.initramfs", WARN, None, "hostonly",
          both(initramfs(), lay({"/etc/dracut.conf.d/1.conf": 'hostonly="yes"\n'})), trees.redhat),
)  # fmt: skip

AGENTS: Sequence[Break] = (
    Break("agent.executable", FAIL, "MSP-P202", "not in the image", no_agent),
    Break("agent.executable", FAIL, "MSP-P107", "not executable", lay({AGENT: file(trees.elf(), 0o644)})),
    Break("agent.executable", FAIL, "MSP-P107", "for aarch64, the image for x86_64",
          lay({AGENT: file(trees.elf(183), 0o755)})),
    Break("agent.executable", FAIL, "MSP-P107", "neither an ELF file nor a script", lay({AGENT: file("text", 0o755)})),
    Break("agent.executable", FAIL, "MSP-P107", "empty", lay({AGENT: file("", 0o755)})),
    Break("agent.executable", FAIL, "MSP-P107", "which is not there", lay({AGENT: file("#!/opt/py\n", 0o755)})),
    Break("agent.executable", FAIL, "MSP-P107", "a link to /opt/gone", lay({AGENT: link("/opt/gone")})),
    Break("agent.executable", ERROR, None, "was not read", lay({AGENT: unread(mode=0o755)})),
    Break("agent.path", FAIL, "MSP-P336", "in no directory of PATH", both(
        lay({AGENT: None, "/opt/gpa/azure-proxy-agent": PROGRAM}), unit(AGENT, "/opt/gpa/azure-proxy-agent"))),
    Break("agent.version", ERROR, None, "packages were not read", lambda image: replace(
        image, packages={}, unseen={"packages": "the database is damaged"})),
    Break("agent.version", SKIP, None, "no package", no_package("azure-proxy-agent")),
    Break("agent.config", FAIL, "MSP-P337", "not there", lay({CONFIG: None})),
    Break("agent.config", FAIL, "MSP-P337", "not JSON", lay({CONFIG: "{,"})),
    Break("agent.config", FAIL, "MSP-P337", "not a JSON object", lay({CONFIG: "[]"})),
    Break("agent.config", FAIL, "MSP-P337", "cgroupRoot is 5", settings(cgroupRoot=5)),
    Break("agent.config", FAIL, "MSP-P337", "no absolute path", settings(logFolder="logs")),
    Break("agent.config", FAIL, "MSP-P337", "monitorIntervalInSeconds is 0", settings(monitorIntervalInSeconds=0)),
    Break("agent.config", WARN, None, "a reboot empties", settings(latchKeyFolder="/run/keys")),
    Break("agent.single", WARN, "MSP-P315", "VM extension",
          lay({"/var/lib/waagent/Microsoft.CPlat.ProxyAgent.ProxyAgentLinux-1.0.30/x": "x"})),
    Break("agent.single", WARN, "MSP-P315", "2 executables", lay({"/usr/local/bin/azure-proxy-agent": PROGRAM})),
    Break("agent.object", FAIL, "MSP-P103", "is not in the image", lay({OBJECT: None})),
    Break("agent.object", SKIP, None, "the reference agent", both(lay({OBJECT: None, "/opt/program.json": "{}"}),
          settings(lab={"image": "/opt/program.json"}))),
    Break("agent.object", FAIL, "MSP-P103", "object is not in the image", both(lay({OBJECT: None}),
          settings(lab={"image": "/opt/program.json"}))),
    Break("agent.object", FAIL, "MSP-P103", "no eBPF object", lay({OBJECT: "text"})),
    Break("agent.object", FAIL, "MSP-P103", "key", lay({OBJECT: trees.ebpf(Style.BUG_POLICY_SIZE)})),
    Break("agent.object", FAIL, "MSP-P103", "is not in the image", settings(ebpfProgramName="/opt/none.o")),
    Break("agent.object", ERROR, None, "was not read", lay({OBJECT: unread()})),
    Break("agent.object-kernel", FAIL, "MSP-A111", "CONFIG_CGROUP_BPF", option("CGROUP_BPF")),
    Break("agent.object-kernel", FAIL, "MSP-P332", "CONFIG_DEBUG_INFO_BTF", option("DEBUG_INFO_BTF")),
    Break("agent.object-kernel", ERROR, None, "only --kernel", lay({f"/boot/config-{KERNEL}": None})),
)  # fmt: skip

UNITS: Sequence[Break] = (
    Break("agent.unit", FAIL, "MSP-P314", "nothing starts the agent", lay({UNIT: None, WANTS: None})),
    Break("agent.unit", FAIL, "MSP-P314", "masked",
          lay({"/etc/systemd/system/azure-proxy-agent.service": link("/dev/null")})),
    Break("agent.unit", FAIL, "MSP-P107", "which is not there", unit(AGENT, "/usr/bin/gone")),
    Break("agent.unit", FAIL, "MSP-P107", "no ExecStart", unit(f"ExecStart={AGENT}\n", "")),
    Break("agent.unit", FAIL, "MSP-P107", "starts /opt/other", service("ExecStart=\nExecStart=/opt/other")),
    Break("agent.unit", WARN, "MSP-P316", "another file", both(
        lay({"/opt/agent": file(trees.elf(), 0o755)}), service("ExecStart=\nExecStart=-/opt/agent"))),
    Break("agent.unit", ERROR, None, "was not read", lay({UNIT: unread()})),
    Break("agent.enabled", FAIL, "MSP-P314", "not enabled", lay({WANTS: None})),
    Break("agent.enabled", WARN, None, "a preset enables it", lay({
        WANTS: None, "/usr/lib/systemd/system-preset/90.preset": "enable azure-*\ndisable *\n"})),
    Break("agent.enabled", FAIL, "MSP-P314", "not enabled", lay({
        WANTS: None, "/usr/lib/systemd/system-preset/90.preset": "disable *\nenable azure-*\n"})),
    Break("agent.enabled", WARN, None, "rescue.target only", lay({
        WANTS: None, "/etc/systemd/system/rescue.target.wants/azure-proxy-agent.service": link(UNIT)})),
    Break("agent.order", FAIL, "MSP-P338", "sysinit.target", unit("DefaultDependencies=no\n", "")),
    Break("agent.order", FAIL, "MSP-P338", "network-pre.target",
          unit("Before=network-pre.target\n", "After=network.target\n")),
    Break("agent.order", FAIL, "MSP-P338", "cloud-init-local.service",
          unit("Before=", "After=cloud-init-local.service\nBefore=")),
    Break("agent.order", WARN, None, "nothing orders it before", unit("Before=network-pre.target\n", "")),
    Break("agent.sandbox", FAIL, "MSP-P339", "CAP_BPF", service("CapabilityBoundingSet=CAP_NET_ADMIN CAP_CHOWN")),
    Break("agent.sandbox", FAIL, "MSP-P339", "CAP_NET_ADMIN", service("CapabilityBoundingSet=~CAP_NET_ADMIN")),
    Break("agent.sandbox", FAIL, "MSP-P339", "PrivateNetwork", service("PrivateNetwork=yes")),
    Break("agent.sandbox", FAIL, "MSP-P339", "User=nobody", service("User=nobody")),
    Break("agent.sandbox", FAIL, "MSP-P339", "AF_INET", service("RestrictAddressFamilies=AF_UNIX AF_NETLINK")),
    Break("agent.sandbox", FAIL, "MSP-P339", "bpf", service("SystemCallFilter=~bpf")),
    Break("agent.sandbox", FAIL, "MSP-P339", "bpf", service("SystemCallFilter=@system-service")),
    Break("agent.sandbox", FAIL, "MSP-P339", "PrivatePIDs", service("PrivatePIDs=yes")),
    Break("agent.sandbox", WARN, None, "ProtectControlGroups", service("ProtectControlGroups=yes")),
    Break("agent.selinux", FAIL, "MSP-P339", "user_home_t", lay({AGENT: file(
        trees.elf(), 0o755, {"security.selinux": b"unconfined_u:object_r:user_home_t:s0\0"})}), trees.redhat),
    Break("agent.selinux", WARN, None, "no label", lay({AGENT: file(trees.elf(), 0o755)}), trees.redhat),
    Break("agent.selinux", FAIL, "MSP-P339", "systemd stops at boot",
          lay({"/etc/selinux/targeted": None}), trees.redhat),
    Break("agent.selinux", WARN, None, "labels all files anew", lay({"/.autorelabel": ""}), trees.redhat),
    Break("agent.selinux", ERROR, None, "was not read", lay({"/etc/selinux/config": unread()}), trees.redhat),
    Break("agent.apparmor", FAIL, "MSP-P339", "net_admin", lay({
        "/etc/apparmor.d/gpa": "profile gpa /usr/sbin/azure-proxy-agent {\n  capability bpf,\n}\n"})),
    Break("agent.apparmor", WARN, None, "is enforced", lay({
        "/etc/apparmor.d/gpa": "/usr/sbin/azure-proxy-agent {\n  capability net_admin,\n capability sys_admin,\n}\n"})),
    Break("agent.mount", FAIL, "MSP-P339", "noexec", lay({
        "/etc/fstab": "UUID=1 / ext4 rw 0 1\nUUID=2 /usr ext4 ro,noexec 0 2\n"})),
)  # fmt: skip

CLOUD_INIT: Sequence[Break] = (
    Break("cloud-init.version", FAIL, "MSP-P344", "not in the image",
          both(lay({CLOUD: None}), no_package("cloud-init"))),
    Break("cloud-init.version", FAIL, "MSP-P346", "files are not there", lay({CLOUD: None})),
    Break("cloud-init.version", WARN, "MSP-P346", "22.4.2-1 by the package", package("cloud-init", "22.4.2-1")),
    Break("cloud-init.version", WARN, "MSP-P346", "several versions", edit(f"{CLOUD}/version.py", "25.1.4", "24.1")),
    Break("cloud-init.version", WARN, "MSP-P346", "another one in", lay({
        "/usr/local/lib/python3.13/dist-packages/cloudinit/version.py": '__VERSION__ = "25.1.4"\n'})),
    Break("cloud-init.version", ERROR, None, "version.py was not read", lay({f"{CLOUD}/version.py": unread()})),
    Break("cloud-init.msp", FAIL, "MSP-P347",
          "knows nothing of the agent: it reports ready without asking, though it calls itself 24.3",
          lay({DATASOURCE: trees.OLD_DATASOURCE})),
    Break("cloud-init.msp", FAIL, "MSP-P347", "asks nobody", lay({
        DATASOURCE: trees.PARSING_DATASOURCE})),
    Break("cloud-init.msp", FAIL, "MSP-P347", "asks nobody", edit(
        DATASOURCE, "            self._check_azure_proxy_agent_status()", "            pass")),
    Break("cloud-init.msp", FAIL, "MSP-P347", "does not read ProvisionGuestProxyAgent", edit(
        DATASOURCE, 'if self.cfg.get("ProvisionGuestProxyAgent"):', "if self.asked:")),
    Break("cloud-init.msp", ERROR, None, "without its source", lay({
        DATASOURCE: None,
        f"{CLOUD}/sources/__pycache__/DataSourceAzure.cpython-313.pyc": unread()})),
    Break("cloud-init.msp", ERROR, None, "was not read", lay({DATASOURCE: unread()})),
    Break("cloud-init.msp", ERROR, None, "no Python", lay({
        DATASOURCE: "print 'azure-proxy-agent'\n"})),
    Break("cloud-init.msp", FAIL, "MSP-P344", "no Azure datasource", lay({DATASOURCE: None})),
    Break("cloud-init.enabled", FAIL, "MSP-P344", "cloud-init.disabled", lay({"/etc/cloud/cloud-init.disabled": ""})),
    Break("cloud-init.enabled", FAIL, "MSP-P344", "on the command line", line("cloud-init=disabled")),
    Break("cloud-init.enabled", FAIL, "MSP-P344", "cloud-init-local.service is masked",
          lay({"/etc/systemd/system/cloud-init-local.service": link("/dev/null")})),
    Break("cloud-init.enabled", FAIL, "MSP-P344", "wanted by no unit",
          lay({"/etc/systemd/system/cloud-init.target.wants/cloud-init-local.service": None})),
    Break("cloud-init.enabled", WARN, None, "cloud-init.service is masked",
          lay({"/etc/systemd/system/cloud-init.service": link("/dev/null")})),
    Break("cloud-init.enabled", FAIL, "MSP-P344", "policy: disabled",
          lay({"/etc/cloud/ds-identify.cfg": "policy: disabled\n"})),
    Break("cloud-init.datasource", FAIL, "MSP-P344", "90_dpkg.cfg", lay({
        "/etc/cloud/cloud.cfg.d/90_dpkg.cfg": "datasource_list: [ NoCloud, None ]\n"})),
    Break("cloud-init.datasource", FAIL, "MSP-P344", "look for Ec2 only",
          lay({"/etc/cloud/ds-identify.cfg": "# x\ndatasource: Ec2\n"})),
    Break("cloud-init.datasource", FAIL, "MSP-P344", "look for nocloud only", line("ds=nocloud;s=http://x/")),
    Break("cloud-init.datasource", FAIL, "MSP-P344", "built-in", both(
        edit("/etc/cloud/cloud.cfg", "datasource_list: [ Azure, None ]\n", ""),
        edit(f"{CLOUD}/settings.py", '"Azure", ', ""))),
    Break("cloud-init.datasource", ERROR, None, "was not read", lay({"/etc/cloud/cloud.cfg.d/91.cfg": unread()})),
    Break("cloud-init.config", WARN, None, "no YAML in line 2", lay({
        "/etc/cloud/cloud.cfg.d/99_mine.cfg": "a: 1\n\tb: [\n"})),
    Break("cloud-init.config", WARN, None, "no /etc/cloud/cloud.cfg", lay({"/etc/cloud": None})),
    Break("cloud-init.modules", WARN, None, "users-groups", edit("/etc/cloud/cloud.cfg", "users_groups, ", "")),
    Break("cloud-init.modules", WARN, None, "configures nothing", lay({"/etc/cloud/cloud.cfg": "users: []\n"})),
    Break("cloud-init.network", WARN, None, "config: disabled", lay({
        "/etc/cloud/cloud.cfg.d/99-off.cfg": "network: {config: disabled}\n"})),
    Break("cloud-init.network", WARN, None, "apply_network_config", lay({
        "/etc/cloud/cloud.cfg.d/99-off.cfg": "datasource: {Azure: {apply_network_config: false}}\n"})),
)  # fmt: skip

WAAGENTS: Sequence[Break] = (
    Break("waagent.installed", WARN, None, "not in the image", lay({"/usr/sbin/waagent": None})),
    Break("waagent.installed", WARN, None, "no unit starts it",
          lay({"/etc/systemd/system/multi-user.target.wants/walinuxagent.service": None})),
    Break("waagent.provisioning", FAIL, "MSP-P345", "Provisioning.Agent=waagent",
          edit("/etc/waagent.conf", "Agent=auto", "Agent=waagent")),
    Break("waagent.provisioning", FAIL, "MSP-P345", "cloud-init is not enabled",
          lay({"/etc/systemd/system/cloud-init-local.service": link("/dev/null")})),
    Break("waagent.provisioning", FAIL, "MSP-P345", "Provisioning.Enabled=y", both(
        lay({"/etc/waagent.conf": "Provisioning.Enabled=y\nProvisioning.UseCloudInit=n\n"}),
        package("waagent", "2.2.40-1"))),
    Break("waagent.provisioning", FAIL, "MSP-P345", "Provisioning.Enabled=y", lay({
        "/etc/waagent.conf": "Provisioning.Enabled=y\n", WAAGENT_CONF:
        "provision = conf.get_switch('Provisioning.Enabled', True)\n"})),
    Break("waagent.provisioning", PASS, None, "Provisioning.Agent is auto", lay({
        "/etc/waagent.conf": "Provisioning.Enabled=y\n", WAAGENT_CONF:
        "agent = conf.get('Provisioning.Agent', 'auto')\n"})),
    Break("waagent.provisioning", FAIL, "MSP-P344", "nobody provisions", both(
        edit("/etc/waagent.conf", "Agent=auto", "Agent=disabled"), lay({CLOUD: None}), no_package("cloud-init"))),
    Break("waagent.provisioning", ERROR, None, "was not read", lay({"/etc/waagent.conf": unread()})),
)  # fmt: skip

LEFTOVERS: Sequence[Break] = (
    Break("leftovers.keys", FAIL, "MSP-P340", "1 key of another VM", lay({f"{KEY_FOLDER}/4f1c.key": trees.KEY})),
    Break("leftovers.keys", FAIL, "MSP-P340", "2 keys",
          lay({f"{KEY_FOLDER}/a.key": trees.KEY, f"{KEY_FOLDER}/b.key": unread()})),
    Break("leftovers.keys", FAIL, "MSP-P340", "/opt/keys/a.key", both(
        settings(latchKeyFolder="/opt/keys/"), lay({"/opt/keys/a.key": trees.KEY}))),
    Break("leftovers.keys", ERROR, None, "mounts UUID=9 on /var", both(lay({"/var": None}), lay({
        "/var": folder(), "/etc/fstab": "UUID=1 / ext4 rw\nUUID=9 /var ext4 rw\n"}))),
    Break("leftovers.keys", ERROR, None, "too many names", both(
        lay({"/var": None}), lambda image: replace(image, unseen={"names": "too many names"}))),
    Break("leftovers.status", FAIL, "MSP-P341", "status.json", lay({"/var/log/azure-proxy-agent/status.json": "{}"})),
    Break("leftovers.status", FAIL, "MSP-P341", "provisioned.tag", lay({f"{KEY_FOLDER}/provisioned.tag": ""})),
    Break("leftovers.status", WARN, "MSP-P341", "ProxyAgent.log",
          lay({"/var/log/azure-proxy-agent/ProxyAgent.log": "x"})),
    Break("leftovers.extension", WARN, "MSP-P341", "ProxyAgentLinux-1.0.30",
          lay({"/var/lib/waagent/Microsoft.CPlat.ProxyAgent.ProxyAgentLinux-1.0.30/HandlerManifest.json": "{}"})),
    Break("leftovers.waagent", FAIL, "MSP-P342", "private keys", lay({"/var/lib/waagent/ABC.prv": unread()})),
    Break("leftovers.waagent", FAIL, "MSP-P342", "a password", lay({
        "/var/lib/waagent/ovf-env.xml": "<e><UserPassword>Geheim1!</UserPassword></e>"})),
    Break("leftovers.waagent", WARN, "MSP-P343", "ovf-env.xml", lay({
        "/var/lib/waagent/ovf-env.xml": "<e><UserPassword>REDACTED</UserPassword></e>"})),
    Break("leftovers.waagent", WARN, "MSP-P343", "GoalState", lay({"/var/lib/waagent/GoalState.1.xml": "<x/>"})),
    Break("generalised.cloud-init", WARN, "MSP-P343", "/var/lib/cloud/instance", lay({
        "/var/lib/cloud/instance": link("/var/lib/cloud/instances/i-1"), "/var/lib/cloud/instances/i-1/obj.pkl": "x"})),
)  # fmt: skip

GENERALISED: Sequence[Break] = (
    Break("generalised.machine-id", FAIL, "MSP-P343", "of one machine", lay({"/etc/machine-id": trees.MACHINE + "\n"})),
    Break("generalised.machine-id", FAIL, "MSP-P343", "dbus", lay({"/var/lib/dbus/machine-id": trees.MACHINE})),
    Break("generalised.machine-id", WARN, None, "there is no /etc/machine-id", lay({"/etc/machine-id": None})),
    Break("generalised.machine-id", WARN, None, "no machine-id", lay({"/etc/machine-id": "hello"})),
    Break("generalised.host-keys", FAIL, "MSP-P343", "ssh_host_rsa_key", lay({"/etc/ssh/ssh_host_rsa_key": unread()})),
    Break("generalised.passwords", WARN, "MSP-P343", "set for root", lay({"/etc/shadow": "root:$6$abc:1::::::\n"})),
    Break("generalised.passwords", FAIL, "MSP-P343", "no password is needed for root",
          lay({"/etc/shadow": "root::1::::::\n"})),
    Break("generalised.passwords", SKIP, None, "was not read", lay({"/etc/shadow": unread()})),
    Break("generalised.authorized-keys", WARN, "MSP-P343", "/root/.ssh/authorized_keys",
          lay({"/root/.ssh/authorized_keys": "ssh-ed25519 A"})),
    Break("generalised.authorized-keys", WARN, "MSP-P343", "/home/me/.ssh",
          lay({"/home/me/.ssh/authorized_keys": unread()})),
    Break("generalised.history", WARN, None, "/root/.bash_history", lay({"/root/.bash_history": unread()})),
    Break("generalised.random-seed", WARN, "MSP-P343", "random-seed", lay({"/var/lib/systemd/random-seed": unread()})),
    Break("generalised.net-rules", WARN, "MSP-P343", "70-persistent-net", lay({
        "/etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net", ATTR{address}=="00:0d:3a:00:00:01"\n'})),
    Break("generalised.hostname", WARN, None, "builder7", lay({"/etc/hostname": "builder7\n"})),
)  # fmt: skip

BREAKS: Sequence[Break] = (*SYSTEM, *KERNELS, *CGROUPS, *DRIVERS, *AGENTS, *UNITS, *CLOUD_INIT, *WAAGENTS, *LEFTOVERS,
                           *GENERALISED)  # fmt: skip
