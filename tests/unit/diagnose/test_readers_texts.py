"""What people paste: mails, prompts, other languages, models of three tools, errors, statuses in every disguise."""

from __future__ import annotations

import json

import pytest

from harness.diagnose import facts as f
from harness.diagnose import intake
from harness.msp import guide


def read(text: str | bytes, name: str = "paste") -> f.Evidence:
    return intake.read_bytes(text if isinstance(text, bytes) else text.encode(), name)


# --- status.json in its disguises ---------------------------------------------------------------------------------

STATUS = {
    "timestamp": "2026-11-24T10:00:00Z",
    "proxyAgentStatus": {
        "version": "1.0.30",
        "status": "ERROR",
        "monitorStatus": {"status": "RUNNING", "message": ""},
        "keyLatchStatus": {"status": "RUNNING", "message": 'a "quoted" word\nand a line', "states": {"keyGuid": "g"}},
        "ebpfProgramStatus": {
            "status": "STOPPED",
            "message": "Failed to start redirector: Failed to attach program 'connect4' with error: "
            "`bpf_link_create` failed",
        },
        "proxyListenerStatus": {"status": "RUNNING", "message": ""},
        "proxyConnectionsCount": 7,
    },
    "proxyConnectionSummary": [
        {
            "userName": "root",
            "ip": "168.63.129.16",
            "port": 80,
            "processCmdLine": "x",
            "responseStatus": "200",
            "count": 3,
        }
    ],
    "failedAuthenticateSummary": [],
}
WHOLE = json.dumps(STATUS, indent=2)
SMART = WHOLE.replace('a \\"quoted\\" word\\nand a line', "").replace('"', "“")
ATTACH = "Failed to attach program 'connect4' with error: `bpf_link_create` failed"

DISGUISES = {
    "whole": WHOLE.encode(),
    "one line": json.dumps(STATUS).encode(),
    "byte order mark": b"\xef\xbb\xbf" + WHOLE.encode(),
    "UTF-16": WHOLE.encode("utf-16"),
    "UTF-16 without a mark": WHOLE.encode("utf-16-le"),
    "UTF-16, the other way round": WHOLE.encode("utf-16-be"),
    "line ends of Windows": WHOLE.replace("\n", "\r\n").encode(),
    "smart quotes": SMART.encode(),
    "in a string": json.dumps({"message": WHOLE}).encode(),
    "in a string in a string": json.dumps({"message": json.dumps({"message": WHOLE})}).encode(),
    "escaped in a log line": b"2026-11-24T10:00:00.000Z [INFO]    status: " + json.dumps(WHOLE).encode(),
    "escaped twice": json.dumps(json.dumps(WHOLE))[1:-1].encode(),
    "quoted in a mail": b"Hello,\n\n" + "\n".join("> " + line for line in WHOLE.split("\n")).encode(),
    "after a prompt": b"root@vm1:~# cat /var/log/azure-proxy-agent/status.json\n" + WHOLE.encode() + b"\nroot@vm1:~# ",
    "cut": WHOLE[: WHOLE.index("proxyListenerStatus") - 9].encode(),
    "without its beginning": WHOLE[WHOLE.index('"keyLatchStatus"') :].encode(),
    "with text around": b"here it is:\n" + WHOLE.encode() + b"\nthank you",
}  # fmt: skip


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_status_in_disguise(disguise: str) -> None:
    found = read(DISGUISES[disguise])
    status = found.of(f.AgentStatus)[0].status
    module = status.module("ebpfProgramStatus")
    assert module
    assert module.status == "STOPPED"
    assert module.message
    assert module.message.endswith(ATTACH)
    if disguise != "without its beginning":
        assert (status.version, status.status) == ("1.0.30", "ERROR")
        assert found.of(f.AgentStatus)[0].time == "2026-11-24T10:00:00Z"


def test_what_a_whole_status_holds() -> None:
    (found,) = read(WHOLE, "status.json").of(f.AgentStatus)
    assert found.status.whole
    assert found.at
    assert found.connection_count == 7
    assert found.connections[0] == f.Connection("root", "168.63.129.16", 80, "x", "200", 3)
    assert found.place("ebpfProgramStatus").line == WHOLE[: WHOLE.index("ebpfProgramStatus")].count("\n") + 1
    assert found.place("ebpfProgramStatus").text == '"ebpfProgramStatus": {'
    key = found.status.module("keyLatchStatus")
    assert key
    assert key.states == {"keyGuid": "g"}


