"""Delivered models in files: what is written comes back bit for bit, and nothing else is taken."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codistill.data.preprocessing import Preprocessing
from codistill.errors import InputError
from codistill.models.ensemble import mean_logits
from codistill.models.student_file import DeliveredModel, load_model, save_model
from tiny import tiny_batch, tiny_ensemble, with_statistics

GREY_8 = Preprocessing(height=8, width=8, channels=1, mean=(0.25,), std=(0.5,))
CLASSES = ("cat", "dog", "fish", "Ω")


def model_of(*names: str) -> DeliveredModel:
    ensemble = with_statistics(tiny_ensemble().to(memory_format=torch.channels_last)).selected(names)
    name = names[0] if len(names) == 1 else "teacher"
    return DeliveredModel(ensemble, name=name, classes=CLASSES, preprocessing=GREY_8).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(model_of("S2"), tmp_path / "S2")
    return tmp_path / "S2"


@pytest.mark.parametrize("names", [("S3",), ("S1", "S2", "S3")])
def test_a_model_comes_back_bit_for_bit(names: tuple[str, ...], tmp_path: Path) -> None:
    model = model_of(*names)
    images, _ = tiny_batch()

    save_model(model, tmp_path / model.name)
    loaded = load_model(tmp_path / model.name)

    assert (loaded.name, loaded.classes, loaded.preprocessing) == (model.name, CLASSES, GREY_8)
    assert loaded.ensemble.descriptions == model.ensemble.descriptions
    assert not any(module.training for module in loaded.modules())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    # Channels last is not kept in the file: rounding may differ.
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images))


def test_a_loaded_student_gives_what_it_gives_in_the_ensemble(tmp_path: Path) -> None:
    ensemble = with_statistics(tiny_ensemble()).eval()
    images, _ = tiny_batch()
    for names in (["S1"], ["S3"], ["S1", "S2", "S3"]):
        model = DeliveredModel(ensemble.selected(names), name="x", classes=CLASSES, preprocessing=GREY_8)
        save_model(model, tmp_path / "x")
        with torch.no_grad():
            outputs = ensemble(images)
            expected = mean_logits({name: outputs[name] for name in names})
            assert torch.equal(load_model(tmp_path / "x")(images), expected)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        save_model(model_of("S1", "S2", "S3"), tmp_path / folder / "teacher")

    for suffix in (".safetensors", ".json"):
        contents = [(tmp_path / folder / f"teacher{suffix}").read_bytes() for folder in ("one", "other")]
        assert contents[0] == contents[1]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "teacher.json",
        "teacher.safetensors",
    ]


def test_a_delivered_model_has_no_hooks_and_no_adapters(saved: Path) -> None:
    model = load_model(saved)

    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert not any("adapter" in name for name in load_file(saved.with_suffix(".safetensors")))


def test_predict_gives_probabilities_for_bytes(saved: Path) -> None:
    images_BHWC = torch.randint(0, 256, (5, 8, 8, 1), dtype=torch.uint8)
    model = load_model(saved)

    probabilities = model.predict(images_BHWC)

    normalised = (images_BHWC.double() / 255 - 0.25) / 0.5
    expected = model.double()(normalised.permute(0, 3, 1, 2)).softmax(dim=1)
    torch.testing.assert_close(probabilities.double(), expected, atol=1e-5, rtol=1e-5)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


class TestDescriptions:
    """Whatever the JSON says, it is one line; the weights beside it are good."""

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"3",
            b'"x"',
            bytes(range(256)),
            b'{"format": "codistill-model-2"}',
            b"[" * 100_000,
            b'{"a": ' * 100_000,
        ],
        ids=range(10),
    )
    def test_that_are_none(self, content: bytes, saved: Path) -> None:
        saved.with_suffix(".json").write_bytes(content)

        assert "is no description of a model" in refused(saved)

    def test_that_are_missing(self, saved: Path) -> None:
        saved.with_suffix(".json").unlink()

        assert "No such file" in refused(saved)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda data: data.pop("name"), "name must be text"),
            (lambda data: data.update(name=3), "name must be text"),
            (lambda data: data.pop("students"), "students must name at least one student"),
            (lambda data: data.update(students={}), "students must name at least one student"),
            (lambda data: data.update(students=[1]), "students must name at least one student"),
            (lambda data: data["students"].update(S2=3), "S2 must be a mapping"),
            (lambda data: data.update(students={"keys": data["students"]["S2"]}), "not 'keys'"),
            (lambda data: data.update(students={"a.b": data["students"]["S2"]}), "not 'a.b'"),
            (lambda data: data.update(students={"": data["students"]["S2"]}), "not ''"),
            (lambda data: data["students"]["S2"].update(architecture="vgg"), "'vgg' is unknown"),
            (lambda data: data["students"]["S2"].update(num_classes=5), "num_classes of S2 must be 4, not 5"),
            (lambda data: data["students"]["S2"].update(in_channels=3), "in_channels of S2 must be 1, not 3"),
            (lambda data: data.update(classes=[]), "classes must be a list of names"),
            (lambda data: data.update(classes=[1, 2, 3, 4]), "classes must be a list of names"),
            (lambda data: data.update(classes="abcd"), "classes must be a list of names"),
            (lambda data: data["classes"].pop(), "num_classes of S2 must be 3, not 4"),
            (lambda data: data.pop("preprocessing"), "preprocessing must be a mapping"),
            (lambda data: data["preprocessing"].update(std=[0.0]), "std must be 1 numbers"),
            (lambda data: data["preprocessing"].update(mean=[float("nan")]), "mean must be 1 numbers"),
            (lambda data: data["preprocessing"].update(std=[float("inf")]), "std must be 1 numbers"),
            (lambda data: data["preprocessing"].update(mean=[10**400]), "mean must be 1 numbers"),
            (lambda data: data["preprocessing"].update(mean=[0.1, 0.2]), "mean must be 1 numbers"),
            (lambda data: data["preprocessing"].update(height=-1), "height must be a whole number"),
        ],
    )
    def test_with_a_wrong_part(
        self, change: Callable[[dict[str, Any]], object], words: str, saved: Path
    ) -> None:
        file = saved.with_suffix(".json")
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))

        assert words in refused(saved)

    def test_of_a_model_larger_than_any_memory(self, saved: Path) -> None:
        """Building it would take 100,000² · 9 numbers of 4 bytes for one of its layers, 360 GB."""
        file = saved.with_suffix(".json")
        data = json.loads(file.read_text())
        data["students"]["S2"] |= {"architecture": "cifar_resnet1202", "widths": [100_000] * 3}
        file.write_text(json.dumps(data))

        assert "holds no weights of S2 as" in refused(saved)


class TestWeights:
    def test_that_are_missing(self, saved: Path) -> None:
        saved.with_suffix(".safetensors").unlink()

        assert "holds no weights: No such file" in refused(saved)

    def test_that_are_a_folder(self, saved: Path) -> None:
        saved.with_suffix(".safetensors").unlink()
        saved.with_suffix(".safetensors").mkdir()

        assert "holds no weights" in refused(saved)

    def test_that_are_torn_anywhere(self, saved: Path) -> None:
        file = saved.with_suffix(".safetensors")
        content = file.read_bytes()
        for length in (0, 1, 7, 8, 9, 200, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:length])
            assert "holds no weights" in refused(saved)
        file.write_bytes(content + b"x")
        assert "holds no weights" in refused(saved)

    def test_that_claim_an_enormous_header(self, saved: Path) -> None:
        saved.with_suffix(".safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")

        assert "holds no weights" in refused(saved)

    def test_that_are_a_pickle_do_not_run(self, saved: Path, tmp_path: Path) -> None:
        class Malicious:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return (eval, (f"open({str(tmp_path / 'executed')!r}, 'w')",))

        saved.with_suffix(".safetensors").write_bytes(pickle.dumps(Malicious()))
        refused(saved)
        torch.save({"x": Malicious()}, saved.with_suffix(".safetensors"))
        refused(saved)

        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors: tensors.pop("stem.0.weight"),
            lambda tensors: tensors.update(more=torch.zeros(1)),
            lambda tensors: tensors.update({"stem.0.weight": torch.zeros(16, 1, 3, 2)}),
            lambda tensors: tensors.update({"stem.0.weight": torch.zeros(16, 1, 3, 3, dtype=torch.int64)}),
            lambda tensors: tensors.update({"stem.0.weight": torch.zeros(16, 1, 3, 3).cfloat()}),
        ],
    )
    def test_that_do_not_fit_the_description(
        self, change: Callable[[dict[str, torch.Tensor]], object], saved: Path
    ) -> None:
        file = saved.with_suffix(".safetensors")
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

        assert "1 tensors differ, the first is" in refused(saved)

    def test_of_another_student(self, saved: Path) -> None:
        save_model(model_of("S3"), saved.with_name("S3"))
        saved.with_name("S3.safetensors").replace(saved.with_suffix(".safetensors"))

        assert "holds no weights of S2" in refused(saved)


def test_a_failed_save_leaves_the_old_files(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(model_of("S3"), saved)

    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 8, 8, 1),
        torch.zeros(8, 8, 1, dtype=torch.uint8),
        torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 9, 8, 1, dtype=torch.uint8),
    ],
)
def test_predict_takes_bytes_of_its_size_alone(images: torch.Tensor) -> None:
    preprocessing = Preprocessing(height=8, width=8, channels=1, mean=(0.0,), std=(1.0,))
    model = DeliveredModel(
        tiny_ensemble(("S1",)), name="S1", classes=("a", "b", "c", "d"), preprocessing=preprocessing
    ).eval()
    with pytest.raises(InputError, match=r"S1 takes images of bytes, uint8 \[B, 8, 8, 1\], not"):
        model.predict(images)
    probabilities = model.predict(torch.zeros(2, 8, 8, 1, dtype=torch.uint8))
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(2))
