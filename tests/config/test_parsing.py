"""From files and words to a config, and from mistakes to one line with file and line."""

import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from codistill.config import Config
from codistill.config.model import NETWORKS
from codistill.config.parsing import config_from_mapping, load_config, make_parser, parse_config
from codistill.errors import InputError


def parsed(text: str | bytes, folder: Path, *options: str) -> Config:
    file = folder / "c.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return parse_config([str(file), *options], make_parser("train", ""))


def refusal(text: str | bytes, folder: Path, *options: str) -> str:
    with pytest.raises(InputError) as caught:
        parsed(text, folder, *options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}{os.sep}", "")


def words_refused(*words: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_config(words, make_parser("train", ""))
    return str(caught.value)


def test_nothing_given_is_the_default_config() -> None:
    assert parse_config([], make_parser("train", "")) == Config()


def test_every_kind_of_value_arrives_with_its_type(tmp_path: Path) -> None:
    config = parsed(
        """
seed: 3
data: {normalize: false, root: null, horizontal_flip: true}
model:
  name: cifar_resnet32
  students: [1, 4]
  narrow_blocks: 2
optimizer: {lr: 1e-3, eps: 1e-08, betas: [0.5, 0.6]}
schedule: {milestones: [0.25]}
run: {name: "7"}
""",
        tmp_path,
    )

    assert (config.seed, config.data.normalize, config.data.root, config.data.horizontal_flip) == (
        3,
        False,
        None,
        True,
    )
    assert (config.model.name, config.model.students, config.model.narrow_blocks) == (
        "cifar_resnet32",
        (1, 4),
        2,
    )
    # YAML 1.1 reads 1e-3 as text.
    assert (config.optimizer.lr, config.optimizer.eps, config.optimizer.betas) == (1e-3, 1e-8, (0.5, 0.6))
    assert (config.schedule.milestones, config.run.name) == ((0.25,), "7")


def test_arguments_of_another_library_keep_their_values(tmp_path: Path) -> None:
    text = "optimizer: {name: SGD, arguments: {momentum: 1e-1, nesterov: true, text: '0.9', betas: [0, .5]}}"
    options = ("--optimizer.arguments.weight_decay", "1e-4", "--optimizer.arguments.momentum=0.5")

    config = parsed(text, tmp_path, *options)

    assert config.optimizer.arguments == {
        "momentum": 0.5,
        "nesterov": True,
        "text": "0.9",
        "betas": [0, 0.5],
        "weight_decay": 1e-4,
    }
    assert config_from_mapping(asdict(config), "again") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optimizer: {arguments: 3}",
            "optimizer.arguments must be settings with plain values, such as {name",
        ),
        ("optimizer: {arguments: {a: {b: 1}}}", "optimizer.arguments.a.b must be a plain value"),
        ("optimizer: {arguments: {a: [[1]]}}", "optimizer.arguments.a must be a plain value, as optimizer."),
        ("optimizer: {arguments: {a: .inf}}", "optimizer.arguments.a must be a plain value"),
        ("optimizer: {arguments: {a b: 1}}", "optimizer.arguments.a b must be a plain value"),
    ],
)
def test_arguments_of_another_library_are_plain(text: str, message: str, tmp_path: Path) -> None:
    assert refusal(text, tmp_path).startswith(f"c.yaml line 1: {message}")


def test_later_settings_win(tmp_path: Path) -> None:
    config = parsed("seed: 1\noptimizer: {lr: 0.5}", tmp_path, "--seed", "2", "--seed=3")

    assert (config.seed, config.optimizer.lr) == (3, 0.5)


def test_options_may_stand_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 1\ndata: {workers: 7}")

    config = parse_config(["--run.folder", str(file), str(file)], make_parser("train", ""))

    assert (config.seed, config.data.workers, config.run.folder) == (1, 7, str(file))


@pytest.mark.parametrize(("word", "name"), [("123", "123"), ("1e5", "1e5"), ("true", "true"), ("null", None)])
def test_text_on_the_command_line_stays_text(word: str, name: str | None) -> None:
    assert parse_config(["--run.name", word], make_parser("train", "")).run.name == name


def test_dotted_names_work_in_a_file(tmp_path: Path) -> None:
    assert parsed("optimizer.lr: 0.25", tmp_path).optimizer.lr == 0.25


def test_a_section_without_settings_keeps_its_defaults(tmp_path: Path) -> None:
    assert parsed("data: {}\nseed: 2", tmp_path) == Config(seed=2)


def test_null_is_a_value_where_a_setting_admits_it(tmp_path: Path) -> None:
    assert parsed("data.root:", tmp_path) == Config()
    assert parsed("training: {threads: }\nrun: {name: null}", tmp_path) == Config()


