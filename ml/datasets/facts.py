"""What must be known of a dataset, from what was read of it."""

import numpy as np

from ml import spec
from ml.datasets.raw import Indices, Raw

LARGEST_SIZE = 512


def facts_of(name: str, version: str | None, raw: Raw) -> spec.DatasetFacts:
    """Counts of items, and the shape and classes of an item."""
    first, *_ = raw.train.arrays
    labels = class_indices(raw)
    return spec.DatasetFacts(
        name=name,
        layout=raw.layout,
        train=len(raw.train),
        test=len(raw.test),
        labelled=None if labels is None or (labels[0] >= 0).all() else int((labels[0] >= 0).sum()),
        channels=3 if raw.layout == "photos" else first.shape[-3],
        channels2=raw.train.arrays[1].shape[1] if raw.layout == "paired" else None,
        image_size=default_size(raw),
        smallest_side=raw.smallest_side,
        frames=first.shape[1] if raw.layout == "clips" else None,
        dtype=first.dtype.name,
        classes=None if labels is None else len(class_numbers(raw)),
        version=version,
    )


def default_size(raw: Raw) -> int:
    """Side in pixels at which images are seen unless asked otherwise: their own, up to what a spec accepts."""
    return raw.default_size or min(*raw.train.arrays[0].shape[-2:], LARGEST_SIZE)


def class_numbers(raw: Raw) -> Indices:
    """The labels that occur in either split, in their order: the first is class 0, whatever its number.

    None where a split has no label, or all labels are the same: there would be nothing to learn from, or nothing to tell apart.
    """
    train, test = (np.empty(0, np.int64) if part.labels is None else part.labels[part.labels >= 0] for part in raw.parts)
    numbers = np.union1d(train, test).astype(np.int64)
    return numbers if min(len(train), len(test)) > 0 and len(numbers) > 1 else numbers[:0]


def class_indices(raw: Raw) -> tuple[Indices, Indices] | None:
    """Labels of the two splits, counted from 0 without a gap and -1 where there is none; None without classes."""
    numbers = class_numbers(raw)
    if raw.train.labels is None or raw.test.labels is None or not len(numbers):
        return None
    train, test = (
        np.where(labels >= 0, np.searchsorted(numbers, labels), -1)
        for labels in (raw.train.labels.astype(np.int64), raw.test.labels.astype(np.int64))
    )
    return train, test


def class_names(raw: Raw) -> tuple[str, ...] | None:
    """Of the classes that occur, where there are any and the dataset names them all."""
    numbers = class_numbers(raw)
    if raw.class_names is None or not len(numbers) or numbers[-1] >= len(raw.class_names):
        return None
    return tuple(raw.class_names[number] for number in numbers)
