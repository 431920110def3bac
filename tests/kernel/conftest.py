"""A run, a lab and a loaded program for tests that work on the real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.checks import machine, preflight
from harness.checks.base import Environment
from harness.checks.verify import best_join
from harness.kernel import cgroups
from harness.lab import state
from harness.lab.lab import Lab, open_lab
from harness.lab.state import Run
from harness.program.attach import Way
from harness.program.compile import Join, compile_source, redirector
from harness.program.image import Image
from harness.program.load import load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and BPF; without, it is skipped with the reason, which the summary shows."""
    reason = _cannot_run()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def _cannot_run() -> str:
    if os.geteuid() != 0:
        return "needs root"
    failed = [result for result in preflight.look(machine.ask()) if result.blocking and result.outcome == "FAIL"]
    return "; ".join(result.summary for result in failed)


@pytest.fixture(scope="session")
def join() -> Join:
    return best_join(machine.ask())


@pytest.fixture(scope="session")
def image(join: Join) -> Image:
    return compile_source(redirector(join=join))


@pytest.fixture(scope="session")
def hardened_image(join: Join) -> Image:
    return compile_source(redirector(hardened=True, join=join))


@pytest.fixture
def run() -> Iterator[Run]:
    with state.begin(cgroups.layout().cgroup2[0].point) as run:
        yield run


@pytest.fixture
def lab(run: Run) -> Iterator[Lab]:
    with open_lab(run) as lab:
        yield lab


@pytest.fixture
def environment(run: Run, lab: Lab, image: Image, join: Join) -> Iterator[Environment]:
    way = Way.LINK if machine.ask().has("bpf-link") else Way.MULTI
    with ExitStack() as stack:
        loaded = stack.enter_context(load(image))
        yield Environment(run, lab, loaded, join is not Join.NONE, way)
