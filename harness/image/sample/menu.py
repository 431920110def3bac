"""GRUB's menu of a sample: what update-grub writes, in its form, for the kernels that the root has."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError
from harness.image.sample import base
from harness.vm.apt import newest_first

PLACE = "boot/grub/grub.cfg"

_HEAD = """\
# As update-grub(8) writes it; the boot loader itself lies outside of this file system.
set default="{default}"
set timeout=0
"""
_ENTRY = """\
menuentry 'Debian GNU/Linux, with Linux {release}' --class debian --class gnu-linux --class os {{
	search --no-floppy --label --set=root {label}
	echo 'Loading Linux {release} ...'
	linux /boot/vmlinuz-{release} {line}
	initrd /boot/initrd.img-{release}
}}
"""


def kernels(root: Path) -> list[str]:
    """The releases of a root's kernels, the newest first. Raises HarnessError where there is none."""
    found = [path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*")]
    if not found:
        raise HarnessError("write a boot menu", "there is no kernel in /boot")
    return newest_first(found)


def write(root: Path, line: str = base.COMMAND_LINE, default: int = 0) -> None:
    """Write the menu: one entry a kernel, with this command line; default is the number of the one that boots."""
    entries = (_ENTRY.format(release=release, label=base.LABEL, line=line) for release in kernels(root))
    base.write(root, {PLACE: _HEAD.format(default=default) + "".join(entries)})
