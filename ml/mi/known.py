"""Distributions that know their mutual information: a test-bed for estimators of it, all in nats.

    known = correlated(10, rho=0.5)
    x, y = known.sample(5000, torch.Generator().manual_seed(0))
    known.information, known.scores(x, y).diagonal().mean()  # 1.438, and nearly so

This file needs torch, scipy and jaxtyping, and nothing else of this project. `TESTBED` is the collection that `make bench-mi`
runs on. The idea, and some of the families, are those of Czyż, Grabowski, Vogt, Beerenwinkel, Marx 2023, "Beyond Normal: On the
Evaluation of Mutual Information Estimators" (the library bmi).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Float, Float64
from scipy.special import digamma, gammaln
from torch import Generator, Tensor


@dataclass(frozen=True, eq=False)
class Known:
    """A joint distribution of x and y, of which everything is known that an estimator could ask for."""

    name: str
    dims: tuple[int, int]
    """Columns of x and of y."""
    information: float
    """I(x; y) in nats, exact to rounding: in closed form, but for `wave`."""
    draw: Callable[[int, Generator], tuple[Tensor, Tensor]]
    """What `sample` asks."""
    log_ratios: Callable[[Tensor, Tensor], Tensor]
    """What `scores` asks."""
    log_densities: Callable[[Tensor], Tensor]
    """What `log_marginals` asks: of y."""
    hard: str | None = None
    """Why, as the literature has it, some thousands of pairs do not suffice; None where they do."""

    def sample(
        self, n: int, generator: Generator
    ) -> tuple[Float64[Tensor, "{n} {self.dims[0]}"], Float64[Tensor, "{n} {self.dims[1]}"]]:
        """Draw n independent pairs, on the generator's device: row i of x belongs to row i of y."""
        return self.draw(n, generator)

    def scores(self, x: Float[Tensor, "N {self.dims[0]}"], y: Float[Tensor, "M {self.dims[1]}"]) -> Float64[Tensor, "N M"]:
        """log p(y_j|x_i) / p(y_j): the optimal critic, whose mean over pairs is the information. -inf for pairs that cannot be.

        Give x and y as they were sampled, in float64: rounded to float32, some would lie outside of what can be.
        """
        return self.log_ratios(x.double(), y.double())

    def log_marginals(self, y: Float[Tensor, "M {self.dims[1]}"]) -> Float64[Tensor, " M"]:
        """log p(y_j): a density, or a probability where y is discrete; along the curve where y lies on one."""
        return self.log_densities(y.double())

    def log_conditionals(
        self, x: Float[Tensor, "N {self.dims[0]}"], y: Float[Tensor, "M {self.dims[1]}"]
    ) -> Float64[Tensor, "N M"]:
        """log p(y_j|x_i), a density or a probability as `log_marginals`."""
        return self.scores(x, y) + self.log_marginals(y)


# Gaussians ------------------------------------------------------------------------------------------------------------


def correlated(d: int, rho: float) -> Known:
    """d independent pairs of standard Gaussians, each with correlation rho: I = -d/2 log(1 - rho^2)."""
    return gaussian(f"Gaussian {d} x {d}, rho {rho:.3g}", _cross(torch.eye(d, dtype=torch.float64) * rho), d)


def correlation(d: int, information: float) -> float:
    """The rho at which `correlated(d, rho)` has so much information."""
    return math.sqrt(-math.expm1(-2 * information / d))


def sparse(d1: int, d2: int, correlations: Sequence[float]) -> Known:
    """Standard Gaussians of which the i-th of x and the i-th of y have the i-th of `correlations`; all others are independent.

    I = -1/2 sum log(1 - rho_i^2).
    """
    across = torch.zeros(d1, d2, dtype=torch.float64)
    across.diagonal()[: len(correlations)] = torch.tensor(correlations, dtype=torch.float64)
    told = " ".join(f"{rho:.3g}" for rho in correlations) if correlations else "none"
    return gaussian(f"sparse multinormal {d1} x {d2}, rho {told}", _cross(across), d1)


def dense(d1: int, d2: int, rho: float) -> Known:
    """Standard Gaussians of which any two have correlation rho, also within x and within y.

    I = 1/2 log D(d1) D(d2) / D(d1 + d2) with D(d) = (1 - rho)^(d - 1) (1 + (d - 1) rho), the determinant.
    """
    covariance = torch.full((d1 + d2, d1 + d2), rho, dtype=torch.float64).fill_diagonal_(1)
    return gaussian(f"dense multinormal {d1} x {d2}, rho {rho:.3g}", covariance, d1)


