"""redact: a bundle of any kind comes out as a .tar.gz without its secrets, and nothing leads out of it."""

from __future__ import annotations

import base64
import io
import tarfile
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest

from harness import cli
from harness.diagnose import intake, verdict
from harness.diagnose.redaction import INDEX, redact_bundle
from harness.errors import HarnessError
from tests.unit.diagnose.test_collector import KEY

CORPUS = Path(__file__).parents[2] / "corpus" / "evidence"


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {
            member.name: file.read().decode()
            for member in archive.getmembers()
            if (file := archive.extractfile(member)) is not None
        }


def test_every_text_of_a_zip_in_a_tar(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("../../logs/agent.log", f"acquired {KEY}")
        archive.writestr("/etc/agent.log", "nothing")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as outer:
        for name, content in (
            ("in.zip", inner.getvalue()),
            ("core", b"\x7fELF\0\0\1\2" * 20),
            ("a.log", b"sig=abcdef"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            outer.addfile(member, io.BytesIO(content))
    done = redact_bundle([tmp_path / "b.tar.gz"], tmp_path / "clean.tar.gz")
    found = members(tmp_path / "clean.tar.gz")
    assert done.texts == 3
    assert not any(KEY in text or "abcdef" in text for text in found.values())
    assert any("acquired [redacted key]" in text for text in found.values())
    assert all(not name.startswith("/") and ".." not in name.split("/") for name in found)
    assert "core: it is no text" in found[INDEX]
    assert (tmp_path / "clean.tar.gz").stat().st_mode & 0o777 == 0o600


def test_the_verdict_stays(tmp_path: Path) -> None:
    """Redacting takes no evidence away that the corpus' verdicts rest on."""
    for case in ("key-refused-log", "load-guide", "attach-guide", "win-ext-missing", "unit-masked"):
        evidence = CORPUS / case / "bundle"
        output = tmp_path / f"{case}.tar.gz"
        redact_bundle([evidence], output)
        before, after = verdict.diagnose(intake.read([evidence])), verdict.diagnose(intake.read([output]))
        assert (after.kind, after.code) == (before.kind, before.code), case


def test_what_is_attached_to_a_mail(tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"] = "logs"
    message.set_content("please look")
    message.add_attachment(f"acquired {KEY}".encode(), maintype="application", subtype="octet-stream", filename="a.log")
    (tmp_path / "m.eml").write_bytes(message.as_bytes())
    done = redact_bundle([tmp_path / "m.eml"], tmp_path / "clean")
    assert done.secrets == {"key": 1}
    assert "acquired [redacted key]" in members(tmp_path / "clean").values()
    whole = "".join(members(tmp_path / "clean").values())
    assert base64.b64encode(KEY.encode()).decode()[:20] not in whole


def test_a_mail_that_cannot_be_taken_apart_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> list[tuple[str, bytes]]:
        raise ValueError("no whole mail")

    monkeypatch.setattr("harness.diagnose.mail.parts", broken)
    (tmp_path / "m.eml").write_bytes(b"MIME-Version: 1.0\nContent-Type: text/plain\n\nQUJD\n")
    assert redact_bundle([tmp_path / "m.eml"], tmp_path / "clean").texts == 0
    assert "a mail whose parts cannot be read" in members(tmp_path / "clean")[INDEX]


def test_nothing_is_overwritten_and_nothing_half_stays(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("x")
    (tmp_path / "out").write_text("precious")
    with pytest.raises(HarnessError, match="EEXIST"):
        redact_bundle([tmp_path / "a.log"], tmp_path / "out")
    with pytest.raises(HarnessError, match="ENOENT"):
        redact_bundle([tmp_path / "none"], tmp_path / "new")
    assert (tmp_path / "out").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "out"]


def test_two_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a/x.log", "one")
        archive.writestr("a//x.log", "two")
    redact_bundle([tmp_path / "b.zip"], tmp_path / "clean")
    assert {"one", "two"} <= set(members(tmp_path / "clean").values())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.log").write_text(f"acquired {KEY}\n")
    assert cli.main(["redact", "agent.log"]) == 0
    assert "1 texts; 1 × key" in capsys.readouterr().out
    assert "[redacted key]" in "".join(members(tmp_path / "agent.log.redacted.tar.gz").values())
    assert cli.main(["redact", "agent.log"]) == 3
    assert "give another --output" in capsys.readouterr().err
