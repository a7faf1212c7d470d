import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Generator, Tensor

from ml.mi import infonce
from ml.mi.split import Split, contributions, of_one_class, split

Batches = Iterator[tuple[Tensor, Tensor]]
"""Of scores and of classes."""


def read(batches: Batches, calibrated_on: int = 4) -> Split:
    """Both parts with temperatures of their own, from the first few batches, on the others."""
    calibrating = [next(batches) for _ in range(calibrated_on)]
    pairs = sum(len(scores) for scores, _ in calibrating)
    blocks = [block for scores, y in calibrating for _, block in of_one_class(scores, y)]
    temperature = infonce.fit_temperature([scores for scores, _ in calibrating], 1.0, pairs)
    within = infonce.fit_temperature(blocks, 1.0, pairs)
    read: list[tuple[Tensor, ...]] = []
    for scores, y in batches:
        which, nuisance, log_candidates = contributions(scores / within, y)
        read.append((infonce.contributions(scores / temperature)[which], nuisance, log_candidates))
    total, nuisance, log_candidates = (torch.cat(part) for part in zip(*read, strict=True))
    return split(total, nuisance, log_candidates, k=len(scores))


def flipped_bits(k: int = 512, batches: int = 44, chance: float = 0.1) -> Batches:
    """A fair bit y, which each view shows wrongly by this chance: scores are log p(v2 | v1) / p(v2)."""
    generator = Generator().manual_seed(0)
    same = (1 - chance) ** 2 + chance**2
    for _ in range(batches):
        y = torch.randint(2, (k,), generator=generator)
        v1, v2 = (torch.where(torch.rand(k, generator=generator) < chance, 1 - y, y) for _ in range(2))
        yield torch.where(v1[:, None] == v2[None, :], math.log(2 * same), math.log(2 * (1 - same))), y


def clusters(nats: float, k: int = 512, batches: int = 24, classes: int = 10, d: int = 4) -> Batches:
    """Classes far apart, within which the views are Gaussians that share -d/2 log(1 - rho^2): exact scores."""
    generator = Generator().manual_seed(0)
    variance = math.exp(-2 * nats / d)
    rho = math.sqrt(1 - variance)
    for _ in range(batches):
        y = torch.randint(classes, (k,), generator=generator)
        x, noise = torch.randn(2, k, d, generator=generator, dtype=torch.float64)
        z = rho * x + math.sqrt(variance) * noise
        squares = (z[None, :] - rho * x[:, None]).square().sum(dim=2)
        within = -d / 2 * math.log(variance) - squares / (2 * variance) + z.square().sum(dim=1) / 2
        yield torch.where(y[:, None] == y[None, :], math.log(classes) + within, -300.0), y


def of_shared_class(k: int, classes: int) -> float:
    """What InfoNCE reads of a shared class at best: E[log K - log(1 + Bin(K - 1, 1 / C))]."""
    others = np.arange(k)
    return math.log(k) - float(binom.pmf(others, k - 1, 1 / classes) @ np.log1p(others))


def test_a_fair_bit_seen_through_noise_is_all_task() -> None:
    """Total .222 = log 2 - H(.82), nuisance 0: given the bit, the views are independent."""
    known = math.log(2) + 0.82 * math.log(0.82) + 0.18 * math.log(0.18)
    assert known == pytest.approx(0.222, abs=5e-4)
    found = read(flipped_bits())
    assert found.total.value == pytest.approx(known, abs=3 * found.total.stderr + 0.002)
    assert abs(found.nuisance.value) <= 3 * found.nuisance.stderr + 0.001
    assert found.task.value == pytest.approx(known, abs=3 * found.task.stderr + 0.002)
    assert found.nuisance.log_k == pytest.approx(math.log(256), abs=0.01)


def test_a_critic_that_knows_the_class_alone_needs_a_temperature_of_its_own_to_read_no_nuisance() -> None:
    """At the total's temperature it would punish pairs for what tells nothing within a class."""
    scores, y = next(flipped_bits(batches=1))
    assert contributions(scores, y)[1].mean().item() < -0.05