def test_a_pipe_is_a_file_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("seed: 42"))
    writer.start()

    config = load_config(pipe)
    writer.join()

    assert config.seed == 42


MISTAKES: list[tuple[str | bytes, str]] = [
    ("seeed: 1", "c.yaml line 1: seeed is no setting; did you mean seed?"),
    (
        "seed: 1\noptimizer:\n  lr: 1e-3\n  lrr: 2",
        "c.yaml line 4: optimizer.lrr is no setting; did you mean optimizer.lr?",
    ),
    ("qqqqqq: 1", "c.yaml line 1: qqqqqq is no setting"),
    ("seed: x", "c.yaml line 1: seed must be a whole number, not 'x'"),
    ("seed: 1.0", "c.yaml line 1: seed must be a whole number, not 1.0"),
    ("seed: true", "c.yaml line 1: seed must be a whole number, not True"),
    ("seed:", "c.yaml line 1: seed must be a whole number, not null"),
    ("optimizer: {lr: null}", "c.yaml line 1: optimizer.lr must be a number, not null"),
    (
        "schedule: {milestones: }",
        "c.yaml line 1: schedule.milestones must be a list, each a number, not null",
    ),
    ("run: {name: 1}", "c.yaml line 1: run.name must be text or null, not 1"),
    ("data: {normalize: 2}", "c.yaml line 1: data.normalize must be true or false, not 2"),
    (
        "model: {name: resnet}",
        f"c.yaml line 1: model.name must be one of {', '.join(NETWORKS)}, or timm:NAME, torchvision:NAME or"
        " module:function of your own, not 'resnet'; did you mean resnet50?",
    ),
    (
        "optimizer: {betas: [1, 2, 3]}",
        "c.yaml line 1: optimizer.betas must be a list of 2 values, each a number, not [1, 2, 3]",
    ),
    ("data:", "c.yaml line 1: data must hold settings such as data.source, not null"),
    ("data: 3", "c.yaml line 1: data must hold settings such as data.source, not 3"),
    ("data: [1]", "c.yaml line 1: data must hold settings such as data.source, not [1]"),
    ("data: {}\nseed: x", "c.yaml line 2: seed must be a whole number, not 'x'"),
    ("seed: 1\nseed: 2", "c.yaml line 2: seed stands here a second time"),
    (
        "optimizer.lr: 1.0\noptimizer: {lr: 2.0}",
        "c.yaml line 2: optimizer.lr stands here a second time",
    ),
    ("data: {workers: 1}\ndata: {root: x}", "c.yaml line 2: data stands here a second time"),
    ("\noptimizer: {lr: .nan}", "c.yaml line 2: optimizer.lr must be above 0, not nan"),
    ("optimizer: {lr: .inf}", "c.yaml line 1: optimizer.lr must be above 0, not inf"),
    (f"seed: 1{'0' * 400}", "c.yaml line 1: seed must be below 2^63"),
    (f"seed: 0x{'f' * 6000}", "c.yaml line 1: seed must be below 2^63"),
    (f"run: {{name: 0x{'f' * 6000}}}", "c.yaml line 1: run.name must be text or null, not so large a value"),
    ("data: &a {b: *a}", "c.yaml line 1: *a is an alias; every value must be written out"),
    (
        "1: 2\nnull: 3\ntrue: 2",
        "c.yaml line 1: 1 is no setting; c.yaml line 2: null is no setting;"
        " c.yaml line 3: true is no setting",
    ),
    ("- 1", "c.yaml: must hold settings such as 'training: {epochs: 10}'"),
    ("hello", "c.yaml: must hold settings such as 'training: {epochs: 10}'"),
    ("", "c.yaml: must hold settings such as 'training: {epochs: 10}'"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_in_a_file_is_one_line(text: str | bytes, message: str, tmp_path: Path) -> None:
    assert refusal(text, tmp_path) == message


UNREADABLE: list[str | bytes] = [
    "data: {source: dig",
    "seed: 1\n---\nseed: 2",
    "? [a, b]\n: c",
    "seed: !!python/object/apply:os.system ['touch executed']",
    bytes(range(256)),
    b"seed: 1\0",
    "seed: \udc80".encode("utf-8", "surrogatepass"),
    f"seed: 1{'0' * 5000}",
    f"seed: {'[' * 1500}{']' * 1500}",
]


@pytest.mark.parametrize("content", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_is_no_yaml_is_called_so(
    content: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert refusal(content, tmp_path).startswith("c.yaml: is no YAML file: ")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("depth", [10, 100, 200, 240, 280, 320])
@pytest.mark.parametrize("form", ["seed: {}1{}", "model: {{students: {}1{}}}"])
def test_any_depth_of_nesting_is_refused_in_one_line(form: str, depth: int, tmp_path: Path) -> None:
    for opening, closing in (("[", "]"), ("{a: ", "}")):
        message = refusal(form.format(opening * depth, closing * depth), tmp_path)
        assert message.startswith("c.yaml")


def test_several_mistakes_are_reported_together(tmp_path: Path) -> None:
    message = refusal("seed: x\noptimizer: {lrr: 1, lr: y}", tmp_path, "--training.epoch", "3")

    assert message.split("; ") == [
        "c.yaml line 1: seed must be a whole number, not 'x'",
        "c.yaml line 2: optimizer.lrr is no setting",
        "did you mean optimizer.lr?",
        "c.yaml line 2: optimizer.lr must be a number, not 'y'",
        "--training.epoch is no setting",
        "did you mean training.epochs?",
    ]


def test_values_out_of_range_are_reported_together_each_with_its_place(tmp_path: Path) -> None:
    message = refusal("seed: -1\noptimizer: {lr: 0}", tmp_path, "--training.batch_size", "1")

    assert message.split("; ")[:3] == [
        "c.yaml line 1: seed must be at least 0, not -1",
        "c.yaml line 2: optimizer.lr must be above 0, not 0.0",
        "training.batch_size must be at least 2, not 1",
    ]


@pytest.mark.parametrize("content", ["data: {class_path: imported_by_a_config.X}", "{}"])
def test_a_config_cannot_import_a_module(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_by_a_config.py").write_text("class X: pass")
    monkeypatch.syspath_prepend(tmp_path)

    refusal(content, tmp_path, "--model", '{"class_path": "imported_by_a_config.X"}')
    with pytest.raises(InputError, match=r"place: data\.class_path is no setting"):
        config_from_mapping({"data": {"class_path": "imported_by_a_config.X"}}, "place")

    assert "imported_by_a_config" not in sys.modules


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--see", "3"], "--see is no setting; did you mean seed?"),
        (["--seed", "1.5"], "--seed must be a whole number, not '1.5'"),
        (["--seed"], "--seed: needs a value"),
        (["--seed", "--data.workers", "1"], "--seed: needs a value"),
        (["--seed", "-1"], "seed must be at least 0, not -1"),
        (["--data", "x"], "--data must hold settings such as data.source, not 'x'"),
        (["--config", "x"], "--config: is not an option; the config file is given by itself, CONFIG.yaml"),
        (["--model.students", "1"], "--model.students must be a list, each a whole number or null, not '1'"),
        (["--optimizer.lr", "nan"], "--optimizer.lr must be a number, not 'nan'"),
        (["--seed", "1", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
        (["/"], "/: cannot be read: Is a directory"),
        (["a", "b"], "b: unexpected after a; settings are given as --section.key value"),
        (["--print_config", "--seed", "x"], "--seed must be a whole number, not 'x'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(words: list[str], message: str) -> None:
    assert words_refused(*words) == message


def test_print_config_prints_a_config_that_parses_to_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed("optimizer: {lr: 1e-3}", tmp_path, "--model.students", "[1,3]", "--print_config")
    assert stop.value.code == 0

    config = parsed(capsys.readouterr().out, tmp_path)

    assert (config.optimizer.lr, config.model.students) == (1e-3, (1, 3))


def test_help_names_every_setting_and_no_section_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_config(["nowhere.yaml", "--help"], make_parser("train", "What it does."))

    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "What it does." in text
    assert "--objective.temperature" in text
    assert "--data CONFIG" not in text


class TestConfigFromMapping:
    def test_a_nested_mapping_gives_the_config(self) -> None:
        config = config_from_mapping({"seed": 2, "model": {"students": [1, 2]}}, "group.json")

        assert (config.seed, config.model.students) == (2, (1, 2))

    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            ({"sed": 2}, "group.json: sed is no setting; did you mean seed?"),
            ({"seed": "x"}, "group.json: seed must be a whole number, not 'x'"),
            ({"seed": -2}, "group.json: seed must be at least 0, not -2"),
            ({"data": None}, "group.json: data must hold settings such as data.source, not null"),
            ({"seed": None}, "group.json: seed must be a whole number, not null"),
            ({"data": {"root": ["x"]}}, "group.json: data.root must be text or null, not ['x']"),
        ],
    )
    def test_what_is_wrong_is_named_with_the_place(self, mapping: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError) as caught:
            config_from_mapping(mapping, "group.json")

        assert str(caught.value) == message
