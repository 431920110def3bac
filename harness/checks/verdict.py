"""What a Report of `msp-harness verify` comes to, in a sentence."""

from __future__ import annotations

from harness.report import EXIT_CANNOT_RUN, Outcome, Report, exit_code


def verdict(report: Report) -> str:
    """One sentence for a person in a hurry."""
    status = exit_code(report)
    failed = {result.id.split(".")[0] for result in report.results if result.outcome is Outcome.FAIL}
    unknown = report.count(Outcome.ERROR)
    redirects = [result.outcome for result in report.results if result.group in ("redirect", "chain")]
    if status == EXIT_CANNOT_RUN:
        return "this machine cannot run the verification"
    if "selftest" in failed:
        return "a broken program went unseen: the harness cannot be trusted on this machine"
    name = _object_name(report)
    by = f" by {name}" if name else ""
    if name and "load" in failed and not redirects:
        return f"{name} cannot be used on {report.kernel}"
    if failed & {"load", "attach", "redirect", "chain"}:
        return f"connect4 redirection{by} does not hold on {report.kernel}"
    if failed:
        return f"{name or 'connect4'} redirects on {report.kernel}, but not everything that belongs to it is right"
    if unknown:
        return f"{unknown} of {len(report.results)} checks could not find out"
    if redirects and all(outcome is Outcome.PASS for outcome in redirects):
        return f"connect4 redirection{by} holds on {report.kernel}"
    return "what was asked for passed; redirection itself was not checked"


def _object_name(report: Report) -> str:
    """The file of --object; empty for our own programs."""
    loading = next((result for result in report.results if result.id == "load.object"), None)
    return str(loading.evidence.get("file", "")) if loading else ""
