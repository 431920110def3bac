"""The box's disk, and what is made of the Report that comes home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.image.sample.disk import MIB
from harness.report import Outcome
from harness.report import json as report_json
from tests.report.samples import RESULTS, sample
from vagrant import __main__ as way
from vagrant import box, disk


@pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("grub-mkimage", "qemu-img", "mke2fs")),
    reason="needs grub-mkimage, qemu-img and mke2fs, which `make vagrant-test` installs",
)
def test_a_disk_has_the_boot_loader_and_the_files(tmp_path: Path) -> None:
    root, image, raw = tmp_path / "root", tmp_path / "disk.img", tmp_path / "disk"
    root.mkdir()
    (root / "hello").write_text("there\n")
    disk.make(root, image, 16 * MIB)
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    data = raw.read_bytes()
    assert b"GRUB" in data[:440]
    assert data[510:512] == b"\x55\xaa"
    assert data[512 : 512 + 4096].strip(b"\0")  # the core image
    (tmp_path / "partition").write_bytes(data[MIB:])
    shown = subprocess.run(["debugfs", "-R", "cat hello", tmp_path / "partition"], check=True, capture_output=True)
    assert shown.stdout == b"there\n"
    (root / "large").write_bytes(os.urandom(16 * MIB))
    with pytest.raises(HarnessError, match="mke2fs"):  # what does not fit
        disk.make(root, image, 16 * MIB)


def test_the_boxs_file_system_is_named_as_its_files_say() -> None:
    assert f"LABEL={disk.LABEL} " in (box.FILES / "etc/fstab").read_text()
    assert f"root=LABEL={disk.LABEL} " in (box.FILES / "boot/grub/grub.cfg").read_text()


PASSED = RESULTS[:2]


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """A Report in which nothing failed, as JSON, after a change."""
    data = json.loads(report_json.dump(sample(*PASSED)))
    change(data)
    return json.dumps(data)


def test_a_good_report_is_accepted() -> None:
    assert way.check(changed(lambda data: None), "6.1.0-25-amd64").count(Outcome.PASS) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "read"),
        (changed(lambda data: data.update(kernel="5.10.0-1-amd64")), "it is of the kernel 5.10.0-1-amd64"),
        (changed(lambda data: data["results"][0].update(outcome="MAYBE")), "outcome"),
        (report_json.dump(sample(RESULTS[4])), "0 passed"),
        (report_json.dump(sample()), "2 results failed"),
    ],
)
def test_any_other_is_refused(text: str, told: str) -> None:
    with pytest.raises(HarnessError, match=told):
        way.check(text, "6.1.0-25-amd64")


def test_what_is_missing_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program, path=None: None if program in {"vagrant", "rsync"} else "/x")
    with pytest.raises(HarnessError, match=r"there is no vagrant, rsync; install .*vagrant.*rsync"):
        way.require()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HarnessError, match="not root"):
        way.require()
