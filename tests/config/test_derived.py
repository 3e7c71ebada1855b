"""Configs derived from a config: with the source's own values written out, and a student's baseline."""

from dataclasses import replace

import pytest

from codistill.config import (
    SOURCES,
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainingConfig,
    baseline,
    check,
    completed,
)
from codistill.errors import InputError


@pytest.mark.parametrize("source", SOURCES)
def test_completed_writes_out_what_the_source_decides(source: str) -> None:
    data = completed(Config(data=DataConfig(source=source))).data  # type: ignore[arg-type]

    digits = source in ("digits", "mnist", "svhn")
    assert data.horizontal_flip is not digits
    padding = {"digits": 1, "stl10": 12, "caltech256": 28, "imagenet": 50}
    assert data.crop_padding == padding.get(source, 4)
    assert data.rotation == (10 if source == "imagenet" else 0)
    sizes = {"digits": 8, "stl10": 96, "caltech256": 224, "cub2011": 64, "imagenet": 224}
    sizes |= {"mnist": 28, "fashion_mnist": 28, "huggingface": None, "folder": None, "lmdb": None}
    assert data.image_size == sizes.get(source, 32)
    pictures = {"cub2011": "stretch", "imagenet": "stretch", "caltech256": "crop", "folder": "crop"}
    pictures |= {"huggingface": "crop", "lmdb": "crop"}
    assert data.resize == pictures.get(source)
    statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if source == "imagenet" else (None, None)
    assert (data.mean, data.std) == statistics
    assert data.completed() == data


def test_fixed_statistics_give_way_to_what_is_asked_for() -> None:
    imagenet = DataConfig(source="imagenet", root="x")

    assert replace(imagenet, normalize=False).completed().mean is None
    own = replace(imagenet, mean=(0.5,) * 3, std=(0.2,) * 3).completed()
    assert (own.mean, own.std) == ((0.5,) * 3, (0.2,) * 3)


@pytest.mark.parametrize(
    ("name", "image_size", "stem"),
    [
        ("resnet18", 32, "small"),
        ("resnet18", 64, "small"),
        ("resnet18", 65, "imagenet"),
        ("efficientnet_b0", 224, "imagenet"),
        ("cifar_resnet20", 224, "small"),
        ("densenet_bc_k12", None, "small"),
    ],
)
def test_completed_chooses_the_stem_by_the_images(name: str, image_size: int | None, stem: str) -> None:
    data = DataConfig(source="folder", root="x", image_size=image_size)
    config = Config(data=data, model=ModelConfig(name=name))  # type: ignore[arg-type]

    assert completed(check(config)).model.stem == stem
    assert completed(completed(config)) == completed(config)


def test_completed_keeps_a_stem_that_was_given() -> None:
    config = Config(model=ModelConfig(name="resnet18", stem="imagenet"))

    assert completed(config).model.stem == "imagenet"


def test_completed_keeps_what_was_given_and_changes_nothing_else() -> None:
    config = Config(
        seed=5,
        data=DataConfig(image_size=16, crop_padding=0, horizontal_flip=True, rotation=5.0),
        model=ModelConfig(stem="small"),
    )

    assert completed(config) == config
    assert completed(completed(Config())) == completed(Config())


ENSEMBLE = Config(
    seed=7,
    data=DataConfig(validation_fraction=0.2),
    model=ModelConfig(num_students=5, narrow_blocks=2),
    objective=ObjectiveConfig(temperature=3.0),
    training=TrainingConfig(
        epochs=9,
        pretraining_epochs=2,
        stem_gradient="pseudo_teacher",
        freeze_stem=True,
        engine="parallel",
    ),
)


def test_a_baseline_is_one_student_on_the_labels_with_a_stem_that_learns() -> None:
    alone = check(baseline(ENSEMBLE, 5))

    assert alone.model.trained_students == (5,)
    weights = (
        alone.objective.label_weight,
        alone.objective.feature_weight,
        alone.objective.distillation_weight,
    )
    assert weights == (1.0, 0.0, 0.0)
    assert (alone.training.stem_gradient, alone.training.freeze_stem) == ("all", False)


def test_a_baseline_keeps_everything_else() -> None:
    alone = baseline(ENSEMBLE, 3)

    for section in ("seed", "data", "optimizer", "schedule", "run"):
        assert getattr(alone, section) == getattr(ENSEMBLE, section)
    assert replace(alone.model, students=None) == ENSEMBLE.model
    for name in ("epochs", "pretraining_epochs", "batch_size", "precision"):
        assert getattr(alone.training, name) == getattr(ENSEMBLE.training, name)


@pytest.mark.parametrize("student", [0, 6, -1])
def test_a_baseline_of_a_student_that_is_not_there_is_refused(student: int) -> None:
    with pytest.raises(InputError, match=rf"student {student} is not in this ensemble: choose one of 1, 2"):
        baseline(ENSEMBLE, student)


def test_a_baseline_of_a_student_that_is_not_trained_is_refused() -> None:
    some = replace(ENSEMBLE, model=replace(ENSEMBLE.model, students=(1, 4)))

    with pytest.raises(InputError, match="choose one of 1, 4"):
        baseline(some, 2)
