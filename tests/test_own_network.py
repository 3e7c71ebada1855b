"""docs/your-own-network.md, run as it is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "your-own-network.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )


def test_the_network_is_short_and_compressing_it_shorter() -> None:
    network, compress = blocks()[:2]

    assert len(network.splitlines()) <= 40
    assert len([line for line in compress.splitlines() if line.strip()]) < 15


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    network, compress = blocks()[:2]
    (tmp_path / "two_branches.py").write_text(network)
    (tmp_path / "compress.py").write_text(compress)

    script = run(tmp_path, "compress.py")

    assert script.returncode == 0, script.stderr
    printed = re.search(r"(\d+) parameters", script.stdout)
    assert printed
    (folder,) = (tmp_path / "runs").iterdir()
    # The stem keeps its 16 channels; all other layers of S3 have a quarter.
    assert int(printed[1]) < 0.12 * 138_000

    words = ("-m", "codistill", "evaluate", str(folder))
    refused = run(tmp_path, *words)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "is code of a user's own" in refused.stderr
    accepted = run(tmp_path, *words, "--model", "two_branches:TwoBranches")
    assert accepted.returncode == 0, accepted.stderr
    assert "| S3" in accepted.stdout


@pytest.mark.slow
def test_the_command_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "two_branches.py").write_text(blocks()[0])
    words = ("--model.name", "two_branches:TwoBranches", "--training.epochs", "1", "--run.name", "own")

    trained = run(tmp_path, "-m", "codistill", "train", *words)

    assert trained.returncode == 0, trained.stderr
    run_folder = tmp_path / "runs" / "own"
    refused = run(tmp_path, "-m", "codistill", "baseline", str(run_folder), "--student", "2")
    assert refused.returncode == 2
    assert "is code of a user's own" in refused.stderr
