"""`msp-harness reproduce`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from harness import interruption
from harness.cli.agent import agent_files
from harness.cli.output import publish, report_options, stream, usage
from harness.errors import HarnessError
from harness.report import EXIT_OK, Outcome, Result

_BOOTS = "provisioning"
"""The group of failures (harness.image.provisioning) that are boots of whole images: not imported unless named."""

_COLUMN = 32


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    reproduce = commands.add_parser("reproduce", help="bring about a failure of the guide, explain it, cure it")
    reproduce.set_defaults(command=run)
    reproduce.add_argument("names", nargs="*", metavar="NAME", help="a failure, the beginning of several, or all")
    reproduce.add_argument(
        "--from", dest="bundle", metavar="BUNDLE", help="bring about what a customer's evidence shows (see diagnose)"
    )
    reproduce.add_argument(
        "--all-kernels",
        action="store_true",
        help="what this kernel cannot have, on others in guests; with the guide's text beside ours",
    )
    reproduce.add_argument("--list", action="store_true", help="list the failures with their places in the guide")
    reproduce.add_argument("--binary", metavar="FILE", help="bring the key failures about with this agent")
    reproduce.add_argument("--object", metavar="FILE", help="its eBPF object")
    reproduce.add_argument("--config", metavar="FILE", help="its configuration")
    reproduce.add_argument("--repeat", type=int, default=0, metavar="N", help="boots of provisioning-race (default 3)")
    report_options(reproduce)


def run(options: argparse.Namespace) -> int:
    from harness import failures
    from harness.checks.recording import Recording
    from harness.failures.table import ALL, chosen
    from harness.report import console

    if options.bundle:
        return usage("--from names the failure: give no NAME") if options.names else _run_from(options)
    if options.list or not (options.names or options.all_kernels):
        return _list()
    ours = [name == _BOOTS or name.startswith(f"{_BOOTS}-") for name in options.names]
    if any(ours):
        if not all(ours):
            return usage("provisioning-… takes minutes a boot: name it alone, not with others")
        return _run_provisioning(options)
    if options.repeat:
        return usage("--repeat goes with provisioning-race")
    if ALL in options.names:
        left = f"not among `{ALL}`: {_BOOTS}-…, of several minutes each"
        print(f"{left}; `reproduce {_BOOTS}` brings them about", file=sys.stderr)
    try:
        count, agent = len(chosen(options.names)), agent_files(options)
    except HarnessError as error:
        return usage(str(error))
    recording = Recording("live kernel: failures of the guide")
    screen = console.console(stream(options))
    with console.progress(screen, count, verbose=options.verbose) as progress:
        results = []
        for result in failures.reproduce(options.names, progress, agent):
            interruption.check()
            results.append(result)
    if options.all_kernels:
        return _on_all_kernels(options, results)
    if ALL not in options.names or options.verbose:  # who names a failure wants to see all of it
        for result in results:
            print(failures.tell(result), file=screen.file)
    return publish(options, recording.report(results), reproduced(results), screen)


def _list() -> int:
    from harness import failures
    from harness.failures.table import ALL
    from harness.image import provisioning

    rows = [(row.name, row.title, f"{row.code.id} · {row.guide}") for row in failures.catalogue()]
    rows += [
        (row.name, row.title, f"{row.code.id} · {row.code.guide} · minutes, not among {ALL}")
        for row in provisioning.RECIPES
    ]
    for name, title, where in rows:
        print(f"{name:<{_COLUMN}}{title}\n{'':<{_COLUMN}}{where}")
    return EXIT_OK


def _run_provisioning(options: argparse.Namespace) -> int:
    """Real images on a platform of ours: told while it goes, since a boot takes minutes."""
    from harness import failures
    from harness.checks.recording import Recording
    from harness.image import provisioning
    from harness.report import console

    if options.repeat < 0 or options.binary or options.object or options.config or options.all_kernels:
        return usage("provisioning-… takes --repeat N with N > 0, and none of the options of the others")
    try:
        count = len(provisioning.chosen(options.names))
    except HarnessError as error:
        return usage(str(error))
    recording = Recording("images on a platform of ours: deployment failures of the guide")
    screen, results = console.console(stream(options)), []
    with console.progress(screen, count, verbose=options.verbose) as progress:
        found = provisioning.reproduce(
            options.names,
            progress,
            races=options.repeat or provisioning.RACES,
            tell=progress.aside,
        )
        for result in found:
            interruption.check()
            results.append(result)
    for result in results:
        print(failures.tell(result), file=screen.file)
    return publish(options, recording.report(results), reproduced(results), screen)


def _on_all_kernels(options: argparse.Namespace, here: Sequence[Result]) -> int:
    """What this kernel skipped, on others; the guide's texts beside ours; and where each failure came about."""
    from harness import failures
    from harness.checks.recording import Recording
    from harness.failures.beside import beside
    from harness.failures.perform import identity
    from harness.report import console
    from harness.vm.everywhere import on_all_kernels

    recording = Recording("failures of the guide: the live kernel, and guests for what it cannot have")
    screen = console.console(stream(options))
    families = {identity(failure): failure.family for failure in failures.catalogue()}
    results = list(on_all_kernels(here, lambda line: print(line, file=sys.stderr)))
    texts = [text for result in results if (text := beside(result, families[result.id]))]
    print("\n".join(texts), file=screen.file)
    for result in results:
        print(f"{result.id:<42}{result.outcome:<6}{result.evidence['kernel']}", file=screen.file)
    status = publish(options, recording.report(results), reproduced(results), screen)
    if options.markdown and texts:
        _append(options.markdown, "\n## The guide's text and ours\n\n````\n" + "\n".join(texts) + "````\n")
    return status