def test_several_statuses_after_each_other() -> None:
    later = WHOLE.replace("10:00:00", "11:00:00").replace("STOPPED", "RUNNING")
    for between in ("\n", "\n\n---\n", "", " and an hour later: "):
        found = read(WHOLE + between + later + between + later[:700]).of(f.AgentStatus)
        assert [status.time for status in found] == [f"2026-11-24T{hour}:00:00Z" for hour in (10, 11, 11)]
    damaged = WHOLE.replace("{\n", "{ ,\n", 1)  # none is JSON: they are told apart by their members
    found = read(damaged + "\n" + damaged.replace("10:00:00", "11:00:00")).of(f.AgentStatus)
    assert [status.time for status in found] == ["2026-11-24T10:00:00Z", "2026-11-24T11:00:00Z"]


@pytest.mark.parametrize("name", guide.EXCERPTS)
def test_the_guides_fragments(name: str) -> None:
    (found,) = read(guide.excerpt(name)).of(f.AgentStatus)
    assert [module.name for module in found.status.modules] == ["ebpfProgramStatus"]
    assert found.source.line == 1


def test_status_tag() -> None:
    text = f"ebpfProgramStatus - {ATTACH}\r\nkeyLatchStatus - Failed to get key status - x\r\n"
    (found,) = read(text, "keys/status.tag").of(f.StatusTag)
    assert found.failures == {"ebpfProgramStatus": ATTACH, "keyLatchStatus": "Failed to get key status - x"}
    assert read(b"", "status.tag").of(f.StatusTag)[0].failures == {}
    assert not read(b"", "other.tag").facts


# --- Windows services ---------------------------------------------------------------------------------------------

# language: labels of sc: name, type, state, two exit codes, checkpoint, wait hint, pid
LABELS = {
    "English": "SERVICE_NAME TYPE STATE WIN32_EXIT_CODE SERVICE_EXIT_CODE CHECKPOINT WAIT_HINT PID",
    "German": "DIENSTNAME TYP STATUS WIN32_EXIT_CODE SERVICE_EXIT_CODE PRÜFPUNKT WARTEHINWEIS PID",
    "French": "NOM_SERVICE TYPE ÉTAT CODE_SORTIE_WIN32 CODE_SORTIE_SERVICE POINT_CONTRÔLE DÉLAI_ATTENTE ID_PROCESSUS",
    "Spanish": "NOMBRE_SERVICIO TIPO ESTADO CÓD_SALIDA_WIN32 CÓD_SALIDA_SERVICIO PUNTO_COMPROB. INDICACIÓN_INICIO PID",
    "Japanese": "SERVICE_NAME 種類 状態 WIN32_EXIT_CODE SERVICE_EXIT_CODE CHECKPOINT WAIT_HINT PID",
    "Russian": "Имя_службы Тип Состояние Код_выхода_Win32 Код_выхода_службы Контрольная_точка Ожидание ID_процесса",
    "broken": "DIENSTNAME TYP STATUS WIN32_EXIT_CODE SERVICE_EXIT_CODE PR\ufffdFPUNKT WARTEHINWEIS PID",
}


@pytest.mark.parametrize("language", LABELS)
@pytest.mark.parametrize("extended", [False, True])
def test_sc_in_any_language(language: str, extended: bool) -> None:
    name, kind, state, win32, service, check, hint, pid = LABELS[language].split()
    text = "".join(
        f"\n{name}: {service_name}\n        {kind:<19}: 1  KERNEL_DRIVER\n        {state:<19}: {number}  {word}\n"
        f"{flags}"
        f"        {win32:<19}: {code}  (0x{code:x})\n        {service:<19}: 0  (0x0)\n        {check:<19}: 0x0\n"
        f"        {hint:<19}: 0x0\n" + (f"        {pid:<19}: 0\n        FLAGS              :\n" if extended else "")
        for service_name, number, word, code, flags in (
            ("eBPFCore", 1, "STOPPED", 577, ""),
            ("NetEbpfExt", 4, "RUNNING", 0, " " * 32 + "(STOPPABLE, NOT_PAUSABLE, IGNORES_SHUTDOWN)\n"),
        )
    )
    core, ext = read(text).of(f.WindowsService)
    assert (core.name, core.state, core.type, core.win32_exit_code, core.service_exit_code) == (
        "eBPFCore",
        1,
        1,
        577,
        0,
    )
    assert (ext.name, ext.state, ext.state_name, ext.win32_exit_code) == ("NetEbpfExt", 4, "RUNNING", 0)
    assert core.pid == (0 if extended else None)
    assert core.source.text.split(":")[0].strip() == state


