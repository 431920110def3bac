"""Samples: their files and disks, the agent in them, and that each fault is made and no other."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness import __version__
from harness.agent.key_folder import KeyFolder
from harness.errors import HarnessError
from harness.image import cloud_init, initramfs
from harness.image.sample import FORMATS, Sample, agent_faults, agent_files, base, breaks, build, disk, good, menu
from harness.image.sample.breaks import BREAKS
from harness.image.sample.site import Site

SUITES = ("bullseye", "bookworm", "trixie")
_NEEDS = ("mmdebstrap", "mke2fs", "debugfs", "grub-mkimage", "qemu-img", "mformat", "sfdisk")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(name, path=_PATH) is None for name in _NEEDS),
    reason=f"needs root and {', '.join(_NEEDS)}",
)

Roots = Callable[[str], Path]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roots]:
    """A suite's good sample with the agent, as a directory; nobody is to change it, and nobody has in the end."""
    made: dict[str, tuple[Path, list[tuple[object, ...]]]] = {}

    def get(suite: str) -> Path:
        if suite not in made:
            path = tmp_path_factory.mktemp("samples") / suite
            build(Sample(suite, "reference", format="directory"), path)
            made[suite] = path, _state(path)
        return made[suite][0]

    yield get
    for path, before in made.values():
        assert _state(path) == before
        shutil.rmtree(path)


