"""Which headers tree is chosen, what the merged tree is made of, and that BCC can use it."""

from __future__ import annotations

import io
import select
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.program import headers

ARCH = headers.architecture()
RELEASE = "6.18.44-test"

GENERATED = {
    "include/generated/autoconf.h": "#define CONFIG_NET 1\n",
    "include/config/auto.conf": "CONFIG_NET=y\n",
    f"arch/{ARCH}/include/generated/asm/word.h": "",
}
SHARED = {
    "include/linux/types.h": "types",
    "include/linux/kconfig.h": "kconfig",
    "include/uapi/linux/bpf.h": "bpf",
    f"arch/{ARCH}/include/asm/ptrace.h": "ptrace",
    f"arch/{ARCH}/include/uapi/asm/ptrace.h": "ptrace",
}


def write(tree: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


def generated(release: str) -> dict[str, str]:
    return {**GENERATED, "include/generated/utsrelease.h": f'#define UTS_RELEASE "{release}"\n'}


def whole(tree: Path, release: str) -> Path:
    return write(tree, {**generated(release), **SHARED})


def split(root: Path, version: str) -> Path:
    """Debian's two packages of a version; the path is that of the flavour's."""
    common = write(root / f"usr/src/linux-headers-{version}-common", SHARED)
    flavour = write(root / f"usr/src/linux-headers-{version}-amd64", generated(f"{version}-amd64"))
    return write(flavour, {"Makefile": f"include {common}/Makefile\n"})


def archive(root: Path, files: dict[str, str]) -> None:
    (root / "sys/kernel").mkdir(parents=True)
    with tarfile.open(root / "sys/kernel/kheaders.tar.xz", "w:xz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))


def find(root: Path) -> headers.Headers:
    return headers.headers_tree(cache=root / "cache", root=root, release=RELEASE)


def test_the_running_kernels_own_tree_comes_first(tmp_path: Path) -> None:
    own = whole(tmp_path / f"usr/src/linux-headers-{RELEASE}", RELEASE)
    (tmp_path / "lib/modules" / RELEASE).mkdir(parents=True)
    (tmp_path / "lib/modules" / RELEASE / "build").symlink_to(own)
    whole(tmp_path / "usr/src/linux-headers-9.9.9-later", "9.9.9-later")
    archive(tmp_path, {**generated(RELEASE), **SHARED})
    assert find(tmp_path) == headers.Headers(own, str(own), RELEASE, True)
    assert not (tmp_path / "cache").exists()


def test_a_build_link_that_leads_nowhere_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lib/modules" / RELEASE).mkdir(parents=True)
    (tmp_path / "lib/modules" / RELEASE / "build").symlink_to(tmp_path / "gone")
    other = whole(tmp_path / "usr/src/linux-headers-6.1.0-9-generic", "6.1.0-9-generic")
    assert find(tmp_path) == headers.Headers(other, str(other), "6.1.0-9-generic", False)


def test_kheaders_are_unpacked_once_a_boot(tmp_path: Path) -> None:
    archive(tmp_path, {**generated(RELEASE), **SHARED})
    whole(tmp_path / "usr/src/kernels/6.5.0", "6.5.0")
    (tmp_path / "cache/headers/kheaders-earlier-boot/include").mkdir(parents=True)
    first = find(tmp_path)
    assert first.is_running_kernel
    assert first.origin == str(tmp_path / "sys/kernel/kheaders.tar.xz")
    assert (first.path / "include/linux/types.h").read_text() == "types"
    assert [tree.name for tree in first.path.parent.iterdir()] == [first.path.name]
    made = first.path.stat().st_mtime_ns
    assert find(tmp_path) == first
    assert first.path.stat().st_mtime_ns == made


@pytest.mark.parametrize("content", [b"", b"\xfd7zXZ\x00 not really", b"plain"])
def test_kheaders_that_cannot_be_unpacked_are_an_error_that_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/kheaders.tar.xz").write_bytes(content)
    with pytest.raises(HarnessError, match=r"kheaders\.tar\.xz: it cannot be unpacked: "):
        find(tmp_path)


def test_kheaders_without_headers_leave_nothing_behind(tmp_path: Path) -> None:
    archive(tmp_path, {"include/linux/types.h": ""})
    with pytest.raises(HarnessError, match="no complete kernel headers"):
        find(tmp_path)
    assert list((tmp_path / "cache/headers").iterdir()) == []


def test_kheaders_cannot_write_outside_the_cache(tmp_path: Path) -> None:
    archive(tmp_path, {"../../../escaped": "x"})
    with pytest.raises(HarnessError, match="cannot be unpacked"):
        find(tmp_path)
    assert not (tmp_path / "escaped").exists()


def test_debians_two_halves_become_one_tree(tmp_path: Path) -> None:
    flavour = split(tmp_path, "6.1.0-56")
    found = find(tmp_path)
    assert headers.is_complete(found.path)
    assert (found.release, found.origin) == ("6.1.0-56-amd64", str(flavour))
    for name in (*GENERATED, *SHARED):
        assert (found.path / name).is_file(), name
    assert not any(path.is_file() and not path.is_symlink() for path in found.path.rglob("*"))


def test_the_newest_is_found_by_number_and_the_running_kernels_before_it(tmp_path: Path) -> None:
    for version in ("6.1.0-9", "6.1.0-56", "5.10.0-99"):
        split(tmp_path, version)
    assert find(tmp_path).release == "6.1.0-56-amd64"
    running = "6.1.0-9-amd64"
    found = headers.headers_tree(cache=tmp_path / "cache", root=tmp_path, release=running)
    assert (found.release, found.is_running_kernel) == (running, True)


def test_the_other_half_is_found_by_name_when_the_makefile_does_not_tell(tmp_path: Path) -> None:
    split(tmp_path, "6.1.0-5")
    flavour = split(tmp_path, "6.1.0-56")
    (flavour / "Makefile").unlink()
    found = find(tmp_path)
    assert (found.path / "include/linux").readlink() == tmp_path / "usr/src/linux-headers-6.1.0-56-common/include/linux"


def test_a_flavour_without_its_other_half_is_not_a_tree(tmp_path: Path) -> None:
    write(tmp_path / "usr/src/linux-headers-6.1.0-56-amd64", generated("6.1.0-56-amd64"))
    assert headers.sources(root=tmp_path, release=RELEASE) == ()


def test_suses_halves_are_found_by_their_relative_makefile(tmp_path: Path) -> None:
    write(tmp_path / "usr/src/linux-6.4.0-9", SHARED)
    tree = write(tmp_path / "usr/src/linux-6.4.0-9-obj/x86_64/default", generated("6.4.0-9-default"))
    write(tree, {"Makefile": "include ../../../linux-6.4.0-9/Makefile\n"})
    assert find(tmp_path).release == "6.4.0-9-default"


def test_where_both_halves_have_a_directory_it_is_merged_and_the_flavours_file_counts(tmp_path: Path) -> None:
    flavour = split(tmp_path, "6.1.0-56")
    write(flavour, {"include/linux/types.h": "of the flavour", "include/linux/more.h": ""})
    tree = find(tmp_path).path
    assert (tree / "include/linux/types.h").read_text() == "of the flavour"
    assert (tree / "include/linux/kconfig.h").read_text() == "kconfig"
    assert (tree / "include/linux/more.h").is_file()


def test_no_tree_at_all_is_an_error_that_names_the_package(tmp_path: Path) -> None:
    write(tmp_path / "etc", {"os-release": "ID=fedora\n"})
    with pytest.raises(HarnessError, match=r"dnf install -y kernel-devel"):
        find(tmp_path)


def test_a_merged_tree_whose_package_was_removed_is_not_used_and_is_swept(tmp_path: Path) -> None:
    flavour = split(tmp_path, "6.1.0-56")
    old = find(tmp_path).path
    flavour.rename(tmp_path / "removed")
    split(tmp_path, "6.1.0-57")
    new = find(tmp_path).path
    assert new.name.startswith("linux-headers-6.1.0-57-amd64-")
    assert not old.exists()


def test_what_a_killed_run_left_unfinished_is_not_used_and_is_swept(tmp_path: Path) -> None:
    split(tmp_path, "6.1.0-56")
    finished = find(tmp_path).path
    leftover = finished.rename(finished.parent / headers.UNFINISHED)
    (leftover / "include/linux").unlink()
    assert find(tmp_path).path == finished
    assert [tree.name for tree in finished.parent.iterdir()] == [finished.name]


SLOW_BUILDER = """
import sys, time
from pathlib import Path
from harness.program import headers
def slowly(links, tree, link=headers._link):
    link(dict(list(links.items())[:2]), tree)
    print("half", flush=True)
    time.sleep(60)
headers._link = slowly
headers.headers_tree(cache=Path(sys.argv[1]) / "cache", root=Path(sys.argv[1]), release="x")
"""


def test_a_builder_killed_half_way_releases_the_lock_and_leaves_no_half_tree(tmp_path: Path) -> None:
    split(tmp_path, "6.1.0-56")
    with subprocess.Popen([sys.executable, "-c", SLOW_BUILDER, tmp_path], stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"half\n"
        builder.send_signal(signal.SIGKILL)
    assert [tree.name for tree in (tmp_path / "cache/headers").iterdir()] == [headers.UNFINISHED]
    assert headers.is_complete(find(tmp_path).path)


def test_a_second_builder_waits_for_the_first(tmp_path: Path) -> None:
    split(tmp_path, "6.1.0-56")
    command = [sys.executable, "-c", SLOW_BUILDER.replace("time.sleep(60)", "sys.stdin.readline()"), str(tmp_path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second,
    ):
        runs = {run.stdout: run for run in (first, second) if run.stdout is not None}
        ready, _, _ = select.select(list(runs), [], [])
        builder = runs[ready[0]]
        waiter = second if builder is first else first
        with pytest.raises(subprocess.TimeoutExpired):
            waiter.wait(timeout=1)
        assert len(select.select(list(runs), [], [], 0)[0]) == 1
        builder.kill()
        assert waiter.communicate(b"\n")[0] == b"half\n"


def test_eight_at_once_agree_on_one_tree(tmp_path: Path) -> None:
    split(tmp_path, "6.1.0-56")
    program = (
        "import sys; from pathlib import Path; from harness.program.headers import headers_tree\n"
        "print(headers_tree(cache=Path(sys.argv[1]) / 'cache', root=Path(sys.argv[1]), release='x').path)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    answers = [run.communicate() for run in runs]
    assert {error for _, error in answers} == {b""}
    assert len({path for path, _ in answers}) == 1
    assert len(list((tmp_path / "cache/headers").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_an_error_with_the_errno(tmp_path: Path) -> None:
    split(tmp_path, "6.1.0-56")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(HarnessError, match=r"(EEXIST|ENOTDIR).*MSP_HARNESS_CACHE"):
        find(tmp_path)


def test_msp_harness_cache_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split(tmp_path, "6.1.0-56")
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path / "elsewhere"))
    assert headers.headers_tree(root=tmp_path).path.parent == tmp_path / "elsewhere/headers"


COMPILE = """
import os, sys
from pathlib import Path
from harness.program.headers import headers_tree
os.environ["BCC_KERNEL_SOURCE"] = str(headers_tree(cache=Path(sys.argv[1])).path)
from bcc import BPF
program = BPF(text='''
#include <linux/in.h>
#include <uapi/linux/bpf.h>
#include <net/sock.h>
int connect4(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip4 == 0 && ctx->user_port == 80 ? 0 : 1;
}
''')
print(len(program.dump_func("connect4")))
"""


def test_bcc_compiles_with_this_machines_tree_in_silence(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COMPILE, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) % 8 == 0


def test_this_machines_packages_are_not_written_to(tmp_path: Path) -> None:
    places = [Path("/usr/src"), *Path("/usr/src").glob("linux-headers-*"), Path("/lib/modules")]
    before = [place.stat().st_mtime_ns for place in places]
    headers.headers_tree(cache=tmp_path)
    assert [place.stat().st_mtime_ns for place in places] == before


def test_the_architecture_has_the_kernels_name() -> None:
    assert headers.architecture("x86_64") == "x86"
    assert headers.architecture("aarch64") == "arm64"
    assert headers.architecture("loongarch64") == "loongarch64"
