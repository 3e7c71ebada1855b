"""From the authors' fields to codistill's settings, and what a user is told on the way."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from files import DELETED, changed, write

from codistill.config import Config
from codistill.config.boc_kd.fields import FIELDS, NEEDED, Field
from codistill.config.boc_kd.literals import Entry, read_literals
from codistill.config.boc_kd.names import MODELS, SOURCES
from codistill.config.boc_kd.translate import Original, read_original
from codistill.config.parsing import config_from_mapping, load_config, make_parser, parse_config
from codistill.config.yaml_file import dump_yaml, nested
from codistill.errors import InputError, Notice

TEMPLATE = Path(__file__).parents[3] / "configs" / "config_template.py"
PARSER = make_parser("train", "")


def read(folder: Path, changes: dict[str, Any] | None = None) -> tuple[Original, Config, list[str]]:
    """Return what a file with these changes asks for, its config, and the notices without the file's name."""
    file = write(folder, changes)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        original = read_original(file)
    assert all(issubclass(warning.category, Notice) for warning in told)
    config = parse_config([str(file)], PARSER, original.settings)
    return original, config, [str(warning.message).replace(f"{file}", "c.py") for warning in told]


def config_of(folder: Path, changes: dict[str, Any] | None = None) -> Config:
    return read(folder, changes)[1]


