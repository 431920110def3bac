"""New deployments on Linux: the guide's table of four expected failures, told apart, and what is none of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.diagnose import facts as f
from harness.diagnose.case import Case
from harness.diagnose.rule import Ask, Because, Finding, Role, Rule, Sure, because
from harness.msp import deployment_errors as errors
from harness.msp import diagnosis_codes as codes

HAS_AGENT = Ask(
    "azure-proxy-agent --version; cloud-init --version",
    "is the agent in the image, and how old is its cloud-init?",
    "which of the guide's four cases it is (ask on a VM made from the image, deployed without MSP)",
)
_IMAGE_STEPS = (
    "Make an image with azure-proxy-agent in it and cloud-init 24.3 or later (`azure-proxy-agent --version`, "
    "`cloud-init --version`); deploy that.",
    "Or deploy this image without MSP, add the VM extension Microsoft.CPlat.ProxyAgent.ProxyAgentLinux, "
    "then enable MSP.",
)


def internal_errors(case: Case) -> list[f.ProvisioningError]:
    """OSProvisioningInternalError of a Linux VM, and its long form."""
    return [
        row
        for row in case.of(f.ProvisioningError)
        if (errors.bare(row.code) == errors.INTERNAL or errors.REPORTED_READY.search(row.message or ""))
        and not row.code.startswith("Windows.")
        and case.system != "windows"
        and not _named_by_cloud_init(row)
    ]


def _named_by_cloud_init(row: f.ProvisioningError) -> bool:
    """Whether the error's text is cloud-init's own report of a reason."""
    text = f"{row.code} {row.message or ''}"
    return bool(errors.NOT_FOUND.search(text) or errors.UNHEALTHY.search(text) or "result=error" in text)


def _version(case: Case) -> str:
    return ".".join(map(str, case.cloud_init.value)) if case.cloud_init else "unknown"


def _known(case: Case) -> tuple[Because, ...]:
    """What is known of the two questions."""
    rows = []
    if case.baked:
        rows.append(Because(f"the agent is {'in' if case.baked.value else 'not in'} the image", case.baked.source))
    if case.cloud_init:
        age = "24.3 or later" if case.knows_msp else "before 24.3"
        rows.append(Because(f"cloud-init {_version(case)}: {age}", case.cloud_init.source))
    return tuple(rows)


def _failed(case: Case) -> tuple[Because, ...]:
    return tuple(because(row, "what the platform says") for row in internal_errors(case)[:1])


def no_agent_old(case: Case) -> Iterator[Finding]:
    """Row 1: no agent, cloud-init before 24.3."""
    if not (found := internal_errors(case)) or (case.baked and case.baked.value) or case.knows_msp:
        return
    long_form = any(errors.REPORTED_READY.search(row.message or "") for row in found)
    if case.baked and case.knows_msp is False:
        sure, why = Sure.CERTAIN, "both conditions of the guide's row are seen"
    elif case.baked and case.baked.value is False:
        sure, why = Sure.LIKELY, "the agent is not in the image, and cloud-init did not report that"
    elif long_form:
        sure, why = Sure.LIKELY, "the platform's words are the guide's for this row"
    else:
        return
    yield Finding(
        codes.NO_AGENT_OLD_CLOUD_INIT,
        f"Provisioning failed although cloud-init reported ready: {why}.",
        (*_failed(case), *_known(case)),
        sure,
        steps=_IMAGE_STEPS,
        asks=() if sure is Sure.CERTAIN else (HAS_AGENT,),
    )


def no_agent_new(case: Case) -> Iterator[Finding]:
    """Row 2: cloud-init from 24.3 on looked for the agent and did not find it."""
    for report in case.of(f.ProvisioningReport):
        if errors.NOT_FOUND.search(report.reason or ""):
            yield _not_found(case, because(report, "cloud-init's report to the platform"), Sure.CERTAIN)
            return
    for error in case.of(f.ProvisioningError):
        if errors.NOT_FOUND.search(f"{error.code} {error.message or ''}"):
            yield _not_found(case, because(error, "what the platform says"), Sure.CERTAIN)
            return
    for event in case.of(f.CloudInitEvent):
        if errors.NOT_FOUND.search(event.message):
            yield _not_found(case, because(event, "cloud-init's log"), Sure.CERTAIN)
            return


def _not_found(case: Case, reason: Because, sure: Sure) -> Finding:
    known = tuple(row for row in _known(case) if row.source != reason.source)
    return Finding(
        codes.NO_AGENT_NEW_CLOUD_INIT,
        f"cloud-init {_version(case)} was told to wait for azure-proxy-agent, which is not in the image."
        if case.cloud_init
        else "cloud-init was told to wait for azure-proxy-agent, which is not in the image.",
        (reason, *known),
        sure,
        steps=_IMAGE_STEPS,
    )


def agent_old(case: Case) -> Iterator[Finding]:
    """Row 3: the agent is there, cloud-init is before 24.3."""
    if internal_errors(case) and case.baked and case.baked.value and case.knows_msp is False:
        yield Finding(
            codes.AGENT_OLD_CLOUD_INIT,
            f"cloud-init {_version(case)} reports ready without asking the agent: a race, which was lost.",
            (*_failed(case), *_known(case)),
            Sure.CERTAIN,
            steps=("Update cloud-init in the image to 24.3 or later; deploy again (a retry alone may pass by luck).",),
        )


def agent_unhealthy(case: Case) -> Iterator[Finding]:
    """Row 4: cloud-init asked, and the agent was unhealthy; the cause is told by other rules, from what it said."""
    reasons: list[Because] = []
    for report in case.of(f.ProvisioningReport):
        if errors.UNHEALTHY.search(report.reason or ""):
            code = report.fields.get("exit_code")
            said = f"the agent's exit code was {code}" if code else "cloud-init's report to the platform"
            reasons.append(because(report, said))
    for error in case.of(f.ProvisioningError):
        if errors.UNHEALTHY.search(f"{error.code} {error.message or ''}"):
            reasons.append(because(error, "what the platform says"))
    for event in case.of(f.CloudInitEvent):
        if errors.UNHEALTHY.search(event.message):
            reasons.append(because(event, "cloud-init's log"))
    if reasons:
        yield Finding(
            codes.AGENT_UNHEALTHY,
            "cloud-init asked the agent, which was not healthy in time: eBPF, cgroup2, its start, or the key.",
            (*reasons[:3], *_known(case)),
            steps=(
                "Deploy the image without MSP and look there: /var/log/azure-proxy-agent/status.json says which part "
                "of the agent is not RUNNING.",
                "Mend that part in the image, then deploy with MSP.",
            ),
            asks=(
                Ask(
                    "sudo azure-proxy-agent --status --wait 120; cat /var/log/azure-proxy-agent/status.json",
                    "what does the agent say?",
                    "which of the four (eBPF set-up, cgroup2, start, key) made it unhealthy",
                ),
            ),
        )


def platform(case: Case) -> Iterator[Finding]:
    """Agent in the image, cloud-init from 24.3 on, no complaint of cloud-init: the platform's side."""
    if not internal_errors(case) or not (case.baked and case.baked.value) or not case.knows_msp:
        return
    if any(report.result == "error" for report in case.of(f.ProvisioningReport)):
        return
    yield Finding(
        codes.PLATFORM_FAILURE,
        "The image has what MSP needs, and cloud-init complained of nothing: the failure is the platform's.",
        (*_failed(case), *_known(case)),
        Sure.LIKELY,
        steps=("Retry the deployment.", "If it fails again, contact support with the VM's id and the time."),
    )


