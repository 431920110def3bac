"""Check 9: how real clients fare. Every row of census_rows is run for real, under one program or several at once.

All clients of all programs are started at once and their proofs are gathered when all are done: an accept and a
packet belong to the client that had their source port.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.checks.census_judge import Proof, Verdict, Verdicts, compare, judge
from harness.checks.census_rows import ROWS, Place, Row, Step
from harness.errors import HarnessError
from harness.kernel import cgroups, processes
from harness.kernel.bpf import AttachType, ProgramType
from harness.lab import topology
from harness.lab.behaviours import programs
from harness.lab.behaviours.common import connections
from harness.lab.capture import Packet
from harness.lab.clients import Request, Seen
from harness.lab.lab import Accepted
from harness.lab.patience import SLOWNESS
from harness.lab.redirection import Redirection
from harness.lab.standing import AtWork
from harness.msp.endpoints import IMDS
from harness.program import maps
from harness.program.attach import Way, attach_one
from harness.report import Json, Outcome, Result

_PORTS = itertools.cycle(range(20000, 30000))
"""Source ports for clients that are given one: below the kernel's own choice, so that nobody else has them."""

_NUMBERS = itertools.count(1)


def census(redirections: Mapping[str, Redirection], rows: Sequence[Row] = ROWS) -> Iterator[Result]:
    """A Result a row, under each of these attached programs by name; each program is in a lab of its own."""
    measured = measure(redirections, rows)
    for row in rows:
        yield result(row, {name: found[row.name] for name, found in measured.items()})


def measure(redirections: Mapping[str, Redirection], rows: Sequence[Row] = ROWS) -> dict[str, dict[str, Verdicts]]:
    """The verdicts by program and row. What is contradictory is run again, once and alone, before it is told."""
    measured = _run(redirections, rows)
    for name, found in measured.items():
        again = [row for row in rows if found[row.name].contradictory]
        if again:
            found.update(_run({name: redirections[name]}, again)[name])
    return measured


def _run(redirections: Mapping[str, Redirection], rows: Sequence[Row]) -> dict[str, dict[str, Verdicts]]:
    with ExitStack() as stack, programs.build({row.program for row in rows if row.program}) as built:
        runs = {name: stack.enter_context(_running(redirection)) for name, redirection in redirections.items()}
        # Little patience is of those that wait it out: the others start and end meanwhile.
        waiting_first = sorted(rows, key=lambda row: row.patience)
        for run in runs.values():
            for row in waiting_first:
                if not row.program:
                    run.start(row)
        for run in runs.values():
            for row in waiting_first:
                if row.program:
                    run.start(row, built(row.program))
        for run in runs.values():
            run.lead()
        return {name: run.verdicts() for name, run in runs.items()}


@dataclass
class _Running:
    """The clients of one program."""

    redirection: Redirection
    places: Mapping[Place, Path]
    stack: ExitStack
    clients: dict[str, tuple[Row, AtWork]] = field(default_factory=dict)
    ended: dict[str, Seen] = field(default_factory=dict)  # what clients saw that did not get through their stages

    def start(self, row: Row, options: Mapping[str, object] | None = None) -> None:
        to = {"to": str(self.places[row.to])} if row.to else {}
        request = Request.to(
            IMDS,
            behaviour=row.behaviour,
            uid=row.uid,
            cgroup=str(self.places[row.place]),
            source_port=next(_PORTS) if row.bound else 0,
            patience=row.patience * SLOWNESS,
            options={**row.options, **to, **(options or {})},
        )
        self.clients[row.name] = row, self.stack.enter_context(self.redirection.lab.client(request))

    def lead(self) -> None:
        """Bring the clients that have stages through them."""
        for row, client in self.clients.values():
            child = 0
            for step in row.steps:
                seen = _seen(client)
                if seen.error or not seen.step:  # not a stage: it ended before
                    self.ended[row.name] = seen
                    break
                child = seen.notes.get("child", child)
                self._take(step, client, child)
                client.release()

    def _take(self, step: Step, client: AtWork, child: int) -> None:
        lab, skipped = self.redirection.lab, self.redirection.skip_map
        if step is Step.JOIN_CONTAINER:
            lab.vm.call("join_container", container_pid=client.pid)
            self.stack.callback(lab.vm.call, "leave_container", container_pid=client.pid)
        elif step is Step.ATTACH_LATE:
            self.stack.enter_context(_attached(self.redirection, self.places[Place.LATE]))
        elif step is Step.SKIP_CHILD:
            maps.skip(skipped, child)
            self.stack.callback(maps.unskip, skipped, child)
        elif step is Step.UNSKIP_CHILD:
            maps.unskip(skipped, child)
        elif step is Step.HOLD_PROXY:
            os.kill(lab.proxy.pid, signal.SIGSTOP)
            self.stack.callback(os.kill, lab.proxy.pid, signal.SIGCONT)
        elif step is Step.LET_PROXY_GO:
            os.kill(lab.proxy.pid, signal.SIGCONT)

    def verdicts(self) -> dict[str, Verdicts]:
        """Wait for all clients, then judge them by what the lab has seen meanwhile."""
        seen = {
            name: (row, connections(self.ended.get(name) or _seen(client)))
            for name, (row, client) in self.clients.items()
        }
        accepts: dict[int, list[Accepted]] = defaultdict(list)
        proxys: Counter[tuple[str, int, int]] = Counter()
        for accept in self.redirection.lab.accepted():
            accepts[accept.port].append(accept)
            if accept.record:
                proxys.update((accept.record.address, accept.record.port, port) for port in accept.endpoint_ports)
        packets = [packet for packet in self.redirection.lab.captured() if packet.opens]
        known = _Known(self.redirection, accepts, packets, proxys)
        return {name: Verdicts([judge(known.proof(row, one)) for one in made]) for name, (row, made) in seen.items()}


