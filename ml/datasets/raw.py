"""What a reader hands over, the split of datasets that have none, and the two ways in which reading fails."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ml import spec

Array = NDArray[Any]
Indices = NDArray[np.int64]
Range = tuple[float, float]
File = IO[bytes] | BufferedIOBase  # a zip's members are the latter alone
BYTES: Range = (0.0, 255.0)
LEAST_ITEMS = 8  # in each split


class DatasetMissing(Exception):
    """No such dataset lies in the datasets folder; says where it would be looked for and how to get it."""


class DatasetInvalid(Exception):
    """The dataset's files are there, but not what they should be; says what was found and what would be accepted."""


@dataclass(frozen=True)
class Library:
    """Where datasets lie: those of `SWEETSPOT_DATASETS`, the uploads, and a place for what is made once out of either."""

    root: Path
    uploads: Path
    prepared: Path

    def checkpoint(self, checkpoint_id: str) -> Path:
        """Where uploaded weights lie."""
        return self.uploads / "checkpoints" / checkpoint_id.removeprefix("ckp_")


@dataclass(frozen=True, eq=False)
class Part:
    """One split as it was read. Arrays may be memory-mapped; labels are integers [N], negative where an item has none.

    `arrays` by layout: `images` one [N, C, H, W]; `clips` one [N, T, C, H, W]; `paired` two [N, C, H, W]; `photos` either one
    [N, 3, S, S], if they were read as squares, or the pixels of all photographs one after another, [sum of h w 3] in rows of RGB,
    and [N, 3] with offset, height and width of each.
    """

    arrays: tuple[Array, ...]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(self.arrays[-1])


@dataclass(frozen=True, eq=False)
class Raw:
    """A dataset as it was read: uint8, uint16 or float32."""

    train: Part
    test: Part
    layout: spec.Layout = "images"
    default_size: int | None = None
    """Side at which the images are seen unless asked otherwise; None: as they are."""
    ranges: tuple[Range, ...] = (BYTES, BYTES)
    """For each array the numbers that become 0 and 1: of bytes 0 and 255."""
    class_names: tuple[str, ...] | None = None
    """The names of classes 0, 1, ..."""
    smallest_side: int | None = None
    """Of all photographs, in pixels."""
    digest: str | None = None
    """SHA-256 of what it was read from; None: to be taken of the arrays."""

    @property
    def parts(self) -> tuple[Part, Part]:
        """Training and held-out items."""
        return self.train, self.test


Opening = Generator[tuple[int, int], None, Raw]
"""Reading that may take a while: yields how many of how many images are done, and returns what was read."""

Allocate = Callable[[str, tuple[int, ...], Any], Array]
"""A place for an array, given its name, its shape and its type: in memory or in a file."""


class Source(ABC):
    """A dataset that was found but not read yet."""

    @property
    def version(self) -> str | None:
        """What its files hold, as a digest; None for the published datasets."""
        return None

    @property
    def state(self) -> object:
        """What is different once its files have changed, and quick to tell."""
        return self.version

    @abstractmethod
    def open(self, library: Library, size: int | None, as_photographs: bool) -> Opening:
        """Read it. What must be decoded is decoded at this size, or natively as photographs; whole arrays come as they are."""


@dataclass(frozen=True)
class Published(Source):
    """A published dataset that is read as a whole, from the folder in which its originals lie."""

    read: Callable[[Path], Raw]
    folder: Path

    @property
    def state(self) -> object:
        """Of the originals."""
        return state_of(self.folder)

    def open(self, library: Library, size: int | None, as_photographs: bool) -> Opening:
        """Whole arrays, whatever the size."""
        yield from ()
        return self.read(self.folder)


def finished(opening: Opening, progress: Callable[[int, int], object] = lambda done, total: None) -> Raw:
    """What was read in the end, with `progress` told meanwhile."""
    while True:
        try:
            progress(*next(opening))
        except StopIteration as end:
            raw: Raw = end.value
            return raw


def state_of(folder: Path) -> object:
    """Names, sizes and times of the files that lie in a folder."""
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return tuple((name, file.st_size, file.st_mtime_ns) for name, file in files)


def held_out(items: int) -> tuple[Indices, Indices]:
    """Training and held-out items, `spec.held_out` of them: the same ones in every run and for every seed."""
    test, train = np.split(np.random.default_rng(0).permutation(items), [spec.held_out(items)])
    return train, test


def in_memory(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """A place for an array in main memory."""
    return np.empty(shape, dtype)


def require_items(what: object, train: int, test: int) -> None:
    """Raises DatasetInvalid where a split is too small to train or to measure on."""
    if min(train, test) < LEAST_ITEMS:
        raise DatasetInvalid(f"{what} has {train} training and {test} test items; at least {LEAST_ITEMS} of each are needed")


def missing(name: str, where: Path, how: str) -> DatasetMissing:
    """The error for a dataset that is not at `where`."""
    return DatasetMissing(f"dataset {name!r} is not there: {where} does not exist; {how}")
