"""Clients as judges: who answered one that asked for IMDS, and programs that stand in its way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.failures.model import DIRECT, ELSEWHERE, REDIRECTED, Answer, Setting
from harness.kernel import bpf
from harness.lab.clients import Request, Seen
from harness.lab.lab import Lab
from harness.lab.patience import SLOWNESS
from harness.lab.redirection import fill
from harness.msp.endpoints import IMDS
from harness.program import load as loader
from harness.program import maps
from harness.program.load import Loaded
from harness.report.model import Json

PATIENCE = 1.0 * SLOWNESS  # seconds that a client waits


def fate(lab: Lab, seen: Seen) -> str:
    """Who answered a client: the lab's proxy (its nonce), the endpoint, somebody else; or the errno, or `timeout`."""
    if seen.nonce == lab.nonce:
        return REDIRECTED
    if seen.error:
        return seen.error
    return ELSEWHERE if seen.body.startswith("other") else DIRECT


def ask(lab: Lab, did: str, **changes: Any) -> Answer:
    """A client of the lab asks for IMDS; changes are members of its Request."""
    request = dataclasses.replace(Request.to(IMDS, patience=PATIENCE), **changes)
    return told(lab, f"a client asks for {request.address}:{request.port} {did}".rstrip(), lab.ask(request))


def told(lab: Lab, did: str, seen: Seen) -> Answer:
    observed: dict[str, Json] = {"peer": seen.peer} if seen.peer else {}
    return Answer(did, fate(lab, seen), observed=observed)


@contextmanager
def ours(setting: Setting) -> Iterator[Loaded]:
    """Our redirector, loaded and filled as a provisioned agent's is; not attached."""
    with loader.load(setting.image) as loaded:
        fill(loaded, setting.lab)
        yield loaded


@contextmanager
def translator(setting: Setting, wanted: maps.Destination, instead: maps.Destination) -> Iterator[bpf.Fd]:
    """Another product's connect4 program, which sends one destination to another; not attached."""
    with loader.load(setting.image) as loaded:
        maps.set_policy(loaded.maps["policy_map"], wanted, instead)
        yield loaded.programs["connect4"]
