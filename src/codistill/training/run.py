"""The run folder: the only thing between training and everything after it. Plain files, written whole."""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from codistill.atomic import write_atomically
from codistill.config import Config
from codistill.config.parsing import load_config
from codistill.config.yaml_file import dump_yaml
from codistill.errors import InputError

_QUIETLY: Any = {"capture_output": True, "text": True, "timeout": 10, "check": True}


class RunFolder:
    """One run's folder. Making or opening it takes its lock, which a process holds until it ends.

    Use `RunFolder.create` and `RunFolder.open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.results_file = path / "results.json"
        self.predictions_file = path / "predictions.safetensors"
        self.checkpoints = path / "checkpoints"
        self.students = path / "students"
        self._lock = (path / ".lock").open("a")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self._lock.close()
            raise InputError(f"{path}: another process is training this run") from None
        self.checkpoints.mkdir(exist_ok=True)
        self.students.mkdir(exist_ok=True)

    @classmethod
    def create(
        cls,
        config: Config,
        *,
        files: Mapping[str, bytes] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> "RunFolder":
        """Make the folder that `config.run` names and write config and environment into it.

        Args:
            config: The run's.
            files: What else it holds from the start, by name.
            origin: The run and the epoch that it goes on from, for environment.json.

        Raises:
            InputError: The folder exists or cannot be made.
        """
        parent = Path(config.run.folder).expanduser()
        every = {
            **(files or {}),
            "environment.json": _json(environment() | ({"parent": dict(origin)} if origin else {})),
            "config.yaml": dump_yaml(_plain(asdict(config))).encode(),
        }
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = make_folder(parent, *config.run.folder_name(_default_name(config)), every)
        except OSError as error:
            raise InputError(f"{parent}: cannot hold a run folder: {error.strerror}") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run to go on with it.

        Raises:
            InputError: The folder is no run, or another process is training it.
        """
        run = cls(require_run(path))
        for left_over in path.rglob(".*.tmp"):  # A process was killed while it wrote.
            left_over.unlink(missing_ok=True)
        return run

    def load_config(self) -> Config:
        """Read the config that the run was started with."""
        return load_config(self.config_file)

    @property
    def finished(self) -> bool:
        """Whether the run has reached its end."""
        return self.results_file.is_file()

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics_file.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def trim_metrics(self, epochs: int) -> None:
        """Drop what was logged after the first `epochs` epochs, a torn last line included."""
        if not self.metrics_file.exists():
            return
        kept = []
        for line in self.metrics_file.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                break
            if record["epoch"] > epochs:
                break
            kept.append(line + b"\n")
        write_atomically(self.metrics_file, b"".join(kept))

    def write_results(self, results: dict[str, Any]) -> None:
        """Write results.json, which marks the run as finished."""
        write_atomically(self.results_file, _json(results))

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


def require_run(path: Path) -> Path:
    """Return the path of a run folder, or raise `InputError` if it is none."""
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path}: is no run folder: it has no config.yaml")
    return path


def environment() -> dict[str, Any]:
    """Return versions, hardware, git commit, command and time of start."""
    packages = ("codistill", "torch", "torchvision", "lightning-fabric", "numpy", "safetensors")
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "hardware": {
            "platform": platform.platform(),
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "accelerator": accelerator,
        },
        "git_commit": _git_commit(),
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def processor_name() -> str:
    """Return the processor's model name, or its family where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def make_folder(parent: Path, name: str, is_fixed: bool, files: dict[str, bytes]) -> Path:
    """Make a folder with these files in it, complete or not at all, and return it.

    Args:
        parent: Folder that exists.
        name: Its name.
        is_fixed: Whether it must be exactly that; else a number is set behind it where it is taken.
        files: Contents by name.

    Raises:
        InputError: There is something of that name already.
        OSError: The file system refuses.
    """
    temporary = parent / f".{name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for file, content in files.items():
            (temporary / file).parent.mkdir(exist_ok=True)
            write_atomically(temporary / file, content)
        for suffix in ("", *(f"-{number}" for number in range(2, 100))):
            path = parent / (name + suffix)
            if is_fixed:
                refuse_existing(path)
            elif os.path.lexists(path):
                continue
            temporary.rename(path)
            return path
        raise InputError(f"{parent}: holds 99 folders called {name} already; give this one a run.name")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raise `InputError` if there is anything at `path`: nothing is overwritten."""
    if os.path.lexists(path):
        raise InputError(
            f"{path}: exists already; continue it with 'codistill resume {path}', or choose another run.name"
        )


def _default_name(config: Config) -> str:
    student = "" if config.model.students is None else f"-S{'S'.join(map(str, config.model.students))}"
    network = config.model.name.replace(":", "-")
    moment = time.strftime("%Y%m%d-%H%M%S")
    return f"{config.data.source}-{network}{student}-seed{config.seed}-{moment}"


def _git_commit() -> str | None:
    """Return the commit of the code that runs, -dirty behind it if there are changes; `None` if installed."""
    source = Path(__file__).resolve()
    git = ["git", "-C", str(source.parent)]
    try:
        # The package may lie within somebody else's repository.
        subprocess.run([*git, "ls-files", "--error-unmatch", source.name], **_QUIETLY)
        answer = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], **_QUIETLY
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return str(answer.stdout).strip()


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
