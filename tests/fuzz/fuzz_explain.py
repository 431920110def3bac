"""The long fuzz of everything that reads a stranger's text: `python -m tests.fuzz.fuzz_explain [SECONDS]` (make fuzz).

Texts are made from the corpus and the guide by what happens to texts on their way: cutting, splicing, repeating,
escaping, quoting, wrapping, and noise. What is looked for: an exception, an explanation that cannot be shown, and work
that grows faster than the text. The bounded run of `make test` is in tests/verifier and tests/msp, by hypothesis.
"""

from __future__ import annotations

import json
import random
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.msp import guide
from harness.verifier import explanation
from harness.verifier.explain import explain_text
from harness.verifier.sequence import Step

CORPUS = Path(__file__).parents[1] / "corpus" / "verifier"
STEPS = [Step(1, 46), Step(16, 1), Step(20, 6), Step(25, 14)]
LONGEST = 1 << 17
TOKENS = ["\\n", "\\\\n", '"', "{", "}", "> ", "...", "; ", "0: (85) call ", "R1=", "from 1 to 2: ", "processed ",
          "\x00", "\u201c", "\ud800", "Verifier output: ", '"message": "', '"ebpfProgramStatus": {',
          "Verification failed: ", "Failed to ", "\r", "\t", "9" * 5000, "\\u", "\\"]  # fmt: skip


def seeds() -> Sequence[str]:
    texts = [path.read_text() for path in sorted(CORPUS.glob("**/*.log"))]
    return [*texts, *(guide.excerpt(name) for name in guide.EXCERPTS)]


def _cut(text: str, dice: random.Random) -> str:
    return text[: dice.randrange(len(text) + 1)]


def _drop(text: str, dice: random.Random) -> str:
    at = dice.randrange(len(text) + 1)
    return text[:at] + text[at + dice.randrange(1, 40) :]


def _insert(text: str, dice: random.Random) -> str:
    at = dice.randrange(len(text) + 1)
    return text[:at] + dice.choice(TOKENS) * dice.choice([1, 1, 1, 3, 50]) + text[at:]


def _flip(text: str, dice: random.Random) -> str:
    at = dice.randrange(len(text) + 1)
    return text[:at] + chr(dice.randrange(0x3000)) + text[at + 1 :]


def _repeat(text: str, dice: random.Random) -> str:
    begin = dice.randrange(len(text) + 1)
    return text[:begin] + text[begin : begin + dice.randrange(200)] * dice.choice([2, 5, 100]) + text[begin:]


def _wrap(text: str, dice: random.Random) -> str:
    width = dice.randrange(20, 100)
    return "\n".join("\n".join(textwrap.wrap(line, width) or [""]) for line in text[:20000].split("\n"))


WAYS: Sequence[Callable[[str, random.Random], str]] = (
    _cut, _drop, _drop, _insert, _insert, _flip, _repeat, _wrap,
    lambda text, dice: json.dumps(text)[1:-1],
    lambda text, dice: "\n".join("> " + line for line in text.split("\n")),
    lambda text, dice: text.replace("\n", dice.choice(["\r\n", "\\n", " ", "\n2026-11-24T15:04:00Z [INFO] "])),
    lambda text, dice: text[::-1] if dice.random() < 0.1 else text,
)  # fmt: skip


def one(dice: random.Random, texts: Sequence[str]) -> str:
    text = dice.choice(texts)
    for _ in range(dice.randrange(1, 7)):
        text = dice.choice(WAYS)(text, dice)[:LONGEST]
        if dice.random() < 0.15:
            text += dice.choice(texts)[:LONGEST]
    return text


def check(text: str) -> None:
    for data in (text, text.encode("utf-8", "replace")):
        for steps in (None, STEPS):
            explained = explain_text(data, steps=steps)
            assert explained, "no explanation"
            shown = explanation.ticket(explained)
            assert not any(ord(char) < 32 and char != "\n" for char in shown), "a control character is shown"
            json.dumps([explanation.to_json(row) for row in explained])


def main(seconds: float) -> int:
    seed = random.randrange(1 << 32)
    print(f"fuzzing for {seconds:g} s, seed {seed}", flush=True)
    dice, texts, count = random.Random(seed), seeds(), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = one(dice, texts)
        before = time.process_time()
        try:
            check(text)
        except Exception:
            print(f"after {count} texts, seed {seed}, this text:\n{text!r}", flush=True)
            raise
        spent = time.process_time() - before
        if spent > 2 + len(text) / 100_000:  # a hundred times what it should take
            print(f"slow: {spent:.1f} s for {len(text)} characters, seed {seed}:\n{text[:2000]!r}", flush=True)
            return 1
        count += 1
    print(f"{count} texts, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 300))