def noise_axis(d: int, s: float) -> Known:
    """Two noisy views x + s n1, x + s n2 of one standard Gaussian x: I = -d/2 log(1 - (1 + s^2)^-2)."""
    across = torch.eye(d, dtype=torch.float64)
    return gaussian(f"noise axis {d} x {d}, s {s:.3g}", _cross(across) + s**2 * torch.eye(2 * d, dtype=torch.float64), d)


def ou_strips(gap: float, length: float, steps: int, step: float = 0.25) -> Known:
    """Two strips of an Ornstein-Uhlenbeck path with covariance exp(-|t - t'| / length), `gap` apart.

    Each strip is `steps` values, `step` correlation lengths from one to the next. The path is Markov, so all that they share is
    what the facing ends share, however long they are: I = -1/2 log(1 - exp(-2 gap / length)).
    """
    strip = torch.arange(steps, dtype=torch.float64) * step * length
    times = torch.cat((strip, strip[-1] + gap + strip))
    covariance = (-(times[:, None] - times).abs() / length).exp()
    return gaussian(f"Ornstein-Uhlenbeck strips {steps} x {steps}, gap {gap / length:.3g}", covariance, steps)


def gaussian(name: str, covariance: Float64[Tensor, "d d"], d1: int) -> Known:
    """Gaussians of any covariance, of which the first d1 are x: I = 1/2 log det S_x det S_y / det S.

    Raises ValueError unless the covariance is symmetric and positive definite.
    """
    shared = _linear_information(covariance, d1)
    return _elliptical(name, covariance, d1, shared, lambda q, d: -(q + d * math.log(2 * math.pi)) / 2, _gaussian_radius)


# Not Gaussian ---------------------------------------------------------------------------------------------------------


def student(d1: int, d2: int, dof: int, rho: float = 0.0) -> Known:
    """Multivariate Student-t with the dispersion of `correlated`: dependent, through their common scale, even at rho 0.

    I = -1/2 sum log(1 - rho^2) + f(dof) + f(dof + d1 + d2) - f(dof + d1) - f(dof + d2) with
    f(v) = log Gamma(v / 2) - v/2 psi(v / 2). Arellano-Valle, Contreras-Reyes, Genton 2013, section 3.
    """

    def part(v: int) -> float:
        return float(gammaln(v / 2) - v / 2 * digamma(v / 2))

    def log_density(q: Tensor, d: int) -> Tensor:
        constant = float(gammaln((dof + d) / 2) - gammaln(dof / 2)) - d / 2 * math.log(dof * math.pi)
        return constant - (dof + d) / 2 * torch.log1p(q / dof)

    def radius(n: int, generator: Generator) -> Tensor:
        squares = _normal(n, dof, generator).square().sum(dim=1, keepdim=True)
        return (dof / squares).sqrt()

    across = torch.eye(d1, d2, dtype=torch.float64) * rho
    dispersion = _cross(across)
    information = _linear_information(dispersion, d1) + part(dof) + part(dof + d1 + d2) - part(dof + d1) - part(dof + d2)
    found = _elliptical(f"Student-t {d1} x {d2}, dof {dof}, rho {rho:.3g}", dispersion, d1, information, log_density, radius)
    return replace(found, hard="heavy tails: no fourth moment" if dof <= 4 else None)


def uniform_noise(width: float) -> Known:
    """x ~ U(0, 1) and y = x + U(-width, width): I = width - log(2 width) up to a width of 1/2, and 1 / (4 width) beyond it."""

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x, noise = _uniform(n, 2, generator).split(1, dim=1)
        return x, x + width * (2 * noise - 1)

    def log_densities(y: Tensor) -> Tensor:
        overlap = (y[:, 0] + width).clamp(max=1) - (y[:, 0] - width).clamp(min=0)
        return (overlap.clamp(min=0) / (2 * width)).log()

    def log_ratios(x: Tensor, y: Tensor) -> Tensor:
        possible = (y[:, 0] - x).abs() <= width
        return torch.where(possible, -math.log(2 * width) - log_densities(y), -math.inf)

    information = width - math.log(2 * width) if width <= 0.5 else 1 / (4 * width)
    return Known(f"uniform noise, width {width:.3g}", (1, 1), information, draw, log_ratios, log_densities)


