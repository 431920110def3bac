"""Complaints about loops, size, return values, the shape of the code, type information, and the kernel itself."""

from __future__ import annotations

from harness.msp import verifier_codes as codes
from harness.verifier.complaints import Complaint

ROWS = (
    Complaint(
        "infinite-loop", codes.LOOP,
        (
            r"infinite loop detected at insn (?P<insn>\d{1,9})",
        ),
        says=(
            "The loop at instruction {insn} comes back with the same state: it makes no progress that the verifier "
            "can see."
        ),
        causes=(
            "a loop that waits for something outside the program",
            "a counter whose bound was lost",
        ),
        change="Count towards a constant bound.",
        required="progress in every round",
        found="the same state again",
        relaxed="Bounded loops from 5.3; bpf_loop from 5.17; open-coded iterators from 6.4.",
    ),
    Complaint(
        "back-edge", codes.LOOP,
        (
            r"back-edge from insn (?P<insn>\d{1,9}) to (?P<to>\d{1,9})",
        ),
        says="There is a jump backwards, and this kernel (or this privilege) takes none.",
        causes=(
            "a loop that the compiler did not unroll, on a kernel before 5.3",
            "a loop in a program loaded without privilege",
        ),
        change="`#pragma unroll` with a constant bound, or a kernel from 5.3 and CAP_BPF.",
        required="only jumps forward",
        found="a jump from {insn} to {to}",
        relaxed="From 5.3 for privileged programs.",
        unprovoked=(
            "6.18 says it to unprivileged programs only, and kernel.unprivileged_bpf_disabled forbids those here"
        ),
    ),
    Complaint(
        "too-large", codes.TOO_COMPLEX,
        (
            r"BPF program is too large\. Processed (?P<count>\d{1,10}) insn",
            r"BPF program is too complex",
        ),
        says="The verifier gave up after {count} steps: too many paths through the program.",
        causes=(
            "loops with many rounds and branches inside",
            "many branches that multiply",
        ),
        change="Fewer branches in loops, bpf_loop, or global functions that are verified once.",
        required="at most 1,000,000 steps (131,072 before 5.2)",
        found="{count}",
        relaxed="131,072 steps before 5.2, 1,000,000 since (4,096 instructions without privilege).",
    ),
    Complaint(
        "too-many-jumps", codes.TOO_COMPLEX,
        (
            r"The sequence of (?P<count>\d{1,9}) jumps is too complex",
            r"BPF: The sequence of (?P<count>\d{1,9}) jumps",
        ),
        says="More than 8,192 branches wait to be looked at on one path.",
        causes=(
            "a long series of comparisons, or a loop with a branch that never gets pruned",
        ),
        change="Use a table (map) instead of comparisons; break the loop up.",
        required="at most 8,192 branches waiting",
        found="{count}",
        relaxed="1,024 in the kernels of 2018, 8,192 today.",
    ),
    Complaint(
        "return-value", codes.RETURN_VALUE,
        (
            r"At (?:program exit|callback return|async callback return) the register R0 has (?P<got>.{1,120}?) "
            r"should have been in (?P<want>.{1,60})",
            r"At program exit the register R0 is not a known value",
            r"R0 is not a known value \((?P<got>[^)\n]{1,60})\)",
        ),
        says="The program may return {got}; the hook takes {want}.",
        causes=(
            "a helper's result or a map value is returned directly",
            "a return code of another hook (XDP_PASS, -EPERM) is used",
        ),
        change="Return the constants 0 (refuse) or 1 (allow) in connect4.",
        required="a value in {want}",
        found="{got}",
        relaxed="bind hooks take 0 to 3 from 5.12; recvmsg hooks exactly 1 from 5.2.",
    ),
    Complaint(
        "unreachable", codes.MALFORMED,
        (
            r"unreachable insn (?P<insn>\d{1,9})",
        ),
        says="Instruction {insn} can never be reached.",
        causes=(
            "a compiler that left dead code (calls that do not return, unreachable())",
            "a damaged object",
        ),
        change="Compile with optimisation; remove code after a call that the compiler thinks does not return.",
        required="a way to every instruction",
        found="none to {insn}",
    ),
    Complaint(
        "jump-out-of-range", codes.MALFORMED,
        (
            r"jump out of range from insn (?P<insn>\d{1,9}) to (?P<to>-?\d{1,10})",
            r"jump into the middle of ldimm64 insn (?P<to>\d{1,9})",
        ),
        says="A jump at {insn} leads outside the program or function, to {to}.",
        causes=(
            "a damaged object, or relocations that were not applied",
        ),
        change="Load the object by a loader that handles its relocations; compile anew.",
        required="a target inside the function",
        found="{to}",
    ),
    Complaint(
        "no-exit", codes.MALFORMED,
        (
            r"last insn is not an exit or jmp",
            r"no program \(reached the end\)|fell through",
        ),
        says="The program or a function runs off its end.",
        causes=(
            "a function that ends in a call that does not return",
            "an empty function",
        ),
        change="End each function with a return.",
        required="an exit or jump as last instruction",
        found="another instruction",
    ),
    Complaint(
        "call-destination", codes.MALFORMED,
        (
            r"call to invalid destination",
            r"number of funcs in func_info doesn't match number of subprogs",
            r"func_info BTF section doesn't match subprog layout",
        ),
        says="A call between functions does not lead to a function's start.",
        causes=(
            "functions were not put together by the loader",
            "an object linked or stripped wrongly",
        ),
        change="Load it with a loader that links functions (libbpf, aya), from an undamaged object.",
        required="a call to the start of a function",
        found="another place",
    ),
    Complaint(
        "reserved-fields", codes.MALFORMED,
        (
            r"(?P<op>BPF_\w{1,24}) uses reserved fields",
            r"unrecognized bpf_ld_imm64 insn",
        ),
        says="{op} has bits set that this kernel does not know.",
        causes=(
            "an instruction of a newer instruction set (-mcpu=v3 or v4) on an older kernel",
            "a damaged object",
        ),
        change="Compile with -mcpu=v2 (or v1).",
        required="zero in the unused fields",
        found="something else",
        relaxed="-mcpu=v2 from 4.14, v3 from 5.1, v4 from 6.6.",
    ),
    Complaint(
        "unknown-opcode", codes.MALFORMED,
        (
            r"unknown opcode (?P<op>[0-9a-f]{1,4})",
            r"invalid BPF_\w{1,24} (?:op|mode|opcode)",
            r"unknown insn class \d{1,3}",
            r"BPF_\w{1,24} invalid opcode",
        ),
        says="Opcode {op} does not exist in this kernel.",
        causes=(
            "an instruction set newer than the kernel (-mcpu=v3 or v4)",
            "a damaged object",
        ),
        change="Compile with -mcpu=v2 (or v1).",
        required="an opcode that this kernel has",
        found="{op}",
        relaxed="32-bit jumps from 5.1, atomics from 5.12, v4 from 6.6.",
    ),
    Complaint(
        "register-number", codes.MALFORMED,
        (
            r"R(?P<reg>1[1-9]|[2-9]\d) is invalid",
        ),
        says="Register R{reg} does not exist.",
        causes=(
            "a damaged object",
            "bytes of another machine's order",
        ),
        change="Compile for this machine's byte order (bpfel or bpfeb).",
        required="R0 to R10",
        found="R{reg}",
    ),
    Complaint(
        "ld-imm64", codes.MALFORMED,
        (
            r"invalid bpf_ld_imm64 insn",
            r"invalid BPF_LD_IMM insn",
        ),
        says="The second half of a 64-bit load is missing or wrong.",
        causes=(
            "a damaged object, or code patched by hand",
        ),
        change="Compile anew.",
        required="a second half of zeros and the upper word",
        found="another instruction",
    ),
    Complaint(
        "packet-instruction", codes.MALFORMED,
        (
            r"BPF_LD_\[ABS\|IND\] instructions not allowed for this program type",
            r"BPF_LD_\[ABS\|IND\] \S{1,40}",
        ),
        says="Instructions that load from a packet are used where there is no packet.",
        causes=(
            "a socket filter's code in a program of another type",
        ),
        change="Load it as the type it was written for.",
        required="a program type that has a packet",
        found="this type",
    ),
    Complaint(
        "division-by-zero", codes.MALFORMED,
        (
            r"div by zero",
            r"invalid shift (?P<by>-?\d{1,10})",
        ),
        says="A division by the constant zero, or a shift by a constant that is not below the width.",
        causes=(
            "a constant that the compiler computed (wrong macro, empty array size)",
        ),
        change="Correct the constant.",
        required="a divisor other than 0; a shift below 32 or 64",
        found="0, or {by}",
    ),
    Complaint(
        "btf-type", codes.BTF,
        (
            r"\[(?P<id>\d{1,9})\].{0,200}(?P<what>Invalid \S.{0,80}|\S+ exceeds \S.{0,60}|vlen != 0.{0,40}|"
            r"Unsupported .{1,60})",
            r"(?P<what>No type found|Invalid magic|Unsupported version|No string section|Invalid name.{0,40})",
        ),
        says="Type {id} of the object's BTF is refused: {what}.",
        causes=(
            "a kind of type that this kernel does not know (FUNC 5.0, DATASEC 5.2, FLOAT 5.13, DECL_TAG 5.16, "
            "TYPE_TAG 5.17, ENUM64 6.0)",
            "BTF written by a compiler newer than the loader",
        ),
        change="Use a loader that adapts BTF to the kernel, or strip the object's .BTF if the kernel does not need it.",
        required="BTF that this kernel understands",
        found="{what}",
        relaxed="Each kernel knows more kinds; loaders probe and adapt.",
    ),
    Complaint(
        "btf-missing", codes.BTF,
        (
            r"kernel is missing BTF, make sure CONFIG_DEBUG_INFO_BTF=y",
            r"in-kernel BTF is malformed",
            r"btf_vmlinux is malformed",
            r"missing btf(?:_vmlinux| func_info)",
        ),
        says="The kernel has no usable type information of its own.",
        causes=(
            "CONFIG_DEBUG_INFO_BTF is off",
            "the BTF was made by a pahole that does not fit",
        ),
        change="Use a kernel with /sys/kernel/btf/vmlinux, or an object that does not need it.",
        required="kernel BTF",
        found="none",
        unprovoked="the running kernel has BTF",
    ),
    Complaint(
        "kernel-bug", codes.KERNEL_BUG,
        (
            r"verifier bug",
            r"verifier internal error",
            r"kernel subsystem misconfigured",
            r"REG INVARIANTS VIOLATION",
            r"BUG: |WARNING: .{1,80}verifier",
        ),
        says="The verifier met a state that it holds to be impossible, or a kernel that is put together wrongly.",
        causes=(
            "a defect of this kernel",
            "type ids that do not fit the running kernel",
        ),
        change="Try the newest kernel of the distribution, and report it.",
        required="–",
        found="a defect of the kernel",
        unprovoked="would need a defect of the running kernel",
    ),
    Complaint(
        "no-privilege", codes.NO_PRIVILEGE_TO_LOAD,
        (
            r"(?:attach to|use of|loading|access to) .{1,60} (?:is )?(?:only )?allowed (?:only )?(?:for|to) (?:root|"
            r"CAP_\w{1,24})",
            r"\S{1,60} not allowed for unprivileged",
            r"function calls to other bpf functions are allowed for (?:root|CAP_\w{1,24})",
            r"Verifier log: (?:Operation not permitted)",
        ),
        says="This needs more privilege than the loader has.",
        causes=(
            "the loader runs in a container or unit without CAP_BPF, CAP_PERFMON or CAP_NET_ADMIN",
        ),
        change="Give the process the capabilities, or run it as root on the host.",
        required="CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8)",
        found="less",
        unprovoked="kernel.unprivileged_bpf_disabled refuses such loads here before they are verified",
    ),
)  # fmt: skip
