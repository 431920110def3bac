"""Codes that only a look into an image finds (P33 to P35)."""

from __future__ import annotations

from harness.msp import guide
from harness.msp.codes import Code

# The system and its kernel.

NO_SYSTEM = Code(
    "MSP-P330",
    "There is no Linux system in the image, or no kernel that boots",
    "No os-release was found, or neither /boot nor /usr/lib/modules has a kernel: a VM made of it does not start.",
    "Look whether it is the right file and whole; install the distribution's kernel for Azure.",
    guide.NEW_VM_LINUX,
)
NO_BPF = Code(
    "MSP-P331",
    "The kernel has no bpf(2)",
    "CONFIG_BPF, CONFIG_BPF_SYSCALL or CONFIG_NET is off: no eBPF program can be loaded at all.",
    "Install a kernel with CONFIG_BPF_SYSCALL=y: every distribution's own kernel of 5.15 or later has it.",
    guide.SERVICE_LINUX,
)
NO_BTF = Code(
    "MSP-P332",
    "The kernel has no BTF, and the agent's object needs it",
    "CONFIG_DEBUG_INFO_BTF is off, so CO-RE relocations (agents from July 2026 on) resolve against nothing.",
    "Install a kernel with CONFIG_DEBUG_INFO_BTF=y, or an agent whose object has no CO-RE relocations.",
    guide.LOAD_FAILED,
)
NO_KPROBES = Code(
    "MSP-P333",
    "The kernel has no kprobes, and the agent needs one",
    "The agent attaches tcp_v4_connect to tcp_connect before anything else; without kprobes it cannot start.",
    "Install a kernel with CONFIG_KPROBES=y, CONFIG_KPROBE_EVENTS=y and CONFIG_BPF_EVENTS=y.",
    guide.SERVICE_LINUX,
)
NO_AZURE_DRIVER = Code(
    "MSP-P334",
    "A driver that a VM on Azure needs is missing or blocked",
    "The kernel has no such module, built in or beside it, or modprobe.d or the command line forbid it.",
    "Install the kernel's package of modules, or take the line out of /etc/modprobe.d; make the initramfs anew.",
    guide.NEW_VM_LINUX,
)
LOCKDOWN = Code(
    "MSP-P335",
    "Lockdown in confidentiality mode forbids what the agent's programs do",
    "It refuses kprobes and reading kernel memory, also to root (kernel_lockdown(7)).",
    "Boot with lockdown=integrity, or without the word.",
    guide.EBPF_FAILED,
)

# The agent.

AGENT_NOT_IN_PATH = Code(
    "MSP-P336",
    "The agent is in the image, and not where cloud-init finds it",
    "cloud-init runs `azure-proxy-agent` by its name: it must be in the PATH of services, as /usr/sbin is.",
    "Install the package azure-proxy-agent, or link /usr/sbin/azure-proxy-agent to the executable.",
    guide.NEW_VM_LINUX,
)
AGENT_CONFIG_WRONG = Code(
    "MSP-P337",
    "The agent's configuration is not usable",
    "/etc/azure/proxy-agent.json is missing, no JSON object, or has a member of a wrong kind.",
    "Install the package's own /etc/azure/proxy-agent.json, or correct the member.",
    guide.SERVICE_LINUX,
)
AGENT_WAITS_FOR_CLOUD_INIT = Code(
    "MSP-P338",
    "The agent starts after the cloud-init that waits for it",
    "cloud-init-local.service asks the agent for 120 s, and systemd starts the agent only once that has ended.",
    "In the agent's unit: DefaultDependencies=no, Before=network-pre.target, and no After= of what comes later.",
    guide.NEW_VM_LINUX,
)
AGENT_CONFINED = Code(
    "MSP-P339",
    "The agent is not allowed what it needs",
    "Its unit, SELinux, AppArmor or a mount option takes the right to load BPF, to attach it, or to run at all.",
    "Let it run as root with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN in the VM's own namespaces.",
    guide.SERVICE_LINUX,
)

# What another machine left behind.

KEY_IN_IMAGE = Code(
    "MSP-P340",
    "A key of another VM is in the image",
    "The image was made of a VM that had latched its key, and the key folder was not emptied: the key is exposed.",
    "Remove it from the image, make the image anew, and reset the key of the VM that it is of.",
    guide.KEY_RESET,
)
STATUS_IN_IMAGE = Code(
    "MSP-P341",
    "The agent's status of another VM is in the image",
    "status.json, provisioned.tag, status.tag or logs were left: who reads them before the agent writes is misled.",
    "Before the image is made: stop azure-proxy-agent, empty /var/log/azure-proxy-agent and its key folder.",
    guide.CHAIN,
)
SECRET_IN_IMAGE = Code(
    "MSP-P342",
    "Secrets of another VM are in the image",
    "Certificates with private keys, or an ovf-env.xml with a password, were left in /var/lib/waagent.",
    "Run `waagent -deprovision+user -force` before the image is made; change the password.",
    guide.NEW_VM_LINUX,
)
NOT_GENERALISED = Code(
    "MSP-P343",
    "The image is not generalised",
    "Host keys, machine-id or cloud-init's state of one machine would be those of every VM made of the image.",
    "Before the image is made: `cloud-init clean --logs --machine-id`, remove /etc/ssh/ssh_host_*, empty histories.",
    guide.NEW_VM_LINUX,
)

# Who provisions.

CLOUD_INIT_OFF = Code(
    "MSP-P344",
    "cloud-init will not provision a VM made of this image",
    "It is not installed, is switched off, or its Azure datasource is not among those that it looks for.",
    "Install cloud-init 24.3 or later, remove /etc/cloud/cloud-init.disabled, put Azure into datasource_list.",
    guide.NEW_VM_LINUX,
)
WAAGENT_PROVISIONS = Code(
    "MSP-P345",
    "The Azure Linux Agent (waagent) provisions, not cloud-init",
    "The guide's table is about cloud-init; waagent does not ask azure-proxy-agent before it reports ready.",
    "Set Provisioning.Agent=cloud-init in /etc/waagent.conf and install cloud-init 24.3 or later.",
    guide.NEW_VM_LINUX,
)
CLOUD_INIT_MIXED = Code(
    "MSP-P346",
    "cloud-init's package and its files are of different versions",
    "Somebody put another cloud-init over the distribution's; an update of the package may undo that.",
    "Install one of them only; look at which `cloud-init --version` runs.",
    guide.NEW_VM_LINUX,
)
CLOUD_INIT_UNAWARE = Code(
    "MSP-P347",
    "cloud-init does not ask the agent",
    "Its Azure datasource has no call of `azure-proxy-agent --status`: support came with 24.3.",
    "Update cloud-init in the image to 24.3 or later.",
    guide.NEW_VM_LINUX,
)
