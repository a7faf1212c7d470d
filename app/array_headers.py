"""Two arrays of which information is to be estimated, by the headers of their npz alone. `ml.mi.arrays` reads their numbers."""

import math
from pathlib import Path
from textwrap import shorten
from zipfile import ZipFile

from app.dataset_headers import UNREADABLE, header
from app.errors import Invalid
from ml import spec

LARGEST_DIRECTORY = 2**20  # bytes of the npz's, in which two arrays have some hundred


def check(path: Path, asked: spec.MiEstimate) -> None:
    """Raise Invalid, with what the file holds and what would be accepted, where it cannot be measured as it was asked for."""
    try:
        with path.open("rb") as file:
            alone = file.read(6) == b"\x93NUMPY"
        if alone:
            raise _refused("the file is a single array; save both as an npz, by np.savez(file, x=x, y=y)")
        with spec.SparingFile(path, LARGEST_DIRECTORY) as file, ZipFile(file) as archive:
            pairs, others = (_rows(archive, name) for name in ("x", "y"))
    except UNREADABLE as error:
        raise _refused(f"the file cannot be read as an npz, which np.savez(file, x=x, y=y) makes: {error}") from None
    if pairs != others:
        raise _refused(f"x has {pairs} rows and y has {others}; row i of one must belong to row i of the other")
    if asked.k is not None and asked.critic == "concatenated" and asked.k > spec.MOST_CONCATENATED:
        most = spec.MOST_CONCATENATED
        raise Invalid.field("/k", f"K = {asked.k} candidates, of which the concatenated critic scores all pairs; 2 to {most}")
    held_out = min(pairs, spec.MOST_PAIRS) // asked.repeats
    if asked.k is not None and asked.k > held_out:
        raise Invalid.field(
            "/k", f"K = {asked.k} candidates, but {asked.repeats} repeats hold out {held_out} pairs at a time; 2 to {held_out}"
        )


def _rows(archive: ZipFile, name: str) -> int:
    member = f"{name}.npy"
    if member not in archive.namelist():
        found = ", ".join(sorted(other.removesuffix(".npy") for other in archive.namelist()))
        raise _refused(f"there is no array {name!r} in the file, but {shorten(found, 200) or 'nothing'}; it must hold x and y")
    with archive.open(member) as file:
        shape, dtype = header(file)
        there = archive.getinfo(member).file_size - file.tell()
    if dtype.kind not in "biuf":
        raise _refused(f"{name} holds {dtype}; numbers are accepted: floats, integers or booleans")
    if len(shape) not in (1, 2) or min(shape[1:], default=1) < 1:
        raise _refused(f"{name} has the shape {list(shape)}; it must be [N, d], or [N] for one dimension")
    if shape[0] < spec.LEAST_PAIRS:
        raise _refused(f"{name} has {shape[0]} rows; an estimate needs at least {spec.LEAST_PAIRS} pairs")
    if archive.namelist().count(member) > 1:
        raise _refused(f"there are several arrays {name!r} in the file; once is enough")
    if math.prod(shape[1:]) > spec.MOST_COLUMNS:
        raise _refused(f"{name} has {shape[1]} columns; at most {spec.MOST_COLUMNS} are accepted")
    if (numbers := math.prod(shape)) > spec.MOST_NUMBERS:
        raise _refused(
            f"{name} has the shape {list(shape)}, which is {numbers} numbers; at most {spec.MOST_NUMBERS} are accepted, and "
            f"{spec.MOST_PAIRS} rows are enough"
        )
    if there < numbers * dtype.itemsize:
        raise _refused(f"{name} has the shape {list(shape)}, but breaks off after {there} of {numbers * dtype.itemsize} bytes")
    return shape[0]


def _refused(message: str) -> Invalid:
    return Invalid.field("/file", message)