def _seen(client: AtWork) -> Seen:
    """What a client saw; one that died without a word is that row's trouble and not the census's."""
    try:
        return client.seen()
    except HarnessError as error:
        return Seen(error=str(error), step="client", pid=client.pid)


@dataclass(frozen=True)
class _Known:
    """What the lab saw while the clients ran.

    accepts: by source port; each connection takes its own. proxys: what the proxy itself opened, as (address, port,
    source port): the kernel gives the same source port to connections with different destinations, so that a client
    and the proxy may well have the same.
    """

    redirection: Redirection
    accepts: Mapping[int, list[Accepted]]
    packets: Sequence[Packet]
    proxys: Mapping[tuple[str, int, int], int]

    def proof(self, row: Row, seen: Seen) -> Proof:
        """One connection with what belongs to it."""
        address, port = seen.notes.get("wanted", (IMDS.address, IMDS.port))
        pid = seen.pid if processes.in_initial_pid_namespace() else 0
        who = maps.AuditRecord(seen.uid, pid, seen.uid == 0, address, port)
        return Proof(
            seen,
            who,
            self.redirection.lab.nonce,
            self._taken(seen, who),
            self._sent(row, seen, (address, port)),
            row.datagram,
            any(name.startswith("complete_") for name in self.redirection.loaded.programs),
        )

    def _taken(self, seen: Seen, who: maps.AuditRecord) -> list[maps.AuditRecord | None]:
        """The accept of a connection, by its source port.

        More than one connection may have had that port, at other addresses or one after the other: what names this
        client comes first, and without the proxy's answer nothing else will do.
        """
        waiting = self.accepts.get(seen.source_port, [])
        own = [accept for accept in waiting if compare(accept.record, who) == "right"]
        own += [accept for accept in waiting if accept.record and accept.record.pid == seen.pid]
        own += waiting if seen.nonce else []
        if not own:
            return []
        waiting.remove(own[0])
        return [own[0].record]

    def _sent(self, row: Row, seen: Seen, to: tuple[str, int]) -> int | None:
        """How many SYNs or datagrams the client itself sent there. A container's are known by its address."""
        if not (seen.source_port or row.own_network):
            return None
        source = topology.CONTAINER_ADDRESS if row.own_network else topology.VM_ADDRESS
        sort = ("udp" if row.datagram else "tcp", source, *to)
        proxys = 0 if row.own_network or row.datagram else self.proxys.get((*to, seen.source_port), 0)
        total = sum(
            (packet.protocol, packet.source, packet.destination, packet.port) == sort
            and seen.source_port in (0, packet.source_port)
            for packet in self.packets
        )
        return total - proxys


