"""Enabled, but not applied: everything loads and attaches, and yet a client is not redirected, or to nobody.

The agent has nothing to report here, so a client in a lab is the judge: it asks for IMDS and tells who answered.
Here are the policy, the proxy, and an attachment that goes away; applied_order has the others.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path

from harness.failures import children
from harness.failures.attach_targets import CONNECT4, allowing
from harness.failures.model import DIRECT, REDIRECTED, Answer, Failure, Family, Recipe, Setting, Shown, asked
from harness.failures.traffic import PATIENCE, ask, ours, told
from harness.kernel import bpf, cgroups, processes
from harness.kernel.processes import Namespace
from harness.lab.behaviours.common import connections
from harness.lab.clients import Request
from harness.lab.lab import open_lab
from harness.lab.redirection import fill, redirect
from harness.lab.worker import Handler, Worker, wait_until
from harness.msp import codes
from harness.msp.codes import Code
from harness.msp.endpoints import IMDS, PROXY
from harness.program import load as loader
from harness.program.attach import Way, attach, attach_one, is_attached

_OTHER_PORT = PROXY[1] + 1


# --- policy and proxy -------------------------------------------------------------------------------------------


def _empty_policy(setting: Setting) -> Shown:
    lab = setting.lab
    with loader.load(setting.image) as loaded, attach(loaded, lab.attach_cgroup):
        failing = ask(lab, "while the program is attached and its policy_map is empty")
        fill(loaded, lab)
        return Shown(failing, ask(lab, "once policy_map is filled"))


def _nobody_listens(setting: Setting) -> Shown:
    with (
        open_lab(setting.run, "silent", proxy_port=_OTHER_PORT) as silent,
        loader.load(setting.image) as loaded,
        redirect(silent, loaded),
    ):
        failing = ask(silent, f"while nobody listens on {PROXY[0]}:{PROXY[1]}")
    with ours(setting) as loaded, attach(loaded, setting.lab.attach_cgroup):
        return Shown(failing, ask(setting.lab, f"while the proxy listens on {PROXY[0]}:{PROXY[1]}"))


# --- the attachment goes away -----------------------------------------------------------------------------------


def _detached(setting: Setting) -> Shown:
    lab = setting.lab
    with ours(setting) as loaded:
        with attach(loaded, lab.attach_cgroup):
            pass
        failing = ask(lab, "after the program was detached; the proxy listens, the policy is complete")
        with attach(loaded, lab.attach_cgroup):
            return Shown(failing, ask(lab, "after it was attached again"))


def _link_detached(setting: Setting) -> Shown:
    lab = setting.lab
    with ours(setting) as loaded, attach(loaded, lab.attach_cgroup) as links:
        link = links["connect4"]
        assert link is not None
        (detach,) = children.in_child(lambda: [asked("LINK_DETACH by another process", lambda: bpf.link_detach(link))])
        failing = ask(lab, "after another process detached our link, whose descriptor we still hold")
        with attach_one(loaded.programs["connect4"], lab.attach_cgroup, CONNECT4):
            return Shown(failing, ask(lab, "after a new link was made"), facts={detach.did: detach.word})


def _replaced(setting: Setting) -> Shown:
    """PROG_ATTACH without flags puts a program in the place of the one that is there, without a word."""
    lab = setting.lab
    with ours(setting) as loaded, allowing() as theirs:

        def answer(way: Way, did: str) -> tuple[Answer, Answer]:
            with attach(loaded, lab.attach_cgroup, way):

                def step() -> Answer:
                    with attach_one(theirs, lab.attach_cgroup, CONNECT4, Way.SINGLE):
                        return ask(lab, did)

                held: list[Answer] = []
                tried = asked("another product's PROG_ATTACH without flags", lambda: held.append(step()))
                return tried, held[0] if held else ask(lab, did)

        first, failing = answer(Way.SINGLE, "after another product attached in the same cgroup; both without flags")
        second, repaired = answer(Way.LINK, "after it tried the same where ours is a link")
    return Shown(
        failing, repaired, facts={"where ours is without flags": first.word, "where ours is a link": second.word}
    )


def _killed_link(setting: Setting) -> Shown:
    lab = setting.lab
    with ours(setting) as loaded:
        program = loaded.programs["connect4"]
        owner = lab.owner(program, CONNECT4, Way.LINK)
        before = ask(lab, "while the loader lives")
        lab.kill(owner)
        with bpf.Fd(cgroups.open_directory(lab.attach_cgroup)) as directory:  # the kernel may let a link go later
            deadline = time.monotonic() + PATIENCE
            wait_until(deadline, lambda: not is_attached(directory.fileno(), program, CONNECT4))
        failing = ask(lab, "after the loader, which held the link, was killed")
        with attach(loaded, lab.attach_cgroup):
            repaired = ask(lab, "after it was started again")
    return Shown(failing, repaired, facts={"before": before.word})


def _agent(vm_pid: int, cgroup: Path) -> Mapping[str, Handler]:
    """In a worker: a loader that listens where its program sends people, and attaches by PROG_ATTACH."""
    cgroups.move(0, cgroup)
    processes.enter(vm_pid, Namespace.NETWORK)
    listener = socket.create_server((PROXY[0], _OTHER_PORT))

    def attach_program(target: str, descriptors: list[int]) -> int:
        with bpf.Fd(cgroups.open_directory(Path(target))) as directory, bpf.Fd(descriptors[0]) as program:
            bpf.prog_attach(directory.fileno(), program, CONNECT4)
        return listener.fileno()  # the listener lives as long as this function

    return {"attach": attach_program}


def _killed_attach(setting: Setting) -> Shown:
    lab = setting.lab
    with loader.load(setting.image) as loaded, bpf.Fd(cgroups.open_directory(lab.attach_cgroup)) as directory:
        fill(loaded, lab, (PROXY[0], _OTHER_PORT))
        program = loaded.programs["connect4"]
        try:
            with Worker("loader", lambda: _agent(lab.vm.pid, lab.cgroup / "vm" / "agent")) as loading:
                loading.call("attach", [program.fileno()], target=str(lab.attach_cgroup))
                before = ask(lab, "while the loader lives", patience=0.2)
            failing = ask(lab, "after the loader was killed: its program is attached, its port is dead")
            still = is_attached(directory.fileno(), program, CONNECT4)
        finally:
            if is_attached(directory.fileno(), program, CONNECT4):
                bpf.prog_detach(directory.fileno(), program, CONNECT4)
    with ours(setting) as loaded, attach(loaded, lab.attach_cgroup):
        repaired = ask(lab, "after the program left behind was detached and the agent started again")
    # The loader accepts and does not answer: the client's wait is the sign that it was connected.
    connected = {"timeout": "connected to the loader", "ECONNREFUSED": "refused"}.get(before.word, before.word)
    return Shown(failing, repaired, facts={"before": connected, "still attached": still})


# --- the client was there before --------------------------------------------------------------------------------


def _connected_before(setting: Setting) -> Shown:
    lab = setting.lab
    request = Request.to(IMDS, behaviour="census.opened_before_attach", patience=PATIENCE)
    with ours(setting) as loaded, lab.client(request) as client:
        client.seen()  # it is connected now
        with attach(loaded, lab.attach_cgroup):
            client.release()
            old, new = connections(client.seen())
    return Shown(
        told(lab, "a client asks for IMDS over a connection that it made before the attach", old),
        told(lab, "the same client makes a new connection", new),
    )


def _row(name: str, title: str, code: Code, word: str, recipe: Recipe, remedy: str) -> Failure:
    return Failure(name, title, Family.APPLIED, code, (word,), recipe, remedy, REDIRECTED)


APPLIED = (
    _row("applied-empty-policy", "Attached, and policy_map is empty", codes.EMPTY_POLICY, DIRECT, _empty_policy,
         "policy_map was filled"),
    _row("applied-proxy-down", "The policy is complete, and nobody listens at the proxy's port",
         codes.PROXY_NOT_LISTENING, "ECONNREFUSED", _nobody_listens, "the proxy listens"),
    _row("applied-detached", "The proxy listens, and the program is detached", codes.DETACHED, DIRECT, _detached,
         "the program was attached again"),
    _row("applied-link-detached", "Somebody else detached our link", codes.DETACHED, DIRECT, _link_detached,
         "a new link was made"),
    _row("applied-replaced", "Another product's PROG_ATTACH took our program's place", codes.DETACHED, DIRECT,
         _replaced, "ours was attached by link, and the other product was refused"),
    _row("applied-loader-killed-link", "The loader was killed, and its link died with it", codes.DETACHED, DIRECT,
         _killed_link, "the loader was started again"),
    _row("applied-loader-killed-attach", "The loader was killed, and its program stays", codes.STALE_REDIRECT,
         "ECONNREFUSED", _killed_attach, "the program was detached and the agent started again"),
    _row("applied-connected-before", "The client connected before the attach", codes.CONNECTED_BEFORE, DIRECT,
         _connected_before, "the client made a new connection"),
)  # fmt: skip
