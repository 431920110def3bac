"""Findings by code: each defined once, with its cause, its remedy and its place in the guide.

A code is never reused: one that is no longer found by anything moves to RETIRED. The letter says the subject:
V the verifier, A attaching and what happens to the attachment, K the key, P provisioning and the proxy.
E the evidence itself. The rows for V stand in verifier_codes, what only a diagnosis finds in diagnosis_codes, what only
a look into an image finds in image_codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from harness.msp import guide

RETIRED: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Code:
    """One finding: what is wrong in a few words, why it happens, what to do, and the guide's heading for it."""

    id: str  # "MSP-A101"
    title: str
    cause: str
    remedy: str
    guide: str | None = None


# Attaching: what bpf_link_create or BPF_PROG_ATTACH refuses.

NOT_CGROUP2 = Code(
    "MSP-A101",
    "The attach target is not a cgroup2 directory",
    "The descriptor given to the kernel is of a tmpfs, a cgroup v1 hierarchy or a file; the kernel answers EBADF.",
    "Attach to the mount point that `findmnt -t cgroup2` prints, or boot with systemd.unified_cgroup_hierarchy=1.",
    guide.ATTACH_FAILED,
)
NO_CGROUP2_MOUNTED = Code(
    "MSP-A102",
    "No cgroup2 file system is mounted",
    "The kernel knows cgroup2 (`nodev cgroup2`), but nothing mounts it: `mount | grep cgroup2` prints nothing.",
    'Run `grubby --update-kernel=ALL --args="systemd.unified_cgroup_hierarchy=1"` (or edit the boot loader), reboot.',
    guide.ATTACH_FAILED,
)
CGROUP2_ELSEWHERE = Code(
    "MSP-A103",
    "cgroup2 is mounted, but not where the agent looks (hybrid layout)",
    "/sys/fs/cgroup is a tmpfs that holds v1 hierarchies; cgroup2 is mounted below it, usually at unified.",
    "Boot with systemd.unified_cgroup_hierarchy=1, or set cgroupRoot in /etc/azure/proxy-agent.json to that mount.",
    guide.ATTACH_FAILED,
)
NO_CGROUP2_IN_KERNEL = Code(
    "MSP-A104",
    "The kernel has no cgroup2",
    "`grep cgroup /proc/filesystems` does not list `nodev cgroup2`; mounting it gives ENODEV.",
    "Opt out of MSP, upgrade the image to one whose kernel has cgroup2 (4.5 or later), then enable MSP.",
    guide.ATTACH_FAILED,
)
CGROUP_REMOVED = Code(
    "MSP-A105",
    "The cgroup was removed between opening it and attaching",
    "The directory was removed while its descriptor was held; the kernel refuses the attach (ENODEV or ENOENT).",
    "Start the agent again; if it happens at each boot, find what removes the cgroup (`systemd-cgls`).",
    guide.ATTACH_FAILED,
)
EXCLUSIVE_PROGRAM = Code(
    "MSP-A106",
    "Another program on the way is attached exclusively",
    "A connect4 program stands in this cgroup or in a parent without BPF_F_ALLOW_MULTI, so the kernel answers EPERM.",
    "Find it with `bpftool cgroup tree` and have its product attach with BPF_F_ALLOW_MULTI or by bpf_link.",
    guide.ATTACH_FAILED,
)
NO_PRIVILEGE_TO_ATTACH = Code(
    "MSP-A107",
    "The privilege to attach is missing",
    "The process lacks CAP_NET_ADMIN with CAP_BPF (CAP_SYS_ADMIN before 5.8): EPERM. Recent kernels ask at load only.",
    "Run as root outside a restricted container or unit; look at CapEff in /proc/PID/status.",
    guide.ATTACH_FAILED,
)
ATTACH_TYPE_MISMATCH = Code(
    "MSP-A108",
    "The attach type does not match the program",
    "The program was loaded with another expected_attach_type than the one it is attached with: EINVAL.",
    "Load it with BPF_CGROUP_INET4_CONNECT (10) and attach it with the same; take the matching object of the agent.",
    guide.ATTACH_FAILED,
)
TOO_MANY_PROGRAMS = Code(
    "MSP-A109",
    "The cgroup already holds 64 programs of this attach type",
    "The kernel takes at most 64 programs for an attach type in one cgroup: E2BIG.",
    "`bpftool cgroup show CGROUP` lists them; detach those left behind by dead loaders.",
    guide.ATTACH_FAILED,
)
NO_CGROUP_LINK = Code(
    "MSP-A110",
    "The kernel has no bpf_link for cgroups",
    "BPF_LINK_CREATE for cgroup programs came with 5.7; before it the call gives EINVAL for whatever descriptor.",
    "Upgrade the kernel to 5.7 or later, or attach by BPF_PROG_ATTACH as the agent does on such kernels.",
    guide.ATTACH_FAILED,
)
NO_PROGRAM_TYPE = Code(
    "MSP-A111",
    "The kernel has no cgroup program types (CONFIG_CGROUP_BPF is off, or it is older than 4.17)",
    "The program type does not exist, so the load itself is refused: EINVAL with an empty verifier log.",
    "Use a kernel with CONFIG_CGROUP_BPF=y (`grep CGROUP_BPF /boot/config-$(uname -r)`), 4.17 or later for connect4.",
    guide.SERVICE_LINUX,
)
ATTACH_FAILED_UNKNOWN = Code(
    "MSP-A112",
    "Attaching failed, and the message does not say why",
    "The agent's message drops the errno, so one text covers every cause of a failed bpf_link_create.",
    "Answer the questions listed, in their order; each rules a cause in or out.",
    guide.ATTACH_FAILED,
)
CONTRADICTORY_KERNEL = Code(
    "MSP-A113",
    "The message and the kernel version contradict one another",
    "The agent calls bpf_link_create only from 5.7 on; beside an older `uname -r` the two are not of the same boot.",
    "Collect status.json and `uname -r` again, from the same machine and the same boot.",
    guide.ATTACH_FAILED,
)
CGROUP_NOT_OPENED = Code(
    "MSP-A114",
    "The cgroup directory could not be opened",
    "The path found by `findmnt -t cgroup2` or configured as cgroupRoot does not exist or may not be read.",
    "Check that path on the machine; correct cgroupRoot in /etc/azure/proxy-agent.json or mount cgroup2 there.",
    guide.ATTACH_FAILED,
)

