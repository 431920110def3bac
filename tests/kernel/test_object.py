"""`verify --object`: the checks of verify under objects of several styles, defects found, our programs beside them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.checks import compare, machine, object_run
from harness.checks.base import Environment
from harness.checks.options import Options
from harness.command import run as compile_by
from harness.kernel import bpf
from harness.kernel.bpf import BpfError
from harness.lab import state
from harness.lab.state import Run
from harness.lab.worker import wait_until
from harness.program import foreign as program
from harness.program.attach import Way
from harness.program.compile import Compilation, Join, stand_in
from harness.program.image import Image
from harness.program.load import load
from harness.report import Outcome, Report, Result
from harness.report import json as report_json
from tests.objects import build as objects
from tests.objects.build import Style, build

PROJECT = Path(__file__).parents[2]
VERIFY = [sys.executable, "-m", "harness", "verify"]
BAD = (Outcome.FAIL, Outcome.ERROR)


def command(*words: str | Path, json_to: Path | None = None) -> subprocess.CompletedProcess[str]:
    arguments = [*VERIFY, *map(str, words), *(["--json", str(json_to)] if json_to else [])]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "200"}
    return subprocess.run(
        arguments, cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MSP_HARNESS_STATE", str(tmp_path / "state"))
    yield
    state.clean()


def setting(run: Run, file: program.ObjectFile, **options: Any) -> object_run.Setting:
    here = machine.ask()
    way = Way.LINK if here.has("bpf-link") else Way.MULTI
    return object_run.Setting(Options(object=file, **options), run, file, here, way, {}, Join.SOCK_OPS, None)


def quick(run: Run, file: program.ObjectFile, **options: Any) -> dict[str, Result]:
    """The Results of the quick checks by id, with the lent program where there are no kprobes."""
    with Compilation(stand_in()) as lent:
        whole = replace(setting(run, file, quick=True, **options), stand_in=lent)
        return {result.id: result for result in object_run.run_checks(whole)}


def bad(results: Mapping[str, Result]) -> dict[str, str]:
    return {result.id: result.summary for result in results.values() if result.outcome in BAD}


GOOD = (
    Style.CO_RE,
    Style.FIXED,
    Style.NO_KPROBE,
    Style.SOCK_OPS,
    Style.SOCK_OPS_KPROBE,
    Style.STRIPPED,
    Style.GLOBAL_DATA,
    Style.WEAK_FIELD,
)


@pytest.mark.parametrize("style", GOOD, ids=lambda style: style.name)
def test_every_style_redirects(style: Style, run: Run) -> None:
    results = quick(run, program.read(build(style)))
    assert bad(results) == {}
    assert {results[f"redirect.{name}"].outcome for name in ("imds", "wireserver", "hostgaplugin")} == {Outcome.PASS}
    assert results["load.object"].evidence["libbpf"]
    assert {"attach.link", "untouched.skipped", "authorization.wireserver.nobody", "chain.imds"} <= set(results)


def test_kprobe_is_attached_or_the_reason_is_told(run: Run) -> None:
    results = quick(run, program.read(build(Style.CO_RE)))
    how = results["load.audit"]
    if machine.ask().has("kprobe"):
        assert how.outcome is Outcome.PASS
        assert "own tcp_v4_connect" in how.summary
        assert results["audit.threads"].outcome is Outcome.PASS
        return
    assert how.outcome is Outcome.SKIP
    assert "tcp_v4_connect (kprobe/tcp_v4_connect)" in how.summary
    assert "kprobe PMU" in how.summary
    assert "the harness's own sock_ops program" in how.summary
    assert results["audit.threads"].outcome is Outcome.PASS  # what connect4 stored, completed by ours
    assert "not the object's" in results["audit.not-inherited"].summary
    assert results["audit.not-inherited"].outcome is Outcome.SKIP


def test_own_sock_ops_program_completes_the_records(run: Run) -> None:
    """It does not remove old records, which is the agent's part: told, and no failure."""
    results = quick(run, program.read(build(Style.SOCK_OPS)))
    assert results["load.audit"].outcome is Outcome.PASS
    assert "own complete_sockops (sockops)" in results["load.audit"].summary
    assert results["audit.not-inherited"].outcome is Outcome.WARN
    assert "leaves old records to its agent" in results["audit.not-inherited"].summary
    assert results["audit.pid-reuse"].outcome is Outcome.PASS


