"""agent.sandbox, agent.selinux, agent.apparmor, agent.mount: what may keep the agent from what it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.image import agent_files, kernels, lsm, reading, units
from harness.image.agent_files import UNIT
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.image.units import Unit
from harness.msp import guide, image_codes
from harness.report import Json, Result

NEEDED = ("CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON")
"""To load, attach and probe; CAP_SYS_ADMIN stands for the last two, and is needed for kprobes below 5.8."""


def _capabilities(unit: Unit) -> str:
    """What a CapabilityBoundingSet takes away, a clause; nothing where it leaves what is needed."""
    values = unit.values("Service", "CapabilityBoundingSet")
    if not values:
        return ""
    kept: set[str] | None = None  # None: all
    dropped: set[str] = set()
    for value in values:
        if value.startswith("~"):
            dropped |= set(value[1:].split())
        else:
            kept = (kept or set()) | set(value.split())
    have = {name for name in (*NEEDED, "CAP_SYS_ADMIN") if (kept is None or name in kept) and name not in dropped}
    lacks = [name for name in NEEDED if name not in have and not (name != "CAP_NET_ADMIN" and "CAP_SYS_ADMIN" in have)]
    return f"CapabilityBoundingSet leaves it no {', '.join(lacks)}" if lacks else ""


def _user(unit: Unit) -> str:
    user = unit.value("Service", "User") or "root"
    given = " ".join(unit.values("Service", "AmbientCapabilities"))
    if user in ("root", "0") or all(name in given for name in NEEDED):
        return ""
    return f"User={user}, without AmbientCapabilities that load and attach programs"


def _families(unit: Unit) -> str:
    values = unit.values("Service", "RestrictAddressFamilies")
    allowed = {word for value in values if not value.startswith("~") for word in value.split()}
    denied = {word for value in values if value.startswith("~") for word in value[1:].split()}
    if values and ("AF_INET" in denied or (allowed and "AF_INET" not in allowed) or allowed == {"none"}):
        return f"RestrictAddressFamilies={' '.join(values)} leaves it no AF_INET"
    return ""


def _calls(unit: Unit) -> str:
    values = unit.values("Service", "SystemCallFilter")
    denied = {word for value in values if value.startswith("~") for word in value[1:].split()}
    refused = {"bpf", "@privileged", "perf_event_open", "@debug"} & denied
    if refused:
        return f"SystemCallFilter=~{' '.join(sorted(refused))} takes bpf(2) or perf_event_open(2)"
    allowed = {word for value in values if not value.startswith("~") for word in value.split()}
    if allowed and "bpf" not in allowed and not {"@privileged", "@known"} & allowed:
        return f"SystemCallFilter={' '.join(sorted(allowed))} has no bpf"
    return ""


def _on(name: str, harm: str) -> Callable[[Unit], str]:
    return lambda unit: f"{name}={unit.value('Service', name)}: {harm}" if unit.is_on("Service", name) else ""


@dataclass(frozen=True)
class Obstacle:
    """A way in which a unit is confined: found() gives the clause that says how, or nothing. fatal: FAIL, else WARN."""

    found: Callable[[Unit], str]
    fatal: bool = True


OBSTACLES = (
    Obstacle(_user),
    Obstacle(_capabilities),
    Obstacle(_families),
    Obstacle(_calls),
    Obstacle(_on("PrivateNetwork", "its listener is in a network namespace of its own")),
    Obstacle(_on("PrivateUsers", "root of a user namespace may load no program")),
    Obstacle(_on("PrivatePIDs", "it puts a pid of its own namespace into skip_process_map (MSP-A208)")),
    Obstacle(_on("ProtectControlGroups", "/sys/fs/cgroup is read-only; attaching needs no writing"), fatal=False),
    Obstacle(_on("ProtectKernelTunables", "parts of /sys and /proc are read-only"), fatal=False),
    Obstacle(_on("DynamicUser", "it runs as a user of its own")),
    Obstacle(lambda unit: f"RootDirectory={value}: it sees other files" if (value := unit.value("Service",
             "RootDirectory")) else "", fatal=False),
)  # fmt: skip
"""Sources: systemd.exec(5), capabilities(7). NoNewPrivileges= takes nothing from root and is not among them."""


def _sandbox(image: Image, question: Question) -> Iterator[Result]:
    unit = units.find(image, UNIT)
    if unit is None or unit.masked:
        return
    rows = [(row.found(unit), row.fatal) for row in OBSTACLES]
    fatal, others = [text for text, bad in rows if text and bad], [text for text, bad in rows if text and not bad]
    evidence: dict[str, Json] = {"drop-ins": list(unit.drop_ins), "obstacles": [*fatal, *others]}
    if fatal:
        yield question.bad("; ".join(fatal), evidence, code=image_codes.AGENT_CONFINED)
    elif others:
        yield question.doubt("; ".join(others), evidence, "look with --boot whether it attaches")
    else:
        yield question.good("its unit takes nothing from it", evidence)


# --- LSMs ------------------------------------------------------------------------------------------------------------

_MAY_RUN = frozenset({"bin_t", "usr_t", "lib_t", "init_exec_t", "initrc_exec_t"})


def _selinux(image: Image, question: Question) -> Iterator[Result]:
    program = agent_files.program(image)
    if program is None:
        return
    text = reading.text(image, "/etc/selinux/config")
    settings = dict(row.split("=", 1) for row in (text or "").splitlines() if "=" in row and not row.startswith("#"))
    mode = settings.get("SELINUX", "").strip()
    words = kernels.kernels(image)
    active = lsm.major(image, words)
    permissive = words.parameters("enforcing")[-1:] == ["0"]
    policy = settings.get("SELINUXTYPE", "").strip()
    evidence: dict[str, Json] = {"mode": mode or None, "policy": policy or None}
    if text is None or mode == "disabled" or active not in (None, "selinux"):
        by = f": the kernel starts with {active or 'no such module'}" if text is not None and mode != "disabled" else ""
        yield question.good(f"SELinux is not used{by}", evidence)
        return
    if mode != "enforcing" or permissive:
        yield question.good(
            f"SELinux is {'permissive' if permissive else mode}: it reports and refuses nothing", evidence
        )
        return
    if not reading.names(image, f"/etc/selinux/{policy}/policy"):
        summary = f"SELinux is to enforce the policy {policy}, which is not in the image: systemd stops at boot"
        yield question.bad(
            summary, evidence, "install the policy, or set SELINUX=permissive", image_codes.AGENT_CONFINED
        )
        return
    entry = image.tree.entry(program)
    label = (entry.attributes.get("security.selinux", b"") if entry else b"").rstrip(b"\0").decode("utf-8", "replace")
    evidence["label"] = label or None
    kind = label.split(":")[2] if label.count(":") >= 2 else ""
    if image.tree.exists("/.autorelabel"):
        yield question.doubt("SELinux enforces, and the first boot labels all files anew and reboots", evidence,
                             "label the files when the image is made: `setfiles`")  # fmt: skip
    elif not label:
        yield question.doubt(f"SELinux enforces ({policy}), and no label of {program} was read", evidence,
                             f"`restorecon -v {program}` in the image; --boot shows denials")  # fmt: skip
    elif kind in _MAY_RUN or kind.endswith("_exec_t"):
        yield question.good(f"SELinux enforces ({policy}); {program} is {kind}, which a unit may start", evidence)
    else:
        summary = f"SELinux enforces ({policy}), and {program} is {kind}: systemd may not start it"
        yield question.bad(summary, evidence, f"`restorecon -v {program}` in the image", image_codes.AGENT_CONFINED)


_NEEDED_BY_APPARMOR = ("net_admin", "bpf", "perfmon")


def _apparmor(image: Image, question: Question) -> Iterator[Result]:
    if agent_files.program(image) is None:
        return
    active_one = lsm.major(image, kernels.kernels(image))
    if active_one not in (None, "apparmor"):
        yield question.good(f"AppArmor is not used: the kernel starts with {active_one or 'no such module'}")
        return
    place = "/etc/apparmor.d"
    if not image.tree.is_directory(place):
        yield question.good("there are no AppArmor profiles")
        return
    profiles = {path: text for path, text in reading.texts(image, place).items() if "azure-proxy-agent" in text}
    active = {path: text for path, text in profiles.items() if _is_active(image, place, path, text)}
    evidence: dict[str, Json] = {"profiles": list(profiles), "enforced": list(active)}
    if not active:
        yield question.good("no AppArmor profile is enforced for it", evidence)
        return
    for path, text in active.items():
        lacks = [name for name in _NEEDED_BY_APPARMOR if not _capable(text, name)]
        if lacks:
            summary = f"{path} is enforced and gives it no capability {', '.join(lacks)}"
            yield question.bad(summary, evidence, "add them to the profile", image_codes.AGENT_CONFINED)
            return
    yield question.doubt(f"{', '.join(active)} is enforced for it", evidence, "look with --boot whether it attaches")


def _is_active(image: Image, place: str, path: str, text: str) -> bool:
    name = path.rpartition("/")[2]
    off = image.tree.exists(f"{place}/disable/{name}") or image.tree.exists(f"{place}/force-complain/{name}")
    heads = [line for line in text.splitlines() if "azure-proxy-agent" in line and line.rstrip().endswith("{")]
    return not off and bool(heads) and not all("complain" in line or "unconfined" in line for line in heads)


def _capable(text: str, name: str) -> bool:
    """Whether a profile has a capability; sys_admin stands for bpf and perfmon, a bare `capability,` for all."""
    rules = re.findall(r"^\s*(?:allow\s+)?capability\b([^\n,]*),", text, re.MULTILINE)
    words = {word for rule in rules for word in rule.split()}
    return any(not rule.strip() for rule in rules) or name in words or (name != "net_admin" and "sys_admin" in words)


def _mount(image: Image, question: Question) -> Iterator[Result]:
    program = agent_files.program(image)
    if program is None:
        return
    real = image.tree.resolve(program) or program
    rows = [(where, options) for _, where, kind, options in reading.mounts(image) if kind != "swap"
            and (where == "/" or real.startswith(f"{where}/"))]  # fmt: skip
    nearest = max(rows, key=lambda row: len(row[0]), default=("/", ""))
    evidence: dict[str, Json] = {"mount": nearest[0], "options": nearest[1]}
    if "noexec" in nearest[1].split(","):
        summary = f"{real} is on {nearest[0]}, which /etc/fstab mounts with noexec"
        yield question.bad(summary, evidence, "take noexec out of that row", image_codes.AGENT_CONFINED)
    else:
        yield question.good(f"{nearest[0]} is mounted so that programs may run", evidence)


ASKED = (
    (Question("agent.sandbox", "What its unit takes from it", guide.SERVICE_LINUX), _sandbox),
    (Question("agent.selinux", "SELinux", guide.SERVICE_LINUX), _selinux),
    (Question("agent.apparmor", "AppArmor", guide.SERVICE_LINUX), _apparmor),
    (Question("agent.mount", "Where the agent lies", guide.SERVICE_LINUX), _mount),
)


def confinement(image: Image) -> Iterator[Result]:
    """Obstacles."""
    yield from answers(image, ASKED)
