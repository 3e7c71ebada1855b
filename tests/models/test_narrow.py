"""Networks outside the catalog: narrowed, cut, described, saved and read back."""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from codistill.config import ModelConfig
from codistill.data.preprocessing import Preprocessing
from codistill.errors import InputError
from codistill.models import any_model, networks
from codistill.models.any_model import UNIT, AnyModel, cut_of
from codistill.models.branch import Taken, channels_first
from codistill.models.catalog import StudentDescription, feature_channels
from codistill.models.ensemble import Ensemble
from codistill.models.initial import rescale, shuffled
from codistill.models.ladder import describe_students
from codistill.models.narrow import narrow
from codistill.models.points import find_points
from codistill.models.student_file import DeliveredModel, load_model, save_model

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Plain(nn.Module):
    """Four convolutions and a head."""

    def __init__(self, num_classes: int = 4, in_channels: int = 3, channels: int = 20) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, padding=1),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                )
                for _ in range(3)
            )
        )
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(self.first(images)).mean(dim=(2, 3)))


class Padded(nn.Module):
    """Shortcuts that are padded with a constant count of channels: a graph cannot narrow them."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in ((16, 16), (16, 32), (32, 64)))
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        for block, missing in zip(self.blocks, (0, 16, 32), strict=True):
            x = block(x) + nn.functional.pad(x, (0, 0, 0, 0, 0, missing))
        return self.head(x.mean(dim=(2, 3)))


class Functional(nn.Module):
    """An activation that is no module follows the stem's first layer."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2, self.conv3, self.conv4 = (nn.Conv2d(12, 12, 3) for _ in range(3))
        self.head = nn.Linear(12, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(images)))
        for layer in (self.conv2, self.conv3, self.conv4):
            x = torch.relu(layer(x))
        return self.head(x.mean(dim=(2, 3)))


def by_width(num_classes: int, width: float = 1.0) -> nn.Module:
    """A network that its user narrows."""
    return Plain(num_classes, channels=max(1, int(20 * width)))


def described(network: object, **model: object) -> dict[str, StudentDescription]:
    name = network if isinstance(network, str) else networks.admit(network)  # type: ignore[arg-type]
    config = ModelConfig(name=name, stem="own", **{"num_students": 3, **model})  # type: ignore[arg-type]
    return describe_students(config, in_channels=3, num_classes=4, image_size=(32, 32))


@pytest.mark.parametrize("width", [0.75, 0.5, 0.2])
def test_the_first_channels_stay_with_their_weights(width: float) -> None:
    model = Plain()

    student = narrow(model, width, example=IMAGES)

    kept = int(20 * width)
    assert student.first.weight.equal(model.first.weight[:kept])
    for mine, its in zip(student.layers, model.layers, strict=True):
        assert mine[0].weight.equal(its[0].weight[:kept, :kept])
        assert mine[1].num_features == kept
    assert student.head.weight.equal(model.head.weight[:, :kept])
    assert model.first.out_channels == 20
    assert student(IMAGES).shape == (3, 4)


def test_modules_that_are_kept_and_a_floor() -> None:
    student = narrow(Plain(), 0.2, example=IMAGES, keep=["first"], min_channels=7)

    assert student.first.out_channels == 20
    assert {layer[0].out_channels for layer in student.layers} == {7}


@pytest.mark.parametrize("width", [0.0, -1.0, 1.5])
def test_impossible_widths_are_refused(width: float) -> None:
    with pytest.raises(InputError, match="width must be above 0 and at most 1"):
        narrow(Plain(), width, example=IMAGES)


def test_a_network_that_a_graph_cannot_follow_is_refused() -> None:
    with pytest.raises(InputError, match="Padded"):
        described(Padded)


def test_points_are_found_and_can_be_named() -> None:
    found = find_points(Plain(), IMAGES)
    assert found.stem == ("first",)
    assert found.blocks == ("layers.0", "layers.1", "layers.2")

    named = find_points(Plain(), IMAGES, stem_end="layers.0", blocks=["layers.1.0", "layers.1", "layers.2"])
    assert named.stem == ("first", "layers.0")
    assert named.blocks == ("layers.1.0", "layers.1", "layers.2")