def test_sc_that_finds_nothing() -> None:
    for word in ("FAILED", "FEHLER", "ÉCHEC"):
        text = f"C:\\>sc query GuestProxyAgent\n[SC] EnumQueryServicesStatus:OpenService {word} 1060:\n\nxyz\n"
        (found,) = read(text).of(f.WindowsService)
        assert (found.name, found.exists, found.error) == ("GuestProxyAgent", False, 1060)
    denied = read("C:\\>sc query eBPFCore\n[SC] OpenService FAILED 5:\n\nAccess is denied.\n").of(f.WindowsService)[0]
    assert (denied.exists, denied.error) == (True, 5)


def test_sc_qc_and_get_service() -> None:
    text = (
        "[SC] QueryServiceConfig SUCCESS\n\nSERVICE_NAME: eBPFCore\n        TYPE               : 1  KERNEL_DRIVER\n"
        "        START_TYPE         : 3   DEMAND_START\n        ERROR_CONTROL      : 1   NORMAL\n"
        "        BINARY_PATH_NAME   : \\??\\C:\\Program Files\\ebpf-for-windows\\drivers\\eBPFCore.sys\n"
    )
    (found,) = read(text).of(f.WindowsService)
    assert (found.state, found.start_type) == (None, 3)
    assert found.path
    assert found.path.endswith("eBPFCore.sys")
    text = (
        "PS C:\\> Get-Service\n\nStatus   Name               DisplayName\n------   ----               -----------\n"
        "Running  GuestProxyAgent    Microsoft Azure GuestProxyAgent\nStopped  eBPFCore           eBPFCore\n"
    )
    assert [(one.name, one.state) for one in read(text).of(f.WindowsService)] == [
        ("GuestProxyAgent", 4),
        ("eBPFCore", 1),
    ]


EVENT = """<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider
Name='Service Control Manager' Guid='{555908d1-a6d7-4695-8e1e-26931d2012f4}'/><EventID Qualifiers='49152'>7000</EventID>
<Level>2</Level><TimeCreated SystemTime='2026-11-24T10:00:00.1234567Z'/><Channel>System</Channel>
<Computer>WIN1</Computer></System>
<EventData><Data Name='param1'>eBPFCore</Data><Data Name='param2'>%%577</Data></EventData></Event>"""


def test_windows_events() -> None:
    for text in (EVENT, f"<Events>{EVENT}</Events>", EVENT.replace("\n", " "), "Hello,\n\n" + EVENT + "\n"):
        found = read(text)
        (event,) = found.of(f.WindowsEvent)
        assert (event.provider, event.id, event.level, event.channel) == ("Service Control Manager", 7000, 2, "System")
        assert event.data == (("param1", "eBPFCore"), ("param2", "%%577"))
        assert event.at
        assert found.of(f.Identity)[0].value == "WIN1"
    cut = read(EVENT[: EVENT.index("<EventData>")])
    assert cut.of(f.WindowsEvent)[0].id == 7000
    assert cut.notes[0].kind is f.NoteKind.DAMAGED
    text = (
        "Event[0]:\n  Log Name: System\n  Source: Service Control Manager\n  Date: 2026-11-24T10:00:00.000\n"
        "  Event ID: 7000\n"
        "  Level: Error\n  Computer: WIN1\n  Description:\nThe eBPFCore service failed to start\n"
    )
    (event,) = read(text).of(f.WindowsEvent)
    assert (event.id, event.level, event.message) == (7000, 2, "The eBPFCore service failed to start")


