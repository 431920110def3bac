"""Codes: unique, well formed, complete, and never reused."""

from __future__ import annotations

import re

import pytest

from harness.msp import codes, diagnosis_codes, guide, image_codes, verifier_codes

GUIDE_HEADINGS = {value for name, value in vars(guide).items() if name.isupper() and isinstance(value, str)}


def defined() -> list[codes.Code]:
    modules = (vars(codes), vars(verifier_codes), vars(diagnosis_codes), vars(image_codes))
    return [row for module in modules for row in module.values() if isinstance(row, codes.Code)]


def test_no_id_and_no_title_stands_for_two_findings() -> None:
    rows = defined()
    assert len({row.id for row in rows}) == len(rows) == len(codes.all_codes())
    assert len({row.title for row in rows}) == len(rows)


@pytest.mark.parametrize("row", defined(), ids=lambda row: row.id)
def test_a_code_says_what_why_and_what_to_do(row: codes.Code) -> None:
    assert re.fullmatch(r"MSP-[VAKPE]\d{3}", row.id)
    assert row.id not in codes.RETIRED
    assert row.title
    assert not row.title.endswith(".")
    assert row.cause.endswith(".")
    assert row.remedy.endswith((".", ")."))
    assert row.guide is None or row.guide in GUIDE_HEADINGS


def test_codes_are_found_by_id_in_any_case() -> None:
    assert codes.code("msp-a101") is codes.NOT_CGROUP2
    with pytest.raises(KeyError):
        codes.code("MSP-A999")


# Ids that have been published: a title may be reworded, but an id must not vanish without being retired.
PUBLISHED = {
    "A": (101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 201, 202, 203, 204, 205, 206, 207, 299),
    "K": (101, 102, 103, 104, 105, 106, 107, 108),
    "P": (101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 199),
    "V": (
        101,
        102,
        103,
        104,
        105,
        106,
        107,
        108,
        109,
        110,
        111,
        112,
        113,
        114,
        115,
        116,
        117,
        118,
        119,
        120,
        121,
        122,
        123,
        124,
        125,
        126,
        127,
        128,
        129,
        201,
        202,
        203,
        204,
    ),
}


def test_published_ids_stay() -> None:
    published = {f"MSP-{letter}{number}" for letter, numbers in PUBLISHED.items() for number in numbers}
    assert published <= set(codes.all_codes()) | codes.RETIRED
