"""The commands, one function each."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codistill.cli.arguments import (
    HELP,
    config_of_run,
    data_of,
    import_given_network,
    import_network,
    joined,
    paths_alone,
    print_usage,
    refuse_unknown_network,
    run_with_options,
    take_number,
    take_option,
    variations,
)
from codistill.cli.original import convert, is_original, train_original
from codistill.config import Config, baseline
from codistill.config.parsing import make_parser, parse_config
from codistill.errors import InputError, Interrupted

if TYPE_CHECKING:
    from codistill.training.group import Kind

USAGE = """\
codistill trains one image classifier once and gives several, each smaller than the last.

usage: codistill COMMAND …

  train [CONFIG.yaml] [--section.key value …]          train all students of a config (none: the digits);
                                                       CONFIG.py of the paper's authors does what it says
  resume RUN [--data.root FOLDER …]                    go on with a stopped run, sweep or set of baselines
  baseline CONFIG|RUN --student 5|all [--section.key value …]
                                                       train one student, or each, alone on the labels
  evaluate RUN [--data FOLDER | --data.key value …]    test the delivered models of a run
  compare RUN BASELINE_RUN … [--which last|best]       ensemble against baselines, student by student
  profile [CONFIG.yaml] [--section.key value …]        size, cost and latency of every student, untrained
  sweep [CONFIG.yaml] --section.key a,b … [--section.key value …]
                                                       train every combination, one run after another
  pack FOLDER OUT.lmdb                                 put a folder of pictures into one file
  convert CONFIG.py                                    print a config of the paper's authors as YAML

'codistill COMMAND --help' says more. Students are called S1 … SN; S1 is the whole network.
"""
TRAIN = """\
Train all students of a config together. A CONFIG.py in the form of the paper's authors is read, not run, and
done as it says: train all, train one, go on with a run or test one (docs/from-boc-kd.md). Relative paths in
it start from here, or from the folder that --roots-from names.