def test_versions_of_windows() -> None:
    for text in (
        "Microsoft Windows [Version 10.0.14393]",
        "OS Name:  Microsoft Windows Server 2016\nOS Version:  10.0.14393 N/A",
    ):
        (found,) = read(text).of(f.OsRelease)
        assert (found.id, found.version) == ("windows", "10.0.14393")


# --- a mail -------------------------------------------------------------------------------------------------------

MAIL = """Hello,

this is what you asked for. The machine was made from our own image.

> azureuser@vm1:~$ uname -r
> 5.4.0-1109-azure
> azureuser@vm1:~$ grep cgroup /proc/filesystems
> nodev   cgroup
> nodev   cgroup2
> azureuser@vm1:~$ mount | grep cgroup2
> azureuser@vm1:~$ sudo cat /var/log/azure-proxy-agent/status.json
> {
>   “timestamp”: “2026-11-24T10:00:00Z”,
>   “proxyAgentStatus”: {
>     “version”: “1.0.30”,
>     “status”: “ERROR”,
>     “ebpfProgramStatus”: {
>       “status”: “STOPPED”,
>       “message”: “Failed to start redirector: Failed to attach program
> 'connect4' with error: `bpf_link_create` failed”
>     },
> azureuser@vm1:~$ systemctl status azure-proxy-agent
> Unit azure-proxy-agent.service could not be found.
> azureuser@vm1:~$ cloud-init --version
> /usr/bin/cloud-init 23.4.4-0ubuntu0~22.04.1
> azureuser@vm1:~$ which azure-proxy-agent
> azureuser@vm1:~$ tail -2 /var/log/azure-proxy-agent/ProxyAgent.log
> 2026-11-24T10:00:00.123Z [ERROR]   Failed to start redirector: Failed to
> attach program 'connect4' with error: `bpf_link_create` failed
> 2026-11-24T10:00:01.123Z [ERROR]   Failed to start eBPF/redirector with
> multiple retries
> azureuser@vm1:~$

regards
"""


@pytest.mark.parametrize("quote", ["> ", ">> ", "> > ", ""])
def test_a_mail(quote: str) -> None:
    found = read(MAIL.replace("> ", quote), "mail.txt")
    assert found.first(f.KernelRelease) == f.KernelRelease(
        f.Source("mail.txt", 6, "5.4.0-1109-azure"), "5.4.0-1109-azure", (5, 4)
    )
    assert found.of(f.Filesystems)[0].cgroup2
    mounts = found.of(f.Mounts)[0]
    assert (mounts.mounts, mounts.only, mounts.source.line) == ((), "cgroup2", 10)
    assert found.of(f.AgentStatus)[0].status.modules[0].message == f"Failed to start redirector: {ATTACH}"
    assert found.of(f.UnitState)[0].load == "not-found"
    assert found.of(f.CloudInitVersion)[0].version == "23.4.4-0ubuntu0~22.04.1"
    assert [(seen.path, seen.exists) for seen in found.of(f.PathSeen)] == [("azure-proxy-agent", False)]
    assert [event.message for event in found.of(f.AgentLogEvent)] == [
        f"Failed to start redirector: {ATTACH}",
        "Failed to start eBPF/redirector with multiple retries",
    ]
    assert [one.value for one in found.of(f.Identity)] == ["vm1"]
    assert [one.command for one in found.of(f.CommandOutput)][:2] == ["uname -r", "grep cgroup /proc/filesystems"]


def test_an_output_that_may_be_cut_off_proves_nothing() -> None:
    found = read("azureuser@vm1:~$ mount | grep cgroup2\n")
    assert not found.of(f.Mounts)
    assert not found.of(f.CommandOutput)[0].ended
    assert "whether it printed nothing is not known" in found.notes[0].what
    found = read("azureuser@vm1:~$ mount | grep cgroup2\nazureuser@vm1:~$ ")
    assert found.of(f.Mounts)[0].mounts == ()


@pytest.mark.parametrize(
    "prompt",
    ["# uname -r", "$ uname -r", "[root@vm1 ~]# uname -r", "root@vm1:/# uname -r",
     "+ uname -r",
     "==> /proc/sys/kernel/osrelease <==", "=== uname -r ===", "## `uname -r`:"],
)  # fmt: skip
def test_prompts_and_headings(prompt: str) -> None:
    found = read(f"{prompt}\n5.10.0\n")
    assert [one.release for one in found.of(f.KernelRelease)] == ["5.10.0"]


