"""What a redirect adds to a connect(): connect4 against no program, and against an nftables REDIRECT rule.

Three clients take turns, a batch each, all connecting to a listener on their own loopback: one in no cgroup of ours and
straight to it; one under connect4, to IMDS; one in a namespace with an nftables REDIRECT rule, to IMDS. Only connect()
is timed. The rule has a namespace of its own, because connection tracking slows every connect of its namespace.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping

from bench.spread import spread
from harness.command import run
from harness.kernel import cgroups, processes
from harness.kernel.processes import Namespace
from harness.lab import cost, state, topology
from harness.lab.cost import BATCH, PORT, take_turns
from harness.lab.lab import open_lab
from harness.lab.redirection import redirect
from harness.lab.worker import Handler, Worker
from harness.msp.endpoints import IMDS
from harness.program.compile import compile_source, redirector
from harness.program.load import load

CONNECTS = 20_000  # of each kind


def _own_network() -> None:
    processes.unshare(Namespace.NETWORK)


def _under_nftables() -> Mapping[str, Handler]:
    """A client in a network namespace of its own, which it can give rules."""

    def nft(rules: str) -> None:
        run(["nft", "-f", "-"], stdin=rules)

    return {**cost.handlers(_own_network, PORT), "nft": nft, "build": topology.build_vm}


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

        def fabric_for(pid: int) -> Callable[[], Mapping[str, Handler]]:
            def start() -> Mapping[str, Handler]:
                _own_network()
                topology.build_fabric(pid)
                return {"ready": lambda: None}

            return start

        with (
            cost.client(lab, lab.client_cgroup) as under,
            cost.client(lab, lab.outside_cgroup, PORT + 1) as without,
            Worker("client under nftables", _under_nftables) as nftables,
        ):
            nftables.call("ready")
            # the other end of its veth: without a carrier there is no route
            with Worker("other fabric", fabric_for(nftables.pid)) as fabric, redirect(lab, loaded) as redirection:
                fabric.call("ready")
                nftables.call("build")
                nftables.call("nft", rules=_RULES)
                cost.to_itself(redirection)
                for worker in (under, without, nftables):
                    worker.call("listen")
                _measure(under, without, nftables)


def _measure(under: Worker, without: Worker, nftables: Worker) -> None:
    times = take_turns(
        {
            "no program": cost.direct(without, PORT + 1),
            "connect4, not in policy": cost.direct(under),
            "connect4, redirected": cost.redirected(under),
            "nftables, redirected": cost.redirected(nftables),
        },
        CONNECTS // BATCH,
    )
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
