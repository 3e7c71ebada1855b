"""Config files in the form of the paper's authors, made of nested dicts."""

import copy
import math
from pathlib import Path
from typing import Any

PLAIN: dict[str, Any] = {
    "model": {
        "name": "ResNet20",
        "pretrained": False,
        "No_students": 5,
        "No_blocks": 3,
        "DataParallel": False,
        "Multi_GPU_replica": False,
        "Common_base_freeze": False,
        "Collective_Base_gradient": True,
        "gpu": [0, 1],
    },
    "dataset_cfg": {
        "id_cfg": {"root": "../data", "name": "CIFAR100", "num_classes": 100, "download": False},
        "train_cfg": {"batch_size": 64, "shuffle": True, "num_workers": 4},
        "val_cfg": {"batch_size": 32, "shuffle": False, "num_workers": 4},
    },
    "train_cfg": {
        "optimizer": {"name": "Adam", "lr": 0.001, "weight_decay": 1e-5},
        "criterion": {
            "L1": "CrossEntropyLoss",
            "L2": "KL_Loss",
            "L3": "MSELoss",
            "Adaptation_use": True,
            "contribution_ratios": [0.6, 0.3, 0.1],
        },
        "scheduler": {"name": "MultiStepLR", "milestones": [150, 200], "gamma": 0.1, "last_epoch": -1},
        "teacher_pretraining": False,
        "pretraining_epochs": 10,
        "KL_loss_temperature": 2,
        "test_interval": 10,
        "plot_accuracy_graphs": True,
        "epochs": 350,
        "training_store_root": "../Model_storage",
    },
    "Single_model_mode": None,
    "Train_resume": False,
    "Validate_only": False,
    "Validate_student_no": 0,
    "Load_run_id": "01_21_09_24",
    "Load_Epoch": 171,
}
DELETED = object()


def changed(changes: dict[str, Any], start: dict[str, Any] = PLAIN) -> dict[str, Any]:
    """Return such a config with fields, by dotted names, set or DELETED."""
    config = copy.deepcopy(start)
    for name, value in changes.items():
        *sections, last = name.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        if value is DELETED:
            del place[last]
        else:
            place[last] = value
    return config


def as_python(config: dict[str, Any]) -> str:
    """Return the text of the file, a field a line."""
    return "\n".join(
        ["'''A config file.'''", *(f"{name} = {_text(value)}" for name, value in config.items()), ""]
    )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "dict(\n" + "".join(f"    {name}={_text(item)},\n" for name, item in value.items()) + ")"
    return "1e999" if value == math.inf else repr(value)


def write(folder: Path, changes: dict[str, Any] | None = None, name: str = "c.py") -> Path:
    """Write such a file and return it."""
    file = folder / name
    file.write_text(as_python(changed(changes or {})), encoding="utf-8")
    return file
