"""bpf(2): the calls that the harness makes of the kernel itself, each as a function.

BCC and libbpf hide what this project is about: which call was refused, with which errno and log; and BCC cannot
make a bpf_link. Offsets of the packed attributes are those of union bpf_attr in include/uapi/linux/bpf.h, which is
append-only. All integers are in host byte order. Every function raises BpfError when the kernel refuses.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import TracebackType

from harness.errors import HarnessError, errno_text
from harness.kernel.bpf_types import AttachType as AttachType
from harness.kernel.bpf_types import MapType as MapType
from harness.kernel.bpf_types import ProgramType as ProgramType

# __NR_bpf in arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_NAME_LENGTH = 15  # BPF_OBJ_NAME_LEN, less the terminating zero
_LOG_SIZE = 1 << 16
_LOG_SIZE_MAX = 1 << 27

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    PROG_ATTACH = 8
    PROG_DETACH = 9
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_LOOKUP_BATCH = 24
    LINK_CREATE = 28
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    LINK_DETACH = 34


class AttachFlag(IntFlag):
    """BPF_F_* of PROG_ATTACH. NONE is the exclusive mode that aya calls single."""

    NONE = 0
    ALLOW_OVERRIDE = 1
    ALLOW_MULTI = 2


QUERY_EFFECTIVE = 1  # BPF_F_QUERY_EFFECTIVE
LINK_TYPE_CGROUP = 3  # enum bpf_link_type


class BpfError(HarnessError):
    """The kernel refused a bpf(2) call; log is the verifier's, whole, where there is one."""

    def __init__(self, attempted: str, number: int, *, log: str = "", remedy: str | None = None):
        super().__init__(attempted, errno_text(number), remedy, detail=log, errno=number)
        self.log = log


class Fd:
    """A descriptor that this process owns; closed at the end of a with block or by close()."""

    def __init__(self, number: int):
        self._number = number

    def fileno(self) -> int:
        if self._number < 0:
            raise ValueError("the descriptor is closed")
        return self._number

    def close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __enter__(self) -> Fd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Fd({self._number})"


def _bpf(command: Command, attribute: bytes) -> int:
    """The bare call: its result, or minus errno."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        return -errno.ENOSYS
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    result: int = _libc.syscall(number, int(command), buffer, len(attribute))
    return result if result >= 0 else -ctypes.get_errno()


def _call(command: Command, attribute: bytes, attempted: str) -> int:
    result = _bpf(command, attribute)
    if result < 0:
        raise BpfError(attempted, -result)
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _name(name: str) -> bytes:
    """An object's name as the kernel takes it: [A-Za-z0-9_.], at most 15."""
    return "".join(letter if letter.isalnum() or letter in "_." else "_" for letter in name)[:_NAME_LENGTH].encode()


def lift_memlock_limit() -> None:
    """Lift this process's RLIMIT_MEMLOCK as far as it may: kernels before 5.11 charge maps and programs to it."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, PermissionError):  # without CAP_SYS_RESOURCE, no further than the hard limit
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


# --- maps -------------------------------------------------------------------------------------------------------


def map_create(kind: MapType, key_size: int, value_size: int, entries: int, *, flags: int = 0, name: str = "") -> Fd:
    """Create a map; sizes in bytes."""
    attribute = struct.pack("=5I8x16s", kind, key_size, value_size, entries, flags, _name(name))
    attempted = f"create the {kind.name.lower()} map {name or '(unnamed)'} of {entries} entries"
    return Fd(_call(Command.MAP_CREATE, attribute, attempted))


def _element(fd: Fd, key: int, value: int, flags: int = 0) -> bytes:
    return struct.pack("=I4x3Q", fd.fileno(), key, value, flags)


def map_lookup(fd: Fd, key: bytes, value_size: int) -> bytes | None:
    """The value under key, or None."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_size)
    result = _bpf(Command.MAP_LOOKUP_ELEM, _element(fd, _address(key_buffer), _address(value)))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise BpfError(f"look up a key of {len(key)} bytes in a map", -result)
    return value.raw


def map_update(fd: Fd, key: bytes, value: bytes) -> None:
    """Put value under key, whether or not the key is there."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    _call(Command.MAP_UPDATE_ELEM, _element(fd, _address(key_buffer), _address(value_buffer)), "update a map's entry")


def map_delete(fd: Fd, key: bytes) -> bool:
    """Remove key; False when it was not there."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    result = _bpf(Command.MAP_DELETE_ELEM, _element(fd, _address(key_buffer), 0))
    if result == -errno.ENOENT:
        return False
    if result < 0:
        raise BpfError("delete a map's entry", -result)
    return True


