"""What a VM made of an image will do when it is deployed with MSP: the row of the guide's table, and the outcome.

Two things choose the row: whether the agent is where cloud-init looks for it, and whether cloud-init asks it. That it
asks is what was found in its source (cloud-init.msp); the version stands beside it. In the fourth row the outcome is
decided by what the agent needs: eBPF, cgroup2, its own start; the key comes from the platform and is not in an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.image.image import Image
from harness.msp import codes, guide, guide_walk
from harness.msp.codes import Code
from harness.report import Json, Outcome, Result

BLOCKED = (Outcome.FAIL,)


class Provisions(StrEnum):
    """Whether the platform will see a VM of this image provisioned, MSP enabled."""

    YES = "yes"
    MAYBE = "by luck"  # the guide's race: may fail up to 100% of the time
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Row:
    """A row of the guide's table, as it stands there. number counts from 1; 0 is none of them."""

    number: int
    agent: bool
    asks: bool
    code: str
    name: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The row's cells, verbatim: GPA installed, cloud-init's version, expected failure, cause."""
        return tuple(cell.strip() for cell in guide_walk.place(f"new.linux#row{self.number}").text.split("|"))

    @property
    def failure(self) -> str:
        """The guide's text of what the portal shows, without Markdown's marks."""
        return self.cells[2].replace("<br>", "\n").replace("`", "")

    @property
    def cause(self) -> str:
        return self.cells[3]


ROWS = (
    Row(1, False, False, "MSP-P201", "no agent, and cloud-init does not ask for it (as before 24.3)"),
    Row(2, False, True, "MSP-P202", "no agent, and cloud-init asks for it (24.3 or later)"),
    Row(3, True, False, "MSP-P203", "the agent is there, and cloud-init does not ask it (as before 24.3)"),
    Row(4, True, True, "MSP-P204", "the agent is there, and cloud-init asks it (24.3 or later)"),
)


@dataclass(frozen=True)
class Cause:
    """One of the four causes that the guide gives in its last row. ids: Results that make it so when they fail."""

    name: str  # verbatim
    ids: tuple[str, ...]


CAUSES = (
    Cause("eBPF setup failure", (
        "kernel.config", "kernel.lockdown", "agent.object", "agent.object-kernel", "agent.sandbox",
        "own-kernel.load.", "own-kernel.attach.", "own-kernel.redirect.",
    )),
    Cause("Cgroups v2 not enabled", ("cgroup.",)),
    Cause("generic startup failure", (
        "agent.executable", "agent.config", "agent.unit", "agent.enabled", "agent.order", "agent.selinux",
        "agent.apparmor", "agent.mount",
    )),
    Cause("failure to acquire key", ("leftovers.keys",)),
)  # fmt: skip
"""The key: whether the platform gives one is not in the image; a key that is left over from another VM may be taken."""

_READ = ("kernel.config", "agent.object-kernel")
"""What was read of the kernel's configuration: where that kernel was asked itself (--kernel), its answer counts."""

_ASKED = ("own-kernel.load.", "own-kernel.attach.link", "own-kernel.redirect.")

BEFORE_PROVISIONING = ("system.architecture", "kernel.default", "modules.hv_", "modules.sd_mod", "modules.initramfs")
"""What keeps a VM from starting, or from reaching the platform, before any row can come true."""

MEDIA = ("modules.udf", "modules.sr_mod")
"""Without these cloud-init cannot read the provisioning disk: it takes IMDS's word alone, which has not MSP's setting
(crawl_metadata() of its Azure datasource), and reports ready without asking, of whatever version it is."""


DECIDING = (
    *BEFORE_PROVISIONING,
    "modules.drivers",
    "cloud-init.enabled",
    "cloud-init.datasource",
    "waagent.provisioning",
)
"""Of which an ERROR leaves the outcome open, whatever the row."""


@dataclass(frozen=True)
class Prediction:
    """row is None where none can be told, or none applies. reasons: ids of the Results that decided.

    portal_text is the guide's, verbatim; empty where provisioning succeeds. causes: of the fourth row.
    """

    row: Row | None
    provisions: Provisions
    summary: str
    reasons: tuple[str, ...]
    portal_text: str = ""
    causes: tuple[str, ...] = ()
    code: Code | None = None
    missing: tuple[str, ...] = ()


