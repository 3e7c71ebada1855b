"""The table in docs/architectures.md is what its command prints."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from codistill.models.catalog import ARCHITECTURES

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8").splitlines()
QUICK = ["cifar_resnet20", "resnet18", "efficientnet_b0"]


@pytest.fixture(scope="module")
def command() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "architectures.py"))


def test_every_network_has_a_row_in_order() -> None:
    rows = [line.split("|")[1].strip() for line in DOCUMENT if line.startswith("| ") and "M |" in line]

    assert rows == list(ARCHITECTURES)


def test_the_quick_rows_are_what_the_command_prints(command: dict[str, Any]) -> None:
    for line in command["lines"](QUICK):
        assert line in DOCUMENT


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in QUICK])
def test_every_row_is_what_the_command_prints(name: str, command: dict[str, Any]) -> None:
    assert command["_line"](command["row"](name)) in DOCUMENT
