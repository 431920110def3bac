"""cloud-init.*: version, support of MSP, whether it runs, and whether it knows Azure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.image import cloud_config, cloud_init, kernels, reading, units
from harness.image.checks.question import Question, answers
from harness.image.cloud_init import Support
from harness.image.image import Image
from harness.msp import guide, image_codes
from harness.report import Json, Result

FIRST = (24, 3)
"""The version from which on the guide has cloud-init know of MSP."""

_UNITS = ("cloud-init-local.service", "cloud-init.service", "cloud-init-network.service", "cloud-init-main.service",
          "cloud-config.service", "cloud-final.service")  # fmt: skip
_NEEDED = {"cloud-init-local.service", "cloud-init-main.service"}
"""Without these the Azure datasource does not run at all; the others configure what it found."""
_IDENTIFY = "/etc/cloud/ds-identify.cfg"


def here(image: Image) -> bool:
    """Whether cloud-init is in the image: its Python package or its distribution's package. Raises Unread."""
    return bool(cloud_init.folders(image)) or cloud_init.package_version(image) is not None


def _version(image: Image, question: Question) -> Iterator[Result]:
    folders, package = cloud_init.folders(image), cloud_init.package_version(image)
    if not folders and package is None:
        yield question.bad("cloud-init is not in the image", code=image_codes.CLOUD_INIT_OFF)
        return
    if not folders:
        yield question.bad(f"the package cloud-init {package} is installed, and its files are not there",
                           code=image_codes.CLOUD_INIT_MIXED)  # fmt: skip
        return
    files = cloud_init.file_versions(image, folders[0])
    evidence: dict[str, Json] = {"package": package, "files": dict(files), "folders": list(folders)}
    numbers = {cloud_init.number(text) for text in files.values()} - {()}
    runs = next(iter(files.values()), "")
    if not runs:
        yield question.unknown(f"no file of {folders[0]} says a version", evidence)
        return
    differs = len(numbers) > 1 or (package is not None and not _same(cloud_init.number(package), numbers))
    if differs or len(folders) > 1:
        said = [f"{text} in {path}" for path, text in files.items()]
        if package is not None:
            said.insert(0, f"{package} by the package")
        said += [f"another one in {folder}" for folder in folders[1:]]
        summary = f"{runs} runs; it is of several versions: {', '.join(said)}"
        yield question.doubt(summary, evidence, code=image_codes.CLOUD_INIT_MIXED)
        return
    beside = (
        "" if cloud_init.number(runs) >= FIRST else ", older than the guide's 24.3: whether it knows MSP is asked next"
    )
    yield question.good(f"{package or runs}{beside}", evidence)


def _same(package: tuple[int, ...], files: set[tuple[int, ...]]) -> bool:
    """Package and files agree as far as both say: 24.4 beside 24.4.1 is another, 24.4 beside 24.4.0 is the same."""

    def whole(version: tuple[int, ...]) -> tuple[int, ...]:
        return (*version, 0, 0, 0)[:3]

    return not package or not files or whole(package) in {whole(one) for one in files}


def _msp(image: Image, question: Question) -> Iterator[Result]:
    folders = cloud_init.folders(image)
    if not folders:
        yield question.none("cloud-init is not in the image")
        return
    found = cloud_init.support(image, folders[0])
    versions = list(cloud_init.file_versions(image, folders[0]).values())
    version = versions[0] if versions else cloud_init.package_version(image) or "of unknown version"
    if found is None:
        yield question.bad(f"{folders[0]} has no Azure datasource", code=image_codes.CLOUD_INIT_OFF)
        return
    evidence: dict[str, Json] = {"version": version, "support": str(found.support), "looked at": list(found.files),
                                 "asks in": found.asks or None, "called": found.called}  # fmt: skip
    newer = cloud_init.number(version) >= FIRST
    if found.support is Support.ASKS:
        late = "" if newer else ", though older than 24.3: support was brought back to it"
        yield question.good(f"{version} asks the agent, in {found.asks}(){late}", evidence)
        return
    how = {
        Support.PARSED: "reads ProvisionGuestProxyAgent and asks nobody",
        Support.NONE: "does not read ProvisionGuestProxyAgent" if found.asks else "knows nothing of the agent",
        Support.ASKS: "",
    }[found.support]
    though = ", though it calls itself 24.3 or later" if newer else ""
    yield question.bad(f"{version} {how}: it reports ready without asking{though}", evidence,
                       code=image_codes.CLOUD_INIT_UNAWARE)  # fmt: skip


