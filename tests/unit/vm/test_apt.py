"""The host's sources, rewritten to another suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm import apt
from harness.vm.apt import Source

HOST = [
    Source("http://mirror.invalid/debian/", "bookworm", ("main", "contrib")),
    Source("http://mirror.invalid/debian/", "bookworm-updates", ("main",)),
    Source("http://mirror.invalid/debian-security/", "bookworm-security", ("main",)),
    Source("http://other.invalid/", "stable", ("main",)),
]


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "host_sources", lambda: HOST)
    monkeypatch.setattr(apt, "codename", lambda: "bookworm")


@pytest.mark.parametrize(
    ("suite", "releases"),
    [
        ("bullseye", ["bullseye", "bullseye-security"]),
        ("bookworm", ["bookworm", "bookworm-security"]),
        ("trixie-backports", ["trixie-backports"]),
        ("sid", ["sid"]),
    ],
)
def test_sources_of_another_suite(suite: str, releases: list[str]) -> None:
    found = apt.sources_of(suite)
    assert [source.release for source in found] == releases
    assert {source.uri for source in found} <= {source.uri for source in HOST}
    assert found[0].components == ("main", "contrib")


def test_a_line_is_signed_and_names_its_suite() -> None:
    assert apt.sources_of("bullseye")[0].line().endswith("http://mirror.invalid/debian/ bullseye main contrib")
    assert apt.sources_of("bullseye")[0].line().startswith("deb ")


def test_a_host_without_a_source_of_its_own_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "host_sources", lambda: HOST[3:])
    with pytest.raises(HarnessError, match="no source for its own suite bookworm"):
        apt.sources_of("bullseye")


def test_a_suite_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a directory that is not there: no network is asked."""
    monkeypatch.setattr(apt, "host_sources", lambda: [Source(f"file:{tmp_path}/nothing/", "bookworm", ("main",))])
    with pytest.raises(HarnessError, match="has no suite bullseye"):
        apt.Apt("bullseye", tmp_path / "apt").update()
