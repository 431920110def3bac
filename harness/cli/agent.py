"""`msp-harness agent run`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.cli.output import publish, report_options, stream, usage
from harness.errors import HarnessError
from harness.report import EXIT_OK

if TYPE_CHECKING:
    from harness.lab.agent_files import AgentFiles


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    agent = commands.add_parser("agent", help="run an agent in a lab and see what it does")
    parser = agent.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "run",
        help="start an agent in a lab, follow it to SUCCESS, try its listener, compare its status with what is so",
    )
    parser.set_defaults(command=run)
    parser.add_argument("--binary", metavar="FILE", help="the agent (default: our reference agent, for laboratories)")
    parser.add_argument(
        "--object", metavar="FILE", help="its eBPF object (default: ebpf_cgroup.o beside it, or installed)"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="its /etc/azure/proxy-agent.json (default: one with short times)"
    )
    parser.add_argument(
        "--scenario", metavar="NAME", default="enforce", help="what the platform does; `list` lists them"
    )
    parser.add_argument(
        "--patience", type=float, default=30.0, metavar="SECONDS", help="for it to come up (default 30)"
    )
    parser.add_argument("--follow", action="store_true", help="tell each step when it is seen")
    report_options(parser)


def run(options: argparse.Namespace) -> int:
    from harness.checks import agent_run
    from harness.lab.scenarios import SCENARIOS, scenario
    from harness.report import console

    if options.scenario == "list":
        for row in SCENARIOS:
            print(f"{row.name:<18}{row.title}")
        return EXIT_OK
    try:
        chosen = agent_run.AgentOptions(agent_files(options), scenario(options.scenario), options.patience)
    except HarnessError as error:
        return usage(str(error))
    screen = console.console(stream(options))

    def told(seconds: float, step: str, saw: str) -> None:
        if options.follow:
            print(f"{seconds:8.3f} s  {step:<10}{saw}", file=screen.file, flush=True)

    with console.progress(screen, agent_run.EXPECTED, verbose=options.verbose) as progress:
        report = agent_run.run_agent(chosen, progress.finished, told)
    return publish(options, report, agent_run.verdict(report), screen)


def agent_files(options: argparse.Namespace) -> AgentFiles:
    """--binary, --object and --config. Raises HarnessError for files that are not there."""
    from pathlib import Path

    from harness.lab.agent_files import AgentFiles

    given = [Path(name).absolute() if name else None for name in (options.binary, options.object, options.config)]
    for name, path in zip(("--object", "--config"), given[1:], strict=True):
        if path and not path.is_file():
            raise HarnessError(f"use {name} {path}", "ENOENT: there is no such file", "give a file that is there")
    if options.object and not options.binary:
        raise HarnessError("use --object", "it is loaded by the agent of --binary", "give --binary too")
    return AgentFiles(*given)
