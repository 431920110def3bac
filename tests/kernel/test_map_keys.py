"""The keys of a map in one call against those of a walk."""

from __future__ import annotations

import struct

import pytest

from harness.kernel import bpf
from harness.kernel.bpf import MapType
from harness.program import maps
from harness.program.maps import AuditRecord


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH])
@pytest.mark.parametrize("count", [0, 1, 100, 1000])
def test_the_same_keys_as_by_a_walk(kind: MapType, count: int) -> None:
    with bpf.map_create(kind, 8, 20, 1000) as table:
        for number in range(count):
            bpf.map_update(table, struct.pack("=Q", number), bytes(20))
        found = bpf.map_keys_at_once(table, 8, 20, 1000)
        assert found == set(bpf.map_keys(table, 8))
        assert kind is MapType.LRU_HASH or found == {struct.pack("=Q", number) for number in range(count)}


def test_a_map_without_it() -> None:
    with bpf.map_create(MapType.QUEUE, 0, 8, 4) as queue:
        assert bpf.map_keys_at_once(queue, 0, 8, 4) is None


def test_one_record_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = maps.LAYOUTS["audit_map"]
    with bpf.map_create(layout.type, layout.key_size, layout.value_size, 64) as audit:
        for port in (1, 2, 3):
            bpf.map_update(audit, maps.audit_key(port), AuditRecord(0, 1, True, "169.254.169.254", 80).pack())
        for _ in range(2):
            assert not maps.unrecorded(audit, [1, 2, 3], 64)
            assert maps.unrecorded(audit, [1, 2, 3, 4], 64)
            monkeypatch.setattr(bpf, "map_keys_at_once", lambda *_: None)  # as before 5.6
