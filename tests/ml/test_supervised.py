import math

import pytest
import torch
from torch import Generator, Tensor

from ml import encoders, spec, supervised
from ml.encoders import PixelEncoder, Standardise
from ml.mi import Estimate
from ml.mi.probe import Answers, Classes, log_frequencies
from ml.supervised import Reference, Triple, missing, train

FAST = spec.Pretrain(steps=180, batch_size=64, learning_rate=1e-2)


def answers(chance: float, y: Tensor, generator: Generator) -> Answers:
    """Of one who sees a bit flipped by this chance, and knows by which."""
    seen = torch.where(torch.rand(len(y), generator=generator) < chance, 1 - y, y)
    logits = torch.tensor([[1 - chance, chance], [chance, 1 - chance]]).log()[seen]
    return Answers(*logits.chunk(2))


def test_what_views_miss_of_a_bit_is_known() -> None:
    """x shows it right but one time in a hundred, v1 as x, v2 one in ten: I(x; y) = .637 and I(v2; y) = .368."""
    generator = Generator().manual_seed(0)
    y = torch.arange(40_000) % 2
    of_x, of_v2 = (answers(chance, y, generator) for chance in (0.01, 0.1))
    found = missing(of_x, of_x, of_v2, Classes(*y.chunk(2), log_frequencies(y, 2)), steps=7)
    assert found is not None
    known = {chance: math.log(2) + chance * math.log(chance) + (1 - chance) * math.log(1 - chance) for chance in (0.01, 0.1)}
    assert found.x.value == pytest.approx(known[0.01], abs=3 * found.x.stderr)
    assert found.v2.value == pytest.approx(known[0.1], abs=3 * found.v2.stderr)
    assert (found.missing_v1.value, found.missing_v1.stderr) == (0, 0)
    assert found.missing_v2.value == pytest.approx(known[0.01] - known[0.1], abs=3 * found.missing_v2.stderr)
    assert found.missing_v2.kind == "neither"
    assert found.accuracy == pytest.approx(0.99, abs=0.003)
    assert (found.holds, found.steps) == (False, 7)


@pytest.mark.parametrize(("items", "chance", "holds"), [(20_000, 0.1, False), (20_000, 0.02, True)])
def test_the_constraint_holds_within_the_error_or_a_twentieth_of_a_nat(items: int, chance: float, holds: bool) -> None:
    generator = Generator().manual_seed(0)
    y = torch.arange(items) % 2
    of_x, of_view = answers(0.05 if chance == 0.1 else 0.01, y, generator), answers(chance, y, generator)
    found = missing(of_x, of_x, of_view, Classes(*y.chunk(2), log_frequencies(y, 2)), steps=1)
    assert found is not None and found.holds is holds


def test_two_more_mistakes_of_twenty_are_within_the_error() -> None:
    """Where 2 items of 20 lose a each, the mean is a / 10, and 2 standard errors are 2 a sqrt(.1 * .9 / 19) = .138 a."""
    y = torch.arange(40) % 2

    def mistaken(places: list[int]) -> Answers:
        seen = y.clone()
        for place in places:
            seen[[place, place + 20]] = 1 - seen[[place, place + 20]]
        return Answers(*torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()[seen].chunk(2))

    found = missing(mistaken([0]), mistaken([0]), mistaken([0, 5, 10]), Classes(*y.chunk(2), log_frequencies(y, 2)), steps=1)
    assert found is not None and found.holds
    assert found.missing_v2.value > supervised.TOLERATED


@pytest.mark.parametrize(("probed", "weak"), [(0.55, True), (0.35, False)])
def test_a_reference_that_tells_less_than_the_probe_says_so(probed: float, weak: bool) -> None:
    """It is wrong one time in ten, and tells .368 nats of the bit."""
    y = torch.arange(20_000) % 2
    of_x = answers(0.1, y, Generator().manual_seed(0))
    classes = Classes(*y.chunk(2), log_frequencies(y, 2))
    found = missing(of_x, of_x, of_x, classes, steps=3, probed=Estimate(probed, 0.01, "lower"))
    assert found is not None and (found.x.caution is not None) is weak
    assert not weak or "after 3 steps it tells less than the encoders' probe, 0.55 nats" in str(found.x.caution)


def test_a_training_that_came_to_no_numbers_says_nothing() -> None:
    y = torch.arange(40) % 2
    right, broken = Answers(*torch.zeros(40, 2).chunk(2)), Answers(*torch.full((40, 2), math.nan).chunk(2))
    classes = Classes(*y.chunk(2), log_frequencies(y, 2))
    assert missing(right, right, right, classes, steps=1) is not None
    assert missing(right, broken, right, classes, steps=1) is None


