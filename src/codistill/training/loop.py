"""The loop: epochs of steps, and after each a validation and a checkpoint.

It trains an ensemble, a baseline (an ensemble of one) and the pretraining of S1 (an ensemble of one that
others join). All it knows of an objective is `result["loss"]`.
"""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from codistill.config import Config
from codistill.config.model import TEACHER
from codistill.config.objective import labels_alone
from codistill.data.loaders import Batch, Data
from codistill.errors import Interrupted
from codistill.models.catalog import feature_channels
from codistill.models.ensemble import Ensemble
from codistill.objectives.paper import PaperObjective
from codistill.randomness import derive_seed
from codistill.training.checkpoint import keep_checkpoint, save_checkpoint
from codistill.training.curves import write_curves
from codistill.training.delivered import Variant, deliver
from codistill.training.display import Display
from codistill.training.evaluate import accuracy, member_logits, predict
from codistill.training.on_the_way import accuracies_of, counting, losses_of, test_members
from codistill.training.optimizer import make_optimizer, set_learning_rate
from codistill.training.phase import Phase, count_tests_left, first_epoch, is_tested, phase_of
from codistill.training.processes import average, broadcast_state, share_of
from codistill.training.run import RunFolder
from codistill.training.schedule import make_schedule, rate_factor
from codistill.training.signals import StopRequest
from codistill.training.snapshot import snapshot
from codistill.training.state import Progress, check_finite, check_finite_weights
from codistill.training.step import Autocast, make_engine

AnyModule = TypeVar("AnyModule", bound=nn.Module)
EVALUATION_COST = 0.35
"""A forward pass as a share of a training step, for the expected end alone."""


