"""Which of the large security modules a kernel starts with: SELinux, AppArmor, Smack or TOMOYO, of which one is active.

As security/security.c has it: `security=` on the command line chooses it, else the first of them in `lsm=` or in
CONFIG_LSM; each can be switched off by its own word.
"""

from __future__ import annotations

from harness.image import kernels
from harness.image.image import Image
from harness.image.kernels import Kernels

_MAJOR = ("selinux", "apparmor", "smack", "tomoyo")


def major(image: Image, found: Kernels) -> str | None:
    """Its name; nothing where none is started, None where neither line nor configuration says. Raises Unread."""
    off = {name for name in _MAJOR if found.parameters(name)[-1:] == ["0"]}
    chosen = found.parameters("security")
    if chosen and chosen[-1]:
        return "" if chosen[-1] in off else chosen[-1]
    words = found.parameters("lsm")
    config = kernels.config(image, found.default) if found.default else None
    listed = words[-1] if words and words[-1] else config[1].get("CONFIG_LSM") if config else None
    if listed is None:
        return None
    return next((name for name in listed.split(",") if name in _MAJOR and name not in off), "")