# Attached, and yet a client is not redirected, or is redirected to nobody.

DETACHED = Code(
    "MSP-A201",
    "The program is no longer attached",
    "Somebody detached it, or its link died with the last descriptor: the agent ended, or another product removed it.",
    "Restart azure-proxy-agent; if it comes back, `bpftool cgroup tree` and `bpftool link` show who else attaches.",
    guide.NOT_APPLIED,
)
CONNECTED_BEFORE = Code(
    "MSP-A202",
    "The client connected before the program was attached",
    "The hook runs in connect(); a connection that existed before, and is kept alive, is never looked at again.",
    "Restart the client, or make it open a new connection.",
    guide.NOT_APPLIED,
)
REWRITTEN_LATER = Code(
    "MSP-A203",
    "Another program later in the chain rewrites the address again",
    "Several connect4 programs run one after the other; the last one that writes user_ip4 and user_port decides.",
    "`bpftool cgroup tree` shows the order: child cgroup first, then its parents; agree on it with the other product.",
    guide.NOT_APPLIED,
)
OTHER_NAMESPACE = Code(
    "MSP-A204",
    "The client is in another network namespace",
    "The rewrite to 127.0.0.1 leads to that namespace's own loopback, where nobody listens: ECONNREFUSED.",
    "Run the container with host networking (PrivateNetwork=no for a unit), or ask through a process that has it.",
    guide.NOT_APPLIED,
)
AGENT_IN_PID_NAMESPACE = Code(
    "MSP-A208",
    "The agent runs in a pid namespace of its own",
    "It puts the pid that it sees itself into skip_process_map; the program compares pids of the initial namespace.",
    "Run the agent in the host's pid namespace (docker run --pid=host; no PrivatePIDs= in its unit).",
    guide.NOT_APPLIED,
)
STALE_REDIRECT = Code(
    "MSP-A205",
    "A program left behind redirects to a dead port",
    "A program attached by BPF_PROG_ATTACH outlives its loader: clients are sent to a port that nobody listens on.",
    "Detach it: `bpftool cgroup detach CGROUP connect4 id ID`, or restart the agent that owns the port.",
    guide.NOT_APPLIED,
)
WRONG_CGROUP2_MOUNT = Code(
    "MSP-A206",
    "The first cgroup2 mount is not the root of the hierarchy",
    "The agent attaches to the first line of `findmnt -t cgroup2`; another product's mount may stand there.",
    "Compare `findmnt -t cgroup2 -o TARGET,FSROOT`: FSROOT must be /; mount the root earlier, or set cgroupRoot.",
    guide.NOT_APPLIED,
)
NOT_IN_EFFECTIVE_LIST = Code(
    "MSP-A207",
    "The program is attached, but not in the effective list of the client's cgroup",
    "The client lives outside the cgroup that the program is attached to, or a child overrides it.",
    "`bpftool cgroup show CLIENT-CGROUP effective` must list connect4; attach at the root of the hierarchy.",
    guide.NOT_APPLIED,
)
NO_CAUSE_FOUND_ATTACH = Code(
    "MSP-A299",
    "Nothing is wrong with the attachment",
    "The message or the state seen is that of a program that is loaded and attached.",
    "Look at the key, the policy and the proxy next.",
    guide.NOT_APPLIED,
)

