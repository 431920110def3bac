"""The kernel and the distribution: uname, /proc/version, os-release, /proc/filesystems, /proc/cmdline, who it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from harness.diagnose.decode import quoted, shown
from harness.diagnose.facts import CommandLine, Filesystems, Identity, IdentityKind, KernelRelease, OsRelease
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section

_RELEASE = r"[2-9]\.\d{1,3}(?:\.\d{1,4})?(?:[-.+~_][\w.+~-]{0,80})?"
_ALONE = re.compile(rf"(?P<release>{_RELEASE})")
_MACHINE = r"x86_64|aarch64|i[3-6]86|armv\w{1,6}|ppc64le|s390x|riscv64"
_ALL = re.compile(
    rf"^[ \t]{{0,8}}Linux (?P<host>[\w.-]{{1,64}}) (?P<release>{_RELEASE}) #(?P<rest>[^\n]{{4,200}})", re.MULTILINE
)
_VERSION = re.compile(rf"Linux version (?P<release>{_RELEASE}) \(")
_SAID = re.compile(
    r"(?:\buname -r|\bkernel(?:[ _-]?(?:release|version))?)`?[ \t]*(?:[:=]|is|gives|says)?[ \t]*\n?[ \t]*[`\"']?"
    r"(?:Linux )?(?P<release>[2-9]\.\d{1,3}\.\d{1,4}(?:[-.+~_][\w.+~-]{0,80})?)(?! or (?:later|newer|above))",
    re.IGNORECASE,
)
_NAMED = re.compile(r"uname|kernel|osrelease|release$|version")
_OS_LINE = re.compile(r"^(?:export )?([A-Z][A-Z0-9_]{1,40})=(.*)$", re.MULTILINE)
_LSB = re.compile(r"^(Distributor ID|Description|Release|Codename):\s+(.*)$", re.MULTILINE)
_LSB_NAMES = {
    "Distributor ID": "ID",
    "Description": "PRETTY_NAME",
    "Release": "VERSION_ID",
    "Codename": "VERSION_CODENAME",
}
_HOSTNAMECTL = re.compile(
    r"^\s{0,24}(Static hostname|Transient hostname|Operating System|Kernel|Machine ID|Boot ID): (.*)$", re.M
)
_FILESYSTEM = re.compile(r"^(nodev)?[ \t]+([\w.+-]{1,40})[ \t]*$", re.MULTILINE)
_HOST_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_CMDLINE = re.compile(
    r"(?:^|Command line: |cmdline[:=] ?)((?:BOOT_IMAGE=|root=|initrd=|console=|ro |rw )[^\n]*)", re.MULTILINE
)


def _kernel(
    section: Section, match: re.Match[str], host: str | None = None, machine: str | None = None
) -> KernelRelease:
    release = shown(match["release"].rstrip(".,;"), 120)
    numbers = re.match(r"(\d+)\.(\d+)", release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else None
    return KernelRelease(section.at(match.start("release")), release, version, host, machine)


def read_uname(section: Section) -> Iterator[Found]:
    """uname -a, uname -r (behind its command, or alone), /proc/version, and a sentence that names the kernel."""
    found = False
    for match in list(_ALL.finditer(section.text))[:8]:
        machine = re.search(rf"\b({_MACHINE})\b", match["rest"])
        found = True
        yield _kernel(section, match, match["host"], machine[1] if machine else None)
        yield Identity(section.at(match.start()), IdentityKind.HOST, match["host"])
    for match in list(_VERSION.finditer(section.text))[:8]:
        found = True
        yield _kernel(section, match)
    if not found:
        yield from _bare(section)


def _bare(section: Section) -> Iterator[Found]:
    stripped = section.text.strip()
    first = stripped.split("\n", 1)[0].strip()
    uname = section.command is not None and re.search(r"\buname\b", section.command)
    match = _ALONE.fullmatch(first) if len(first) < 100 else None
    if match and (uname or (first == stripped and ("-" in first or _NAMED.search(section.named)))):
        at = section.text.find(first)
        yield _kernel(section.part(at, at + len(first)), match)
        return
    for said in list(_SAID.finditer(section.text))[:4]:
        yield _kernel(section, said)


def read_os_release(section: Section) -> Iterator[Found]:
    fields: dict[str, str] = {}
    first = None
    for match in _OS_LINE.finditer(section.text[: 1 << 16]):
        if match[1] in ("ID", "PRETTY_NAME", "NAME", "VERSION_ID", "VERSION", "ID_LIKE", "VERSION_CODENAME", "BUILD_ID",
                        "VARIANT_ID", "CPE_NAME", "PLATFORM_ID"):  # fmt: skip
            fields.setdefault(match[1], shown(match[2].strip().strip("\"'"), 200))
            if match[1] == "PRETTY_NAME" or first is None:
                first = match
    if first and fields.keys() & {"PRETTY_NAME", "ID"}:
        yield OsRelease(section.at(first.start()), fields)
    lsb = {_LSB_NAMES[match[1]]: shown(match[2].strip(), 200) for match in _LSB.finditer(section.text[: 1 << 16])}
    if "PRETTY_NAME" in lsb:
        lsb["ID"] = lsb.get("ID", "").lower()
        at = section.text.find("Description:")
        yield OsRelease(section.at(max(at, 0)), lsb)


def read_hostnamectl(section: Section) -> Iterator[Found]:
    for match in list(_HOSTNAMECTL.finditer(section.text))[:12]:
        source, value = section.at(match.start(1)), shown(match[2].strip(), 200)
        if match[1] == "Operating System":
            yield OsRelease(source, {"PRETTY_NAME": value})
        elif match[1] == "Machine ID":
            yield Identity(source, IdentityKind.MACHINE, value)
        elif match[1] == "Static hostname" and _HOST_NAME.fullmatch(value):
            yield Identity(source, IdentityKind.HOST, value)


def read_filesystems(section: Section) -> Iterator[Found]:
    """/proc/filesystems or what grep found in it; where the command is known, an empty output is an answer."""
    found = list(_FILESYSTEM.finditer(section.text[: 1 << 16]))
    names = frozenset(match[2] for match in found)
    asked = re.search(r"grep\b.*cgroup.*/proc/filesystems|/proc/filesystems.*grep.*cgroup", section.command or "")
    by_name = "grep" in section.named and "cgroup" in section.named and "filesystems" in section.named
    whole = {"proc", "sysfs", "tmpfs"} <= names
    if whole and not asked:
        at = next((match.start() for match in found if match[2] == "cgroup2"), found[0].start())
        yield Filesystems(section.at(at), names, True)
    elif names and all("cgroup" in name or name == "cpuset" for name in names) and found[0][1]:
        at = next((match.start() for match in found if match[2] == "cgroup2"), found[0].start())
        yield Filesystems(section.at(at), names, False)
    elif ((asked and section.ended) or by_name) and not section.text.strip():
        yield Filesystems(section.prompt, frozenset(), False)


def read_command_line(section: Section) -> Iterator[Found]:
    alone = section.text.strip()
    if section.named.endswith("/proc/cmdline") or (
        section.command is None and re.search(r"cmdline(?:\.\w+)?$", section.named)
    ):
        if alone and len(alone) < 8192:
            text = " ".join(alone.split("\n"))  # a mail wrapped it
            yield CommandLine(section.source(0, quoted(text)), _words(shown(text, 8192)))
        return
    for match in list(_CMDLINE.finditer(section.text[: 1 << 20]))[:4]:
        yield CommandLine(section.at(match.start(1), match[1]), _words(shown(match[1], 8192)))


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return tuple(text.split())


def read_identity(section: Section) -> Iterator[Found]:
    """hostname, /etc/machine-id, DMI's product_uuid: one word, whose meaning is in the command or the name."""
    word = section.text.strip()
    if not word or "\n" in word or len(word) > 80:
        return
    if re.search(r"product_uuid|vm_?id", section.named) and re.fullmatch(r"[0-9a-fA-F-]{36}", word):
        yield Identity(section.source(0, word), IdentityKind.VM, word.lower())
    elif "machine-id" in section.named and _MACHINE_ID.fullmatch(word):
        yield Identity(section.source(0, word), IdentityKind.MACHINE, word)
    elif re.search(r"\bhostname\b", section.named) and _HOST_NAME.fullmatch(word):
        yield Identity(section.source(0, word), IdentityKind.HOST, word)