def wave(periods: int, noise: float) -> Known:
    """x ~ U(0, 1) and y = sin(2 pi periods x) + noise n with Gaussian n.

    I = h(y) - h(noise n). p(y) is a mean over a period, and h(y) an integral of what is smooth and vanishes at both ends: there
    sums over equal steps converge to rounding, here within 1e-12. Raises ValueError for a noise below .1: the steps are too wide.
    """
    if noise < 0.1:
        raise ValueError(f"a noise of {noise:.3g} is too little for these sums; at least 0.1 is accepted")
    phases = (torch.arange(512, dtype=torch.float64) + 0.5) / 512 * 2 * math.pi

    def log_normal(residuals: Tensor) -> Tensor:
        return -(residuals / noise).square() / 2 - math.log(noise * math.sqrt(2 * math.pi))

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x = _uniform(n, 1, generator)
        return x, (2 * math.pi * periods * x).sin() + noise * _normal(n, 1, generator)

    def log_densities(y: Tensor) -> Tensor:
        return log_normal(y - phases.to(y.device).sin()).logsumexp(dim=1) - math.log(len(phases))

    def log_ratios(x: Tensor, y: Tensor) -> Tensor:
        return log_normal(y[:, 0] - (2 * math.pi * periods * x).sin()) - log_densities(y)

    y = torch.linspace(-1 - 12 * noise, 1 + 12 * noise, 1024, dtype=torch.float64)[:, None]
    entropy = torch.special.entr(log_densities(y).exp()).sum().item() * (y[1] - y[0]).item()
    information = entropy - math.log(noise * math.sqrt(2 * math.pi * math.e))
    return Known(f"wave, {periods} periods, noise {noise:.3g}", (1, 1), information, draw, log_ratios, log_densities)


def shared_class(classes: int) -> Known:
    """Views that share their class and nothing else: I = log C for C equal classes.

    A class is a disc about a place on the unit circle, and a view a point of it, drawn for each view apart; no two discs touch.
    In y their order around the circle is another one, so that of many classes nothing linear is shared.
    """
    radius = math.sin(math.pi / max(classes, 2)) / 2
    stride = next(s for s in range(math.ceil(0.38 * classes), classes + 2) if math.gcd(s, classes) == 1)

    def disc(places: Tensor, generator: Generator) -> Tensor:
        angle, share = (2 * math.pi * _uniform(len(places), 2, generator)).unbind(dim=1)
        away = radius * (share / (2 * math.pi)).sqrt()
        centre = 2 * math.pi / classes * places
        return torch.stack((centre.cos() + away * angle.cos(), centre.sin() + away * angle.sin()), dim=1)

    def place(view: Tensor) -> Tensor:
        return (torch.atan2(view[:, 1], view[:, 0]) * classes / (2 * math.pi)).round().long() % classes

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        which = torch.randint(classes, (n,), generator=generator, device=generator.device)
        return disc(which, generator), disc(which * stride % classes, generator)

    def log_ratios(x: Tensor, y: Tensor) -> Tensor:
        same = (place(x) * stride % classes)[:, None] == place(y)
        return torch.where(same, x.new_tensor(math.log(classes)), -math.inf)

    def log_densities(y: Tensor) -> Tensor:
        centre = 2 * math.pi / classes * place(y)
        inside = torch.hypot(y[:, 0] - centre.cos(), y[:, 1] - centre.sin()) <= radius
        return torch.where(inside, y.new_tensor(-math.log(classes * math.pi * radius**2)), -math.inf)

    return Known(f"{classes} shared classes", (2, 2), math.log(classes), draw, log_ratios, log_densities)


