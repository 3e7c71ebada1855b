"""Thousands of mutated files: never run, never a traceback, never another meaning than Python's own.

For a file that is accepted, Python itself is the oracle: run with nothing but `dict`, it must give what the
config says, field by field.
"""

import codecs
import math
import string
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from files import PLAIN, as_python, changed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codistill.config import Config
from codistill.config.boc_kd.fields import FIELDS, LOSSES, OPTIONAL, Field
from codistill.config.boc_kd.names import MODELS, SOURCES
from codistill.config.boc_kd.translate import Original, read_original
from codistill.config.parsing import make_parser, parse_config
from codistill.errors import InputError

PARSER = make_parser("train", "")
EXECUTING = ("exec", "import", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
SEEN: list[str] = []
WATCHING = [False]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHING[0] and event in EXECUTING:
        SEEN.append(f"{event} {arguments[0]}")


codecs.lookup("utf-8-sig")  # A module of Python's own, imported at its first use.
sys.addaudithook(_watch)


def paths(section: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in section.items():
        found.append(f"{prefix}{name}")
        if isinstance(value, dict):
            found += paths(value, f"{prefix}{name}.")
    return found


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 12)
    | st.sampled_from([10**18, 2**63, 10**400, -(10**30)])
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(
        [*MODELS, *SOURCES, "SGD", "StepLR", "LBFGS", "L1Loss", "1e-3", "True", "None", "../x"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
CODE = [
    "__import__('os').system('touch executed')",
    "open('executed', 'w')",
    "exec('raise SystemExit')",
    "(lambda: 1)()",
    "[x for x in (1, 2)]",
    "f'{1}'",
    "dict(**{})",
    "dict([('a', 1)])",
    "model",
    "print",
    "nan",
    "1 if True else 2",
    "3 * 100",
    "'a' 'b' % ()",
    "...",
    "1j",
    "b'1'",
    "(yield)",
    "await x",
    "x := 3",
    "[" * 150 + "]" * 150,
    "(" * 60 + "1" + ")" * 60,
    "-" * 3000 + "1",
    "dict(a=" * 40 + "1" + ")" * 40,
]
STATEMENTS = [
    "import os; os.system('touch executed')",
    "from os import *",
    "exec(open(__file__).read())",
    "def f(): pass",
    "class model: pass",
    "model = dict(name='ResNet110')",
    "dict = list",
    "model.update(name='ResNet110')",
    "train_cfg['epochs'] = 1",
    "del model",
    "while True: pass",
    "raise SystemExit",
    "epochs = 3",
    "'a string'",
    "assert False",
    "@print\ndef g(): pass",
    "x: int = 3",
    "None",
]


@st.composite
def mutated_files(draw: st.DrawFn) -> str:
    """Return the text of a valid file with one to three mutations."""
    config, lines = PLAIN, []
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths(config)))
        match draw(
            st.sampled_from(["vary"] * 6 + ["value", "value", "code", "rename", "delete", "statement"])
        ):
            case "vary":
                config = changed({path: draw(_likely(path))}, config)
            case "value":
                config = changed({path: draw(VALUES)}, config)
            case "code":
                config = changed({path: _Code(draw(st.sampled_from(CODE)))}, config)
            case "rename":
                name = draw(st.text(string.ascii_letters + "_", min_size=1, max_size=8) | _misspelt(path))
                config = _renamed(config, path, name)
            case "delete":
                config = _renamed(config, path, None)
            case "statement":
                lines.append(draw(st.sampled_from(STATEMENTS)))
    text = "\n".join([as_python(config), *lines])
    match draw(st.sampled_from(["whole"] * 6 + ["cut", "noise"])):
        case "cut":
            text = text[: draw(st.integers(0, len(text)))]
        case "noise":
            place = draw(st.integers(0, len(text)))
            text = text[:place] + draw(st.text(max_size=3)) + text[place + draw(st.integers(0, 2)) :]
    return text


def _likely(path: str) -> st.SearchStrategy[Any]:
    """Return values of the kind that stands there."""
    value: Any = PLAIN
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(0, 12)
    if isinstance(value, float):
        return st.floats(1e-6, 1, allow_subnormal=False)
    if isinstance(value, str):
        names = (
            MODELS if path == "model.name" else SOURCES if path.endswith("id_cfg.name") else ["SGD", "L1Loss"]
        )
        return st.sampled_from(sorted(names))
    return st.just(value)


class _Code:
    """Code that stands where a literal belongs."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __repr__(self) -> str:
        return self.code

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]


def _misspelt(path: str) -> st.SearchStrategy[str]:
    name = path.rpartition(".")[2]
    return st.sampled_from([name[:-1] or "x", name.swapcase(), f"{name}s", name[0] + name])


def _renamed(config: dict[str, Any], path: str, name: str | None) -> dict[str, Any]:
    config = changed({}, config)
    *sections, last = path.split(".")
    place = config
    for section in sections:
        place = place[section]
    value = place.pop(last)
    if name is not None:
        place[name] = value
    return config


def by_python(text: str) -> dict[str, Any]:
    """Run an accepted file with nothing but `dict` in reach, and return its fields by dotted names."""
    names: dict[str, Any] = {"__builtins__": {"dict": dict}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(text, "file", "exec"), names)
    del names["__builtins__"]
    return with_defaults(names, FIELDS)


def with_defaults(given: dict[str, Any], section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, spec in section.items():
        path = f"{prefix}{name}"
        if isinstance(spec, dict):
            if path not in OPTIONAL or name in given:
                fields |= with_defaults(given.get(name, {}), spec, f"{path}.")
        elif path in LOSSES and isinstance(given.get(name), dict):
            fields |= {f"{path}.{key}": value for key, value in given[name].items()}
        else:
            assert isinstance(spec, Field)
            fields[path] = given.get(name, spec.default)
    fields |= {f"{prefix}{name}": value for name, value in given.items() if name not in section}
    return fields


def meant(original: Original, config: Config) -> dict[str, Any]:
    """Return the fields of a file from what it was taken for."""
    model, data, training, objective = config.model, config.data, config.training, config.objective
    networks = {ours: theirs for theirs, ours in MODELS.items()}
    sources = {ours: theirs for theirs, ours in SOURCES.items()}
    criterion, train, val = "train_cfg.criterion", "dataset_cfg.train_cfg", "dataset_cfg.val_cfg"
    fields: dict[str, Any] = {
        "model.name": networks[model.name],
        "model.pretrained": model.init == "pretrained",
        "model.No_students": model.num_students,
        "model.No_blocks": model.narrow_blocks,
        "model.Common_base_freeze": training.freeze_stem,
        "model.Collective_Base_gradient": training.stem_gradient == "all",
        "dataset_cfg.id_cfg.root": data.root,
        "dataset_cfg.id_cfg.name": sources[data.source],
        "dataset_cfg.id_cfg.num_classes": data.num_classes,
        "dataset_cfg.id_cfg.download": data.download,
        f"{train}.batch_size": training.batch_size,
        f"{train}.shuffle": data.shuffle,
        f"{val}.batch_size": data.evaluation_batch_size,
        "train_cfg.optimizer.name": config.optimizer.name,
        "train_cfg.optimizer.lr": config.optimizer.lr,
        f"{criterion}.L2": "KL_Loss",
        f"{criterion}.Adaptation_use": objective.feature_match == "adapter",
        "train_cfg.KL_loss_temperature": objective.temperature,
        "train_cfg.test_interval": training.test_interval,
        "train_cfg.plot_accuracy_graphs": config.run.curves == "pictures",
        "train_cfg.epochs": training.epochs,
        "train_cfg.training_store_root": config.run.folder,
        "Single_model_mode": None if original.student is None else original.student - 1,
        "Train_resume": original.action == "resume",
        "Validate_only": original.action == "validate",
    }
    fields |= {
        f"train_cfg.optimizer.{name}": value for name, value in (config.optimizer.arguments or {}).items()
    }
    if training.pretraining_epochs:
        fields |= {
            "train_cfg.teacher_pretraining": True,
            "train_cfg.pretraining_epochs": training.pretraining_epochs,
        }
    if config.schedule.name != "constant":
        fields["train_cfg.scheduler.name"] = config.schedule.name
        fields |= {
            f"train_cfg.scheduler.{name}": value for name, value in (config.schedule.arguments or {}).items()
        }
    if original.action != "train":
        assert original.run is not None
        fields |= {"Load_Epoch": original.epoch, "Load_run_id": original.run.name}
    return fields


def refused(error: InputError, file: Path) -> str:
    assert "\n" not in str(error)
    assert str(file) in str(error)
    return "refused"


def check(text: str, folder: Path) -> str:
    """Read a file, and assert all that must hold; return what became of it."""
    file = folder / "c.py"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    WATCHING[0] = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            original = read_original(file)
    except InputError as error:
        return refused(error, file)
    finally:
        WATCHING[0] = False
        assert SEEN == []
    try:
        config = parse_config([str(file)], PARSER, original.settings)
    except InputError as error:
        return refused(error, file)
    python = by_python(text)
    for name, value in meant(original, config).items():
        expected = python.get(name, "nothing of that name")
        if name == "train_cfg.scheduler.mode" and config.schedule.name == "ReduceLROnPlateau":
            expected = python.get(name, "max")
        if expected == "CylicLR":
            expected = "CyclicLR"
        assert value == (list(expected) if isinstance(expected, tuple) else expected), name
        assert type(value) is not bool or type(expected) is bool, name
    if python.get("train_cfg.Loss_contribution.alpha") is not None:
        weights = [python[f"train_cfg.Loss_contribution.{name}"] for name in ("alpha", "beta", "gamma")]
    else:
        weights = list(python["train_cfg.criterion.contribution_ratios"])
    objective = config.objective
    assert [objective.label_weight, objective.feature_weight, objective.distillation_weight] == weights
    assert python["train_cfg.teacher_pretraining"] == (config.training.pretraining_epochs > 0) or (
        python["train_cfg.pretraining_epochs"] == 0
    )
    assert all(math.isfinite(weight) for weight in weights)
    return "accepted"


def test_the_plain_file_is_accepted(tmp_path: Path) -> None:
    assert check(as_python(PLAIN), tmp_path) == "accepted"


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statements_are_refused(statement: str, tmp_path: Path) -> None:
    outcome = check(f"{as_python(PLAIN)}\n{statement}\n", tmp_path)
    assert outcome == ("accepted" if statement == "'a string'" else "refused")


@pytest.mark.parametrize("code", CODE)
def test_code_is_refused(code: str, tmp_path: Path) -> None:
    for name in ("train_cfg.epochs", "train_cfg.optimizer.eps", "Single_model_mode"):
        value = code == "(" * 60 + "1" + ")" * 60  # Only a number in parentheses.
        assert check(as_python(changed({name: _Code(code)})), tmp_path) == (
            "accepted" if value else "refused"
        )


def fuzz(count: int, folder: Path) -> dict[str, int]:
    outcomes: dict[str, int] = {}

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated_files())
    def run(text: str) -> None:
        outcome = check(text, folder)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    run()
    assert not (folder / "executed").exists()
    assert not Path("executed").exists()
    return outcomes


def test_some_mutations(tmp_path: Path) -> None:
    assert min(fuzz(100, tmp_path).values()) >= 5


@pytest.mark.slow
def test_many_mutations(tmp_path: Path) -> None:
    outcomes = fuzz(2500, tmp_path)
    assert sum(outcomes.values()) >= 2500
    assert min(outcomes.values()) >= 200
