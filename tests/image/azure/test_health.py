"""Reports of health, as four generations of cloud-init sent them in boots of this project's samples."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.image.azure import health
from harness.image.azure.health import HealthReport, Unreadable, parse

REPORTS = sorted((Path(__file__).parent / "reports").glob("*.xml"))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_real_reports_are_understood(path: Path) -> None:
    """A file's name is cloud-init's version, and what it reported."""
    report = parse(path.read_text())
    assert report.instance
    assert report.container == "8d1a6b52-9c0e-4a53-9a0f-6f7c1c2d3e40"
    assert report.ready == ("-ready" in path.stem)
    if "-not-found" in path.stem:
        assert report.reason == "azure-proxy-agent not found"
        assert report.agent == f"Cloud-Init/{path.stem.partition('-')[0]}"
    if "-unhealthy" in path.stem:
        assert report.reason == "azure-proxy-agent status failure"
        assert report.fields["exit_code"] == ("127" if "startup" in path.stem else "1")


def written(state: str, description: str = "") -> str:
    from xml.sax.saxutils import escape

    details = (
        f"<Details><SubStatus>ProvisioningFailed</SubStatus><Description>{escape(description)}</Description></Details>"
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<Health><GoalStateIncarnation>1</GoalStateIncarnation><Container>'
        "<ContainerId>c</ContainerId><RoleInstanceList><Role><InstanceId>i</InstanceId>"
        f"<Health><State>{state}</State>{details if description else ''}</Health></Role></RoleInstanceList></Container>"
        "</Health>\n"
    )


def test_a_sentence_is_its_own_reason() -> None:
    report = parse(written("NotReady", "The provisioning failed. Please look at the serial log."))
    assert (report.ready, report.reason) == (False, "The provisioning failed. Please look at the serial log.")


def test_a_field_that_is_quoted_may_hold_the_bar() -> None:
    fields = health.fields_of("result=error|reason=x|'stderr=a|b ''c'''|vm_id=1")
    assert fields == {"result": "error", "reason": "x", "stderr": "a|b 'c'", "vm_id": "1"}


def test_a_line_that_was_cut_has_what_it_has() -> None:
    assert health.fields_of("result=error|reason=azure-proxy-agent status failure|'stdout=a")["reason"] == (
        "azure-proxy-agent status failure"
    )


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no XML",
        "<Health></Health>",
        "<Other><State>Ready</State></Other>",
        '<!DOCTYPE x [<!ENTITY a "b">]><Health><State>&a;</State></Health>',
        written("Ready")[:-30],
        "<Health><State>Ready</State></Health>" + " " * health.LARGEST,
    ],
)
def test_what_is_no_report_is_said_to_be_none(body: str) -> None:
    with pytest.raises(Unreadable):
        parse(body)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200))
def test_a_description_comes_back_as_it_was_sent(text: str) -> None:
    if text.strip():
        assert parse(written("NotReady", text)).description == text.strip()


@given(st.text(max_size=300))
def test_bodies_of_a_stranger_do_no_harm(body: str) -> None:
    with contextlib.suppress(Unreadable):
        assert isinstance(parse(body), HealthReport)


@given(st.dictionaries(st.sampled_from(["reason", "agent", "stdout", "vm_id"]), st.text("ab|'\n =", max_size=20)))
def test_csv_as_cloud_init_writes_it_is_read_back(fields: dict[str, str]) -> None:
    import csv
    import io

    written_ = io.StringIO()
    row = ["result=error", *(f"{name}={value}" for name, value in fields.items())]
    csv.writer(written_, delimiter="|", quotechar="'", quoting=csv.QUOTE_MINIMAL).writerow(row)
    line = written_.getvalue().rstrip()
    if not line.startswith("result=error|"):
        return
    found = health.fields_of(line)
    assert found == {"result": "error", **{name: value.strip() for name, value in fields.items()}}
