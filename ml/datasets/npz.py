"""Any npz of plain arrays: images `x`, `clips`, pairs `v1` and `v2`, those of MedMNIST (Yang et al. 2023), or images as JPEG.

Pixels are uint8, uint16 or float32, with any number of channels, which come last or not at all. What becomes 0 and 1: of uint8
0 and 255; of uint16 0 and the largest training value; of float32 0 and 1 if all training values lie between them, else the
smallest and the largest training value. Numbers that are not finite are refused. Labels are integers [N] or [N, 1], negative
where an item has none. `split` says `train` or `test`, or 0 or 1, for each item; without it `spec.held_out` of them are held out.
"""

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ml import spec
from ml.datasets import encoded, stored
from ml.datasets.archive import Archive
from ml.datasets.pictures import decode
from ml.datasets.raw import (
    BYTES,
    Allocate,
    Array,
    DatasetInvalid,
    Indices,
    Library,
    Opening,
    Part,
    Range,
    Raw,
    Source,
    finished,
    held_out,
    in_memory,
    require_items,
)

LAYOUTS = (
    "x [N, H, W] or [N, H, W, C], clips [N, T, H, W] or [N, T, H, W, C], or v1 and v2 as x is, of uint8, uint16 or float32, with "
    "optional y [N] and split [N]; or train_images, train_labels, test_images, test_labels"
)
LEAST_SIDE = 8  # pixels
LARGEST_ITEM = 2**28  # bytes, of which several are in memory at a time
MEMORY_SHARE = 1 / 8  # of main memory that arrays may fill; larger ones are unpacked into files


@dataclass(frozen=True)
class _Layout:
    name: spec.Layout
    arrays: tuple[tuple[str, ...], ...]
    """For each array of an item the members that hold it, one after another."""
    labels: tuple[str, ...] = ("y",)
    dimensions: tuple[int, int] = (3, 4)
    """Without and with channels."""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(chain(*self.arrays))


_LAYOUTS = (
    _Layout("images", (("x",),)),
    _Layout("clips", (("clips",),), dimensions=(4, 5)),
    _Layout("paired", (("v1",), ("v2",))),
    _Layout("images", (("train_images", "test_images"),), labels=("train_labels", "test_labels")),
)


