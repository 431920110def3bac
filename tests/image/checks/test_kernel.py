"""Kernels that are not the usual ones."""

from __future__ import annotations

from harness.image import checks, predict
from harness.image.image import Image
from harness.image.predict import Provisions
from harness.report import Outcome, Result
from tests.image import trees
from tests.image.checks.breaks import MODULES
from tests.image.trees import KERNEL, changed, file

OPTIONS = ("HYPERV", "HYPERV_STORAGE", "HYPERV_NET", "HYPERV_UTILS", "BLK_DEV_SD", "BLK_DEV_SR", "UDF_FS", "ISO9660_FS")


def checked(image: Image) -> dict[str, Result]:
    return {row.id: row for row in checks.check(image)}


def test_a_kernel_with_everything_built_in_needs_no_modules_and_no_initramfs() -> None:
    config = trees.CONFIG + "\n# CONFIG_MODULES is not set\n" + "".join(f"CONFIG_{name}=y\n" for name in OPTIONS)
    image = changed(
        trees.debian(),
        {MODULES: None, f"/boot/initrd.img-{KERNEL}": None, f"/boot/config-{KERNEL}": file(config)},
    )
    found = checked(image)
    assert found["kernel.default"].outcome is Outcome.PASS
    assert found["modules.hv_netvsc"].outcome is Outcome.PASS
    assert found["modules.hv_netvsc"].summary.startswith("built in")
    assert found["modules.initramfs"].outcome is Outcome.PASS
    assert predict.predict(image, list(found.values())).provisions is Provisions.YES


def test_what_is_built_in_cannot_be_forbidden() -> None:
    config = trees.CONFIG + "\nCONFIG_UDF_FS=y\n"
    image = changed(
        trees.debian(),
        {f"/boot/config-{KERNEL}": file(config), "/etc/modprobe.d/cis.conf": file("install udf /bin/true\n")},
    )
    assert checked(image)["modules.udf"].outcome is Outcome.PASS
