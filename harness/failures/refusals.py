"""Programs that the verifier refuses: each breaks one rule, and the same program mended passes.

Where C can say it, the program is a file of bpf/variants, compiled by BCC twice: as it is, and with REPAIRED. Where no
compiler would let it through, or none would produce it, the instructions are put together by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from harness.failures import children
from harness.failures.assembler import (
    ALLOW,
    EXIT,
    add,
    call,
    call_function,
    call_kfunc,
    jump_if_less,
    load,
    set_to,
    store,
)
from harness.failures.attach_targets import CONNECT4
from harness.failures.model import ACCEPTED, Answer, Failure, Family, Recipe, Setting, Shown, asked
from harness.kernel import bpf
from harness.kernel.bpf import ProgramType
from harness.msp import verifier_codes as codes
from harness.msp.codes import Code
from harness.program import load as loader
from harness.program import source
from harness.program.compile import Compilation, Source, compile_source
from harness.program.image import Image

STRICT = ("CAP_BPF", "CAP_NET_ADMIN")
"""All that loading connect4 needs. Without CAP_PERFMON the verifier is as strict as for a user without privilege."""

CO_RE_POISON = 0xBAD2310
"""libbpf puts a call of this number (195896080) in place of an instruction whose CO-RE relocation found nothing."""

_STATISTICS = 4  # BPF_LOG_STATS: the complaint and the statistics; printing a million instructions takes seconds
_NO_SUCH_TYPE = 0x7FFFFFF  # a BTF id beyond any kernel's

Load = Callable[[], Answer]


# --- from C -----------------------------------------------------------------------------------------------------


def variants() -> list[Source]:
    """Every file of bpf/variants, as it is and repaired."""
    return [code for file in sorted(source.directory().glob("variants/*.c")) for code in _variant(file.stem)]


def _variant(file: str) -> tuple[Source, Source]:
    text = source.read(f"variants/{file}.c")
    return Source(text, ["connect4"], (), f"{file}.c"), Source(text, ["connect4"], ("REPAIRED",), f"{file}.c")


def _compiled(file: str) -> tuple[Image, Image]:
    """A file of bpf/variants as it is, and repaired; compiled side by side."""
    broken, repaired = _variant(file)
    with Compilation(broken) as first, Compilation(repaired) as second:
        return first.result(), second.result()


def load_image(image: Image, did: str) -> Answer:
    """Load an image's programs with maps of its own, as an agent does."""
    logs: list[str] = []

    def step() -> None:
        with loader.load(image) as loaded:
            logs.extend(loaded.logs.values())

    answer = asked(did, step)
    return answer if answer.word != ACCEPTED else dataclasses.replace(answer, log="".join(logs))


def _from_c(file: str, *, strict: bool = False) -> Recipe:
    def recipe(setting: Setting) -> Shown:
        broken, repaired = _compiled(file)
        return _shown(
            lambda: load_image(broken, f"BPF_PROG_LOAD of bpf/variants/{file}.c"),
            lambda: load_image(repaired, f"BPF_PROG_LOAD of bpf/variants/{file}.c, repaired"),
            strict,
        )

    return recipe


def _licence(setting: Setting) -> Shown:
    """The same program twice: what is mended is the licence that its loader names."""
    image = compile_source(_variant("gpl_only")[0])
    proprietary = dataclasses.replace(image, licence="Proprietary")
    did = "BPF_PROG_LOAD of bpf/variants/gpl_only.c under the licence"
    return Shown(load_image(proprietary, f"{did} Proprietary"), load_image(image, f"{did} GPL"))


# --- by hand ----------------------------------------------------------------------------------------------------


def load_code(code: bytes, did: str, log_level: int = 1) -> Answer:
    """Load instructions as a connect4 program."""
    return asked(
        f"BPF_PROG_LOAD of {did}",
        lambda: bpf.prog_load(
            ProgramType.CGROUP_SOCK_ADDR, code, attach=CONNECT4, name="connect4", log_level=log_level
        ),
    )


def _by_hand(
    did: str, broken: bytes, then: str, repaired: bytes, *, strict: bool = False, log_level: int = 1
) -> Recipe:
    def recipe(setting: Setting) -> Shown:
        return _shown(lambda: load_code(broken, did, log_level), lambda: load_code(repaired, then, log_level), strict)

    return recipe


def _shown(broken: Load, repaired: Load, strict: bool) -> Shown:
    """Both loads; strict: in a child with no more than STRICT, when this kernel lets root do it."""
    if not strict:
        return Shown(broken(), repaired())
    as_root = broken()
    if as_root.word != ACCEPTED:
        return Shown(as_root, repaired())

    def step() -> list[Answer]:
        children.keep_capabilities(STRICT)
        return [broken(), repaired()]

    failing, mended = children.in_child(step)
    did = f"{failing.did} with {' and '.join(STRICT)} only"
    return Shown(dataclasses.replace(failing, did=did), mended, facts={"as root": as_root.word})


def _counting(times: int) -> bytes:
    """A loop whose end the verifier sees (from 5.3 on), if it counts that far: two instructions a round."""
    return set_to(1, 0) + add(1, 1) + jump_if_less(1, times, -2) + ALLOW


def _write_at(offset: int) -> bytes:
    return set_to(1, 0) + store(8, 10, offset, 1) + ALLOW


