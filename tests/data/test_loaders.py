"""The batches of an epoch depend on seed and epoch, on nothing else."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from copies import make_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from codistill.config import Config, DataConfig, completed
from codistill.data.augmentation import Augmentation
from codistill.data.images import Images, LabelledImages, MemoryImages, StreamedImages
from codistill.data.loaders import Batch, Data, Share, load_data, plain_batches, split_batches
from codistill.data.preprocessing import Preprocessing
from codistill.errors import InputError

SIZE = 4


def pixels_at(position: int) -> np.ndarray:
    return np.random.default_rng(position).integers(1, 256, (SIZE, SIZE, 1), dtype=np.uint8)


def read_or_fail(position: int) -> np.ndarray:
    if position == 7:
        raise InputError("pictures/seven.png: is no image")
    return pixels_at(position)


def labelled(count: int, *, streamed: bool = False) -> LabelledImages:
    images: Images
    if streamed:
        images = StreamedImages(pixels_at, count, (SIZE, SIZE, 1))
    else:
        stacked = np.stack([pixels_at(position) for position in range(count)])
        images = MemoryImages(torch.from_numpy(stacked))
    return LabelledImages(images=images, labels=torch.arange(count))  # A label tells which image it is.


def data_of(count: int = 23, *, streamed: bool = False, workers: int = 0, still: bool = False) -> Data:
    """Return data whose last two images are for validation."""
    images = labelled(count, streamed=streamed)
    return Data(
        train=images,
        test=labelled(3),
        train_positions=torch.arange(count - 2),
        validation_positions=torch.arange(count - 2, count),
        classes=("a", "b"),
        preprocessing=Preprocessing(height=SIZE, width=SIZE, channels=1, mean=(0.0,), std=(1 / 255,)),
        augmentation=Augmentation(crop_padding=0 if still else 1, horizontal_flip=not still),
        workers=workers,
    )


def epoch(data: Data, number: int = 0, **options: Any) -> list[Batch]:
    with warnings.catch_warnings():
        # On newer Pythons, a process with threads that forks workers is told so.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return list(data.epoch(number, **{"seed": 0, "batch_size": 5} | options))


def joined(batches: list[Batch]) -> Batch:
    return Batch(
        torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])
    )


def assert_equal(one: Batch, other: Batch) -> None:
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("batch_size", [2, 5, 7, 100, 2**62])
def test_every_training_image_comes_exactly_once(batch_size: int) -> None:
    batches = epoch(data_of(), batch_size=batch_size)

    assert sorted(joined(batches).labels.tolist()) == list(range(21))
    assert all(len(batch.labels) == batch_size for batch in batches[:-1])


def test_images_and_labels_belong_together() -> None:
    for batch in epoch(data_of(still=True)):
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            assert np.array_equal(image.round().numpy()[0], pixels_at(label)[:, :, 0])


def test_a_batch_is_the_augmented_images_normalised() -> None:
    data = data_of()
    data = replace(data, preprocessing=replace(data.preprocessing, mean=(0.4,), std=(0.2,)))
    draws = data.augmentation.draw(23, seed=3, epoch=1)

    for batch in epoch(data, 1, seed=3):
        images = torch.stack([torch.from_numpy(pixels_at(label)) for label in batch.labels.tolist()])
        assert torch.equal(batch.images, data.preprocessing(draws.apply(images, batch.labels)))
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_the_order_is_new_in_every_epoch_and_for_every_seed() -> None:
    data = data_of()
    orders = {
        tuple(joined(epoch(data, number, seed=seed)).labels.tolist()) for number in (0, 1) for seed in (0, 1)
    }

    assert len(orders) == 4
    assert tuple(range(21)) not in orders


def test_the_size_of_batches_changes_no_image() -> None:
    expected = joined(epoch(data_of(), batch_size=21))

    for batch_size in (2, 3, 5, 20):
        assert_equal(joined(epoch(data_of(), batch_size=batch_size)), expected)


def test_what_was_drawn_before_changes_nothing() -> None:
    expected = epoch(data_of(), 1)
    torch.manual_seed(99)
    data = data_of()
    epoch(data, 0)

    for one, other in zip(epoch(data, 1), expected, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("first", [0, 1, 3, 4])
def test_an_epoch_goes_on_from_any_batch(first: int) -> None:
    every = epoch(data_of())

    rest = epoch(data_of(), first=first)

    assert len(rest) == len(every) - first
    for one, other in zip(rest, every[first:], strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("processes", [2, 3])
def test_the_shares_of_all_processes_are_the_batch_of_one(processes: int) -> None:
    data = data_of(26)  # 24 to train on: batches of 8, 8, 8 and of 7, 7, 10.
    for batch_size in (8, 7):
        whole = epoch(data, batch_size=batch_size, share=Share())
        shares = [
            epoch(data, batch_size=batch_size, share=Share(rank=rank, processes=processes))
            for rank in range(processes)
        ]
        if batch_size == 7:
            # The last batch of 3 is one for a single process, too small for several.
            whole = [*whole[:-2], joined(whole[-2:])]
        for index, batch in enumerate(whole):
            for rank, share in enumerate(shares):
                assert_equal(
                    share[index], Batch(batch.images[rank::processes], batch.labels[rank::processes])
                )
        assert {len(share) for share in shares} == {len(whole)}


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_give_the_same_batches(workers: int) -> None:
    data = data_of(streamed=True, workers=workers)

    for number in (0, 1):
        for one, other in zip(epoch(data, number), epoch(data_of(), number), strict=True):
            assert_equal(one, other)
    for one, other in zip(epoch(data, first=3), epoch(data_of(), first=3), strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(workers: int) -> None:
    images = LabelledImages(images=StreamedImages(read_or_fail, 23, (SIZE, SIZE, 1)), labels=torch.arange(23))

    with pytest.raises(InputError, match=r"^pictures/seven\.png: is no image$"):
        epoch(replace(data_of(workers=workers), train=images))


@pytest.mark.parametrize(
    ("count", "batch_size", "processes", "sizes"),
    [
        (10, 5, 1, [5, 5]),
        (12, 5, 1, [5, 5, 2]),
        (11, 5, 1, [5, 6]),
        (3, 2, 1, [3]),
        (1, 5, 1, [1]),
        (4, 5, 1, [4]),
        (13, 5, 2, [5, 8]),
        (14, 5, 2, [5, 5, 4]),
    ],
)
def test_a_last_batch_too_small_is_joined_to_the_one_before(
    count: int, batch_size: int, processes: int, sizes: list[int]
) -> None:
    data = replace(data_of(count + 2), train_positions=torch.arange(count))

    batches = split_batches(torch.arange(count), batch_size, smallest=2 * processes)

    assert [len(batch) for batch in batches] == sizes
    assert torch.equal(torch.cat(batches), torch.arange(count))
    assert data.batches_per_epoch(batch_size, processes) == len(sizes)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(2, 20), st.integers(1, 4))
def test_no_process_is_left_with_a_single_image(count: int, batch_size: int, processes: int) -> None:
    batch_size = max(batch_size, 2 * processes)

    batches = split_batches(torch.arange(count), batch_size, smallest=2 * processes)

    for batch in batches:
        shares = [len(batch[rank::processes]) for rank in range(processes)]
        assert sum(shares) == len(batch)
        assert len(batches) == 1 or min(shares) >= 2


@pytest.mark.parametrize("streamed", [False, True])
def test_evaluation_is_in_order_without_augmentation(streamed: bool) -> None:
    data = replace(data_of(streamed=streamed), evaluation_batch_size=4)
    cpu = torch.device("cpu")

    validation = joined(list(data.validation_batches(cpu, torch.float32)))
    test = joined(list(data.test_batches(cpu, torch.float64)))
    every = list(plain_batches(data.train, data.preprocessing, batch_size=4))

    assert validation.labels.tolist() == [21, 22]
    assert test.labels.tolist() == [0, 1, 2]
    assert test.images.dtype == torch.float64
    assert [len(batch.labels) for batch in every] == [4, 4, 4, 4, 4, 3]
    for images, labels in (validation, test, joined(every)):
        for image, label in zip(images, labels.tolist(), strict=True):
            assert np.array_equal(image.round().numpy()[0], pixels_at(label)[:, :, 0])


class TestLoadData:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> dict[str, Any]:
        return make_folder(tmp_path / "pictures", per_class=10, classes=("cat", "dog"), size=(8, 8))

    def load(self, folder: dict[str, Any], **options: Any) -> Data:
        config = DataConfig(source="folder", **{"crop_padding": 1} | folder | options)
        return load_data(completed(Config(data=config)).data)

    def test_validation_images_are_not_trained_on(self, folder: dict[str, Any]) -> None:
        data = self.load(folder, validation_fraction=0.25)

        trained, validation = set(data.train_positions.tolist()), set(data.validation_positions.tolist())
        assert trained.isdisjoint(validation)
        assert trained | validation == set(range(len(data.train)))
        assert len(validation) == 2 * round(0.25 * len(data.train) / 2)
        seen = joined(epoch(data)).labels
        assert len(seen) == len(trained)

    def test_the_split_has_a_seed_of_its_own(self, folder: dict[str, Any]) -> None:
        splits = [self.load(folder, validation_fraction=0.4, split_seed=seed) for seed in (0, 0, 1)]

        assert torch.equal(splits[0].validation_positions, splits[1].validation_positions)
        assert not torch.equal(splits[0].validation_positions, splits[2].validation_positions)

    def test_the_normalisation_is_that_of_the_images_trained_on(self, folder: dict[str, Any]) -> None:
        data = self.load(folder, validation_fraction=0.4)
        assert isinstance(data.train.images, MemoryImages)
        chosen = data.train.images.images_NHWC[data.train_positions].numpy().reshape(-1, 3) / 255

        assert data.preprocessing.mean == pytest.approx(chosen.mean(0).round(4))
        assert data.preprocessing.std == pytest.approx(chosen.std(0).round(4))
        assert self.load(folder, normalize=False).preprocessing.mean == (0.0, 0.0, 0.0)

    def test_a_fraction_too_small_for_one_image_is_refused(self, folder: dict[str, Any]) -> None:
        with pytest.raises(InputError, match=r"data\.validation_fraction 0\.01 leaves no validation image"):
            self.load(folder, validation_fraction=0.01)
        assert len(self.load(folder, validation_fraction=0.0).validation_positions) == 0

    def test_a_padding_beyond_the_image_is_refused(self, folder: dict[str, Any]) -> None:
        with pytest.raises(
            InputError, match=r"data\.crop_padding must be at most the images' 8 pixels, not 9"
        ):
            self.load(folder, crop_padding=9)
        assert self.load(folder, crop_padding=8).augmentation.crop_padding == 8

    def test_the_fingerprint_tells_data_apart(self, folder: dict[str, Any]) -> None:
        one, other = self.load(folder), self.load(folder, validation_fraction=0.3)

        assert one.fingerprint() == self.load(folder).fingerprint()
        assert one.fingerprint() != other.fingerprint()

    def test_statistics_for_another_number_of_channels_are_refused(self, folder: dict[str, Any]) -> None:
        config = DataConfig(source="folder", **folder, mean=(0.5,), std=(0.5,))
        with pytest.raises(InputError, match=r"data.mean must be 3 numbers, one for each channel"):
            load_data(config)
