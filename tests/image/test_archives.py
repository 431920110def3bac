"""Root file systems as files, from `image check FILE` on: each packing, OCI and docker save; whole, and cut off."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import zstandard

from harness import cli
from harness.image import check
from harness.report import EXIT_CHECK_FAILED, Outcome, Result
from harness.report import json as report_json
from tests.image.systems import needs_guestfish, tree
from tests.image.tars import tarred

pytestmark = [needs_guestfish]

Pack = Callable[[bytes], bytes]

PACKERS: Mapping[str, Pack] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.ZstdCompressor().compress,
}
NOISE = 200_000  # bytes that no packer makes smaller: what is cut off of an archive is content, and no padding


def oci(layers: Sequence[bytes], *, cut: bool = False) -> bytes:
    """An OCI layout as a tar; cut: the last layer lacks its second half, which its descriptor does not say."""
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(data: bytes, stored: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digest}"] = stored
        return {"digest": f"sha256:{digest}", "size": len(data)}

    last = len(layers) - 1
    blobs = [blob(each, each[: len(each) // 2] if cut and at == last else each) for at, each in enumerate(layers)]
    manifest = json.dumps({"layers": blobs}).encode()
    files["index.json"] = json.dumps({"manifests": [blob(manifest, manifest)]}).encode()
    return tarred(files)


def saved(layers: Sequence[bytes], *, cut: bool = False) -> bytes:
    """What docker save writes of an image, in its own form."""
    names = [f"{hashlib.sha256(each).hexdigest()}/layer.tar" for each in layers]
    stored = [*layers[:-1], layers[-1][: len(layers[-1]) // 2] if cut else layers[-1]]
    manifest = [{"Config": "config.json", "RepoTags": ["image:latest"], "Layers": names}]
    about = {"manifest.json": json.dumps(manifest).encode(), "config.json": b"{}"}
    return tarred({**dict(zip(names, stored, strict=True)), **about})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tar of a small system, whose last member is noise."""
    place = tree(tmp_path_factory.mktemp("root"), {"var/noise": os.urandom(NOISE)})
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(place, arcname=".", filter=lambda member: None if member.name == "./var/noise" else member)
        tar.add(place / "var/noise", arcname="./var/noise")
    return stream.getvalue()


UPPER = {"etc/hostname": b"upper\n", "var/other": os.urandom(NOISE)}


def whole(form: str, root: bytes) -> bytes:
    if form == "oci.tar.gz":  # its layers packed in two ways
        return gzip.compress(oci([PACKERS["tar.gz"](root), PACKERS["tar.zst"](tarred(UPPER))]))
    if form == "docker.tar.xz":
        return lzma.compress(saved([root, tarred(UPPER)]))
    return PACKERS[form](root)


def checked(image: Path) -> tuple[int, dict[str, Result]]:
    """The exit code and the Results of `image check`."""
    target = image.with_name("report.json")
    status = cli.main(["image", "check", str(image), "--json", str(target)])
    return status, {result.id: result for result in report_json.load(target.read_text()).results}


@pytest.mark.parametrize(
    "form",
    [
        *(
            pytest.param(form, marks=pytest.mark.slow(reason="the appliance for each; test_read has gzip"))
            for form in PACKERS
        ),
        "oci.tar.gz",
        "docker.tar.xz",
    ],
)
def test_a_root_is_read_in_every_form(form: str, root: bytes, tmp_path: Path) -> None:
    image = tmp_path / f"image.{form}"
    image.write_bytes(whole(form, root))
    _, results = checked(image)
    assert check.READ not in results
    assert results["system.found"].outcome is Outcome.PASS
    assert results["system.found"].summary == "Debian GNU/Linux 12"
    assert "22.4.2" in results["cloud-init.version"].summary
    read = results["system.read"]
    assert read.outcome is Outcome.PASS, read.summary
    assert list(read.evidence["unread"]) == ["/etc/large"]  # type: ignore[arg-type]


AT_ONCE = ("tar.gz", "tar.bz2", "oci.tar.gz")  # as small as they are here, it is seen before the appliance is started
IN_THE_APPLIANCE = ("tar.zst", "tar", "tar.xz", "docker.tar.xz")


@pytest.mark.parametrize(
    "form",
    [
        *AT_ONCE,
        IN_THE_APPLIANCE[0],
        *(pytest.param(form, marks=pytest.mark.slow(reason="the appliance for each")) for form in IN_THE_APPLIANCE[1:]),
    ],
)
def test_an_archive_that_is_cut_off_is_an_error_and_no_more(
    form: str, root: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = whole(form, root)
    image = tmp_path / f"image.{form}"
    image.write_bytes(content[: -NOISE // 2])
    is_an_error(image, r"cut off|damaged|too early", capsys)


@pytest.mark.parametrize(
    ("form", "packer"),
    [
        pytest.param(oci, "tar.zst", id="oci"),
        pytest.param(saved, "tar.gz", id="docker", marks=pytest.mark.slow(reason="the appliance; the same as in OCI")),
    ],
)
def test_a_layer_that_is_cut_off_is_an_error_and_no_more(
    form: Callable[..., bytes], packer: str, root: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.tar"
    image.write_bytes(form([root, PACKERS[packer](tarred(UPPER))], cut=True))
    is_an_error(image, r"the layer [a-z0-9/.]+ is damaged: ", capsys)


def is_an_error(image: Path, happened: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One Result, an ERROR that says what is wrong and what to do; the command says so too, and fails."""
    status, results = checked(image)
    result = results.pop(check.READ)
    assert status == EXIT_CHECK_FAILED
    assert not results
    assert result.outcome is Outcome.ERROR
    assert re.search(happened, result.summary), result.summary
    assert result.remedy
    told = capsys.readouterr()
    assert check.READ in told.out
    assert "Traceback" not in told.out + told.err