def undecided(case: Case) -> Iterator[Finding]:
    """OSProvisioningInternalError alone: three of the guide's cases look like this."""
    found = internal_errors(case)
    decided = (case.baked and (not case.baked.value or case.cloud_init)) or any(
        errors.REPORTED_READY.search(row.message or "") for row in found
    )
    if found and not decided:
        yield Finding(
            codes.PROVISIONING_UNDECIDED,
            "The code alone is what an image without the agent, one with an old cloud-init, and a failing platform "
            "all give.",
            (*_failed(case), *_known(case)),
            Sure.POSSIBLE,
            asks=(HAS_AGENT,),
            steps=("Answer the questions below on a VM made from the image, deployed without MSP.", *_IMAGE_STEPS),
        )


def another_reason(case: Case) -> Iterator[Finding]:
    """cloud-init reported a failure that is not the agent's."""
    reports = [report for report in case.of(f.ProvisioningReport) if report.result == "error"]
    if any(errors.NOT_FOUND.search(row.reason or "") or errors.UNHEALTHY.search(row.reason or "") for row in reports):
        return
    for report in reports:
        reason = report.reason or ""
        meaning = next((text for name, text in errors.REASONS.items() if name in reason), "see cloud-init's log")
        yield Finding(
            codes.ANOTHER_REASON,
            f"cloud-init reported `{reason or 'no reason'}`: {meaning}.",
            (because(report, "cloud-init's report to the platform"),),
            Sure.CERTAIN if reason else Sure.LIKELY,
        )
        return


