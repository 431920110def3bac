"""Which kernel of a disk boots: menus as Debian, Ubuntu and Fedora write them, and any other text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.vm import boot_menu

RELEASES = ["6.1.0-9-amd64", "6.1.0-44-amd64", "5.10.0-30-amd64"]

DEBIAN = """\
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
else
   set default="{default}"
fi
function gfxmode {
	set gfxpayload="${1}"
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; fi
	linux	/boot/vmlinuz-6.1.0-44-amd64 root=UUID=1 ro quiet
	initrd	/boot/initrd.img-6.1.0-44-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-44-amd64' --class debian $menuentry_id_option 'gnulinux-6.1.0-44-1' {
		linux	/boot/vmlinuz-6.1.0-44-amd64 root=UUID=1 ro quiet
	}
	menuentry 'Debian GNU/Linux, with Linux 5.10.0-30-amd64' --class debian --id 'gnulinux-5.10.0-30-1' {
		linux	/boot/vmlinuz-5.10.0-30-amd64 root=UUID=1 ro quiet
	}
}
menuentry "UEFI Firmware Settings" { fwsetup }
"""


def menu(default: str) -> str:
    return DEBIAN.replace("{default}", default)


@pytest.mark.parametrize(
    ("default", "environment", "release"),
    [
        ("0", "", "6.1.0-44-amd64"),
        ("1", "", "6.1.0-44-amd64"),  # a submenu: its first
        ("1>1", "", "5.10.0-30-amd64"),
        ("gnulinux-advanced-1>gnulinux-5.10.0-30-1", "", "5.10.0-30-amd64"),
        ("${saved_entry}", "saved_entry=gnulinux-advanced-1>gnulinux-5.10.0-30-1\n", "5.10.0-30-amd64"),
        ("${saved_entry}", "", "6.1.0-44-amd64"),
        ("Debian GNU/Linux", "", "6.1.0-44-amd64"),
        ("no such entry", "", "6.1.0-44-amd64"),
        ("99", "", "6.1.0-44-amd64"),
    ],
)
def test_what_a_menu_boots(default: str, environment: str, release: str) -> None:
    assert boot_menu.default(RELEASES, menu(default), environment, {}) == release


def test_without_a_menu_the_newest_boots() -> None:
    assert boot_menu.default(RELEASES, "", "", {}) == "6.1.0-44-amd64"


def test_a_menu_that_boots_what_is_not_there() -> None:
    assert boot_menu.default(["5.10.0-30-amd64"], menu("0"), "", {}) == "5.10.0-30-amd64"


ENTRIES = {
    "0123-5.14.0-70.el9.x86_64": "title Rocky\nversion 5.14.0-70.el9.x86_64\nlinux /vmlinuz-5.14.0-70.el9.x86_64\n",
    "0123-5.14.0-427.el9.x86_64": "title Rocky\nlinux /boot/vmlinuz-5.14.0-427.el9.x86_64\n",
}
FEDORA = ["5.14.0-70.el9.x86_64", "5.14.0-427.el9.x86_64"]


def test_entries_of_the_boot_loader_specification() -> None:
    assert boot_menu.default(FEDORA, "blscfg\n", "", ENTRIES) == "5.14.0-427.el9.x86_64"
    saved = "# GRUB Environment Block\nsaved_entry=0123-5.14.0-70.el9.x86_64\n####"
    assert boot_menu.default(FEDORA, "blscfg\n", saved, ENTRIES) == "5.14.0-70.el9.x86_64"


def test_no_kernel_at_all() -> None:
    with pytest.raises(ValueError, match="no releases"):
        boot_menu.default([], "", "", {})


@given(st.lists(st.sampled_from(["6.1", "6.10", "6.9", "6.9~rc1", "6.9+deb12"]), min_size=1))
def test_versions_have_an_order(releases: list[str]) -> None:
    order = ["6.1", "6.9~rc1", "6.9", "6.9+deb12", "6.10"]
    assert boot_menu.default(releases, "", "", {}) == max(releases, key=order.index)


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text(), max_size=3), st.integers(0, len(DEBIAN)))
def test_any_text_gives_a_kernel_that_is_there(menu: str, environment: str, entries: dict[str, str], cut: int) -> None:
    for text in (menu, DEBIAN[:cut] + menu, DEBIAN[cut:], "blscfg" + menu):
        assert boot_menu.default(RELEASES, text, environment, entries) in RELEASES


@given(st.lists(st.sampled_from([*DEBIAN.splitlines(), "submenu x {", "}", "{"]), max_size=60))
def test_any_order_of_lines_gives_a_kernel_that_is_there(lines: list[str]) -> None:
    assert boot_menu.default(RELEASES, "\n".join(lines), "", {}) in RELEASES
