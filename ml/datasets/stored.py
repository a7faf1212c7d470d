"""Datasets as folders of plain arrays, which can be memory-mapped: uploads, and what is made once out of other files."""

import errno
import fcntl
import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import numpy as np

from ml.datasets.raw import Array, DatasetInvalid, Opening, Part, Raw

DESCRIPTION = "dataset.json"
_POLL = 0.5  # seconds
_PROGRESS = struct.Struct("qq")


class Draft:
    """A dataset's folder while it is made; it gets its own name when it is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(self.partial, ignore_errors=True)  # of somebody who was ended
        self.partial.mkdir(parents=True)
        self._arrays: list[np.memmap[Any, Any]] = []

    def allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """A place for an array, in a file of that name: `train_0` is the training part's first array. Raises OSError."""
        path = self.partial / f"{name}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        _reserve(path)
        self._arrays.append(array)
        return array

    def finish(self, raw: Raw, **files: str) -> None:
        """Describe what was written into the allocated arrays, add text files, and show the folder."""
        for array in self._arrays:
            array.flush()
        for name, part in zip(("train", "test"), raw.parts, strict=True):
            if part.labels is not None:
                np.save(self.partial / f"{name}_labels.npy", np.asarray(part.labels, dtype=np.int64), allow_pickle=False)
        description = {
            "layout": raw.layout,
            "default_size": raw.default_size,
            "ranges": raw.ranges,
            "class_names": raw.class_names,
            "smallest_side": raw.smallest_side,
            "digest": raw.digest,
        }
        for name, content in {DESCRIPTION: json.dumps(description), **files}.items():
            (self.partial / name).write_text(content)
        self.partial.rename(self.folder)

    def discard(self) -> None:
        """Leave nothing behind, where it was not finished."""
        shutil.rmtree(self.partial, ignore_errors=True)


def read(folder: Path) -> Raw:
    """The arrays, memory-mapped. Raises DatasetInvalid where they are not what was written."""
    try:
        described = json.loads((folder / DESCRIPTION).read_text())
        parts = {}
        for name in ("train", "test"):
            paths = [path for path in (folder / f"{name}_{index}.npy" for index in range(2)) if path.is_file()]
            labels = folder / f"{name}_labels.npy"
            arrays = tuple(np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
            parts[name] = Part(arrays, np.load(labels, allow_pickle=False) if labels.is_file() else None)
        names = described.pop("class_names")
        ranges = tuple((low, high) for low, high in described.pop("ranges"))
        described |= {"ranges": ranges, "class_names": None if names is None else tuple(names)}
        return Raw(parts["train"], parts["test"], **described)
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise DatasetInvalid(f"{folder} is no dataset that was written here: {error}; delete it, and it is made anew") from None


def once(folder: Path, make: Callable[[Draft], Opening]) -> Opening:
    """What lies in `folder`, made before where it is not there.

    Of several processes that want it, one makes it and the others wait and tell of its progress. Whoever makes it may end at
    any time: the folder is there as a whole or not at all.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = folder.parent / f".{folder.name}.lock"
        with path.open("a+b", buffering=0) as lock:  # closing it gives it back
            yield from _wait_for(lock)
            if not folder.is_dir():
                draft = Draft(folder)
                try:
                    raw = yield from _told(make(draft), lock)
                    draft.finish(raw)
                    path.unlink(missing_ok=True)  # those who wait for it find the folder
                finally:
                    draft.discard()
    return read(folder)


def _reserve(path: Path) -> None:
    """Take the room on the disk now: one that is full says so here, and later it would end the process (SIGBUS)."""
    if not hasattr(os, "posix_fallocate"):  # as on macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems that cannot
                raise


def _wait_for(lock: IO[bytes]) -> Iterator[tuple[int, int]]:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = os.pread(lock.fileno(), _PROGRESS.size, 0)
            if len(told) == _PROGRESS.size:
                yield _PROGRESS.unpack(told)
            time.sleep(_POLL)
        else:
            return


def _told(opening: Opening, lock: IO[bytes]) -> Opening:
    """The same, with its progress written down for those who wait."""
    with closing(opening):
        while True:
            try:
                progress = next(opening)
            except StopIteration as end:
                raw: Raw = end.value
                return raw
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), _PROGRESS.pack(*progress))
            yield progress