def test_sentences_about_the_kernel() -> None:
    for text in (
        "kernel: 5.4.0-1109-azure",
        "uname -r says 5.4.0-1109-azure",
        "Kernel version 5.4.0-1109-azure, Ubuntu",
    ):
        assert [one.release for one in read(text).of(f.KernelRelease)] == ["5.4.0-1109-azure"]
    assert not read("Linux kernel 5.15 or later is needed").of(f.KernelRelease)


# --- models -------------------------------------------------------------------------------------------------------

SETTINGS = {
    "enabled": True,
    "mode": None,
    "keyIncarnationId": 3,
    "imds": {"mode": "Enforce"},
    "wireServer": {"mode": "Audit"},
}
PROFILE = {"storageProfile": {"osDisk": {"osType": "Linux"}}, "securityProfile": {"proxyAgentSettings": SETTINGS}}
AZ = {"name": "vm1", "type": "Microsoft.Compute/virtualMachines", "vmId": "A" * 8, **PROFILE}
REST = {"name": "vm1", "type": "Microsoft.Compute/virtualMachines", "properties": {"vmId": "A" * 8, **PROFILE}}
VMSS = {"name": "vm1", "type": "Microsoft.Compute/virtualMachineScaleSets", "virtualMachineProfile": PROFILE}
VMSS_REST = {"name": "vm1", "properties": {"virtualMachineProfile": PROFILE}}


def pascal(value: object) -> object:
    """As PowerShell writes it."""
    if isinstance(value, dict):
        return {key[0].upper() + key[1:]: pascal(item) for key, item in value.items()}
    return [pascal(item) for item in value] if isinstance(value, list) else value


MODELS: dict[str, tuple[object, str, str]] = {
    "az vm show": (AZ, "vm", ""),
    "REST": (REST, "vm", ""),
    "PowerShell": (pascal(AZ), "vm", ""),
    "az vm list": ([AZ], "vm", "[0]"),
    "REST's list": ({"value": [REST]}, "vm", "value[0]"),
    "a template": (
        {"$schema": "x", "resources": [{"type": "Microsoft.Network/x", "properties": {}}, REST]},
        "vm",
        "resources[1]",
    ),
    "az vmss show": (VMSS, "vmss", ""),
    "a scale set by REST": (VMSS_REST, "vmss", ""),
}


@pytest.mark.parametrize("tool", MODELS)
@pytest.mark.parametrize("around", ["", "PS C:\\> Get-AzVM\n"])
def test_models(tool: str, around: str) -> None:
    value, kind, path = MODELS[tool]
    (model,) = read(around + json.dumps(value, indent=2)).of(f.VmModel)
    assert (model.name, model.kind, model.path, model.whole) == ("vm1", kind, path, True)
    assert (model.enabled, model.key_incarnation_id, model.imds_mode, model.wireserver_mode) == (
        True,
        3,
        "Enforce",
        "Audit",
    )
    assert model.os_type == "Linux"
    assert "ettings" in model.source.text


def test_models_in_part() -> None:
    fragment = '"securityProfile": {\n  "proxyAgentSettings": ' + json.dumps(SETTINGS) + "\n},"
    (model,) = read(fragment).of(f.VmModel)
    assert (model.whole, model.key_incarnation_id) == (False, 3)
    listed = "Enabled                : True\nMode                   :\nKeyIncarnationId       : 12\n"
    assert read(listed).of(f.VmModel)[0].key_incarnation_id == 12
    cut = read(fragment[:80])
    assert any("cut ProxyAgentSettings" in note.what for note in cut.notes)
    without = read(json.dumps({**AZ, "securityProfile": None})).of(f.VmModel)[0]
    assert (without.has_settings, without.whole) == (False, True)


