"""The commands: parse, call, print. Nothing here imports torch before a command needs it."""

import contextlib
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from codistill.config import Config, DataConfig, baseline, completed
from codistill.config.parsing import make_parser, parse_config, split_arguments
from codistill.errors import DivergedError, InputError, Interrupted, one_line

if TYPE_CHECKING:
    from codistill.training.group import Kind

USAGE = """\
codistill trains one image classifier once and gives several, each smaller than the last.

usage: codistill COMMAND …

  train [CONFIG.yaml] [--section.key value …]          train all students of a config (none: the digits)
  resume RUN                                           go on with a stopped run, sweep or set of baselines
  baseline CONFIG|RUN --student 5|all [--section.key value …]
                                                       train one student, or each, alone on the labels
  evaluate RUN [--data FOLDER | --data.key value …]    test the delivered models of a run
  compare RUN BASELINE_RUN … [--which last|best]       ensemble against baselines, student by student
  profile [CONFIG.yaml] [--section.key value …]        size, cost and latency of every student, untrained
  sweep [CONFIG.yaml] --section.key a,b … [--section.key value …]
                                                       train every combination, one run after another

'codistill COMMAND --help' says more. Students are called S1 … SN; S1 is the whole network.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 diverged, 2 a mistake in what was given, 130 or 143 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
    except InputError as error:
        print(f"codistill: error: {one_line(error, limit=4000)}", file=sys.stderr)
        status = 2
    except DivergedError as error:
        print(f"codistill: error: {one_line(error)}", file=sys.stderr)
        status = 1
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        status = 128 + stop.signal_number
    except KeyboardInterrupt:
        print("stopped at once; what was saved before is kept", file=sys.stderr)
        status = 130
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # The reader of a table, such as head, has seen enough.
            with contextlib.suppress(OSError):
                sys.stdout.close()
            sys.exit(0)
        place = f"{error.filename}: " if error.filename else ""
        print(f"codistill: error: {place}{error.strerror or one_line(error)}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("codistill"))
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        raise InputError(f"{words[0]} is no command; {hint}")
    return command(words[1:])


def _train(words: list[str]) -> int:
    config = parse_config(words, make_parser("train", "Train all students of a config together."))
    from codistill.training.experiment import train

    train(config)
    return 0


def _resume(words: list[str]) -> int:
    (path,) = _paths("resume", words, "RUN", "Go on with a stopped run, sweep or set of baselines.")
    if (path / "group.json").is_file():
        return _finish_group(path)
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path}: is no run folder: it has no config.yaml")
    if (path / "results.json").is_file():
        print(f"{path}: has finished; nothing is left to do")
        return 0
    from codistill.training.experiment import resume

    resume(path)
    return 0


def _baseline(words: list[str]) -> int:
    parser = make_parser(
        "baseline", "Train one student (--student 5) or each (--student all) alone on the labels."
    )
    choice, words = _take_option(words, "student", "the student's number, or all", parser.print_help)
    words = _config_of_run(words)
    variations = _variations(words)
    members = []
    for values, rest in variations:
        config = parse_config(rest, parser)
        numbers = config.model.trained_students
        if choice != "all":
            wanted = choice.removeprefix("S")
            if not wanted.isdecimal():
                raise InputError(
                    f"--student must be one of {', '.join(map(str, numbers))} or all, not {choice!r}"
                )
            numbers = (int(wanted),)
        for number in numbers:
            members.append(({**values, "model.students": [number]}, baseline(config, number), f"S{number}"))
    if len(members) == 1:
        from codistill.training.experiment import train

        train(members[0][1])
        return 0
    named = [(_joined(values, student), values, config) for values, config, student in members]
    return _train_members("baseline", named)


def _sweep(words: list[str]) -> int:
    parser = make_parser("sweep", "Train every combination of values given as a,b,c, one run after another.")
    members = []
    for values, rest in _variations(words):
        config = parse_config(rest, parser)
        members.append((_joined(values), values, config))
    if not members[0][1]:
        raise InputError("sweep: nothing varies; give a setting several values, such as --seed 0,1,2")
    return _train_members("sweep", members)


def _evaluate(words: list[str]) -> int:
    usage = "usage: codistill evaluate RUN [--data FOLDER | --data.key value …]"
    if {"-h", "--help"} & set(words):
        print(
            f"{usage}\n\nTest a run's delivered models on its test images, or on other data of its classes."
        )
        return 0
    path, options = split_arguments(words)
    if path is None:
        raise InputError(usage)
    data, all_images = _data_of(Path(path), options)
    from codistill.training.delivered import evaluate_run

    print(evaluate_run(Path(path), data, all_images=all_images))
    return 0


def _compare(words: list[str]) -> int:
    which: Any = None
    if any(word.split("=")[0] == "--which" for word in words):
        which, words = _take_option(words, "which", "last or best", lambda: None)
        if which not in ("last", "best"):
            raise InputError(f"--which must be last or best, not {which!r}")
    paths = _paths(
        "compare", words, "RUN BASELINE_RUN …", "Ensemble against baselines, student by student.", many=True
    )
    from codistill.results.compare import compare
    from codistill.results.records import read_runs

    print(compare(read_runs(paths), which).table())
    return 0


def _profile(words: list[str]) -> int:
    config = parse_config(
        words, make_parser("profile", "Size, cost and latency of every student, before training.")
    )
    from codistill.training.profile import profile

    print(profile(config))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "resume": _resume,
    "baseline": _baseline,
    "evaluate": _evaluate,
    "compare": _compare,
    "profile": _profile,
    "sweep": _sweep,
}


def _paths(command: str, words: list[str], names: str, description: str, *, many: bool = False) -> list[Path]:
    """Return the paths a command was given, which takes nothing else."""
    usage = f"usage: codistill {command} {names}"
    if {"-h", "--help"} & set(words):
        print(f"{usage}\n\n{description}")
        sys.exit(0)
    options = [word for word in words if word.startswith("-")]
    if options:
        raise InputError(f"{options[0]} is no option of {command}; {usage}")
    if not words or (len(words) > 1 and not many):
        raise InputError(
            f"{command} takes {'at least one path' if many else 'one path'}, not {len(words)}; {usage}"
        )
    return [Path(word) for word in words]


def _take_option(
    words: list[str], name: str, meaning: str, print_help: Callable[[], None]
) -> tuple[str, list[str]]:
    """Return an option's value and the words without it."""
    if {"-h", "--help"} & set(words):
        print_help()
        sys.exit(0)
    for index, word in enumerate(words):
        if word == f"--{name}" and index + 1 < len(words):
            return words[index + 1], words[:index] + words[index + 2 :]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2], words[:index] + words[index + 1 :]
    raise InputError(f"--{name} is needed: {meaning}")


