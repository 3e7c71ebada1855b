"""From arrays that a source has read to labelled images in memory.

Shapes: n images, H height, W width, C channels.
"""

from collections.abc import Sequence

import numpy as np
import torch

from codistill.data.images import LabelledImages, MemoryImages
from codistill.errors import InputError


def checked_labels(labels: Sequence[int] | np.ndarray, num_classes: int, where: str) -> np.ndarray:
    """Return labels as int64 [n]; `InputError` naming `where` unless all are in 0 … num_classes - 1."""
    labels_n = np.asarray(labels, dtype=np.int64)
    if len(labels_n) == 0:
        raise InputError(f"{where}: holds no images")
    outside = np.flatnonzero((labels_n < 0) | (labels_n >= num_classes))
    if len(outside):
        row = int(outside[0])
        raise InputError(f"{where}: label {labels_n[row]} of image {row} is outside 0 to {num_classes - 1}")
    return labels_n


def in_memory(images_NHWC: np.ndarray, labels_n: np.ndarray) -> LabelledImages:
    """Return uint8 images [n, H, W, C] and int64 labels [n] as labelled images held in memory."""
    images = MemoryImages(torch.from_numpy(np.ascontiguousarray(images_NHWC)))
    return LabelledImages(images=images, labels=torch.from_numpy(labels_n))
