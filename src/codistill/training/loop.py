"""The loop: epochs of steps, and after each a validation and a checkpoint.

It trains an ensemble, a baseline (an ensemble of one) and the pretraining of S1 (an ensemble of one that
others join). All it knows of an objective is `result["loss"]`.
"""

import math
import time
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from codistill.config import Config, ObjectiveConfig
from codistill.data.loaders import Batch, Data
from codistill.errors import DivergedError, InputError, Interrupted
from codistill.models.catalog import feature_channels
from codistill.models.ensemble import Ensemble, StudentOutput
from codistill.models.student_file import DeliveredModel, save_model
from codistill.objectives.paper import PSEUDO_TEACHER, PaperObjective
from codistill.training.checkpoint import load_newest_checkpoint, save_checkpoint
from codistill.training.display import Display
from codistill.training.evaluate import TEACHER, accuracy, predict
from codistill.training.optimizer import make_optimizer, make_plateau, rate_factor, set_learning_rate
from codistill.training.processes import average, broadcast_state, share_of
from codistill.training.run import RunFolder
from codistill.training.signals import StopRequest
from codistill.training.state import Progress
from codistill.training.step import make_engine

AnyModule = TypeVar("AnyModule", bound=nn.Module)
EVALUATION_COST = 0.35
"""A forward pass as a share of a training step, for the expected end alone."""
LABELS_ALONE = ObjectiveConfig(label_weight=1.0, feature_weight=0.0, distillation_weight=0.0)


