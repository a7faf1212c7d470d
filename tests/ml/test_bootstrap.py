import math

import pytest
import torch
from scipy.stats import binom
from torch import Generator, Tensor

from ml.tasks import bootstrap
from ml.tasks.bootstrap import difference, interval


def chances(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def width(ci: tuple[float, float]) -> float:
    return ci[1] - ci[0]


def test_of_right_and_wrong_it_is_the_binomials() -> None:
    """Resampled items are right as often as a binomial variable says, exactly."""
    right = torch.cat((torch.ones(150), torch.zeros(50)))[None]
    expected = binom(200, 0.75).ppf((0.025, 0.975)) / 200
    assert interval(right, chances()) == pytest.approx(tuple(expected), abs=0.0051)


def test_of_distances_it_is_the_normal_distributions() -> None:
    distances = torch.rand(1, 4000, generator=chances(), dtype=torch.float64)
    half = 1.96 * distances.std().item() / math.sqrt(4000)
    low, high = interval(distances, chances(1))
    assert low == pytest.approx(distances.mean().item() - half, abs=0.15 * half)
    assert high == pytest.approx(distances.mean().item() + half, abs=0.15 * half)


def test_it_covers_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 500)
    generator, covered = chances(), 0
    for _ in range(300):
        low, high = interval((torch.rand(1, 100, generator=generator) < 0.8).float(), generator)
        covered += low <= 0.8 <= high
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize("seeds", [2, 5, 20])
def test_seeds_that_scatter_widen_it_to_the_standard_error_over_seeds(seeds: int) -> None:
    """Of S seeds, S - 1 at a time: the deviation of their mean is that of the sample over sqrt(S)."""
    of_seeds = torch.randn(seeds, 1, generator=chances(), dtype=torch.float64)
    (means,) = bootstrap._resampled((of_seeds.expand(-1, 50),), chances(1))
    assert means.std().item() == pytest.approx(of_seeds.std().item() / math.sqrt(seeds), rel=0.05)


def test_both_chances_add_up() -> None:
    items = torch.rand(1, 400, generator=chances(), dtype=torch.float64)
    of_seeds = 0.04 * torch.randn(10, 1, generator=chances(1), dtype=torch.float64)
    (means,) = bootstrap._resampled((items + of_seeds,), chances(2))
    expected = math.hypot(items.std().item() / math.sqrt(400), of_seeds.std().item() / math.sqrt(10))
    assert means.std().item() == pytest.approx(expected, rel=0.06)
    assert width(interval(items + of_seeds, chances())) > 1.1 * width(interval(items, chances()))


def test_pairing_by_item_leaves_out_what_is_hard_for_both() -> None:
    generator = chances()
    hard = torch.rand(500, generator=generator) < 0.5
    a, b = ((torch.rand(500, generator=generator) < torch.where(hard, low, 0.98)).float()[None] for low in (0.15, 0.05))
    paired = difference(a, b, chances())
    unpaired = difference(a, b[:, torch.randperm(500, generator=generator)], chances())
    assert width(paired) < 0.6 * width(unpaired)
    assert paired[0] < (a.mean() - b.mean()).item() < paired[1]
    assert width(paired) == pytest.approx(2 * 1.96 * (a - b).std().item() / math.sqrt(500), rel=0.1)


def test_what_is_equal_differs_by_nothing_and_seeds_may_be_of_another_number() -> None:
    merits = (torch.rand(1, 100, generator=chances()) < 0.7).float()
    assert difference(merits, merits, chances()) == (0, 0)
    assert difference(merits + 0.5, merits.expand(3, -1), chances()) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("at_a_time", [700, 2**22])
def test_equal_generators_give_equal_intervals_whatever_the_memory(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[float, float]:
        return interval(items_of(3, 40), chances())

    expected = found()
    monkeypatch.setattr(bootstrap, "AT_A_TIME", at_a_time)
    assert found() == expected


def items_of(seeds: int, items: int) -> Tensor:
    return torch.rand(seeds, items, generator=chances(7))