@pytest.mark.parametrize(
    ("pretrain", "items", "labelled", "known"),
    [
        (spec.Pretrain(steps=300, batch_size=256), 1078, 1078, 50),  # a sixth
        (spec.Pretrain(epochs=100, batch_size=256), 50_000, 50_000, 19500 // 6),
        (spec.Pretrain(steps=10_000, batch_size=256), 1078, 1078, 20 * 9),  # 20 epochs of 9 batches
        (spec.Pretrain(steps=10_000, batch_size=64), 1078, 100, 20 * 4),
        (spec.Pretrain(steps=3, batch_size=256), 1078, 1078, 1),
    ],
)
def test_the_reference_is_trained_for_a_share_of_the_pretraining(
    pretrain: spec.Pretrain, items: int, labelled: int, known: int
) -> None:
    assert supervised.steps(pretrain, items, labelled) == known


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    """Noise that is brighter at the left or at the right, and which of them it is."""
    generator = Generator().manual_seed(0)
    y = torch.randint(2, (600,), generator=generator)
    images = torch.randn(600, 1, 8, 8, generator=generator)
    ramp = torch.linspace(-1, 1, 8)
    return images + torch.where(y[:, None] == 1, ramp, -ramp)[:, None, None], y


def fresh(count: int = 1) -> list[PixelEncoder]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        standardise = Standardise(torch.zeros(1), torch.ones(1))
        return [PixelEncoder(encoders.build(spec.SmallConv(width=4), 1), standardise) for _ in range(count)]


def trained(pictures: tuple[Tensor, Tensor], steps: int = 30) -> tuple[Reference, list[Tensor]]:
    """With v1 = x and v2 pure noise, on the first 400; and which items were drawn."""
    images, y = pictures
    generator, drawn = Generator().manual_seed(0), []

    def draw(items: Tensor) -> Triple:
        drawn.append(items)
        return (images[items],), (images[items],), (torch.randn(images[items].shape, generator=generator),)

    reference = Reference(fresh(), draw(torch.arange(2)), {"side": 2})
    drawn.clear()
    assert sum(1 for _ in train(reference, FAST, steps, torch.arange(400), {"side": y}, draw, generator)) == steps
    return reference, drawn


def test_undisturbed_views_are_read_exactly_as_the_item_and_noise_tells_nothing(pictures: tuple[Tensor, Tensor]) -> None:
    images, y = pictures
    reference, _ = trained(pictures)
    noise = torch.randn(200, 1, 8, 8, generator=Generator().manual_seed(2))
    with torch.no_grad():
        logits = reference(((images[400:],), (images[400:],), (noise,)))["side"]
    assert torch.equal(logits[0], logits[1])
    of_x, of_v1, of_v2 = (Answers(*part.chunk(2)) for part in logits)
    found = missing(of_x, of_v1, of_v2, Classes(*y[400:].chunk(2), log_frequencies(y[:400], 2)), steps=30)
    assert found is not None
    assert found.accuracy > 0.9 and found.x.value > 0.4
    assert (found.missing_v1.value, found.missing_v1.stderr) == (0, 0)
    assert abs(found.v2.value) <= 3 * found.v2.stderr + 0.02
    assert found.missing_v2.value == pytest.approx(found.x.value - found.v2.value)
    assert not found.holds


def test_an_epoch_sees_each_labelled_item_at_most_once_and_no_other(pictures: tuple[Tensor, Tensor]) -> None:
    _, drawn = trained(pictures, steps=24)
    assert [len(items) for items in drawn] == [32] * 24
    assert all(len(torch.cat(drawn[epoch : epoch + 12]).unique()) == 12 * 32 for epoch in (0, 12))
    assert torch.cat(drawn).max() < 400


def test_the_same_chances_train_the_same_reference(pictures: tuple[Tensor, Tensor]) -> None:
    first, again = (trained(pictures, steps=5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_of_two_kinds_the_item_is_both_and_each_view_its_own() -> None:
    v1, v2 = torch.zeros(5, 1, 8, 8), torch.ones(5, 1, 8, 8)
    reference = Reference(fresh(2), ((v1, v2), (v1,), (v2,)), {"side": 2, "colour": 3})
    assert [network.heads["side"].in_features for network in reference.networks] == [32, 16, 16]
    logits = reference(((v1, v2), (v1,), (v2,)))
    assert {target: tuple(said.shape) for target, said in logits.items()} == {"side": (3, 5, 2), "colour": (3, 5, 3)}
    assert not logits["colour"].any()  # untrained heads say nothing
