"""The nearest-neighbour estimator of Kraskov, Stögbauer and Grassberger."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Generator, Tensor

from ml.mi import Estimate

NEIGHBOURS = 3
SPLITS = 20  # into halves: the standard error is then known to about 16 %
MOST_SPLIT = 2000  # pairs, of which the error of all is told
STILL_RISING = 0.02  # nats, or this share of the value, from half of the pairs to all
RISES = 4  # splits that it is averaged over
ON_THE_EDGE = 1.5


def ksg(x: Float[Tensor, "N d1"], y: Float[Tensor, "N d2"], generator: Generator, neighbours: int = NEIGHBOURS) -> Estimate:
    """The mean of `contributions` in nats, with its standard error: no bound. Give pairs of which no two are copies.

    Neighbours share neighbours, so the spread of contributions is too small an error, by up to 40 %. What two halves of the pairs
    differ by tells it, since the variance goes with 1 / N: Holmes, Nemenman 2019, with halves drawn again and again in place of
    many small parts, whose variance is still another. As they do it is also asked whether the value rises with the pairs, as it
    does where neighbours are too far away to be neighbours, and a caution says so; another one where values are rounded, and many
    stand just where nearness ends. Raises ValueError for fewer than 4 (neighbours + 1) pairs.
    """
    _refuse_few(len(x), 4 * (neighbours + 1), neighbours)
    squares = []
    for _ in range(SPLITS):
        half = min(len(x), MOST_SPLIT) // 2
        two = torch.randperm(len(x), generator=generator)[: 2 * half].split(half)
        one, other = (contributions(x[chosen], y[chosen], neighbours).mean() for chosen in two)
        squares.append((one - other).item() ** 2 * half / 2)
    value, stderr = contributions(x, y, neighbours).mean().item(), math.sqrt(np.mean(squares) / len(x))
    if _on_the_edge(x, y, neighbours) > ON_THE_EDGE:
        repeat = "values repeat, and so many are just as near as the neighbours counted that it may read high"
        return Estimate(value=value, stderr=stderr, kind="neither", caution=repeat)
    halves = [part for _ in range(RISES) for part in torch.randperm(len(x), generator=generator).tensor_split(2)]
    rise = value - sum(contributions(x[part], y[part], neighbours).mean().item() for part in halves) / len(halves)
    rising = rise > max(STILL_RISING, STILL_RISING * value, stderr)  # which is about twice its own error
    caution = f"low: from half of the pairs to all it rises by {rise:.2f} nats" if rising else None
    return Estimate(value=value, stderr=stderr, kind="neither", low=rising, caution=caution)


def _on_the_edge(x: Float[Tensor, "N d1"], y: Float[Tensor, "N d2"], neighbours: int) -> float:
    """How many items stand exactly where nearness ends, in x or in y, on average: 1 where no value repeats."""
    both, trees = _trees(x, y)
    distances = cKDTree(both).query(both, k=neighbours + 1, p=np.inf)[0][:, -1]
    apart = distances > 0  # the others are counted as what repeats
    if not apart.any():
        return 1.0
    ends = distances[apart]
    counts = [
        tree.query_ball_point(tree.data[apart], radius, p=np.inf, return_length=True)
        for tree in trees
        for radius in (ends, np.nextafter(ends, 0))
    ]
    return float((counts[0] - counts[1] + counts[2] - counts[3]).mean())


def contributions(x: Float[Tensor, "N d1"], y: Float[Tensor, "N d2"], neighbours: int = NEIGHBOURS) -> Float64[Tensor, " N"]:
    """Estimate in nats as the mean over items: psi(k) + psi(N) - psi(n_x) - psi(n_y).

    n_x and n_y count the items, the item itself included, nearer in x or in y alone than its k-th neighbour is in both, in the
    maximum norm. Give all columns one scale beforehand. No bound: it reads low in more than about six dimensions together and
    where one nearly decides the other. Kraskov, Stögbauer, Grassberger 2004, eq. 8, their first estimator.

    Where k others or more lie at the very place of an item there is no distance: then k, n_x and n_y count what lies at that
    place, the item included, as Gao et al. 2017 do. So of values that repeat it reads the information of a discrete distribution,
    and of constants exactly 0; but k copies of each pair look like such values too. Raises ValueError unless N is above k.
    """
    _refuse_few(len(x), neighbours + 1, neighbours)
    both, trees = _trees(x, y)
    tree = cKDTree(both)
    distances = tree.query(both, k=neighbours + 1, p=np.inf)[0][:, -1]
    k = np.full(len(both), neighbours)
    tied = distances == 0
    if tied.any():
        k[tied] = tree.query_ball_point(both[tied], 0, p=np.inf, return_length=True)
    nearer = np.nextafter(distances, 0)  # strictly nearer than the k-th neighbour
    n_x, n_y = (part.query_ball_point(part.data, nearer, p=np.inf, return_length=True) for part in trees)
    return torch.from_numpy(digamma(k) + digamma(len(both)) - digamma(n_x) - digamma(n_y))


def _trees(x: Tensor, y: Tensor) -> tuple[Any, tuple[cKDTree, cKDTree]]:
    """Both side by side, and each in a tree of its own."""
    both = torch.cat((x, y), dim=1).double().cpu().numpy()
    return both, (cKDTree(both[:, : x.shape[1]]), cKDTree(both[:, x.shape[1] :]))


def _refuse_few(pairs: int, least: int, neighbours: int) -> None:
    if pairs < least:
        raise ValueError(f"{pairs} pairs are too few to count {neighbours} neighbours; at least {least} are accepted")
