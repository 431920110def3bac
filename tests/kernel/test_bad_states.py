"""Machines on which verify cannot work, and runs that are cut short: a clear message, exit code 3, nothing left."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.kernel import cgroups, facts
from harness.lab import lab as lab_module
from harness.lab import state
from harness.lab.state import Run

PROJECT = Path(__file__).parents[2]
VERIFY = [sys.executable, "-m", "harness", "verify", "--quick"]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "200", **changes}


def command(words: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd="/",
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def in_mount_namespace(script: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script, then verify, in a mount namespace whose changes nobody else sees."""
    line = f"{script}\nexec {shlex.join(VERIFY)}"
    return command(["unshare", "--mount", "--propagation", "private", "sh", "-euc", line], **changes)


def runs() -> list[str]:
    """The runs that have state here: every one while it lives, none when everything was undone."""
    return [path.name for path in state.directory().iterdir() if path.is_dir()] if state.directory().is_dir() else []


def cgroups_of(identities: list[str]) -> list[str]:
    """Those of these runs that still have a cgroup."""
    root = cgroups.layout().cgroup2[0].point
    return [identity for identity in identities if (root / f"{state.PREFIX}{identity}").exists()]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """State of this test's own: what it finds left behind is its own, whatever else runs on this machine."""
    monkeypatch.setenv("MSP_HARNESS_STATE", str(tmp_path / "state"))
    yield
    state.clean()
    assert runs() == []


def expect_refusal(done: subprocess.CompletedProcess[str], *words: str) -> None:
    output = done.stdout + done.stderr
    assert done.returncode == 3, output
    assert "Traceback" not in output
    for word in words:
        assert word in output
    assert runs() == []


def test_not_root() -> None:
    expect_refusal(
        command(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *VERIFY]), "not as root", "sudo"
    )


@pytest.mark.parametrize("capability", ["net_admin", "sys_admin", "net_raw", "setuid"])
def test_root_without_a_capability(capability: str) -> None:
    done = command(["setpriv", f"--bounding-set=-{capability}", *VERIFY])
    expect_refusal(done, f"CAP_{capability.upper()}", "--privileged")


def test_root_with_neither_cap_bpf_nor_cap_sys_admin() -> None:
    if facts.last_capability() < 39:
        pytest.skip("this kernel has no CAP_BPF")
    expect_refusal(command(["setpriv", "--bounding-set=-bpf,-sys_admin", *VERIFY]), "CAP_BPF", "CAP_SYS_ADMIN")


def test_root_of_a_user_namespace() -> None:
    expect_refusal(command(["unshare", "--user", "--map-root-user", *VERIFY]), "user namespace")


def test_pid_namespace_of_its_own() -> None:
    done = command(["unshare", "--pid", "--fork", "--mount-proc", *VERIFY])
    expect_refusal(done, "--pid=host")


def _bcc() -> Path:
    import importlib.util

    found = importlib.util.find_spec("bcc")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def test_no_bcc(tmp_path: Path) -> None:
    done = in_mount_namespace(f"mount --bind {tmp_path} {_bcc()}")
    expect_refusal(done, "bcc", "python3-b")


