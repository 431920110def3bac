"""Whatever facts stand together, rules and pages give an answer: facts are made at random, in the field's own words."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.diagnose import facts as f
from harness.diagnose import page, render
from harness.diagnose.facts import Evidence, Fact
from harness.diagnose.rules import RULES
from harness.diagnose.verdict import diagnose
from harness.kernel.cgroups import Mount
from harness.msp.status import Module, Status

WORDS = (
    "RUNNING", "STOPPED", "UNKNOWN", "SUCCESS", "azure-proxy-agent.service", "azure-proxy-agent", "eBPFCore",
    "GuestProxyAgent", 'Failed to acquire key details: Key(KeyResponse("acquire", 403))',
    "Failed to start redirector: Failed to attach program 'connect4' with error: `bpf_link_create` failed",
    "Failed to start redirector: Failed to load program 'connect4' with error: the BPF_PROG_LOAD syscall failed. "
    "Verifier output: ", "Failed to open cgroup '/x' with error: os error 9", "disabled", "masked", "failed", "active",
    "24.3", "1.0.30", "10.0.14393", "error", "azure-proxy-agent not found", "azure-proxy-agent status failure",
    "/usr/sbin/azure-proxy-agent", "Microsoft.CPlat.ProxyAgent.ProxyAgentLinux", "OSProvisioningInternalError",
    "VMExtensionProvisioningError", "ProxyAgent exit code: 12", "5.4.0-azure", "connect4", "cgroup2", "systemd",
)  # fmt: skip
PARTS = ("keyLatchStatus", "ebpfProgramStatus", "proxyListenerStatus", "monitorStatus")
STATES = ("secureChannelState", "keyGuid", "keyIncarnationId")

texts = st.one_of(st.text(max_size=12), st.sampled_from(WORDS))
modules = st.builds(
    Module, st.sampled_from(PARTS), st.none() | texts, st.none() | texts,
    st.dictionaries(st.sampled_from(STATES), texts), st.booleans(),
)  # fmt: skip
statuses = st.builds(Status, st.lists(modules, max_size=4), st.none() | texts, st.none() | texts, st.booleans())
mounts = st.builds(
    Mount, st.sampled_from(["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/run/x"]).map(Path),
    st.sampled_from(["/", "/a"]), st.sampled_from(["cgroup2", "cgroup", "tmpfs"]), texts,
)  # fmt: skip
moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))
OWN: dict[Any, st.SearchStrategy[Any]] = {
    str: texts, Status: statuses, Mount: mounts, datetime: moments, int: st.integers(0, 9999), bool: st.booleans(),
    type(None): st.none(),
}  # fmt: skip


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type: those above, of unions, tuples, sets, mappings and dataclasses of them."""
    if kind in OWN:
        return OWN[kind]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([of(one) for one in inner])
    if origin is tuple:
        several = len(inner) == 2 and inner[1] is ...
        return st.lists(of(inner[0]), max_size=2).map(tuple) if several else st.tuples(*(of(one) for one in inner))
    if origin is frozenset:
        return st.frozensets(of(inner[0]), max_size=3)
    if origin is collections.abc.Mapping:
        return st.dictionaries(of(inner[0]), of(inner[1]), max_size=3)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{field.name: of(hints[field.name]) for field in dataclasses.fields(kind)})
    return st.sampled_from(list(kind))  # an enumeration


KINDS = [kind for kind in vars(f).values() if isinstance(kind, type) and issubclass(kind, Fact) and kind is not Fact]


@settings(max_examples=150)
@given(st.lists(st.one_of([of(kind) for kind in KINDS]), max_size=8))
def test_rules_and_pages_answer_whatever_the_facts(facts: list[Fact]) -> None:
    found = diagnose(Evidence(tuple(facts)))
    assert len(found.tried) == len(RULES)
    assert found.summary.strip()
    assert found.code.id in render.to_markdown(found)
    assert list(page.why(found))[-1].startswith("Verdict: ")
    render.dump(found)