def flipped_bit(p: float) -> Known:
    """A fair bit x, and y which is x but for a share p of flips: I = log 2 - H(p).

    Two views of a bit, each flipped with p, differ by a flip with 2 p (1 - p): at p = .1 they share .222, and each .368 with the
    bit.
    """
    flips = torch.tensor([1 - p, p], dtype=torch.float64)

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        chance, flip = _uniform(n, 2, generator).split(1, dim=1)
        x, flipped = chance < 0.5, flip < p
        return x.double(), (x ^ flipped).double()

    def log_ratios(x: Tensor, y: Tensor) -> Tensor:
        return (2 * flips.to(x.device))[(x != y[:, 0]).long()].log()

    def log_densities(y: Tensor) -> Tensor:
        return torch.full_like(y[:, 0], -math.log(2))

    information = math.log(2) - torch.special.entr(flips).sum().item()
    return Known(f"flipped bit, p {p:.3g}", (1, 1), information, draw, log_ratios, log_densities)


def together(*parts: Known) -> Known:
    """Independent pairs side by side: their information adds."""
    d1, d2 = ([part.dims[side] for part in parts] for side in (0, 1))

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x, y = zip(*(part.draw(n, generator) for part in parts), strict=True)
        return torch.cat(x, dim=1), torch.cat(y, dim=1)

    def log_ratios(x: Tensor, y: Tensor) -> Tensor:
        columns = zip(parts, x.split(d1, dim=1), y.split(d2, dim=1), strict=True)
        return reduce(torch.add, (part.log_ratios(one, other) for part, one, other in columns))

    def log_densities(y: Tensor) -> Tensor:
        return reduce(torch.add, (part.log_densities(other) for part, other in zip(parts, y.split(d2, dim=1), strict=True)))

    return Known(
        name=" + ".join(part.name for part in parts),
        dims=(sum(d1), sum(d2)),
        information=sum(part.information for part in parts),
        draw=draw,
        log_ratios=log_ratios,
        log_densities=log_densities,
        hard=next((part.hard for part in parts if part.hard), None),
    )


# Maps that keep the information -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Map:
    """An invertible map of each row: what it is applied to says as much as before."""

    name: str
    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    log_volume: Callable[[Tensor], Tensor]
    """[N, d] -> [N]: log of how much volume, or length, it makes of a little of it about a row."""
    columns: int = 1
    """That it makes of one."""
    hard: str | None = None


def mapped(known: Known, x: Map | None = None, y: Map | None = None) -> Known:
    """The distribution after a map of x, of y, or of both: as much information, and scores pulled back through the inverse."""
    one, other = x or IDENTITY, y or IDENTITY

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        first, second = known.draw(n, generator)
        return one.forward(first), other.forward(second)

    def log_densities(second: Tensor) -> Tensor:
        before = other.inverse(second)
        return known.log_densities(before) - other.log_volume(before)

    told = one.name if one.name == other.name else ", ".join(f"{side} {map.name}" for side, map in (("x", x), ("y", y)) if map)
    return Known(
        name=f"{known.name}, {told}",
        dims=(known.dims[0] * one.columns, known.dims[1] * other.columns),
        information=known.information,
        draw=draw,
        log_ratios=lambda first, second: known.log_ratios(one.inverse(first), other.inverse(second)),
        log_densities=log_densities,
        hard=known.hard or one.hard or other.hard,
    )


def _power(name: str, exponent: float) -> Map:
    return Map(
        name,
        forward=lambda x: x.sign() * x.abs() ** exponent,
        inverse=lambda x: x.sign() * x.abs() ** (1 / exponent),
        log_volume=lambda x: (exponent * x.abs() ** (exponent - 1)).log().sum(dim=1),
    )


def _wiggle(x: Tensor) -> Tensor:
    return x + (1.3 * x).sin() / 2 + (3 * x + 1).sin() / 10


def _unwiggle(wiggled: Tensor) -> Tensor:
    """By halving an interval until float64 sees no difference."""
    low, high = wiggled - 0.6, wiggled + 0.6
    for _ in range(55):
        middle = (low + high) / 2
        above = _wiggle(middle) > wiggled
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


IDENTITY = Map("as it is", lambda x: x, lambda x: x, lambda x: torch.zeros_like(x[:, 0]))
CUBE = _power("cubed", 3.0)
"""sign(x) |x|^3 of each column: long tails."""
HALF_CUBE = _power("half-cubed", 1.5)
"""sign(x) |x|^1.5 of each column."""
NORMAL_CDF = Map(
    "normal CDF",
    torch.special.ndtr,
    torch.special.ndtri,
    lambda x: -(x.square() + math.log(2 * math.pi)).sum(dim=1) / 2,
)
"""Of each column: a standard Gaussian becomes uniform on (0, 1)."""
WIGGLY = Map(
    "wiggly",
    _wiggle,
    _unwiggle,
    lambda x: (1 + 0.65 * (1.3 * x).cos() + 0.3 * (3 * x + 1).cos()).log().sum(dim=1),
)
"""x + sin(1.3 x) / 2 + sin(3 x + 1) / 10 of each column, whose slope runs from .05 to 1.95."""


