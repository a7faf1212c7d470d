"""Distributions that know their information really do: by sampling, by quadrature, and by the densities of others."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Generator, Tensor

from ml.mi import known
from ml.mi.known import CUBE, HALF_CUBE, NORMAL_CDF, SWISS_ROLL, TESTBED, WIGGLY, Known, Map, correlated, mapped, spiral

BENDS = {"cube": CUBE, "half-cube": HALF_CUBE, "normal CDF": NORMAL_CDF, "wiggly": WIGGLY, "spiral": spiral(0.7)}


def sample(of: Known, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return of.sample(n, Generator().manual_seed(seed))


def scores_of_pairs(of: Known, x: Tensor, y: Tensor) -> Tensor:
    """Of x_i and y_i, some at a time."""
    parts = zip(x.split(250), y.split(250), strict=True)
    return torch.cat([of.scores(one, other).diagonal() for one, other in parts])


# What each says of itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TESTBED)
def test_the_information_is_the_mean_of_the_exact_scores(name: str) -> None:
    """Within 4 standard errors."""
    found = scores_of_pairs(TESTBED[name], *sample(TESTBED[name], 4000))
    assert found.mean().item() == pytest.approx(TESTBED[name].information, abs=4 * found.std().item() / math.sqrt(4000) + 1e-9)


@pytest.mark.parametrize("name", [name for name, of in TESTBED.items() if of.information < 1.3])
def test_the_exact_scores_of_strangers_have_a_mean_exponential_of_one(name: str) -> None:
    """Since p(y|x) integrates to 1; within 4 standard errors, which above some information are endless."""
    x, y = sample(TESTBED[name], 4000)
    found = scores_of_pairs(TESTBED[name], x, y.roll(1, dims=0)).exp()
    assert found.mean().item() == pytest.approx(1, abs=4 * found.std().item() / math.sqrt(4000) + 1e-9)


@pytest.mark.parametrize("name", TESTBED)
def test_a_sample_is_as_its_generator_says(name: str) -> None:
    x, y = sample(TESTBED[name], 7)
    assert (x.shape, y.shape) == ((7, TESTBED[name].dims[0]), (7, TESTBED[name].dims[1]))
    assert x.dtype == y.dtype == torch.float64
    again, other = sample(TESTBED[name], 7), sample(TESTBED[name], 7, seed=1)
    assert x.equal(again[0]) and y.equal(again[1])
    assert not x.equal(other[0]) and not y.equal(other[1])


@pytest.mark.parametrize("name", TESTBED)
def test_every_pair_of_a_sample_has_a_score_and_a_density(name: str) -> None:
    of = TESTBED[name]
    (x, _), (_, y) = sample(of, 3), sample(of, 5, seed=1)
    assert of.scores(x, y).shape == of.log_conditionals(x, y).shape == (3, 5)
    assert of.log_marginals(y).isfinite().all()
    assert not of.scores(x, y).isnan().any()
    assert torch.allclose(of.log_conditionals(x, y) - of.log_marginals(y), of.scores(x, y))


def test_the_testbed_reaches_from_nothing_to_four_nats_and_from_1_to_25_dimensions() -> None:
    assert len(TESTBED) >= 24
    assert {1, 2, 3, 5, 10, 25} <= {d for of in TESTBED.values() for d in of.dims}
    nats = [of.information for of in TESTBED.values()]
    assert sum(value < 1e-12 for value in nats) >= 3
    assert min(nats) >= 0
    assert 3.9 < max(nats) < 4.1
    assert {of.hard.split(":")[0] for of in TESTBED.values() if of.hard} == {"heavy tails", "spirals"}


def test_the_file_stands_alone() -> None:
    lines = Path(known.__file__).read_text().splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported == {"math", "collections", "dataclasses", "functools", "torch", "jaxtyping", "scipy"}


# Closed forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "nats"), [(0.1, 0.854), (0.25, 0.466), (0.5, 0.229), (1.0, 0.0727), (2.0, 0.0092)])
@pytest.mark.parametrize(("steps", "length"), [(1, 1.0), (8, 3.0)])
def test_strips_of_a_path_share_what_their_facing_ends_share(ratio: float, nats: float, steps: int, length: float) -> None:
    of = known.ou_strips(gap=ratio * length, length=length, steps=steps)
    assert of.information == pytest.approx(-math.log(-math.expm1(-2 * ratio)) / 2, abs=1e-12)
    assert of.information == pytest.approx(nats, rel=5e-3)


@pytest.mark.parametrize(("s", "nats"), [(0.5, 5.108), (1.0, 1.438), (2.0, 0.204)])
def test_the_noise_axis(s: float, nats: float) -> None:
    assert known.noise_axis(10, s).information == pytest.approx(nats, abs=5e-4)
    assert known.noise_axis(10, s).information == pytest.approx(-5 * math.log(1 - (1 + s**2) ** -2), abs=1e-12)


def test_gaussians_of_any_dimension() -> None:
    assert correlated(10, 0.6).information == pytest.approx(-5 * math.log(1 - 0.6**2), abs=1e-12)
    assert correlated(7, known.correlation(7, 3.2)).information == pytest.approx(3.2, abs=1e-12)
    few = known.sparse(3, 25, (0.5, 0.8))
    assert few.information == pytest.approx(-(math.log(1 - 0.5**2) + math.log(1 - 0.8**2)) / 2, abs=1e-12)
    determinant = {d: (1 - 0.3) ** (d - 1) * (1 + (d - 1) * 0.3) for d in (4, 6, 10)}
    all_alike = math.log(determinant[4] * determinant[6] / determinant[10]) / 2
    assert known.dense(4, 6, 0.3).information == pytest.approx(all_alike, abs=1e-12)


def test_shared_classes_and_bits() -> None:
    assert known.shared_class(10).information == pytest.approx(2.3026, abs=5e-5)
    assert known.shared_class(100).information == pytest.approx(4.6052, abs=5e-5)
    assert known.flipped_bit(0.1).information == pytest.approx(0.368, abs=5e-4)  # a view and the bit
    assert known.flipped_bit(2 * 0.1 * 0.9).information == pytest.approx(0.222, abs=5e-4)  # two views
    assert known.flipped_bit(0.5).information == pytest.approx(0, abs=1e-12)
    assert known.flipped_bit(0.0).information == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 100])
def test_classes_are_told_from_either_view_and_their_discs_do_not_touch(classes: int) -> None:
    of = known.shared_class(classes)
    x, y = sample(of, 600)
    scores = of.scores(x, y)
    assert (scores.diagonal() == math.log(classes)).all()
    assert ((scores > -math.inf).double().mean(dim=1) - 1 / classes).abs().max() < 4 * math.sqrt(0.25 / 600) + 1e-9
    fits = (scores > -math.inf).double()
    one_disc = fits.T @ fits > 0  # both go with one x
    apart, diameter = torch.cdist(y, y), math.sin(math.pi / max(classes, 2))
    assert apart[one_disc].max() <= diameter
    assert classes == 1 or apart[~one_disc].min() >= diameter


def test_independent_pairs_side_by_side_add_up() -> None:
    parts = correlated(2, 0.5), known.shared_class(3), known.flipped_bit(0.2)
    both = known.together(*parts)
    assert both.dims == (5, 5)
    assert both.information == pytest.approx(sum(part.information for part in parts))
    x, y = sample(both, 20)
    columns = zip(parts, x.split([2, 2, 1], dim=1), y.split([2, 2, 1], dim=1), strict=True)
    assert torch.allclose(both.scores(x, y), sum(part.scores(one, other) for part, one, other in columns))


# Quadrature -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dof", [1, 2, 3, 8])
def test_student_by_quadrature(dof: int) -> None:
    """y given x is Student-t with one more degree of freedom and the scale sqrt((dof + x^2) / (dof + 1)); entropies by scipy."""
    log_scale = 2 * quad(lambda x: stats.t.pdf(x, dof) * math.log((dof + x**2) / (dof + 1)) / 2, 0, math.inf)[0]
    nats = stats.t(dof).entropy() - stats.t(dof + 1).entropy() - log_scale
    assert known.student(1, 1, dof).information == pytest.approx(nats, abs=1e-6)
    linear = correlated(1, 0.6).information
    assert known.student(1, 1, dof, rho=0.6).information == pytest.approx(nats + linear, abs=1e-6)


def test_student_of_many_degrees_of_freedom_is_gaussian() -> None:
    assert known.student(3, 3, 100_000, rho=0.6).information == pytest.approx(correlated(3, 0.6).information, abs=1e-4)


@pytest.mark.parametrize("width", [0.1, 0.5, 0.75, 3.0])
def test_uniform_noise_by_quadrature(width: float) -> None:
    of = known.uniform_noise(width)

    def density(y: float) -> float:
        return math.exp(of.log_marginals(torch.tensor([[y]], dtype=torch.float64)).item())

    bends = sorted({-width, 1 - width, width, 1 + width})
    pieces = list(pairwise(bends))
    assert sum(quad(density, *piece)[0] for piece in pieces) == pytest.approx(1, abs=1e-9)
    entropy = sum(quad(lambda y: -_x_log_x(density(y)), *piece)[0] for piece in pieces)
    assert of.information == pytest.approx(entropy - math.log(2 * width), abs=1e-7)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_the_wave_by_quadrature(noise: float) -> None:
    """With the density of a sine's values, 1 / (pi sqrt(1 - s^2)), through s = sin t."""

    def density(y: float) -> float:
        points = [math.asin(y)] if abs(y) < 1 else None
        return quad(lambda t: stats.norm.pdf(y, math.sin(t), noise) / math.pi, -math.pi / 2, math.pi / 2, points=points)[0]

    entropy = -2 * quad(lambda y: _x_log_x(density(y)), 0, 1 + 8 * noise, points=[1], epsabs=1e-7)[0]
    assert known.wave(3, noise).information == pytest.approx(entropy - stats.norm(scale=noise).entropy(), abs=1e-6)


