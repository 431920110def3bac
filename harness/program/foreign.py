"""Somebody else's eBPF object: read within bounds, loaded by libbpf in a process of its own, described as it is.

What is loaded here has the form of our own programs (harness.program.load.Loaded), so that the same checks run on it:
programs by role, maps by the agent's names. The process that loaded it has ended by then; the descriptors that it sent
are all that holds the programs and maps, and they are closed at the end of the with block.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.command import text
from harness.errors import HarnessError, errno_text
from harness.kernel import bpf
from harness.program import libbpf
from harness.program.image import Image, MapSpec, ProgramSpec
from harness.program.libbpf import Answer, MapFact, ProgramFact, Refusal, Request
from harness.program.load import Loaded, load_program
from harness.program.maps import LAYOUTS

LARGEST = 16 << 20  # bytes of an object; the agent's has some tens of KiB
TIMEOUT = 60.0  # seconds until a libbpf that does not end is ended
_HEADER = 64  # bytes of an ELF64 header
_EM_BPF = 247  # elf.h
_ORDERS = {"little": 1, "big": 2}  # EI_DATA
_MOST = 32  # descriptors in one answer


class ObjectError(HarnessError):
    """The object cannot be loaded as a whole; detail holds what libbpf said."""


class NoLibraryError(HarnessError):
    """There is no libbpf to load it with, which is no fault of the object."""


@dataclass(frozen=True)
class ObjectFile:
    """An object's bytes; problem says why they are not even to be given to libbpf."""

    name: str
    data: bytes
    digest: str | None  # "sha256:…"; None for a file that is too large to be read
    problem: str = ""


def read(path: Path) -> ObjectFile:
    """Read an object, at most LARGEST bytes of it. Raises HarnessError when there is no such regular file."""
    attempted = f"read the object {path}"
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise HarnessError(attempted, "it is not a regular file", "give the eBPF object, ebpf_cgroup.o")
            data = file.read(LARGEST + 1)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error
    if len(data) > LARGEST:
        problem = f"it has {max(size, len(data)):,} bytes, and no eBPF object has more than {LARGEST >> 20} MiB"
        return ObjectFile(path.name, b"", None, problem)
    return ObjectFile(path.name, data, "sha256:" + hashlib.sha256(data).hexdigest(), _not_an_object(data))


def _not_an_object(data: bytes) -> str:
    """What the ELF header alone shows to be wrong; the rest is libbpf's to judge."""
    if not data:
        return "it is empty"
    if data[:4] != b"\x7fELF":
        return "it is not an ELF file"
    if len(data) < _HEADER:
        return f"it ends within its ELF header, after {len(data)} of {_HEADER} bytes"
    if data[4] != 2:
        return "it is a 32-bit ELF file; eBPF objects are 64-bit"
    if data[5] != _ORDERS[sys.byteorder]:
        return (
            f"it is not for {sys.byteorder}-endian machines, as this one is: it was compiled for another architecture"
        )
    (machine,) = struct.unpack_from("=H", data, 18)
    if machine != _EM_BPF:
        return f"it is an ELF file for machine {machine}, not for BPF ({_EM_BPF})"
    return ""


@dataclass(frozen=True)
class Object:
    """An object as libbpf saw it. loaded: what of it is in the kernel; None when its connect4 program is not."""

    file: ObjectFile
    library: str  # libbpf's version
    programs: Sequence[ProgramFact]
    maps: Sequence[MapFact]
    refusals: Sequence[Refusal]
    messages: Sequence[str]
    taken: Mapping[str, str]  # roles that the verifier took, with its log; also those that are not to run
    loaded: Loaded | None

    def program(self, role: str) -> ProgramFact | None:
        return next((fact for fact in self.programs if fact.role == role), None)

    def refusal(self, role: str) -> Refusal | None:
        return next((one for one in self.refusals if one.role == role), None)


@contextmanager
def load(file: ObjectFile, *, idle: Sequence[str] = (), entries: Mapping[str, int] | None = None) -> Iterator[Object]:
    """Load an object; entries overrides numbers of entries by map.

    Programs of the roles in idle are only shown to the verifier: they are not among the loaded ones. Raises
    ObjectError when the object as a whole is refused, crashes libbpf or takes too long, and NoLibraryError.
    """
    if file.problem:
        raise ObjectError(f"load {file.name}", file.problem)
    answer, descriptors = _ask(file, entries or {})
    with ExitStack() as stack:
        fds = {name: stack.enter_context(fd) for name, fd in zip(answer.sent, descriptors, strict=True)}
        if answer.error:
            raise ObjectError(f"load {file.name}", answer.error, detail="\n".join(answer.messages))
        about = Object(
            file,
            answer.library,
            answer.programs,
            answer.maps,
            answer.refusals,
            answer.messages,
            {role: content["log"] for role, content in answer.loaded.items()},
            None,
        )
        yield replace(about, loaded=_loaded(about, answer, fds, idle)) if "connect4" in fds else about


