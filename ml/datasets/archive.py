"""The arrays of an npz, the large ones read a few items at a time; nothing is unpickled."""

import math
import zipfile
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ml.datasets.raw import Array, DatasetInvalid, File, Indices

CHUNK_BYTES = 2**24
LONGEST_HEADER = 10_000  # bytes of an array's, as numpy has it
UNREADABLE = (ValueError, OSError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Header:
    """What an array's file says of it before its data."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    """Whether the first axis changes fastest."""

    @property
    def bytes_an_item(self) -> int:
        """Along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Archive:
    """An npz, closed by `with`. Raises DatasetInvalid, here and when it is read, where it is no npz of plain arrays."""

    def __init__(self, path: Path, what: str = "", only: Container[str] | None = None) -> None:
        """`what` is what messages call it, its path by default; of its arrays `only` some are looked at, or all."""
        self.what = what or str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except UNREADABLE as error:
            raise self._refused(error) from None
        try:
            names = [name for name in self._zip.namelist() if name.endswith(".npy")]
            keys = {name.removesuffix(".npy"): name for name in names}
            self.headers = {key: self._header(name) for key, name in keys.items() if only is None or key in only}
        except UNREADABLE as error:
            self._zip.close()
            raise self._refused(error) from None

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    @property
    def bytes(self) -> int:
        """Of all arrays, unpacked."""
        return sum(header.bytes_an_item * math.prod(header.shape[:1]) for header in self.headers.values())

    def whole(self, key: str) -> Array:
        """An array, in memory."""
        try:
            with self._zip.open(f"{key}.npy") as file:
                array: Array = np.lib.format.read_array(file, allow_pickle=False)
        except UNREADABLE as error:
            raise self._refused(error) from None
        return array

    def items(self, key: str) -> Iterator[Array]:
        """The array's items in their order, in chunks [n, ...] of some `CHUNK_BYTES`."""
        header = self.headers[key]
        if header.fortran:  # no item lies in one piece
            yield self.whole(key)
            return
        items, size = header.shape[0], header.bytes_an_item
        a_time = max(1, CHUNK_BYTES // max(size, 1))
        try:
            with self._zip.open(f"{key}.npy") as file:
                _read_header(file)
                for start in range(0, items, a_time):
                    chunk = min(a_time, items - start)
                    content = file.read(chunk * size)
                    if len(content) < chunk * size:
                        raise EOFError(f"{key} ends before its {items} items do")
                    yield np.frombuffer(content, header.dtype).reshape(chunk, *header.shape[1:])
        except UNREADABLE as error:
            raise self._refused(error) from None

    def labels(self, key: str, items: int) -> Indices:
        """Integers [N] or [N, 1], one an item; -1 for what is negative."""
        labels = self.whole(key)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (items,) or labels.dtype.kind not in "iu":
            raise DatasetInvalid(
                f"{self.what}: {key} is {labels.dtype} {labels.shape}; labels must be {items} integers, one an item, negative "
                "where it has none"
            )
        return np.maximum(labels.astype(np.int64), -1)

    def _header(self, name: str) -> Header:
        key = name.removesuffix(".npy")
        with self._zip.open(name) as file:
            header = _read_header(file)
            there = self._zip.getinfo(name).file_size - file.tell()
        if header.dtype.hasobject:
            raise ValueError(f"{key} holds Python objects, which would have to be unpickled")
        if any(side < 0 for side in header.shape):
            raise ValueError(f"{key} has the shape {header.shape}")
        if there < (wanted := math.prod(header.shape) * header.dtype.itemsize):  # room is made by what the header says
            raise ValueError(f"{key} has the shape {header.shape}, but breaks off after {there} of {wanted} bytes")
        return header

    def _refused(self, error: Exception) -> DatasetInvalid:
        return DatasetInvalid(f"{self.what} cannot be read as an npz of plain arrays: {error}")


def _read_header(file: File) -> Header:
    read = {(1, 0): (2, np.lib.format.read_array_header_1_0), (2, 0): (4, np.lib.format.read_array_header_2_0)}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"an array of npy version {version}; only 1.0 and 2.0 are understood")
    digits, parse = read[version]
    length = file.read(digits)
    if (claimed := int.from_bytes(length, "little")) > LONGEST_HEADER:  # numpy would read it all before it says so
        raise ValueError(f"an array's header of {claimed} bytes; at most {LONGEST_HEADER} are read")
    shape, fortran, dtype = parse(BytesIO(length + file.read(claimed)))
    return Header(shape, dtype, fortran and len(shape) > 1)