def map_keys(fd: Fd, key_size: int, limit: int = 1 << 20) -> Iterator[bytes]:
    """The keys as the kernel walks them; a map that changes meanwhile may give a key twice, so there is a limit."""
    key = ctypes.create_string_buffer(key_size)
    following = ctypes.create_string_buffer(key_size)
    pointer = 0  # NULL asks for the first key
    for _ in range(limit):
        result = _bpf(Command.MAP_GET_NEXT_KEY, _element(fd, pointer, _address(following)))
        if result == -errno.ENOENT:
            return
        if result < 0:
            raise BpfError("walk a map's keys", -result)
        yield following.raw
        key.raw = following.raw
        pointer = _address(key)


def map_keys_at_once(fd: Fd, key_size: int, value_size: int, entries: int) -> set[bytes] | None:
    """All keys of a hash map of so many entries, by BPF_MAP_LOOKUP_BATCH (5.6); None where the kernel has it not."""
    keys = ctypes.create_string_buffer(key_size * entries)
    values = ctypes.create_string_buffer(value_size * entries)
    following = ctypes.create_string_buffer(max(key_size, 4))  # where the walk is: opaque
    found: set[bytes] = set()
    begin = 0
    while True:
        attribute = struct.pack(
            "=4QIIQQ", begin, _address(following), _address(keys), _address(values), entries, fd.fileno(), 0, 0
        )
        buffer = ctypes.create_string_buffer(attribute, len(attribute))
        call = (_SYSCALL[platform.machine()], int(Command.MAP_LOOKUP_BATCH), buffer, len(attribute))
        number = ctypes.get_errno() if _libc.syscall(*call) < 0 else 0
        if number in (errno.EINVAL, errno.EOPNOTSUPP, 524):  # 524: ENOTSUPP, a map type without it
            return None
        if number not in (0, errno.ENOENT):  # ENOENT: that was all
            raise BpfError("read a map's keys at once", number)
        (count,) = struct.unpack_from("=I", buffer.raw, 32)
        found.update(key for (key,) in struct.iter_unpack(f"{key_size}s", keys.raw[: key_size * count]))
        if number:
            return found
        begin = _address(following)


@dataclass(frozen=True)
class MapInfo:
    """The start of struct bpf_map_info; sizes in bytes."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def map_info(fd: Fd) -> MapInfo:
    raw = _info(fd, 40, "map")
    kind, number, key_size, value_size, entries, flags = struct.unpack_from("=6I", raw)
    return MapInfo(kind, number, key_size, value_size, entries, flags, raw[24:40].rstrip(b"\0").decode())


# --- programs ---------------------------------------------------------------------------------------------------


def _load_attribute(
    kind: int, instructions: int, count: int, licence: int, level: int, size: int, log: int, name: bytes, attach: int
) -> bytes:
    return struct.pack("=IIQQIIQII16sII", kind, count, instructions, licence, level, size, log, 0, 0, name, 0, attach)


def prog_load(
    kind: ProgramType,
    instructions: bytes,
    *,
    attach: AttachType | None = None,
    licence: str = "GPL",
    name: str = "",
    log_level: int = 1,
) -> tuple[Fd, str]:
    """Load a program (8 bytes an instruction) and give it with the verifier's whole log.

    log_level: 0 no log, 1 what was decided, 2 every instruction. The log's buffer grows until the kernel no longer
    answers ENOSPC, so the log is never cut. Raises BpfError with the log.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    words = ctypes.create_string_buffer(licence.encode())
    size = _LOG_SIZE
    while True:
        log = ctypes.create_string_buffer(size if log_level else 1)
        attribute = _load_attribute(
            int(kind), _address(code), len(instructions) // 8, _address(words), log_level, size if log_level else 0,
            _address(log) if log_level else 0, _name(name), int(attach or 0),
        )  # fmt: skip
        result = _bpf(Command.PROG_LOAD, attribute)
        if result != -errno.ENOSPC or not log_level or size >= _LOG_SIZE_MAX:
            break
        size *= 8
    text = log.value.decode("utf-8", "replace")
    if result < 0:
        attempted = f"load {name or 'a program'} ({kind.name.lower()}, {len(instructions) // 8} instructions)"
        raise BpfError(attempted, -result, log=text)
    return Fd(result), text


@dataclass(frozen=True)
class ProgramInfo:
    """What the harness needs of struct bpf_prog_info; lengths in bytes."""

    type: int
    id: int
    tag: str
    jited_length: int
    translated_length: int
    created_by_uid: int
    map_ids: tuple[int, ...]
    name: str


def prog_info(fd: Fd) -> ProgramInfo:
    size = 128
    maps = ctypes.create_string_buffer(4 * 64)
    request = bytearray(size)
    struct.pack_into("=IQ", request, 52, 64, _address(maps))  # nr_map_ids, map_ids
    raw = _info(fd, size, "program", bytes(request))
    kind, number, tag, jited, translated = struct.unpack_from("=II8sII", raw)
    uid, map_count = struct.unpack_from("=II", raw, 48)
    map_ids = struct.unpack_from(f"={min(map_count, 64)}I", maps.raw)
    name = raw[64:80].rstrip(b"\0").decode("utf-8", "replace")
    return ProgramInfo(kind, number, tag.hex(), jited, translated, uid, map_ids, name)


