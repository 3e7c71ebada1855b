"""Every rule of every section: the one setting that breaks it, and what the message says."""

from dataclasses import replace
from typing import Any

import pytest

from codistill.config import Config, check
from codistill.errors import InputError

NO_VALIDATION = {"data.validation_fraction": 0.0}

# Changes to the default config, the setting that is blamed, and words of the message.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"seed": -1}, "seed", "at least 0, not -1"),
    ({"seed": 2**63}, "seed", "below 2^63"),
    ({"seed": 10**400}, "seed", "below 2^63"),
    ({"data.source": "mnist"}, "data.root", "is needed for mnist"),
    ({"data.source": "folder"}, "data.root", "is needed for folder"),
    ({"data.root": "x"}, "data.root", "no meaning for digits"),
    ({"data.source": "huggingface"}, "data.hub_name", "either a hub_name or a root"),
    (
        {"data.source": "huggingface", "data.root": "x", "data.hub_name": "y"},
        "data.hub_name",
        "either a hub_name or a root",
    ),
    ({"data.download": True}, "data.download", "not for digits"),
    ({"data.hub_name": "x"}, "data.hub_name", "huggingface only"),
    ({"data.image_column": "x"}, "data.image_column", "huggingface only"),
    ({"data.label_column": "x"}, "data.label_column", "huggingface only"),
    ({"data.image_size": 10_001}, "data.image_size", "at least 1 and at most 10000"),
    ({"data.resize": "crop"}, "data.resize", "no meaning for digits, whose images are squares"),
    ({"data.rotation": -1.0}, "data.rotation", "at least 0 and at most 180"),
    ({"data.mean": (0.5,)}, "data.std", "is needed beside data.mean"),
    ({"data.std": (0.5,)}, "data.mean", "is needed beside data.std"),
    (
        {"data.mean": (0.5,), "data.std": (0.5,), "data.normalize": False},
        "data.mean",
        "without data.normalize",
    ),
    (
        {"data.mean": (0.5,) * 3, "data.std": (0.5,) * 3},
        "data.mean",
        "must be 1 numbers, one a channel, not 3",
    ),
    (
        {"data.source": "folder", "data.root": "x", "data.mean": (0.5,) * 2, "data.std": (0.5,) * 2},
        "data.std",
        "must be 1 or 3 numbers, one a channel, not 2",
    ),
    ({"data.mean": (0.5,), "data.std": (0.0,)}, "data.std", "must be numbers from 1e-06 to 1, not [0.0]"),
    ({"data.mean": (float("nan"),), "data.std": (0.5,)}, "data.mean", "must be numbers from 0 to 1"),
    (
        {"data.source": "imagenet", "data.root": "x", "data.download": True},
        "data.download",
        "not for imagenet",
    ),
    ({"data.source": "lmdb"}, "data.root", "is needed for lmdb"),
    ({"data.num_classes": 1}, "data.num_classes", "at least 2"),
    (
        {"data.source": "folder", "data.root": "x", "data.image_size": 0},
        "data.image_size",
        "at least 1",
    ),
    ({"data.validation_fraction": -0.1}, "data.validation_fraction", "at least 0 and at most 0.9"),
    ({"data.validation_fraction": 0.91}, "data.validation_fraction", "at most 0.9, not 0.91"),
    ({"data.split_seed": -1}, "data.split_seed", "at least 0"),
    ({"data.crop_padding": -1}, "data.crop_padding", "at least 0"),
    ({"data.memory_gib": -1.0}, "data.memory_gib", "at least 0"),
    ({"data.workers": -1}, "data.workers", "at least 0"),
    ({"model.num_students": 0}, "model.num_students", "at least 1"),
    ({"model.num_students": 10**12}, "model.num_students", "at most 1000"),
    ({"model.students": ()}, "model.students", "must name some of 1 to 5, not []"),
    ({"model.students": (0,)}, "model.students", "must name some of 1 to 5"),
    ({"model.students": (1, 6)}, "model.students", "must name some of 1 to 5, not [1, 6]"),
    ({"model.students": (2, 1)}, "model.students", "must ascend"),
    ({"model.students": (2, 2)}, "model.students", "must ascend"),
    ({"model.stem": "imagenet"}, "model.stem", "cifar_resnet20 is made for small images"),
    (
        {"model.name": "resnet18", "data.source": "folder", "data.root": "x"},
        "model.stem",
        "must be imagenet or small for resnet18, or data.image_size given: only the files of folder tell",
    ),
    ({"objective.label_weight": -1.0}, "objective.label_weight", "at least 0"),
    ({"objective.feature_weight": -1.0}, "objective.feature_weight", "at least 0"),
    ({"objective.distillation_weight": float("inf")}, "objective.distillation_weight", "not inf"),
    ({"objective.adapter_lr_scale": -1.0}, "objective.adapter_lr_scale", "at least 0"),
    ({"objective.temperature": 0.0}, "objective.temperature", "above 0"),
    ({"objective.temperature": float("nan")}, "objective.temperature", "not nan"),
    (
        {
            "objective.label_weight": 0.0,
            "objective.feature_weight": 0.0,
            "objective.distillation_weight": 0.0,
        },
        "objective.label_weight",
        "nothing would be learned",
    ),
    ({"optimizer.lr": 0.0}, "optimizer.lr", "above 0"),
    ({"optimizer.lr": float("nan")}, "optimizer.lr", "not nan"),
    ({"optimizer.momentum": 1.0}, "optimizer.momentum", "at most 0.9999"),
    ({"optimizer.weight_decay": -1.0}, "optimizer.weight_decay", "at least 0"),
    ({"optimizer.alpha": 1.0}, "optimizer.alpha", "at most 0.9999"),
    ({"optimizer.eps": 0.0}, "optimizer.eps", "above 0"),
    ({"optimizer.momentum": 0.0}, "optimizer.nesterov", "needs a momentum"),
    ({"optimizer.betas": (0.9, 1.0)}, "optimizer.betas", "below 1, not [0.9, 1.0]"),
    ({"optimizer.betas": (float("nan"), 0.5)}, "optimizer.betas", "below 1"),
    ({"schedule.milestones": (0.5, 1.0)}, "schedule.milestones", "below 1"),
    ({"schedule.milestones": (0.0,)}, "schedule.milestones", "above 0"),
    ({"schedule.milestones": (0.75, 0.5)}, "schedule.milestones", "must ascend"),
    ({"schedule.milestones": (0.5, 0.5)}, "schedule.milestones", "must ascend"),
    ({"schedule.factor": 1.5}, "schedule.factor", "above 0 and at most 1"),
    ({"schedule.decay": 0.0}, "schedule.decay", "above 0"),
    ({"schedule.decay_epochs": 0}, "schedule.decay_epochs", "at least 1"),
    ({"schedule.patience": -1}, "schedule.patience", "at least 0"),
    ({"schedule.warmup_epochs": -0.5}, "schedule.warmup_epochs", "at least 0"),
    ({"schedule.warmup_epochs": 30.0}, "schedule.warmup_epochs", "below training.epochs, 30"),
    ({"schedule.name": "plateau"} | NO_VALIDATION, "schedule.name", "data.validation_fraction above 0"),
    ({"training.epochs": -1}, "training.epochs", "at least 1"),
    ({"training.batch_size": 1}, "training.batch_size", "at least 2"),
    ({"training.pretraining_epochs": -1}, "training.pretraining_epochs", "at least 0"),
    ({"training.processes": 0}, "training.processes", "at least 1"),
    (
        {"training.processes": 4, "training.batch_size": 7},
        "training.batch_size",
        "each of 4 processes at least 2",
    ),
    ({"training.threads": 0}, "training.threads", "at least 1"),
    ({"training.threads": 100_000}, "training.threads", "at most 1024"),
    ({"training.checkpoint_minutes": float("inf")}, "training.checkpoint_minutes", "not inf"),
    ({"training.keep_checkpoints": 0}, "training.keep_checkpoints", "at least 1"),
    (
        {"training.stem_gradient": "pseudo_teacher", "model.students": (2, 3)},
        "training.stem_gradient",
        "needs S1",
    ),
]


