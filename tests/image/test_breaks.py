"""Each fault of a sample is found by the checks under the id that its row names, and not in the good sample."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.image import checks, predict
from harness.image.image import Image
from harness.image.predict import Provisions
from harness.image.sample import Sample, build, disk, menu
from harness.image.sample.breaks import BREAKS
from harness.image.sample.site import Site
from harness.report import Outcome, Result
from tests.image.roots import image_of

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mmdebstrap") is None, reason="needs root and mmdebstrap, to make samples"
)

WRONG = (Outcome.FAIL, Outcome.WARN)
OF_FILES = [name for name, row in BREAKS.items() if row.at == "inspect" and not row.disk and name != "two-kernels"]
"""Those of the disk need one (test_disk), the deeper ones a boot (test_own_kernel, azure/test_boots); another kernel is
fetched by a slow test (test_sample)."""

BY_DPKG = ("no-agent", "no-cloud-init", "initramfs-without-hyperv")
NO_FAULTS = ("cloud-init-msp-backported",)
"""What a version alone would get wrong, and is right."""


class Good:
    """Good samples of suites, as directories."""

    def __init__(self, place: Path):
        self._place = place
        self._found: dict[str, dict[str, Result]] = {}

    def root(self, suite: str) -> Path:
        path = self._place / suite
        if not path.exists():
            build(Sample(suite, "reference", format="directory"), path)
        return path

    def found(self, suite: str) -> Mapping[str, Result]:
        if suite not in self._found:
            self._found[suite] = by_id(image_of(self.root(suite)))
        return self._found[suite]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Good]:
    place = tmp_path_factory.mktemp("good")
    yield Good(place)
    shutil.rmtree(place)


def by_id(image: Image) -> dict[str, Result]:
    return {result.id: result for result in checks.check(image)}


@pytest.mark.parametrize(
    ("suite", "row", "provisions"),
    [("bullseye", 3, Provisions.MAYBE), ("bookworm", 3, Provisions.MAYBE), ("trixie", 4, Provisions.YES)],
)
def test_a_good_sample(good: Good, suite: str, row: int, provisions: Provisions) -> None:
    image = image_of(good.root(suite))
    results = list(checks.check(image))
    wrong = {result.id for result in results if result.outcome in (Outcome.FAIL, Outcome.ERROR)}
    assert wrong <= {"cloud-init.msp"}
    found = predict.predict(image, results)
    assert found.row is not None
    assert (found.row.number, found.provisions) == (row, provisions)


@pytest.mark.parametrize("name", OF_FILES)
def test_a_fault_is_found(good: Good, tmp_path: Path, name: str) -> None:
    row = BREAKS[name]
    suite = "bookworm" if not row.suites or "bookworm" in row.suites else row.suites[0]
    root = tmp_path / "root"
    # Hard links, where nothing is written into a file that is there.
    subprocess.run(["cp", "-a" if name in BY_DPKG else "-al", good.root(suite), root], check=True)
    site = Site(root, disk.Layout(1 << 30, "sample-root"), suite)
    row.change(site)
    menu.write(root, site.line, site.default)
    found, before = by_id(image_of(root)), good.found(suite)
    outcomes = (Outcome.PASS,) if name in NO_FAULTS else WRONG
    told = [id for id in row.finds if id in found and found[id].outcome in outcomes]
    assert told, {id: found[id].summary for id in row.finds if id in found}
    assert all(before[id].summary != found[id].summary for id in told if id in before)
    shutil.rmtree(root)
