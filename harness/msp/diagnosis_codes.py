"""Codes that only a diagnosis finds: provisioning (P2), services (P3), what is wrong with the evidence itself (E)."""

from __future__ import annotations

from harness.msp import guide
from harness.msp.codes import Code

# New deployments.

NO_AGENT_OLD_CLOUD_INIT = Code(
    "MSP-P201",
    "The image has no agent, and its cloud-init is older than 24.3",
    "cloud-init does not know of MSP and reports ready; without an agent the platform waits for a key in vain.",
    "Bake azure-proxy-agent and cloud-init 24.3 or later into the image, or deploy without MSP and enable it later.",
    guide.NEW_VM_LINUX,
)
NO_AGENT_NEW_CLOUD_INIT = Code(
    "MSP-P202",
    "cloud-init looked for the agent in the image and did not find it",
    "The platform asked for the agent (ProvisionGuestProxyAgent), and azure-proxy-agent is not in the image.",
    "Bake azure-proxy-agent into the image (its executable must be in root's PATH), or deploy without MSP.",
    guide.NEW_VM_LINUX,
)
AGENT_OLD_CLOUD_INIT = Code(
    "MSP-P203",
    "cloud-init older than 24.3 reports ready before the agent is (a race)",
    "Such a cloud-init does not ask the agent; the platform may hear `ready` while no key is latched yet.",
    "Update cloud-init in the image to 24.3 or later.",
    guide.NEW_VM_LINUX,
)
AGENT_UNHEALTHY = Code(
    "MSP-P204",
    "cloud-init asked the agent, and the agent was not healthy",
    "`azure-proxy-agent --status --wait 120` ended with an error: eBPF, cgroup2, the start itself, or the key.",
    "Find what the agent says in the report's stdout and stderr and in /var/log/azure-proxy-agent; mend that.",
    guide.NEW_VM_LINUX,
)
PLATFORM_FAILURE = Code(
    "MSP-P205",
    "The image is right, and the platform failed",
    "The agent is in the image, cloud-init knows of it and reported ready: what failed is on the platform's side.",
    "Retry the deployment; if it fails again, contact support with the VM's id and the time.",
    guide.NEW_VM_LINUX,
)
PROVISIONING_UNDECIDED = Code(
    "MSP-P206",
    "Provisioning failed, and the evidence does not say which of the four cases it is",
    "Two things decide: whether the agent is in the image, and whether cloud-init is 24.3 or later.",
    "Answer the two questions on a VM made from the image, deployed without MSP.",
    guide.NEW_VM_LINUX,
)
WINDOWS_NOT_SUPPORTED = Code(
    "MSP-P207",
    "This version of Windows is not supported",
    "The agent and eBPF for Windows need Windows 10 or Windows Server 2019 (build 17763) or later.",
    "Deploy a supported version of Windows, or deploy without MSP.",
    guide.NEW_VM_WINDOWS,
)
MSP_FAILURE_CODE = Code(
    "MSP-P208",
    "The platform refused the request because of its MSP settings",
    "The failure code is one of MSP's own: the region, the subscription or a value in ProxyAgentSettings.",
    "Correct what the code names, then deploy again.",
    guide.NEW_VM_WINDOWS,
)
NOT_MSP_FAILURE = Code(
    "MSP-P209",
    "The deployment failed for a reason that is not MSP's",
    "The failure code is not one that MSP causes, and nothing else here points to MSP.",
    "Look the code up in the list of Azure's provisioning errors; MSP's guide does not apply.",
    guide.NEW_VM_WINDOWS,
)
TRANSIENT_FAILURE = Code(
    "MSP-P210",
    "The deployment failed with an error that is often transient",
    "Timeouts, internal errors and lacking capacity of the platform come and go.",
    "Retry the deployment; if it fails again with the same code, contact support.",
    guide.NEW_VM_WINDOWS,
)
WINDOWS_INSTALL_FAILED = Code(
    "MSP-P211",
    "The platform could not install the agent on Windows",
    "The extension that brings GuestProxyAgent and the eBPF drivers ended with an error.",
    "Look at the extension's exit code and log; retry the deployment, then contact support.",
    guide.NEW_VM_WINDOWS,
)
ANOTHER_REASON = Code(
    "MSP-P212",
    "cloud-init reported a failure that has nothing to do with the agent",
    "The reason in its report is about the network, IMDS or ovf-env.xml, before or beside MSP.",
    "Look at the reason and at /var/log/cloud-init.log; MSP's guide does not apply.",
    guide.NEW_VM_LINUX,
)

