from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from harness.report import Outcome, Report, Result
from harness.report.junit import render, xml_text
from tests.report.samples import reports, sample, texts, with_text

SDIST = "pytest==8.3.4"  # its tests carry the schema that Jenkins' xunit plugin checks with
SDIST_SHA256 = "965370d062bce11e73868e0335abac31b4d3de0e82f4007408d242b4f8610761"
MEMBER = "pytest-8.3.4/testing/example_scripts/junit-10.xsd"
MEMBER_SHA256 = "a1a816f58d1bf95ebabf371994df0b9246dee66ea9572fbec4f9296f1b2c0ff6"


@pytest.fixture(scope="session")
def junit_schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Jenkins' junit-10.xsd, fetched once into the cache."""
    xmlschema = pytest.importorskip("xmlschema")
    cached = Path(os.environ.get("MSP_HARNESS_CACHE", "/var/cache/msp-harness")) / "junit-10.xsd"
    if not (cached.is_file() and hashlib.sha256(cached.read_bytes()).hexdigest() == MEMBER_SHA256):
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_name(f".junit-10.xsd.{os.getpid()}")
        partial.write_bytes(fetched_schema(tmp_path_factory.mktemp("sdist")))
        partial.replace(cached)
    return xmlschema.XMLSchema10(str(cached))


def fetched_schema(directory: Path) -> bytes:
    """The member of pytest's source distribution; pip refuses a file with another hash before it looks inside."""
    wanted = directory / "wanted.txt"
    wanted.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n")
    options = ["--quiet", "--no-deps", "--no-binary", "pytest", "--require-hashes", "-r", str(wanted)]
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", *options]
    try:
        done = subprocess.run([*command, "-d", str(directory)], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the schema of JUnit was not fetched: {' '.join(command)}: not done after 120 s")
    if done.returncode:
        pytest.skip(f"the schema of JUnit was not fetched: {' '.join(command)}: {done.stderr.strip()[-300:]}")
    (sdist,) = directory.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        file = archive.extractfile(MEMBER)
        assert file is not None
        data = file.read(1 << 20)
    assert hashlib.sha256(data).hexdigest() == MEMBER_SHA256
    return data


def test_a_ci_server_accepts_it(junit_schema: Any) -> None:
    junit_schema.validate(render(sample()))


def test_the_schema_can_refuse(junit_schema: Any) -> None:
    assert not junit_schema.is_valid(render(sample()).replace("classname=", "klass="))


# The schema is the session's and does not change from one example to the next.
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(report=reports)
def test_a_ci_server_accepts_any(junit_schema: Any, report: Report) -> None:
    junit_schema.validate(render(report))


def cases(report: Report) -> dict[str | None, ET.Element]:
    return {case.get("name"): case for case in ET.fromstring(render(report)).iter("testcase")}


def test_a_suite_is_a_group() -> None:
    top = ET.fromstring(render(sample()))
    names = ("name", "tests", "failures", "errors", "skipped", "time")
    assert [tuple(suite.get(name) for name in names) for suite in top] == [
        ("preflight", "1", "0", "0", "0", "0.000"),
        ("redirect", "2", "1", "0", "0", "0.026"),
        ("load", "1", "0", "1", "0", "1.250"),
        ("coverage", "2", "0", "0", "1", "0.000"),
    ]
    assert [top.get(name) for name in names] == ["msp-harness", "6", "1", "1", None, "3.412"]
    properties = {p.get("name"): p.get("value") for p in top[0].iter("property")}
    assert properties["kernel"] == "6.1.0-25-amd64"
    assert properties["target"] == "live kernel"
    assert properties["run"] == "a1b2c3"


def test_each_outcome_has_its_element() -> None:
    found = cases(sample())
    children = {name: [child.tag for child in case] for name, case in found.items()}
    assert children == {
        "preflight.bpf": [],
        "redirect.imds": [],
        "redirect.wireserver": ["failure"],
        "load.hardened": ["error"],
        "coverage.io_uring": ["skipped"],
        "coverage.v6": ["system-out"],
    }
    assert found["redirect.imds"].get("classname") == "msp-harness.redirect"
    assert found["redirect.imds"].get("time") == "0.012"


def test_a_failure_says_what_and_what_to_do() -> None:
    failure = cases(sample())["redirect.wireserver"][0]
    assert failure.get("message") == "the client's SYN was seen on the veth"
    assert failure.get("type") == "MSP-A004"
    text = failure.text or ""
    for part in ("  bpftool cgroup tree", "guide: Connections are", "endpoint: 168.63.129.16:80", "pid: 4711"):
        assert part in text


def test_skipped_and_warning_say_why() -> None:
    found = cases(sample())
    assert found["coverage.io_uring"][0].get("message") == "ENOSYS: this kernel has no io_uring"
    assert (found["coverage.v6"][0].text or "").startswith("WARN: bypasses connect4\nwhat: v4-mapped\nwhat to do: use")


@pytest.mark.parametrize(
    "text", ["\x00", "\x1b[31m", "\x7f\x85", "\r\n", "\ufffe", "\udc80", "]]>", "<&\">'", "\t", "\n", "😀"]
)
def test_every_text_survives_the_parser(text: str) -> None:
    found = cases(with_text(f"a{text}b"))
    assert list(found) == [f"a{xml_text(text)}b"]
    failure = next(ET.fromstring(render(with_text(f"a{text}b"))).iter("failure"))
    assert failure.get("message") == f"a{xml_text(text)}b"
    assert f"what to do: a{xml_text(text)}b" in (failure.text or "")


def test_forbidden_characters_are_shown() -> None:
    assert xml_text("\x1b[0m \x00 \udc80 \ufffe \r ok\n\t→") == r"\x1b[0m \x00 \udc80 \ufffe \r" + " ok\n\t→"


@given(texts)
def test_any_text_parses(text: str) -> None:
    result = Result("a.b", text, Outcome.FAIL, text, {"x": text}, remedy=text)
    assert cases(sample(result))["a.b"][0].get("message") == xml_text(text)
