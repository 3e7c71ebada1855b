"""Initial weights from a trained wide network: S1 whole, the others its slices."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from codistill.config import ModelConfig
from codistill.data.preprocessing import Preprocessing
from codistill.errors import InputError
from codistill.models import networks
from codistill.models.ensemble import Ensemble
from codistill.models.ladder import describe_students
from codistill.models.pretrained import start_from_pretrained
from codistill.models.student_file import DeliveredModel, save_model
from models.test_narrow import Plain


def started(in_channels: int = 3, num_classes: int = 10, seed: int = 0, **model: Any) -> tuple[Ensemble, str]:
    config = ModelConfig(**{"num_students": 2, "init": "pretrained", **model})
    facts: Any = {"in_channels": in_channels, "num_classes": num_classes, "image_size": (32, 32)}
    students = describe_students(config, **facts)
    ensemble = Ensemble(students, seed=seed)
    return ensemble, start_from_pretrained(ensemble, config, students["S1"], seed=seed)


def test_a_torchvision_file_goes_to_s1_whole_and_to_s2_in_slices(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = torchvision.models.resnet18(num_classes=10)
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")

    ensemble, origin = started(
        name="resnet18", stem="imagenet", weights=str(tmp_path / "wide.safetensors"), seed=3
    )

    assert origin == str(tmp_path / "wide.safetensors")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs = ensemble.eval()(images)
        torch.testing.assert_close(outputs["S1"].logits, wide.eval()(images))
    s2 = ensemble.students["S2"].state_dict()
    assert s2["layer3.0.conv1.weight"].equal(wide.layer3[0].conv1.weight[:128, :64])
    assert s2["fc.weight"].equal(wide.fc.weight[:, :256])


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_a_pth_file_of_other_classes_leaves_the_classifier_fresh(tmp_path: Path, wrap: str | None) -> None:
    wide = torchvision.models.resnet18(num_classes=7)
    state = {f"module.{name}": tensor for name, tensor in wide.state_dict().items()}
    torch.save({wrap: state} if wrap else state, tmp_path / "wide.pth")
    config = {"name": "resnet18", "stem": "imagenet"}
    scratch = Ensemble(
        describe_students(
            ModelConfig(num_students=2, **config),  # type: ignore[arg-type]
            in_channels=3,
            num_classes=10,
        )
    )

    ensemble, origin = started(**config, weights=str(tmp_path / "wide.pth"))

    assert origin.endswith("wide.pth, fc.bias, fc.weight drawn anew")
    for name in ("S1", "S2"):
        drawn, own = scratch.students[name].state_dict(), ensemble.students[name].state_dict()
        assert own["fc.weight"].equal(drawn["fc.weight"])
        assert not own["layer2.0.conv1.weight"].equal(drawn["layer2.0.conv1.weight"])


def test_a_student_of_an_earlier_run_starts_another(tmp_path: Path) -> None:
    trained = Ensemble(describe_students(ModelConfig(num_students=1), in_channels=3, num_classes=10), seed=5)
    preprocessing = Preprocessing(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = DeliveredModel(
        trained, name="S1", classes=tuple(map(str, range(10))), preprocessing=preprocessing
    )
    save_model(model, tmp_path / "S1")

    ensemble, _ = started(weights=str(tmp_path / "S1.safetensors"), students=None)

    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = trained.eval()(images)["S1"].logits
        assert ensemble.eval()(images)["S1"].logits.equal(expected)


def test_grey_images_take_the_sum_over_colours(tmp_path: Path) -> None:
    wide = torchvision.models.resnet18(num_classes=10)
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")

    ensemble, _ = started(
        in_channels=1, name="resnet18", stem="imagenet", weights=str(tmp_path / "wide.safetensors")
    )

    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            ensemble.eval()(grey)["S1"].logits, wide.eval()(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
        )


def test_a_users_own_network_brings_its_weights() -> None:
    network = Plain(10)
    name = networks.admit(network)

    ensemble, origin = started(name=name, stem="own")

    assert origin == name
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ensemble.eval()(images)["S1"].logits, network.eval()(images))
    kept = ensemble.students["S2"].state_dict()["network.layers.1.0.weight"]
    assert kept.equal(network.layers[1][0].weight[: kept.shape[0], : kept.shape[1]])


def test_a_librarys_own_weights_are_found_where_it_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision reads the file that it would have downloaded, by name, from its cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    wide = torchvision.models.resnet18()
    torch.save(wide.state_dict(), file)

    ensemble, origin = started(name="resnet18", stem="imagenet")

    assert origin == "torchvision:resnet18, fc.bias, fc.weight drawn anew"
    assert ensemble.stem.state_dict()["conv1.weight"].equal(wide.conv1.weight)


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("executed",))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("wide.pth", pickle.dumps({"fc.weight": Bomb()}), "is no file of weights alone"),
        ("wide.pth", b"text", "is no file of weights alone"),
        ("wide.safetensors", b"text", "cannot be read"),
        ("wide.pth", None, "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        started(weights=str(tmp_path / name))


def test_a_pickle_in_torchs_own_format_is_not_executed(tmp_path: Path) -> None:
    torch.save({"fc.weight": Bomb()}, tmp_path / "wide.pth")
    with pytest.raises(InputError, match="is no file of weights alone"):
        started(weights=str(tmp_path / "wide.pth"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"name": "resnet18", "stem": "small"},
            r"conv1.weight is .*stem imagenet may be meant",
        ),
        ({"name": "resnet34", "stem": "imagenet"}, "are not those of resnet34: .* tensors do not fit"),
        ({}, "are not those of cifar_resnet20"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, model: dict[str, Any], words: str) -> None:
    save_file(torchvision.models.resnet18(num_classes=10).state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(InputError, match=words):
        started(**model, weights=str(tmp_path / "wide.safetensors"))


@pytest.mark.slow
def test_timms_own_weights_are_found_where_it_keeps_them(tmp_path: Path) -> None:
    """timm reads the file that it would have downloaded from the hub, from the hub's cache."""
    import timm

    config = timm.get_pretrained_cfg("lcnet_050")
    assert config is not None
    folder = tmp_path / "hub" / f"models--{config.hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    wide = timm.create_model("lcnet_050")
    save_file(wide.state_dict(), snapshot / "model.safetensors")
    script = (
        "from models.test_pretrained import started\n"
        "ensemble, origin = started(name='timm:lcnet_050', stem='own')\n"
        "print(origin)\n"
        "print(float(ensemble.stem.state_dict()['0.weight'].double().sum()))\n"
    )
    places = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "data")]

    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {places!r}\n{script}"],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    origin, total = run.stdout.splitlines()
    assert origin == "timm:lcnet_050, classifier.bias, classifier.weight drawn anew"
    assert float(total) == wide.conv_stem.weight.double().sum().item()
