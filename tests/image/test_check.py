"""`image check`: the depths and what each could not see, the gate's exit code, the files, several images at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.cli import image as cli_image
from harness.errors import HarnessError
from harness.image import azure, check, checks, own_kernel, predict, said, sample
from harness.image.check import Depth, Options
from harness.image.image import Image
from harness.image.own_kernel import Taken
from harness.image.predict import Provisions
from harness.image.sample import breaks
from harness.report import Outcome, Report, Result
from harness.report import json as report_json
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Cgroup, Machine
from tests.image import trees
from tests.image.checks.breaks import no_agent, option
from tests.image.trees import KERNEL

GOOD = trees.debian()
BROKEN = no_agent(GOOD)


@pytest.fixture(autouse=True)
def read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images by their names, in place of libguestfs, whose part has tests of its own."""

    def read(source: str, **options: object) -> Image:
        name = Path(source).stem
        if name == "unreadable":
            raise HarnessError(f"read {name}", "it is damaged", "make it again", detail="a\nb")
        return BROKEN if name == "broken" else GOOD

    monkeypatch.setattr("harness.image.read.read", read)


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.qcow2" for name in ("good", "broken", "unreadable")]
    for path in paths:
        path.write_bytes(b"")
    return [str(path) for path in paths]


def ran(id: str, outcome: Outcome = Outcome.PASS, **evidence: str) -> Result:
    return Result(id, id, outcome, f"{id} is {outcome}", evidence)


KERNEL_HOLDS = [ran("own-kernel.load.connect4"), ran("own-kernel.attach.link"), ran("own-kernel.redirect.imds")]


def test_each_depth_says_what_it_could_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_kernel, "verified", lambda *arguments: iter(KERNEL_HOLDS))
    monkeypatch.setattr(azure, "boot", lambda *arguments, **options: iter([ran("boot.started")]))
    for depth in Depth:
        report = check.check("good", Options(depth)).report
        unseen = [result.id for result in report.results if result.group == "depth"]
        assert unseen == [f"depth.{later.name.lower()}" for later in Depth if later > depth]
        assert all(result.outcome is Outcome.SKIP for result in report.results if result.group == "depth")
        ids = {result.id for result in report.results}
        assert ("own-kernel.load.connect4" in ids, "boot.started" in ids) == (depth >= 1, depth >= 2)


def test_the_report_is_about_the_image() -> None:
    report = check.check("dir/good.qcow2", Options()).report
    assert (report.target, report.kernel) == ("image good.qcow2", KERNEL)
    assert report.distribution.startswith("Debian GNU/Linux")


def test_an_image_that_cannot_be_read_is_an_error_and_no_more() -> None:
    report = check.check("unreadable", Options()).report
    (result,) = report.results
    assert (result.id, result.outcome, result.remedy) == (check.READ, Outcome.ERROR, "make it again")
    assert "it is damaged" in result.summary


# --- the kernel's own answer and the prediction ---------------------------------------------------------------------


def predicted(image: Image, *more: Result) -> Provisions:
    results = list(checks.check(image))
    return predict.predict(image, [*results, *more]).provisions


def test_what_the_kernel_refuses_is_a_prediction() -> None:
    refused = [*KERNEL_HOLDS[1:], ran("own-kernel.load.connect4", Outcome.FAIL)]
    assert predicted(GOOD, *refused) is Provisions.NO


def test_what_the_kernel_does_counts_more_than_its_configuration() -> None:
    image = option("CGROUP_BPF")(GOOD)
    assert predicted(image) is Provisions.NO
    assert predicted(image, *KERNEL_HOLDS) is Provisions.YES
    assert predicted(image, *KERNEL_HOLDS[:1]) is Provisions.NO  # loaded, and no more is known


# --- --kernel -------------------------------------------------------------------------------------------------------


