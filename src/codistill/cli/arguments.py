"""What the commands read of their words, apart from settings."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codistill.config import Config, DataConfig, completed
from codistill.config.grid import combinations
from codistill.config.model import OTHER_NETWORK
from codistill.config.parsing import make_parser, parse_config, split_arguments, without_file
from codistill.errors import InputError

HELP = {"-h", "--help"}


def print_usage(usage: str, description: str) -> None:
    """Print a command's help and exit."""
    print(f"usage: codistill {usage}\n\n{description}")
    sys.exit(0)


def take_option(words: Sequence[str], name: str, allowed: str) -> tuple[str | None, list[str]]:
    """Return an option's value, `None` where it is not given, and the words without it."""
    rest = list(words)
    for index, word in enumerate(rest):
        if word == f"--{name}":
            if index + 1 == len(rest):
                raise InputError(f"--{name}: needs a value: {allowed}")
            return rest[index + 1], rest[:index] + rest[index + 2 :]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2], rest[:index] + rest[index + 1 :]
    return None, rest


def take_number(words: Sequence[str], name: str) -> tuple[int | None, list[str]]:
    """Return an option's whole number above 0, `None` where it is not given, and the words without it."""
    text, rest = take_option(words, name, "a whole number above 0")
    if text is None:
        return None, rest
    if not text.isdecimal() or not 1 <= int(text[:12]) <= 10**9:
        raise InputError(f"--{name} must be a whole number above 0, not {text!r:.60}")
    return int(text), rest


def import_network(config: Config) -> None:
    """Import the user's own network that a config names; for configs that the user runs, not for folders."""
    if config.model.is_own:
        from codistill.models.networks import import_network

        import_network(config.model.name)


def refuse_unknown_network(config: Config) -> None:
    """Raise if a run folder's config names a network of the user's own that --model did not name."""
    if config.model.is_own:
        from codistill.models.networks import refuse_unknown

        refuse_unknown(config.model.name)


def import_given_network(words: Sequence[str]) -> list[str]:
    """Import the network that --model names, and return the words without it."""
    name, rest = take_option(words, "model", "module:function")
    if name is not None:
        from codistill.models.networks import import_network

        if not OTHER_NETWORK.fullmatch(name):
            raise InputError(f"--model must be module:function, not {name!r}")
        import_network(name)
    return rest


def paths_alone(words: Sequence[str], usage: str, *, many: bool) -> list[Path]:
    """Return the paths a command was given, which takes nothing else."""
    command = usage.partition(" ")[0]
    options = [word for word in words if word.startswith("-")]
    if options:
        raise InputError(f"{options[0]} is no option of {command}; usage: codistill {usage}")
    if not words or (len(words) > 1 and not many):
        needed = "at least one path" if many else "one path"
        raise InputError(f"{command} takes {needed}, not {len(words)}; usage: codistill {usage}")
    return [Path(word) for word in words]


def run_with_options(
    words: Sequence[str], usage: str, allowed: Sequence[str]
) -> tuple[Path, list[tuple[str, str]]]:
    """Return the run folder and the options of a command; `allowed` are names, or sections with a dot."""
    folder, options = split_arguments(words)
    if folder is None:
        raise InputError(f"a run folder is needed; usage: codistill {usage}")
    for name, _ in options:
        plain = name.lstrip("-")
        if not any(plain == known or (known.endswith(".") and plain.startswith(known)) for known in allowed):
            raise InputError(f"--{plain} is no option here; usage: codistill {usage}")
    return require_run(Path(folder)), options


def require_run(path: Path) -> Path:
    """Return the path of a run folder, or raise `InputError` if it is none."""
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path}: is no run folder: it has no config.yaml")
    return path


def config_of_run(words: Sequence[str]) -> list[str]:
    """Let a run folder stand for its config; a baseline gets a folder of its own beside the ensemble's."""
    file, options = split_arguments(words)
    given = {name for name, _ in options}
    rest = without_file(words)
    if file is not None and Path(file).is_dir():
        if "run.folder" not in given:
            rest += ["--run.folder", str(Path(file).absolute().parent)]
        file = str(require_run(Path(file)) / "config.yaml")
    if "run.name" not in given:
        rest += ["--run.name", "null"]
    return [file, *rest] if file is not None else rest


def variations(words: Sequence[str]) -> list[tuple[dict[str, str], list[str]]]:
    """Return what distinguishes each run of a grid, and its words with one value an option."""
    file, options = split_arguments(words)
    if any(name == "--print_config" for name, _ in options):
        raise InputError("--print_config: prints one config; ask 'codistill train' for it")
    head = [file] if file is not None else []
    return [
        (values, head + [f"--{name}={value}" for name, value in chosen])
        for values, chosen in combinations(options)
    ]


def joined(values: dict[str, Any], student: str | None = None) -> str:
    """Return what distinguishes a run in words, such as seed=0,S5."""
    parts = [f"{name}={value}" for name, value in values.items() if name != "model.students"]
    return ",".join([*parts, *([student] if student else [])])


def data_of(run: Path, options: Sequence[tuple[str, str]]) -> tuple[DataConfig, bool]:
    """Return the data a run is evaluated on, and whether all of it is meant: a folder given as such."""
    folders = [value for name, value in options if name == "data"]
    changes = [f"--{name}={value}" for name, value in options if name != "data"]
    start = ["--data.source=folder", f"--data.root={folders[-1]}"] if folders else [str(run / "config.yaml")]
    data = completed(parse_config([*start, *changes], make_parser("evaluate", ""))).data
    return data, bool(folders) and not (Path(folders[-1]) / "train").is_dir()
