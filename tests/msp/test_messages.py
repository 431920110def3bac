"""The agent's messages: rendered to the byte, cut like the agent's, read back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.msp import guide, messages, status
from harness.msp.messages import Form

WORDS = st.text(st.characters(exclude_characters="'\n\r", exclude_categories=["Cs"]), min_size=1, max_size=20)
FIELDS = {
    "step": st.sampled_from(["acquire", "attest", "check", "get", "store"]),
    "status": st.integers(100, 599).map(str),
    "log": st.text(st.characters(exclude_categories=["Cs"]), max_size=2000).map(str.strip),
    "error": WORDS.map(str.strip),
}


def fields_of(form: Form) -> list[str]:
    return [name for name in ("name", "map", "what", "path", "guid", "step", "status", "log", "error")
            if f"{{{name}}}" in form.value]  # fmt: skip


def test_the_guides_messages_are_the_agents_forms() -> None:
    for name, form in ((guide.LOAD_EXCERPT, Form.LOAD), (guide.ATTACH_EXCERPT, Form.ATTACH_LINK)):
        read = status.read(guide.excerpt(name))
        assert read is not None
        text = read.modules[0].message
        assert text is not None
        message = messages.parse(text)
        assert message is not None
        assert (message.form, message.fields["name"]) == (form, "connect4")
        assert messages.render(form, prefixed=False, **message.fields) == text


def test_the_guides_verifier_message_is_a_cut_one() -> None:
    read = status.read(guide.excerpt(guide.LOAD_EXCERPT))
    assert read is not None
    text = read.modules[0].message
    assert text is not None
    assert len(text) == 1027
    assert messages.is_cut(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=3000))
def test_a_cut_counts_bytes_and_never_splits_a_character(text: str) -> None:
    done = messages.cut(text)
    if len(text.encode()) <= 1024:
        assert done == text
    else:
        assert done.endswith("...")
        kept = done[:-3]
        assert text.startswith(kept)
        assert 1021 <= len(kept.encode()) <= 1024
        assert messages.is_cut(done)


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("letter", ["\u00fc", "\u20ac", "\U0001f600"])
def test_a_character_over_the_edge_is_left_out_whole(letter: str, shift: int) -> None:
    done = messages.cut("x" * (1024 - shift) + letter * 3)
    kept = "x" * (1024 - shift) + letter * (shift // len(letter.encode()))
    assert done == kept + "..."


@given(st.sampled_from(Form), st.booleans(), st.data())
def test_what_is_rendered_is_read_back(form: Form, prefixed: bool, data: st.DataObject) -> None:
    fields = {name: data.draw(FIELDS.get(name, WORDS.map(str.strip)), name) for name in fields_of(form)}
    text = messages.render(form, prefixed=prefixed, **fields)
    message = messages.parse(text)
    if messages.is_cut(text):
        assert message is None or text.startswith(message.text[:900])
        return
    assert message is not None
    assert message.text.rstrip() == text.rstrip()
    assert message.prefixed == prefixed
    assert message.form is form or message.form.value.split("{")[0] == form.value.split("{")[0]


@pytest.mark.parametrize("form", Form)
def test_every_form_is_read_as_itself(form: Form) -> None:
    fields: dict[str, Any] = {"status": "403", "step": "get" if "local" in form.value else "acquire"}
    filled: dict[str, Any] = {name: fields.get(name, "x") for name in fields_of(form)}
    message = messages.parse("2026-11-24T15:04:00Z [ERROR] redirector - " + messages.render(form, **filled))
    assert message is not None
    assert message.form is form
    assert message.fields == filled
    assert message.prefixed == (form in messages.REDIRECTOR_FORMS)


def test_the_redirectors_prefix_stands_where_it_belongs() -> None:
    text = messages.render(Form.ATTACH_LINK, name="connect4")
    assert text == (
        "Failed to start redirector: Failed to attach program 'connect4' with error: `bpf_link_create` failed"
    )


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    messages.parse(text)
    status.read(text)


def test_an_unknown_text_is_no_message() -> None:
    assert messages.parse("Failed to bake a cake") is None