@contextmanager
def _running(redirection: Redirection) -> Iterator[_Running]:
    """The cgroups that the rows need besides the lab's own; what was seen before is drained."""
    lab = redirection.lab
    number = next(_NUMBERS)
    below, late = lab.client_cgroup / f"below-{number}", lab.cgroup / f"late-{number}"
    places = {
        Place.COVERED: lab.client_cgroup,
        Place.BELOW: below,
        Place.OUTSIDE: lab.outside_cgroup,
        Place.LATE: late,
    }
    lab.since()
    with ExitStack() as groups:
        for group in (below, late):
            groups.callback(_remove, cgroups.make(group))
        with ExitStack() as stack:
            yield _Running(redirection, places, stack)


def _remove(group: Path) -> None:
    """Remove a cgroup whose clients have ended; one that cannot be removed is the run's to remove, at its end."""
    with suppress(OSError):
        group.rmdir()


@contextmanager
def _attached(redirection: Redirection, cgroup: Path) -> Iterator[None]:
    """The same programs at one more cgroup. A kprobe is everywhere already, and twice would be once too often."""
    loaded = redirection.loaded
    way = Way.LINK if any(redirection.links.values()) else Way.MULTI
    with ExitStack() as stack:
        for spec in sorted(loaded.image.programs, key=lambda spec: spec.type == ProgramType.CGROUP_SOCK_ADDR):
            if spec.attach is not None:
                stack.enter_context(attach_one(loaded.programs[spec.name], cgroup, AttachType(spec.attach), way))
        yield


def result(row: Row, verdicts: Mapping[str, Verdicts]) -> Result:
    """A row's Result over all programs: the worst outcome, the verdicts of each side by side."""
    outcomes = {name: outcome(row, found) for name, found in verdicts.items()}
    worst = max(outcomes.values(), key=_SEVERITY.index)
    texts = {name: _text(found) for name, found in verdicts.items()}
    same = len(set(texts.values())) == 1
    summary = next(iter(texts.values())) if same else "; ".join(f"{name}: {text}" for name, text in texts.items())
    explain = worst in (Outcome.WARN, Outcome.FAIL)
    if explain and row.why:
        summary += f": {row.why}"
    closers = [name for name, found in verdicts.items() if found.verdict in _WELL]
    remedy = row.closes or None
    if explain and remedy and closers:
        remedy += f" (closed by {', '.join(closers)})"
    return Result(
        f"census.{row.name}",
        row.title,
        worst,
        summary,
        evidence={name: _told(found, "evidence") for name, found in verdicts.items()},
        observed={name: _told(found, "observed") for name, found in verdicts.items()},
        remedy=remedy if explain else None,
    )


_SEVERITY = (Outcome.SKIP, Outcome.PASS, Outcome.WARN, Outcome.ERROR, Outcome.FAIL)
_WELL = (Verdict.REDIRECTED, Verdict.DIRECT)


def outcome(row: Row, found: Verdicts) -> Outcome:
    """PASS: as it should be. WARN: past the program, or broken by it. FAIL: so, where every kernel has to do better."""
    verdict = found.verdict
    if verdict is Verdict.UNCLEAR or found.lost_controls:
        return Outcome.ERROR
    if verdict is Verdict.NOT_APPLICABLE:
        return Outcome.SKIP
    if row.must is not None:
        return Outcome.PASS if verdict is row.must else Outcome.FAIL
    return Outcome.PASS if verdict in _WELL else Outcome.WARN


def _text(found: Verdicts) -> str:
    """The verdict in a few words; with the reason where one is needed."""
    verdict = found.verdict
    text = str(verdict)
    if verdict in (Verdict.NOT_APPLICABLE, Verdict.UNCLEAR):
        text += f" ({found.reason})"
    elif verdict is Verdict.BREAKS:
        text += f" ({next(one.proof.seen.error for one in found.own if one.verdict is verdict)})"
    return "; ".join([text, *found.lost_controls])


def _told(found: Verdicts, what: str) -> Json:
    """Evidence or observations: of the one connection, or of each with the verdict of all."""
    each: list[Json] = [getattr(one, what)() for one in found.judgements]
    if len(each) == 1:
        return each[0]
    return {"verdict": str(found.verdict), "connections": each} if what == "evidence" else {"connections": each}


def rows(results: Sequence[Result]) -> list[tuple[str, str, Mapping[str, str]]]:
    """The census as a table: id, title, and the verdict by program."""
    table: list[tuple[str, str, Mapping[str, str]]] = []
    for one in results:
        verdicts = {name: told["verdict"] for name, told in one.evidence.items() if isinstance(told, Mapping)}
        table.append((one.id, one.title, {name: str(verdict) for name, verdict in verdicts.items()}))
    return table
