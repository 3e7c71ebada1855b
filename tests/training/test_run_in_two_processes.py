"""A run that two processes share: trained, stopped, continued, refused."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from codistill.config import Config
from codistill.config.experiment import completed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def write_config(config: Config, file: Path, name: str, processes: int) -> Path:
    config = completed(
        replace(
            config,
            data=replace(config.data, validation_fraction=0.0),
            model=replace(config.model, num_students=2),
            training=replace(config.training, processes=processes, precision="64-true", threads=1, epochs=4),
            run=replace(config.run, name=name),
        )
    )
    sections = {
        name: vars(getattr(config, name))
        for name in ("data", "model", "objective", "optimizer", "schedule", "training", "run")
    }
    plain = {
        section: {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}
        for section, content in sections.items()
    }
    file.write_text(yaml.safe_dump({"seed": config.seed, **plain}))
    return file


def codistill(*words: str, stop_after: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a session of its own and, if asked, end it once a line begins with `stop_after`."""
    command = [sys.executable, "-m", "codistill", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        lines = []
        if stop_after is not None:
            for line in process.stdout:
                lines.append(line)
                if line.startswith(stop_after):
                    os.killpg(process.pid, signal.SIGTERM)
                    break
        out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, "".join(lines) + out, err)


def test_trained_stopped_and_continued(small_config: Config, tmp_path: Path) -> None:
    runs = Path(small_config.run.folder)
    whole = codistill("train", str(write_config(small_config, tmp_path / "a.yaml", "whole", 2)))
    assert (whole.returncode, whole.stderr) == (0, "")
    assert whole.stdout.count("run ") == 2  # One process speaks: at the start and at the end.

    config = write_config(small_config, tmp_path / "b.yaml", "parts", 2)
    stopped = codistill("train", str(config), stop_after="epoch 1/4")
    assert (stopped.returncode, stopped.stderr) == (
        143,
        f"stopped; continue with: codistill resume {runs / 'parts'}\n",
    )
    assert codistill("resume", str(runs / "parts")).returncode == 0
    for name in ("S1", "S2", "teacher"):
        ours, theirs = (
            load_file(runs / run / "students" / "last" / f"{name}.safetensors") for run in ("parts", "whole")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)

    again = codistill("train", str(tmp_path / "a.yaml"))
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "exists already" in again.stderr


def test_a_mistake_in_the_data_is_told_once(small_config: Config, tmp_path: Path) -> None:
    config = write_config(small_config, tmp_path / "a.yaml", "wrong", 2)
    picture = next((Path(str(small_config.data.root)) / "train" / "cat").iterdir())
    picture.write_bytes(b"no picture")
    answer = codistill("train", str(config))
    assert answer.returncode == 2
    assert answer.stderr.count("codistill: error:") == 1
    assert str(picture) in answer.stderr
    assert not list(Path(small_config.run.folder).glob("*"))