# The key: keyLatchStatus and what the secure channel answers.

KEY_STATUS_FAILED = Code(
    "MSP-K101",
    "The key status could not be had from the platform",
    "GET /secure-channel/status on the WireServer (168.63.129.16) failed or answered something that is not a status.",
    "Check that the VM reaches 168.63.129.16:80 (firewall, routes, proxy settings) and that the answer is valid JSON.",
    guide.KEY_REJECTED,
)
KEY_NOT_OFFERED = Code(
    "MSP-K102",
    "The platform refuses to give a key",
    "A key was latched before and is lost (disk moved or replaced), so the platform no longer offers it.",
    "Reset the key: set a larger KeyIncarnationId in ProxyAgentSettings of the VM model; the agent then recovers.",
    guide.KEY_REJECTED,
)
KEY_NOT_ATTESTED = Code(
    "MSP-K103",
    "The platform refuses the attestation of the key",
    "The key was acquired, but its signed attestation was not accepted (wrong key, wrong guid, or a clock far off).",
    "Restart azure-proxy-agent; if it stays, reset the key (larger KeyIncarnationId).",
    guide.KEY_REJECTED,
)
KEY_NOT_STORED = Code(
    "MSP-K104",
    "The key could not be written to or read back from the disk",
    "The key folder (/var/lib/azure-proxy-agent/keys, mode 0700) is full, read-only or not the agent's.",
    "Make room, check mode and owner of the folder, restart azure-proxy-agent.",
    guide.KEY_REJECTED,
)
KEY_NOT_ENFORCED = Code(
    "MSP-K105",
    "MSP is not enforced for this VM",
    "The platform's secure channel state is disabled, so no endpoint is redirected; this is a setting, not a fault.",
    "Set ProxyAgentSettings in the VM model (enabled, mode Audit or Enforce) if protection is wanted.",
    guide.NOT_APPLIED,
)
KEY_READY = Code(
    "MSP-K106",
    "The key is latched",
    "The agent holds the key and has attested it, or found it in its folder.",
    "Nothing to do about the key; compare states.secureChannelState and keyGuid with what you expect.",
    guide.KEY_REJECTED,
)
KEY_INVALID_STATUS = Code(
    "MSP-K107",
    "The platform's key status does not validate",
    "A member of the status (scheme, delivery method, version, guid) is missing or not of a known value.",
    "Update the agent; if the newest says the same, report it with the whole message.",
    guide.KEY_REJECTED,
)

KEY_TROUBLE_HIDDEN = Code(
    "MSP-K108",
    "The status says that all is well while no key is held",
    "keyLatchStatus RUNNING and proxyAgentStatus SUCCESS say that the agent's loops run, not that they succeeded.",
    "Look at keyLatchStatus.message and at states.secureChannelState and states.keyGuid, not at RUNNING or SUCCESS.",
    guide.KEY_REJECTED,
)

# Provisioning, the agent's own objects, policy and proxy.

