"""`reproduce provisioning-…`: the guide's table of deployment failures, brought about by real cloud-init in real boots.

Each row is an image of a Debian suite and a platform; the cure is what the guide's row asks for. A boot takes minutes,
so `reproduce all` leaves these out and says so.
"""

from __future__ import annotations

import difflib
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.errors import HarnessError
from harness.failures.perform import Progress
from harness.image import sample
from harness.image.azure import limits
from harness.image.azure.check import Boot, How, accelerator, once
from harness.image.azure.full_results import order
from harness.image.azure.outcome import End
from harness.image.predict import ROWS, Row
from harness.image.sample import Sample
from harness.lab import scenarios
from harness.msp import codes, guide
from harness.report import Outcome, Result
from harness.report.model import Json
from harness.vm import scratch

OLD, NEW = "bookworm", "trixie"
"""Suites whose cloud-init is older (22.4.2) and newer (25.1.4) than 24.3."""

GIVES_UP = 30.0
"""Seconds after which the agent of a broken image says what is wrong, instead of 120: it knows at once."""


UNMEASURED = 180.0
"""Seconds of a boot where none was measured: emulated, it took so much of a processor."""

RACES = 3
"""Boots of the race unless more are asked for."""

_SHOWN = 160  # characters of what the agent says, in a summary
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Deployed:
    """An image and the platform that it is deployed on (a scenario of harness.lab.scenarios)."""

    suite: str
    agent: bool = True
    breaks: tuple[str, ...] = ()
    scenario: str = "enforce"

    @property
    def said(self) -> str:
        parts = [self.suite, "with the agent" if self.agent else "without the agent", *self.breaks]
        return ", ".join(parts) + (f"; {scenarios.scenario(self.scenario).title}" if self.scenario != "enforce" else "")


@dataclass(frozen=True)
class Recipe:
    """A row of the guide's table. says: what the report or the platform must say. cause: the guide's, of its row 4."""

    name: str
    title: str
    row: Row
    broken: Deployed
    cured: Deployed
    remedy: str
    says: str
    cause: str = ""
    races: bool = False  # it happens in some boots and not in others

    @property
    def code(self) -> codes.Code:
        return codes.all_codes()[self.row.code]


_GOOD = Deployed(NEW)
_MENDED = "the same image without its fault"
# Without redirection nothing signs, but a key is latched all the same: a platform that enforces would refuse the very
# report (403) that the guide tells of, and cloud-init try for 20 minutes. Audited, the report arrives.
_UNHEALTHY = r"azure-proxy-agent status failure"
RECIPES: Sequence[Recipe] = (
    Recipe("provisioning-no-agent-old", "No agent in the image, cloud-init before 24.3", ROWS[0],
           Deployed(OLD, agent=False), _GOOD, "an image with the agent and cloud-init from 24.3 on",
           r"cloud-init successfully reported ready for provisioning but the platform failed to record success"),
    Recipe("provisioning-no-agent-new", "No agent in the image, cloud-init from 24.3 on", ROWS[1],
           Deployed(NEW, agent=False), _GOOD, "the same image with the agent",
           r"Linux\.Cloud-Init failed due to azure-proxy-agent not found"),
    Recipe("provisioning-race", "Agent in the image, cloud-init before 24.3: a race", ROWS[2],
           Deployed(OLD, scenario="slow"), Deployed(NEW, scenario="slow"), "a cloud-init from 24.3 on, which waits",
           r"Linux\.OSProvisioningInternalError", races=True),
    Recipe("provisioning-unhealthy-ebpf", "The agent is unhealthy: its eBPF program is refused", ROWS[3],
           Deployed(NEW, breaks=("object-refused",), scenario="audit"), _GOOD, _MENDED,
           rf"{_UNHEALTHY}.*Failed to load program", "eBPF setup failure"),
    Recipe("provisioning-unhealthy-cgroup", "The agent is unhealthy: no cgroup2 is mounted", ROWS[3],
           Deployed(NEW, breaks=("cgroup-v1",), scenario="audit"), _GOOD, _MENDED,
           rf"{_UNHEALTHY}.*ebpfProgramStatus", "Cgroups v2 not enabled"),
    Recipe("provisioning-unhealthy-startup", "The agent is unhealthy: it does not start", ROWS[3],
           Deployed(NEW, breaks=("agent-crashes",)), _GOOD, _MENDED,
           rf"{_UNHEALTHY}.*error while loading shared libraries", "generic startup failure"),
    Recipe("provisioning-unhealthy-key", "The agent is unhealthy: the platform gives no key", ROWS[3],
           Deployed(NEW, scenario="refused"), _GOOD, "a platform that offers a key, as after a key reset",
           rf"{_UNHEALTHY}.*keyLatchStatus - Failed to acquire key", "failure to acquire key"),
)  # fmt: skip


