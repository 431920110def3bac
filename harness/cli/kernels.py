"""`msp-harness kernels`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.output import SPEC
from harness.errors import HarnessError
from harness.report import EXIT_CANNOT_RUN, EXIT_CHECK_FAILED, EXIT_OK

if TYPE_CHECKING:
    from harness.vm.inventory import Entry


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    kernels = commands.add_parser("kernels", help="the kernels that guests boot: list, get, build, prune")
    actions = kernels.add_subparsers(required=True, metavar="ACTION")

    shown = actions.add_parser("list", help="what is in the cache, where it came from, how that is known")
    shown.add_argument("--json", action="store_true", help="as JSON")
    shown.add_argument("--check", action="store_true", help="read every file and compare it with its hash")
    shown.add_argument("-v", "--verbose", action="store_true", help="hashes, files and saved guests too")
    shown.set_defaults(command=show)

    fetched = actions.add_parser("get", help="fetch kernels into the cache")
    fetched.add_argument("specs", nargs="+", metavar="SPEC", help=SPEC)
    fetched.add_argument("--refresh", action="store_true", help="ask again for what is in the cache")
    fetched.add_argument("--allow-unsigned", action="store_true", help="take an .rpm without a known signature")
    fetched.add_argument("--key", action="append", default=[], metavar="FILE", help="trust this public key of an .rpm")
    fetched.add_argument("-v", "--verbose", action="store_true", help="the whole output of what fails")
    fetched.set_defaults(command=get)

    built = actions.add_parser("build", help="build lab kernels from the distribution's source")
    built.add_argument("specs", nargs="+", metavar="lab:NAME", help="lab:base, lab:no-pid-tgid …")
    built.add_argument("--refresh", action="store_true", help="ask apt for a newer source")
    built.add_argument("-v", "--verbose", action="store_true", help="the whole output of what fails")
    built.set_defaults(command=build)

    pruned = actions.add_parser("prune", help="remove leftovers, what is damaged and what nothing asks for")
    pruned.add_argument("--older-than", type=_days, metavar="DAYS", help="also what was not used for so long")
    pruned.add_argument("--all", action="store_true", help="all that is not in use")
    pruned.add_argument("--dry-run", action="store_true", help="say it only")
    pruned.set_defaults(command=prune, verbose=False)


def _days(text: str) -> float:
    days = float(text)
    if not days >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of days")
    return days


def show(options: argparse.Namespace) -> int:
    from harness.vm import cache, inventory

    entries = inventory.listed(thorough=options.check)
    if options.json:
        import json

        rows = [_as_json(entry) for entry in entries]
        print(json.dumps({"directory": str(cache.directory() / "kernels"), "kernels": rows}, indent=1))
    elif not entries:
        print(f"no kernels in {cache.directory()}; `msp-harness kernels get bookworm` fetches one")
    else:
        for entry in entries:
            print(_describe(entry, verbose=options.verbose))
        whole = sum(entry.size + sum(guest.size for guest in entry.guests) for entry in entries)
        print(f"{len(entries)} kernels and their saved guests: {_megabytes(whole)} in {cache.directory()}")
    return EXIT_CHECK_FAILED if options.check and any(entry.damage for entry in entries) else EXIT_OK


def _describe(entry: Entry, *, verbose: bool) -> str:
    """A kernel in a few lines: what it answers to, its release, its origin and how that is known, sizes and use."""
    kernel, count = entry.kernel, len(entry.guests)
    lines = [f"{', '.join(entry.specs) or '(nothing asks for it)'}  {kernel.release if kernel else entry.name}"]
    if kernel:
        lines.append(f"{kernel.origin}; {kernel.verified or 'built here'}")
    guests = f"{count} saved guest{'s' if count != 1 else ''} of {_megabytes(sum(each.size for each in entry.guests))}"
    use = [_megabytes(entry.size), *([guests] if count else []), f"used {age(entry.used)}"]
    asked = max(entry.specs.values(), default=0.0)
    use += [f"asked for {age(asked)}"] if asked else []
    use += ["in use"] if entry.in_use else []
    lines.append(", ".join(use))
    if not entry.current:
        lines.append("made by another version of the harness; `msp-harness kernels prune` removes it")
    elif entry.damage:
        lines.append(f"damaged: {entry.damage}; it is fetched anew when it is asked for")
    if kernel and verbose:
        lines += [kernel.digest, f"image: {kernel.image}"]
        lines.append(f"ELF file: {kernel.vmlinux}" if kernel.vmlinux else f"no ELF file: {kernel.no_vmlinux}")
        lines += [f"saved: {each.name}, {_megabytes(each.size)} {each.variation}".rstrip() for each in entry.guests]
    return "\n    ".join(lines)


def _as_json(entry: Entry) -> dict[str, object]:
    from datetime import UTC, datetime

    def iso(seconds: float) -> str | None:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None

    kernel = entry.kernel
    return {
        "entry": entry.name,
        "specs": {spec: iso(asked) for spec, asked in entry.specs.items()},
        "release": kernel.release if kernel else None,
        "origin": kernel.origin if kernel else None,
        "verified": kernel.verified if kernel else None,
        "digest": kernel.digest if kernel else None,
        "image": str(kernel.image) if kernel else None,
        "vmlinux": str(kernel.vmlinux) if kernel and kernel.vmlinux else None,
        "no_vmlinux": kernel.no_vmlinux if kernel else None,
        "damage": entry.damage,
        "size": entry.size,
        "last_use": iso(entry.used),
        "in_use": entry.in_use,
        "current": entry.current,
        "saved": [{"name": guest.name, "variation": guest.variation, "size": guest.size} for guest in entry.guests],
    }


def get(options: argparse.Namespace) -> int:
    from harness.vm import rpm_signature, spec

    for key in options.key:
        rpm_signature.trust(Path(key))
    status = EXIT_OK
    for text in options.specs:
        try:
            found = spec.find(text, refresh=options.refresh, allow_unsigned=options.allow_unsigned, tell=_tell)
        except HarnessError as error:
            print(f"msp-harness: {error}", file=sys.stderr)
            if options.verbose and error.detail:
                print(error.detail, file=sys.stderr)
            status = EXIT_CANNOT_RUN
            continue
        print(f"{text}: {found.kernel.release}, {found.kernel.origin} ({found.kernel.verified})")
        if found.asked is not None:
            print(f"  as it was {age(found.asked)}; --refresh asks again")
        if found.kernel.no_vmlinux:
            print(f"  guests unpack it at each boot: {found.kernel.no_vmlinux}")
    return status


def build(options: argparse.Namespace) -> int:
    from harness.vm import lab_kernels

    rows = [lab_kernels.named(name) for name in options.specs]  # a wrong name costs no build
    for row in rows:
        kernel = lab_kernels.get(row.name, _tell, refresh=options.refresh)
        print(f"{lab_kernels.PREFIX}{row.name}: {kernel.release}, {row.title}")
    return EXIT_OK


def prune(options: argparse.Namespace) -> int:
    from harness.vm import inventory

    verb, freed, count = "would remove" if options.dry_run else "removed", 0, 0
    for row in inventory.prune(older_than=options.older_than, everything=options.all, dry_run=options.dry_run):
        if row.removed:
            freed, count = freed + row.size, count + 1
        said = verb if row.removed else "left, for it is in use:"
        print(f"{said} {row.what} {row.name}, {_megabytes(row.size)} ({row.why})")
    print(f"{verb} {count}, {_megabytes(freed)}" if count else "nothing to remove")
    return EXIT_OK


def _tell(line: str) -> None:
    print(f"{line} …", file=sys.stderr, flush=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size < 10e9 else f"{size / 1e9:.1f} GB"


def age(then: float) -> str:
    """How long ago a time (seconds since the epoch) was, in the largest unit that fits."""
    import time

    seconds = max(0.0, time.time() - then)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds / length)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"
