"""cloud-init's configuration in an image: cloud.cfg and cloud.cfg.d, merged as cloud-init merges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.image import reading
from harness.image.image import Image
from harness.image.reading import Unread

MAIN, PARTS = "/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d"
_LARGEST = 128 << 10  # characters of a file: cloud-init's own has 4 KiB, and YAML takes its time


@dataclass(frozen=True)
class CloudConfig:
    """values: the merged configuration. told: for each top member the files that have it, the last one counts.

    wrong: files that are no YAML mapping, with what is wrong; cloud-init leaves them out.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)


def read(image: Image) -> CloudConfig:
    """cloud.cfg, then the files of cloud.cfg.d in the order of their names. Raises Unread."""
    texts = {}
    main = reading.text(image, MAIN)
    if main is not None:
        texts[MAIN] = main
    if image.tree.is_directory(PARTS):
        texts |= reading.texts(image, PARTS, "*.cfg")
    values: dict[str, Any] = {}
    told: dict[str, tuple[str, ...]] = {}
    wrong: dict[str, str] = {}
    for path, text in texts.items():
        if len(text) > _LARGEST:
            raise Unread(f"{path} has more than {_LARGEST >> 10} KiB and was not read")
        found, trouble = parse(text)
        if trouble:
            wrong[path] = trouble
        for name in found:
            told[name] = (*told.get(name, ()), path)
        values = _merged(values, found)
    return CloudConfig(values, told, wrong)


def parse(text: str) -> tuple[dict[str, Any], str]:
    """A file's members, and what is wrong with it: nothing, or a clause. Never raises."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        return {}, f"it is no YAML{where}"
    except (ValueError, TypeError, RecursionError, AttributeError, OverflowError) as error:
        return {}, f"it is no YAML that can be read: {type(error).__name__}"
    if found is None:
        return {}, ""
    if not isinstance(found, dict):
        return {}, "it is no mapping"
    return {str(name): value for name, value in found.items()}, ""


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], deep: int = 0) -> dict[str, Any]:
    """cloud-init's util.mergemanydict, the newer first: mappings are merged, all else is replaced."""
    found = dict(old)
    for name, value in new.items():
        before = found.get(name)
        if isinstance(before, dict) and isinstance(value, dict) and deep < 20:
            found[name] = _merged(before, value, deep + 1)
        else:
            found[name] = value
    return found
