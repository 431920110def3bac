"""What a Report says a program can do on its kernel: load, be attached in each way, redirect.

Yes, no, or not known; what was not tried is not known, and never a no.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.kernel.probes import Answer, Probed
from harness.program.attach import Way
from harness.report import Outcome, Report, Result

_BESIDES = ("load.audit", "load.maps")  # of the group load, and not about loading
_LOADING = frozenset({"connect4", "hash-map", "lru-map", "socket-cookie", "pid-tgid", "uid-gid"})
"""The features (harness.kernel.features) that the verifier and the maps want: without one of them nothing loads. Where
another is missing nothing is loaded either, and that says nothing about the program."""
_NOT_ASKED = Probed(Answer.UNKNOWN, "not asked for")


@dataclass(frozen=True)
class Ability:
    """A row of the table. title completes `PROGRAM …`."""

    name: str
    title: str
    ask: Callable[[Report], Probed]


def _tried(report: Report) -> list[Result]:
    """What came of giving programs to the kernel."""
    return [result for result in report.results if result.group == "load" and result.id not in _BESIDES]


def answer(ability: Ability, own: bool, report: Report) -> Probed:
    """What a Report says of an ability of one of our own programs, or of somebody's.

    Where the kernel lacks what ours need, nothing was given to it: that tells of ours, and not of somebody's.
    """
    found = ability.ask(report)
    if found.answer is Answer.NO and not own and not _tried(report):
        return Probed(Answer.UNKNOWN, f"not tried: {found.said}")
    return found


def loads(report: Report) -> Probed:
    """Whether the kernel took every program that the harness uses of it."""
    tried = _tried(report)
    refused = [result for result in tried if result.outcome is Outcome.FAIL]
    if refused:
        return Probed(Answer.NO, _best(refused).summary)
    unknown = [result for result in tried if result.outcome is Outcome.ERROR]
    if unknown:
        return Probed(Answer.UNKNOWN, unknown[0].summary)
    if any(result.outcome in (Outcome.PASS, Outcome.WARN) for result in tried):
        return Probed(Answer.YES, "")
    lacking = next((result for result in report.results if result.id == "preflight.kernel"), None)
    if lacking is not None and lacking.outcome is Outcome.FAIL and _LOADING & _absent(lacking):
        return Probed(Answer.NO, lacking.summary)
    return _why_not(report)


def _absent(kernel: Result) -> set[str]:
    """The features of whose probes the Result preflight.kernel says `no: …`."""
    probes = kernel.evidence.get("probes")
    if not isinstance(probes, dict):
        return set()
    return {name for name, said in probes.items() if str(said).startswith(f"{Answer.NO}:")}


def _best(refused: Sequence[Result]) -> Result:
    """The refusal that says most: a verifier's, if there is one."""
    return next((result for result in refused if result.code or "log" in result.evidence), refused[0])


def _why_not(report: Report) -> Probed:
    """Why nothing came of it: a guest that failed, a machine that cannot run it, or nobody asked."""
    for result in report.results:
        if result.outcome is Outcome.ERROR and (result.group == "guest" or result.blocking):
            return Probed(Answer.UNKNOWN, result.summary)
    for result in report.results:
        if result.outcome is Outcome.FAIL and result.blocking:
            return Probed(Answer.UNKNOWN, f"not tried: {result.summary}")
    return _NOT_ASKED


def _attaches(way: Way) -> Callable[[Report], Probed]:
    def ask(report: Report) -> Probed:
        found = next((result for result in report.results if result.id == f"attach.{way}"), None)
        if found is None:
            return _not_reached(report)
        if found.outcome in (Outcome.PASS, Outcome.WARN):
            return Probed(Answer.YES, "")
        refused = found.outcome is Outcome.FAIL or (found.outcome is Outcome.SKIP and "errno" in found.evidence)
        return Probed(Answer.NO if refused else Answer.UNKNOWN, found.summary)

    return ask


def redirects(report: Report) -> Probed:
    """Whether connects to all three endpoints reach the proxy."""
    found = [result for result in report.results if result.group == "redirect"]
    if not found:
        return _not_reached(report)
    for outcome, answer in ((Outcome.FAIL, Answer.NO), (Outcome.ERROR, Answer.UNKNOWN)):
        for result in found:
            if result.outcome is outcome:
                return Probed(answer, f"{result.id}: {result.summary}")
    passed = [result for result in found if result.outcome in (Outcome.PASS, Outcome.WARN)]
    return Probed(Answer.YES, "") if passed else Probed(Answer.UNKNOWN, found[0].summary)


def _not_reached(report: Report) -> Probed:
    first = loads(report)
    if first.answer is Answer.NO:
        return Probed(Answer.UNKNOWN, "not tried, since it does not load")
    return _why_not(report)


_WAYS = (Way.LINK, Way.MULTI, Way.OVERRIDE, Way.SINGLE)
_ATTACHES = "attaches by "

ABILITIES = (
    Ability("loads", "loads", loads),
    *(Ability(f"attach.{way}", f"{_ATTACHES}{way}", _attaches(way)) for way in _WAYS),
    Ability("redirects", "redirects", redirects),
)

WAYS = {f"attach.{way}": str(way) for way in _WAYS}
"""The abilities that are ways of attaching, with their short names: bpf_link, and BPF_PROG_ATTACH with its flags."""


def phrase(titles: Sequence[str]) -> str:
    """`loads, attaches by link, multi, redirects`."""
    ways = [title.removeprefix(_ATTACHES) for title in titles if title.startswith(_ATTACHES)]
    others = [title for title in titles if not title.startswith(_ATTACHES)]
    attaches = [_ATTACHES + ", ".join(ways)] if ways else []
    return ", ".join([*others[:1], *attaches, *others[1:]] if "loads" in titles else [*attaches, *others])


def word(report: Report) -> str:
    """A cell in a word or two: holds, refused, fails, no answer."""
    outcomes = {result.outcome for result in report.results}
    if Outcome.FAIL in outcomes:
        if _tried(report) and loads(report).answer is Answer.NO:
            return "refused"
        return "cannot run" if any(one.blocking and one.outcome is Outcome.FAIL for one in report.results) else "fails"
    if Outcome.ERROR in outcomes:
        return "no answer"
    return "holds" if {Outcome.PASS, Outcome.WARN} & outcomes else "not measured"