class Trainer:
    """One run: everything it trains, and the folder it writes to.

    Args:
        config: Complete and checked; device, engine and threads are chosen.
        data: What it reads.
        fabric: Device, precision and processes.
        ensemble: Stem and students with their initial weights.
        run: The folder; `None` in all processes but the first.
        stop: Whether it was asked to stop.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        fabric: Fabric,
        ensemble: Ensemble,
        run: RunFolder | None,
        stop: StopRequest,
    ) -> None:
        self.config, self.data, self.fabric, self.run, self.stop = config, data, fabric, run, stop
        self.dtype = torch.float64 if config.training.precision == "64-true" else torch.float32
        channels = {name: feature_channels(student) for name, student in ensemble.descriptions.items()}
        self.ensemble = _placed(ensemble, fabric.device, self.dtype)
        objective = PaperObjective(config.objective, channels, seed=config.seed)
        self.objective = _placed(objective, fabric.device, self.dtype)
        self.pretraining_objective = PaperObjective(LABELS_ALONE, channels)
        self.optimizer = make_optimizer(
            config.optimizer,
            self.ensemble.parameters(),
            self.objective.parameters(),
            config.objective.adapter_lr_scale,
        )
        self.plateau = make_plateau(config.schedule, self.optimizer)
        assert config.training.engine != "auto"
        assert config.training.threads is not None
        self.engine = make_engine(
            config.training.engine, self.ensemble, threads=config.training.threads, autocast=fabric.autocast
        )
        self.display = Display(silent=not fabric.is_global_zero)
        self.steps = data.batches_per_epoch(config.training.batch_size, fabric.world_size)
        self.epochs = config.training.pretraining_epochs + config.training.epochs
        # A baseline of another student than S1 has no part in the pretraining: it begins where it would join.
        joins_at = 0 if PSEUDO_TEACHER in ensemble.descriptions else config.training.pretraining_epochs
        self.progress = Progress(epoch=joins_at)
        self.agreed_stop = 0
        broadcast_state(fabric, [self.ensemble, self.objective])

    def fit(self) -> None:
        """Train from where the progress stands to the last epoch.

        Raises:
            Interrupted: It was asked to stop, and saved.
            DivergedError: A loss is not finite.
        """
        try:
            while self.progress.epoch < self.epochs:
                self.train_epoch()
                self.finish_epoch()
        finally:
            self.display.end_epoch()

    def train_epoch(self) -> None:
        """Train on the batches of one epoch that are left."""
        training, progress = self.config.training, self.progress
        self.ensemble.train()
        if self.stem_is_frozen:
            self.ensemble.stem.eval()
        title = f"{'pretraining' if self.pretrains else 'epoch'} {progress.epoch + 1}/{self.epochs}"
        self.display.begin_epoch(title, steps=self.steps, done=progress.step)
        saved = began = time.monotonic()
        for batch in self.data.epoch(
            progress.epoch,
            seed=self.config.seed,
            batch_size=training.batch_size,
            first=progress.step,
            share=share_of(self.fabric),
            device=self.fabric.device,
            dtype=self.dtype,
        ):
            terms = self.train_step(batch)
            seconds, began = time.monotonic() - began, time.monotonic()
            progress.seconds += seconds
            self.display.step(terms, training.batch_size, seconds, self.steps_left)
            self.stop_if_asked()
            if began - saved >= 60 * training.checkpoint_minutes and progress.step < self.steps:
                self.save()
                saved = began = time.monotonic()
        self.display.end_epoch()

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Take one step and return its named losses."""
        factor = self.rate_factor()
        if factor is not None:
            set_learning_rate(self.optimizer, self.config.optimizer.lr * factor)
        images = self.images_of_step(self.progress.step)
        # A process whose part of the batch is larger than the mean counts for more.
        weight = len(batch.labels) * self.fabric.world_size / images
        result = self.engine.gradients(
            batch.images,
            batch.labels,
            objective=self.pretraining_objective if self.pretrains else self.objective,
            names=self.names,
            senders=self.senders,
            scale=weight,
        )
        terms = dict(
            zip(result, torch.stack([term.detach() for term in result.values()]).tolist(), strict=True)
        )
        terms, self.agreed_stop = average(
            self.fabric, [self.ensemble, self.objective], terms, weight=weight, stop=self.stop.signal_number
        )
        self.check_finite(terms)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.add(terms, images)
        return terms

    def finish_epoch(self) -> None:
        """Validate, keep what is best so far, log, and write a checkpoint."""
        progress = self.progress
        began = time.monotonic()
        validation = self.validate()
        if self.plateau is not None and not self.pretrains:
            self.plateau.step(validation.get(TEACHER, next(iter(validation.values()))))
        for name, value in validation.items():
            # Of equally good epochs the latest counts: few validation images tie often.
            if name not in progress.best or value >= progress.best[name][1]:
                progress.best[name] = (progress.epoch + 1, value)
                self.deliver(name, "best")
        record = {
            "epoch": progress.epoch + 1,
            "phase": "pretraining" if self.pretrains else "joint",
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images": progress.images,
            "train": progress.means(),
            "validation": validation,
            "seconds": {"training": progress.seconds, "validation": time.monotonic() - began},
        }
        self.display.epoch_line(record, self.epochs)
        if self.run is not None:
            self.run.append_metrics(record)
        progress.next_epoch(time.monotonic() - began)
        if progress.epoch == self.epochs:
            for name in self.members:
                self.deliver(name, "last")
        self.save()

    @property
    def pretrains(self) -> bool:
        """Whether the stem and S1 are training alone."""
        return self.progress.epoch < self.config.training.pretraining_epochs

    @property
    def names(self) -> list[str]:
        """The students that train now, S1 first."""
        return [PSEUDO_TEACHER] if self.pretrains else list(self.ensemble.descriptions)

    @property
    def members(self) -> list[str]:
        """All that are delivered: the students and, where there are several, the teacher."""
        students = list(self.ensemble.descriptions)
        return [*students, TEACHER] if len(students) > 1 else students

    @property
    def stem_is_frozen(self) -> bool:
        """Whether the stem keeps still now; it never does while S1 is pretrained."""
        return self.config.training.freeze_stem and not self.pretrains

    @property
    def senders(self) -> list[str]:
        """The students whose gradient reaches the stem now."""
        if self.stem_is_frozen:
            return []
        return [PSEUDO_TEACHER] if self.config.training.stem_gradient == "pseudo_teacher" else self.names

    @property
    def steps_left(self) -> float:
        """Training steps to the end, and evaluations counted in steps."""
        size = self.config.training.batch_size
        epochs = self.epochs - self.progress.epoch
        evaluated = epochs * len(self.data.validation_positions) + len(self.data.test)
        return epochs * self.steps - self.progress.step + EVALUATION_COST * evaluated / size

    def rate_factor(self) -> float | None:
        """Return what the learning rate is multiplied by in the next step, `None` to leave it."""
        if self.pretrains:
            return 1.0
        return rate_factor(
            self.config.schedule,
            epochs=self.config.training.epochs,
            epoch=self.progress.epoch - self.config.training.pretraining_epochs,
            step=self.progress.step,
            steps=self.steps,
        )

    def images_of_step(self, step: int) -> int:
        """Return how many images all processes see in a step of the epoch."""
        size = self.config.training.batch_size
        return size if step < self.steps - 1 else len(self.data.train_positions) - size * (self.steps - 1)

    def outputs(self, images: Tensor) -> dict[str, StudentOutput]:
        """Return the outputs of the students that train now, for an evaluation that can be stopped."""
        self.stop_if_asked()
        return self.engine.outputs(images, self.names)

    def validate(self) -> dict[str, float]:
        """Return the validation accuracy of every member that trains now; empty without such images."""
        if len(self.data.validation_positions) == 0:
            return {}
        self.ensemble.eval()
        labels, predictions = predict(
            self.outputs, self.data.validation_batches(self.fabric.device, self.dtype)
        )
        return {name: accuracy(predicted, labels) for name, predicted in predictions.items()}

    def deliver(self, name: str, variant: str) -> None:
        """Write one member as a model that stands alone, to students/last or students/best."""
        if self.run is None:
            return
        members = list(self.ensemble.descriptions) if name == TEACHER else [name]
        model = DeliveredModel(
            self.ensemble.selected(members),
            name=name,
            classes=self.data.classes,
            preprocessing=self.data.preprocessing,
        )
        folder = self.run.students / variant
        folder.mkdir(exist_ok=True)
        save_model(model, folder / name)

    def check_finite(self, terms: dict[str, float]) -> None:
        """Raise `DivergedError` unless the step's loss is finite."""
        if math.isfinite(terms["loss"]):
            return
        culprit = next(
            (name for name, value in terms.items() if name != "loss" and not math.isfinite(value)), "loss"
        )
        term, _, student = culprit.partition("/")
        value = terms[culprit]
        raise DivergedError(
            f"step {self.progress.step + 1} of epoch {self.progress.epoch + 1}: the loss is not finite:"
            f" {term}{f' of {student}' if student else ''} is {value}; the last good checkpoint is kept in"
            f" {self.run.checkpoints if self.run else 'the run'}; a lower optimizer.lr or a longer"
            " schedule.warmup_epochs may help"
        )

    def stop_if_asked(self) -> None:
        """Save and raise `Interrupted` if a signal came; several processes act when all know of it."""
        number = self.agreed_stop if self.fabric.world_size > 1 else self.stop.signal_number
        if number:
            self.display.end_epoch()
            self.save()
            raise Interrupted(self.run.path if self.run else Path(), number)

    def save(self) -> None:
        """Write a checkpoint of everything that changes."""
        if self.run is None:
            return
        state: dict[str, Any] = {
            "data": self.data.fingerprint(),
            "progress": self.progress.state_dict(),
            "ensemble": self.ensemble.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict() if self.plateau else None,
            "generator": torch.get_rng_state(),
        }
        step = self.progress.epoch * self.steps + self.progress.step
        save_checkpoint(self.run.checkpoints, state, step=step, keep=self.config.training.keep_checkpoints)

    def restore(self, path: Path) -> None:
        """Go on from the newest good checkpoint of a run folder, or from the start if it has none.

        Raises:
            InputError: The data are not those that the run was started with.
        """
        state, torn = load_newest_checkpoint(path / "checkpoints")
        for file in torn:
            self.display.say(f"{file}: cannot be read and is passed over")
        if state is not None:
            if state["data"] != self.data.fingerprint():
                raise InputError(
                    f"{path}: the data have changed since the run was started; it cannot go on with them"
                )
            self.progress = Progress.from_state_dict(state["progress"])
            self.ensemble.load_state_dict(state["ensemble"])
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.plateau is not None:
                self.plateau.load_state_dict(state["plateau"])
            torch.set_rng_state(state["generator"])
        if self.run is not None:
            self.run.trim_metrics(self.progress.epoch)


def _placed(module: AnyModule, device: torch.device, dtype: torch.dtype) -> AnyModule:
    # Channels last is the faster layout for narrow convolutions, on a CPU and on CUDA.
    return module.to(device, dtype).to(memory_format=torch.channels_last)
