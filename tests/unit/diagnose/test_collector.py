"""The collector: old Python, bounded, and no secret in what it writes."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.diagnose import collector, intake
from harness.diagnose.collector import redact

SCRIPT = Path(collector.__file__)
KEY = "4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59"
BASE64 = "MIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJRTESMBAGA1UEChMJQmFsdGltb3Jl"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

PLANTED = [
    ('{"guid": "9cf81e97", "key": "%s", "issued": "x"}', KEY),
    ("latched %s.", KEY),
    ("Authorization: Bearer %s", JWT),
    ("token in the middle %s of a line", JWT),
    ("https://a.blob.core.example/x?sv=2020&sr=b&sig=%s&se=2024", "abcDEF%2Bghi%3D"),
    ("url%%3Dx%%26sig%%3D%s", "abcDEF%2Bghi"),
    ("x-ms-azure-host-authorization: Azure-HMAC-SHA256 9cf81e97-0316 %s", KEY[:32]),
    ("DefaultEndpointsProtocol=https;AccountName=n;AccountKey=%s;EndpointSuffix=s", "Zm9vYmFyYmF6cXV4=="),
    ("<ns1:UserPassword>%s</ns1:UserPassword>", "hunter2 with blanks"),
    ("<CustomData>\n%s\n</CustomData>", "I2Nsb3VkLWNvbmZpZw"),
    ('"adminPassword": "%s"', 'hun"ter'.replace('"', '\\"')),
    ('{\\"adminPassword\\":\\"%s\\",\\"x\\":1}', "hunter2"),
    ("{'password': '%s'}", "hunter2"),
    ('password = "%s"', "hunter 2"),
    ("passwd: %s", "hunter2"),
    ("cmd --token %s run", "hunter2"),
    ("ftp://me:%s@host/", "hunter2"),
    ("root:%s:19000:0", "$6$saltsalt$abcdefghijklmnop"),
    ("-----BEGIN RSA PRIVATE KEY-----\n%s\n-----END RSA PRIVATE KEY-----", "MIIEow" + "A" * 40),
    ('"pem": "-----BEGIN CERTIFICATE-----\\n%s\\n-----END CERTIFICATE-----\\n"', "QUJD"),
    ("-----BEGIN PRIVATE KEY-----\n%s", "MIIEow" + "A" * 40),  # cut
    ("<X509Certificate>%s</X509Certificate>", "QUJDREVG"),
    ("cert %s end", BASE64),
    ("Authorization: Basic %s", "dXNlcjpwYXNz"),
]


@pytest.mark.parametrize(("around", "secret"), PLANTED, ids=[around[:30] for around, _ in PLANTED])
def test_a_planted_secret_does_not_leave(around: str, secret: str) -> None:
    text = f"before\n{around % secret}\nafter"
    assert secret in text
    redacted, counts = redact(text)
    assert secret not in redacted
    assert sum(counts.values()) >= 1
    assert redacted.startswith("before\n")
    assert redact(redacted) == (redacted, {})


HARMLESS = [
    "Failed to get key status - Key error: Failed to acquire key with status code: 403 Forbidden",
    '"keyGuid": "9cf81e97-0316-4ad3-94a7-8ccbdee8ddbf", "keyIncarnationId": "10"',
    "keyLatchStatus - Failed to acquire key details: Key(KeyResponse(\"acquire\", 403))",
    "14: (18) r1 = 0xffff8baa17403400",
    "program sha256:90509e235f0b" + "0" * 52,
    "cgroup2 on /sys/fs/cgroup type cgroup2 (rw,nosuid,nodev,noexec,relatime)",
    "prog 12 tag 3f1a2b3c4d5e6f70 gpl",
    "basic information about tokens and passwords",
    "\"message\": \"Customer has not enforce the secure channel state.\"",
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_evidence_stays(text: str) -> None:
    assert redact(text) == (text, {})


pieces = st.sampled_from([around % secret for around, secret in PLANTED] + HARMLESS) | st.text(max_size=20)


@given(st.lists(pieces, max_size=8), st.sampled_from(["\n", " ", ""]))
def test_redacting_twice_changes_nothing(parts: list[str], glue: str) -> None:
    once, _ = redact(glue.join(parts))
    assert redact(once) == (once, {})


@pytest.mark.parametrize(
    "piece", ["-----BEGIN A-----", '\\"key\\":\\"', "<password>", "eyJ", "password=", "sig=", "a://b:"]
)
def test_made_to_be_slow(piece: str) -> None:
    """Half a megabyte of the beginnings of secrets; an exponent would not come back."""
    redact(piece * (500_000 // len(piece)))


def test_syntax_and_modules_are_those_of_3_6() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
    future = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert not future  # annotations came with 3.7
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names - {"dataclasses", "contextvars", "graphlib", "tomllib", "zoneinfo"}
    words = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not words & {"capture_output", "text", "dirs_exist_ok", "root_dir", "missing_ok"}  # of 3.7 and later


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root with an agent's files, a key, a link to somewhere else and a FIFO."""
    logs = tmp_path / "var/log/azure-proxy-agent"
    logs.mkdir(parents=True)
    (logs / "status.json").write_text('{"proxyAgentStatus": {"status": "SUCCESS", "version": "1.0.30"}}')
    (logs / "ProxyAgent.log").write_text("x" * 100 + f"\nacquired {KEY}\n")
    keys = tmp_path / "var/lib/azure-proxy-agent/keys"
    keys.mkdir(parents=True)
    (keys / "9cf81e97.key").write_text(KEY)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/shadow").write_text("root:$6$secret:1")
    (logs / "link.log").symlink_to(tmp_path / "etc/shadow")
    os.mkfifo(logs / "pipe.log")
    return tmp_path


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("msp-collect/")] = file.read().decode()
        return found


