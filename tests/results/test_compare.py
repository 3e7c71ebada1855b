import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from codistill.errors import InputError
from codistill.results.compare import Comparison, Row, compare
from codistill.results.records import read_runs
from codistill.results.spread import Spread, bootstrap_interval

MakeRun = Callable[..., Path]


def row(comparison: Comparison, name: str) -> Row:
    return next(row for row in comparison.rows if row.name == name)


def compared(*paths: Path, **options: Any) -> Comparison:
    return compare(read_runs(paths), **options)


# METHOD's ablations on CIFAR-100 with ResNet-110: accuracies of S1 … S5 and the weighted sum that is printed.
PAPER_WEIGHTED = [
    ([69.58, 64.47, 63.21, 55.64, 39.57], 161.71),
    ([68.27, 65.36, 62.35, 57.54, 40.14], 163.38),
    ([71.32, 69.58, 67.92, 62.69, 45.16], 178.16),
    ([72.11, 67.82, 65.55, 60.93, 43.19], 172.81),
    ([71.25, 69.32, 67.29, 62.16, 47.23], 179.31),
    ([71.05, 70.21, 68.01, 62.61, 45.10], 178.29),
    ([69.21, 66.56, 63.12, 58.85, 45.76], 171.18),
    ([68.57, 66.69, 64.34, 59.92, 47.26], 174.19),
    ([68.72, 68.19, 65.94, 62.09, 44.88], 175.14),
    ([69.37, 68.39, 66.44, 62.17, 46.82], 177.65),
    ([66.79, 64.92, 62.46, 57.78, 41.34], 164.37),
    ([67.97, 67.22, 65.37, 61.08, 46.69], 175.26),
]


@pytest.mark.parametrize(("students", "weighted"), PAPER_WEIGHTED)
def test_weighted_sum_is_the_papers(make_run: MakeRun, students: list[float], weighted: float) -> None:
    comparison = compared(make_run("e", [*students, 72.0], images=10_000))
    assert row(comparison, "weighted").ensemble.mean == pytest.approx(weighted, abs=0.005 + 1e-9)


def test_mean_is_the_papers(make_run: MakeRun) -> None:
    comparison = compared(make_run("e", [71.89, 69.56, 68.43, 59.48, 47.26, 71.02], images=10_000))
    assert row(comparison, "mean").ensemble.mean == pytest.approx(63.32, abs=0.005)


def test_gains_of_one_seed_by_hand(make_run: MakeRun) -> None:
    comparison = compared(
        make_run("e", [90, 85, 80, 75, 50, 91]),
        *(make_run(f"b{j}", [b], student=j) for j, b in enumerate([88, 85, 82, 70, 40], start=1)),
    )
    s5 = row(comparison, "S5")
    assert (s5.parameters, s5.relative_size_percent, s5.macs) == (40, 4.0, 4_000_000)
    assert s5.ensemble == Spread(mean=50.0, deviation=None, n=1)
    assert s5.baseline == Spread(mean=40.0, deviation=None, n=1)
    assert s5.gain is not None
    assert s5.gain.points.mean == pytest.approx(10)
    assert s5.gain.relative_percent is not None
    assert s5.gain.relative_percent.mean == pytest.approx(25)
    verdicts = [row(comparison, f"S{j}").gain.verdict for j in range(1, 6)]
    assert verdicts == ["better", "unclear", "worse", "better", "better"]
    teacher = row(comparison, "teacher")
    assert (teacher.ensemble.mean, teacher.baseline, teacher.gain) == (91.0, None, None)
    # (2 + 0 - 2 + 5 + 10) / 5 and 2/5 + 0 - 2 · 3/5 + 5 · 4/5 + 10 · 5/5.
    mean, weighted = row(comparison, "mean").gain, row(comparison, "weighted").gain
    assert mean is not None
    assert weighted is not None
    assert mean.points.mean == pytest.approx(3.0)
    assert weighted.points.mean == pytest.approx(13.2)


