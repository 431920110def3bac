"""Images read in libguestfs' appliance: what comes out, what is told of the rest, and that none is written to."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.command import run
from harness.errors import HarnessError
from harness.image import source
from harness.image.image import Image, Package
from harness.image.read import of, quiet, read
from harness.image.tree import Kind
from harness.vm.appliance import Appliance
from tests.image.headers import MIB, encrypted, needs_qemu_img
from tests.image.systems import CAPABILITY, FILES, damage, disk, needs_guestfish, state, tree

pytestmark = [needs_guestfish, needs_qemu_img]

PACKAGES = {
    "cloud-init": Package("cloud-init", "22.4.2-1+deb12u2"),
    "systemd": Package("systemd", "1:252.36"),
}


def looks_right(image: Image) -> None:
    """What holds for a system of FILES, in whichever form."""
    assert (image.system["type"], image.system["distro"]) == ("linux", "debian")
    assert image.packages["cloud-init"] == PACKAGES["cloud-init"]
    assert image.packages["systemd"] == PACKAGES["systemd"]
    assert image.tree.text("/etc/os-release") == FILES["etc/os-release"].decode()
    assert image.tree.text("/lib/systemd/system/azure-proxy-agent.service") == "[Service]\n"
    assert image.tree.data("/usr/lib/python3/dist-packages/cloudinit/version.py")
    agent = image.tree.entry("/usr/sbin/azure-proxy-agent")
    assert agent is not None
    assert (agent.mode, agent.data, agent.known) == (0o755, FILES["usr/sbin/azure-proxy-agent"], True)
    assert image.tree.is_file("/usr/share/misc/readme")
    for secret in ("/etc/ssh/ssh_host_rsa_key", "/var/lib/waagent/3F.prv"):
        entry = image.tree.entry(secret)
        assert entry is not None
        assert (entry.data, entry.size) == (None, len(FILES[secret[1:]]))
    assert image.tree.data("/etc/ssh/ssh_host_rsa_key.pub") == b"public"
    assert image.tree.data("/etc/shadow") == b"root:$"
    assert image.tree.link("/etc/out") == "../../../../../etc/passwd"
    assert image.tree.entry("/etc/out") is None  # it has no such file
    assert "no more than 524288" in image.unseen["/etc/large"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A dynamic VHD of a system with all that is nasty, whose /boot is damaged and ends where QEMU would not look."""
    place = tmp_path_factory.mktemp("hostile")
    (place / "empty").mkdir()
    root = tree(place / "root", hostile=True)
    if os.geteuid() == 0:
        os.setxattr(root / "usr/sbin/azure-proxy-agent", "security.capability", CAPABILITY)
    raw = disk(place, root, boot=place / "empty", odd=3)
    damage(raw, 56 * MIB)
    image = place / "disk.vhd"
    run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=dynamic,force_size", raw, image])
    raw.unlink()
    before = state(image)
    found = read(str(image))
    assert state(image) == before
    return found


def test_a_disk_is_read(hostile: Image) -> None:
    looks_right(hostile)
    assert (hostile.disk.format, hostile.disk.table, hostile.disk.firmware) == ("vhd-dynamic", "mbr", "bios")
    assert hostile.disk.virtual_size == 64 * MIB + 3 * 512
    assert [each.start for each in hostile.disk.partitions] == [MIB, 56 * MIB]
    assert not hostile.disk.troubles
    assert hostile.systems == ("/dev/sda1: debian 12.1",)


def test_a_damaged_file_system_is_told_in_libguestfs_words(hostile: Image) -> None:
    assert hostile.unseen["/boot"].startswith("/dev/sda2 cannot be mounted there: ")
    assert "mount" in hostile.unseen["/boot"]


def test_strange_names_are_read_and_written_out(hostile: Image) -> None:
    for name, content in {
        "/etc/a\\x0ab\\x1b[31m": b"control",
        "/etc/\\xff\\xfe": b"no text",
        "/etc/-rf": b"an option",
        "/etc/$(reboot)`reboot`\"'\\": b"a shell's",
        "/etc/hard": b"test\n",
        "/etc/hostname": b"test\n",
    }.items():
        assert hostile.tree.data(name) == content
    assert all(path.isprintable() for path, _ in hostile.tree.below("/"))


def test_what_is_large_deep_or_no_file_is_passed_over(hostile: Image) -> None:
    for path in ("/srv", "/var/lib/cloud"):
        entry = hostile.tree.entry(path)
        assert entry is not None
        assert (entry.size, entry.data) == (10 << 30, None)
    assert "directories lie one in the other" in hostile.unseen["depth"]
    pipe = hostile.tree.entry("/etc/pipe")
    assert pipe is not None
    assert pipe.kind is Kind.OTHER
    assert hostile.tree.entry("/etc/circle") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sets security.capability")
