"""The lab: a VM and Azure's side of it, made of namespaces, a cgroup of the run's own, and four kinds of process.

vm worker      in the VM's network namespace: forks clients (harness.lab.clients)
proxy worker   in the VM's network namespace and the VM's cgroup: the agent's proxy on 127.0.0.1:3080
fabric worker  in the fabric's network namespace: the services, and the capture on the veth

<cgroup2>/msp-harness-<run>/<lab>/vm          a program is attached here, as an agent attaches at the root
                                 vm/client    the clients
                                 vm/agent     the proxy: it must be skipped by the program, not left out
                                 outside      a process that the program does not cover
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness.agent.proxy import Proxy
from harness.errors import HarnessError, errno_text
from harness.kernel import bpf, cgroups, listeners, processes
from harness.kernel.bpf import AttachType
from harness.kernel.processes import Namespace
from harness.lab import clients, raw_client, standing, topology
from harness.lab.capture import Capture, Packet
from harness.lab.clients import Request, Seen
from harness.lab.fabric import Fabric
from harness.lab.standing import AtWork, Crew, crew
from harness.lab.state import Run
from harness.lab.worker import Handler, Reply, Worker
from harness.msp.endpoints import ENDPOINTS, PROXY
from harness.program import maps
from harness.program.attach import Way

if TYPE_CHECKING:
    from harness.lab.platform import Platform
    from harness.lab.scenarios import Scenario

OTHER_PORT = 8080
"""A port of the metadata addresses that no policy names."""


@dataclass(frozen=True)
class Accepted:
    """A connection that the proxy accepted: the client's port, what the audit map said of it, what was asked."""

    port: int
    record: maps.AuditRecord | None
    asked: tuple[str, ...] = ()  # method and target of each request
    endpoint_ports: tuple[int, ...] = ()  # from which the proxy itself connected to the record's destination for it


@dataclass(frozen=True)
class Arrived:
    """A request as it reached the fabric; headers in the order and case of the wire."""

    endpoint: str
    target: str
    headers: Sequence[Sequence[str]]

    def values(self, name: str) -> list[str]:
        """Every value of a header, whatever its case."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class _Told:
    """Whether proxy and fabric have told all that the lab's clients did: not once one was started, or went on."""

    all: bool = False


class _Watched:
    """A client, which may do something that nobody has told yet when it is let go on, and until it is closed."""

    def __init__(self, client: AtWork, told: _Told):
        told.all = False
        self._client = client
        self._told = told
        self.pid = client.pid

    def seen(self) -> Seen:
        return self._client.seen()

    def release(self) -> None:
        self._told.all = False
        self._client.release()

    def __enter__(self) -> _Watched:
        self._client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._told.all = False
        self._client.__exit__(kind, error, trace)


@dataclass(frozen=True)
class Lab:
    """A running lab."""

    cgroup: Path
    nonce: str
    vm: Worker
    proxy: Worker
    fabric: Worker
    crew: Crew
    _told: _Told = field(default_factory=_Told)

    @property
    def attach_cgroup(self) -> Path:
        return self.cgroup / "vm"

    @property
    def client_cgroup(self) -> Path:
        return self.cgroup / "vm" / "client"

    @property
    def outside_cgroup(self) -> Path:
        return self.cgroup / "outside"

    @property
    def platform(self) -> Platform:
        """The platform's secure channel, where the lab was opened with a scenario."""
        from harness.lab.platform import Platform

        return Platform(self.fabric)

    def client(self, request: Request) -> AtWork:
        """Start a client in the VM, in the covered cgroup unless it names another: one that stays, where it can."""
        one = self.crew.client(request) if self.crew.does(request) else clients.Client(self.vm, request)
        return _Watched(one, self._told)

    def ask(self, request: Request) -> Seen:
        with self.client(request) as client:
            return client.seen()

    def owner(self, program: bpf.Fd, kind: AttachType, way: Way) -> int:
        """Attach a program from a process of its own, which is then to be killed by kill(); its pid."""
        return self.crew.owner(program.fileno(), cgroup=str(self.attach_cgroup), kind=int(kind), way=str(way))

    def kill(self, pid: int) -> None:
        """SIGKILL a client or an owner, and wait until it is gone."""
        self.crew.forget(pid)
        self.vm.call("reap", pid=pid)

    def use_audit_map(self, audit_map: bpf.Fd) -> None:
        """Have the proxy find its clients in this map from now on."""
        self.proxy.call("use_audit_map", [audit_map.fileno()])

    def accepted(self) -> list[Accepted]:
        """What the proxy accepted since the last call, in order."""
        return [_accepted(row) for row in self.proxy.call("accepted")]

    def since(self) -> tuple[list[Accepted], list[Packet]]:
        """accepted() and captured() by one wait: both workers are asked at once."""
        self.proxy.post("accepted")
        self.fabric.post("captured")
        rows, (packets, dropped) = self.proxy.reply("accepted")[0], self.fabric.reply("captured")[0]
        seen = [_accepted(row) for row in rows], _packets(packets, dropped)
        self._told.all = True
        return seen

    def forget(self) -> None:
        """Have since() tell only of clients that are started from here on. Where it told all last, that is so."""
        if not self._told.all:
            self.since()

    def renewed(self) -> Lab:
        """As if it had just been built: its workers forget what they saw, and its proxy has another nonce."""
        nonce = secrets.token_hex(16)
        self.proxy.post("renew", nonce=nonce)
        self.fabric.post("forget")
        self.proxy.reply("renew")
        self.fabric.reply("forget")
        return replace(self, nonce=nonce, _told=_Told(all=True))

    def requests(self, part: str) -> list[Arrived]:
        """What reached the fabric with this text in its target, in order; at most the last 1,000."""
        return [
            Arrived(row["endpoint"], row["target"], row["headers"]) for row in self.fabric.call("requests", part=part)
        ]

    def captured(self) -> list[Packet]:
        """What crossed the veth since the last call. Raises HarnessError when the kernel dropped some of it."""
        return _packets(*self.fabric.call("captured"))


