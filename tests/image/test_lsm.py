"""Which security module a kernel starts with."""

from __future__ import annotations

import pytest

from harness.image import checks, lsm
from harness.image.kernels import Kernels
from harness.report import Outcome
from tests.image import trees
from tests.image.trees import KERNEL, changed, edited, file, unread

DEBIAN = "landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor,selinux,smack,tomoyo,bpf"
RED_HAT = "lockdown,yama,integrity,selinux,bpf,landlock"


@pytest.mark.parametrize(
    ("listed", "line", "name"),
    [
        (DEBIAN, "", "apparmor"),
        (DEBIAN, "security=selinux", "selinux"),
        (DEBIAN, "security=selinux selinux=0", ""),
        (DEBIAN, "apparmor=0", "selinux"),
        (DEBIAN, "lsm=landlock,smack", "smack"),
        (RED_HAT, "", "selinux"),
        (RED_HAT, "selinux=0", ""),
        (None, "", None),
        (None, "security=apparmor", "apparmor"),
    ],
)
def test_the_one_that_is_started(listed: str | None, line: str, name: str | None) -> None:
    config = trees.CONFIG + (f'\nCONFIG_LSM="{listed}"\n' if listed else "")
    image = changed(trees.debian(), {f"/boot/config-{KERNEL}": file(config)})
    assert lsm.major(image, Kernels({}, KERNEL, line=line)) == name


def test_a_module_that_is_not_started_is_no_obstacle() -> None:
    image = edited(trees.debian(), "/boot/grub/grub.cfg", "console=tty0", "console=tty0 security=selinux")
    profile = file("profile gpa /usr/sbin/azure-proxy-agent {\n}\n")
    image = changed(image, {"/etc/apparmor.d/gpa": profile, "/etc/selinux/config": file("SELINUX=disabled\n")})
    found = {row.id: row for row in checks.check(image)}
    assert found["agent.apparmor"].outcome is Outcome.PASS
    image = edited(image, "/boot/grub/grub.cfg", "security=selinux", "security=apparmor")
    image = changed(image, {"/etc/selinux/config": file("SELINUX=enforcing\nSELINUXTYPE=default\n")})
    found = {row.id: row for row in checks.check(image)}
    assert found["agent.apparmor"].outcome is Outcome.FAIL
    assert found["agent.selinux"].outcome is Outcome.PASS
    image = changed(image, {"/boot/grub/grub.cfg": unread()})
    assert {row.id: row for row in checks.check(image)}["agent.apparmor"].outcome is Outcome.ERROR
