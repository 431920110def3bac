"""A redirector at work in a lab: loaded, filled, attached, and known to the proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from harness.kernel import bpf
from harness.lab.lab import Lab
from harness.msp.endpoints import ENDPOINTS, PROXY, Endpoint
from harness.program import maps
from harness.program.attach import Way, attach
from harness.program.load import Loaded


@dataclass(frozen=True)
class Redirection:
    """What an attached redirector offers to a check."""

    lab: Lab
    loaded: Loaded
    links: Mapping[str, bpf.Fd | None]

    @property
    def policy_map(self) -> bpf.Fd:
        return self.loaded.maps["policy_map"]

    @property
    def skip_map(self) -> bpf.Fd:
        return self.loaded.maps["skip_process_map"]

    @property
    def audit_map(self) -> bpf.Fd:
        return self.loaded.maps["audit_map"]

    def audit(self, source_port: int) -> maps.AuditRecord | None:
        return maps.audit_record(self.audit_map, source_port)

    def set_policy(self, endpoint: Endpoint, instead: tuple[str, int] = PROXY) -> None:
        maps.set_policy(self.policy_map, destination(endpoint), maps.Destination(*instead))

    def clear_policy(self, endpoint: Endpoint) -> bool:
        return maps.clear_policy(self.policy_map, destination(endpoint))


def destination(endpoint: Endpoint) -> maps.Destination:
    return maps.Destination(endpoint.address, endpoint.port, endpoint.protocol)


def fill(loaded: Loaded, lab: Lab, instead: tuple[str, int] = PROXY) -> None:
    """Skip the lab's proxy, redirect the three endpoints, and have the proxy read this audit map."""
    maps.skip(loaded.maps["skip_process_map"], lab.proxy.pid)
    for endpoint in ENDPOINTS:
        maps.set_policy(loaded.maps["policy_map"], destination(endpoint), maps.Destination(*instead))
    lab.use_audit_map(loaded.maps["audit_map"])


@contextmanager
def redirect(lab: Lab, loaded: Loaded, way: Way = Way.LINK) -> Iterator[Redirection]:
    """Fill the maps and attach to the lab's VM cgroup, until the end of the with block."""
    fill(loaded, lab)
    with attach(loaded, lab.attach_cgroup, way) as links:
        yield Redirection(lab, loaded, links)
