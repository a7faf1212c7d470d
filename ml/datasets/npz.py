"""Any npz of uint8 images: `x` with optional `y` and `split`, or the four arrays of MedMNIST (Yang et al. 2023)."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.datasets.raw import DatasetInvalid, Raw, missing, split
from ml.spec import npz_version

LAYOUTS = (
    "keys x [N, H, W] or [N, H, W, C] with optional y [N] and split [N], or train_images, train_labels, test_images, test_labels"
)


def read(root: Path, name: str) -> Raw:
    """`root/NAME.npz`, or the same in any folder directly under `root`."""
    return read_file(find(root, name))


def find(root: Path, name: str) -> Path:
    """The file. Raises DatasetMissing."""
    for path in (root / f"{name}.npz", *sorted(root.glob(f"*/{name}.npz"))):
        if path.is_file():
            return path
    raise missing(name, root / f"{name}.npz", f"put it there, an npz with {LAYOUTS}")


def version(root: Path, name: str) -> str:
    """What the file holds, as a digest. Raises DatasetMissing or DatasetInvalid."""
    path = find(root, name)
    try:
        return npz_version(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DatasetInvalid(f"{path} cannot be read as an npz of plain arrays: {error}") from None


def read_file(path: Path) -> Raw:
    """Images uint8 with the channels last or absent, labels integers [N] or [N, 1].

    `split` says `train` or `test`, or 0 or 1, for each item; without it the same 40 % are held out each time.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {
                key: archive[key]
                for key in ("x", "y", "split", "train_images", "train_labels", "test_images", "test_labels")
                if key in archive.files
            }
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise DatasetInvalid(f"{path} cannot be read as an npz of plain arrays: {error}") from None
    if "x" in arrays:
        return _one_array(path, arrays)
    if {"train_images", "test_images"} <= arrays.keys():
        return _two_splits(path, arrays)
    raise DatasetInvalid(f"{path} has none of the layouts understood: {LAYOUTS}")


def _one_array(path: Path, arrays: dict[str, NDArray[Any]]) -> Raw:
    images = _images(path, "x", arrays["x"])
    labels = _labels(path, "y", arrays["y"], len(images)) if "y" in arrays else None
    if "split" not in arrays:
        return _large_enough(path, split(images, labels))
    parts = arrays["split"]
    if parts.shape != (len(images),):
        raise DatasetInvalid(f"{path}: split has shape {parts.shape}, but x has {len(images)} items")
    train, test = (parts == "train", parts == "test") if parts.dtype.kind == "U" else (parts == 0, parts == 1)
    if not np.all(train | test):
        raise DatasetInvalid(
            f"{path}: split says {parts[~(train | test)][0]!r}; only 'train' and 'test', or 0 and 1, are understood"
        )
    raw = Raw(images[train], None if labels is None else labels[train], images[test], None if labels is None else labels[test])
    return _large_enough(path, raw)


def _two_splits(path: Path, arrays: dict[str, NDArray[Any]]) -> Raw:
    train, test = (_images(path, key, arrays[key]) for key in ("train_images", "test_images"))
    if train.shape[1:] != test.shape[1:]:
        raise DatasetInvalid(f"{path}: training images are {train.shape[1:]} (C, H, W), but test images {test.shape[1:]}")
    labels = [
        _labels(path, key, arrays[key], len(images)) if key in arrays else None
        for key, images in (("train_labels", train), ("test_labels", test))
    ]
    if (labels[0] is None) != (labels[1] is None):
        raise DatasetInvalid(f"{path}: train_labels and test_labels belong together, but only one of them is there")
    return _large_enough(path, Raw(train, labels[0], test, labels[1]))


def _images(path: Path, key: str, images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise DatasetInvalid(f"{path}: {key} is {images.dtype}; images must be uint8, from 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DatasetInvalid(f"{path}: {key} has shape {images.shape}; images must be [N, H, W] or [N, H, W, C]")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _labels(path: Path, key: str, labels: NDArray[Any], items: int) -> NDArray[Any]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (items,) or labels.dtype.kind not in "iu":
        raise DatasetInvalid(f"{path}: {key} is {labels.dtype} {labels.shape}; labels must be {items} integers, one an item")
    return labels


def _large_enough(path: Path, raw: Raw) -> Raw:
    train, test = len(raw.train_images), len(raw.test_images)
    if min(train, test) < 8:
        raise DatasetInvalid(f"{path} has {train} training and {test} test items; at least 8 of each are needed")
    return raw
