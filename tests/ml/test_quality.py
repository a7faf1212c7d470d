"""Measures without labels against closed forms, and what they read of an experiment."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ml import quality, spec
from ml.datasets import Library, load
from ml.encoders import Encoder
from ml.events import Checkpoint, Progress
from ml.methods import Method
from ml.quality import Quality
from ml.quality.alignment import alignment
from ml.quality.alpha_req import alpha_req
from ml.quality.lidar import lidar
from ml.quality.rankme import rankme
from ml.quality.uniformity import uniformity

CPU = torch.device("cpu")
DIGITS = {"name": "digits"}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Columns of length 1, at right angles to each other and to the constant."""
    ones = torch.ones(rows, 1, dtype=torch.float64)
    return torch.linalg.qr(torch.cat((ones, normal(rows, columns, seed=seed)), dim=1))[0][:, 1:]


# RankMe ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 16])
def test_rankme_of_what_is_isotropic_in_k_dimensions_is_k(k: int) -> None:
    z = 3 * orthonormal(100, k) @ orthonormal(32, k, seed=1).T
    assert rankme(z).item() == pytest.approx(k, rel=1e-12)


def test_rankme_is_of_singular_values_and_not_of_their_squares() -> None:
    # p = 1/2, 1/4, 1/4: the entropy is 3/2 log 2
    assert rankme(torch.diag(torch.tensor([2.0, 1.0, 1.0]))).item() == pytest.approx(2**1.5)


def test_rankme_of_few_items_of_alike_ones_and_of_nothing() -> None:
    assert rankme(normal(3, 64)).item() <= 3
    assert rankme(F.normalize(normal(1, 64), dim=1)).item() == 1
    assert rankme(normal(1, 64).expand(50, 64)).item() == pytest.approx(1)
    assert rankme(torch.zeros(50, 64)).item() == 0


# LiDAR ----------------------------------------------------------------------------------------------------------------


def planted(apart: Sequence[float], scatter: Sequence[float]) -> Tensor:
    """Two items at either end of each axis, and two views of each item on either side of it along each axis.

    Sigma_b is diagonal with apart^2 / D in it, and Sigma_w with scatter^2 / D.
    """
    items = torch.diag(torch.tensor(apart, dtype=torch.float64))
    views = torch.diag(torch.tensor(scatter, dtype=torch.float64))
    return torch.cat((items, -items))[:, None] + torch.cat((views, -views))


@pytest.mark.parametrize("k", [1, 4, 12])
def test_lidar_of_items_told_apart_in_k_dimensions_is_k(k: int) -> None:
    z = planted([1.0] * k + [0.0] * (12 - k), [0.3] * 12)
    assert lidar(z).item() == pytest.approx(k, rel=1e-9)


def test_lidar_weighs_each_dimension_by_what_sets_items_apart_over_what_views_scatter() -> None:
    apart, scatter, delta = [1.0, 0.5, 2.0, 0.1], [0.1, 0.1, 1.0, 0.4], 1e-2
    ratios = np.array([a**2 / 4 / (s**2 / 4 + delta) for a, s in zip(apart, scatter, strict=True)])
    p = ratios / ratios.sum()
    truth = math.exp(-(p * np.log(p)).sum())
    turned = planted(apart, scatter) @ orthonormal(5, 4).T + 7  # neither a turn nor a shift matters
    assert lidar(planted(apart, scatter), delta).item() == pytest.approx(truth)
    assert lidar(turned, delta).item() == pytest.approx(truth)


def test_lidar_does_not_see_an_invertible_map_where_delta_is_small() -> None:
    z = planted([1.0, 0.5, 2.0, 0.1], [0.1, 0.1, 1.0, 0.4])
    assert lidar(z @ normal(4, 4), delta=1e-12).item() == pytest.approx(lidar(z, delta=1e-12).item(), rel=1e-6)


def test_lidar_counts_nothing_where_views_are_all_that_scatters() -> None:
    assert lidar(planted([0.0] * 6, [0.5] * 6)).item() == 0
    assert lidar(torch.ones(20, 10, 8)).item() == 0
    rounding = F.normalize(torch.ones(20, 10, 64) + 1e-6 * normal(20, 10, 64).float(), dim=2)
    assert lidar(rounding).item() == 0


