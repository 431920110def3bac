"""The helper table against the running kernel: the names by its BTF, what connect4 may call by asking the verifier."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from harness.verifier import attach, complaints, helpers
from harness.verifier.parse import parse
from tests.verifier.provoke import ALLOW, Provocation, call, provoke

BTF = Path("/sys/kernel/btf/vmlinux")
pytestmark = pytest.mark.kernel

# bytes after the 12 of struct btf_type, by kind: fixed, and for each of vlen (include/uapi/linux/btf.h)
_AFTER = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0),
          19: (0, 12)}  # fmt: skip


def kernel_helpers() -> dict[str, int]:
    """enum bpf_func_id of the running kernel: {name without BPF_FUNC_: number}."""
    data = BTF.read_bytes()
    header, types, length, strings, _ = struct.unpack_from("<I5I", data, 4)[:5]
    at, end, base = header + types, header + types + length, header + strings
    while at < end:
        _, info, _ = struct.unpack_from("<III", data, at)
        kind, count = info >> 24 & 31, info & 0xFFFF
        fixed, each = _AFTER.get(kind, (0, 0))
        if kind == 6:
            values = {}
            for number in range(count):
                name, value = struct.unpack_from("<Ii", data, at + 12 + 8 * number)
                values[data[base + name : data.index(b"\0", base + name)].decode()] = value
            if "BPF_FUNC_map_lookup_elem" in values:
                return {name.removeprefix("BPF_FUNC_"): value for name, value in values.items()}
        at += 12 + fixed + each * count
    return {}


@pytest.mark.skipif(not BTF.exists(), reason="the kernel has no BTF to compare with (CONFIG_DEBUG_INFO_BTF)")
def test_numbers_and_names_are_the_kernels() -> None:
    kernels = kernel_helpers()
    assert kernels
    ours = {name: number for number, name in enumerate(helpers.HELPER_NAMES)}
    assert {name: number for name, number in ours.items() if name in kernels and kernels[name] != number} == {}
    running = attach.version(os.uname().release) or (0, 0)
    known = [name for name, number in ours.items() if number and (helpers.introduced(number) or (99, 0)) <= running]
    assert [name for name in known if name not in kernels] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
def test_what_the_table_allows_to_connect4_the_running_kernel_allows() -> None:
    """Only that it is not refused as a helper: without arguments nearly every call is refused for its arguments."""
    running = attach.version(os.uname().release) or (0, 0)
    refused = []
    for number in range(1, len(helpers.HELPER_NAMES)):
        allowed = helpers.allowed_in_connect4(number)
        if allowed is None or allowed > running:
            continue
        code = call(number) + ALLOW
        try:
            log = provoke(Provocation(lambda maps, code=code: code))  # type: ignore[misc]
        except AssertionError:
            continue  # it takes the program: allowed
        found = complaints.find(parse(log).complaint)
        if found and found.row.id in ("helper-not-allowed", "helper-unknown"):
            refused.append(helpers.name_of(number))
    assert refused == []


@pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
def test_a_helper_that_is_not_for_connect4_is_not_in_its_table() -> None:
    for number in (9, 10, 11, 26, 44):  # of packets
        assert helpers.allowed_in_connect4(number) is None
        found = complaints.find(parse(provoke(Provocation(lambda maps, n=number: call(n) + ALLOW))).complaint)  # type: ignore[misc]
        assert found is not None
        assert found.row.id == "helper-not-allowed"