@pytest.mark.parametrize(("k", "classes"), [(64, 10), (512, 10), (512, 100)])
def test_views_that_share_a_class_and_no_more_share_no_nuisance(k: int, classes: int) -> None:
    def batches() -> Batches:
        generator = Generator().manual_seed(0)
        for _ in range(24):
            y = torch.randint(classes, (k,), generator=generator)
            yield torch.where(y[:, None] == y[None, :], math.log(classes), -100.0), y

    found = read(batches())
    assert found.nuisance.value == pytest.approx(0, abs=1e-9)
    assert found.task.value == pytest.approx(of_shared_class(k, classes), abs=4 * found.task.stderr)


@pytest.mark.parametrize("nats", [0.3, 1.0])
def test_within_classes_far_apart_the_nuisance_is_what_the_gaussians_share(nats: float) -> None:
    found = read(clusters(nats))
    assert nats - 0.04 - 3 * found.nuisance.stderr <= found.nuisance.value <= nats + 3 * found.nuisance.stderr
    assert found.task.value == pytest.approx(of_shared_class(512, 10), abs=4 * found.task.stderr + 0.01)
    assert found.total.value <= nats + math.log(10) + 3 * found.total.stderr


def test_at_both_ceilings_the_task_part_still_reads_the_class() -> None:
    found = read(clusters(nats=30.0))
    assert found.total.saturated and found.nuisance.saturated
    assert found.total.value == pytest.approx(math.log(512), abs=0.01)
    assert found.task.value == pytest.approx(of_shared_class(512, 10), abs=4 * found.task.stderr + 0.01)
    assert found.task.caution is not None and "total and nuisance" in found.task.caution


def test_contributions_are_those_of_a_softmax_over_the_own_class() -> None:
    generator = Generator().manual_seed(0)
    scores, y = torch.randn(40, 40, generator=generator), torch.randint(-1, 4, (40,), generator=generator)
    which, found, log_candidates = contributions(scores, y)
    assert sorted(which.tolist()) == (y >= 0).nonzero()[:, 0].tolist()  # -1 is no class, and no class's stranger
    for i, value, log_k in zip(which.tolist(), found.tolist(), log_candidates.tolist(), strict=True):
        own = [j for j in range(40) if y[j] == y[i]]
        forward = scores[i, i].exp() / scores[i, own].exp().sum()
        backward = scores[i, i].exp() / scores[own, i].exp().sum()
        assert log_k == pytest.approx(math.log(len(own)))
        assert value == pytest.approx(log_k + (forward.log().item() + backward.log().item()) / 2, abs=1e-5)


def test_a_pair_alone_in_its_class_tells_nothing_and_a_batch_without_classes_has_no_parts() -> None:
    scores = torch.randn(3, 3, generator=Generator().manual_seed(0))
    assert contributions(scores, torch.arange(3))[1].tolist() == [0, 0, 0]
    assert [len(part) for part in contributions(scores, torch.full((3,), -1))] == [0, 0, 0]


def test_the_task_part_is_exactly_the_difference_and_its_error_is_that_of_the_pairs() -> None:
    total, nuisance = torch.tensor([[2.0, 2.5, 3.0, 3.1], [0.5, 1.1, 1.5, 1.5]], dtype=torch.float64)
    found = split(total, nuisance, torch.full_like(total, 6.0), k=4096)
    assert found.task.value == found.total.value - found.nuisance.value
    assert found.task.stderr == pytest.approx((total - nuisance).std().item() / 2)
    assert found.task.stderr < found.total.stderr  # what moves both says nothing of their difference
    assert (found.total.kind, found.nuisance.kind, found.task.kind) == ("lower", "lower", "neither")
    assert found.task.caution is None


def test_flags_of_the_nuisance_part_go_by_the_candidates_of_a_class() -> None:
    values = torch.tensor([1.5, 1.7], dtype=torch.float64)
    found = split(values + 1, values, torch.full_like(values, 2.5), k=4096)
    assert (found.nuisance.log_k, found.nuisance.low, found.nuisance.saturated) == (2.5, True, True)
    assert not found.total.low
    assert found.task.caution is not None and "nuisance" in found.task.caution and "total" not in found.task.caution
