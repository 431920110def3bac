"""What an agent says in status.json, against what kernel and platform show; each difference is a finding.

RUNNING and SUCCESS while every key is refused is known of Microsoft's agent: a WARN. What is plainly wrong is a FAIL.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness.agent.rules import Mode
from harness.checks import agent_traffic
from harness.checks.agent_steps import Watch
from harness.checks.results import Findings
from harness.command import run, text
from harness.errors import HarnessError
from harness.lab.clients import NOBODY, Request
from harness.msp import codes
from harness.msp.codes import Code
from harness.msp.endpoints import PROXY, Endpoint
from harness.msp.status import Module, Status
from harness.report import Json, Outcome, Result

CLOUD_INIT_WAIT = 120  # seconds that cloud-init gives --status --wait
SHORT_WAIT = 8  # seconds where it has not come up, or gets no key: an agent may go on hoping for 2 minutes
GRACE = 10  # seconds beyond that until it is ended


def truth(watch: Watch) -> Iterator[Result]:
    """A Result for each part of the status."""
    status = watch.agent.status()
    if status is None:
        summary = "there is no status.json, or nothing of a status in it"
        yield Result("truth.status", "status.json is there", Outcome.FAIL, summary,
                     remedy=codes.STATUS_WRONG.remedy, code=codes.STATUS_WRONG.id)  # fmt: skip
        return
    yield _ebpf(watch, status)
    yield _key(watch, status)
    yield _listener(watch, status)
    yield _overall(watch, status)


def _module(status: Status, name: str) -> Module:
    return status.module(name) or Module(name)


def _ebpf(watch: Watch, status: Status) -> Result:
    module = _module(status, "ebpfProgramStatus")
    programs, rows = watch.programs(), watch.redirected()
    wanted = {endpoint.name for endpoint in watch.plan.redirected}
    running = module.status == "RUNNING"
    evidence: dict[str, Json] = {
        "status.json": f"{module.status}: {module.message}",
        "kernel": f"{len(programs)} program(s) of the agent effective for clients",
        "policy_map": sorted(rows),
    }
    title = "ebpfProgramStatus is so"
    if running and programs and not rows and watch.plan.key != "unwanted":
        summary = "it says RUNNING, and policy_map is empty: nothing is redirected"
        outcome = Outcome.FAIL if wanted else Outcome.WARN
        return _finding("truth.ebpf", title, outcome, summary, codes.EMPTY_POLICY, evidence)
    found = Findings()
    found.expect(not running or bool(programs), "it says RUNNING, and no program of it is effective for clients")
    found.expect(running or not programs, f"it says {module.status}, and its program is at work")
    names = ["; ".join(sorted(some)) or "nothing" for some in (rows, wanted)]
    found.expect(not running or rows == wanted, f"policy_map redirects {names[0]}, and {names[1]} is wanted")
    return _checked(found, "truth.ebpf", title, f"{module.status}, as the kernel shows", evidence)


def _key(watch: Watch, status: Status) -> Result:
    module = _module(status, "keyLatchStatus")
    plan, platform = watch.plan, watch.lab.platform
    latched = platform.latched_key()
    guid = module.states.get("keyGuid") or ""
    state = module.states.get("secureChannelState") or ""
    title = "keyLatchStatus is so"
    evidence: dict[str, Json] = {
        "status.json": f"{module.status}: {module.message}",
        "secureChannelState": state,
        "keyGuid": "there" if guid else "missing",
        "platform": f"scenario {plan.scenario.name}: a key is {plan.key}",
    }
    observed: dict[str, Json] = {"states": dict(module.states), "platform's key": latched.guid if latched else None}
    found = Findings()
    if plan.key == "latched":
        found.expect(module.status == "RUNNING", f"it says {module.status}, and a key is latched")
        found.expect(bool(guid), "states has no keyGuid, and a key is latched")
        found.expect(not guid or (latched is not None and guid.lower() == latched.guid.lower()),
                     "states.keyGuid is not the key that the platform has latched")  # fmt: skip
        incarnation = module.states.get("keyIncarnationId")
        expected = str(latched.incarnation) if latched else ""
        found.expect(incarnation in (None, expected), f"keyIncarnationId is {incarnation}, and the key's is {expected}")
        if plan.rules:
            same = " ".join(state.lower().split()) == " ".join(plan.rules.state.lower().split())
            found.expect(same, f"secureChannelState is {state!r}, and the platform's {plan.rules.state!r}")
    elif plan.key == "unwanted":
        found.expect(
            state.lower() in ("disabled", ""), f"secureChannelState is {state!r}, and the platform wants no key"
        )
        found.expect(not guid, "states has a keyGuid, and the platform wants no key")
    else:
        found.expect(not guid, "states has a keyGuid, and the platform gave no key")
        found.expect(
            state.lower() in ("unknown", "disabled", ""), f"secureChannelState is {state!r}, and no key is held"
        )
        if not found.problems and module.status == "RUNNING":
            why = plan.refusal.id if plan.refusal else ""
            summary = f"it says RUNNING, and no key is held ({why}): {module.message or 'it gives no reason'}"
            return _finding("truth.key", title, Outcome.WARN, summary, codes.KEY_TROUBLE_HIDDEN, evidence, observed)
    return _checked(
        found, "truth.key", title, f"{module.status}, state and key as the platform shows", evidence, observed
    )


def _listener(watch: Watch, status: Status) -> Result:
    module = _module(status, "proxyListenerStatus")
    listens = any(port == PROXY[1] for _, port in watch.lab.vm.call("listeners"))
    found = Findings()
    running = module.status == "RUNNING"
    found.expect(
        running == listens, f"it says {module.status}, and port {PROXY[1]} is {'' if listens else 'not '}listened on"
    )
    return _checked(found, "truth.listener", "proxyListenerStatus is so", f"{module.status}, as the kernel shows",
                    {"status.json": f"{module.status}: {module.message}"})  # fmt: skip


def _overall(watch: Watch, status: Status) -> Result:
    title = "proxyAgentStatus is so"
    lacking = [name for name in watch.goal() if name not in watch.reached and name != "status"]
    evidence: dict[str, Json] = {"status.json": status.status, "not reached": list(lacking)}
    success = status.status == "SUCCESS"
    if success and lacking:
        summary = f"it says SUCCESS without: {', '.join(lacking)}"
        return _finding("truth.overall", title, Outcome.FAIL, summary, codes.STATUS_WRONG, evidence)
    if success and watch.plan.key == "refused":
        summary = "it says SUCCESS while the platform gives it no key: the guide's test passes on an unprotected VM"
        return _finding("truth.overall", title, Outcome.WARN, summary, codes.KEY_TROUBLE_HIDDEN, evidence)
    found = Findings()
    found.expect(
        success or bool(lacking) or watch.plan.key == "refused", f"it says {status.status}, and all is in place"
    )
    return _checked(found, "truth.overall", title, f"{status.status}, as kernel and platform show", evidence)


def denials(watch: Watch) -> Iterator[Result]:
    """Whether a request that the agent refuses appears in failedAuthenticateSummary."""
    title = "A refused request is counted in status.json"
    rows = [row for row in watch.plan.redirected if watch.plan.mode(row) is Mode.ENFORCE]
    for endpoint in rows:
        request = agent_traffic.marked(Request.to(endpoint, uid=NOBODY))
        if agent_traffic.allowed(watch.plan, endpoint, NOBODY, request.path):
            continue
        agent_traffic.ask_all(watch, [request])
        if watch.wait(partial(_counted, watch, endpoint), 5):
            yield Result(
                "truth.denials", title, Outcome.PASS, f"{endpoint.title} by nobody is in failedAuthenticateSummary"
            )
        else:
            summary = f"{endpoint.title} was refused to nobody, and failedAuthenticateSummary has no row for it"
            yield _finding("truth.denials", title, Outcome.WARN, summary, codes.STATUS_WRONG, {})
        return
    yield Result("truth.denials", title, Outcome.SKIP, f"scenario {watch.plan.scenario.name} refuses nobody anything")


def _counted(watch: Watch, endpoint: Endpoint) -> bool:
    rows = watch.agent.document().get("failedAuthenticateSummary")
    place = (endpoint.address, endpoint.port)
    return isinstance(rows, list) and any(
        isinstance(row, dict) and (row.get("ip"), row.get("port")) == place for row in rows
    )


def provisioned(watch: Watch) -> Iterator[Result]:
    """`--status --wait N` beside the agent, as cloud-init calls it."""
    name, title = "agent.cloud-init", f"--status --wait {CLOUD_INIT_WAIT}, as cloud-init asks"
    refused = watch.plan.key == "refused"
    wait = CLOUD_INIT_WAIT if set(watch.goal()) <= set(watch.reached) and not refused else SHORT_WAIT
    evidence: dict[str, Json] = {"waited at most": wait}
    done = _ask(watch, wait)
    if done is None:
        summary = f"it did not end within {wait + GRACE} s, though it was told to wait {wait} s"
        yield _finding(name, title, Outcome.FAIL, summary, codes.NOT_STARTED, evidence)
        return
    said = (text(done.stdout) + text(done.stderr)).strip()
    evidence |= {"exit code": done.returncode}
    observed: dict[str, Json] = {"output": said[-2000:]}
    if refused and done.returncode == 0:
        summary = "it exits with 0, and the platform gave no key: cloud-init takes this VM for protected"
        yield _finding(name, title, Outcome.WARN, summary, codes.KEY_TROUBLE_HIDDEN, evidence, observed)
        return
    found = Findings()
    last = said.splitlines()[-1] if said else "nothing was printed"
    found.expect(refused or done.returncode == 0, f"exit code {done.returncode}: {last}")
    good = "exit code 0" if not refused else f"exit code {done.returncode}, and cloud-init reports the failure"
    yield _checked(found, name, title, good, evidence, observed)


def _ask(watch: Watch, wait: int) -> subprocess.CompletedProcess[bytes] | None:
    """Ask in the agent's namespaces, from the run's cgroup, and never longer than the harness lives.

    None: it did not end in time.
    """
    agent = watch.agent
    enter = ["nsenter", f"--target={agent.pid}", "--net", "--mount", "--cgroup"]
    join = ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(watch.lab.attach_cgroup / "agent" / "cgroup.procs")]
    command = [*join, "setpriv", "--pdeathsig", "KILL", *enter, *agent.launch.ask, "--wait", str(wait)]
    try:
        return run(command, timeout=wait + GRACE, environment=os.environ | dict(agent.launch.environment), check=False)
    except HarnessError as error:
        if isinstance(error.__cause__, subprocess.TimeoutExpired):
            return None
        raise


# --- files ------------------------------------------------------------------------------------------------------


def files(watch: Watch) -> Iterator[Result]:
    """Modes of what the agent keeps, and whether the key's text stands anywhere else."""
    yield _key_files(watch)
    yield _other_files(watch)
    yield _secrets(watch)


