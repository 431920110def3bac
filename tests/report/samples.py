"""Reports to render: one that a person might have made, and any that hypothesis thinks of."""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

from harness.report import Outcome, Report, Result

LOG = "\n".join(f"{number}: (79) r1 = *(u64 *)(r1 +{number})" for number in range(200)) + "\nR1 invalid mem access"

RESULTS = (
    Result("preflight.bpf", "The bpf system call", Outcome.PASS, "bpf(2) answers", seconds=0.0002),
    Result("redirect.imds", "IMDS", Outcome.PASS, "goes to the proxy", {"uid": 0}, {"port": 45122}, seconds=0.012),
    Result(
        "redirect.wireserver",
        "WireServer",
        Outcome.FAIL,
        "the client's SYN was seen on the veth",
        {"endpoint": "168.63.129.16:80", "audit": None, "sides": ["client", "capture"]},
        {"pid": 4711},
        remedy="Look what else is attached:\n  bpftool cgroup tree",
        guide="Connections are not redirected",
        code="MSP-A004",
        seconds=0.014,
    ),
    Result("load.hardened", "Loads", Outcome.ERROR, "EACCES: R1 invalid mem access", {"log": LOG}, seconds=1.25),
    Result("coverage.io_uring", "io_uring", Outcome.SKIP, "ENOSYS: this kernel has no io_uring"),
    Result("coverage.v6", "v4-mapped", Outcome.WARN, "bypasses connect4", remedy="use --program hardened"),
)


def sample(*results: Result) -> Report:
    """A Report with these Results, or with one of each outcome."""
    return Report(
        target="live kernel",
        kernel="6.1.0-25-amd64",
        distribution="Debian GNU/Linux 12 (bookworm)",
        harness_version="0.1.0",
        results=results or RESULTS,
        run="a1b2c3",
        started="2026-11-24T15:00:00Z",
        ended="2026-11-24T15:00:03.5Z",
        seconds=3.412,
        program="sha256:" + "9f2c41d0" * 8,
    )


def with_text(text: str) -> Report:
    """The same text from a stranger wherever a text may be."""
    result = Result(text, text, Outcome.FAIL, text, {text: text, "list": [text]}, {text: [{text: 1}]}, text, text, text)
    others = [dataclasses.replace(result, outcome=outcome) for outcome in Outcome]
    return Report(text, text, text, text, others, text, text, text, 1.0, text)


texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)
"""Any text: control characters and surrogates too."""

scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=10)
facts = st.dictionaries(texts, values, max_size=4)
reasons = texts.filter(lambda text: bool(text.strip()))

results = st.builds(
    Result,
    id=texts.filter(bool),
    title=texts,
    outcome=st.sampled_from(Outcome),
    summary=reasons,
    evidence=facts,
    observed=facts,
    remedy=st.none() | texts,
    guide=st.none() | texts,
    code=st.none() | texts,
    blocking=st.booleans(),
    seconds=st.floats(0, 1e6),
)

reports = st.builds(
    Report,
    target=texts,
    kernel=texts,
    distribution=texts,
    harness_version=texts,
    results=st.lists(results, max_size=5),
    run=texts,
    started=st.just("2026-11-24T15:00:00Z"),
    ended=st.just("2026-11-24T15:00:03.512Z"),
    seconds=st.floats(0, 1e6),
    program=st.none() | st.just("sha256:0123abcd"),
)