def test_lidar_of_few_items_is_below_their_number() -> None:
    assert lidar(normal(1, 10, 64)).item() == 0
    assert 1 <= lidar(normal(2, 10, 64)).item() <= 1 + 1e-9
    assert 1 < lidar(normal(5, 2, 64)).item() <= 4


# Alignment and uniformity ---------------------------------------------------------------------------------------------


def test_alignment_is_the_squared_distance_of_a_pair() -> None:
    z = F.normalize(normal(40, 8), dim=1)
    assert alignment(z, z).item() == 0
    assert alignment(z, -z).item() == pytest.approx(4)
    assert alignment(z, torch.cat((z[:20], -z[20:]))).item() == pytest.approx(2)


def test_alignment_is_two_less_twice_the_mean_cosine() -> None:
    z1, z2 = (F.normalize(normal(500, 16, seed=seed), dim=1) for seed in range(2))
    assert alignment(z1, z2).item() == pytest.approx(2 - 2 * (z1 * z2).sum(dim=1).mean().item())


@pytest.mark.parametrize("points", [12, 60])
def test_uniformity_of_even_points_of_a_circle(points: int) -> None:
    # Of all pairs the mean is exp(-4) I_0(4), but for the harmonics at multiples of the number; each with itself makes 1.
    angles = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    z = torch.stack((angles.cos(), angles.sin()), dim=1)
    every = math.exp(-4) * (np.i0(4.0) + 2 * sum(_bessel(order, 4.0) for order in (points, 2 * points)))
    assert uniformity(z[None]).item() == pytest.approx(math.log((points * every - 1) / (points - 1)))


def _bessel(order: int, x: float) -> float:
    """The modified Bessel function of the first kind, by its series."""
    return sum((x / 2) ** (2 * k + order) / math.gamma(k + 1) / math.gamma(k + order + 1) for k in range(40))


def test_uniformity_on_the_sphere() -> None:
    # Cosines are uniform there, so that the mean is exp(-4) sinh(4) / 4; the standard error over 20 rounds is 0.002.
    z = F.normalize(normal(20, 500, 3), dim=2)
    assert uniformity(z).item() == pytest.approx(-4 + math.log(math.sinh(4) / 4), abs=0.006)


def test_uniformity_of_axes_at_right_angles_is_minus_four() -> None:
    assert uniformity(torch.eye(7)[None]).item() == pytest.approx(-4)


def test_uniformity_of_rounds_is_the_log_of_the_mean_over_all_their_pairs() -> None:
    ends = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
    assert uniformity(ends).item() == pytest.approx(math.log((math.exp(-8) + 1) / 2))


def test_uniformity_of_one_point_is_none_at_all() -> None:
    assert uniformity(torch.ones(3, 50, 1)).item() == 0
    assert uniformity(F.normalize(normal(3, 1, 8), dim=2)).item() == 0


# alpha-ReQ ------------------------------------------------------------------------------------------------------------


def spectral(eigenvalues: Tensor, items: int = 600) -> Tensor:
    """Features of exactly this covariance, but for a turn."""
    F = len(eigenvalues)
    turn = torch.linalg.qr(normal(F, F, seed=1))[0]
    return orthonormal(items, F) * (items * eigenvalues).sqrt() @ turn


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("width", [16, 128])
def test_alpha_req_of_a_power_law_is_its_exponent(alpha: float, width: int) -> None:
    features = spectral(torch.arange(1, width + 1, dtype=torch.float64) ** -alpha)
    assert alpha_req(features) == pytest.approx(alpha, abs=1e-9)
    assert alpha_req(1e3 * features + 5) == pytest.approx(alpha, abs=1e-6)


def test_alpha_req_is_fitted_from_the_fourth_rank_to_the_hundredth() -> None:
    eigenvalues = torch.arange(1, 151, dtype=torch.float64) ** -1.0
    elsewhere = eigenvalues.clone()
    elsewhere[:3] *= 50
    elsewhere[100:] /= 50
    assert alpha_req(spectral(elsewhere)) == pytest.approx(1.0)
    for rank in (4, 100):
        changed = eigenvalues.clone()
        changed[rank - 1] *= 1.005
        assert alpha_req(spectral(changed)) != pytest.approx(1.0)


