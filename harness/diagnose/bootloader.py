"""How to add a word to the kernel's command line, by distribution. Each takes effect at the next boot.

RHEL's kin have grubby, as the guide says; the others edit GRUB's defaults and write its configuration anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.diagnose.facts import CommandLine, OsRelease

UNIFIED = "systemd.unified_cgroup_hierarchy"
WORD = f"{UNIFIED}=1"
REBOOT = "Reboot: the kernel's command line is read at boot only (`sudo reboot`)."
CHECK = "After the reboot, `mount | grep cgroup2` must show cgroup2 on /sys/fs/cgroup, and status.json RUNNING."


@dataclass(frozen=True)
class Family:
    """Distributions that change the command line in the same way. ids: of os-release's ID and ID_LIKE."""

    name: str
    ids: frozenset[str]
    commands: tuple[str, ...]


FAMILIES: Sequence[Family] = (
    Family(
        "RHEL, CentOS, Rocky, AlmaLinux, Oracle Linux, Fedora",
        frozenset({"rhel", "centos", "rocky", "almalinux", "ol", "fedora"}),
        (f'sudo grubby --update-kernel=ALL --args="{WORD}"',),
    ),
    Family(
        "Debian, Ubuntu",
        frozenset({"debian", "ubuntu"}),
        (
            f"echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {WORD}\"' | sudo tee /etc/default/grub.d/90-cgroup2.cfg",
            "sudo update-grub",
        ),
    ),
    Family(
        "SUSE",
        frozenset({"sles", "sles_sap", "suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed"}),
        (
            f"sudo sed -i 's/^GRUB_CMDLINE_LINUX_DEFAULT=\"/&{WORD} /' /etc/default/grub",
            "sudo grub2-mkconfig -o /boot/grub2/grub.cfg",
        ),
    ),
    Family(
        "Azure Linux",
        frozenset({"azurelinux"}),
        (
            f"sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{WORD} /' /etc/default/grub",
            "sudo grub2-mkconfig -o /boot/grub2/grub.cfg",
        ),
    ),
    Family(
        "CBL-Mariner 2.0",
        frozenset({"mariner"}),
        (f"sudo sed -i 's/^mariner_cmdline=.*/& {WORD}/' /boot/mariner.cfg",),
    ),
    Family(
        "Flatcar",
        frozenset({"flatcar"}),
        (f"echo 'set linux_append=\"$linux_append {WORD}\"' | sudo tee -a /oem/grub.cfg",),
    ),
)


def family(os: OsRelease | None) -> Family | None:
    """The family of a distribution, by its ID, else by what it is like."""
    if os is None:
        return None
    words = [os.id or "", *(os.fields.get("ID_LIKE") or "").split()]
    return next((row for word in words for row in FAMILIES if word.casefold() in row.ids), None)


def remedy(os: OsRelease | None, line: CommandLine | None) -> tuple[str, ...]:
    """The steps that have the next boot mount cgroup2 at /sys/fs/cgroup."""
    steps: list[str] = []
    value = line.get(UNIFIED) if line else None
    if value in ("0", "no", "false", "off"):
        steps.append(f"The command line holds {UNIFIED}={value}: take that word out where it was put in.")
    found = family(os)
    if found:
        steps += found.commands
    else:
        steps.append(
            f"Add {WORD} to the kernel's command line. How depends on the distribution (`cat /etc/os-release`):"
        )
        steps += [f"{row.name}: `{'` and `'.join(row.commands)}`" for row in FAMILIES[:4]]
    return (*steps, REBOOT, CHECK)