def predict(image: Image, results: Sequence[Result]) -> Prediction:
    """The prediction, from the Results of the checks, and of --kernel where they are there."""
    if _own_kernel_redirects(results):
        results = [one for one in results if not one.id.startswith(_READ)]
    by_id = {result.id: result for result in results}
    early = _failed(results, BEFORE_PROVISIONING)
    system = by_id.get("system.found")
    if system is None or system.outcome in (Outcome.FAIL, Outcome.ERROR):
        return _unknown("there is no system to predict anything of", ("system.found",))
    by_waagent = by_id.get("waagent.provisioning")
    if by_waagent is not None and by_waagent.outcome is Outcome.FAIL:
        return _another(by_waagent, early, _agent(by_id))
    cloud_init = [by_id[name] for name in ("cloud-init.version", "cloud-init.enabled", "cloud-init.datasource")
                  if name in by_id and by_id[name].outcome is Outcome.FAIL]  # fmt: skip
    if cloud_init:
        return _another(cloud_init[0], early)
    agent, asks = _agent(by_id), _asks(by_id)
    missing = _missing(by_id, agent, asks)
    if agent is None or asks is None:
        return _unknown(f"the row is not known: {'; '.join(missing)}", tuple(missing))
    blind = [one.id for one in _failed(results, MEDIA)] if asks else []
    row = next(row for row in ROWS if (row.agent, row.asks) == (agent, asks and not blind))
    reasons = ("agent.executable", "agent.path", "cloud-init.msp", *blind)
    if early:
        return _does_not_start(row, early, reasons)
    found = _outcome(row, results, reasons)
    open_ones = _failed(results, DECIDING, Outcome.ERROR)
    if open_ones and found.provisions is not Provisions.NO:
        return _open(row, open_ones, reasons)
    if blind:
        why = "cloud-init knows of MSP and cannot read the provisioning disk, which has the setting"
        return replace(found, summary=f"{why}; {found.summary}", code=_code(by_id[blind[0]]))
    return found


def _code(result: Result) -> Code | None:
    return codes.all_codes()[result.code] if result.code else None


def _agent(by_id: Mapping[str, Result]) -> bool | None:
    """Whether cloud-init finds the agent: by agent.path, which is SKIP where there is none at all."""
    found = by_id.get("agent.path")
    if found is None or found.outcome is Outcome.ERROR:
        return None
    return found.outcome is Outcome.PASS


def _asks(by_id: Mapping[str, Result]) -> bool | None:
    found = by_id.get("cloud-init.msp")
    if found is None or found.outcome in (Outcome.ERROR, Outcome.SKIP):
        return None
    return found.outcome is Outcome.PASS


def _missing(by_id: Mapping[str, Result], agent: bool | None, asks: bool | None) -> list[str]:
    wanted = [name for name, value in (("agent.path", agent), ("cloud-init.msp", asks)) if value is None]
    return [f"{name}: {by_id[name].summary}" if name in by_id else f"{name} was not asked" for name in wanted]


def _failed(results: Sequence[Result], prefixes: Sequence[str], *outcomes: Outcome) -> list[Result]:
    wanted = outcomes or BLOCKED
    return [one for one in results if one.outcome in wanted and one.id.startswith(tuple(prefixes))]


def _unknown(summary: str, missing: tuple[str, ...]) -> Prediction:
    return Prediction(None, Provisions.UNKNOWN, summary, (), missing=missing)


def _another(reason: Result, early: Sequence[Result], agent: bool | None = False) -> Prediction:
    """waagent provisions, or nobody: none of the guide's rows. waagent reports ready, as a cloud-init before 24.3."""
    summary = f"none of the guide's rows: {reason.summary}"
    by_waagent = reason.id == "waagent.provisioning" and reason.code == "MSP-P345"
    provisions = Provisions.MAYBE if by_waagent and agent and not early else Provisions.NO
    return Prediction(None, provisions, summary, (reason.id, *(one.id for one in early)), code=_code(reason))


def _does_not_start(row: Row, early: Sequence[Result], reasons: tuple[str, ...]) -> Prediction:
    first = early[0]
    summary = f"a VM of it does not get as far as the guide's row {row.number}: {first.id}: {first.summary}"
    return Prediction(row, Provisions.NO, summary, (*reasons, *(one.id for one in early)), code=_code(first))


def _own_kernel_redirects(results: Sequence[Result]) -> bool:
    """Whether the image's kernel loaded, attached and redirected when it was asked."""
    asked = [one for one in results if one.id.startswith(_ASKED)]
    kinds = [kind for kind in _ASKED if any(one.id.startswith(kind) for one in asked)]
    return len(kinds) == len(_ASKED) and all(one.outcome in (Outcome.PASS, Outcome.WARN) for one in asked)


def _outcome(row: Row, results: Sequence[Result], reasons: tuple[str, ...]) -> Prediction:
    code = codes.all_codes()[row.code]
    if not row.agent:
        return Prediction(row, Provisions.NO, _told(row), reasons, row.failure, code=code)
    found = {cause.name: _failed(results, cause.ids) for cause in CAUSES[:3]}
    causes = tuple(name for name, failed in found.items() if failed)
    why = tuple(dict.fromkeys(one.id for failed in found.values() for one in failed))
    if not row.asks:
        if causes:
            summary = f"{_told(row)}; and the agent will not be healthy either: {', '.join(causes)}"
            return Prediction(row, Provisions.NO, summary, (*reasons, *why), row.failure, causes, code)
        return Prediction(row, Provisions.MAYBE, _told(row), reasons, row.failure, code=code)
    if causes:
        summary = f"cloud-init will report that the agent is unhealthy: {', '.join(causes)}"
        return Prediction(row, Provisions.NO, summary, (*reasons, *why), row.failure, causes, code)
    open_ones = [one for cause in CAUSES[:3] for one in _failed(results, cause.ids, Outcome.ERROR)]
    if open_ones:
        return _open(row, open_ones, reasons)
    left = _failed(results, ("leftovers.keys",))
    beside = ", unless the platform refuses a key: one of another VM is in the image" if left else ""
    summary = f"cloud-init will wait until the agent is healthy, then report ready{beside}"
    return Prediction(row, Provisions.YES, summary, (*reasons, *(one.id for one in left)))