EMPTY_POLICY = Code(
    "MSP-P101",
    "The policy map is empty: the program redirects nothing",
    "Entries are added as provisioning finishes and per endpoint whose mode is not disabled; none is there.",
    "Look at keyLatchStatus: states.secureChannelState and message say whether the key or the VM model is the cause.",
    guide.NOT_APPLIED,
)
PROXY_NOT_LISTENING = Code(
    "MSP-P102",
    "Clients are redirected, but nobody listens on 127.0.0.1:3080",
    "The agent's listener is down or its port is taken by another process: connection refused.",
    "`ss -ltnp 'sport = :3080'` shows who listens; free the port, restart azure-proxy-agent.",
    guide.NOT_APPLIED,
)
OBJECT_NOT_READ = Code(
    "MSP-P103",
    "The agent's eBPF object could not be read",
    "ebpf_cgroup.o is missing, damaged or of another release than the agent; a program or map is not in it.",
    "Reinstall azure-proxy-agent (or its VM extension), so that object and executable come from one package.",
    guide.LOAD_FAILED,
)
MAP_NOT_UPDATED = Code(
    "MSP-P104",
    "An entry could not be written to a map of the agent",
    "The kernel refused the update: the map is full, its layout is another release's, or the privilege is missing.",
    "Reinstall azure-proxy-agent so that object and executable fit; look at the errno in the message.",
    guide.SETUP_FAILED,
)
GAVE_UP = Code(
    "MSP-P105",
    "The agent gave up after its five tries to start the redirection",
    "Five tries, 10 ms apart, all failed: what they failed with stands in the agent's log before this line.",
    "Read the log's lines before it in /var/log/azure-proxy-agent; once the cause is gone, restart azure-proxy-agent.",
    guide.SETUP_FAILED,
)
STATUS_WRONG = Code(
    "MSP-P106",
    "status.json says something else than kernel and platform show",
    "A part reports a state, a key or a rule that was looked for from outside and is not so.",
    "Trust what the kernel and the platform show; report the agent's version with both to its maker.",
    guide.SETUP_FAILED,
)
NOT_STARTED = Code(
    "MSP-P107",
    "The agent cannot be started, ends by itself, or gets no further",
    "The executable is of another architecture, damaged, or lacks something of this machine; its last output tells.",
    "Read its last output; run the file by hand with --version; look at what the kernel lacks.",
    guide.SERVICE_LINUX,
)
REQUEST_UNPROVED = Code(
    "MSP-P108",
    "A request reaches the platform without a valid signature or with wrong claims",
    "The agent holds a key but does not sign with it, or tells the platform of another client than the one that asked.",
    "Do not enforce with this agent; report its version with the request as the fabric saw it.",
    guide.NOT_APPLIED,
)
LISTENER_OPEN = Code(
    "MSP-P109",
    "A local process can misuse the agent's listener or is not stopped by it",
    "The listener forwards, accepts or survives less than it should: who is on the machine can get what is not theirs.",
    "Do not deploy this agent; report its version with the request that shows it.",
    guide.NOT_APPLIED,
)
SECRET_EXPOSED = Code(
    "MSP-P110",
    "The key or a file of the agent can be read or changed by others",
    "A file's mode is wider than it must be, or the key's text stands in a log, a status or an event.",
    "Set the modes (folder 0700, files 0600), have the key reset with a larger KeyIncarnationId, update the agent.",
    guide.KEY_RESET,
)
UNKNOWN_MESSAGE = Code(
    "MSP-P199",
    "A message that is not known",
    "The text is neither a verifier log, a status.json nor one of the agent's message forms.",
    "Give the whole status.json or the agent's log file; the agent writes messages uncut into its log.",
)


@cache
def all_codes() -> Mapping[str, Code]:
    """Every code by its id, in the order of ids."""
    from harness.msp import diagnosis_codes, image_codes, verifier_codes  # they need Code from here

    modules = (globals(), vars(verifier_codes), vars(diagnosis_codes), vars(image_codes))
    rows = [row for module in modules for row in module.values() if isinstance(row, Code)]
    return {row.id: row for row in sorted(rows, key=lambda row: row.id)}


def code(identifier: str) -> Code:
    """The row of one id, in upper or lower case. Raises KeyError for an id that does not exist."""
    return all_codes()[identifier.upper()]
