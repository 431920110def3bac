"""`image check --kernel` on an image whose object the verifier refuses: what reading cannot see, its kernel says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.image import sample
from harness.image.check import Depth, Options, check
from harness.image.sample import REFERENCE, Sample, breaks
from harness.report import Outcome
from tests.image.systems import needs_guestfish

BREAK = breaks.BREAKS["object-refused"]

pytestmark = [
    pytest.mark.vm,
    needs_guestfish,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make the image"),
]


def test_the_images_kernel_refuses_its_object(tmp_path: Path) -> None:
    image = sample.build(Sample("trixie", REFERENCE, (BREAK.name,)), tmp_path / "disk.qcow2")
    report = check(str(image), Options(Depth.KERNEL)).report
    found = {result.id: result for result in report.results}
    assert [found[id].outcome for id in BREAK.finds] == [Outcome.FAIL]
    assert found["agent.object"].outcome is not Outcome.FAIL  # by reading nothing is wrong with it
    assert found["prediction.outcome"].outcome is Outcome.FAIL
    assert "eBPF setup failure" in found["prediction.outcome"].summary
    assert not any(id.startswith("own-kernel.redirect") for id in found)  # what was not loaded was not tried
