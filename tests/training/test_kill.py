"""A run that is killed without warning, again and again, ends as the run left alone."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIG = Path(__file__).parent.parent.parent / "configs" / "digits.yaml"
KILLS = 10


def codistill(*words: str) -> list[str]:
    return [sys.executable, "-m", "codistill", *words]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_at_random_moments_change_no_byte(tmp_path: Path) -> None:
    settings = ["--training.epochs=6", f"--run.folder={tmp_path}", "--training.threads=2"]
    subprocess.run(
        codistill("train", str(CONFIG), *settings, "--run.name=alone"), check=True, stdout=subprocess.DEVNULL
    )
    # A checkpoint a second lets lives of a few seconds get on. They count from the start, import included.
    settings += ["--training.checkpoint_minutes=0.015", "--run.name=killed"]
    run = tmp_path / "killed"
    moments = random.Random(0)
    kills, deadline = 0, time.monotonic() + 700
    while kills < KILLS or not (run / "results.json").exists():
        assert time.monotonic() < deadline
        known = (run / "config.yaml").exists()
        command = codistill("resume", str(run)) if known else codistill("train", str(CONFIG), *settings)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                status = process.wait(timeout=moments.uniform(2, 14) if kills < KILLS else None)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        assert status in (0, -signal.SIGKILL)
        assert status != 0 or kills == KILLS, f"the run ended after {kills} kills: it must be longer"
        kills += status == -signal.SIGKILL
    files = sorted(
        file.relative_to(tmp_path / "alone") for file in (tmp_path / "alone" / "students").rglob("*.*")
    )
    assert len(files) == 2 * 6 * 2  # Last and best; five students and the teacher; weights and description.
    for file in [*files, Path("predictions.safetensors")]:
        assert (run / file).read_bytes() == (tmp_path / "alone" / file).read_bytes(), file
