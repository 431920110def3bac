"""The archive that a boot brings, as cpio(1) reads it; and what a saved guest's name stands for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import harness
from harness.errors import HarnessError
from harness.kernel import packages
from harness.program import source
from harness.vm import initramfs, qemu
from harness.vm.initramfs import Archive


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio(1)")
def test_several_archives_are_one(tmp_path: Path) -> None:
    first, second = Archive(), Archive()
    first.file("init", b"#!/bin/sh\n", mode=0o755)
    first.directory("dev")
    second.file("deep/down/file", b"content")
    found: dict[str, str] = {}
    for archive in (first, second):
        content = archive.finished()
        listed = subprocess.run(["cpio", "-itv", "--quiet"], input=content, capture_output=True, check=True)
        found |= {line.split()[-1]: line.split()[0] for line in listed.stdout.decode().splitlines()}
        assert len(content) % 4 == 0
    assert found["init"] == "-rwxr-xr-x"
    assert found.keys() == {"init", "dev", "deep", "deep/down", "deep/down/file"}


def test_a_change_of_code_is_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that the guest runs; a layer that it never reaches does not count."""
    package = tmp_path / "harness"
    shutil.copytree(Path(harness.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source.directory(), tmp_path / "bpf")

    def digest() -> str:
        monkeypatch.setattr(harness, "__file__", str(package / "__init__.py"))
        initramfs._digest.cache_clear()
        return initramfs.digest()

    before = digest()
    (package / "diagnose" / "new.py").write_text("")
    assert digest() == before
    (package / "lab" / "new.py").write_text("")
    changed = digest()
    assert changed != before
    (tmp_path / "bpf" / "connect4.c").write_text("int x;")
    assert digest() not in (before, changed)
    initramfs._digest.cache_clear()


def test_without_qemu_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    qemu.binary.cache_clear()
    with pytest.raises(HarnessError, match=f"there is no {qemu.BINARY}") as raised:
        qemu.binary()
    assert packages.install_hint([packages.QEMU]) in str(raised.value)
    qemu.binary.cache_clear()
