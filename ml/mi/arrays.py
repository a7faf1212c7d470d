"""Two arrays whose rows belong together, fit to be measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.special import ndtri
from torch import Generator, Tensor

from ml.datasets.archive import Archive
from ml.datasets.raw import DatasetInvalid
from ml.spec import LEAST_PAIRS, MOST_COLUMNS, MOST_PAIRS

PAIRS_A_DIMENSION = 20  # at least, or an array is reduced to its principal components
MOST_DIMENSIONS = 128
BY_CHANCE = 0.05  # of the equal pairs, with more of which they are no copies
MOST_COPIES = 10  # of a pair on average; with more the values are few, and repeated draws are no copies


class ArraysInvalid(ValueError):
    """The arrays cannot be measured; says what was found and what would be accepted."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs with each column in normal scores: mean about 0, variance about 1, and of no more dimensions than N supports."""

    x: Float64[Tensor, "N d1"]
    y: Float64[Tensor, "N d2"]
    groups: Int64[Tensor, " N"]
    """Pairs of one number, as copies of one, may not stand on both sides of a split."""
    reduced: bool
    """Whether principal components took the place of columns: then an upper bound is one for those alone."""
    dropped: dict[str, list[int]]
    """Constant columns of each array, which say nothing."""

    def unlike(self) -> Int64[Tensor, " G"]:
        """The first pair of each group, so that no two are alike; all pairs where values repeat and so meet by chance.

        That is so of rounded values: were x and y independent, a share of the equal pairs that is worth speaking of would be
        equal all the same.
        """
        pairs = len(self.x) * (len(self.x) - 1) / 2
        by_chance = _equal(_rows(self.x)) * _equal(_rows(self.y)) / pairs
        first = np.unique(self.groups.numpy(), return_index=True)[1]
        return torch.arange(len(self.x)) if by_chance > BY_CHANCE * _equal(self.groups.numpy()) else torch.from_numpy(first)


def load(path: Path) -> tuple[Tensor, Tensor]:
    """`x` and `y` of an npz, float64 [N, d1] and [N, d2]; nothing is unpickled. Raises ArraysInvalid."""
    try:
        with (
            path.open("rb"),
            Archive(path, "the file", only=("x", "y")) as archive,
        ):  # a file that is away is not the sender's fault
            for name in ("x", "y"):
                if name not in archive.headers:
                    raise ArraysInvalid(f"the npz has no array {name!r}, but {sorted(archive.headers)}; it must have x and y")
                header = archive.headers[name]
                if header.dtype.kind not in "biuf":
                    raise ArraysInvalid(f"{name} holds {header.dtype}; numbers are accepted: floats, integers or booleans")
                _check_shape(name, header.shape)
            x, y = (torch.from_numpy(archive.whole(name).astype(np.float64)) for name in ("x", "y"))
    except DatasetInvalid as error:
        raise ArraysInvalid(str(error)) from None
    return x, y


