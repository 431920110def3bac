"""`make vagrant-test`: the whole way of the Vagrantfile, tried in a private world.

A box of our own takes the place of a public one, under its name; then `vagrant up`, which provisions as the README
says, `vagrant ssh -c 'sudo msp-harness verify …'`, whose Report comes home and is looked at, and `vagrant destroy`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from harness import interruption
from harness.errors import HarnessError
from harness.kernel import packages
from harness.report import EXIT_CANNOT_RUN, EXIT_CHECK_FAILED, EXIT_OK, Outcome, Report
from harness.report import json as report_json
from harness.vm import apt, cache
from vagrant import box, inside, wheels, world

MACHINES = Path(__file__).with_name("machines.json")
VERIFY = "sudo msp-harness verify --quick --json -"
_PROGRAMS = {
    "vagrant": packages.VAGRANT,
    "libvirtd": packages.LIBVIRTD,
    "qemu-system-x86_64": packages.QEMU,
    "qemu-img": packages.QEMU_IMG,
    "rsync": packages.RSYNC,
    "ssh": packages.SSH,
    "grub-mkimage": packages.GRUB,
    "mmdebstrap": packages.MMDEBSTRAP,
    "mke2fs": packages.E2FSPROGS,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vagrant", description=__doc__)
    parser.add_argument(
        "--kernel", metavar="SUITE", help="have the machine install the kernel of this suite (bullseye …)"
    )
    parser.add_argument("--json", metavar="FILE", help="keep the Report here")
    parser.add_argument(
        "--clean", action="store_true", help="only remove what killed runs left (the next run does, too)"
    )
    options = parser.parse_args()
    interruption.install()
    try:
        if options.clean:
            world.sweep()
            return EXIT_OK
        return _try_out(options.kernel, options.json)
    except HarnessError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        print(f"vagrant-test: {error}", file=sys.stderr)
        return EXIT_CANNOT_RUN
    except interruption.Interrupted as ended:
        print("vagrant-test: interrupted; nothing is left", file=sys.stderr)
        return ended.exit_code


def _try_out(suite: str | None, keep: str | None) -> int:
    require()
    began = time.monotonic()
    ours = box.get()
    print(f"box      {time.monotonic() - began:6.1f} s  {ours.kernel}, {ours.path.stat().st_size >> 20} MB", flush=True)
    row, name = _row()
    release, machine = ours.kernel, f"{row}@libvirt-tcg"
    with world.begin() as home:
        project = home.home / "project"
        shutil.copytree(wheels.get(), project / "vagrant/wheels")
        if suite:
            package = _package(suite, project / "vagrant/packages")
            release = package.name.split("_")[0].removeprefix("linux-image-")
            machine = f"{row}:{package.relative_to(project)}@libvirt-tcg"
        try:
            os.link(ours.path, home.home / "debian.box")
        except OSError:  # another file system
            shutil.copy(ours.path, home.home / "debian.box")
        status = home.run([machine, name, VERIFY])
        if status != 0:
            return EXIT_CHECK_FAILED
        text = (home.home / inside.REPORT).read_text("utf-8")
    if keep:
        Path(keep).write_text(text)
    report = check(text, release)
    print(f"{report.target}, kernel {report.kernel}: {len(report.results)} results, none failed")
    print(f"in all   {time.monotonic() - began:6.1f} s", flush=True)
    return EXIT_OK


def require() -> None:
    """Raises HarnessError that names every program which is missing, and how to install them."""
    if os.geteuid() != 0:
        raise HarnessError("try Vagrant out", "this is not root", "run this as root: it makes namespaces and a box")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [program for program in _PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        raise HarnessError(
            "try Vagrant out",
            f"there is no {', '.join(missing)}",
            packages.install_hint([_PROGRAMS[program] for program in missing]),
        )


def _row() -> tuple[str, str]:
    """The row of the table for this machine's suite, and the name of its public box, which ours is to have."""
    suite = apt.codename()
    for row, values in json.loads(MACHINES.read_text("utf-8")).items():
        if values.get("suite") == suite:
            return row, values["box"]
    raise HarnessError("try Vagrant out", f"no machine of {MACHINES.name} is of the suite {suite}", "add one")


def _package(suite: str, place: Path) -> Path:
    """The file of the package with a suite's newest kernel, fetched by apt."""
    with cache.locked("apt", suite):
        source = apt.Apt(suite, cache.directory() / "apt" / suite)
        source.update()
        image = source.show(box.KERNEL).get("Depends", "").partition(" ")[0]
        return source.download(image, place)


def check(text: str, release: str) -> Report:
    """The Report that came home. Raises HarnessError when it is none, of another kernel, or something in it failed."""
    import jsonschema

    attempted = "accept the machine's Report"
    report = report_json.load(text)
    try:
        jsonschema.validate(json.loads(text), report_json.schema())
    except jsonschema.ValidationError as error:
        raise HarnessError(attempted, f"its schema refuses it: {error.message}") from error
    if report.kernel != release:
        raise HarnessError(attempted, f"it is of the kernel {report.kernel}, and {release} was to be started")
    wrong = [result for result in report.results if result.outcome in (Outcome.FAIL, Outcome.ERROR)]
    if wrong or report.count(Outcome.PASS) == 0:
        lines = "\n".join(f"{result.outcome.name} {result.id}: {result.summary}" for result in wrong)
        raise HarnessError(attempted, f"{len(wrong)} results failed, {report.count(Outcome.PASS)} passed", detail=lines)
    return report


if __name__ == "__main__":
    sys.exit(main())