def _enabled(image: Image, question: Question) -> Iterator[Result]:
    if not here(image):
        yield question.none("cloud-init is not in the image")
        return
    off: list[str] = []
    doubts: list[str] = []
    if reading.exists(image, "/etc/cloud/cloud-init.disabled"):
        off.append("/etc/cloud/cloud-init.disabled is there")
    own = kernels.kernels(image)
    if "disabled" in own.parameters("cloud-init"):
        off.append("cloud-init=disabled on the command line")
    policy = _identify(image).get("policy", "")
    if policy.split(",")[0].strip() == "disabled":
        off.append(f"policy: {policy} in {_IDENTIFY}")
    seen = {name: found for name in _UNITS if (found := units.find(image, name)) is not None}
    evidence: dict[str, Json] = {name: found.path for name, found in seen.items()}
    for name, found in seen.items():
        if found.masked:
            (off if name in _NEEDED else doubts).append(f"{name} is masked")
        elif not units.wanted_by(image, name) and name != "cloud-init-main.service":
            preset = units.preset(image, name)
            (off if name in _NEEDED and preset != "enable" else doubts).append(f"{name} is wanted by no unit")
    if not seen:
        off.append("it has no units")
    elif "cloud-init-local.service" not in seen:
        off.append("it has no cloud-init-local.service")
    if off:
        yield question.bad(f"cloud-init does not run: {'; '.join(off)}", evidence, code=image_codes.CLOUD_INIT_OFF)
    elif doubts:
        yield question.doubt("; ".join(doubts), evidence, "unmask and enable them: what they configure is left out")
    else:
        yield question.good(f"{', '.join(seen)} are enabled", evidence)


def _identify(image: Image) -> dict[str, str]:
    """ds-identify.cfg: `name: value` rows."""
    text = reading.text(image, _IDENTIFY) or ""
    rows = (line.partition(":") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, colon, value in rows if colon}


def _datasource(image: Image, question: Question) -> Iterator[Result]:
    folders = cloud_init.folders(image)
    if not folders:
        yield question.none("cloud-init is not in the image")
        return
    if (
        not image.tree.exists(f"{folders[0]}/sources/DataSourceAzure.py")
        and cloud_init.support(image, folders[0]) is None
    ):
        yield question.bad(f"{folders[0]} has no Azure datasource", code=image_codes.CLOUD_INIT_OFF)
        return
    config = cloud_config.read(image)
    listed, by = config.values.get("datasource_list"), config.told.get("datasource_list", ())
    evidence: dict[str, Json] = {"datasource_list": _json(listed), "from": list(by), "no YAML": dict(config.wrong)}
    fixed = _fixed(image)
    if fixed and fixed[0].lower() != "azure":
        yield question.bad(f"{fixed[1]} has it look for {fixed[0]} only", evidence, code=image_codes.CLOUD_INIT_OFF)
        return
    if listed is None:
        known = _built_in(image, folders[0])
        if known is False:
            yield question.bad(
                "Azure is not in its built-in datasource_list", evidence, code=image_codes.CLOUD_INIT_OFF
            )
        else:
            yield question.good("datasource_list is not set: it looks for all it knows, Azure among them", evidence)
        return
    names = [str(name) for name in listed] if isinstance(listed, list) else str(listed).strip("[] ").split(",")
    if "azure" not in [name.strip().lower() for name in names]:
        summary = f"Azure is not in datasource_list [{', '.join(names)}] of {by[-1]}"
        yield question.bad(summary, evidence, code=image_codes.CLOUD_INIT_OFF)
        return
    yield question.good(f"datasource_list [{', '.join(names)}] of {by[-1]}", evidence)


def _fixed(image: Image) -> tuple[str, str] | None:
    """The datasource that ds-identify is told to take without looking, and what tells it."""
    own = kernels.kernels(image)
    for word in ("ci.datasource", "ci.ds"):
        values = own.parameters(word)
        if values and values[-1]:
            return values[-1], f"{word}= on the command line"
    values = own.parameters("ds")
    if values and values[-1]:
        return values[-1].split(";")[0], "ds= on the command line"
    value = _identify(image).get("datasource", "")
    return (value, _IDENTIFY) if value else None