def test_another_project_called_bcc(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    expect_refusal(in_mount_namespace(f"mount --bind {tmp_path} {_bcc()}"), "another project", "pip uninstall bcc")


def test_interpreter_that_does_not_see_the_distribution(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    paths = [str(PROJECT), *(path for path in sys.path if "site-packages" in path)]
    words = [str(tmp_path / "venv" / "bin" / "python"), *VERIFY[1:]]
    expect_refusal(command(words, PYTHONPATH=os.pathsep.join(paths)), "--system-site-packages")


def test_no_headers(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    script = (
        f"mount --bind {tmp_path}/empty /usr/src; [ ! -d /lib/modules ] || mount --bind {tmp_path}/empty /lib/modules"
    )
    done = in_mount_namespace(script, MSP_HARNESS_CACHE=str(tmp_path / "cache"))
    if Path("/sys/kernel/kheaders.tar.xz").exists():
        pytest.skip("this kernel brings its headers itself (kheaders)")
    expect_refusal(done, "headers", "linux-headers")


def test_no_cgroup2_mounted() -> None:
    script = "".join(f"umount --lazy {mount.point};" for mount in reversed(cgroups.layout().cgroup2))
    expect_refusal(in_mount_namespace(script), "nothing mounts it", "systemd.unified_cgroup_hierarchy=1")


def test_cgroup2_that_cannot_be_written() -> None:
    script = "".join(f"mount -o remount,bind,ro {mount.point};" for mount in cgroups.layout().cgroup2)
    expect_refusal(in_mount_namespace(script), "cannot be written")


def test_cgroup2_mounted_elsewhere(tmp_path: Path) -> None:
    """Not where the agent looks, but verify finds it and works, and says where it is."""
    (tmp_path / "here").mkdir()
    away = "".join(f"umount --lazy {mount.point};" for mount in reversed(cgroups.layout().cgroup2))
    done = in_mount_namespace(f"{away} mount -t cgroup2 none {tmp_path}/here")
    assert done.returncode == 0, done.stdout
    assert f"{tmp_path}/here" in done.stdout


def test_port_in_use(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody in the VM's namespace listens on 3080 already."""
    original = lab_module._vm

    def vm_with_a_listener(cgroup: Path) -> object:
        import socket

        handlers = dict(original(cgroup))
        build = handlers["build"]

        def build_and_listen() -> None:
            build()
            handlers["kept"] = socket.create_server(("127.0.0.1", 3080))  # type: ignore[assignment]

        return handlers | {"build": build_and_listen}

    monkeypatch.setattr(lab_module, "_vm", vm_with_a_listener)
    with pytest.raises(HarnessError, match="EADDRINUSE") as caught, lab_module.open_lab(run):
        pass
    assert "127.0.0.1:3080" in str(caught.value)


def test_full_disk_for_the_report() -> None:
    done = command([*VERIFY, "--only", "load", "--json", "/dev/full"])
    assert done.returncode == 3
    assert "ENOSPC" in done.stderr
    assert "load.connect4" in done.stdout  # the person still sees what was found


def test_directory_for_the_report_is_missing(tmp_path: Path) -> None:
    done = command([*VERIFY, "--only", "load", "--junit", str(tmp_path / "no" / "where.xml")])
    assert done.returncode == 3
    assert "ENOENT" in done.stderr


def test_closed_pipe(tmp_path: Path) -> None:
    """Whoever reads stdout goes away at once: the file is written all the same, and nobody sees a traceback."""
    report = tmp_path / "report.json"
    line = f"{shlex.join([*VERIFY, '--json', str(report)])} 2>{tmp_path}/stderr | true; exit ${{PIPESTATUS[0]}}"
    done = command(["bash", "-c", line])
    assert done.returncode == 0
    assert (tmp_path / "stderr").read_text() == ""
    assert json.loads(report.read_text())["counts"]["PASS"] > 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_by_signal(number: signal.Signals) -> None:
    """At several moments of a run: the exit code says so, and everything is undone."""
    for delay in (0, 0.05, 0.2, 0.4):
        process = subprocess.Popen(
            VERIFY, cwd="/", env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        _wait_for_a_run()
        time.sleep(delay)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
        if "redirection holds" not in output:  # else the signal met an interpreter that had nothing left to do
            assert process.returncode == 128 + number, errors
            assert f"ended by {number.name}; nothing was left behind" in errors
        assert "Traceback" not in errors
        assert runs() == []


def _wait_for_a_run() -> None:
    deadline = time.monotonic() + 20
    while not runs():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_at_any_moment_and_cleaned_by_the_next() -> None:
    """SIGKILL leaves a cgroup and a directory at most; the next run removes them, and no process survives."""
    chance = random.Random(3)
    seen: set[str] = set()
    for number in range(8):
        process = subprocess.Popen(
            VERIFY, cwd="/", env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
        )
        if number % 2:  # on a busy machine the others may all come before there is anything to leave
            _wait_for_a_run()
        time.sleep(chance.uniform(0.1, 1.2))
        seen.update(runs())
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while _processes_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _processes_of(process.pid) == []
    assert seen  # else nothing was ever killed in mid-run
    done = command(VERIFY)
    assert done.returncode == 0, done.stdout
    assert runs() == []
    assert cgroups_of(sorted(seen)) == []


def _processes_of(session: int) -> list[int]:
    """Processes of a session that still run; zombies are waiting for their parent only."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_next_run_leaves_a_living_one_alone(run: Run) -> None:
    done = command([*VERIFY, "--only", "load"])
    assert done.returncode == 0
    assert run.cgroup.is_dir()
    assert (run.directory / "lock").exists()


def test_clean_says_what_it_removed() -> None:
    process = subprocess.Popen(VERIFY, cwd="/", env=environment(), stdout=subprocess.DEVNULL)
    _wait_for_a_run()
    identities = runs()
    process.kill()
    process.wait()
    done = command([sys.executable, "-m", "harness", "clean"])
    assert done.returncode == 0
    assert f"removed what run {identities[0]} left behind" in done.stdout
    assert runs() == []
    assert cgroups_of(identities) == []


@pytest.mark.parametrize("count", [2, 8])
def test_several_runs_at_once(count: int) -> None:
    processes = [
        subprocess.Popen(
            VERIFY, cwd="/", env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(count)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(outputs)


def test_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock goes back a year in mid-run: seconds stay sensible, the report is whole."""
    from harness.checks import recording, verify
    from harness.checks.options import Options

    times = iter(["2030-01-01T00:00:00Z", "2029-01-01T00:00:00Z"])
    monkeypatch.setattr(recording, "now", lambda: next(times))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with verify.start(Options(only=("redirect",))) as started:
        report = verify.verify(started, lambda result: None)
    assert 0 < report.seconds < 60
    assert [result.outcome for result in report.results] == ["PASS"] * 3
    assert report.ended < report.started