def race_ahead(case: Case) -> Iterator[Finding]:
    """An image that will lose the race, before it did."""
    asked = next((row for row in case.of(f.OvfEnv) if row.provision_guest_proxy_agent), None)
    if asked and case.knows_msp is False and case.cloud_init and not internal_errors(case):
        yield Finding(
            codes.AGENT_OLD_CLOUD_INIT,
            f"cloud-init {_version(case)} does not know of ProvisionGuestProxyAgent: new VMs of this image may fail.",
            (because(asked, "the platform asks for the agent"), *_known(case)),
            Sure.LIKELY,
            Role.NOTE,
        )


_ERROR = (f.ProvisioningError,)
_REPORT = (f.ProvisioningError, f.ProvisioningReport, f.CloudInitEvent)

RULES: Sequence[Rule] = (
    Rule("new.linux.no-agent-old-cloud-init", "No agent in the image, cloud-init before 24.3", no_agent_old,
         (_ERROR,), (codes.NO_AGENT_OLD_CLOUD_INIT,),
         ("new.linux#row1", "new.linux#step1", "new.linux#< 24.3", "new.linux#Linux.OSProvisioningInternalError",
          "new.linux", "new")),
    Rule("new.linux.no-agent-new-cloud-init", "No agent in the image, cloud-init from 24.3", no_agent_new,
         (_REPORT,), (codes.NO_AGENT_NEW_CLOUD_INIT,), ("new.linux#row2", "new.linux#step1", "new.linux#>= 24.3")),
    Rule("new.linux.agent-old-cloud-init", "Agent in the image, cloud-init before 24.3", agent_old,
         (_ERROR,), (codes.AGENT_OLD_CLOUD_INIT,), ("new.linux#row3", "new.linux#step2")),
    Rule("new.linux.agent-unhealthy", "Agent in the image, cloud-init from 24.3 finds it unhealthy", agent_unhealthy,
         (_REPORT,), (codes.AGENT_UNHEALTHY,), ("new.linux#row4",), Sure.CERTAIN, Role.SYMPTOM),
    Rule("new.linux.platform", "The image is right: a platform failure", platform,
         (_ERROR,), (codes.PLATFORM_FAILURE,), ("new.linux",), Sure.LIKELY),
    Rule("new.linux.undecided", "OSProvisioningInternalError, and the image is not known", undecided,
         (_ERROR,), (codes.PROVISIONING_UNDECIDED,), ("new.linux", "new.linux#Linux.OSProvisioningInternalError"),
         Sure.POSSIBLE),
    Rule("new.linux.another-reason", "cloud-init reports a reason that is not the agent's", another_reason,
         ((f.ProvisioningReport,),), (codes.ANOTHER_REASON,), ("new.linux",)),
    Rule("new.linux.race-ahead", "An image that will run into the race", race_ahead,
         ((f.OvfEnv,), (f.CloudInitVersion, f.ProvisioningReport, f.Package)), (codes.AGENT_OLD_CLOUD_INIT,),
         ("new.linux#step2",), Sure.LIKELY, Role.NOTE),
)  # fmt: skip
