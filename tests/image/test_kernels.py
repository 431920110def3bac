"""Which kernel boots, with which command line; unified kernel images; the cgroup layout that follows."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.image import cgroup_layout, kernels, uki
from harness.image.image import Image
from harness.image.kernels import Kernels
from harness.image.reading import Unread
from tests.image import trees
from tests.image.trees import KERNEL, MACHINE, RED_KERNEL, changed, edited, file, folder, unread

OTHER = "6.1.0-30-amd64"


def with_other(image: Image, release: str = OTHER) -> Image:
    return changed(image, {f"/boot/vmlinuz-{release}": unread(), f"/usr/lib/modules/{release}/modules.dep": file("")})


def test_grubs_menu_names_the_kernel_and_the_line() -> None:
    found = kernels.kernels(trees.debian())
    assert (found.default, list(found.releases)) == (KERNEL, [KERNEL])
    assert "/boot/grub/grub.cfg" in found.chosen_by
    assert found.parameters("console") == ["tty0", "ttyS0,115200"]
    assert found.parameters("ro") == [None]


def test_an_older_kernel_boots_where_the_menu_says_so() -> None:
    image = with_other(trees.debian())
    entry = trees.GRUB.replace(KERNEL, OTHER).replace("gnulinux-simple-1", "old").replace("ttyS0,115200", "hvc0")
    image = changed(image, {"/boot/grub/grub.cfg": file(trees.GRUB + entry.split("\n", 1)[1])})
    assert kernels.kernels(image).default == KERNEL
    found = kernels.kernels(edited(image, "/boot/grub/grub.cfg", 'default="0"', 'default="old"'))
    assert found.default == OTHER
    assert found.parameters("console") == ["tty0", "hvc0"]


def test_the_newest_is_a_guess_that_is_told_and_has_no_line() -> None:
    image = changed(with_other(trees.debian()), {"/boot/grub": None})
    found = kernels.kernels(image)
    assert found.default == KERNEL
    assert "the newest" in found.chosen_by
    assert found.line is None


def test_entries_take_their_variables_from_grubenv_and_the_menu() -> None:
    found = kernels.kernels(trees.redhat())
    assert found.default == RED_KERNEL
    assert found.line == "root=/dev/mapper/rhel-root ro console=ttyS0 crashkernel=1G"
    assert found.line_from.endswith("/boot/loader/entries")


def test_the_saved_entry_counts() -> None:
    release = "5.14.0-427.el9.x86_64"
    image = with_other(trees.redhat(), release)
    entry = trees.ENTRY.replace(RED_KERNEL, release).replace("$tuned_params", "saved=1")
    image = changed(image, {f"/boot/loader/entries/{MACHINE}-{release}.conf": file(entry)})
    assert kernels.kernels(image).default == RED_KERNEL
    image = edited(
        image, "/boot/grub2/grubenv", f"saved_entry={MACHINE}-{RED_KERNEL}", f"saved_entry={MACHINE}-{release}"
    )
    found = kernels.kernels(image)
    assert found.default == release
    assert "saved=1" in str(found.line)


def test_a_unified_image_has_release_and_line_in_it() -> None:
    found = kernels.kernels(trees.unified())
    assert (found.default, found.line) == (KERNEL, "root=UUID=1 rw console=ttyS0")
    assert "unified" in found.chosen_by
    newer = f"/boot/efi/EFI/Linux/{MACHINE}-6.13.1-amd64.efi"
    image = changed(trees.unified(), {newer: file(trees.pe({".uname": b"6.13.1-amd64", ".cmdline": b"quiet"}))})
    assert (kernels.kernels(image).default, kernels.kernels(image).line) == ("6.13.1-amd64", "quiet")


def test_a_unified_image_that_was_not_read_has_the_line_of_kernel_install_or_none() -> None:
    image = changed(trees.unified(), {trees.UKI: unread()})
    with pytest.raises(Unread, match="too large"):
        kernels.kernels(image)
    found = kernels.kernels(changed(image, {"/etc/kernel/cmdline": file("root=UUID=1\nconsole=ttyS0\n")}))
    assert (found.default, found.line, found.line_from) == (KERNEL, "root=UUID=1 console=ttyS0", "/etc/kernel/cmdline")


def test_a_boot_partition_that_was_not_read_is_no_missing_kernel() -> None:
    image = changed(trees.debian(), {"/boot": None})
    assert kernels.kernels(changed(image, {"/boot": folder()})).default == ""
    fstab = file("UUID=1 / ext4 rw\nUUID=2 /boot ext4 rw\n")
    with pytest.raises(Unread, match="/etc/fstab mounts UUID=2 on /boot"):
        kernels.kernels(changed(image, {"/boot": folder(), "/etc/fstab": fstab}))


def test_the_configuration_has_what_is_off_too() -> None:
    image = changed(
        trees.debian(), {f"/boot/config-{KERNEL}": file('CONFIG_A=y\nCONFIG_B="x"\n# CONFIG_C is not set\n')}
    )
    found = kernels.config(image, KERNEL)
    assert found is not None
    assert found[1] == {"CONFIG_A": "y", "CONFIG_B": "x", "CONFIG_C": "n"}


@given(st.binary(max_size=300))
def test_what_is_no_pe_file_has_no_sections(data: bytes) -> None:
    assert uki.pe_sections(data) == {} or data.startswith(b"MZ")


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 400))
def test_damaged_tables_of_a_pe_file_raise_nothing(count: int, size: int, offset: int, cut: int) -> None:
    data = bytearray(trees.pe({".uname": b"6.1", ".cmdline": b"a"}))
    struct.pack_into("<H", data, 0x86, count)
    struct.pack_into("<II", data, 0x80 + 24 + 16, size, offset)
    found = uki.pe_sections(bytes(data[:cut]))
    assert all(len(value) <= 4096 for value in found.values())


# --- cgroup layout ----------------------------------------------------------------------------------------------------

_UNIFIED, _CONTROLLER = "systemd.unified_cgroup_hierarchy", "systemd.legacy_systemd_cgroup_controller"


@pytest.mark.parametrize(
    ("version", "compiled", "line", "kind"),
    [
        # systemd's cg_is_unified_wanted and cg_is_hybrid_wanted: the word, else what it was compiled with
        (247, "unified", "", "unified"),
        (239, "legacy", "", "legacy"),
        (239, "legacy", f"{_UNIFIED}=1", "unified"),
        (239, "legacy", f"{_UNIFIED}", "unified"),
        (239, "legacy", f"{_UNIFIED}=0 {_CONTROLLER}=0", "hybrid"),
        (239, "legacy", "cgroup_no_v1=all", "unified"),
        (239, "legacy", f"cgroup_no_v1=all {_UNIFIED}=no", "legacy"),
        (239, "legacy", "cgroup_no_v1=memory", "legacy"),
        (245, "hybrid", "", "hybrid"),
        (245, "hybrid", f"{_CONTROLLER}", "legacy"),
        (245, "hybrid", f"{_UNIFIED}=yes", "unified"),
        (252, "unified", f"{_UNIFIED}=0", "hybrid"),
        (252, "unified", f"{_UNIFIED}=0 {_CONTROLLER}=1", "legacy"),
        (252, "unified", f"{_UNIFIED}=0 {_UNIFIED}=1", "unified"),  # the last word counts
        (257, "", f"{_UNIFIED}=0", "refused"),
        (257, "", f"{_UNIFIED}=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "hybrid"),
        (257, "", "", "unified"),
        (258, "", f"{_UNIFIED}=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "unified"),
    ],
)
def test_layouts(version: int, compiled: str, line: str, kind: str) -> None:
    name = f"/usr/lib/systemd/libsystemd-shared-{version}.so"
    text = f"+PAM default-hierarchy={compiled}\0" if compiled else "+PAM"
    image = changed(trees.debian(), {"/usr/lib/x86_64-linux-gnu": None, name: file(text)})
    found = cgroup_layout.layout(image, Kernels({}, "6.1", line=line))
    assert (found.kind, found.sure, found.version) == (kind, True, version)


@pytest.mark.parametrize(
    ("id", "version", "number", "kind"),
    [("debian", "10", 241, "hybrid"), ("debian", "12", 252, "unified"), ("ubuntu", "20.04", 245, "hybrid"),
     ("ubuntu", "22.04", 249, "unified"), ("rhel", "8.10", 239, "legacy"), ("rocky", "9.4", 252, "unified"),
     ("sles", "15.6", 254, "hybrid")],
)  # fmt: skip
def test_what_is_expected_of_a_distribution_is_told_as_expected(id: str, version: str, number: int, kind: str) -> None:
    image = changed(
        trees.debian(),
        {
            "/usr/lib/x86_64-linux-gnu": None,
            f"/usr/lib/systemd/libsystemd-shared-{number}.so": unread(),
            "/usr/lib/os-release": file(f'ID={id}\nVERSION_ID="{version}"\n'),
        },
    )
    found = cgroup_layout.layout(image, Kernels({}, "6.1", line=""))
    assert (found.kind, found.sure) == (kind, False)
    assert "expected of" in found.why


def test_a_distribution_that_nobody_knows_is_not_guessed() -> None:
    image = changed(
        trees.debian(),
        {
            "/usr/lib/x86_64-linux-gnu": None,
            "/usr/lib/systemd/libsystemd-shared-249.so": unread(),
            "/usr/lib/os-release": file("ID=mine\nVERSION_ID=1\n"),
        },
    )
    assert cgroup_layout.layout(image, Kernels({}, "6.1", line="")).kind == ""
    found = cgroup_layout.layout(image, Kernels({}, "6.1", line=f"{_UNIFIED}=1"))
    assert (found.kind, found.sure) == ("unified", True)


def test_the_version_is_the_librarys_else_the_packages() -> None:
    assert cgroup_layout.systemd_version(trees.debian()) == 257
    image = changed(trees.debian(), {"/usr/lib/x86_64-linux-gnu": None})
    assert cgroup_layout.systemd_version(image) == 257
    assert cgroup_layout.systemd_version(replace(image, packages={})) == 0