def _two_functions(offset: int) -> bytes:
    """connect4 writes to its stack and calls a function that does the same."""
    below = set_to(1, 0) + store(8, 10, offset, 1)
    return below + call_function(1) + EXIT + below + ALLOW


_READ_STACK = load(8, 0, 10, -8) + ALLOW
_WRITE_STACK = set_to(1, 0) + store(8, 10, -8, 1)


# --- the table --------------------------------------------------------------------------------------------------


def _row(
    name: str, title: str, code: Code, says: str, recipe: Recipe, remedy: str, expects: tuple[str, ...] = ("EINVAL",)
) -> Failure:
    return Failure(name, title, Family.LOAD, code, expects, recipe, remedy, says=says)


_BOTH = ("EINVAL", "EACCES")

REFUSALS = (
    _row("load-helper-not-allowed", "A helper that this program type may not call", codes.HELPER_NOT_ALLOWED,
         r"cannot use helper|unknown func bpf_redirect", _from_c("helper_not_allowed"), "the call was left out"),
    _row("load-helper-unknown", "A helper that the kernel does not know", codes.HELPER_UNKNOWN,
         r"(?:invalid|unknown) func .*#100000", _from_c("helper_unknown"), "the call was left out"),
    _row("load-kfunc-missing", "A kernel function that the kernel does not have", codes.KFUNC_MISSING,
         r"kernel btf_id|kernel function|kfunc|BPF_CALL uses reserved",
         _by_hand("a program that calls a kernel function of an unknown BTF id", call_kfunc(_NO_SUCH_TYPE) + ALLOW,
                  "the program without that call", ALLOW),
         "the call was left out, as an object does that tests for the function", _BOTH),
    _row("load-co-re", "A CO-RE relocation that finds nothing", codes.RELOCATION,
         rf"(?:invalid|unknown) func .*#{CO_RE_POISON}",
         _by_hand("a program in which libbpf put its mark for a relocation that found nothing",
                  call(CO_RE_POISON) + ALLOW, "the program with the access guarded, so that it is left out", ALLOW),
         "the access was guarded (bpf_core_field_exists) and left out"),
    _row("load-stack-uninitialised", "Stack that was never written is read", codes.UNINITIALISED_STACK,
         r"invalid read from stack|invalid indirect read from stack",
         _by_hand("a program that reads its stack", _READ_STACK, "the program that writes it first",
                  _WRITE_STACK + _READ_STACK, strict=True), "the stack was written first", _BOTH),
    _row("load-stack-padding", "A key whose padding was never written", codes.UNINITIALISED_STACK,
         r"invalid (?:indirect )?read from stack", _from_c("stack_padding", strict=True),
         "the member was made as wide as its slot", _BOTH),
    _row("load-null-check", "A map's value is used without the check for NULL", codes.NULL_CHECK_MISSING,
         r"map_value_or_null|invalid mem access", _from_c("null_check"), "the check was added", _BOTH),
    _row("load-context-range", "The context is read beyond its end", codes.CONTEXT_ACCESS,
         r"invalid bpf_context access", _from_c("context_range"), "a field inside was read", _BOTH),
    _row("load-context-width", "A field of the context is written with the wrong width", codes.CONTEXT_ACCESS,
         r"invalid bpf_context access", _from_c("context_width"), "it was written with its own width", _BOTH),
    _row("load-context-read-only", "A field of the context is written that may only be read", codes.CONTEXT_ACCESS,
         r"invalid bpf_context access", _from_c("context_read_only"), "user_ip4 was written, which may be", _BOTH),
    _row("load-loop", "A loop without an end that the verifier can see", codes.LOOP,
         r"infinite loop|back-edge|too large|too complex", _from_c("loop"), "the loop was given a bound",
         ("EINVAL", "E2BIG")),
    _row("load-return-value", "A return value that the hook does not take", codes.RETURN_VALUE,
         r"At program exit|R0", _from_c("return_value"), "it returns 0 or 1", _BOTH),
    _row("load-too-complex", "More than the verifier looks at (1,000,000 instructions)", codes.TOO_COMPLEX,
         r"too large|too complex",
         _by_hand("a program that counts to 2,000,000", _counting(2_000_000), "the program that counts to 200",
                  _counting(200), log_level=_STATISTICS),
         "the loop was made shorter", ("E2BIG",)),
    _row("load-stack-size", "More than 512 bytes of stack, in two functions together", codes.STACK_SIZE,
         r"combined stack size",
         _by_hand("a program whose two functions have 400 bytes of stack each", _two_functions(-400),
                  "the program with 200 bytes each", _two_functions(-200)),
         "together they stay within 512 bytes", _BOTH),
    _row("load-stack-beyond", "The stack is written below its 512 bytes", codes.OUT_OF_BOUNDS,
         r"invalid (?:write to )?stack",
         _by_hand("a program that writes 520 bytes below the frame", _write_at(-520),
                  "the program that stays within 512", _write_at(-512)),
         "it stays within 512 bytes", _BOTH),
    _row("load-gpl-only", "A helper for GPL programs in a program of another licence", codes.GPL_ONLY,
         r"GPL", _licence, "the program was declared GPL", _BOTH),
)  # fmt: skip
