"""The whole way, for real: box, up, verify, the Report, destroy, under QEMU; the same as `make vagrant-test`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm import cache
from vagrant.__main__ import require

ROOT = Path(__file__).resolve().parent.parent.parent


def _cannot_run() -> str:
    try:
        require()
    except HarnessError as error:
        return str(error)
    return ""


def traces() -> set[str]:
    """The pids of what a world consists of, and the directories of worlds."""
    names = ("qemu-system", "libvirtd", "virtlogd", "ruby", "vagrant")
    found = {path.name for path in (cache.directory() / "worlds").glob("*") if path.is_dir()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text()
        except OSError:
            continue
        if name.startswith(names):
            found.add(process.name)
    return found


@pytest.mark.vm
@pytest.mark.slow("a machine by Vagrant without KVM takes 3 to 10 min for each kernel; alone: make vagrant-test")
@pytest.mark.skipif(bool(_cannot_run()), reason=_cannot_run())
@pytest.mark.parametrize("kernel", [None, "bullseye"])
def test_the_whole_way(kernel: str | None, tmp_path: Path) -> None:
    file, before = tmp_path / "report.json", traces()
    words = [sys.executable, "-m", "vagrant", "--json", str(file), *(["--kernel", kernel] if kernel else [])]
    done = subprocess.run(words, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text("utf-8"))
    assert report["kernel"].startswith("5.10." if kernel else "")
    assert report["kernel"] != os.uname().release
    assert f"kernel {report['kernel']}: {len(report['results'])} results, none failed" in done.stdout
    assert traces() <= before
