"""What of the guide the rules take up: the list of rules, and the table of coverage that the documents hold."""

from __future__ import annotations

from collections.abc import Sequence

from harness.diagnose.rule import Rule, need_text
from harness.diagnose.rules import RULES, by_place
from harness.msp.guide_walk import Kind, items
from harness.report import markdown


def rules_text(rules: Sequence[Rule] = RULES) -> str:
    """Every rule: id, title, needs, conclusions, how sure it can be, its place in the guide."""
    blocks = []
    for rule in rules:
        item = items().get(rule.place)
        ids = sorted({code.id for code in rule.concludes})
        needs = " and ".join(f"({need_text(need)})" if len(need) > 1 else need_text(need) for need in rule.needs)
        shown = ", ".join(ids) if len(ids) <= 8 else f"{ids[0]} … {ids[-1]} ({len(ids)} codes)"
        blocks.append(
            f"{rule.id}\n  {rule.title}\n"
            f"  needs      {needs}\n"
            f"  concludes  {shown}\n"
            f"  as         {rule.role.value}, {rule.sure.value} at most\n"
            f"  guide      {f'{item.breadcrumb} (line {item.line})' if item else 'of no place: the evidence itself'}\n"
        )
    return "\n".join(blocks) + f"\n{len(rules)} rules\n"


def coverage_markdown(rules: Sequence[Rule] = RULES) -> str:
    """The guide, thing by thing, with the rules and codes that take it up."""
    found = by_place(rules)
    lines = ["| guide, line | what | rules | codes |", "|---|---|---|---|"]
    for item in items().values():
        taken = found.get(item.id, [])
        codes = sorted({code.id for rule in taken for code in rule.concludes})
        shown = ", ".join(codes) if len(codes) <= 6 else f"{codes[0]} … {codes[-1]}"
        text = item.text.splitlines()[0].strip() if item.kind is not Kind.BLOCK else _block(item.text)
        what = f"{item.kind.value}: {markdown.escape(text[:70])}"
        names = ", ".join(f"`{rule.id}`" for rule in taken) or "**none**"
        lines.append(f"| {markdown.escape(item.section)}, {item.line} | {what} | {names} | {shown} |")
    return "\n".join(lines) + "\n"


def sections_markdown(rules: Sequence[Rule] = RULES) -> str:
    """The guide's parts, as many rows as the README has room for: how much there is in each, and how many rules."""
    found = by_place(rules)
    parts: dict[str, list[str]] = {}
    for item in items().values():
        parts.setdefault(item.section.split(".")[0], []).append(item.id)
    lines = ["| part of the guide | items | without a rule | rules |", "|---|---|---|---|"]
    for part, ids in parts.items():
        taken = {rule.id for id in ids for rule in found.get(id, [])}
        without = sum(not found.get(id) for id in ids)
        lines.append(f"| {markdown.escape(items()[part].text)} | {len(ids)} | {without} | {len(taken)} |")
    return "\n".join(lines) + "\n"


def _block(text: str) -> str:
    line = next((line for line in text.splitlines() if "message" in line), "")
    line = line or next((line for line in text.splitlines() if line.strip()), "")
    return line.strip()


HEAD = """\
# What of the troubleshooting guide msp-harness takes up

Made from the table of rules by `python -m harness.diagnose.coverage`; a test keeps it true. `msp-harness diagnose
--list-rules` prints the rules with what each needs and concludes; `msp-harness codes MSP-A103` explains a code.

"""


if __name__ == "__main__":
    print(HEAD + coverage_markdown(), end="")
