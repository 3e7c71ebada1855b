"""From a config file of the authors to codistill's settings, and what differs, in words."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from codistill.config.boc_kd.fields import Fields
from codistill.config.boc_kd.literals import read_literals
from codistill.config.boc_kd.names import MODELS, SOURCES, WITHOUT_TRANSFORMS, transforms
from codistill.config.kinds import closest
from codistill.config.yaml_file import Setting
from codistill.errors import InputError, Notice

STEPPED_THERE = ("MultiStepLR", "ReduceLROnPlateau")
"""The schedulers that the authors' code steps at all."""
HELD_OUT = 0.1
"""Share of the training images that ReduceLROnPlateau follows."""


@dataclass(frozen=True)
class Original:
    """What one of the authors' config files asks for.

    Args:
        file: The file.
        settings: Its settings in codistill's names, each with its place.
        action: Train, go on with a run, or test one.
        student: The student, from 1, that is trained alone; `None`: all train together.
        run: The run that is gone on with or tested.
        epoch: The epoch, of those in which all students train, after which that run is meant.
        tested: The student, from 1, that is tested; `None`: all.
        gpus: GPUs that share a batch, or 0 where none are named.
    """

    file: Path
    settings: tuple[Setting, ...]
    action: Literal["train", "resume", "validate"]
    student: int | None
    run: Path | None
    epoch: int | None
    tested: int | None
    gpus: int


def read_original(file: Path, roots_from: Path = Path()) -> Original:
    """Read one of the authors' config files, which is not run.

    A warning of class `Notice` tells of each thing that codistill does otherwise.

    Args:
        file: A Python file of assigned literals.
        roots_from: The folder that relative paths in it start from.

    Raises:
        InputError: The file, a field or a value cannot be used; all are named with their lines.
    """
    fields = Fields(file, read_literals(file))
    translation = _Translation(fields, roots_from)
    original = translation.original()
    for text in translation.notices:
        warnings.warn(text, Notice, stacklevel=2)
    return original


