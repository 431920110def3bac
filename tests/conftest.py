"""What holds for all tests."""

import signal
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import workers
from tests.vm import lab_builds

# Nothing here is timed: on a busy machine, how long an example takes says nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

SLOW = pytest.StashKey[dict[str, str]]()
"""The slow tests that this run left out, each with its reason."""

BUILDING = pytest.StashKey[subprocess.Popen[bytes]]()
"""The build of the lab kernels that this run's tests want."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SLOW] = {}
    # Behind nohup(1) or a shell's `&` they are ignored, and what tests start and interrupt would be deaf to it.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: workers.rank(item.nodeid))


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly and not hasattr(session.config, "workerinput"):
        build_lab_kernels(session.config, [item.nodeid for item in session.items])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """Workers find the same tests; who controls them builds, since it is there to the end."""
    build_lab_kernels(node.config, ids)


def build_lab_kernels(config: pytest.Config, tests: Sequence[str]) -> None:
    """Begin to build the lab kernels of the tests that will run, once."""
    names = lab_builds.wanted(tests)
    if names and BUILDING not in config.stash and not lab_builds.cannot_boot():
        config.stash[BUILDING] = lab_builds.start(names)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return workers.scheduler(config, log)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        slow = item.get_closest_marker("slow")
        if slow is not None:
            item.config.stash[SLOW][item.nodeid] = slow.kwargs.get("reason") or " ".join(slow.args) or "no reason given"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # a worker of xdist; only its controller prints a summary
        session.config.workeroutput["slow"] = session.config.stash[SLOW]
    building = session.config.stash.get(BUILDING, None)
    if building is not None:  # what nobody waited for is not built to its end
        building.terminate()
        building.wait()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[SLOW].update(getattr(node, "workeroutput", {}).get("slow", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Nothing is left out in silence: the slow tests, with why, and how to run them."""
    slow = config.stash[SLOW]
    if slow:
        terminalreporter.section(f"slow tests not run: {len(slow)}; `make test-all` runs them", sep="-")
        for name, reason in sorted(slow.items()):
            terminalreporter.line(f"SLOW {name}: {reason}")
