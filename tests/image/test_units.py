"""systemd's units as they lie in an image."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.image import units
from harness.image.image import Image
from harness.image.reading import Unread
from harness.image.tree import Tree
from tests.image import trees
from tests.image.trees import changed, file, link, unread

ETC, USR = "/etc/systemd/system", "/usr/lib/systemd/system"


def of(files: dict[str, str]) -> Image:
    return Image("x", trees.DISK, Tree({path: file(text) for path, text in files.items()}))


def test_settings_drop_ins_and_what_clears_them() -> None:
    found = units.find(
        of(
            {
                f"{USR}/a.service": (
                    "[Unit]\n# no\nAfter=x y\\\n  z\n; no\n[Service]\nExecStart=/bin/a\nUser = me\nnonsense\n"
                ),
                f"{USR}/a.service.d/20.conf": "[Service]\nUser=\nUser=you\n",
                f"{ETC}/a.service.d/10.conf": "[Service]\nExecStart=\nExecStart=/bin/b\n",
                f"{ETC}/a.service.d/20.conf": "[Service]\nUser=us\n",  # hides the one of /usr
                f"{USR}/service.d/5.conf": "[Unit]\nAfter=all\n",
                f"{ETC}/a.service.d/not-one.txt": "[Service]\nUser=nobody\n",
            }
        ),
        "a.service",
    )
    assert found is not None
    assert found.words("Unit", "After") == ["x", "y", "z", "all"]
    assert found.values("Service", "ExecStart") == ["/bin/b"]
    assert found.value("Service", "User") == "us"
    assert found.drop_ins == (f"{ETC}/a.service.d/10.conf", f"{ETC}/a.service.d/20.conf", f"{USR}/service.d/5.conf")


def test_the_administrators_unit_comes_before_the_packages() -> None:
    found = units.find(
        of({f"{USR}/a.service": "[Service]\nUser=a\n", f"{ETC}/a.service": "[Service]\nUser=b\n"}), "a.service"
    )
    assert found is not None
    assert found.value("Service", "User") == "b"


@pytest.mark.parametrize("entry", [link("/dev/null"), file("")])
def test_masks(entry: object) -> None:
    found = units.find(changed(of({f"{USR}/a.service": "[Service]\n"}), {f"{ETC}/a.service": entry}), "a.service")  # type: ignore[dict-item]
    assert found is not None
    assert found.masked


def test_a_unit_that_was_not_read_is_none_that_is_not_there() -> None:
    with pytest.raises(Unread, match="not read"):
        units.find(changed(of({}), {f"{USR}/a.service": unread()}), "a.service")
    assert units.find(of({}), "a.service") is None
    with pytest.raises(Unread, match="damaged"):
        units.find(replace(of({}), unseen={USR: "damaged"}), "a.service")


def test_what_enables_a_unit() -> None:
    found = of(
        {f"{ETC}/b.target.wants/a.service": "", f"{USR}/c.service.requires/a.service": "", f"{ETC}/d.x/a.service": ""}
    )
    assert units.wanted_by(found, "a.service") == ["b.target", "c.service"]


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ("enable a.*\ndisable *\n", "enable"),
        ("disable *\nenable a.*\n", "disable"),
        ("# enable a.service\nignore a.service\n", None),
        ("", None),
    ],
)
def test_presets(lines: str, verdict: str | None) -> None:
    assert units.preset(of({"/usr/lib/systemd/system-preset/90.preset": lines}), "a.service") == verdict


def test_a_preset_of_the_administrator_hides_the_one_of_that_name() -> None:
    found = of(
        {"/usr/lib/systemd/system-preset/9.preset": "enable *\n", "/etc/systemd/system-preset/9.preset": "disable *\n"}
    )
    assert units.preset(found, "a.service") == "disable"


def test_the_order_is_followed_over_several_units_and_cycles_end() -> None:
    found = units.order(
        of(
            {
                f"{USR}/early.service": "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n",
                f"{USR}/sysinit.target": "[Unit]\nAfter=basic.target\n",  # a cycle
                f"{USR}/basic.target": "[Unit]\nAfter=sysinit.target\n",
                f"{USR}/late.service": "[Service]\nExecStart=/bin/true\n",
                f"{USR}/free.service": "[Unit]\nDefaultDependencies=no\n",
            }
        )
    )
    assert found.way("early.service", "late.service") == ["early.service", "sysinit.target", "late.service"]
    assert found.way("late.service", "early.service") is None
    assert found.way("early.service", "free.service") is None


@given(st.text(alphabet=st.sampled_from("[]=\\\n #;aUnit\0é\t"), max_size=200))
def test_any_text_is_parsed(text: str) -> None:
    settings: dict[str, dict[str, list[str]]] = {}
    units.parse(text, settings)
    for section in settings.values():
        for values in section.values():
            assert all(value == value.strip() and value for value in values)