def _config_of_run(words: list[str]) -> list[str]:
    """Let a run folder stand for its config; a baseline gets a folder of its own beside the ensemble's."""
    file, options = split_arguments(words)
    rest = list(words)
    if file is not None and Path(file).is_dir():
        if not (Path(file) / "config.yaml").is_file():
            raise InputError(f"{file}: is no run folder: it has no config.yaml")
        rest[rest.index(file)] = str(Path(file) / "config.yaml")
    if not any(name == "run.name" for name, _ in options):
        rest += ["--run.name", "null"]
    return rest


def _variations(words: list[str]) -> list[tuple[dict[str, str], list[str]]]:
    """Return what distinguishes each run of a grid, and its words with one value an option."""
    from codistill.config.grid import combinations

    file, options = split_arguments(words)
    flags = [word for word in words if word in ("-h", "--help", "--print_config")]
    head = [*([file] if file is not None else []), *flags]
    given = [(name, value) for name, value in options if f"--{name}" not in flags and name not in flags]
    return [
        (values, head + [f"--{name}={value}" for name, value in chosen])
        for values, chosen in combinations(given)
    ]


def _joined(values: dict[str, Any], student: str | None = None) -> str:
    parts = [f"{name}={value}" for name, value in values.items() if name != "model.students"]
    return ",".join([*parts, *([student] if student else [])])


def _train_members(kind: "Kind", members: Sequence[tuple[str, dict[str, Any], Config]]) -> int:
    from codistill.training.group import Member, create_group, member_name

    runs: list[Member] = [Member(member_name(name), values, config) for name, values, config in members]
    run = runs[0].config.run
    return _finish_group(create_group(kind, runs, folder=run.folder, name=run.name))


def _finish_group(path: Path) -> int:
    from codistill.results.group import summarise_group
    from codistill.training.group import train_group

    try:
        diverged = train_group(path, print)
    except Interrupted as stop:
        raise Interrupted(path, stop.signal_number) from None
    print(f"\n{summarise_group(path).table()}\n\nruns {path}")
    return 1 if diverged else 0


def _data_of(run: Path, options: Sequence[tuple[str, str]]) -> tuple[DataConfig, bool]:
    """Return the data a run is evaluated on, and whether all of it is meant: a folder given as such."""
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: is no run folder: it has no config.yaml")
    wrong = [name for name, _ in options if name != "data" and not name.startswith("data.")]
    if wrong:
        raise InputError(
            f"--{wrong[0]} is no option of evaluate, only --data FOLDER and --data.key value are"
        )
    folders = [value for name, value in options if name == "data"]
    changes = [f"--{name}={value}" for name, value in options if name != "data"]
    start = ["--data.source=folder", f"--data.root={folders[-1]}"] if folders else [str(run / "config.yaml")]
    data = completed(parse_config([*start, *changes], make_parser("evaluate", ""))).data
    return data, bool(folders) and not (Path(folders[-1]) / "train").is_dir()