def _accepted(row: Mapping[str, Any]) -> Accepted:
    record = row["record"] and maps.AuditRecord(**row["record"])
    return Accepted(row["port"], record, tuple(row["asked"]), tuple(row["endpoint_ports"]))


def _packets(packets: Sequence[Mapping[str, Any]], dropped: int) -> list[Packet]:
    if dropped:
        raise HarnessError("see all that crossed the veth", f"{dropped} packets were dropped", "run it again")
    return [Packet(**packet) for packet in packets]


@contextmanager
def open_lab(
    run: Run, name: str = "lab", *, proxy_port: int = PROXY[1], scenario: Scenario | None = None
) -> Iterator[Lab]:
    """Build a lab in the run's cgroup. Everything is gone at the end of the with block.

    proxy_port 0 has the lab's own proxy listen where nobody is sent to: for an agent that brings its own. With a
    scenario the fabric speaks the secure channel (Lab.platform); without, it asks for no keys and no signatures.
    Call it while the process has one thread: it forks. The usual lab may have been prepared for this run.
    """
    made = _PREPARED.pop(run.cgroup, None) if proxy_port == PROXY[1] and scenario is None else None
    if made is not None:
        _TAKEN.append(made)
        yield made.lab.renewed()
        return
    cgroup = cgroups.make(run.cgroup / name)
    for below in ("vm", "vm/client", "vm/agent", "outside"):
        cgroups.make(cgroup / below)
    nonce = secrets.token_hex(16)
    with ExitStack() as stack:
        vm = stack.enter_context(Worker("VM", lambda: _vm(cgroup / "vm" / "client")))
        fabric = stack.enter_context(Worker("fabric", _fabric, asynchronous=True))
        vm.call("ready")  # from here on its namespace is its own: the proxy must never enter the host's
        proxy = stack.enter_context(
            Worker("proxy", lambda: _proxy(vm.pid, cgroup / "vm" / "agent", nonce, proxy_port), asynchronous=True)
        )
        fabric.call("build", vm_pid=vm.pid)
        vm.call("build")
        proxy.call("start")
        fabric.call("start", scenario=scenario and scenario.dump())
        own = ("", str(cgroup / "vm" / "client"), str(cgroup / "outside"))
        yield Lab(cgroup, nonce, vm, proxy, fabric, stack.enter_context(crew(vm, own)))


@dataclass(frozen=True)
class _Prepared:
    lab: Lab
    stack: ExitStack  # closed, and so all gone, when nothing refers to it any more


_PREPARED: dict[Path, _Prepared] = {}
"""Labs that wait for their open_lab(), by their run's cgroup."""

_TAKEN: list[_Prepared] = []
"""Those that were taken over: they end with the process, which is at its end then, and not before."""


def prepare_lab(run: Run) -> Lab:
    """Build a lab that this process's next open_lab() for this run takes over, if it asks for the usual one."""
    if run.cgroup not in _PREPARED:
        with ExitStack() as stack:
            lab = stack.enter_context(open_lab(run, "prepared"))
            _PREPARED[run.cgroup] = _Prepared(lab, stack.pop_all())
    return _PREPARED[run.cgroup].lab