def _info(fd: Fd, size: int, what: str, request: bytes = b"") -> bytes:
    buffer = ctypes.create_string_buffer(request, size)
    attribute = struct.pack("=IIQ", fd.fileno(), size, _address(buffer))
    _call(Command.OBJ_GET_INFO_BY_FD, attribute, f"read a {what}'s information")
    return buffer.raw


def prog_fd(number: int) -> Fd:
    """A descriptor of the program with this id. Needs CAP_SYS_ADMIN; ENOENT when it is gone."""
    return Fd(_call(Command.PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0), f"open program {number}"))


def map_fd(number: int) -> Fd:
    """A descriptor of the map with this id."""
    return Fd(_call(Command.MAP_GET_FD_BY_ID, struct.pack("=III", number, 0, 0), f"open map {number}"))


# --- attaching --------------------------------------------------------------------------------------------------


def prog_attach(cgroup: int, program: Fd, attach: AttachType, flags: AttachFlag = AttachFlag.NONE) -> None:
    """BPF_PROG_ATTACH: stays until it is detached or the cgroup is gone, whatever becomes of the caller."""
    attribute = struct.pack("=4I", cgroup, program.fileno(), attach, flags)
    _call(Command.PROG_ATTACH, attribute, f"attach a program as {attach.name.lower()} by BPF_PROG_ATTACH")


def prog_detach(cgroup: int, program: Fd, attach: AttachType) -> None:
    attribute = struct.pack("=4I", cgroup, program.fileno(), attach, 0)
    _call(Command.PROG_DETACH, attribute, f"detach a program from {attach.name.lower()}")


def link_create(cgroup: int, program: Fd, attach: AttachType, flags: int = 0) -> Fd:
    """BPF_LINK_CREATE (5.7): attached until the last descriptor of the link is closed."""
    attribute = struct.pack("=4I", program.fileno(), cgroup, attach, flags)
    return Fd(_call(Command.LINK_CREATE, attribute, f"attach a program as {attach.name.lower()} by BPF_LINK_CREATE"))


def link_detach(link: Fd) -> None:
    """Detach by force (5.9): the link's other descriptors stay, and attach nothing."""
    _call(Command.LINK_DETACH, struct.pack("=I", link.fileno()), "detach a link by force")


@dataclass(frozen=True)
class Attached:
    """BPF_PROG_QUERY's answer for one cgroup and attach type: program ids in the order in which they run."""

    programs: tuple[int, ...]
    flags: AttachFlag


def prog_query(cgroup: int, attach: AttachType, *, effective: bool = False) -> Attached:
    """What is attached to a cgroup itself or, with effective, what runs for a process in it."""
    room = 64  # BPF_CGROUP_MAX_PROGS
    while True:
        ids = ctypes.create_string_buffer(4 * room)
        attribute = struct.pack(
            "=4IQII", cgroup, attach, QUERY_EFFECTIVE if effective else 0, 0, _address(ids), room, 0
        )
        buffer = ctypes.create_string_buffer(attribute, len(attribute))
        result: int = _libc.syscall(_SYSCALL[platform.machine()], int(Command.PROG_QUERY), buffer, len(attribute))
        number = ctypes.get_errno() if result < 0 else 0
        if number == errno.ENOSPC:  # an effective list may be longer: 64 a level
            room *= 4
            continue
        if number:
            raise BpfError(f"query what is attached as {attach.name.lower()}", number)
        flags, count = struct.unpack_from("=I8xI", buffer.raw, 12)
        return Attached(struct.unpack_from(f"={count}I", ids.raw), AttachFlag(flags & 3))


@dataclass(frozen=True)
class CgroupLink:
    """A cgroup link: its id, its program's id, the cgroup's id (inode number), its attach type."""

    id: int
    program: int
    cgroup: int
    attach: int


def cgroup_links() -> Iterator[CgroupLink]:
    """Every cgroup link of the machine (5.8). Needs CAP_SYS_ADMIN."""
    last = 0
    while True:
        attribute = struct.pack("=III", last, 0, 0)
        buffer = ctypes.create_string_buffer(attribute, len(attribute))
        if _libc.syscall(_SYSCALL[platform.machine()], int(Command.LINK_GET_NEXT_ID), buffer, len(attribute)) < 0:
            if ctypes.get_errno() == errno.ENOENT:
                return
            raise BpfError("list the links of this machine", ctypes.get_errno())
        last = struct.unpack_from("=4xI", buffer.raw)[0]
        try:
            number = _call(Command.LINK_GET_FD_BY_ID, struct.pack("=III", last, 0, 0), f"open link {last}")
        except BpfError as error:
            if error.errno in (errno.ENOENT, errno.EAGAIN):  # gone since it was listed, or not there yet
                continue
            raise
        with Fd(number) as link:
            kind, identity, program, cgroup, attach = struct.unpack_from("=3I4xQI", _info(link, 32, "link"))
        if kind == LINK_TYPE_CGROUP:
            yield CgroupLink(identity, program, cgroup, attach)
