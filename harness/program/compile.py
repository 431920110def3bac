"""From C to a program image, by BCC.

BCC is imported and clang run in a process of their own: they are slow to start, so that the caller does other things
meanwhile; they print on stderr from C; and a crash of clang is an error like any other.

    python -m harness.program.compile < request.json > image.json
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from types import TracebackType

from harness.command import text
from harness.errors import HarnessError
from harness.kernel import bpf, packages
from harness.kernel.bpf import AttachType, ProgramType
from harness.program import headers, source
from harness.program.image import Image, MapSpec, ProgramSpec, find_relocations

KINDS: Mapping[str, tuple[ProgramType, AttachType | None]] = {
    "connect4": (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT),
    "connect6": (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT),
    "complete_sockops": (ProgramType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS),
    "complete_kprobe": (ProgramType.KPROBE, None),
}
"""What each function of bpf/connect4.c is."""

TIMEOUT = 60  # seconds; a compile takes 0.2 to 0.4 s, under emulation 7 s


@dataclass(frozen=True)
class Source:
    """A C text and what of it to compile: functions, -D definitions."""

    text: str
    functions: Sequence[str]
    definitions: Sequence[str] = field(default_factory=tuple)
    name: str = "connect4.c"


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


class Compilation:
    """A compile that has been started; result() waits for it. Leaving a with block ends it."""

    def __init__(self, code: Source):
        self._source = code
        self.digest: str | None = None  # of the image, once it is there
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.program.compile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._process.stdin is not None
        with self._process.stdin as request:
            request.write(json.dumps(asdict(code)).encode())
        self._process.stdin = None

    def __enter__(self) -> Compilation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def result(self) -> Image:
        """The image. Raises HarnessError with the compiler's own messages."""
        attempted = f"compile {self._source.name} with BCC"
        try:
            output, errors = self._process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise HarnessError(attempted, f"not done after {TIMEOUT} s") from error
        if self._process.returncode == 0:
            image = Image.parse(output.decode())
            self.digest = image.digest
            return image
        try:
            refusal = json.loads(output)
        except ValueError:  # it did not get as far as to say why
            last = (text(errors).strip().splitlines() or ["nothing on stderr"])[-1]
            happened = f"the compiler ended with status {self._process.returncode}: {last}"
            raise HarnessError(attempted, happened, detail=text(errors)) from None
        raise HarnessError(attempted, refusal["happened"], refusal["remedy"], detail=text(errors))


def compile_source(code: Source) -> Image:
    """Compile and wait."""
    with Compilation(code) as compilation:
        return compilation.result()


def _compile(code: Source) -> Image:
    """The work itself, in the compiler's process."""
    try:
        import bcc
    except ImportError as error:
        remedy = packages.install_hint(["bcc"])
        raise HarnessError("import bcc", f"{error}", remedy) from error
    if not hasattr(bcc, "BPF"):
        happened = f"{bcc.__file__} is not the BPF Compiler Collection (PyPI's bcc is another project)"
        raise HarnessError("use bcc", happened, "remove it; " + packages.install_hint(["bcc"]))
    tree = headers.headers_tree()
    os.environ["BCC_KERNEL_SOURCE"] = str(tree.path)
    flags = [f"-I{source.directory()}", *(f"-D{definition}" for definition in code.definitions)]
    try:
        module = bcc.BPF(text=code.text, cflags=flags)
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


def main() -> int:
    """Read a Source as JSON from standard input; write an Image, or why there is none, to standard output."""
    code = Source(**json.load(sys.stdin))
    stdout = os.dup(1)
    os.dup2(2, 1)  # whatever BCC prints from C is a diagnostic
    try:
        answer, status = _compile(code).dump(), 0
    except HarnessError as error:
        answer, status = json.dumps({"happened": f"{error.attempted}: {error.happened}", "remedy": error.remedy}), 1
        print(error.detail, file=sys.stderr)
    with os.fdopen(stdout, "w") as output:
        output.write(answer)
    return status


if __name__ == "__main__":
    sys.exit(main())
