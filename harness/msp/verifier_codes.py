"""The codes MSP-V…: why a kernel refuses to load a program."""

from __future__ import annotations

from harness.msp import guide
from harness.msp.codes import Code

HELPER_NOT_ALLOWED = Code(
    "MSP-V101",
    "A helper that this kernel does not let this program type call",
    "Which helpers a program type may call grew with the kernels; this kernel's list for the type lacks the helper.",
    "Use a kernel that allows it (the table names the first mainline version), or a program that does without it.",
    guide.LOAD_FAILED,
)
HELPER_UNKNOWN = Code(
    "MSP-V102",
    "A helper that this kernel does not have",
    "The helper's number is above the last one that this kernel knows: the program was built for a newer kernel.",
    "Upgrade the kernel, or load an object built for this generation.",
    guide.LOAD_FAILED,
)
KFUNC_MISSING = Code(
    "MSP-V103",
    "A kernel function (kfunc) that is missing or not allowed here",
    "Kfuncs are found by the kernel's BTF; this kernel lacks it, or does not let this program type call it.",
    "Use a kernel that has the kfunc and BTF (CONFIG_DEBUG_INFO_BTF); declare the kfunc __weak and test for it.",
    guide.LOAD_FAILED,
)
UNINITIALISED_REGISTER = Code(
    "MSP-V104",
    "A register is read before anything was written to it",
    "On the path shown the register has no value: never set, or clobbered by a call (R1 to R5 are after each call).",
    "Set it on every path; keep what must survive a call in R6 to R9 or on the stack.",
    guide.LOAD_FAILED,
)
UNINITIALISED_STACK = Code(
    "MSP-V105",
    "Stack bytes are read that were not written",
    "A variable, or the padding of a struct given to a helper, was not initialised on the path shown.",
    "Zero the whole struct (memset, or = {0} with no padding); kernels from 6.3 let root read such bytes.",
    guide.LOAD_FAILED,
)
NULL_CHECK_MISSING = Code(
    "MSP-V106",
    "A pointer that may be NULL is used without a check",
    "A helper such as bpf_map_lookup_elem returns a value or NULL; the program follows the pointer unchecked.",
    "Compare it with NULL and leave before the first use, on every path.",
    guide.LOAD_FAILED,
)
CONTEXT_ACCESS = Code(
    "MSP-V107",
    "A field of the context is read or written where or how this kernel does not allow it",
    "The offset, the width or the direction is not allowed for this program type and attach type, or not yet.",
    "Use the field's own width; write only user_ip4 and user_port in connect4; check when the field came.",
    guide.LOAD_FAILED,
)
LOOP = Code(
    "MSP-V108",
    "A loop whose end the verifier cannot see",
    "Kernels before 5.3 refuse every backward jump; later ones refuse loops that make no progress.",
    "Unroll it, give it a constant bound, or use bpf_loop (5.17); or use a kernel from 5.3 for bounded loops.",
    guide.LOAD_FAILED,
)
RETURN_VALUE = Code(
    "MSP-V109",
    "The program may return a value that the hook does not take",
    "A connect4 program must return 0 (refuse) or 1 (allow); the verifier saw another possible value.",
    "Return a constant, or limit the value before exit.",
    guide.LOAD_FAILED,
)
TOO_COMPLEX = Code(
    "MSP-V110",
    "The program is too big or too complex for the verifier",
    "Limits: 4,096 instructions without privilege, 131,072 steps before 5.2, 1,000,000 since; branches and states too.",
    "Make it smaller: fewer branches, bounded loops, bpf_loop, global functions (5.6).",
    guide.LOAD_FAILED,
)
STACK_SIZE = Code(
    "MSP-V111",
    "More stack than the 512 bytes that a program has",
    "Local variables of a function, or of the functions that call one another, together exceed the limit.",
    "Move big variables to a per-CPU array map.",
    guide.LOAD_FAILED,
)
GPL_ONLY = Code(
    "MSP-V112",
    "A helper for GPL programs only, in a program with another licence",
    "The helper (trace_printk, probe_read, perf_event_output …) is marked gpl_only; the object's licence is not GPL.",
    'Give the object a compatible licence (SEC("license") = "GPL", "Dual MIT/GPL" …) or do without the helper.',
    guide.LOAD_FAILED,
)
RELOCATION = Code(
    "MSP-V113",
    "A CO-RE relocation found nothing in this kernel's types",
    "The field or type that the program reads does not exist here, so the loader put in a call that cannot pass.",
    "Take an object for this kernel, or guard the access with bpf_core_field_exists; the kernel needs BTF of its own.",
    guide.LOAD_FAILED,
)
BTF = Code(
    "MSP-V114",
    "The object's type information (BTF) is refused",
    "This kernel does not know a kind or flag in the BTF, or a function's type does not fit what it needs.",
    "Load with a loader that adapts BTF to the kernel (libbpf, aya do), or strip the BTF the program does not need.",
    guide.LOAD_FAILED,
)
OUT_OF_BOUNDS = Code(
    "MSP-V115",
    "Memory may be accessed outside its bounds",
    "The offset is beyond the map value, stack, packet or buffer, or its range was not proved to be inside.",
    "Check the index against the size, with unsigned comparison, right before the access.",
    guide.LOAD_FAILED,
)
POINTER_ARITHMETIC = Code(
    "MSP-V116",
    "Arithmetic on a pointer that the verifier does not allow",
    "Only adding and subtracting bounded numbers is allowed, and not on every kind of pointer.",
    "Do the arithmetic on a number, bound it, then add it once to the base pointer.",
    guide.LOAD_FAILED,
)
NOT_A_POINTER = Code(
    "MSP-V117",
    "A number is used as if it were a pointer, or the wrong kind of pointer is used",
    "The register at a load, store or call holds another kind of value than needed.",
    "Follow the register back in the log to where it got its value; a lost pointer often came from a spill or a cast.",
    guide.LOAD_FAILED,
)
ARGUMENT_TYPE = Code(
    "MSP-V118",
    "A helper is given an argument of the wrong kind",
    "Each helper says what each argument must be (map, key, memory and its size, constant, context …).",
    "Compare with the helper's prototype in bpf-helpers(7); the log names the register and the expected kind.",
    guide.LOAD_FAILED,
)
POINTER_LEAK = Code(
    "MSP-V119",
    "A kernel address would be given away",
    "Without CAP_PERFMON (CAP_SYS_ADMIN before 5.8) a program may not store, return or compare kernel pointers.",
    "Load with the privilege, or do not let the pointer out.",
    guide.LOAD_FAILED,
)
REFERENCE = Code(
    "MSP-V120",
    "A reference is not given back, or given back twice",
    "What sk_lookup, ringbuf_reserve and other acquiring calls return must be released once on every path.",
    "Release it on each way out, after the NULL check.",
    guide.LOAD_FAILED,
)
LOCKING = Code(
    "MSP-V121",
    "Something that may not be done here while a lock is held or a section is open",
    "Calls, exits and nested locks are not allowed between lock and unlock; every open section must be closed.",
    "Unlock on every path before exit, and call nothing in between.",
    guide.LOAD_FAILED,
)
MALFORMED = Code(
    "MSP-V122",
    "The program's code is not well formed",
    "An unknown opcode, a jump outside the program, code that cannot be reached, or a last instruction that falls off.",
    "Compile with another version of the compiler or target (-mcpu=v2), or take an undamaged object.",
    guide.LOAD_FAILED,
)
MAP_USE = Code(
    "MSP-V123",
    "A map is used in a way that this kernel or this program type does not allow",
    "The helper does not fit the map's type, the map is not there, or its layout rules this use out.",
    "Check the map's type against the helper in bpf-helpers(7), and that the map was created.",
    guide.LOAD_FAILED,
)
ALIGNMENT = Code(
    "MSP-V124",
    "A memory access is not aligned",
    "On the stack, in the context and for atomic operations an access must be aligned to its own size.",
    "Align the field; do not pack structs that live on the stack.",
    guide.LOAD_FAILED,
)
NO_PRIVILEGE_TO_LOAD = Code(
    "MSP-V125",
    "The privilege to load is missing",
    "The process lacks CAP_BPF with CAP_NET_ADMIN (CAP_SYS_ADMIN before 5.8), or an LSM or lockdown forbids it: EPERM.",
    "Run as root outside a restricted container; look at CapEff, kernel.unprivileged_bpf_disabled and lockdown.",
    guide.LOAD_FAILED,
)
MEMLOCK = Code(
    "MSP-V126",
    "The limit on locked memory stops map creation",
    "Before 5.11 maps and programs are charged to RLIMIT_MEMLOCK; a small limit gives EPERM.",
    "Set LimitMEMLOCK=infinity in the unit (ulimit -l unlimited), or use a kernel from 5.11.",
    guide.LOAD_FAILED,
)
SLEEPABLE = Code(
    "MSP-V127",
    "A call that may sleep, where sleeping is not allowed",
    "The helper or kfunc may sleep; the program is not sleepable, or is inside a section that may not sleep.",
    "Make the program sleepable (its section name with .s) if its type can be, or do without the call.",
    guide.LOAD_FAILED,
)
DEAD_HOOK = Code(
    "MSP-V128",
    "What the program wants to attach to does not exist or may not be traced",
    "The attach target named at load time is not in this kernel's BTF, or not open to this program type.",
    "Check the name in /sys/kernel/btf/vmlinux and that the function is not inlined or denied.",
    guide.LOAD_FAILED,
)
KERNEL_BUG = Code(
    "MSP-V129",
    "The verifier met something that it says cannot happen",
    "A defect of this kernel's verifier; the program may be fine.",
    "Try the distribution's newest kernel; report it with the whole log.",
    guide.LOAD_FAILED,
)
TRUNCATED = Code(
    "MSP-V201",
    "The log is cut off before the refusal",
    "The agent cuts its message at 1,024 bytes; the line that says why stands after the cut.",
    "Get the whole message: the agent's own log in /var/log/azure-proxy-agent has it uncut.",
    guide.LOAD_FAILED,
)
UNKNOWN_COMPLAINT = Code(
    "MSP-V202",
    "A complaint of the verifier that is not in the catalogue",
    "The last lines before the statistics are the kernel's reason; this harness does not know their wording.",
    "Read the lines shown; report them so that the catalogue can grow.",
    guide.LOAD_FAILED,
)
ACCEPTED = Code(
    "MSP-V203",
    "The log shows no refusal",
    "It ends with the verifier's statistics and without a complaint: this is how the log of an accepted program ends.",
    "If loading failed all the same, the cause is after verification (JIT, memory, LSM): look at the errno and dmesg.",
    guide.LOAD_FAILED,
)
EMPTY_LOG = Code(
    "MSP-V204",
    "The load was refused with an empty verifier log",
    "The kernel refused before verifying: the program type (CONFIG_CGROUP_BPF), an attribute, or a privilege.",
    "`grep CGROUP_BPF /boot/config-$(uname -r)`; take the errno: EINVAL means type or attribute, EPERM privilege.",
    guide.LOAD_FAILED,
)
