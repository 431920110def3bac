"""Samples: their files and disks, the agent in them, and that each fault is made and no other."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from harness import __version__
from harness.errors import HarnessError
from harness.image.sample import FORMATS, Sample, agent_files, base, breaks, build, disk, good, menu
from harness.image.sample.breaks import BREAKS
from harness.image.sample.site import Site
from tests.image.broken import BROKEN, OF_FILES
from tests.image.conftest import Roots

SUITES = ("bullseye", "bookworm", "trixie")
_NEEDS = ("mmdebstrap", "mke2fs", "debugfs", "grub-mkimage", "qemu-img", "mformat", "sfdisk")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(name, path=_PATH) is None for name in _NEEDS),
    reason=f"needs root and {', '.join(_NEEDS)}",
)

# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = tmp_path / "small"
    (root / "boot/grub").mkdir(parents=True)
    (root / "hello").write_text("there\n")
    return root


LAYOUT = disk.Layout(96 * disk.MIB, "sample-root")


def _sfdisk(image: Path) -> dict[str, object]:
    told = json.loads(subprocess.run(["sfdisk", "--json", image], check=True, capture_output=True).stdout)
    table = told["partitiontable"]
    assert isinstance(table, dict)
    return table


def _debugfs(image: Path, start: int, request: str) -> str:
    command = ["debugfs", "-R", request, f"{image}?offset={start * disk.SECTOR}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_partition_table_is_what_sfdisk_reads(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(512 - 66) + disk.partition_table(64 * disk.MIB) + bytes(64 * disk.MIB - 512))
    table = _sfdisk(image)
    assert table["label"] == "dos"
    assert isinstance(table["partitions"], list)
    (partition,) = table["partitions"]
    assert (partition["start"], partition["size"]) == (2048, 63 * 2048)
    assert (partition["type"], partition["bootable"]) == ("83", True)


@pytest.mark.parametrize("loader", [True, False])
def test_a_disk_for_a_bios(small: Path, tmp_path: Path, loader: bool) -> None:
    image = tmp_path / "disk.raw"
    disk.bios(small, image, disk.Layout(LAYOUT.size, LAYOUT.label, loader=loader))
    data = image.read_bytes()
    assert len(data) == LAYOUT.size
    assert (b"GRUB" in data[:440]) is loader
    assert any(data[512 : 512 + 4096]) is loader
    assert _debugfs(image, 2048, "cat hello") == "there\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.raw", "small"]


@pytest.mark.parametrize("loader", [True, False])
def test_a_disk_for_uefi(small: Path, tmp_path: Path, loader: bool) -> None:
    image = tmp_path / "disk.raw"
    disk.uefi(small, image, disk.Layout(LAYOUT.size, LAYOUT.label, loader=loader))
    table = _sfdisk(image)
    assert table["label"] == "gpt"
    assert isinstance(table["partitions"], list)
    esp, root = table["partitions"]
    assert esp["type"] == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    assert (esp["start"] % 2048, root["start"] % 2048) == (0, 0)
    command = ["mdir", "-b", "-/", "-i", f"{image}@@{esp['start'] * disk.SECTOR}", "::"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert ("::/EFI/BOOT/BOOTX64.EFI" in shown) is loader
    assert _debugfs(image, root["start"], "cat hello") == "there\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.raw", "small"]


def test_what_does_not_fit_is_told(small: Path, tmp_path: Path) -> None:
    (small / "large").write_bytes(os.urandom(16 * disk.MIB))
    with pytest.raises(HarnessError, match="mke2fs"):
        disk.bios(small, tmp_path / "disk", disk.Layout(16 * disk.MIB, "sample-root"))


INFO = {
    "qcow2": ("qcow2", None),
    "raw": ("raw", None),
    "vhd-fixed": ("vpc", 512),  # the footer
    "vhd-dynamic": ("vpc", None),
    "vhdx": ("vhdx", None),
}


@pytest.mark.parametrize("name", disk.FORMATS)
def test_a_format_is_what_qemu_reads(small: Path, tmp_path: Path, name: str) -> None:
    raw, made = tmp_path / "disk.raw", tmp_path / "made"
    disk.bios(small, raw, LAYOUT)
    disk.FORMATS[name](raw, made)
    driver, behind = INFO[name]
    command = ["qemu-img", "info", "--output=json", "-f", driver, str(made)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert told["virtual-size"] == LAYOUT.size
    if behind is not None:
        assert made.stat().st_size == LAYOUT.size + behind


def test_every_format_is_one_of_these() -> None:
    assert set(FORMATS) == {*INFO, "directory", "tar"}


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_a_good_sample_has_what_an_image_for_azure_has(roots: Roots, suite: str) -> None:
    root = roots(suite)
    (release,) = menu.kernels(root)
    assert "cloud" in release
    for name in (f"boot/vmlinuz-{release}", f"boot/initrd.img-{release}", f"boot/config-{release}"):
        assert (root / name).stat().st_size > 100_000, name
    assert list((root / "usr/lib/modules" / release).rglob("hv_netvsc.ko*"))
    assert list((root / "usr/lib/modules" / release).rglob("udf.ko*"))
    entries = (root / menu.PLACE).read_text()
    assert f"linux /boot/vmlinuz-{release} root=LABEL={base.LABEL} ro" in entries
    assert "console=ttyS0" in entries
    assert (root / "etc/machine-id").read_text() == ""
    assert not list((root / "etc/ssh").glob("ssh_host_*"))
    assert not list((root / "var/lib/cloud").glob("*"))
    assert "Azure" in (root / "etc/cloud/cloud.cfg.d/90-azure.cfg").read_text()
    assert f"VERSION_CODENAME={suite}" in (root / "etc/os-release").read_text()
    assert "\nroot:!" in "\n" + (root / "etc/shadow").read_text()


@pytest.mark.parametrize("suite", SUITES)
def test_the_agent_is_a_package_that_runs_in_every_suite(roots: Roots, suite: str) -> None:
    root = roots(suite)
    site = Site(root, LAYOUT)
    assert site.run("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "azure-proxy-agent") == (
        f"{__version__} installed"
    )
    assert site.run("azure-proxy-agent", "--version").strip() == __version__
    program = root / agent_files.EXECUTABLE
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    wanted = root / "etc/systemd/system/multi-user.target.wants" / agent_files.NAME
    assert str(wanted.readlink()).endswith(f"/systemd/system/{agent_files.NAME}")
    assert not (root / "usr/sbin/policy-rc.d").exists()
    assert not (root / "agent.deb").exists()
    config = json.loads((root / agent_files.CONFIG).read_text())
    assert (config["lab"]["image"], config["lab"]["times"]["provision"]) == (f"/{agent_files.PROGRAM}", 120)


def test_the_whole_agent_can_be_imported_from_what_was_copied(roots: Roots) -> None:
    content = (roots("bookworm") / agent_files.EXECUTABLE).read_text()
    places = "import sys; sys.path.append('/usr/lib/azure-proxy-agent/lib')"
    code = f"{places}; import harness.agent.reference as one; print(one)"
    command = content.splitlines()[-1].replace('/usr/lib/azure-proxy-agent/agent.py "$@"', f'-c "{code}"')
    shown = Site(roots("bookworm"), LAYOUT).run(
        "/bin/sh", "-c", f"runtime=/usr/lib/azure-proxy-agent/runtime\n{command}"
    )
    assert "/usr/lib/azure-proxy-agent/lib/harness/agent/reference.py" in shown


@pytest.mark.parametrize("suite", SUITES)
def test_a_good_samples_disk_holds_them(tmp_path: Path, suite: str) -> None:
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", good(suite), raw], check=True)
    assert "Debian GNU/Linux, with Linux" in _debugfs(raw, 2048, f"cat /{menu.PLACE}")
    assert "Mode:  0755" in _debugfs(raw, 2048, f"stat /{agent_files.EXECUTABLE}")
    assert "Mode:  0700" in _debugfs(raw, 2048, f"stat /{agent_files.KEYS}")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (Sample("focal"), "no such suite"),
        (Sample("bookworm", format="vmdk"), "no format here"),
        (Sample("bookworm", generation=3), "generation 3"),
        (Sample("bookworm", breaks=("no-such",)), "no such fault"),
        (Sample("bookworm", breaks=("no-object",)), "there is none"),
        (Sample("bookworm", breaks=("cloud-init-msp-removed",)), "cannot be made of bookworm"),
        (Sample("bookworm", breaks=("odd-size",), format="tar"), "fault of a disk"),
        (Sample("bookworm", agent="/no/such/agent"), "no such file"),
    ],
)
def test_what_cannot_be_made_is_told(tmp_path: Path, spec: Sample, told: str) -> None:
    with pytest.raises(HarnessError, match=told):
        build(spec, tmp_path / "sample")
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "sample").write_text("mine")
    with pytest.raises(HarnessError, match="there already"):
        build(Sample("bookworm"), tmp_path / "sample")
    assert (tmp_path / "sample").read_text() == "mine"


def test_somebodys_directory_is_laid_over_the_root(tmp_path: Path) -> None:
    agent, made = tmp_path / "agent", tmp_path / "made.tar"
    (agent / "usr/sbin").mkdir(parents=True)
    (agent / "usr/sbin/azure-proxy-agent").write_text("#!/bin/sh\n")
    (agent / "usr/sbin/azure-proxy-agent").chmod(0o755)
    build(Sample("bookworm", str(agent), format="tar"), made)
    command = ["tar", "-tvf", str(made), "./usr/sbin/azure-proxy-agent", "./usr/sbin/useradd"]
    rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert sorted(row.split()[0] for row in rows) == ["-rwxr-xr-x", "-rwxr-xr-x"]
    assert {row.split()[1] for row in rows} == {"0/0"}


# --- faults -----------------------------------------------------------------------------------------------------------


def test_each_fault_is_looked_at() -> None:
    assert set(BROKEN) == set(BREAKS)


_SMALL = (
    "boot", "etc", "usr/lib/systemd", "usr/lib/modules", "usr/lib/python3/dist-packages/cloudinit",
    agent_files.EXECUTABLE, agent_files.OBJECT, agent_files.PROGRAM, agent_files.LOGS, agent_files.KEYS,
)  # fmt: skip
_FETCHES = pytest.mark.slow(reason="fetches another kernel and has an initramfs made, in half a minute")


def _copy(origin: Path, root: Path, name: str) -> None:
    """What a fault needs of a root: all, where dpkg writes into files that are there, or a part, as hard links."""
    if name == "two-kernels":
        subprocess.run(["cp", "-a", origin, root], check=True)
    else:
        root.mkdir()
        subprocess.run(["cp", "-al", "--parents", *_SMALL, root], check=True, cwd=origin)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=_FETCHES if name == "two-kernels" else ()) for name in BREAKS if name not in OF_FILES],
)
def test_a_fault_is_made_and_was_not_there_before(roots: Roots, tmp_path: Path, name: str) -> None:
    """Those of which the checks cannot tell by the files alone; the others are in test_breaks."""
    row = BREAKS[name]
    suite = "bookworm" if not row.suites or "bookworm" in row.suites else row.suites[0]
    root = tmp_path / "root"
    _copy(roots(suite), root, name)
    site = Site(root, LAYOUT, suite)
    assert not BROKEN[name](site)
    row.change(site)
    assert BROKEN[name](site)
    assert row.finds
    if name == "two-kernels":
        oldest = menu.kernels(root)[-1]
        assert (root / f"boot/initrd.img-{oldest}").stat().st_size > 100_000
    shutil.rmtree(root)


def test_faults_are_made_one_after_the_other(tmp_path: Path) -> None:
    made = tmp_path / "made"
    build(Sample("bookworm", "reference", ("cgroup-v1", "no-console", "machine-id"), "directory", provision=5), made)
    (line,) = [row for row in (made / menu.PLACE).read_text().splitlines() if row.strip().startswith("linux ")]
    assert "unified_cgroup_hierarchy=0" in line
    assert "console=" not in line
    assert json.loads((made / agent_files.CONFIG).read_text())["lab"]["times"]["provision"] == 5
    assert (made / "etc/machine-id").read_text() != ""
    shutil.rmtree(made)


def test_a_broken_sample_names_its_faults_where_they_can_be_made() -> None:
    rows = breaks.chosen(("misaligned-partition", "no-object"), "trixie", agent=True, is_disk=True)
    assert [row.name for row in rows] == ["misaligned-partition", "no-object"]
