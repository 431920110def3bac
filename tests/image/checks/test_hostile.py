"""A stranger's files in place of the good ones: every check still gives Results, and none is its own failure."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.image import checks, predict
from harness.image.image import Image
from harness.image.list import listed
from harness.image.tree import Entry, Kind
from harness.report import Outcome, Report, Result
from tests.image import trees
from tests.image.trees import changed, file, folder, link, unread

_PIECES = ("=", "[", "]", "\n", "{", "}", ":", "- ", "'", '"', "\\", "\0", " ", "é", "\x1b[2J", "/", "..", "0", "-1",
           "a", "9" * 400, "ExecStart=", "[Unit]", "[Service]", "menuentry 'x' {", "linux /boot/vmlinuz-1", "options ",
           "CONFIG_A=", "<UserPassword>", "ProvisionGuestProxyAgent", "azure-proxy-agent", "blacklist ", "profile x {",
           "capability ,", "datasource_list: ", "Version: ", "SELINUX=enforcing", "VERSION_ID=")  # fmt: skip
TEXTS = st.lists(st.sampled_from(_PIECES), max_size=12).map("".join)
ENTRIES = st.one_of(
    TEXTS.map(file),
    st.binary(max_size=60).map(file),
    st.just(None),
    st.just(folder()),
    st.just(unread()),
    st.sampled_from(["/", "..", "loop", "/etc", "/dev/null", "/etc/passwd", "x/" * 50]).map(link),
    st.just(Entry(Kind.OTHER)),
    st.just(Entry(Kind.FILE, known=False)),
)


@functools.cache
def paths(name: str) -> Sequence[str]:
    return [path for path, entry in trees.GOOD[name]().tree.below("/") if entry.kind is Kind.FILE]


def judged(image: Image) -> list[Result]:
    found = list(checks.check(image))
    found += predict.results(image, found)
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(sorted(trees.GOOD)))
def test_whatever_the_files_hold(data: st.DataObject, name: str) -> None:
    chosen = data.draw(st.lists(st.sampled_from(paths(name)), min_size=1, max_size=6, unique=True))
    image = changed(trees.GOOD[name](), {path: data.draw(ENTRIES) for path in chosen})
    found = judged(image)
    own = [(row.id, row.summary) for row in found if "the check itself failed" in row.summary]
    assert own == []
    assert len({row.id for row in found}) == len(found)
    for row in found:
        assert row.summary.isprintable(), row.summary
    listed(image)
    assert found[-1].id == "prediction.outcome"


@pytest.mark.parametrize("name", trees.GOOD)
def test_each_file_that_was_not_read_changes_a_verdict_to_an_error_or_none_at_all(name: str) -> None:
    """Leaving a content out never makes a PASS of a FAIL or a WARN, and no check itself fails."""
    good = trees.GOOD[name]()
    before = {row.id: row.outcome for row in judged(good)}
    for path in paths(name):
        entry = good.tree.entry(path)
        assert entry is not None
        for row in judged(changed(good, {path: unread(mode=entry.mode)})):
            assert "the check itself failed" not in row.summary, (path, row.summary)
            if before.get(row.id) in (Outcome.FAIL, Outcome.WARN):
                assert row.outcome is not Outcome.PASS, (path, row.id)


def test_the_results_make_a_report() -> None:
    image = trees.debian()
    report = Report("image", "", "", "", judged(image), "r", "", "", 0.0)
    assert report.count(Outcome.FAIL) == 0