def test_extended_attributes_come_along(hostile: Image) -> None:
    agent = hostile.tree.entry("/usr/sbin/azure-proxy-agent")
    assert agent is not None
    assert agent.attributes["security.capability"] == CAPABILITY


SEVERAL = """
set -e
parted -s $disk mklabel gpt mkpart p1 ext4 1MiB 40MiB mkpart p2 40MiB 80MiB mkpart p3 80MiB 100MiB >/dev/null
udevadm settle
lvm pvcreate -q ${disk}2; lvm vgcreate -q vg ${disk}2; lvm lvcreate -q -y -L 32M -n root vg
echo -n key | cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 ${disk}3 -
echo done
"""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with two systems, one of them on a logical volume, and a partition that is encrypted."""
    place = tmp_path_factory.mktemp("several")
    raw = place / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(101 * MIB)
    root = tree(place / "root")
    (root / "etc/fstab").write_text("")
    archive = place / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    with Appliance(raw, "raw", writable=True) as appliance:
        said = appliance.shell(SEVERAL)
        assert said.endswith("done"), said
        for device in ("/dev/sda1", "/dev/vg/root"):
            appliance.ask(f"mkfs ext4 {device}")
            appliance.ask(f"mount {device} /")
            appliance.ask(f"tar-in {archive} /")
            appliance.ask("umount-all")
    return raw


def test_of_two_systems_none_is_guessed_and_no_other_is_read(several: Path) -> None:
    refused: list[str] = []

    def ask_for_another(appliance: Appliance, image: Image) -> None:
        with pytest.raises(HarnessError) as raised:
            of(appliance, source.identify(str(several)), str(several), "/dev/sda9", quiet)
        refused.append(raised.value.happened)

    found = read(str(several), also=ask_for_another)
    assert len(refused) == 1
    assert "is what libguestfs finds on it" in refused[0]
    assert found.systems == ("/dev/sda1: debian 12.1", "/dev/vg/root: debian 12.1")
    assert not list(found.tree.below("/"))
    assert "name one with root=DEVICE" in found.unseen["/"]
    assert "/dev/vg/root" in found.unseen["/"]
    assert found.disk.lvm
    assert found.disk.encrypted == ("/dev/sda3",)
    assert "no key is asked for" in found.unseen["/dev/sda3"]


def test_the_system_that_is_named_is_read(several: Path) -> None:
    before = state(several)
    found = read(str(several), root="/dev/vg/root")
    assert found.tree.text("/etc/hostname") == "test\n"
    assert found.disk.table == "gpt"
    assert state(several) == before


LAYOUT = """
set -e
parted -s $disk mklabel gpt mkpart ESP fat32 1MiB 10MiB set 1 esp on mkpart r 10MiB 150MiB mkpart v 150MiB 199MiB \
    >/dev/null
udevadm settle
mkfs.vfat -n ESP ${disk}1 >/dev/null
mkfs.btrfs -q -M -U 11111111-2222-3333-4444-555555555555 ${disk}2
mke2fs -q -t ext4 -U 21111111-2222-3333-4444-555555555555 ${disk}3
mkdir -p /tmp/b /tmp/esp
mount ${disk}1 /tmp/esp; mkdir -p /tmp/esp/EFI/BOOT; echo x >/tmp/esp/EFI/BOOT/BOOTX64.EFI; umount /tmp/esp
mount ${disk}2 /tmp/b; btrfs -q subvolume create /tmp/b/root >/dev/null; umount /tmp/b
echo done
"""
FSTAB = """UUID=11111111-2222-3333-4444-555555555555 / btrfs subvol=root 0 0
UUID=21111111-2222-3333-4444-555555555555 /var ext4 defaults 0 0
"""


def test_subvolumes_other_partitions_and_one_that_fstab_does_not_name(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(200 * MIB)
    root = tree(tmp_path / "root", {"etc/fstab": FSTAB.encode()})
    (root / "boot/efi").mkdir(parents=True)
    archives = {}
    for name, top in {"var": root / "var", "root": root}.items():
        archives[name] = tmp_path / f"{name}.tar"
        with tarfile.open(archives[name], "w") as tar:
            tar.add(top, arcname=".", filter=lambda member: None if member.name.startswith("./var/") else member)
    with Appliance(raw, "raw", writable=True) as appliance:
        said = appliance.shell(LAYOUT)
        assert said.endswith("done"), said
        appliance.ask('mount "btrfsvol:/dev/sda2/root" /')
        appliance.ask(f"tar-in {archives['root']} /")
        appliance.ask("mount /dev/sda3 /var")
        appliance.ask(f"tar-in {archives['var']} /var")
        appliance.ask("umount-all")
    found = read(str(raw))
    looks_right(found)
    assert found.systems == ("btrfsvol:/dev/sda2/root: debian 12.1",)
    assert found.tree.exists("/var/lib/waagent/provisioned")
    assert found.disk.firmware == "uefi"


def test_a_disk_without_a_system_that_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "data").write_bytes(os.urandom(4 * MIB))
    raw = disk(tmp_path, tmp_path / "files")
    image = tmp_path / "disk.qcow2"
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image])
    os.truncate(image, image.stat().st_size // 2)
    found = read(str(image))
    assert not found.systems
    assert found.unseen["/"] == "there is no operating system on it that libguestfs knows"


def test_an_encrypted_image_is_told_at_once(tmp_path: Path) -> None:
    image = encrypted(tmp_path)
    found = read(str(image))
    assert found.disk.encrypted == ("the image",)
    assert "no key is asked for" in found.unseen["/"]


def test_a_directory_is_read(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", hostile=True)
    found = read(str(root))
    looks_right(found)
    assert found.disk.format == "directory"
    assert found.tree.data("/etc/\\xff\\xfe") == b"no text"
    entry = found.tree.entry("/srv")
    assert entry is not None
    assert entry.size == 10 << 30


def packed(files: dict[str, bytes | None], links: dict[str, str] | None = None) -> bytes:
    """A tar archive: directories have no content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return stream.getvalue()


