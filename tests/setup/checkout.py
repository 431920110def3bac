"""A small checkout for the tests of set-up: our set-up and Makefile, other packages, and no network.

Its lock files name packages that the test builds itself, pip is told to look for them in a directory and nowhere
else, and its build backend is a few lines in the tree. So a set-up takes two seconds and can be made to fail.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["build"]

[project]
name = "msp-harness"
version = "0"
"""

BACKEND = """
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from wheels import wheel

def build_editable(directory, config_settings=None, metadata_directory=None):
    files = {"msp_harness.pth": str(pathlib.Path.cwd())}
    return wheel(pathlib.Path(directory), "msp_harness", "0", files, {"msp-harness": "harness.cli:main"}).name

def build_wheel(*arguments):
    raise SystemExit("set-up installs in editable mode")
"""

CLI = """
import sys

def main():
    print("msp-harness", *sys.argv[1:])
    return 4 if "--fail" in sys.argv else 0
"""

WHEELS = '''
import base64, hashlib, pathlib, zipfile

def wheel(directory, name, version, files, scripts=None):
    """Write a wheel and give its path."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    if scripts:
        lines = [f"{script} = {target}" for script, target in scripts.items()]
        files[f"{info}/entry_points.txt"] = "\\n".join(["[console_scripts]", *lines, ""])
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}")
    files[f"{info}/RECORD"] = "\\n".join([*rows, f"{info}/RECORD,,", ""])
    target = pathlib.Path(directory) / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return target
'''


@dataclass(frozen=True)
class Checkout:
    """The tree, a directory of commands that come first on PATH, and where pip finds its packages."""

    root: Path
    commands: Path
    wheels: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def lock(self, name: str, **versions: str) -> None:
        """Write a lock file of packages that are there to be installed, with their hashes."""
        lines = []
        for package, version in versions.items():
            text = {f"{package}.py": f"version = {version!r}\n"}
            digest = hashlib.sha256(_wheel(self.wheels, package, version, text).read_bytes()).hexdigest()
            lines.append(f"{package}=={version} ; sys_platform == 'linux' \\\n    --hash=sha256:{digest}\n")
        (self.root / name).write_text("".join(lines))

    def command(self, name: str, script: str) -> None:
        """Put a shell script first on PATH. $LOG is a file for it to write to."""
        path = self.commands / name
        path.write_text(f"#!/bin/sh\nLOG={self.root / 'log'}\n{script}\n")
        path.chmod(0o755)

    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        unwanted = ("VENV", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "PYTHONPATH")
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in unwanted and not name.startswith(("PIP_", "PYTEST"))
        }
        return {
            **kept,
            "PATH": f"{self.commands}:{kept['PATH']}",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
            "PYTHONDONTWRITEBYTECODE": "1",
            **extra,
        }

    def start(self, *words: str, **extra: str) -> subprocess.Popen[str]:
        """Start a command in the checkout, in a session of its own so that all of it can be killed."""
        return subprocess.Popen(
            words or ("sh", "setup/bootstrap.sh", "runtime"),
            cwd=self.root,
            env=self.environment(extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, **extra: str) -> tuple[int, str]:
        """Exit status and what was printed, by default of set-up for a user."""
        with self.start(*words, **extra) as process:
            output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def installed(self, package: str) -> str:
        return self.python(f"import {package}; print({package}.version)")

    def python(self, program: str) -> str:
        """What a program prints in the virtual environment."""
        command = [str(self.venv / "bin/python"), "-I", "-c", program]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def make(root: Path) -> Checkout:
    """Readable for everybody, so that a test can become another user."""
    checkout = Checkout(root / "checkout", root / "commands", root / "wheels")
    for directory in (checkout.root, checkout.commands, checkout.wheels, checkout.root / "build"):
        directory.mkdir()
    for name in ("setup", "harness"):
        shutil.copytree(ROOT / name, checkout.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", checkout.root)
    shutil.copytree(ROOT / ".ci", checkout.root / ".ci")
    (checkout.root / "harness/cli/__init__.py").write_text(CLI)
    (checkout.root / "pyproject.toml").write_text(PYPROJECT)
    (checkout.root / "build/backend.py").write_text(BACKEND)
    (checkout.root / "build/wheels.py").write_text(WHEELS)
    checkout.lock("requirements.txt", mspalpha="1.0")
    checkout.lock("requirements-build.txt", mspbeta="1.0")
    checkout.lock("requirements-dev.txt", mspalpha="1.0", mspbeta="1.0", mspgamma="1.0")
    return checkout


def _wheel(directory: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    namespace: dict[str, object] = {}
    exec(WHEELS, namespace)  # the backend has the same few lines
    make_wheel = namespace["wheel"]
    assert callable(make_wheel)
    path = make_wheel(directory, name, version, files)
    assert isinstance(path, Path)
    return path
