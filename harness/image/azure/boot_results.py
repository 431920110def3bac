"""What a boot shows of an image, step by step: kernel, network, Azure, agent, redirection, the report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.image.azure import inside as places
from harness.image.azure.observation import Observation
from harness.msp import diagnosis_codes as codes
from harness.msp import guide
from harness.report import Outcome, Result
from harness.report.model import Json

if TYPE_CHECKING:
    from harness.image.azure.check import Boot

_TAIL = 40  # lines of the console that are kept
_KERNEL = re.compile(r"Linux version \S+|^\[ {0,4}\d+\.\d{6}\] ", re.MULTILINE)
_STUCK = (
    (re.compile(r"Gave up waiting for (?:root|suspend/resume) device|ALERT! .{1,200} does not exist"),
     "its initramfs does not find the root disk: has it virtio_scsi and sd_mod?"),
    (re.compile(r"Kernel panic - not syncing: [^\n]{0,200}"), "its kernel panics"),
    (re.compile(r"Entering emergency mode|emergency\.target|You are in emergency mode"),
     "systemd is in emergency mode"),
    (re.compile(r"No bootable device|Boot failed: not a bootable disk|BdsDxe: failed to load Boot", re.IGNORECASE),
     "the firmware finds nothing to boot"),
    (re.compile(r"grub rescue>|error: (?:no such|unknown) [^\n]{0,100}"), "its boot loader finds no kernel"),
)  # fmt: skip
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()c][0-9A-B]?|[\x00-\x08\x0b-\x1f\x7f]")


def results(boot: Boot) -> Iterator[Result]:
    seen = boot.seen
    yield _kernel(seen, boot.seconds)
    yield _network(seen)
    yield _media(boot)
    yield _azure(seen)
    yield _agent(boot)
    yield _redirected(seen)
    yield _ready(boot)


def console_tail(seen: Observation) -> Sequence[Json]:
    """The last lines, without a terminal's escapes."""
    lines = [_ESCAPES.sub("", line).rstrip() for line in seen.console.replace("\r", "\n").split("\n")]
    return [line[:400] for line in lines if line][-_TAIL:]


def _kernel(seen: Observation, seconds: float) -> Result:
    observed: dict[str, Json] = {
        "console": console_tail(seen),
        "accelerator": seen.accelerator,
        "stopped": seen.stopped,
        "limit": seen.limit,
        "went_off": seen.off,
    }
    if seen.said:
        observed["qemu"] = seen.said[:2000]
    title = "Its kernel starts"
    started = bool(seen.leases or seen.asked or _KERNEL.search(seen.console))
    stuck = next((text for pattern, text in _STUCK if pattern.search(seen.console)), "") if not seen.asked else ""
    if stuck or not started:
        why = stuck or "nothing of a kernel was seen: no message on the serial console, no packet"
        remedy = "look at the console's end in the evidence; `--timeout` gives a slow image more time"
        outcome = Outcome.FAIL if stuck else Outcome.ERROR
        summary = why if stuck else f"could not find out: {why} ({seen.stopped}: {seen.limit})"
        return Result("boot.kernel-started", title, outcome, summary, {}, observed, remedy, seconds=seconds)
    return Result(
        "boot.kernel-started", title, Outcome.PASS, "the image itself was booted", {}, observed, seconds=seconds
    )


def _network(seen: Observation) -> Result:
    title = "It asks for an address and gets one"
    if seen.leased_at is None:
        asked = "asked, and did not take what it was offered" if seen.leases else "never asked for an address"
        return Result(
            "boot.network",
            title,
            Outcome.FAIL,
            f"it {asked}",
            remedy="look at the console: is there a driver, a client?",
        )
    observed: dict[str, Json] = {"seconds": round(seen.leased_at, 2)}
    return Result("boot.network", title, Outcome.PASS, "by DHCP, with option 245", {}, observed)


def _media(boot: Boot) -> Result:
    id, title = "boot.provisioning-disk", "It reads ovf-env.xml from the provisioning disk"
    if boot.inside.problem:
        return Result(id, title, Outcome.SKIP, f"not seen: {boot.inside.problem}")
    log = boot.inside.cloud_init_log
    if not log:
        return Result(id, title, Outcome.SKIP, f"not seen: there is no {places.CLOUD_INIT_LOG}")
    if found := re.search(r"(?:Found provisioning metadata in|found datasource in) (/dev/\S{1,40})", log):
        return Result(id, title, Outcome.PASS, f"cloud-init found it on {found[1]}")
    summary = f"{places.CLOUD_INIT_LOG} names no device with it: has the kernel the module udf?"
    return Result(id, title, Outcome.FAIL, summary, remedy="put the module udf, or isofs, into the image")