Settings:"""
MOVABLE = ("data.root", "data.workers", "data.memory_gib", "training.device")
"""What may differ when a run goes on, elsewhere: where its data are and what computes it."""


def train(words: list[str]) -> int:
    """Train all students of a config."""
    if not HELP & set(words) and is_original(words):
        return train_original(words)
    config = parse_config(words, make_parser("train", TRAIN))
    import_network(config)
    from codistill.training.experiment import train

    train(config)
    return 0


def resume(words: list[str]) -> int:
    """Go on with a run or a group."""
    usage = (
        f"resume RUN [{' | '.join(f'--{name} value' for name in MOVABLE)} | --model module:function]"
        " [--epoch K [--training.epochs N]]"
    )
    if HELP & set(words):
        print_usage(
            usage,
            "Go on with a stopped run, sweep or set of baselines as if it had never stopped. The options\n"
            "are for a run that was moved: where its data are now, and the device that is there. A run\n"
            "whose network is code of your own needs --model, which names it again.\n"
            "--epoch goes on after any epoch whose checkpoint is kept (training.test_interval), also with\n"
            "more epochs than it had: in a new folder that names its parent, unless it is the last one kept.",
        )
    words = import_given_network(words)
    epoch, words = take_number(words, "epoch")
    folder = next((Path(word) for word in words if not word.startswith("-")), None)
    if folder is not None and (folder / "group.json").is_file():
        return _finish_group(paths_alone(words, "resume GROUP", many=False)[0])
    movable = MOVABLE if epoch is None else (*MOVABLE, "training.epochs", "run.name")
    path, options = run_with_options(words, usage, movable)
    if epoch is None and (path / "results.json").is_file():
        print(f"{path}: has finished; nothing is left to do")
        return 0
    changes = [f"--{name}={value}" for name, value in options]
    config = parse_config([str(path / "config.yaml"), *changes], make_parser("resume", ""))
    from codistill.training.experiment import resume

    resume(path, config, epoch=epoch)
    return 0


def train_baselines(words: list[str]) -> int:
    """Train students alone, from a config or a run."""
    usage = "baseline CONFIG|RUN --student 5|all [--section.key value …]"
    parser = make_parser(
        usage, "Train one student (--student 5), or each (--student all), alone on the labels.\n\nSettings:"
    )
    if HELP & set(words):
        parser.print_help()
        return 0
    choice, words = take_option(words, "student", "the student's number, or all")
    if choice is None:
        raise InputError("--student is needed: the student's number, or all")
    words = import_given_network(words)
    is_run = any(Path(word).is_dir() for word in words[:1])
    members = []
    for values, rest in variations(config_of_run(words)):
        config = parse_config(rest, parser)
        if is_run:
            refuse_unknown_network(config)
        else:
            import_network(config)
        for number in _numbers(choice, config):
            members.append(({**values, "model.students": [number]}, baseline(config, number), f"S{number}"))
    if len(members) == 1:
        from codistill.training.experiment import train

        train(members[0][1])
        return 0
    named = [(joined(values, student), values, config) for values, config, student in members]
    return _train_members("baseline", named)


def sweep(words: list[str]) -> int:
    """Train every combination of values."""
    usage = "sweep [CONFIG.yaml] --section.key a,b … [--section.key value …]"
    parser = make_parser(
        usage,
        "Train every combination of values given as a,b,c, one run after another.\nA list in brackets is one"
        " value: --schedule.milestones [0.5,0.75],[0.6].\n\nSettings:",
    )
    if HELP & set(words):
        parser.print_help()
        return 0
    members = []
    for values, rest in variations(words):
        config = parse_config(rest, parser)
        import_network(config)
        members.append((joined(values), values, config))
    if not members[0][1]:
        raise InputError("sweep: nothing varies; give a setting several values, such as --seed 0,1,2")
    return _train_members("sweep", members)


def evaluate(words: list[str]) -> int:
    """Test the delivered models of a run."""
    usage = (
        "evaluate RUN [--epoch K] [--student 3|teacher] [--data FOLDER | --data.key value …]"
        " [--model module:function]"
    )
    if HELP & set(words):
        print_usage(
            usage,
            "Test a run's delivered models on its test images, on a folder of images with a folder for each\n"
            "of its classes, or on its data with settings changed, such as --data.root. A run whose network\n"
            "is code of your own needs --model, which names it again. --epoch tests the students as they\n"
            "were after an epoch whose checkpoint is kept (training.test_interval), --student one of them.",
        )
    words = import_given_network(words)
    epoch, words = take_number(words, "epoch")
    student, words = take_option(words, "student", "a student's number, or teacher")
    run, options = run_with_options(words, usage, ("data", "data."))
    data, all_images = data_of(run, options)
    from codistill.training.delivered import evaluate

    print(evaluate(run, data, all_images=all_images, epoch=epoch, student=student).table())
    return 0


def compare(words: list[str]) -> int:
    """Compare ensembles with baselines."""
    usage = "compare RUN BASELINE_RUN … [--which last|best]"
    if HELP & set(words):
        print_usage(
            usage,
            "Ensemble against baselines, student by student; groups and several seeds may be given, in any\n"
            "order. --which takes the accuracy of the last epoch or of the best on validation images\n"
            "(default: best where every run has it).",
        )
    which: Any
    which, words = take_option(words, "which", "last or best")
    if which not in (None, "last", "best"):
        raise InputError(f"--which must be last or best, not {which!r}")
    paths = paths_alone(words, usage, many=True)
    from codistill.results.compare import compare

    print(compare(paths, which).table())
    return 0


def profile(words: list[str]) -> int:
    """Print what every student of a config will cost."""
    config = parse_config(
        words, make_parser("profile", "Size, cost and latency of every student, before training.")
    )
    import_network(config)
    from codistill.training.profile import profile

    print(profile(config))
    return 0


def pack(words: list[str]) -> int:
    """Put a folder of pictures into one LMDB file."""
    usage = "pack FOLDER OUT.lmdb"
    if HELP & set(words):
        print_usage(
            usage,
            "Put a folder of pictures, one folder a class, into one LMDB file for --data.source lmdb or\n"
            "imagenet. Every picture is decoded once to see that it is one, and stored as it is. When the\n"
            "command was stopped, the same one goes on.",
        )
    paths = paths_alone(words, usage, many=True)
    if len(paths) != 2:
        raise InputError(f"pack takes a folder and a file, not {len(paths)} paths; usage: codistill {usage}")
    folder, out = paths
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is not a folder' if folder.exists() else 'does not exist'}")
    from codistill.data.pack import Unfinished, pack
    from codistill.training.signals import StopRequest

    with StopRequest() as request:
        try:
            count = pack(folder, out, lambda: request.signal_number != 0)
        except Unfinished:
            raise Interrupted(out, request.signal_number, f"pack {folder} {out}") from None
    print(f"{out}: {count:,} pictures")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "resume": resume,
    "baseline": train_baselines,
    "evaluate": evaluate,
    "compare": compare,
    "profile": profile,
    "sweep": sweep,
    "pack": pack,
    "convert": convert,
}


def _numbers(choice: str, config: Config) -> tuple[int, ...]:
    numbers = config.model.trained_students
    if choice == "all":
        return numbers
    wanted = choice.removeprefix("S")
    if not wanted.isdecimal():
        raise InputError(f"--student must be one of {', '.join(map(str, numbers))} or all, not {choice!r}")
    return (int(wanted),)


def _train_members(kind: "Kind", members: Sequence[tuple[str, dict[str, Any], Config]]) -> int:
    from codistill.training.group import Member, create_group, member_name

    runs = [Member(member_name(name), values, config) for name, values, config in members]
    return _finish_group(create_group(kind, runs, runs[0].config.run))


def _finish_group(path: Path) -> int:
    from codistill.results.group import summarise_group
    from codistill.training.group import train_group

    try:
        failed = train_group(path, print)
    except Interrupted as stop:
        raise Interrupted(path, stop.signal_number) from None
    print(f"\n{summarise_group(path).table()}\n\nruns {path}")
    return 1 if failed else 0