def _append(path: str, text: str) -> None:
    """Behind the Markdown that was written, wherever that is. Raises HarnessError."""
    from pathlib import Path

    from harness.errors import errno_text

    try:
        if path == "-":
            print(text)
            return
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        number = error.errno or 0
        raise HarnessError(f"write {path}", errno_text(number), errno=number) from error


def _run_from(options: argparse.Namespace) -> int:
    """The failure that the diagnosis of a bundle names, here or in a guest; and whether the message is the same."""
    from harness import failures
    from harness.checks.recording import Recording
    from harness.diagnose import intake, reproduction, verdict
    from harness.report import console
    from harness.report.text import visible

    found = verdict.diagnose(intake.read([options.bundle], stdin=sys.stdin.buffer))
    planned = reproduction.plan(found, lambda line: print(line, file=sys.stderr))
    screen = console.console(stream(options))
    best = found.best
    print(f"diagnosis: {found.kind.value}: {found.code.id} {visible(found.summary)}", file=screen.file)
    print(f"failure:   {', '.join(planned.names) or planned.why_not}\nkernel:    {planned.where}", file=screen.file)
    if planned.names and planned.kernel:
        from harness.vm import job, machine, run

        told = job.Job(("reproduce", *planned.names))
        report = run.run(machine.Machine(planned.kernel), told, lambda line: print(line, file=sys.stderr))
    else:
        recording = Recording(f"live kernel: what {best.code.id if best else 'the evidence'} names")
        results = list(failures.reproduce(planned.names, None, agent_files(options))) if planned.names else []
        report = recording.report(results)
    report = reproduction.finished(planned, report)
    return publish(options, report, report.results[-1].summary, screen)


def reproduced(results: Sequence[Result]) -> str:
    """PASS means here that the failure came about and that its remedy helped."""
    done = sum(result.outcome is Outcome.PASS for result in results)
    skipped = sum(result.outcome is Outcome.SKIP for result in results)
    return f"{done} of {len(results)} failures brought about and cured" + (
        f", {skipped} not possible here" * bool(skipped)
    )
