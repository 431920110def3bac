"""From C to a program image, by BCC; or out of a bundle, where one was given that has this very source.

BCC is imported and clang run in a process of their own: they are slow, so that the caller does other things meanwhile;
they print from C; and a crash of clang is an error like any other.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType

from harness.command import text
from harness.errors import HarnessError
from harness.kernel import bpf, packages
from harness.kernel.bpf import AttachType, ProgramType
from harness.kernel.processes import die_with_parent, fork_child
from harness.program import bundle, headers, source
from harness.program.image import Image, MapSpec, ProgramSpec, find_relocations

KINDS: Mapping[str, tuple[ProgramType, AttachType | None]] = {
    "connect4": (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT),
    "connect6": (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT),
    "complete_sockops": (ProgramType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS),
    "complete_kprobe": (ProgramType.KPROBE, None),
}
"""What each function of bpf/connect4.c is."""

_REFUSED = 3  # the exit status that says: the answer is why there is no image
_MESSAGES = 1 << 20  # bytes of the compiler's messages that are kept

TIMEOUT = 60  # seconds; a compile takes 0.2 to 0.4 s, under emulation 7 s


@dataclass(frozen=True)
class Source:
    """A C text and what of it to compile: functions, -D definitions."""

    text: str
    functions: Sequence[str]
    definitions: Sequence[str] = field(default_factory=tuple)
    name: str = "connect4.c"

    @property
    def digest(self) -> str:
        """`sha256:…` over all that decides what is compiled, the harness's own headers included, and no compiler."""
        content = [self.text, list(self.functions), list(self.definitions), self.name, _own_headers()]
        return "sha256:" + hashlib.sha256(json.dumps(content).encode()).hexdigest()


@functools.cache
def _own_headers() -> dict[str, str]:
    """What a program of bpf/ may include beside it, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(source.directory().glob("*.h"))}


class Join(StrEnum):
    """How a record finds the source port that the kernel chose after connect4 ran."""

    SOCK_OPS = "sock_ops"  # by the socket's cookie; needs no kprobes and cannot confuse two connects
    KPROBE = "kprobe"  # by the thread, in tcp_connect(), as the agent does it
    NONE = "none"  # not at all: redirection without records


_COMPLETING = {Join.SOCK_OPS: ["complete_sockops"], Join.KPROBE: ["complete_kprobe"], Join.NONE: []}


def redirector(*, hardened: bool = False, join: Join = Join.SOCK_OPS, text: str | None = None) -> Source:
    """Our own redirector, plain or hardened; text in place of bpf/connect4.c serves the self-test."""
    functions = ["connect4", *(["connect6"] if hardened else []), *_COMPLETING[join]]
    definitions = (["HARDENED"] if hardened else []) + (["JOIN_BY_THREAD"] if join is Join.KPROBE else [])
    return Source(source.read("connect4.c") if text is None else text, functions, definitions)


def stand_in() -> Source:
    """A sock_ops program that completes the records of an object whose own kprobe cannot run here."""
    return Source(source.read("connect4.c"), ["complete_sockops"], ["JOIN_BY_THREAD"])


class Compilation:
    """A compile that has been started; result() waits for it. Leaving a with block ends it.

    It is a fork of the caller, which is to have one thread.
    """

    def __init__(self, code: Source):
        self._source = code
        self.digest: str | None = None  # of the image, once it is there
        self._given = _given(code)
        if self._given is None:
            self._start(code)

    def _start(self, code: Source) -> None:
        parent = os.getpid()
        self._answer, entry = os.pipe()
        self._errors = os.memfd_create("compiler's messages")
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = fork_child()
        if self._pid == 0:
            _be_compiler(parent, code, entry, self._errors)
        os.close(entry)
        self._status: int | None = None

    def __enter__(self) -> Compilation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._given is not None:
            return
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._wait()
        os.close(self._answer)
        os.close(self._errors)

    def _wait(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def result(self) -> Image:
        """The image. Raises HarnessError with the compiler's own messages, or with what is wrong with the bundle."""
        image = self._compiled() if self._given is None else self._given
        if isinstance(image, HarnessError):
            raise image
        self.digest = image.digest
        return image

    def _compiled(self) -> Image:
        attempted = f"compile {self._source.name} with BCC"
        answer = self._read(attempted)
        status = self._wait()
        os.lseek(self._errors, 0, os.SEEK_SET)
        messages = text(os.read(self._errors, _MESSAGES))
        if status == 0:
            return Image.parse(answer.decode())
        if status == _REFUSED:
            refusal = json.loads(answer)
            raise HarnessError(attempted, refusal["happened"], refusal["remedy"], detail=messages)
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        last = (messages.strip().splitlines() or ["it said nothing"])[-1]
        raise HarnessError(attempted, f"the compiler ended {how}: {last}", detail=messages)

    def _read(self, attempted: str) -> bytes:
        """What the compiler's process writes, up to its end."""
        deadline = time.monotonic() + TIMEOUT
        answer = bytearray()
        while select.select([self._answer], [], [], max(0, deadline - time.monotonic()))[0]:
            piece = os.read(self._answer, 1 << 16)
            if not piece:
                return bytes(answer)
            answer += piece
        raise HarnessError(attempted, f"not done after {TIMEOUT} s")