def _built_in(image: Image, folder: str) -> bool | None:
    """Whether Azure is in the list of cloudinit/settings.py; None where that is not there."""
    text = reading.text(image, f"{folder}/settings.py")
    return None if text is None else '"Azure"' in text or "'Azure'" in text


def _json(value: Any) -> Json:
    if isinstance(value, list):
        return [str(item) for item in value[:100]]
    return None if value is None else str(value)[:500]


def _config(image: Image, question: Question) -> Iterator[Result]:
    if not here(image):
        return
    config = cloud_config.read(image)
    if not config.told and not config.wrong:
        yield question.doubt("there is no /etc/cloud/cloud.cfg", remedy="reinstall the package cloud-init")
    elif config.wrong:
        text = "; ".join(f"{path}: {why}" for path, why in config.wrong.items())
        yield question.doubt(f"{text}: cloud-init leaves it out", {"no YAML": dict(config.wrong)}, "correct it")
    else:
        yield question.good("cloud.cfg and cloud.cfg.d are YAML mappings", {"members": sorted(config.told)[:100]})


# What a VM cannot do without: the user of the VM's model, its password and keys, its name.
_MODULES: Mapping[str, str] = {
    "users-groups": "the administrator's account is not made",
    "ssh": "host keys and the administrator's key are not written",
    "set-passwords": "the administrator's password is not set",
    "set-hostname": "the VM's name is not set",
}
_STAGES = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")


def _modules(image: Image, question: Question) -> Iterator[Result]:
    if not here(image):
        return
    values = cloud_config.read(image).values
    stages = {name: values.get(name) for name in _STAGES}
    if not any(isinstance(rows, list) for rows in stages.values()):
        yield question.doubt("no list of modules in its configuration: it configures nothing",
                             remedy="reinstall /etc/cloud/cloud.cfg")  # fmt: skip
        return
    there = {_module(row) for rows in stages.values() if isinstance(rows, list) for row in rows}
    lacks = {name: harm for name, harm in _MODULES.items() if name not in there}
    evidence: dict[str, Json] = {"modules": sorted(there)}
    if lacks:
        text = "; ".join(f"{name}: {harm}" for name, harm in lacks.items())
        yield question.doubt(f"left out of its modules: {text}", evidence, "put them back into /etc/cloud/cloud.cfg")
    else:
        yield question.good("the modules that a VM needs are in its lists", evidence)


def _module(row: Any) -> str:
    """`users-groups` for users_groups, [users-groups, always] and the like."""
    name = row[0] if isinstance(row, list) and row else row
    return str(name).replace("_", "-")


def _network(image: Image, question: Question) -> Iterator[Result]:
    if not here(image):
        return
    values = cloud_config.read(image).values
    network, azure = values.get("network"), (values.get("datasource") or {})
    off = []
    if isinstance(network, dict) and network.get("config") == "disabled":
        off.append("network: {config: disabled}")
    own = azure.get("Azure") if isinstance(azure, dict) else None
    if isinstance(own, dict) and own.get("apply_network_config") is False:
        off.append("datasource: {Azure: {apply_network_config: false}}")
    if "disabled" in kernels.kernels(image).parameters("network-config"):
        off.append("network-config=disabled on the command line")
    evidence: dict[str, Json] = {"set": list(off)}
    if off:
        remedy = "take it out, or make sure that the image's own network configuration fits every VM"
        yield question.doubt(f"cloud-init configures no network: {', '.join(off)}", evidence, remedy)
    else:
        yield question.good("cloud-init configures the network", evidence)


ASKED: Sequence[Any] = (
    (Question("cloud-init.version", "cloud-init's version", guide.NEW_VM_LINUX), _version),
    (Question("cloud-init.msp", "Support of MSP in cloud-init", guide.NEW_VM_LINUX), _msp),
    (Question("cloud-init.enabled", "cloud-init runs", guide.NEW_VM_LINUX), _enabled),
    (Question("cloud-init.datasource", "Azure among its datasources", guide.NEW_VM_LINUX), _datasource),
    (Question("cloud-init.config", "cloud-init's configuration"), _config),
    (Question("cloud-init.modules", "cloud-init's modules"), _modules),
    (Question("cloud-init.network", "The network by cloud-init"), _network),
)


def cloud(image: Image) -> Iterator[Result]:
    """cloud-init."""
    yield from answers(image, ASKED)