def chosen(names: Sequence[str]) -> list[Recipe]:
    """The recipes of these names, each a whole one or a beginning up to a dash. Raises HarnessError for a wrong one."""
    for name in names:
        if not any(_named(name, recipe) for recipe in RECIPES):
            known = [recipe.name for recipe in RECIPES]
            near = difflib.get_close_matches(name, known, 3, 0.5) or known
            raise HarnessError(
                f"reproduce {name!r}", "there is no failure of that name", f"did you mean {', '.join(near)}?"
            )
    return [recipe for recipe in RECIPES if any(_named(name, recipe) for name in names)]


def _named(name: str, recipe: Recipe) -> bool:
    return recipe.name == name or recipe.name.startswith(name + "-")


@dataclass
class _Boots:
    """The boots of one run: a cure that several share is booted once."""

    tell: Tell
    total: int = 0
    _begun: int = 0
    _cures: dict[Deployed, Boot] = field(default_factory=dict)

    def of(self, deployed: Deployed, times: int = 1) -> list[Boot]:
        with disk_of(deployed, self.tell) as disk:
            return [self._one(disk, deployed) for _ in range(times)]

    def _one(self, disk: Path, deployed: Deployed) -> Boot:
        self._begun += 1
        self.tell(f"boot {self._begun} of {self.total}: {deployed.said}")
        return once(disk, "qcow2", How(scenario=scenarios.scenario(deployed.scenario)), self.tell)

    def cure(self, deployed: Deployed) -> Boot:
        if deployed not in self._cures:
            self._cures[deployed] = self.of(deployed)[0]
        return self._cures[deployed]


@contextmanager
def disk_of(deployed: Deployed, tell: Tell) -> Iterator[Path]:
    """The image's disk for the time of a block: a kept one where it has no fault, else made for it."""
    if not deployed.breaks:
        yield sample.good(deployed.suite, deployed.agent, tell)
        return
    agent = sample.REFERENCE if deployed.agent else ""
    spec = Sample(deployed.suite, agent, deployed.breaks, provision=GIVES_UP)
    with scratch.directory("provisioning") as place:
        yield sample.build(spec, place / "disk.qcow2", tell)


def reproduce(
    names: Sequence[str], progress: Progress | None = None, *, races: int = RACES, tell: Tell = lambda line: None
) -> Iterator[Result]:
    """Bring these about, each with its cure; a Result for each as it comes. tell is told first how long it takes."""
    recipes = chosen(names)
    boots = _Boots(tell, count(recipes, races))
    tell(foretold(boots.total))
    for recipe in recipes:
        if progress is not None:
            progress.starting(identity(recipe), recipe.title)
        result = _one(recipe, boots, races)
        if progress is not None:
            progress.finished(result)
        yield result


def count(recipes: Sequence[Recipe], races: int) -> int:
    """How many boots it takes, each cure's once."""
    return sum(races if recipe.races else 1 for recipe in recipes) + len({recipe.cured for recipe in recipes})


def foretold(boots: int) -> str:
    """How long so many boots take, by what boots here took."""
    seconds = limits.expected(accelerator())
    origin = "the last boots here" if seconds else "none was measured here"
    minutes = math.ceil(boots * (seconds or UNMEASURED) / 60)
    return f"{boots} boots, some {minutes} min ({origin}), and the images that are not there yet"


def identity(recipe: Recipe) -> str:
    return f"reproduce.{recipe.name}"