def _open(row: Row, open_ones: Sequence[Result], reasons: tuple[str, ...]) -> Prediction:
    missing = tuple(f"{one.id}: {one.summary}" for one in open_ones)
    return Prediction(row, Provisions.UNKNOWN, f"row {row.number}, and {missing[0]}", reasons, missing=missing)


def _told(row: Row) -> str:
    first = row.failure.splitlines()[-1]
    return f"{row.name}: the portal will show `{first}`"


# --- as Results -------------------------------------------------------------------------------------------------------

_ROW, _OUTCOME = "The row of the guide's table", "What a VM of it will do, deployed with MSP"
_OUTCOMES = {
    Provisions.YES: Outcome.PASS,
    Provisions.MAYBE: Outcome.WARN,
    Provisions.NO: Outcome.FAIL,
    Provisions.UNKNOWN: Outcome.ERROR,
}


def results(image: Image, checked: Sequence[Result]) -> Iterator[Result]:
    """`prediction.row` and `prediction.outcome`."""
    found = predict(image, checked)
    by_id = {result.id: result for result in checked}
    yield _row(found, by_id)
    yield _of_outcome(found, by_id)


def _row(found: Prediction, by_id: Mapping[str, Result]) -> Result:
    version = by_id.get("cloud-init.version")
    beside = {"cloud-init": version.summary if version else None}
    if found.row is None:
        known = found.provisions is not Provisions.UNKNOWN
        outcome = Outcome.SKIP if known else Outcome.ERROR
        return Result("prediction.row", _ROW, outcome, found.summary, {**beside, "reasons": list(found.reasons)},
                      remedy=None if known else "see the ERRORs above", guide=guide.NEW_VM_LINUX)  # fmt: skip
    cells = found.row.cells
    evidence: dict[str, Json] = {
        "row": found.row.number,
        "GPA Installed": cells[0],
        "Cloud-init Version": cells[1],
        "Expected Failure": cells[2],
        "Cause": cells[3],
        **beside,
        "reasons": {name: by_id[name].summary for name in found.reasons if name in by_id},
    }
    return Result("prediction.row", _ROW, Outcome.PASS, f"row {found.row.number}: {found.row.name}", evidence,
                  guide=guide.NEW_VM_LINUX)  # fmt: skip


_LOAD = "whether its kernel takes the agent's eBPF object: --kernel"
_START = "whether the agent comes up: --boot"


def _of_outcome(found: Prediction, by_id: Mapping[str, Result]) -> Result:
    tried = any(name.startswith("own-kernel.load.") for name in by_id)
    evidence: dict[str, Json] = {
        "will provision": str(found.provisions),
        "row": found.row.number if found.row else None,
        "portal": found.portal_text or None,
        "cause in the guide": found.row.cause if found.row else None,
        "causes": list(found.causes),
        "reasons": {name: by_id[name].summary for name in found.reasons if name in by_id},
        "missing": list(found.missing),
    }
    if found.provisions is Provisions.YES:
        platform = codes.all_codes()["MSP-P205"]
        evidence["if it fails all the same"] = f"{platform.id}: {platform.title}. {platform.remedy}"
        evidence["not tried"] = [_START] if tried else [_LOAD, _START]
    remedies = [by_id[name].remedy for name in found.reasons if name in by_id and by_id[name].outcome in BLOCKED]
    remedy = next((text for text in remedies if text), None) or (found.code.remedy if found.code else None)
    if found.provisions is Provisions.UNKNOWN:
        remedy = "see the ERRORs above; `msp-harness image check --full IMAGE` finds it out"
    summary = {
        Provisions.YES: f"it will provision{'' if tried else ', as far as can be read'}: {found.summary}",
        Provisions.MAYBE: f"it may fail, up to 100% of the time: {found.summary}",
        Provisions.NO: f"it will not provision: {found.summary}",
        Provisions.UNKNOWN: f"not known: {found.summary}",
    }[found.provisions]
    return Result("prediction.outcome", _OUTCOME, _OUTCOMES[found.provisions], summary, evidence, remedy=remedy,
                  guide=guide.NEW_VM_LINUX, code=found.code.id if found.code else None)  # fmt: skip