def changed(changes: dict[str, Any]) -> Config:
    config = Config()
    for name, value in changes.items():
        section, dot, field = name.partition(".")
        if not dot:
            config = replace(config, **{name: value})
        else:
            config = replace(config, **{section: replace(getattr(config, section), **{field: value})})
    return config


@pytest.mark.parametrize(("changes", "name", "words"), WRONG)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    changes: dict[str, Any], name: str, words: str
) -> None:
    problems = list(changed(changes).problems())

    assert [message for blamed, message in problems if blamed == name and words in message], problems


@pytest.mark.parametrize("changes", [changes for changes, _, _ in WRONG])
def test_the_same_check_stops_a_config_made_in_python(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        check(changed(changes))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 2**63 - 1},
        {"data.source": "mnist", "data.root": "x", "data.download": True},
        {"data.source": "huggingface", "data.hub_name": "x", "data.image_column": "image"},
        {"data.source": "huggingface", "data.root": "x", "data.image_size": 32},
        {"data.source": "folder", "data.root": "x", "data.image_size": 1},
        {"data.image_size": 16, "data.rotation": 180.0},
        {"data.source": "folder", "data.root": "x", "data.resize": "stretch"},
        {"data.source": "caltech256", "data.root": "x", "data.download": True},
        {"data.mean": (0.0,), "data.std": (1.0,)},
        {"data.mean": (0.5,) * 3, "data.std": (0.5,) * 3, "data.grey_to_rgb": True},
        {"model.name": "resnet18", "data.source": "imagenet", "data.root": "x"},
        NO_VALIDATION | {"data.validation_fraction": 0.9, "schedule.name": "plateau"},
        {"model.num_students": 1},
        {"model.students": (2, 5), "objective.feature_weight": 0.0},
        {"model.stem": "small"},
        {"model.name": "resnet18"},
        {"model.name": "resnet18", "model.stem": "imagenet", "data.source": "folder", "data.root": "x"},
        {"objective.label_weight": 0.0},
        {"optimizer.momentum": 0.0, "optimizer.nesterov": False},
        {"optimizer.name": "adam", "optimizer.momentum": 0.0},
        {"optimizer.betas": (0.0, 0.0)},
        {"schedule.milestones": ()},
        {"schedule.warmup_epochs": 29.9},
        {"training.batch_size": 8, "training.processes": 4},
        {"training.stem_gradient": "pseudo_teacher", "model.students": (1, 3)},
    ],
)
def test_what_is_just_allowed_has_no_problem(changes: dict[str, Any]) -> None:
    config = changed(changes)

    assert check(config) is config