class Trainer:
    """One run: everything it trains, and the folder it writes to.

    Args:
        config: Complete and checked; device, engine and threads are chosen.
        data: What it reads.
        fabric: Device, precision and processes.
        ensemble: Stem and students with their initial weights.
        run: The folder; `None` in all processes but the first, which alone writes.
        path: Where it is, in all processes.
        stop: Whether it was asked to stop.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        fabric: Fabric,
        ensemble: Ensemble,
        run: RunFolder | None,
        path: Path,
        stop: StopRequest,
    ) -> None:
        self.config, self.data, self.fabric = config, data, fabric
        self.run, self.path, self.stop = run, path, stop
        self.dtype = torch.float64 if config.training.precision == "64-true" else torch.float32
        channels = {name: feature_channels(student) for name, student in ensemble.descriptions.items()}
        self.ensemble = _placed(ensemble, fabric.device, self.dtype)
        objective = PaperObjective(config.objective, channels, seed=config.seed)
        self.objective = _placed(objective, fabric.device, self.dtype)
        # With the loss that the config names, on the labels alone.
        self.pretraining_objective = _placed(
            PaperObjective(labels_alone(config.objective), channels), fabric.device, self.dtype
        )
        self.optimizer = make_optimizer(
            config.optimizer,
            self.ensemble.parameters(),
            self.objective.parameters(),
            config.objective.adapter_lr_scale,
        )
        # Only mixed precision needs a context: double precision's would change torch's default number format
        # for all threads, and not back again where several leave it at once.
        self.autocast: Autocast = fabric.autocast if "mixed" in config.training.precision else nullcontext
        assert config.training.engine != "auto"
        assert config.training.threads is not None
        self.engine = make_engine(
            config.training.engine, self.ensemble, threads=config.training.threads, autocast=self.autocast
        )
        self.display = Display(silent=not fabric.is_global_zero)
        self.steps = data.batches_per_epoch(config.training.batch_size, fabric.world_size)
        self.schedule = make_schedule(config, self.steps)
        self.epochs = config.training.pretraining_epochs + config.training.epochs
        self.progress = Progress(epoch=first_epoch(config.training, list(ensemble.descriptions)))
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
            for name in self.members:
                self.deliver(name, "last")
        finally:
            self.display.end_epoch()

    def train_epoch(self) -> None:
        """Train on the batches of one epoch that are left."""
        training, progress, phase = self.config.training, self.progress, self.phase
        self.ensemble.train()
        if phase.stem_is_frozen:
            self.ensemble.stem.eval()
        title = (
            f"{'pretraining' if phase.name == 'pretraining' else 'epoch'} {progress.epoch + 1}/{self.epochs}"
        )
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
            terms = self.train_step(batch, phase)
            seconds, began = time.monotonic() - began, time.monotonic()
            progress.seconds += seconds
            self.display.step(losses_of(terms), training.batch_size, seconds, self.steps_left)
            self.stop_if_asked()
            if began - saved >= 60 * training.checkpoint_minutes and progress.step < self.steps:
                self.save()
                saved = began = time.monotonic()
        self.display.end_epoch()

    def train_step(self, batch: Batch, phase: Phase) -> dict[str, float]:
        """Take one step; return its named losses, and the share of the batch that each member has right."""
        pretrains = phase.name == "pretraining"
        schedule, epochs = self.config.schedule, self.config.training.epochs
        position = {"epoch": phase.epoch, "step": self.progress.step, "steps": self.steps}
        factor = 1.0 if pretrains else rate_factor(schedule, epochs=epochs, **position)
        if factor is not None:
            set_learning_rate(self.optimizer, self.config.optimizer.lr * factor)
        elif self.schedule is not None:
            self.schedule.set_rate(self.optimizer)
        images = self.data.images_in_step(self.progress.step, self.config.training.batch_size, self.steps)
        # A process whose part of the batch is larger than the mean counts for more.
        weight = len(batch.labels) * self.fabric.world_size / images
        result = self.engine.gradients(
            batch.images,
            batch.labels,
            objective=counting(self.pretraining_objective if pretrains else self.objective),
            names=phase.students,
            senders=phase.senders,
            scale=weight,
            draw_seed=derive_seed(
                self.config.seed, self.progress.epoch, self.progress.step, self.fabric.global_rank
            ),
        )
        terms = dict(
            zip(result, torch.stack([term.detach() for term in result.values()]).tolist(), strict=True)
        )
        terms, self.agreed_stop = average(
            self.fabric, [self.ensemble, self.objective], terms, weight=weight, stop=self.stop.signal_number
        )
        check_finite(terms, self.progress)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.schedule is not None and not pretrains:
            self.schedule.end_step()
        self.progress.add(terms, images)
        return terms

    def finish_epoch(self) -> None:
        """Validate, test where it is time to, keep what is best so far, log, and write a checkpoint."""
        progress, phase = self.progress, self.phase
        check_finite_weights(self.ensemble, progress)
        began = time.monotonic()
        validation = self.validate()
        tested = {"test": test_members(self)} if is_tested(self.config.training, progress.epoch) else {}
        if self.schedule is not None and phase.name == "joint":
            self.schedule.end_epoch(validation.get(TEACHER, next(iter(validation.values()), None)))
        for name, value in validation.items():
            # Of equally good epochs the latest counts: few validation images tie often.
            if name not in progress.best or value >= progress.best[name][1]:
                progress.best[name] = (progress.epoch + 1, value)
        means = progress.means()
        record = {
            "epoch": progress.epoch + 1,
            "phase": phase.name,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images": progress.images,
            "train": losses_of(means),
            "train_accuracy": accuracies_of(means),
            "validation": validation,
            **tested,
            "seconds": {"training": progress.seconds, "validation": time.monotonic() - began},
        }
        self.display.epoch_line(record, self.epochs)
        if self.run is not None:
            self.run.append_metrics(record)
        progress.next_epoch(time.monotonic() - began)
        self.save()
        self.after_epoch()

    def after_epoch(self) -> None:
        """Do what follows an epoch's checkpoint; a run that was killed in between makes up for it."""
        self.deliver_best()
        tested = is_tested(self.config.training, self.progress.epoch - 1)
        if self.run is not None and tested:
            keep_checkpoint(
                self.run.checkpoints, step=self.progress.epoch * self.steps, epoch=self.progress.epoch
            )
        finished = self.progress.epoch == self.epochs
        curves = self.config.run.curves
        if self.run is not None and curves != "none" and (tested or finished):
            write_curves(self.run.path, pictures=curves == "pictures", finished=finished)

    @property
    def phase(self) -> Phase:
        """Who trains now."""
        return phase_of(self.config.training, list(self.ensemble.descriptions), self.progress.epoch)

    @property
    def members(self) -> list[str]:
        """All that are delivered: the students and, where there are several, the teacher."""
        students = list(self.ensemble.descriptions)
        return [*students, TEACHER] if len(students) > 1 else students

    @property
    def steps_left(self) -> float:
        """Training steps to the end, and evaluations counted in steps."""
        size = self.config.training.batch_size
        epochs = self.epochs - self.progress.epoch
        tests = 1 + count_tests_left(self.config.training, self.progress.epoch)
        evaluated = epochs * len(self.data.validation_positions) + tests * len(self.data.test)
        return epochs * self.steps - self.progress.step + EVALUATION_COST * evaluated / size

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of all members that train now, for an evaluation that can be stopped."""
        self.stop_if_asked()
        return member_logits(self.engine.outputs(images, self.phase.students))

    def validate(self) -> dict[str, float]:
        """Return the validation accuracy of every member that trains now; empty without such images."""
        if len(self.data.validation_positions) == 0:
            return {}
        self.ensemble.eval()
        batches = self.data.validation_batches(self.fabric.device, self.dtype)
        labels, predictions = predict(self.logits, batches)
        found = {name: accuracy(predicted, labels) for name, predicted in predictions.items()}
        # Where a device rounds as it pleases, processes must still agree on what is best.
        return self.fabric.broadcast(found)

    def deliver_best(self) -> None:
        """Deliver the members that are at their best in the epoch just done."""
        for name, (epoch, _) in self.progress.best.items():
            if epoch == self.progress.epoch:
                self.deliver(name, "best")

    def deliver(self, name: str, variant: Variant) -> None:
        """Write one member as a model that stands alone, to students/last or students/best."""
        if self.run is not None:
            members = list(self.ensemble.descriptions) if name == TEACHER else [name]
            deliver(self.ensemble.selected(members), name, self.data, self.run.students / variant)

    def stop_if_asked(self) -> None:
        """Save and raise `Interrupted` if a signal came; several processes act when all know of it."""
        number = self.agreed_stop if self.fabric.world_size > 1 else self.stop.signal_number
        if number:
            self.display.end_epoch()
            self.save()
            self.fabric.barrier()  # A process that ends before the first has saved would take it along.
            raise Interrupted(self.path, number)

    def save(self) -> None:
        """Write a checkpoint of everything that changes."""
        check_finite_weights(self.ensemble, self.progress)
        if self.run is not None:
            step = self.progress.epoch * self.steps + self.progress.step
            keep = self.config.training.keep_checkpoints
            save_checkpoint(self.run.checkpoints, snapshot(self), step=step, keep=keep)


def _placed(module: AnyModule, device: torch.device, dtype: torch.dtype) -> AnyModule:
    # Channels last is the faster layout for narrow convolutions, on a CPU and on CUDA.
    return module.to(device, dtype).to(memory_format=torch.channels_last)
