"""Complaints about registers, pointers and memory."""

from __future__ import annotations

from harness.msp import verifier_codes as codes
from harness.verifier.complaints import Complaint

ROWS = (
    Complaint(
        "null-arithmetic", codes.NULL_CHECK_MISSING,
        (
            r"R(?P<reg>\d{1,2}) pointer arithmetic on (?P<kind>\S{1,40}_or_null) prohibited, null-check it first",
        ),
        says="R{reg} may be NULL and is computed with before that was checked.",
        causes=(
            "the offset of a field is added before the NULL check (often by the compiler)",
        ),
        change="Check the pointer itself for NULL right after the lookup.",
        required="a pointer that was compared with NULL",
        found="{kind}",
    ),
    Complaint(
        "null-check-missing", codes.NULL_CHECK_MISSING,
        (
            r"R(?P<reg>\d{1,2}) invalid mem access '(?P<kind>\S{1,40}_or_null)'",
        ),
        says="R{reg} may be NULL and is followed without a check.",
        causes=(
            "the result of bpf_map_lookup_elem is used directly",
            "the check is on another variable or another path",
        ),
        change="`if (!value) return 1;` before the first use.",
        required="a pointer that was compared with NULL",
        found="{kind}",
        relaxed="The newest kernels see that an array map's element at a constant index in range is never NULL.",
    ),
    Complaint(
        "not-a-pointer", codes.NOT_A_POINTER,
        (
            r"R(?P<reg>\d{1,2}) invalid mem access '(?P<kind>[^'\n]{1,60})'",
        ),
        says="R{reg} is used as an address, but holds {kind}.",
        causes=(
            "a pointer went through memory or arithmetic that the verifier does not follow",
            "a kernel address is read directly instead of by bpf_probe_read_kernel or CO-RE",
        ),
        change="Read kernel memory by probe_read; keep pointers in registers or spill them whole (8 bytes).",
        required="a pointer to memory that may be read",
        found="{kind} in R{reg}",
        relaxed="Numbers are called inv up to 5.17 and scalar from 5.18.",
    ),
    Complaint(
        "register-not-readable", codes.UNINITIALISED_REGISTER,
        (
            r"R(?P<reg>\d{1,2}) !read_ok",
        ),
        says="R{reg} is read, but nothing was written to it on this path.",
        causes=(
            "R1 to R5 were used after a call, which clobbers them",
            "a function has a path without return value (R0)",
        ),
        change="Initialise the variable on every path; reload what a call clobbers.",
        required="a value in R{reg}",
        found="none",
    ),
    Complaint(
        "frame-pointer-written", codes.MALFORMED,
        (
            r"frame pointer is read only",
        ),
        says="R10, the frame pointer, is written.",
        causes=(
            "hand-written assembly",
            "a damaged object",
        ),
        change="Use another register.",
        required="another register",
        found="R10",
    ),
    Complaint(
        "stack-variable-unprivileged", codes.POINTER_LEAK,
        (
            r"R(?P<reg>\d{1,2}) variable stack access prohibited for !root",
            r"R(?P<reg>\d{1,2}) indirect variable offset stack access prohibited for !root",
            r"variable stack access var_off=\S{1,80}",
        ),
        says="The stack is accessed at an offset that is not constant, which needs privilege.",
        causes=(
            "an array on the stack is indexed by a variable",
        ),
        change="Load with CAP_PERFMON, or use a constant index or a map.",
        required="a constant offset",
        found="a variable one",
        relaxed="Privileged programs may from 5.12.",
    ),
    Complaint(
        "stack-variable", codes.OUT_OF_BOUNDS,
        (
            r"invalid (?:unbounded )?variable-offset(?: indirect)? (?:read|write|access)? ?(?:from|to) stack "
            r"R(?P<reg>\d{1,2})",
            r"R(?P<reg>\d{1,2}) (?:max|min) value is outside of stack bound",
            r"R(?P<reg>\d{1,2}) unbounded indirect variable offset stack access",
        ),
        says="An access to the stack at a variable offset may fall outside it, or on bytes that were not written.",
        causes=(
            "an array on the stack is indexed without a bound",
        ),
        change="Bound the index, and initialise the whole array.",
        required="an offset within the written stack",
        found="one that may be outside",
    ),
    Complaint(
        "stack-out-of-bounds", codes.OUT_OF_BOUNDS,
        (
            r"invalid write to stack R(?P<reg>\d{1,2}) off=(?P<off>-?\d{1,10}) size=(?P<size>\d{1,9})",
            r"invalid stack off=(?P<off>-?\d{1,10}) size=(?P<size>\d{1,9})",
            r"invalid stack type R(?P<reg>\d{1,2}) off=(?P<off>-?\d{1,10}) access_size=(?P<size>\d{1,9})",
        ),
        says="{size} bytes at offset {off} are outside the stack's 512 bytes.",
        causes=(
            "too many or too large local variables",
            "an index outside an array on the stack",
        ),
        change="Use less stack, or a per-CPU array map.",
        required="an offset from -512 up to -size",
        found="offset {off}, size {size}",
    ),
    Complaint(
        "stack-not-initialised", codes.UNINITIALISED_STACK,
        (
            r"invalid(?: indirect)?(?: read)? (?:read from|access to) stack (?:R(?P<reg>\d{1,2}) )?off[ "
            r"=](?P<off>-?\d{1,10}(?:\+\d{1,6})?) size[ =](?P<size>\d{1,9})",
            r"invalid indirect read from stack (?:R(?P<reg>\d{1,2}) )?off (?P<off>-?\d{1,10}(?:\+\d{1,6})?) size "
            r"(?P<size>\d{1,9})",
            r"invalid read from stack (?:R(?P<reg>\d{1,2}) )?(?:off|var_off)",
        ),
        says=(
            "{size} bytes of stack at offset {off} are read, and not all of them were written (or they end outside "
            "the stack)."
        ),
        causes=(
            "padding inside a struct that is given to a helper as key or value",
            "a variable set on one path only",
            "a size larger than the variable",
        ),
        change="Zero the struct with memset or declare it without padding; give the helper sizeof the variable.",
        required="{size} written bytes",
        found="bytes that were never written",
        relaxed="From 6.3 programs with CAP_PERFMON may read such bytes; older kernels refuse them for root as well.",
    ),
    Complaint(
        "stack-combined", codes.STACK_SIZE,
        (
            r"combined stack size of (?P<calls>\d{1,4}) calls is (?P<size>\d{1,9})\. Too large",
            r"stack limit exceeded",
            r"stack size \d{1,9} is too large",
        ),
        says="The functions that call one another need {size} bytes of stack together; 512 is the limit.",
        causes=(
            "large local variables in several functions",
        ),
        change="Move large variables to a per-CPU array map, or inline functions so that they share stack.",
        required="at most 512 bytes",
        found="{size} bytes in {calls} frames",
        relaxed="256 bytes when tail calls are used in functions.",
    ),
    Complaint(
        "context-access", codes.CONTEXT_ACCESS,
        (
            r"invalid bpf_context access off=(?P<off>-?\d{1,10}) size=(?P<size>\d{1,9})",
            r"invalid context access off=(?P<off>-?\d{1,10}) size=(?P<size>\d{1,9})",
        ),
        says="{size} bytes at offset {off} of the context may not be accessed like this.",
        causes=(
            "the field is read-only, or not for this attach type (user_ip6 in connect4)",
            "a width that the field does not allow (8 bytes at user_port)",
            "a field that a newer kernel added",
        ),
        change="Use the field's own width; in connect4 write user_ip4 and user_port only, 4 bytes each.",
        required="a field, width and direction that this program type allows",
        found="offset {off}, size {size}",
        relaxed=(
            "bpf_sock_addr: user_ip4 at 4, user_port at 24, protocol at 36 from 4.17; msg_src from 4.18; sk at 64 "
            "from 5.3."
        ),
    ),
    Complaint(
        "context-modified", codes.CONTEXT_ACCESS,
        (
            r"dereference of modified (?P<kind>\S{1,40}) ptr R(?P<reg>\d{1,2})",
            r"negative offset ctx ptr R(?P<reg>\d{1,2})",
        ),
        says="R{reg} is the context pointer with an offset added; only fixed offsets in the access itself are allowed.",
        causes=(
            "the compiler computed the field's address first (often for two neighbouring fields)",
        ),
        change="Read fields one by one; an asm volatile barrier or -O2 with another compiler version may help.",
        required="the unmodified {kind} pointer",
        found="one with an offset added",
    ),
    Complaint(
        "context-variable", codes.CONTEXT_ACCESS,
        (
            r"variable (?P<kind>\S{1,40}) access var_off=(?P<off>.{1,80}?) disallowed",
        ),
        says="The context is accessed at an offset that is not constant.",
        causes=(
            "an array in the context (user_ip6, msg_src_ip6) is indexed by a variable",
        ),
        change="Unroll the loop over it.",
        required="a constant offset",
        found="{off}",
    ),
    Complaint(
        "context-store", codes.CONTEXT_ACCESS,
        (
            r"BPF_(?:ATOMIC|XADD|ST) stores into R(?P<reg>\d{1,2}) (?P<kind>\S{1,40}) is not allowed",
        ),
        says="This kind of store into {kind} is not allowed.",
        causes=(
            "an atomic operation on the context",
            "a constant stored directly (BPF_ST), before kernels that allow it",
        ),
        change="Load the value into a register and store that.",
        required="a store from a register",
        found="another kind of store to {kind}",
        relaxed="BPF_ST into the context from 6.4.",
    ),
    Complaint(
        "map-value-negative", codes.OUT_OF_BOUNDS,
        (
            r"R(?P<reg>\d{1,2}) min value is negative, either use unsigned index",
            r"R(?P<reg>\d{1,2}) min value is negative",
        ),
        says="The offset in R{reg} may be negative.",
        causes=(
            "a signed index",
            "an index whose lower bound was lost in 32-bit arithmetic",
        ),
        change="Use an unsigned index, or check `index >= 0`.",
        required="an offset of at least 0",
        found="one that may be negative",
    ),
    Complaint(
        "map-value-unbounded", codes.OUT_OF_BOUNDS,
        (
            r"R(?P<reg>\d{1,2}) unbounded memory access, make sure to bounds check",
            r"R(?P<reg>\d{1,2}) unbounded memory access",
        ),
        says="The offset in R{reg} has no upper bound.",
        causes=(
            "an index from outside is used unchecked",
            "the check was on a copy that the compiler did not keep",
        ),
        change="Check the index against the size right before the access; mask it (`index &= SIZE - 1`).",
        required="an offset with an upper bound",
        found="no bound",
    ),
    Complaint(
        "packet-bounds", codes.OUT_OF_BOUNDS,
        (
            r"invalid access to packet, off=(?P<off>-?\d{1,10}) size=(?P<size>\d{1,9})",
            r"R(?P<reg>\d{1,2}) offset is outside of the packet",
        ),
        says="Packet bytes are read without a check against data_end.",
        causes=(
            "no comparison with data_end before the access",
            "a helper that may move the packet was called after the check",
        ),
        change="Compare `data + size` with data_end right before, and again after such helpers.",
        required="a check that off + size is within the packet",
        found="none for offset {off}, size {size}",
    ),
    Complaint(
        "map-read-only", codes.MAP_USE,
        (
            r"(?P<what>write into|read from) map forbidden",
            r"write to change key R\d{1,2} not allowed",
            r"R(?P<reg>\d{1,2}) cannot write into (?P<kind>\S{1,40})",
        ),
        says="The map or memory may not be accessed in this direction (write to read-only data, or the reverse).",
        causes=(
            "a const variable (.rodata) is written",
            "the map was created with BPF_F_RDONLY_PROG or BPF_F_WRONLY_PROG",
        ),
        change="Put what is written into another map or .data.",
        required="the other direction",
        found="{what} a map that forbids it",
    ),
    Complaint(
        "map-value-out-of-bounds", codes.OUT_OF_BOUNDS,
        (
            r"invalid access to (?P<kind>map value|map key|memory|mem region), (?:value_size|key_size|mem_size|"
            r"map_size)=(?P<have>\d{1,10}) off=(?P<off>-?\d{1,10}) size=(?P<size>\d{1,10})",
            r"R(?P<reg>\d{1,2}) (?:min|max) value is outside of the (?:allowed memory|array) range",
        ),
        says="{size} bytes at offset {off} of a {kind} of {have} bytes.",
        causes=(
            "the value's struct is larger in the program than in the map",
            "an index that can reach the end",
        ),
        change="Make key and value sizes of program and map agree; bound the index by size minus access width.",
        required="offset + size of at most {have}",
        found="offset {off} + size {size}",
    ),
    Complaint(
        "pointer-32-bit", codes.POINTER_ARITHMETIC,
        (
            r"R(?P<reg>\d{1,2}) 32-bit pointer arithmetic prohibited",
        ),
        says="A pointer is computed with in 32 bits.",
        causes=(
            "a pointer cast to int or __u32",
        ),
        change="Keep pointers in 64-bit types.",
        required="64-bit arithmetic",
        found="32-bit arithmetic on R{reg}",
    ),
    Complaint(
        "pointer-plus-pointer", codes.POINTER_ARITHMETIC,
        (
            r"R(?P<reg>\d{1,2}) pointer (?P<op>\+=|-=) pointer prohibited",
            r"R(?P<reg>\d{1,2}) subtraction from stack pointer prohibited",
            r"R(?P<reg>\d{1,2}) tried to (?:add|subtract) from different maps?, paths, or scalars",
        ),
        says="Two pointers are added or subtracted.",
        causes=(
            "a length computed from two pointers, without the privilege to do so",
            "the wrong operand",
        ),
        change="Work with lengths and offsets instead.",
        required="a pointer and a number",
        found="two pointers",
    ),
    Complaint(
        "pointer-unbounded", codes.POINTER_ARITHMETIC,
        (
            r"math between (?P<kind>\S{1,40}) pointer and register with unbounded min value is not allowed",
            r"math between (?P<kind>\S{1,40}) pointer and (?P<value>-?\d{1,20}) is not allowed",
            r"value (?P<value>-?\d{1,20}) makes (?P<kind>\S{1,40}) pointer be out of bounds",
            r"(?P<kind>\S{1,40}) pointer offset (?P<value>-?\d{1,20}) is not allowed",
        ),
        says="A number without a lower bound (or far too large) is added to a {kind} pointer.",
        causes=(
            "a signed or unchecked number used as an offset",
        ),
        change="Bound it first: unsigned, with an upper limit.",
        required="an offset known to be within 2^29",
        found="{value}",
    ),
    Complaint(
        "pointer-operator", codes.POINTER_ARITHMETIC,
        (
            r"R(?P<reg>\d{1,2}) (?:bitwise operator|pointer arithmetic with) (?P<op>\S{1,4}) (?:operator )?(?:on "
            r"pointer )?prohibited",
            r"R(?P<reg>\d{1,2}) pointer arithmetic on (?P<kind>\S{1,40}) prohibited",
            r"R(?P<reg>\d{1,2}) has pointer with unsupported alu operation",
            r"R(?P<reg>\d{1,2}) arithmetic on (?P<kind>\S{1,40}) prohibited",
        ),
        says=(
            "A pointer in R{reg} is changed by an operator other than addition or subtraction, or must not be "
            "changed at all."
        ),
        causes=(
            "a pointer masked or shifted",
            "arithmetic on a socket or other object pointer",
        ),
        change="Do the arithmetic on a number, then add it to the pointer.",
        required="addition or subtraction of a number",
        found="{op} on {kind}",
    ),
    Complaint(
        "leak-return", codes.POINTER_LEAK,
        (
            r"R(?P<reg>\d{1,2}) leaks addr as return value",
            r"R(?P<reg>\d{1,2}) leaks addr (?:into|to) (?P<where>\S{1,40})",
            r"R(?P<reg>\d{1,2}) leaks addr into helper function",
        ),
        says="A kernel address in R{reg} would leave the program.",
        causes=(
            "a pointer is stored, returned or passed on, without CAP_PERFMON",
        ),
        change="Do not let pointers out, or load with CAP_PERFMON (root).",
        required="a number, or the privilege",
        found="a pointer in R{reg}",
    ),
    Complaint(
        "pointer-comparison", codes.POINTER_LEAK,
        (
            r"R(?P<reg>\d{1,2}) pointer comparison prohibited",
        ),
        says="A pointer is compared with a number, without privilege.",
        causes=(
            "a comparison other than with NULL, without CAP_PERFMON",
        ),
        change="Compare only with NULL, or load with CAP_PERFMON (root).",
        required="the privilege",
        found="a comparison of R{reg}",
    ),
    Complaint(
        "spilled-pointer", codes.NOT_A_POINTER,
        (
            r"attempt to corrupt spilled pointer on stack",
            r"corrupted spill memory",
            r"invalid size of register (?:spill|fill)",
        ),
        says="A pointer saved on the stack is written or read in parts.",
        causes=(
            "a pointer stored through a type smaller than 8 bytes",
            "a union of a pointer and bytes on the stack",
        ),
        change="Save and restore pointers whole, as 8 bytes.",
        required="an access of 8 bytes",
        found="a smaller one",
    ),
    Complaint(
        "different-pointers", codes.NOT_A_POINTER,
        (
            r"same insn cannot be used with different pointers",
        ),
        says="One instruction is reached with two kinds of pointers.",
        causes=(
            "the compiler merged two branches that read from different objects (context and map)",
        ),
        change="Keep the branches apart: a barrier (asm volatile), or separate functions.",
        required="one kind of pointer",
        found="two",
    ),
    Complaint(
        "alignment", codes.ALIGNMENT,
        (
            r"misaligned (?P<kind>\S{1,40}) access off (?P<off>.{1,60}?) size "
            r"(?P<size>\d{1,9})",
        ),
        says="{size} bytes are accessed in the {kind} at an offset that {size} does not divide.",
        causes=(
            "a packed struct on the stack",
            "a cast to a wider type",
        ),
        change="Align the field, or access it byte by byte.",
        required="an offset divisible by {size}",
        found="{off}",
    ),
)  # fmt: skip
