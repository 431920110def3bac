"""What a redirect adds to a connect(): connect4 against no program, and against an nftables REDIRECT rule.

Three clients take turns, a batch each, all connecting to a listener on their own loopback: one in no cgroup of ours and
straight to it; one under connect4, to IMDS; one in a namespace with an nftables REDIRECT rule, to IMDS. Only connect()
is timed. The rule has a namespace of its own, because connection tracking slows every connect of its namespace.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.spread import spread
from harness.command import run
from harness.kernel import cgroups, processes
from harness.kernel.processes import Namespace
from harness.lab import state, topology
from harness.lab.lab import open_lab
from harness.lab.redirection import redirect
from harness.lab.worker import Handler, Worker
from harness.msp.endpoints import IMDS
from harness.program.compile import compile_source, redirector
from harness.program.load import load

CONNECTS = 20_000  # of each kind
BATCH = 250
PORT = 3099
_RESET = struct.pack("ii", 1, 0)


def _client(place: Callable[[], None], own_port: int = PORT) -> Callable[[], Mapping[str, Handler]]:
    """A worker that goes to its place, listens there on a port of its own, and times batches of connects to it."""

    def start() -> Mapping[str, Handler]:
        place()
        listener: list[socket.socket] = []

        def listen() -> None:
            listener.append(socket.create_server(("127.0.0.1", own_port), backlog=64))

        def batch(address: str, port: int) -> float:
            """Mean seconds of one connect() over a batch."""
            total = 0.0
            for _ in range(BATCH):
                with socket.socket() as client:
                    began = time.perf_counter()
                    client.connect((address, port))
                    total += time.perf_counter() - began
                    accepted = listener[0].accept()[0]
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # no TIME_WAIT
                accepted.close()
            return total / BATCH

        def nft(rules: str) -> None:
            run(["nft", "-f", "-"], stdin=rules)

        return {"ready": lambda: os.getpid(), "listen": listen, "batch": batch, "nft": nft, "build": topology.build_vm}

    return start


def _own_network() -> None:
    processes.unshare(Namespace.NETWORK)


_RULES = f"""
table ip msp {{
  chain output {{
    type nat hook output priority -100; policy accept;
    ip daddr {IMDS.address} tcp dport {IMDS.port} redirect to :{PORT}
  }}
}}
"""


def main() -> None:
    if shutil.which("nft") is None:
        print("SKIP: no nft(8), nothing to compare with; install nftables")
        return
    image = compile_source(redirector())
    with state.begin(cgroups.layout().cgroup2[0].point) as owned, open_lab(owned) as lab, load(image) as loaded:

        def in_vm(group: Any) -> Callable[[], None]:
            def go() -> None:
                cgroups.move(0, group)
                processes.enter(lab.vm.pid, Namespace.NETWORK)

            return go

        def fabric_for(pid: int) -> Callable[[], Mapping[str, Handler]]:
            def start() -> Mapping[str, Handler]:
                _own_network()
                topology.build_fabric(pid)
                return {"ready": lambda: None}

            return start

        with (
            Worker("client under connect4", _client(in_vm(lab.client_cgroup))) as under,
            Worker("client without", _client(in_vm(lab.outside_cgroup), PORT + 1)) as without,
            Worker("client under nftables", _client(_own_network)) as nftables,
        ):
            nftables.call("ready")
            # the other end of its veth: without a carrier there is no route
            with Worker("other fabric", fabric_for(nftables.pid)) as fabric, redirect(lab, loaded) as redirection:
                fabric.call("ready")
                nftables.call("build")
                nftables.call("nft", rules=_RULES)
                redirection.set_policy(IMDS, ("127.0.0.1", PORT))
                for worker in (under, without, nftables):
                    worker.call("listen")
                _measure(under, without, nftables)


def _measure(under: Worker, without: Worker, nftables: Worker) -> None:
    kinds: dict[str, Callable[[], float]] = {
        "no program": lambda: without.call("batch", address="127.0.0.1", port=PORT + 1),
        "connect4, not in policy": lambda: under.call("batch", address="127.0.0.1", port=PORT),
        "connect4, redirected": lambda: under.call("batch", address=IMDS.address, port=IMDS.port),
        "nftables, redirected": lambda: nftables.call("batch", address=IMDS.address, port=IMDS.port),
    }
    for measure in kinds.values():
        measure()  # caches, and the first allocations
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(CONNECTS // BATCH):
        for kind, measure in kinds.items():
            times[kind].append(measure())
    print(f"{CONNECTS} connects of each kind in batches of {BATCH}, alternating; microseconds a connect()")
    for kind, sample in times.items():
        print(f"{kind:<26} {spread(sample).text(1e6, 1)}")
    bare, redirected, rule = (times[kind] for kind in ("no program", "connect4, redirected", "nftables, redirected"))
    for label, one, other in (
        ("connect4 / no program", redirected, bare),
        ("nftables / no program", rule, bare),
        ("connect4 / nftables", redirected, rule),
    ):
        print(f"{label:<26} {spread([a / b for a, b in zip(one, other, strict=True)]).text()}")
    added = [(a - c) / (b - c) for a, b, c in zip(redirected, rule, bare, strict=True) if b > c]
    print(f"{'added: connect4 / nftables':<26} {spread(added).text()}, below 1 wanted")