def _x_log_x(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0


# Densities of others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heavy", [False, True])
def test_scores_and_conditionals_agree_with_the_densities_of_scipy(heavy: bool) -> None:
    root = torch.randn(5, 5, dtype=torch.float64, generator=Generator().manual_seed(3))
    covariance = root @ root.T + torch.eye(5)
    of = known.student(2, 3, dof=3, rho=0.6) if heavy else known.gaussian("any", covariance, 2)
    if heavy:
        covariance = torch.eye(5, dtype=torch.float64)
        covariance[0, 2] = covariance[2, 0] = covariance[1, 3] = covariance[3, 1] = 0.6

    def density(block: slice) -> "stats._multivariate.multi_rv_frozen":
        shape = covariance[block, block].numpy()
        return stats.multivariate_t(shape=shape, df=3) if heavy else stats.multivariate_normal(cov=shape)

    x, y = sample(of, 6)
    together = np.concatenate((np.repeat(x.numpy(), 6, axis=0), np.tile(y.numpy(), (6, 1))), axis=1)
    joint = torch.from_numpy(density(slice(0, 5)).logpdf(together)).reshape(6, 6)
    of_x, of_y = (torch.from_numpy(density(part).logpdf(rows)) for part, rows in ((slice(0, 2), x), (slice(2, 5), y)))
    assert torch.allclose(of.log_marginals(y), of_y)
    assert torch.allclose(of.log_conditionals(x, y), joint - of_x[:, None])
    assert torch.allclose(of.scores(x, y), joint - of_x[:, None] - of_y)


@pytest.mark.parametrize(
    ("of", "marginal"),
    [
        (correlated(2, 0.5), stats.norm()),
        (known.dense(2, 2, 0.5), stats.norm()),
        (known.noise_axis(2, 2.0), stats.norm(scale=math.sqrt(5))),
        (known.ou_strips(0.5, 2.0, 4), stats.norm()),
        (known.student(2, 2, 3), stats.t(3)),
        (mapped(correlated(2, 0.5), x=NORMAL_CDF, y=NORMAL_CDF), stats.uniform()),
        (mapped(correlated(2, 0.5), x=CUBE, y=CUBE), stats.powernorm(1)),
    ],
    ids=lambda part: part.name if isinstance(part, Known) else "",
)
def test_marginals_are_what_they_are_said_to_be(of: Known, marginal: "stats._distn_infrastructure.rv_frozen") -> None:
    """Kolmogorov and Smirnov do not object at .1 %, in any column."""
    for column in torch.cat(sample(of, 2000), dim=1).T:
        values = np.cbrt(column.numpy()) if "cubed" in of.name else column.numpy()
        assert stats.kstest(values, marginal.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, of in TESTBED.items()
        if of.dims[1] == 1 and "bit" not in name and "cubed" not in name  # one is discrete, one has a pole
    ],
)
def test_densities_of_one_dimension_integrate_to_one(name: str) -> None:
    """Given any x as well."""
    of = TESTBED[name]
    x, y = sample(of, 2000)
    reach = 30 * (y - y.median()).abs().median()
    y = torch.linspace(y.median() - reach, y.median() + reach, 20_001, dtype=torch.float64)[:, None]
    step = (y[1] - y[0]).item()
    lost = 0.05 if "Student" in name else 5e-3  # beyond these ends, and by steps
    inside = ((y > 0) & (y < 1))[:, 0] if "CDF" in name else torch.ones(len(y), dtype=torch.bool)
    assert of.log_marginals(y[inside]).exp().sum().item() * step == pytest.approx(1, abs=lost)
    assert (of.log_conditionals(x[:3], y[inside]).exp().sum(dim=1) * step).sub(1).abs().max() < lost