def test_what_is_taken_and_what_not(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "COMMANDS", ("uname -r", "no-such-program --version", "sleep 5"))
    monkeypatch.setattr(collector, "COMMAND_SECONDS", 0.2)
    bundle = collector.collect(str(machine))
    bundle.write(str(machine / "bundle.tar.gz"))
    found = members(machine / "bundle.tar.gz")
    assert '"SUCCESS"' in found["var/log/azure-proxy-agent/status.json"]
    assert "acquired [redacted key]" in found["var/log/azure-proxy-agent/ProxyAgent.log"]
    assert found["commands/uname_-r.txt"].startswith(f"$ uname -r\n{os.uname().release}")
    assert KEY not in "".join(found.values())
    assert "$6$" not in "".join(found.values())
    readme = found["README.txt"]
    assert "link.log: Too many levels of symbolic links" in readme
    assert "pipe.log: no regular file" in readme
    assert "`no-such-program --version`: No such file or directory" in readme
    assert "`sleep 5`: ended after 0.2 s" in readme
    assert re.search(r"1 +key", readme)
    assert (machine / "bundle.tar.gz").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        bundle.write(str(machine / "bundle.tar.gz"))
    assert not list(machine.glob("*.part"))


def test_its_bundle_can_be_diagnosed(machine: Path) -> None:
    collector.collect(str(machine)).write(str(machine / "bundle.tar.gz"))
    names = {document.name for document in intake.read([machine / "bundle.tar.gz"]).documents}
    assert any(name.endswith("status.json") for name in names)
    assert any("uname" in name for name in names)


def test_bounds(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "COMMANDS", ())
    (machine / "var/log/azure-proxy-agent/ProxyAgent.1.log").write_text("a" * (collector.FILE_BYTES + 50))
    bundle = collector.collect(str(machine))
    sizes = {name: len(data) for name, data in bundle.members}
    assert sizes["var/log/azure-proxy-agent/ProxyAgent.1.log"] == collector.FILE_BYTES
    assert any("the last 2097152 of 2097202 bytes" in line for line in bundle.left_out)
    small = collector.collect(str(machine), total=50)
    assert any("the bundle is full" in line for line in small.left_out)
    late = collector.collect(str(machine), seconds=-1)
    assert not late.members


def test_output_of_a_command_that_never_ends_is_cut() -> None:
    output, problem = collector.run(["yes"], 20, limit=1000)
    assert (len(output), problem) == (1000, "its output was cut")


def test_the_script_by_itself(tmp_path: Path) -> None:
    """Run as a customer would, with no package of ours in reach."""
    script = tmp_path / "collect.py"
    script.write_text(SCRIPT.read_text())
    command = [sys.executable, "-I", str(script), "--output", str(tmp_path / "out.tar.gz")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "see README.txt" in done.stdout
    assert "README.txt" in members(tmp_path / "out.tar.gz")
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 3
    assert "there is a file already" in again.stderr


def test_utf_16_is_redacted_too() -> None:
    bundle = collector.Bundle()
    bundle.add("a.log", f"acquired {KEY}".encode("utf-16"))
    assert bundle.members == [("a.log", b"acquired [redacted key]")]
    assert io.BytesIO(bundle.members[0][1]).read()
