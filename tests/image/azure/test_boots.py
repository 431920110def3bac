"""The four rows of the guide's table by real cloud-init in real boots, and what only slow tests boot."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import cli
from harness.checks.recording import Recording
from harness.checks.side_by_side import Work, side_by_side
from harness.command import run
from harness.image import provisioning, sample
from harness.image.azure import boot_results, full_results
from harness.image.azure.check import How, once
from harness.image.azure.machine import UEFI, Hardware
from harness.image.sample import Sample
from harness.lab import scenarios
from harness.report import Outcome, Report, Result
from harness.report import json as report_json
from harness.vm import qemu

_PROGRAMS = ("mmdebstrap", "mke2fs", "debugfs", "grub-mkimage", "qemu-img", "guestfish", qemu.BINARY)
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(
        os.geteuid() != 0
        or not Path("/dev/net/tun").exists()
        or any(shutil.which(name, path=_PATH) is None for name in _PROGRAMS),
        reason=f"needs root, /dev/net/tun and {', '.join(_PROGRAMS)}",
    ),
]
_AT_ONCE = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2  # beside what another worker does
_LIMIT = 1800.0  # seconds for a boot with its image: it takes some 100, and the image once as many


@dataclass(frozen=True)
class Case:
    name: str
    row: int
    spec: Sample
    scenario: str = "enforce"
    firmware: str = "bios"

    @property
    def deployed(self) -> provisioning.Deployed:
        return provisioning.Deployed(self.spec.suite, bool(self.spec.agent), self.spec.breaks, self.scenario)


def _case(name: str, row: int, suite: str, agent: bool, *breaks: str, scenario: str = "enforce") -> Case:
    return Case(name, row, Sample(suite, sample.REFERENCE if agent else "", breaks), scenario)


ROWS = (
    _case("no agent, old", 1, "bookworm", False),
    _case("no agent, new", 2, "trixie", False),
    _case("agent, old", 3, "bookworm", True, scenario="slow"),
    _case("agent, new, unhealthy", 4, "trixie", True, "agent-crashes"),
)


def booted(case: Case) -> Report:
    """In a process of its own: the boot's Results. That the image is as it was is one of them."""
    recording = Recording(case.name)
    scenario = scenarios.scenario(case.scenario)
    if scenario.delay:
        scenario = scenario.changed(delay=7.0)  # however busy the machine is; the agent waits 10 s for an answer
    how = How(hardware=Hardware(case.firmware), scenario=scenario)
    with provisioning.disk_of(case.deployed, print) as disk:
        before = _digest(disk)
        boot = once(disk, "qcow2", how, print)
        same = Outcome.PASS if _digest(disk) == before else Outcome.FAIL
    unchanged = Result("image.unchanged", "The image is as it was", same, "its SHA-256")
    return recording.report([*boot_results.results(boot), *full_results.results(boot, []), unchanged])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lost(case: Case, what: str, how: str, said: Sequence[str]) -> Report:
    return Recording(case.name).report(
        [Result("boot.lost", "A boot", Outcome.ERROR, how, observed={"said": list(said)})]
    )


@pytest.fixture(scope="module")
def reports() -> Mapping[str, Mapping[str, Result]]:
    """The boots of the four rows, made once."""
    found: dict[str, Mapping[str, Result]] = {}

    def done(case: Case, report: Report) -> None:
        found[case.name] = {result.id: result for result in report.results}

    side_by_side(ROWS, _AT_ONCE, Work(booted, lost, _LIMIT), done)
    return found


Reports = Mapping[str, Mapping[str, Result]]
by_case = pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)


@by_case
def test_the_row_of_the_guide_comes_about(case: Case, reports: Reports) -> None:
    result = reports[case.name]["full.row"]
    assert result.evidence["row"] == case.row, result.summary


@by_case
def test_the_surroundings_are_azure_s(case: Case, reports: Reports) -> None:
    results = reports[case.name]
    for id in ("boot.kernel-started", "boot.network", "boot.provisioning-disk", "boot.azure-recognised"):
        assert results[id].outcome is Outcome.PASS, results[id].summary
    assert results["image.unchanged"].outcome is Outcome.PASS


