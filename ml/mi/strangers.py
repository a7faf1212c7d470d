"""Means over strangers: pairs (x_i, y_j) with i unlike j, as if drawn from the product of the marginals."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

LARGEST = 80.0  # nats of a score that is exponentiated: neither that nor its gradient overflows, in float32 critics either


def pairs(scores: Float[Tensor, "B B"]) -> Float64[Tensor, " B"]:
    """Scores of the pairs, clipped as in `exponentials`: what is read is a bound of the clipped critic."""
    return scores.diagonal().double().clamp(max=LARGEST)


def exponentials(scores: Float[Tensor, "B B"]) -> Float64[Tensor, "B B"]:
    """exp(scores) of strangers, and 0 on the diagonal."""
    return without_pairs(scores.double().clamp(max=LARGEST), -math.inf).exp()


def log_mean_exp(scores: Float[Tensor, "B B"]) -> Float64[Tensor, ""]:
    """Log of the mean of exp(scores) over strangers."""
    B = len(scores)
    return without_pairs(scores, -math.inf).flatten().logsumexp(dim=0) - math.log(B * (B - 1))


def by_item(off: Float64[Tensor, "B B"]) -> Float64[Tensor, " B"]:
    """What each item contributes to the mean over strangers of a matrix that is 0 on its diagonal.

    An item counts as a column and as a row: the mean is the strangers' exactly, and the spread that of a U-statistic to first
    order, its Hajek projection. Hoeffding 1948.
    """
    off = off / (len(off) - 1)
    return off.sum(dim=0) + as_rows(off)


def as_rows(off: Float64[Tensor, "B B"]) -> Float64[Tensor, " B"]:
    """What each item's x adds to an estimate as a stranger of other columns, about the mean over all items.

    `off[i, j]` is the derivative of column j's part by the weight of row i, 0 on the diagonal. The mean is 0: it is the spread
    that an estimate by columns lacks without it.
    """
    rows = off.sum(dim=1)
    return rows - rows.mean()


def without_pairs(scores: Float[Tensor, "B B"], value: float) -> Float64[Tensor, "B B"]:
    """The scores in float64, with `value` on the diagonal."""
    return scores.double().masked_fill(torch.eye(len(scores), dtype=torch.bool, device=scores.device), value)
