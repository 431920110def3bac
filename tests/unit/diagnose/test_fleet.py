"""A fleet: every kind of source, restarts, interruptions, bounded memory, and a summary that counts right."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cli
from harness.diagnose.fleet import store as stores
from harness.diagnose.fleet.bundles import Bundle, opened
from harness.diagnose.fleet.judgement import COLUMNS, UNREADABLE, judge, mask
from harness.diagnose.fleet.run import run
from harness.diagnose.fleet.store import Store
from harness.diagnose.fleet.summary import Summary, g_squared, summary
from harness.errors import HarnessError

CORPUS = Path(__file__).parents[2] / "corpus" / "evidence"
REFUSED = (CORPUS / "key-refused-but-success" / "bundle" / "status.json").read_text()
HEALTHY = next((CORPUS / "healthy-linux" / "bundle").rglob("status.json")).read_text()
UNKNOWN = (CORPUS / "part-stopped-unknown-words" / "bundle" / "status.json").read_text()


def quiet(count: int, done: int, size: int | None) -> None:
    return None


def judged(path: Path, base: Path, jobs: int = 1) -> tuple[int, int, Summary]:
    with Store(base) as store:
        count, fresh = run(path, store, jobs, quiet)
        return count, fresh, summary(store)


def verdicts(base: Path) -> dict[str, str]:
    with Store(base) as store:
        return {str(name): str(code) for name, code in store.query("SELECT name, code FROM bundles")}


def ndjson(path: Path, texts: Sequence[str], uname: str = "") -> Path:
    lines = []
    for number, text in enumerate(texts):
        files = {"status.json": text} | ({"uname.txt": f"$ uname -r\n{uname}\n"} if uname else {})
        lines.append(json.dumps({"name": f"vm{number}", "files": files}))
    path.write_text("\n".join(lines) + "\n")
    return path


def in_directory(top: Path) -> Path:
    fleet = top / "fleet"
    (fleet / "b" / "var").mkdir(parents=True)
    (fleet / "a").write_text(REFUSED)
    (fleet / "b" / "var" / "status.json").write_text(REFUSED)
    with tarfile.open(fleet / "c.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("x/status.json")
        member.size = len(REFUSED.encode())
        archive.addfile(member, io.BytesIO(REFUSED.encode()))
    return fleet


def in_tar(top: Path) -> Path:
    path = top / "fleet.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(in_directory(top), "all/of/them")
    return path


def in_zip(top: Path) -> Path:
    path = top / "fleet.zip"
    fleet = in_directory(top)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in fleet.rglob("*") if file.is_file()):
            archive.write(file, f"fleet/{file.relative_to(fleet)}")
    return path


@pytest.mark.parametrize("make", [in_directory, in_tar, in_zip])
def test_a_file_a_folder_and_an_archive_are_a_bundle_each(tmp_path: Path, make: object) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    assert judged(path, tmp_path / "base")[:2] == (3, 3)
    assert verdicts(tmp_path / "base") == {"a": "MSP-K102", "b": "MSP-K102", "c.tar.gz": "MSP-K102"}


def test_lines_of_ndjson_in_each_shape(tmp_path: Path) -> None:
    status = json.loads(REFUSED)
    lines = [
        json.dumps(status),  # the evidence itself
        json.dumps({"vmName": "one", "files": {"status.json": REFUSED}}),
        json.dumps({"text": REFUSED}),
        "",
        "{broken",
        json.dumps({"files": [1], "name": 5}),
    ]
    (tmp_path / "f.ndjson").write_text("\n".join(lines))
    assert judged(tmp_path / "f.ndjson", tmp_path / "base")[0] == 5
    found = verdicts(tmp_path / "base")
    assert {found["line 1"], found["line 2: one"], found["line 3"]} == {"MSP-K102"}
    assert found["line 5"] != "MSP-K102"


@pytest.mark.parametrize("text", ["", "no json\n", "\0\1"])
def test_what_is_no_fleet(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(HarnessError, match="read the fleet"):
        judged(tmp_path / "f", tmp_path / "base")
    with pytest.raises(HarnessError, match="ENOENT"):
        judged(tmp_path / "none", tmp_path / "base")


@given(st.binary(max_size=300))
def test_any_bytes_as_lines(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fleet") / "f.ndjson"
    path.write_bytes(b"{}\n" + data)
    with opened(path) as source:
        rows = [judge(bundle) for bundle in source.bundles]
    assert rows


def test_damaged_archives_and_special_files_are_rows(tmp_path: Path) -> None:
    path = in_tar(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    count, _, found = judged(path, tmp_path / "base")
    assert count >= 3
    assert found.kinds[UNREADABLE] == 1
    folder = tmp_path / "odd"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/etc/passwd")
    assert judged(folder, tmp_path / "other")[2].kinds == {UNREADABLE: 2}


def test_a_restart_judges_only_what_is_new(tmp_path: Path) -> None:
    fleet, base = in_directory(tmp_path), tmp_path / "base"
    assert judged(fleet, base)[:2] == (3, 3)
    assert judged(fleet, base)[:2] == (3, 0)
    (fleet / "a").write_text(HEALTHY)
    (fleet / "b" / "var" / "status.json").unlink()
    (fleet / "b" / "var").rmdir()
    (fleet / "b").rmdir()
    count, fresh, found = judged(fleet, base)
    assert (count, fresh) == (2, 1)
    assert verdicts(base) == {"a": "MSP-E100", "c.tar.gz": "MSP-K102"}
    assert found.bundles == 2


def test_other_rules_forget_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, base = in_directory(tmp_path), tmp_path / "base"
    judged(fleet, base)
    monkeypatch.setattr(stores, "rules_digest", lambda: "another")
    assert judged(fleet, base)[:2] == (3, 3)


def test_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("no database " * 200)
    with pytest.raises(HarnessError, match="give another --store"):
        Store(tmp_path / "base")


def test_workers_give_the_same_rows(tmp_path: Path) -> None:
    texts = [random.Random(number).choice([REFUSED, HEALTHY, UNKNOWN]) for number in range(600)]
    path = ndjson(tmp_path / "f.ndjson", texts)
    assert judged(path, tmp_path / "one", 1)[:2] == judged(path, tmp_path / "two", 2)[:2] == (600, 600)
    with Store(tmp_path / "one") as one, Store(tmp_path / "two") as two:
        assert list(one.batches()) == list(two.batches())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_half_way_it_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    path = ndjson(tmp_path / "f.ndjson", [REFUSED] * 6_000)
    base = tmp_path / "base"
    command = [sys.executable, "-m", "harness", "diagnose", "--fleet", str(path), "--store", str(base), "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    while process.poll() is None and not _rows(base):
        time.sleep(0.02)
    if number is signal.SIGKILL:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)  # as a terminal's Ctrl-C reaches every process
    output, _ = process.communicate(timeout=60)  # at once also when a worker holds the pipe: none may be left
    assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGTERM), output
    count, fresh, _ = judged(path, base)
    assert count == 6_000
    assert 0 < fresh < 6_000


def _rows(base: Path) -> bool:
    import sqlite3

    try:
        with sqlite3.connect(base) as connection:
            return bool(connection.execute("SELECT count(*) FROM bundles").fetchone()[0])
    except sqlite3.Error:
        return False


def test_the_summary_counts(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    ndjson(tmp_path / "old", [REFUSED] * 20 + [HEALTHY] * 2, "5.4.0-100-generic")
    ndjson(tmp_path / "new", [HEALTHY] * 40 + [REFUSED], "6.1.0-1")
    rows = (tmp_path / "old").read_text() + (tmp_path / "new").read_text()
    rows += "".join(json.dumps({"files": {"status.json": UNKNOWN}}) + "\n" for _ in range(3))
    (tmp_path / "f.ndjson").write_text(rows)
    found = judged(tmp_path / "f.ndjson", tmp_path / "base")[2]
    assert found.bundles == 66
    causes = {row.code: row.count for row in found.causes}
    assert causes["MSP-K102"] == 21
    kernels = {
        cell.value: (cell.machines, cell.failing, cell.most) for cell in found.cells if cell.dimension == "kernel"
    }
    assert kernels["5.4.0-100-generic"] == (22, 20, "MSP-K102")
    (outlier,) = [row for row in found.outliers if row.dimension == "kernel"]
    assert (outlier.value, outlier.here, outlier.machines, outlier.elsewhere) == ("5.4.0-100-generic", 20, 22, 1)
    (message,) = found.unexplained
    assert message.count == 3
    assert "something that no version before" in message.message


def test_no_outlier_where_all_are_alike(tmp_path: Path) -> None:
    for number, kernel in enumerate(("5.4.0-1", "6.1.0-1")):
        ndjson(tmp_path / str(number), [REFUSED, HEALTHY] * 20, kernel)
    (tmp_path / "f").write_text((tmp_path / "0").read_text() + (tmp_path / "1").read_text())
    assert not judged(tmp_path / "f", tmp_path / "base")[2].outliers


def test_g_squared_of_a_known_table() -> None:
    """Independent rows give 0; [[10, 0], [0, 10]] gives 40 ln 2."""
    assert g_squared(10, 20, 5, 10) == pytest.approx(0)
    assert g_squared(10, 0, 0, 10) == pytest.approx(27.7259, abs=1e-3)


def test_masked_messages_of_one_kind_are_equal() -> None:
    one = "Failed at 2024-09-13T18:52:00Z for 9cf81e97-0316-4ad3-94a7-8ccbdee8ddbf at 10.0.0.4:80: error 12 in connect4"
    two = "Failed at 2025-01-02T03:04:05Z for 00000000-0316-4ad3-94a7-8ccbdee8ddbf at 10.9.9.1:80: error 7 in connect4"
    assert mask(one) == mask(two)
    assert "connect4" in mask(one)
    assert mask(one) != mask(two.replace("Failed", "Refused"))


def test_a_defect_of_ours_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(evidence: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("harness.diagnose.fleet.judgement.diagnose", broken)
    row = judge(Bundle("a", "1", documents=(("status.json", b"{}"),)))
    assert (row.kind, "RuntimeError: oops" in row.summary) == (UNREADABLE, True)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return ["diagnose", "--fleet", str(ndjson(tmp_path / "f.ndjson", [REFUSED, HEALTHY, UNKNOWN])), "--jobs", "1"]


def test_the_command(command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main([*command, "--parquet", "f.parquet", "--json", "f.json"]) == 0
    printed = capsys.readouterr().out
    assert "3 machines" in printed
    assert "MSP-K102" in printed
    assert json.loads((tmp_path / "f.json").read_text())["bundles"] == 3
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == list(COLUMNS)
    assert sorted(table["code"].to_pylist()) == ["MSP-E100", "MSP-K102", "MSP-P302"]
    assert cli.main([*command, "more"]) == 2


def test_memory_does_not_grow_with_the_fleet(tmp_path: Path) -> None:
    """A fleet of 15 times the size needs no more than 16 MiB more: what is held is a few batches."""
    peaks = []
    for size in (1_000, 15_000):
        path = ndjson(tmp_path / f"{size}.ndjson", [HEALTHY] * size)
        code = (
            "import sys; from pathlib import Path; from harness.diagnose.fleet.run import run; "
            "from harness.diagnose.fleet.store import Store; "
            "run(Path(sys.argv[1]), Store(Path(sys.argv[2])), 1, lambda *_: None); "
            "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"  # ru_maxrss survives exec
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(tmp_path / f"{size}.sqlite")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout))  # KiB
    assert peaks[1] - peaks[0] < 16 << 10
    assert peaks[1] < 200 << 10
