from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codistill.errors import InputError
from codistill.results.pairing import pair
from codistill.results.records import read_run

MakeRun = Callable[..., Path]
FIVE = [90, 85, 80, 75, 70, 91]


def refusal(*paths: Path) -> str:
    with pytest.raises(InputError) as error:
        pair([read_run(path) for path in paths])
    message = str(error.value)
    assert "\n" not in message
    return message


def test_runs_find_their_pairs_in_any_order(make_run: MakeRun) -> None:
    paths = [
        make_run("b5s1", [60], student=5, changes={"seed": 1}),
        make_run("e1", FIVE, changes={"seed": 1}),
        make_run("b2s0", [60], student=2),
        make_run("e0", FIVE),
        make_run("b5s0", [60], student=5),
    ]
    pairs = pair([read_run(path) for path in paths])
    assert {seed: run.path.name for seed, run in pairs.ensembles.items()} == {0: "e0", 1: "e1"}
    assert list(pairs.ensembles) == [0, 1]
    names = {key: run.path.name for key, run in pairs.baselines.items()}
    assert names == {(5, 1): "b5s1", (2, 0): "b2s0", (5, 0): "b5s0"}


EXECUTION = {
    "data.workers": 7,
    "data.memory_gib": 1.0,
    "data.download": True,
    "training.engine": "eager",
    "training.device": "cuda",
    "training.processes": 2,
    "training.threads": 3,
    "training.checkpoint_minutes": 1.0,
    "training.keep_checkpoints": 9,
    "run.folder": "elsewhere",
    "run.name": "other",
}


def test_how_a_run_was_computed_need_not_agree(make_run: MakeRun) -> None:
    # stem_gradient is the ensemble's method: a baseline has one student and always says all.
    ensemble = make_run("e", FIVE, changes={"training.stem_gradient": "pseudo_teacher"})
    baseline = make_run("b", [60], student=3, changes=EXECUTION)
    assert list(pair([read_run(ensemble), read_run(baseline)]).baselines) == [(3, 0)]


def test_each_difference_is_named_with_both_values(make_run: MakeRun) -> None:
    ensemble = make_run("e", FIVE)
    baseline = make_run("b", [60], student=3, changes={"optimizer.lr": 0.01, "schedule.milestones": [0.3]})
    assert refusal(ensemble, baseline) == (
        f"{baseline} cannot be compared with {ensemble}: optimizer.lr is 0.01 against 0.1; "
        "schedule.milestones is [0.3] against [0.5, 0.75]"
    )


@pytest.mark.parametrize(
    ("dotted", "value", "ours"),
    [
        ("data.source", "mnist", '"digits"'),
        ("data.split_seed", 3, "0"),
        ("data.root", "x", "null"),
        ("model.name", "cifar_resnet32", '"cifar_resnet20"'),
        ("model.narrow_blocks", 2, "3"),
        ("training.epochs", 10, "30"),
        ("training.batch_size", 64, "128"),
        ("training.precision", "bf16-mixed", '"32-true"'),
        ("training.pretraining_epochs", 2, "0"),
        ("schedule.name", "cosine", '"multistep"'),
        ("optimizer.momentum", 0.8, "0.9"),
        ("optimizer.new_setting", 1, "absent"),
    ],
)
def test_conditions_must_agree(make_run: MakeRun, dotted: str, value: Any, ours: str) -> None:
    ensemble = make_run("e", FIVE)
    baseline = make_run("b", [60], student=3, changes={dotted: value})
    assert f"{dotted} is " in (message := refusal(ensemble, baseline))
    assert message.endswith(f" against {ours}")


def test_a_run_from_before_stems_had_names_is_one_with_a_small_stem(make_run: MakeRun) -> None:
    ensemble = make_run("e", FIVE)
    file = ensemble / "config.yaml"
    file.write_text(file.read_text().replace("  stem: auto\n", ""))
    assert "  stem:" not in file.read_text()
    named = make_run("b", [60], student=3, changes={"model.stem": "small"})
    other = make_run("c", [60], student=3, changes={"model.stem": "imagenet"})

    assert set(pair([read_run(ensemble), read_run(named)]).baselines) == {(3, 0)}
    assert 'model.stem is "imagenet" against "small"' in refusal(ensemble, other)


