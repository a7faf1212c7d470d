"""Estimators without a critic: neighbours' counts and canonical correlations."""

import math

import pytest
import torch
from sklearn.feature_selection import mutual_info_regression
from torch import Generator, Tensor

from ml.mi import known
from ml.mi.cca import MOST_CORRELATED, canonical, cca
from ml.mi.ksg import contributions, ksg


def gaussians(nats: float, n: int, d: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Pairs with I = -d/2 log(1 - rho^2)."""
    variance = math.exp(-2 * nats / d)
    x, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return x, math.sqrt(1 - variance) * x + math.sqrt(variance) * noise


# Neighbours -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbours", [1, 3, 10])
@pytest.mark.parametrize("shape", ["gaussian", "wave", "heavy tails"])
def test_ksg_agrees_with_scikit_learn_in_one_dimension(shape: str, neighbours: int) -> None:
    """Which scales both to a deviation of 1, adds noise of 1e-10 and cuts off at 0."""
    x, y = gaussians(0.8, 400, 1, Generator().manual_seed(neighbours))
    if shape != "gaussian":
        x, y = (x, torch.sin(4 * x) + 0.1 * y) if shape == "wave" else (x**3, y**3)
    found = contributions(x / x.std(correction=0), y / y.std(correction=0), neighbours).mean().item()
    theirs = mutual_info_regression(x.numpy(), y[:, 0].numpy(), discrete_features=False, n_neighbors=neighbours, random_state=0)
    assert found == pytest.approx(theirs[0], abs=1e-6)


@pytest.mark.parametrize(("nats", "d"), [(0.0, 1), (0.5, 1), (2.0, 1), (0.2, 2)])
def test_ksg_reads_the_information_of_gaussians_in_few_dimensions(nats: float, d: int) -> None:
    generator = Generator().manual_seed(0)
    estimate = ksg(*gaussians(nats, 2000, d, generator), generator)
    assert estimate.value == pytest.approx(nats, abs=3 * estimate.stderr)
    assert estimate.stderr < 0.04
    assert estimate.kind == "neither"


@pytest.mark.parametrize(("nats", "d"), [(0.5, 1), (0.5, 2)])
def test_the_standard_error_of_ksg_is_the_spread_over_repetitions(nats: float, d: int) -> None:
    generator = Generator().manual_seed(0)
    estimates = [ksg(*gaussians(nats, 120, d, generator), generator) for _ in range(40)]
    spread = torch.tensor([estimate.value for estimate in estimates]).std().item()
    claimed = torch.tensor([estimate.stderr for estimate in estimates]).square().mean().sqrt().item()
    assert claimed == pytest.approx(spread, rel=0.25)


def test_the_error_of_more_pairs_than_are_split_falls_with_their_root() -> None:
    few, many = (ksg(*gaussians(1, n, 1, Generator().manual_seed(0)), Generator().manual_seed(0)) for n in (2000, 8000))
    assert few.stderr / many.stderr == pytest.approx(2, rel=0.4)


def test_rounded_values_read_high_and_say_so() -> None:
    """Who stands exactly where nearness ends is not counted, and on a grid those are many. Classes are no grid."""
    x, y = gaussians(0.0, 1000, 1, Generator().manual_seed(0))
    rounded = ksg((10 * x).round(), (10 * y).round(), Generator().manual_seed(0))
    assert rounded.value > 0.1 and "values repeat" in str(rounded.caution)
    classes = ksg((x > 0).double(), (y > 0).double(), Generator().manual_seed(0))
    assert classes.caution is None and classes.value == pytest.approx(0, abs=3 * classes.stderr)


def test_neighbours_that_are_too_far_away_are_said_to_be() -> None:
    """Along a spiral's arms the 3rd of 1000 neighbours lies on another arm."""
    x, y = gaussians(1.0, 1000, 2, Generator().manual_seed(0))
    plain, spiral = ksg(x, y, Generator().manual_seed(0)), ksg(known.spiral(1.0).forward(x), y, Generator().manual_seed(0))
    assert plain.caution is None and plain.value == pytest.approx(1.0, abs=3 * plain.stderr)
    assert spiral.value < 0.7 and "from half of the pairs to all it rises" in str(spiral.caution)


def test_ksg_takes_no_notice_of_order_and_side_and_place() -> None:
    generator = Generator().manual_seed(0)
    x, y = gaussians(1, 200, 2, generator)
    found, order = contributions(x, y), torch.randperm(200, generator=generator)
    torch.testing.assert_close(contributions(x[order], y[order]), found[order])
    torch.testing.assert_close(contributions(y, x), found)
    torch.testing.assert_close(contributions(8 * x + 3, 8 * y - 1), found)


def test_a_constant_shares_exactly_nothing() -> None:
    x = torch.randn(50, 2, generator=Generator().manual_seed(0))
    constant = torch.full((50, 1), 0.1)
    for found in (contributions(x, constant), contributions(constant, x), contributions(constant, constant)):
        torch.testing.assert_close(found, torch.zeros(50, dtype=torch.float64), rtol=0, atol=1e-12)


def test_classes_that_repeat_are_read_as_classes() -> None:
    """10 equal classes: I = log 10. A fair bit that is flipped in one case of ten: I = log 2 - H(0.1) = 0.368."""
    x = torch.arange(1000)[:, None] % 10
    assert contributions(x.float(), 3.0 - x).mean().item() == pytest.approx(math.log(10), abs=0.01)
    bit, flipped = torch.arange(1000)[:, None] % 2, torch.arange(1000)[:, None] < 100
    exact = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert exact == pytest.approx(0.368, abs=5e-4)
    assert contributions(bit.float(), (bit != flipped).float()).mean().item() == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("copies", [2, 4, 20])
def test_rows_that_repeat_give_no_infinity(copies: int) -> None:
    x, y = gaussians(1, 40, 2, Generator().manual_seed(0))
    assert contributions(x.repeat(copies, 1), y.repeat(copies, 1)).isfinite().all()
    assert contributions(x.round().repeat(copies, 1), y.repeat(copies, 1)).isfinite().all()


def test_too_few_pairs_for_their_neighbours_are_refused() -> None:
    x, y = gaussians(1, 16, 1, Generator().manual_seed(0))
    assert contributions(x[:4], y[:4]).isfinite().all()
    with pytest.raises(ValueError, match="3 pairs are too few to count 3 neighbours; at least 4"):
        contributions(x[:3], y[:3])
    assert ksg(x, y, Generator()).stderr > 0
    with pytest.raises(ValueError, match="15 pairs are too few to count 3 neighbours; at least 16"):
        ksg(x[:15], y[:15], Generator())


# Canonical correlations -----------------------------------------------------------------------------------------------


def with_correlations(correlations: list[float], n: int, d1: int, d2: int) -> tuple[Tensor, Tensor]:
    """Pairs whose canonical correlations in the sample are exactly these, behind a linear map of each side."""
    generator = Generator().manual_seed(0)
    values = torch.randn(n, d1 + d2, generator=generator, dtype=torch.float64)
    white = torch.linalg.qr(values - values.mean(dim=0)).Q
    x, y = white[:, :d1], white[:, d1:].clone()
    rho = torch.tensor(correlations, dtype=torch.float64)
    y[:, : len(rho)] = rho * x[:, : len(rho)] + (1 - rho.square()).sqrt() * y[:, : len(rho)]
    maps = (torch.randn(d, d, generator=generator, dtype=torch.float64) for d in (d1, d2))
    return x @ next(maps) + 5, y @ next(maps) - 7


def test_canonical_correlations_are_found_and_coordinates_are_white() -> None:
    x, y = with_correlations([0.9, 0.5, 0.1], n=100, d1=3, d2=4)
    found = canonical(x, y)
    torch.testing.assert_close(found.correlations, torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64))
    covariance = torch.cov(torch.cat((found.of_x(x), found.of_y(y)), dim=1).T)
    expected = torch.eye(7, dtype=torch.float64)
    expected[:3, 3:6] = expected[3:6, :3] = found.correlations.diag()
    torch.testing.assert_close(covariance, expected, rtol=0, atol=1e-9)