def test_an_instance_view() -> None:
    view = {
        "computerName": "vm1", "osName": "ubuntu", "osVersion": "22.04",
        "vmAgent": {
            "statuses": [{"code": "ProvisioningState/succeeded", "displayStatus": "Ready"}],
            "extensionHandlers": [{
                "type": "Microsoft.CPlat.ProxyAgent.ProxyAgentLinux", "typeHandlerVersion": "1.0.30",
                "status": {"code": "x", "displayStatus": "Not Ready", "message": "m"},
            }],
        },
        "statuses": [{"code": "ProvisioningState/failed/OSProvisioningInternalError", "message": "m"}],
    }  # fmt: skip
    for value in (view, {**AZ, "instanceView": view}):
        found = read(json.dumps(value))
        assert {status.about for status in found.of(f.InstanceStatus)} == {"vm", "vmAgent"}
        assert found.of(f.ExtensionStatus)[0].status == "Not Ready"
        assert found.of(f.OsRelease)[0].version == "22.04"
    found = read(
        json.dumps({"compute": {"vmId": "E79E925B-69b7-436d-a5ab-706a2aa64407", "name": "vm1", "osType": "Linux"}})
    )
    assert found.of(f.Identity)[0].value == "e79e925b-69b7-436d-a5ab-706a2aa64407"


# --- extensions, waagent ------------------------------------------------------------------------------------------


def test_an_extensions_status() -> None:
    inner = json.dumps(STATUS["proxyAgentStatus"])
    value = [{"version": "1.0", "timestampUTC": "2026-11-24T10:00:00Z", "status": {
        "name": "ProxyAgentVMExtension", "operation": "Enable", "status": "error", "code": 4,
        "formattedMessage": {"lang": "en-US", "message": "bad"},
        "substatus": [{"name": "ProxyAgentStatus", "status": "transitioning", "code": 0,
                       "formattedMessage": {"lang": "en-US", "message": inner}}]}}]  # fmt: skip
    name = "var/lib/waagent/Microsoft.CPlat.ProxyAgent.ProxyAgentLinux-1.0.30/status/0.status"
    found = read(json.dumps(value), name)
    (status,) = found.of(f.ExtensionStatus)
    assert (status.name, status.version) == ("Microsoft.CPlat.ProxyAgent.ProxyAgentLinux", "1.0.30")
    assert (status.operation, status.status, status.code, status.message) == ("Enable", "error", 4, "bad")
    assert found.of(f.AgentStatus)[0].status.version == "1.0.30"
    (installed,) = found.of(f.ExtensionInstalled)
    assert (installed.name, installed.version) == ("Microsoft.CPlat.ProxyAgent.ProxyAgentLinux", "1.0.30")


def test_waagents_log() -> None:
    text = (
        "2026-11-24T10:00:01.109771Z INFO ExtHandler [Microsoft.CPlat.ProxyAgent.ProxyAgentLinux-1.0.30] Target\n"
        "2026-11-24T10:00:02.109771Z ERROR ExtHandler ExtHandler Event: message=Non-zero exit code: 6\nTraceback\n"
        "2019/09/19 02:15:27.620278 INFO Daemon Azure Linux Agent Version:2.2.42\n"
    )
    found = read(text, "waagent.log")
    events = found.of(f.WaagentEvent)
    assert [event.level for event in events] == ["INFO", "ERROR", "INFO"]
    assert events[0].subject == "Microsoft.CPlat.ProxyAgent.ProxyAgentLinux-1.0.30"
    assert events[1].message.endswith("6\nTraceback")
    assert found.of(f.ExtensionInstalled)[0].version == "1.0.30"


def test_a_log_with_a_verifier_log_in_it() -> None:
    text = (
        "2026-11-24T10:00:00.123Z [ERROR]   Failed to load program 'connect4' with error: the "
        "BPF_PROG_LOAD syscall failed. Verifier output: 0: (bf) r6 = r1\n25: (85) call bpf_get_current_pid_tgid#14\n"
        "unknown func bpf_get_current_pid_tgid#14\nprocessed 24 insns (limit 1000000)\n"
        "2026-11-24T10:00:01.000Z [INFO]    x\n"
    )
    first, second = read(text, "ProxyAgent.log").of(f.AgentLogEvent)
    assert first.message.endswith("unknown func bpf_get_current_pid_tgid#14\nprocessed 24 insns (limit 1000000)")
    assert second.message == "x"


