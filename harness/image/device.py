"""The disk as the appliance sees it: its first sectors, and what its partitions and volumes hold."""

from __future__ import annotations

import base64
import functools

from harness.vm.appliance import Appliance

NAME = "/dev/sda"
"""libguestfs' name of the disk."""

_BEGIN = 64 << 10  # bytes that are read at once: a GPT with its entries
_LARGEST = 4 << 20
# Every new process costs some hundredths of a second there: so few of them.
_PROBE = (
    "echo $disk; read -r sectors </sys/block/${disk##*/}/size; echo $sectors; "
    f"head -c {_BEGIN} $disk | base64 -w0; echo; "
    'timeout 60 blkid -p -o export "$disk"* /dev/mapper/* /dev/md* 2>/dev/null'
)


class Device:
    """The disk of an appliance. size in bytes; encrypted: the devices that are LUKS or BitLocker."""

    def __init__(self, appliance: Appliance):
        self._appliance = appliance
        self._begin = b""
        said = appliance.shell(_PROBE)
        name, _, rest = said.partition("\n")
        size, _, rest = rest.partition("\n")
        begin, _, probed = rest.partition("\n")
        self.size = int(size) * 512 if size.isdigit() else 0
        self._begin = base64.b64decode(begin)
        types = {each.replace(name, NAME): kind for each, kind in _types(probed).items()}
        self.lvm = any(kind == "LVM2_member" for kind in types.values())
        self.encrypted = tuple(sorted(name for name, kind in types.items() if kind in ("crypto_LUKS", "BitLocker")))

    @functools.lru_cache(maxsize=64)  # noqa: B019  # as long as the appliance
    def read(self, offset: int, length: int) -> bytes:
        """The bytes from an offset on, fewer at the disk's end."""
        if offset + length <= len(self._begin):
            return self._begin[offset : offset + length]
        if length > _LARGEST or offset >= self.size:
            return b""
        script = f"tail -c +{offset + 1} $disk 2>/dev/null | head -c {length} | base64 -w0"
        return base64.b64decode(self._appliance.shell(script))


def _types(probed: str) -> dict[str, str]:
    """TYPE by DEVNAME of what blkid(8) exports."""
    found, name = {}, ""
    for line in probed.splitlines():
        key, _, value = line.partition("=")
        if key == "DEVNAME":
            name = value
        elif key == "TYPE" and name:
            found[name] = value
    return found