def test_an_activation_that_is_no_module_stands_behind_the_stem() -> None:
    assert find_points(Functional(), IMAGES).stem == ("conv1", "bn1")


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (
            {"stem_end": "nothing"},
            "model.stem_end 'nothing' is no module of Functional, whose",
        ),
        ({"blocks": ("conv2", "conv3", "conv5")}, "model.blocks 'conv5' is no module"),
        (
            {"blocks": ("conv3", "conv2", "conv4")},
            "must be three modules behind the stem's end",
        ),
        ({"blocks": ("bn1", "conv2", "conv4")}, "must be three modules behind the stem's end, 'bn1'"),
        ({"stem_end": "conv3"}, "the stem cannot end at 'conv3': what 'conv3' takes is no module's output"),
    ],
)
def test_points_that_cannot_be_are_refused(points: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_points(Functional(), IMAGES, **points)  # type: ignore[arg-type]


@pytest.mark.parametrize("network", [Plain, Functional, by_width, Plain(), "timm:lcnet_050"])
def test_s1_is_the_network_and_students_are_narrow(network: object) -> None:
    students = described(network)
    ensemble = Ensemble(students).eval()
    s1 = students["S1"].network
    assert isinstance(s1, AnyModel)

    with torch.no_grad():
        outputs = ensemble(IMAGES)
    wide = s1.wide().eval()
    state = {
        **{
            f"{s1.cut.stem[int(name.split('.')[0])]}.{name.partition('.')[2]}": tensor
            for name, tensor in ensemble.stem.state_dict().items()
        },
        **{
            name.removeprefix("network."): tensor
            for name, tensor in ensemble.students["S1"].state_dict().items()
        },
    }
    wide.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(outputs["S1"].logits, wide(IMAGES))
    for name, student in students.items():
        assert tuple(map_.shape[1] for map_ in outputs[name].features) == feature_channels(student)
        assert all(map_.ndim == 4 for map_ in outputs[name].features)
    assert feature_channels(students["S3"])[-1] < feature_channels(students["S2"])[-1]


@pytest.mark.parametrize("name", ["timm:convnext_atto", "timm:vit_tiny_patch16_224"])
@pytest.mark.slow
def test_a_residual_stream_takes_slices_of_the_stem(name: str) -> None:
    students = described(name)
    ensemble = Ensemble(students).eval()

    with torch.no_grad():
        outputs = ensemble(IMAGES)

    widths = [feature_channels(student)[-1] for student in students.values()]
    assert widths == sorted(widths, reverse=True)
    assert outputs["S3"].features[-1].shape[1] == widths[-1]


def test_slices_of_the_stems_output() -> None:
    output = torch.arange(2 * 6 * 2, dtype=torch.float32).view(2, 6, 2)

    assert Taken(1)(output) is output
    assert Taken(1, 1, 2)(output).equal(output[:, :2])
    assert Taken(1, 2, 2)(output).equal(output[:, [0, 1, 3, 4]])


def test_maps_have_channels_first() -> None:
    tokens, last = torch.randn(2, 5, 3), torch.randn(2, 4, 4, 3)

    assert channels_first(tokens, 2).equal(tokens.transpose(1, 2)[..., None])
    assert channels_first(last, 3).equal(last.permute(0, 3, 1, 2))


def test_a_whole_branch_equals_the_network_after_saving(tmp_path: Path) -> None:
    ensemble = Ensemble(described(Plain)).eval()
    preprocessing = Preprocessing(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    with torch.inference_mode():
        together = ensemble(IMAGES)
        for name, output in together.items():
            model = DeliveredModel(
                ensemble.selected([name]), name=name, classes=tuple("abcd"), preprocessing=preprocessing
            )
            save_model(model, tmp_path / name)
            assert load_model(tmp_path / name)(IMAGES).equal(output.logits)


def test_a_file_that_names_code_is_refused_unless_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    ensemble = Ensemble(described(Plain)).eval()
    preprocessing = Preprocessing(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = DeliveredModel(
        ensemble.selected(["S2"]), name="S2", classes=tuple("abcd"), preprocessing=preprocessing
    )
    save_model(model, tmp_path / "S2")
    text = (tmp_path / "S2.json").read_text()
    (tmp_path / "S2.json").write_text(text.replace(f"{__name__}:Plain", "evil:build"))

    with pytest.raises(InputError, match=r"S2.json: network 'evil:build' is code of a user's own"):
        load_model(tmp_path / "S2")

    try:
        assert load_model(tmp_path / "S2", Plain)(IMAGES).equal(model.eval()(IMAGES))
    finally:
        networks._own.pop("evil:build", None)


@pytest.mark.parametrize(
    "change",
    [
        {"cut": None},
        {"cut": {}},
        {"cut": {"image_size": [32, 0], "stem": ["first"], "blocks": ["a", "b", "c"], "min_channels": 1}},
        {"cut": {"image_size": [32, 32], "stem": [], "blocks": ["a", "b", "c"], "min_channels": 1}},
        {"cut": {"image_size": [32, 32], "stem": ["first"], "blocks": ["a"], "min_channels": 1}},
        {"cut": {"image_size": [32, 32], "stem": ["first"], "blocks": ["a", "b", 1], "min_channels": 1}},
        {"cut": {"image_size": [32, 32], "stem": ["first"], "blocks": ["a", "b", "c"], "min_channels": "1"}},
        {"widths": [0]},
        {"widths": [1, 2]},
        {"stem": "small"},
    ],
)
def test_a_description_of_no_student_is_refused(change: dict[str, object]) -> None:
    data = json.loads(json.dumps(described(Plain)["S2"].as_dict()))
    assert StudentDescription.from_dict(data) == described(Plain)["S2"]

    with pytest.raises(InputError):
        StudentDescription.from_dict(data | change)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:convnext_atta", "timm has no network 'convnext_atta'; did you mean convnext_atto?"),
        ("torchvision:resnet17", "torchvision has no classifier 'resnet17'; did you mean resnet18?"),
        ("nowhere:build", "network 'nowhere:build' is code of a user's own"),
    ],
)
def test_unknown_names_are_refused(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        described(name)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda: Plain(7), r"must give logits \[B, 4\] for images of 3×32×32, not \[3?2?, ?7\]|not \[2, 7\]"),
        (lambda: nn.Linear(3, 4), "takes no images of 3×32×32"),
        (lambda: "no network", "must return an nn.Module, not str"),
        (lambda: 1 / 0, "cannot be built: ZeroDivisionError"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten()), "modules whose maps could be compared"),
    ],
)
def test_networks_that_cannot_be_trained_so_are_refused(network: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        described(network)


def test_the_config_that_is_run_may_name_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net.py").write_text("from models.test_narrow import Plain as build\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="'my_net:nothing' cannot be imported: AttributeError"):
        networks.import_network("my_net:nothing")
    with pytest.raises(InputError, match="'no_such_module:build' cannot be imported: ModuleNotFoundError"):
        networks.import_network("no_such_module:build")


