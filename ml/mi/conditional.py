"""A learned density of y given x, and whether held-out pairs bear it out."""

import math

import torch
from jaxtyping import Float, Float64, Int64
from scipy.special import ndtri
from scipy.stats import kstest, normaltest
from torch import Tensor, nn

from ml.mi.cca import Canonical
from ml.mi.critics import silent

WIDTH = 128
LEAST_LOG_DEVIATION = -6.0  # what repeats itself exactly has no density
LEAST_TESTED = 100  # residuals: fewer would hide what is wrong with them
LEVEL = 0.01  # of the test of residuals, over all of them together
CUT = 3.0  # deviations
NEIGHBOURS = 10
MOST_NEIGHBOURHOODS = 5000  # of pairs among which neighbours are sought
MOST_TESTED = 20_000


class Conditional(nn.Module):
    """q(v|u): independent Gaussians whose means and deviations depend on u, in canonical coordinates.

    It begins as the linear regression, which is right for Gaussians: mean rho_i u_i and variance 1 - rho_i^2.
    """

    correlations: Tensor

    def __init__(self, canonical: Canonical, rank: int) -> None:
        super().__init__()
        inputs, outputs = canonical.x_weights.shape[1], canonical.y_weights.shape[1]
        correlations = torch.zeros(outputs)
        correlations[:rank] = canonical.correlations[:rank].float()
        self.register_buffer("correlations", correlations)
        self.network = nn.Sequential(
            nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), silent(WIDTH, 2 * outputs)
        )

    def forward(self, u: Float[Tensor, "A r1"]) -> tuple[Float[Tensor, "A r2"], Float[Tensor, "A r2"]]:
        """Means and log deviations of v."""
        means, log_deviations = self.network(u).chunk(2, dim=1)
        rank = min(u.shape[1], means.shape[1])
        linear = nn.functional.pad(u[:, :rank], (0, means.shape[1] - rank)) * self.correlations
        start = torch.log1p(-self.correlations.square()) / 2
        return means + linear, (log_deviations + start).clamp(min=LEAST_LOG_DEVIATION)

    def log_density(self, u: Float[Tensor, "B r1"], v: Float[Tensor, "B r2"]) -> Float[Tensor, " B"]:
        """log q(v_i|u_i)."""
        means, log_deviations = self(u)
        densities: Tensor = _log_normal((v - means) / log_deviations.exp()).sum(dim=1) - log_deviations.sum(dim=1)
        return densities

    def log_densities(self, u: Float[Tensor, "A r1"], v: Float[Tensor, "B r2"]) -> Float64[Tensor, "A B"]:
        """log q(v_j|u_i) in row i and column j."""
        means, log_deviations = (part.double() for part in self(u))
        v = v.double()
        precisions = (-2 * log_deviations).exp()
        squares = (means.square() * precisions).sum(dim=1)[:, None] - 2 * (means * precisions) @ v.T + precisions @ v.square().T
        densities: Tensor = -squares / 2 - log_deviations.sum(dim=1)[:, None] - v.shape[1] * math.log(2 * math.pi) / 2
        return densities

    def residuals(self, u: Float[Tensor, "B r1"], v: Float[Tensor, "B r2"]) -> Float[Tensor, "B r2"]:
        """Standard Gaussian and independent of u where the density is the true one."""
        means, log_deviations = self(u)
        residuals: Tensor = (v - means) / log_deviations.exp()
        return residuals


def log_standard_normal(v: Float[Tensor, "B r2"]) -> Float[Tensor, " B"]:
    """log q(v) of canonical coordinates, whose mean is 0 and whose covariance is 1."""
    return _log_normal(v).sum(dim=1)


class Residuals:
    """Of held-out pairs, each part by a density learned without it, turned to coordinates that all parts have in common."""

    def __init__(self, common: Canonical) -> None:
        self._common = common
        self._residuals: list[Tensor] = []
        self._inputs: list[Tensor] = []
        self._items: list[Tensor] = []

    def add(
        self,
        residuals: Float[Tensor, "H r2"],
        v: Float[Tensor, "H r2"],
        x: Float[Tensor, "H d1"],
        y: Float[Tensor, "H d2"],
        items: Int64[Tensor, " H"],
    ) -> None:
        """Of the pairs x, y, which are these items, by a density of v; turned as v turns to common coordinates."""
        left, _, right = torch.linalg.svd(v.double().T @ self._common.of_y(y), full_matrices=False)
        self._residuals.append(residuals.double() @ left @ right)
        self._inputs.append(self._common.of_x(x))
        self._items.append(items)

    def bear_out(self, unlike: Int64[Tensor, " G"]) -> bool:
        """Whether they are what the learned densities say, all together, told from items that are not alike: see `borne_out`."""
        chosen = torch.isin(torch.cat(self._items), unlike)
        return borne_out(torch.cat(self._residuals)[chosen], torch.cat(self._inputs)[chosen])


