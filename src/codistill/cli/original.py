"""The config files of the paper's authors as a user's own: trained, gone on with, tested and converted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from codistill.cli.arguments import HELP, paths_alone, print_usage, require_run, take_option
from codistill.config import Config, baseline
from codistill.config.boc_kd.translate import Original, read_original
from codistill.config.parsing import make_parser, parse_config, split_arguments
from codistill.config.yaml_file import Setting, dump_yaml, nested
from codistill.errors import InputError, tell


def is_original(words: Sequence[str]) -> bool:
    """Say whether a command is given one of the authors' files, by its name."""
    file, _ = split_arguments(words)
    return file is not None and file.endswith(".py")


def train_original(words: Sequence[str]) -> int:
    """Do what one of the authors' files asks for: train, go on with a run, or test one."""
    base, words = take_option(words, "roots-from", "a folder")
    file, _ = split_arguments(words)
    assert file is not None
    original = _read(Path(file), Path(base) if base else Path())
    config = _config(original, words)
    if original.action == "validate":
        return _validate(original, config)
    if original.student is not None:
        config = baseline(config, original.student)
    from codistill.training.experiment import resume, train

    if original.action == "train":
        train(config)
    else:
        resume(_run(original), config, epoch=_epoch(original, config))
    return 0


def convert(words: list[str]) -> int:
    """Print the YAML that says what one of the authors' files says."""
    usage = "convert CONFIG.py"
    if HELP & set(words):
        print_usage(
            usage,
            "Print a config file of the paper's authors as YAML. The file is read, not run; what codistill\n"
            "does otherwise is told on the way. docs/from-boc-kd.md has all fields.",
        )
    file = paths_alone(words, usage, many=False)[0]
    original = _read(file, Path())
    config = _config(original, [str(file)])
    from codistill.training.setup import refuse_unusable_classes

    refuse_unusable_classes(config)
    if original.student is not None:
        print(f"# Single_model_mode: codistill baseline THIS.yaml --student {original.student}")
    if original.run is not None:
        epoch = _epoch(original, config)
        if original.action == "resume":
            print(f"# Train_resume: codistill resume {original.run} --epoch {epoch}")
        else:
            student = "" if original.tested is None else f" --student {original.tested}"
            print(f"# Validate_only: codistill evaluate {original.run} --epoch {epoch}{student}")
    settings = {setting.name: setting.value for setting in original.settings}
    print(dump_yaml(nested(settings.items())), end="")
    return 0


def tools_train(words: Sequence[str], tools: Path) -> int:
    """Do what the authors' train.py does; `tools` is its folder, from which paths in config files start."""
    usage = "python3 train.py [--cfg=configs/CONFIG.py] [--section.key value …]"
    if HELP & set(words):
        print(f"usage: {usage}\n\nThe file is relative to the folder above tools/, or absolute.")
        return 0
    config, settings = take_option(words, "cfg", "a config file")
    plain = [word for word in settings[:1] if not word.startswith("--")]
    if plain:
        raise InputError(f"{plain[0]}: unexpected; usage: {usage}")
    file = tools.parent / (config or "configs/config_template.py")
    if file.suffix != ".py":
        raise InputError(f"--cfg: {file} is no .py file; for others there is 'codistill train {file}'")
    return train_original([str(file), "--roots-from", str(tools), *settings])


def best_accuracies(words: Sequence[str], storage: Path) -> int:
    """Print what the authors' Best_accuracy_evaluator.py does; runs are folders in `storage`."""
    usage = "Best_accuracy_evaluator.py --run_id ID [--mode 1|2] [--stu_run_id A/B/C] [--root FOLDER]"
    if HELP & set(words):
        print(f"usage: {usage}\n\nMode 1: how far each student came; mode 2: by how much it beats baselines.")
        return 0
    run_id, words = take_option(words, "run_id", "the folder of a run")
    mode, words = take_option(words, "mode", "1 or 2")
    baselines, words = take_option(words, "stu_run_id", "the folders of baselines, A/B/C")
    root, words = take_option(words, "root", "the folder that holds the runs")
    if words:
        raise InputError(f"{words[0]}: unexpected; usage: {usage}")
    if run_id is None:
        raise InputError(f"--run_id is needed: the folder of a run; usage: {usage}")
    if mode not in (None, "1", "2"):
        raise InputError(f"--mode must be 1 or 2, not {mode!r}")
    if mode == "2" and not baselines:
        raise InputError("--stu_run_id is needed in mode 2: the folders of baselines, A/B/C")
    if mode != "2" and baselines is not None:
        raise InputError("--stu_run_id is for mode 2: give --mode 2")
    folder = Path(root) if root else storage
    from codistill.results.best_accuracy import baseline_table, framework_table

    if mode == "2":
        assert baselines is not None
        print(baseline_table(folder / run_id, [folder / name for name in baselines.split("/") if name]))
    else:
        print(framework_table(folder / run_id))
    return 0


def _read(file: Path, roots_from: Path) -> Original:
    """Read such a file, with as many processes as it names GPUs that are here."""
    original = read_original(file, roots_from)
    if not original.gpus:
        return original
    import torch

    here = torch.cuda.device_count()
    if here < original.gpus:
        tell(
            f"codistill: note: {file}: model.gpu: names {original.gpus} GPUs for DataParallel, {here} CUDA"
            f" devices are here: {f'{here} share' if here else 'the CPU takes'} each batch"
        )
    processes = Setting(str(file), "training.processes", max(1, min(here, original.gpus)))
    return replace(original, settings=(*original.settings, processes))


def _config(original: Original, words: Sequence[str]) -> Config:
    return parse_config(words, make_parser("train", ""), original.settings)


def _run(original: Original) -> Path:
    assert original.run is not None
    try:
        return require_run(original.run)
    except InputError as error:
        raise InputError(f"{original.file}: Load_run_id: {error}") from None


def _epoch(original: Original, config: Config) -> int:
    """Return the epoch that is meant, counted as codistill does, with those of pretraining."""
    assert original.epoch is not None
    return config.training.pretraining_epochs + original.epoch


def _validate(original: Original, config: Config) -> int:
    from codistill.training.delivered import evaluate

    student = None if original.tested is None else f"S{original.tested}"
    run = _run(original)
    print(evaluate(run, config.data, epoch=_epoch(original, config), student=student).table())
    return 0