def test_alpha_req_leaves_out_dimensions_that_do_not_vary() -> None:
    eigenvalues = torch.cat((torch.arange(1, 21, dtype=torch.float64) ** -1.5, torch.zeros(40, dtype=torch.float64)))
    assert alpha_req(spectral(eigenvalues)) == pytest.approx(1.5)
    assert alpha_req(spectral(eigenvalues, items=70).float()) == pytest.approx(1.5, rel=1e-4)


def test_alpha_req_says_nothing_of_fewer_than_eight_dimensions() -> None:
    assert alpha_req(spectral(torch.arange(1, 9, dtype=torch.float64) ** -1.0)) == pytest.approx(1.0)
    assert alpha_req(spectral(torch.arange(1, 8, dtype=torch.float64) ** -1.0)) is None
    assert alpha_req(normal(8, 64)) is None
    assert alpha_req(normal(1, 64)) is None
    assert alpha_req(torch.full((50, 64), 0.1)) is None
    assert alpha_req(torch.zeros(50, 64)) is None


# Of an experiment -----------------------------------------------------------------------------------------------------


class Flat(Encoder):
    """The pixels themselves."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Pixels(Method):
    """Pixels compared as they are."""

    def __init__(self, encoders: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(Flat() for _ in range(encoders))  # type: ignore[assignment]

    def embeddings(self, v1: Tensor, v2: Tensor) -> tuple[Tensor, Tensor]:
        return F.normalize(v1.flatten(1), dim=1), F.normalize(v2.flatten(1), dim=1)

    def loss(self, v1: Tensor, v2: Tensor) -> Tensor:
        return (v1 - v2).square().mean()


def events_of(views: dict[str, Any], dataset: dict[str, Any], library: Path, seed: int = 0) -> Iterator[Progress | Quality]:
    document = spec.ExperimentSpec.model_validate({"dataset": dataset, "views": views})
    whole = views["kind"] == "patches"
    data = load(document.dataset, Library(library, library, library), CPU, whole)
    method = Pixels(encoders=2 if document.views.two_kinds else 1)
    nothing = Checkpoint(0, {}, {})
    measured = yield from quality.measure(document, data, method, Generator().manual_seed(seed), lambda: nothing)
    yield measured


def measured(views: dict[str, Any], dataset: dict[str, Any] = DIGITS, library: Path = Path("none"), seed: int = 0) -> Quality:
    *_, found = events_of(views, dataset, library, seed)
    assert isinstance(found, Quality)
    return found


def test_views_without_noise_coincide() -> None:
    found = measured({"kind": "noise", "sigma": 0})
    assert found.alignment == 0
    assert found.uniformity < 0
    assert (found.items, found.views) == (719, 14)  # all that are held out, of 7 pairs each


def test_noise_drives_views_apart_and_fills_dimensions_but_not_those_of_undisturbed_items() -> None:
    weak, strong = (measured({"kind": "noise", "sigma": sigma}) for sigma in (0.1, 0.5))
    assert strong.alignment > 4 * weak.alignment
    assert strong.uniformity < weak.uniformity
    assert strong.rankme > weak.rankme
    assert strong.alpha_req == weak.alpha_req


def test_views_of_two_kinds_are_not_each_others_like_to_lidar() -> None:
    found = measured({"kind": "frequency", "sigma": 1})
    assert (found.items, found.views) == (719, 7)


def test_chances_decide_the_numbers() -> None:
    noise = {"kind": "noise", "sigma": 0.5}
    assert measured(noise, seed=1) == measured(noise, seed=1) != measured(noise, seed=2)


def test_progress_counts_up_to_its_end() -> None:
    *progress, _ = events_of({"kind": "noise"}, DIGITS, Path("none"))
    steps = [(event.stage, event.step, event.total) for event in progress if isinstance(event, Progress)]
    assert steps == [("quality", step, len(steps)) for step in range(1, len(steps) + 1)]


@pytest.mark.parametrize("items", [24, 60])
def test_of_few_photographs_many_patches_are_read(items: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (items, 24, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", x=pixels)
    found = measured({"kind": "patches", "size": 6, "distance": 4}, {"name": "plain"}, tmp_path)
    assert found.items < items and found.views == 50
    assert found.lidar <= found.items - 1 + 1e-9
    assert found.rankme > 50  # of 108: more than there are photographs
    assert all(math.isfinite(number) for number in asdict(found).values() if number is not None)