def test_cca_is_the_closed_form_where_pairs_are_many() -> None:
    correlations = [0.95, 0.7, 0.2]
    estimate = cca(*with_correlations(correlations, n=200_000, d1=3, d2=3))
    exact = -sum(math.log(1 - rho**2) for rho in correlations) / 2
    assert estimate.value == pytest.approx(exact, abs=9 / 200_000)  # the bias is about d1 d2 / 2N
    assert estimate.stderr == pytest.approx(math.sqrt(sum(rho**2 for rho in correlations) / 200_000))
    assert (estimate.kind, estimate.caution) == ("neither", None)


def test_in_one_dimension_the_canonical_correlation_is_pearsons() -> None:
    x, y = gaussians(0.3, 50, 1, Generator().manual_seed(0))
    pearson = torch.corrcoef(torch.cat((x, -y), dim=1).T)[0, 1]
    torch.testing.assert_close(canonical(x, -y).correlations[0], pearson.abs())


@pytest.mark.parametrize(("nats", "n", "d"), [(0.0, 30, 3), (0.5, 12, 5), (1.0, 30, 5), (2.0, 100, 10), (5.0, 300, 10)])
def test_cca_is_unbiased_from_few_gaussian_pairs(nats: float, n: int, d: int) -> None:
    generator = Generator().manual_seed(0)
    values = torch.tensor([cca(*gaussians(nats, n, d, generator)).value for _ in range(300)])
    assert values.mean().item() == pytest.approx(nats, abs=3 * values.std().item() / math.sqrt(300))