def _ask(file: ObjectFile, entries: Mapping[str, int]) -> tuple[Answer, list[bpf.Fd]]:
    """Have the loading process do it; its answer and the descriptors that it sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        request = Request(file.name, os.getpid(), theirs.fileno(), tuple(LAYOUTS), dict(entries))
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.program.libbpf", json.dumps(asdict(request))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        try:
            output, errors = process.communicate(file.data, timeout=TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise ObjectError(f"load {file.name}", f"libbpf was not done after {TIMEOUT:g} s") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        answer = _parse(file, process.returncode, output, text(errors))
        return answer, _received(ours, len(answer.sent))


def _parse(file: ObjectFile, status: int, output: bytes, errors: str) -> Answer:
    attempted = f"load {file.name}"
    if status < 0:
        name = signal.Signals(-status).name
        happened = {
            "SIGXCPU": f"libbpf was not done after {libbpf.CPU_SECONDS} s of processor time",
            "SIGKILL": "the process that loaded it was killed: too much processor time, or too little memory here",
        }.get(name, f"libbpf crashed on it ({name})")
        raise ObjectError(attempted, happened, "it is damaged, or made to do harm", detail=errors)
    try:
        content: dict[str, Any] = json.loads(output)
    except ValueError:
        if "MemoryError" in errors:
            raise ObjectError(attempted, f"it takes more than {libbpf.MEMORY >> 20} MiB of memory") from None
        last = (errors.strip().splitlines() or ["nothing on stderr"])[-1]
        raise HarnessError(
            attempted, f"the loading process ended with status {status}: {last}", detail=errors
        ) from None
    if "happened" in content:
        raise NoLibraryError(f"use {libbpf.LIBRARY}", content["happened"], content["remedy"])
    content["programs"] = [ProgramFact(**fact) for fact in content["programs"]]
    content["maps"] = [MapFact(**fact) for fact in content["maps"]]
    content["refusals"] = [Refusal(**one) for one in content["refusals"]]
    return Answer(**content)


def _received(channel: socket.socket, count: int) -> list[bpf.Fd]:
    if not count:
        return []
    _, descriptors, _, _ = socket.recv_fds(channel, 1, _MOST)
    for number in descriptors:
        os.set_inheritable(number, False)
    return [bpf.Fd(number) for number in descriptors]


def _loaded(about: Object, answer: Answer, fds: Mapping[str, bpf.Fd], idle: Sequence[str]) -> Loaded:
    """In the form of our own programs: an image that describes it, and how to load it again."""
    specs, functions = [], {}
    for role, content in answer.loaded.items():
        if role in idle:
            continue
        kind, attach = libbpf.ROLES[role]
        code = base64.b64decode(content["instructions"])
        specs.append(ProgramSpec(role, kind, None if attach is None else int(attach), code))
        fact = about.program(role)
        functions[role] = f"{fact.function} ({fact.section})" if fact else role
    image = Image(
        tuple(MapSpec(fact.name, fact.type, fact.key_size, fact.value_size, fact.entries) for fact in about.maps),
        tuple(specs),
        compiler=f"libbpf {about.library}",
    )

    @contextmanager
    def again(entries: Mapping[str, int]) -> Iterator[Loaded]:
        with load(about.file, idle=idle, entries=entries) as other:
            if other.loaded is None:
                raise ObjectError(f"load {about.file.name} once more", "its connect4 program was refused this time")
            yield other.loaded

    return Loaded(
        image,
        {name: fd for name, fd in fds.items() if name in LAYOUTS},
        {spec.name: fds[spec.name] for spec in specs},
        {spec.name: about.taken[spec.name] for spec in specs},
        again,
        functions,
    )


@contextmanager
def lend(loaded: Loaded, image: Image, role: str) -> Iterator[Loaded]:
    """The object with a program of ours beside its own, which works on the object's maps. Raises BpfError."""
    spec = image.program(role)
    fd, log = load_program(spec, loaded.maps, image.licence)
    with fd:

        @contextmanager
        def again(entries: Mapping[str, int]) -> Iterator[Loaded]:
            assert loaded.again is not None
            with loaded.again(entries) as other, lend(other, image, role) as both:
                yield both

        yield replace(
            loaded,
            image=replace(loaded.image, programs=(*loaded.image.programs, spec)),
            programs={**loaded.programs, role: fd},
            logs={**loaded.logs, role: log},
            again=again,
            lent=loaded.lent | {role},
        )


FIELDS: Mapping[str, tuple[str, str]] = {
    "policy_map": ("ip[4] 16, port 4, protocol 4", "ip[4] 16, port 4, protocol 4"),
    "skip_process_map": ("pid 4", "pid 4"),
    "audit_map": ("protocol 4, source port 4", "uid 4, pid 4, is_root 4, IPv4 4, port 4"),
    "local_map": ("pid_tgid 8", "uid 4, pid 4, is_root 4, IPv4 4, port 4, protocol 4"),
}
"""Key and value of each map: the fields and their bytes (bpf/connect4.h)."""

_INTERCHANGEABLE = (bpf.MapType.HASH, bpf.MapType.LRU_HASH)
PRIVATE = "local_map"
"""The only map that nobody but the object itself reads or writes."""


@dataclass(frozen=True)
class Misfit:
    """A map that is not as the agent's; fatal: whoever uses it by the agent's layout goes wrong."""

    map: str
    text: str
    fatal: bool


def misfits(maps: Sequence[MapFact]) -> list[Misfit]:
    """Where the object's maps differ from the agent's layouts."""
    found = []
    there = {fact.name: fact for fact in maps}
    for name, layout in LAYOUTS.items():
        fact, fatal = there.get(name), name != PRIVATE
        if fact is None:
            found.append(Misfit(name, f"there is no {name}", fatal))
            continue
        for part, size, wanted, fields in (
            ("key", fact.key_size, layout.key_size, FIELDS[name][0]),
            ("value", fact.value_size, layout.value_size, FIELDS[name][1]),
        ):
            if size != wanted:
                found.append(Misfit(name, f"{name}'s {part} has {size} B, not {wanted} ({fields})", fatal))
        if fact.type != layout.type:
            kind = bpf.MapType(fact.type).name.lower() if fact.type in list(bpf.MapType) else f"type {fact.type}"
            other = fatal and fact.type not in _INTERCHANGEABLE
            found.append(Misfit(name, f"{name} is of {kind}, not {layout.type.name.lower()}", other))
    return found
