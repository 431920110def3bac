"""waagent.*: whether the Azure Linux Agent is there, and which of the two provisions."""

from __future__ import annotations

from collections.abc import Iterator

from harness.image import reading, units
from harness.image.checks import cloud_init
from harness.image.checks.question import Question, answers
from harness.image.cloud_init import python_packages
from harness.image.image import Image
from harness.msp import guide, image_codes
from harness.report import Json, Result

CONFIG = "/etc/waagent.conf"
UNITS = ("walinuxagent.service", "waagent.service")
_PROGRAMS = ("/usr/sbin/waagent", "/usr/bin/waagent", "/usr/local/sbin/waagent", "/usr/share/oem/bin/waagent")
_PACKAGES = ("waagent", "walinuxagent", "WALinuxAgent", "python-azure-agent", "python3-azure-agent")


def program(image: Image) -> str | None:
    """Its executable. Raises Unread."""
    return next((path for path in _PROGRAMS if reading.exists(image, path)), None)


def settings(image: Image) -> dict[str, str]:
    """waagent.conf: `Name=value` rows, with comments. Raises Unread."""
    text = reading.text(image, CONFIG) or ""
    rows = (line.split("#", 1)[0].partition("=") for line in text.splitlines())
    return {name.strip(): value.strip().strip('"') for name, equals, value in rows if equals and name.strip()}


def provisions(image: Image) -> tuple[bool, str]:
    """Whether waagent provisions, and what says so. As waagent's get_provision_handler() has it. Raises Unread."""
    if program(image) is None:
        return False, "waagent is not in the image"
    if not _runs(image):
        return False, "waagent is not started"
    found = settings(image)
    agent = found.get("Provisioning.Agent", "")
    if not agent and "Provisioning.Enabled" in found:  # before 2.2.45
        old = found["Provisioning.Enabled"].lower() in ("y", "yes", "true", "1")
        uses = found.get("Provisioning.UseCloudInit", "n").lower() in ("y", "yes", "true", "1")
        said = f"Provisioning.Enabled={found['Provisioning.Enabled']} in {CONFIG}"
        if uses or not old:
            return False, f"{said}, Provisioning.UseCloudInit={found.get('Provisioning.UseCloudInit', 'n')}"
        if not _knows_agent(image):
            return True, said
    agent = agent or "auto"
    said = f"Provisioning.Agent={agent} in {CONFIG}" if "Provisioning.Agent" in found else "Provisioning.Agent is auto"
    if agent == "auto":
        enabled = _cloud_init_runs(image)
        return not enabled, f"{said}, and cloud-init is {'enabled' if enabled else 'not enabled'}"
    return agent == "waagent", said


def _knows_agent(image: Image) -> bool:
    """Whether this waagent reads Provisioning.Agent: by its source, else by its package's version (2.2.45 on)."""
    for folder in python_packages(image, "azurelinuxagent"):
        text = image.tree.text(f"{folder}/common/conf.py")
        if text is not None:
            return "Provisioning.Agent" in text
    for name in _PACKAGES:
        package = image.packages.get(name)
        if package is not None:
            words = package.version.rpartition(":")[2].replace("-", ".").split(".")[:3]
            return tuple(int(word) for word in words if word.isdecimal()) >= (2, 2, 45)
    return True


def _runs(image: Image) -> bool:
    found = [(name, unit) for name in UNITS if (unit := units.find(image, name)) is not None]
    return any(not unit.masked and units.wanted_by(image, name) for name, unit in found)


def _cloud_init_runs(image: Image) -> bool:
    """As waagent asks: is cloud-init-local.service enabled?"""
    name = "cloud-init-local.service"
    unit = units.find(image, name)
    return unit is not None and not unit.masked and bool(units.wanted_by(image, name))


def _installed(image: Image, question: Question) -> Iterator[Result]:
    path = program(image)
    package = next((image.packages[name] for name in _PACKAGES if name in image.packages), None)
    evidence: dict[str, Json] = {"program": path, "package": package.version if package else None}
    if path is None:
        remedy = "VM extensions need it: install it (its package is walinuxagent, waagent or WALinuxAgent)"
        yield question.doubt("waagent is not in the image: no VM extension can be added, the agent's neither", evidence,
                             remedy)  # fmt: skip
    elif not _runs(image):
        remedy = "`systemctl enable walinuxagent` (or waagent)"
        yield question.doubt(f"{path} is there, and no unit starts it", evidence, remedy)
    else:
        yield question.good(f"{package.version if package else path}", evidence)


def _provisioning(image: Image, question: Question) -> Iterator[Result]:
    own, said = provisions(image)
    evidence: dict[str, Json] = {name: value for name, value in settings(image).items() if "Provisioning." in name}
    if own:
        summary = f"waagent provisions ({said}), and it does not ask the agent"
        yield question.bad(summary, evidence, code=image_codes.WAAGENT_PROVISIONS)
    elif settings(image).get("Provisioning.Agent") == "disabled" and not cloud_init.here(image):
        summary = "nobody provisions: Provisioning.Agent=disabled, and there is no cloud-init"
        yield question.bad(summary, evidence, code=image_codes.CLOUD_INIT_OFF)
    else:
        yield question.good(f"waagent leaves provisioning to cloud-init: {said}", evidence)


ASKED = (
    (Question("waagent.installed", "The Azure Linux Agent"), _installed),
    (Question("waagent.provisioning", "Who provisions", guide.NEW_VM_LINUX), _provisioning),
)


def waagent(image: Image) -> Iterator[Result]:
    """The Azure Linux Agent."""
    yield from answers(image, ASKED)
