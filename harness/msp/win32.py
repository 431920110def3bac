"""Windows' numbers in words: exit codes of services, versions, the exit codes of the agent's extension handler.

Sources: winerror.h; the service control manager's documentation; the public constants of the agent's VM extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Meaning(NamedTuple):
    """What a number means, and what to do about it."""

    text: str
    remedy: str = ""


EXIT_CODES: Mapping[int, Meaning] = {
    0: Meaning("no error: it was stopped, and did not fail", "start it"),
    2: Meaning("the file is not there (ERROR_FILE_NOT_FOUND)", "reinstall: the driver's or service's file is missing"),
    3: Meaning("the path is not there (ERROR_PATH_NOT_FOUND)", "reinstall: its folder is missing"),
    5: Meaning("access denied (ERROR_ACCESS_DENIED)", "run as administrator; look at security software"),
    31: Meaning("the driver does not work (ERROR_GEN_FAILURE)", "look at the System event log; reinstall"),
    87: Meaning("a parameter is wrong (ERROR_INVALID_PARAMETER)", "reinstall: its registration is damaged"),
    127: Meaning("a procedure is missing (ERROR_PROC_NOT_FOUND)", "reinstall: its files are of different versions"),
    577: Meaning(
        "the signature is not accepted (ERROR_INVALID_IMAGE_HASH)",
        "install the signed release; Secure Boot and test signing do not go together",
    ),
    1051: Meaning("a service that depends on it runs (ERROR_DEPENDENT_SERVICES_RUNNING)", "stop that one first"),
    1053: Meaning("it did not answer in time (ERROR_SERVICE_REQUEST_TIMEOUT)", "start it again; look at its log"),
    1058: Meaning("it is disabled (ERROR_SERVICE_DISABLED)", "`sc config NAME start= auto`, then start it"),
    1060: Meaning("it does not exist (ERROR_SERVICE_DOES_NOT_EXIST)", "install it"),
    1066: Meaning("a code of its own (ERROR_SERVICE_SPECIFIC_ERROR)", "SERVICE_EXIT_CODE has it; look at its log"),
    1067: Meaning("it ended unexpectedly (ERROR_PROCESS_ABORTED)", "look at its log and the Application event log"),
    1068: Meaning("what it depends on did not start (ERROR_SERVICE_DEPENDENCY_FAIL)", "start that first"),
    1069: Meaning("it could not log on (ERROR_SERVICE_LOGON_FAILED)", "it must run as LocalSystem"),
    1072: Meaning("it is marked for deletion (ERROR_SERVICE_MARKED_FOR_DELETE)", "reboot, then reinstall"),
    1075: Meaning("what it depends on does not exist (ERROR_SERVICE_DEPENDENCY_DELETED)", "install that first"),
    1077: Meaning("it was never started since boot (ERROR_SERVICE_NEVER_STARTED)", "start it; look at START_TYPE"),
    1275: Meaning("the driver is blocked from loading (ERROR_DRIVER_BLOCKED)", "look at code integrity policies"),
    1450: Meaning("resources are exhausted (ERROR_NO_SYSTEM_RESOURCES)", "free memory, or reboot"),
}


def exit_code(number: int) -> Meaning:
    """What a WIN32_EXIT_CODE means."""
    return EXIT_CODES.get(number, Meaning(f"Windows error {number}", f"`net helpmsg {number}` says what it is"))


LEAST_BUILD = 17763
"""Windows Server 2019 and Windows 10 1809: the least that the agent's extension accepts."""


def build(version: str) -> int | None:
    """17763 for `10.0.17763` or `10.0.17763 N/A Build 17763`; None where there is no build."""
    parts = version.split()[0].split(".") if version.split() else []
    return int(parts[2]) if len(parts) >= 3 and parts[2].isdecimal() and len(parts[2]) < 9 else None


HANDLER_EXIT_CODES: Mapping[int, str] = {
    1: "it was called with wrong arguments",
    2: "HandlerEnvironment.json could not be read",
    3: "its log could not be written",
    4: "the service could not be updated",
    5: "the service could not be installed",
    6: "it failed",
    7: "the service could not be removed",
    8: "the service manager could not be reached",
    9: "the service could not be opened",
    10: "there is no sequence number of its settings",
    11: "the service could not be started",
    12: "this version of the operating system is not supported",
    13: "the version of the operating system could not be found out",
    14: "the service could not be stopped",
    15: "an update did not say to which version",
    16: "this version of the operating system is not supported",
}
UNSUPPORTED_OS = frozenset({12, 16})
