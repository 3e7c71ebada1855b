import json
from collections.abc import Callable
from pathlib import Path

import pytest

from codistill.errors import InputError
from codistill.results.group import summarise_group
from codistill.results.records import read_runs
from codistill.results.spread import Spread

MakeRun = Callable[..., Path]
MakeGroup = Callable[..., Path]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def sweep(make_run: MakeRun, make_group: MakeGroup, missing: tuple[str, ...] = ()) -> Path:
    """Two temperatures and three seeds; S1 has 90, 91, 92 over seeds at temperature 1, one less at 2."""
    values = {
        f"seed={seed},objective.temperature={t}": {"seed": seed, "objective.temperature": t}
        for t in (1, 2)
        for seed in (0, 1, 2)
    }
    for name, value in values.items():
        if name not in missing:
            first = 91 - value["objective.temperature"] + value["seed"]
            make_run(f"sweep/{name}", [first, 80, 93], changes=value)
    return make_group("sweep", "sweep", ["seed", "objective.temperature"], values)


def test_rows_are_combinations_and_spread_over_seeds(make_run: MakeRun, make_group: MakeGroup) -> None:
    summary = summarise_group(sweep(make_run, make_group))
    assert summary.parameters == ("objective.temperature",)
    assert summary.missing == ()
    assert summary.which == "best"
    first, second = summary.rows
    assert first.values == {"objective.temperature": 1}
    assert first.seeds == (0, 1, 2)
    assert first.students["S1"] == Spread(mean=pytest.approx(91), deviation=pytest.approx(1), n=3)
    assert first.students["S2"] == Spread(mean=80, deviation=0, n=3)
    assert first.teacher == Spread(mean=93, deviation=0, n=3)
    # (S1 + 80) / 2 and S1 / 2 + 80: half of S1's deviation.
    assert first.mean == Spread(mean=pytest.approx(85.5), deviation=pytest.approx(0.5), n=3)
    assert first.weighted == Spread(mean=pytest.approx(125.5), deviation=pytest.approx(0.5), n=3)
    assert second.students["S1"].mean == pytest.approx(90)


def test_missing_runs_are_listed(make_run: MakeRun, make_group: MakeGroup) -> None:
    names = (
        "seed=2,objective.temperature=1",
        "seed=1,objective.temperature=2",
        "seed=2,objective.temperature=2",
    )
    path = sweep(make_run, make_group, missing=names[1:])
    (path / names[0] / "results.json").unlink()
    summary = summarise_group(path)
    assert [row.seeds for row in summary.rows] == [(0, 1), (0,)]
    lines = summary.table().splitlines()
    assert lines[0] == (
        f"{path}: accuracy in % on the test images, which only report, "
        "at the best epoch on the validation images."
    )
    assert cells(lines[2]) == ["objective.temperature", "seeds", "S1", "S2", "teacher", "mean", "weighted"]
    assert cells(lines[4])[:4] == ["1", "2", "90.50 ± 0.71", "80.00 ± 0.00"]
    assert cells(lines[5]) == ["2", "1", "89.00", "80.00", "93.00", "84.50", "124.50"]
    assert lines[-3:] == [
        f"Missing: {names[0]} is not finished: `codistill resume {path / names[0]}` finishes it",
        f"Missing: {names[1]} has not been started",
        f"Missing: {names[2]} has not been started",
    ]
    with pytest.raises(InputError, match="is not finished"):
        read_runs([path])


def test_group_that_has_not_begun(make_group: MakeGroup) -> None:
    summary = summarise_group(make_group("group", "sweep", ["seed"], {"seed=0": {"seed": 0}}))
    assert summary.rows == ()
    assert "No run is finished.\n\nMissing: seed=0 has not been started" in summary.table()


def test_damaged_run_is_an_error(make_run: MakeRun, make_group: MakeGroup) -> None:
    path = sweep(make_run, make_group)
    (path / "seed=0,objective.temperature=1" / "results.json").write_text("{")
    with pytest.raises(InputError, match="is torn or damaged"):
        summarise_group(path)


def test_baselines_share_a_row(make_run: MakeRun, make_group: MakeGroup) -> None:
    accuracies = [90, 85, 80, 75, 50]
    values = {f"S{j}": {"model.students": [j]} for j in range(1, 6)}
    for j, accuracy in enumerate(accuracies, start=1):
        make_run(f"group/S{j}", [accuracy], student=j, best=False)
    path = make_group("group", "baseline", ["model.students"], values)
    (only,) = (summary := summarise_group(path)).rows
    assert [only.students[f"S{j}"].mean for j in range(1, 6)] == accuracies
    assert only.teacher is None
    assert only.mean is not None
    assert only.mean.mean == pytest.approx(76)
    assert only.weighted is not None
    # 90/5 + 85 · 2/5 + 80 · 3/5 + 75 · 4/5 + 50.
    assert only.weighted.mean == pytest.approx(210)
    assert summary.which == "last"
    header, _, line = summary.table().splitlines()[2:5]
    assert "S5 |" in header
    assert "teacher" not in header
    assert cells(line) == ["1", "90.00", "85.00", "80.00", "75.00", "50.00", "76.00", "210.00"]


def test_averages_wait_for_all_baselines(make_run: MakeRun, make_group: MakeGroup) -> None:
    make_run("group/S1", [90], student=1)
    make_run("group/S2", [80], student=2)
    values = {f"S{j}": {"model.students": [j]} for j in range(1, 6)}
    (only,) = (summary := summarise_group(make_group("group", "baseline", ["model.students"], values))).rows
    assert only.weighted is None
    assert only.mean is None
    assert len(summary.missing) == 3


def test_ensembles_of_different_size_leave_gaps(make_run: MakeRun, make_group: MakeGroup) -> None:
    make_run("sweep/two", [90, 80, 91])
    make_run("sweep/three", [90, 80, 70, 91])
    values = {"two": {"model.num_students": 2}, "three": {"model.num_students": 3}}
    table = summarise_group(make_group("sweep", "sweep", ["model.num_students"], values)).table()
    line = next(line for line in table.splitlines() if line.strip("| ").startswith("2 "))
    # 90/2 + 80 stands beside 90/3 + 80 · 2/3 + 70.
    assert cells(line) == ["2", "1", "90.00", "80.00", "—", "91.00", "85.00", "125.00"]
    assert "153.33" in table


def test_two_runs_of_one_place_are_refused(make_run: MakeRun, make_group: MakeGroup) -> None:
    make_run("sweep/a", [90, 80, 91])
    make_run("sweep/b", [90, 80, 91])
    path = make_group("sweep", "sweep", ["seed"], {"a": {"seed": 0}, "b": {"seed": 1}})
    with pytest.raises(InputError, match=r"sweep/b is a second run of S1 with seed 0"):
        summarise_group(path)


def test_summary_is_plain_data(make_run: MakeRun, make_group: MakeGroup) -> None:
    content = json.loads(json.dumps(summarise_group(sweep(make_run, make_group)).as_dict(), allow_nan=False))
    assert content["kind"] == "sweep"
    assert content["rows"][0]["values"] == {"objective.temperature": 1}
    assert content["rows"][0]["students"]["S2"] == {"mean": 80.0, "deviation": 0.0, "n": 3}
