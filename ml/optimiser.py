"""AdamW, SGD and LARS: rates by step, what checkpoints keep of them, the average of what they train, and when it diverged."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ml.spec import Pretrain


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


def build(network: nn.Module, pretrain: Pretrain) -> Optimizer:
    """Of all that the network trains; weight decay on all weights but those of norms, and not on biases."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]  # norms and biases
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": pretrain.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if pretrain.optimiser == "sgd":
        return SGD(groups, lr=0.0, momentum=pretrain.momentum)
    if pretrain.optimiser == "lars":
        return LARS(groups, pretrain.momentum)
    return AdamW(groups, fused=True)


def set_rate(optimiser: Optimizer, rate: float) -> None:
    """Of the next step, for all parameters."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def learning_rate(pretrain: Pretrain, step: int, steps: int) -> float:
    """Linear from 0 to the peak in the warm-up's share of the steps, then half a cosine down to 0."""
    assert pretrain.learning_rate is not None, "a resolved spec has it"
    peak, warmup = pretrain.learning_rate, round(pretrain.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


def finite(loss: Tensor, step: int) -> float:
    """The loss after so many steps. Raises Diverged."""
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value} after {step} steps; a lower learning rate or a higher temperature may help")
    return value


def moments(optimiser: Optimizer, name: str) -> dict[str, Tensor]:
    """What the optimiser remembers of each parameter, under names that begin with `name`."""
    states = optimiser.state_dict()["state"].items()
    return {f"{name}.{index}.{moment}": tensor for index, state in states for moment, tensor in state.items()}


def restore(optimiser: Optimizer, tensors: Mapping[str, Tensor], name: str) -> None:
    """Let the optimiser remember what `moments` gave of one like it."""
    states: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        if key.startswith(f"{name}."):
            index, _, moment = key.removeprefix(f"{name}.").partition(".")
            like = parameters[int(index)]
            # A fused optimiser goes through memory in order, so moments must lie as their parameter does.
            states.setdefault(int(index), {})[moment] = torch.empty_like(like).copy_(tensor) if tensor.ndim else tensor
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})


class LARS(Optimizer):
    """SGD with momentum whose step in each layer's weights is in proportion to their norm.

    You, Gitman, Ginsburg 2017, algorithm 1. Norms and biases take the plain step, as in Chen et al. 2020.
    """

    TRUST = 0.001

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure`, which others need, is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["weight_decay"], group["momentum"])
        return None

    def _move(self, weights: Tensor, rate: float, decay: float, momentum: float) -> None:
        assert weights.grad is not None, "the caller looked"
        gradient = weights.grad.add(weights, alpha=decay)
        if weights.ndim > 1:
            norm, against = weights.norm(), weights.grad.norm() + decay * weights.norm()
            gradient.mul_(torch.where((norm > 0) & (against > 0), self.TRUST * norm / against, 1.0))
        if "momentum_buffer" not in self.state[weights]:
            self.state[weights]["momentum_buffer"] = torch.zeros_like(weights)
        velocity: Tensor = self.state[weights]["momentum_buffer"]
        weights.sub_(velocity.mul_(momentum).add_(gradient, alpha=rate))


class Average:
    """The exponential moving average of a network's trained weights, and of its batch norms' statistics, which belong to them.

    Polyak, Juditsky 1992. The first steps keep less, (1 + step) / (10 + step), or else random weights would count for long.
    """

    def __init__(self, network: nn.Module, keep: float) -> None:
        statistics = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._live: list[Tensor] = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._live += [moment for norm in statistics for moment in (norm.running_mean, norm.running_var) if moment is not None]
        self._keep = keep
        self.weights = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """The optimiser has made this step, counted from 0."""
        torch._foreach_lerp_(self.weights, self._live, 1 - min(self._keep, (1 + step) / (10 + step)))

    @torch.no_grad()
    def install(self) -> None:
        """Let the network have the average for its weights."""
        for live, average in zip(self._live, self.weights, strict=True):
            live.copy_(average)
