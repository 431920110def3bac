"""The project as a package: its pins and locks agree, and its wheel works away from the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = ("requirements.txt", "requirements-build.txt", "requirements-dev.txt")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, str]:
    """Package to version, of one lock file. Every line has to be understood."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    pins = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([a-z0-9-]+)==(\S+) ; \S.*?((?: +--hash=sha256:[0-9a-f]{64})+) *", line)
        assert match is not None, line
        pins[match[1]] = match[2]
    return pins


def pinned(requirements: list[Any]) -> dict[str, str]:
    pairs = [requirement.split("==") for requirement in requirements if isinstance(requirement, str)]
    assert all(len(pair) == 2 for pair in pairs), requirements
    return dict(pairs)


def test_what_pyproject_pins_is_what_the_lock_files_have() -> None:
    groups = project()["dependency-groups"]
    for name, pins in (
        ("requirements.txt", pinned(project()["project"]["dependencies"])),
        ("requirements-build.txt", pinned(groups["build"])),
        ("requirements-dev.txt", pinned(groups["dev"]) | pinned(groups["build"])),
    ):
        assert pins.items() <= locked(name).items()


def test_the_lock_files_agree_with_each_other() -> None:
    dev = locked("requirements-dev.txt")
    for name in LOCKS:
        assert locked(name).items() <= dev.items()


def test_the_build_backend_is_the_locked_one() -> None:
    assert pinned(project()["build-system"]["requires"]).items() <= locked("requirements-build.txt").items()


@pytest.mark.parametrize("name", [*LOCKS, "pyproject.toml", "Makefile", "setup/bootstrap.sh", ".ci/run"])
def test_no_index_or_mirror_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", text)


def test_pypis_bcc_is_not_among_the_requirements() -> None:
    assert all("bcc" not in locked(name) for name in LOCKS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network and without build isolation."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = directory.iterdir()
    return path


def test_the_wheel_has_the_programs_and_the_data_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for source in [*(ROOT / "bpf").rglob("*.c"), *(ROOT / "bpf").rglob("*.h")]:
        assert f"harness/{source.relative_to(ROOT)}" in names
    files = [path for path in (ROOT / "harness").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(ROOT)) for path in files} <= names
    assert {name.split("/")[0] for name in names} == {
        "harness",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }


def test_the_source_distribution_has_what_it_takes_to_build_and_test(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.iterdir()
    listing = subprocess.run(["tar", "-tzf", path], capture_output=True, text=True, check=True).stdout.split()
    names = {name.partition("/")[2] for name in listing}
    wanted = {"harness/__init__.py", "bpf/connect4.c", "Makefile", "pyproject.toml", "setup/bootstrap.sh", *LOCKS}
    assert wanted <= names


class Elsewhere:
    """An environment away from the checkout, with the wheel in it; the other packages are those of this one."""

    def __init__(self, directory: Path, wheel: Path):
        self.bin = directory / "bin"
        venv.EnvBuilder(system_site_packages=True, with_pip=False, symlinks=True).create(directory)
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-q", "--no-index", "--no-deps", wheel], check=True, capture_output=True)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """In /, where no checkout is. PYTHONPATH brings packages, and not the .pth file of the editable install."""
        environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib"), "PYTHONSAFEPATH": "1"}
        words = [str(self.bin / command[0]), *command[1:]]
        return subprocess.run(words, cwd="/", env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Elsewhere:
    return Elsewhere(tmp_path_factory.mktemp("elsewhere") / "venv", wheel)


def test_the_installed_package_finds_its_programs(elsewhere: Elsewhere) -> None:
    program = "from harness.program import source; print(source.directory()); print(len(source.read('connect4.c')))"
    done = elsewhere.run("python", "-c", program)
    assert done.stderr == ""
    place, length = done.stdout.splitlines()
    assert place.startswith(str(elsewhere.bin.parent))
    assert place.endswith("/site-packages/harness/bpf")
    assert int(length) == len((ROOT / "bpf/connect4.c").read_text())


def test_the_installed_package_compiles_its_program(elsewhere: Elsewhere) -> None:
    program = (
        "from harness.program import compile\n"
        "image = compile.compile_source(compile.redirector())\n"
        "print([program.name for program in image.programs])"
    )
    done = elsewhere.run("python", "-c", program)
    assert done.stderr == ""
    assert "connect4" in done.stdout


@pytest.mark.parametrize("arguments", [("--help",), ("verify", "--list")], ids=" ".join)
def test_the_installed_command_works_from_anywhere(elsewhere: Elsewhere, arguments: tuple[str, ...]) -> None:
    done = elsewhere.run("msp-harness", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    same = elsewhere.run("python", "-m", "harness", *arguments)
    assert (same.returncode, same.stdout.splitlines()[1:]) == (0, done.stdout.splitlines()[1:])
