"""A run from config to finished folder: set up, train, report."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save
from torch import Tensor

from codistill.atomic import write_atomically
from codistill.config import Config, check, completed
from codistill.data.loaders import Data, load_data
from codistill.errors import InputError
from codistill.models.ensemble import Ensemble
from codistill.models.networks import OwnNetwork, admit
from codistill.models.student_file import load_model
from codistill.training.continuation import config_of_continuation, files_of_continuation
from codistill.training.display import results_table
from codistill.training.evaluate import accuracy, predict
from codistill.training.forecast import forecast_memory, forecast_step_seconds
from codistill.training.loop import Trainer
from codistill.training.optimizer import count_moments
from codistill.training.processes import launch
from codistill.training.run import RunFolder, refuse_existing, require_run
from codistill.training.setup import (
    build_ensemble,
    costs_of,
    refuse_unusable_classes,
    with_engine,
    with_execution,
    with_network,
)
from codistill.training.signals import StopRequest
from codistill.training.snapshot import restore


def train(config: Config, *, model: OwnNetwork | None = None) -> Path:
    """Train all students of a config and return the finished run's folder.

    Args:
        config: What to train.
        model: A network of your own, or what builds it, instead of `config.model.name`; that may also name a
            function of yours, module:function, which is then imported.

    Raises:
        InputError: The config, or the data it names, cannot be used; nothing was written.
        Interrupted: The run was asked to stop, and saved.
        DivergedError: A loss is not finite.
    """
    config = completed(check(with_network(config, model)))
    name, is_fixed = config.run.folder_name("")
    if is_fixed:  # Before anything is read; all processes find it so.
        refuse_existing(Path(config.run.folder).expanduser() / name)
    refuse_unusable_classes(config)
    fabric = launch(config.training)
    config = with_execution(config, fabric)
    data = load_data(config.data, device=fabric.device)
    refuse_unusable_classes(config, data, fabric.world_size)
    ensemble = build_ensemble(config, data)
    config = with_engine(config, fabric, ensemble)
    run = _in_first_process(fabric, lambda: RunFolder.create(config))
    return _complete(config, fabric, data, ensemble, run, resumed=False)


def resume(
    path: str | Path,
    config: Config | None = None,
    *,
    epoch: int | None = None,
    model: OwnNetwork | None = None,
) -> Path:
    """Go on with a run as if it had never stopped, and return its folder.

    Args:
        path: The run folder.
        config: The run's config where something about its place has changed: where the data are, or which
            device there is; with `epoch` also where its length has.
        epoch: The epoch to go on after, one whose checkpoint is kept (`training.test_interval`), counted with
            those of pretraining. From another than the last of these the run goes on in a new folder, which
            names this one as its parent.
        model: The run's network, where it is one of your own: no folder makes codistill import code.

    Raises:
        InputError: The folder is no run, is being trained, or its data have changed.
        Interrupted: The run was asked to stop, and saved.
        DivergedError: A loss is not finite.
    """
    path = Path(path)
    is_new = False
    if epoch is not None:
        config, is_new = config_of_continuation(require_run(path), config, epoch)
    if not is_new:
        first = RunFolder.open(path)
        config, finished = first.load_config() if config is None else config, first.finished
        first.close()
        if finished:
            return path
    assert config is not None
    if model is not None:
        admit(model, config.model.name)
    fabric = launch(config.training)
    config = with_execution(config, fabric)
    data = load_data(config.data, device=fabric.device)
    ensemble = build_ensemble(config, data, resumed=is_new or any((path / "checkpoints").glob("*")))
    config = with_engine(config, fabric, ensemble)

    def open_folder() -> RunFolder:
        if not is_new or epoch is None:
            return RunFolder.open(path)
        origin = {"run": str(path.absolute()), "epoch": epoch}
        return RunFolder.create(config, files=files_of_continuation(path, epoch), origin=origin)

    run = _in_first_process(fabric, open_folder)
    return _complete(config, fabric, data, ensemble, run, resumed=True)


def _in_first_process(fabric: Fabric, make: Callable[[], RunFolder]) -> RunFolder | None:
    """Return the folder in the first process, `None` in the others; all raise what the first raised."""
    run, problem = None, ""
    if fabric.is_global_zero:
        try:
            run = make()
        except InputError as error:
            problem = str(error)
    problem = fabric.broadcast(problem)
    if problem:
        raise InputError(problem)
    return run


def _complete(
    config: Config,
    fabric: Fabric,
    data: Data,
    ensemble: Ensemble,
    run: RunFolder | None,
    *,
    resumed: bool,
) -> Path:
    path = Path(fabric.broadcast(str(run.path) if run else ""))
    with StopRequest() as stop, nullcontext() if run is None else closing(run):
        trainer = Trainer(config, data, fabric, ensemble, run, path, stop)
        with closing(trainer.engine):
            if resumed:
                restore(trainer)
            _announce(trainer, path)
            trainer.fit()
            if run is not None:
                results = report(trainer, run)
                trainer.display.say(results_table(results))
                trainer.display.say(f"run {path}")
    return path


def _announce(trainer: Trainer, path: Path) -> None:
    """Print, before the first step, what the run will train, hold and take."""
    config, data, display = trainer.config, trainer.data, trainer.display
    if display.silent:
        return
    training = config.training
    display.say(
        f"run {path}\n{config.data.source}: {len(data.classes)} classes, {len(data.train_positions):,} images"
        f" to train on, {len(data.validation_positions):,} to validate, {len(data.test):,} to test\n"
        f"{training.device}, {training.threads} threads, engine {training.engine}"
    )
    if trainer.ensemble.origin:
        display.say(f"initial weights: {trainer.ensemble.origin}")
    display.costs(costs_of(config, data, trainer.ensemble))
    device, dtype = trainer.fabric.device, trainer.dtype
    batch = next(data.epoch(0, seed=config.seed, batch_size=training.batch_size, device=device, dtype=dtype))
    moments = count_moments(config.optimizer)
    memory = forecast_memory(trainer.ensemble, trainer.objective, batch, moments=moments)
    assert training.threads is not None
    assert training.engine != "auto"
    seconds = forecast_step_seconds(
        training.engine, trainer.ensemble, trainer.objective, batch, threads=training.threads
    )
    display.say(f"memory about {memory / 2**30:.2f} GiB for a step of {training.batch_size} images")
    display.forecast(seconds, trainer.steps_left)


def report(trainer: Trainer, run: RunFolder) -> dict[str, Any]:
    """Test every delivered model, write predictions and results, and return the results."""
    data, device, dtype = trainer.data, trainer.fabric.device, trainer.dtype
    trainer.ensemble.eval()
    labels, last = predict(trainer.logits, data.test_batches(device, dtype))
    earlier = {
        name: load_model(run.students / "best" / name).to(device, dtype)
        for name, (epoch, _) in trainer.progress.best.items()
        if epoch != trainer.epochs
    }

    def logits(images: Tensor) -> dict[str, Tensor]:
        trainer.stop_if_asked()
        with torch.inference_mode(), trainer.autocast():
            return {name: model(images) for name, model in earlier.items()}

    best = predict(logits, data.test_batches(device, dtype))[1] if earlier else {}
    predictions = {f"last/{name}": predicted for name, predicted in last.items()}
    students: dict[str, Any] = {}
    for name, cost in costs_of(trainer.config, data, trainer.ensemble).items():
        students[name] = vars(cost) | {
            "last": {"epoch": trainer.epochs, "test_accuracy": accuracy(last[name], labels)}
        }
        if name in trainer.progress.best:
            epoch, validation_accuracy = trainer.progress.best[name]
            # A tensor of its own: safetensors keeps no two names for one.
            predictions[f"best/{name}"] = best[name] if name in best else last[name].clone()
            students[name]["best"] = {
                "epoch": epoch,
                "validation_accuracy": validation_accuracy,
                "test_accuracy": accuracy(predictions[f"best/{name}"], labels),
            }
    write_atomically(run.predictions_file, save({"labels": labels, **predictions}))
    fingerprint = data.fingerprint()
    results = {
        name: fingerprint[name] for name in ("train_images", "validation_images", "test_images", "classes")
    }
    results |= {"epochs": trainer.epochs, "seconds": trainer.progress.total_seconds, "students": students}
    run.write_results(results)
    return results
