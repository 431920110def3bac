"""agent.*: the executable, where it is found, its version, its configuration, and whether there are two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.image import agent_files, reading, units
from harness.image.agent_files import NAME, UNIT
from harness.image.checks.question import Question, answers
from harness.image.checks.system import machine
from harness.image.elf_header import interpreter_of, machine_of
from harness.image.image import Image
from harness.msp import codes, guide, image_codes
from harness.msp.codes import Code
from harness.report import Json, Result


def _code(identifier: str) -> Code:
    return codes.all_codes()[identifier]


def _executable(image: Image, question: Question) -> Iterator[Result]:
    path = agent_files.program(image)
    if path is None:
        evidence: dict[str, Json] = {
            "package": NAME in image.packages,
            "unit": units.find(image, UNIT) is not None,
            "looked in": list(agent_files.PATH),
        }
        yield question.bad("azure-proxy-agent is not in the image", evidence, code=_code("MSP-P202"))
        return
    entry = reading.known(image, path)
    if entry is None:
        target = image.tree.link(path)
        yield question.bad(f"{path} is a link to {target}, which is not there", code=codes.NOT_STARTED)
        return
    evidence = {"path": path, "mode": f"{entry.mode:04o}", "owner": entry.uid, "bytes": entry.size}
    if not entry.mode & 0o111:
        remedy = f"chmod 0755 {path}"
        yield question.bad(f"{path} is not executable (mode {entry.mode:04o})", evidence, remedy, codes.NOT_STARTED)
        return
    data = reading.data(image, path)
    if not data:
        yield question.bad(f"{path} is {'empty' if data == b'' else 'no file'}", evidence, code=codes.NOT_STARTED)
        return
    yield from _what_it_is(image, question, path, data, evidence)


def _what_it_is(
    image: Image, question: Question, path: str, data: bytes, evidence: dict[str, Json]
) -> Iterator[Result]:
    own, of_image = machine_of(data), machine(image)[0]
    if own:
        evidence["machine"] = own
        if of_image and own != of_image:
            remedy = f"install the agent's package for {of_image}"
            yield question.bad(f"{path} is for {own}, the image for {of_image}", evidence, remedy, codes.NOT_STARTED)
        else:
            yield question.good(f"{path}, an ELF executable for {own}", evidence)
        return
    by = interpreter_of(data)
    if not by:
        yield question.bad(f"{path} is neither an ELF file nor a script", evidence, code=codes.NOT_STARTED)
        return
    evidence["script of"] = by
    interpreter = by.split()[0] if by.split() else ""
    if not reading.exists(image, interpreter) or image.tree.entry(interpreter) is None:
        remedy = f"install what provides {interpreter}"
        yield question.bad(f"{path} is a script of {by}, which is not there", evidence, remedy, codes.NOT_STARTED)
    else:
        yield question.good(f"{path}, a script of {by}", evidence)


def _path(image: Image, question: Question) -> Iterator[Result]:
    found, program = agent_files.executable(image), agent_files.program(image)
    if program is None:
        yield question.none("there is no agent")
    elif found is None:
        summary = f"the agent is {program}, which is in no directory of PATH: cloud-init reports it as not found"
        yield question.bad(summary, {"program": program}, code=image_codes.AGENT_NOT_IN_PATH)
    else:
        yield question.good(f"cloud-init finds {found}", {"program": found})


def _version(image: Image, question: Question) -> Iterator[Result]:
    package = image.packages.get(NAME)
    if package is not None:
        yield question.good(f"{package.version}, by its package", {"package": package.version})
    elif "packages" in image.unseen:
        yield question.unknown(f"the packages were not read: {image.unseen['packages']}")
    elif agent_files.program(image) is not None:
        yield question.none("no package brought it; its own --version says it only when it is run, which --boot does")
    else:
        yield question.none("there is no agent")


# The members that the agent reads, with their kinds: shared/facts/agent.md.
_MEMBERS: Mapping[str, type | tuple[type, ...]] = {
    "logFolder": str, "eventFolder": str, "latchKeyFolder": str, "monitorIntervalInSeconds": (int, float),
    "pollKeyStatusIntervalInSeconds": (int, float), "hostGAPluginSupport": (int, bool), "ebpfProgramName": str,
    "cgroupRoot": str, "fileLogLevel": str,
}  # fmt: skip
_FOLDERS = ("logFolder", "eventFolder", "latchKeyFolder", "cgroupRoot")


def _config(image: Image, question: Question) -> Iterator[Result]:
    if agent_files.program(image) is None:
        yield question.none("there is no agent")
        return
    config = agent_files.config(image)
    if config.trouble:
        yield question.bad(f"{config.path}: {config.trouble}", code=image_codes.AGENT_CONFIG_WRONG)
        return
    evidence: dict[str, Json] = {name: _shown(config.values[name]) for name in _MEMBERS if name in config.values}
    wrong = list(_wrong(config.values))
    if wrong:
        yield question.bad(f"{config.path}: {'; '.join(wrong)}", evidence, code=image_codes.AGENT_CONFIG_WRONG)
        return
    odd = list(_odd(config.values))
    if odd:
        yield question.doubt(f"{config.path}: {'; '.join(odd)}", evidence, "leave it as the package has it")
        return
    yield question.good(f"{config.path} is a JSON object with members of the right kinds", evidence)


def _shown(value: Any) -> Json:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)[:200]


def _wrong(values: Mapping[str, Any]) -> Iterator[str]:
    for name, kind in _MEMBERS.items():
        value = values.get(name)
        if name not in values:
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and name != "hostGAPluginSupport"):
            yield f"{name} is {json.dumps(value)[:60]}"
        elif name in _FOLDERS and not str(value).startswith("/"):
            yield f"{name} is no absolute path: {value!r}"
        elif isinstance(value, int | float) and name.endswith("InSeconds") and value <= 0:
            yield f"{name} is {value}"


def _odd(values: Mapping[str, Any]) -> Iterator[str]:
    if values.get("latchKeyFolder", "").startswith(("/tmp", "/run", "/var/run", "/dev/shm")):
        yield f"the key is kept in {values['latchKeyFolder']}, which a reboot empties: it is lost then"
    if "latchKeyFolder" not in values or "logFolder" not in values:
        missing = [name for name in ("logFolder", "latchKeyFolder") if name not in values]
        yield f"{' and '.join(missing)} is not set"


def _single(image: Image, question: Question) -> Iterator[Result]:
    folders = agent_files.extensions(image)
    found = agent_files.executable(image)
    others = [f"{place}/{NAME}" for place in agent_files.PATH if image.tree.exists(f"{place}/{NAME}")]
    real = {image.tree.resolve(path) for path in others}
    if len(real - {None}) > 1:
        summary = f"there are {len(real)} executables in PATH: {', '.join(others)}; the first runs"
        yield question.doubt(summary, {"executables": list(others)}, "keep one", _code("MSP-P315"))
    elif folders and found is not None:
        evidence: dict[str, Json] = {"extension": list(folders), "package": found}
        yield question.doubt("the image has the package's agent and the VM extension's", evidence,
                             code=_code("MSP-P315"))  # fmt: skip
    elif found is None and agent_files.program(image) is None:
        yield question.none("there is no agent")
    else:
        yield question.good("one agent")


ASKED = (
    (Question("agent.executable", "The agent's executable", guide.NEW_VM_LINUX), _executable),
    (Question("agent.path", "Where cloud-init looks for the agent", guide.NEW_VM_LINUX), _path),
    (Question("agent.version", "The agent's version"), _version),
    (Question("agent.config", "The agent's configuration", guide.SERVICE_LINUX), _config),
    (Question("agent.single", "One agent", guide.SERVICE_LINUX), _single),
)


def agent(image: Image) -> Iterator[Result]:
    """The agent's program and its settings."""
    yield from answers(image, ASKED)