def _one(recipe: Recipe, boots: _Boots, races: int) -> Result:
    began = time.monotonic()
    try:
        failing = boots.of(recipe.broken, races if recipe.races else 1)
        cured = boots.cure(recipe.cured)
        outcome, summary, evidence, observed = judged(recipe, failing, cured)
    except HarnessError as error:
        outcome, summary = Outcome.ERROR, f"could not find out: {error}"
        evidence, observed = {}, {"detail": error.detail}
    code = recipe.code
    return Result(
        identity(recipe), recipe.title, outcome, summary, {"cause": code.cause} | evidence, observed, code.remedy,
        guide.NEW_VM_LINUX, code.id, seconds=time.monotonic() - began,
    )  # fmt: skip


def judged(
    recipe: Recipe, failing: Sequence[Boot], cured: Boot
) -> tuple[Outcome, str, dict[str, Json], dict[str, Json]]:
    """Whether the row came about, said what the guide says, and was cured."""
    lost = [boot for boot in failing if boot.end.end is not End.PROVISIONED]
    worst = lost[0] if lost else failing[0]
    said = report_of(worst)
    evidence: dict[str, Json] = {
        "image": recipe.broken.said,
        "row": recipe.row.number,
        "guide": recipe.row.failure,
        "ours": worst.end.portal,
        "compared": compared(recipe, worst.end.portal),
        "the guide's cause": recipe.cause or recipe.row.cause,
        "remedy applied": recipe.remedy,
        "then": str(cured.end.end),
    }
    observed: dict[str, Json] = {
        "report": said,
        "clients": list(worst.seen.provisioners),
        "boots": [_told(boot) for boot in failing],
        "timeline": [row.text() for row in worst.timeline.rows],
        "cured": f"{', '.join(cured.seen.provisioners)}: {_told(cured)}",
    }
    if problem := _problem(recipe, lost, worst, said, cured):
        return Outcome.FAIL, problem, evidence, observed
    often = f" in {len(lost)} of {len(failing)} boots" if recipe.races else ""
    row = f"row {recipe.row.number}" + (f", {recipe.cause}" if recipe.cause else "")
    words = f": {agents_words(worst)}" if recipe.cause else ""
    summary = f"reproduced{often}: {row}: {worst.end.portal}{words}; remedy works: {recipe.remedy}"
    return Outcome.PASS, summary[:600], evidence, observed


def _told(boot: Boot) -> str:
    return f"{boot.end.end}: {order(boot)} (a boot of {boot.seconds:.0f} s)"


def compared(recipe: Recipe, portal: str) -> str:
    """Whether the portal's words are the guide's. Of its last row the guide quotes none."""
    if recipe.cause:
        return "the guide quotes no words of this row, it describes it; ours are what cloud-init reported"
    return "the same words" if in_guide(recipe.row.failure, portal) else "other words"


def _problem(recipe: Recipe, lost: Sequence[Boot], worst: Boot, said: str, cured: Boot) -> str:
    if not lost:
        return f"not reproduced: every boot provisioned ({order(worst)})"
    if worst.happened.number != recipe.row.number:
        return f"not reproduced: {worst.happened.why}; not row {recipe.row.number} of the guide's table"
    if not re.search(recipe.says, f"{worst.end.portal}\n{said}", re.DOTALL):
        return f"row {recipe.row.number} came about, but it is not said that /{recipe.says}/: {worst.end.portal}"
    if cured.end.end is not End.PROVISIONED:
        return f"reproduced, but the remedy does not work: {recipe.cured.said}: {cured.end.portal}"
    return ""


def report_of(boot: Boot) -> str:
    """The first report that is not ready, else the first one, as it was described."""
    reports = [row.report for row in boot.seen.reports]
    first = next((report for report in reports if not report.ready), reports[0] if reports else None)
    return "" if first is None else (first.description or first.state)


def agents_words(boot: Boot) -> str:
    """What the first report that is not ready has of the agent's own: which of the row's causes it is."""
    report = next((row.report for row in boot.seen.reports if not row.report.ready), None)
    said = report.fields.get("stderr", "") if report else ""
    first = said.strip().partition("\n")[0]
    return first if len(first) <= _SHOWN else f"{first[:_SHOWN]}…"


@cache
def _words(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def in_guide(failure: str, portal: str) -> bool:
    """Whether every line of the guide's failure stands in what the portal would show."""
    return all(line in portal for line in _words(failure))
