"""Good samples, which several tests look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.image.sample import Sample, build

Roots = Callable[[str], Path]


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roots]:
    """A suite's good sample with the agent, as a directory; nobody is to change it, and nobody has in the end."""
    made: dict[str, tuple[Path, list[tuple[object, ...]]]] = {}

    def get(suite: str) -> Path:
        if suite not in made:
            path = tmp_path_factory.mktemp("samples") / suite
            build(Sample(suite, "reference", format="directory"), path)
            made[suite] = path, _state(path)
        return made[suite][0]

    yield get
    for path, before in made.values():
        assert _state(path) == before
        shutil.rmtree(path)


def _state(root: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        found.append((path, status.st_ino, status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns))
    return found
