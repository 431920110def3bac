"""The remedy for a cgroup layout is that of the image's distribution."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.image import checks
from harness.image.image import Image
from tests.image import trees
from tests.image.checks.breaks import both, lay, line, old_systemd


def remedy(image: Image) -> str:
    return next(row.remedy for row in checks.check(image) if row.id == "cgroup.layout") or ""


def red(number: int, compiled: str) -> Callable[[Image], Image]:
    library = "/usr/lib/systemd/libsystemd-shared-"
    return lay({f"{library}252.so": None, f"{library}{number}.so": f"default-hierarchy={compiled}"})


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (old_systemd(241, "hybrid")(trees.debian()), "update-grub"),
        (old_systemd(239, "legacy")(trees.debian()), "systemd.unified_cgroup_hierarchy=1"),
        (red(239, "legacy")(trees.redhat()), 'grubby --update-kernel=ALL --args="systemd.unified_cgroup_hierarchy=1"'),
        (both(old_systemd(252, "unified"), line("systemd.unified_cgroup_hierarchy=0"))(trees.debian()), "out of the"),
        (both(old_systemd(241, "hybrid"), lay({"/etc/os-release": "ID=mine\n"}))(trees.debian()), "to the kernel's"),
    ],
    ids=["debian", "debian-v1", "rhel", "asked-for", "unknown"],
)
def test_the_distributions_own_way(image: Image, words: str) -> None:
    assert words in remedy(image)