def test_initial_scales_are_those_of_the_narrow_layers() -> None:
    torch.manual_seed(0)
    wide, student = (
        nn.ModuleDict(
            {
                "he": nn.Conv2d(c, 4 * c, 3),
                "default": nn.Linear(8 * c, 8 * c),
                "small": nn.Linear(8 * c, 8 * c),
            }
        )
        for c in (64, 16)
    )
    nn.init.kaiming_normal_(wide["he"].weight, mode="fan_out", nonlinearity="relu")
    nn.init.normal_(wide["small"].weight, std=0.02)
    for name, layer in student.items():
        layer.weight.data.copy_(wide[name].weight[: layer.weight.shape[0], : layer.weight.shape[1]])

    rescale(student, wide)

    # Of at least 9,216 numbers each: a deviation of four standard errors is below 3 %.
    assert student["he"].weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert student["default"].weight.std().item() == pytest.approx((1 / (3 * 128)) ** 0.5, rel=0.03)
    assert student["small"].weight.std().item() == pytest.approx(0.02, rel=0.03)


def test_students_start_apart_and_each_from_its_own_seed() -> None:
    network = Plain()
    first, second = (Ensemble(described(network), seed=seed) for seed in (0, 0))
    other = Ensemble(described(network), seed=1)
    alone = Ensemble(described(network, students=(3,)))

    name = "network.layers.0.0.weight"
    weights = [ensemble.students["S3"].state_dict()[name] for ensemble in (first, second, other, alone)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    assert weights[0].equal(weights[3])
    wide = first.students["S1"].state_dict()[name]
    assert not torch.isclose(wide[:6, :6].sort().values, weights[0][:6, :6].sort().values).all()
    assert shuffled(copy.deepcopy(network)).first.weight.sum().isclose(network.first.weight.sum(), atol=1e-4)


def test_random_draws_are_noticed() -> None:
    class Dropping(Plain):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(
                nn.functional.dropout(self.first.weight.sum() * 0 + images, 0.1, self.training)
            )

    assert not described(Plain)["S1"].draws_random_numbers
    cut = cut_of(networks.admit(Plain), in_channels=3, num_classes=4, image_size=(32, 32))
    assert AnyModel(networks.admit(Dropping), 3, 4, cut).draws_random_numbers


def test_what_was_found_out_of_a_network_is_forgotten_with_it() -> None:
    for channels in (20, 32):
        name = networks.admit(lambda channels=channels: Plain(channels=channels), "tests:changing")
        assert feature_channels(described(name)["S1"]) == (channels,) * 3


def test_a_share_keeps_whole_channels() -> None:
    model = AnyModel("x:y", 3, 4, replace(described(Plain)["S1"].cut))  # type: ignore[type-var]
    from fractions import Fraction

    for channels in (3, 48, 96, 300):
        (width,) = model.narrowed_widths(Fraction(1, 3), 3)
        assert channels * width // UNIT == channels // 3


@pytest.mark.parametrize(
    ("missing", "network", "words"),
    [
        ("torch_pruning", Plain, r"needs torch-pruning: pip install 'codistill\[models\]'"),
        ("timm", "timm:lcnet_050", r"timm:lcnet_050 needs timm: pip install 'codistill\[models\]'"),
    ],
)
def test_what_is_not_installed_is_named(
    missing: str, network: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    any_model._plan.cache_clear()
    any_model._channel_dims.cache_clear()
    with pytest.raises(InputError, match=words):
        described(network)
