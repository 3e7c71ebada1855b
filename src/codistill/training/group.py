"""A folder of runs that belong together, a sweep or all baselines, trained one after another."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from codistill.config import Config, RunConfig
from codistill.config.parsing import config_from_mapping
from codistill.config.training import RUN_NAME
from codistill.errors import DivergedError, InputError, one_line
from codistill.models.networks import refuse_unknown
from codistill.training.experiment import resume, train
from codistill.training.run import make_folder

Kind = Literal["sweep", "baseline"]


@dataclass(frozen=True)
class Member:
    """One run of a group: its name, what distinguishes it, and its config."""

    name: str
    values: Mapping[str, Any]
    config: Config


def member_name(text: str) -> str:
    """Return a folder name that says what distinguishes a run, such as seed=0,objective.temperature=2."""
    safe = "".join(letter if RUN_NAME.fullmatch(f"a{letter}") else "_" for letter in text)
    return safe[:150] or "run"


def create_group(kind: Kind, members: Sequence[Member], place: RunConfig) -> Path:
    """Make the folder of a group where and as `place` says, and write down its runs; nothing is trained yet.

    Raises:
        InputError: The folder exists, or runs would share a name.
    """
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        raise InputError(f"two runs would be called {next(name for name in names if names.count(name) > 1)}")
    if any(member.config.training.processes > 1 for member in members):
        raise InputError(
            "training.processes: several runs at once use one process each; train them one by one"
        )
    content = {
        "kind": kind,
        "parameters": list(members[0].values),
        "runs": [
            {"name": member.name, "values": dict(member.values), "config": asdict(member.config)}
            for member in members
        ],
    }
    files = {"group.json": (json.dumps(content, indent=1) + "\n").encode()}
    parent = Path(place.folder).expanduser()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        default = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
        return make_folder(parent, *place.folder_name(default), files)
    except OSError as error:
        raise InputError(f"{parent}: cannot hold a folder of runs: {error.strerror}") from None


def train_group(path: Path, say: Callable[[str], None]) -> list[str]:
    """Train the runs of a group that are not finished, and return the names of those that cannot be.

    A run that diverges, or that its data or network do not allow, is left and the others go on.

    Raises:
        InputError: The group's description is torn.
        Interrupted: It was asked to stop, and saved; the group can be resumed.
    """
    failed = []
    members = _read_members(path)
    for number, (name, config) in enumerate(members, start=1):
        run = path / name
        if (run / "results.json").is_file():
            continue
        say(f"\n{name} ({number} of {len(members)})")
        try:
            if (run / "config.yaml").is_file():
                resume(run)
            else:
                train(replace(config, run=replace(config.run, folder=str(path), name=name)))
        except (DivergedError, InputError) as error:
            say(f"{name}: {one_line(error)}; going on with the others")
            failed.append(name)
    return failed


def _read_members(path: Path) -> list[tuple[str, Config]]:
    file = path / "group.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["runs"]
        members = [(run["name"], run["config"]) for run in found]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: does not describe a group of runs: {one_line(error)}") from None
    for name, _ in members:
        if not isinstance(name, str) or not RUN_NAME.fullmatch(name):
            raise InputError(f"{file}: {name!r} is no name of a run")
    runs = [(name, config_from_mapping(config, str(file))) for name, config in members]
    for _, config in runs:
        if config.model.is_own:
            refuse_unknown(config.model.name)  # A folder makes nothing be imported.
    return runs