class _Translation:
    """The settings, problems and notices that come of one file."""

    def __init__(self, fields: Fields, roots_from: Path) -> None:
        self.fields, self.roots_from = fields, roots_from
        self.settings: list[Setting] = []
        self.problems: list[str] = []
        self.notices: list[str] = []

    def original(self) -> Original:
        self._model()
        self._data()
        self._optimizer()
        self._criterion()
        self._scheduler()
        self._training()
        action = self._action()
        student = self._student("Single_model_mode")
        tested = self._student("Validate_student_no")
        if action == "validate" and student is not None:
            if tested not in (None, student):
                self.notice("Validate_student_no", f"the run is of S{student} alone, which is tested")
            tested = student
        self._missing()
        if self.problems:
            raise InputError("; ".join(self.problems))
        fields = self.fields
        run_id, epoch = fields["Load_run_id"], fields["Load_Epoch"]
        is_loaded = action != "train"
        return Original(
            file=fields.file,
            settings=tuple(self.settings),
            action=action,
            student=student,
            run=Path(self._rooted("train_cfg.training_store_root")) / run_id if is_loaded else None,
            epoch=epoch if is_loaded else None,
            tested=tested,
            gpus=len(fields["model.gpu"] or ()) if fields["model.DataParallel"] else 0,
        )

    def set(self, name: str, field: str, value: Any) -> None:
        value = list(value) if isinstance(value, tuple) else value
        self.settings.append(Setting(self.fields.where(field), name, value))

    def notice(self, field: str, text: str) -> None:
        self.notices.append(f"{self.fields.where(field)}: {field}: {text}")

    def refuse(self, field: str, text: str) -> None:
        self.problems.append(f"{self.fields.where(field)}: {field} {text}")

    def _known(self, field: str, names: dict[str, str]) -> str:
        given: str = self.fields[field]
        if given in names:
            return names[given]
        near = closest(given, names, 0.5)
        meant = f"; did you mean {near}?" if near else ""
        self.refuse(field, f"must be one of {', '.join(names)}, not {given!r:.60}{meant}")
        return given

    def _model(self) -> None:
        fields = self.fields
        self.set("model.name", "model.name", self._known("model.name", MODELS))
        self.set("model.num_students", "model.No_students", fields["model.No_students"])
        self.set("model.narrow_blocks", "model.No_blocks", fields["model.No_blocks"])
        is_resnet = fields["model.name"].startswith(("ResNet", "Resnet", "Resnext", "Wide"))
        if fields["model.No_blocks"] != 3 and not is_resnet:
            self.notice(
                "model.No_blocks", "narrows the last blocks of this network too; theirs of ResNets alone"
            )
        if fields["model.pretrained"]:
            self.set("model.init", "model.pretrained", "pretrained")
            self.set("model.weights", "model.pretrained", None)
            self.notice(
                "model.pretrained",
                "torchvision's weights, whole for S1, in slices for the others; theirs were the stem's",
            )
        if fields["model.DataParallel"]:
            self.notice(
                "model.DataParallel",
                "one process a GPU shares each batch, through Lightning Fabric, instead of threads of one",
            )
        gpus = fields["model.gpu"] or ()
        if gpus and list(gpus) != list(range(len(gpus))):
            self.notice(
                "model.gpu",
                "GPUs are taken from the first that is visible on: set CUDA_VISIBLE_DEVICES to choose others",
            )
        if fields["model.Multi_GPU_replica"]:
            self.notice("model.Multi_GPU_replica", "has no effect, as in the authors' code: use DataParallel")
        self.set("training.freeze_stem", "model.Common_base_freeze", fields["model.Common_base_freeze"])
        collective = fields["model.Collective_Base_gradient"]
        self.set(
            "training.stem_gradient",
            "model.Collective_Base_gradient",
            "all" if collective else "pseudo_teacher",
        )
        if is_resnet or fields["model.name"].startswith("Efficientnet"):
            heard = "every student's gradient reaches" if collective else "S1's gradient alone reaches"
            self.notice(
                "model.Collective_Base_gradient",
                f"{heard} the stem, as documented; the authors' code for this network does the reverse:"
                f" {not collective} gives what it did",
            )

    def _data(self) -> None:
        fields = self.fields
        name = fields["dataset_cfg.id_cfg.name"]
        self.set("data.source", "dataset_cfg.id_cfg.name", self._known("dataset_cfg.id_cfg.name", SOURCES))
        self.set("data.root", "dataset_cfg.id_cfg.root", self._rooted("dataset_cfg.id_cfg.root"))
        self.set(
            "data.num_classes", "dataset_cfg.id_cfg.num_classes", fields["dataset_cfg.id_cfg.num_classes"]
        )
        self.set("data.download", "dataset_cfg.id_cfg.download", fields["dataset_cfg.id_cfg.download"])
        for setting, value in transforms(name, fields["model.name"]).items():
            self.set(f"data.{setting}", "dataset_cfg.id_cfg.name", value)
        if name in WITHOUT_TRANSFORMS:
            self.notice(
                "dataset_cfg.id_cfg.name",
                f"the authors' code stops for lack of transforms for {name}: docs/data.md has ours",
            )
        train, val = "dataset_cfg.train_cfg", "dataset_cfg.val_cfg"
        self.set("training.batch_size", f"{train}.batch_size", fields[f"{train}.batch_size"])
        self.set("data.evaluation_batch_size", f"{val}.batch_size", fields[f"{val}.batch_size"])
        self.set("data.shuffle", f"{train}.shuffle", fields[f"{train}.shuffle"])
        if fields[f"{val}.shuffle"]:
            self.notice(f"{val}.shuffle", "test images keep their order, which changes no result")
        workers = max(fields[f"{train}.num_workers"], fields[f"{val}.num_workers"])
        self.set("data.workers", f"{train}.num_workers", workers)
        if fields[f"{train}.num_workers"] != fields[f"{val}.num_workers"]:
            self.notice(
                f"{val}.num_workers", f"{workers} processes read both splits, where they are read at all"
            )

    def _optimizer(self) -> None:
        field = "train_cfg.optimizer"
        self.set("optimizer.name", f"{field}.name", self.fields[f"{field}.name"])
        arguments = self.fields.arguments(field)
        if "lr" not in arguments:
            self.refuse(f"{field}.name", "needs lr beside it: torch's default differs from class to class")
        for name, value in arguments.items():
            self.set(
                "optimizer.lr" if name == "lr" else f"optimizer.arguments.{name}", f"{field}.{name}", value
            )

    def _criterion(self) -> None:
        fields, field = self.fields, "train_cfg.criterion"
        for loss, setting in (("L1", "label_loss"), ("L3", "feature_loss")):
            place = f"{field}.{loss}"
            if f"{place}.name" in fields:
                self.set(f"objective.{setting}", f"{place}.name", fields[f"{place}.name"])
            else:
                self.set(f"objective.{setting}", place, fields[place])
            for name, value in fields.arguments(place).items():
                self.set(f"objective.{setting}_arguments.{name}", f"{place}.{name}", value)
        if fields[f"{field}.L2"] != "KL_Loss":
            self.refuse(f"{field}.L2", f"must be 'KL_Loss', not {fields[f'{field}.L2']!r:.60}")
        match = "adapter" if fields[f"{field}.Adaptation_use"] else "channel_mean"
        self.set("objective.feature_match", f"{field}.Adaptation_use", match)
        places, weights = [f"{field}.contribution_ratios"] * 3, fields[f"{field}.contribution_ratios"]
        older = "train_cfg.Loss_contribution"
        if older in fields:
            if f"{field}.contribution_ratios" not in fields.missing:
                self.refuse(f"{field}.contribution_ratios", f"stands beside {older}: give one of them")
            fields.missing.pop(f"{field}.contribution_ratios", None)
            places = [f"{older}.{name}" for name in ("alpha", "beta", "gamma")]
            weights = [fields[place] for place in places]
        names = ("label_weight", "feature_weight", "distillation_weight")
        for name, place, weight in zip(names, places, weights, strict=True):
            self.set(f"objective.{name}", place, weight)
        self.set(
            "objective.temperature", "train_cfg.KL_loss_temperature", fields["train_cfg.KL_loss_temperature"]
        )

    def _scheduler(self) -> None:
        field = "train_cfg.scheduler"
        self.set("data.validation_fraction", field, 0.0)
        if field not in self.fields:
            self.set("schedule.name", field, "constant")
            self.notice(field, "is missing: the learning rate stays as it is")
            return
        place, given = f"{field}.name", self.fields[f"{field}.name"]
        name = "CyclicLR" if given == "CylicLR" else given
        arguments = self.fields.arguments(field)
        if name == "LambdaLR":
            self.refuse(
                place,
                "must not be LambdaLR, which needs a function, and this file is read, not run: use StepLR,"
                " MultiStepLR, ExponentialLR, ReduceLROnPlateau or CyclicLR",
            )
        if name != given:
            self.notice(place, "CylicLR is torch's CyclicLR")
        if "verbose" in arguments:
            self.notice(
                f"{field}.verbose", "torch has dropped this argument; the rate stands in metrics.jsonl"
            )
            del arguments["verbose"]
        if name not in STEPPED_THERE:
            often = "each step" if name == "CyclicLR" else "each epoch"
            self.notice(place, f"steps {often}; the authors' code never steps it")
        if name == "ReduceLROnPlateau":
            self.settings[-1] = Setting(self.fields.where(place), "data.validation_fraction", HELD_OUT)
            self.notice(
                place,
                f"{HELD_OUT:.0%} of the training images are held out for it to follow each epoch: the test"
                " images, which it followed in the authors' code when they were tested, only report here",
            )
            if "mode" not in arguments:
                self.set("schedule.arguments.mode", place, "max")
                self.notice(
                    place,
                    "has no mode: torch's 'min' would lower the rate while the accuracy rises, so 'max'",
                )
        self.set("schedule.name", place, name)
        for argument, value in arguments.items():
            self.set(f"schedule.arguments.{argument}", f"{field}.{argument}", value)

    def _training(self) -> None:
        fields = self.fields
        pretrains = fields["train_cfg.teacher_pretraining"]
        self.set("training.epochs", "train_cfg.epochs", fields["train_cfg.epochs"])
        place = "train_cfg.pretraining_epochs" if pretrains else "train_cfg.teacher_pretraining"
        self.set(
            "training.pretraining_epochs", place, fields["train_cfg.pretraining_epochs"] if pretrains else 0
        )
        if pretrains:
            self.notice(
                place, "takes place at the initial rate and does not advance the scheduler; theirs did"
            )
        self.set("training.test_interval", "train_cfg.test_interval", fields["train_cfg.test_interval"])
        plots = fields["train_cfg.plot_accuracy_graphs"]
        self.set("run.curves", "train_cfg.plot_accuracy_graphs", "pictures" if plots else "arrays")
        field = "train_cfg.training_store_root"
        self.set("run.folder", field, self._rooted(field))
        self.set("run.name", field, "%m_%d_%H_%M")

    def _action(self) -> Literal["train", "resume", "validate"]:
        fields = self.fields
        resumes, validates = fields["Train_resume"], fields["Validate_only"]
        if resumes and validates:
            self.refuse("Validate_only", "must be False where Train_resume is True: one of them can be done")
        if not resumes and not validates:
            return "train"
        needed = "Train_resume" if resumes else "Validate_only"
        for name, kind in (("Load_run_id", "the name of a run's folder"), ("Load_Epoch", "an epoch")):
            if fields[name] is None:
                self.refuse(name, f"must be {kind}: {needed} asks for it")
        run_id, epoch, epochs = fields["Load_run_id"], fields["Load_Epoch"], fields["train_cfg.epochs"]
        if run_id is not None and (
            run_id in ("", ".", "..") or "/" in run_id or "\\" in run_id or "\0" in run_id
        ):
            self.refuse(
                "Load_run_id", f"must be the name of a folder in training_store_root, not {run_id!r:.60}"
            )
        if epoch is not None and not 1 <= epoch < 2**31:
            self.refuse("Load_Epoch", f"must be at least 1, not {epoch}")
        if resumes and epoch is not None:
            if epoch >= epochs:
                self.refuse(
                    "Load_Epoch", f"must be below epochs, {epochs}, which is the total: nothing is left"
                )
            self.notice(
                "train_cfg.epochs",
                f"{epochs} is the total, so {epochs - epoch} follow; the authors' code trained {epochs} more",
            )
        return "resume" if resumes else "validate"

    def _student(self, field: str) -> int | None:
        """Return the number, from 1, of a student that the file counts from 0."""
        number, count = self.fields[field], self.fields["model.No_students"]
        if number is None:
            return None
        if not 0 <= number < count:
            self.refuse(field, f"must be None or 0 … {count - 1}, which are S1 … S{count}, not {number}")
        return int(number) + 1

    def _rooted(self, field: str) -> str:
        path: str = self.fields[field]
        if "\0" in path or not path:
            self.refuse(field, f"must be a folder, not {path!r:.60}")
            return path
        if self.roots_from == Path() or path.startswith("~"):
            return path
        return os.path.normpath(self.roots_from / path)

    def _missing(self) -> None:
        if self.fields.missing:
            values = ", ".join(f"{name} = {_python(value)}" for name, value in self.fields.missing.items())
            self.notices.append(f"{self.fields.file}: takes from the template what it lacks: {values}")


def _python(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def settings_of_original(file: Path) -> tuple[Setting, ...]:
    """Return the settings of a file that does no more than train an ensemble, for other commands than train.

    Raises:
        InputError: The file cannot be used, or asks for more.
    """
    original = read_original(file)
    if original.action != "train" or original.student is not None:
        asked = {"resume": "Train_resume", "validate": "Validate_only"}.get(
            original.action, "Single_model_mode"
        )
        raise InputError(f"{file}: {asked} is for 'codistill train {file}' alone: set it to None or False")
    return original.settings