def test_all_problems_are_reported_at_once() -> None:
    wrong = {"seed": -1, "optimizer.lr": 0.0, "training.keep_checkpoints": 0, "run.name": "../x"}

    with pytest.raises(InputError) as caught:
        check(changed(wrong))

    parts = str(caught.value).split("; ")
    assert [part.split()[0] for part in parts] == [
        "seed",
        "optimizer.lr",
        "training.keep_checkpoints",
        "run.name",
    ]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/tmp/x", "a\\b", ".hidden", "-x", "a b", "a\n", "a\0b", "é", "a" * 152],
)
def test_a_run_name_never_leaves_its_folder(name: str) -> None:
    assert [blamed for blamed, _ in changed({"run.name": name}).problems()] == ["run.name"]


@pytest.mark.parametrize("name", ["a", "9", "digits-0.5", "x=1,y=2", "a..b", "A" * 151])
def test_ordinary_run_names_pass(name: str) -> None:
    assert list(changed({"run.name": name}).problems()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"schedule.name": "cos"}, "schedule.name must be one of constant, multistep, exponential, cosine"),
        (
            {"optimizer.name": "sdg"},
            "optimizer.name must be one of sgd, adam, adamw, rmsprop, or a class of torch, not 'sdg'",
        ),
        (
            {"optimizer.arguments": {"momentum": 0.9}},
            "optimizer.arguments has no meaning for sgd, which has settings of its own",
        ),
        (
            {"optimizer.name": "SGD", "optimizer.momentum": 0.5},
            "optimizer.momentum has no meaning for torch's SGD: give it among the arguments",
        ),
        (
            {"optimizer.name": "SGD", "optimizer.arguments": {"betas": [[0.9]]}},
            "optimizer.arguments must be settings with plain values, such as {name: 0.1}",
        ),
        (
            {"schedule.name": "StepLR", "schedule.warmup_epochs": 1.0},
            "schedule.warmup_epochs has no meaning for torch's StepLR: give it among the arguments",
        ),
        ({"objective.label_loss": "torch.nn.CrossEntropyLoss"}, "objective.label_loss must be the name of a"),
        ({"run.name": "%q"}, "run.name must be up to 151 letters"),
        ({"training.test_interval": 0}, "training.test_interval must be at least 1, not 0"),
        ({"data.evaluation_batch_size": 0}, "data.evaluation_batch_size must be at least 1, not 0"),
        ({"objective.feature_match": "mean"}, "objective.feature_match must be one of adapter, channel_mean"),
        ({"optimizer.lr": "0.1"}, "optimizer.lr must be a number, not '0.1'"),
        ({"optimizer.betas": (0.9,)}, "optimizer.betas must be a list of 2 values, each a number"),
        ({"schedule.milestones": [0.5]}, "schedule.milestones must be a list, each a number, not [0.5]"),
        ({"data.root": 3}, "data.root must be text or null, not 3"),
        ({"training.freeze_stem": 1}, "training.freeze_stem must be true or false, not 1"),
        ({"model.narrow_blocks": 4}, "model.narrow_blocks must be one of 1, 2, 3, not 4"),
    ],
)
def test_types_are_checked_in_python_too(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        check(changed(changes))
    assert str(error.value).startswith(message)
