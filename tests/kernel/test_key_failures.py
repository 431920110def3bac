"""The guide's key failures: what an agent without a key says, what its clients get, and that a reset heals it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.agent.config import Config, document
from harness.failures import reproduce
from harness.failures.key_failures import KEYS
from harness.lab.agent_files import REFERENCE_TIMES, AgentFiles
from harness.program.image import Image
from harness.report.model import Outcome, Result
from harness.verifier.explain import explain_text

LOST = ("key-refused", "key-lost", "key-moved-disk", "key-reset-equal", "key-reset-smaller")


@pytest.fixture(scope="module")
def results() -> Mapping[str, Result]:
    return {result.id.removeprefix("reproduce."): result for result in reproduce(["key"])}


def ill(result: Result) -> Mapping[str, Any]:
    found = result.evidence["while it has no key"]
    assert isinstance(found, dict)
    return found


def well(result: Result) -> Mapping[str, Any]:
    found = result.evidence["once healthy"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", [row.name for row in KEYS])
def test_the_guides_test_passes_while_there_is_no_key(name: str, results: Mapping[str, Result]) -> None:
    """RUNNING says that the loop runs; states, message and `--status --wait` tell the truth."""
    result = results[name]
    assert result.outcome is Outcome.PASS, result.summary
    assert (ill(result)["the guide's test"], ill(result)["proxyAgentStatus"]) == ("passed", "SUCCESS")
    assert ill(result)["keyLatchStatus"].startswith("RUNNING: Failed to ")
    assert (ill(result)["keyGuid"], ill(result)["secureChannelState"]) == ("missing", "Unknown")
    assert ill(result)["--status --wait"].startswith("exit code 1: keyLatchStatus - Failed to ")
    assert (well(result)["keyGuid"], well(result)["--status --wait"]) == ("there", "exit code 0: provisioned")
    assert well(result)["a client of IMDS gets"] == "200 from the agent"


@pytest.mark.parametrize("name", LOST)
def test_a_lost_key_cuts_clients_off(name: str, results: Mapping[str, Result]) -> None:
    assert ill(results[name])["a client of IMDS gets"] == "403 from the endpoint itself"
    assert results[name].evidence["message"] == 'Failed to acquire key details: Key(KeyResponse("acquire", 403))'


@pytest.mark.parametrize("row", [row for row in KEYS if row.name != "key-status-invalid"], ids=lambda row: row.name)
def test_the_message_alone_leads_to_the_code(row: Any, results: Mapping[str, Result]) -> None:
    message = results[row.name].evidence["message"]
    assert isinstance(message, str)
    assert explain_text(message)[0].code is row.code


def test_only_a_larger_incarnation_changes_anything(results: Mapping[str, Result]) -> None:
    for name, value in (("key-reset-equal", 5), ("key-reset-smaller", 4)):
        evidence = results[name].evidence
        assert (evidence[f"{value} changes anything"], evidence["6 changes anything"]) == (False, True)


def test_a_running_agent_keeps_its_key_when_the_folder_is_emptied(results: Mapping[str, Result]) -> None:
    assert results["key-lost"].evidence["while the agent whose key folder was emptied runs on"] == "key latched"


def test_the_finding_is_in_the_summary(results: Mapping[str, Result]) -> None:
    assert "the guide's test passes" in results["key-refused"].summary


def test_two_runs_have_the_same_evidence(results: Mapping[str, Result]) -> None:
    for again in reproduce(["key-lost", "key-moved-disk", "key-reset-equal", "key-clock"]):
        assert again.evidence == results[again.id.removeprefix("reproduce.")].evidence


@pytest.mark.parametrize("name", ["key-refused", "key-lost", "key-rejected"])
def test_somebodys_agent(name: str, image: Image, tmp_path: Path) -> None:
    """The same with an executable at an agent's fixed paths: a script that starts ours, as if it were a real one."""
    binary, config, image_file = (tmp_path / part for part in ("agent", "proxy-agent.json", "image.json"))
    path = os.pathsep.join([str(Path(__file__).parents[2]), *(entry for entry in sys.path if entry)])
    binary.write_text(f'#!/bin/sh\nexport PYTHONPATH="{path}"\nexec "{sys.executable}" -m harness.agent "$@"\n')
    binary.chmod(0o755)
    image_file.write_text(image.dump())
    config.write_text(json.dumps(document(Config(times=REFERENCE_TIMES, image=image_file))))
    (result,) = reproduce([name], agent=AgentFiles(binary, None, config))
    assert result.outcome is Outcome.PASS, result.summary
    assert well(result)["keyGuid"] == "there"


def test_a_binary_that_cannot_run_is_an_error_and_no_failure(tmp_path: Path) -> None:
    binary = tmp_path / "agent"
    binary.write_text("#!/bin/sh\nexit 7\n")
    binary.chmod(0o755)
    (result,) = reproduce(["key-refused"], agent=AgentFiles(binary))
    assert result.outcome is Outcome.ERROR
    assert "7" in result.summary