def _key_files(watch: Watch) -> Result:
    folder = watch.agent.launch.key_folder
    title = "Keys are root's alone"
    keys = sorted(folder.glob("*.key")) if folder.is_dir() else []
    found = Findings()
    if folder.is_dir():
        mode = folder.stat().st_mode & 0o777
        found.expect(mode == 0o700, f"the key folder has mode {mode:04o}, not 0700")
    for key in keys:
        about = key.stat()
        found.expect(about.st_mode & 0o777 == 0o600, f"a key's file has mode {about.st_mode & 0o777:04o}, not 0600")
        found.expect(about.st_uid == 0, f"a key's file is owned by uid {about.st_uid}")
    if not keys and not found.problems:
        if watch.plan.key == "latched" and "attested" in watch.reached:
            summary = "the agent holds a key and keeps no NAME.key in its key folder (keys in a vTPM, or elsewhere?)"
            return Result("files.keys", title, Outcome.WARN, summary)
        return Result("files.keys", title, Outcome.SKIP, "the agent keeps no key in this scenario")
    return _checked(
        found, "files.keys", title, f"folder 0700, {len(keys)} key file(s) 0600", {}, code=codes.SECRET_EXPOSED
    )


def _other_files(watch: Watch) -> Result:
    found = Findings()
    logs = watch.agent.launch.log_folder
    count = 0
    for path in [logs, *sorted(logs.rglob("*"))]:
        if path.is_symlink() or not path.exists():
            continue
        count += 1
        mode = path.stat().st_mode & 0o777
        found.expect(not mode & 0o022, f"{path.relative_to(logs.parent)} has mode {mode:04o}: others may write it")
    return _checked(found, "files.modes", "Logs and status.json cannot be written by others",
                    "no file in the log folder is writable by others", {}, {"files": count},
                    code=codes.SECRET_EXPOSED)  # fmt: skip