@by_case
def test_both_clocks_are_one(case: Case, reports: Reports) -> None:
    result = reports[case.name]["full.timeline"]
    assert result.outcome is Outcome.PASS, result.summary
    sides = {row["side"] for row in result.observed["rows"]}  # type: ignore[call-overload, index, union-attr]
    assert sides == {"platform", "guest"}


def test_without_an_agent_nobody_asks_for_a_key(reports: Reports) -> None:
    for name in ("no agent, old", "no agent, new"):
        assert "there is no agent" in reports[name]["boot.agent-started"].summary


def test_an_old_cloud_init_reports_ready_before_the_key_is_latched(reports: Reports) -> None:
    """The platform's answers take 7 s each, three of which come before the key."""
    outcome = reports["agent, old"]["full.outcome"]
    assert outcome.evidence["code"] == "Linux.OSProvisioningInternalError"
    assert reports["agent, old"]["boot.agent-started"].outcome is Outcome.PASS  # it is latched, too late
    assert outcome.observed["margin_seconds"] < 0  # type: ignore[operator]


def test_a_new_cloud_init_says_what_the_guide_says(reports: Reports) -> None:
    assert reports["no agent, new"]["full.report"].evidence["reason"] == "azure-proxy-agent not found"
    assert reports["agent, new, unhealthy"]["full.report"].evidence["reason"] == "azure-proxy-agent status failure"


def ids(make: Callable[[], Report]) -> dict[str, Result]:
    return {result.id: result for result in make().results}


@pytest.mark.slow(reason="a boot of 2 min, and its sample")
@pytest.mark.parametrize("firmware", ["bios", UEFI])
def test_a_good_image_provisions(firmware: str, tmp_path: Path) -> None:
    generation = 2 if firmware == UEFI else 1
    spec = Sample("trixie", sample.REFERENCE, generation=generation)
    disk = sample.build(spec, tmp_path / "disk.qcow2")
    boot = once(disk, "qcow2", How(hardware=Hardware(firmware)), print)
    results = {result.id: result for result in (*boot_results.results(boot), *full_results.results(boot, []))}
    assert {result.outcome for result in results.values()} == {Outcome.PASS}


@pytest.mark.slow(reason="nine boots of 2 min")
@pytest.mark.parametrize("recipe", provisioning.RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_shows_its_row_and_its_cure(recipe: provisioning.Recipe) -> None:
    (result,) = provisioning.reproduce([recipe.name], races=1)
    assert result.outcome is Outcome.PASS, result.summary


@pytest.mark.slow(reason="a boot of 2 min, and its sample")
@pytest.mark.parametrize("suite", ["bullseye", "forky"])
def test_other_generations_of_cloud_init(suite: str) -> None:
    with provisioning.disk_of(provisioning.Deployed(suite, agent=False), print) as disk:
        boot = once(disk, "qcow2", How(), print)
    assert boot.happened.number == {"bullseye": 1, "forky": 2}[suite]


@pytest.mark.slow(reason="the whole of --full: the image is read, its kernel boots, and it: 4 min each")
@pytest.mark.parametrize("form", ["vhd-fixed", "vhdx"])
def test_an_image_in_azure_s_own_form_boots(form: str, tmp_path: Path) -> None:
    """From the command on. bookworm with the agent is row 3, whoever wins its race."""
    kind = {"vhd-fixed": ("vpc", "-o", "subformat=fixed,force_size"), "vhdx": ("vhdx",)}[form]
    image, target = tmp_path / "image", tmp_path / "report.json"
    run(["qemu-img", "convert", "-O", *kind, sample.good("bookworm"), image], timeout=600)
    before = _digest(image)
    cli.main(["image", "check", "--full", str(image), "--json", str(target)])
    assert _digest(image) == before
    results = {result.id: result for result in report_json.load(target.read_text()).results}
    assert results["disk.format"].evidence["format"] == form
    for id in ("boot.kernel-started", "boot.network", "boot.provisioning-disk", "boot.agent-started", "full.report"):
        assert results[id].outcome is Outcome.PASS, results[id].summary
    row = results["full.row"]
    assert row.evidence["predicted row"] == 3
    assert row.evidence["row"] == (0 if row.evidence["provisions"] else 3), row.summary
    assert "NOT as predicted" not in row.summary