# Enabled, but not applied.

NOT_APPLIED_YET = Code(
    "MSP-P301",
    "MSP is enabled in the VM model and not applied yet",
    "Protection begins only once the agent is set up and holds the long-lived key; that can take minutes.",
    "Look at status.json again after a few minutes; if nothing changes, look at keyLatchStatus.message.",
    guide.NOT_APPLIED,
)
PART_NOT_RUNNING = Code(
    "MSP-P302",
    "A part of the agent does not run, and does not say why",
    "status.json reports the part as not RUNNING, with a message of no known form.",
    "Read /var/log/azure-proxy-agent/ProxyAgent.log from the agent's last start; restart azure-proxy-agent.",
    guide.CHAIN,
)
LISTENER_NOT_STARTED = Code(
    "MSP-P303",
    "The agent's proxy listener does not run",
    "proxyListenerStatus is not RUNNING: the agent could not listen on 127.0.0.1:3080, or stopped.",
    "`ss -ltnp 'sport = :3080'` shows who has the port; free it, then restart azure-proxy-agent.",
    guide.CHAIN,
)
AUDIT_ONLY = Code(
    "MSP-P304",
    "MSP only audits: requests are logged and none is refused",
    "An endpoint's mode is Audit; this is a setting, not a fault.",
    "Set the mode to Enforce in ProxyAgentSettings of the VM model when the audit log shows nothing unexpected.",
    guide.NOT_APPLIED,
)
NEVER_REPORTED = Code(
    "MSP-P305",
    "The agent never wrote its status",
    "There is no status.json where the agent writes it: it never ran, or ended before its first report.",
    "Look at the service first; then at the agent's log folder.",
    guide.NOT_APPLIED,
)
PROXY_REFUSES = Code(
    "MSP-P306",
    "The proxy cannot tell who asks, and refuses (421)",
    "The audit entry of a connection was gone before the proxy looked: the LRU map of 200 entries lost it.",
    "Use a kernel from 6.15.7 on (LRU maps lose fewer entries), or fewer new connections at once.",
    guide.NOT_APPLIED,
)

# Services.

