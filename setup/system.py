"""The distribution's packages: which are missing, and their installation with apt-get."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import packages
from harness.kernel.packages import Distribution
from harness.program import headers

APT_SECONDS = 1800
LOCK_SECONDS = 300  # on a fresh machine unattended-upgrades is often at work
# needrestart, apt-listchanges and debconf ask questions on a terminal; nobody is there to answer.
APT_ENVIRONMENT = {
    "APT_LISTCHANGES_FRONTEND": "none",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "NEEDRESTART_SUSPEND": "1",
    "UCF_FORCE_CONFFOLD": "1",
}
APT_OPTIONS = (
    "-y",
    "-q",
    "--no-install-recommends",
    "--no-remove",  # never at the price of what is installed
    "-o",
    f"DPkg::Lock::Timeout={LOCK_SECONDS}",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
)

# What apt-get, dpkg and pip print, and what it comes to. Looked up in this order.
CAUSES = (
    ("No space left on device", "the disk is full", "make room, then run this again"),
    ("Could not get lock", "another package manager holds apt's lock", "wait until it is done, then run this again"),
    ("Unable to acquire the dpkg frontend lock", "another package manager holds apt's lock", "wait until it is done"),
    ("Temporary failure resolving", "no network: a mirror's name cannot be resolved", "check network and proxy"),
    ("Could not connect", "no network: the mirror cannot be reached", "check network and proxy"),
    ("Unable to locate package", "the configured sources do not have the package", "check the sources of apt"),
    ("Read-only file system", "the file system is read-only", "run this on a machine that can be written to"),
)


@dataclass(frozen=True)
class Missing:
    """Needs of `harness.kernel.packages` that this machine does not meet: those that matter, and the mere tools.

    tools has those of the level too, where it is more than the runtime's.
    """

    runtime: tuple[str, ...]
    tools: tuple[str, ...]
    row: Distribution | None

    @property
    def any(self) -> bool:
        """Whether set-up has something to do. Tools that only a person can install do not count."""
        return bool(self.runtime or (self.tools and self.installs))

    @property
    def installs(self) -> bool:
        return self.row is not None and self.row.automatic and os.geteuid() == 0


_OF_TESTS = (
    *packages.TEST_NEEDS,
    *packages.BROWSER_NEEDS,
    *packages.VM_NEEDS,
    *packages.KERNEL_NEEDS,
    *packages.BUILD_NEEDS,
    *packages.SAMPLE_NEEDS,
)
BESIDES = {"runtime": (), "dev": _OF_TESTS, "vagrant": (*_OF_TESTS, *packages.VAGRANT_NEEDS)}
"""What each level of set-up installs besides the needs of all: for the tests a compiler for objects, a browser, what
boots other kernels, what builds lab kernels and what makes images; for those with Vagrant that, too."""


def missing(level: str = "runtime") -> Missing:
    """What a level (of BESIDES) misses."""
    row = packages.distribution()
    lacks = _not_installed(row) if row is not None and row.automatic else _not_found()
    return Missing(
        tuple(need for need in packages.RUNTIME_NEEDS if need in lacks),
        tuple(need for need in (*packages.TOOL_NEEDS, *BESIDES[level]) if need in lacks),
        row,
    )


def install(level: str = "runtime") -> None:
    """Install what is missing. Raises HarnessError when that is not possible; missing tools alone are only told."""
    lacks = missing(level)
    if not lacks.any:
        return
    hint = packages.install_hint(lacks.runtime + lacks.tools)
    attempted = f"find {', '.join(packages.WHAT[need] for need in lacks.runtime)}"
    if lacks.row is None or not lacks.row.automatic:
        raise HarnessError(attempted, "not installed, and set-up installs packages on Debian and Ubuntu only", hint)
    if os.geteuid() != 0:
        raise HarnessError(attempted, "not installed, and this is not root", f"as root, {hint}, or run make as root")
    _apt_install(lacks.runtime + lacks.tools, lacks.row)


def _not_installed(row: Distribution) -> set[str]:
    """Asked of dpkg in one call, since a package that is half-configured after a crash is there and yet is not.

    Any headers tree will do, wherever it comes from: only where there is none is a package missing.
    """
    needs = [need for need in (*packages.ALL_NEEDS, *BESIDES["vagrant"]) if need != packages.HEADERS]
    names = {need: packages.package_names((need,), row)[0] for need in needs}
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *names.values()]
    answer = text(run(query, check=False).stdout).splitlines()
    lacks = {need for need, name in names.items() if f"{name} installed" not in answer}
    return lacks if headers.sources() else lacks | {packages.HEADERS}


def _not_found() -> set[str]:
    """Where packages are not ours to install, what counts is whether the thing is there."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    there = {
        packages.PYTHON: True,  # it runs this
        packages.VENV: importlib.util.find_spec("ensurepip") is not None,
        packages.BCC: importlib.util.find_spec("bcc") is not None,
        packages.HEADERS: bool(headers.sources()),
        **{need: shutil.which(need, path=path) is not None for need in packages.TOOL_NEEDS},
    }
    return {need for need, found in there.items() if not found}


