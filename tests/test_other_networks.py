"""The command that tries networks outside the catalog, and the page that lists what came of each."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def command() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "other_networks.py"))


@pytest.mark.slow
def test_a_network_works_or_is_refused_with_the_reason(command: dict[str, Any], tmp_path: Path) -> None:
    facts: Any = {"size": 32, "students": 2, "folder": tmp_path, "limit": 60}

    works = command["try_network"]("timm:lcnet_050", **facts)
    refused = command["try_network"]("timm:mixer_s32_224", **facts)

    assert works["works"], works
    assert works["sizes_percent"][0] == 100
    assert works["sizes_percent"][1] < 50
    assert "narrowed only in part" in refused["says"]


def test_what_codistill_does_not_foresee_is_a_fault(
    command: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(command["try_network"].__globals__, "describe_students", broken)
    outcome = command["try_network"]("timm:lcnet_050", size=32, students=2, folder=tmp_path, limit=60)

    assert not outcome["works"]
    assert "ZeroDivisionError" in outcome["fault"]


def test_the_page_is_what_the_command_listed(command: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "other-networks.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / "benchmarks" / "results" / "other_networks.json").read_text())["networks"]

    assert command["table"](record) in page
    assert {outcome["name"] for outcome in record} == set(command["NAMES"])
    assert not any("fault" in outcome for outcome in record)
    assert sum(outcome["works"] for outcome in record) >= 15
