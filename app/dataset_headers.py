"""The facts of datasets from the headers and the listings of their files: no torch, no pixels. `ml.datasets` reads the rest."""

import struct
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from ml import spec
from ml.spec import DatasetFacts

LEAST_ITEMS = 8  # in each split
LEAST_SIDE = 8  # pixels, of stored images
LARGEST_SIZE = 512  # pixels at which images are seen by default
LONGEST_HEADER = 10_000  # bytes of an npy's, as numpy has it
FOLDER_SIZE = 64  # pixels at which images of folders are seen by default
UNREADABLE = (ValueError, OSError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
PHOTOS = "photos"  # the folder in which folders hold photographs, without classes

_CIFAR_PIXELS = 3 * 32 * 32
_STL10_PIXELS = 3 * 96 * 96


class Refused(ValueError):
    """The files are not what they should be; says why."""


# Published datasets, by the folder of their originals -------------------------------------------------------------------


def mnist(name: str, folder: Path) -> DatasetFacts:
    """MNIST and Fashion-MNIST as IDX files."""
    counts = []
    for part in ("train", "t10k"):
        with (folder / f"{part}-images-idx3-ubyte").open("rb") as file:
            _, items, height, width = struct.unpack(">4i", file.read(16))
        for sort, size in (("images-idx3", 16 + items * height * width), ("labels-idx1", 8 + items)):
            if (folder / f"{part}-{sort}-ubyte").stat().st_size != size:
                raise Refused(f"{part}-{sort}-ubyte is not of the length that its header promises")
        counts.append(items)
    return DatasetFacts(name=name, train=counts[0], test=counts[1], channels=1, image_size=28, classes=10)


def cifar10(name: str, folder: Path) -> DatasetFacts:
    """CIFAR-10, one byte of label."""
    train = sum(_records(folder / f"data_batch_{number}.bin", 1 + _CIFAR_PIXELS) for number in range(1, 6))
    test = _records(folder / "test_batch.bin", 1 + _CIFAR_PIXELS)
    return DatasetFacts(name=name, train=train, test=test, channels=3, image_size=32, classes=10)


def cifar100(name: str, folder: Path) -> DatasetFacts:
    """CIFAR-100, two bytes of labels."""
    train, test = (_records(folder / f"{part}.bin", 2 + _CIFAR_PIXELS) for part in ("train", "test"))
    return DatasetFacts(name=name, train=train, test=test, channels=3, image_size=32, classes=100)


def stl10(name: str, folder: Path) -> DatasetFacts:
    """STL-10, with its unlabelled images where they are there."""
    train, test = (_records(folder / f"{part}_X.bin", _STL10_PIXELS) for part in ("train", "test"))
    for part, items in (("train", train), ("test", test)):
        if _records(folder / f"{part}_y.bin", 1) != items:
            raise Refused(f"{part}_y.bin has not one label for each of {items} images")
    unlabelled = folder / "unlabeled_X.bin"
    more = _records(unlabelled, _STL10_PIXELS) if unlabelled.is_file() else 0
    labelled = train if more else None
    return DatasetFacts(name=name, train=train + more, test=test, labelled=labelled, channels=3, image_size=96, classes=10)


def _records(path: Path, size: int) -> int:
    records, rest = divmod(path.stat().st_size, size)
    if rest or not records:
        raise Refused(f"{path.name} has {path.stat().st_size} bytes, which is no multiple of {size}")
    return records


# npz ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    name: spec.Layout
    arrays: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...] = ("y",)
    dimensions: tuple[int, int] = (3, 4)


_LAYOUTS = (
    _Layout("images", (("x",),)),
    _Layout("clips", (("clips",),), dimensions=(4, 5)),
    _Layout("paired", (("v1",), ("v2",))),
    _Layout("images", (("train_images", "test_images"),), labels=("train_labels", "test_labels")),
)
_SMALL = ("y", "split", "train_labels", "test_labels")


