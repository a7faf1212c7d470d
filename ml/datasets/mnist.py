"""MNIST and Fashion-MNIST in torchvision's folders, read from their IDX files.

LeCun, Cortes, Burges: yann.lecun.com/exdb/mnist; Xiao, Rasul, Vollgraf 2017.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.datasets.raw import DatasetInvalid, Part, Raw, missing


def read(folder: Path) -> Raw:
    """The official split of either: 60 000 and 10 000 images of 28x28 in 10 classes."""
    train, test = (
        Part((_images(folder / f"{part}-images-idx3-ubyte"),), _idx(folder / f"{part}-labels-idx1-ubyte", dimensions=1))
        for part in ("train", "t10k")
    )
    return Raw(train, test)


def _images(path: Path) -> NDArray[np.uint8]:
    return _idx(path, dimensions=3)[:, None]


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: 0, 0, 8 (unsigned byte), dimensions; each dimension as a big-endian 32-bit integer; the data."""
    if not path.is_file():
        raise missing(path.parts[-4], path, "download it again")
    content = path.read_bytes()
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)):
        raise DatasetInvalid(f"{path} begins with {content[:4].hex()}, but an IDX file begins with 000008{dimensions:02x}")
    shape = np.frombuffer(content[4:start], dtype=">u4").astype(int)
    if len(content) != start + shape.prod():
        raise DatasetInvalid(f"{path} has {len(content)} bytes, but its header promises {start + shape.prod()}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
