"""The table of features against kernels on both sides of its versions: the probe's answer is what the table says.

Kernels of distributions are on the side of `yes` but for what came after 5.10; lab kernels are on the other side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from harness.kernel.features import FEATURES, Feature
from harness.vm import lab_kernels
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.lab_kernels import LAB_KERNELS, LabKernel
from harness.vm.machine import Machine
from harness.vm.run import run

Answers = Mapping[str, str]

NO_SIDE = {"lab:no-pid-tgid": "pid-tgid", "lab:no-cgroup-link": "bpf-link"}
"""Built by `make test`; the others take more time than it has."""

KERNELS = [
    "bullseye",
    "bookworm",
    "trixie",
    pytest.param("sid", marks=pytest.mark.slow(reason="one more boot of a stock kernel; trixie is run")),
    *(
        row_spec
        if row_spec in ("lab:base", *NO_SIDE)
        else pytest.param(row_spec, marks=pytest.mark.slow(reason=f"builds {row_spec}, minutes of compiling"))
        for row_spec in (lab_kernels.PREFIX + row.name for row in LAB_KERNELS)
    ),
]

_measured: dict[str, Answers] = {}


def answers(kernel: Kernel) -> Answers:
    """yes or no (or unknown) of each probe on a kernel, asked once."""
    if kernel.digest not in _measured:
        report = run(Machine(kernel), Job(("verify", "--only", "preflight")))
        (found,) = [result for result in report.results if result.id == "preflight.kernel"]
        probes = found.evidence["probes"]
        assert isinstance(probes, Mapping)
        _measured[kernel.digest] = {name: str(said).partition(":")[0] for name, said in probes.items()}
    return _measured[kernel.digest]


def row_of(kernel: Kernel) -> LabKernel | None:
    """The lab kernel's row."""
    name = kernel.origin.partition(" ")[0]
    return lab_kernels.named(name) if name.startswith(lab_kernels.PREFIX) else None


def version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2])


def expected(feature: Feature, kernel: Kernel) -> str:
    """By the table: from `since` on, except what a lab kernel is without, in which it counts as an older one."""
    row = row_of(kernel)
    lacking = row is not None and feature.name in row.lacks
    if lacking and row is not None and not row.like:
        return "no"
    counted = row.like if lacking and row is not None else kernel.release
    return "yes" if version(counted) >= version(feature.since) else "no"


def disagreements(table: Iterable[Feature], kernel: Kernel) -> list[str]:
    found = answers(kernel)
    return [
        f"{feature.name}: {found[feature.name]}, not {expected(feature, kernel)}"
        for feature in table
        if found[feature.name] != expected(feature, kernel)
    ]


@pytest.mark.parametrize("kernel", KERNELS, indirect=True)
def test_the_table_is_what_the_kernel_answers(kernel: Kernel) -> None:
    assert set(answers(kernel)) == {feature.name for feature in FEATURES}
    assert disagreements(FEATURES, kernel) == []


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
@pytest.mark.parametrize("kernel", ["bookworm"], indirect=True)
def test_a_row_that_is_too_new_is_noticed(kernel: Kernel, feature: Feature) -> None:
    (found,) = disagreements([replace(feature, since="6.9")], kernel)
    assert found == f"{feature.name}: yes, not no"


@pytest.mark.parametrize(
    ("kernel", "name"),
    [("bullseye", "maps-not-charged"), *NO_SIDE.items()],
    indirect=["kernel"],
)
def test_a_row_that_is_too_old_is_noticed(kernel: Kernel, name: str) -> None:
    (feature,) = [feature for feature in FEATURES if feature.name == name]
    assert disagreements([feature], kernel) == []
    assert disagreements([replace(feature, since="4.1")], kernel) == [f"{name}: no, not yes"]
