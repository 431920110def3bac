"""What each fault of a sample looks like in the files: true of a sample that has it, and of no good one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping

from harness.agent.key_folder import KeyFolder
from harness.image import cloud_init, initramfs
from harness.image.sample import agent_faults, agent_files, disk, menu
from harness.image.sample.breaks import BREAKS
from harness.image.sample.site import Site

OF_FILES = [name for name, row in BREAKS.items() if row.at == "inspect" and not row.disk and name != "two-kernels"]
"""Those that test_breaks makes, and has found by the checks. Those of the disk need one (test_disk), the deeper ones a
boot (test_own_kernel, azure/test_boots); another kernel is fetched by a slow test (test_sample)."""


def _reads(site: Site, name: str) -> str:
    path = site.path(name)
    return path.read_text() if path.is_file() else ""


def _loads_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _support(site: Site) -> cloud_init.Support:
    folder = site.path("usr/lib/python3/dist-packages/cloudinit/sources")
    paths = (folder / "DataSourceAzure.py", folder / "helpers/azure.py")
    return cloud_init.in_source({str(path): path.read_text() for path in paths}).support


_WANTS = f"etc/systemd/system/multi-user.target.wants/{agent_files.NAME}"
_CI = "usr/lib/python3/dist-packages/cloudinit"

BROKEN: Mapping[str, Callable[[Site], bool]] = {
    "no-agent": lambda site: (
        not any(
            os.path.lexists(site.path(name))
            for name in (agent_files.EXECUTABLE, agent_files.UNIT, _WANTS, agent_files.CONFIG)
        )
    ),
    "agent-not-executable": lambda site: not site.path(agent_files.EXECUTABLE).stat().st_mode & 0o111,
    "agent-outside-path": lambda site: (
        not site.path(agent_files.EXECUTABLE).exists() and "ExecStart=/opt/" in _reads(site, agent_files.UNIT)
    ),
    "no-object": lambda site: not site.path(agent_files.OBJECT).exists(),
    "object-truncated": lambda site: not _loads_json(_reads(site, agent_files.PROGRAM)),
    "object-refused": lambda site: (
        len(json.loads(_reads(site, agent_files.PROGRAM))["programs"][0]["instructions"]) == 12
    ),
    "bad-config": lambda site: not _loads_json(_reads(site, agent_files.CONFIG)),
    "unit-disabled": lambda site: not os.path.lexists(site.path(_WANTS)),
    "unit-masked": lambda site: site.path(f"etc/systemd/system/{agent_files.NAME}").is_symlink(),
    "unit-after-network": lambda site: "Before=network-pre.target" not in _reads(site, agent_files.UNIT),
    "unit-no-capabilities": lambda site: site.path(f"etc/systemd/system/{agent_files.NAME}.d").is_dir(),
    "agent-crashes": lambda site: "exit 127" in _reads(site, agent_files.EXECUTABLE),
    "apparmor-obstacle": lambda site: site.path("etc/apparmor.d/usr.sbin.azure-proxy-agent").exists(),
    "selinux-obstacle": lambda site: "enforcing=1" in site.line and site.path("etc/selinux/config").exists(),
    "leaked-key": lambda site: KeyFolder(site.path(agent_files.KEYS)).load(agent_faults.LEAKED.guid) is not None,
    "leftover-status": lambda site: _loads_json(_reads(site, f"{agent_files.LOGS}/status.json")),
    "extension-leftover": lambda site: bool(list(site.path("var/lib").glob("waagent/Microsoft.CPlat.ProxyAgent*"))),
    "cgroup-v1": lambda site: "legacy_systemd_cgroup_controller=1" in site.line,
    "cgroup-hybrid": lambda site: "legacy_systemd_cgroup_controller=0" in site.line,
    "no-cloud-init": lambda site: not site.path(_CI).exists(),
    "cloud-init-no-azure": lambda site: "[ Azure ]" not in _reads(site, "etc/cloud/cloud.cfg.d/90-azure.cfg"),
    "cloud-init-disabled": lambda site: site.path("etc/cloud/cloud-init.disabled").exists(),
    "cloud-init-files-differ": lambda site: '"24.4.1"' in _reads(site, f"{_CI}/version.py"),
    "cloud-init-msp-removed": lambda site: _support(site) is not cloud_init.Support.ASKS,
    "cloud-init-msp-backported": lambda site: _support(site) is cloud_init.Support.ASKS,
    "cloud-init-state": lambda site: site.path("var/lib/cloud/instance").is_symlink(),
    "no-hyperv-modules": lambda site: not list(site.path("usr/lib/modules").rglob("hv_netvsc.ko*")),
    "initramfs-without-hyperv": lambda site: "hv_vmbus" not in _in_initramfs(site),
    "hv-netvsc-blacklisted": lambda site: "hv_netvsc" in _reads(site, "etc/modprobe.d/hardening.conf"),
    "udf-blacklisted": lambda site: "udf" in _reads(site, "etc/modprobe.d/hardening.conf"),
    "waagent-provisions": lambda site: "Agent=waagent" in _reads(site, "etc/waagent.conf"),
    "machine-id": lambda site: len(_reads(site, "etc/machine-id")) == 33,
    "host-keys": lambda site: len(list(site.path("etc/ssh").glob("ssh_host_*_key"))) == 2,
    "root-password": lambda site: "root:$6$" in _reads(site, "etc/shadow"),
    "no-console": lambda site: "console=" not in site.line,
    "two-kernels": lambda site: len(menu.kernels(site.root)) == 2 and site.default == 1,
    "no-boot-loader": lambda site: not site.layout.loader,
    "misaligned-partition": lambda site: site.layout.start % 2048 == 1,
    "odd-size": lambda site: site.layout.size % disk.MIB != 0,
}


def _in_initramfs(site: Site) -> frozenset[str]:
    (file,) = site.path("boot").glob("initrd.img-*")
    return initramfs.modules(file)
