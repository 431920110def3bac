"""Kernels and the guest for tests that boot; without what they need they are skipped, and say why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from harness.errors import HarnessError
from harness.vm import guest, spec
from harness.vm.guest import Guest
from harness.vm.kernels import Kernel
from tests.vm import lab_builds

T = TypeVar("T")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What boots has the marker vm, and is skipped with the reason where it cannot."""
    reason = lab_builds.cannot_boot()
    for item in items:
        if Path(__file__).parent in item.path.parents and {"kernel", "guest_image"} & set(_fixtures(item)):
            item.add_marker(pytest.mark.vm)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


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
