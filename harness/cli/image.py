"""`msp-harness image`: will a VM made of this image provision with MSP?"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.output import named_for, publish, report_options, stream, usage
from harness.errors import HarnessError
from harness.report import EXIT_CANNOT_RUN, EXIT_CHECK_FAILED, EXIT_OK, Outcome, Report, Result

if TYPE_CHECKING:
    from harness.image.check import Options

_DEPTHS = ("inspect", "kernel", "boot", "full")
_MOST_REPEATS = 1000
_IMAGE_SECONDS = 6 * 3600.0  # what an image does has limits of its own; this is for what hangs outside of one


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    image = commands.add_parser("image", help="check an image before it is baked, or build a sample of one")
    actions = image.add_subparsers(required=True, metavar="COMMAND")
    _add_check(actions)
    _add_build(actions)


def _add_check(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = actions.add_parser(
        "check",
        help="will a VM made of this image provision with MSP, and if not, what to change",
        description="IMAGE: a qcow2, VHD, VHDX or raw disk, an OCI layout, a tar of a root file system, or a directory."
        " It is read in libguestfs' appliance and never written to.",
    )
    check.set_defaults(command=run_check)
    check.add_argument("images", nargs="+", metavar="IMAGE")
    depth = check.add_mutually_exclusive_group()
    for name, text in (
        ("inspect", "read it (the default)"),
        ("kernel", "and boot its kernel, with its eBPF object"),
        ("boot", "and boot the image itself, in Azure's surroundings"),
        ("full", "and have its cloud-init provision it with MSP on; compare with the prediction"),
    ):
        depth.add_argument(f"--{name}", dest="depth", action="store_const", const=name, default="inspect", help=text)
    check.add_argument(
        "--policy", metavar="FILE", help="which results block: TOML with [block] FAIL = [ids], [allow] id = reason"
    )
    check.add_argument("--baseline", metavar="FILE", help="the JSON report of the last image: tell what changed")
    check.add_argument("--sbom", metavar="FILE", help="write what was found in the image as JSON")
    check.add_argument("--jobs", type=int, metavar="N", help="so many images at once (default: as there are cores)")
    check.add_argument("--repeat", type=int, default=1, metavar="N", help="with --full: boot it N times, for the race")
    check.add_argument("--timeout", type=float, default=0.0, metavar="SECONDS", help="for a boot (default: measured)")
    check.add_argument("--root", default="", metavar="DEVICE", help="the system, where there are several (/dev/sda1)")
    check.add_argument("--allow-backing", action="store_true", help="read a qcow2 whose content is in another file too")
    report_options(check)


def _add_build(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = actions.add_parser("build-sample", help="make a small image to try this with, a good or a broken one")
    build.set_defaults(command=run_build)
    build.add_argument("output", nargs="?", metavar="OUTPUT", help="the file, or directory, to make")
    build.add_argument("--suite", default="bookworm", help="bullseye, bookworm, trixie, forky … (default bookworm)")
    build.add_argument("--agent", metavar="reference|PATH", help="the reference agent, a .deb, or files to lay over")
    build.add_argument("--break", dest="breaks", action="append", default=[], metavar="NAME", help="see --list-breaks")
    build.add_argument("--list-breaks", action="store_true", help="list what can be broken, and what then is found")
    build.add_argument(
        "--format",
        default="",
        metavar="NAME",
        help="raw, vhd-fixed, vhd-dynamic, vhdx, tar, directory (default: by OUTPUT)",
    )
    build.add_argument(
        "--provision", type=float, default=120.0, metavar="SECONDS", help="until the reference agent gives up (120)"
    )
    build.add_argument("--generation", type=int, choices=(1, 2), default=1, help="1: BIOS (default), 2: UEFI")
    build.add_argument("-v", "--verbose", action="store_true", help=argparse.SUPPRESS)


def run_check(options: argparse.Namespace) -> int:
    from harness.image import baseline, policy
    from harness.image.check import Depth, Options

    images: list[str] = options.images
    if options.jobs is not None and options.jobs < 1:
        return usage(f"--jobs {options.jobs}: give a number above 0")
    if not 1 <= options.repeat <= _MOST_REPEATS:
        return usage(f"--repeat {options.repeat}: give a number from 1 to {_MOST_REPEATS}")
    if options.repeat > 1 and options.depth != "full":
        return usage("--repeat goes with --full")
    if options.baseline and len(images) > 1:
        return usage("--baseline goes with one IMAGE")
    if missing := [name for name in images if not os.path.lexists(name)]:
        return usage(f"{missing[0]}: there is no such file")
    try:
        rules = policy.read(_path(options.policy)) if options.policy else policy.Policy()
        last = baseline.read(_path(options.baseline)) if options.baseline else None
    except HarnessError as error:
        return usage(str(error))
    depth = Depth[options.depth.upper()]
    how = Options(depth, options.allow_backing, options.root, options.repeat, options.timeout)
    status = EXIT_OK
    for name, report in _reports(options, how):
        told = [*report.results, *(baseline.compared(last, report) if last else ())]
        report = replace(report, results=told)
        gate = policy.judged(report, rules)
        if options.policy:
            report = replace(report, results=[*told, gate])
        own = named_for(options, _word(name, images))
        status = max(status, _published(own, report, gate))
    return status


def _published(options: argparse.Namespace, report: Report, gate: Result) -> int:
    """The exit code is the gate's: what a policy allows may fail, and what it blocks may be a warning."""
    from harness.image.check import timeline, verdict
    from harness.report import console

    screen = console.console(stream(options))
    for line in timeline(report):
        screen.print(line, soft_wrap=True)
    status = publish(options, report, verdict(report), screen)
    if status == EXIT_CANNOT_RUN:
        return status
    return EXIT_CHECK_FAILED if gate.outcome is Outcome.FAIL else EXIT_OK