def test_where_nothing_completes_records_redirection_is_still_verified(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> object:
        raise BpfError("load complete_sockops", 22, log="unknown func bpf_get_current_pid_tgid#14")

    monkeypatch.setattr(program, "lend", refuse)
    results = quick(run, program.read(build(Style.NO_KPROBE)))
    assert bad(results) == {}
    assert results["load.audit"].outcome is Outcome.WARN
    assert "421" in results["load.audit"].summary
    assert results["audit"].outcome is Outcome.SKIP
    assert results["redirect.imds"].outcome is Outcome.PASS
    assert "load.audit says why" in results["audit"].summary
    assert "load.audit says why" in str(results["redirect.imds"].evidence["audit"])


@pytest.mark.parametrize(
    ("style", "failing", "words"),
    [
        (Style.BUG_NO_REDIRECT, "redirect.imds", "no nonce of the proxy"),
        (Style.BUG_DENY, "redirect.wireserver", "EPERM"),
        (Style.BUG_DENY, "audit.same-socket", "EPERM"),
        (Style.BUG_POLICY_SIZE, "load.maps", "policy_map's key has 8 B, not 24 (ip[4] 16, port 4, protocol 4)"),
        (Style.BUG_AUDIT_LAYOUT, "load.maps", "audit_map's value has 32 B, not 20"),
        (Style.BUG_NO_CONNECT4, "load.connect4", "no connect4 program; its programs: complete_sockops (sockops)"),
        (Style.BUG_NULL_CHECK, "load.connect4", "EACCES: R7 may be NULL"),
        (Style.NO_KFUNC, "load.connect4", "bpf_msp_no_such_kfunc"),
        (Style.LEGACY, "load.object", "legacy map definitions"),
        (Style.BIG_ENDIAN, "load.object", "another architecture"),
    ],
    ids=lambda value: value.name if isinstance(value, Style) else "",
)
def test_defect_is_found_and_named(style: Style, failing: str, words: str, run: Run) -> None:
    results = quick(run, program.read(build(style)))
    assert words in bad(results)[failing]
    assert results[failing].remedy
    if failing.startswith("load."):
        assert not any(name.startswith(("attach", "redirect")) for name in results)


def test_refusal_is_explained_and_has_the_whole_log(run: Run) -> None:
    result = quick(run, program.read(build(Style.BUG_NULL_CHECK)))["load.connect4"]
    assert result.code is not None
    assert result.code.startswith("MSP-V")
    log = str(result.evidence["log"])
    assert "invalid mem access 'map_value_or_null'" in log
    assert log.rstrip().splitlines()[-1].startswith("processed")


CHANGES = {
    "byte order of the port": (
        "ctx->user_port = policy->destination_port;",
        "ctx->user_port = bpf_htons(policy->destination_port);",
        "redirect.imds",
    ),
    "port of the record": (
        "where.source_port = bpf_htons(source_port);",
        "where.source_port = source_port;",
        "redirect.imds",
    ),
    "skip ignored": ("if (bpf_map_lookup_elem(&skip_process_map, &pid))", "if (!pid)", "untouched.skipped"),
    "uid lost": ("local.uid = (__u32)bpf_get_current_uid_gid();", "local.uid = 0;", "authorization.imds.nobody"),
    "protocol ignored": ("entry.protocol = ctx->protocol;", "entry.protocol = 6;", "untouched.udp"),
    "a map of another name": ("local_map", "other_map", "load.maps"),
    "LRU no longer": ("MAP(audit_map, LRU_HASH", "MAP(audit_map, HASH", "load.maps"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_object_with_one_change_is_caught(name: str, run: Run, tmp_path: Path) -> None:
    old, new, failing = CHANGES[name]
    text = objects.SOURCE.read_text()
    assert old in text
    source, made = tmp_path / "changed.c", tmp_path / "changed.o"
    source.write_text(text.replace(old, new))
    command_line: list[str | Path] = [
        "clang",
        "-target",
        "bpf",
        "-O2",
        "-g",
        "-DSOCK_OPS",
        *objects._includes(),
        "-c",
        source,
    ]
    compile_by([*command_line, "-o", made])
    assert failing in bad(quick(run, program.read(made)))


def test_capacity_is_that_of_the_object(run: Run) -> None:
    file = program.read(build(Style.SOCK_OPS))
    results = list(object_run.run_checks(setting(run, file, only=("audit.capacity",))))
    (result,) = [one for one in results if one.id.startswith("audit.capacity")]
    assert result.id == "audit.capacity.object"
    assert result.evidence["entries"] == 200
    assert result.outcome in (Outcome.PASS, Outcome.WARN)


# --- the command line ---------------------------------------------------------------------------------------------


def report_of(path: Path) -> Report:
    return report_json.load(path.read_text())


def test_report_names_the_object(tmp_path: Path) -> None:
    path = build(Style.CO_RE)
    done = command("--object", path, "--only", "redirect", json_to=tmp_path / "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = report_of(tmp_path / "report.json")
    assert report.target == "co_re.o on the live kernel"
    assert report.program == program.read(path).digest
    assert [result.id for result in report.results] == [
        "load.object", "load.audit", "redirect.imds", "redirect.wireserver", "redirect.hostgaplugin",
    ]  # fmt: skip


@pytest.mark.parametrize("style", [Style.BUG_NULL_CHECK, Style.LEGACY], ids=lambda style: style.name)
def test_object_that_does_not_load_is_exit_code_1_whatever_was_asked_for(style: Style) -> None:
    done = command("--object", build(style), "--only", "redirect")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{style.name.lower()}.o cannot be used on" in done.stdout
    assert "Traceback" not in done.stderr


def test_100_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.o"
    path.touch()
    os.truncate(path, 100 << 20)
    done = command("--object", path, json_to=tmp_path / "report.json")
    assert done.returncode == 1
    (failed,) = [result for result in report_of(tmp_path / "report.json").results if result.outcome in BAD]
    assert failed.id == "load.object"
    assert "104,857,600 bytes" in failed.summary


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--object", "/nowhere/some.o"], "ENOENT"),
        (["--object", "/"], "EISDIR"),
        (["--compare"], "--object FILE"),
        (["--object", "some.o", "--program", "hardened"], "--program is for our own"),
        (["--object", "some.o", "--self-test"], "--self-test breaks our own"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr


def test_compare_on_the_command_line(tmp_path: Path) -> None:
    done = command("--object", build(Style.CO_RE), "--quick", "--compare", json_to=tmp_path / "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    results = {result.id: result for result in report_of(tmp_path / "report.json").results}
    assert results["compare.redirect"].evidence == {"object": "3 PASS", "plain": "3 PASS", "hardened": "3 PASS"}
    medians = results["compare.cost"].observed["median µs"]
    assert isinstance(medians, Mapping)
    assert set(medians) == {"no program", "object", "plain", "hardened"}
    assert all(isinstance(median, float) and median > 0 for median in medians.values())
    lines = done.stdout.splitlines()
    heading = next(number for number, line in enumerate(lines) if line.split() == ["object", "plain", "hardened"])
    table = {line.split("  ")[0]: line for line in lines[heading + 1 :]}
    assert table["redirect"].count("3 PASS") == 3
    assert any(line.startswith("µs added") for line in lines)


# --- side by side --------------------------------------------------------------------------------------------------


def test_where_the_object_is_worse_the_comparison_says_so(run: Run, image: Image, join: Join, tmp_path: Path) -> None:
    from harness.checks import plan
    from harness.checks.base import perform
    from harness.lab.lab import open_lab

    check = next(check for check in plan.CHECKS if check.name == "redirect")
    way = Way.LINK if machine.ask().has("bpf-link") else Way.MULTI
    with ExitStack() as stack:
        labs = {name: stack.enter_context(open_lab(run, name)) for name in ("object", "plain")}
        about = stack.enter_context(program.load(program.read(build(Style.BUG_NO_REDIRECT))))
        assert about.loaded is not None
        theirs = Environment(run, labs["object"], about.loaded, True, way)
        own = stack.enter_context(load(image))
        ours = {"plain": Environment(run, labs["plain"], own, join is not Join.NONE, way)}
        result = compare.side_by_side(check, list(perform(check, theirs)), ours)
        (cost,) = compare.costs({"object": theirs, **ours}, connects=400)
    assert result.outcome is Outcome.WARN
    assert result.evidence["object"] == "3 FAIL"
    assert result.evidence["plain"] == "3 PASS"
    assert isinstance(result.evidence["differ"], Mapping)
    assert result.evidence["differ"]["redirect.imds"] == "object FAIL, plain PASS"
    assert cost.id == "compare.cost"
    assert "object: no figure" in cost.summary
    assert "plain: " in cost.summary


def test_census_of_the_object_beside_ours(run: Run, image: Image, join: Join) -> None:
    from harness.checks.census_rows import ROWS
    from harness.lab.lab import open_lab

    way = Way.LINK if machine.ask().has("bpf-link") else Way.MULTI
    with ExitStack() as stack:
        labs = {name: stack.enter_context(open_lab(run, name)) for name in ("object", "plain")}
        about = stack.enter_context(program.load(program.read(build(Style.SOCK_OPS))))
        assert about.loaded is not None
        own = stack.enter_context(load(image))
        both = {
            "object": Environment(run, labs["object"], about.loaded, True, way),
            "plain": Environment(run, labs["plain"], own, join is not Join.NONE, way),
        }
        *rows, summary = compare.censuses(both)
    assert [row.id for row in rows] == [f"census.{row.name}" for row in ROWS]
    assert [row.summary for row in rows if row.outcome in BAD] == []
    assert summary.id == "compare.census"
    assert summary.evidence["object"] == summary.evidence["plain"]


def test_table_of_a_report() -> None:
    added = {"object": 1.5, "plain": 0.5}
    medians = {"no program": 10.5, "object": 12.0, "plain": 11.0}
    results = [
        Result("redirect.imds", "", Outcome.PASS, ""),
        Result("compare.redirect", "", Outcome.PASS, "", {"object": "3 PASS", "plain": "3 PASS", "hardened": "3 PASS"}),
        Result(
            "compare.census", "", Outcome.PASS, "",
            {"object": "30 redirected, 2 direct, as it should be", "plain": "31 redirected", "hardened": "1 breaks"},
        ),
        Result("compare.cost", "", Outcome.PASS, "", {}, {"median µs": medians, "added µs": added}),
    ]  # fmt: skip
    report = Report("some.o", "6.18", "Debian", "0", results, "run", "", "", 0.0)
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in compare.table(report)]
    assert rows == [
        ["object", "plain", "hardened"],
        ["redirect", "3 PASS", "3 PASS", "3 PASS"],
        ["census: redirected", "30", "31", "0"],
        ["census: direct, as it should be", "2", "0", "0"],
        ["census: breaks", "0", "0", "1"],
        ["µs a connect (bare 10.5)", "12.0", "11.0"],
        ["µs added", "1.5", "0.5"],
    ]


# --- cut short -----------------------------------------------------------------------------------------------------


def _session(identity: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == identity and words[0] != "Z":
            found.append(int(entry.name))
    return found


def _program_ids(pids: list[int]) -> set[int]:
    """The ids of the programs of which these processes hold descriptors."""
    found = set()
    for pid in pids:
        try:
            for info in Path(f"/proc/{pid}/fdinfo").iterdir():
                words = info.read_text().split()
                found |= {int(words[place + 1]) for place, word in enumerate(words) if word == "prog_id:"}
        except OSError:
            continue
    return found


def _exists(identity: int) -> bool:
    try:
        bpf.prog_fd(identity).close()
    except BpfError:
        return False
    return True


def _holds_programs(session: int) -> bool:
    return bool(_program_ids(_session(session)))


def _ended(session: int) -> bool:
    return not _session(session)


def _gone(programs: frozenset[int]) -> bool:
    return not any(map(_exists, programs))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_killed_at_any_moment_nothing_of_the_object_stays(number: signal.Signals) -> None:
    chance = random.Random(int(number))
    seen: set[int] = set()
    for round_number in range(6):
        process = subprocess.Popen(
            [*VERIFY, "--object", str(build(Style.SOCK_OPS)), "--quick"],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if round_number % 2:  # once something is loaded; else at any moment, the loading itself among them
            wait_until(time.monotonic() + 20, partial(_holds_programs, process.pid))
            seen |= _program_ids(_session(process.pid))
        time.sleep(chance.uniform(0, 0.3))
        programs = _program_ids(_session(process.pid))
        process.send_signal(number)
        process.wait(timeout=30)
        assert wait_until(time.monotonic() + 60, partial(_ended, process.pid)), _session(process.pid)
        if number == signal.SIGKILL:  # what PROG_ATTACH holds outlives its process: the next run takes it away
            state.clean()
        assert wait_until(time.monotonic() + 60, partial(_gone, frozenset(programs))), programs
        seen |= programs
    assert seen  # else nothing was loaded at any of those moments
