import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Generator, Tensor

from ml import spec, tasks
from ml.tasks import Features
from ml.tasks.localization import ridge

TASK = spec.Localization(kind="localization")


def features_of(train: Tensor, train_places: Tensor, test: Tensor, test_places: Tensor) -> Features:
    return Features(train, train_places, test, test_places, classes=0)


def test_ridge_is_scikit_learns() -> None:
    generator = Generator().manual_seed(0)
    x, y = torch.randn(60, 7, generator=generator) + 3, 20 * torch.rand(60, 2, generator=generator)
    weights, biases = ridge(x, y)
    reference = Ridge(alpha=1.0).fit(x.double().numpy(), y.double().numpy())
    torch.testing.assert_close(weights.T, torch.from_numpy(reference.coef_), rtol=0, atol=1e-9)
    torch.testing.assert_close(biases, torch.from_numpy(reference.intercept_), rtol=0, atol=1e-9)


def test_more_features_than_items_are_no_obstacle() -> None:
    generator = Generator().manual_seed(0)
    x, y = torch.randn(20, 100, generator=generator), torch.rand(20, 2, generator=generator)
    weights, _ = ridge(x, y)
    reference = Ridge(alpha=1.0).fit(x.double().numpy(), y.double().numpy())
    torch.testing.assert_close(weights.T, torch.from_numpy(reference.coef_), rtol=0, atol=1e-9)


@pytest.mark.parametrize("labels", [None, 200])
def test_places_that_are_linear_in_the_features_are_found(labels: int | None) -> None:
    generator = Generator().manual_seed(0)
    places = 14 + 36 * torch.rand(1000, 2, generator=generator)
    x = places @ torch.randn(2, 5, generator=generator) + 3
    x = torch.cat((x, torch.full((1000, 1), 0.3)), dim=1)  # a feature that never moves
    score, _ = tasks.evaluate(
        TASK.model_copy(update={"labels": labels}),
        features_of(x[:800], places[:800], x[800:], places[800:]),
        Generator().manual_seed(0),
    )
    assert score.metric == "pixels"
    assert score.value < 0.2  # nothing but the penalty's pull towards the mean
    assert score.chance == pytest.approx(36 * 0.38260, abs=4 * 36 * 0.1424 / 200**0.5)


def test_features_without_information_score_what_the_mean_place_scores() -> None:
    """The mean distance of a uniform point from the centre of a unit square is (sqrt(2) + asinh(1)) / 6, its deviation .142."""
    generator = Generator().manual_seed(0)
    x, places = torch.randn(4000, 4, generator=generator), torch.rand(4000, 2, generator=generator)
    score, _ = tasks.evaluate(TASK, features_of(x[:2000], places[:2000], x[2000:], places[2000:]), Generator().manual_seed(0))
    error = 0.1424 / 2000**0.5
    assert score.chance == pytest.approx((2**0.5 + torch.asinh(torch.tensor(1.0)).item()) / 6, abs=4 * error)
    assert score.value == pytest.approx(score.chance, abs=4 * error)
    assert score.ci == pytest.approx((score.value - 1.96 * error, score.value + 1.96 * error), abs=0.2 * error)


def test_held_out_places_are_not_looked_at() -> None:
    generator = Generator().manual_seed(0)
    places = torch.rand(100, 2, generator=generator)
    honest = features_of(places[:50], places[:50], places[50:], places[50:])
    moved = features_of(places[:50], places[:50], places[50:], places[50:] + torch.tensor([3.0, 4.0]))
    scores = [tasks.evaluate(TASK, features, Generator().manual_seed(0))[0] for features in (honest, moved)]
    assert scores[1].value == pytest.approx(5, abs=2 * scores[0].value)
