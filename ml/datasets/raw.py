"""What a reader hands over, the split of datasets that have none, and the two ways in which reading fails."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml import spec


class DatasetMissing(Exception):
    """No such dataset lies in the datasets folder; says where it would be looked for and how to get it."""


class DatasetInvalid(Exception):
    """The dataset's files are there, but not what they should be; says what was found and what would be accepted."""


@dataclass(frozen=True, eq=False)
class Raw:
    """Arrays as they were read: images uint8 [N, C, H, W], labels integers [N] or none."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[Any] | None
    test_images: NDArray[np.uint8]
    test_labels: NDArray[Any] | None
    default_size: int | None = None
    """Side at which the images are seen unless asked otherwise; None: as they are."""


def split(images: NDArray[np.uint8], labels: NDArray[Any] | None, default_size: int | None = None) -> Raw:
    """Hold out `spec.held_out` of the items: the same ones in every run and for every seed."""
    order = np.random.default_rng(0).permutation(len(images))
    test, train = np.split(order, [spec.held_out(len(images))])
    return Raw(
        train_images=images[train],
        train_labels=None if labels is None else labels[train],
        test_images=images[test],
        test_labels=None if labels is None else labels[test],
        default_size=default_size,
    )


def missing(name: str, where: Path, how: str) -> DatasetMissing:
    """The error for a dataset that is not at `where`."""
    return DatasetMissing(f"dataset {name!r} is not there: {where} does not exist; {how}")
