"""--here reads this machine and changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.diagnose import facts as f
from harness.diagnose import here
from harness.diagnose.verdict import diagnose


def test_this_machine_says_which_kernel_mounts_and_file_systems_it_has() -> None:
    found = here.evidence()
    release = found.first(f.KernelRelease)
    assert release
    assert release.release == os.uname().release
    kinds = found.first(f.Filesystems)
    assert kinds
    assert kinds.whole
    assert found.first(f.Mounts)
    assert diagnose(found).tried


def test_the_command_reads_only(tmp_path: Path) -> None:
    """With a home of its own: nothing is written there, and cgroups and mounts are as before."""

    def state() -> tuple[str, list[str]]:
        mounts = Path("/proc/self/mountinfo").read_text()
        root = Path("/sys/fs/cgroup")
        return mounts, sorted(path.name for path in root.iterdir()) if root.is_dir() else []

    before = state()
    command = [sys.executable, "-m", "harness", "diagnose", "--here", "--json", "-"]
    environment = {**os.environ, "HOME": str(tmp_path), "MSP_HARNESS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode in (0, 1), done.stderr
    assert '"schema": "msp-harness diagnosis 1"' in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert state() == before