def _given(code: Source) -> Image | HarnessError | None:
    """What the bundle has for this source, or what is wrong with the bundle; None: it is to be compiled."""
    try:
        found = bundle.given()
        return None if found is None else found.find(code.digest)
    except HarnessError as error:
        return error


def _be_compiler(parent: int, code: Source, entry: int, errors: int) -> None:
    """The compiler's process: never returns."""
    status = 1
    try:
        die_with_parent(parent)
        os.dup2(errors, 1)  # whatever BCC prints from C, on either, is a diagnostic
        os.dup2(errors, 2)
        try:
            answer, status = _compile(code).dump(), 0
        except HarnessError as error:
            refusal = {"happened": f"{error.attempted}: {error.happened}", "remedy": error.remedy}
            answer, status = json.dumps(refusal), _REFUSED
            os.write(errors, error.detail.encode("utf-8", "replace"))
        with os.fdopen(entry, "w") as output:
            output.write(answer)
    except BaseException:
        os.write(errors, traceback.format_exc().encode("utf-8", "replace"))
        status = 1
    finally:
        os._exit(status)


def compile_source(code: Source) -> Image:
    """Compile and wait."""
    with Compilation(code) as compilation:
        return compilation.result()


def _compile(code: Source) -> Image:
    """The work itself, in the compiler's process."""
    try:
        import bcc
    except ImportError as error:
        given = os.environ.get(bundle.VARIABLE)
        lacking = f", and {given} has no program of this source" if given else ""
        raise HarnessError("import bcc", f"{error}{lacking}", packages.install_hint(["bcc"])) from error
    if not hasattr(bcc, "BPF"):
        happened = f"{bcc.__file__} is not the BPF Compiler Collection (PyPI's bcc is another project)"
        raise HarnessError("use bcc", happened, "remove it; " + packages.install_hint(["bcc"]))
    tree = headers.headers_tree()
    os.environ["BCC_KERNEL_SOURCE"] = str(tree.path)
    flags = [f"-I{source.directory()}", *(f"-D{definition}" for definition in code.definitions)]
    try:
        # bytes, else BCC warns, which is an error where a caller made warnings errors
        module = bcc.BPF(text=code.text.encode(), cflags=flags)
    except Exception as error:  # BCC raises nothing more precise
        raise HarnessError(f"compile {code.name}", str(error)) from error
    maps = {name.decode(): module[name].map_fd for name in _table_names(module)}
    specs = []
    for name, number in maps.items():
        with bpf.Fd(os.dup(number)) as fd:
            info = bpf.map_info(fd)
        specs.append(MapSpec(name, info.type, info.key_size, info.value_size, info.max_entries, info.flags))
    names = {number: name for name, number in maps.items()}
    programs = []
    for function in code.functions:
        kind, attach = KINDS[function]
        code_bytes = module.dump_func(function.encode())
        programs.append(ProgramSpec(function, kind, attach, code_bytes, find_relocations(code_bytes, names)))
    compiler = f"BCC {bcc.__version__}, headers {tree.release}"
    return Image(tuple(sorted(specs, key=lambda spec: spec.name)), tuple(programs), compiler=compiler)


def _table_names(module: object) -> list[bytes]:
    """The names of the maps that a BCC module declares."""
    from bcc import lib

    lib.bpf_table_name.restype = ctypes.c_char_p  # BCC leaves it at int
    handle = module.module  # type: ignore[attr-defined]
    return [lib.bpf_table_name(handle, index) for index in range(lib.bpf_num_tables(handle))]
