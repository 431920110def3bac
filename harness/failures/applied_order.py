"""Enabled, but not applied: other programs in the chain, other cgroups, other mounts, other network namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.failures import children
from harness.failures.attach_conflicts import count_effective
from harness.failures.attach_targets import CONNECT4, agents_root, allowing
from harness.failures.model import DIRECT, ELSEWHERE, REDIRECTED, Answer, Failure, Family, Recipe, Setting, Shown
from harness.failures.traffic import PATIENCE, ask, ours, told, translator
from harness.kernel import bpf, cgroups, mounts
from harness.lab.behaviours.common import connections
from harness.lab.clients import Request
from harness.lab.lab import Lab
from harness.lab.topology import OTHER_ADDRESS
from harness.lab.worker import Handler, Reply, Worker
from harness.msp import codes
from harness.msp.codes import Code
from harness.msp.endpoints import IMDS, PROXY
from harness.program import maps
from harness.program.attach import Way, attach, attach_one
from harness.report.model import Json

SERVICE = maps.Destination("10.96.0.1", 80)
"""A service address of the kind that a cluster's network product translates at connect()."""

_IMDS = maps.Destination(IMDS.address, IMDS.port)
_PROXY = maps.Destination(*PROXY)
_OTHER = maps.Destination(OTHER_ADDRESS, 80)


# --- other programs ---------------------------------------------------------------------------------------------


def _rewritten(setting: Setting) -> Shown:
    """A program of the parent cgroup runs after ours and sends the proxy's clients on."""
    lab = setting.lab
    with ours(setting) as loaded, translator(setting, _PROXY, _OTHER) as theirs, attach(loaded, lab.attach_cgroup):
        with attach_one(theirs, lab.cgroup, CONNECT4):
            failing = ask(lab, "while a program of the parent cgroup rewrites what ours wrote")
        with attach_one(theirs, lab.client_cgroup, CONNECT4):
            return Shown(failing, ask(lab, "while that program is in the child cgroup, and so before ours"))


_PLACES: Mapping[str, tuple[Callable[[Lab], Path], bool, str]] = {
    "same cgroup, attached before ours": (lambda lab: lab.attach_cgroup, True, REDIRECTED),
    "same cgroup, attached after ours": (lambda lab: lab.attach_cgroup, False, DIRECT),
    "child cgroup": (lambda lab: lab.client_cgroup, False, REDIRECTED),
    "parent cgroup": (lambda lab: lab.cgroup, False, DIRECT),
}
"""Where another product's program stands; whether it comes first; and what becomes of a client that asks for SERVICE:
a program that runs before ours translates it to IMDS, which ours redirects; one that runs after ours leads past it."""


@contextmanager
def _beside(setting: Setting, place: str) -> Iterator[None]:
    """Ours attached, and another product's program that translates SERVICE to IMDS, attached with ALLOW_MULTI."""
    where, first, _ = _PLACES[place]
    lab = setting.lab
    with ExitStack() as stack:
        theirs = stack.enter_context(translator(setting, SERVICE, _IMDS))
        loaded = stack.enter_context(ours(setting))
        attachments = [attach(loaded, lab.attach_cgroup), attach_one(theirs, where(lab), CONNECT4, Way.MULTI)]
        for attachment in reversed(attachments) if first else attachments:
            stack.enter_context(attachment)
        yield


def _ask_service(lab: Lab, place: str) -> Answer:
    did = f"(which another product translates to IMDS; its program: {place})"
    return ask(lab, did, address=SERVICE.address, port=SERVICE.port)


def _other_product(setting: Setting) -> Shown:
    lab = setting.lab
    table: dict[str, Json] = {}
    answers: dict[str, Answer] = {}
    for place, (_, _, expected) in _PLACES.items():
        with _beside(setting, place):
            plain, service = ask(lab, ""), _ask_service(lab, place)
        answers[place] = service
        as_expected = plain.word == REDIRECTED and service.word == expected
        table[place] = {"asks for IMDS": plain.word, "asks for the service": service.word, "as expected": as_expected}
    facts: dict[str, Json] = {"by place of the other program": table}
    wrong = [place for place, row in table.items() if isinstance(row, Mapping) and not row["as expected"]]
    failing = answers["parent cgroup"]
    if wrong:
        failing = Answer(f"{failing.did}; otherwise than expected: {', '.join(wrong)}", "unexpected")
    return Shown(failing, answers["child cgroup"], facts=facts)


def _overridden(setting: Setting) -> Shown:
    """Ours comes without flags above a cgroup that has a program: the kernel takes it, and does not run it there."""
    lab = setting.lab

    def above(way: Way) -> tuple[Answer, int]:
        with (
            ours(setting) as loaded,
            allowing() as theirs,
            attach_one(theirs, lab.client_cgroup, CONNECT4),
            attach(loaded, lab.attach_cgroup, way),
        ):
            words = {Way.LINK: "by link", Way.SINGLE: "without flags"}[way]
            answer = ask(lab, f"whose cgroup has a program of its own; ours is attached above it {words}")
            return answer, count_effective(lab.client_cgroup)

    (failing, alone), (repaired, both) = above(Way.SINGLE), above(Way.LINK)
    return Shown(failing, repaired, facts={"effective programs": {"without flags": alone, "by link": both}})


# --- other places -----------------------------------------------------------------------------------------------


def _outside(setting: Setting) -> Shown:
    lab = setting.lab
    with ours(setting) as loaded:
        with attach(loaded, lab.attach_cgroup):
            failing = ask(lab, "from a cgroup beside the one that has the program", cgroup=str(lab.outside_cgroup))
        with attach(loaded, lab.cgroup):
            repaired = ask(lab, "from there, with the program in the parent of both", cgroup=str(lab.outside_cgroup))
    return Shown(failing, repaired)