@lru_cache(maxsize=256)
def npz(name: str, path: Path, _mtime: int, _size: int) -> DatasetFacts:
    """Arrays in one of the layouts that `ml.datasets.npz` reads, or images as JPEG or PNG. Raises Refused."""
    headers, small, first_image = _read_npz(path)
    if first_image is not None:
        return _encoded(name, path, headers, small, first_image)
    found = [layout for layout in _LAYOUTS if all(key in headers for keys in layout.arrays for key in keys)]
    if len(found) != 1:
        raise Refused("it has none of the layouts understood, or several of them")
    (layout,) = found
    counts = [[headers[key][0][0] for key in keys] for keys in layout.arrays]
    shapes = [{_item(key, layout, *headers[key]) for key in keys} for keys in layout.arrays]
    if any(len(alike) > 1 for alike in shapes) or any(count != counts[0] for count in counts):
        raise Refused("arrays that belong together do not fit each other")
    (*frames, channels, height, width), dtype = next(iter(shapes[0]))
    is_test = _is_test(counts[0], small.get("split"))
    labels = _labels(layout.labels, counts[0], small, is_test)
    training = None if labels is None else labels[~is_test]
    return DatasetFacts(
        name=name,
        layout=layout.name,
        train=int((~is_test).sum()),
        test=int(is_test.sum()),
        labelled=None if training is None or (training >= 0).all() else int((training >= 0).sum()),
        channels=channels,
        channels2=next(iter(shapes[1]))[0][-3] if layout.name == "paired" else None,
        image_size=min(height, width, LARGEST_SIZE),
        frames=frames[0] if frames else None,
        dtype=dtype,
        classes=None if labels is None else len(np.unique(labels[labels >= 0])),
        version=spec.npz_version(path),
    )


def _read_npz(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], Any]], dict[str, Any], bytes | None]:
    """(Shape, type) of all arrays, the small ones themselves, and the beginning of the first image where images are encoded."""
    try:
        headers, first_image = {}, None
        with zipfile.ZipFile(path) as archive:
            for member in (name for name in archive.namelist() if name.endswith(".npy")):
                with archive.open(member) as file:
                    headers[member.removesuffix(".npy")] = header(file)
                    if member == "train_bytes.npy":
                        first_image = file.read(2**20)
        with np.load(path, allow_pickle=False) as archive:
            return headers, {key: archive[key] for key in _SMALL if key in archive.files}, first_image
    except UNREADABLE as error:
        raise Refused(str(error)) from None


