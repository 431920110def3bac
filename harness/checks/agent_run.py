"""`msp-harness agent run`: a whole agent in a lab, followed from start to SUCCESS, then tried and compared.

A real agent (--binary) or, without one, the reference agent of the harness, which is for laboratories. The host sees
nothing of it: namespaces, cgroup2 root and files are the run's (harness.lab.agent_files, harness.lab.agent_process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from harness import interruption
from harness.checks import agent_listener, agent_steps, agent_traffic, agent_truth, machine, preflight
from harness.checks.agent_steps import CONNECT4, Watch, plan_of, while_alive
from harness.checks.recording import Recording
from harness.checks.results import error_result, timed
from harness.checks.verify import best_join
from harness.errors import HarnessError
from harness.kernel import bpf
from harness.lab import agent_files, state
from harness.lab.agent_files import AgentFiles
from harness.lab.agent_process import AgentProcess, give_known_key, started
from harness.lab.lab import Lab, open_lab
from harness.lab.scenarios import DEFAULT, Scenario
from harness.lab.state import Run
from harness.lab.warden import warden
from harness.msp import codes
from harness.msp.endpoints import PROXY
from harness.program import attached
from harness.program.compile import compile_source, redirector
from harness.program.image import Image
from harness.report import EXIT_CANNOT_RUN, Outcome, Report, Result, exit_code

EXPECTED = 31  # Results of a run in which everything can be tried
PATIENCE = 30.0  # seconds from the agent's start until its last step


@dataclass(frozen=True)
class AgentOptions:
    """What `agent run` was asked for. patience is in seconds."""

    files: AgentFiles = field(default_factory=AgentFiles)
    scenario: Scenario = DEFAULT
    patience: float = PATIENCE


Listener = Callable[[Result], None]
Told = Callable[[float, str, str], None]


def run_agent(options: AgentOptions, finished: Listener, told: Told = lambda seconds, step, saw: None) -> Report:
    """Run an agent and give the Report. finished hears of each Result, told of each step as it is seen.

    Call it while the process has one thread: it forks.
    """
    recording = Recording(f"agent run: {options.files.title}, scenario {options.scenario.name}")
    results = []
    for result in _results(options, told):
        interruption.check()
        results.append(result)
        finished(result)
    return recording.report(results)


def _results(options: AgentOptions, told: Told) -> Iterator[Result]:
    here = machine.ask()
    blocking = [row for row in preflight.look(here) if row.blocking and row.outcome in (Outcome.FAIL, Outcome.ERROR)]
    if blocking or here.cgroup2 is None:
        yield from blocking
        return
    binary = options.files.binary
    if binary is not None and (problem := agent_files.problem_of(binary)):
        yield _not_started(f"{binary} cannot be executed here: {problem}")
        return
    bpf.lift_memlock_limit()
    image = None if binary else compile_source(redirector(join=best_join(here)))
    if binary is not None and not here.has("kprobe"):
        said = "this kernel has no kprobes: Microsoft's agent attaches one before connect4, and cannot start without"
        yield Result("agent.kernel", "What the agent needs of this kernel", Outcome.WARN, said,
                     remedy="run it on a kernel with CONFIG_KPROBES and CONFIG_KPROBE_EVENTS")  # fmt: skip
    with state.begin(here.cgroup2) as run:
        yield from in_lab(run, options, image, told, kprobes=here.has("kprobe"))


def in_lab(run: Run, options: AgentOptions, image: Image | None, told: Told, *, kprobes: bool) -> Iterator[Result]:
    """The Results of an agent in a run's own lab."""
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(open_lab(run, proxy_port=0, scenario=options.scenario))
            stack.enter_context(warden(lab.attach_cgroup / "agent"))
            launch = agent_files.launch(lab, run.directory / "agent", options.files, image)
            give_known_key(lab, launch)
            before = frozenset(attached.effective(lab.client_cgroup, CONNECT4))
        except (HarnessError, OSError) as error:
            yield error_result("agent.start", agent_steps.TITLES["start"], error)
            return
        try:
            agent = stack.enter_context(started(lab, launch))
        except HarnessError as error:
            yield _not_started(str(error))
            return
        yield from _followed(lab, agent, options, before, told, kprobes=kprobes)


def _followed(
    lab: Lab, agent: AgentProcess, options: AgentOptions, before: frozenset[int], told: Told, *, kprobes: bool
) -> Iterator[Result]:
    watch = Watch(lab, agent, plan_of(options.scenario, lab.platform.status()), told, before)
    told(0.0, "start", f"process {agent.pid}")
    watch.follow(options.patience)
    real = options.files.binary is not None
    yield from timed("agent", "The agent", lambda: agent_steps.judged(watch, options.patience, kprobes, real))
    if not agent.alive:
        yield Result("traffic", "Clients ask through the agent", Outcome.SKIP, "the agent has ended")
        return
    _let_status_catch_up(watch)
    yield from timed("truth", "status.json against what is so", lambda: agent_truth.truth(watch))
    if agent.alive:
        yield from while_alive(watch, _tried(watch))
    yield from timed("files", "The agent's files", lambda: agent_truth.files(watch))


def _tried(watch: Watch) -> Iterator[Result]:
    """What needs an agent that is alive."""
    yield from timed("agent.cloud-init", "--status --wait", lambda: agent_truth.provisioned(watch))
    if set(watch.goal()) - {"status"} <= set(watch.reached):
        yield from timed("traffic", "Clients ask through the agent", lambda: agent_traffic.traffic(watch))
        yield from timed("truth.denials", "Refused requests", lambda: agent_truth.denials(watch))
    else:
        why = "the agent did not get so far that its redirection could be tried"
        yield Result("traffic", "Clients ask through the agent", Outcome.SKIP, why)
    if any(port == PROXY[1] for _, port in watch.lab.vm.call("listeners")):
        yield from timed("listener", "The listener", lambda: agent_listener.listener(watch))
    else:
        yield Result("listener", "The listener", Outcome.SKIP, f"nobody listens on port {PROXY[1]}")


def _let_status_catch_up(watch: Watch) -> None:
    """status.json is written at intervals: wait until it has been written after all that has come about."""
    file = watch.agent.launch.log_folder / "status.json"

    def written() -> int:
        try:
            return file.stat().st_mtime_ns
        except OSError:
            return 0

    before = written()
    watch.wait(lambda: written() != before)


def _not_started(why: str) -> Result:
    code = codes.NOT_STARTED
    return Result("agent.start", agent_steps.TITLES["start"], Outcome.FAIL, why, remedy=code.remedy, guide=code.guide,
                  code=code.id)  # fmt: skip


def verdict(report: Report) -> str:
    """One sentence for a person in a hurry."""
    status = exit_code(report)
    failed = [result for result in report.results if result.outcome is Outcome.FAIL]
    if status == EXIT_CANNOT_RUN:
        return "this machine cannot run an agent"
    if any(result.group == "agent" for result in failed):
        return f"the agent does not get where it should on {report.kernel}"
    if failed:
        return f"the agent comes up on {report.kernel}, but {len(failed)} of {len(report.results)} checks failed"
    if report.count(Outcome.ERROR):
        return f"{report.count(Outcome.ERROR)} of {len(report.results)} checks could not find out"
    if any(result.code == codes.KEY_TROUBLE_HIDDEN.id for result in report.results):
        return f"the agent comes up on {report.kernel} and gets no key, as the scenario wants, and hides it"
    warned = report.count(Outcome.WARN)
    return f"the agent does what it should on {report.kernel}" + (f", with {warned} warning(s)" if warned else "")
