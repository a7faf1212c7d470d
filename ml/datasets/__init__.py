"""Whole datasets as tensors on the device, or memory-mapped where they do not fit. One file a layout; nothing pickled is read."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ml import spec
from ml.datasets import cifar, digits, folders, mnist, moving_mnist, npz, photographs, squares, stored
from ml.datasets.clips import Clips, ClipSplit
from ml.datasets.facts import class_indices, class_names, default_size, facts_of
from ml.datasets.photographs import Photographs, PhotographSplit
from ml.datasets.raw import (
    Allocate,
    Array,
    DatasetInvalid,
    DatasetMissing,
    Library,
    Opening,
    Part,
    Published,
    Raw,
    Source,
    finished,
    in_memory,
    missing,
)
from ml.datasets.split import ImageSplit, PairSplit, Pixels, Split
from ml.datasets.stl10 import STL10
from ml.datasets.uploads import Upload

__all__ = ["Clips", "Data", "DatasetInvalid", "DatasetMissing", "Library", "Photographs", "Split", "load", "prepare"]

_PUBLISHED: dict[str, tuple[str, Callable[[Path], Source]]] = {
    "mnist": ("mnist/MNIST/raw", partial(Published, mnist.read)),
    "fashion_mnist": ("fashion_mnist/FashionMNIST/raw", partial(Published, mnist.read)),
    "cifar10": ("cifar10/cifar-10-batches-bin", partial(Published, cifar.read_cifar10)),
    "cifar100": ("cifar100/cifar-100-binary", partial(Published, cifar.read_cifar100)),
    "stl10": ("stl10/stl10_binary", STL10),
}
MEMORY_SHARE = 1 / 8  # of main memory that a dataset may fill; a larger one stays memory-mapped
RESIZED_ONCE = 2**28  # bytes from which on resized images are kept in a file


@dataclass(frozen=True, eq=False)
class Data:
    """A dataset on its device: what is known of it, and its two splits."""

    facts: spec.DatasetFacts
    train: Split
    test: Split
    digest: str
    """SHA-256 of the data as they were read, before any resizing."""
    device: torch.device
    """Where the items are handed out."""
    class_names: tuple[str, ...] | None = None
    """Of the target `label`, where the dataset names its classes."""


@dataclass(frozen=True)
class _Reading:
    """A source and how it is read; the dataset is known with its version, the source with the state of its files."""

    dataset: spec.Dataset
    source: Source
    state: object
    library: Library
    as_photographs: bool


K = TypeVar("K")
V = TypeVar("V")
_read_ahead: dict[_Reading, Raw] = {}  # by `prepare`, for `load`
_loaded: dict[tuple[spec.Dataset, tuple[_Reading, ...], torch.device], Data] = {}


def prepare(dataset: spec.Dataset, library: Library, as_photographs: bool = False) -> Iterator[tuple[int, int]]:
    """Make what is made once of a dataset: images decoded, and large arrays resized, into files that can be memory-mapped.

    Says meanwhile how many of how many images are done, and nothing where all is there. `load` does the same in silence.
    Raises DatasetMissing or DatasetInvalid.
    """
    known = _readings(dataset, library, as_photographs)
    if all(known != loaded[:2] for loaded in _loaded):
        for reading in known[1]:
            if reading not in _read_ahead:
                _keep(_read_ahead, reading, (yield from _open(reading)))


def load(dataset: spec.Dataset, library: Library, device: torch.device, as_photographs: bool = False) -> Data:
    """Read a dataset at its own image size or another (bilinear, then the central square), or as photographs to cut patches from.

    Keeps the last few, so that a process that trains again does not read again, unless the files have changed by then: they have
    another version, or those of a published dataset another size or time.
    Raises DatasetMissing or DatasetInvalid.
    """
    key = *_readings(dataset, library, as_photographs), device
    data = _loaded.pop(key, None) or _load(*key)
    _keep(_loaded, key, data)
    return data


def _readings(dataset: spec.Dataset, library: Library, as_photographs: bool) -> tuple[spec.Dataset, tuple[_Reading, ...]]:
    """The dataset with the version that is there now, and what must be read for it: more than one source for scenes."""
    if dataset.name == moving_mnist.NAME:
        dataset = moving_mnist.choose(dataset, lambda name: _find(name, library) is not None)
        readings = tuple(_reading(component, library, as_photographs=False) for component in moving_mnist.components(dataset))
        versions = [reading.dataset.version for reading in readings if reading.dataset.version is not None]
        return dataset.model_copy(update={"version": "-".join(versions) or None}), readings
    reading = _reading(dataset, library, as_photographs)
    return reading.dataset, (reading,)


def _reading(dataset: spec.Dataset, library: Library, as_photographs: bool) -> _Reading:
    source = _source(dataset.name, library)
    known = dataset.model_copy(update={"version": source.version})
    return _Reading(known, source, source.state, library, as_photographs)


def _source(name: str, library: Library) -> Source:
    found = _find(name, library)
    if found is not None:
        return found
    root = library.root
    if name.startswith("ds_"):
        raise missing(name, library.uploads / name, "it is no upload, or was deleted")
    if name == "imagenet":
        raise missing(name, root / name, "put the folders train and val of ILSVRC 2012 there, with a folder for each class")
    where = _PUBLISHED[name][0] if name in _PUBLISHED else name
    if name in (*_PUBLISHED, "tiny-imagenet-200"):
        raise missing(name, root / where, f"download it with: python -m ml.datasets.download {name} --root {root}")
    raise missing(name, root / f"{name}.npz", f"put it there, as an npz with {npz.LAYOUTS}; or as a folder of JPEG or PNG files")


def _find(name: str, library: Library) -> Source | None:
    """Of a published dataset the originals, else an npz of its name in its folder; of any other an npz or a folder of images."""
    if name.startswith("ds_"):
        return Upload(library.uploads / name) if (library.uploads / name).is_dir() else None
    if name == "digits":
        return Published(digits.read, digits.FOLDER)
    if name in _PUBLISHED:
        where, source = _PUBLISHED[name]
        archive = library.root / name / f"{name}.npz"
        if (library.root / where).is_dir():
            return source(library.root / where)
        return npz.Npz(name, archive) if archive.is_file() else None
    if (path := npz.find(library.root, name)) is not None:
        return npz.Npz(name, path)
    folder = folders.find(library.root, name)
    return None if folder is None else folders.Folder(name, folder)


def _open(reading: _Reading) -> Opening:
    """Read it, and resize images to the size at which they are seen."""
    dataset, library = reading.dataset, reading.library
    raw = yield from reading.source.open(library, dataset.image_size, reading.as_photographs)
    raw = replace(raw, digest=raw.digest or _digest(raw), default_size=default_size(raw))
    if raw.layout not in ("images", "clips"):  # photographs are squares by now or to be left whole, as pairs are
        return raw
    *_, height, width = raw.train.arrays[0].shape
    size = dataset.image_size or default_size(raw)
    if height == width == size:
        return raw
    shapes = [(*part.arrays[0].shape[:-2], size, size) for part in raw.parts]
    bytes_there = sum(part.arrays[0].nbytes for part in raw.parts)
    if bytes_there * max(1, size**2 / (height * width)) < RESIZED_ONCE:
        return finished(_resize(raw, shapes, in_memory))
    folder = library.prepared / f"{dataset.name}-{dataset.version or str(raw.digest)[:16]}-{size}"
    return (yield from stored.once(folder, lambda draft: _resize(raw, shapes, draft.allocate)))


def _resize(raw: Raw, shapes: list[tuple[int, ...]], allocate: Allocate) -> Opening:
    parts, before = [], 0
    for name, part, shape in zip(("train", "test"), raw.parts, shapes, strict=True):
        array = allocate(f"{name}_0", shape, part.arrays[0].dtype)
        for done in squares.resize(part.arrays[0], array):
            yield before + done, len(raw.train) + len(raw.test)
        before += len(part)
        parts.append(Part((array,), part.labels))
    return replace(raw, train=parts[0], test=parts[1])


def _load(dataset: spec.Dataset, readings: tuple[_Reading, ...], device: torch.device) -> Data:
    raws = [_read_ahead.pop(reading) if reading in _read_ahead else finished(_open(reading)) for reading in readings]
    if dataset.name == moving_mnist.NAME:
        facts, scenes = moving_mnist.scenes(dataset, raws, device)
        digest = hashlib.sha256("".join(str(raw.digest) for raw in raws).encode()).hexdigest()
        return Data(facts, scenes[0], scenes[1], digest, device)
    (raw,) = raws
    labels = class_indices(raw)
    targets = ({}, {}) if labels is None else tuple({"label": torch.from_numpy(of_part).to(device)} for of_part in labels)
    train, test = (
        _split(raw, part, of_part, device, readings[0].as_photographs) for part, of_part in zip(raw.parts, targets, strict=True)
    )
    facts = facts_of(dataset.name, dataset.version, raw)
    return Data(facts, train, test, str(raw.digest), device, class_names(raw))


def _split(raw: Raw, part: Part, targets: Mapping[str, Tensor], device: torch.device, as_photographs: bool) -> Split:
    whole = raw.layout == "photos" and len(part.arrays) == 2
    arrays = [part.arrays[0]] if whole else part.arrays
    first, *rest = (
        Pixels(_placed(_stored(array), device), value_range, device)
        for array, value_range in zip(arrays, raw.ranges, strict=False)
    )
    if whole:
        return PhotographSplit(first, torch.from_numpy(np.array(part.arrays[1])).to(device))
    if raw.layout == "paired":
        return PairSplit(first, rest[0], targets)
    if raw.layout == "clips":
        return ClipSplit(first, targets)
    return photographs.of_images(first.stored, first.range, device) if as_photographs else ImageSplit(first, targets)


def _stored(array: Array) -> Tensor:
    """The array as a tensor over the same memory, be that a file's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a read-only mapping: nobody writes into it
        return torch.from_numpy(array)


def _placed(stored: Tensor, device: torch.device) -> Tensor:
    """On the device if it fits there, else where it is."""
    size = stored.numel() * stored.element_size()
    if device.type == "cuda":
        fits = size < torch.cuda.mem_get_info(device)[0] / 2
    else:
        fits = size < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MEMORY_SHARE
    return stored.to(device, copy=True).contiguous() if fits else stored


def _digest(raw: Raw) -> str:
    digest = hashlib.sha256()
    for part in raw.parts:
        for array in (*part.arrays, *(() if part.labels is None else (part.labels,))):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    """With the last few before it."""
    kept[key] = value
    while len(kept) > 4:
        del kept[next(iter(kept))]