def header(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    """Shape and type of an open npy, which stands at its numbers then. Raises one of UNREADABLE."""
    read = {(1, 0): (2, np.lib.format.read_array_header_1_0), (2, 0): (4, np.lib.format.read_array_header_2_0)}
    digits, parse = read[np.lib.format.read_magic(file)]
    length = file.read(digits)
    if (claimed := int.from_bytes(length, "little")) > LONGEST_HEADER:  # numpy would read it all before it says so
        raise ValueError(f"an array's header of {claimed} bytes; at most {LONGEST_HEADER} are read")
    shape, _, dtype = parse(BytesIO(length + file.read(claimed)))
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which would have to be unpickled")
    if any(side < 0 for side in shape):
        raise ValueError(f"an array's shape is {shape}")
    return shape, dtype


def _item(key: str, layout: _Layout, shape: tuple[int, ...], dtype: Any) -> tuple[tuple[int, ...], str]:
    """Shape of an item with its channels first, and its type."""
    if dtype not in (np.uint8, np.uint16, np.float32) or len(shape) not in layout.dimensions or 0 in shape[1:]:
        raise Refused(f"{key} is {dtype} of shape {shape}")
    *frames, height, width, channels = shape[1:] if len(shape) == layout.dimensions[1] else (*shape[1:], 1)
    if min(height, width) < LEAST_SIDE or (layout.name == "clips" and frames[0] < 2):
        raise Refused(f"{key} has shape {shape}: too few pixels or frames")
    return (*frames, channels, height, width), dtype.name


def _is_test(counts: Sequence[int], split: Any) -> Any:
    """Of each item whether it is held out."""
    items = sum(counts)
    if len(counts) == 2:
        chosen = np.arange(items) >= counts[0]
    elif split is None:
        chosen = np.isin(np.arange(items), np.random.default_rng(0).permutation(items)[: spec.held_out(items)])
    else:
        train, chosen = (split == "train", split == "test") if split.dtype.kind == "U" else (split == 0, split == 1)
        if split.shape != (items,) or not np.all(train | chosen):
            raise Refused("split must say 'train' or 'test', or 0 or 1, for each item")
    _require_items(int((~chosen).sum()), int(chosen.sum()))
    return chosen


def _labels(keys: Sequence[str], counts: Sequence[int], small: dict[str, Any], is_test: Any) -> Any:
    """Of all items, negative where an item has none; None where a split has no label, or all labels are the same."""
    given = [key for key in keys if key in small]
    if not given:
        return None
    arrays = [small[key][:, 0] if small[key].ndim == 2 and small[key].shape[1] == 1 else small[key] for key in given]
    if [array.shape for array in arrays] != [(count,) for count in counts] or any(
        array.dtype.kind not in "iu" for array in arrays
    ):
        raise Refused("labels must be integers, one an item")
    labels = np.concatenate([array.astype(np.int64) for array in arrays])
    there = labels >= 0
    in_both = there[~is_test].any() and there[is_test].any()
    return labels if in_both and len(np.unique(labels[there])) > 1 else None


def _encoded(name: str, path: Path, headers: dict[str, Any], small: dict[str, Any], first_image: bytes) -> DatasetFacts:
    parts = ("train", "test")
    if any(f"{part}_{sort}" not in headers for part in parts for sort in ("bytes", "offsets", "labels")):
        raise Refused("encoded images need bytes, offsets and labels of both splits")
    train, test = (headers[f"{part}_offsets"][0][0] - 1 for part in parts)
    try:
        side = min(spec.image_sides(BytesIO(first_image)))
    except ValueError as error:
        raise Refused(f"its first image {error}") from None
    labels = _labels(("train_labels", "test_labels"), (train, test), small, _is_test((train, test), None))
    known = None if labels is None else int((labels[:train] >= 0).sum())
    return DatasetFacts(
        name=name,
        train=train,
        test=test,
        labelled=known if known != train else None,
        channels=3,
        image_size=min(side, LARGEST_SIZE),
        classes=None if labels is None else len(np.unique(labels[labels >= 0])),
        version=spec.npz_version(path),
    )


# Folders of images --------------------------------------------------------------------------------------------------------


def folder(name: str, path: Path) -> DatasetFacts:
    """A folder of classes or of photographs. Raises Refused.

    A listing is remembered until one of the folders in it changes, and at most a hundred times as long as it took.
    """
    known = _listings.get((name, path))
    if known is None or not known.holds():
        known = _listings[name, path] = _list(name, path)
    if isinstance(known.found, Refused):
        raise known.found
    return known.found


@dataclass(frozen=True)
class _Listing:
    found: DatasetFacts | Refused
    folders: dict[Path, int]
    """With the time of their last change."""
    made: float
    took: float

    def holds(self) -> bool:
        unchanged = all(_changed(folder) == changed for folder, changed in self.folders.items())
        return unchanged and time.monotonic() - self.made < 100 * self.took


_listings: dict[tuple[str, Path], _Listing] = {}


def _list(name: str, path: Path) -> _Listing:
    started, folders = time.monotonic(), [path]
    found: DatasetFacts | Refused
    try:
        files, names = spec.image_files(path)
        folders = [path / folder for folder in names]
        found = _folder_facts(name, path, files)
    except OSError as error:
        found = Refused(str(error))
    except Refused as error:
        found = error
    now = time.monotonic()
    return _Listing(found, {folder: _changed(folder) for folder in folders}, now, now - started)


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def _folder_facts(name: str, path: Path, files: tuple[tuple[str, int], ...]) -> DatasetFacts:
    if name == "imagenet":  # its test images have no labels
        files = tuple(file for file in files if file[0].startswith(("train/", "val/")))
    names = [name for name, _ in files]
    if not names:
        raise Refused("it holds no JPEG or PNG")
    if name == "tiny-imagenet-200":
        places: Sequence[tuple[str, str]] | None = _tiny_imagenet(path, names)
    else:
        places = None if PHOTOS in (path.name, path.parent.name) else spec.class_folders(names)
    if name == "imagenet" and (places is None or {split for split, _ in places} != {"train", "val"}):
        raise Refused("it must hold train/CLASS/*.JPEG and val/CLASS/*.JPEG, and each class as a folder")
    splits = [split for split, _ in places or ()]
    if "train" in splits:
        held = "test" if "test" in splits else "val"
        train, test = splits.count("train"), splits.count(held)
    else:
        held, test = "", spec.held_out(len(names))
        train = len(names) - test
    _require_items(train, test)
    classes = {kind for split, kind in places or () if split in ("train", held)}
    return DatasetFacts(
        name=name,
        layout="photos" if places is None else "images",
        train=train,
        test=test,
        channels=3,
        image_size=224 if name == "imagenet" else FOLDER_SIZE,
        smallest_side=min(_smaller_side(path / image) for image in names) if places is None else None,
        classes=len(classes) if len(classes) > 1 else None,
        version=spec.folder_version(files),
    )


def _tiny_imagenet(path: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    lines = [line.split("\t") for line in (path / "val" / "val_annotations.txt").read_text().splitlines()]
    if any(len(line) < 2 for line in lines):
        raise Refused("val_annotations.txt must name a file and its class in each line, apart by tabs")
    classes = {f"val/images/{line[0]}": ("val", line[1]) for line in lines}
    for name in names:
        match name.split("/"):
            case ["train", kind, "images", _]:
                classes[name] = ("train", kind)
    return [classes[name] for name in names if name in classes]


def _smaller_side(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return min(spec.image_sides(file))
    except ValueError as error:
        raise Refused(f"{path.name} {error}") from None


def _require_items(train: int, test: int) -> None:
    if min(train, test) < LEAST_ITEMS:
        raise Refused(f"it has {train} training and {test} test items; at least {LEAST_ITEMS} of each are needed")
