import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Generator, Tensor

from ml.mi.probe import Answers, Classes, contributions, estimate, linear, log_frequencies


def halved(logits: Tensor, y: Tensor, frequencies: Tensor) -> tuple[Answers, Classes]:
    """Half of the items to calibrate, the others to read."""
    half = len(y) // 2
    return Answers(logits[:half], logits[half:]), Classes(y[:half], y[half:], frequencies)


def flipped_bits(items: int, chance: float = 0.1) -> tuple[Tensor, Tensor]:
    """Log odds of a fair bit, exact for one that was flipped by this chance, and the bit."""
    generator = Generator().manual_seed(0)
    y = torch.randint(2, (items,), generator=generator)
    v = torch.where(torch.rand(items, generator=generator) < chance, 1 - y, y)
    return torch.tensor([[1 - chance, chance], [chance, 1 - chance]]).log()[v], y


@pytest.mark.parametrize("sureness", [0.2, 1.0, 30.0])
def test_a_bit_seen_through_noise_is_known_by_368_thousandths_of_a_nat(sureness: float) -> None:
    """I(v; y) = log 2 - H(.1), whatever the sureness of the answers before they are calibrated."""
    logits, y = flipped_bits(20_000)
    known = math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9)
    assert known == pytest.approx(0.368, abs=5e-4)
    found = estimate(contributions(*halved(sureness * logits, y, log_frequencies(y, 2))))
    assert found.value == pytest.approx(known, abs=3 * found.stderr)
    assert found.kind == "lower" and 0 < found.stderr < 0.01


def test_logistic_regression_reaches_what_a_gaussian_tells_of_a_bit() -> None:
    """v = N(+-1, 1): I(v; y) by numerical integration; the family holds the truth, so that the bound is tight."""
    known = quad(lambda v: norm.pdf(v, 1) * (math.log(2) - math.log1p(math.exp(-2 * v))), -9, 11)[0]
    generator = Generator().manual_seed(0)
    y = torch.arange(12_000) % 2
    v = torch.randn(12_000, 3, generator=generator)  # two of three features say nothing
    v[:, 1] += 2 * y - 1
    logits = linear(v[:4000], y[:4000], v[4000:], classes=2)
    found = estimate(contributions(*halved(logits, y[4000:], log_frequencies(y[:4000], 2))))
    assert found.value == pytest.approx(known, abs=3 * found.stderr)


@pytest.mark.parametrize("sureness", [0.0, 1.0, 20.0])
def test_answers_that_know_nothing_read_zero_also_of_uneven_classes(sureness: float) -> None:
    generator = Generator().manual_seed(0)
    y = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 8000, replacement=True, generator=generator)
    logits = sureness * torch.randn(8000, 3, generator=generator)
    answers, classes = halved(logits, y, log_frequencies(y, 3))
    assert abs(estimate(contributions(answers, classes)).value) <= 0.002
    entropy = -sum(share * math.log(share) for share in (0.7, 0.2, 0.1))
    assert classes.entropy() == pytest.approx(entropy, abs=0.02)


def test_all_there_is_to_know_is_the_entropy() -> None:
    y = torch.arange(4000) % 4
    answers, classes = halved(30.0 * torch.eye(4)[y], y, log_frequencies(y, 4))
    found = estimate(contributions(answers, classes))
    assert found.value == pytest.approx(math.log(4), abs=1e-6)
    assert found.value <= classes.entropy()


def test_a_few_right_answers_do_not_make_it_sure_of_all() -> None:
    """Three items without a mistake would have it as sure as may be; of the others a third is wrong."""
    y = torch.zeros(303, dtype=torch.long)
    logits = torch.tensor([2.0, -2.0]).repeat(303, 1)
    y[3::3] = 1
    found = estimate(contributions(Answers(logits[:3], logits[3:]), Classes(y[:3], y[3:], log_frequencies(y, 2))))
    assert -3 < found.value < 0


def test_no_class_is_impossible_for_being_absent() -> None:
    frequencies = log_frequencies(torch.tensor([0, 0, 1]), classes=3)
    torch.testing.assert_close(frequencies.exp(), torch.tensor([3, 2, 1], dtype=torch.float64) / 6)


def test_a_feature_that_never_moves_in_training_is_ignored() -> None:
    generator = Generator().manual_seed(0)
    x, y = torch.randn(60, 2, generator=generator), torch.arange(60) % 2
    x[:40, 1], x[40:, 1] = 0.3, 9.0
    alone = linear(x[:40, :1], y[:40], x[40:, :1], classes=2)
    torch.testing.assert_close(linear(x[:40], y[:40], x[40:], classes=2), alone, atol=1e-4, rtol=0)