def _secrets(watch: Watch) -> Result:
    title = "No file but the key's own holds the key"
    secret = watch.lab.platform.latched_key()
    if secret is None:
        return Result("files.secrets", title, Outcome.SKIP, "no key is latched in this scenario")
    keys, home = watch.agent.launch.key_folder, watch.agent.launch.output.parent
    needles = (secret.key.lower().encode(), bytes.fromhex(secret.key))
    found, count = Findings(), 0
    for path in sorted(home.rglob("*")):
        own = path.parent == keys and path.suffix == ".key"
        if own or path.is_symlink() or not path.is_file():
            continue
        count += 1
        if any(_holds(path, needle, fold=needle is needles[0]) for needle in needles):
            found.expect(False, f"the key stands in {path.relative_to(home)}")
    return _checked(found, "files.secrets", title, "neither as hex nor as bytes, in anything that the agent wrote", {},
                    {"files": count}, code=codes.SECRET_EXPOSED)  # fmt: skip


def _holds(path: Path, needle: bytes, *, fold: bool) -> bool:
    """Whether a file holds these bytes; fold: in lower or upper case. It is read in pieces."""
    kept = b""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            window = kept + (piece.lower() if fold else piece)
            if needle in window:
                return True
            kept = window[-len(needle) :]
    return False


# --- Results ----------------------------------------------------------------------------------------------------


def _finding(
    name: str,
    title: str,
    outcome: Outcome,
    summary: str,
    code: Code,
    evidence: dict[str, Json],
    observed: dict[str, Json] | None = None,
) -> Result:
    return Result(name, title, outcome, summary, evidence, observed or {}, code.remedy, code.guide, code.id)


def _checked(
    found: Findings,
    name: str,
    title: str,
    good: str,
    evidence: dict[str, Json],
    observed: dict[str, Json] | None = None,
    code: Code = codes.STATUS_WRONG,
) -> Result:
    more = {"code": code.id, "guide": code.guide} if found.problems else {}
    return found.result(name, title, good, remedy=code.remedy, evidence=evidence, observed=observed, **more)
