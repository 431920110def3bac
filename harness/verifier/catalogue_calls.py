"""Complaints about calls, their arguments, maps, references and locks."""

from __future__ import annotations

from harness.msp import verifier_codes as codes
from harness.verifier.complaints import Complaint

ROWS = (
    Complaint(
        "core-relocation", codes.RELOCATION,
        (
            r"invalid func unknown#195896080",
            r"failed to resolve CO-RE relocation (?P<what>.{1,200})",
        ),
        says=(
            "The loader found no counterpart in this kernel for a type or field the program reads (0xbad2310 marks "
            "the place)."
        ),
        causes=(
            "the field was renamed, moved or removed in this kernel",
            "the object was built against other headers",
            "this kernel's BTF was not found, or is another kernel's",
        ),
        change="Take the agent's release for this kernel, or read the field only where bpf_core_field_exists says so.",
        required="a type and field that exist in /sys/kernel/btf/vmlinux",
        found="no match ({what})",
    ),
    Complaint(
        "helper-not-allowed", codes.HELPER_NOT_ALLOWED,
        (
            r"(?:unknown func|program of this type cannot use helper) (?P<helper>\w{1,64})#(?P<number>\d{1,9})",
        ),
        says="This kernel does not let a program of this type call {helper}.",
        causes=(
            "the kernel is older than the release that allowed the helper for this program type",
            "a configuration option that the helper needs is off (CONFIG_NET, CONFIG_CGROUPS …)",
        ),
        change=(
            "Upgrade the kernel past the version that allows it for this type, or use a program that does not call it."
        ),
        required="a helper that this program type may call",
        found="a call to {helper} (#{number})",
        relaxed=(
            "Each release allows more: for connect4, get_socket_cookie from 4.19, get_current_pid_tgid, comm and "
            "cgroup ids from 5.7, setsockopt from 5.8."
        ),
    ),
    Complaint(
        "helper-unknown", codes.HELPER_UNKNOWN,
        (
            r"invalid func (?P<helper>\w{1,64})#(?P<number>-?\d{1,10})",
        ),
        says="This kernel has no helper of that number.",
        causes=(
            "the object was built for a newer kernel",
            "the object is damaged, or its relocations were not applied",
        ),
        change="Upgrade the kernel, or load an object built for it.",
        required="a helper number that this kernel has",
        found="number {number}",
    ),
    Complaint(
        "kfunc-not-a-function", codes.KFUNC_MISSING,
        (
            r"kernel btf_id (?P<id>\d{1,10}) is not a function",
            r"kernel function btf_id (?P<id>\d{1,10}) does not have a valid func_proto",
            r"calling kernel function (?P<name>\S{1,128}) is not allowed",
            r"kernel function (?P<name>\S{1,128}) is not supported",
            r"invalid kernel function call not eliminated in verifier pass",
            r"cannot find address for kernel function (?P<name>\S{1,128})",
        ),
        says="The kernel function that the program calls is not in this kernel, or not for this program type.",
        causes=(
            "the kernel is older than the kfunc",
            "the kfunc is registered for other program types only",
            "the module that has it is not loaded",
        ),
        change="Declare the kfunc __ksym __weak and test for it, or use a kernel that has it.",
        required="a kernel function that this program type may call",
        found="{name} (BTF id {id})",
        relaxed="Kernel functions exist from 5.13; which are allowed where grows with each release.",
    ),
    Complaint(
        "kfunc-unsupported", codes.KFUNC_MISSING,
        (
            r"calling kernel functions are not allowed in non-JITed programs",
            r"JIT does not support calling kernel function",
            r"JIT doesn't support bpf-to-bpf calls with kfunc",
            r"calling kernel functions? from non-?GPL",
        ),
        says=(
            "Kernel functions cannot be called in this setting (no JIT, or a JIT that cannot, or a licence that is "
            "not GPL)."
        ),
        causes=(
            "net.core.bpf_jit_enable is 0 or the kernel has no JIT for this machine",
        ),
        change="Turn the JIT on (sysctl net.core.bpf_jit_enable=1) or use a kernel that has one.",
        required="a JIT that supports kernel functions",
        found="none",
        unprovoked="would need the JIT of the whole machine switched off",
    ),
    Complaint(
        "gpl-only", codes.GPL_ONLY,
        (
            r"cannot call GPL[- ]restricted function from non-GPL compatible program",
            r"cannot call GPL only function from proprietary program",
        ),
        says="The helper may be called by GPL-compatible programs only.",
        causes=(
            "the object's licence section says something else than a GPL-compatible licence, or is missing",
        ),
        change=(
            'Set the licence to "GPL" (or Dual MIT/GPL, Dual BSD/GPL), or do not call trace_printk, probe_read and '
            "the like."
        ),
        required="a GPL-compatible licence",
        found="another licence",
        relaxed="ktime_get_ns and others were freed over time (5.8).",
    ),
    Complaint(
        "helper-might-sleep", codes.SLEEPABLE,
        (
            r"helper call might sleep in a non-sleepable prog",
            r"helper call is not allowed in probe",
            r"sleepable helper (?P<helper>\S{1,64}) in \S{1,40}",
            r"kernel func (?P<helper>\S{1,64}) is sleepable within \S{1,60}",
            r"program must be sleepable to call sleepable kfunc (?P<helper>\S{1,64})",
        ),
        says="The call may sleep, and the program may not.",
        causes=(
            "the program's section lacks .s",
            "the call stands between lock and unlock or in an RCU section",
        ),
        change="Load it as a sleepable program, or move the call out.",
        required="a context that may sleep",
        found="one that may not",
        unprovoked="no helper that a cgroup or socket program may call sleeps",
    ),
    Complaint(
        "syscall-sleepable", codes.SLEEPABLE,
        (
            r"Syscall programs can only be sleepable",
            r"Only (?:fentry|fexit|lsm|.{1,120}) programs can be sleepable",
        ),
        says="The program's type and its sleepable flag do not go together.",
        causes=(
            "the loader does not set BPF_F_SLEEPABLE, or sets it for a type that cannot",
        ),
        change="Use the section name with .s for the types that can sleep, and only for them.",
        required="the sleepable flag that the type asks for",
        found="the other one",
    ),
    Complaint(
        "tracing-without-target", codes.DEAD_HOOK,
        (
            r"Tracing programs must provide btf_id",
            r"attach_btf_id (?P<id>\d{1,10}) is (?:invalid|not a function)",
            r"(?P<name>\S{1,128}) is not a (?:modifiable|sleepable|function)",
        ),
        says="The kernel function that the program wants to be attached to is missing or may not be traced.",
        causes=(
            "the function does not exist in this kernel, or is inlined",
        ),
        change="Attach to a function that /sys/kernel/btf/vmlinux has, or by kprobe.",
        required="a traceable function of this kernel",
        found="{name} ({id})",
        unprovoked="6.18 refuses such a load before verifying, with an empty log",
    ),
    Complaint(
        "map-type", codes.MAP_USE,
        (
            r"expected prog array map for tail call",
            r"cannot pass map_type (?P<type>\d{1,4}) into func (?P<helper>\w{1,64})#\d{1,9}",
            r"tail_call abusing map_ptr",
        ),
        says="The helper does not work on a map of this type.",
        causes=(
            "the wrong map was given",
            "two maps were swapped when the object was loaded",
        ),
        change="Give the helper a map of the type it is for.",
        required="a map type that the helper takes",
        found="map type {type}",
    ),
    Complaint(
        "map-not-there", codes.MAP_USE,
        (
            r"fd (?P<fd>-?\d{1,10}) is not pointing to valid bpf_map",
            r"unrecognized bpf_ld_imm64 insn",
            r"invalid map idx",
        ),
        says="An instruction names a map by a descriptor that is not a map's.",
        causes=(
            "the loader did not create the map, or did not put its descriptor into the code",
        ),
        change="See why map creation failed before; load by a loader that relocates maps.",
        required="the descriptor of a map",
        found="descriptor {fd}",
    ),
    Complaint(
        "lock-without-type", codes.MAP_USE,
        (
            r"map '[^'\n]{0,16}' has to have BTF in order to use (?P<what>\w{1,32})",
            r"map '[^'\n]{0,16}' has no valid (?P<what>\w{1,32})",
            r"map has no valid (?P<what>\w{1,32})",
            r"map '[^'\n]{0,16}' has (?:no|more than one) '?struct (?P<what>\w{1,32})",
        ),
        says="The map's value holds no {what} that the kernel knows of.",
        causes=(
            "the map was created without type information",
            "the value's struct does not hold that member",
        ),
        change="Create the map with BTF and the member in its value struct.",
        required="a map whose BTF has a {what}",
        found="none",
    ),
    Complaint(
        "lock-held", codes.LOCKING,
        (
            r"function calls are not allowed while holding a lock",
            r"bpf_spin_unlock (?:is missing|without taking a lock|of different lock)",
            r"Locking two bpf_spin_locks are not allowed",
            r"BPF_EXIT instruction cannot be used inside bpf_\w{1,40}",
            r"(?:bpf_rcu_read_unlock|bpf_preempt_enable|bpf_spin_unlock) is missing",
            r"unmatched rcu read unlock",
            r"tail_call is not allowed|tail_call cannot be used inside",
            r"BPF_EXIT instruction in main prog cannot be used inside \S{1,60}",
        ),
        says="A lock or protected section is open where it must not be, or is closed without being open.",
        causes=(
            "a way out of the function without unlocking",
            "a call between lock and unlock",
        ),
        change="Unlock on every path, and call nothing in between.",
        required="no lock held here",
        found="a lock held",
        unprovoked="needs a map with the type information of a lock, which the tests do not build",
    ),
    Complaint(
        "reference-leak", codes.REFERENCE,
        (
            r"Unreleased reference id=(?P<id>\d{1,9}),? alloc_insn=(?P<insn>\d{1,9})",
            r"BPF_EXIT instruction in main prog would lead to reference leak",
            r"tail_call would lead to reference leak",
        ),
        says="What was acquired at instruction {insn} is not released on this path.",
        causes=(
            "an early return between acquiring and releasing",
            "the NULL check is the wrong way round",
        ),
        change="Release it (bpf_sk_release, bpf_ringbuf_discard …) on every way out.",
        required="every reference released before exit",
        found="reference {id} of instruction {insn} still held",
        relaxed="References exist from 4.20 (sk_lookup) and 5.8 (ring buffer).",
    ),
    Complaint(
        "reference-not-owned", codes.REFERENCE,
        (
            r"R(?P<reg>\d{1,2}) must be referenced when passed to release function",
            r"release of unowned object",
            r"reference has not been acquired before",
            r"arg \d must be referenced when passed to release function",
        ),
        says="R{reg} is released, but is not a reference that the program owns.",
        causes=(
            "released twice",
            "a pointer from the context is released, which needs no release",
        ),
        change="Release only what an acquiring call returned, once.",
        required="an owned reference in R{reg}",
        found="a pointer that is not owned",
    ),
    Complaint(
        "argument-type", codes.ARGUMENT_TYPE,
        (
            r"R(?P<reg>\d{1,2}) type=(?P<got>\S{1,40}) expected=(?P<want>.{1,200})",
            r"arg#(?P<reg>\d{1,2}) expected (?P<want>.{1,120}) but got (?P<got>.{1,80})",
            r"R(?P<reg>\d{1,2}) expected pointer to (?P<want>\S{1,40})",
        ),
        says="The argument in R{reg} is {got}, where {want} is needed.",
        causes=(
            "arguments in the wrong order",
            "a result that may be NULL passed on without a check",
            "a number where memory is needed",
        ),
        change="Pass what the helper's prototype says; check lookups for NULL before passing them on.",
        required="{want}",
        found="{got}",
        relaxed="Map values as map keys from 4.18; NULL for some arguments, by helper.",
    ),
    Complaint(
        "possibly-null-argument", codes.NULL_CHECK_MISSING,
        (
            r"Possibly NULL pointer passed to (?P<what>.{1,60})",
            r"NULL pointer passed to trusted (?P<what>.{1,40})",
            r"R(?P<reg>\d{1,2}) may be (?:a )?NULL",
        ),
        says="An argument may be NULL where it must not be ({what}).",
        causes=(
            "the result of a lookup or an acquiring call is passed on unchecked",
        ),
        change="Check for NULL first.",
        required="a pointer that is not NULL",
        found="one that may be",
        unprovoked=(
            "the wording is that of kernel functions' arguments; helpers in a connect4 program say type= expected="
        ),
    ),
    Complaint(
        "size-unbounded", codes.OUT_OF_BOUNDS,
        (
            r"R(?P<reg>\d{1,2}) unbounded memory access, use 'var &= const' or 'if \(var < const\)'",
        ),
        says="The size in R{reg} has no upper bound.",
        causes=(
            "a length from outside is passed to a helper unchecked",
        ),
        change="Limit it: `size &= MAX` or `if (size > MAX) return`.",
        required="a size with an upper bound",
        found="no bound",
    ),
    Complaint(
        "size-negative", codes.OUT_OF_BOUNDS,
        (
            r"R(?P<reg>\d{1,2}) min value is negative, either use unsigned or 'var &= const'",
        ),
        says="The size in R{reg} may be negative.",
        causes=(
            "a signed length",
            "a number whose lower bound was lost",
        ),
        change="Use an unsigned type, or check for values below zero.",
        required="a size that is at least 0",
        found="one that may be negative",
    ),
    Complaint(
        "size-zero", codes.OUT_OF_BOUNDS,
        (
            r"R(?P<reg>\d{1,2}) invalid zero-sized read",
            r"invalid zero size",
        ),
        says="The size in R{reg} may be 0, and this helper needs at least 1.",
        causes=(
            "the length was limited above, but not below",
        ),
        change="Check that it is at least 1.",
        required="a size of at least 1",
        found="0 is possible",
    ),
    Complaint(
        "call-too-deep", codes.STACK_SIZE,
        (
            r"the call stack of (?P<frames>\d{1,3}) frames is too deep",
        ),
        says="Functions call one another {frames} deep; eight is the limit.",
        causes=(
            "a long chain of functions that the compiler did not inline",
            "recursion",
        ),
        change="Inline (__always_inline) or flatten the calls.",
        required="at most 8 frames",
        found="{frames}",
    ),
    Complaint(
        "recursion", codes.LOOP,
        (
            r"recursive call from (?P<one>\S{1,64}) to (?P<two>\S{1,64})",
            r"recursive call",
        ),
        says="A function calls itself.",
        causes=(
            "recursion in the source",
        ),
        change="Use a loop.",
        required="no recursion",
        found="a call from {one} to {two}",
        unprovoked="6.18 says that the call stack is too deep instead",
    ),
    Complaint(
        "tail-call-without-jit", codes.MAP_USE,
        (
            r"tail_calls are not allowed in (?:non-JITed )?programs with bpf-to-bpf calls",
            r"mixing of tail_calls and bpf-to-bpf calls is not supported",
        ),
        says="Tail calls and calls between functions cannot be mixed here.",
        causes=(
            "the kernel is older than 5.10, or has no JIT that can do it",
        ),
        change="Inline the functions, or use a kernel from 5.10 with JIT.",
        required="one or the other",
        found="both",
        relaxed="From 5.10 on x86-64 with JIT.",
        unprovoked="would need the JIT of the whole machine switched off",
    ),
)  # fmt: skip
