"""Whatever the text, a reader raises nothing, and what it finds is safe to show and bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.diagnose import intake, recognize
from harness.diagnose.facts import Evidence, Fact, Note
from harness.diagnose.limits import Limits
from harness.diagnose.readers.table import READERS, Reader
from harness.diagnose.recognize import _function
from harness.diagnose.sections import Section
from tests.unit.diagnose.bundles import assert_safe

TOP = Path(__file__).parents[3]
SMALL = Limits(document=1 << 16, unpacked=1 << 16, total=1 << 18, inflated=1 << 19, documents=50)

# what stands in the texts that the readers know: signs, and pieces of their lines
PIECES = [
    *sorted({sign for row in READERS for sign in row.signs}),
    "\n", "\n\n", " ", "\t", "> ", "root@vm1:~# ", "$ uname -r\n", "C:\\>sc query eBPFCore\n", "{", "}", "[", "]", '"',
    "\\", '\\"', ": ", "= ", "0", "1060", "4  RUNNING", "TYPE : 1  KERNEL_DRIVER\n", "STATE : 4  RUNNING\n",
    "2026-11-24T10:00:00.123Z", "Nov 24 10:00:00 vm1 systemd[1]: ", "[INFO]    ", "azure-proxy-agent", ".service",
    "Active: failed (Result: exit-code)", "cgroup2 on /sys/fs/cgroup type cgroup2 (rw)", "<Event>", "</Event>",
    "<EventID>", "]]>", "&a;", "|", "'", "keyLatchStatus", '"message": "', "\x1b[31m", "\x00", "\ud800", "\u202e",
    "\ufeff", "\u201c", "9" * 5000,
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=60).map("".join)


@pytest.mark.parametrize("row", READERS, ids=lambda row: row.read)
@given(data=st.data())
@settings(max_examples=25)
def test_every_reader_takes_any_text(row: Reader, data: st.DataObject) -> None:
    from harness.diagnose.decode import clean

    text = clean(data.draw(TEXTS))
    command = data.draw(
        st.none() | st.sampled_from(["uname -r", "sc query x", "mount | grep cgroup2", row.said or "cat"])
    )
    section = Section("document", text, 1, command)
    section.ended = data.draw(st.booleans())
    found = list(_function(row.read)(section))
    assert all(isinstance(item, Fact | Note) for item in found)
    assert_safe(Evidence([item for item in found if isinstance(item, Fact)]))


@given(TEXTS | st.text())
@settings(max_examples=150)
def test_any_text_through_the_intake(text: str) -> None:
    found = intake.read_bytes(text.encode("utf-8", "surrogatepass"), "name", limits=SMALL)
    assert_safe(found)


MAGIC = [b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"LPKSHHRH"]


@given(st.binary(max_size=3000), st.sampled_from(MAGIC))
@settings(max_examples=150)
def test_any_bytes_through_the_intake(data: bytes, magic: bytes) -> None:
    assert_safe(intake.read_bytes(magic + data, "bytes", limits=SMALL))


MEMBERS = [
    "proxyAgentStatus",
    "keyLatchStatus",
    "status",
    "message",
    "states",
    "proxyConnectionSummary",
    "timestamp",
    "version",
    "filesystems",
    "target",
    "fstype",
    "children",
    "aggregateStatus",
    "handlerAggregateStatus",
    "v1",
    "datasource",
    "errors",
    "latchKeyFolder",
    "ebpfProgramName",
    "compute",
    "vmId",
    "operation",
    "formattedMessage",
    "substatus",
    "timestampUTC",
    "heartbeat",
    "handlerEnvironment",
    "__REALTIME_TIMESTAMP",
    "MESSAGE",
    "attach_type",
    "cgroup",
    "programs",
    "id",
    "type",
    "tag",
    "pids",
    "EventLevel",
    "Message",
    "error",
    "code",
    "details",
    "innererror",
    "properties",
    "securityProfile",
    "proxyAgentSettings",
    "keyIncarnationId",
    "storageProfile",
    "osProfile",
    "virtualMachineProfile",
    "instanceView",
    "statuses",
    "vmAgent",
    "extensions",
    "resources",
    "value",
    "name",
    "publisher",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=30,
)


@given(st.lists(JSON, min_size=1, max_size=3))
@settings(max_examples=400)
def test_any_json_with_the_members_that_are_known(values: list[object]) -> None:
    import json

    text = "\n".join(json.dumps(value) for value in values)
    read = recognize.read("document", text)
    assert_safe(Evidence(read.facts, (), read.notes))


def test_the_fuzz_target_for_a_moment() -> None:
    """The target of `make fuzz`, in a process of its own: atheris changes what it imports."""
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz.fuzz_readers", "60", "3000"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "number_of_executed_units" in done.stderr
