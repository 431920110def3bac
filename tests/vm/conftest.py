"""Kernels and the guest for tests that boot; without what they need they are skipped, and say why."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from harness.errors import HarnessError
from harness.kernel import packages
from harness.vm import guest, qemu, spec
from harness.vm.guest import Guest
from harness.vm.kernels import Kernel
from tests.vm import lab_builds

T = TypeVar("T")

PROGRAMS = {
    qemu.BINARY: packages.QEMU,
    "mmdebstrap": packages.MMDEBSTRAP,
    "mke2fs": packages.E2FSPROGS,
    "depmod": packages.KMOD,
}


def _cannot_boot() -> str:
    if os.geteuid() != 0:
        return "needs root, to make the guest's file system"
    missing = [need for program, need in PROGRAMS.items() if shutil.which(program) is None]
    return packages.install_hint(missing) if missing else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What boots has the marker vm, and is skipped with the reason where it cannot."""
    reason = _cannot_boot()
    for item in items:
        if Path(__file__).parent in item.path.parents and {"kernel", "guest_image"} & set(_fixtures(item)):
            item.add_marker(pytest.mark.vm)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))

    # What waits for a build comes last.
    items.sort(key=lambda item: lab_builds.spec_of(item).startswith("lab:"))


_BUILDING = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to build the lab kernels of the tests that will run."""
    names = lab_builds.wanted(session.items)
    if names and not _cannot_boot() and not session.config.option.collectonly:
        session.config.stash[_BUILDING] = lab_builds.start(names)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What nobody waited for is not built to its end."""
    building = session.config.stash.get(_BUILDING, None)
    if building is not None:
        building.terminate()
        building.wait()


def _fixtures(item: pytest.Item) -> list[str]:
    return list(getattr(item, "fixturenames", ()))


def _or_skip(get: Callable[[], T]) -> T:
    """What get gives; a registry that cannot be reached is no defect of ours."""
    try:
        return get()
    except HarnessError as error:
        if error.attempted.startswith(("find packages of", "fetch")) or "mmdebstrap" in error.attempted:
            pytest.skip(f"{error}")
        raise


@pytest.fixture(scope="session")
def guest_image() -> Guest:
    return _or_skip(guest.get)


@pytest.fixture(scope="session")
def kernel(request: pytest.FixtureRequest, guest_image: Guest) -> Kernel:
    """The newest cloud kernel of the suite that the test's parameter names, else of bookworm."""
    return _or_skip(lambda: spec.resolve(getattr(request, "param", "bookworm")))
