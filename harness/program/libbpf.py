"""Somebody's ELF object loaded by the distribution's libbpf, in a process of its own.

An object is a stranger's: libbpf may crash on it, or never end. So this module's main() is a process that reads the
object from standard input, has limits on memory and processor time, sends home the descriptors that were asked for
and ends; harness.program.foreign starts it and judges what comes back. What it did not send is gone with it.

    python -m harness.program.libbpf REQUEST < object > answer.json

Nothing is pinned, whatever the object asks for, and only programs with a role are loaded:

    connect4, connect6                a sock_addr program of that attach type
    complete_kprobe, complete_sockops the program that completes audit records

Numbers are those of include/uapi/linux/bpf.h; functions those of libbpf's public header, version 1.0 or later.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
import re
import resource
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from harness.errors import HarnessError, errno_text
from harness.kernel import processes
from harness.kernel.bpf import AttachType, ProgramType

LIBRARY = "libbpf.so.1"
REMEDY = "install the distribution's libbpf 1.x (libbpf1 in Debian and Ubuntu, libbpf in Fedora and Azure Linux)"

MEMORY = 1 << 30  # bytes of address space of the loading process
CPU_SECONDS = 20
MAPS_BYTES = 256 << 20  # bytes of kernel memory that an object's maps may want, roughly
MAPS_MOST, PROGRAMS_MOST = 64, 256
_ENTRY_OVERHEAD = 64  # bytes of an element in a hash map, about (struct htab_elem)
_RING_BUFFERS = (27, 31)  # BPF_MAP_TYPE_RINGBUF, USER_RINGBUF: max_entries is their size in bytes

_LOG_SIZES = (1 << 20, 1 << 26)  # bytes; what does not fit is tried again with more room
_LOG_ALL, _LOG_STATISTICS = 1, 4  # BPF_LOG_LEVEL1, BPF_LOG_STATS
_STATISTICS_SIZE = 1 << 16
_MESSAGES_MOST = 200  # lines of libbpf's own that are kept
_MESSAGE_LENGTH = 2048  # bytes
_DEBUG = 2  # LIBBPF_DEBUG

ROLES: Mapping[str, tuple[ProgramType, AttachType | None]] = {
    "connect4": (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT),
    "connect6": (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT),
    "complete_kprobe": (ProgramType.KPROBE, None),
    "complete_sockops": (ProgramType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS),
}

_UNTOLD: Sequence[tuple[str, re.Pattern[str]]] = (
    ("connect4", re.compile(r"connect4\b|connect_?v?4$")),
    ("connect6", re.compile(r"connect6\b")),
    ("complete_kprobe", re.compile(r"^kprobe\b")),
    ("complete_sockops", re.compile(r"^sock_?ops\b")),
)
"""Roles by section (or function) where libbpf does not know the section's name."""


@dataclass(frozen=True)
class Request:
    """What the process is to do: maps whose descriptors are to be sent, numbers of entries by map."""

    name: str
    parent: int  # pid; the process ends with it
    channel: int  # descriptor of the socket that takes the descriptors
    maps: Sequence[str] = ()
    entries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ProgramFact:
    """A program of the object as libbpf sees it; role is empty for one that the harness has no use for."""

    function: str
    section: str
    type: int
    role: str = ""