@dataclass(frozen=True)
class Npz(Source):
    """An npz of the datasets folder; one that does not fit into memory is unpacked once."""

    name: str
    path: Path

    @property
    def version(self) -> str:
        """Of its directory, in which the checksum of each array stands."""
        try:
            return spec.npz_version(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetInvalid(f"{self.path} cannot be read as an npz of plain arrays: {error}") from None

    def open(self, library: Library, size: int | None, as_photographs: bool) -> Opening:
        """In the layout that its arrays' names say."""
        folder = library.prepared / f"{self.name}-{self.version}"
        with Archive(self.path) as archive:
            if "train_bytes" in archive.headers:
                pictures = encoded.pictures(archive)
                side = size or pictures.default_size
                square = folder.with_name(f"{folder.name}-{side}")
                return (yield from stored.once(square, lambda draft: decode(pictures, side, draft.allocate)))
            if archive.bytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MEMORY_SHARE:
                return finished(read(archive, in_memory))
            return (yield from stored.once(folder, lambda draft: read(archive, draft.allocate)))


def find(root: Path, name: str) -> Path | None:
    """`root/NAME.npz`, or the same in any folder directly under `root`."""
    return next((path for path in (root / f"{name}.npz", *sorted(root.glob(f"*/{name}.npz"))) if path.is_file()), None)


def read(archive: Archive, allocate: Allocate) -> Opening:
    """Its arrays, wherever there is room for them. Raises DatasetInvalid."""
    layout = _layout(archive)
    shapes = [_item(archive, layout, keys) for keys in layout.arrays]
    items = [[archive.headers[key].shape[0] for key in keys] for keys in layout.arrays]
    if len({tuple(counts) for counts in items}) > 1:
        raise DatasetInvalid(f"{archive.what}: v1 and v2 belong together, but have {items[0][0]} and {items[1][0]} items")
    total = sum(items[0])
    labels = _labels(archive, layout, items[0])
    train, test = _split(archive, items[0])
    require_items(archive.what, len(train), len(test))
    is_test = np.isin(np.arange(total), test)
    where = np.empty(total, np.int64)
    for part in (train, test):
        where[part] = np.arange(len(part))
    digest = hashlib.sha256()
    arrays, ranges = [], []
    for index, (keys, shape) in enumerate(zip(layout.arrays, shapes, strict=True)):
        dtype = archive.headers[keys[0]].dtype
        places = (allocate(f"train_{index}", (len(train), *shape), dtype), allocate(f"test_{index}", (len(test), *shape), dtype))
        scale, done = _Scale(f"{archive.what}: {keys[0]}", dtype), 0
        for chunk in chain(*(archive.items(key) for key in keys)):
            digest.update(np.ascontiguousarray(chunk).data)
            here = slice(done, done + len(chunk))
            images = _channels_first(chunk, layout)
            for place, chosen in zip(places, (~is_test[here], is_test[here]), strict=True):
                place[where[here][chosen]] = images[chosen]
            scale.see(chunk, ~is_test[here], done)
            done = here.stop
            yield index * total + done, len(layout.arrays) * total
        arrays.append(places)
        ranges.append(scale.range())
    digest.update(repr((test.tolist(), None if labels is None else labels.tolist())).encode())
    first, second = (
        Part(tuple(places[which] for places in arrays), None if labels is None else labels[chosen])
        for which, chosen in enumerate((train, test))
    )
    return Raw(first, second, layout=layout.name, ranges=tuple(ranges), digest=digest.hexdigest())


def layout_of(archive: Archive) -> spec.Layout:
    """What its arrays' names say. Raises DatasetInvalid."""
    return _layout(archive).name


def _layout(archive: Archive) -> _Layout:
    found = [layout for layout in _LAYOUTS if archive.headers.keys() >= set(layout.keys)]
    if len(found) != 1:
        has = ", ".join(archive.headers) or "nothing"
        said = (
            f"has several of the layouts understood, with {has}; one at a time is"
            if found
            else f"has {has}, and none of the layouts"
        )
        raise DatasetInvalid(f"{archive.what} {said} understood: {LAYOUTS}")
    return found[0]


def _item(archive: Archive, layout: _Layout, keys: Sequence[str]) -> tuple[int, ...]:
    """Shape of an item with its channels first."""
    shapes = []
    for key in keys:
        header = archive.headers[key]
        where = f"{archive.what}: {key}"
        if header.dtype not in (np.uint8, np.uint16, np.float32):
            raise DatasetInvalid(f"{where} is {header.dtype}; images must be uint8, uint16 or float32")
        if len(header.shape) not in layout.dimensions or 0 in header.shape[1:]:
            wanted = "[N, T, H, W] or [N, T, H, W, C]" if layout.name == "clips" else "[N, H, W] or [N, H, W, C]"
            raise DatasetInvalid(f"{where} has shape {header.shape}; it must be {wanted}")
        with_channels = len(header.shape) == layout.dimensions[1]
        *frames, height, width, channels = header.shape[1:] if with_channels else (*header.shape[1:], 1)
        if min(height, width) < LEAST_SIDE:
            raise DatasetInvalid(
                f"{where} has images of {height}x{width} pixels with {channels} channel(s); sides of at least {LEAST_SIDE} are "
                "needed, and channels come last"
            )
        if header.bytes_an_item > LARGEST_ITEM:
            raise DatasetInvalid(f"{where} has items of {header.bytes_an_item} bytes; at most {LARGEST_ITEM} are accepted")
        if layout.name == "clips" and frames[0] < 2:
            raise DatasetInvalid(f"{where} has clips of one frame; at least two are needed, or give still images as x")
        shapes.append((*frames, channels, height, width))
    if len({(shape, archive.headers[key].dtype) for shape, key in zip(shapes, keys, strict=True)}) > 1:
        said = " and ".join(f"{key} {archive.headers[key].dtype} {shape}" for key, shape in zip(keys, shapes, strict=True))
        raise DatasetInvalid(f"{archive.what}: {said} (C, H, W) differ; they must be alike")
    return shapes[0]


def _channels_first(chunk: Array, layout: _Layout) -> Array:
    return np.moveaxis(chunk if chunk.ndim == layout.dimensions[1] else chunk[..., None], -1, -3)


def _labels(archive: Archive, layout: _Layout, items: Sequence[int]) -> Indices | None:
    there = [key for key in layout.labels if key in archive.headers]
    if not there:
        return None
    if len(there) < len(layout.labels):
        raise DatasetInvalid(f"{archive.what}: {' and '.join(layout.labels)} belong together, but only {there[0]} is there")
    return np.concatenate([archive.labels(key, count) for key, count in zip(there, items, strict=True)])


def _split(archive: Archive, items: Sequence[int]) -> tuple[Indices, Indices]:
    total = sum(items)
    if len(items) == 2:
        first, second = np.split(np.arange(total), [items[0]])
        return first, second
    if "split" not in archive.headers:
        return held_out(total)
    split = archive.whole("split")
    if split.shape != (total,):
        raise DatasetInvalid(f"{archive.what}: split has shape {split.shape}, but there are {total} items")
    train, test = (split == "train", split == "test") if split.dtype.kind == "U" else (split == 0, split == 1)
    if not np.all(train | test):
        found = split[~(train | test)][0]
        raise DatasetInvalid(f"{archive.what}: split says {found!r}; only 'train' and 'test', or 0 and 1, are understood")
    return np.flatnonzero(train), np.flatnonzero(test)


class _Scale:
    """Finds the numbers that become 0 and 1."""

    def __init__(self, what: str, dtype: np.dtype[Any]) -> None:
        self.what = what
        self.dtype = dtype
        self.low, self.high = np.inf, -np.inf

    def see(self, chunk: Array, training: Array, first: int) -> None:
        if self.dtype == np.uint8:
            return
        if self.dtype == np.float32 and not np.isfinite(chunk).all():
            item, *place = np.argwhere(~np.isfinite(chunk))[0]
            value = chunk[(item, *place)]
            raise DatasetInvalid(
                f"{self.what}[{', '.join(map(str, (first + item, *place)))}] is {value}; all numbers must be finite"
            )
        if training.any():
            chosen = chunk[training]
            self.low, self.high = min(self.low, float(chosen.min())), max(self.high, float(chosen.max()))

    def range(self) -> Range:
        if self.dtype == np.uint8:
            return BYTES
        if self.dtype == np.float32 and self.low >= 0 and self.high <= 1:
            return (0.0, 1.0)
        low = 0.0 if self.dtype == np.uint16 else self.low
        if low == self.high:
            raise DatasetInvalid(f"{self.what} is {low} in all training items: there is nothing to see")
        return (low, self.high)
