import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Generator, Tensor

from ml.mi.infonce import candidate_batches, contributions, fit_temperature, from_contributions, info_nce


def gaussian_scores(nats: float, k: int, batches: int, d: int = 10) -> Iterator[Tensor]:
    """log p(y | x) / p(y) of correlated Gaussians with I = -d/2 log(1 - rho^2)."""
    generator = Generator().manual_seed(0)
    variance = math.exp(-2 * nats / d)  # of y given x: 1 - rho^2
    rho = math.sqrt(1 - variance)
    for _ in range(batches):
        x, noise = torch.randn(2, k, d, generator=generator, dtype=torch.float64)
        y = rho * x + math.sqrt(variance) * noise
        squares = (y[None, :] - rho * x[:, None]).square().sum(dim=2)
        yield -d / 2 * math.log(variance) - squares / (2 * variance) + y.square().sum(dim=1) / 2


def all_different(k: int, batches: int) -> Tensor:
    return torch.arange(k * batches).view(batches, k)


@pytest.mark.parametrize(
    ("nats", "k", "batches", "low", "high"),
    [(2, 64, 240, 1.824, 1.824), (2, 512, 30, 1.957, 1.974), (1, 512, 30, 0.994, 0.994), (4, 512, 30, 3.74, 3.74)],
)
def test_the_optimal_critic_of_a_gaussian_reads_the_known_bound(
    nats: float, k: int, batches: int, low: float, high: float
) -> None:
    estimate = info_nce(list(gaussian_scores(nats, k, batches)), all_different(k, batches))
    assert low - 3 * estimate.stderr - 0.005 <= estimate.value <= high + 3 * estimate.stderr + 0.005
    assert estimate.stderr < 0.02
    assert estimate.log_k == math.log(k)
    assert estimate.kind == "lower"


@pytest.mark.parametrize(("k", "batches", "known"), [(64, 160, 2.230), (512, 20, 2.294)])
def test_a_shared_class_reads_its_exact_bound(k: int, batches: int, known: float) -> None:
    """I = log C; the optimal reading is E[log K - log(1 + Bin(K - 1, 1 / C))]."""
    C = 10
    others = np.arange(k)
    exact = math.log(k) - float(binom.pmf(others, k - 1, 1 / C) @ np.log1p(others))
    assert exact == pytest.approx(known, abs=5e-4)
    generator = Generator().manual_seed(0)
    labels = [torch.randint(C, (k,), generator=generator) for _ in range(batches)]
    scores = [torch.where(y[:, None] == y[None, :], math.log(C), -100.0) for y in labels]
    estimate = info_nce(scores, all_different(k, batches))
    assert estimate.value == pytest.approx(exact, abs=4 * estimate.stderr)
    assert not estimate.saturated


def test_the_standard_error_is_the_spread_over_repetitions() -> None:
    readings = [info_nce([scores], torch.arange(128)[None]) for scores in gaussian_scores(2, 128, 200)]
    spread = torch.tensor([reading.value for reading in readings]).std().item()
    claimed = torch.tensor([reading.stderr for reading in readings]).mean().item()
    assert claimed == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_never_above_log_k(scale: float) -> None:
    estimate = info_nce([scale * torch.eye(32)], torch.arange(32)[None])
    assert estimate.value <= math.log(32)


def test_ten_nats_at_512_candidates_are_flagged_as_saturated() -> None:
    estimate = info_nce(list(gaussian_scores(10, 512, 8)), all_different(512, 8))
    assert estimate.saturated and estimate.low
    assert estimate.value == pytest.approx(6.13, abs=0.05)


@pytest.mark.parametrize(("nats", "low", "saturated"), [(3.0, False, False), (4.5, True, False), (6.0, True, True)])
def test_flags_follow_the_distance_to_log_k(nats: float, low: bool, saturated: bool) -> None:
    estimate = from_contributions(torch.full((4,), nats), torch.arange(4), k=512)
    assert (estimate.low, estimate.saturated) == (low, saturated)


def test_scores_without_information_read_zero() -> None:
    generator = Generator().manual_seed(0)
    assert info_nce([torch.zeros(64, 64)], torch.arange(64)[None]).value == 0
    noise = [1e-3 * torch.randn(64, 64, generator=generator) for _ in range(20)]
    estimate = info_nce(noise, all_different(64, 20))
    assert abs(estimate.value) <= 3 * estimate.stderr


def test_both_directions_count_equally() -> None:
    scores = next(gaussian_scores(2, 32, 1))
    torch.testing.assert_close(contributions(scores), contributions(scores.T))
    rows = torch.diagonal(scores.log_softmax(dim=1)) + math.log(32)
    columns = torch.diagonal(scores.log_softmax(dim=0)) + math.log(32)
    torch.testing.assert_close(contributions(scores), (rows + columns) / 2)


def test_the_rounds_of_an_item_are_averaged_before_the_standard_error() -> None:
    once = from_contributions(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([5, 8, 9]), k=64)
    often = from_contributions(torch.tensor([1.0, 2.0, 4.0, 1.0, 2.0, 4.0]), torch.tensor([5, 8, 9, 5, 8, 9]), k=64)
    assert often == once
    assert once.stderr == pytest.approx(torch.tensor([1.0, 2.0, 4.0]).std().item() / 3**0.5)


@pytest.mark.parametrize("temperature", [0.03, 0.2, 5.0])
def test_the_fitted_temperature_undoes_a_wrong_one(temperature: float) -> None:
    similarities = [temperature * scores for scores in gaussian_scores(2, 128, 16)]
    assert fit_temperature(similarities, trained_at=0.2, items=16 * 128) == pytest.approx(temperature, rel=0.1)


def test_the_fitted_temperature_flattens_scores_that_say_nothing() -> None:
    similarities = [-torch.eye(64)]
    temperature = fit_temperature(similarities, trained_at=0.2, items=64)
    assert temperature > 900
    assert contributions(similarities[0] / temperature).mean().item() == pytest.approx(0, abs=0.002)


def test_a_few_items_told_apart_do_not_make_the_critic_sure_of_all() -> None:
    similarities = [torch.tensor([[0.6, 0.4], [0.3, 0.5]])]  # no mistake, so that the colder the better
    few, many = (fit_temperature(similarities, trained_at=0.2, items=items) for items in (2, 100_000))
    assert 0.05 < few < 0.2
    assert many < 0.03


def test_candidates_of_a_batch_are_distinct_and_each_round_uses_each_item_at_most_once() -> None:
    batches = list(candidate_batches(items=70, k=32, rounds=5, generator=Generator().manual_seed(0)))
    assert len(batches) == 10
    assert all(len(batch.unique()) == 32 for batch in batches)
    assert all(len(torch.cat(batches[i : i + 2]).unique()) == 64 for i in range(0, 10, 2))
    assert len(torch.cat(batches).unique()) == 70
