"""Codes: unique, well formed, complete, and never reused."""

from __future__ import annotations

import re

import pytest

from harness.msp import codes, guide, verifier_codes

GUIDE_HEADINGS = {value for name, value in vars(guide).items() if name.isupper() and isinstance(value, str)}


def defined() -> list[codes.Code]:
    modules = (vars(codes), vars(verifier_codes))
    return [row for module in modules for row in module.values() if isinstance(row, codes.Code)]


def test_no_id_and_no_title_stands_for_two_findings() -> None:
    rows = defined()
    assert len({row.id for row in rows}) == len(rows) == len(codes.all_codes())
    assert len({row.title for row in rows}) == len(rows)


@pytest.mark.parametrize("row", defined(), ids=lambda row: row.id)
def test_a_code_says_what_why_and_what_to_do(row: codes.Code) -> None:
    assert re.fullmatch(r"MSP-[VAKP]\d{3}", row.id)
    assert row.id not in codes.RETIRED
    assert row.title and not row.title.endswith(".")
    assert row.cause.endswith(".") and row.remedy.endswith((".", ")."))
    assert row.guide is None or row.guide in GUIDE_HEADINGS


def test_codes_are_found_by_id_in_any_case() -> None:
    assert codes.code("msp-a101") is codes.NOT_CGROUP2
    with pytest.raises(KeyError):
        codes.code("MSP-A999")


# Ids that have been published: a title may be reworded, but an id must not vanish without being retired.
PUBLISHED = """
MSP-A101 MSP-A102 MSP-A103 MSP-A104 MSP-A105 MSP-A106 MSP-A107 MSP-A108 MSP-A109 MSP-A110 MSP-A111 MSP-A112 MSP-A113
MSP-A114 MSP-A201 MSP-A202 MSP-A203 MSP-A204 MSP-A205 MSP-A206 MSP-A207 MSP-A299 MSP-K101 MSP-K102 MSP-K103 MSP-K104
MSP-K105 MSP-K106 MSP-K107 MSP-P101 MSP-P102 MSP-P103 MSP-P104 MSP-P105 MSP-P199 MSP-V101 MSP-V102 MSP-V103 MSP-V104
MSP-V105 MSP-V106 MSP-V107 MSP-V108 MSP-V109 MSP-V110 MSP-V111 MSP-V112 MSP-V113 MSP-V114 MSP-V115 MSP-V116 MSP-V117
MSP-V118 MSP-V119 MSP-V120 MSP-V121 MSP-V122 MSP-V123 MSP-V124 MSP-V125 MSP-V126 MSP-V127 MSP-V128 MSP-V129 MSP-V201
MSP-V202 MSP-V203 MSP-V204
""".split()


def test_published_ids_stay() -> None:
    assert set(PUBLISHED) <= set(codes.all_codes()) | codes.RETIRED
