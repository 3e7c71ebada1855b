"""Students that draw random numbers: what they draw is a function of the step's seed and of their name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from copies import make_folder
from safetensors.torch import load_file
from torch import Tensor

from codistill.config import Config, DataConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from codistill.config.parsing import load_config
from codistill.errors import InputError
from codistill.models.catalog import feature_channels
from codistill.models.ensemble import Ensemble
from codistill.models.ladder import describe_students
from codistill.objectives.paper import PaperObjective
from codistill.training import experiment
from codistill.training.step import EagerEngine, ParallelEngine, choose_engine


def small_ensemble(name: str = "efficientnet_b0", students: tuple[int, ...] = (1, 2, 3)) -> Ensemble:
    config = ModelConfig(name=name, stem="small", num_students=3, students=students)  # type: ignore[arg-type]
    return Ensemble(describe_students(config, in_channels=3, num_classes=2))


def losses(ensemble: Ensemble, *, draw_seed: int) -> dict[str, Tensor]:
    names = list(ensemble.descriptions)
    channels = {name: feature_channels(student) for name, student in ensemble.descriptions.items()}
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return EagerEngine(ensemble).gradients(
        images,
        torch.tensor([0, 1, 0, 1]),
        objective=PaperObjective(ObjectiveConfig(), channels),
        names=names,
        senders=names,
        draw_seed=draw_seed,
    )


def test_draws_depend_on_the_steps_seed_and_on_nothing_else() -> None:
    first = losses(small_ensemble(), draw_seed=1)
    torch.rand(100)
    again = losses(small_ensemble(), draw_seed=1)
    other = losses(small_ensemble(), draw_seed=2)

    assert first == again
    assert all(first[f"label/S{number}"] != other[f"label/S{number}"] for number in (1, 2, 3))


def test_a_student_draws_the_same_whoever_else_is_there() -> None:
    together = losses(small_ensemble(), draw_seed=1)
    alone = losses(small_ensemble(students=(3,)), draw_seed=1)

    assert alone["label/S3"] == together["label/S3"]


def test_the_callers_generator_is_left_alone() -> None:
    ensemble = small_ensemble()
    torch.manual_seed(5)
    expected = torch.rand(3)

    torch.manual_seed(5)
    losses(ensemble, draw_seed=1)

    assert torch.equal(torch.rand(3), expected)


def test_who_draws_nothing_does_not_depend_on_the_steps_seed() -> None:
    assert losses(small_ensemble("cifar_resnet20"), draw_seed=1) == losses(
        small_ensemble("cifar_resnet20"), draw_seed=2
    )


def test_students_that_draw_run_one_after_another() -> None:
    here = {"device": torch.device("cpu"), "students": 5, "threads": 4}

    assert choose_engine("auto", **here, draws_random_numbers=False) == "parallel"
    assert choose_engine("auto", **here, draws_random_numbers=True) == "eager"
    with pytest.raises(InputError, match=r"training\.engine must be eager or auto, not parallel"):
        choose_engine("parallel", **here, draws_random_numbers=True)
    with pytest.raises(ValueError, match="cannot run at once"):
        ParallelEngine(small_ensemble(), threads=2)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    data = make_folder(tmp_path / "pictures", per_class=8, classes=("cat", "dog"), size=(8, 8))
    return Config(
        data=DataConfig(source="folder", crop_padding=1, image_size=8, **data),
        model=ModelConfig(name="efficientnet_b0", num_students=3, students=(2, 3)),
        objective=ObjectiveConfig(feature_weight=0.0),
        training=TrainingConfig(epochs=2, batch_size=6, threads=2, device="cpu"),
        run=RunConfig(folder=str(tmp_path / "runs"), name="whole"),
    )


@pytest.mark.slow
def test_a_stopped_run_that_draws_goes_on_bit_for_bit(config: Config) -> None:
    whole = experiment.train(config)

    class Stopped(Exception):  # noqa: N818 - not an error
        pass

    def finish_epoch(self: experiment.Trainer) -> None:
        original(self)
        if self.progress.epoch == 1:
            raise Stopped

    original = experiment.Trainer.finish_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.Trainer, "finish_epoch", finish_epoch)
        with pytest.raises(Stopped):
            experiment.train(replace(config, run=replace(config.run, name="stopped")))
    torch.rand(7)
    stopped = experiment.resume(whole.parent / "stopped")

    for student in ("S2", "S3"):
        expected = load_file(whole / "students" / "last" / f"{student}.safetensors")
        weights = load_file(stopped / "students" / "last" / f"{student}.safetensors")
        assert all(torch.equal(tensor, weights[name]) for name, tensor in expected.items())
    saved = load_config(whole / "config.yaml")
    assert (saved.model.stem, saved.training.engine) == ("small", "eager")


def test_images_too_small_for_a_network_are_refused_before_anything_is_written(config: Config) -> None:
    model = replace(config.model, name="densenet121", stem="imagenet")

    with pytest.raises(InputError, match="8×8 pixels are too small for densenet121 with the imagenet stem"):
        experiment.train(replace(config, model=model))
    assert not Path(config.run.folder).exists()