def _container(setting: Setting) -> Shown:
    """A container that has a way out (the control shows it), and a network namespace and so a loopback of its own."""
    lab = setting.lab
    bridged = Request.to(IMDS, behaviour="census.network_namespace", patience=PATIENCE)
    with ours(setting) as loaded, attach(loaded, lab.attach_cgroup):
        with lab.client(bridged) as client:
            client.seen()  # it has its namespace
            lab.vm.call("join_container", container_pid=client.pid)
            try:
                client.release()
                inside, control = connections(client.seen())
            finally:
                lab.vm.call("leave_container", container_pid=client.pid)
        with lab.client(Request.to(IMDS, behaviour="census.host_network", patience=PATIENCE)) as client:
            (host,) = connections(client.seen())
    failing = told(lab, "a client in a network namespace of its own asks for IMDS", inside)
    way_out = told(lab, "its other connection", control).word
    return Shown(
        failing,
        told(lab, "the same with the host's network", host),
        facts={f"the same client, to {OTHER_ADDRESS}, which no policy names": way_out},
    )


def _contained_agent(setting: Setting) -> Shown:
    """An agent that is pid 1 of its container skips that pid, and the program sees another: it meets itself."""
    lab = setting.lab
    request = Request.to(IMDS, behaviour="census.contained_agent", patience=PATIENCE)
    with ours(setting) as loaded, attach(loaded, lab.attach_cgroup), lab.client(request) as client:
        pids = client.seen().notes
        skip_map = loaded.maps["skip_process_map"]
        maps.skip(skip_map, pids["own"])
        client.release()
        failing = told(lab, "an agent in a pid namespace of its own skips the pid that it sees, and asks for IMDS",
                       client.seen())  # fmt: skip
        maps.unskip(skip_map, pids["own"])
        maps.skip(skip_map, pids["host"])
        client.release()
        repaired = told(lab, "the same agent, with the pid of the initial namespace in skip_process_map", client.seen())
    return Shown(failing, repaired, facts={"the pid that it sees itself": pids["own"]})


def _mounts(cgroup: Path, work: Path) -> Mapping[str, Handler]:
    """In a worker: a mount namespace where another product's mount of a cgroup stands before the whole hierarchy's."""
    mounts.take_own()
    children.take_as_root(cgroup)
    mounts.mount("tmpfs", work, "tmpfs")
    whole, theirs = work / "unified", work / "other-product"
    for point in (whole, theirs):
        point.mkdir()
    mounts.mount("cgroup2", whole, "cgroup2")
    mounts.bind(whole / "agent", theirs)
    for mount in reversed(cgroups.layout().cgroup2):
        if mount.point != theirs:
            mounts.unmount(mount.point)
    mounts.mount("cgroup2", whole, "cgroup2")

    def root(first: bool) -> Reply:
        """The agent's choice, or the mount of the whole hierarchy: its directory's descriptor, with its FSROOT."""
        table = cgroups.layout().cgroup2
        path = agents_root() if first else whole
        subtree = next(mount.root for mount in table if mount.point == path)
        return Reply(subtree, [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)])

    return {"root": root}


def _first_mount(setting: Setting) -> Shown:
    lab = setting.lab
    work = setting.run.directory / "mounts"
    work.mkdir()
    with Worker("mounts", lambda: _mounts(lab.attach_cgroup, work)) as mounts, ours(setting) as loaded:

        def answer(first: bool, did: str) -> tuple[Answer, str]:
            subtree, descriptors = mounts.call_with_descriptors("root", first=first)
            with bpf.Fd(descriptors[0]) as directory, attach(loaded, Path(f"/proc/self/fd/{directory.fileno()}")):
                return ask(lab, did), subtree

        failing, first_root = answer(True, "while the program is attached at the first cgroup2 mount")
        repaired, whole_root = answer(False, "while it is attached at the mount of the whole hierarchy")
    return Shown(failing, repaired, facts={"FSROOT of the first": first_root, "FSROOT of the other": whole_root})


def _row(name: str, title: str, code: Code, word: str, recipe: Recipe, remedy: str) -> Failure:
    return Failure(name, title, Family.APPLIED, code, (word,), recipe, remedy, REDIRECTED)


ORDER = (
    _row("applied-rewritten", "A program later in the chain rewrites the address again", codes.REWRITTEN_LATER,
         ELSEWHERE, _rewritten, "the other program was attached below ours, and so runs before it"),
    _row("applied-other-product", "Another product's connect4 before and after ours", codes.REWRITTEN_LATER, DIRECT,
         _other_product, "the other program runs before ours"),
    _row("applied-overridden", "A child cgroup has a program, and ours above it is exclusive",
         codes.NOT_IN_EFFECTIVE_LIST, DIRECT, _overridden, "ours was attached by link"),
    _row("applied-outside", "The client is in a cgroup that the program does not cover", codes.NOT_IN_EFFECTIVE_LIST,
         DIRECT, _outside, "the program was attached higher up"),
    _row("applied-first-mount", "The first cgroup2 mount is not the root", codes.WRONG_CGROUP2_MOUNT, DIRECT,
         _first_mount, "the mount of the whole hierarchy was taken"),
    _row("applied-network-namespace", "The client is in a network namespace of its own", codes.OTHER_NAMESPACE,
         "ECONNREFUSED", _container, "the client has the host's network"),
    Failure("applied-agent-contained", "The agent is in a pid namespace of its own, and is redirected to itself",
            Family.APPLIED, codes.AGENT_IN_PID_NAMESPACE, (REDIRECTED,), _contained_agent,
            "the agent's pid in the initial namespace was skipped", DIRECT),
)  # fmt: skip
