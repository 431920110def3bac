"""Each fault of a sample is made, and found by the checks under the id that its row names; a good sample has none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest

from harness.image import checks, predict
from harness.image.image import Image
from harness.image.predict import Provisions
from harness.image.sample import disk, menu
from harness.image.sample.breaks import BREAKS
from harness.image.sample.site import Site
from harness.report import Outcome, Result
from tests.image.broken import BROKEN, OF_FILES
from tests.image.conftest import Roots
from tests.image.roots import image_of

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mmdebstrap") is None, reason="needs root and mmdebstrap, to make samples"
)

WRONG = (Outcome.FAIL, Outcome.WARN)
Found = Callable[[str], Mapping[str, Result]]

BY_DPKG = ("no-agent", "no-cloud-init", "initramfs-without-hyperv")
NO_FAULTS = ("cloud-init-msp-backported",)
"""What a version alone would get wrong, and is right."""


@pytest.fixture(scope="module")
def good(roots: Roots) -> Found:
    """What the checks find in a suite's good sample."""
    return cache(lambda suite: by_id(image_of(roots(suite))))


def by_id(image: Image) -> dict[str, Result]:
    return {result.id: result for result in checks.check(image)}


@pytest.mark.parametrize(
    ("suite", "row", "provisions"),
    [("bullseye", 3, Provisions.MAYBE), ("bookworm", 3, Provisions.MAYBE), ("trixie", 4, Provisions.YES)],
)
def test_a_good_sample(roots: Roots, suite: str, row: int, provisions: Provisions) -> None:
    image = image_of(roots(suite))
    results = list(checks.check(image))
    wrong = {result.id for result in results if result.outcome in (Outcome.FAIL, Outcome.ERROR)}
    assert wrong <= {"cloud-init.msp"}
    found = predict.predict(image, results)
    assert found.row is not None
    assert (found.row.number, found.provisions) == (row, provisions)


@pytest.mark.parametrize("name", OF_FILES)
def test_a_fault_is_made_and_found(roots: Roots, good: Found, tmp_path: Path, name: str) -> None:
    row = BREAKS[name]
    suite = "bookworm" if not row.suites or "bookworm" in row.suites else row.suites[0]
    root = tmp_path / "root"
    # Hard links, where nothing is written into a file that is there.
    subprocess.run(["cp", "-a" if name in BY_DPKG else "-al", roots(suite), root], check=True)
    site = Site(root, disk.Layout(1 << 30, "sample-root"), suite)
    assert not BROKEN[name](site)
    row.change(site)
    assert BROKEN[name](site)
    menu.write(root, site.line, site.default)
    found, before = by_id(image_of(root)), good(suite)
    outcomes = (Outcome.PASS,) if name in NO_FAULTS else WRONG
    told = [id for id in row.finds if id in found and found[id].outcome in outcomes]
    assert told, {id: found[id].summary for id in row.finds if id in found}
    assert all(before[id].summary != found[id].summary for id in told if id in before)
    shutil.rmtree(root)