def test_interval_resamples_pairs(make_run: MakeRun) -> None:
    rng = np.random.default_rng(5)
    ensemble = [rng.random(500) < share for share in (0.9, 0.8, 0.9)]
    alone = [rng.random(500) < share for share in (0.85, 0.8)]
    comparison = compared(
        make_run("e", ensemble, images=500, changes={"model.num_students": 5, "model.students": [1, 2]}),
        make_run("b1", [alone[0]], student=1, images=500),
        make_run("b2", [alone[1]], student=2, images=500),
    )
    differences = [np.asarray(e, dtype=int) - b for e, b in zip(ensemble, alone, strict=False)]
    for name, difference in (("S1", differences[0]), ("S2", differences[1]), ("mean", sum(differences) / 2)):
        gain = row(comparison, name).gain
        assert gain is not None
        assert gain.interval == pytest.approx([100 * end for end in bootstrap_interval(difference)])
        assert gain.points.mean == pytest.approx(100 * np.mean(difference))
    # Of five students two are trained: the paper's sum over all five has no meaning.
    assert [r.name for r in comparison.rows] == ["S1", "S2", "teacher", "mean"]


def test_identical_predictions_gain_exactly_nothing(make_run: MakeRun) -> None:
    comparison = compared(make_run("e", [90, 85, 80, 75, 50, 91]), make_run("b", [80], student=3))
    gain = row(comparison, "S3").gain
    assert gain is not None
    assert (gain.points.mean, gain.interval, gain.verdict) == (0.0, (0.0, 0.0), "unclear")


def test_several_seeds_by_hand(make_run: MakeRun) -> None:
    runs = []
    for seed, (together, alone) in enumerate([(50, 40), (52, 50), (54, 45)]):
        runs.append(make_run(f"e{seed}", [90, 85, 80, 75, together, 91], changes={"seed": seed}))
        runs.append(make_run(f"b{seed}", [alone], student=5, changes={"seed": seed}))
    s5 = row(compared(*runs), "S5")
    assert (s5.ensemble.mean, s5.ensemble.deviation, s5.ensemble.n) == pytest.approx((52, 2, 3))
    assert s5.baseline is not None
    assert (s5.baseline.mean, s5.baseline.deviation) == pytest.approx((45, 5))
    assert s5.gain is not None
    # Gains 10, 2, 9: mean 7, squares of 3, -5, 2 sum to 38, 38 / 2 = 19. Relative: 25, 4, 20.
    assert (s5.gain.points.mean, s5.gain.points.deviation) == pytest.approx((7, 19**0.5))
    assert s5.gain.relative_percent is not None
    assert s5.gain.relative_percent.mean == pytest.approx(49 / 3)
    assert s5.gain.interval is None
    assert s5.gain.verdict == "better"


@pytest.mark.parametrize(
    ("gains", "verdict"), [((1, 3), "better"), ((-1, 2), "unclear"), ((-1, -3), "worse"), ((2, 2), "better")]
)
def test_verdict_over_seeds(make_run: MakeRun, gains: tuple[int, int], verdict: str) -> None:
    runs = []
    for seed, gain in enumerate(gains):
        runs.append(make_run(f"e{seed}", [90, 85, 80, 75, 50 + gain, 91], changes={"seed": seed}))
        runs.append(make_run(f"b{seed}", [50], student=5, changes={"seed": seed}))
    result = row(compared(*runs), "S5").gain
    assert result is not None
    assert result.verdict == verdict


def test_baseline_without_any_right_answer_has_no_relative_gain(make_run: MakeRun) -> None:
    comparison = compared(make_run("e", [90, 85, 80, 75, 50, 91]), make_run("b", [0], student=5))
    gain = row(comparison, "S5").gain
    assert gain is not None
    assert gain.relative_percent is None
    assert "| +50.00 [+" in comparison.table()