AGENT_NOT_INSTALLED = Code(
    "MSP-P311",
    "The agent is not installed",
    "Neither the image nor the VM extension brought azure-proxy-agent: there is no unit, package or executable.",
    "Add the VM extension Microsoft.CPlat.ProxyAgent.ProxyAgentLinux, or use an image with azure-proxy-agent in it.",
    guide.SERVICE_LINUX,
)
AGENT_NOT_RUNNING = Code(
    "MSP-P312",
    "The agent's service is stopped",
    "azure-proxy-agent.service is installed and inactive: stopped by somebody, or never started in this boot.",
    "`sudo systemctl enable --now azure-proxy-agent`, then look at status.json after a minute.",
    guide.SERVICE_LINUX,
)
AGENT_CRASHED = Code(
    "MSP-P313",
    "The agent's service fails",
    "systemd reports that the agent ended by itself or by a signal, or that it cannot be started.",
    "`journalctl -u azure-proxy-agent -b --no-pager | tail -50` shows its last words; mend that and start it again.",
    guide.SERVICE_LINUX,
)
AGENT_DISABLED = Code(
    "MSP-P314",
    "The agent's service is not started at boot",
    "The unit is masked or disabled, so a reboot leaves the VM without its agent.",
    "`sudo systemctl unmask azure-proxy-agent; sudo systemctl enable --now azure-proxy-agent`.",
    guide.SERVICE_LINUX,
)
TWO_AGENTS = Code(
    "MSP-P315",
    "Two agents on one machine: one of the image, one of the VM extension",
    "The package and the extension bring different versions; which one runs depends on which unit was written last.",
    "Keep one: remove the package azure-proxy-agent, or the VM extension ProxyAgentLinux.",
    guide.SERVICE_LINUX,
)
MIXED_FILES = Code(
    "MSP-P316",
    "The agent of one package runs with the eBPF object of the other",
    "The unit starts the agent of the package (or the extension) while the object lies in the other's folder.",
    "Reinstall the one that is to stay, remove the other, restart azure-proxy-agent.",
    guide.SERVICE_LINUX,
)
EXTENSION_FAILED = Code(
    "MSP-P317",
    "The agent's VM extension reports an error",
    "The handler of Microsoft.CPlat.ProxyAgent ended with an error; its message or exit code says where.",
    "Look at the handler's log (/var/log/azure/Microsoft.CPlat.ProxyAgent.ProxyAgentLinux); then reinstall it.",
    guide.SERVICE,
)
BELOW_DOCUMENTED_FLOOR = Code(
    "MSP-P318",
    "The kernel is older than the guide's prerequisite (5.15)",
    "The guide asks for 5.15. Measured, the agent's programs load from mainline 5.7 on; distributions backport.",
    "Opt out of MSP, upgrade the image, then enable MSP; or find out with `msp-harness verify` on such a kernel.",
    guide.SERVICE_LINUX,
)
WINDOWS_AGENT_MISSING = Code(
    "MSP-P321",
    "The service GuestProxyAgent does not exist",
    "sc says 1060: the platform's extension has not installed the agent, or it was removed.",
    "Enable MSP in the VM model (the platform installs the agent); if it is, look at the extension's status.",
    guide.SERVICE_WINDOWS,
)
WINDOWS_AGENT_STOPPED = Code(
    "MSP-P322",
    "The service GuestProxyAgent is not running",
    "sc reports another state than 4 RUNNING.",
    "`sc start GuestProxyAgent`; if it stops again, look at WIN32_EXIT_CODE and C:\\WindowsAzure\\ProxyAgent\\Logs.",
    guide.SERVICE_WINDOWS,
)
DRIVER_MISSING = Code(
    "MSP-P323",
    "A driver of eBPF for Windows does not exist",
    "sc says 1060 for eBPFCore or NetEbpfExt: eBPF for Windows is not installed.",
    "Have the platform install it again: opt out of MSP and enable it, or redeploy the VM.",
    guide.EBPF_FAILED,
)
DRIVER_STOPPED = Code(
    "MSP-P324",
    "A driver of eBPF for Windows is not running",
    "eBPFCore or NetEbpfExt is not in state 4 RUNNING; WIN32_EXIT_CODE says why Windows stopped or refused it.",
    "`sc start eBPFCore`, then `sc start NetEbpfExt`, then restart GuestProxyAgent.",
    guide.EBPF_FAILED,
)
EBPF_API_NOT_LOADED = Code(
    "MSP-P325",
    "The agent could not load eBPF for Windows",
    "The library EbpfApi.dll is missing or does not load: eBPF for Windows is not, or only partly, installed.",
    "`sc query eBPFCore` and `sc query NetEbpfExt`; have the platform install eBPF for Windows again.",
    guide.EBPF_FAILED,
)

# The key, as far as only a diagnosis of several documents sees it.

KEY_OF_ANOTHER_DISK = Code(
    "MSP-K109",
    "The key that the platform names is not on this disk",
    "The disk was moved to another VM, or the OS disk was replaced: the key stayed behind, and none is offered.",
    "Reset the key: set a larger KeyIncarnationId in ProxyAgentSettings of the VM model; the agent then recovers.",
    guide.KEY_REJECTED,
)
RESET_NOT_INCREASING = Code(
    "MSP-K110",
    "The key reset did nothing: KeyIncarnationId did not grow",
    "The platform forgets a key only for a value that is strictly larger than the one before.",
    "`msp-harness key-reset --vm-model FILE` computes the next value and prints the PUT.",
    guide.KEY_RESET,
)
RESET_PENDING = Code(
    "MSP-K111",
    "A key reset is under way",
    "The VM model asks for a larger KeyIncarnationId than the agent's; the agent polls every 15 seconds.",
    "Wait a minute and look at keyLatchStatus.states.keyIncarnationId again.",
    guide.KEY_RESET,
)

# The evidence itself.