def refusal(folder: Path, changes: dict[str, Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        with pytest.raises(InputError) as caught:
            config_of(folder, changes)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(folder / "c.py"), "c.py")


def test_every_field_of_a_plain_file_arrives(tmp_path: Path) -> None:
    original, config, notices = read(tmp_path)

    assert (original.action, original.student, original.run, original.epoch) == ("train", None, None, None)
    assert (config.model.name, config.model.num_students, config.model.narrow_blocks) == (
        "cifar_resnet20",
        5,
        3,
    )
    assert (config.model.init, config.training.freeze_stem, config.training.stem_gradient) == (
        "scratch",
        False,
        "all",
    )
    data = config.data
    assert (data.source, data.root, data.num_classes, data.download) == ("cifar100", "../data", 100, False)
    assert (data.normalize, data.shuffle, data.workers, data.evaluation_batch_size) == (False, True, 4, 32)
    assert data.validation_fraction == 0  # None are held out unless asked.
    assert (config.optimizer.name, config.optimizer.lr) == ("Adam", 0.001)
    assert config.optimizer.arguments == {"weight_decay": 1e-5}
    assert config.schedule.name == "MultiStepLR"
    assert config.schedule.arguments == {"milestones": [150, 200], "gamma": 0.1, "last_epoch": -1}
    objective = config.objective
    assert (objective.label_loss, objective.feature_loss, objective.feature_match) == (
        "CrossEntropyLoss",
        "MSELoss",
        "adapter",
    )
    assert (objective.label_weight, objective.feature_weight, objective.distillation_weight) == (
        0.6,
        0.3,
        0.1,
    )
    training = config.training
    assert (objective.temperature, training.batch_size, training.epochs) == (2, 64, 350)
    assert (training.pretraining_epochs, training.test_interval) == (0, 10)
    assert (config.run.folder, config.run.name, config.run.curves) == (
        "../Model_storage",
        "%m_%d_%H_%M",
        "pictures",
    )
    assert len(notices) == 1  # What the authors' code inverts.
    assert notices[0].startswith(
        "c.py line 10: model.Collective_Base_gradient: every student's gradient reaches"
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_known(name: str, tmp_path: Path) -> None:
    assert config_of(tmp_path, {"model.name": name}).model.name == MODELS[name]


def test_the_names_are_those_of_the_issue() -> None:
    small = [f"ResNet{depth}" for depth in (20, 32, 44, 56, 110, 1202)]
    large = [f"Resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    dense = [
        "Densenet_12_100",
        "Densenet_24_250",
        "Densenet_40_190",
        "Densenet121",
        "Densenet169",
        "Densenet201",
    ]
    wide = ["Resnext50_32x4d", "Resnext101_32x8d", "Wide_Resnet50_2", "Wide_Resnet101_2"]
    efficient = [f"Efficientnet_B{number}" for number in range(8)]
    assert set(MODELS) == {*small, *large, *dense, *wide, *efficient}
    assert len(set(MODELS.values())) == len(MODELS)
    sets = (
        "MNIST",
        "Fashion-MNIST",
        "CIFAR10",
        "CIFAR100",
        "SVHN",
        "STL10",
        "Caltech",
        "CUB2011",
        "Imagenet",
    )
    assert tuple(SOURCES) == sets


@pytest.mark.parametrize("name", SOURCES)
def test_every_data_set_is_known(name: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, {"dataset_cfg.id_cfg.name": name, "dataset_cfg.id_cfg.num_classes": None})
    assert config.data.source == SOURCES[name]


def test_transforms_are_the_authors(tmp_path: Path) -> None:
    def data(name: str, model: str = "ResNet20") -> Any:
        return config_of(tmp_path, {"dataset_cfg.id_cfg.name": name, "model.name": model}).data

    assert data("CIFAR10").mean == (0.4914, 0.4822, 0.4465)
    assert (data("CIFAR10").image_size, data("CIFAR10", "Efficientnet_B0").image_size) == (None, 224)
    assert data("CIFAR10", "Efficientnet_B0").crop_padding == 30
    assert (data("CUB2011").normalize, data("Imagenet").normalize) == (False, True)
    assert data("MNIST").grey_to_rgb


def test_the_template_is_a_file_that_holds_every_field_and_every_default() -> None:
    def check(section: dict[str, Any], entries: dict[str, Entry]) -> None:
        assert set(entries) - {"lr", "momentum", "weight_decay", "milestones", "gamma"} == set(section) - {
            "Loss_contribution"
        }
        for name, spec in section.items():
            if name == "Loss_contribution":
                continue
            value = entries[name].value
            if isinstance(spec, Field):
                assert spec.default is NEEDED or spec.default == (
                    tuple(value) if isinstance(value, list) else value
                )
            else:
                check(spec, value)

    check(FIELDS, read_literals(TEMPLATE))
    with pytest.warns(Notice, match="Collective_Base_gradient"):
        assert load_config(TEMPLATE).model.name == "cifar_resnet20"
    text = TEMPLATE.read_text()
    assert all(name in text for name in SOURCES)
    assert all(name in text for name in ("LambdaLR",)) is False  # It is refused.


def test_arrays_are_written_without_plots_too(tmp_path: Path) -> None:
    assert config_of(tmp_path, {"train_cfg.plot_accuracy_graphs": False}).run.curves == "arrays"


def test_an_older_file_takes_the_templates_values_and_says_so(tmp_path: Path) -> None:
    lacking = (
        "model.Collective_Base_gradient",
        "train_cfg.criterion.Adaptation_use",
        "train_cfg.criterion.contribution_ratios",
        "train_cfg.teacher_pretraining",
        "Single_model_mode",
        "Validate_student_no",
    )
    _, config, notices = read(tmp_path, dict.fromkeys(lacking, DELETED))

    assert (config.training.stem_gradient, config.objective.feature_match) == ("pseudo_teacher", "adapter")
    assert config.objective.label_weight == 0.7
    assert all(name in notices[-1] for name in lacking)
    assert notices[-1].startswith("c.py: takes from the template what it lacks: ")


def test_the_older_contributions_are_the_weights(tmp_path: Path) -> None:
    older = {
        f"train_cfg.Loss_contribution.{name}": 0.1 * n for n, name in enumerate(("alpha", "beta", "gamma"), 1)
    }
    ratios = "train_cfg.criterion.contribution_ratios"

    _, config, notices = read(tmp_path, {**older, ratios: DELETED})

    assert config.objective.label_weight == 0.1
    assert config.objective.distillation_weight == pytest.approx(0.3)
    assert not any(ratios in notice for notice in notices)
    assert f"{ratios} stands beside train_cfg.Loss_contribution: give one of them" in refusal(tmp_path, older)


def test_students_are_counted_from_0(tmp_path: Path) -> None:
    original, _, _ = read(tmp_path, {"Single_model_mode": 4, "Validate_student_no": 4})
    assert (original.student, original.tested) == (5, 5)
    for field in ("Single_model_mode", "Validate_student_no"):
        for number in (-1, 5):
            message = f"{field} must be None or 0 … 4, which are S1 … S5, not {number}"
            assert message in refusal(tmp_path, {field: number})


def test_a_run_to_resume_lies_below_the_store(tmp_path: Path) -> None:
    original, _, notices = read(tmp_path, {"Train_resume": True})

    assert (original.action, original.run, original.epoch) == (
        "resume",
        Path("../Model_storage/01_21_09_24"),
        171,
    )
    assert any(
        "350 is the total, so 179 follow; the authors' code trained 350 more" in text for text in notices
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"Train_resume": True, "Validate_only": True},
            "Validate_only must be False where Train_resume is True",
        ),
        ({"Train_resume": True, "Load_run_id": None}, "Load_run_id must be the name of a run's folder"),
        (
            {"Train_resume": True, "Load_run_id": "../x"},
            "Load_run_id must be the name of a folder in training_sto",
        ),
        ({"Train_resume": True, "Load_Epoch": None}, "Load_Epoch must be an epoch: Train_resume asks for it"),
        ({"Train_resume": True, "Load_Epoch": 0}, "Load_Epoch must be at least 1, not 0"),
        (
            {"Train_resume": True, "Load_Epoch": 350},
            "Load_Epoch must be below epochs, 350, which is the total",
        ),
        ({"Train_resume": 1}, "Train_resume must be True or False, not 1"),
        ({"model.name": "Resnet20"}, "not 'Resnet20'; did you mean ResNet20?"),
        ({"model.name": "resnet18"}, "not 'resnet18'; did you mean Resnet18?"),
        (
            {"model.no_students": 3},
            "c.py line 12: model.no_students is no field; did you mean model.No_students?",
        ),
        ({"model.epochs": 3}, "model.epochs is no field; did you mean train_cfg.epochs?"),
        ({"epochs": 3}, "epochs is no field; did you mean train_cfg.epochs?"),
        ({"model.No_students": "5"}, "c.py line 5: model.No_students must be a whole number, not '5'"),
        ({"model.No_students": True}, "model.No_students must be a whole number, not True"),
        ({"model.No_students": 10**30}, "model.num_students must be below 2^63"),
        ({"model.No_blocks": 4}, "c.py line 6: model.narrow_blocks must be one of 1, 2, 3, not 4"),
        ({"model.pretrained": "imagenet"}, "model.pretrained must be True or False, not 'imagenet'"),
        (
            {"model.pretrained": True},
            "model.weights is needed: no library has pretrained weights of cifar_resnet20",
        ),
        ({"model": 3}, "model must be dict(...), not 3"),
        ({"model.name": DELETED}, "c.py line 2: model.name is missing"),
        ({"train_cfg.optimizer": DELETED}, "train_cfg.optimizer.name is missing"),
        ({"train_cfg.optimizer.lr": DELETED}, "train_cfg.optimizer.name needs lr beside it"),
        (
            {"train_cfg.optimizer.betas": {"a": 1}},
            "train_cfg.optimizer.betas must be a plain value, not dict(...)",
        ),
        ({"train_cfg.criterion.L2": "MSELoss"}, "train_cfg.criterion.L2 must be 'KL_Loss', not 'MSELoss'"),
        ({"train_cfg.criterion.contribution_ratios": [1, 2]}, "must be a list of 3 values, each a number"),
        ({"train_cfg.scheduler.name": "LambdaLR"}, "must not be LambdaLR, which needs a function"),
        ({"train_cfg.epochs": 0}, "training.epochs must be at least 1, not 0"),
        ({"train_cfg.KL_loss_temperature": 1e999}, "objective.temperature must be above 0, not inf"),
        ({"train_cfg.training_store_root": ""}, "train_cfg.training_store_root must be a folder, not ''"),
        ({"dataset_cfg.id_cfg.name": "Cifar10"}, "not 'Cifar10'; did you mean CIFAR10?"),
        (
            {"dataset_cfg.id_cfg.name": "CUB2011", "dataset_cfg.id_cfg.download": True},
            "data.download is possible f",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    text = refusal(tmp_path, changes)
    assert text.startswith("c.py")
    assert message in text


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, {"model.pretrained": "yes", "train_cfg.epoch": 3, "Load_Epoch": "x"})
    assert text.count("c.py line") == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"train_cfg.scheduler": {"name": "StepLR", "step_size": 3}},
            "steps each epoch; the authors' code never",
        ),
        (
            {"train_cfg.scheduler": {"name": "CyclicLR", "base_lr": 0.1, "max_lr": 1}},
            "steps each step; the authors",
        ),
        (
            {"train_cfg.scheduler": {"name": "CylicLR", "base_lr": 0.1, "max_lr": 1}},
            "CylicLR is torch's CyclicLR",
        ),
        ({"train_cfg.scheduler.verbose": True}, "torch has dropped this argument"),
        (
            {"train_cfg.scheduler": DELETED},
            "train_cfg.scheduler: is missing: the learning rate stays as it is",
        ),
        ({"train_cfg.scheduler": {"name": "ReduceLROnPlateau"}}, "10% of the training images are held out"),
        ({"train_cfg.teacher_pretraining": True}, "takes place at the initial rate and does not advance"),
        ({"model.Multi_GPU_replica": True}, "has no effect, as in the authors' code"),
        ({"model.DataParallel": True}, "one process a GPU shares each batch, through Lightning Fabric"),
        ({"model.gpu": [2]}, "set CUDA_VISIBLE_DEVICES to choose others"),
        ({"model.name": "Resnet18", "model.pretrained": True}, "theirs were the stem's"),
        ({"model.name": "Densenet121", "model.No_blocks": 2}, "narrows the last blocks of this network too"),
        ({"dataset_cfg.id_cfg.name": "SVHN"}, "the authors' code stops for lack of transforms for SVHN"),
        ({"dataset_cfg.val_cfg.shuffle": True}, "test images keep their order"),
        ({"dataset_cfg.val_cfg.num_workers": 8}, "8 processes read both splits"),
        ({"model.Collective_Base_gradient": False}, "S1's gradient alone reaches the stem, as documented"),
    ],
)
def test_what_is_done_otherwise_is_told(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    before = set(read(tmp_path)[2])
    after = read(tmp_path, changes)[2]
    assert sum(told in notice and notice not in before for notice in after) == 1


def test_schedulers_keep_their_arguments(tmp_path: Path) -> None:
    given = {"name": "CylicLR", "base_lr": 0.1, "max_lr": 1, "verbose": True}
    config = config_of(tmp_path, {"train_cfg.scheduler": given})
    assert (config.schedule.name, config.schedule.arguments) == ("CyclicLR", {"base_lr": 0.1, "max_lr": 1})

    config = config_of(tmp_path, {"train_cfg.scheduler": {"name": "ReduceLROnPlateau", "patience": 2}})
    assert config.schedule.arguments == {"patience": 2, "mode": "max"}
    assert config.data.validation_fraction == 0.1


def test_losses_may_have_arguments(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, {"train_cfg.criterion.L1": {"name": "CrossEntropyLoss", "label_smoothing": 0.1}}
    )
    assert config.objective.label_loss == "CrossEntropyLoss"
    assert config.objective.label_loss_arguments == {"label_smoothing": 0.1}


def test_relative_roots_start_where_they_are_said_to(tmp_path: Path) -> None:
    with pytest.warns(Notice):
        original = read_original(write(tmp_path), tmp_path / "tools")
    values = {setting.name: setting.value for setting in original.settings}
    assert values["data.root"] == str(tmp_path / "data")
    assert values["run.folder"] == str(tmp_path / "Model_storage")


def test_settings_on_the_command_line_win(tmp_path: Path) -> None:
    file = write(tmp_path)
    with pytest.warns(Notice):
        config = parse_config(
            [str(file), "--data.validation_fraction=0.2", "--optimizer.arguments.eps=1e-7"], PARSER
        )
    assert config.data.validation_fraction == 0.2
    assert config.optimizer.arguments == {"weight_decay": 1e-5, "eps": 1e-7}


def test_the_yaml_says_the_same(tmp_path: Path) -> None:
    original, config, _ = read(tmp_path, {"train_cfg.training_store_root": "1e5"})
    mapping = nested((setting.name, setting.value) for setting in original.settings)
    assert config_from_mapping(mapping, "") == config
    assert config_from_mapping(json.loads(json.dumps(mapping)), "") == config
    (tmp_path / "c.yaml").write_text(dump_yaml(mapping))
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    "changes", [{"Single_model_mode": 1}, {"Train_resume": True}, {"Validate_only": True}]
)
def test_other_commands_take_files_that_train_an_ensemble(changes: dict[str, Any], tmp_path: Path) -> None:
    file = write(tmp_path, changes)
    with (
        pytest.warns(Notice),
        pytest.raises(InputError, match=f"{next(iter(changes))} is for 'codistill train"),
    ):
        load_config(file)


def test_files_made_of_changes_are_the_files_meant() -> None:
    assert changed({"model.name": "x", "train_cfg.epochs": DELETED})["model"]["name"] == "x"
    assert "epochs" not in changed({"train_cfg.epochs": DELETED})["train_cfg"]
