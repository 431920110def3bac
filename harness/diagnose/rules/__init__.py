"""The tables of rules, in the guide's order; what contradicts stands behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.diagnose.rule import Rule
from harness.diagnose.rules import (
    applied,
    attach,
    contradictions,
    deployments,
    keys,
    load,
    provisioning,
    services,
    windows,
)

RULES: Sequence[Rule] = (
    *deployments.RULES,
    *provisioning.RULES,
    *applied.RULES,
    *windows.RULES,
    *services.RULES,
    *load.RULES,
    *attach.RULES,
    *keys.RULES,
    *contradictions.RULES,
)


def by_place(rules: Sequence[Rule] = RULES) -> Mapping[str, list[Rule]]:
    """The rules that take up each thing of the guide, by its id."""
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        for place in rule.covers:
            found.setdefault(place, []).append(rule)
    return found
