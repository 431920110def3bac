"""New deployments on Windows, in the guide's order: supported version, MSP's failure codes, transient failures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.diagnose import facts as f
from harness.diagnose.case import Case
from harness.diagnose.rule import Ask, Finding, Rule, Sure, because
from harness.diagnose.rules.provisioning import internal_errors
from harness.msp import deployment_errors as errors
from harness.msp import diagnosis_codes as codes
from harness.msp import win32

VERSION = Ask(
    'powershell "[Environment]::OSVersion.Version"',
    "which version of Windows is it?",
    f"{codes.WINDOWS_NOT_SUPPORTED.id} when the build is below {win32.LEAST_BUILD}",
)
EXTENSION_LOG = Ask(
    r"dir C:\WindowsAzure\Logs\Plugins\Microsoft.CPlat.ProxyAgent.ProxyAgentWindows",
    "what does the extension's log say?",
    "why the agent could not be installed",
)
_EXIT = re.compile(r"exit code[:\s'\"]{0,4}(-?\d{1,10})", re.IGNORECASE)


def unsupported(case: Case) -> Iterator[Finding]:
    """Step 1: the version of Windows."""
    for release in case.of(f.OsRelease):
        name = release.fields.get("NAME") or release.pretty or ""
        build = win32.build(release.version or release.fields.get("VERSION") or "")
        if "windows" in name.casefold() and build is not None and build < win32.LEAST_BUILD:
            yield Finding(
                codes.WINDOWS_NOT_SUPPORTED,
                f"{name}, build {build}: {win32.LEAST_BUILD} (Windows Server 2019, Windows 10 1809) is the least.",
                (because(release, f"build {build}"),),
                Sure.CERTAIN,
            )
            return
    for row in _extension_failures(case):
        if _handler_code(row) in win32.UNSUPPORTED_OS:
            yield Finding(
                codes.WINDOWS_NOT_SUPPORTED,
                f"The agent's extension ended with {_handler_code(row)}: "
                f"{win32.HANDLER_EXIT_CODES[_handler_code(row) or 12]}.",
                (because(row, "the extension's exit code"),),
                Sure.LIKELY,
                asks=(VERSION,),
            )
            return


def _extension_failures(case: Case) -> Sequence[f.ProvisioningError | f.ExtensionStatus]:
    found: list[f.ProvisioningError | f.ExtensionStatus] = [
        row
        for row in case.of(f.ProvisioningError)
        if errors.bare(row.code) in errors.EXTENSION_ERRORS
        and errors.AGENTS_EXTENSION.search(f"{row.message or ''} {row.target or ''}")
    ]
    if case.system == "windows" and (status := case.extension_status) and (status.status or "").lower() == "error":
        found.append(status)
    return found


def _handler_code(row: f.ProvisioningError | f.ExtensionStatus) -> int | None:
    if isinstance(row, f.ExtensionStatus) and row.code is not None:
        return row.code
    match = _EXIT.search(row.message or "")
    return int(match.group(1)) if match else None


def msp_code(case: Case) -> Iterator[Finding]:
    """Step 2: is the failure code MSP's?"""
    for row in case.of(f.ProvisioningError):
        if failure := errors.msp_failure(row.code, row.message):
            yield Finding(
                codes.MSP_FAILURE_CODE,
                f"`{row.code}` is one of MSP's own failure codes: {failure.meaning}.",
                (because(row, "what the platform says"),),
                Sure.CERTAIN,
                steps=(failure.remedy[0].upper() + failure.remedy[1:] + ".", "Deploy again."),
            )


def install_failed(case: Case) -> Iterator[Finding]:
    """The platform's extension for Windows ended with an error."""
    for row in _extension_failures(case):
        code = _handler_code(row)
        if case.system == "linux" or code in win32.UNSUPPORTED_OS:
            continue
        known = win32.HANDLER_EXIT_CODES.get(code) if code is not None else None
        meaning = f"exit code {code}: {known}" if known else ""
        yield Finding(
            codes.WINDOWS_INSTALL_FAILED,
            f"The extension that installs the agent failed{': ' + meaning if meaning else ''}.",
            (because(row, "what the extension or the platform says"),),
            Sure.CERTAIN if meaning else Sure.LIKELY,
            asks=(VERSION, EXTENSION_LOG),
            steps=(
                f"See that Windows is of build {win32.LEAST_BUILD} or later: `{VERSION.command}`.",
                "Retry the deployment: such failures are often transient.",
                "If it fails again, read the extension's log in "
                r"C:\WindowsAzure\Logs\Plugins\Microsoft.CPlat.ProxyAgent.ProxyAgentWindows and contact support.",
            ),
        )
        return


def transient(case: Case) -> Iterator[Finding]:
    """Step 3: retry."""
    linux = {id(row) for row in internal_errors(case)}
    for row in case.of(f.ProvisioningError):
        text = f"{row.code} {row.message or ''}"
        msp = errors.AGENTS_EXTENSION.search(text) or errors.NOT_FOUND.search(text) or errors.UNHEALTHY.search(text)
        if errors.bare(row.code) in errors.TRANSIENT and id(row) not in linux and not msp:
            yield Finding(
                codes.TRANSIENT_FAILURE,
                f"`{row.code}` is an error that often passes.",
                (because(row, "what the platform says"),),
                Sure.LIKELY,
                steps=("Retry the deployment.", "If the same code comes back, contact support."),
            )
            return


def not_msp(case: Case) -> Iterator[Finding]:
    """A failure code that is not MSP's, and nothing else that points to MSP."""
    linux = {id(row) for row in internal_errors(case)}
    for row in case.of(f.ProvisioningError):
        text = f"{row.code} {row.message or ''} {row.target or ''}"
        known = (
            errors.msp_failure(row.code, row.message)
            or errors.bare(row.code) in errors.TRANSIENT
            or errors.AGENTS_EXTENSION.search(text)
            or errors.NOT_FOUND.search(text)
            or errors.UNHEALTHY.search(text)
            or "result=error" in text
            or id(row) in linux
        )
        if not known:
            yield Finding(
                codes.NOT_MSP_FAILURE,
                f"`{row.code}` is no failure code of MSP.",
                (because(row, "what the platform says"),),
                Sure.LIKELY,
            )
            return


_ERROR = (f.ProvisioningError,)

RULES: Sequence[Rule] = (
    Rule("new.windows.unsupported", "A version of Windows that is not supported", unsupported,
         ((f.OsRelease, f.ProvisioningError, f.ExtensionStatus),), (codes.WINDOWS_NOT_SUPPORTED,),
         ("new.windows#step1", "new.windows", "new")),
    Rule("new.windows.msp-code", "A failure code of MSP's own", msp_code, (_ERROR,), (codes.MSP_FAILURE_CODE,),
         ("new.windows#step2",)),
    Rule("new.windows.install-failed", "The platform could not install the agent", install_failed,
         ((f.ProvisioningError, f.ExtensionStatus),), (codes.WINDOWS_INSTALL_FAILED,),
         ("new.windows", "service.windows")),
    Rule("new.windows.transient", "An error that often passes: retry", transient, (_ERROR,),
         (codes.TRANSIENT_FAILURE,), ("new.windows#step3",), Sure.LIKELY),
    Rule("new.windows.not-msp", "A failure code that is not MSP's", not_msp, (_ERROR,), (codes.NOT_MSP_FAILURE,),
         ("new.windows#step2",), Sure.LIKELY),
)  # fmt: skip