class Guest:
    """In place of a guest: keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *results: Result):
        self.asked: list[tuple[Machine, Job]] = []
        report = check.check("good", Options()).report

        def run(machine: Machine, job: Job, tell: object) -> Report:
            self.asked.append((machine, job))
            return Report(**{**vars(report), "results": results})

        monkeypatch.setattr(own_kernel, "run", run)


def verified(image: Image) -> list[Result]:
    kernel = Kernel(KERNEL, "image", Path("vmlinuz"), Path("modules"), "sha256:0", None)
    return list(own_kernel.verified(image, Taken(kernel), list(checks.check(image)), lambda line: None))


def test_the_images_own_object_goes_to_its_own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, ran("load.connect4"))
    booted, loaded = verified(GOOD)
    ((machine, job),) = guest.asked
    path = said.text(list(checks.check(GOOD)), "agent.object", "path")
    assert list(job.files.values()) == [GOOD.tree.data(path)]
    assert machine.cgroup is Cgroup.V2
    assert (booted.id, booted.outcome) == ("own-kernel.booted", Outcome.PASS)
    assert loaded.id == "own-kernel.load.connect4"


def test_without_an_object_our_own_program_is_used_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, ran("load.connect4"))
    booted = verified(BROKEN)[0]
    assert "our own program" in booted.summary
    assert not guest.asked[0][1].files


def test_a_guest_that_failed_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    Guest(monkeypatch, ran("guest.boot", Outcome.ERROR))
    assert verified(GOOD)[0].outcome is Outcome.ERROR


def test_without_a_kernel_nothing_is_booted(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch)
    (result,) = own_kernel.verified(GOOD, Taken(None, "there is none", "add one"), [], lambda line: None)
    assert (result.outcome, result.remedy) == (Outcome.ERROR, "add one")
    assert "there is none" in result.summary
    assert not guest.asked


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def guestfish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "needed", lambda depth: None)


def test_the_exit_code_is_the_gates(images: list[str], tmp_path: Path) -> None:
    good, broken, unreadable = images
    policy = tmp_path / "policy.toml"
    assert cli.main(["image", "check", good]) == 0
    assert cli.main(["image", "check", broken]) == 1
    assert cli.main(["image", "check", unreadable]) == 1
    policy.write_text("[block]\nFAIL = []\nERROR = []\n")
    assert cli.main(["image", "check", broken, "--policy", str(policy)]) == 0
    policy.write_text('[block]\nWARN = ["disk.format"]\n')
    assert cli.main(["image", "check", good, "--policy", str(policy)]) == 1


def test_the_files_of_a_check(images: list[str], tmp_path: Path) -> None:
    report, sbom, page = (tmp_path / name for name in ("r.json", "s.json", "p.html"))
    assert cli.main(["image", "check", images[0], "--json", str(report), "--sbom", str(sbom), "--html", str(page)]) == 0
    assert report_json.load(report.read_text()).results
    assert json.loads(sbom.read_text())["bomFormat"] == "CycloneDX"
    assert "prediction.row" in page.read_text()


def test_what_changed_since_the_last_image(images: list[str], tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    cli.main(["image", "check", images[0], "--json", str(first)])
    cli.main(["image", "check", images[1], "--baseline", str(first), "--json", str(second)])
    found = {result.id: result for result in report_json.load(second.read_text()).results}
    assert found["baseline.worse"].outcome is Outcome.WARN
    assert "agent.executable" in found["baseline.worse"].evidence


def test_several_images_are_checked_side_by_side(images: list[str], tmp_path: Path) -> None:
    assert cli.main(["image", "check", *images, "--jobs", "2", "--json", str(tmp_path / "r.json")]) == 1
    reports = {path.name: report_json.load(path.read_text()) for path in tmp_path.glob("r.*.json")}
    assert len(reports) == 3
    outcomes = {
        report.target: max(result.outcome is Outcome.FAIL for result in report.results) for report in reports.values()
    }
    assert outcomes == {"image good.qcow2": False, "image broken.qcow2": True, "image unreadable.qcow2": False}


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-image"],
        ["--jobs", "0", "IMAGE"],
        ["--repeat", "0", "--full", "IMAGE"],
        ["--repeat", "3", "IMAGE"],
        ["--policy", "no-such-policy", "IMAGE"],
        ["--baseline", "no-such-report", "IMAGE"],
        ["--baseline", "x", "IMAGE", "IMAGE"],
    ],
)
def test_wrong_usage(words: list[str], images: list[str]) -> None:
    assert cli.main(["image", "check", *(images[0] if word == "IMAGE" else word for word in words)]) == 2


def test_the_verdict_is_the_prediction() -> None:
    report = check.check("good", Options()).report
    assert "until the agent is healthy" in check.verdict(report)


def test_a_sample_is_built_as_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[sample.Sample] = []

    def build(spec: sample.Sample, target: Path, tell: object) -> Path:
        asked.append(spec)
        return target

    monkeypatch.setattr(sample, "build", build)
    words = [
        "--suite",
        "trixie",
        "--agent",
        "reference",
        "--break",
        "no-object",
        "--generation",
        "2",
        "--provision",
        "9",
    ]
    assert cli.main(["image", "build-sample", *words, str(tmp_path / "x.qcow2")]) == 0
    assert asked == [sample.Sample("trixie", "reference", ("no-object",), "", 2, 9.0)]
    assert cli.main(["image", "build-sample"]) == 2


def test_the_faults_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["image", "build-sample", "--list-breaks"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in breaks.BREAKS)


def test_what_a_guest_says_does_not_reach_the_terminal_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    cli_image._tell("60 s: it reports NotReady \x1b[2J")
    assert capsys.readouterr().err == "60 s: it reports NotReady \\x1b[2J\n"
