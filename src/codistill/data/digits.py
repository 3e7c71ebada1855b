"""The digits embedded in scikit-learn: the default data, which needs no files."""

import numpy as np

from codistill.config.data import DataConfig
from codistill.data.arrays import in_memory
from codistill.data.held_out import held_out
from codistill.data.images import SourceData


def load_digits(config: DataConfig) -> SourceData:
    """Load 1,797 grey 8×8 images of handwritten digits, uint8 [n, 8, 8, 1].

    They come without a test set: 20 % of each class is held out, drawn with seed 0 whatever the config.
    """
    from sklearn import datasets

    del config  # Nothing of it matters here.
    digits = datasets.load_digits()
    classes = tuple(str(digit) for digit in range(10))
    # Pixels are whole numbers from 0 to 16, of which 16 is white.
    images_NHWC = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels_n = digits.target.astype(np.int64)
    train, test = held_out(labels_n, classes, "digits")
    return SourceData(
        train=in_memory(images_NHWC[train], labels_n[train]),
        test=in_memory(images_NHWC[test], labels_n[test]),
        classes=classes,
    )