def _vm(cgroup: Path) -> Mapping[str, Handler]:
    """The VM's worker, in the clients' cgroup: to be born in a cgroup costs nothing, to be moved a few ms."""
    cgroups.move(0, cgroup)
    processes.unshare(Namespace.NETWORK)
    clients.warm_up()

    def spawn(request: dict[str, Any]) -> Reply:
        if request["behaviour"] in clients.PLAIN:
            return clients.spawn(clients.PLAIN, request)
        if request["behaviour"] in raw_client.BEHAVIOURS:
            return clients.spawn(raw_client.BEHAVIOURS, request)
        from harness.lab.behaviours import BEHAVIOURS  # the census's: imported here, once, before the fork

        return clients.spawn(BEHAVIOURS, request)

    return {
        "ready": lambda: None,
        "build": topology.build_vm,
        "spawn": spawn,
        "stand": standing.stand,
        "reap": clients.reap,
        "listeners": listeners.listeners,
        "join_container": topology.join_container,
        "leave_container": topology.leave_container,
    }


def _fabric() -> Mapping[str, Handler]:
    """The fabric's worker."""
    processes.unshare(Namespace.NETWORK)
    state: dict[str, Any] = {}

    async def build(vm_pid: int) -> None:
        # pyroute2 runs a loop of its own; a thread started after unshare() is in the same namespace
        await asyncio.to_thread(topology.build_fabric, vm_pid)
        state["capture"] = Capture(topology.FABRIC_DEVICE)
        state["sockets"] = {
            endpoint.name: socket.create_server((endpoint.address, endpoint.port), backlog=1024)
            for endpoint in ENDPOINTS
        }

    async def start(scenario: dict[str, Any] | None) -> None:
        channel = None
        if scenario is not None:
            from harness.lab import platform  # what it needs is not imported where no agent has keys

            channel = platform.channel(scenario)
            handlers.update(platform.handlers(channel))
        state["fabric"] = Fabric(state["sockets"], channel=channel)
        await state["fabric"].start()
        others = [(topology.OTHER_ADDRESS, 80), *{(endpoint.address, OTHER_PORT) for endpoint in ENDPOINTS}]
        state["others"] = [await asyncio.start_server(_answer_other, *other) for other in others]

    def captured() -> tuple[list[dict[str, Any]], int]:
        packets, dropped = state["capture"].drain()
        return [vars(packet) for packet in packets], dropped

    def requests(part: str) -> list[dict[str, Any]]:
        found = [row for row in state["fabric"].requests if part in row.target][-1000:]
        return [{"endpoint": row.endpoint, "target": row.target, "headers": row.headers} for row in found]

    def forget() -> None:
        state["capture"].drain()
        state["fabric"].requests.clear()

    handlers: dict[str, Handler] = {
        "build": build,
        "start": start,
        "captured": captured,
        "requests": requests,
        "forget": forget,
    }
    return handlers


async def _answer_other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that is none of the platform's: what policy does not name must reach it unchanged."""
    try:
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(b"HTTP/1.1 200 OK\r\nServer: other\r\nContent-Length: 6\r\n\r\nother\n")
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        pass
    finally:
        writer.close()


def _proxy(vm_pid: int, cgroup: Path, nonce: str, port: int) -> Mapping[str, Handler]:
    """The proxy's worker: in the cgroup that the program covers, so that only the skip map lets it through."""
    cgroups.move(0, cgroup)
    processes.enter(vm_pid, Namespace.NETWORK)
    state: dict[str, Any] = {"audit_map": None}

    def lookup(source_port: int) -> maps.AuditRecord | None:
        try:
            return None if state["audit_map"] is None else maps.audit_record(state["audit_map"], source_port)
        except HarnessError as error:
            raise OSError(error.errno, str(error)) from error

    async def start() -> None:
        try:
            listener = socket.create_server((PROXY[0], port), backlog=4096)
        except OSError as error:
            happened = f"{errno_text(error.errno or 0)}"
            raise HarnessError(
                f"listen on {PROXY[0]}:{port} in the VM's namespace", happened, errno=error.errno or 0
            ) from error
        state["proxy"] = Proxy(listener, lookup, nonce)
        await state["proxy"].start()

    def use_audit_map(descriptors: list[int]) -> None:
        if state["audit_map"] is not None:
            state["audit_map"].close()
        state["audit_map"] = bpf.Fd(descriptors[0])

    def accepted() -> list[dict[str, Any]]:
        connections = state["proxy"].connections
        rows = [
            {
                "port": row.client_port,
                "record": row.audit and vars(row.audit),
                "asked": [f"{exchange.method} {exchange.target}" for exchange in row.exchanges],
                "endpoint_ports": list(row.endpoint_ports),
            }
            for row in connections
        ]
        connections.clear()
        return rows

    def renew(nonce: str) -> None:
        state["proxy"].connections.clear()
        state["proxy"].nonce = nonce

    return {"start": start, "use_audit_map": use_audit_map, "accepted": accepted, "renew": renew}
