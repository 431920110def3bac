from __future__ import annotations

import hashlib
import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.msp import signature
from harness.msp.signature import AUTHORIZATION, Authorization, Verifier

KEY = "4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59"
VECTOR = "a15b46f621193876a6d3121b836dc2af4180e2786642e55235ef916fc5b082a3"

NAMES = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
HEADERS = st.dictionaries(NAMES.map(str.lower).filter(lambda name: name != AUTHORIZATION), VALUES, max_size=6)
WORDS = st.text(string.ascii_letters + string.digits + "-._~%", min_size=1, max_size=8)
PARAMETERS = st.lists(st.tuples(WORDS, WORDS | st.just("")), max_size=5)


def query(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" if value else name for name, value in pairs)


def test_the_vector_of_the_facts() -> None:
    assert signature.digest(KEY, b"Hello world") == VECTOR


def test_the_canonical_form_to_the_byte() -> None:
    headers = [
        ("x-ms-version", "2012-11-30"),
        ("Host", " 168.63.129.16 "),
        ("X-MS-Azure-Host-Authorization", "left out"),
        ("Content-Length", "3"),
    ]
    form = signature.canonical("POST", "/machine?Type=b&comp=z&comp=a&flag", headers, b"\xff\nx")
    assert form == (
        b"POST\n\xff\nx\ncontent-length:3\nhost:168.63.129.16\nx-ms-version:2012-11-30\n"
        b"/machine\ncomp=a&comp=z&flag&type=b"
    )


def test_a_request_without_query_ends_after_its_paths_line() -> None:
    assert signature.canonical("GET", "/", []) == b"GET\n\n/\n"


def test_the_header_names_scheme_guid_and_digest() -> None:
    value = signature.sign("11-22", KEY, "GET", "/", [("Host", "a")])
    expected = hmac.new(bytes.fromhex(KEY), b"GET\n\nhost:a\n/\n", hashlib.sha256).hexdigest()
    assert value == f"Azure-HMAC-SHA256 11-22 {expected}"
    assert signature.parse_authorization(value) == Authorization("11-22", expected)


@pytest.mark.parametrize(
    "value", ["", "Azure-HMAC-SHA256", "Azure-HMAC-SHA256 g 12", f"Basic g {VECTOR}", f"Azure-HMAC-SHA256 {VECTOR}"]
)
def test_other_authorizations_are_none(value: str) -> None:
    assert signature.parse_authorization(value) is None


@pytest.mark.parametrize("key", ["", "zz", KEY[:-2], KEY + "00", "4A4"])
def test_a_bad_key_is_refused_and_not_told(key: str) -> None:
    with pytest.raises(ValueError, match=r"^the key ") as caught:
        signature.digest(key, b"")
    assert not key or key not in str(caught.value)


@given(HEADERS, PARAMETERS, st.randoms())
def test_neither_order_nor_case_of_names_matters(
    headers: dict[str, str], pairs: list[tuple[str, str]], random: object
) -> None:
    rows, shuffled = list(headers.items()), list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(rows)  # type: ignore[attr-defined]
    other = [(name.upper(), f" {value}\t") for name, value in rows]
    changed = [(name.upper() if "%" not in name else name, value) for name, value in shuffled]
    one = signature.canonical("GET", f"/p?{query(pairs)}", headers.items())
    assert one == signature.canonical("GET", f"/p?{query(changed)}", other)


@given(HEADERS.filter(bool), st.data())
def test_every_headers_value_matters(headers: dict[str, str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(headers)))
    changed = headers | {name: headers[name] + "x"}
    assert signature.canonical("GET", "/", headers.items()) != signature.canonical("GET", "/", changed.items())


@given(PARAMETERS.filter(bool), st.data())
def test_every_parameters_value_matters_its_case_too(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(pairs) - 1))
    name, value = pairs[index]
    for other in (value + "x", value.swapcase()):
        if other != value:
            changed = [*pairs[:index], (name, other), *pairs[index + 1 :]]
            assert signature.canonical_target(f"/?{query(pairs)}") != signature.canonical_target(f"/?{query(changed)}")


@given(st.sampled_from(["GET", "POST"]), HEADERS, PARAMETERS, st.lists(st.binary(max_size=20), max_size=4))
def test_a_verifier_takes_the_body_in_pieces(
    method: str, headers: dict[str, str], pairs: list[tuple[str, str]], pieces: list[bytes]
) -> None:
    target = f"/a?{query(pairs)}"
    told = signature.parse_authorization(signature.sign("g", KEY, method, target, headers.items(), b"".join(pieces)))
    assert told is not None
    for more, verified in ((b"", True), (b"x", False)):
        verifier = Verifier(KEY, method, target, [*headers.items(), (AUTHORIZATION, str(told))])
        for piece in [*pieces, more]:
            verifier.update(piece)
        assert verifier.verified(told.digest.upper()) is verified


@given(st.text(max_size=120))
def test_any_text_is_an_authorization_or_none(text: str) -> None:
    told = signature.parse_authorization(text)
    assert told is None or signature.parse_authorization(str(told)) == told