@dataclass(frozen=True)
class MapFact:
    """A map of the object; sizes in bytes. pinned: where the object wants it pinned."""

    name: str
    type: int
    key_size: int
    value_size: int
    entries: int
    pinned: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why a role's program could not be loaded: the verifier's whole log where there is one, and what libbpf said."""

    role: str
    errno: int
    log: str
    messages: Sequence[str]


@dataclass(frozen=True)
class Answer:
    """What came of it. error: the object as a whole could not be opened, or is not to be loaded."""

    library: str
    error: str = ""
    errno: int = 0
    messages: Sequence[str] = ()
    programs: Sequence[ProgramFact] = ()
    maps: Sequence[MapFact] = ()
    refusals: Sequence[Refusal] = ()
    loaded: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by role: instructions (base64), log
    sent: Sequence[str] = ()  # the names of the descriptors, in order: roles, then maps


class Refused(Exception):
    """libbpf or the harness refused the object as a whole."""

    def __init__(self, text: str, number: int = 0):
        super().__init__(text)
        self.errno = number


_OWN_ERRORS = ("LIBELF", "FORMAT", "KVERSION", "ENDIAN", "INTERNAL", "RELOC", "LOAD", "VERIFY", "PROG2BIG", "KVER")
_OWN_ERRORS_START = 4000  # enum libbpf_errno


def error_text(number: int) -> str:
    """An errno of the kernel's or of libbpf's own by name."""
    if 0 <= number - _OWN_ERRORS_START < len(_OWN_ERRORS):
        return f"LIBBPF_ERRNO__{_OWN_ERRORS[number - _OWN_ERRORS_START]}"
    return errno_text(number) if number else "no errno"


class _OpenOptions(ctypes.Structure):
    """The beginning of struct bpf_object_open_opts: its first member says how much of it there is."""

    _fields_ = (("size", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


_Print = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

_P, _S, _I, _U, _Z = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_size_t
_SIGNATURES: Mapping[str, tuple[Any, Sequence[Any]]] = {
    "libbpf_major_version": (_U, ()),
    "libbpf_version_string": (_S, ()),
    "libbpf_set_print": (_P, (_Print,)),
    "bpf_object__open_mem": (_P, (_P, _Z, ctypes.POINTER(_OpenOptions))),
    "bpf_object__load": (_I, (_P,)),
    "bpf_object__close": (None, (_P,)),
    "bpf_object__next_program": (_P, (_P, _P)),
    "bpf_object__next_map": (_P, (_P, _P)),
    "bpf_program__name": (_S, (_P,)),
    "bpf_program__section_name": (_S, (_P,)),
    "bpf_program__type": (_I, (_P,)),
    "bpf_program__set_type": (_I, (_P, _I)),
    "bpf_program__expected_attach_type": (_I, (_P,)),
    "bpf_program__set_expected_attach_type": (_I, (_P, _I)),
    "bpf_program__set_autoload": (_I, (_P, ctypes.c_bool)),
    "bpf_program__set_log_buf": (_I, (_P, _P, _Z)),
    "bpf_program__set_log_level": (_I, (_P, _U)),
    "bpf_program__fd": (_I, (_P,)),
    "bpf_program__insns": (_P, (_P,)),
    "bpf_program__insn_cnt": (_Z, (_P,)),
    "bpf_map__name": (_S, (_P,)),
    "bpf_map__type": (_I, (_P,)),
    "bpf_map__key_size": (_U, (_P,)),
    "bpf_map__value_size": (_U, (_P,)),
    "bpf_map__max_entries": (_U, (_P,)),
    "bpf_map__set_max_entries": (_I, (_P, _U)),
    "bpf_map__pin_path": (_S, (_P,)),
    "bpf_map__set_pin_path": (_I, (_P, _S)),
    "bpf_map__fd": (_I, (_P,)),
}


class Library:
    """libbpf with its functions' types declared; messages holds what it says while it works.

    Raises HarnessError when there is no libbpf 1.x here.
    """

    def __init__(self) -> None:
        try:
            self.functions = ctypes.CDLL(LIBRARY, use_errno=True)
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(self.functions, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise HarnessError(f"use {LIBRARY}", str(error), REMEDY) from error
        major = self.functions.libbpf_major_version()
        if major != 1:
            raise HarnessError(f"use {LIBRARY}", f"it is libbpf {major}", REMEDY)
        self.version = self.functions.libbpf_version_string().decode().removeprefix("v")
        self.messages: list[str] = []
        self._print = _Print(self._keep)  # to be kept for as long as libbpf may call it
        self._libc = ctypes.CDLL(None)
        self.functions.libbpf_set_print(self._print)

    def _keep(self, level: int, form: bytes, values: int) -> int:
        """libbpf_print_fn_t. A va_list is handed on as the pointer that it is on every 64-bit architecture here."""
        if level < _DEBUG and len(self.messages) < _MESSAGES_MOST:
            buffer = ctypes.create_string_buffer(_MESSAGE_LENGTH)
            self._libc.vsnprintf(buffer, ctypes.c_size_t(len(buffer)), ctypes.c_char_p(form), ctypes.c_void_p(values))
            self.messages.append(buffer.value.decode("utf-8", "replace").strip().removeprefix("libbpf: "))
        return 0

    def each(self, kind: str, handle: int) -> Iterator[int]:
        """The programs or maps of an open object, as handles."""
        following: Callable[[int, int | None], int | None] = getattr(self.functions, f"bpf_object__next_{kind}")
        one = following(handle, None)
        while one:
            yield one
            one = following(handle, one)

    @contextmanager
    def opened(self, data: bytes, name: str) -> Iterator[int]:
        """The object, open until the end of the with block. Raises Refused."""
        label = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)[:15] or "object"
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), label.encode())
        ctypes.set_errno(0)
        handle = self.functions.bpf_object__open_mem(data, len(data), ctypes.byref(options))
        if not handle:
            raise Refused(f"libbpf cannot open it: {error_text(ctypes.get_errno())}", ctypes.get_errno())
        try:
            yield handle
        finally:
            self.functions.bpf_object__close(handle)


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")[:256]


def _programs(library: Library, handle: int) -> dict[int, ProgramFact]:
    """The programs with their roles; of several that could have one role, the function of that name or the first."""
    call = library.functions
    found: dict[int, ProgramFact] = {}
    for one in library.each("program", handle):
        if len(found) == PROGRAMS_MOST:
            raise Refused(f"it has more than {PROGRAMS_MOST} programs", errno.E2BIG)
        function, section = _text(call.bpf_program__name(one)), _text(call.bpf_program__section_name(one))
        kind = call.bpf_program__type(one)
        role = _role(kind, call.bpf_program__expected_attach_type(one), section, function)
        found[one] = ProgramFact(function, section, kind, role)
    for role in ROLES:
        having = [one for one, fact in found.items() if fact.role == role]
        chosen = next((one for one in having if found[one].function == role), having[0] if having else None)
        for one in having:
            if one != chosen:
                found[one] = ProgramFact(found[one].function, found[one].section, found[one].type)
    return found


def _role(kind: int, attach: int, section: str, function: str) -> str:
    if kind == 0:  # BPF_PROG_TYPE_UNSPEC: the section's name means nothing to libbpf
        return next((role for role, form in _UNTOLD if form.search(section) or form.search(function)), "")
    for role, (wanted, wanted_attach) in ROLES.items():
        if kind == wanted and (wanted_attach is None or attach == wanted_attach):
            return role
    return ""


def _maps(library: Library, handle: int, entries: Mapping[str, int]) -> dict[int, MapFact]:
    """The maps, with nothing to be pinned and other numbers of entries where asked for."""
    call = library.functions
    found: dict[int, MapFact] = {}
    wanted = 0
    for one in library.each("map", handle):
        if len(found) == MAPS_MOST:
            raise Refused(f"it has more than {MAPS_MOST} maps", errno.E2BIG)
        name, pinned = _text(call.bpf_map__name(one)), _text(call.bpf_map__pin_path(one))
        call.bpf_map__set_pin_path(one, None)
        if name in entries:
            call.bpf_map__set_max_entries(one, entries[name])
        count = call.bpf_map__max_entries(one)
        key, value = call.bpf_map__key_size(one), call.bpf_map__value_size(one)
        kind = call.bpf_map__type(one)
        found[one] = MapFact(name, kind, key, value, count, pinned)
        wanted += count * (1 if kind in _RING_BUFFERS else key + value + _ENTRY_OVERHEAD)
        if wanted > MAPS_BYTES:
            text = f"its maps want more than {MAPS_BYTES >> 20} MiB ({name}: {count} entries of {key} + {value} B)"
            raise Refused(text, errno.E2BIG)
    return found


@dataclass
class _Attempt:
    """An object loaded with some of its roles: descriptors by role and map name, or errno."""

    errno: int
    logs: dict[str, str]
    messages: list[str]
    instructions: dict[str, bytes] = field(default_factory=dict)
    descriptors: dict[str, int] = field(default_factory=dict)


def _attempt(library: Library, data: bytes, request: Request, roles: Sequence[str]) -> _Attempt:
    """Load with the whole log; with more room for it when it did not fit, and at last with its statistics alone."""
    cut: dict[str, str] = {}
    for level, size in (*((_LOG_ALL, size) for size in _LOG_SIZES), (_LOG_STATISTICS, _STATISTICS_SIZE)):
        attempt = _attempt_once(library, data, request, roles, level, size)
        if attempt.errno != errno.ENOSPC:
            break
        cut = attempt.logs
    if level == _LOG_STATISTICS and attempt.errno:
        attempt.logs = cut  # as much of it as there was room for
    return attempt


def _attempt_once(
    library: Library, data: bytes, request: Request, roles: Sequence[str], level: int, size: int
) -> _Attempt:
    call = library.functions
    library.messages.clear()
    with library.opened(data, request.name) as handle:
        programs, maps = _programs(library, handle), _maps(library, handle, request.entries)
        buffers = {}
        for one, fact in programs.items():
            call.bpf_program__set_autoload(one, fact.role in roles)
            if fact.role in roles:
                kind, attach = ROLES[fact.role]
                if fact.type == 0:
                    call.bpf_program__set_type(one, kind)
                    call.bpf_program__set_expected_attach_type(one, attach or 0)
                buffers[fact.role] = ctypes.create_string_buffer(size)
                call.bpf_program__set_log_buf(one, buffers[fact.role], size)
                call.bpf_program__set_log_level(one, level)
        failed = -call.bpf_object__load(handle)
        logs = {role: buffer.value.decode("utf-8", "replace") for role, buffer in buffers.items()}
        attempt = _Attempt(failed, logs, list(library.messages))
        if failed == 0:
            for one, fact in programs.items():
                if fact.role in roles:
                    count = 8 * call.bpf_program__insn_cnt(one)
                    attempt.instructions[fact.role] = ctypes.string_at(call.bpf_program__insns(one), count)
                    attempt.descriptors[fact.role] = os.dup(call.bpf_program__fd(one))
            for one, about in maps.items():
                if about.name in request.maps and call.bpf_map__fd(one) >= 0:
                    attempt.descriptors[about.name] = os.dup(call.bpf_map__fd(one))
        return attempt


def load(data: bytes, request: Request) -> tuple[Answer, list[int]]:
    """Load what can be loaded: all roles or, when that is refused, those that load alone. Raises HarnessError."""
    library = Library()
    try:
        with library.opened(data, request.name) as handle:
            programs = list(_programs(library, handle).values())
            maps = list(_maps(library, handle, request.entries).values())
        roles = [fact.role for fact in programs if fact.role]
        about = Answer(library.version, messages=list(library.messages), programs=programs, maps=maps)
        if "connect4" not in roles:
            return about, []
        attempt = _attempt(library, data, request, roles)
        refusals = []
        if attempt.errno:
            alone = {role: _attempt(library, data, request, [role]) for role in roles}
            refusals = [_refusal(role, one) for role, one in alone.items() if one.errno]
            _close(alone.values())
            good = [role for role, one in alone.items() if not one.errno]
            if not refusals:  # each loads, and not all together
                refusals = [_refusal(roles[-1], attempt)]
            elif "connect4" in good:
                attempt = _attempt(library, data, request, good)
    except Refused as refused:
        return Answer(library.version, str(refused), refused.errno, list(library.messages)), []
    loaded = {
        role: {"instructions": base64.b64encode(code).decode(), "log": attempt.logs[role]}
        for role, code in attempt.instructions.items()
    }
    answer = replace(about, refusals=refusals, loaded=loaded, sent=list(attempt.descriptors))
    return answer, list(attempt.descriptors.values())


def _refusal(role: str, attempt: _Attempt) -> Refusal:
    return Refusal(role, attempt.errno, attempt.logs.get(role, ""), attempt.messages)


def _close(attempts: Iterable[_Attempt]) -> None:
    for attempt in attempts:
        for number in attempt.descriptors.values():
            os.close(number)


def main() -> int:
    """The process: limits first, then the object, then home with what came of it."""
    request = Request(**json.loads(sys.argv[1]))
    processes.die_with_parent(request.parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    channel = socket.socket(fileno=request.channel)
    try:
        answer, descriptors = load(sys.stdin.buffer.read(), request)
    except HarnessError as error:
        json.dump({"happened": error.happened, "remedy": error.remedy}, sys.stdout)
        return 3
    if descriptors:
        socket.send_fds(channel, [b"+"], descriptors)
    json.dump(asdict(answer), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
