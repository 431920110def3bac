"""Check 10, the negative control: programs that are broken in one way each are caught by the check that should.

A fault is the program with one place of its source changed. If a fault goes through unseen, the checks prove nothing
on this machine, and the Result says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from harness.checks import audit, redirect
from harness.checks.base import Environment, Function, perform_plainly
from harness.errors import HarnessError
from harness.program import source
from harness.program.compile import Compilation, Join, Source, redirector
from harness.program.load import load
from harness.report import Outcome, Result

TITLE = "A broken program is caught"
_AT_ONCE = 2  # compilers side by side


@dataclass(frozen=True)
class Fault:
    """One change of bpf/connect4.c, the check to run, and the Result that has to be a FAIL."""

    name: str
    old: str  # stands once in the source
    new: str
    check: Function
    caught_by: str


FAULTS = (
    Fault("wrong-byte-order", "\tctx->user_ip4 = to->ip[0];\n\tctx->user_port = to->port;",
          "\tctx->user_ip4 = to->ip[0];\n\tctx->user_port = bpf_htons(to->port);",
          redirect.redirected, "redirect.imds"),
    Fault("port-not-rewritten", "\tctx->user_ip4 = to->ip[0];\n\tctx->user_port = to->port;",
          "\tctx->user_ip4 = to->ip[0];", redirect.redirected, "redirect.imds"),
    Fault("address-not-rewritten", "\tctx->user_ip4 = to->ip[0];\n", "", redirect.redirected, "redirect.imds"),
    Fault("policy-not-asked", "\twanted.ip[0] = ip;\n", "", redirect.redirected, "redirect.wireserver"),
    Fault("connect-denied", "\tctx->user_ip4 = to->ip[0];\n\tctx->user_port = to->port;\n\treturn 1;",
          "\tctx->user_ip4 = to->ip[0];\n\tctx->user_port = to->port;\n\treturn 0;",
          redirect.redirected, "redirect.hostgaplugin"),
    Fault("no-audit", "\twho.protocol = ctx->protocol;\n\tlocal_map.update(&key, &who);",
          "\twho.protocol = ctx->protocol;", redirect.redirected, "redirect.imds"),
    Fault("audit-port-byte-order", "key.source_port = bpf_htons(source_port);", "key.source_port = source_port;",
          redirect.redirected, "redirect.imds"),
    Fault("original-address-lost", "who.entry.ip = ip;", "who.entry.ip = bpf_htonl(0x7f000001);",
          redirect.redirected, "redirect.imds"),
    Fault("original-port-lost", "who.entry.port = ctx->user_port;", "who.entry.port = bpf_htons(3080);",
          redirect.redirected, "redirect.imds"),
    Fault("skip-ignored", "return skip_process_map.lookup(&pid) != 0;", "return pid == 0;",
          redirect.untouched, "untouched.skipped"),
    Fault("protocol-ignored", "wanted.protocol = ctx->protocol;", "wanted.protocol = IPPROTO_TCP;",
          redirect.untouched, "untouched.udp"),
    Fault("port-ignored", "wanted.port = ctx->user_port;", "wanted.port = bpf_htons(80);",
          redirect.untouched, "untouched.other-port.imds"),
    Fault("uid-lost", "who.entry.uid = uid;", "who.entry.uid = 0;", redirect.authorized, "authorization.imds.nobody"),
    Fault("everybody-is-root", "who.entry.is_root = uid == 0;", "who.entry.is_root = 1;",
          redirect.authorized, "authorization.wireserver.nobody"),
    Fault("thread-for-process", "who.entry.pid = bpf_get_current_pid_tgid() >> 32;",
          "who.entry.pid = bpf_get_current_pid_tgid();", audit.audited, "audit.threads"),
    Fault("record-inherited", "\t\taudit_map.delete(&key);\n", "\t\t;\n", audit.audited, "audit.not-inherited"),
    Fault("failed-connect-kept", "\tlocal_map.delete(&key);\n", "", audit.audited, "audit.same-socket"),
)  # fmt: skip
"""Each fault and the Result that must catch it; the same check passes with the program as it is."""


def broken(fault: Fault) -> str:
    """The source with the fault. Raises HarnessError when the source has changed and the fault no longer fits."""
    text = source.read("connect4.c")
    if text.count(fault.old) != 1:
        raise HarnessError(
            f"put the fault {fault.name} into connect4.c", f"its place occurs {text.count(fault.old)} times"
        )
    return text.replace(fault.old, fault.new)


def sources() -> list[Source]:
    """Every broken program, whichever way it completes its records."""
    return [redirector(join=join, text=broken(fault)) for join in Join for fault in _faults(join)]


def _faults(join: Join) -> list[Fault]:
    return [fault for fault in FAULTS if join is not Join.NONE or fault.check is not audit.audited]


def self_test(environment: Environment, join: Join) -> Iterator[Result]:
    """Compile, load and check each broken program in the environment's lab."""
    faults = _faults(join)
    with ExitStack() as stack:
        compilations: deque[Compilation] = deque()
        for number, fault in enumerate(faults):
            for ahead in faults[number + len(compilations) : number + _AT_ONCE]:
                compilation = Compilation(redirector(join=join, text=broken(ahead)))
                compilations.append(stack.enter_context(compilation))
            yield _caught(environment, fault, compilations.popleft())


def _caught(environment: Environment, fault: Fault, compilation: Compilation) -> Result:
    name = f"selftest.{fault.name}"
    evidence = {"expected to catch it": fault.caught_by}
    try:
        with load(compilation.result()) as loaded:
            results = list(perform_plainly(fault.check, replace(environment, loaded=loaded)))
    except HarnessError as error:
        return Result(name, TITLE, Outcome.ERROR, f"the broken program could not be tried: {error}", evidence)
    failed = [result.id for result in results if result.outcome is Outcome.FAIL]
    catcher = next((result for result in results if result.id == fault.caught_by), None)
    evidence["failed"] = ", ".join(failed) or "nothing"
    if catcher is not None and catcher.outcome is Outcome.FAIL:
        return Result(name, TITLE, Outcome.PASS, f"caught by {catcher.id}: {catcher.summary}", evidence)
    said = "was not run" if catcher is None else f"said {catcher.outcome}"
    summary = f"NOT caught: {fault.caught_by} {said}; this harness cannot be trusted on this machine"
    return Result(
        name, TITLE, Outcome.FAIL, summary, evidence, remedy="do not rely on a PASS of this check; report this"
    )
