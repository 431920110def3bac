from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.report import Json, Outcome, Report, Result
from harness.report.json import dump, load, schema
from tests.report.samples import LOG, reports, sample, texts, with_text

VALIDATOR = jsonschema.Draft202012Validator(schema())


def objects(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all objects of which the layout says which members they have."""
    if isinstance(value, dict):
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key not in ("evidence", "observed"):
            yield from objects(item, (*place, key))


def at(document: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        document = document[key]
    return document


def replaced(place: tuple[str | int, ...], value: Any) -> Any:
    document = json.loads(dump(sample()))
    at(document, place[:-1])[place[-1]] = value
    return document


DOCUMENT = json.loads(dump(sample()))
PLACES = list(objects(DOCUMENT))
MEMBERS = [(*place, name) for place in PLACES for name in at(DOCUMENT, place)]


def test_the_schema_is_one_and_describes_every_field() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())

    def fields(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, field in part.get("properties", {}).items():
            if part.get("type") == "object":
                yield name, field
            yield from fields(field)
        for definition in part.get("$defs", {}).values():
            yield from fields(definition)

    found = dict(fields(schema()))
    assert {"target", "counts", "PASS", "observed", "outcome", "started"} <= set(found)
    assert [name for name, field in found.items() if not field.get("description")] == []


@given(reports)
def test_every_dump_is_valid(report: Report) -> None:
    VALIDATOR.validate(json.loads(dump(report)))


@given(reports)
def test_load_undoes_dump(report: Report) -> None:
    text = dump(report)
    loaded = load(text)
    assert dump(loaded) == text
    if "\\ud8" not in text and "\\ud9" not in text and "\\uda" not in text and "\\udb" not in text:
        assert loaded == report  # with pairs of surrogates, which JSON joins, only the text is the same


def test_load_undoes_dump_for_lone_surrogates() -> None:
    report = with_text("bytes that were no UTF-8: \udc80\udcff, \ud800.")
    assert load(dump(report)) == report


def test_the_text_is_ascii_and_ends_with_one_newline() -> None:
    text = dump(with_text("→ \x1b[31m \udc80 \x00"))
    assert text.isascii()
    assert text.endswith("}\n")
    assert "\x1b" not in text


def test_two_runs_differ_in_run_only() -> None:
    first = sample()
    again = [
        dataclasses.replace(result, seconds=result.seconds + 1, observed={"pid": 1}, evidence=reverse(result.evidence))
        for result in first.results
    ]
    second = dataclasses.replace(
        first, run="other", started="2027-01-01T00:00:00Z", ended="2027-01-01T00:00:01Z", seconds=1.0, results=again
    )
    one, two = dump(first), dump(second)
    assert one[: one.index('  "run": {')] == two[: two.index('  "run": {')]
    assert one != two
    assert json.loads(one)["run"]["results"][1] == {
        "id": "redirect.imds",
        "seconds": 0.012,
        "observed": {"port": 45122},
    }


def test_members_of_facts_are_sorted() -> None:
    facts: dict[str, Json] = {"b": 1, "a": [{"d": 1, "c": 2}]}
    document = json.loads(dump(sample(Result("a.b", "", Outcome.PASS, "", facts, facts))))
    for found in (document["results"][0]["evidence"], document["run"]["results"][0]["observed"]):
        assert json.dumps(found) == '{"a": [{"c": 2, "d": 1}], "b": 1}'


def reverse(evidence: Any) -> dict[str, Any]:
    return dict(reversed(evidence.items()))


def test_the_order_of_results_is_kept() -> None:
    ids = ["z.1", "a.1", "z.0"]
    assert [
        r["id"] for r in json.loads(dump(sample(*(Result(id, "", Outcome.PASS, "") for id in ids))))["results"]
    ] == ids


def refused(document: Any) -> str:
    """The place that load names; the schema refuses the document too."""
    assert not VALIDATOR.is_valid(document)
    return load_refused(json.dumps(document))


def load_refused(text: str) -> str:
    with pytest.raises(HarnessError) as error:
        load(text)
    assert error.value.attempted == "read the report"
    assert error.value.remedy
    return error.value.happened


@pytest.mark.parametrize("member", MEMBERS, ids=lambda place: ".".join(map(str, place)))
def test_each_member_is_required(member: tuple[str | int, ...]) -> None:
    document = copy.deepcopy(DOCUMENT)
    del at(document, member[:-1])[member[-1]]
    assert repr(member[-1]) in refused(document) or member == ("schema",)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)) or "top")
def test_no_other_member_is_allowed(place: tuple[str | int, ...]) -> None:
    document = copy.deepcopy(DOCUMENT)
    at(document, place)["another"] = 1
    assert "another" in refused(document)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("value", [["wrong"], {"wrong": 1}, True, -1, "wrong"], ids=repr)
def test_what_the_schema_refuses_load_refuses(member: tuple[str | int, ...], value: Any) -> None:
    document = replaced(member, value)
    if VALIDATOR.is_valid(document):
        return  # a value that is allowed there
    if member[-1] in ("started", "ended", "program") and isinstance(value, str):
        return  # load looks at the structure, not at how a time is written
    place = load_refused(json.dumps(document))
    assert str(member[0]) in place


@pytest.mark.parametrize("outcome", ["pass", "BAD", "", None, 1, ["PASS"]])
def test_wrong_outcome(outcome: Any) -> None:
    assert refused(replaced(("results", 2, "outcome"), outcome)).startswith("results[2].outcome: one of PASS, FAIL")


def test_skip_without_a_reason() -> None:
    assert "results[4]: coverage.io_uring: SKIP without" in refused(replaced(("results", 4, "summary"), " "))


@pytest.mark.parametrize(
    ("place", "value", "happened"),
    [
        (("exit_code",), 0, "exit_code: 0 contradicts the results, which give 1"),
        (("counts", "PASS"), 3, "counts: {'PASS': 3"),
        (("run", "results"), [], "run.results: 0 entries for 6 results"),
        (("run", "results", 1, "id"), "x", "run.results[1].id: 'redirect.imds' is wanted, as in results[1], not 'x'"),
    ],
)
def test_contradictions(place: tuple[str | int, ...], value: Any, happened: str) -> None:
    assert load_refused(json.dumps(replaced(place, value))).startswith(happened)


@pytest.mark.parametrize(
    ("text", "happened"),
    [
        ("", "line 1, column 1"),
        ("{", "line 1, column 2"),
        ("[]", "the top level: an object is wanted, not []"),
        ('{"schema": "msp-harness.report/2"}', "schema: 'msp-harness.report/1' is wanted, not 'msp-harness.report/2'"),
        ('{"schema": "x", "schema": "x"}', "the text: a member is there twice"),
        ('{"schema": NaN}', "the text: NaN is not JSON"),
        ("[" * 100_000, "the text: nested too deeply"),
        ("9" * 5000, "the text: "),
    ],
)
def test_what_is_no_report(text: str, happened: str) -> None:
    assert load_refused(text).startswith(happened)


def test_evidence_that_is_nested_too_deeply() -> None:
    deep = '{"a":' * 900 + "1" + "}" * 900
    text = dump(sample()).replace('"evidence": {}', f'"evidence": {deep}', 1)
    with pytest.raises(HarnessError, match="nested too deeply"):
        load(text)


@given(texts | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_rubbish_raises_nothing_but_harness_error(text: str) -> None:
    with pytest.raises(HarnessError):
        load(text)


def test_a_log_stays_whole() -> None:
    assert load(dump(sample())).results[3].evidence["log"] == LOG
