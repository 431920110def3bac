"""The rules take up the whole guide; the documents' table of coverage is the one that the rules give."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.diagnose import coverage, intake
from harness.diagnose.facts import Fact
from harness.diagnose.rules import RULES, by_place
from harness.diagnose.verdict import diagnose
from harness.msp import guide, guide_walk, image_codes
from harness.msp.codes import Code, all_codes
from tests.unit.diagnose.evidence_corpus import NOW, cases, of_tools, problems

TABLE = Path(__file__).parents[3] / "docs" / "coverage.md"


def named(rules: object = RULES) -> list[str]:
    return list(by_place(rules))  # type: ignore[arg-type]


def test_every_section_row_step_block_and_name_of_the_guide_has_a_rule() -> None:
    assert [item.id for item in guide_walk.gaps(named())] == []


def test_no_rule_names_a_thing_that_the_guide_has_not() -> None:
    assert [name for name in named() if name not in guide_walk.items()] == []


@pytest.mark.parametrize(
    ("rule", "gap"),
    [
        ("new.linux.no-agent-new-cloud-init", "new.linux#row2"),
        ("new.windows.transient", "new.windows#step3"),
        ("applied.listener", "applied.confirm.chain#proxyListenerStatus"),
        ("setup.ebpf.driver-stopped", "setup.ebpf#block2"),
        ("setup.attach.not-mounted", "setup.attach#block3"),
        ("reset.not-increasing", "reset.how#note1"),
    ],
)
def test_without_a_rule_its_place_is_named_as_a_gap(rule: str, gap: str) -> None:
    left = [row for row in RULES if row.id != rule]
    assert len(left) == len(RULES) - 1
    assert gap in [item.id for item in guide_walk.gaps(named(left))]


def test_a_new_section_of_the_guide_is_a_gap() -> None:
    text = guide.excerpt(guide_walk.TEXT) + "\n## Something new\n\n| a | b |\n|--|--|\n| `MSP.New` | x |\n"
    assert [item.id for item in guide_walk.gaps(named(), text)] == [
        "something-new",
        "something-new#row1",
        "something-new#MSP.New",
    ]


def test_the_walk_sees_what_a_reader_of_the_guide_sees() -> None:
    """Counted in the text in other ways: headings, fences, and rows of tables without their heads."""
    text = guide.excerpt(guide_walk.TEXT)
    lines = text.splitlines()
    found = guide_walk.walk(text)
    kinds = [item.kind for item in found]
    assert kinds.count(guide_walk.Kind.SECTION) == sum(line.startswith("#") for line in lines) - 1  # a prompt of root
    assert kinds.count(guide_walk.Kind.BLOCK) == sum(line.startswith("```") for line in lines) // 2
    assert kinds.count(guide_walk.Kind.ROW) == sum(line.startswith("|") for line in lines) - 4
    assert all(lines[item.line - 1].strip() for item in found)


def test_the_excerpts_stand_in_the_guide() -> None:
    text = guide.excerpt(guide_walk.TEXT)
    assert all(guide.excerpt(name) in text for name in guide.EXCERPTS)


def test_rules_are_told_apart_and_say_what_they_need_and_conclude() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.needs, rule.id
        assert all(issubclass(kind, Fact) for need in rule.needs for kind in need)
        assert rule.concludes, rule.id
        assert rule.id in coverage.rules_text()


def test_what_a_rule_finds_is_what_it_says_it_may_conclude() -> None:
    fired = set()
    for case in cases():
        for tried in case.verdict().tried:
            allowed = {code.id for code in tried.rule.concludes}
            for finding in tried.findings:
                assert finding.code.id in allowed, (case.name, tried.rule.id)
                assert finding.place == tried.rule.place
                fired.add(tried.rule.id)
    assert {rule.id for rule in RULES} - fired == set(), "rules that no case of the corpus shows"


def test_without_any_one_rule_a_case_of_the_corpus_is_wrong() -> None:
    """The corpus holds each rule to what it says: whatever rule is taken away, some case gets another answer."""
    corpus = [(case, intake.read([case.bundle])) for case in (*cases(), *of_tools())]
    idle = []
    for rule in RULES:
        left = [row for row in RULES if row is not rule]
        if not any(problems(case, diagnose(evidence, NOW, left)) for case, evidence in corpus):
            idle.append(rule.id)
    assert idle == []


def test_the_codes_of_a_diagnosis_are_concluded_by_a_rule_or_are_the_verdicts_own() -> None:
    concluded = {code.id for rule in RULES for code in rule.concludes}
    own = {"MSP-E190", "MSP-E191"}
    of_images = {row.id for row in vars(image_codes).values() if isinstance(row, Code)}
    found = {name for name in all_codes() if name.startswith(("MSP-E", "MSP-P2", "MSP-P3"))}
    assert found - of_images - concluded == own


def test_the_table_of_the_readme_is_the_one_that_the_rules_give() -> None:
    """`python -c 'from harness.diagnose import coverage; print(coverage.sections_markdown())'` makes it anew."""
    readme = (TABLE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert coverage.sections_markdown() in readme
    assert coverage.sections_markdown(RULES[1:]) != coverage.sections_markdown()


def test_the_documents_table_is_the_one_that_the_rules_give() -> None:
    assert coverage.coverage_markdown() in TABLE.read_text(encoding="utf-8"), (
        "docs/coverage.md is old: `python -m harness.diagnose.coverage > docs/coverage.md` makes it anew"
    )