def test_which_epoch(make_run: MakeRun) -> None:
    ensemble = make_run("e", [90, 85, 80, 75, 50, 91])
    results = json.loads((ensemble / "results.json").read_text())
    results["students"]["S1"]["last"]["test_accuracy"] = 0.6
    (ensemble / "results.json").write_text(json.dumps(results))
    assert row(compared(ensemble), "S1").ensemble.mean == 90
    assert row(compared(ensemble, which="last"), "S1").ensemble.mean == 60
    assert compared(ensemble).which == "best"
    assert "which only report, at the best epoch on the validation images." in compared(ensemble).table()
    without = make_run("without", [90, 85, 80, 75, 50, 91], best=False)
    assert compared(without).which == "last"
    assert "which only report, at the last epoch." in compared(without).table()
    with pytest.raises(InputError, match="has no best epoch for S1"):
        compared(without, which="best")


def test_runs_tested_on_other_images_are_refused(make_run: MakeRun) -> None:
    ensemble = make_run("e", [90, 85, 80, 75, 50, 91])
    baseline = make_run("b", [40], student=5)
    tensors = load_file(baseline / "predictions.safetensors")
    save_file({name: 1 - tensor for name, tensor in tensors.items()}, baseline / "predictions.safetensors")
    with pytest.raises(InputError, match="were tested on different images: their labels differ"):
        compared(ensemble, baseline)


def test_table_of_one_seed(make_run: MakeRun) -> None:
    comparison = compared(
        make_run("e", [90, 85, 80, 75, 50.5, 91]),
        make_run("b1", [90], student=1),
        make_run("b5", [40], student=5),
    )
    low, high = comparison.rows[4].gain.interval
    lines = comparison.table().splitlines()
    assert lines[0] == (
        "cifar_resnet20 on digits, 30 epochs, seed 0: accuracy on 1,000 test images, "
        "which only report, at the best epoch on the validation images."
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:11]]
    headers = [
        "student",
        "parameters",
        "size %",
        "MACs",
        "baseline %",
        "ensemble %",
        "gain",
        "relative %",
        "",
    ]
    assert cells[0] == headers
    interval = f"+10.50 [+{low:.2f}, +{high:.2f}]"
    assert cells[2] == [
        "S1",
        "1,000",
        "100.00",
        "100.00 M",
        "90.00",
        "90.00",
        "0.00 [0.00, 0.00]",
        "0.00",
        "unclear",
    ]
    assert cells[3] == ["S2", "630", "63.00", "63.00 M", "—", "85.00", "—", "—", ""]
    assert cells[6] == ["S5", "40", "4.00", "4.00 M", "40.00", "50.50", interval, "+26.25", "better"]
    assert cells[7] == ["teacher", "1,000", "100.00", "100.00 M", "—", "91.00", "—", "—", ""]
    # 90/5 + 85 · 2/5 + 80 · 3/5 + 75 · 4/5 + 50.5; not every student has a baseline.
    assert cells[8] == ["mean", "—", "—", "—", "—", "76.10", "—", "—", ""]
    assert "| weighted" in lines[11]
    assert "210.50" in lines[11]
    assert len({len(line) for line in lines[2:12]}) == 1
    assert "paired bootstrap 95 % interval" in lines[13]


def test_table_of_several_seeds_names_what_is_missing(make_run: MakeRun) -> None:
    runs = [make_run(f"e{seed}", [90, 85, 80, 75, 50, 91], changes={"seed": seed}) for seed in range(3)]
    runs += [make_run(f"b{seed}", [48 - seed], student=5, changes={"seed": seed}) for seed in range(2)]
    table = compared(*runs).table()
    assert "seeds 0, 1 and 2: accuracy" in table
    # Gains 2 and 3: deviation sqrt(0.5).
    assert "| 47.50 ± 0.71 |" in table
    assert "| +2.50 ± 0.71 |" in table
    assert "S5: baseline and gain of 2 of 3 seeds." in table
    assert "bootstrap" not in table


def test_comparison_is_plain_data(make_run: MakeRun) -> None:
    content = compared(make_run("e", [90, 85, 80, 75, 50, 91]), make_run("b", [40], student=5)).as_dict()
    content = json.loads(json.dumps(content, allow_nan=False))
    assert content["which"] == "best"
    assert content["seeds"] == [0]
    assert content["rows"][4]["name"] == "S5"
    assert content["rows"][4]["gain"]["points"] == {"mean": pytest.approx(10), "deviation": None, "n": 1}
