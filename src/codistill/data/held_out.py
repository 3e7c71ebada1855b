"""A test set for sources that come without one."""

from collections.abc import Sequence

import numpy as np
import torch

from codistill.data.split import stratified_split
from codistill.errors import InputError

TEST_FRACTION = 0.2
TEST_SEED = 0
_FEWEST = 3  # Of two images a fifth is none.


def held_out(labels_n: np.ndarray, classes: Sequence[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Split positions into those to train on and 20 % of every class to test on, both ascending.

    The draw depends on the labels alone (seed 0), never on a run's seeds, so all runs report on the same
    images. `InputError` names a class that is too small to share.
    """
    for label, name in enumerate(classes):
        count = int(np.sum(labels_n == label))
        if count < _FEWEST:
            raise InputError(
                f"{where}: class {name!r} has {count} images; {_FEWEST} are needed to hold out a test set"
            )
    train, test = stratified_split(torch.from_numpy(labels_n), TEST_FRACTION, TEST_SEED)
    return train.numpy(), test.numpy()
