"""Checkpoints and the files they are: whole or absent, and never executed."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from codistill.atomic import write_atomically
from codistill.training.checkpoint import load_newest_checkpoint, save_checkpoint
from codistill.training.state import Progress


def state(step: int) -> dict[str, Any]:
    weight = torch.arange(48.0).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last) + step
    return {
        "step": step,
        "weight": weight,
        "generator": torch.get_rng_state(),
        "best": {"S1": (3, 0.5)},
        "sums": {"loss": 0.1},
        "none": None,
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other) and one.stride() == other.stride()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert load_newest_checkpoint(tmp_path) == (None, [])
    assert load_newest_checkpoint(tmp_path / "nowhere") == (None, [])


def test_what_is_saved_comes_back_with_values_types_and_strides(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(7), step=7, keep=1)

    loaded, torn = load_newest_checkpoint(tmp_path)

    assert same(loaded, state(7))
    assert torn == []
    assert names(tmp_path) == ["step-000000007.pt"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(keep: int, tmp_path: Path) -> None:
    for step in (8, 9, 10, 99, 100):
        save_checkpoint(tmp_path, state(step), step=step, keep=keep)

    assert names(tmp_path) == [f"step-{step:09d}.pt" for step in (8, 9, 10, 99, 100)[-keep:]]
    loaded, _ = load_newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 100


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(5), step=5, keep=2)
    save_checkpoint(tmp_path, state(6), step=5, keep=2)

    loaded, _ = load_newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 6


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, (f"open({str(self.path)!r}, 'w')",))


def newest_and_older(folder: Path) -> Path:
    save_checkpoint(folder, state(1), step=1, keep=2)
    save_checkpoint(folder, state(2), step=2, keep=2)
    return folder / "step-000000002.pt"


def assert_passed_over(newest: Path) -> None:
    loaded, torn = load_newest_checkpoint(newest.parent)
    assert same(loaded, state(1))
    assert torn == [newest]


def test_a_truncated_one_is_passed_over(tmp_path: Path) -> None:
    newest = newest_and_older(tmp_path)
    content = newest.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        newest.write_bytes(content[:length])
        assert_passed_over(newest)


def test_a_flipped_bit_is_never_taken_for_good(tmp_path: Path) -> None:
    """Of every 37th byte one bit is flipped: either the checksum tells, or it lay in what nobody reads."""
    newest = newest_and_older(tmp_path)
    content = newest.read_bytes()
    told = 0
    for position in range(0, len(content), 37):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        newest.write_bytes(flipped)
        loaded, torn = load_newest_checkpoint(tmp_path)
        assert same(loaded, state(1 if torn else 2)), position
        told += bool(torn)

    assert told > len(content) / 37 / 2
    # A bit of a tensor, above all, is always told.
    numbers = state(2)["weight"].permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    flipped = bytearray(content)
    flipped[content.index(numbers) + 5] ^= 4
    newest.write_bytes(flipped)
    assert_passed_over(newest)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4096, b"PK\x03\x04", b"[1, 2]", pickle.dumps({"step": 3})], ids=range(5)
)
def test_another_file_is_passed_over(content: bytes, tmp_path: Path) -> None:
    newest = newest_and_older(tmp_path)
    newest.write_bytes(content)

    assert_passed_over(newest)


def test_a_folder_or_something_else_than_a_state_is_passed_over(tmp_path: Path) -> None:
    newest = newest_and_older(tmp_path)
    torch.save([1, 2], newest)
    assert_passed_over(newest)
    newest.unlink()
    newest.mkdir()
    assert_passed_over(newest)


def test_nothing_in_it_is_executed(tmp_path: Path) -> None:
    newest = newest_and_older(tmp_path)
    executed = tmp_path.parent / "executed"

    torch.save({"step": Malicious(executed)}, newest)
    assert_passed_over(newest)
    newest.write_bytes(pickle.dumps(Malicious(executed)))
    assert_passed_over(newest)

    assert not executed.exists()


def test_all_torn_is_none(tmp_path: Path) -> None:
    newest = newest_and_older(tmp_path)
    older = tmp_path / "step-000000001.pt"
    for path in (newest, older):
        path.write_bytes(b"")

    assert load_newest_checkpoint(tmp_path) == (None, [newest, older])


def test_a_torn_one_of_a_later_step_does_not_push_out_the_good_one(tmp_path: Path) -> None:
    """A run goes on from step 1, since step 9 is torn, and keeps a single checkpoint."""
    (tmp_path / "step-000000009.pt").write_bytes(b"torn")

    for step in (1, 2):
        save_checkpoint(tmp_path, state(step), step=step, keep=1)
        loaded, _ = load_newest_checkpoint(tmp_path)
        assert same(loaded, state(step))
    for step in (9, 10):
        save_checkpoint(tmp_path, state(step), step=step, keep=1)

    assert names(tmp_path) == ["step-000000010.pt"]


class TestWriteAtomically:
    @pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
    def test_a_failure_leaves_the_old_file_and_nothing_else(
        self, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "x.json"
        file.write_bytes(b"old")

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(call, full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(file, b"new" * 1000)

        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.json": b"old"}

    def test_the_name_is_given_only_when_all_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[bytes] = []

        def note(self: Path, target: Path) -> None:
            seen.append(self.read_bytes())
            assert not target.exists()
            assert self.parent == target.parent  # Only within a folder is a rename atomic.
            self.rename(target)

        monkeypatch.setattr(Path, "replace", note)
        write_atomically(tmp_path / "x", b"all of it")

        assert seen == [b"all of it"]
        assert names(tmp_path) == ["x"]

    def test_a_checkpoint_that_could_not_be_written_drops_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        newest_and_older(tmp_path)

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(tmp_path, state(3), step=3, keep=1)

        assert names(tmp_path) == ["step-000000001.pt", "step-000000002.pt"]


class TestProgress:
    def test_losses_are_the_mean_over_images_not_over_steps(self) -> None:
        progress = Progress()

        progress.add({"loss": 1.0}, images=10)
        progress.add({"loss": 4.0}, images=5)

        assert (progress.step, progress.images, progress.means()) == (2, 15, {"loss": 2.0})

    def test_the_next_epoch_begins_from_nothing_but_what_lasts(self) -> None:
        progress = Progress(
            epoch=2,
            step=7,
            images=9,
            sums={"loss": 1.0},
            seconds=3.0,
            total_seconds=10.0,
            best={"S1": (1, 0.5)},
        )

        progress.next_epoch(validation_seconds=0.5)

        assert progress == Progress(epoch=3, total_seconds=13.5, best={"S1": (1, 0.5)})

    def test_it_survives_a_checkpoint(self, tmp_path: Path) -> None:
        progress = Progress(
            epoch=1,
            step=2,
            images=3,
            sums={"loss": 0.1},
            seconds=0.2,
            best={"S1": (1, 0.9), "teacher": (2, 1.0)},
        )

        save_checkpoint(tmp_path, {"progress": progress.state_dict()}, step=1, keep=1)
        loaded, _ = load_newest_checkpoint(tmp_path)

        assert loaded is not None
        assert Progress.from_state_dict(loaded["progress"]) == progress
