"""The machine that an image is plugged into: its words for QEMU, its end, and that nothing of it stays."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.image.azure import check, machine, watch
from harness.image.azure.check import How
from harness.image.azure.deployment import ASSET_TAG, Deployment
from harness.image.azure.machine import BIOS, UEFI, Hardware
from harness.vm import qemu

_MIB = 1 << 20

boots = [
    pytest.mark.vm,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which(qemu.BINARY) is None or not Path("/dev/net/tun").exists(),
        reason=f"needs root, {qemu.BINARY} and /dev/net/tun",
    ),
]


def words(place: Path, firmware: str = BIOS) -> str:
    return " ".join(machine.arguments(Hardware(firmware), Deployment(), place / "disk.qcow2", 7, 8, place))


def test_dmi_is_azure_s(tmp_path: Path) -> None:
    assert f"asset={ASSET_TAG}" in words(tmp_path)
    assert "manufacturer=Microsoft Corporation,product=Virtual Machine" in words(tmp_path)


def test_generation_1_has_the_id_s_bytes_reversed(tmp_path: Path) -> None:
    """As cloud-init expects it there: it reverses them again."""
    told = words(tmp_path).partition("uuid=")[2].partition(" ")[0]
    assert str(uuid.UUID(bytes_le=uuid.UUID(told).bytes)) == Deployment().vm_id
    assert told != Deployment().vm_id


def test_generation_2_has_uefi_and_the_id_as_it_is(tmp_path: Path) -> None:
    if not any(path.exists() for path in machine._FIRMWARE):
        pytest.skip("there is no OVMF")
    found = words(tmp_path, UEFI)
    assert f"uuid={Deployment().vm_id}" in found
    assert "if=pflash" in found
    assert (tmp_path / "variables.fd").exists()  # a copy: the run's own


def test_without_uefi_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_FIRMWARE", (tmp_path / "OVMF_CODE.fd",))
    with pytest.raises(HarnessError, match="no OVMF"):
        words(tmp_path, UEFI)


def blank(tmp_path: Path) -> Path:
    path = tmp_path / "blank.raw"
    with path.open("wb") as file:
        file.truncate(4 * _MIB)
    return path


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
@pytest.mark.parametrize(
    ("format", "made"), [("raw", "raw"), ("qcow2", "qcow2"), ("vhd-fixed", "vpc"), ("vhdx", "vhdx")]
)
def test_every_format_is_laid_below_the_overlay(tmp_path: Path, format: str, made: str) -> None:
    image = tmp_path / "image"
    more = ["-o", "subformat=fixed,force_size"] if made == "vpc" else []
    subprocess.run(["qemu-img", "create", "-q", "-f", made, *more, image, str(4 * _MIB)], check=True)
    disk = machine.overlay(image, format, tmp_path)
    shown = subprocess.run(["qemu-img", "info", disk], capture_output=True, text=True, check=True).stdout
    assert "virtual size: 4 MiB" in shown


def test_what_is_no_disk_is_not_booted(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no format of a disk"):
        machine.overlay(tmp_path, "tar", tmp_path)


class TestBlankDisk:
    pytestmark = boots

    def test_nothing_is_seen_and_the_image_is_as_it_was(self, tmp_path: Path) -> None:
        image = blank(tmp_path)
        before = hashlib.sha256(image.read_bytes()).hexdigest()
        found = check.once(image, "raw", How(seconds=3), look_inside=False)
        assert found.seen.stopped == watch.LIMIT
        assert found.seen.leases == []
        assert found.happened.number == 0
        assert hashlib.sha256(image.read_bytes()).hexdigest() == before

    def test_what_qemu_refuses_is_told_in_its_words(self, tmp_path: Path) -> None:
        with pytest.raises(HarnessError, match="start QEMU") as caught:
            check.once(blank(tmp_path), "raw", How(hardware=Hardware(cpus=100_000), seconds=3), look_inside=False)
        assert "100000" in caught.value.happened

    def test_a_kill_leaves_nothing(self, tmp_path: Path) -> None:
        """QEMU and the platform's process end with the one that is killed; its overlay goes with the next run."""
        code = (
            "import sys\nfrom pathlib import Path\nfrom harness.image.azure.check import How, once\n"
            "once(Path(sys.argv[1]), 'raw', How(seconds=600), look_inside=False)\n"
        )
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        process = subprocess.Popen([sys.executable, "-c", code, blank(tmp_path)], env=environment)
        children = _wait_for_qemu(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(children) >= 2
        deadline = time.monotonic() + 30
        while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [pid for pid in children if _alive(pid)]
        left = list(tmp_path.glob("msp-harness-azure-*"))
        assert len(left) == 1
        subprocess.run([sys.executable, "-c", _EMPTY], env=environment, check=True)
        assert not list(tmp_path.glob("msp-harness-azure-*"))


_EMPTY = "from harness.vm import scratch\nwith scratch.directory('azure'): pass\n"


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _wait_for_qemu(pid: int) -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = _children(pid)
        if any("qemu-system" in Path(f"/proc/{child}/comm").read_text() for child in found):
            return found
        time.sleep(0.05)
    raise AssertionError("QEMU was not started")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
