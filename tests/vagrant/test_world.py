"""Private worlds: what runs in them, and that nothing of them is left, whatever ends the run.

Programs of our own stand in for Vagrant and libvirt, so that this needs neither: what is tried is who starts and ends
whom. The machine itself is tried in test_end_to_end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import HarnessError
from vagrant import inside, world

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make namespaces")

# A run as `python -m vagrant` has it, without a box.
RUN = """
import sys
from harness import interruption
from vagrant import world
interruption.install()
try:
    with world.begin() as home:
        print(home.home, flush=True)
        status = home.run(["debian12", "some/box", "sudo msp-harness verify"])
    sys.exit(status)
except interruption.Interrupted as ended:
    sys.exit(ended.exit_code)
"""
# A session daemon has its socket, and starts what leaves its session and parent, as QEMU does.
LIBVIRTD = """\
#!/usr/bin/python3
import os, socket, subprocess, time
os.makedirs("/mnt/run/libvirt")
socket.socket(socket.AF_UNIX).bind("/mnt/run/libvirt/libvirt-sock")
subprocess.run(["setsid", "--fork", "sleep", "MARK"])
time.sleep(600)
"""
VAGRANT = """\
#!/bin/sh
echo "vagrant $*: $(id -un) in $PWD, MSP_VAGRANT=$MSP_VAGRANT"
case $1 in up) MEANWHILE ;; ssh) echo '{}' ;; esac
"""


@dataclass(frozen=True)
class Scene:
    """A cache and programs that a user without rights can reach, and a number by which their processes are known."""

    place: Path
    mark: str

    def program(self, name: str, text: str) -> None:
        path = self.place / "bin" / name
        path.write_text(text.replace("MARK", self.mark))
        path.chmod(0o755)

    def start(self, meanwhile: str) -> subprocess.Popen[str]:
        self.program("libvirtd", LIBVIRTD)
        self.program("vagrant", VAGRANT.replace("MEANWHILE", meanwhile))
        environment = {
            **os.environ,
            "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
            "MSP_HARNESS_CACHE": str(self.place / "cache"),
        }
        return subprocess.Popen(
            [sys.executable, "-c", RUN],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """The command lines of what the world started."""
        found = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = process.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if self.mark in line or str(self.place) in line:
                found.append(line)
        return found

    def worlds(self) -> list[Path]:
        return sorted(path for path in (self.place / "cache/vm/worlds").iterdir() if path.is_dir())

    def gone(self) -> bool:
        """Whether every process ends; the kernel needs a moment to end what a killed run leaves."""
        deadline = time.monotonic() + 20
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.processes()


@pytest.fixture
def scene() -> Iterator[Scene]:
    place = Path(tempfile.mkdtemp(prefix="vagrant-"))
    place.chmod(0o755)
    (place / "bin").mkdir()
    yield Scene(place, f"7{os.getpid():07d}")
    shutil.rmtree(place)


def test_steps_run_as_a_user_without_rights_and_nothing_is_left(scene: Scene) -> None:
    with scene.start("echo wrong >&2; exit 3") as run:
        output, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "cannot run `vagrant up --no-tty`: exit status 3" in errors
    assert "nobody in /mnt/project, MSP_VAGRANT=debian12" in errors
    assert output.splitlines()[1].startswith("box ")
    assert scene.gone()
    assert scene.worlds() == []


def test_what_a_step_prints_comes_home_and_the_network_is_empty(scene: Scene) -> None:
    with scene.start("test $(grep -c : /proc/net/dev) = 1") as run:
        output, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert [line.split()[0] for line in output.splitlines()[1:]] == ["box", "up", "verify", "destroy"]
    assert scene.gone()
    assert scene.worlds() == []


def test_a_kernel_that_was_picked_is_started_before_it_is_verified() -> None:
    assert [step.name for step in inside.steps("some/box", "verify")] == ["box", "up", "verify", "destroy"]
    picked = [step.name for step in inside.steps("some/box", "verify", reload=True)]
    assert picked == ["box", "up", "reload", "verify", "destroy"]


def wait_until_up(scene: Scene, run: subprocess.Popen[str]) -> None:
    assert run.stdout is not None
    assert run.stdout.readline().strip() == str(scene.worlds()[0])
    assert run.stdout.readline().startswith("box ")
    while f"sleep {scene.mark}1" not in " ".join(scene.processes()):
        assert run.poll() is None
        time.sleep(0.05)
    assert len([line for line in scene.processes() if "sleep" in line]) == 2  # QEMU's stand-in, and vagrant up


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_takes_all_with_it(scene: Scene, number: signal.Signals) -> None:
    with scene.start("exec sleep MARK1") as run:
        wait_until_up(scene, run)
        run.send_signal(number)
        assert run.wait(timeout=30) == 128 + number
    assert scene.processes() == []
    assert scene.worlds() == []


def test_a_killed_run_leaves_a_directory_which_the_next_removes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with scene.start("exec sleep MARK1") as run:
        wait_until_up(scene, run)
        run.kill()
    assert scene.gone()
    (left,) = scene.worlds()
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(scene.place / "cache"))
    assert world.sweep() == [left.name]
    assert scene.worlds() == []


def test_a_living_world_is_left_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(scene.place / "cache"))
    with scene.start("exec sleep MARK1") as run:
        wait_until_up(scene, run)
        assert world.sweep() == []
        assert len(scene.worlds()) == 1
        run.terminate()
    assert scene.worlds() == []


def test_a_full_disk_is_told_in_a_line_and_leaves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    place = scene.place / "cache"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "full", place], check=True)
    try:
        monkeypatch.setenv("MSP_HARNESS_CACHE", str(place))
        with pytest.raises(HarnessError, match=r"No space left on device.*make room there") as told, world.begin():
            pass
        assert len(str(told.value)) < 1000
        assert scene.worlds() == []
    finally:
        subprocess.run(["umount", place], check=True)
