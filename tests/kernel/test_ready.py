"""What is prepared before it is asked for: the run that takes it over finds it as if it had just been built."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from harness.lab import state
from harness.lab.worker import wait_until
from harness.report import Outcome, compare
from harness.report import json as reports

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, resource, sys
from harness.checks import ready, verify
from harness.checks.options import Options
from harness.kernel import features
from harness.lab import lab, state
from harness.report import json as reports

resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]))
told = {}
if sys.argv[1] == "prepared":
    told["prepared"] = ready.prepare()
    waiting = next(iter(lab._PREPARED.values())).lab
    told["waiting"] = [waiting.nonce, str(waiting.cgroup), waiting.vm.pid]
    (run,) = state._PREPARED.values()
    told["run"] = run.id
    features.probe_all = None  # the kernel is not asked again
told["limit"] = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
nonces = []
renewed = lab.Lab.renewed
lab.Lab.renewed = lambda one: nonces.append(renewed(one)) or nonces[-1]
with verify.start(Options(quick=True)) as started:
    report = verify.verify(started, lambda result: None)
told["left"] = [len(lab._PREPARED), len(state._PREPARED)]
told["nonces"] = [one.nonce for one in nonces]
print(json.dumps([told, reports.dump(report)]))
"""


def printed(script: str, *words: str) -> str:
    """What a script prints that runs to its end in a process of its own."""
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verified(how: str) -> tuple[dict[str, object], str]:
    told, report = json.loads(printed(SCRIPT, how))
    return told, report


def test_the_same_results_as_without() -> None:
    told, prepared = verified("prepared")
    _, fresh = verified("fresh")
    one, other = reports.load(prepared), reports.load(fresh)
    assert [change for change in compare.diff(one, other) if change.fields] == []
    assert {result.outcome for result in one.results} <= {Outcome.PASS, Outcome.WARN}
    assert told["prepared"] is True
    assert told["left"] == [0, 0]  # taken over
    assert told["limit"] == 1 << 16  # as the process had it
    waiting, nonces = told["waiting"], told["nonces"]
    assert isinstance(waiting, list)
    assert isinstance(nonces, list)
    assert len(nonces) == 1
    assert nonces[0] != waiting[0]
    assert one.run != told["run"]
    assert [result.observed["nonce"] for result in one.results if result.id == "redirect.imds"] == nonces
    assert wait_until(time.monotonic() + 10, lambda: not Path(f"/proc/{waiting[2]}").exists())  # ended with its process
    state.clean()
    assert not Path(str(waiting[1])).exists()


def test_nothing_can_be_prepared_without_a_compiler_or_a_bundle() -> None:
    """A child, since what is begun waits for the next run of its process."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    script = (
        "import sys; sys.modules['bcc'] = None\n"
        "from harness.checks import ready\n"
        "from harness.checks.options import Options\n"
        "from harness.checks import verify\n"
        "assert ready.prepare() is False\n"
        "with verify.start(Options(quick=True)) as started:\n"
        "    report = verify.verify(started, lambda result: None)\n"
        "print({result.id for result in report.results if result.outcome in ('FAIL', 'ERROR')})\n"
    )
    found = printed(script)
    assert "preflight.bcc" in found or "load.compile" in found
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == before
    state.clean()


def test_what_was_kept_of_the_kernels_answers_is_taken_over_once() -> None:
    script = (
        "from dataclasses import replace\n"
        "from harness.checks import machine\n"
        "found = machine.ask()\n"
        "machine.keep(replace(found, features={'asked': 'before'}))\n"
        "assert machine.ask().features == {'asked': 'before'}\n"
        "assert machine.ask().features == found.features\n"
    )
    printed(script)
