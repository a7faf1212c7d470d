"""Canonical correlations, and the information of Gaussians that have them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from scipy.special import digamma
from torch import Tensor

from ml.mi import Estimate

MOST_CORRELATED = 1 - 1e-6  # beyond it one decides the other as far as float32 can tell
LEAST_VARIANCE = 1e-10  # of an axis beside the largest, columns on one scale: less is rounding, of float32 too
LEAST_SPREAD = 1e-12  # of a column beside its largest value: a constant


@dataclass(frozen=True, eq=False)
class Canonical:
    """Linear maps of x and y to coordinates that are white, of which the i-th of x is correlated with the i-th of y alone."""

    x_mean: Float64[Tensor, " d1"]
    x_weights: Float64[Tensor, "d1 r1"]
    y_mean: Float64[Tensor, " d2"]
    y_weights: Float64[Tensor, "d2 r2"]
    correlations: Float64[Tensor, " r"]
    """Descending, in [0, 1); as many as the smaller of r1 and r2, the dimensions that x and y have."""

    def of_x(self, x: Float[Tensor, "N d1"]) -> Float64[Tensor, "N r1"]:
        """Canonical coordinates of x, the most correlated first."""
        return (x.double() - self.x_mean) @ self.x_weights

    def of_y(self, y: Float[Tensor, "N d2"]) -> Float64[Tensor, "N r2"]:
        """Canonical coordinates of y, the most correlated first."""
        return (y.double() - self.y_mean) @ self.y_weights


def canonical(x: Float[Tensor, "N d1"], y: Float[Tensor, "N d2"]) -> Canonical:
    """Canonical correlation analysis of N pairs. Hotelling 1936.

    Columns that are constant, or linear in others but for rounding, add no dimension: the rest say all that they say. Invertible
    linear maps of x or of y change no correlation. Raises ValueError unless N is above the dimensions together, where some
    correlation is 1 whatever the pairs.
    """
    x, y = x.double(), y.double()
    x_white, y_white = _whitening(x), _whitening(y)
    d1, d2 = x_white.shape[1], y_white.shape[1]
    if len(x) <= d1 + d2:
        raise ValueError(f"{len(x)} pairs are too few for {d1} and {d2} dimensions; at least {d1 + d2 + 1} are accepted")
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    left, correlations, right = torch.linalg.svd(((x - x_mean) @ x_white).T @ ((y - y_mean) @ y_white) / (len(x) - 1))
    return Canonical(x_mean, x_white @ left, y_mean, y_white @ right.T, correlations.clamp(0, MOST_CORRELATED))


def cca(x: Float[Tensor, "N d1"], y: Float[Tensor, "N d2"]) -> Estimate:
    """Information in nats of Gaussians with the canonical correlations of N pairs: -1/2 sum log(1 - rho^2), without its bias.

    Exact for joint Gaussians, where the mean over repetitions is the truth at any N, and so readings of independent ones fall
    below 0 as often as not; blind to what is not linear. The bias is that of three log determinants of Wishart matrices (Goodman
    1963; Misra, Singh, Demchuk 2005). The standard error is sqrt(sum rho^2 / N), by the delta method; up to 1.4 times too large
    where there is no information. Raises ValueError as `canonical`.
    """
    found = canonical(x, y)
    d1, d2, freedom = found.x_weights.shape[1], found.y_weights.shape[1], len(x) - 1
    squares = found.correlations.square()
    bias = (_log_determinant_bias(d1, freedom) + _log_determinant_bias(d2, freedom) - _log_determinant_bias(d1 + d2, freedom)) / 2
    value = (-torch.log1p(-squares) / 2).sum().item() - bias
    stderr = math.sqrt(squares.sum().item() / len(x))
    return Estimate(value, stderr, "neither", caution=_DECIDED if (found.correlations == MOST_CORRELATED).any() else None)


_DECIDED = "a linear map of x decides one of y: read it as `at least`"


def _whitening(values: Float64[Tensor, "N d"]) -> Float64[Tensor, "d r"]:
    """A map to white coordinates, of as many dimensions as the values have."""
    spread = values.std(dim=0)
    scale = torch.where(spread > LEAST_SPREAD * values.abs().amax(dim=0), 1 / spread, 0.0)
    variances, axes = torch.linalg.eigh(torch.cov((values * scale).T).reshape(values.shape[1], -1))
    there = variances > LEAST_VARIANCE * variances.max()
    white: Tensor = scale[:, None] * axes[:, there] * variances[there].rsqrt()
    return white


def _log_determinant_bias(d: int, freedom: int) -> float:
    """E[log det S] - log det Sigma of a sample covariance S."""
    return float(sum(digamma((freedom - i) / 2) for i in range(d)) + d * math.log(2 / freedom))