def test_equal_entries_are_one() -> None:
    lines = [f"2026-11-24T10:{minute:02}:00.000Z [WARN]    refused\n" for minute in range(60)]
    (event,) = read("".join(lines), "ProxyAgent.2026-11-24T10.00.00.000Z-1.log").of(f.AgentLogEvent)
    assert (event.count, event.source.line) == (60, 60)
    assert event.since_at
    assert event.at
    assert (event.at - event.since_at).seconds == 59 * 60


# --- errors of a deployment ---------------------------------------------------------------------------------------

REPORT = (
    "result=error|reason=azure-proxy-agent not found|agent=Cloud-Init/24.3.1-0ubuntu0~24.04.2|"
    "vm_id=e79e925b-69b7-436d-a5ab-706a2aa64407|timestamp=2026-11-24T10:00:00.123456|documentation_url=https://x"
)
SAYS = f"OS Provisioning failed for VM 'vm1' due to an internal error: {REPORT}"
ARM = {"status": "Failed", "error": {"code": "DeploymentFailed", "message": "one failed", "details": [
    {"code": "Conflict", "message": json.dumps({"status": "Failed", "error": {
        "code": "ResourceDeploymentFailure", "message": "x", "details": [
            {"code": "OSProvisioningInternalError", "message": SAYS}]}})}]}}  # fmt: skip
ERRORS = {
    "az": f"(OSProvisioningInternalError) {SAYS}\nCode: OSProvisioningInternalError\nMessage: {SAYS}\n",
    "PowerShell": f"New-AzVM: it failed\nErrorCode: OSProvisioningInternalError\nErrorMessage: {SAYS}\n",
    "ARM": json.dumps(ARM),
    "the portal": json.dumps({"code": "OSProvisioningInternalError", "message": SAYS}),
}


@pytest.mark.parametrize("where", ERRORS)
def test_errors_of_a_deployment(where: str) -> None:
    found = read(ERRORS[where])
    (error,) = found.of(f.ProvisioningError)
    assert error.code == "OSProvisioningInternalError"
    assert error.message
    assert error.message.startswith("OS Provisioning failed")
    assert found.of(f.ProvisioningReport)[0].reason == "azure-proxy-agent not found"
    assert found.of(f.CloudInitVersion)[0].version.startswith("24.3.1")
    assert found.of(f.Identity)[0].value.startswith("e79e925b")


def test_the_guides_texts() -> None:
    found = read("Linux.OSProvisioningInternalError")
    assert [error.code for error in found.of(f.ProvisioningError)] == ["Linux.OSProvisioningInternalError"]
    for text in (
        "Linux.cloud-init successfully reported ready for provisioning but the platform failed to record success",
        "Linux.Cloud-Init failed due to azure-proxy-agent not found",
    ):
        assert {error.code.lower() for error in read(text).of(f.ProvisioningError)} == {"linux.cloud-init"}


def test_a_run_commands_output() -> None:
    uname = "Linux vm1 5.15.0-1064-azure #73-Ubuntu SMP x86_64 GNU/Linux"
    message = f"Enable succeeded: \n[stdout]\n{uname}\nnodev\tcgroup2\n[stderr]\n"
    found = read(json.dumps({"value": [{"code": "ProvisioningState/succeeded", "message": message}]}))
    assert found.of(f.KernelRelease)[0].release == "5.15.0-1064-azure"
    assert found.of(f.KernelRelease)[0].source.line == 1
    assert found.of(f.Filesystems)[0].cgroup2


def test_kernel_messages_name_no_machine() -> None:
    text = (
        "[    0.000000] Linux version 5.4.0-1109-azure (buildd@x) (gcc) #1\n"
        "[    0.000000] Command line: BOOT_IMAGE=/vmlinuz root=PARTUUID=x ro cgroup_enable=memory\n"
        "[    1.234567] systemd[1]: Detected virtualization microsoft.\n"
    )
    found = read(text, "dmesg")
    assert not found.of(f.Identity)
    assert [entry.identifier for entry in found.of(f.UnitLog)] == ["kernel"] * 3
    assert found.of(f.KernelRelease)[0].release == "5.4.0-1109-azure"
    assert found.of(f.CommandLine)[0].get("cgroup_enable") == "memory"


