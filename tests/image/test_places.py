"""Which contents are read, and the list of names that says what there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.image import listing, places, system
from harness.image.image import Package
from harness.image.tree import Entry, Kind

READ = (
    "/etc/fstab",
    "/etc/os-release",
    "/usr/lib/os-release",
    "/usr/sbin/azure-proxy-agent",
    "/usr/lib/azure-proxy-agent/ebpf_cgroup.o",
    "/var/lib/azure-proxy-agent/status.json",
    "/var/lib/waagent/ovf-env.xml",
    "/usr/lib/python3.11/site-packages/cloudinit/version.py",
    "/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceAzure.py",
    "/usr/lib/python3/dist-packages/cloudinit/sources/azure/errors.py",
    "/usr/lib/systemd/system/ssh.service",
    "/lib/systemd/system/ssh.service.d/a.conf",
    "/usr/lib/systemd/system-preset/90-systemd.preset",
    "/usr/lib/modules/6.1.0/modules.builtin",
    "/lib/modules/6.1.0/config",
    "/boot/config-6.1.0",
    "/boot/grub2/grub.cfg",
    "/boot/loader/entries/a.conf",
    "/boot/efi/loader/entries/a.conf",
)
NOT_READ = (
    "/etc/shadow-",
    "/etc/ssh/moduli",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssl/private/server.pem",
    "/etc/NetworkManager/system-connections/wifi.nmconnection",
    "/var/lib/waagent/1A.prv",
    "/var/lib/azure-proxy-agent/keys/1.key",
    "/root/.ssh/id_rsa",
    "/root/.bash_history",
    "/home/user/file",
    "/usr/bin/python3",
    "/usr/lib/modules/6.1.0/kernel/net/x.ko",
    "/boot/vmlinuz-6.1.0",
    "/boot/initrd.img-6.1.0",
)


@pytest.mark.parametrize("path", READ)
def test_read(path: str) -> None:
    row, reason = places.wanted(path, Entry(Kind.FILE, size=100))
    assert row >= 0
    assert not reason
    row, reason = places.wanted(path, Entry(Kind.FILE, size=1 << 40))
    assert row == -1
    assert "no more than" in reason
    assert places.wanted(path, Entry(Kind.LINK, size=100)) == (-1, "")


@pytest.mark.parametrize("path", NOT_READ)
def test_not_read(path: str) -> None:
    assert places.wanted(path, Entry(Kind.FILE, size=100)) == (-1, "")


def test_no_hash_is_kept() -> None:
    shadow = b"root:$6$salt$hash:1:\nlocked:!$6$x:1\nnone::1\nstar:*:1\noff:!:1\noff2:!!:1\nhalf"
    assert places.masked("/etc/shadow", shadow) == (
        b"root:$:1:\nlocked:!$:1\nnone::1\nstar:*:1\noff:!:1\noff2:!!:1\nhalf"
    )
    assert places.masked("/etc/passwd", shadow) == shadow


def test_of_some_files_a_part_is_read() -> None:
    library = "/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so"
    unified = "/boot/efi/EFI/Linux/debian-6.1.0.efi"
    strange = "/boot/efi/EFI/Linux/$(reboot).efi"
    found = dict(places.excerpts(dict.fromkeys((library, unified, strange, "/etc/hosts"), Entry(Kind.FILE))))
    assert found.keys() == {library, unified}
    assert "default-hierarchy" in found[library]


def test_all_of_it_is_bounded_and_what_matters_comes_first() -> None:
    entries = {f"/etc/{number}": Entry(Kind.FILE, size=500 << 10) for number in range(300)}
    entries["/usr/sbin/azure-proxy-agent"] = Entry(Kind.FILE, size=10 << 20)
    chosen, left = places.choose(entries)
    assert chosen[0] == "/usr/sbin/azure-proxy-agent"
    assert sum(entries[path].size for path in chosen) <= places.LARGEST
    assert chosen
    assert left
    assert set(chosen) | left.keys() == entries.keys()
    many = {f"/etc/{number}": Entry(Kind.FILE) for number in range(places.MOST + 1)}
    assert len(places.choose(many)[0]) == places.MOST


def test_a_list_of_names() -> None:
    listed = (
        b"d 755 0 0 4096 .\0\0"
        b"l 777 0 0 7 ./bin\0usr/bin\0"
        b"f 4755 0 5 100 ./etc/two\nlines\0\0"
        b"f - - - - ./usr/share/x y\0\0"
        b"s 600 1 2 0 ./\xff\0\0"
        b"f 644 0 0 1 ./cut"
    )
    found = {path: each.entry for path, each in listing.parse(listed)}
    assert found == {
        "/": Entry(Kind.DIRECTORY, 0o755, size=4096),
        "/bin": Entry(Kind.LINK, 0o777, size=7, target="usr/bin"),
        "/etc/two\\x0alines": Entry(Kind.FILE, 0o4755, 0, 5, 100),
        "/usr/share/x y": Entry(Kind.FILE, 0, known=False),
        "/\\xff": Entry(Kind.OTHER, 0o600, 1, 2),
    }


@given(st.binary(max_size=300))
def test_no_list_of_names_raises_and_every_name_can_be_printed(listed: bytes) -> None:
    for path, each in listing.parse(b"f 1 2 3 4 " + listed + b"\0" + listed + b"\0"):
        for shown in (path, each.entry.target):
            assert all(character.isprintable() for character in shown)
            shown.encode()


def test_packages_are_what_libguestfs_prints() -> None:
    lines = """[0] = {
  app2_name: systemd
  app2_epoch: 1
  app2_version: 252.36
  app2_release: 2.el9
  app2_description: one
  app2_name: not this
}
[1] = {
  app2_name: tzdata
  app2_epoch: 0
  app2_version: 2026a
  app2_release:
}"""
    assert system.packages(lines.splitlines()) == {
        "systemd": Package("systemd", "1:252.36-2.el9"),
        "tzdata": Package("tzdata", "2026a"),
    }


@given(st.lists(st.sampled_from(["[0] = {", "}", "  app2_name: a", "  app2_name: ", "  app2_version: 1", "x", "\x1b"])))
def test_no_list_of_packages_raises(lines: list[str]) -> None:
    assert all(name == each.name and name for name, each in system.packages(lines).items())
