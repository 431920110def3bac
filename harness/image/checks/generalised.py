"""generalised.*: what must be made anew in every VM."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.image import reading
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.msp import image_codes
from harness.report import Json, Result

_CODE = image_codes.NOT_GENERALISED
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_HOST_KEY = re.compile(r"ssh_host_\w+_key")
_HISTORIES = (".bash_history", ".zsh_history", ".python_history", ".lesshst", ".viminfo", ".mysql_history")
_NET_RULES = "/etc/udev/rules.d/70-persistent-net.rules"
_PLAIN_NAMES = frozenset({"", "localhost", "localhost.localdomain", "debian", "ubuntu", "unassigned-hostname"})


def _machine_id(image: Image, question: Question) -> Iterator[Result]:
    text = reading.text(image, "/etc/machine-id")
    dbus = "/var/lib/dbus/machine-id"
    own = reading.text(image, dbus) if image.tree.exists(dbus) and image.tree.link(dbus) is None else None
    remedy = "`truncate -s 0 /etc/machine-id; ln -sf /etc/machine-id /var/lib/dbus/machine-id` before the image is made"
    if text is not None and _MACHINE_ID.fullmatch(text.strip()):
        yield question.bad("/etc/machine-id is of one machine: every VM would have the same", None, remedy, _CODE)
    elif own is not None and _MACHINE_ID.fullmatch(own.strip()):
        yield question.bad(f"{dbus} is of one machine: systemd takes it over", None, remedy, _CODE)
    elif text is None:
        yield question.doubt("there is no /etc/machine-id: with a read-only root it cannot be made", None,
                             "an empty file is what systemd wants")  # fmt: skip
    elif text.strip() not in ("", "uninitialized"):
        yield question.doubt("/etc/machine-id holds something that is no machine-id", None, remedy)
    else:
        yield question.good(f"/etc/machine-id is {'empty' if not text.strip() else 'uninitialized'}")


def _host_keys(image: Image, question: Question) -> Iterator[Result]:
    if not image.tree.is_directory("/etc/ssh"):
        reading.exists(image, "/etc/ssh")
        yield question.good("there is no /etc/ssh")
        return
    found = [name for name in reading.names(image, "/etc/ssh") if _HOST_KEY.fullmatch(name)]
    evidence: dict[str, Json] = {"keys": list(found)}
    if found:
        summary = f"ssh host keys are in the image: {', '.join(found)}; whoever has the image can pose as any VM of it"
        yield question.bad(summary, evidence, "rm /etc/ssh/ssh_host_*; cloud-init makes them anew", _CODE)
    else:
        yield question.good("no ssh host keys")


def _passwords(image: Image, question: Question) -> Iterator[Result]:
    entry = image.tree.entry("/etc/shadow")
    if entry is not None and entry.data is None:
        yield question.none("/etc/shadow was not read: an image's password hashes are not taken out of it")
        return
    text = reading.text(image, "/etc/shadow") or ""
    rows = [line.split(":") for line in text.splitlines() if line.count(":") >= 2]
    empty = [row[0] for row in rows if row[1] == ""]
    real = [row[0] for row in rows if row[1] and row[1][0] not in "!*" and row[1] not in ("x", "NP", "LK")]
    evidence: dict[str, Json] = {"with a password": real, "with an empty password": empty}
    remedy = "`passwd -l NAME`: accounts and passwords come with provisioning"
    if empty:
        yield question.bad(f"no password is needed for {', '.join(empty)}", evidence, remedy, _CODE)
    elif real:
        yield question.doubt(f"a password is set for {', '.join(real)}: every VM has it", evidence, remedy, _CODE)
    else:
        yield question.good("no account has a password", evidence)


def _cloud_init(image: Image, question: Question) -> Iterator[Result]:
    found = [f"/var/lib/cloud/{name}" for name in ("instance", "instances", "data", "sem")
             if image.tree.exists(f"/var/lib/cloud/{name}") and _holds(image, f"/var/lib/cloud/{name}")]  # fmt: skip
    if not found:
        reading.exists(image, "/var/lib/cloud/instance")
        yield question.good("no state of another VM in /var/lib/cloud")
        return
    summary = f"cloud-init's state of another VM: {', '.join(found)}"
    evidence: dict[str, Json] = {"found": list(found)}
    yield question.doubt(summary, evidence, "`cloud-init clean --logs` before the image is made", _CODE)


def _holds(image: Image, path: str) -> bool:
    return image.tree.link(path) is not None or bool(image.tree.names(path))


def _homes(image: Image) -> list[str]:
    homes = ["/root"]
    if image.tree.is_directory("/home"):
        homes += [f"/home/{name}" for name in image.tree.names("/home") if image.tree.is_directory(f"/home/{name}")]
    return homes


def _authorized(image: Image, question: Question) -> Iterator[Result]:
    found = [path for home in _homes(image) for name in ("authorized_keys", "authorized_keys2")
             if _not_empty(image, path := f"{home}/.ssh/{name}")]  # fmt: skip
    if found:
        summary = f"keys that may log in to every VM: {', '.join(found)}"
        yield question.doubt(summary, {"files": found}, "remove them: keys come with provisioning", _CODE)
    else:
        reading.exists(image, "/root/.ssh/authorized_keys")
        yield question.good("nobody's ssh key is in it")


def _history(image: Image, question: Question) -> Iterator[Result]:
    found = [path for home in _homes(image) for name in _HISTORIES if _not_empty(image, path := f"{home}/{name}")]
    if found:
        yield question.doubt(f"histories of whoever made it: {', '.join(found)}", {"files": found},
                             "remove them: commands hold passwords now and then")  # fmt: skip
    else:
        reading.exists(image, "/root/.bash_history")
        yield question.good("no histories")


def _not_empty(image: Image, path: str) -> bool:
    entry = image.tree.entry(path)
    return entry is not None and (entry.size > 0 or bool(entry.data) or not entry.known)


def _seed(image: Image, question: Question) -> Iterator[Result]:
    path = next((path for path in ("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed",
                                   "/boot/efi/loader/random-seed", "/efi/loader/random-seed")
                 if reading.exists(image, path)), None)  # fmt: skip
    if path:
        yield question.doubt(f"{path} would be the same in every VM", {"file": path}, f"rm {path}", _CODE)
    else:
        yield question.good("no random seed")


def _net_rules(image: Image, question: Question) -> Iterator[Result]:
    text = reading.text(image, _NET_RULES) if image.tree.link(_NET_RULES) != "/dev/null" else None
    if text is not None and "SUBSYSTEM" in text:
        summary = f"{_NET_RULES} names network adapters by the hardware addresses of another machine"
        yield question.doubt(summary, {"file": _NET_RULES}, f"rm {_NET_RULES}", _CODE)
    else:
        yield question.good("no persistent names of network adapters")


def _hostname(image: Image, question: Question) -> Iterator[Result]:
    name = (reading.text(image, "/etc/hostname") or "").strip()
    if name.lower() in _PLAIN_NAMES:
        yield question.good(f"the name is {name or 'not set'}")
    else:
        summary = f"/etc/hostname is {name[:80]}, until provisioning has set another"
        yield question.doubt(summary, {"hostname": name[:200]}, "empty it")


ASKED = (
    (Question("generalised.machine-id", "machine-id"), _machine_id),
    (Question("generalised.cloud-init", "cloud-init's state of another VM"), _cloud_init),
    (Question("generalised.host-keys", "ssh host keys"), _host_keys),
    (Question("generalised.passwords", "Accounts with a password"), _passwords),
    (Question("generalised.authorized-keys", "ssh keys that may log in"), _authorized),
    (Question("generalised.history", "Histories"), _history),
    (Question("generalised.random-seed", "Random seed"), _seed),
    (Question("generalised.net-rules", "Names of network adapters"), _net_rules),
    (Question("generalised.hostname", "Host name"), _hostname),
)


def generalised(image: Image) -> Iterator[Result]:
    """Whether the image is of no machine in particular."""
    yield from answers(image, ASKED)