def spiral(speed: float) -> Map:
    """Turn each row by speed |x|^2 radians, in the planes of columns 1 and 2, 3 and 4, ...: it keeps |x| and all volumes.

    With A antisymmetric, exp(A |x|^2) x has the Jacobian R (1 + 2 A x x'), whose determinant is 1 + 2 x' A x = 1.
    """

    def turned(x: Tensor, by: float) -> Tensor:
        if x.shape[1] < 2:
            raise ValueError("a spiral needs a plane to turn in; at least 2 columns are accepted")
        paired = x.shape[1] // 2 * 2
        angle = by * x.square().sum(dim=1, keepdim=True)
        a, b = x[:, 0:paired:2], x[:, 1:paired:2]
        planes = torch.stack((angle.cos() * a - angle.sin() * b, angle.sin() * a + angle.cos() * b), dim=2).flatten(1)
        return torch.cat((planes, x[:, paired:]), dim=1)

    return Map(
        f"spiral {speed:.3g}",
        lambda x: turned(x, speed),
        lambda x: turned(x, -speed),
        IDENTITY.log_volume,
        hard="spirals: neighbours in space are far apart along the arms",
    )


INNER, OUTER = 1.5 * math.pi, 4.5 * math.pi  # angles between which the sheet is rolled up


def _roll(x: Tensor) -> Tensor:
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError(
            f"a sheet from 0 to 1 is rolled up, and {x.min().item():.3g} to {x.max().item():.3g} came; NORMAL_CDF helps"
        )
    angle = INNER + (OUTER - INNER) * x
    return (torch.stack((angle.cos(), angle.sin()), dim=2) * (angle / OUTER)[:, :, None]).flatten(1)


def _unroll(rolled: Tensor) -> Tensor:
    angle: Tensor = rolled.unflatten(1, (-1, 2)).norm(dim=2) * OUTER
    return (angle - INNER) / (OUTER - INNER)


SWISS_ROLL = Map(
    "Swiss roll",
    _roll,
    _unroll,
    lambda x: ((1 + (INNER + (OUTER - INNER) * x).square()).sqrt() * (OUTER - INNER) / OUTER).log().sum(dim=1),
    columns=2,
)
"""Each column, of values from 0 to 1, becomes a spiral sheet in a plane of its own: two columns."""


# What the families are made of ------------------------------------------------------------------------------------------


def _elliptical(
    name: str,
    dispersion: Float64[Tensor, "d d"],
    d1: int,
    information: float,
    log_density: Callable[[Tensor, int], Tensor],
    radius: Callable[[int, Generator], Tensor],
) -> Known:
    """With `log_density(q, d)` at a squared distance q in d dimensions of dispersion 1; a Gaussian times `radius` is one."""
    root, precision = torch.linalg.cholesky(dispersion), torch.linalg.inv(dispersion)
    of_x, of_y = (torch.linalg.inv(block) for block in (dispersion[:d1, :d1], dispersion[d1:, d1:]))
    d2 = len(dispersion) - d1
    shared, volume = _linear_information(dispersion, d1), torch.linalg.slogdet(dispersion[d1:, d1:]).logabsdet.item() / 2

    def squares(rows: Tensor, form: Tensor) -> Tensor:
        return (rows @ form.to(rows.device) * rows).sum(dim=1)

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        both = _normal(n, d1 + d2, generator) @ root.T.to(generator.device) * radius(n, generator)
        return both[:, :d1], both[:, d1:]

    def log_ratios(x: Tensor, y: Tensor) -> Tensor:
        product = x @ precision[:d1, d1:].to(x.device) @ y.T
        joint = squares(x, precision[:d1, :d1])[:, None] + 2 * product + squares(y, precision[d1:, d1:])
        alone = log_density(squares(x, of_x), d1)[:, None] + log_density(squares(y, of_y), d2)
        return log_density(joint, d1 + d2) - alone + shared

    return Known(name, (d1, d2), information, draw, log_ratios, lambda y: log_density(squares(y, of_y), d2) - volume)