def _reports(options: argparse.Namespace, how: Options) -> Iterator[tuple[str, Report]]:
    """The images' Reports in their order; several are made side by side, each in a process of its own."""
    from harness.checks.side_by_side import Work, side_by_side
    from harness.image.check import lost, needed

    needed(how.depth)

    def make(name: str) -> Report:
        return _made(name, named_for(options, _word(name, options.images)).sbom, how)

    if len(options.images) == 1:
        yield options.images[0], make(options.images[0])
        return
    found: dict[str, Report] = {}
    work = Work(make, lost, _IMAGE_SECONDS, starting=lambda name: _tell(f"checking {name}"))
    side_by_side(list(dict.fromkeys(options.images)), options.jobs or os.cpu_count() or 1, work, found.__setitem__)
    for name in dict.fromkeys(options.images):
        yield name, found[name]


def _made(name: str, sbom: str | None, how: Options) -> Report:
    from harness.image.check import check
    from harness.report.write import write

    checked = check(name, how, _tell)
    if sbom:
        write(sbom, json.dumps(checked.found, indent=2, ensure_ascii=False) + "\n")
    return checked.report


def _word(name: str, images: Sequence[str]) -> str:
    """What one of several images puts into the names of its files."""
    return "" if len(images) == 1 else re.sub(r"[^A-Za-z0-9._-]+", "_", name.strip("./"))


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _tell(line: str) -> None:
    from harness.report.text import visible

    if sys.stderr.isatty():
        print(visible(line), file=sys.stderr, flush=True)


def run_build(options: argparse.Namespace) -> int:
    from harness.image import sample
    from harness.image.sample import breaks

    if options.list_breaks:
        for row in breaks.BREAKS.values():
            print(f"{row.name:<28}{row.does}\n{'':<28}--{row.at} finds {', '.join(row.finds)}")
        return EXIT_OK
    if not options.output:
        return usage("image build-sample: give the OUTPUT")
    wanted = sample.Sample(
        options.suite, options.agent or "", tuple(options.breaks), options.format, options.generation, options.provision
    )
    print(sample.build(wanted, _path(options.output), lambda line: print(line, file=sys.stderr, flush=True)))
    return EXIT_OK