def _azure(seen: Observation) -> Result:
    id, title = "boot.azure-recognised", "What provisions it recognises Azure"
    first = next((row for row in seen.asked if row.provisioner), None)
    if first is None:
        summary = "nothing that provisions asked IMDS or WireServer"
        remedy = "enable cloud-init with its datasource Azure in the image"
        return Result(id, title, Outcome.FAIL, summary, remedy=remedy, guide=guide.NEW_VM_LINUX)
    names: list[Json] = list(seen.provisioners)
    observed: dict[str, Json] = {"seconds": round(first.at, 2), "clients": names}
    return Result(id, title, Outcome.PASS, f"{first.client} asked {first.endpoint}", {}, observed)


def _agent(boot: Boot) -> Result:
    id, title, seen = "boot.agent-started", "Its agent asks for a key and gets it", boot.seen
    observed: dict[str, Json] = {
        "asked_seconds": seen.agent_at and round(seen.agent_at, 2),
        "latched_seconds": seen.latched_at and round(seen.latched_at, 2),
        "status": boot.inside.agent_status[:4000],
    }
    if seen.latched_at is not None:
        return Result(id, title, Outcome.PASS, "the key is latched", {}, observed)
    if seen.agent_at is not None:
        steps = sorted(
            {f"{event.what}: {event.status}" for event in seen.events if event.what in ("acquire", "attest")}
        )
        summary = f"it asked for its key's status, and no key is latched ({', '.join(steps) or 'it asked for no key'})"
        return Result(id, title, Outcome.FAIL, summary, {}, observed, guide=guide.KEY_REJECTED)
    where = {True: f"{boot.inside.agent} is there, and", False: "there is no agent:", None: "it could not be seen why:"}
    summary = f"{where[boot.inside.agent_installed]} nobody asked for a key"
    code = codes.NO_AGENT_NEW_CLOUD_INIT if boot.inside.agent_installed is False else None
    remedy = "bake azure-proxy-agent into the image" if code else "see that its unit is enabled, and what its log says"
    return Result(id, title, Outcome.FAIL, summary, {}, observed, remedy, guide.NEW_VM_LINUX, code.id if code else None)


def _redirected(seen: Observation) -> Result:
    id, title = "boot.redirected", "Requests reach the platform through the agent"
    if seen.latched_at is None:
        return Result(id, title, Outcome.SKIP, "not seen: no key was latched, so nothing is redirected")
    late = [row for row in seen.asked if row.provisioner and row.at > seen.latched_at]
    if not late:
        return Result(id, title, Outcome.SKIP, "not seen: nothing but the agent asked after the key was latched")
    direct = [row for row in late if not row.through_agent]
    rows: list[Json] = [
        f"{row.at:.2f} s {row.method} {row.target.partition('?')[0]}: {row.status}" for row in direct[:20]
    ]
    if direct:
        summary = f"{len(direct)} of {len(late)} requests came directly after the key was latched"
        remedy = "see ebpfProgramStatus of its status.json"
        return Result(id, title, Outcome.FAIL, summary, {}, {"direct": rows}, remedy, guide.SETUP_FAILED)
    signed = sum(row.signed for row in late)
    summary = "every request after the key was latched came through the agent"
    return Result(id, title, Outcome.PASS, summary, {}, {"requests": len(late), "signed": signed})


def _ready(boot: Boot) -> Result:
    id, title, seen = "boot.ready", "It reports that it is ready", boot.seen
    reports = seen.reports
    if not reports:
        refused = seen.refused or [row for row in seen.asked if row.body and row.status != 200]
        if refused:
            summary = (
                f"nothing was reported: {len(refused)} requests of what provisions were refused with "
                f"{refused[0].status}: a key is latched, and they are not signed, for nothing redirects them"
            )
        else:
            summary = f"nothing was reported: {seen.stopped} ({seen.limit})"
        if seen.unreadable:
            summary = f"its report cannot be read: {seen.unreadable[0]}"
        return Result(id, title, Outcome.FAIL, summary, remedy="look at the console and at cloud-init's log")
    first = reports[0]
    observed: dict[str, Json] = {"seconds": round(first.at, 2)}
    if first.report.ready:
        return Result(id, title, Outcome.PASS, "its first report is Ready", {}, observed)
    observed["report"] = first.report.description
    summary = f"its first report is {first.report.state}: {first.report.reason}"
    return Result(id, title, Outcome.FAIL, summary, {}, observed, guide=guide.NEW_VM_LINUX)
