"""Medians with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a sample."""

    low: float
    median: float
    high: float

    def text(self, scale: float = 1, digits: int = 2) -> str:
        low, median, high = (f"{value * scale:.{digits}f}" for value in (self.low, self.median, self.high))
        return f"{median} (quartiles {low} to {high})"


def spread(sample: Sequence[float]) -> Spread:
    return Spread(*statistics.quantiles(sample, n=4))
