"""STL-10 from its binary distribution, as torchvision unpacks it. Coates, Lee, Ng 2011: cs.stanford.edu/~acoates/stl10."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml import spec
from ml.datasets import stored
from ml.datasets.raw import (
    Allocate,
    Array,
    DatasetInvalid,
    Library,
    Opening,
    Part,
    Raw,
    Source,
    finished,
    in_memory,
    missing,
    state_of,
)

SIDE = 96
A_TIME = 1000  # images that are copied


@dataclass(frozen=True)
class STL10(Source):
    """5000 labelled images, then 100 000 unlabelled ones where their file is there, and 8000 held-out images of ten classes."""

    folder: Path
    """`stl10_binary`."""

    @property
    def state(self) -> object:
        """Of the originals."""
        return state_of(self.folder)

    def open(self, library: Library, size: int | None, as_photographs: bool) -> Opening:
        """With the unlabelled images the training part is put together in a file, once."""
        if not (self.folder / "unlabeled_X.bin").is_file():
            return finished(self._read(in_memory))
        files = [(path.name, path.stat().st_size) for path in self.folder.glob("*.bin")]
        folder = library.prepared / f"stl10-{spec.folder_version(files)}"
        return (yield from stored.once(folder, lambda draft: self._read(draft.allocate)))

    def _read(self, allocate: Allocate) -> Opening:
        sources = {split: [self._images(f"{split}_X.bin")] for split in ("train", "test")}
        if (self.folder / "unlabeled_X.bin").is_file():
            sources["train"].append(self._images("unlabeled_X.bin"))
        total, done = sum(len(images) for found in sources.values() for images in found), 0
        digest, parts = hashlib.sha256(), {}
        for split, found in sources.items():
            labels = np.full(sum(map(len, found)), -1, dtype=np.int64)
            labels[: len(found[0])] = self._labels(f"{split}_y.bin", len(found[0]))
            array = allocate(f"{split}_0", (len(labels), 3, SIDE, SIDE), np.uint8)
            end = 0
            for images in found:
                for start in range(0, len(images), A_TIME):
                    chunk = np.ascontiguousarray(images[start : start + A_TIME])
                    array[end : end + len(chunk)] = chunk
                    digest.update(chunk.data)
                    end, done = end + len(chunk), done + len(chunk)
                    yield done, total
            digest.update(labels.data)
            parts[split] = Part((array,), labels)
        return Raw(parts["train"], parts["test"], digest=digest.hexdigest())

    def _images(self, name: str) -> Array:
        """Stored are columns from left to right, each from top to bottom."""
        content = self._bytes(name)
        if len(content) % (3 * SIDE * SIDE):
            raise DatasetInvalid(f"{self.folder / name} has {len(content)} bytes; it must be a multiple of 3 x {SIDE} x {SIDE}")
        return content.reshape(-1, 3, SIDE, SIDE).transpose(0, 1, 3, 2)

    def _labels(self, name: str, items: int) -> Array:
        labels = self._bytes(name)
        if len(labels) != items:
            raise DatasetInvalid(f"{self.folder / name} has {len(labels)} labels for {items} images")
        return labels

    def _bytes(self, name: str) -> Array:
        path = self.folder / name
        if not path.is_file() or path.stat().st_size == 0:
            raise missing("stl10", path, "download it again")
        return np.memmap(path, dtype=np.uint8, mode="r")
