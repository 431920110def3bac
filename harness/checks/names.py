"""The checks of `msp-harness verify` by name: what a command line may ask for, without the checks themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.checks.options import matches

TITLES: Mapping[str, str] = {
    "preflight": "What this machine and kernel have",
    "load": "Programs and maps are in the kernel",
    "attach": "Ways of attaching",
    "attach.path": "What others attached on the path",
    "redirect": "The three endpoints are redirected",
    "untouched": "What must not be redirected",
    "authorization": "Who may ask what, end to end",
    "audit": "Records name the right client",
    "removal": "What is taken away stops at once",
    "chain": "The chain of proof (--explain shows it)",
    "audit.capacity": "Connects at once until a record is lost",
    "census": "How some thirty kinds of client fare (left out by --quick)",
    "selftest": "Broken programs are caught (with --self-test)",
}
"""Every check's name and title, in the order in which they run."""


def unknown(only: Sequence[str]) -> list[str]:
    """The words of --only that no check answers to."""
    return [word for word in only if not any(matches(word, name) or matches(name, word) for name in TITLES)]