def prepare(x: Tensor, y: Tensor, generator: Generator, groups: Int64[Tensor, " N"] | None = None) -> Pairs:
    """Check the arrays [N, d] or [N], and put their columns on one scale, which keeps their information.

    Each column goes to normal scores: its ranks through the quantiles of a Gaussian, ties sharing the mean of theirs. That is a
    rising map of every column, and so costs no information; it is made without a look at which x goes with which y (van der
    Waerden 1952; as the Gaussian copula Liu, Lafferty, Wasserman 2009). Where there are too many columns, principal components
    take their place before. Of more than MOST_PAIRS pairs a random choice serves. Raises ArraysInvalid.
    """
    for name, array in (("x", x), ("y", y)):
        _check_shape(name, tuple(array.shape))
        _check_values(name, array)
    if len(x) != len(y):
        raise ArraysInvalid(f"x has {len(x)} rows and y has {len(y)}; row i of one must belong to row i of the other")
    if len(x) > MOST_PAIRS:
        chosen = torch.randperm(len(x), generator=generator)[:MOST_PAIRS]
        x, y = x[chosen], y[chosen]
        groups = None if groups is None else groups[chosen]
    x, y = (array.double().cpu().reshape(len(array), -1) for array in (x, y))
    dropped = {name: (array == array[0]).all(dim=0).nonzero()[:, 0].tolist() for name, array in (("x", x), ("y", y))}
    varying = [array[:, (array != array[0]).any(dim=0)] for array in (x, y)]
    fewer = [_principal_components(array, generator) for array in varying]
    reduced = any(less.shape[1] < array.shape[1] for less, array in zip(fewer, varying, strict=True))
    of_x, of_y = map(_normal_scores, fewer)
    return Pairs(of_x, of_y, _groups(x, y) if groups is None else groups.unique(return_inverse=True)[1], reduced, dropped)


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in (1, 2) or 0 in shape[1:]:
        raise ArraysInvalid(f"{name} has the shape {list(shape)}; it must be [N, d], or [N] for one dimension")
    if shape[0] < LEAST_PAIRS:
        raise ArraysInvalid(f"{name} has {shape[0]} rows; an estimate needs at least {LEAST_PAIRS} pairs")
    if shape[1:] and shape[1] > MOST_COLUMNS:
        raise ArraysInvalid(f"{name} has {shape[1]} columns; at most {MOST_COLUMNS} are accepted")


def _check_values(name: str, array: Tensor) -> None:
    wrong = (~array.reshape(len(array), -1).double().isfinite()).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        value = array.reshape(len(array), -1)[row, column].item()
        raise ArraysInvalid(
            f"{name} is {value} in row {row}, column {column} ({len(wrong)} such values); finite numbers are accepted"
        )


def _normal_scores(array: Float64[Tensor, "N d"]) -> Float64[Tensor, "N d"]:
    columns = []
    for column in array.T.numpy():
        _, which, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks = counts.cumsum() - (counts - 1) / 2  # the mean rank of those that tie
        columns.append(ndtri(ranks / (len(column) + 1))[which])
    return torch.from_numpy(np.stack(columns, axis=1)) if columns else array


def _principal_components(array: Float64[Tensor, "N d"], generator: Generator) -> Float64[Tensor, "N r"]:
    """The array itself, or the first components of its columns on one scale where it has more than its pairs support.

    By random projections: Halko, Martinsson, Tropp 2011.
    """
    most = min(MOST_DIMENSIONS, len(array) // PAIRS_A_DIMENSION)
    if array.shape[1] <= most:
        return array
    centred = array / array.abs().amax(dim=0)  # whose squares neither overflow nor vanish
    centred = centred - centred.mean(dim=0)
    centred = centred / centred.square().mean(dim=0).sqrt().clamp(min=1e-150)
    sketch = torch.randn(array.shape[1], most + 8, dtype=torch.float64, generator=generator)
    found = centred @ sketch
    for _ in range(2):  # power iterations
        basis = torch.linalg.qr(found).Q
        found = centred @ (centred.T @ basis)
    basis = torch.linalg.qr(found).Q
    left, values, _ = torch.linalg.svd(basis.T @ centred, full_matrices=False)
    components: Tensor = (basis @ left * values)[:, :most]
    return components


def _groups(x: Float64[Tensor, "N d1"], y: Float64[Tensor, "N d2"]) -> Int64[Tensor, " N"]:
    _, first, which = np.unique(_rows(torch.cat((x, y), dim=1)), return_index=True, return_inverse=True)
    if len(first) * MOST_COPIES < len(x):
        return torch.arange(len(x))
    return torch.from_numpy(first.argsort().argsort()[which])  # in the order of their coming, whatever the unit


def _rows(array: Float64[Tensor, "N d"]) -> Any:
    """Each row as one value, to compare it by."""
    rows = np.ascontiguousarray(array.numpy() + 0.0)  # -0 is 0
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]


def _equal(values: Any) -> float:
    """How many pairs of values are equal."""
    counts = np.unique(values, return_counts=True)[1]
    return float((counts * (counts - 1) / 2).sum())
