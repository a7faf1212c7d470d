import pytest
import torch
from torch import Tensor, nn

from ml import encoders, methods, spec
from ml.methods import Setting
from ml.optimiser import LARS, Average, build, set_rate


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


def stepped(optimiser: torch.optim.Optimizer, trained: nn.Module, rate: float = 0.1, steps: int = 1) -> None:
    set_rate(optimiser, rate)
    for step in range(steps):
        optimiser.zero_grad()
        trained(torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimiser.step()


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_norms_and_biases_do_not_decay(kind: str) -> None:
    trained = network()
    optimiser = build(trained, spec.Pretrain(optimiser=kind, weight_decay=0.5))
    decays = {id(weights): group["weight_decay"] for group in optimiser.param_groups for weights in group["params"]}
    for name, weights in trained.named_parameters():
        assert decays[id(weights)] == (0.5 if name in ("0.weight", "3.weight") else 0)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_what_only_follows_is_not_trained(kind: str) -> None:
    encoder = encoders.build(spec.SmallConv(width=4), 3)
    moco = spec.MoCo(kind="moco", queue=8, temperature=0.2, head="mlp")
    method = methods.build(moco, Setting([encoder], [16], 20, spec.Augment(kind="augment")))
    trained = {id(weights) for group in build(method, spec.Pretrain(optimiser=kind)).param_groups for weights in group["params"]}
    followers = {id(weights) for weights in method.get_submodule("key_networks").parameters()}
    assert not trained & followers
    assert trained | followers == {id(weights) for weights in method.parameters()}


def test_lars_takes_the_steps_of_the_paper() -> None:
    """Algorithm 1 of You et al. 2017, in double precision and by hand."""
    trained = network().double()
    groups = [
        {"params": [weights for weights in trained.parameters() if weights.ndim > 1], "weight_decay": 0.01},
        {"params": [weights for weights in trained.parameters() if weights.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = LARS(groups, momentum=0.9)
    set_rate(optimiser, 2.0)
    by_hand = {name: weights.detach().clone() for name, weights in trained.named_parameters()}
    velocities: dict[str, Tensor] = {name: torch.zeros_like(weights) for name, weights in by_hand.items()}
    for step in range(3):
        optimiser.zero_grad()
        images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        trained(images).square().sum().backward()
        for name, weights in trained.named_parameters():
            assert weights.grad is not None
            decay = 0.01 if weights.ndim > 1 else 0.0
            norm = by_hand[name].norm()
            local = 0.001 * norm / (weights.grad.norm() + decay * norm) if weights.ndim > 1 else 1.0
            velocities[name] = 0.9 * velocities[name] + 2.0 * local * (weights.grad + decay * by_hand[name])
            by_hand[name] = by_hand[name] - velocities[name]
        optimiser.step()
    for name, weights in trained.named_parameters():
        torch.testing.assert_close(weights.detach(), by_hand[name])


def test_lars_leaves_weights_of_nought_to_the_plain_step() -> None:
    layer = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(layer.weight)
    optimiser = LARS([{"params": [layer.weight]}], momentum=0.0)
    set_rate(optimiser, 0.5)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 3), -0.5))


def test_sgd_has_its_momentum() -> None:
    ours, reference = network(), network()
    theirs = torch.optim.SGD(reference.parameters(), lr=0.01, momentum=0.8)
    stepped(build(ours, spec.Pretrain(optimiser="sgd", momentum=0.8, weight_decay=0)), ours, rate=0.01, steps=3)
    stepped(theirs, reference, rate=0.01, steps=3)
    torch.testing.assert_close(list(ours.parameters()), list(reference.parameters()))


def test_the_average_weighs_steps_exponentially_and_the_first_ones_less() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = Average(layer, keep=0.5)
    expected = layer.weight.item()
    for step, value in enumerate((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)):
        layer.weight.data.fill_(value)
        average.follow(step)
        keep = (1 + step) / (10 + step) if step < 8 else 0.5  # from step 8 on, 9 / 18 is all that is asked for
        expected = keep * expected + (1 - keep) * value
    assert layer.weight.item() == 10
    average.install()
    assert layer.weight.item() == pytest.approx(expected)


def test_the_average_has_the_statistics_that_belong_to_its_weights() -> None:
    trained = network()
    average = Average(trained, keep=0.5)
    statistics = trained.get_submodule("1").running_mean
    assert isinstance(statistics, Tensor)
    statistics.fill_(4.0)
    average.follow(100)
    statistics.fill_(9.0)
    average.install()
    torch.testing.assert_close(statistics, torch.full((4,), 2.0))
