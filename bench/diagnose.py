"""How right `msp-harness diagnose` is on the corpus of evidence, and how fast.

Each case counts as it lies in the corpus, and changed in ways that say nothing else: names taken away, line ends of
Windows, UTF-16, quoted in a mail. The matrix has the expected verdict's group in its rows and what was found in its
columns. The corpus is ours: a figure here says that nothing was lost, not how often the field is right.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from bench.spread import spread
from harness.diagnose import intake
from harness.diagnose.facts import Document, Evidence, Fact
from harness.diagnose.verdict import Verdict, diagnose
from tests.unit.diagnose.evidence_corpus import NOW, Case, cases, of_tools

ROUNDS = 15

GROUPS = (
    ("provisioning", "MSP-P2"), ("service", "MSP-P31"), ("windows", "MSP-P32"), ("applied", "MSP-P30"),
    ("agent", "MSP-P1"), ("load", "MSP-V"), ("attach", "MSP-A"), ("key", "MSP-K"), ("healthy", "MSP-E100"),
    ("evidence", "MSP-E1"),
)  # fmt: skip
"""By the beginning of a code, the first that fits."""


def group(code: str) -> str:
    return next(name for name, begin in GROUPS if code.startswith(begin))


def _plain(name: str, data: bytes) -> tuple[str, bytes]:
    return name, data


def _nameless(name: str, data: bytes) -> tuple[str, bytes]:
    return "text", data


def _crlf(name: str, data: bytes) -> tuple[str, bytes]:
    return name, data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") if not data.startswith(b"\xff\xfe") else data


def _utf16(name: str, data: bytes) -> tuple[str, bytes]:
    if data.startswith(b"\xff\xfe"):
        return name, data
    return name, b"\xff\xfe" + data.decode("utf-8", "replace").encode("utf-16-le")


def _quoted(name: str, data: bytes) -> tuple[str, bytes]:
    if data.startswith(b"\xff\xfe"):
        return name, data
    lines = data.decode("utf-8", "replace").splitlines()
    return "mail.txt", "\n".join(f"> {line}" for line in lines).encode() + b"\n"


Change = Callable[[str, bytes], tuple[str, bytes]]
VARIANTS: Sequence[tuple[str, Change]] = (
    ("as it lies there", _plain),
    ("names taken away", _nameless),
    ("CRLF", _crlf),
    ("UTF-16", _utf16),
    ("quoted in a mail", _quoted),
)


def changed(case: Case, change: Change) -> Evidence:
    facts: list[Fact] = []
    documents: list[Document] = []
    for path in sorted(path for path in case.bundle.rglob("*") if path.is_file()):
        name, data = change(str(path.relative_to(case.bundle)), path.read_bytes())
        found = intake.read_bytes(data, name if name != "text" else f"text-{len(documents)}")
        facts += found.facts
        documents += found.documents
    return Evidence(facts, documents)


def in_one_mail(case: Case) -> Evidence:
    """Every document of a case below its name, in one text with words before and behind."""
    files = [path for path in sorted(case.bundle.rglob("*")) if path.is_file()]
    texts = [f"{path.name}:\n\n{path.read_bytes().decode('utf-8', 'replace')}" for path in files]
    return intake.read_bytes("\n\n".join(["Hello,\nthis is what we see.", *texts, "Thanks\n"]).encode(), "mail.txt")


def told(name: str, rows: Sequence[tuple[Case, Verdict]]) -> None:
    count = sum(right(case, found) for case, found in rows)
    print(f"{name:<18} {count} of {len(rows)} right ({100 * count / len(rows):.1f} %)")
    for case, found in [row for row in rows if not right(*row)][:12]:
        print(f"    {case.name} ({case.expected['code']}, got {found.code.id})")


def right(case: Case, found: Verdict) -> bool:
    return (found.kind.value, found.code.id) == (case.expected["verdict"], case.expected["code"])


def matrix(rows: Sequence[tuple[Case, Verdict]]) -> Iterator[str]:
    """Expected groups down, found groups across; a group that nobody has is left out."""
    counts = Counter((group(case.expected["code"]), group(found.code.id)) for case, found in rows)
    names = [name for name, _ in GROUPS if any(name in pair for pair in counts)]
    yield f"{'expected, found':<16}" + "".join(f"{name[:8]:>9}" for name in names)
    for expected in names:
        cells = "".join(f"{counts[expected, found] or '.':>9}" for found in names)
        yield f"{expected:<16}{cells}"


def main() -> None:
    corpus = cases()
    for name, change in VARIANTS:
        rows = [(case, diagnose(changed(case, change), NOW)) for case in corpus]
        told(name, rows)
        if change is _plain:
            print(*matrix(rows), sep="\n")
    told("all in one mail", [(case, diagnose(in_one_mail(case), NOW)) for case in corpus])
    told("real tools", [(case, case.verdict()) for case in of_tools()])
    print(f"one core, {ROUNDS} rounds over the corpus, CPU milliseconds a case")
    read, judged = [], []
    for _ in range(ROUNDS):
        began = time.process_time()
        found = [intake.read([case.bundle]) for case in corpus]
        between = time.process_time()
        for evidence in found:
            diagnose(evidence, NOW)
        ended = time.process_time()
        read.append((between - began) / len(corpus))
        judged.append((ended - between) / len(corpus))
    print(f"read             {spread(read).text(1000)}")
    print(f"diagnosed        {spread(judged).text(1000)}")
