"""The readers of text: by which signs each is chosen."""

from __future__ import annotations

from typing import NamedTuple


class Reader(NamedTuple):
    kind: str  # what is told of a document
    read: str  # module:function in harness.diagnose.readers
    signs: tuple[str, ...]  # one of them is in the text
    said: str = ""  # or this pattern is in the command or the document's name, in lower case
    long: bool = False  # its lines may be of any length: JSON, XML


READERS = (
    Reader(
        "agent's log",
        "logs:read_agent",
        (
            "Z [INFO]",
            "Z [info]",
            "Z [warn",
            "Z [error]",
            "Z [WARN]",
            "Z [ERROR]",
            "Z [TRACE]",
            "Z [DEBUG]",
            "[Information]",
            "[Warning]",
            "[Error]",
            "[INFO]  ",
            "[ERROR]  ",
            "[WARN]  ",
        ),
    ),
    Reader("agent's console lines", "logs:read_console", ("Z azure-proxy-agent_",)),
    Reader("cloud-init's log", "logs:read_cloud_init", ("[DEBUG]: ", "[INFO]: ", "[WARNING]: ", "[ERROR]: ")),
    Reader(
        "waagent's log",
        "logs:read_waagent",
        (
            "Z INFO ",
            "Z ERROR ",
            "Z WARNING ",
            "Z VERBOSE ",
            " INFO Daemon",
            " INFO ExtHandler",
            "ERROR ExtHandler",
            " INFO Agent",
            " INFO Event: ",
        ),
    ),
    Reader("journal", "journal:read_short", ("]: ", " systemd: ", " kernel: ", " cloud-init: ", " dbus-daemon")),
    Reader(
        "kernel's log",
        "journal:read_dmesg",
        ("] Linux version", "] Command line", "] cgroup", "] BPF", "] systemd", "] audit", "] random", "] pci"),
        r"\bdmesg",
    ),
    Reader("journal", "journal:read_cat", (), r"journalctl.*(?:-o|--output)[ =]?cat\b"),
    Reader("journal", "journal:read_stanzas", ("__CURSOR=", "[s=")),
    Reader(
        "status.json",
        "status:read",
        (
            "keyLatchStatus",
            "ebpfProgramStatus",
            "proxyListenerStatus",
            "proxyAgentStatus",
            "monitorStatus",
            "telemetryLoggerStatus",
        ),
        long=True,
    ),
    Reader(
        "status.tag",
        "status:read_tag",
        ("keyLatchStatus - ", "ebpfProgramStatus - ", "proxyListenerStatus - "),
        r"status\.tag$",
    ),
    Reader(
        "systemctl",
        "systemd:read_status",
        (
            "Loaded: ",
            "could not be found",
            "Failed to get unit file state",
            "No files found for",
            " is masked.",
            "System has not been booted",
            "Failed to connect to bus",
        ),
    ),
    Reader("systemctl", "systemd:read_show", ("LoadState=", "ActiveState=", "SubState=")),
    Reader("systemctl", "systemd:read_lists", (".service",)),
    Reader("systemctl", "systemd:read_asked", (), r"systemctl\s.*is-(?:active|enabled|failed)"),
    Reader("unit", "systemd:read_file", ("ExecStart=",)),
    Reader(
        "sc",
        "windows:read_services",
        (
            "KERNEL_DRIVER",
            "WIN32",
            "FILE_SYSTEM_DRIVER",
            "[SC]",
            "Cannot find any service",
            "Status ",
            "Running  ",
            "Stopped  ",
        ),
    ),
    Reader(
        "Windows version",
        "windows:read_version",
        ("Microsoft Windows", "WindowsProductName", "BuildNumber", "OS Version:"),
    ),
    Reader("Windows events", "windows_events:read_xml", ("<Event",), long=True),
    Reader("Windows events", "windows_events:read_text", ("Event[", "ProviderName", "LevelDisplayName")),
    Reader(
        "uname",
        "kernel:read_uname",
        ("Linux version ", "Linux ", "uname -r", "ernel"),
        r"uname|kernel|osrelease|\b[2-9]\.\d{1,3}\.\d{1,4}-\w",
    ),
    Reader("os-release", "kernel:read_os_release", ("PRETTY_NAME=", "VERSION_ID=", "Distributor ID:")),
    Reader("hostnamectl", "kernel:read_hostnamectl", ("Static hostname:", "Operating System: ")),
    Reader("filesystems", "kernel:read_filesystems", ("nodev\tcgroup", "nodev\t", "nodev ", "nodev"), r"filesystems"),
    Reader("command line", "kernel:read_command_line", ("BOOT_IMAGE=", "root=", "Command line:"), r"cmdline"),
    Reader("identity", "kernel:read_identity", (), r"hostname|machine-id|product_uuid|vm_?id"),
    Reader(
        "mounts",
        "mounts:read",
        (" type cgroup", " cgroup2 rw", " cgroup rw", " - cgroup", "FSTYPE", " type proc", "cgroup2"),
        r"\bmount|findmnt",
    ),
    Reader("bpftool prog", "bpf:read_programs", ("  tag ", "  name "), r"bpftool[\s_.-]+(?:-\w+\s+)*prog"),
    Reader("bpftool cgroup", "bpf:read_cgroups", ("AttachType",), r"bpftool.*cgroup"),
    Reader("verifier log", "bpf:read_verifier_log", ("processed ",)),
    Reader("cloud-init version", "provisioning:read_version", ("cloud-init ", "loud-init v. "), r"cloud-?_?init"),
    Reader("cloud-init status", "provisioning:read_state", ("status: ",)),
    Reader("provisioning report", "provisioning:read_reports", ("result=error|", "result=success|")),
    Reader(
        "ovf-env.xml",
        "provisioning:read_ovf",
        ("ProvisioningSection", "PlatformSettings", "ProvisionGuestProxyAgent>"),
        long=True,
    ),
    Reader(
        "provisioning error",
        "provisioning:read_errors",
        (
            "OSProvisioning",
            "VMExtension",
            "VMAgent",
            "loud-init successfully reported",
            "loud-init failed due",
            "loud-init reports",
            "loud-Init successfully reported",
            "loud-Init failed due",
            "loud-Init reports",
            "AllocationFailed",
            "VMStartTimedOut",
            "rrorCode",
            "Code: ",
        ),
    ),
    Reader("VM model", "vm_model:read", ("roxyAgentSettings", "KeyIncarnationId"), long=True),
    Reader("packages", "software:read_packages", ("azure-proxy-agent", "cloud-init", "agent is not installed")),
    Reader(
        "paths",
        "software:read_paths",
        ("No such file", "not found", "rw-", "/azure-proxy-agent", "r-x", "no azure-proxy-agent in", "---"),
        r"^(?:sudo )?(?:which|command -v|ls|stat|find)\b",
    ),
    Reader(
        "agent's version",
        "software:read_agent_version",
        (),
        r"azure-proxy-agent.*version|guestproxyagent.*version|proxyagent.*version",
    ),
)
