"""agent.unit, agent.enabled, agent.order …: whether systemd starts the agent at boot, and before cloud-init asks it."""

from __future__ import annotations

from collections.abc import Iterator

from harness.image import agent_files, reading, units
from harness.image.agent_files import UNIT
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.msp import codes, guide, image_codes
from harness.report import Json, Result

ASKS = ("cloud-init-local.service", "cloud-init.service", "cloud-init-network.service")
"""Where cloud-init asks the agent: the Azure datasource in its local stage, before the network."""
_BEFORE = "network-pre.target"
_BOOTED = frozenset(
    {"multi-user.target", "graphical.target", "basic.target", "sysinit.target", "network-pre.target", "default.target",
     "local-fs.target", "cloud-init.target", "network.target", "network-online.target"}
)  # fmt: skip
_LOST = "install the package azure-proxy-agent, which has the unit"


def _unit(image: Image, question: Question) -> Iterator[Result]:
    found = units.find(image, UNIT)
    if found is None:
        if agent_files.program(image) is None:
            yield question.none("there is no agent")
        else:
            yield question.bad(f"there is no {UNIT}: nothing starts the agent", remedy=_LOST,
                               code=codes.all_codes()["MSP-P314"])  # fmt: skip
        return
    evidence: dict[str, Json] = {"path": found.path, "drop-ins": list(found.drop_ins)}
    if found.masked:
        yield question.bad(f"{found.path} is masked", evidence, code=codes.all_codes()["MSP-P314"])
        return
    program = agent_files.started(image)
    evidence["ExecStart"] = found.value("Service", "ExecStart")
    if program is None:
        yield question.bad(f"{found.path} has no ExecStart", evidence, _LOST, codes.NOT_STARTED)
        return
    full = program if program.startswith("/") else _in_path(image, program)
    if full is None or not reading.exists(image, full) or image.tree.entry(full) is None:
        yield question.bad(f"{found.path} starts {program}, which is not there", evidence, _LOST, codes.NOT_STARTED)
        return
    asked = agent_files.executable(image)
    if asked and image.tree.resolve(full) != image.tree.resolve(asked):
        summary = f"{found.path} starts {full}, and cloud-init asks {asked}: another file"
        yield question.doubt(summary, evidence, code=codes.all_codes()["MSP-P316"])
        return
    yield question.good(f"{found.path} starts {full}", evidence)


def _in_path(image: Image, name: str) -> str | None:
    return next((f"{folder}/{name}" for folder in agent_files.PATH if image.tree.exists(f"{folder}/{name}")), None)


def _enabled(image: Image, question: Question) -> Iterator[Result]:
    found = units.find(image, UNIT)
    if found is None or found.masked:
        return
    targets = units.wanted_by(image, UNIT)
    preset = units.preset(image, UNIT)
    evidence: dict[str, Json] = {"wanted by": list(targets), "preset": preset}
    if not targets:
        first = reading.data(image, "/etc/machine-id") if image.tree.exists("/etc/machine-id") else b""
        if preset == "enable" and first in (b"", b"uninitialized\n"):
            summary = "nothing wants it yet; a preset enables it at the first boot (ConditionFirstBoot)"
            yield question.doubt(summary, evidence, f"`systemctl enable {UNIT}` in the image is sure")
            return
        yield question.bad("it is not enabled: no unit wants it", evidence, code=codes.all_codes()["MSP-P314"])
    elif not _BOOTED & set(targets):
        summary = f"it is wanted by {', '.join(targets)} only, which a boot may not reach"
        yield question.doubt(summary, evidence, f"WantedBy=multi-user.target, `systemctl reenable {UNIT}`")
    else:
        yield question.good(f"wanted by {', '.join(targets)}", evidence)


def _order(image: Image, question: Question) -> Iterator[Result]:
    found = units.find(image, UNIT)
    if found is None or found.masked:
        return
    order = units.order(image)
    for asker in ASKS:
        way = order.way(asker, UNIT) if image.tree.exists(f"/usr/lib/systemd/system/{asker}") or \
            units.find(image, asker) is not None else None  # fmt: skip
        if way:
            evidence: dict[str, Json] = {"order": list(way)}
            summary = f"{UNIT} starts only after {asker}, which waits for it: {' → '.join(way)}"
            if asker == ASKS[0]:
                yield question.bad(summary, evidence, code=image_codes.AGENT_WAITS_FOR_CLOUD_INIT)
            else:
                yield question.doubt(summary, evidence, code=image_codes.AGENT_WAITS_FOR_CLOUD_INIT)
            return
    before = found.words("Unit", "Before")
    evidence = {"Before": list(before), "After": found.words("Unit", "After"),
                "DefaultDependencies": found.value("Unit", "DefaultDependencies")}  # fmt: skip
    if order.way(UNIT, _BEFORE) is None:
        summary = f"nothing orders it before {_BEFORE}: processes may reach the endpoints before it redirects"
        yield question.doubt(summary, evidence, f"Before={_BEFORE} and Wants={_BEFORE} in [Unit]")
    else:
        yield question.good(f"before {_BEFORE}, and not after cloud-init", evidence)


ASKED = (
    (Question("agent.unit", "The agent's unit", guide.SERVICE_LINUX), _unit),
    (Question("agent.enabled", "Started at boot", guide.SERVICE_LINUX), _enabled),
    (Question("agent.order", "Before the network, and before cloud-init waits for it", guide.NEW_VM_LINUX), _order),
)


def unit(image: Image) -> Iterator[Result]:
    """What systemd does with the agent."""
    yield from answers(image, ASKED)
