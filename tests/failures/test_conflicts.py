"""The kernel's rule for two programs on the way, as data."""

from __future__ import annotations

import pytest

from harness.failures.attach_conflicts import DOWN, ORDERS, SAME, UP, Order, expected
from harness.failures.model import ACCEPTED
from harness.program.attach import Way


@pytest.mark.parametrize(
    ("order", "first", "second", "word"),
    [
        (SAME, Way.LINK, Way.MULTI, ACCEPTED),
        (SAME, Way.MULTI, Way.LINK, ACCEPTED),
        (SAME, Way.SINGLE, Way.SINGLE, ACCEPTED),
        (SAME, Way.SINGLE, Way.LINK, "EPERM"),
        (SAME, Way.LINK, Way.SINGLE, "EPERM"),
        (SAME, Way.OVERRIDE, Way.MULTI, "EPERM"),
        (DOWN, Way.SINGLE, Way.LINK, "EPERM"),
        (DOWN, Way.OVERRIDE, Way.LINK, ACCEPTED),
        (DOWN, Way.MULTI, Way.SINGLE, ACCEPTED),
        (UP, Way.SINGLE, Way.SINGLE, ACCEPTED),
    ],
)
def test_rule(order: Order, first: Way, second: Way, word: str) -> None:
    assert expected(order, first, second) == word


def test_how_many_are_refused() -> None:
    words = [expected(order, first, second) for order in ORDERS for first in Way for second in Way]
    assert len(words) == 48
    assert words.count("EPERM") == 10 + 4  # in one cgroup all but the pairs of one mode; below an exclusive one all
