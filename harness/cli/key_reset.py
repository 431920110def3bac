"""`msp-harness key-reset`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.cli.output import usage
from harness.report import EXIT_CHECK_FAILED, EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.diagnose.key_reset import Refused, Reset


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "key-reset", help="the next KeyIncarnationId of VM models, and the calls that apply it"
    )
    parser.set_defaults(command=run, verbose=False)
    parser.add_argument(
        "--vm-model",
        action="append",
        required=True,
        metavar="FILE",
        help="a VM, a scale set or a list of them, as ARM, az or PowerShell prints it; - is stdin (repeatable)",
    )
    parser.add_argument("--value", type=int, metavar="N", help="this value instead of the next")
    parser.add_argument(
        "--after", type=int, default=-1, metavar="N", help="larger than N too: what was sent before, or status.json's"
    )
    parser.add_argument("--json", metavar="FILE", help="write values, bodies and calls as JSON (- for standard output)")


def run(options: argparse.Namespace) -> int:
    """Nothing is sent. 1 when a model was refused."""
    from harness.diagnose.key_reset import LARGEST, Incarnations, Refused
    from harness.diagnose.vm_models import parse
    from harness.verifier import source

    for name, value, least in (("--value", options.value, 1), ("--after", options.after, -1)):
        if value is not None and not least <= value <= LARGEST:
            return usage(f"{name} {value}: a keyIncarnationId is a number from {max(least, 0)} to {LARGEST}")
    models = [model for file in options.vm_model for model in parse(source.read(file).decode("utf-8", "replace"))]
    answers = list(Incarnations(options.value, options.after).each(models))
    if options.json:
        _write_json(options.json, answers)
    if options.json not in ("-", "/dev/stdout"):
        for answer in answers:
            print("\n".join(_lines(answer)), end="\n\n")
        print("Nothing was sent. For one machine send values in increasing order only: others change nothing.")
    return EXIT_CHECK_FAILED if any(isinstance(answer, Refused) for answer in answers) else EXIT_OK


def _lines(answer: Reset | Refused) -> list[str]:
    import json

    from harness.diagnose.key_reset import GUIDE, Refused
    from harness.report.text import visible

    title = visible(f"{answer.model.name} ({answer.model.kind})")
    if isinstance(answer, Refused):
        return [f"{title}: refused: {answer.reason}", f"  to do  {answer.remedy}"]
    lines = [f"{title}: keyIncarnationId {answer.before} → {answer.value}    guide: {GUIDE}"]
    lines += [f"  {with_what}:\n    {visible(command)}" for with_what, command in answer.calls]
    lines += [f"  note: {visible(note)}" for note in answer.notes]
    if answer.put is not None:
        lines += ["  PUT body (put.json), the model that was given with the new value:"]
        lines += [f"    {line}" for line in json.dumps(answer.put, indent=2).splitlines()]
    return lines


def _write_json(path: str, answers: Sequence[Reset | Refused]) -> None:
    import json

    from harness.diagnose.key_reset import Refused
    from harness.report.write import write

    content = []
    for answer in answers:
        model = answer.model
        about: dict[str, object] = {"name": model.name, "id": model.id, "kind": model.kind, "place": model.place}
        if isinstance(answer, Refused):
            content.append(about | {"refused": answer.reason, "remedy": answer.remedy})
            continue
        calls = dict(answer.calls)
        fresh = {"before": answer.before, "keyIncarnationId": answer.value, "calls": calls, "notes": list(answer.notes)}
        content.append(about | fresh | {"put": answer.put, "patch": answer.patch})
    write(path, json.dumps(content, indent=2, ensure_ascii=True) + "\n")
