"""The virtual environment: whether it is as the lock files say, and making it so."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.command import run, text
from harness.errors import HarnessError, errno_text
from setup.system import cause, say

# The lock files of each level. The dev lock holds everything.
LEVELS = {
    "runtime": ("requirements.txt", "requirements-build.txt"),
    "dev": ("requirements-dev.txt",),
}
KEYED_BY = ("pyproject.toml", "harness/__init__.py", "setup/environment.py")
CANNOT_RUN = 3  # the exit code for a machine that cannot run the harness
UNFINISHED = ".msp-setup-unfinished"
STAMP = ".msp-setup.json"
PIP_SECONDS = 1800
LITTLE_SPACE = 64  # MB; the environment of a user takes 40, that of the tests 200
# Settings of pip that would put packages somewhere else than into the virtual environment, or build them.
PIP_UNWANTED = (
    "PIP_USER",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_NO_BINARY",
    "PIP_CONSTRAINT",
    "PIP_REQUIREMENT",
)

# Run by the environment's own python: names each thing that is not as it should be.
CHECK = """
import importlib.metadata, importlib.util, sys
package, *pins = sys.argv[1:]
for pin in pins:
    name, _, version = pin.partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = "not installed"
    if found != version:
        print(f"{name} {version} ({found})")
harness = importlib.util.find_spec("harness")
if harness is None or harness.origin != package:
    print(f"harness from {package} ({harness and harness.origin})")
if importlib.util.find_spec("bcc") is None:
    print("the distribution's module bcc")
