"""CIFAR-10 from its binary distribution, or from an npz. Krizhevsky 2009: cs.toronto.edu/~kriz/cifar.html."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.datasets import npz
from ml.datasets.raw import DatasetInvalid, Raw, missing

RECORD = 1 + 3 * 32 * 32  # one byte of label, then the red, the green and the blue plane


def read(root: Path) -> Raw:
    """The official split, 50 000 and 10 000 images of 32x32, from `cifar-10-batches-bin` or `cifar10.npz`; never the pickles."""
    folder = root / "cifar10" / "cifar-10-batches-bin"
    archive = root / "cifar10" / "cifar10.npz"
    if archive.is_file() and not folder.is_dir():
        return npz.read_file(archive)
    train_images, train_labels = zip(*(_batch(folder / f"data_batch_{number}.bin") for number in range(1, 6)), strict=True)
    test_images, test_labels = _batch(folder / "test_batch.bin")
    return Raw(np.concatenate(train_images), np.concatenate(train_labels), test_images, test_labels)


def _batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if not path.is_file():
        raise missing(
            "cifar10",
            path,
            f"download it with: python -m ml.datasets.download cifar10 --root {path.parents[2]} (the binary version; or put "
            f"{path.parents[1] / 'cifar10.npz'} there)",
        )
    content = np.fromfile(path, dtype=np.uint8)
    if len(content) == 0 or len(content) % RECORD:
        raise DatasetInvalid(f"{path} has {len(content)} bytes, which is no multiple of the {RECORD} bytes of an image")
    records = content.reshape(-1, RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
