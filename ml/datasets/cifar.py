"""CIFAR-10 and CIFAR-100 from their binary distributions, never the pickles. Krizhevsky 2009: cs.toronto.edu/~kriz/cifar.html."""

from pathlib import Path

import numpy as np

from ml.datasets.raw import Array, DatasetInvalid, Part, Raw, missing

PIXELS = 3 * 32 * 32  # the red, the green and the blue plane


def read_cifar10(folder: Path) -> Raw:
    """The official split, 50 000 and 10 000 images of 32x32 in 10 classes, from `cifar-10-batches-bin`."""
    batches = [_records(folder / f"data_batch_{number}.bin", label_bytes=1) for number in range(1, 6)]
    return Raw(_part(*batches), _part(_records(folder / "test_batch.bin", label_bytes=1)))


def read_cifar100(folder: Path) -> Raw:
    """The official split, 50 000 and 10 000 images of 32x32 in 100 fine classes, from `cifar-100-binary`."""
    return Raw(_part(_records(folder / "train.bin", label_bytes=2)), _part(_records(folder / "test.bin", label_bytes=2)))


def _records(path: Path, label_bytes: int) -> Array:
    """Images [N, label and pixels]; of several labels the finest one, which stands just before the pixels."""
    if not path.is_file():
        raise missing(path.parts[-3], path, "download it again")
    size, record = path.stat().st_size, label_bytes + PIXELS
    if size == 0 or size % record:
        raise DatasetInvalid(f"{path} has {size} bytes, which is no multiple of the {record} bytes of an image")
    return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, record)[:, label_bytes - 1 :]


def _part(*batches: Array) -> Part:
    records = np.concatenate(batches)
    return Part((records[:, 1:].reshape(-1, 3, 32, 32),), records[:, 0])