NOTHING_WRONG = Code(
    "MSP-E100",
    "Nothing is wrong in this evidence",
    "The agent runs, its program is attached, its listener runs, and it holds a key.",
    "If clients still fail: `msp-harness verify --quick` on the VM shows whether connects are redirected.",
)
STATUS_AGAINST_SERVICE = Code(
    "MSP-E101",
    "status.json says RUNNING, and the service does not run",
    "status.json is a file: it stays as it was when the agent ended. The service manager's answer counts.",
    "Believe the service; start it, then read status.json again.",
    guide.CHAIN,
)
STALE_STATUS = Code(
    "MSP-E102",
    "status.json is old: the agent no longer writes it",
    "The agent writes it every 60 seconds; this one is older than that beside the rest of the evidence.",
    "Look whether the agent runs; collect status.json again while it does.",
    guide.CHAIN,
)
TIMES_DISAGREE = Code(
    "MSP-E103",
    "The timestamps of the evidence disagree",
    "The times cannot all be true: status.json is newer than the collection, or the clock jumped.",
    "Compare `date -u` with a good clock: a key is refused when the clocks are far apart. Collect again.",
    guide.CHAIN,
)
TWO_MACHINES = Code(
    "MSP-E104",
    "The evidence is of two machines",
    "Host names, vmIds or machine-ids in it differ, so what one document shows says nothing about another.",
    "Send one bundle for each machine: `msp-harness collect` makes one.",
)
TWO_VERSIONS = Code(
    "MSP-E105",
    "The evidence names two versions of the agent",
    "status.json, executable, package or extension do not agree on the agent's version.",
    "Look which one runs (`systemctl cat azure-proxy-agent`), and whether the machine was updated in between.",
    guide.SERVICE,
)
TWO_KERNELS = Code(
    "MSP-E106",
    "The evidence is of two boots: it names two kernels",
    "Two different `uname -r` in one bundle: what failed under one kernel need not fail under the other.",
    "Collect everything again, from one boot.",
)
STATUS_AGAINST_ITSELF = Code(
    "MSP-E107",
    "status.json contradicts itself",
    "proxyAgentStatus says SUCCESS while one of its parts does not run.",
    "Look at the parts (keyLatchStatus, ebpfProgramStatus, proxyListenerStatus), not at SUCCESS.",
    guide.CHAIN,
)
LOG_AGAINST_KERNEL = Code(
    "MSP-E108",
    "The verifier log was not printed by this kernel",
    "The form of a verifier log dates the kernel that printed it; it does not fit the `uname -r` beside it.",
    "Collect status.json and `uname -r` again, from the same boot.",
    guide.LOAD_FAILED,
)
STATUS_AGAINST_KERNEL = Code(
    "MSP-E109",
    "ebpfProgramStatus says RUNNING, and no connect4 program is attached",
    "bpftool shows the cgroup tree without the agent's program: it was detached, or the status is of before.",
    "Restart azure-proxy-agent; if it comes back, `bpftool cgroup tree` shows who else attaches.",
    guide.NOT_APPLIED,
)
FROM_A_CONTAINER = Code(
    "MSP-E110",
    "Some of the evidence was collected in a container",
    "The kernel is of one distribution, os-release of another: files and mounts of a container are not the VM's.",
    "Collect on the VM itself: `msp-harness collect`.",
)
MOUNTS_AGAINST_KERNEL = Code(
    "MSP-E111",
    "cgroup2 is mounted, and the kernel does not list it",
    "`mount` shows cgroup2 while /proc/filesystems lacks it: the two are not of the same boot or machine.",
    "Run `grep cgroup /proc/filesystems` and `mount | grep cgroup2` again, on the same machine.",
    guide.ATTACH_FAILED,
)
CANNOT_TELL = Code(
    "MSP-E190",
    "The evidence does not decide",
    "What would show the cause, or that nothing is wrong, is not among what was sent.",
    "Run the commands listed, in their order, and send what they print.",
)
NO_EVIDENCE = Code(
    "MSP-E191",
    "Nothing in this is known evidence",
    "No status.json, log, service state, kernel or deployment error was recognized.",
    "`msp-harness collect` makes a bundle on the VM; or send status.json and the agent's log folder.",
)
