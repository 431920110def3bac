"""The ways in which a sample can be broken: what each does, and what is to be found of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.image.sample import agent_faults, cloud_init_faults, system_faults
from harness.image.sample.site import Site


@dataclass(frozen=True)
class Break:
    """One fault.

    finds: the ids of Results, one of which is to say it, at the depth `at` (inspect, kernel or boot) or a deeper one.
    agent: it is one of the agent's, so that the sample is to have one. suites: where it can be made; empty: anywhere.
    disk: it is one of the disk, which directories and archives do not have.
    """

    name: str
    does: str
    finds: Sequence[str]
    change: Callable[[Site], None]
    at: str = "inspect"
    agent: bool = False
    suites: Sequence[str] = ()
    disk: bool = False


_OLD = ("bookworm",)
_NEW = ("trixie", "forky", "sid")

_ROWS = (
    Break("no-agent", "the agent is taken out again", ("agent.executable",), agent_faults.no_agent),
    Break("agent-not-executable", "its program has mode 0644", ("agent.executable",), agent_faults.not_executable,
          agent=True),
    Break("agent-outside-path", "its program lies in /opt, where cloud-init does not look", ("agent.path",),
          agent_faults.outside_path, agent=True),
    Break("no-object", "its eBPF object is not there", ("agent.object",), agent_faults.no_object, agent=True),
    Break("object-truncated", "its eBPF object ends in the middle", ("agent.object",), agent_faults.object_truncated,
          agent=True),
    Break("object-refused", "the verifier refuses its connect4: eBPF set-up fails", ("own-kernel.load.connect4",),
          agent_faults.object_refused, "kernel", agent=True),
    Break("bad-config", "its configuration ends in the middle", ("agent.config",), agent_faults.bad_config, agent=True),
    Break("unit-disabled", "its unit is not enabled", ("agent.enabled",), agent_faults.unit_disabled, agent=True),
    Break("unit-masked", "its unit is masked", ("agent.unit", "agent.enabled"), agent_faults.unit_masked, agent=True),
    Break("unit-after-network", "its unit waits for the network, which waits for cloud-init, which waits for it",
          ("agent.order",), agent_faults.unit_after_network, agent=True),
    Break("unit-no-capabilities", "its unit takes the capabilities away that eBPF needs", ("agent.sandbox",),
          agent_faults.no_capabilities, agent=True),
    Break("agent-crashes", "its program ends at once", ("boot.agent-started", "full.row"), agent_faults.crashes, "boot",
          agent=True),
    Break("apparmor-obstacle", "an AppArmor profile without those capabilities", ("agent.apparmor",),
          agent_faults.apparmor, agent=True),
    Break("selinux-obstacle", "SELinux enforces, and no file has a label", ("agent.selinux",), agent_faults.selinux,
          agent=True),
    Break("leaked-key", "a key of another VM lies in its folder", ("leftovers.keys",), agent_faults.leaked_key),
    Break("leftover-status", "status.json and tags of another VM", ("leftovers.status",), agent_faults.leftover_status),
    Break("extension-leftover", "the agent's VM extension of another VM", ("leftovers.extension", "agent.single"),
          agent_faults.extension),
    Break("cgroup-v1", "the command line asks systemd for cgroup v1", ("cgroup.layout",), system_faults.cgroup_v1,
          suites=("bullseye", "bookworm", "trixie")),
    Break("cgroup-hybrid", "the command line asks systemd for the hybrid layout", ("cgroup.layout", "cgroup.target"),
          system_faults.cgroup_hybrid, suites=("bullseye", "bookworm", "trixie")),
    Break("no-cloud-init", "cloud-init is taken out", ("cloud-init.version",), cloud_init_faults.none_installed),
    Break("cloud-init-no-azure", "Azure is not among its datasources", ("cloud-init.datasource",),
          cloud_init_faults.no_azure),
    Break("cloud-init-disabled", "/etc/cloud/cloud-init.disabled is there", ("cloud-init.enabled",),
          cloud_init_faults.disabled),
    Break("cloud-init-files-differ", "its files are of another version than its package", ("cloud-init.version",),
          cloud_init_faults.files_differ),
    Break("cloud-init-msp-removed", "of 24.3 or later, with MSP's support patched out", ("cloud-init.msp",),
          cloud_init_faults.removed, suites=_NEW),
    Break("cloud-init-msp-backported", "older than 24.3, with MSP's support patched in", ("cloud-init.msp",),
          cloud_init_faults.backported, suites=_OLD),
    Break("cloud-init-state", "it has run there already", ("generalised.cloud-init",), cloud_init_faults.state),
    Break("no-hyperv-modules", "the modules of Hyper-V are not there", ("modules.hv_netvsc",), system_faults.no_hyperv),
    Break("initramfs-without-hyperv", "its initramfs has no driver of Hyper-V's", ("modules.initramfs",),
          system_faults.initramfs_without_hyperv),
    Break("hv-netvsc-blacklisted", "modprobe may not load hv_netvsc", ("modules.hv_netvsc",),
          system_faults.netvsc_blacklisted),
    Break("udf-blacklisted", "modprobe may not load udf and isofs: the provisioning disk cannot be read",
          ("modules.udf",), system_faults.udf_blacklisted),
    Break("waagent-provisions", "waagent provisions instead of cloud-init", ("waagent.provisioning",),
          system_faults.waagent),
    Break("machine-id", "/etc/machine-id is filled", ("generalised.machine-id",), system_faults.machine_id),
    Break("host-keys", "ssh's host keys are there", ("generalised.host-keys",), system_faults.host_keys),
    Break("root-password", "root has a password", ("generalised.passwords",), system_faults.root_password),
    Break("no-console", "no serial console on the command line", ("kernel.console",), system_faults.no_console),
    Break("two-kernels", "another suite's kernel beside it, and the older one boots",
          ("kernel.default", "kernel.floor"), system_faults.two_kernels),
    Break("no-boot-loader", "nothing on the disk that a firmware would start", ("disk.generation",),
          system_faults.no_loader, disk=True),
    Break("misaligned-partition", "the partitions begin one sector late", ("disk.alignment",),
          system_faults.misaligned, disk=True),
    Break("odd-size", "its size is no whole number of MiB", ("disk.size",), system_faults.odd_size, disk=True),
)  # fmt: skip

BREAKS: Mapping[str, Break] = {row.name: row for row in _ROWS}
"""The faults by name."""


def chosen(names: Sequence[str], suite: str, *, agent: bool, is_disk: bool) -> list[Break]:
    """The rows of these names. Raises HarnessError where one is not known, or cannot be made in this sample."""
    found = []
    for name in names:
        attempted, row = f"break a sample by {name}", BREAKS.get(name)
        if row is None:
            raise HarnessError(attempted, "there is no such fault", f"take one of {', '.join(BREAKS)}")
        if row.agent and not agent:
            raise HarnessError(attempted, "it is a fault of an agent, and there is none", "give an agent")
        if row.suites and suite not in row.suites:
            raise HarnessError(attempted, f"it cannot be made of {suite}", f"take {' or '.join(row.suites)}")
        if row.disk and not is_disk:
            raise HarnessError(attempted, "it is a fault of a disk, and this is none", "take the format of a disk")
        found.append(row)
    return found
