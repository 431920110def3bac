"""What every job needs, made before it is asked for: the kernel's answers, a run, a lab, clients that wait, and all of
it used once.

For the process in a guest that is saved and then serves one job a copy. What it makes is taken over by the next run in
this process (harness.lab.state.begin, harness.lab.lab.open_lab), which finds it as if it had just been built: with a
nonce and an id of its own, nothing accepted, nothing captured. A kernel that cannot have it is left to the job.
"""

from __future__ import annotations

import gc
import io
import resource
from contextlib import suppress

from harness.checks import machine as machines
from harness.checks import plan, preflight, redirect, verify
from harness.checks.base import Environment, perform, selected
from harness.checks.recording import Recording
from harness.errors import HarnessError
from harness.kernel import bpf
from harness.lab import lab as labs
from harness.lab import state
from harness.lab.bystander import bystanders
from harness.lab.clients import NOBODY, Request
from harness.lab.lab import Lab
from harness.lab.state import Run
from harness.lab.topology import OTHER_ADDRESS
from harness.program.attach import Way
from harness.program.compile import Compilation, Join, redirector
from harness.program.load import load
from harness.report import console, json

_USED = ("attach", "redirect", "redirect")
"""The checks that are done once or more before anybody asks: nearly all code that the others use is used by these."""

WAITING = {(0, ""): 10, (NOBODY, ""): 3}
"""How many clients wait, by uid, beside one outside the cgroup that is covered: as many as the quick checks have at
once (4 and 3), and those that they use up."""


def prepare() -> bool:
    """Make a run with a lab, and use it once; whether this kernel has what that needs.

    Call it while the process has one thread, with no run under way; once more after a run has taken it over.
    """
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        machine = machines.ask()
        machines.keep(machine)
        for _ in preflight.look(machine):
            pass
        if machine.cgroup2 is None:
            return False
        bpf.lift_memlock_limit()
        run = state.prepare(machine.cgroup2)
        lab = labs.prepare_lab(run)
        way = Way.LINK if machine.has("bpf-link") else Way.MULTI
        with bystanders(run, way):
            _use(run, lab, verify.best_join(machine), way)
        lab.crew.fill(WAITING | {(0, str(lab.outside_cgroup)): 1})
        _warm(lab)
        lab.renewed()
    except (HarnessError, OSError):  # the job will run into it and say what it is
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)  # whether it is in the way is for the job to find out
        gc.freeze()  # not collected first, which takes a tenth of a second: it is little, and there for good
    return True


def _use(run: Run, lab: Lab, join: Join, way: Way) -> None:
    """Some of the checks: what they read and import is in memory then, and every worker has done its part."""
    with Compilation(redirector(join=join)) as compilation, load(compilation.result()) as loaded:
        environment = Environment(run, lab, loaded, join is not Join.NONE, way)
        checks = [check for name in _USED for check in selected(plan.CHECKS, (name,), True)]
        results = [result for check in checks for result in perform(check, environment)]
    report = Recording("warm-up").report(results)
    json.dump(report)
    console.show(console.console(io.StringIO()), report, verify.verdict(report), verbose=False)


def _warm(lab: Lab) -> None:
    """Each client that waits does a request, of some that come at once."""
    kinds = [*(kind for kind, count in WAITING.items() for _ in range(count)), (0, str(lab.outside_cgroup))]
    requests = [Request(OTHER_ADDRESS, 80, uid=uid, cgroup=cgroup) for uid, cgroup in kinds]
    with suppress(HarnessError):
        redirect.ask_all(lab, requests)
