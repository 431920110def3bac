"""Mounts and layouts, from texts as kernels write them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.kernel import cgroups, listeners

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "25 21 0:22 / /sys/fs/cgroup ro,nosuid shared:8 - tmpfs tmpfs ro,mode=755\n"
    "26 25 0:23 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n"
    "27 25 0:24 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"
)
LEGACY = HYBRID.replace("cgroup2", "cgroup")


def test_layouts() -> None:
    for text, name in ((UNIFIED, "unified"), (HYBRID, "hybrid"), (LEGACY, "legacy"), ("", "none")):
        assert cgroups.layout(cgroups.parse_mounts(text)).name == name


def test_first_mount_comes_first() -> None:
    """Cilium's private mount may be listed before the root's: the agent takes the first."""
    cilium = "29 23 0:26 / /run/cilium/cgroupv2 rw - cgroup2 none rw\n"
    found = cgroups.layout(cgroups.parse_mounts(cilium + UNIFIED)).cgroup2
    assert [mount.point for mount in found] == [Path("/run/cilium/cgroupv2"), Path("/sys/fs/cgroup")]


def test_optional_fields_and_escapes() -> None:
    line = r"30 23 0:26 /a\040b /mnt/a\040b\134c rw shared:1 master:2 - cgroup2 none rw"
    (mount,) = cgroups.parse_mounts(line)
    assert mount.point == Path("/mnt/a b\\c")
    assert mount.root == "/a b"


@given(st.text())
def test_any_text_gives_mounts_or_none(text: str) -> None:
    assert isinstance(cgroups.parse_mounts(text), list)


def test_ancestors_go_from_the_root_down() -> None:
    found = cgroups.ancestors(Path("/cg/a/b"), Path("/cg"))
    assert found == [Path("/cg"), Path("/cg/a"), Path("/cg/a/b")]


def test_listeners_are_those_in_state_listen() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        "   0: 0100007F:0C08 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n"
        "   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n"
        "   2: 0100007F:0C09 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0\n"
    )
    assert listeners.parse(text) == [("127.0.0.1", 3080), ("0.0.0.0", 80)]