# Maps -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("bend", BENDS)
def test_maps_invert_and_know_their_volume(bend: str, d: int) -> None:
    x = torch.randn(20, d, dtype=torch.float64, generator=Generator().manual_seed(0))
    map = BENDS[bend]
    assert torch.allclose(map.inverse(map.forward(x)), x, atol=1e-9)
    jacobians = [torch.autograd.functional.jacobian(lambda row: map.forward(row[None])[0], row) for row in x]
    assert torch.allclose(map.log_volume(x), torch.stack([torch.linalg.slogdet(one).logabsdet for one in jacobians]))


@pytest.mark.parametrize("d", [1, 3])
def test_the_swiss_roll_unrolls_and_knows_its_length(d: int) -> None:
    x = torch.rand(20, d, dtype=torch.float64, generator=Generator().manual_seed(0))
    assert SWISS_ROLL.forward(x).shape == (20, 2 * d)
    assert torch.allclose(SWISS_ROLL.inverse(SWISS_ROLL.forward(x)), x, atol=1e-12)
    jacobians = [torch.autograd.functional.jacobian(lambda row: SWISS_ROLL.forward(row[None])[0], row) for row in x]
    volumes = torch.stack([torch.linalg.slogdet(one.T @ one).logabsdet / 2 for one in jacobians])
    assert torch.allclose(SWISS_ROLL.log_volume(x), volumes)


