"""bpftool prog and bpftool cgroup, as text and as JSON; a verifier log that stands alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.diagnose.decode import shown
from harness.diagnose.facts import AttachedProgram, BpfProgram, BpfPrograms, CgroupPrograms, VerifierLog
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section
from harness.diagnose.values import members, number, objects, text

MOST = 10_000

TYPES = (
    "unspec|socket_filter|kprobe|sched_cls|sched_act|tracepoint|xdp|perf_event|cgroup_skb|cgroup_sock|lwt_in|lwt_out|"
    "lwt_xmit|sock_ops|sk_skb|cgroup_device|sk_msg|raw_tracepoint|cgroup_sock_addr|lwt_seg6local|lirc_mode2|"
    "sk_reuseport|flow_dissector|cgroup_sysctl|raw_tracepoint_writable|cgroup_sockopt|tracing|struct_ops|ext|lsm|"
    "sk_lookup|syscall|netfilter"
)
_PROGRAM = re.compile(
    rf"^[ \t]{{0,4}}(?P<id>\d{{1,9}}): (?P<type>(?:{TYPES})(?!\w)|type \d{{1,4}})(?:  name (?P<name>\S{{1,64}}))?"
    r"(?:  (?:override_return_func[^\n]{0,20}  )?tag (?P<tag>[0-9a-f]{16}))?[^\n]*$",
    re.MULTILINE,
)
_LOADED = re.compile(r"loaded_at (\S+)\s+uid (\d{1,10})")
_PIDS = re.compile(r"^\s+pids ([^\n]{1,400})$", re.MULTILINE)
_PID = re.compile(r"([^,()]{1,40})\((\d{1,9})\)")
_CGROUP = re.compile(r"^(?P<path>/\S{0,400})[ \t]*$")
_ATTACHED = re.compile(
    r"^[ \t]{0,8}(?P<id>\d{1,9})[ \t]+(?P<type>(?:cgroup_|lsm_)?[a-z]\w{2,40})(?:[ \t]+(?P<flags>multi|override))?"
    r"(?:[ \t]+(?P<name>[^\s(][^\s]{0,63}))?[ \t]*$"
)
_ATTACHED_HEAD = re.compile(r"^(?:CgroupPath\s*\n)?ID\s+AttachType\s+(?:AttachFlags|(?P<effective>Name))", re.MULTILINE)
_ATTACH_WORDS = re.compile(r"^(?:cgroup_|lsm_)|^(?:ingress|egress|sock_create|sock_ops|device|bind[46]|post_bind[46]|"
                           r"connect[46]|sendmsg[46]|recvmsg[46]|sysctl|getsockopt|setsockopt|sock_release|"
                           r"getpeername[46]|getsockname[46])$")  # fmt: skip
_INSTRUCTION = re.compile(r"^\s{0,8}\d{1,7}: \([0-9a-f]{2}\) \S", re.MULTILINE)


def read_programs(section: Section) -> Iterator[Found]:
    found = list(_PROGRAM.finditer(section.text))[:MOST]
    if not found:
        if section.text.strip() == "[]":
            yield BpfPrograms(section.source(0, "[]"), ())
        return
    programs = []
    for match, end in zip(found, [*(later.start() for later in found[1:]), len(section.text)], strict=False):
        rest = section.text[match.end() : min(end, match.end() + 2_000)]
        loaded, pids = _LOADED.search(rest), _PIDS.search(rest)
        programs.append(
            BpfProgram(
                int(match["id"]),
                match["type"],
                match["name"],
                match["tag"],
                loaded[1] if loaded else None,
                int(loaded[2]) if loaded else None,
                tuple((int(pid), shown(name.strip(), 64)) for name, pid in _PID.findall(pids[1])) if pids else (),
            )
        )
    at = next((match.start() for match in found if match["name"] == "connect4"), found[0].start())
    yield BpfPrograms(section.at(at), tuple(programs))


def read_cgroups(section: Section) -> Iterator[Found]:
    """bpftool cgroup tree (a path, then its programs, indented) and show (programs alone)."""
    head = _ATTACHED_HEAD.search(section.text)
    command = section.command or ""
    if section.text.strip() == "[]":
        yield CgroupPrograms(section.source(0, "[]"), (), "tree" in section.named, "effective" in command)
        return
    if not head and "bpftool" not in command:
        return
    asked = re.search(r"cgroup\s+(?:show|list)\s+(/\S+)", command)
    cgroup: str | None = asked[1] if asked else None
    rows: list[AttachedProgram] = []
    start = section.text.count("\n", 0, head.start()) if head else 0
    first: int | None = None
    for index, line in enumerate(section.lines[start : start + 200_000], start):
        if path := _CGROUP.match(line):
            cgroup = path["path"]
        elif (match := _ATTACHED.match(line)) and _ATTACH_WORDS.match(match["type"]):
            rows.append(AttachedProgram(cgroup, int(match["id"]), match["type"], match["flags"] or "", match["name"]))
            if first is None or ("connect4" in line and "connect4" not in section.lines[first]):
                first = index
        if len(rows) >= MOST:
            break
    # the head is printed only by a tree, or where something is attached
    tree = "CgroupPath" in section.text or "cgroup tree" in command
    if rows or (tree and head) or ("cgroup" in command and section.ended and not section.text.strip()):
        where = section.source(first if first is not None else start) if section.text.strip() else section.prompt
        yield CgroupPrograms(where, tuple(rows), tree, "effective" in command or bool(head and head["effective"]))


def of_programs(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    programs = []
    for item in objects(value)[:MOST]:
        identity, kind = number(item.get("id")), text(item.get("type"))
        if identity is None or kind is None:
            continue
        pids = tuple(
            (number(row.get("pid")) or 0, text(row.get("comm")) or "")
            for row in (objects(item.get("pids"))[:64] if item.get("pids") else [])
        )
        name, loaded = text(item.get("name")), text(item.get("loaded_at"))
        programs.append(BpfProgram(identity, kind, name, text(item.get("tag")), loaded, number(item.get("uid")), pids))
    at = section.text.find('"connect4"', begin, end)
    yield BpfPrograms(section.at(at if at >= 0 else begin), tuple(programs))


def of_cgroups(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    """bpftool -j cgroup tree: [{cgroup, programs: […]}]; show: the programs alone."""
    rows: list[AttachedProgram] = []
    tree = False
    for item in objects(value)[:MOST]:
        plain = members(item)
        if "programs" in plain:
            tree = True
            for program in objects(plain["programs"])[: MOST - len(rows)]:
                rows += _attached(program, text(plain.get("cgroup")))
        else:
            asked = re.search(r"cgroup\s+(?:show|list)\s+(/\S+)", section.command or "")
            rows += _attached(item, asked[1] if asked else None)
    at = section.text.find('connect4"', begin, end)
    effective = "effective" in (section.command or "")
    yield CgroupPrograms(section.at(at if at >= 0 else begin), tuple(rows), tree, effective)


def _attached(item: Mapping[str, Any], cgroup: str | None) -> list[AttachedProgram]:
    identity, kind = number(item.get("id")), text(item.get("attach_type"))
    if identity is None or kind is None:
        return []
    return [AttachedProgram(cgroup, identity, kind, text(item.get("attach_flags")) or "", text(item.get("name")))]


def read_verifier_log(section: Section) -> Iterator[Found]:
    first = _INSTRUCTION.search(section.text)
    if first:
        yield VerifierLog(section.at(first.start()), shown(section.text.strip("\n"), 1 << 24))
