"""Dating a kernel by the form of its verifier log.

Each sign limits the range from one or both ends; the ranges are intersected. Versions are mainline's, where the
change was merged; a distribution that takes a change back moves it, so a range is a statement about the form, and
the verdict rests on probes. Measured: 5.10, 6.1, 6.18; the rest from the history of kernel/bpf/verifier.c and log.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.verifier.helpers import Version
from harness.verifier.log import Generation


class Sign(NamedTuple):
    first: Version | None
    last: Version | None
    says: str


SIGNS: Mapping[str, Sign] = {
    # removed with "precise scalar_value tracking", 5.3, which brought the backtracking
    "call_suffix": Sign((4, 16), (5, 2), "frame pointers are printed as fp0,call_-1"),
    "stack_depth_in_statistics": Sign((4, 15), (5, 1), "the statistics give the stack depth"),
    "limit_131072": Sign((4, 14), (5, 1), "the limit is 131,072 instructions"),
    "limit_1000000": Sign((5, 2), None, "the limit is 1,000,000 instructions"),
    "inv": Sign(None, (5, 17), "numbers are called inv"),
    "scalar": Sign((5, 18), None, "numbers are called scalar"),
    "id_0": Sign(None, (5, 17), "pointers are printed with id=0"),
    "bare_off_imm": Sign((5, 16), (6, 7), "pointers are printed with off= and imm= but without id=0"),
    # "omit default off=0 and imm=0 in register state log", November 2023
    "empty_ctx": Sign((6, 8), None, "the context is printed as ctx()"),
    # "Only output backtracking information in log level 2", December 2021; before, level 1 had it as well
    "bare_backtracking": Sign((5, 3), (6, 3), "backtracking is printed as last_idx, without mark_precise"),
    "backtracking_at_level_1": Sign((5, 3), (5, 16), "backtracking is printed although no register states are"),
    "mark_precise": Sign((6, 4), None, "backtracking is printed after mark_precise:"),
    # "Only print scratched registers and stack slots to verifier logs", December 2021
    "no_first_state": Sign(None, (5, 16), "there is no state line before the first instruction"),
    "state_after": Sign((5, 17), None, "register states stand behind the instructions"),
    "source_place": Sign((6, 9), None, "source lines end in @ file:line"),
    "infinite_loop": Sign((5, 3), None, "it looks for infinite loops"),
    "live_registers": Sign((6, 15), None, "the live registers are listed"),
    "report": Sign((7, 3), None, "the refusal is a report with a reason and a suggestion"),
}


def generation(signs: Iterable[str]) -> Generation:
    """Intersect the ranges of the signs seen (keys of SIGNS)."""
    rows = [SIGNS[sign] for sign in SIGNS if sign in set(signs)]
    first = max((row.first for row in rows if row.first), default=None)
    last = min((row.last for row in rows if row.last), default=None)
    says = tuple(row.says for row in rows)
    if first and last and first > last:
        return Generation(None, None, says, contradictory=True)
    return Generation(first, last, says)