def test_spirals_keep_the_distance_from_the_centre() -> None:
    x = torch.randn(20, 5, dtype=torch.float64, generator=Generator().manual_seed(0))
    turned = spiral(2.0).forward(x)
    assert torch.allclose(turned.norm(dim=1), x.norm(dim=1))
    assert turned[:, 4].equal(x[:, 4])
    assert not torch.allclose(turned[:, :4], x[:, :4])


@pytest.mark.parametrize("bend", BENDS)
def test_maps_keep_all_scores(bend: str) -> None:
    before = correlated(3, 0.7)
    after = mapped(before, x=BENDS[bend], y=WIGGLY)
    x, y = sample(before, 20)
    bent = sample(after, 20)
    assert torch.allclose(bent[0], BENDS[bend].forward(x))
    assert torch.allclose(after.scores(*bent), before.scores(x, y))
    assert after.information == before.information
    volume = WIGGLY.log_volume(y)
    assert torch.allclose(after.log_conditionals(*bent), before.log_conditionals(x, y) - volume)


def test_only_the_side_that_is_mapped_changes() -> None:
    before = correlated(2, 0.7)
    after = mapped(before, x=CUBE)
    assert sample(after, 5)[1].equal(sample(before, 5)[1])
    assert (after.name, mapped(before, x=CUBE, y=CUBE).name) == (
        "Gaussian 2 x 2, rho 0.7, x cubed",
        "Gaussian 2 x 2, rho 0.7, cubed",
    )


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 4])
def test_correlations_of_one_and_more_are_refused(d: int) -> None:
    with pytest.raises(ValueError, match="no covariance"):
        correlated(d, 1.0)
    with pytest.raises(ValueError, match="no covariance"):
        known.dense(d, d, -0.9 if d > 1 else 1.1)


def test_a_lopsided_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match="symmetric"):
        known.gaussian("lopsided", torch.tensor([[1.0, 0.5], [0.2, 1.0]], dtype=torch.float64), 1)


@pytest.mark.parametrize(
    ("map", "rows", "message"),
    [
        (spiral(1.0), torch.zeros(3, 1, dtype=torch.float64), "at least 2 columns"),
        (SWISS_ROLL, torch.tensor([[0.5], [-2.0]], dtype=torch.float64), "from 0 to 1"),
    ],
    ids=["spiral", "Swiss roll"],
)
def test_maps_refuse_what_they_cannot_map(map: Map, rows: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        map.forward(rows)


def test_a_wave_of_too_little_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="too little"):
        known.wave(2, 0.05)