"""


@dataclass(frozen=True)
class Venv:
    """A virtual environment of the interpreter that runs this, for one checkout at one level."""

    root: Path
    path: Path
    level: str

    @property
    def python(self) -> Path:
        return self.path / "bin/python"

    def is_current(self) -> bool:
        """A stamp says so, and a look at the environment agrees: a tenth of a second, no network."""
        if (self.path / UNFINISHED).exists() or self._stamped().get(self.level) != self._key():
            return False
        return self._script_is_ours() and self._wrong() == []

    def make(self) -> None:
        """Raises HarnessError. Killed half-way, it leaves a mark by which the next run starts from nothing."""
        if self.is_current():
            return
        try:
            if not self._is_usable():
                self._create()
            self._install()
            (self.path / UNFINISHED).unlink(missing_ok=True)
            self._stamp()
        except OSError as error:
            raise HarnessError(
                f"make the virtual environment {self.path}",
                f"{errno_text(error.errno or 0)}: {error.filename}",
                "make room there, or run this as the user to whom it belongs",
            ) from error

    def _is_usable(self) -> bool:
        """Whether packages can be added to what is there."""
        if (self.path / UNFINISHED).exists() or not self.python.exists():
            return False
        script = self.path / "bin/msp-harness"
        if script.exists() and not self._script_is_ours():
            return False
        try:
            config = (self.path / "pyvenv.cfg").read_text("utf-8", "replace")
        except OSError:
            return False
        if "include-system-site-packages = true" not in config:
            return False
        probe = "import pip, sys; print(sys.version_info[:2], sys.base_prefix)"
        try:
            answer = text(run([self.python, "-I", "-c", probe], check=False).stdout).strip()
        except HarnessError:
            return False
        return answer == f"{sys.version_info[:2]} {sys.base_prefix}"

    def _create(self) -> None:
        self._empty()
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / UNFINISHED).touch()
        say(f"making the virtual environment {self.path}")
        done = self._run([sys.executable, "-m", "venv", "--system-site-packages", str(self.path)])
        if done is not None:
            raise HarnessError(
                f"make the virtual environment {self.path}",
                *self._cause(done, "python3 -m venv failed, as shown above", "install the package python3-venv"),
                detail=done,
            )

    def _empty(self) -> None:
        """Remove what is there, if it is a virtual environment or the beginning of one; nobody's files otherwise."""
        if not self.path.is_dir():
            return
        inside = list(self.path.iterdir())
        if inside and not any((self.path / name).exists() for name in (UNFINISHED, "pyvenv.cfg")):
            raise HarnessError(
                f"make the virtual environment {self.path}",
                "something else is there",
                "move it away, or choose another place with VENV=…",
            )
        (self.path / UNFINISHED).touch()
        for entry in inside:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != UNFINISHED:
                entry.unlink()

    def _install(self) -> None:
        """The mark stands while pip works: a pip that was killed may leave a package in pieces."""
        (self.path / UNFINISHED).touch()
        (self.path / STAMP).unlink(missing_ok=True)
        say(f"installing {' and '.join(LEVELS[self.level])} into {self.path}")
        locks = [word for name in LEVELS[self.level] for word in ("-r", name)]
        self._pip(["--require-hashes", "--only-binary=:all:", "--no-deps", *locks], "the locked packages")
        self._pip(["--no-index", "--no-deps", "--no-build-isolation", "-e", "."], "the harness itself")
        wrong = self._wrong()
        if wrong:
            raise HarnessError(
                f"make the virtual environment {self.path}",
                f"pip says that all is installed, and yet these are not right: {', '.join(wrong)}",
                f"remove {self.path}, then run this again",
            )

    def _pip(self, arguments: list[str], what: str) -> None:
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        output = self._run([*pip, "install", "--no-warn-script-location", *arguments])
        if output is not None:
            raise HarnessError(f"install {what} with pip", *self._cause(output, *_pip_cause(output)), detail=output)

    def _cause(self, output: str, happened: str, remedy: str) -> tuple[str, str]:
        """What a failure comes to. venv keeps to itself that the disk is full, so that is looked at."""
        known = cause(output, "", "")
        free = shutil.disk_usage(self.path).free // 2**20
        if not known[0] and free < LITTLE_SPACE:
            return (
                f"the disk is full, or nearly: {free} MB are free on the file system of {self.path}",
                "make room there",
            )
        return known if known[0] else (happened, remedy)

    def _run(self, command: list[str]) -> str | None:
        """None when it went well, else what was printed."""
        environment = {name: value for name, value in os.environ.items() if name not in PIP_UNWANTED}
        # pip looks at relative names from the root of the checkout, which is where set-up runs.
        done = run(command, timeout=PIP_SECONDS, environment={**environment, "LC_ALL": "C.UTF-8"}, check=False)
        return None if done.returncode == 0 else text(done.stdout + done.stderr)

    def _pins(self) -> list[str]:
        lines = [line for name in LEVELS[self.level] for line in (self.root / name).read_text("utf-8").splitlines()]
        return [line.split(";")[0].split(" \\")[0].strip() for line in lines if "==" in line and line[0].isalnum()]

    def _wrong(self) -> list[str]:
        """What the environment lacks, or has in another version than the lock says."""
        package = self.root / "harness/__init__.py"
        try:
            done = run([self.python, "-I", "-c", CHECK, package, *self._pins()], check=False)
        except HarnessError as error:
            return [str(error)]
        if done.returncode != 0:
            return [text(done.stderr).strip()]
        return text(done.stdout).splitlines()

    def _script_is_ours(self) -> bool:
        """Scripts name their interpreter by its path: those of a checkout that was moved point elsewhere."""
        try:
            with (self.path / "bin/msp-harness").open("rb") as script:
                return str(self.path).encode() in script.read(4096)
        except OSError:
            return False

    def _key(self) -> str:
        digest = hashlib.sha256(repr((str(self.root), sys.executable, sys.version_info[:2])).encode())
        for name in (*LEVELS[self.level], *KEYED_BY):
            digest.update(hashlib.sha256((self.root / name).read_bytes()).digest())
        return digest.hexdigest()

    def _stamped(self) -> dict[str, str]:
        try:
            stamp = json.loads((self.path / STAMP).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _stamp(self) -> None:
        """What satisfies the tests satisfies a user: the dev lock has every package of the others."""
        keys = {level: Venv(self.root, self.path, level)._key() for level in {self.level, "runtime"}}
        temporary = self.path / f"{STAMP}.new"
        temporary.write_text(json.dumps(keys), "utf-8")
        temporary.replace(self.path / STAMP)


def _pip_cause(output: str) -> tuple[str, str]:
    if "DO NOT MATCH THE HASHES" in output:
        return "a package is not the one that was locked", "do not install it; find out where it came from"
    unreachable = (
        "Failed to establish a new connection",
        "NewConnectionError",
        "NameResolutionError",
        "Read timed out",
    )
    if any(words in output for words in unreachable):
        return "the package index cannot be reached", "check network and proxy, then run this again"
    if "No matching distribution found" in output:
        return "the package index has no such package for this Python", "check pip's settings, then run this again"
    return "pip failed, as shown above", "repair that, then run this again"