def _state(root: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        found.append((path, status.st_ino, status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns))
    return found


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


def _reads(site: Site, name: str) -> str:
    path = site.path(name)
    return path.read_text() if path.is_file() else ""


def _loads_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _support(site: Site) -> cloud_init.Support:
    folder = site.path("usr/lib/python3/dist-packages/cloudinit/sources")
    paths = (folder / "DataSourceAzure.py", folder / "helpers/azure.py")
    return cloud_init.in_source({str(path): path.read_text() for path in paths}).support


_WANTS = f"etc/systemd/system/multi-user.target.wants/{agent_files.NAME}"
_CI = "usr/lib/python3/dist-packages/cloudinit"

BROKEN: Mapping[str, Callable[[Site], bool]] = {
    "no-agent": lambda site: (
        not any(
            os.path.lexists(site.path(name))
            for name in (agent_files.EXECUTABLE, agent_files.UNIT, _WANTS, agent_files.CONFIG)
        )
    ),
    "agent-not-executable": lambda site: not site.path(agent_files.EXECUTABLE).stat().st_mode & 0o111,
    "agent-outside-path": lambda site: (
        not site.path(agent_files.EXECUTABLE).exists() and "ExecStart=/opt/" in _reads(site, agent_files.UNIT)
    ),
    "no-object": lambda site: not site.path(agent_files.OBJECT).exists(),
    "object-truncated": lambda site: not _loads_json(_reads(site, agent_files.PROGRAM)),
    "object-refused": lambda site: (
        len(json.loads(_reads(site, agent_files.PROGRAM))["programs"][0]["instructions"]) == 12
    ),
    "bad-config": lambda site: not _loads_json(_reads(site, agent_files.CONFIG)),
    "unit-disabled": lambda site: not os.path.lexists(site.path(_WANTS)),
    "unit-masked": lambda site: site.path(f"etc/systemd/system/{agent_files.NAME}").is_symlink(),
    "unit-after-network": lambda site: "Before=network-pre.target" not in _reads(site, agent_files.UNIT),
    "unit-no-capabilities": lambda site: site.path(f"etc/systemd/system/{agent_files.NAME}.d").is_dir(),
    "agent-crashes": lambda site: "exit 127" in _reads(site, agent_files.EXECUTABLE),
    "apparmor-obstacle": lambda site: site.path("etc/apparmor.d/usr.sbin.azure-proxy-agent").exists(),
    "selinux-obstacle": lambda site: "enforcing=1" in site.line and site.path("etc/selinux/config").exists(),
    "leaked-key": lambda site: KeyFolder(site.path(agent_files.KEYS)).load(agent_faults.LEAKED.guid) is not None,
    "leftover-status": lambda site: _loads_json(_reads(site, f"{agent_files.LOGS}/status.json")),
    "extension-leftover": lambda site: bool(list(site.path("var/lib").glob("waagent/Microsoft.CPlat.ProxyAgent*"))),
    "cgroup-v1": lambda site: "legacy_systemd_cgroup_controller=1" in site.line,
    "cgroup-hybrid": lambda site: "legacy_systemd_cgroup_controller=0" in site.line,
    "no-cloud-init": lambda site: not site.path(_CI).exists(),
    "cloud-init-no-azure": lambda site: "[ Azure ]" not in _reads(site, "etc/cloud/cloud.cfg.d/90-azure.cfg"),
    "cloud-init-disabled": lambda site: site.path("etc/cloud/cloud-init.disabled").exists(),
    "cloud-init-files-differ": lambda site: '"24.4.1"' in _reads(site, f"{_CI}/version.py"),
    "cloud-init-msp-removed": lambda site: _support(site) is not cloud_init.Support.ASKS,
    "cloud-init-msp-backported": lambda site: _support(site) is cloud_init.Support.ASKS,
    "cloud-init-state": lambda site: site.path("var/lib/cloud/instance").is_symlink(),
    "no-hyperv-modules": lambda site: not list(site.path("usr/lib/modules").rglob("hv_netvsc.ko*")),
    "initramfs-without-hyperv": lambda site: "hv_vmbus" not in _in_initramfs(site),
    "hv-netvsc-blacklisted": lambda site: "hv_netvsc" in _reads(site, "etc/modprobe.d/hardening.conf"),
    "udf-blacklisted": lambda site: "udf" in _reads(site, "etc/modprobe.d/hardening.conf"),
    "waagent-provisions": lambda site: "Agent=waagent" in _reads(site, "etc/waagent.conf"),
    "machine-id": lambda site: len(_reads(site, "etc/machine-id")) == 33,
    "host-keys": lambda site: len(list(site.path("etc/ssh").glob("ssh_host_*_key"))) == 2,
    "root-password": lambda site: "root:$6$" in _reads(site, "etc/shadow"),
    "no-console": lambda site: "console=" not in site.line,
    "two-kernels": lambda site: len(menu.kernels(site.root)) == 2 and site.default == 1,
    "no-boot-loader": lambda site: not site.layout.loader,
    "misaligned-partition": lambda site: site.layout.start % 2048 == 1,
    "odd-size": lambda site: site.layout.size % disk.MIB != 0,
}


def _in_initramfs(site: Site) -> frozenset[str]:
    (file,) = site.path("boot").glob("initrd.img-*")
    return initramfs.modules(file)


def test_each_fault_is_looked_at() -> None:
    assert set(BROKEN) == set(BREAKS)


# These write into files that are there.
_BY_DPKG = ("no-agent", "no-cloud-init", "two-kernels", "initramfs-without-hyperv")
_BY_PROGRAMS = ("no-hyperv-modules", "waagent-provisions", "host-keys")  # of the root
_SMALL = (
    "boot", "etc", "usr/lib/systemd", "usr/lib/modules", "usr/lib/python3/dist-packages/cloudinit",
    agent_files.EXECUTABLE, agent_files.OBJECT, agent_files.PROGRAM, agent_files.LOGS, agent_files.KEYS,
)  # fmt: skip
_FETCHES = pytest.mark.slow(reason="fetches another kernel and has an initramfs made, in half a minute")


def _copy(origin: Path, root: Path, name: str) -> None:
    """What a fault needs of a root: all or a part, as hard links where nothing is written into a file that is there."""
    if name in (*_BY_DPKG, *_BY_PROGRAMS):
        subprocess.run(["cp", "-a" if name in _BY_DPKG else "-al", origin, root], check=True)
    else:
        root.mkdir()
        subprocess.run(["cp", "-al", "--parents", *_SMALL, root], check=True, cwd=origin)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=_FETCHES if name == "two-kernels" else ()) for name in BREAKS]
)
def test_a_fault_is_made_and_was_not_there_before(roots: Roots, tmp_path: Path, name: str) -> None:
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