def test_other_logs_name_no_machine() -> None:
    for line in (
        "2026-11-24T10:00:02.109771Z ERROR ExtHandler ExtHandler Event: name=x [1]: y",
        "2026-11-24 10:00:00 INFO something[1]: y",
        "2026-11-24T10:00:00.123Z [INFO]    a[1]: y",
        "2026-11-24 10:00:00,123 - util.py[DEBUG]: y",
    ):
        assert not read(line).of(f.Identity)
    for name in ("localhost", "localhost.localdomain"):  # before the machine has its name
        assert not read(f"Nov 24 10:00:00 {name} systemd[1]: x").of(f.Identity)


def test_extensions_of_a_machine() -> None:
    row = {"name": "x", "publisher": "Microsoft.CPlat.ProxyAgent", "typePropertiesType": "ProxyAgentLinux",
           "type": "Microsoft.Compute/virtualMachines/extensions", "typeHandlerVersion": "1.0",
           "provisioningState": "Failed",
           "instanceView": {"statuses": [{"code": "Failed/6", "message": "not supported"}]}}  # fmt: skip
    for value in ([row], row, pascal([row]), {**row, "properties": row}):
        listed, viewed = read(json.dumps(value)).of(f.ExtensionStatus)
        assert (listed.name, listed.status) == ("Microsoft.CPlat.ProxyAgent.ProxyAgentLinux", "Failed")
        assert viewed.message == "not supported"


def test_small_files_and_their_names() -> None:
    assert read("1.0.30\n", "azure-proxy-agent-version.txt").of(f.AgentVersion)[0].version == "1.0.30"
    assert read("vm7\n", "hostname").of(f.Identity)[0].value == "vm7"
    assert read("5.10.0-32-amd64\n", "x").of(f.KernelRelease)[0].release == "5.10.0-32-amd64"
    assert read("quiet ro\n", "proc/cmdline").of(f.CommandLine)[0].words == ("quiet", "ro")
    config = '{"latchKeyFolder": "/k", "monitorIntervalInSeconds": 60, "cgroupRoot": "/sys/fs/cgroup"}'
    assert read(config).of(f.AgentConfig)[0].values["monitorIntervalInSeconds"] == 60
    folder = "/var/lib/waagent/Microsoft.CPlat.ProxyAgent.ProxyAgentLinux-1.0.30/c"
    environment = json.dumps([{"handlerEnvironment": {"configFolder": folder}}])
    assert read(environment).of(f.ExtensionInstalled)[0].version == "1.0.30"


def test_packages_and_paths() -> None:
    text = (
        "root@vm1:~# rpm -q azure-proxy-agent\npackage azure-proxy-agent is not installed\n"
        "root@vm1:~# ls -l /var/lib/azure-proxy-agent/keys\ntotal 4\n"
        "-rw------- 1 root root 200 Nov 24 10:00 9cf8.key\n"
        "root@vm1:~# stat /usr/sbin/azure-proxy-agent\n"
        "stat: cannot statx '/usr/sbin/azure-proxy-agent': No such file or directory\n"
        "root@vm1:~# azure-proxy-agent --status\n-bash: azure-proxy-agent: command not found\n"
    )
    found = read(text)
    assert [(one.name, one.installed) for one in found.of(f.Package)] == [("azure-proxy-agent", False)]
    assert [(seen.path, seen.exists) for seen in found.of(f.PathSeen)] == [
        ("/var/lib/azure-proxy-agent/keys/9cf8.key", True),
        ("/usr/sbin/azure-proxy-agent", False),
        ("azure-proxy-agent", False),
    ]


def test_the_agents_lines_on_the_console() -> None:
    text = "[  OK  ] Started x\n2026-11-24T10:00:01.123Z azure-proxy-agent_1.0.30(812) - Failed to x\n[FAILED] y\n"
    found = read(text, "serial.log")
    assert [event.message for event in found.of(f.AgentLogEvent)] == ["Failed to x"]
    assert found.of(f.AgentVersion)[0].version == "1.0.30"


def test_cloud_inits_long_status() -> None:
    text = "status: error\ndetail:\nDataSourceAzure [seed=/dev/sr0]\nerrors:\n\t- azure-proxy-agent not found\n"
    (state,) = read(text).of(f.CloudInitState)
    assert (state.status, state.datasource, state.errors) == (
        "error",
        "DataSourceAzure",
        ("azure-proxy-agent not found",),
    )