def _gaussian_radius(n: int, generator: Generator) -> Tensor:
    return torch.ones(n, 1, dtype=torch.float64, device=generator.device)


def _linear_information(covariance: Float64[Tensor, "d d"], d1: int) -> float:
    if not torch.allclose(covariance, covariance.T) or torch.linalg.eigvalsh(covariance)[0] <= 0:
        raise ValueError("this is no covariance; a symmetric matrix of positive eigenvalues is accepted")
    blocks = (covariance[:d1, :d1], covariance[d1:, d1:], covariance)
    of_x, of_y, of_both = (torch.linalg.slogdet(block).logabsdet for block in blocks)
    return float(of_x + of_y - of_both) / 2


def _cross(across: Float64[Tensor, "d1 d2"]) -> Float64[Tensor, "d d"]:
    """The covariance of x and y, each of which is white."""
    d1, d2 = across.shape
    one, other = torch.eye(d1, dtype=torch.float64), torch.eye(d2, dtype=torch.float64)
    return torch.cat((torch.cat((one, across), dim=1), torch.cat((across.T, other), dim=1)))


def _normal(n: int, d: int, generator: Generator) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=generator, device=generator.device)


def _uniform(n: int, d: int, generator: Generator) -> Tensor:
    return torch.rand(n, d, dtype=torch.float64, generator=generator, device=generator.device)


TESTBED = {
    known.name: known
    for known in (
        # nothing to be found
        correlated(1, 0.0),
        mapped(correlated(5, 0.0), x=CUBE, y=CUBE),
        sparse(3, 10, ()),
        correlated(25, 0.0),
        # Gaussians
        correlated(1, 0.5),
        correlated(1, 0.95),
        correlated(2, 0.8),
        correlated(10, correlation(10, 1.0)),
        correlated(10, correlation(10, 2.0)),
        correlated(5, correlation(5, 4.0)),
        correlated(25, correlation(25, 2.0)),
        sparse(1, 25, (0.9,)),
        sparse(5, 5, (0.8, 0.8)),
        sparse(25, 25, (0.8, 0.8)),
        dense(2, 3, 0.7),
        dense(5, 5, 0.5),
        dense(25, 25, 0.5),
        ou_strips(0.1, 1.0, 8),
        ou_strips(0.5, 1.0, 8),
        noise_axis(10, 1.0),
        noise_axis(10, 2.0),
        # their columns bent
        mapped(correlated(1, 0.9), x=CUBE, y=CUBE),
        mapped(correlated(1, 0.75), x=NORMAL_CDF, y=NORMAL_CDF),
        mapped(correlated(3, 0.7), x=CUBE, y=WIGGLY),
        mapped(correlated(5, correlation(5, 2.0)), x=WIGGLY, y=WIGGLY),
        mapped(correlated(10, correlation(10, 2.0)), x=NORMAL_CDF, y=NORMAL_CDF),
        mapped(sparse(25, 25, (0.8, 0.8)), x=HALF_CUBE, y=HALF_CUBE),
        # not Gaussian
        student(3, 3, dof=8, rho=0.6),
        uniform_noise(0.1),
        uniform_noise(0.75),
        wave(2, 0.5),
        shared_class(10),
        together(shared_class(3), shared_class(4)),
        flipped_bit(0.18),
        mapped(mapped(correlated(1, 0.75), x=NORMAL_CDF, y=NORMAL_CDF), x=SWISS_ROLL),
        mapped(mapped(correlated(1, 0.9), x=NORMAL_CDF, y=NORMAL_CDF), x=SWISS_ROLL, y=SWISS_ROLL),
        # beyond some thousands of pairs
        student(1, 1, dof=1),
        student(2, 2, dof=2, rho=0.5),
        student(5, 5, dof=3),
        mapped(correlated(2, 0.8), x=spiral(1.0), y=spiral(1.0)),
        mapped(sparse(3, 3, (0.8, 0.8)), x=spiral(0.5), y=spiral(0.5)),
        mapped(sparse(25, 25, (0.8, 0.8)), x=spiral(0.1), y=spiral(0.1)),
    )
}
"""Distributions by name: of 1 to 25 dimensions each side, and of 0 to 4 nats."""
