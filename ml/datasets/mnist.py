"""MNIST in torchvision's folder, read from its IDX files. LeCun, Cortes, Burges: yann.lecun.com/exdb/mnist."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.datasets.raw import DatasetInvalid, Raw, missing


def read(root: Path) -> Raw:
    """The official split: 60 000 and 10 000 images of 28x28."""
    folder = root / "mnist" / "MNIST" / "raw"
    return Raw(
        train_images=_images(folder / "train-images-idx3-ubyte"),
        train_labels=_idx(folder / "train-labels-idx1-ubyte", dimensions=1),
        test_images=_images(folder / "t10k-images-idx3-ubyte"),
        test_labels=_idx(folder / "t10k-labels-idx1-ubyte", dimensions=1),
    )


def _images(path: Path) -> NDArray[np.uint8]:
    return _idx(path, dimensions=3)[:, None]


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: 0, 0, 8 (unsigned byte), dimensions; each dimension as a big-endian 32-bit integer; the data."""
    if not path.is_file():
        raise missing("mnist", path, f"download it with: python -m ml.datasets.download mnist --root {path.parents[3]}")
    content = path.read_bytes()
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)):
        raise DatasetInvalid(f"{path} begins with {content[:4].hex()}, but an IDX file begins with 000008{dimensions:02x}")
    shape = np.frombuffer(content[4:start], dtype=">u4").astype(int)
    if len(content) != start + shape.prod():
        raise DatasetInvalid(f"{path} has {len(content)} bytes, but its header promises {start + shape.prod()}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