def borne_out(residuals: Float[Tensor, "N r2"], u: Float[Tensor, "N r1"]) -> bool:
    """Whether residuals of independent pairs look standard Gaussian and independent of u and of each other: nothing is rejected.

    Three families of tests share LEVEL, each by Bonferroni. Of each coordinate Kolmogorov-Smirnov, and skewness with kurtosis
    (D'Agostino, Pearson 1973). Correlations of residuals, their squares and their length with u, its squares, its length and u
    times its length, and of residuals and squares with each other. Of residuals and their squares with those of NEIGHBOURS in u
    (Moran 1950), since what a network has not learned is alike nearby; where u repeats its values this level is a little too low.
    Values of the latter two are cut off at CUT deviations, beyond which a few pairs would decide. What a model errs by on each
    part of the pairs it owes to the noise of the others, so that over all parts errors cancel rather than widen what is allowed.
    """
    even = torch.linspace(0, len(residuals) - 1, min(len(residuals), MOST_TESTED)).long()
    e, u = residuals[even].double(), u[even].double()
    if len(e) < LEAST_TESTED:
        return False  # too few to tell
    squares, lengths = e.square(), u.square().sum(dim=1, keepdim=True)
    level = LEVEL / 3
    columns = e.T.numpy()
    if min(min(kstest(column, "norm").pvalue, normaltest(column).pvalue) for column in columns) < level / (2 * len(columns)):
        return False
    of_e = torch.cat((e, squares, squares.sum(dim=1, keepdim=True)), dim=1)
    correlations = torch.cat(
        (
            _correlations(of_e, torch.cat((u, u.square(), lengths, u * lengths), dim=1)).flatten(),
            _correlations(e, e).triu(1).flatten(),
            _correlations(squares, squares).triu(1).flatten(),
        )
    )
    allowed = -ndtri(level / len(correlations) / 2) / math.sqrt(len(e))
    if allowed >= 1 or correlations.abs().max().item() > allowed:
        return False
    nearby = _nearby(torch.cat((e, squares), dim=1), u)
    return bool(nearby.max().item() < -ndtri(level / len(nearby)))


def _nearby(values: Float64[Tensor, "N d"], u: Float64[Tensor, "N r1"]) -> Float64[Tensor, " d"]:
    """Mean product of values with those of neighbours in u, in standard deviations were they independent."""
    even = torch.linspace(0, len(values) - 1, min(len(values), MOST_NEIGHBOURHOODS)).long()
    values, u = _cut(values[even]), u[even]
    own = torch.arange(len(u))
    nearest = []
    for part in own.split(1000):
        distances = torch.cdist(u[part], u).scatter(1, part[:, None], math.inf)
        nearest.append(distances.topk(NEIGHBOURS, largest=False).indices)
    one, other = own.repeat_interleave(NEIGHBOURS), torch.cat(nearest).flatten()
    mutual = torch.isin(one * len(u) + other, other * len(u) + one).sum()  # what counts twice varies four times as much
    return (values[one] * values[other]).sum(dim=0) / (len(one) + mutual).sqrt()


def _correlations(a: Float64[Tensor, "N d1"], b: Float64[Tensor, "N d2"]) -> Float64[Tensor, "d1 d2"]:
    a, b = _cut(a), _cut(b)
    return a.T @ b / len(a)


def _cut(columns: Float64[Tensor, "N d"]) -> Float64[Tensor, "N d"]:
    return _standard(_standard(columns).clamp(-CUT, CUT))


def _standard(columns: Float64[Tensor, "N d"]) -> Float64[Tensor, "N d"]:
    return (columns - columns.mean(dim=0)) / columns.std(dim=0).clamp(min=1e-12)


def _log_normal(standard: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
    return -(standard.square() + math.log(2 * math.pi)) / 2