def test_a_tar_stays_in_its_appliance(tmp_path: Path) -> None:
    """Absolute names, names with .., a link that later members go through."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tree(tmp_path / "root")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(root, arcname=".")
        for name in ("../../../../../../etc/beyond", f"{outside}/absolute"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        through = tarfile.TarInfo("way/through")
        tar.addfile(through)
    image = tmp_path / "root.tar.gz"
    image.write_bytes(gzip.compress(stream.getvalue()))
    found = read(str(image))
    looks_right(found)
    assert found.disk.format == "tar"
    assert not list(outside.iterdir())
    assert not Path("/etc/beyond").exists()


def layout(place: Path, layers: list[bytes]) -> Path:
    """An OCI layout with these layers."""
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest = blob(json.dumps({"layers": [blob(gzip.compress(layer)) for layer in layers]}).encode())
    (place / "index.json").write_text(json.dumps({"manifests": [manifest]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return place


def test_layers_are_merged_with_their_whiteouts(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"opt/a/old": b"", "opt/b": b"", "opt/kind/file": b""})
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(root, arcname=".")
    upper: dict[str, bytes | None] = {
        "opt/a/.wh..wh..opq": b"",
        "opt/a/new": b"",
        "opt/.wh.b": b"",
        "opt/.wh.kind": b"",
        "opt/kind": b"a file now",
        "../.wh.tmp": b"",
        "etc/hostname": b"upper\n",
    }
    place = layout(tmp_path / "oci", [stream.getvalue(), packed(upper)])
    found = read(str(place))
    looks_right(found)
    assert found.disk.format == "oci"
    assert found.tree.names("/opt/a") == ["new"]
    assert found.tree.names("/opt") == ["a", "kind"]
    assert found.tree.is_file("/opt/kind")
    assert found.tree.text("/etc/hostname") == "upper\n"
    assert not found.tree.exists("/.msp-unpacked")


_TOLD = """
import json, sys
from harness.image.read import read
image = read(sys.argv[1])
print(json.dumps([image.tree.text("/etc/hostname"), sorted(image.packages), image.disk.format]))
"""
RIGHT = ["test\n", ["cloud-init", "systemd"], "raw"]


@pytest.fixture(scope="module")
def readable() -> Iterator[Path]:
    """A disk where every user gets to it."""
    with tempfile.TemporaryDirectory(prefix="msp-harness-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        raw = disk(place, tree(place / "root"))
        raw.chmod(0o644)
        yield raw


def test_several_at_once(readable: Path) -> None:
    words = [sys.executable, "-c", _TOLD, str(readable)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(2)]
    assert [json.loads(each.communicate()[0]) for each in started] == [RIGHT, RIGHT]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_it_takes_no_privileges(readable: Path) -> None:
    """As nobody, with nothing but a directory for its cache, in which its own appliance is built."""
    before = state(readable)
    own = readable.parent / "cache"
    own.mkdir()
    os.chown(own, 65534, 65534)
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    given = {"XDG_CACHE_HOME": str(own), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    if run([*become, sys.executable, "-c", "import harness"], environment=given, check=False).returncode:
        pytest.skip("nobody gets to the interpreter or the checkout")
    done = run([*become, sys.executable, "-c", _TOLD, readable], environment=given, timeout=600)
    assert json.loads(done.stdout) == RIGHT
    assert state(readable) == before