def test_a_named_source_may_lie_anywhere_and_another_may_not(make_run: MakeRun) -> None:
    def roots(source: str) -> list[Path]:
        place = {"data.source": source, "data.root": "here"}
        return [
            make_run(f"e_{source}", FIVE, changes=place),
            make_run(f"b_{source}", [60], student=3, changes=place | {"data.root": "there"}),
        ]

    assert len(pair([read_run(path) for path in roots("mnist")]).baselines) == 1
    assert refusal(*roots("folder")).endswith('data.root is "there" against "here"')


def test_other_images_are_named(make_run: MakeRun) -> None:
    ensemble = make_run("e", FIVE)
    baseline = make_run("b", [60], student=3, images=500, classes=("cat", "cow"))
    assert refusal(ensemble, baseline).endswith(
        "the count of test images is 500 against 1000; "
        'the list of classes is ["cat", "cow"] against ["cat", "dog"]'
    )


def test_compare_takes_one_method(make_run: MakeRun) -> None:
    first = make_run("e", FIVE)
    for seed in (0, 1):
        changes = {"objective.temperature": 3.0, "training.stem_gradient": "pseudo_teacher", "seed": seed}
        other = make_run(f"other{seed}", FIVE, changes=changes)
        assert refusal(first, other) == (
            f"{other} cannot be compared with {first}: objective.temperature is 3.0 against 2.0; "
            'training.stem_gradient is "pseudo_teacher" against "all"'
        )


def test_all_students_may_be_named_or_not(make_run: MakeRun) -> None:
    paths = [
        make_run("e0", FIVE),
        make_run("e1", FIVE, changes={"seed": 1, "model.students": [1, 2, 3, 4, 5]}),
    ]
    assert list(pair([read_run(path) for path in paths]).ensembles) == [0, 1]


def test_one_place_is_not_taken_twice(make_run: MakeRun) -> None:
    ensemble, again = make_run("e", FIVE), make_run("again", FIVE)
    assert refusal(ensemble, again) == f"{again} and {ensemble} both have seed 0: give one of them"
    baseline, second = make_run("b", [60], student=3), make_run("second", [60], student=3)
    assert refusal(baseline, second, ensemble) == (
        f"{second} and {baseline} are both the baseline of S3 with seed 0: give one of them"
    )


def test_a_baseline_needs_an_ensemble_of_its_seed_and_student(make_run: MakeRun) -> None:
    baseline = make_run("b", [60], student=3, changes={"seed": 4})
    assert refusal(baseline) == "an ensemble is needed: none of the runs given trained more than one student"
    assert refusal() == "an ensemble is needed: none of the runs given trained more than one student"
    ensembles = [make_run(f"e{seed}", FIVE, changes={"seed": seed}) for seed in (0, 1)]
    assert (
        refusal(baseline, *ensembles) == f"{baseline} has seed 4, and the ensembles given have seed 0 and 1"
    )


def test_a_baseline_of_a_student_that_the_ensemble_lacks(make_run: MakeRun) -> None:
    # Three students, of which the config says that they are some of five.
    ensemble = make_run("e", [90, 85, 80, 91], changes={"model.num_students": 5, "model.students": [1, 2, 3]})
    baseline = make_run("b", [60], student=5)
    assert refusal(ensemble, baseline) == f"{baseline} is a baseline of S5, which {ensemble} does not train"


def test_one_student_with_another_weight_is_no_baseline(make_run: MakeRun) -> None:
    baseline = make_run("b", [60], student=3, changes={"objective.label_weight": 0.7})
    assert refusal(make_run("e", FIVE), baseline) == (
        f"{baseline} is no baseline: its objective.label_weight is 0.7, a baseline's is 1"
    )
