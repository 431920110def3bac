"""leftovers.*: what another VM left in the image. Names and sizes are told, contents never."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.image import agent_files, reading
from harness.image.agent_files import WAAGENT
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.image.tree import Kind
from harness.msp import guide, image_codes
from harness.report import Json, Result

KEYS, LOGS = "/var/lib/azure-proxy-agent/keys", "/var/log/azure-proxy-agent"
_SHOWN = 40
_PASSWORD = re.compile(r"<(?:\w+:)?(?:UserPassword|AdminPassword)>\s*([^<\s][^<]*)<", re.IGNORECASE)
_REDACTED = re.compile(r"^(?:REDACTED|\*+)$", re.IGNORECASE)


def _files(image: Image, folder: str, *, keys: bool = False) -> list[str]:
    """The files below a folder. Raises Unread where nobody looked."""
    if not image.tree.is_directory(folder):
        reading.exists(image, folder)
        return []
    reading.names(image, folder)
    return [path for path, entry in image.tree.below(folder) if entry.kind is Kind.FILE
            and (not keys or path.endswith((".key", ".encrypted")))]  # fmt: skip


def _keys(image: Image, question: Question) -> Iterator[Result]:
    configured = agent_files.config(image).text("latchKeyFolder", KEYS).rstrip("/") or KEYS
    folders = list(dict.fromkeys((configured, KEYS, "/var/lib/azure-proxy-agent")))
    found = list(dict.fromkeys(path for folder in folders for path in _files(image, folder, keys=True)))
    evidence: dict[str, Json] = {"folders": folders, "files": found[:_SHOWN]}
    if found:
        summary = f"{len(found)} key of another VM: {', '.join(found[:3])}" if len(found) == 1 else (
            f"{len(found)} keys of other VMs: {', '.join(found[:3])}")  # fmt: skip
        yield question.bad(summary, evidence, code=image_codes.KEY_IN_IMAGE)
    else:
        yield question.good("no key of the agent", evidence)


def _status(image: Image, question: Question) -> Iterator[Result]:
    configured = agent_files.config(image)
    logs = configured.text("logFolder", LOGS).rstrip("/") or LOGS
    keys = configured.text("latchKeyFolder", KEYS).rstrip("/") or KEYS
    events = configured.text("eventFolder", f"{logs}/events").rstrip("/")
    found = [path for folder in dict.fromkeys((logs, LOGS, keys, KEYS, events)) for path in _files(image, folder)]
    found = [path for path in dict.fromkeys(found) if not path.endswith((".key", ".encrypted"))]
    telling = [path for path in found if path.rpartition("/")[2] in ("status.json", "provisioned.tag", "status.tag")]
    evidence: dict[str, Json] = {"files": found[:_SHOWN]}
    if telling:
        summary = f"the agent's state of another VM: {', '.join(telling[:4])}"
        yield question.bad(summary, evidence, code=image_codes.STATUS_IN_IMAGE)
    elif found:
        summary = f"{len(found)} files of the agent's logs are in the image: {', '.join(found[:3])}"
        yield question.doubt(summary, evidence, code=image_codes.STATUS_IN_IMAGE)
    else:
        yield question.good("no status and no log of the agent")


def _extension(image: Image, question: Question) -> Iterator[Result]:
    found = agent_files.extensions(image)
    if found:
        summary = f"the VM extension of another VM: {', '.join(found)}"
        remedy = "remove the folders: the platform installs an extension anew, and a package's agent needs none"
        yield question.doubt(summary, {"folders": list(found)}, remedy, image_codes.STATUS_IN_IMAGE)
    else:
        yield question.good("no folder of the agent's VM extension")


def _waagent(image: Image, question: Question) -> Iterator[Result]:
    if not image.tree.is_directory(WAAGENT):
        reading.exists(image, WAAGENT)
        yield question.good(f"there is no {WAAGENT}")
        return
    names = reading.names(image, WAAGENT)
    private = [
        name for name in names if name.endswith((".prv", ".pem", ".p7m", ".pfx")) or name == "TransportPrivate.pem"
    ]
    state = [
        name for name in names if name.endswith((".xml", ".crt", ".cer", ".tag")) or name in ("provisioned", "history")
    ]
    evidence: dict[str, Json] = {"private keys": private[:_SHOWN], "state": state[:_SHOWN]}
    password = _has_password(image)
    if private or password:
        what = [f"private keys in {WAAGENT}: {', '.join(private[:3])}"] if private else []
        what += [f"a password in {WAAGENT}/ovf-env.xml"] if password else []
        yield question.bad("; ".join(what), evidence, code=image_codes.SECRET_IN_IMAGE)
    elif state:
        summary = f"waagent's state of another VM in {WAAGENT}: {', '.join(state[:4])}"
        yield question.doubt(summary, evidence, "`waagent -deprovision -force` before the image is made",
                             image_codes.NOT_GENERALISED)  # fmt: skip
    else:
        yield question.good(f"{WAAGENT} holds nothing of another VM")


def _has_password(image: Image) -> bool:
    """Whether ovf-env.xml has a password that was not made unreadable; it is looked for as text, and never told."""
    text = reading.text(image, f"{WAAGENT}/ovf-env.xml") or ""
    return any(not _REDACTED.match(match.strip()) for match in _PASSWORD.findall(text))


ASKED = (
    (Question("leftovers.keys", "Keys of another VM", guide.KEY_RESET), _keys),
    (Question("leftovers.status", "The agent's state of another VM"), _status),
    (Question("leftovers.extension", "The agent's VM extension of another VM", guide.SERVICE_LINUX), _extension),
    (Question("leftovers.waagent", "waagent's state of another VM"), _waagent),
)


def leftovers(image: Image) -> Iterator[Result]:
    """What must not be in an image."""
    yield from answers(image, ASKED)