def _apt_install(needs: Sequence[str], row: Distribution) -> None:
    apt = shutil.which("apt-get")
    if apt is None:
        raise HarnessError(f"install {' '.join(needs)}", "there is no apt-get", packages.install_hint(needs))
    environment = {**os.environ, **APT_ENVIRONMENT}
    say(f"installing {' '.join(packages.package_names(needs, row))} with apt-get")
    # A source of somebody else's that does not answer is no reason to stop: the install decides.
    update = _update(apt, environment)
    names = _with_headers_of_kernel(needs, row, environment)
    command = [apt, *APT_OPTIONS, "install", *names]
    done = run(command, timeout=APT_SECONDS, environment=environment, check=False)
    if done.returncode != 0 and _repair(apt, text(done.stdout + done.stderr), environment):
        done = run(command, timeout=APT_SECONDS, environment=environment, check=False)
    if done.returncode != 0:
        output = text(done.stdout + done.stderr)
        if update.returncode != 0:
            output = text(update.stdout + update.stderr) + output
        raise HarnessError(
            f"install {' '.join(names)} with apt-get",
            *cause(output, f"exit status {done.returncode}, as shown above", "repair that, then run this again"),
            detail=output,
        )
    still = missing()
    if still.runtime:
        raise HarnessError(
            f"install {' '.join(names)} with apt-get",
            f"it says that it did, and yet {', '.join(packages.WHAT[need] for need in still.runtime)} is missing",
            packages.install_hint(still.runtime),
        )


def _update(apt: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Fetch the package lists. apt-get waits for dpkg's lock when told to, and never for that of the lists."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        done = run([apt, "-q", "update"], timeout=APT_SECONDS, environment=environment, check=False)
        if done.returncode == 0 or b"Could not get lock" not in done.stderr or time.monotonic() > deadline:
            return done
        say("waiting for another package manager to release apt's lock")
        time.sleep(5)


def _with_headers_of_kernel(needs: Sequence[str], row: Distribution, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The running kernel's own headers where the mirror has them, else those of the distribution's newest kernel."""
    if packages.HEADERS in needs:
        own = packages.package_names((packages.HEADERS,), row, release=platform.release())[0]
        if run(["apt-cache", "show", own], environment=environment, check=False).returncode == 0:
            return packages.package_names(needs, row, release=platform.release())
    return packages.package_names(needs, row)


def _repair(apt: str, output: str, environment: Mapping[str, str]) -> bool:
    """Finish what a killed dpkg left half done; false where the output speaks of nothing of the kind."""
    if "dpkg was interrupted" not in output and "--fix-broken" not in output and "unconfigured" not in output:
        return False
    say("a package installation was interrupted; finishing it")
    options = ["--force-confdef", "--force-confold"]
    run(["dpkg", *options, "--configure", "-a"], timeout=APT_SECONDS, environment=environment, check=False)
    run([apt, *APT_OPTIONS, "--fix-broken", "install"], timeout=APT_SECONDS, environment=environment, check=False)
    return True


def cause(output: str, happened: str, remedy: str) -> tuple[str, str]:
    """What happened and what to do, from what a package manager printed; the last two where it says nothing known."""
    for words, why, what_to_do in CAUSES:
        if words in output:
            return why, what_to_do
    return happened, remedy


def say(line: str) -> None:
    print(f"set-up: {line}", file=sys.stderr, flush=True)