def test_the_standard_error_of_cca_is_the_spread_over_repetitions() -> None:
    generator = Generator().manual_seed(0)
    estimates = [cca(*gaussians(2, 200, 5, generator)) for _ in range(300)]
    spread = torch.tensor([estimate.value for estimate in estimates]).std().item()
    claimed = torch.tensor([estimate.stderr for estimate in estimates]).mean().item()
    assert claimed == pytest.approx(spread, rel=3 / math.sqrt(2 * 300))


def test_an_invertible_linear_map_changes_nothing() -> None:
    generator = Generator().manual_seed(0)
    x, y = gaussians(1, 100, 4, generator)
    scales = torch.logspace(-6, 6, 4, dtype=torch.float64)
    mixed = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    assert cca(x @ mixed * scales + 1, y @ mixed).value == pytest.approx(cca(x, y).value, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_that_say_nothing_new_change_nothing(dtype: torch.dtype) -> None:
    x, y = (values.to(dtype) for values in gaussians(1, 100, 3, Generator().manual_seed(0)))
    constants, copies = torch.full((100, 2), 0.1, dtype=dtype), x[:, :2] * 1e5
    more = torch.cat((constants, x, copies, x[:, :1] + x[:, 1:2]), dim=1)
    found, expected = cca(more, y), cca(x, y)
    assert found.value == pytest.approx(expected.value, abs=1e-5)
    assert canonical(more, y).x_weights.shape == (8, 3)
    assert cca(constants, y) == cca(y, constants)
    assert str(cca(constants, y).value) == "0.0"


def test_where_one_decides_the_other_the_reading_is_finite_and_says_so() -> None:
    x, y = gaussians(1, 100, 3, Generator().manual_seed(0))
    estimate = cca(x, torch.cat((y, x[:, :1] - x[:, 2:]), dim=1))
    assert math.isfinite(estimate.value)
    assert estimate.value > 6
    assert estimate.caution is not None and "at least" in estimate.caution
    assert canonical(x, x).correlations.max() == MOST_CORRELATED


def test_no_more_pairs_than_dimensions_are_refused() -> None:
    x, y = gaussians(1, 8, 3, Generator().manual_seed(0))
    assert math.isfinite(cca(x[:7], y[:7]).value)
    with pytest.raises(ValueError, match="6 pairs are too few for 3 and 3 dimensions; at least 7"):
        cca(x[:6], y[:6])
