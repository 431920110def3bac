"""Process 1 of a private world: what it is made of, then steps as its user, each with its log and its time.

`python -m vagrant.inside DIRECTORY MACHINE BOX VERIFY…` in namespaces that vagrant.world made; not for other use.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import processes
from harness.report import EXIT_CHECK_FAILED
from vagrant import world

PLACE = Path("/mnt")
"""Where a world's directory is seen from within: libvirt's sockets lie deep below it, and 107 bytes are their limit."""

REPORT = "report.json"
_START_SECONDS = 30
_TAIL, _CONSOLE_TAIL = 40, 15  # lines


@dataclass(frozen=True)
class Step:
    """A command of the way, for how long it may take (seconds); stdout names where its output goes, else to its log."""

    name: str
    command: tuple[str, ...]
    seconds: int
    stdout: str = ""
    accepted: tuple[int, ...] = (0,)  # exit statuses


def steps(box: str, verify: str, *, reload: bool = False) -> tuple[Step, ...]:
    """The whole way. box is the name that the Vagrantfile has for it; reload starts a kernel that up installed."""
    return (
        Step("box", ("vagrant", "box", "add", "--provider", "libvirt", "--name", box, f"{PLACE}/debian.box"), 300),
        Step("up", ("vagrant", "up", "--no-tty"), 1800),
        *([Step("reload", ("vagrant", "reload", "--no-tty"), 900)] if reload else []),
        Step("verify", ("vagrant", "ssh", "--no-tty", "-c", verify), 900, REPORT, (0, EXIT_CHECK_FAILED)),
        Step("destroy", ("vagrant", "destroy", "-f", "--no-tty"), 300),
    )


def main(arguments: Sequence[str]) -> int:
    """Reap, as process 1 must: libvirt waits until a QEMU that ended is no zombie any more."""
    home, *rest = arguments
    worker = processes.fork_child()
    if worker == 0:
        os._exit(_work(Path(home), *rest))
    while True:
        pid, status = os.wait()
        if pid == worker:
            return os.waitstatus_to_exitcode(status)


def _work(home: Path, machine: str, box: str, verify: str) -> int:
    try:
        world.hand_over(home)
        run(["mount", "--bind", home, PLACE])
        run(["ip", "link", "set", "lo", "up"])
        _start_libvirtd()
        for step in steps(box, verify, reload=":" in machine):
            _take(step, machine)
        left = [path.name for path in Path("/proc").glob("[0-9]*") if "qemu-system" in _name(path)]
        if left:
            raise HarnessError("destroy the machine", f"QEMU is still there: {', '.join(left)}")
    except HarnessError as error:
        print(error.detail, file=sys.stderr)
        print(f"vagrant-test: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _as_user(words: Sequence[str], machine: str = "") -> list[str]:
    """These words as the world's user, with nothing of the caller's environment but where programs are."""
    environment = {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        "HOME": f"{PLACE}/home",
        "TMPDIR": f"{PLACE}/tmp",
        "XDG_RUNTIME_DIR": f"{PLACE}/run",
        "VAGRANT_HOME": f"{PLACE}/vagrant",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "LIBVIRT_DEFAULT_URI": "qemu:///session",
        "MSP_VAGRANT": machine,
    }
    user = ["setpriv", f"--reuid={world.USER}", f"--regid={world.GROUP}", "--clear-groups", "--no-new-privs"]
    variables = [f"{name}={value}" for name, value in environment.items()]
    return ["env", "-i", "-C", f"{PLACE}/project", *variables, *user, *words]


def _start_libvirtd() -> None:
    log = PLACE / "libvirtd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            _as_user(["libvirtd", "--pid-file", f"{PLACE}/run/libvirtd.pid"]),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    deadline = time.monotonic() + _START_SECONDS
    while not (PLACE / "run/libvirt/libvirt-sock").is_socket():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise HarnessError("start libvirt's session daemon", "it has no socket", detail=_tail(log, _TAIL))
        time.sleep(0.1)


def _take(step: Step, machine: str) -> None:
    began = time.monotonic()
    log = PLACE / f"{step.name}.log"
    with log.open("ab") as output, (PLACE / (step.stdout or log.name)).open("ab") as stdout:
        try:
            done = subprocess.run(
                _as_user(step.command, machine),
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=output, timeout=step.seconds,
            )  # fmt: skip
            happened = "" if done.returncode in step.accepted else f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            happened = f"not done after {step.seconds} s"
    if happened:
        console = _tail(PLACE / "home/console.log", _CONSOLE_TAIL)
        detail = f"{_tail(log, _TAIL)}\nthe guest's console, last lines:\n{console}"
        raise HarnessError(f"run `{' '.join(step.command)}`", happened, detail=detail)
    print(f"{step.name:<8} {time.monotonic() - began:6.1f} s", flush=True)


def _tail(file: Path, lines: int) -> str:
    try:
        return "\n".join(file.read_text("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text()
    except OSError:  # it has just ended
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
